//! Reductions and scans.

use bullet_tensor::{Result, Tensor};
use pyo3::exceptions::{PyOverflowError, PyTypeError, PyValueError};
use pyo3::prelude::*;

use crate::dtype::AnyDType;
use crate::tensor::{PyTensor, unlocked};

/// Axes of a reduction: none for all, a number, or several.
pub(crate) enum Axes {
    One(isize),
    Many(Vec<isize>),
}

impl<'a, 'py> FromPyObject<'a, 'py> for Axes {
    type Error = PyErr;

    fn extract(object: Borrowed<'a, 'py, PyAny>) -> PyResult<Axes> {
        let mistake = match object.extract::<isize>() {
            Ok(axis) => return Ok(Axes::One(axis)),
            Err(mistake) => mistake,
        };
        if mistake.is_instance_of::<PyOverflowError>(object.py()) {
            return Err(PyValueError::new_err(format!("{}: expected a number of 64 bits", &*object)));
        }
        object.extract().map(Axes::Many).map_err(|_| {
            PyTypeError::new_err(format!(
                "expected a whole number or a tuple of them, got {}",
                object.get_type()
            ))
        })
    }
}

/// Runs a reduction of the engine over axes as Python names them: all without `axes`; over none of an empty tuple, each
/// element by itself.
pub(crate) fn over(
    tensor: &Tensor,
    axes: Option<Axes>,
    keepdims: bool,
    f: impl Fn(&Tensor, &[isize], bool) -> Result<Tensor>,
) -> Result<Tensor> {
    match axes {
        None => f(tensor, &[], keepdims),
        Some(Axes::One(axis)) => f(tensor, &[axis], keepdims),
        // The engine takes no axes for all of them: an axis of its own stands for none.
        Some(Axes::Many(axes)) if axes.is_empty() => f(&tensor.unsqueeze(-1)?, &[-1], false),
        Some(Axes::Many(axes)) => f(tensor, &axes, keepdims),
    }
}

/// The summands of a sum or product of this dtype.
pub(crate) fn summands(x: &Tensor, dtype: Option<AnyDType>) -> Result<Tensor> {
    dtype.map_or_else(|| Ok(x.clone()), |dtype| x.cast(dtype.0))
}

/// As a sum is returned: of the dtype that was asked for, where that is narrower than the engine's.
pub(crate) fn summed(sum: Tensor, dtype: Option<AnyDType>) -> Result<Tensor> {
    dtype.map_or_else(|| Ok(sum.clone()), |dtype| sum.cast(dtype.0))
}

/// Defines reductions that take a dtype, others that don't, and `add_reductions`.
macro_rules! reductions {
    (sums: $($sum:ident: $sum_doc:literal),*; others: $($name:ident: $doc:literal),* $(,)?) => {
        $(
            #[doc = $sum_doc]
            #[pyfunction]
            #[pyo3(signature = (x, /, axis = None, dtype = None, *, keepdims = false))]
            fn $sum(py: Python<'_>, x: &Bound<'_, PyTensor>, axis: Option<Axes>, dtype: Option<AnyDType>, keepdims: bool) -> PyResult<PyTensor> {
                let x = x.get().tensor();
                unlocked(py, || summed(over(&summands(&x, dtype)?, axis, keepdims, Tensor::$sum)?, dtype))
            }
        )*
        $(
            #[doc = $doc]
            #[pyfunction]
            #[pyo3(signature = (x, /, axis = None, *, keepdims = false))]
            fn $name(py: Python<'_>, x: &Bound<'_, PyTensor>, axis: Option<Axes>, keepdims: bool) -> PyResult<PyTensor> {
                x.get().reduce(py, axis, keepdims, Tensor::$name)
            }
        )*
        fn add_reductions(module: &Bound<'_, PyModule>) -> PyResult<()> {
            $(module.add_function(wrap_pyfunction!($sum, module)?)?;)*
            $(module.add_function(wrap_pyfunction!($name, module)?)?;)*
            Ok(())
        }
    };
}
reductions! {
    sums:
    sum: "Sum over axes; over all without `axis`. Integers add up in int64 or uint64.",
    prod: "Product over axes; over all without `axis`. Integers multiply in int64 or uint64.";
    others:
    all: "Whether no element over axes is zero; over all without `axis`.",
    any: "Whether an element over axes is not zero; over all without `axis`.",
    count_nonzero: "Number of elements over axes that are not zero; over all without `axis`.",
    max: "Largest element over axes; over all without `axis`.",
    mean: "Mean over axes; over all without `axis`.",
    min: "Smallest element over axes; over all without `axis`.",
}

/// Degrees of freedom that a variance has less than elements: the array API's name for it, or NumPy's.
pub(crate) fn freedom(correction: Option<f64>, ddof: Option<f64>) -> PyResult<f64> {
    match (correction, ddof) {
        (Some(_), Some(_)) => {
            Err(PyValueError::new_err("correction and ddof are the same; give one of them"))
        }
        (given, None) | (None, given) => Ok(given.unwrap_or(0.0)),
    }
}

/// Variance over axes, with `correction` (0 by default), or `ddof`, degrees of freedom less than elements.
#[pyfunction]
#[pyo3(signature = (x, /, axis = None, *, correction = None, keepdims = false, ddof = None))]
fn var(
    py: Python<'_>,
    x: &Bound<'_, PyTensor>,
    axis: Option<Axes>,
    correction: Option<f64>,
    keepdims: bool,
    ddof: Option<f64>,
) -> PyResult<PyTensor> {
    let correction = freedom(correction, ddof)?;
    x.get().reduce(py, axis, keepdims, |x, axes, keepdims| x.var(axes, correction, keepdims))
}

/// Standard deviation over axes, with `correction` (0 by default), or `ddof`, degrees of freedom less than elements.
#[pyfunction]
#[pyo3(name = "std", signature = (x, /, axis = None, *, correction = None, keepdims = false, ddof = None))]
fn deviation(
    py: Python<'_>,
    x: &Bound<'_, PyTensor>,
    axis: Option<Axes>,
    correction: Option<f64>,
    keepdims: bool,
    ddof: Option<f64>,
) -> PyResult<PyTensor> {
    let correction = freedom(correction, ddof)?;
    x.get().reduce(py, axis, keepdims, |x, axes, keepdims| x.var(axes, correction, keepdims)?.sqrt())
}

/// Index of the largest element along an axis; in the flattened tensor without `axis`.
#[pyfunction]
#[pyo3(signature = (x, /, axis = None, *, keepdims = false))]
fn argmax(
    py: Python<'_>,
    x: &Bound<'_, PyTensor>,
    axis: Option<isize>,
    keepdims: bool,
) -> PyResult<PyTensor> {
    x.get().map(py, |x| x.argmax(axis, keepdims))
}

/// Index of the smallest element along an axis; in the flattened tensor without `axis`.
#[pyfunction]
#[pyo3(signature = (x, /, axis = None, *, keepdims = false))]
fn argmin(
    py: Python<'_>,
    x: &Bound<'_, PyTensor>,
    axis: Option<isize>,
    keepdims: bool,
) -> PyResult<PyTensor> {
    x.get().map(py, |x| x.argmin(axis, keepdims))
}

pub(crate) type Scan = fn(&Tensor, isize) -> Result<Tensor>;

/// A scan along an axis, which may be left out if there is only one, with or without the neutral element before.
pub(crate) fn scan(
    py: Python<'_>,
    x: &Bound<'_, PyTensor>,
    (axis, dtype, include_initial): (Option<isize>, Option<AnyDType>, bool),
    (f, neutral): (Scan, f64),
) -> PyResult<PyTensor> {
    let x = x.get().tensor();
    let axis = match axis {
        Some(axis) => axis,
        None if x.rank() == 1 => 0,
        None => {
            return Err(PyValueError::new_err(format!(
                "the axis must be named, as the tensor has {}, not one",
                x.rank()
            )));
        }
    };
    unlocked(py, || {
        let sums = summed(f(&summands(&x, dtype)?, axis)?, dtype)?;
        if !include_initial {
            return Ok(sums);
        }
        let first = sums.shape().with(sums.shape().axis(axis)?, 1);
        Tensor::concat(&[&Tensor::full(neutral, &first, sums.dtype(), sums.device())?, &sums], axis)
    })
}

/// Running sums along an axis.
#[pyfunction]
#[pyo3(signature = (x, /, *, axis = None, dtype = None, include_initial = false))]
fn cumulative_sum(
    py: Python<'_>,
    x: &Bound<'_, PyTensor>,
    axis: Option<isize>,
    dtype: Option<AnyDType>,
    include_initial: bool,
) -> PyResult<PyTensor> {
    scan(py, x, (axis, dtype, include_initial), (Tensor::cumsum, 0.0))
}

/// Running products along an axis.
#[pyfunction]
#[pyo3(signature = (x, /, *, axis = None, dtype = None, include_initial = false))]
fn cumulative_prod(
    py: Python<'_>,
    x: &Bound<'_, PyTensor>,
    axis: Option<isize>,
    dtype: Option<AnyDType>,
    include_initial: bool,
) -> PyResult<PyTensor> {
    scan(py, x, (axis, dtype, include_initial), (Tensor::cumprod, 1.0))
}

/// Adds these functions to the module.
pub(super) fn add_all(module: &Bound<'_, PyModule>) -> PyResult<()> {
    add_reductions(module)?;
    module.add_function(wrap_pyfunction!(var, module)?)?;
    module.add_function(wrap_pyfunction!(deviation, module)?)?;
    module.add_function(wrap_pyfunction!(argmax, module)?)?;
    module.add_function(wrap_pyfunction!(argmin, module)?)?;
    module.add_function(wrap_pyfunction!(cumulative_sum, module)?)?;
    module.add_function(wrap_pyfunction!(cumulative_prod, module)?)
}
