//! Second operands: tensors, and Python's numbers, which take the dtype of the tensor beside them where they can
//! (NumPy's rule since 2.0: NEP 50).

use bullet_ops::Kind;
use bullet_tensor::{DType, Tensor};
use pyo3::exceptions::{PyOverflowError, PyTypeError};
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyFloat, PyInt};

use crate::error;
use crate::tensor::PyTensor;

/// A tensor, or a number.
pub(crate) enum Operand {
    Tensor(Tensor),
    Bool(bool),
    Int(i64),
    Float(f64),
}

impl<'a, 'py> FromPyObject<'a, 'py> for Operand {
    type Error = PyErr;

    fn extract(object: Borrowed<'a, 'py, PyAny>) -> PyResult<Operand> {
        if let Ok(tensor) = object.cast::<PyTensor>() {
            return Ok(Operand::Tensor(tensor.get().tensor()));
        }
        if let Ok(value) = object.cast::<PyBool>() {
            return Ok(Operand::Bool(value.is_true()));
        }
        if object.is_instance_of::<PyInt>() {
            return object.extract().map(Operand::Int);
        }
        if object.is_instance_of::<PyFloat>() {
            return object.extract().map(Operand::Float);
        }
        // NumPy's scalars that are no Python numbers have a dtype and an item.
        if object.hasattr("dtype")?
            && object.getattr("ndim").is_ok_and(|n| n.extract::<usize>().is_ok_and(|n| n == 0))
        {
            let item = object.call_method0("item")?;
            if !item.hasattr("dtype")? {
                return item.extract();
            }
        }
        Err(PyTypeError::new_err(format!("expected a tensor or a number, got {}", object.get_type())))
    }
}

impl Operand {
    /// A tensor to be combined with `beside`.
    pub(crate) fn beside(self, beside: &Tensor) -> PyResult<Tensor> {
        let dtype = beside.dtype();
        let (value, dtype) = match self {
            Operand::Tensor(tensor) => return Ok(tensor),
            Operand::Bool(value) => (f64::from(u8::from(value)), DType::Bool),
            Operand::Int(value) => {
                let dtype = if dtype == DType::Bool { DType::I64 } else { dtype };
                if dtype.kind() == Kind::Int {
                    return integer(value, dtype, beside);
                }
                (value as f64, dtype)
            }
            Operand::Float(value) => (value, if dtype.is_float() { dtype } else { DType::F64 }),
        };
        Tensor::full(value, &[], dtype, beside.device()).map_err(error::exception)
    }

    /// Its value as a number; of a tensor, that of its one element.
    pub(crate) fn number(&self) -> PyResult<f64> {
        match self {
            Operand::Tensor(tensor) => tensor.item().map_err(error::exception),
            Operand::Bool(value) => Ok(f64::from(u8::from(*value))),
            Operand::Int(value) => Ok(*value as f64),
            Operand::Float(value) => Ok(*value),
        }
    }
}

/// An integer of an integer dtype, exactly.
fn integer(value: i64, dtype: DType, beside: &Tensor) -> PyResult<Tensor> {
    let (low, high) = match dtype {
        DType::U8 => (0, i64::from(u8::MAX)),
        DType::U16 => (0, i64::from(u16::MAX)),
        DType::U32 => (0, i64::from(u32::MAX)),
        // Of larger ones a Python integer is no i64 any more.
        DType::U64 => (0, i64::MAX),
        DType::I8 => (i64::from(i8::MIN), i64::from(i8::MAX)),
        DType::I16 => (i64::from(i16::MIN), i64::from(i16::MAX)),
        DType::I32 => (i64::from(i32::MIN), i64::from(i32::MAX)),
        DType::I64 | DType::Bool | DType::F16 | DType::BF16 | DType::F32 | DType::F64 => (i64::MIN, i64::MAX),
    };
    if !(low..=high).contains(&value) {
        return Err(PyOverflowError::new_err(format!("Python integer {value} out of bounds for {dtype}")));
    }
    let wide = Tensor::scalar(value, beside.device()).map_err(error::exception)?;
    if dtype == DType::I64 { Ok(wide) } else { wide.cast(dtype).map_err(error::exception) }
}
