//! Ops of layers that have no place among the array functions.

use bullet_tensor::{ConvSpec, Tensor};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use super::pass;
use crate::error;
use crate::tensor::{PyTensor, unlocked};
use crate::whole;

fn optional(x: Option<&Bound<'_, PyTensor>>) -> Option<Tensor> {
    x.map(|x| x.get().tensor())
}

/// Scaled-dot-product attention of queries (batch, heads, queries, d) on keys and values (batch, kv heads, keys, d).
///
/// `mask` broadcasts to (batch, heads, queries, keys): bool keeps where it is true, floats are added to the scores.
#[pyfunction]
#[pyo3(signature = (queries, keys, values, *, mask = None, causal = false, scale = None))]
fn attention(
    py: Python<'_>,
    queries: &Bound<'_, PyTensor>,
    keys: &Bound<'_, PyTensor>,
    values: &Bound<'_, PyTensor>,
    mask: Option<&Bound<'_, PyTensor>>,
    causal: bool,
    scale: Option<f64>,
) -> PyResult<PyTensor> {
    let [q, k, v] = [queries, keys, values].map(|t| t.get().tensor());
    let mask = optional(mask);
    unlocked(py, || q.attention(&k, &v, mask.as_ref(), causal, scale))
}

/// Attention on one tensor (batch, sequence, (heads + 2 kv_heads) * d) that packs queries, keys and values, to
/// (batch, sequence, heads, d); weights are dropped with probability `dropout`.
#[pyfunction]
#[pyo3(signature = (qkv, heads, kv_heads, *, causal = true, dropout = 0.0))]
fn attention_packed(
    py: Python<'_>,
    qkv: &Bound<'_, PyTensor>,
    #[pyo3(from_py_with = whole::heads)] heads: usize,
    #[pyo3(from_py_with = whole::kv_heads)] kv_heads: usize,
    causal: bool,
    dropout: f64,
) -> PyResult<PyTensor> {
    let qkv = qkv.get().tensor();
    let generator = pass::drawn(dropout, &qkv)?;
    unlocked(py, || qkv.attention_packed(heads, kv_heads, causal, generator.as_deref().map(|g| (dropout, g))))
}

/// Rotary embedding (Su et al. 2021) of (batch, sequence, heads, d), the first position being `offset`; with `heads`, of
/// that many heads, and the others are copied.
#[pyfunction]
#[pyo3(signature = (x, *, base = 10000.0, offset = 0, interleaved = false, heads = None))]
fn rope(
    py: Python<'_>,
    x: &Bound<'_, PyTensor>,
    base: f64,
    #[pyo3(from_py_with = whole::offset)] offset: usize,
    interleaved: bool,
    #[pyo3(from_py_with = whole::heads)] heads: Option<usize>,
) -> PyResult<PyTensor> {
    let x = x.get().tensor();
    unlocked(py, || match heads {
        None => x.rope(base, offset, interleaved),
        Some(heads) => x.rope_heads(base, offset, interleaved, heads),
    })
}

/// One-dimensional convolution of (batch, channels, length) with `weight` (channels out, channels / groups, taps).
#[pyfunction]
#[pyo3(signature = (x, weight, bias = None, *, stride = 1, padding = 0, dilation = 1, groups = 1))]
fn conv1d(
    py: Python<'_>,
    x: &Bound<'_, PyTensor>,
    weight: &Bound<'_, PyTensor>,
    bias: Option<&Bound<'_, PyTensor>>,
    #[pyo3(from_py_with = whole::stride)] stride: usize,
    #[pyo3(from_py_with = whole::padding)] padding: usize,
    #[pyo3(from_py_with = whole::dilation)] dilation: usize,
    #[pyo3(from_py_with = whole::groups)] groups: usize,
) -> PyResult<PyTensor> {
    let (x, weight, bias) = (x.get().tensor(), weight.get().tensor(), optional(bias));
    unlocked(py, || x.conv1d(&weight, bias.as_ref(), ConvSpec { stride, padding, dilation, groups }))
}

/// The layer norm of `x + added`, and that sum, in one pass.
#[pyfunction]
#[pyo3(signature = (x, added, weight = None, bias = None, eps = 1e-5))]
fn add_layernorm(
    py: Python<'_>,
    x: &Bound<'_, PyTensor>,
    added: &Bound<'_, PyTensor>,
    weight: Option<&Bound<'_, PyTensor>>,
    bias: Option<&Bound<'_, PyTensor>>,
    eps: f64,
) -> PyResult<(PyTensor, PyTensor)> {
    let (x, added, weight, bias) = (x.get().tensor(), added.get().tensor(), optional(weight), optional(bias));
    let (normed, sum) = py
        .detach(|| x.add_layer_norm(&added, weight.as_ref(), bias.as_ref(), eps))
        .map_err(error::exception)?;
    Ok((PyTensor::new(normed), PyTensor::new(sum)))
}

/// The RMS norm of `x + added`, and that sum, in one pass.
#[pyfunction]
#[pyo3(signature = (x, added, weight = None, eps = 1e-5))]
fn add_rmsnorm(
    py: Python<'_>,
    x: &Bound<'_, PyTensor>,
    added: &Bound<'_, PyTensor>,
    weight: Option<&Bound<'_, PyTensor>>,
    eps: f64,
) -> PyResult<(PyTensor, PyTensor)> {
    let (x, added, weight) = (x.get().tensor(), added.get().tensor(), optional(weight));
    let (normed, sum) =
        py.detach(|| x.add_rms_norm(&added, weight.as_ref(), eps)).map_err(error::exception)?;
    Ok((PyTensor::new(normed), PyTensor::new(sum)))
}

/// Views of consecutive parts of an axis, of these sizes; the gradients of all are put together once.
#[pyfunction]
#[pyo3(signature = (x, sizes, axis = -1))]
fn split(py: Python<'_>, x: &Bound<'_, PyTensor>, sizes: Vec<usize>, axis: isize) -> PyResult<Vec<PyTensor>> {
    let x = x.get().tensor();
    let parts = py.detach(|| x.split(&sizes, axis)).map_err(error::exception)?;
    Ok(parts.into_iter().map(PyTensor::new).collect())
}

/// Scales gradients in place so that their global norm is at most `max_norm`; returns the norm before, float32.
#[pyfunction]
fn clip_grad_norm(py: Python<'_>, tensors: Vec<Bound<'_, PyTensor>>, max_norm: f64) -> PyResult<PyTensor> {
    if max_norm.is_nan() || max_norm <= 0.0 {
        return Err(PyValueError::new_err(format!("max_norm = {max_norm}: expected a number above 0")));
    }
    let tensors: Vec<Tensor> = tensors.iter().map(|t| t.get().tensor()).collect();
    unlocked(py, || {
        let grads: Vec<Tensor> = tensors.iter().filter_map(Tensor::computed_grad).collect();
        if grads.is_empty() {
            return Err(bullet_ops::Error::argument(
                "no tensor has a gradient; run the forward pass and call backward on the loss first",
            )
            .into());
        }
        let scale =
            bullet_tensor::optim::gradient_scale(&grads.iter().collect::<Vec<_>>(), None, Some(max_norm))?;
        bullet_tensor::no_grad(|| grads.iter().try_for_each(|g| g.mul_(&scale.factor)))?;
        Ok(scale.norm)
    })
}

pub(super) fn add(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(attention, module)?)?;
    module.add_function(wrap_pyfunction!(attention_packed, module)?)?;
    module.add_function(wrap_pyfunction!(rope, module)?)?;
    module.add_function(wrap_pyfunction!(conv1d, module)?)?;
    module.add_function(wrap_pyfunction!(add_layernorm, module)?)?;
    module.add_function(wrap_pyfunction!(add_rmsnorm, module)?)?;
    module.add_function(wrap_pyfunction!(split, module)?)?;
    module.add_function(wrap_pyfunction!(clip_grad_norm, module)?)
}
