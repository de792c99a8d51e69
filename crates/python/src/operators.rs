//! Operators of `bullet_core.Tensor`, and what Python makes of it: numbers, truth, buffers.

use std::ffi::c_int;

use bullet_ops::{Kind, Map};
use bullet_tensor::{Result, Tensor};
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::ffi::Py_buffer;
use pyo3::prelude::*;
use pyo3::pyclass::CompareOp;
use pyo3::types::{PyComplex, PyNotImplemented};

use crate::operand::Operand;
use crate::tensor::{PyTensor, once};
use crate::{buffer, error, index, interrupt};

/// A binary operator: `NotImplemented` for what is no operand, so that the other side is asked.
fn binary<'py>(
    tensor: &Bound<'py, PyTensor>,
    other: &Bound<'py, PyAny>,
    f: impl FnOnce(&Tensor, &Tensor) -> Result<Tensor> + Send,
) -> PyResult<Bound<'py, PyAny>> {
    binary_beside(tensor, other, Operand::beside, f)
}

/// As [`binary`], of an operand that becomes a tensor by `beside`.
fn binary_beside<'py>(
    tensor: &Bound<'py, PyTensor>,
    other: &Bound<'py, PyAny>,
    beside: impl FnOnce(Operand, &Tensor) -> PyResult<Tensor>,
    f: impl FnOnce(&Tensor, &Tensor) -> Result<Tensor> + Send,
) -> PyResult<Bound<'py, PyAny>> {
    let py = tensor.py();
    let Some(other) = operand(other)? else { return Ok(PyNotImplemented::get(py).to_owned().into_any()) };
    let tensor = tensor.get().tensor();
    let other = beside(other, &tensor)?;
    Ok(Bound::new(py, once(py, &[&tensor, &other], || f(&tensor, &other))?)?.into_any())
}

/// A second operand, if it is one.
fn operand(other: &Bound<'_, PyAny>) -> PyResult<Option<Operand>> {
    match other.extract::<Operand>() {
        Ok(other) => Ok(Some(other)),
        Err(e) if e.is_instance_of::<PyTypeError>(other.py()) => Ok(None),
        Err(e) => Err(e),
    }
}

impl PyTensor {
    /// An operator that overwrites this.
    fn overwrite(&self, py: Python<'_>, op: Map, other: Operand) -> PyResult<()> {
        let tensor = self.tensor();
        let other = index::assigned(other, &tensor)?;
        interrupt::detached(py, || tensor.assign_op(op, &other))?.map_err(error::exception)
    }

    /// The one element as a Python number, or NumPy's error.
    fn scalar<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let tensor = self.tensor();
        if tensor.numel() != 1 {
            return Err(PyTypeError::new_err("only length-1 arrays can be converted to Python scalars"));
        }
        index::item(py, &tensor)
    }
}

#[pymethods]
impl PyTensor {
    /// NumPy's arrays are no operands: without this NumPy would take tensors for arrays, and `tensor += array` would make an
    /// array of the tensor.
    #[classattr]
    fn __array_ufunc__(py: Python<'_>) -> Py<PyAny> {
        py.None()
    }

    fn __add__<'py>(slf: &Bound<'py, Self>, other: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        binary(slf, other, Tensor::add)
    }

    fn __radd__<'py>(slf: &Bound<'py, Self>, other: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        binary(slf, other, |t, other| other.add(t))
    }

    fn __iadd__(&self, py: Python<'_>, other: Operand) -> PyResult<()> {
        self.overwrite(py, Map::Add, other)
    }

    fn __sub__<'py>(slf: &Bound<'py, Self>, other: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        binary(slf, other, Tensor::sub)
    }

    fn __rsub__<'py>(slf: &Bound<'py, Self>, other: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        binary(slf, other, |t, other| other.sub(t))
    }

    fn __isub__(&self, py: Python<'_>, other: Operand) -> PyResult<()> {
        self.overwrite(py, Map::Sub, other)
    }

    fn __mul__<'py>(slf: &Bound<'py, Self>, other: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        binary(slf, other, Tensor::mul)
    }

    fn __rmul__<'py>(slf: &Bound<'py, Self>, other: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        binary(slf, other, |t, other| other.mul(t))
    }

    fn __imul__(&self, py: Python<'_>, other: Operand) -> PyResult<()> {
        self.overwrite(py, Map::Mul, other)
    }

    fn __truediv__<'py>(slf: &Bound<'py, Self>, other: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        binary_beside(slf, other, Operand::beside_divided, Tensor::div)
    }

    fn __rtruediv__<'py>(slf: &Bound<'py, Self>, other: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        binary_beside(slf, other, Operand::beside_divided, |t, other| other.div(t))
    }

    fn __itruediv__(&self, py: Python<'_>, other: Operand) -> PyResult<()> {
        self.overwrite(py, Map::Div, other)
    }

    fn __floordiv__<'py>(slf: &Bound<'py, Self>, other: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        binary(slf, other, Tensor::floor_divide)
    }

    fn __rfloordiv__<'py>(slf: &Bound<'py, Self>, other: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        binary(slf, other, |t, other| other.floor_divide(t))
    }

    fn __ifloordiv__(&self, py: Python<'_>, other: Operand) -> PyResult<()> {
        self.overwrite(py, Map::FloorDivide, other)
    }

    fn __mod__<'py>(slf: &Bound<'py, Self>, other: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        binary(slf, other, Tensor::remainder)
    }

    fn __rmod__<'py>(slf: &Bound<'py, Self>, other: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        binary(slf, other, |t, other| other.remainder(t))
    }

    fn __imod__(&self, py: Python<'_>, other: Operand) -> PyResult<()> {
        self.overwrite(py, Map::Remainder, other)
    }

    fn __and__<'py>(slf: &Bound<'py, Self>, other: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        binary(slf, other, Tensor::bitwise_and)
    }

    fn __rand__<'py>(slf: &Bound<'py, Self>, other: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        binary(slf, other, |t, other| other.bitwise_and(t))
    }

    fn __iand__(&self, py: Python<'_>, other: Operand) -> PyResult<()> {
        self.overwrite(py, Map::BitwiseAnd, other)
    }

    fn __or__<'py>(slf: &Bound<'py, Self>, other: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        binary(slf, other, Tensor::bitwise_or)
    }

    fn __ror__<'py>(slf: &Bound<'py, Self>, other: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        binary(slf, other, |t, other| other.bitwise_or(t))
    }

    fn __ior__(&self, py: Python<'_>, other: Operand) -> PyResult<()> {
        self.overwrite(py, Map::BitwiseOr, other)
    }

    fn __xor__<'py>(slf: &Bound<'py, Self>, other: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        binary(slf, other, Tensor::bitwise_xor)
    }

    fn __rxor__<'py>(slf: &Bound<'py, Self>, other: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        binary(slf, other, |t, other| other.bitwise_xor(t))
    }

    fn __ixor__(&self, py: Python<'_>, other: Operand) -> PyResult<()> {
        self.overwrite(py, Map::BitwiseXor, other)
    }

    fn __lshift__<'py>(slf: &Bound<'py, Self>, other: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        binary(slf, other, Tensor::bitwise_left_shift)
    }

    fn __rlshift__<'py>(slf: &Bound<'py, Self>, other: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        binary(slf, other, |t, other| other.bitwise_left_shift(t))
    }

    fn __ilshift__(&self, py: Python<'_>, other: Operand) -> PyResult<()> {
        self.overwrite(py, Map::BitwiseLeftShift, other)
    }

    fn __rshift__<'py>(slf: &Bound<'py, Self>, other: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        binary(slf, other, Tensor::bitwise_right_shift)
    }

    fn __rrshift__<'py>(slf: &Bound<'py, Self>, other: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        binary(slf, other, |t, other| other.bitwise_right_shift(t))
    }

    fn __irshift__(&self, py: Python<'_>, other: Operand) -> PyResult<()> {
        self.overwrite(py, Map::BitwiseRightShift, other)
    }

    fn __pow__<'py>(
        slf: &Bound<'py, Self>,
        other: &Bound<'py, PyAny>,
        modulo: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        match modulo {
            None => binary(slf, other, Tensor::pow),
            Some(_) => Err(PyTypeError::new_err("pow() of tensors takes no modulus")),
        }
    }

    fn __rpow__<'py>(
        slf: &Bound<'py, Self>,
        other: &Bound<'py, PyAny>,
        _modulo: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        binary(slf, other, |t, other| other.pow(t))
    }

    fn __ipow__(&self, py: Python<'_>, other: Operand, _modulo: Option<&Bound<'_, PyAny>>) -> PyResult<()> {
        let tensor = self.tensor();
        if let Operand::Int(exponent) = other
            && exponent < 0
            && !tensor.dtype().is_float()
        {
            return Err(PyValueError::new_err("Integers to negative integer powers are not allowed."));
        }
        self.overwrite(py, Map::Pow, other)
    }

    fn __matmul__<'py>(slf: &Bound<'py, Self>, other: &Bound<'py, PyTensor>) -> PyResult<PyTensor> {
        let other = other.get().tensor();
        slf.get().map(slf.py(), |t| t.product(&other))
    }

    fn __rmatmul__<'py>(slf: &Bound<'py, Self>, other: &Bound<'py, PyTensor>) -> PyResult<PyTensor> {
        let other = other.get().tensor();
        slf.get().map(slf.py(), |t| other.product(t))
    }

    fn __imatmul__(&self, py: Python<'_>, other: &Bound<'_, PyTensor>) -> PyResult<()> {
        let tensor = self.tensor();
        let other = index::assigned(Operand::Tensor(other.get().tensor()), &tensor)?;
        interrupt::detached(py, || {
            let product = tensor.product(&other)?;
            if product.shape() != tensor.shape() || product.dtype() != tensor.dtype() {
                return Err(bullet_ops::Error::shape(format!(
                    "the product, {} of shape {}, does not fit {} of shape {}",
                    product.dtype(),
                    product.shape(),
                    tensor.dtype(),
                    tensor.shape()
                ))
                .into());
            }
            tensor.copy_(&product)
        })?
        .map_err(error::exception)
    }

    fn __richcmp__<'py>(
        slf: &Bound<'py, Self>,
        other: &Bound<'py, PyAny>,
        op: CompareOp,
    ) -> PyResult<Bound<'py, PyAny>> {
        let py = slf.py();
        let Some(other) = operand(other)? else { return Ok(PyNotImplemented::get(py).to_owned().into_any()) };
        let tensor = slf.get().tensor();
        let other = other.beside_compared(&tensor)?;
        let compare = match op {
            CompareOp::Lt => Tensor::lt,
            CompareOp::Le => Tensor::le,
            CompareOp::Eq => Tensor::eq,
            CompareOp::Ne => Tensor::ne,
            CompareOp::Gt => Tensor::gt,
            CompareOp::Ge => Tensor::ge,
        };
        Ok(Bound::new(py, once(py, &[&tensor, &other], || compare(&tensor, &other))?)?.into_any())
    }

    fn __neg__(&self, py: Python<'_>) -> PyResult<PyTensor> {
        self.map(py, Tensor::neg)
    }

    fn __pos__(&self, py: Python<'_>) -> PyResult<PyTensor> {
        self.map(py, Tensor::copy)
    }

    fn __abs__(&self, py: Python<'_>) -> PyResult<PyTensor> {
        self.map(py, Tensor::abs)
    }

    fn __invert__(&self, py: Python<'_>) -> PyResult<PyTensor> {
        self.map(py, Tensor::bitwise_invert)
    }

    fn __contains__(&self, py: Python<'_>, value: Operand) -> PyResult<bool> {
        let tensor = self.tensor();
        let value = value.beside_compared(&tensor)?;
        let found = interrupt::detached(py, || tensor.detach().eq(&value)?.any(&[], false)?.item())?
            .map_err(error::exception)?;
        Ok(found != 0.0)
    }

    fn __bool__(&self, py: Python<'_>) -> PyResult<bool> {
        if self.tensor().numel() != 1 {
            return Err(PyValueError::new_err(
                "The truth value of an array with other than one element is ambiguous. Use a.any() or a.all()",
            ));
        }
        self.scalar(py)?.is_truthy()
    }

    fn __float__(&self, py: Python<'_>) -> PyResult<f64> {
        self.scalar(py)?.extract()
    }

    fn __complex__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyComplex>> {
        Ok(PyComplex::from_doubles(py, self.__float__(py)?, 0.0))
    }

    fn __int__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        py.import("builtins")?.call_method1("int", (self.scalar(py)?,))
    }

    fn __index__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let tensor = self.tensor();
        if tensor.dtype().kind() != Kind::Int || tensor.rank() != 0 {
            return Err(PyTypeError::new_err(
                "only integer scalar arrays can be converted to a scalar index",
            ));
        }
        index::item(py, &tensor)
    }

    /// # Safety
    /// Python calls it with a view to be filled.
    unsafe fn __getbuffer__(slf: Bound<'_, Self>, view: *mut Py_buffer, flags: c_int) -> PyResult<()> {
        // SAFETY: by the promise of who calls this.
        unsafe { buffer::fill(slf, view, flags) }
    }

    /// # Safety
    /// Python calls it with a view that `__getbuffer__` has filled.
    unsafe fn __releasebuffer__(&self, view: *mut Py_buffer) {
        // SAFETY: by the promise of who calls this.
        unsafe { buffer::release(view) }
    }
}
