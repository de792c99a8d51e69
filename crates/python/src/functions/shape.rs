//! Manipulation: other shapes, orders of axes and neighbours of the same elements.

use bullet_tensor::{Result, Shape, Tensor};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyList, PyTuple};

use super::reduce::Axes;
use crate::creation::Dims;
use crate::error;
use crate::interrupt;
use crate::tensor::{PyTensor, unlocked};
use crate::whole;

/// Tensors of a list, a tuple, or of the slices of a tensor along its first axis.
pub(super) fn tensors(objects: &[Bound<'_, PyTensor>]) -> Vec<Tensor> {
    objects.iter().map(|t| t.get().tensor()).collect()
}

/// Tensors as their joint dtype.
fn promoted(tensors: &[Tensor]) -> Result<Vec<Tensor>> {
    let joint = tensors.iter().map(Tensor::dtype).reduce(bullet_tensor::DType::promote);
    tensors.iter().map(|t| t.cast(joint.unwrap_or(t.dtype()))).collect()
}

impl Axes {
    pub(crate) fn list(self) -> Vec<isize> {
        match self {
            Axes::One(axis) => vec![axis],
            Axes::Many(axes) => axes,
        }
    }
}

/// These tensors as Python objects.
pub(super) fn objects(py: Python<'_>, tensors: Vec<Tensor>) -> PyResult<Vec<Bound<'_, PyTensor>>> {
    tensors.into_iter().map(|t| Bound::new(py, PyTensor::new(t))).collect()
}

/// Tensors side by side along an axis; flattened ones without.
#[pyfunction]
#[pyo3(signature = (arrays, /, axis = Some(0)))]
fn concat(py: Python<'_>, arrays: Vec<Bound<'_, PyTensor>>, axis: Option<isize>) -> PyResult<PyTensor> {
    let arrays = tensors(&arrays);
    unlocked(py, || {
        let mut parts = promoted(&arrays)?;
        if axis.is_none() {
            parts = parts.iter().map(|t| t.reshape(&[-1])).collect::<Result<_>>()?;
        }
        Tensor::concat(&parts.iter().collect::<Vec<_>>(), axis.unwrap_or(0))
    })
}

/// Tensors of one shape side by side along a new axis.
#[pyfunction]
#[pyo3(signature = (arrays, /, axis = 0))]
fn stack(py: Python<'_>, arrays: Vec<Bound<'_, PyTensor>>, axis: isize) -> PyResult<PyTensor> {
    let arrays = tensors(&arrays);
    unlocked(py, || Tensor::stack(&promoted(&arrays)?.iter().collect::<Vec<_>>(), axis))
}

/// The slices along an axis, as views without it.
#[pyfunction]
#[pyo3(signature = (x, /, *, axis = 0))]
fn unstack<'py>(py: Python<'py>, x: &Bound<'py, PyTensor>, axis: isize) -> PyResult<Bound<'py, PyTuple>> {
    let x = x.get().tensor();
    let n = x.shape().axis(axis).map(|axis| x.dim(axis)).map_err(error::op)?;
    let parts = PyList::empty(py);
    for i in 0..n as isize {
        if i % 4096 == 4095 {
            interrupt::breathe(py)?;
        }
        parts.append(PyTensor::new(x.select(axis, i).map_err(error::exception)?))?;
    }
    Ok(parts.to_tuple())
}

/// A view that repeats axes of length 1, and new leading ones, to fill a shape.
#[pyfunction]
#[pyo3(signature = (x, /, shape))]
fn broadcast_to(py: Python<'_>, x: &Bound<'_, PyTensor>, shape: Dims) -> PyResult<PyTensor> {
    x.get().map(py, |x| x.broadcast_to(&shape.0))
}

/// Views of all tensors, of the shape that they broadcast to.
#[pyfunction]
#[pyo3(signature = (*arrays))]
fn broadcast_arrays<'py>(py: Python<'py>, arrays: Vec<Bound<'py, PyTensor>>) -> PyResult<Bound<'py, PyList>> {
    let arrays = tensors(&arrays);
    let views = || {
        let shapes: Vec<Shape> = arrays.iter().map(|t| *t.shape()).collect();
        let joint = Shape::broadcast_all(&shapes)?;
        arrays.iter().map(|t| t.broadcast_to(&joint)).collect::<Result<Vec<_>>>()
    };
    if arrays.is_empty() {
        return Ok(PyList::empty(py));
    }
    PyList::new(py, objects(py, views().map_err(error::exception)?)?)
}

/// A view with a new axis of length 1.
#[pyfunction]
#[pyo3(signature = (x, /, axis = 0))]
fn expand_dims(py: Python<'_>, x: &Bound<'_, PyTensor>, axis: isize) -> PyResult<PyTensor> {
    let rank = x.get().tensor().rank() as isize;
    if axis < -rank - 1 || axis > rank {
        return Err(pyo3::exceptions::PyIndexError::new_err(format!(
            "axis {axis} is out of bounds for array of dimension {}",
            rank + 1
        )));
    }
    x.get().map(py, |x| x.unsqueeze(axis))
}

/// A view without axes of length 1: these, or all of them.
#[pyfunction]
#[pyo3(signature = (x, /, axis = None))]
fn squeeze(py: Python<'_>, x: &Bound<'_, PyTensor>, axis: Option<Axes>) -> PyResult<PyTensor> {
    x.get().squeeze(py, axis)
}

pub(crate) fn squeezed(x: &Tensor, axes: &[isize]) -> Result<Tensor> {
    let mut places =
        axes.iter().map(|&axis| x.shape().axis(axis)).collect::<std::result::Result<Vec<_>, _>>()?;
    places.sort_unstable();
    places.dedup();
    // From the last on, so that the others keep their places.
    places.into_iter().rev().try_fold(x.clone(), |x, axis| x.squeeze(axis as isize))
}

/// A view with elements in reverse order along axes; along all without `axis`.
#[pyfunction]
#[pyo3(signature = (x, /, axis = None))]
fn flip(py: Python<'_>, x: &Bound<'_, PyTensor>, axis: Option<Axes>) -> PyResult<PyTensor> {
    x.get().map(py, |x| match axis {
        Some(Axes::Many(axes)) if axes.is_empty() => Ok(x.clone()),
        axis => x.flip(&axis.map(Axes::list).unwrap_or_default()),
    })
}

/// A view with axes elsewhere, the others in their order.
#[pyfunction]
#[pyo3(signature = (x, source, destination, /))]
fn moveaxis(py: Python<'_>, x: &Bound<'_, PyTensor>, source: Axes, destination: Axes) -> PyResult<PyTensor> {
    x.get().map(py, |x| x.moveaxis(&source.list(), &destination.list()))
}

/// A view with the axes in this order.
#[pyfunction]
#[pyo3(signature = (x, /, axes))]
fn permute_dims(py: Python<'_>, x: &Bound<'_, PyTensor>, axes: Vec<isize>) -> PyResult<PyTensor> {
    x.get().map(py, |x| x.permute(&axes))
}

/// A view of matrices with the last two axes exchanged.
#[pyfunction]
#[pyo3(signature = (x, /))]
fn matrix_transpose(py: Python<'_>, x: &Bound<'_, PyTensor>) -> PyResult<PyTensor> {
    x.get().map(py, |x| x.transpose(-1, -2))
}

/// The same elements under another shape, one length of which may be -1. A view where that is possible: with `copy` True
/// never, with False an error where it is not.
#[pyfunction]
#[pyo3(signature = (x, /, shape, *, copy = None))]
fn reshape(py: Python<'_>, x: &Bound<'_, PyTensor>, shape: Axes, copy: Option<bool>) -> PyResult<PyTensor> {
    let x = x.get().tensor();
    let made = interrupt::detached(py, || x.reshape(&shape.list()))?.map_err(error::exception)?;
    let shared = made.shares_memory(&x);
    if copy == Some(false) && !shared {
        return Err(PyValueError::new_err(
            "copy=False, but the elements do not lie so that a view could have this shape",
        ));
    }
    unlocked(py, || if copy == Some(true) && shared { made.copy() } else { Ok(made) })
}

/// How often elements are repeated: all as often, or each as a tensor says.
pub(crate) enum Repeats {
    All(usize),
    Each(Tensor),
}

impl<'a, 'py> FromPyObject<'a, 'py> for Repeats {
    type Error = PyErr;

    fn extract(object: Borrowed<'a, 'py, PyAny>) -> PyResult<Repeats> {
        if let Ok(counts) = object.cast::<PyTensor>() {
            return Ok(Repeats::Each(counts.get().tensor()));
        }
        if object.hasattr("__index__")? && !object.hasattr("__len__")? {
            return whole::repeats(&object).map(Repeats::All);
        }
        Ok(Repeats::Each(crate::creation::asarray(&object, None, None, None)?.tensor()))
    }
}

/// Elements several times in a row along an axis; of the flattened tensor without `axis`.
#[pyfunction]
#[pyo3(signature = (x, repeats, /, axis = None))]
pub(crate) fn repeat(
    py: Python<'_>,
    x: &Bound<'_, PyTensor>,
    repeats: Repeats,
    axis: Option<isize>,
) -> PyResult<PyTensor> {
    let x = x.get().tensor();
    let counts = match repeats {
        Repeats::All(times) => {
            return unlocked(py, || {
                let repeated = match axis {
                    Some(axis) => x.repeat(times, axis),
                    None => x.reshape(&[-1])?.repeat(times, 0),
                };
                fresh(&x, repeated?)
            });
        }
        Repeats::Each(counts) => counts,
    };
    unlocked(py, || {
        let counts = counts.to_device(x.device())?;
        // No counts are counts, of whatever dtype.
        let counts = if counts.numel() == 0 { counts.cast(bullet_tensor::DType::I64)? } else { counts };
        let (x, axis) = match axis {
            Some(axis) => (x, axis),
            None => (x.reshape(&[-1])?, 0),
        };
        let n = x.dim(x.shape().axis(axis)?);
        // One count is for all elements.
        let counts = if counts.numel() == 1 { counts.reshape(&[1])?.broadcast_to(&[n])? } else { counts };
        x.repeat_each(&counts, axis)
    })
}

/// Elements moved along axes, those beyond an end coming in at the other; all axes as one without `axis`.
#[pyfunction]
#[pyo3(signature = (x, /, shift, axis = None))]
fn roll(py: Python<'_>, x: &Bound<'_, PyTensor>, shift: Axes, axis: Option<Axes>) -> PyResult<PyTensor> {
    let x = x.get().tensor();
    let Some(axes) = axis.map(Axes::list) else {
        let far: i128 = shift.list().into_iter().map(|by| by as i128).sum();
        let by = (far % x.numel().max(1) as i128) as isize;
        return unlocked(py, || fresh(&x, x.roll(by, None)?));
    };
    let shifts = match shift {
        Axes::One(shift) => vec![shift; axes.len()],
        Axes::Many(shifts) if shifts.len() == axes.len() => shifts,
        Axes::Many(shifts) if axes.len() == 1 => vec![shifts.iter().sum()],
        Axes::Many(shifts) => {
            return Err(PyValueError::new_err(format!(
                "roll: {} shifts for {} axes; expected one for each, or one for all",
                shifts.len(),
                axes.len()
            )));
        }
    };
    unlocked(py, || {
        let rolled = axes.iter().zip(shifts).try_fold(x.clone(), |x, (&axis, by)| x.roll(by, Some(axis)))?;
        fresh(&x, rolled)
    })
}

/// A result of memory of its own, one place an element.
fn fresh(x: &Tensor, result: Tensor) -> Result<Tensor> {
    if result.shares_memory(x) || !result.is_contiguous() { result.copy() } else { Ok(result) }
}

/// The tensor several times side by side along each axis.
#[pyfunction]
#[pyo3(signature = (x, repetitions, /))]
fn tile(py: Python<'_>, x: &Bound<'_, PyTensor>, repetitions: Dims) -> PyResult<PyTensor> {
    let x = x.get().tensor();
    unlocked(py, || fresh(&x, x.tile(&repetitions.0)?))
}

/// Matrices with zeros above the `k`-th diagonal.
#[pyfunction]
#[pyo3(signature = (x, /, k = 0))]
fn tril(py: Python<'_>, x: &Bound<'_, PyTensor>, k: i64) -> PyResult<PyTensor> {
    x.get().map(py, |x| x.triangle(true, k))
}

/// Matrices with zeros below the `k`-th diagonal.
#[pyfunction]
#[pyo3(signature = (x, /, k = 0))]
fn triu(py: Python<'_>, x: &Bound<'_, PyTensor>, k: i64) -> PyResult<PyTensor> {
    x.get().map(py, |x| x.triangle(false, k))
}

/// Coordinates of a grid, of the coordinates along each axis; with `indexing='xy'` the first two axes are exchanged.
#[pyfunction]
#[pyo3(signature = (*arrays, indexing = "xy"))]
fn meshgrid<'py>(
    py: Python<'py>,
    arrays: Vec<Bound<'py, PyTensor>>,
    indexing: &str,
) -> PyResult<Bound<'py, PyList>> {
    let xy = match indexing {
        "xy" => true,
        "ij" => false,
        other => return Err(PyValueError::new_err(format!("indexing='{other}': expected 'xy' or 'ij'"))),
    };
    let arrays = tensors(&arrays);
    let lengths: Vec<usize> = arrays.iter().map(Tensor::numel).collect();
    let grids = interrupt::detached(py, || {
        let grid = |(i, x): (usize, &Tensor)| {
            let mut shape = vec![1; lengths.len()];
            shape[i] = -1;
            let grid = x.reshape(&shape)?.broadcast_to(&lengths)?;
            if xy && lengths.len() > 1 { grid.transpose(0, 1)?.copy() } else { grid.copy() }
        };
        arrays.iter().enumerate().map(grid).collect::<Result<Vec<_>>>()
    });
    PyList::new(py, objects(py, grids?.map_err(error::exception)?)?)
}

/// Adds these functions to the module.
pub(super) fn add_all(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(concat, module)?)?;
    module.add_function(wrap_pyfunction!(stack, module)?)?;
    module.add_function(wrap_pyfunction!(unstack, module)?)?;
    module.add_function(wrap_pyfunction!(broadcast_to, module)?)?;
    module.add_function(wrap_pyfunction!(broadcast_arrays, module)?)?;
    module.add_function(wrap_pyfunction!(expand_dims, module)?)?;
    module.add_function(wrap_pyfunction!(squeeze, module)?)?;
    module.add_function(wrap_pyfunction!(flip, module)?)?;
    module.add_function(wrap_pyfunction!(moveaxis, module)?)?;
    module.add_function(wrap_pyfunction!(permute_dims, module)?)?;
    module.add_function(wrap_pyfunction!(matrix_transpose, module)?)?;
    module.add_function(wrap_pyfunction!(reshape, module)?)?;
    module.add_function(wrap_pyfunction!(repeat, module)?)?;
    module.add_function(wrap_pyfunction!(roll, module)?)?;
    module.add_function(wrap_pyfunction!(tile, module)?)?;
    module.add_function(wrap_pyfunction!(tril, module)?)?;
    module.add_function(wrap_pyfunction!(triu, module)?)?;
    module.add_function(wrap_pyfunction!(meshgrid, module)?)
}
