//! Second operands: tensors, and Python's numbers, which take the dtype of the tensor beside them where they can
//! (NumPy's rule since 2.0: NEP 50).

use std::ops::RangeInclusive;

use bullet_ops::Kind;
use bullet_tensor::{DType, Device, Tensor};
use pyo3::exceptions::{PyOverflowError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyFloat, PyInt};

use crate::dtype::numpy_name;
use crate::error;
use crate::tensor::PyTensor;

/// A tensor, or a number.
pub(crate) enum Operand {
    Tensor(Tensor),
    Bool(bool),
    /// Of any size that i128 has; tensors hold 64 bits, with or without a sign.
    Int(i128),
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
            return match object.extract::<i64>() {
                Ok(value) => Ok(Operand::Int(value.into())),
                Err(_) => object.extract::<i128>().map(Operand::Int).map_err(|_| {
                    PyOverflowError::new_err("Python integer out of bounds: it has more than 127 bits")
                }),
            };
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
        match self {
            Operand::Tensor(tensor) => Ok(tensor),
            number => number.like(beside.dtype(), beside.device()),
        }
    }

    /// As [`Operand::beside`], to be compared with it: an integer that the other's dtype does not hold compares all the same.
    pub(crate) fn beside_compared(self, beside: &Tensor) -> PyResult<Tensor> {
        let dtype = beside.dtype();
        match self {
            Operand::Int(value) if dtype.kind() == Kind::Int && !range(dtype).contains(&value) => {
                // What is left of the exact order is on which side of all its numbers it is.
                let far = if value < 0 { f64::NEG_INFINITY } else { f64::INFINITY };
                float(far, DType::F64, beside.device())
            }
            other => other.beside(beside),
        }
    }

    /// As [`Operand::beside`], to divide by or be divided: of integers the quotient is float64, and so is any number.
    pub(crate) fn beside_divided(self, beside: &Tensor) -> PyResult<Tensor> {
        match self {
            Operand::Int(value)
                if beside.dtype().kind() == Kind::Int && !range(beside.dtype()).contains(&value) =>
            {
                float(value as f64, DType::F64, beside.device())
            }
            other => other.beside(beside),
        }
    }

    /// As [`Operand::beside`], as a bound of its elements: beyond all numbers of its dtype the last of them bounds as well.
    pub(crate) fn beside_bounded(self, beside: &Tensor) -> PyResult<Tensor> {
        match self {
            Operand::Int(value) if beside.dtype().kind() == Kind::Int => {
                let range = range(beside.dtype());
                integer(value.clamp(*range.start(), *range.end()), beside.dtype(), beside.device())
            }
            other => other.beside(beside),
        }
    }

    /// Refuses what an element of `dtype` cannot become without being another number: integers out of range, and of floats
    /// those without an integer near.
    pub(crate) fn check_fits(&self, dtype: DType) -> PyResult<()> {
        if dtype.kind() != Kind::Int {
            return Ok(());
        }
        match *self {
            Operand::Int(value) if !range(dtype).contains(&value) => Err(out_of_bounds(value, dtype)),
            Operand::Float(value) if value.is_nan() => {
                Err(PyValueError::new_err("cannot convert float NaN to integer"))
            }
            Operand::Float(value) if value.is_infinite() => {
                Err(PyOverflowError::new_err("cannot convert float infinity to integer"))
            }
            // Of this size every float is an integer; smaller ones are exact as i128.
            Operand::Float(value) if !range(dtype).contains(&(value as i128)) => {
                Err(out_of_bounds(value as i128, dtype))
            }
            Operand::Tensor(_) | Operand::Bool(_) | Operand::Int(_) | Operand::Float(_) => Ok(()),
        }
    }

    /// The tensor without axes that this is beside tensors of `dtype`.
    pub(crate) fn like(&self, dtype: DType, device: &Device) -> PyResult<Tensor> {
        match *self {
            Operand::Tensor(ref tensor) => Ok(tensor.clone()),
            Operand::Bool(value) => float(f64::from(u8::from(value)), DType::Bool, device),
            Operand::Int(value) => match dtype.kind() {
                Kind::Bool => integer(value, DType::I64, device),
                Kind::Int => integer(value, dtype, device),
                Kind::Float => float(value as f64, dtype, device),
            },
            Operand::Float(value) => float(value, if dtype.is_float() { dtype } else { DType::F64 }, device),
        }
    }

    /// The dtype that it has alone.
    pub(crate) fn own_dtype(&self) -> DType {
        match self {
            Operand::Tensor(tensor) => tensor.dtype(),
            Operand::Bool(_) => DType::Bool,
            Operand::Int(_) => DType::I64,
            Operand::Float(_) => DType::F32,
        }
    }

    /// The dtype of a result of it and something of `dtype`.
    pub(crate) fn dtype_beside(&self, dtype: DType) -> DType {
        match self {
            Operand::Tensor(tensor) => tensor.dtype().promote(dtype),
            Operand::Bool(_) => dtype,
            Operand::Int(_) if dtype == DType::Bool => DType::I64,
            Operand::Int(_) => dtype,
            Operand::Float(_) if dtype.is_float() => dtype,
            Operand::Float(_) => DType::F64,
        }
    }

    /// Its value as a number; of a tensor, that of its one element.
    pub(crate) fn number(&self) -> PyResult<f64> {
        match self {
            Operand::Tensor(tensor) => {
                crate::interrupt::attached(|py| py.detach(|| tensor.item())).map_err(error::exception)
            }
            Operand::Bool(value) => Ok(f64::from(u8::from(*value))),
            Operand::Int(value) => Ok(*value as f64),
            Operand::Float(value) => Ok(*value),
        }
    }
}

/// The integers that a dtype holds.
pub(crate) fn range(dtype: DType) -> RangeInclusive<i128> {
    let bits = 8 * dtype.size() as u32;
    if dtype.is_unsigned() { 0..=(1 << bits) - 1 } else { -(1 << (bits - 1))..=(1 << (bits - 1)) - 1 }
}

/// An integer of an integer dtype, exactly.
pub(crate) fn integer(value: i128, dtype: DType, device: &Device) -> PyResult<Tensor> {
    if !range(dtype).contains(&value) {
        return Err(out_of_bounds(value, dtype));
    }
    // f64 holds integers of 53 bits; beyond, the bits are written, for which a GPU is waited for.
    const EXACT: i128 = 1 << 53;
    match dtype {
        DType::U64 if value > EXACT => Tensor::scalar(value as u64, device),
        DType::I64 if !(-EXACT..=EXACT).contains(&value) => Tensor::scalar(value as i64, device),
        _ => Tensor::constant(value as f64, dtype, device),
    }
    .map_err(error::exception)
}

fn out_of_bounds(value: i128, dtype: DType) -> PyErr {
    PyOverflowError::new_err(format!("Python integer {value} out of bounds for {}", numpy_name(dtype)))
}

fn float(value: f64, dtype: DType, device: &Device) -> PyResult<Tensor> {
    Tensor::constant(value, dtype, device).map_err(error::exception)
}

/// Two operands as tensors: a number takes the dtype of the tensor beside it.
pub(crate) fn pair(a: Operand, b: Operand) -> PyResult<(Tensor, Tensor)> {
    paired(a, b, Operand::beside)
}

/// As [`pair`], of operands that are compared.
pub(crate) fn compared(a: Operand, b: Operand) -> PyResult<(Tensor, Tensor)> {
    paired(a, b, Operand::beside_compared)
}

/// As [`pair`], of a dividend and a divisor.
pub(crate) fn divided(a: Operand, b: Operand) -> PyResult<(Tensor, Tensor)> {
    paired(a, b, Operand::beside_divided)
}

/// Two operands, a number as `beside` makes it of the tensor beside it.
fn paired(
    a: Operand,
    b: Operand,
    beside: impl Fn(Operand, &Tensor) -> PyResult<Tensor>,
) -> PyResult<(Tensor, Tensor)> {
    match (a, b) {
        (Operand::Tensor(a), b) => {
            let b = beside(b, &a)?;
            Ok((a, b))
        }
        (a, Operand::Tensor(b)) => Ok((beside(a, &b)?, b)),
        _ => Err(PyTypeError::new_err("expected a tensor, got two numbers")),
    }
}
