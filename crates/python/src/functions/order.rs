//! Searching, sorting, sets, elements at indices, and products.

use bullet_tensor::{Result, Tensor, Unique};
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyTuple;

use super::reduce::Axes;
use super::shape::objects;
use crate::error;
use crate::interrupt;
use crate::operand::Operand;
use crate::tensor::{PyTensor, unlocked};
use crate::whole;

/// Elements in order along an axis. Equals keep their order in either direction; NaN is last.
#[pyfunction]
#[pyo3(signature = (x, /, axis = -1, *, descending = false, stable = true))]
fn sort(
    py: Python<'_>,
    x: &Bound<'_, PyTensor>,
    axis: isize,
    descending: bool,
    stable: bool,
) -> PyResult<PyTensor> {
    let _ = stable;
    x.get().map(py, |x| x.sort(axis, descending))
}

/// The indices that put elements in order along an axis: see `sort`.
#[pyfunction]
#[pyo3(signature = (x, /, axis = -1, *, descending = false, stable = true))]
fn argsort(
    py: Python<'_>,
    x: &Bound<'_, PyTensor>,
    axis: isize,
    descending: bool,
    stable: bool,
) -> PyResult<PyTensor> {
    let _ = stable;
    x.get().map(py, |x| x.argsort(axis, descending))
}

/// Where elements of `x2` go into `x1`, which ascends or is put in order by `sorter`: before its equals, or behind them
/// with `side='right'`.
#[pyfunction]
#[pyo3(signature = (x1, x2, /, side = "left", *, sorter = None))]
fn searchsorted(
    py: Python<'_>,
    x1: &Bound<'_, PyTensor>,
    x2: Operand,
    side: &str,
    sorter: Option<&Bound<'_, PyTensor>>,
) -> PyResult<PyTensor> {
    let right = match side {
        "left" => false,
        "right" => true,
        other => return Err(PyValueError::new_err(format!("side='{other}': expected 'left' or 'right'"))),
    };
    let x1 = x1.get().tensor();
    let (x2, sorter) = (x2.beside(&x1)?, sorter.map(|s| s.get().tensor()));
    unlocked(py, || match sorter {
        None => x1.searchsorted(&x2, right),
        Some(order) => x1.take(&order, 0)?.searchsorted(&x2, right),
    })
}

/// The indices of the elements that are not zero: a tensor for each axis.
#[pyfunction]
#[pyo3(signature = (x, /))]
pub(crate) fn nonzero<'py>(py: Python<'py>, x: &Bound<'py, PyTensor>) -> PyResult<Bound<'py, PyTuple>> {
    let x = x.get().tensor();
    PyTuple::new(py, objects(py, interrupt::detached(py, || x.nonzero())?.map_err(error::exception)?)?)
}

static UNIQUE_ALL: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
static UNIQUE_COUNTS: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
static UNIQUE_INVERSE: PyOnceLock<Py<PyAny>> = PyOnceLock::new();

/// A named tuple of tensors, of a type that is made at the first use.
fn named<'py>(
    py: Python<'py>,
    (cell, name, fields): (&PyOnceLock<Py<PyAny>>, &str, &[&str]),
    tensors: Vec<Tensor>,
) -> PyResult<Bound<'py, PyAny>> {
    let make = || -> PyResult<Py<PyAny>> {
        Ok(py.import("collections")?.call_method1("namedtuple", (name, fields))?.unbind())
    };
    let kind = cell.get_or_try_init(py, make)?.bind(py);
    kind.call1(PyTuple::new(py, objects(py, tensors)?)?)
}

fn distinct(py: Python<'_>, x: &Bound<'_, PyTensor>) -> PyResult<Unique> {
    let x = x.get().tensor();
    interrupt::detached(py, || x.unique())?.map_err(error::exception)
}

/// The distinct elements, in ascending order, with the index of the first of each, which of them each element is, and how
/// often each is there. Each NaN is distinct.
#[pyfunction]
#[pyo3(signature = (x, /))]
fn unique_all<'py>(py: Python<'py>, x: &Bound<'py, PyTensor>) -> PyResult<Bound<'py, PyAny>> {
    let Unique { values, indices, inverse, counts } = distinct(py, x)?;
    let fields = &["values", "indices", "inverse_indices", "counts"];
    named(py, (&UNIQUE_ALL, "UniqueAllResult", fields), vec![values, indices, inverse, counts])
}

/// The distinct elements, in ascending order, and how often each is there.
#[pyfunction]
#[pyo3(signature = (x, /))]
fn unique_counts<'py>(py: Python<'py>, x: &Bound<'py, PyTensor>) -> PyResult<Bound<'py, PyAny>> {
    let Unique { values, counts, .. } = distinct(py, x)?;
    named(py, (&UNIQUE_COUNTS, "UniqueCountsResult", &["values", "counts"]), vec![values, counts])
}

/// The distinct elements, in ascending order, and which of them each element is.
#[pyfunction]
#[pyo3(signature = (x, /))]
fn unique_inverse<'py>(py: Python<'py>, x: &Bound<'py, PyTensor>) -> PyResult<Bound<'py, PyAny>> {
    let Unique { values, inverse, .. } = distinct(py, x)?;
    let fields = &["values", "inverse_indices"];
    named(py, (&UNIQUE_INVERSE, "UniqueInverseResult", fields), vec![values, inverse])
}

/// The distinct elements, in ascending order.
#[pyfunction]
#[pyo3(signature = (x, /))]
fn unique_values(py: Python<'_>, x: &Bound<'_, PyTensor>) -> PyResult<PyTensor> {
    Ok(PyTensor::new(distinct(py, x)?.values))
}

/// Differences of neighbours along an axis, taken `n` times, of the tensor with `prepend` before and `append` behind it.
#[pyfunction]
#[pyo3(signature = (x, /, *, axis = -1, n = 1, prepend = None, append = None))]
fn diff(
    py: Python<'_>,
    x: &Bound<'_, PyTensor>,
    axis: isize,
    #[pyo3(from_py_with = whole::n)] n: usize,
    prepend: Option<&Bound<'_, PyTensor>>,
    append: Option<&Bound<'_, PyTensor>>,
) -> PyResult<PyTensor> {
    let x = x.get().tensor();
    let (before, behind) = (prepend.map(|t| t.get().tensor()), append.map(|t| t.get().tensor()));
    unlocked(py, || {
        let parts: Vec<&Tensor> = before.iter().chain([&x]).chain(&behind).collect();
        if parts.len() == 1 { x.diff(n, axis) } else { Tensor::concat(&parts, axis)?.diff(n, axis) }
    })
}

/// Slices along an axis at indices, which count from the end if negative; of a vector without `axis`.
#[pyfunction]
#[pyo3(signature = (x, indices, /, axis = None))]
pub(crate) fn take(
    py: Python<'_>,
    x: &Bound<'_, PyTensor>,
    indices: &Bound<'_, PyAny>,
    axis: Option<isize>,
) -> PyResult<PyTensor> {
    let x = x.get().tensor();
    let indices = crate::index::integers(indices, &x)?;
    unlocked(py, || match axis {
        Some(axis) => x.take(&indices, axis),
        None => x.reshape(&[-1])?.take(&indices, 0),
    })
}

/// Elements picked along an axis by a tensor of indices with as many axes.
#[pyfunction]
#[pyo3(signature = (x, indices, /, axis = -1))]
fn take_along_axis(
    py: Python<'_>,
    x: &Bound<'_, PyTensor>,
    indices: &Bound<'_, PyTensor>,
    axis: isize,
) -> PyResult<PyTensor> {
    let indices = indices.get().tensor();
    x.get().map(py, |x| x.take_along_axis(&indices, axis))
}

/// How `tensordot` names axes: as many of the last and first, or lists of both.
enum Pairs {
    Count(usize),
    Lists((Axes, Axes)),
}

impl<'a, 'py> FromPyObject<'a, 'py> for Pairs {
    type Error = PyErr;

    fn extract(object: Borrowed<'a, 'py, PyAny>) -> PyResult<Pairs> {
        if let Ok(pairs) = object.extract() {
            return Ok(Pairs::Lists(pairs));
        }
        if object.hasattr("__index__")? {
            return whole::axes(&object).map(Pairs::Count);
        }
        Err(PyTypeError::new_err(format!(
            "expected how many axes, or two lists of axes, got {}",
            object.get_type()
        )))
    }
}

/// Sum over products of elements along pairs of axes: `axes` of the last and first, or two lists of axes.
#[pyfunction]
#[pyo3(signature = (x1, x2, /, axes = Pairs::Count(2)), text_signature = "(x1, x2, /, axes=2)")]
fn tensordot(
    py: Python<'_>,
    x1: &Bound<'_, PyTensor>,
    x2: &Bound<'_, PyTensor>,
    axes: Pairs,
) -> PyResult<PyTensor> {
    let x2 = x2.get().tensor();
    x1.get().map(py, |x1| {
        let (a, b) = match axes {
            Pairs::Count(n) => ((1..=n as isize).rev().map(|i| -i).collect(), (0..n as isize).collect()),
            Pairs::Lists((a, b)) => (a.list(), b.list()),
        };
        x1.tensordot(&x2, (&a, &b))
    })
}

/// Sum of products of elements along an axis; the other axes broadcast.
#[pyfunction]
#[pyo3(signature = (x1, x2, /, *, axis = -1))]
fn vecdot(
    py: Python<'_>,
    x1: &Bound<'_, PyTensor>,
    x2: &Bound<'_, PyTensor>,
    axis: isize,
) -> PyResult<PyTensor> {
    let x2 = x2.get().tensor();
    x1.get().map(py, |x1| x1.vecdot(&x2, axis))
}

/// Matrix product of the last two axes; leading axes broadcast, dtypes are promoted.
#[pyfunction]
#[pyo3(signature = (x1, x2, /))]
fn matmul(py: Python<'_>, x1: &Bound<'_, PyTensor>, x2: &Bound<'_, PyTensor>) -> PyResult<PyTensor> {
    let x2 = x2.get().tensor();
    x1.get().map(py, |x1| -> Result<Tensor> { x1.product(&x2) })
}

/// Adds these functions to the module.
pub(super) fn add_all(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(sort, module)?)?;
    module.add_function(wrap_pyfunction!(argsort, module)?)?;
    module.add_function(wrap_pyfunction!(searchsorted, module)?)?;
    module.add_function(wrap_pyfunction!(nonzero, module)?)?;
    module.add_function(wrap_pyfunction!(unique_all, module)?)?;
    module.add_function(wrap_pyfunction!(unique_counts, module)?)?;
    module.add_function(wrap_pyfunction!(unique_inverse, module)?)?;
    module.add_function(wrap_pyfunction!(unique_values, module)?)?;
    module.add_function(wrap_pyfunction!(diff, module)?)?;
    module.add_function(wrap_pyfunction!(take, module)?)?;
    module.add_function(wrap_pyfunction!(take_along_axis, module)?)?;
    module.add_function(wrap_pyfunction!(tensordot, module)?)?;
    module.add_function(wrap_pyfunction!(vecdot, module)?)?;
    module.add_function(wrap_pyfunction!(matmul, module)?)
}
