//! Python's arguments as those of a kernel.

use bullet_lang::{Element, ParamType, Slot};
use bullet_launch::{Arg, Gradient, Kernel};
use bullet_tensor::{DType, Tensor, grad_enabled};
use half::{bf16, f16};
use pyo3::exceptions::{PyOverflowError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyBool;
use smallvec::SmallVec;

use crate::dtype::numpy_name;
use crate::interop;
use crate::operand::range;
use crate::tensor::PyTensor;

/// An array of the kernel language: a tensor, whose last axes are the scalars of an element, and the gradient it asked for.
#[pyclass(name = "Array", module = "bullet_core._core._lang", subclass, frozen, weakref)]
pub(super) struct PyArray {
    pub(super) tensor: Tensor,
    pub(super) gradient: Option<Gradient>,
}

#[pymethods]
impl PyArray {
    #[new]
    #[pyo3(signature = (tensor, requires_grad = false, of = None, records = false))]
    fn new(
        tensor: &Bound<'_, PyTensor>,
        requires_grad: bool,
        of: Option<&Bound<'_, PyArray>>,
        records: bool,
    ) -> PyResult<PyArray> {
        let tensor = tensor.get().tensor().detach();
        if requires_grad && !records && !tensor.dtype().is_float() {
            return Err(PyTypeError::new_err(format!(
                "only arrays of floats can require gradients, not of {}",
                numpy_name(tensor.dtype())
            )));
        }
        let gradient = match of {
            Some(of) => of.get().gradient.clone(),
            None => requires_grad.then(Gradient::default),
        };
        Ok(PyArray { tensor, gradient })
    }

    /// The tensor over the same memory.
    #[getter]
    fn tensor(&self) -> PyTensor {
        PyTensor::new(self.tensor.clone())
    }

    #[getter]
    fn requires_grad(&self) -> bool {
        self.gradient.is_some()
    }

    /// The gradient, over memory of its own; `None` before there is one.
    #[getter]
    fn _gradient(&self) -> Option<PyTensor> {
        self.gradient.as_ref()?.of(&self.tensor).map(PyTensor::new)
    }

    fn _zero_gradient(&self) -> PyResult<()> {
        self.gradient.as_ref().map_or(Ok(()), Gradient::zero).map_err(super::exception)
    }
}

/// The arguments of a launch, one for each parameter of the IR, and the gradients that they asked for.
#[derive(Default)]
pub(super) struct Args {
    pub(super) args: Vec<Arg>,
    pub(super) gradients: Vec<Option<Gradient>>,
    /// Which are memory of another library's, known as a tensor to this launch alone.
    pub(super) foreign: Vec<bool>,
}

impl Args {
    /// Of what Python gives for the parameters of the source.
    pub(super) fn of<'a, 'py: 'a>(
        kernel: &Kernel,
        given: impl Iterator<Item = &'a Bound<'py, PyAny>>,
        count: usize,
    ) -> PyResult<Args> {
        let signature = kernel.signature();
        if count != signature.len() {
            let names: Vec<&str> = signature.iter().map(|(name, _)| name.as_str()).collect();
            return Err(PyTypeError::new_err(format!(
                "kernel `{}` takes {} arguments ({}), got {count} in inputs and outputs",
                kernel.name(),
                names.len(),
                names.join(", ")
            )));
        }
        let mut args = Args::default();
        for ((name, ty), value) in signature.iter().zip(given) {
            args.push(ty, value).map_err(|error| named(value.py(), error, name, kernel.name()))?;
        }
        Ok(args)
    }

    fn push(&mut self, ty: &ParamType, value: &Bound<'_, PyAny>) -> PyResult<()> {
        match ty {
            ParamType::Value(element) if element.dims.is_empty() => {
                let bits = scalar(element.dtype, value)?;
                self.scalar(bits);
            }
            ParamType::Value(element) => {
                let mut bits = SmallVec::<[u64; 16]>::new();
                scalars(element, value, &mut bits)?;
                if bits.len() != element.lanes() {
                    return Err(PyValueError::new_err(format!(
                        "a {} takes {} numbers, got {}",
                        element.name,
                        element.lanes(),
                        bits.len()
                    )));
                }
                bits.into_iter().for_each(|bits| self.scalar(bits));
            }
            ParamType::Array(element, _) => {
                let (tensor, gradient) = array(element, value)?;
                self.args.push(Arg::Array(tensor));
                self.gradients.push(gradient);
                self.foreign.push(is_foreign(value));
            }
            ParamType::StructArray(record, ndim) => {
                let (bytes, gradient) = records(record, usize::from(*ndim), value)?;
                for slot in ty.slots() {
                    let Slot::Array { dtype, lanes, offset, .. } = slot else { continue };
                    let field = bytes.field(dtype, offset, lanes).map_err(crate::error::exception)?;
                    self.args.push(Arg::Array(field));
                    self.gradients.push(gradient.clone());
                    self.foreign.push(is_foreign(value));
                }
            }
            ParamType::Struct(name, fields) => {
                for (field, ty) in fields {
                    let item = value.getattr(field.as_str()).map_err(|_| {
                        PyTypeError::new_err(format!(
                            "a {name} has a field `{field}`, got {}",
                            value.get_type()
                        ))
                    })?;
                    self.push(ty, &item)?;
                }
            }
        }
        Ok(())
    }

    fn scalar(&mut self, bits: u64) {
        self.args.push(Arg::Scalar(bits));
        self.gradients.push(None);
        self.foreign.push(false);
    }
}

/// The error with the name of the argument before it.
fn named(py: Python<'_>, error: PyErr, name: &str, kernel: &str) -> PyErr {
    let text = format!("argument `{name}` of kernel `{kernel}`: {}", error.value(py));
    if error.is_instance_of::<PyOverflowError>(py) {
        PyOverflowError::new_err(text)
    } else if error.is_instance_of::<PyTypeError>(py) {
        PyTypeError::new_err(text)
    } else if error.is_instance_of::<PyValueError>(py) {
        PyValueError::new_err(text)
    } else {
        error
    }
}

/// The bits of a number in a dtype.
fn scalar(dtype: DType, value: &Bound<'_, PyAny>) -> PyResult<u64> {
    let refuse = |what: &str| {
        Err(PyTypeError::new_err(format!(
            "expected {what} for {}, got {}",
            numpy_name(dtype),
            value.get_type()
        )))
    };
    if dtype.is_float() {
        let Ok(number) = value.extract::<f64>() else { return refuse("a number") };
        let largest = match dtype {
            DType::F16 => f64::from(f16::MAX),
            DType::BF16 | DType::F32 => f64::from(f32::MAX),
            _ => f64::MAX,
        };
        // What is between the largest number and infinity may still round to the largest.
        if number.is_finite() && number.abs() > largest * (1.0 + 1e-7) {
            return Err(PyOverflowError::new_err(format!(
                "{number:e} is out of bounds for {}",
                numpy_name(dtype)
            )));
        }
        return Ok(match dtype {
            DType::F16 => f16::from_f64(number).to_bits().into(),
            DType::BF16 => bf16::from_f64(number).to_bits().into(),
            DType::F32 => (number as f32).to_bits().into(),
            _ => number.to_bits(),
        });
    }
    if let Ok(truth) = value.cast::<PyBool>() {
        return Ok(truth.is_true().into());
    }
    if dtype == DType::Bool {
        let name = value.get_type().name()?;
        return match name.to_cow()?.as_ref() {
            "bool" | "bool_" => Ok(value.is_truthy()?.into()),
            _ => refuse("a bool"),
        };
    }
    let Ok(number) = value.extract::<i128>() else { return refuse("an integer") };
    if !range(dtype).contains(&number) {
        return Err(PyOverflowError::new_err(format!("{number} is out of bounds for {}", numpy_name(dtype))));
    }
    Ok(number as u64)
}

/// The bits of all numbers in a sequence, or in sequences of it.
fn scalars(element: &Element, value: &Bound<'_, PyAny>, out: &mut SmallVec<[u64; 16]>) -> PyResult<()> {
    let items = value.try_iter().map_err(|_| {
        PyTypeError::new_err(format!("expected the numbers of a {}, got {}", element.name, value.get_type()))
    })?;
    for item in items {
        let item = item?;
        // Rows of a matrix are sequences of their own.
        if element.dims.len() > 1 && item.try_iter().is_ok() {
            scalars(element, &item, out)?;
        } else {
            out.push(scalar(element.dtype, &item)?);
        }
        if out.len() > element.lanes() {
            break;
        }
    }
    Ok(())
}

fn is_foreign(value: &Bound<'_, PyAny>) -> bool {
    value.cast::<PyArray>().is_err() && value.cast::<PyTensor>().is_err()
}

/// The bytes of an array of structs, records in the last axis, and the gradient that it asked for.
fn records(
    record: &ParamType,
    ndim: usize,
    value: &Bound<'_, PyAny>,
) -> PyResult<(Tensor, Option<Gradient>)> {
    let ParamType::Struct(name, fields) = record else {
        return Err(PyTypeError::new_err("records are structs"));
    };
    let size = record.layout().0;
    let (tensor, gradient, found) = if let Ok(array) = value.cast::<PyArray>() {
        let found = value.getattr("dtype")?.getattr("__name__").and_then(|name| name.extract::<String>());
        (array.get().tensor.clone(), array.get().gradient.clone(), found.unwrap_or_default())
    } else if value.hasattr("__array_interface__")? && !value.getattr("dtype")?.getattr("fields")?.is_none() {
        let dtype = value.getattr("dtype")?;
        for ((field, _), offset) in fields.iter().zip(record.offsets()) {
            let place = dtype.getattr("fields")?.call_method1("get", (field,))?;
            if place.is_none() || place.get_item(1)?.extract::<usize>()? != offset {
                return Err(PyTypeError::new_err(format!(
                    "expected records with a field `{field}` at byte {offset}, as {name}.numpy_dtype() has it, got {dtype}"
                )));
            }
        }
        let py = value.py();
        let bytes = value.get_item((py.Ellipsis(), py.None()))?.call_method1("view", ("u1",))?;
        (interop::adopt(&bytes)?.tensor(), None, name.clone())
    } else {
        return Err(PyTypeError::new_err(format!(
            "expected an array of {name}, got {}; make one with array(.., dtype={name}), or pass a NumPy array of its \
             numpy_dtype()",
            value.get_type()
        )));
    };
    if found != *name || tensor.rank() != ndim + 1 || tensor.shape().last() != Some(&size) {
        return Err(PyValueError::new_err(format!(
            "expected an array of {name} of {ndim} dimensions, got one of {} of {}",
            if found.is_empty() { "numbers" } else { &found },
            tensor.rank().saturating_sub(1)
        )));
    }
    Ok((tensor, gradient))
}

/// The tensor over the memory of an array, and the gradient that it asked for.
fn array(element: &Element, value: &Bound<'_, PyAny>) -> PyResult<(Tensor, Option<Gradient>)> {
    if let Ok(array) = value.cast::<PyArray>() {
        let array = array.get();
        return Ok((array.tensor.clone(), array.gradient.clone()));
    }
    if let Ok(tensor) = value.cast::<PyTensor>() {
        let tensor = tensor.get().tensor();
        if tensor.is_tracked() && grad_enabled() {
            return Err(PyValueError::new_err(
                "a launch is not on the tape of tensors that require gradients; pass t.detach(), or an array with \
                 requires_grad=True inside a Tape",
            ));
        }
        return Ok((tensor, None));
    }
    if value.hasattr("__array_interface__")? {
        return Ok((interop::adopt(value)?.tensor(), None));
    }
    if value.hasattr("__cuda_array_interface__")? {
        return Ok((interop::adopt_cuda(value)?, None));
    }
    if value.hasattr("__dlpack__")? {
        return Ok((crate::dlpack::import(value)?, None));
    }
    Err(PyTypeError::new_err(format!(
        "expected an array of {}, got {}; make one with array(..), or pass a Tensor or NumPy array",
        element.name,
        value.get_type()
    )))
}
