//! Making tensors: from numbers, lists, arrays, and of constants.

use std::fmt::Display;

use bullet_ops::Kind;
use bullet_tensor::{DType, Device, Distribution, Shape, Tensor};
use pyo3::exceptions::{PyOverflowError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyFloat, PyInt, PyList, PyTuple};

use crate::device::{AnyDevice, chosen};
use crate::dtype::{AnyDType, numpy_name};
use crate::error;
use crate::interop;
use crate::interrupt;
use crate::operand::Operand;
use crate::tensor::{PyTensor, unlocked};
use crate::whole;

/// A shape: a number or a sequence of numbers.
pub(crate) struct Dims(pub(crate) Vec<usize>);

impl<'a, 'py> FromPyObject<'a, 'py> for Dims {
    type Error = PyErr;

    fn extract(object: Borrowed<'a, 'py, PyAny>) -> PyResult<Dims> {
        let signed: Vec<isize> = match object.extract::<isize>() {
            Ok(one) => vec![one],
            Err(_) => object.extract().map_err(|_| {
                PyTypeError::new_err(format!("expected a shape, such as (2, 3), got {}", object.get_type()))
            })?,
        };
        if let Some(negative) = signed.iter().find(|&&d| d < 0) {
            return Err(PyValueError::new_err(format!("negative dimensions are not allowed: {negative}")));
        }
        Ok(Dims(signed.into_iter().map(isize::unsigned_abs).collect()))
    }
}

fn constant(
    py: Python<'_>,
    value: f64,
    shape: &Dims,
    dtype: DType,
    device: Option<AnyDevice>,
) -> PyResult<PyTensor> {
    let device = chosen(device)?;
    unlocked(py, || Tensor::full(value, &shape.0, dtype, &device))
}

/// Zeros of a shape; float32 if no dtype is named.
#[pyfunction]
#[pyo3(signature = (shape, dtype = None, *, device = None))]
pub(crate) fn zeros(
    py: Python<'_>,
    shape: Dims,
    dtype: Option<AnyDType>,
    device: Option<AnyDevice>,
) -> PyResult<PyTensor> {
    constant(py, 0.0, &shape, dtype.map_or(DType::F32, |d| d.0), device)
}

/// Ones of a shape; float32 if no dtype is named.
#[pyfunction]
#[pyo3(signature = (shape, dtype = None, *, device = None))]
pub(crate) fn ones(
    py: Python<'_>,
    shape: Dims,
    dtype: Option<AnyDType>,
    device: Option<AnyDevice>,
) -> PyResult<PyTensor> {
    constant(py, 1.0, &shape, dtype.map_or(DType::F32, |d| d.0), device)
}

/// A tensor of a shape whose elements are to be overwritten; they are zero.
#[pyfunction]
#[pyo3(signature = (shape, dtype = None, *, device = None))]
pub(crate) fn empty(
    py: Python<'_>,
    shape: Dims,
    dtype: Option<AnyDType>,
    device: Option<AnyDevice>,
) -> PyResult<PyTensor> {
    zeros(py, shape, dtype, device)
}

/// One value in every element of a shape; of the dtype that the value alone would have, if none is named.
#[pyfunction]
#[pyo3(signature = (shape, fill_value, dtype = None, *, device = None))]
pub(crate) fn full(
    py: Python<'_>,
    shape: Dims,
    fill_value: Operand,
    dtype: Option<AnyDType>,
    device: Option<AnyDevice>,
) -> PyResult<PyTensor> {
    let dtype = dtype.map_or(fill_value.own_dtype(), |d| d.0);
    filled(py, &shape.0, &fill_value, dtype, &chosen(device)?)
}

/// One value in every element, exactly.
fn filled(
    py: Python<'_>,
    shape: &[usize],
    value: &Operand,
    dtype: DType,
    device: &Device,
) -> PyResult<PyTensor> {
    if let (Operand::Int(value), Kind::Int) = (value, dtype.kind()) {
        // f64 holds no more than 53 bits.
        let value = crate::operand::integer(*value, dtype, device)?;
        return unlocked(py, || value.broadcast_to(shape)?.copy());
    }
    value.check_fits(dtype)?;
    let value = value.number()?;
    unlocked(py, || Tensor::full(value, shape, dtype, device))
}

/// Which shape, dtype and device a tensor has that is made like another one.
fn like(
    x: &Bound<'_, PyTensor>,
    dtype: Option<AnyDType>,
    device: Option<AnyDevice>,
) -> (Shape, DType, Device) {
    let x = x.get().tensor();
    (*x.shape(), dtype.map_or(x.dtype(), |d| d.0), device.map_or_else(|| x.device().clone(), |d| d.0))
}

/// One value in every element, of the shape, dtype and device of another tensor.
#[pyfunction]
#[pyo3(signature = (x, /, fill_value, dtype = None, *, device = None))]
pub(crate) fn full_like(
    py: Python<'_>,
    x: &Bound<'_, PyTensor>,
    fill_value: Operand,
    dtype: Option<AnyDType>,
    device: Option<AnyDevice>,
) -> PyResult<PyTensor> {
    let (shape, dtype, device) = like(x, dtype, device);
    filled(py, &shape, &fill_value, dtype, &device)
}

/// Zeros of the shape, dtype and device of another tensor.
#[pyfunction]
#[pyo3(signature = (x, /, dtype = None, *, device = None))]
pub(crate) fn zeros_like(
    py: Python<'_>,
    x: &Bound<'_, PyTensor>,
    dtype: Option<AnyDType>,
    device: Option<AnyDevice>,
) -> PyResult<PyTensor> {
    full_like(py, x, Operand::Int(0), dtype, device)
}

/// Ones of the shape, dtype and device of another tensor.
#[pyfunction]
#[pyo3(signature = (x, /, dtype = None, *, device = None))]
pub(crate) fn ones_like(
    py: Python<'_>,
    x: &Bound<'_, PyTensor>,
    dtype: Option<AnyDType>,
    device: Option<AnyDevice>,
) -> PyResult<PyTensor> {
    full_like(py, x, Operand::Int(1), dtype, device)
}

/// A tensor of the shape, dtype and device of another, whose elements are to be overwritten; they are zero.
#[pyfunction]
#[pyo3(signature = (x, /, dtype = None, *, device = None))]
pub(crate) fn empty_like(
    py: Python<'_>,
    x: &Bound<'_, PyTensor>,
    dtype: Option<AnyDType>,
    device: Option<AnyDevice>,
) -> PyResult<PyTensor> {
    zeros_like(py, x, dtype, device)
}

/// `start, start + step, ..` up to, and without, `stop`; int64 if all are integers, else float32.
#[pyfunction]
#[pyo3(signature = (start, /, stop = None, step = None, dtype = None, *, device = None))]
pub(crate) fn arange(
    py: Python<'_>,
    start: Operand,
    stop: Option<Operand>,
    step: Option<Operand>,
    dtype: Option<AnyDType>,
    device: Option<AnyDevice>,
) -> PyResult<PyTensor> {
    let (start, stop) = match stop {
        Some(stop) => (start, stop),
        None => (Operand::Int(0), start),
    };
    let (step, device) = (step.unwrap_or(Operand::Int(1)), chosen(device)?);
    if let (&Operand::Int(start), &Operand::Int(stop), &Operand::Int(step)) = (&start, &stop, &step) {
        if step == 0 {
            return Err(no_steps(start, stop, step));
        }
        let span = (stop - start) * step.signum();
        let len = if span <= 0 { 0 } else { (span - 1) / step.abs() + 1 };
        let len = usize::try_from(len).map_err(|_| no_steps(start, stop, step))?;
        let dtype = dtype.map_or(DType::I64, |d| d.0);
        return unlocked(py, || whole_line(start, step, len, dtype, &device));
    }
    let dtype = dtype.map_or(DType::F32, |d| d.0);
    let (start, stop, step) = (start.number()?, stop.number()?, step.number()?);
    if step == 0.0 || !(step.is_finite() && start.is_finite() && stop.is_finite()) {
        return Err(no_steps(start, stop, step));
    }
    let len = ((stop - start) / step).ceil().max(0.0) as usize;
    unlocked(py, || line(start, step, len, dtype, &device))
}

fn no_steps(start: impl Display, stop: impl Display, step: impl Display) -> PyErr {
    PyValueError::new_err(format!("arange: cannot count from {start} to {stop} in steps of {step}"))
}

/// `start + i step` of integers, exactly.
fn whole_line(
    start: i128,
    step: i128,
    len: usize,
    dtype: DType,
    device: &Device,
) -> bullet_tensor::Result<Tensor> {
    let counts = Tensor::arange(0, len, device)?;
    // What is beyond i64 wraps, and wraps back in u64.
    let scalar = |value: i128| Tensor::scalar(value as i64, device);
    counts.mul(&scalar(step)?)?.add(&scalar(start)?)?.cast(dtype)
}

/// `num` numbers from `start` to `stop`, evenly spaced.
#[pyfunction]
#[pyo3(signature = (start, stop, /, num = 50, *, dtype = None, device = None, endpoint = true))]
pub(crate) fn linspace(
    py: Python<'_>,
    start: f64,
    stop: f64,
    #[pyo3(from_py_with = whole::num)] num: usize,
    dtype: Option<AnyDType>,
    device: Option<AnyDevice>,
    endpoint: bool,
) -> PyResult<PyTensor> {
    let gaps = if endpoint { num.saturating_sub(1) } else { num };
    let step = if gaps == 0 { 0.0 } else { (stop - start) / gaps as f64 };
    let (dtype, device) = (dtype.map_or(DType::F32, |d| d.0), chosen(device)?);
    unlocked(py, || {
        let line = line(start, step, num, dtype, &device)?;
        if endpoint && num > 1 {
            line.narrow(0, num - 1, 1)?.fill_(stop)?;
        }
        Ok(line)
    })
}

/// `start + i step`, computed in f64.
fn line(start: f64, step: f64, len: usize, dtype: DType, device: &Device) -> bullet_tensor::Result<Tensor> {
    Tensor::arange(0, len, device)?.cast(DType::F64)?.mul_scalar(step)?.add_scalar(start)?.cast(dtype)
}

/// Ones on a diagonal of a matrix, zeros elsewhere.
#[pyfunction]
#[pyo3(signature = (n_rows, n_cols = None, /, *, k = 0, dtype = None, device = None))]
pub(crate) fn eye(
    py: Python<'_>,
    #[pyo3(from_py_with = whole::n_rows)] n_rows: usize,
    #[pyo3(from_py_with = whole::n_cols)] n_cols: Option<usize>,
    k: i64,
    dtype: Option<AnyDType>,
    device: Option<AnyDevice>,
) -> PyResult<PyTensor> {
    let (dtype, device) = (dtype.map_or(DType::F32, |d| d.0), chosen(device)?);
    let n_cols = n_cols.unwrap_or(n_rows);
    // Diagonals further out are out of the matrix too.
    let k = k.clamp(-(n_rows as i64) - 1, n_cols as i64 + 1);
    unlocked(py, || {
        // A matrix that has no room is found out before its rows are counted.
        drop(device.alloc(Shape::new(&[n_rows, n_cols])?.numel().saturating_mul(dtype.size()))?);
        let rows = Tensor::arange(k, n_rows, &device)?.unsqueeze(1)?;
        rows.eq(&Tensor::arange(0, n_cols, &device)?)?.cast(dtype)
    })
}

/// Standard normal numbers: a function of shape, dtype and seed.
#[pyfunction]
#[pyo3(signature = (shape, *, seed = 0, dtype = None, device = None))]
pub(crate) fn randn(
    py: Python<'_>,
    shape: Dims,
    #[pyo3(from_py_with = whole::seed)] seed: u64,
    dtype: Option<AnyDType>,
    device: Option<AnyDevice>,
) -> PyResult<PyTensor> {
    let (dtype, device) = (dtype.map_or(DType::F32, |d| d.0), chosen(device)?);
    unlocked(py, || Tensor::randn(&shape.0, dtype, &device, seed))
}

/// Numbers from `low` to `high`, all as likely: a function of shape, dtype and seed.
#[pyfunction]
#[pyo3(signature = (shape, *, low = 0.0, high = 1.0, seed = 0, dtype = None, device = None))]
pub(crate) fn uniform(
    py: Python<'_>,
    shape: Dims,
    low: f64,
    high: f64,
    #[pyo3(from_py_with = whole::seed)] seed: u64,
    dtype: Option<AnyDType>,
    device: Option<AnyDevice>,
) -> PyResult<PyTensor> {
    let (dtype, device) = (dtype.map_or(DType::F32, |d| d.0), chosen(device)?);
    unlocked(py, || Tensor::random(Distribution::Uniform { low, high }, &shape.0, dtype, &device, (seed, 0)))
}

/// A tensor that shares the memory of a NumPy array, with its shape, strides and dtype.
#[pyfunction]
pub(crate) fn from_numpy(array: &Bound<'_, PyAny>) -> PyResult<PyTensor> {
    interop::adopt(array)
}

/// A tensor of nested lists, numbers, an array or a tensor; memory is shared where `copy` is not True and dtype and device
/// are those of `obj`. Without a dtype, floats of Python become float32.
#[pyfunction]
#[pyo3(signature = (obj, /, dtype = None, *, device = None, copy = None))]
pub(crate) fn asarray(
    obj: &Bound<'_, PyAny>,
    dtype: Option<AnyDType>,
    device: Option<AnyDevice>,
    copy: Option<bool>,
) -> PyResult<PyTensor> {
    let py = obj.py();
    let (tensor, shared) = source(obj, dtype)?;
    let target = dtype.map_or(tensor.dtype(), |d| d.0);
    let home = match (&device, shared) {
        (None, true) => tensor.device().clone(),
        _ => chosen(device)?,
    };
    let same = target == tensor.dtype() && home == *tensor.device();
    if copy == Some(false) && !(shared && same) {
        return Err(PyValueError::new_err(format!(
            "copy=False, but {} cannot be a tensor of {} on {home} without a copy",
            obj.get_type(),
            numpy_name(target)
        )));
    }
    if !same {
        let cast = interrupt::detached(py, || tensor.cast(target))?.map_err(error::exception)?;
        return interop::moved(py, &cast, &home).map(PyTensor::new);
    }
    unlocked(py, || if copy == Some(true) && shared { tensor.copy() } else { Ok(tensor) })
}

/// As `asarray`, always of its own memory.
#[pyfunction]
#[pyo3(signature = (obj, dtype = None, *, device = None))]
pub(crate) fn array(
    obj: &Bound<'_, PyAny>,
    dtype: Option<AnyDType>,
    device: Option<AnyDevice>,
) -> PyResult<PyTensor> {
    asarray(obj, dtype, device, Some(true))
}

/// What is in nested lists, besides Python's numbers.
#[derive(Default)]
struct Leaves {
    tensors: bool,
    /// NumPy's arrays and scalars, and what else has a dtype.
    typed: bool,
}

impl Leaves {
    /// Looks through lists and tuples, as deep as tensors have axes.
    fn look(&mut self, obj: &Bound<'_, PyAny>, depth: usize) -> PyResult<()> {
        if obj.is_exact_instance_of::<PyFloat>()
            || obj.is_exact_instance_of::<PyInt>()
            || obj.is_exact_instance_of::<PyBool>()
        {
            return Ok(());
        }
        if depth <= bullet_ops::MAX_DIMS
            && (obj.is_instance_of::<PyList>() || obj.is_instance_of::<PyTuple>())
        {
            return obj.try_iter()?.try_for_each(|item| self.look(&item?, depth + 1));
        }
        if obj.is_instance_of::<PyTensor>() {
            self.tensors = true;
        } else if !self.typed {
            self.typed = obj.hasattr("dtype")?;
        }
        Ok(())
    }
}

/// Lists with tensors in them, which are put side by side; numbers take the dtype of the tensors beside them.
fn stacked(obj: &Bound<'_, PyAny>, device: &Device) -> PyResult<Tensor> {
    let mut parts = Vec::new();
    for item in obj.try_iter()? {
        let item = item?;
        parts.push(match item.extract::<Operand>() {
            Ok(operand) => operand,
            Err(_) if item.is_instance_of::<PyList>() || item.is_instance_of::<PyTuple>() => {
                Operand::Tensor(stacked(&item, device)?)
            }
            Err(_) => Operand::Tensor(source(&item, None)?.0),
        });
    }
    let tensors = parts.iter().filter_map(|p| if let Operand::Tensor(t) = p { Some(t) } else { None });
    let place = tensors.clone().next().map_or_else(|| device.clone(), |t| t.device().clone());
    let joint = tensors.map(Tensor::dtype).reduce(DType::promote);
    let joint = parts
        .iter()
        .fold(joint.unwrap_or(parts.first().map_or(DType::F32, Operand::own_dtype)), |joint, part| {
            part.dtype_beside(joint)
        });
    let parts: Vec<Tensor> = parts.iter().map(|p| p.like(joint, &place)).collect::<PyResult<_>>()?;
    let stack = || {
        let parts: Vec<Tensor> = parts.iter().map(|t| t.cast(joint)).collect::<Result<_, _>>()?;
        Tensor::stack(&parts.iter().collect::<Vec<_>>(), 0)
    };
    interrupt::detached(obj.py(), stack)?.map_err(error::exception)
}

/// What `obj` holds as a tensor, and whether the memory is that of `obj`.
fn source(obj: &Bound<'_, PyAny>, dtype: Option<AnyDType>) -> PyResult<(Tensor, bool)> {
    if let Ok(tensor) = obj.cast::<PyTensor>() {
        return Ok((tensor.get().tensor(), true));
    }
    if obj.hasattr("__array_interface__")? {
        // Of NumPy's own scalars and of others, NumPy makes an array that keeps the memory alive.
        let array = obj.py().import("numpy")?.call_method1("asarray", (obj,))?;
        return Ok((interop::adopt(&array)?.tensor(), true));
    }
    if obj.hasattr("__dlpack__")? {
        return Ok((crate::dlpack::import(obj)?, true));
    }
    if obj.hasattr("__cuda_array_interface__")? {
        return Ok((interop::adopt_cuda(obj)?, true));
    }
    let mut leaves = Leaves::default();
    leaves.look(obj, 0)?;
    if leaves.tensors {
        return Ok((stacked(obj, &chosen(None)?)?, false));
    }
    let tensor = interop::adopt(&read(obj, dtype)?)?.tensor();
    if tensor.dtype() == DType::F64 && !leaves.typed && dtype.is_none() {
        return Ok((tensor.cast(DType::F32).map_err(error::exception)?, false));
    }
    Ok((tensor, false))
}

/// Lists, numbers and buffers as NumPy reads them; the array is nobody else's.
fn read<'py>(obj: &Bound<'py, PyAny>, dtype: Option<AnyDType>) -> PyResult<Bound<'py, PyAny>> {
    let numpy = obj.py().import("numpy")?;
    let as_dtype = |dtype: DType| numpy.call_method1("asarray", (obj, numpy_name(dtype)));
    let read = numpy.call_method1("asarray", (obj,))?;
    let kind: String = read.getattr("dtype")?.getattr("kind")?.extract()?;
    let dtype = dtype.map(|d| d.0).filter(|d| d.kind() == Kind::Int);
    match (kind.as_str(), dtype) {
        ("b", _) | ("i" | "u" | "f", None) => Ok(read),
        // Read as this dtype, a number that it does not hold is an error.
        ("i" | "u" | "f", Some(dtype)) => as_dtype(dtype),
        _ => {
            let mistake = PyTypeError::new_err(format!(
                "cannot make a tensor of {}: expected numbers, nested lists of numbers of equal lengths, or an array",
                obj.get_type()
            ));
            // Integers of more than 64 bits are objects to NumPy.
            let told = if kind == "O" { as_dtype(dtype.unwrap_or(DType::I64)).err() } else { None };
            Err(told.filter(|e| e.is_instance_of::<PyOverflowError>(obj.py())).unwrap_or(mistake))
        }
    }
}

/// What is written over elements of a tensor: an operand, or what `asarray` takes.
pub(crate) fn assignable(obj: &Bound<'_, PyAny>, target: &Tensor) -> PyResult<Operand> {
    match obj.extract::<Operand>() {
        Err(e) if e.is_instance_of::<PyTypeError>(obj.py()) => {}
        operand => return operand,
    }
    let (tensor, _) = source(obj, Some(AnyDType(target.dtype())))?;
    Ok(Operand::Tensor(tensor))
}
