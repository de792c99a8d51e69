//! Functions of tensors: thin, one line an op. Here are those of models.

pub(crate) mod elementwise;
pub(crate) mod order;
pub(crate) mod reduce;
pub(crate) mod shape;

use bullet_tensor::{Activation, Result, Tensor};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::tensor::{PyTensor, unlocked};

fn of(
    py: Python<'_>,
    x: &Bound<'_, PyTensor>,
    f: impl FnOnce(&Tensor) -> Result<Tensor> + Send,
) -> PyResult<PyTensor> {
    let x = x.get().tensor();
    unlocked(py, || f(&x))
}

/// Softmax along an axis.
#[pyfunction]
#[pyo3(signature = (x, axis = -1))]
fn softmax(py: Python<'_>, x: &Bound<'_, PyTensor>, axis: isize) -> PyResult<PyTensor> {
    of(py, x, |x| x.softmax(axis))
}

/// Logarithm of the softmax along an axis.
#[pyfunction]
#[pyo3(signature = (x, axis = -1))]
fn log_softmax(py: Python<'_>, x: &Bound<'_, PyTensor>, axis: isize) -> PyResult<PyTensor> {
    of(py, x, |x| x.log_softmax(axis))
}

fn optional(x: Option<&Bound<'_, PyTensor>>) -> Option<Tensor> {
    x.map(|x| x.get().tensor())
}

/// Layer normalisation along the last axis (Ba et al. 2016), then times `weight` plus `bias`.
#[pyfunction]
#[pyo3(signature = (x, weight = None, bias = None, eps = 1e-5))]
fn layernorm(
    py: Python<'_>,
    x: &Bound<'_, PyTensor>,
    weight: Option<&Bound<'_, PyTensor>>,
    bias: Option<&Bound<'_, PyTensor>>,
    eps: f64,
) -> PyResult<PyTensor> {
    let (weight, bias) = (optional(weight), optional(bias));
    of(py, x, |x| x.layer_norm(weight.as_ref(), bias.as_ref(), eps))
}

/// Root-mean-square normalisation along the last axis (Zhang and Sennrich 2019), then times `weight`.
#[pyfunction]
#[pyo3(signature = (x, weight = None, eps = 1e-5))]
fn rmsnorm(
    py: Python<'_>,
    x: &Bound<'_, PyTensor>,
    weight: Option<&Bound<'_, PyTensor>>,
    eps: f64,
) -> PyResult<PyTensor> {
    let weight = optional(weight);
    of(py, x, |x| x.rms_norm(weight.as_ref(), eps))
}

/// Rows of `weight` at `indices`.
#[pyfunction]
fn embedding(
    py: Python<'_>,
    weight: &Bound<'_, PyTensor>,
    indices: &Bound<'_, PyTensor>,
) -> PyResult<PyTensor> {
    let indices = indices.get().tensor();
    of(py, weight, |weight| weight.embedding(&indices))
}

/// activation(x W^T + b), in one pass; `activation` is None, "relu", "gelu", "gelu_tanh" or "silu".
#[pyfunction]
#[pyo3(signature = (x, weight, bias = None, *, activation = None))]
fn linear(
    py: Python<'_>,
    x: &Bound<'_, PyTensor>,
    weight: &Bound<'_, PyTensor>,
    bias: Option<&Bound<'_, PyTensor>>,
    activation: Option<&str>,
) -> PyResult<PyTensor> {
    let activation = match activation {
        None => Activation::Identity,
        Some("relu") => Activation::Relu,
        Some("gelu") => Activation::Gelu,
        Some("gelu_tanh") => Activation::GeluTanh,
        Some("silu") => Activation::Silu,
        Some(other) => {
            return Err(PyValueError::new_err(format!(
                "activation='{other}': expected None, 'relu', 'gelu', 'gelu_tanh' or 'silu'"
            )));
        }
    };
    let (weight, bias) = (weight.get().tensor(), optional(bias));
    of(py, x, |x| x.linear(&weight, bias.as_ref(), activation))
}

/// Mean cross-entropy of logits (.., classes) against class indices (..), those equal to `ignore_index` left out.
#[pyfunction]
#[pyo3(signature = (logits, targets, *, ignore_index = -100, label_smoothing = 0.0))]
fn cross_entropy(
    py: Python<'_>,
    logits: &Bound<'_, PyTensor>,
    targets: &Bound<'_, PyTensor>,
    ignore_index: i64,
    label_smoothing: f64,
) -> PyResult<PyTensor> {
    let targets = targets.get().tensor();
    of(py, logits, |logits| logits.cross_entropy(&targets, ignore_index, label_smoothing))
}

/// Adds all functions to the module.
pub(crate) fn add_all(module: &Bound<'_, PyModule>) -> PyResult<()> {
    elementwise::add_all(module)?;
    reduce::add_all(module)?;
    shape::add_all(module)?;
    order::add_all(module)?;
    module.add_function(wrap_pyfunction!(softmax, module)?)?;
    module.add_function(wrap_pyfunction!(log_softmax, module)?)?;
    module.add_function(wrap_pyfunction!(layernorm, module)?)?;
    module.add_function(wrap_pyfunction!(rmsnorm, module)?)?;
    module.add_function(wrap_pyfunction!(embedding, module)?)?;
    module.add_function(wrap_pyfunction!(linear, module)?)?;
    module.add_function(wrap_pyfunction!(cross_entropy, module)?)
}
