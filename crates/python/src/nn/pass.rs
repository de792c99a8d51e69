//! How Python's layers learn whether and how they are trained: the [`Pass`] of this thread.
//!
//! The training step makes its pass the current one while it calls a loss function of Python's. Elsewhere the current pass
//! is that of evaluation, in the dtype of the parameters; `bullet_core.nn.precision` changes that.

use std::cell::RefCell;
use std::sync::{Arc, Mutex, PoisonError};

use bullet_nn::Pass;
use bullet_tensor::{DType, Device, Generator, Tensor};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::dtype::{AnyDType, PyDType};
use crate::error;
use crate::tensor::{PyTensor, unlocked};
use crate::whole;

thread_local! {
    static CURRENT: RefCell<Pass> = RefCell::new(Pass::eval());
}

/// The pass of this thread.
pub(super) fn current() -> Pass {
    CURRENT.with_borrow(Pass::clone)
}

/// Runs `f` with `pass` as the current one.
pub(super) fn with<R>(pass: Pass, f: impl FnOnce() -> R) -> R {
    struct Restore(Option<Pass>);
    impl Drop for Restore {
        fn drop(&mut self) {
            if let Some(before) = self.0.take() {
                CURRENT.set(before);
            }
        }
    }
    let _restore = Restore(Some(CURRENT.replace(pass)));
    f()
}

/// What dropout draws from outside a training step, for each device that was asked for.
struct Default {
    seed: u64,
    generators: Vec<(Device, Arc<Generator>)>,
}

static DEFAULT: Mutex<Default> = Mutex::new(Default { seed: 0, generators: Vec::new() });

fn generator(device: &Device) -> PyResult<Arc<Generator>> {
    if let Some(generator) = CURRENT.with_borrow(|pass| pass.generator.clone()) {
        return Ok(generator);
    }
    let mut default = DEFAULT.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((_, generator)) = default.generators.iter().find(|(d, _)| d == device) {
        return Ok(generator.clone());
    }
    let made = Arc::new(Generator::new(default.seed, device).map_err(error::exception)?);
    default.generators.push((device.clone(), made.clone()));
    Ok(made)
}

/// Dropout outside a training step begins anew, with this seed.
#[pyfunction]
fn seed_dropout(#[pyo3(from_py_with = whole::seed)] seed: u64) {
    *DEFAULT.lock().unwrap_or_else(PoisonError::into_inner) = Default { seed, generators: Vec::new() };
}

/// Elements dropped with probability `p`, the others scaled by `1 / (1 - p)`.
#[pyfunction]
fn dropout<'py>(x: &Bound<'py, PyTensor>, p: f64) -> PyResult<Bound<'py, PyTensor>> {
    let (py, tensor) = (x.py(), x.get().tensor());
    match drawn(p, &tensor)? {
        None => Ok(x.clone()),
        Some(generator) => Bound::new(py, unlocked(py, || tensor.dropout(p, &generator))?),
    }
}

/// What dropout of probability `p` draws from; none for 0.
pub(super) fn drawn(p: f64, of: &Tensor) -> PyResult<Option<Arc<Generator>>> {
    if !(0.0..1.0).contains(&p) {
        return Err(PyValueError::new_err(format!(
            "dropout p = {p}: expected a probability of at least 0 and less than 1"
        )));
    }
    if p == 0.0 { Ok(None) } else { generator(of.device()).map(Some) }
}

/// A parameter in the dtype that the current pass computes in; None stays None.
#[pyfunction]
fn param<'py>(
    py: Python<'py>,
    tensor: Option<Bound<'py, PyTensor>>,
) -> PyResult<Option<Bound<'py, PyTensor>>> {
    let Some(tensor) = tensor else { return Ok(None) };
    let Some(dtype) = CURRENT.with_borrow(|pass| pass.compute) else { return Ok(Some(tensor)) };
    let inner = tensor.get().tensor();
    if inner.dtype() == dtype {
        return Ok(Some(tensor));
    }
    let pass = current();
    let used = py.detach(|| pass.param(&inner)).map_err(super::exception)?;
    Bound::new(py, PyTensor::new(used)).map(Some)
}

/// A tensor in the dtype that the current pass computes in; integers and bools stay as they are.
#[pyfunction]
fn cast<'py>(tensor: &Bound<'py, PyTensor>) -> PyResult<Bound<'py, PyTensor>> {
    let Some(dtype) = CURRENT.with_borrow(|pass| pass.compute) else { return Ok(tensor.clone()) };
    let (py, inner) = (tensor.py(), tensor.get().tensor());
    if inner.dtype() == dtype || !inner.dtype().is_float() {
        return Ok(tensor.clone());
    }
    Bound::new(py, unlocked(py, || inner.cast(dtype))?)
}

/// The dtype that the current pass computes in; None for that of the parameters.
#[pyfunction]
fn compute_dtype() -> Option<PyDType> {
    CURRENT.with_borrow(|pass| pass.compute).map(PyDType)
}

/// Says in which dtype layers of this thread compute; returns what was before.
#[pyfunction]
fn set_compute_dtype(dtype: Option<AnyDType>) -> PyResult<Option<PyDType>> {
    let dtype = dtype.map(|d| d.0);
    if let Some(wrong) = dtype.filter(|d: &DType| !d.is_float()) {
        return Err(PyValueError::new_err(format!(
            "cannot compute in {wrong}; expected a floating-point dtype"
        )));
    }
    let before = compute_dtype();
    CURRENT.with_borrow_mut(|pass| pass.compute = dtype);
    Ok(before)
}

pub(super) fn add(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(seed_dropout, module)?)?;
    module.add_function(wrap_pyfunction!(dropout, module)?)?;
    module.add_function(wrap_pyfunction!(param, module)?)?;
    module.add_function(wrap_pyfunction!(cast, module)?)?;
    module.add_function(wrap_pyfunction!(compute_dtype, module)?)?;
    module.add_function(wrap_pyfunction!(set_compute_dtype, module)?)
}
