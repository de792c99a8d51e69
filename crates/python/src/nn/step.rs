//! The training step of `bullet_nn`, with a model and a loss that Python wrote.

use std::cell::Cell;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, ThreadId};

use bullet_nn::optim::Schedule;
use bullet_nn::train::{BatchTensor, Objective, StepOptions, TrainStep};
use bullet_nn::{Error, Module, Pass, Result};
use bullet_tensor::{DType, Tensor};
use pyo3::exceptions::{PyRuntimeError, PyTypeError};
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;

use super::files::Named;
use super::optim::{self, Fused, Member, stand_in};
use super::pass;
use crate::device::PyDevice;
use crate::dtype::AnyDType;
use crate::tensor::PyTensor;
use crate::whole;

/// The exception that a call from the engine raised, on its way past the engine.
#[derive(Clone, Default)]
pub(super) struct Raised(Arc<Mutex<Option<PyErr>>>);

impl Raised {
    /// Keeps the exception; returns what the engine is told.
    pub(super) fn keep(&self, exception: PyErr) -> Error {
        let told = crate::interrupt::attached(|py| stand_in(py, &exception));
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(exception);
        told
    }

    /// The exception behind an error, if there is one.
    pub(super) fn or(&self, error: Error) -> PyErr {
        self.take().unwrap_or_else(|| super::exception(error))
    }

    /// The exception, if there is one.
    pub(super) fn take(&self) -> Option<PyErr> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// A function of Python's that Python's collector can reach; gone once it was cleared.
pub(super) type Function = Arc<Mutex<Option<Py<PyAny>>>>;

/// The function, if it was not collected. No lock is held when it is called.
pub(super) fn function(slot: &Function, py: Python<'_>) -> PyResult<Py<PyAny>> {
    let slot = slot.lock().unwrap_or_else(PoisonError::into_inner);
    slot.as_ref()
        .map(|f| f.clone_ref(py))
        .ok_or_else(|| PyRuntimeError::new_err("this training step was collected; make a new one"))
}

thread_local! {
    /// Whether this thread is in the loss function of a training step.
    static IN_LOSS: Cell<bool> = const { Cell::new(false) };
}

/// Refuses a backward that the training step would do a second time.
pub(crate) fn check_outside_of_loss() -> PyResult<()> {
    if !IN_LOSS.get() {
        return Ok(());
    }
    Err(PyRuntimeError::new_err(
        "backward() inside the loss function of a training step, which calls it itself: gradients would count twice; return \
         the loss",
    ))
}

/// Parameters that Python named, and a loss function of it.
struct PyObjective {
    parameters: Vec<(String, Tensor)>,
    loss: Function,
    raised: Raised,
}

impl Module for PyObjective {
    fn visit(&self, path: &str, f: &mut dyn FnMut(&str, &Tensor)) {
        let join = |name: &str| bullet_nn::module::join(path, name);
        self.parameters.iter().for_each(|(name, tensor)| f(&join(name), tensor));
    }
}

impl PyObjective {
    fn call(&self, py: Python<'_>, batch: &[Tensor], pass: &Pass) -> PyResult<Tensor> {
        let function = function(&self.loss, py)?;
        let batch: Vec<PyTensor> = batch.iter().map(|t| PyTensor::new(t.clone())).collect();
        let before = IN_LOSS.replace(true);
        let loss = pass::with(pass.clone(), || function.call1(py, (batch,)));
        IN_LOSS.set(before);
        let loss = loss?;
        let loss = loss.bind(py).cast::<PyTensor>().map_err(|_| {
            PyTypeError::new_err(format!(
                "the loss function returned {}, expected a Tensor",
                loss.bind(py).get_type()
            ))
        })?;
        let loss = loss.get().tensor();
        if loss.numel() != 1 || loss.rank() != 0 {
            return Err(pyo3::exceptions::PyValueError::new_err(format!(
                "the loss function returned a tensor of shape {}, expected one number; take its mean() or sum()",
                loss.shape()
            )));
        }
        py.detach(|| loss.cast(DType::F32)).map_err(crate::error::exception)
    }
}

impl Objective for PyObjective {
    fn loss(&self, batch: &[Tensor], pass: &Pass) -> Result<Tensor> {
        crate::interrupt::attached(|py| self.call(py, batch, pass)).map_err(|e| self.raised.keep(e))
    }
}

/// One optimizer step of a model with all it needs, in static tensors.
#[pyclass(name = "TrainStep", frozen)]
pub(super) struct PyTrainStep {
    step: Mutex<TrainStep<PyObjective>>,
    owner: Mutex<Option<ThreadId>>,
    loss: Function,
    update: Function,
    raised: Raised,
}

impl PyTrainStep {
    /// Runs what may wait for a step of another thread, or call Python back: without the interpreter's lock.
    fn run<R: Send>(
        &self,
        py: Python<'_>,
        f: impl FnOnce(&mut TrainStep<PyObjective>) -> Result<R> + Send,
    ) -> PyResult<R> {
        let me = thread::current().id();
        if *self.owner() == Some(me) {
            return Err(PyRuntimeError::new_err(
                "a training step is asked for something while it computes its loss; ask before or after the step",
            ));
        }
        py.detach(|| {
            let mut step = self.step.lock().unwrap_or_else(PoisonError::into_inner);
            let _owned = Owned::by(self, me);
            f(&mut step)
        })
        .map_err(|e| self.raised.or(e))
    }

    /// Which thread has the step. Held for no longer than it takes to look.
    fn owner(&self) -> MutexGuard<'_, Option<ThreadId>> {
        self.owner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// While it lives, a thread has the step.
struct Owned<'a>(&'a PyTrainStep);

impl<'a> Owned<'a> {
    fn by(step: &'a PyTrainStep, thread: ThreadId) -> Owned<'a> {
        *step.owner() = Some(thread);
        Owned(step)
    }
}

impl Drop for Owned<'_> {
    fn drop(&mut self) {
        *self.0.owner() = None;
    }
}

#[pymethods]
impl PyTrainStep {
    /// `loss` is called with the list of a batch's tensors. `optimizer` is a fused one, or a function that updates one
    /// parameter, and which took `taken` steps so far. `shapes` are shape and dtype of each tensor of a batch.
    #[new]
    #[pyo3(signature = (loss, optimizer, members, shapes, device, *, taken, accumulation, compute, loss_scale, grad_clip, seed))]
    fn new(
        py: Python<'_>,
        loss: Py<PyAny>,
        optimizer: Bound<'_, PyAny>,
        members: Vec<Member<'_>>,
        shapes: Vec<(Vec<usize>, AnyDType)>,
        device: &Bound<'_, PyDevice>,
        taken: i64,
        #[pyo3(from_py_with = whole::accumulation)] accumulation: usize,
        compute: Option<AnyDType>,
        loss_scale: Option<(f64, u64)>,
        grad_clip: Option<f64>,
        #[pyo3(from_py_with = whole::seed)] seed: u64,
    ) -> PyResult<PyTrainStep> {
        let raised = Raised::default();
        let parameters = members.iter().map(|(n, t, ..)| (n.clone(), t.get().tensor())).collect();
        let update = Function::default();
        let optimizer = match optimizer.cast::<Fused>() {
            Ok(fused) => fused.get().for_step(members),
            Err(_) => {
                *update.lock().unwrap_or_else(PoisonError::into_inner) = Some(optimizer.clone().unbind());
                optim::own(update.clone(), raised.clone(), members, taken)
            }
        }
        .map_err(super::exception)?;
        let options = StepOptions {
            batch: shapes.into_iter().map(|(shape, dtype)| BatchTensor { shape, dtype: dtype.0 }).collect(),
            accumulation,
            schedule: Schedule::constant(0.0),
            compute: compute.map(|d| d.0),
            loss_scale,
            grad_clip,
            recompute: false,
            seed,
        };
        let loss = Arc::new(Mutex::new(Some(loss)));
        let model = PyObjective { parameters, loss: loss.clone(), raised: raised.clone() };
        let device = device.get().0.clone();
        let step =
            py.detach(|| TrainStep::new(model, optimizer, options, &device)).map_err(super::exception)?;
        Ok(PyTrainStep { step: Mutex::new(step), owner: Mutex::default(), loss, update, raised })
    }

    /// One step on these batches, one for each round of accumulation, at this learning rate.
    fn step(&self, py: Python<'_>, batches: Vec<Vec<Bound<'_, PyTensor>>>, lr: f64) -> PyResult<()> {
        let batches: Vec<Vec<Tensor>> =
            batches.iter().map(|batch| batch.iter().map(|t| t.get().tensor()).collect()).collect();
        self.run(py, |step| {
            step.set_schedule(Schedule::constant(lr));
            step.step_on(&batches)
        })
    }

    /// Waits for the device: loss, gradient norm, loss scale, and how many steps changed the parameters.
    fn read(&self, py: Python<'_>) -> PyResult<(f64, f64, Option<f64>, u64)> {
        self.run(py, |step| {
            let taken = step.optimizer().steps_taken().item()? as u64;
            step.read().map(|r| (r.loss, r.grad_norm, r.loss_scale, taken))
        })
    }

    /// Steps begun so far.
    #[getter]
    fn steps(&self, py: Python<'_>) -> PyResult<u64> {
        self.run(py, |step| Ok(step.steps()))
    }

    /// Steps that changed the parameters: all but those skipped.
    #[getter]
    fn taken(&self, py: Python<'_>) -> PyResult<u64> {
        self.run(py, |step| Ok(step.optimizer().steps_taken().item()? as u64))
    }

    /// Goes on from this step.
    fn resume_at(&self, py: Python<'_>, at: u64) -> PyResult<()> {
        self.run(py, |step| {
            step.resume_at(at);
            Ok(())
        })
    }

    /// Whether steps are replayed from a graph.
    #[getter]
    fn captured(&self, py: Python<'_>) -> PyResult<bool> {
        self.run(py, |step| Ok(step.is_captured()))
    }

    /// Whether steps may be captured into a graph; by default, on a GPU.
    fn set_captured(&self, py: Python<'_>, captured: bool) -> PyResult<()> {
        self.run(py, |step| {
            step.set_captured(captured);
            Ok(())
        })
    }

    /// Why steps are not captured, where that was tried.
    #[getter]
    fn not_captured(&self, py: Python<'_>) -> PyResult<Option<String>> {
        self.run(py, |step| Ok(step.not_captured().map(str::to_string)))
    }

    /// Tells the optimizer that it was made from how far it went.
    fn catch_up(&self, py: Python<'_>, optimizer: &Bound<'_, Fused>) -> PyResult<()> {
        let fused = optimizer.get();
        self.run(py, |step| fused.catch_up(step.optimizer()))
    }

    /// The tensors of the loss scale, by name.
    fn scaler_state(&self, py: Python<'_>) -> PyResult<Named> {
        let state = self.run(py, |step| Ok(step.scaler().map(|s| s.state()).unwrap_or_default()))?;
        Ok(state.into_iter().map(|(name, t)| (name, PyTensor::new(t))).collect())
    }

    /// Overwrites the tensors of the loss scale.
    fn load_scaler(&self, py: Python<'_>, state: Vec<(String, Bound<'_, PyTensor>)>) -> PyResult<()> {
        let state = state.into_iter().map(|(name, t)| (name, t.get().tensor())).collect();
        self.run(py, |step| step.scaler().map_or(Ok(()), |s| s.load(&state)))
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        for function in [&self.loss, &self.update] {
            if let Ok(slot) = function.try_lock() {
                visit.call(&*slot)?;
            }
        }
        Ok(())
    }

    fn __clear__(&self) {
        for function in [&self.loss, &self.update] {
            if let Ok(mut slot) = function.try_lock() {
                *slot = None;
            }
        }
    }
}

pub(super) fn add(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<PyTrainStep>()
}
