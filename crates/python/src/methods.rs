//! Methods of `bullet_core.Tensor` that NumPy's arrays have, and that are functions here as well: reductions, scans, order.
//!
//! NumPy's own functions call them: `np.sum(t)` is `t.sum(axis=None, dtype=None, out=None)`.

use bullet_tensor::{Result, Tensor};
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyTuple};

use crate::dtype::AnyDType;
use crate::functions::reduce::{Axes, Scan, freedom, scan, summands, summed};
use crate::functions::{elementwise, order, reduce, shape};
use crate::operand::Operand;
use crate::tensor::{PyTensor, unlocked};
use crate::{error, index, interrupt};

/// Refuses an array to write results to.
fn no_out(out: Option<&Bound<'_, PyAny>>) -> PyResult<()> {
    match out {
        None => Ok(()),
        Some(_) => {
            Err(PyTypeError::new_err("out is not supported: results are new tensors; use t[...] = result"))
        }
    }
}

/// Defines reductions that take a dtype, and others that don't.
macro_rules! reductions {
    (sums: $($sum:ident: $sum_doc:literal),*; others: $($name:ident: $doc:literal),* $(,)?) => {
        #[pymethods]
        impl PyTensor {
            $(
                #[doc = $sum_doc]
                #[pyo3(signature = (axis = None, dtype = None, out = None, *, keepdims = false))]
                fn $sum(&self, py: Python<'_>, axis: Option<Axes>, dtype: Option<AnyDType>, out: Option<&Bound<'_, PyAny>>, keepdims: bool) -> PyResult<PyTensor> {
                    no_out(out)?;
                    self.map(py, |t| summed(reduce::over(&summands(t, dtype)?, axis, keepdims, Tensor::$sum)?, dtype))
                }
            )*
            $(
                #[doc = $doc]
                #[pyo3(signature = (axis = None, out = None, *, keepdims = false))]
                fn $name(&self, py: Python<'_>, axis: Option<Axes>, out: Option<&Bound<'_, PyAny>>, keepdims: bool) -> PyResult<PyTensor> {
                    no_out(out)?;
                    self.reduce(py, axis, keepdims, Tensor::$name)
                }
            )*
        }
    };
}
reductions! {
    sums:
    sum: "Sum over axes; over all without `axis`.",
    prod: "Product over axes; over all without `axis`.",
    mean: "Mean over axes; over all without `axis`.";
    others:
    max: "Largest element over axes; over all without `axis`.",
    min: "Smallest element over axes; over all without `axis`.",
    all: "Whether no element over axes is zero; over all without `axis`.",
    any: "Whether an element over axes is not zero; over all without `axis`.",
}

/// A scan along an axis, along the flattened tensor without.
fn scanned(
    slf: &Bound<'_, PyTensor>,
    axis: Option<isize>,
    dtype: Option<AnyDType>,
    (f, neutral): (Scan, f64),
) -> PyResult<PyTensor> {
    let py = slf.py();
    match axis {
        Some(_) => scan(py, slf, (axis, dtype, false), (f, neutral)),
        None => {
            let flat = slf.get().map(py, |t| t.reshape(&[-1]))?;
            scan(py, &Bound::new(py, flat)?, (Some(0), dtype, false), (f, neutral))
        }
    }
}

#[pymethods]
impl PyTensor {
    /// Index of the largest element along an axis; in the flattened tensor without `axis`.
    #[pyo3(signature = (axis = None, out = None, *, keepdims = false))]
    fn argmax(
        &self,
        py: Python<'_>,
        axis: Option<isize>,
        out: Option<&Bound<'_, PyAny>>,
        keepdims: bool,
    ) -> PyResult<PyTensor> {
        no_out(out)?;
        self.map(py, |t| t.argmax(axis, keepdims))
    }

    /// Index of the smallest element along an axis; in the flattened tensor without `axis`.
    #[pyo3(signature = (axis = None, out = None, *, keepdims = false))]
    fn argmin(
        &self,
        py: Python<'_>,
        axis: Option<isize>,
        out: Option<&Bound<'_, PyAny>>,
        keepdims: bool,
    ) -> PyResult<PyTensor> {
        no_out(out)?;
        self.map(py, |t| t.argmin(axis, keepdims))
    }

    /// Variance over axes, with `correction` (0 by default), or `ddof`, degrees of freedom less than elements.
    #[pyo3(signature = (axis = None, dtype = None, out = None, ddof = None, *, correction = None, keepdims = false))]
    fn var(
        &self,
        py: Python<'_>,
        axis: Option<Axes>,
        dtype: Option<AnyDType>,
        out: Option<&Bound<'_, PyAny>>,
        ddof: Option<f64>,
        correction: Option<f64>,
        keepdims: bool,
    ) -> PyResult<PyTensor> {
        no_out(out)?;
        let correction = freedom(correction, ddof)?;
        let var = |t: &Tensor, axes: &[isize], keepdims| t.var(axes, correction, keepdims);
        self.map(py, |t| summed(reduce::over(&summands(t, dtype)?, axis, keepdims, var)?, dtype))
    }

    /// Standard deviation over axes, with `correction` (0 by default), or `ddof`, degrees of freedom less than elements.
    #[pyo3(signature = (axis = None, dtype = None, out = None, ddof = None, *, correction = None, keepdims = false))]
    fn std(
        &self,
        py: Python<'_>,
        axis: Option<Axes>,
        dtype: Option<AnyDType>,
        out: Option<&Bound<'_, PyAny>>,
        ddof: Option<f64>,
        correction: Option<f64>,
        keepdims: bool,
    ) -> PyResult<PyTensor> {
        let variance = self.var(py, axis, dtype, out, ddof, correction, keepdims)?;
        variance.map(py, Tensor::sqrt)
    }

    /// Running sums along an axis; along the flattened tensor without `axis`.
    #[pyo3(signature = (axis = None, dtype = None, out = None))]
    fn cumsum(
        slf: &Bound<'_, Self>,
        axis: Option<isize>,
        dtype: Option<AnyDType>,
        out: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<PyTensor> {
        no_out(out)?;
        scanned(slf, axis, dtype, (Tensor::cumsum, 0.0))
    }

    /// Running products along an axis; along the flattened tensor without `axis`.
    #[pyo3(signature = (axis = None, dtype = None, out = None))]
    fn cumprod(
        slf: &Bound<'_, Self>,
        axis: Option<isize>,
        dtype: Option<AnyDType>,
        out: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<PyTensor> {
        no_out(out)?;
        scanned(slf, axis, dtype, (Tensor::cumprod, 1.0))
    }

    /// Elements no less than `min` and no more than `max`; either may be None.
    #[pyo3(signature = (min = None, max = None, out = None))]
    fn clip(
        slf: &Bound<'_, Self>,
        min: Option<Operand>,
        max: Option<Operand>,
        out: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<PyTensor> {
        no_out(out)?;
        elementwise::clip(slf.py(), slf, min, max)
    }

    /// Each element rounded to so many decimals, ties to even.
    #[pyo3(signature = (decimals = 0, out = None))]
    fn round(slf: &Bound<'_, Self>, decimals: i32, out: Option<&Bound<'_, PyAny>>) -> PyResult<PyTensor> {
        no_out(out)?;
        elementwise::round(slf.py(), slf, decimals)
    }

    #[pyo3(signature = (ndigits = None))]
    fn __round__<'py>(slf: &Bound<'py, Self>, ndigits: Option<i32>) -> PyResult<Bound<'py, PyAny>> {
        Ok(Bound::new(slf.py(), elementwise::round(slf.py(), slf, ndigits.unwrap_or(0))?)?.into_any())
    }

    fn __format__(slf: &Bound<'_, Self>, spec: &str) -> PyResult<String> {
        if spec.is_empty() {
            return slf.str()?.extract();
        }
        let (py, tensor) = (slf.py(), slf.get().tensor());
        if tensor.rank() > 0 {
            return Err(PyTypeError::new_err(format!(
                "'{spec}' is a format of one number, this has shape {}; format its elements, or t.round(n)",
                tensor.shape()
            )));
        }
        py.import("builtins")?.call_method1("format", (index::item(py, &tensor)?, spec))?.extract()
    }

    fn __divmod__<'py>(slf: &Bound<'py, Self>, other: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyTuple>> {
        PyTuple::new(slf.py(), [slf.floor_div(other)?, slf.rem(other)?])
    }

    fn __rdivmod__<'py>(slf: &Bound<'py, Self>, other: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyTuple>> {
        PyTuple::new(slf.py(), [other.floor_div(slf)?, other.rem(slf)?])
    }

    /// Puts its elements in order along an axis, in place; the function `sort` makes a new tensor.
    #[pyo3(signature = (axis = -1, *, descending = false, stable = true))]
    fn sort(&self, py: Python<'_>, axis: isize, descending: bool, stable: bool) -> PyResult<()> {
        let _ = stable;
        let tensor = self.tensor();
        let sorted = self.map(py, |t| t.detach().sort(axis, descending))?.tensor();
        interrupt::detached(py, || tensor.copy_(&sorted))?.map_err(error::exception)
    }

    /// The indices that put its elements in order along an axis: see the function `sort`.
    #[pyo3(signature = (axis = -1, *, descending = false, stable = true))]
    fn argsort(&self, py: Python<'_>, axis: isize, descending: bool, stable: bool) -> PyResult<PyTensor> {
        let _ = stable;
        self.map(py, |t| t.argsort(axis, descending))
    }

    /// The indices of the elements that are not zero: a tensor for each axis.
    fn nonzero<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyTuple>> {
        order::nonzero(slf.py(), slf)
    }

    /// Slices along an axis at indices; elements of the flattened tensor without `axis`.
    #[pyo3(signature = (indices, axis = None))]
    fn take(slf: &Bound<'_, Self>, indices: &Bound<'_, PyAny>, axis: Option<isize>) -> PyResult<PyTensor> {
        order::take(slf.py(), slf, indices, axis)
    }

    /// Elements several times in a row along an axis; of the flattened tensor without `axis`.
    #[pyo3(signature = (repeats, axis = None))]
    fn repeat(slf: &Bound<'_, Self>, repeats: shape::Repeats, axis: Option<isize>) -> PyResult<PyTensor> {
        shape::repeat(slf.py(), slf, repeats, axis)
    }

    /// The product with another tensor: `@`, and with a number `*`.
    fn dot<'py>(slf: &Bound<'py, Self>, other: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        let one = |x: &Bound<'_, PyAny>| match x.cast::<PyTensor>() {
            Ok(tensor) => tensor.get().tensor().rank() == 0,
            Err(_) => true,
        };
        if one(slf) || one(other) { slf.mul(other) } else { slf.matmul(other) }
    }

    /// The elements along one axis: a view where that is possible.
    fn ravel(&self, py: Python<'_>) -> PyResult<PyTensor> {
        self.map(py, |t| t.reshape(&[-1]))
    }

    /// A copy of the elements along one axis.
    fn flatten(&self, py: Python<'_>) -> PyResult<PyTensor> {
        self.map(py, |t| -> Result<Tensor> {
            let flat = t.reshape(&[-1])?;
            if flat.shares_memory(t) { flat.copy() } else { Ok(flat) }
        })
    }

    /// A view with two axes exchanged.
    fn swapaxes(&self, py: Python<'_>, axis1: isize, axis2: isize) -> PyResult<PyTensor> {
        self.map(py, |t| t.transpose(axis1, axis2))
    }

    /// Overwrites every element with a number.
    fn fill(slf: Bound<'_, Self>, value: Operand) -> PyResult<()> {
        PyTensor::fill_(slf, value).map(drop)
    }

    /// The bytes of the elements, in row-major order.
    fn tobytes<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        let tensor = self.tensor();
        crate::interop::before_copy(py, &tensor)?;
        let bytes = interrupt::detached(py, || tensor.to_bytes())?.map_err(error::exception)?;
        Ok(PyBytes::new(py, &bytes))
    }

    /// The complex conjugate of each element: a copy, as there are no complex numbers.
    fn conj(&self, py: Python<'_>) -> PyResult<PyTensor> {
        self.map(py, Tensor::copy)
    }

    /// The real part of each element: itself, as there are no complex numbers.
    #[getter]
    fn real(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    /// The imaginary part of each element: zeros, as there are no complex numbers.
    #[getter]
    fn imag(&self, py: Python<'_>) -> PyResult<PyTensor> {
        let tensor = self.tensor();
        unlocked(py, || tensor.zeros_like())
    }
}
