//! `t[key]`, `t[key] = value`, and elements as Python's numbers.
//!
//! Integers, slices, `None` and `...` make views. A tensor of integers takes along its axis, and makes a copy.

use bullet_ops::Kind;
use bullet_tensor::{DType, Slice, Tensor};
use pyo3::exceptions::{PyIndexError, PyTypeError};
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyEllipsis, PyList, PySlice, PyTuple};

use crate::error;
use crate::interop::{self, count_copy};
use crate::operand::Operand;
use crate::tensor::{PyTensor, unlocked};

/// One entry of a key.
enum Entry {
    At(isize),
    Range(Slice),
    NewAxis,
    Rest,
    Take(Tensor),
}

impl Entry {
    fn read(key: &Bound<'_, PyAny>) -> PyResult<Entry> {
        if key.is_none() {
            return Ok(Entry::NewAxis);
        }
        if key.is_instance_of::<PyEllipsis>() {
            return Ok(Entry::Rest);
        }
        if let Ok(slice) = key.cast::<PySlice>() {
            let field = |name: &str| slice.getattr(name)?.extract::<Option<isize>>();
            let step = field("step")?.unwrap_or(1);
            return Ok(Entry::Range(Slice { start: field("start")?, end: field("stop")?, step }));
        }
        if let Ok(tensor) = key.cast::<PyTensor>() {
            let tensor = tensor.get().tensor();
            match tensor.dtype().kind() {
                Kind::Int if tensor.rank() > 0 => return Ok(Entry::Take(tensor)),
                Kind::Int => {}
                Kind::Bool => {
                    return Err(PyIndexError::new_err(
                        "masks cannot be indices yet; use where(mask, a, b), or indices as a tensor of integers",
                    ));
                }
                Kind::Float => return Err(not_an_index(key)),
            }
        }
        if key.is_instance_of::<PyBool>() {
            return Err(not_an_index(key));
        }
        match key.extract::<isize>() {
            Ok(index) => Ok(Entry::At(index)),
            Err(_) if key.is_instance_of::<PyList>() => {
                let indices = crate::creation::asarray(key, None, None, None)?;
                Entry::read(Bound::new(key.py(), indices)?.as_any())
            }
            Err(_) => Err(not_an_index(key)),
        }
    }
}

fn not_an_index(key: &Bound<'_, PyAny>) -> PyErr {
    PyIndexError::new_err(format!(
        "only integers, slices (`:`), ellipsis (`...`), None and tensors of integers are valid indices, got {}",
        key.get_type()
    ))
}

/// The entries of a key, with `...` in its place and all axes named.
fn entries(key: &Bound<'_, PyAny>, rank: usize) -> PyResult<Vec<Entry>> {
    let mut all: Vec<Entry> = match key.cast::<PyTuple>() {
        Ok(tuple) => tuple.iter().map(|k| Entry::read(&k)).collect::<PyResult<_>>()?,
        Err(_) => vec![Entry::read(key)?],
    };
    let named = all.iter().filter(|e| !matches!(e, Entry::NewAxis | Entry::Rest)).count();
    if named > rank {
        return Err(PyIndexError::new_err(format!(
            "too many indices for array: array is {rank}-dimensional, but {named} were indexed"
        )));
    }
    let rests = all.iter().filter(|e| matches!(e, Entry::Rest)).count();
    if rests > 1 {
        return Err(PyIndexError::new_err("an index can only have a single ellipsis ('...')"));
    }
    let at = all.iter().position(|e| matches!(e, Entry::Rest)).unwrap_or(all.len());
    let whole = || Entry::Range(Slice { start: None, end: None, step: 1 });
    let filler: Vec<Entry> = (named..rank).map(|_| whole()).collect();
    all.splice(at..(at + rests), filler);
    Ok(all)
}

/// `t[key]`.
pub(crate) fn get(py: Python<'_>, tensor: &Tensor, key: &Bound<'_, PyAny>) -> PyResult<PyTensor> {
    let entries = entries(key, tensor.rank())?;
    if entries.iter().filter(|e| matches!(e, Entry::Take(_))).count() > 1 {
        return Err(PyIndexError::new_err(
            "only one index of a key may be a tensor; index by one after the other",
        ));
    }
    unlocked(py, || {
        let mut view = tensor.clone();
        let mut axis = 0;
        for entry in entries {
            match entry {
                Entry::At(index) => view = view.select(axis, index)?,
                Entry::Range(slice) => {
                    view = view.slice(axis, slice)?;
                    axis += 1;
                }
                Entry::NewAxis => {
                    view = view.unsqueeze(axis)?;
                    axis += 1;
                }
                Entry::Take(indices) => {
                    let taken = indices.rank() as isize;
                    view = take(&view, axis, &indices)?;
                    axis += taken;
                }
                Entry::Rest => {}
            }
        }
        Ok(view)
    })
}

/// The elements at `indices` along an axis, which becomes the axes of `indices`; they count from the end if negative.
pub(crate) fn take(tensor: &Tensor, axis: isize, indices: &Tensor) -> bullet_tensor::Result<Tensor> {
    let axis = tensor.shape().axis(axis)?;
    let length = Tensor::scalar(tensor.dim(axis) as i64, tensor.device())?;
    let indices = indices.cast(DType::I64)?;
    let zero = Tensor::scalar(0i64, tensor.device())?;
    let from_start = indices.lt(&zero)?.where_(&indices.add(&length)?, &indices)?;
    let flat = from_start.reshape(&[-1])?;
    let taken = tensor.index_select(axis as isize, &flat)?;
    let lengths =
        tensor.shape()[..axis].iter().chain(&indices.shape()[..]).chain(&tensor.shape()[axis + 1..]);
    taken.reshape(&lengths.map(|&d| d as isize).collect::<Vec<_>>())
}

/// `t[key] = value`.
pub(crate) fn set(py: Python<'_>, tensor: &Tensor, key: &Bound<'_, PyAny>, value: Operand) -> PyResult<()> {
    if entries(key, tensor.rank())?.iter().any(|e| matches!(e, Entry::Take(_))) {
        return Err(PyIndexError::new_err(
            "elements cannot be assigned by a tensor of indices; use scatter_add or index_add, or assign to slices",
        ));
    }
    let target = get(py, tensor, key)?.tensor();
    let value = value.beside(&target)?;
    py.detach(|| target.copy_(&value)).map_err(error::exception)
}

/// The one element as a Python number.
pub(crate) fn item<'py>(py: Python<'py>, tensor: &Tensor) -> PyResult<Bound<'py, PyAny>> {
    if tensor.numel() != 1 {
        return Err(PyTypeError::new_err(format!(
            "only tensors of one element can become a number, this has {}",
            tensor.numel()
        )));
    }
    count_copy(tensor);
    let tensor = tensor.detach();
    let error = error::exception;
    Ok(match tensor.dtype().kind() {
        Kind::Float => py.detach(|| tensor.item()).map_err(error)?.into_pyobject(py)?.into_any(),
        Kind::Bool => PyBool::new(py, tensor.item().map_err(error)? != 0.0).to_owned().into_any(),
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
    interop::host_array(py, tensor)?.call_method0("tolist")
}
