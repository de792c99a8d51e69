//! Optimizers and schedules for Python: `bullet_nn`'s, and rules that Python wrote.

use std::sync::{Mutex, MutexGuard, PoisonError};

use bullet_nn::optim::{Decay, GroupOptions, Optimizer, OwnRule, OwnSlot, Rule, Schedule};
use bullet_nn::{Error, ErrorKind};
use bullet_tensor::optim::GradientScale;
use bullet_tensor::{DType, Device, Tensor};
use pyo3::exceptions::{PyMemoryError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::files::Named;
use super::step::{Function, Raised, function};
use crate::tensor::PyTensor;
use crate::whole;

/// Name, parameter, factor on the learning rate, weight decay.
pub(super) type Member<'py> = (String, Bound<'py, PyTensor>, f64, f64);

/// The parameters of `members`, and what options each of them has.
fn parts(members: Vec<Member<'_>>) -> (Vec<(String, Tensor)>, impl Fn(&str, &Tensor) -> GroupOptions) {
    let options: Vec<(String, GroupOptions)> = members
        .iter()
        .map(|(name, _, lr_scale, decay)| {
            (name.clone(), GroupOptions { lr_scale: *lr_scale, weight_decay: *decay })
        })
        .collect();
    let parameters = members.into_iter().map(|(name, tensor, ..)| (name, tensor.get().tensor())).collect();
    let of = move |name: &str, _: &Tensor| {
        options.iter().find(|(n, _)| n == name).map_or_else(GroupOptions::default, |(_, o)| *o)
    };
    (parameters, of)
}

/// The rule of this name.
fn rule(kind: &str, a: f64, b: f64, eps: f64, nesterov: bool) -> PyResult<Rule> {
    Ok(match kind {
        "sgd" => Rule::Sgd { momentum: a, nesterov },
        "adam" => Rule::Adam { beta1: a, beta2: b, eps },
        "adamw" => Rule::AdamW { beta1: a, beta2: b, eps },
        other => return Err(PyValueError::new_err(format!("no optimizer is called {other:?}"))),
    })
}

/// An optimizer of `bullet_nn`, one call a step for all parameters of a group.
#[pyclass(name = "FusedOptimizer", frozen)]
pub(super) struct Fused {
    inner: Mutex<Optimizer>,
}

impl Fused {
    fn lock(&self) -> MutexGuard<'_, Optimizer> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Gradients as they are.
fn unscaled(device: &Device) -> bullet_tensor::Result<GradientScale> {
    let scalar = |value, dtype| Tensor::full(value, &[], dtype, device);
    Ok(GradientScale {
        norm: scalar(0.0, DType::F32)?,
        factor: scalar(1.0, DType::F32)?,
        non_finite: scalar(0.0, DType::Bool)?,
    })
}

#[pymethods]
impl Fused {
    /// `a` and `b` are beta1 and beta2; of "sgd", `a` is the momentum.
    #[new]
    fn new(
        py: Python<'_>,
        kind: &str,
        a: f64,
        b: f64,
        eps: f64,
        nesterov: bool,
        members: Vec<Member<'_>>,
    ) -> PyResult<Fused> {
        let rule = rule(kind, a, b, eps, nesterov)?;
        let (parameters, options) = parts(members);
        let inner = py.detach(|| Optimizer::new(rule, parameters, options)).map_err(super::exception)?;
        Ok(Fused { inner: Mutex::new(inner) })
    }

    /// Goes on with these parameters and options; running averages stay with the names.
    fn regroup(&self, py: Python<'_>, members: Vec<Member<'_>>) -> PyResult<()> {
        let (parameters, options) = parts(members);
        py.detach(|| {
            let mut inner = self.lock();
            *inner = inner.regrouped(parameters, options)?;
            Ok(())
        })
        .map_err(super::exception)
    }

    /// One step with the gradients that backward left, at this learning rate times each parameter's factor.
    fn step(&self, py: Python<'_>, lr: f64) -> PyResult<()> {
        py.detach(|| {
            let inner = self.lock();
            if inner.parameters().all(|(_, t)| t.computed_grad().is_none()) {
                return Err(Error::argument(
                    "optimizer: no parameter has a gradient; run the forward pass and call backward on the loss first",
                ));
            }
            inner.set_lr(lr)?;
            inner.step(&unscaled(inner.steps_taken().device())?)
        })
        .map_err(super::exception)
    }

    /// Steps that were taken.
    #[getter]
    fn steps(&self, py: Python<'_>) -> PyResult<u64> {
        py.detach(|| self.lock().steps_taken().item()).map(|n| n as u64).map_err(crate::error::exception)
    }

    /// Its tensors by name: they share memory with it.
    fn state(&self) -> Named {
        self.lock().state().into_iter().map(|(name, t)| (name, PyTensor::new(t))).collect()
    }

    /// Overwrites its tensors with those of their names.
    fn load(&self, py: Python<'_>, state: Vec<(String, Bound<'_, PyTensor>)>) -> PyResult<()> {
        let state = state.into_iter().map(|(name, t)| (name, t.get().tensor())).collect();
        py.detach(|| self.lock().load(&state)).map_err(super::exception)
    }
}

impl Fused {
    /// An optimizer for a training step: of the same running averages.
    pub(super) fn for_step(&self, members: Vec<Member<'_>>) -> bullet_nn::Result<Optimizer> {
        let (parameters, options) = parts(members);
        self.lock().regrouped(parameters, options)
    }

    /// Takes over the count of steps of an optimizer that [`Fused::for_step`] made.
    pub(super) fn catch_up(&self, with: &Optimizer) -> bullet_nn::Result<()> {
        self.lock().count_from(with.steps_taken())
    }
}

/// A rule that Python wrote: calls `update(name, parameter, gradient, learning rate)`.
pub(super) struct PyRule {
    update: Function,
    raised: Raised,
}

impl OwnRule for PyRule {
    fn update(&self, slot: OwnSlot<'_>) -> bullet_nn::Result<()> {
        crate::interrupt::attached(|py| {
            let update = function(&self.update, py)?;
            let [param, grad] = [slot.param.clone(), slot.grad].map(PyTensor::new);
            update.call1(py, (slot.name, param, grad, slot.lr)).map(drop)
        })
        .map_err(|e| self.raised.keep(e))
    }
}

/// An optimizer by a rule of Python's, which took `steps` steps so far.
pub(super) fn own(
    update: Function,
    raised: Raised,
    members: Vec<Member<'_>>,
    steps: i64,
) -> bullet_nn::Result<Optimizer> {
    let (parameters, options) = parts(members);
    let optimizer = Optimizer::own(Box::new(PyRule { update, raised }), parameters, options)?;
    optimizer.count_from(&Tensor::scalar(steps, optimizer.steps_taken().device())?)?;
    Ok(optimizer)
}

/// The error of the engine that stands for an exception.
pub(super) fn stand_in(py: Python<'_>, exception: &PyErr) -> Error {
    let kind = if exception.is_instance_of::<PyMemoryError>(py) {
        ErrorKind::OutOfMemory
    } else {
        ErrorKind::Argument
    };
    Error::new(kind, format!("Python raised {exception}"))
}

/// A learning rate for every step: linear warm-up, then decay.
#[pyclass(name = "_Schedule", module = "bullet_core.optim", frozen)]
pub(super) struct PySchedule(pub(super) Schedule);

#[pymethods]
impl PySchedule {
    #[new]
    #[pyo3(signature = (lr, *, warmup = 0, decay = "constant", end = 0, floor = 0.0, every = 1, gamma = 1.0))]
    fn new(
        lr: f64,
        #[pyo3(from_py_with = whole::warmup)] warmup: u64,
        decay: &str,
        #[pyo3(from_py_with = whole::end)] end: u64,
        floor: f64,
        #[pyo3(from_py_with = whole::every)] every: u64,
        gamma: f64,
    ) -> PyResult<PySchedule> {
        let decay = match decay {
            "constant" => Decay::Constant,
            "cosine" => Decay::Cosine { end, floor },
            "linear" => Decay::Linear { end, floor },
            "step" => Decay::Step { every, gamma, floor },
            other => {
                return Err(PyValueError::new_err(format!(
                    "decay = {other:?}: expected 'constant', 'cosine', 'linear' or 'step'"
                )));
            }
        };
        Ok(PySchedule(Schedule { base: lr, warmup, decay }))
    }

    /// The rate of a step, counted from 0.
    fn __call__(&self, #[pyo3(from_py_with = whole::step)] step: u64) -> f64 {
        self.0.at(step)
    }

    fn __repr__(&self) -> String {
        let Schedule { base, warmup, .. } = self.0;
        let decay = match self.0.decay {
            Decay::Constant => String::new(),
            Decay::Cosine { end, floor } => format!(", decay='cosine', end={end}, floor={floor:?}"),
            Decay::Linear { end, floor } => format!(", decay='linear', end={end}, floor={floor:?}"),
            Decay::Step { every, gamma, floor } => {
                format!(", decay='step', every={every}, gamma={gamma:?}, floor={floor:?}")
            }
        };
        format!("Schedule(lr={base:?}, warmup={warmup}{decay})")
    }

    fn __getnewargs_ex__<'py>(&self, py: Python<'py>) -> PyResult<((f64,), Bound<'py, PyDict>)> {
        let options = PyDict::new(py);
        options.set_item("warmup", self.0.warmup)?;
        let (decay, end, floor) = match self.0.decay {
            Decay::Constant => ("constant", 0, 0.0),
            Decay::Cosine { end, floor } => ("cosine", end, floor),
            Decay::Linear { end, floor } => ("linear", end, floor),
            Decay::Step { every, gamma, floor } => {
                options.set_item("every", every)?;
                options.set_item("gamma", gamma)?;
                ("step", 0, floor)
            }
        };
        options.set_item("decay", decay)?;
        options.set_item("end", end)?;
        options.set_item("floor", floor)?;
        Ok(((self.0.base,), options))
    }
}

pub(super) fn add(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<Fused>()?;
    module.add_class::<PySchedule>()
}
