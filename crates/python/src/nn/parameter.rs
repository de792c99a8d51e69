//! Parameters: leaves of the tape, made as `bullet_nn::Init` makes them, and replaced inside the objects that hold them.

use bullet_nn::{Fill, Init};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::creation::Dims;
use crate::device::{AnyDevice, chosen};
use crate::dtype::AnyDType;
use crate::tensor::PyTensor;
use crate::whole;

/// A new parameter called `name`: its values are a function of seed, name, shape and dtype.
///
/// `fill` is "zeros", "ones", "normal" (of standard deviation `scale`) or "uniform" (over -scale..scale).
#[pyfunction]
#[pyo3(signature = (name, shape, fill, scale = 0.0, *, seed = 0, dtype = None, device = None))]
fn init(
    py: Python<'_>,
    name: &str,
    shape: Dims,
    fill: &str,
    scale: f64,
    #[pyo3(from_py_with = whole::seed)] seed: u64,
    dtype: Option<AnyDType>,
    device: Option<AnyDevice>,
) -> PyResult<PyTensor> {
    let fill = match fill {
        "zeros" => Fill::Zeros,
        "ones" => Fill::Ones,
        "normal" => Fill::Normal { std: scale },
        "uniform" => Fill::Uniform { bound: scale },
        other => {
            return Err(PyValueError::new_err(format!(
                "fill = {other:?}: expected 'zeros', 'ones', 'normal' or 'uniform'"
            )));
        }
    };
    let init = Init::new(seed, dtype.map_or(bullet_tensor::DType::F32, |d| d.0), &chosen(device)?);
    py.detach(|| init.param(name, &shape.0, fill)).map(PyTensor::new).map_err(super::exception)
}

/// Whether a gradient ends up in this tensor.
#[pyfunction]
fn is_leaf(tensor: &Bound<'_, PyTensor>) -> bool {
    tensor.get().tensor().is_leaf()
}

/// What tells a leaf from all others that exist; None for a tensor that is none.
#[pyfunction]
fn leaf_id(tensor: &Bound<'_, PyTensor>) -> Option<usize> {
    tensor.get().tensor().leaf_id()
}

/// Whether both are views of all of the same memory.
#[pyfunction]
fn is_same(a: &Bound<'_, PyTensor>, b: &Bound<'_, PyTensor>) -> bool {
    let (a, b) = (a.get().tensor(), b.get().tensor());
    a.shares_memory(&b) && a.layout() == b.layout()
}

/// Puts what `source` holds into the object `target`: whoever holds that object sees it.
#[pyfunction]
fn replace(target: &Bound<'_, PyTensor>, source: &Bound<'_, PyTensor>) {
    target.get().set(source.get().tensor());
}

/// Overwrites the values of a parameter; its gradient and its place on the tape stay.
#[pyfunction]
fn assign(py: Python<'_>, target: &Bound<'_, PyTensor>, source: &Bound<'_, PyTensor>) -> PyResult<()> {
    let (target, source) = (target.get().tensor(), source.get().tensor());
    py.detach(|| bullet_tensor::no_grad(|| target.copy_(&source.to_device(target.device())?)))
        .map_err(crate::error::exception)
}

pub(super) fn add(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(init, module)?)?;
    module.add_function(wrap_pyfunction!(is_leaf, module)?)?;
    module.add_function(wrap_pyfunction!(is_same, module)?)?;
    module.add_function(wrap_pyfunction!(leaf_id, module)?)?;
    module.add_function(wrap_pyfunction!(replace, module)?)?;
    module.add_function(wrap_pyfunction!(assign, module)?)
}
