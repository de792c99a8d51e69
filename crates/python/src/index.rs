//! `t[key]`, `t[key] = value`, iteration, and elements as Python's numbers. What a key means is the engine's (`Index`); here
//! it is read.

use std::sync::atomic::{AtomicUsize, Ordering};

use bullet_ops::Kind;
use bullet_tensor::{DType, Index, Slice, Tensor};
use pyo3::exceptions::{PyIndexError, PyOverflowError, PyRuntimeError, PyTypeError};
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyEllipsis, PyInt, PyList, PySlice, PyTuple};

use crate::creation;
use crate::error;
use crate::interop;
use crate::interrupt;
use crate::operand::Operand;
use crate::tensor::{PyTensor, unlocked};

/// One entry of a key; lists and arrays become tensors on the device of the tensor that is indexed.
fn entry(key: &Bound<'_, PyAny>, of: &Tensor) -> PyResult<Index> {
    if key.is_none() {
        return Ok(Index::NewAxis);
    }
    if let Ok(tensor) = key.cast::<PyTensor>() {
        return tensor_entry(key, tensor.get().tensor());
    }
    if key.is_exact_instance_of::<PyInt>() {
        return Ok(Index::At(key.extract().map_err(|_| too_large(key))?));
    }
    if let Ok(slice) = key.cast::<PySlice>() {
        let step = bound(slice, "step")?.unwrap_or(1);
        return Ok(Index::Range(Slice { start: bound(slice, "start")?, end: bound(slice, "stop")?, step }));
    }
    if key.is_instance_of::<PyEllipsis>() {
        return Ok(Index::Rest);
    }
    if let Ok(value) = key.cast::<PyBool>() {
        return Ok(Index::Mask(Tensor::scalar(value.is_true(), of.device()).map_err(error::exception)?));
    }
    // NumPy's integers are no Python integers, but say that they stand for one; its arrays have axes.
    if let Ok(index) = key.extract::<isize>() {
        return Ok(Index::At(index));
    }
    if key.is_instance_of::<PyList>() || key.hasattr("__array_interface__")? {
        return array_entry(key, of);
    }
    Err(not_an_index(key))
}

fn tensor_entry(key: &Bound<'_, PyAny>, tensor: Tensor) -> PyResult<Index> {
    match tensor.dtype().kind() {
        Kind::Int => Ok(Index::Take(tensor)),
        Kind::Bool => Ok(Index::Mask(tensor)),
        Kind::Float => Err(not_an_index(key)),
    }
}

/// A list or an array of integers or bools.
fn array_entry(key: &Bound<'_, PyAny>, of: &Tensor) -> PyResult<Index> {
    tensor_entry(key, integers(key, of)?)
}

/// A tensor, a list or an array of integers, or of bools, beside a tensor that they are indices of.
pub(crate) fn integers(key: &Bound<'_, PyAny>, of: &Tensor) -> PyResult<Tensor> {
    if let Ok(tensor) = key.cast::<PyTensor>() {
        return Ok(tensor.get().tensor());
    }
    let indices = creation::asarray(key, None, None, None)?.tensor();
    // An empty list holds no integers, and no others either.
    let empty = key.is_instance_of::<PyList>() && indices.numel() == 0;
    let indices = if empty { indices.cast(DType::I64) } else { Ok(indices) };
    indices.and_then(|i| i.to_device(of.device())).map_err(error::exception)
}

/// A bound of a slice, cut to what an axis can be long.
fn bound(slice: &Bound<'_, PySlice>, name: &str) -> PyResult<Option<isize>> {
    let value = slice.getattr(name)?;
    if value.is_none() {
        return Ok(None);
    }
    let py = slice.py();
    match value.extract::<isize>() {
        Ok(bound) => Ok(Some(bound)),
        Err(e) if e.is_instance_of::<PyOverflowError>(py) => {
            Ok(Some(if value.lt(0)? { isize::MIN } else { isize::MAX }))
        }
        Err(_) => {
            Err(PyTypeError::new_err("slice indices must be integers or None or have an __index__ method"))
        }
    }
}

fn too_large(key: &Bound<'_, PyAny>) -> PyErr {
    PyIndexError::new_err(format!("index {key} is out of bounds for any axis"))
}

fn not_an_index(key: &Bound<'_, PyAny>) -> PyErr {
    PyIndexError::new_err(format!(
        "only integers, slices (`:`), ellipsis (`...`), None and tensors or lists of integers or bools are valid indices, \
         got {}",
        key.get_type()
    ))
}

fn entries(key: &Bound<'_, PyAny>, of: &Tensor) -> PyResult<Vec<Index>> {
    match key.cast::<PyTuple>() {
        Ok(tuple) => tuple.iter().map(|k| entry(&k, of)).collect(),
        Err(_) => Ok(vec![entry(key, of)?]),
    }
}

/// `t[key]`.
pub(crate) fn get(py: Python<'_>, tensor: &Tensor, key: &Bound<'_, PyAny>) -> PyResult<PyTensor> {
    let entries = entries(key, tensor)?;
    if entries.iter().any(|e| matches!(e, Index::Take(_) | Index::Mask(_))) {
        return unlocked(py, || tensor.index(&entries));
    }
    // A view is made faster than the lock is given back.
    tensor.index(&entries).map(PyTensor::new).map_err(error::exception)
}

/// `t[key] = value`.
pub(crate) fn set(
    py: Python<'_>,
    tensor: &Tensor,
    key: &Bound<'_, PyAny>,
    value: &Bound<'_, PyAny>,
) -> PyResult<()> {
    let entries = entries(key, tensor)?;
    let value = creation::assignable(value, tensor)?;
    value.check_fits(tensor.dtype())?;
    let value = assigned(value, tensor)?;
    interrupt::detached(py, || tensor.set_index(&entries, &value))?.map_err(error::exception)
}

/// A value to be written over elements of a tensor.
///
/// # Errors
/// An integer that the tensor's dtype does not hold; a value whose gradient would be lost.
pub(crate) fn assigned(value: Operand, target: &Tensor) -> PyResult<Tensor> {
    let value = value.beside(target)?;
    if value.is_tracked() && bullet_tensor::grad_enabled() {
        return Err(PyRuntimeError::new_err(
            "the value requires gradients, which an assignment does not pass on; detach() it, or make a new tensor with \
             where or concat",
        ));
    }
    Ok(value)
}

/// The slices of a tensor along its first axis, one after the other.
#[pyclass(module = "bullet_core", frozen)]
pub(crate) struct Slices {
    tensor: Tensor,
    next: AtomicUsize,
}

impl Slices {
    pub(crate) fn of(tensor: Tensor) -> PyResult<Slices> {
        if tensor.rank() == 0 {
            return Err(PyTypeError::new_err("iteration over a 0-d array"));
        }
        Ok(Slices { tensor, next: AtomicUsize::new(0) })
    }
}

#[pymethods]
impl Slices {
    fn __iter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    fn __next__(&self) -> PyResult<Option<PyTensor>> {
        let i = self.next.fetch_add(1, Ordering::Relaxed);
        if i >= self.tensor.dim(0) {
            return Ok(None);
        }
        self.tensor.select(0, i as isize).map(|t| Some(PyTensor::new(t))).map_err(error::exception)
    }
}

/// The one element as a Python number.
pub(crate) fn item<'py>(py: Python<'py>, tensor: &Tensor) -> PyResult<Bound<'py, PyAny>> {
    if tensor.numel() != 1 {
        return Err(PyTypeError::new_err(format!(
            "only tensors of one element can become a number, this has {}",
            tensor.numel()
        )));
    }
    interop::before_copy(py, tensor)?;
    let tensor = tensor.detach();
    let error = error::exception;
    Ok(match tensor.dtype().kind() {
        Kind::Float => py.detach(|| tensor.item()).map_err(error)?.into_pyobject(py)?.into_any(),
        Kind::Bool => {
            PyBool::new(py, py.detach(|| tensor.item()).map_err(error)? != 0.0).to_owned().into_any()
        }
        Kind::Int if tensor.dtype() == DType::U64 => {
            py.detach(|| tensor.to_vec::<u64>()).map_err(error)?[0].into_pyobject(py)?.into_any()
        }
        Kind::Int => {
            let exact = py.detach(|| tensor.cast(DType::I64)?.to_vec::<i64>()).map_err(error)?;
            exact[0].into_pyobject(py)?.into_any()
        }
    })
}

/// The elements as nested lists.
pub(crate) fn to_list<'py>(py: Python<'py>, tensor: &Tensor) -> PyResult<Bound<'py, PyAny>> {
    if tensor.rank() == 0 {
        return item(py, tensor);
    }
    listed(py, &interop::host_tensor(py, tensor)?)
}

/// As [`to_list`], of a tensor on the host: part by part, so that Python can see to signals in between.
fn listed<'py>(py: Python<'py>, tensor: &Tensor) -> PyResult<Bound<'py, PyAny>> {
    /// Elements that become objects in some tens of milliseconds.
    const PART: usize = 1 << 18;
    interrupt::breathe(py)?;
    if tensor.numel() <= PART {
        return interop::numpy(&Bound::new(py, PyTensor::new(tensor.clone()))?)?.call_method0("tolist");
    }
    let (list, rows) = (PyList::empty(py), tensor.dim(0));
    let step = PART / (tensor.numel() / rows);
    for at in (0..rows).step_by(step.max(1)) {
        if step == 0 {
            list.append(listed(py, &tensor.select(0, at as isize).map_err(error::exception)?)?)?;
        } else {
            let part = tensor.narrow(0, at, step.min(rows - at)).map_err(error::exception)?;
            list.call_method1("extend", (listed(py, &part)?,))?;
        }
    }
    Ok(list.into_any())
}
