//! [`TrainStep`]: one optimizer step.
//!
//! **A step reads nothing back to the host.** Batches, learning rate and random state are written to tensors that stay
//! where they are ([`TrainStep::begin`]); all the rest is device work on those, the model and the optimizer's state
//! ([`TrainStep::compute`]), so that it can be captured once and replayed. Loss, gradient norm, loss scale and step
//! count wait on the device until someone asks ([`TrainStep::read`]). A model that lies on several devices is the exception:
//! what moves between them, activations and the norm of gradients, goes through the host, so that its step is not captured.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bullet_ops::fmt_tuple;
use bullet_tensor::{DType, Device, Generator, Graph, Tensor, no_grad};

use crate::data::Batch;
use crate::error::{Error, ErrorKind, Result};
use crate::module::{Module, Pass};
use crate::optim::{LossScaler, Optimizer, Schedule};

/// What is trained: a module, and its loss on a batch.
pub trait Objective: Module {
    /// The mean loss on a batch: f32, no axes. What a batch is made of, [`StepOptions::batch`] says; that of a language
    /// model are inputs and targets, see [`tokens_of`].
    fn loss(&self, batch: &[Tensor], pass: &Pass) -> Result<Tensor>;
}

/// Inputs and targets of a language model's batch, both i64 (batch, sequence). Targets of
/// [`IGNORE_INDEX`](crate::data::IGNORE_INDEX) count for nothing.
///
/// # Errors
/// The batch is not made of two tensors.
pub fn tokens_of(batch: &[Tensor]) -> Result<(&Tensor, &Tensor)> {
    match batch {
        [inputs, targets] => Ok((inputs, targets)),
        _ => Err(Error::argument(format!(
            "a language model's batch is inputs and targets, two tensors; got {}",
            batch.len()
        ))),
    }
}

/// One tensor of every batch.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BatchTensor {
    /// Its axis lengths.
    pub shape: Vec<usize>,
    /// Its element type.
    pub dtype: DType,
}

/// How a step is done.
#[derive(Clone, PartialEq, Debug)]
pub struct StepOptions {
    /// What a batch is made of; of a language model [`StepOptions::tokens`].
    pub batch: Vec<BatchTensor>,
    /// Batches whose gradients are averaged.
    pub accumulation: usize,
    /// The learning rate of every step.
    pub schedule: Schedule,
    /// The dtype of activations; that of the parameters if `None`.
    pub compute: Option<DType>,
    /// First loss scale, and the clean steps after which it doubles; no scaling if `None`.
    pub loss_scale: Option<(f64, u64)>,
    /// Largest global norm of the gradients.
    pub grad_clip: Option<f64>,
    /// Recompute blocks in backward.
    pub recompute: bool,
    /// What dropout is drawn from.
    pub seed: u64,
}

impl StepOptions {
    /// A batch of so many sequences of so many tokens: inputs and targets, i64.
    pub fn tokens(sequences_tokens: [usize; 2]) -> Vec<BatchTensor> {
        vec![BatchTensor { shape: sequences_tokens.to_vec(), dtype: DType::I64 }; 2]
    }

    /// As [`StepOptions::tokens`] was given them: the first two axes of the first tensor, 1 where there is none.
    pub fn sequences(&self) -> [usize; 2] {
        let axes = self.batch.first().map_or(&[][..], |t| &t.shape);
        [axes.first().copied().unwrap_or(1), axes.get(1).copied().unwrap_or(1)]
    }
}

/// A model with all that one optimizer step needs, in static device tensors.
pub struct TrainStep<M> {
    model: M,
    optimizer: Optimizer,
    scaler: Option<LossScaler>,
    options: StepOptions,
    pass: Pass,
    generator: Arc<Generator>,
    /// The tensors of each batch of a step.
    batches: Vec<Vec<Tensor>>,
    /// f32: the gradient that backward starts from, loss scale over accumulation.
    seed_gradient: Tensor,
    /// f32: 1 / accumulation.
    share: Tensor,
    latest: Mutex<Latest>,
    /// Steps begun, skipped ones included.
    step: u64,
    replay: Replay,
    not_captured: Option<String>,
}

/// Where the last step left what is read of it; a captured step leaves it there again.
struct Latest {
    /// f32: mean loss.
    loss: Tensor,
    /// f32: global gradient norm, before clipping.
    norm: Tensor,
}

/// Whether [`TrainStep::compute`] is done op by op or replayed.
enum Replay {
    /// Op by op, as the device has no graphs.
    Never,
    /// Captured after so many more steps: the first ones compile kernels and fill the memory pool.
    After(u32),
    /// Replayed.
    Captured(Graph),
}

impl Replay {
    fn planned(captured: bool) -> Replay {
        if captured { Replay::After(2) } else { Replay::Never }
    }
}

/// Refuses a batch that is not what the options say.
fn check_batch(expected: &[BatchTensor], batch: &[Tensor]) -> Result<()> {
    if expected.len() != batch.len() {
        return Err(Error::argument(format!(
            "a batch is made of {} tensors here, got {}",
            expected.len(),
            batch.len()
        )));
    }
    for (i, (want, got)) in expected.iter().zip(batch).enumerate() {
        if want.shape[..] != got.shape()[..] || want.dtype != got.dtype() {
            return Err(Error::argument(format!(
                "tensor {i} of a batch is {} {}, expected {} {}: all batches of a run have the shapes and dtypes of the first",
                got.dtype(),
                got.shape(),
                want.dtype,
                fmt_tuple(&want.shape)
            )));
        }
    }
    Ok(())
}

/// Does a captured step.
fn replay(graph: &Graph) -> bullet_tensor::Result<()> {
    // SAFETY: what the step uses belongs to the `TrainStep` that holds the graph: model, optimizer, scaler, generator and
    // static tensors.
    Ok(unsafe { graph.launch() }?)
}

/// What the device knows after a step.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Reading {
    /// Mean loss of the last step, in nats.
    pub loss: f64,
    /// Global norm of its gradients, loss scale divided out, before clipping.
    pub grad_norm: f64,
    /// The loss scale, if there is one.
    pub loss_scale: Option<f64>,
    /// Steps since the start that were skipped because a gradient was not finite.
    pub skipped: u64,
}

impl<M: Objective> TrainStep<M> {
    /// Ready for step 0. `device` is where the loss is computed: that of the model, or of its last part.
    ///
    /// # Errors
    /// A size is 0; out of memory.
    pub fn new(
        model: M,
        optimizer: Optimizer,
        options: StepOptions,
        device: &Device,
    ) -> Result<TrainStep<M>> {
        let shapes: Vec<String> = options.batch.iter().map(|t| fmt_tuple(&t.shape)).collect();
        if options.accumulation == 0 || options.batch.iter().any(|t| t.shape.contains(&0)) {
            return Err(Error::argument(format!(
                "a step of {} batches of tensors of shape {} is empty: every size must be at least 1",
                options.accumulation,
                shapes.join(" and ")
            )));
        }
        let devices = optimizer.devices();
        let generator = Arc::new(Generator::across(options.seed, &devices)?);
        let pass = Pass {
            training: true,
            compute: options.compute,
            generator: Some(generator.clone()),
            recompute: options.recompute,
        };
        let scalar = |value: f64| Tensor::full(value, &[], DType::F32, device);
        let batch = || -> Result<Vec<Tensor>> {
            let one = |t: &BatchTensor| Ok(Tensor::zeros(&t.shape, t.dtype, device)?);
            options.batch.iter().map(one).collect()
        };
        let batches = (0..options.accumulation).map(|_| batch()).collect::<Result<_>>()?;
        let scaler = options
            .loss_scale
            .map(|(scale, interval)| LossScaler::new(scale, interval, device))
            .transpose()?;
        let share = 1.0 / options.accumulation as f64;
        Ok(TrainStep {
            batches,
            seed_gradient: scalar(share)?,
            share: scalar(share)?,
            latest: Mutex::new(Latest { loss: scalar(0.0)?, norm: scalar(0.0)? }),
            step: 0,
            replay: Replay::planned(
                devices.len() == 1 && device.gpu().is_some() && optimizer.can_be_captured(),
            ),
            not_captured: None,
            model,
            optimizer,
            scaler,
            options,
            pass,
            generator,
        })
    }

    /// One optimizer step on these batches of tokens, one for each round of accumulation.
    ///
    /// # Errors
    /// Another number or size of batches than the options say; what the model's ops refuse; out of memory.
    pub fn step(&mut self, batches: &[Batch]) -> Result<()> {
        self.check_rounds(batches.len())?;
        for (fixed, batch) in self.batches.iter().zip(batches) {
            let (inputs, targets) = tokens_of(fixed)?;
            inputs.send_(&batch.x)?;
            targets.send_(&batch.y)?;
        }
        self.step_on_static()
    }

    /// As [`TrainStep::step`], on batches of any tensors, on any device; one list for each round of accumulation.
    ///
    /// # Errors
    /// As [`TrainStep::step`]; a tensor has another shape or dtype than the options say.
    pub fn step_on(&mut self, batches: &[Vec<Tensor>]) -> Result<()> {
        self.check_rounds(batches.len())?;
        for (fixed, batch) in self.batches.iter().zip(batches) {
            check_batch(&self.options.batch, batch)?;
            fixed.iter().zip(batch).try_for_each(|(fixed, tensor)| fixed.send_from_(tensor))?;
        }
        self.step_on_static()
    }

    /// One step on what the static tensors hold. One that fails is as if it had not begun.
    fn step_on_static(&mut self) -> Result<()> {
        self.begin()?;
        let done = self.compute_or_replay();
        if done.is_err() {
            self.step -= 1;
            self.optimizer.zero_grad();
        }
        done
    }

    fn compute_or_replay(&mut self) -> Result<()> {
        match &self.replay {
            Replay::Captured(graph) => Ok(replay(graph)?),
            Replay::After(0) => self.compute_captured(),
            Replay::After(_) | Replay::Never => {
                if let Replay::After(steps) = &mut self.replay {
                    *steps -= 1;
                }
                self.compute()
            }
        }
    }

    /// Captures the step and does it; a device that cannot goes on op by op.
    fn compute_captured(&mut self) -> Result<()> {
        match self.capture() {
            Ok(graph) => {
                replay(&graph)?;
                self.replay = Replay::Captured(graph);
                Ok(())
            }
            Err(e) => {
                self.replay = Replay::Never;
                self.not_captured = Some(e.to_string());
                self.generator.set_streams(0);
                self.compute()
            }
        }
    }

    /// Captures the step. What the memory pool has cached in other sizes than the capture asks for cannot be given back
    /// in a capture: if memory runs out, that is done, and the capture begins anew.
    fn capture(&self) -> Result<Graph> {
        match self.capture_once() {
            Err(e) if e.kind == ErrorKind::OutOfMemory => {
                self.optimizer.zero_grad();
                self.generator.set_streams(0);
                self.share.device().trim();
                self.capture_once()
            }
            done => done,
        }
    }

    fn capture_once(&self) -> Result<Graph> {
        let capture = self.share.device().capture().map_err(bullet_tensor::Error::from)?;
        self.compute()?;
        Ok(capture.end().map_err(bullet_tensor::Error::from)?)
    }

    /// Whether steps are captured into a graph and replayed, if the device can: by default on a GPU. The first two are
    /// done op by op in any case, as they compile kernels and fill the memory pool. Steps on several devices never are.
    pub fn set_captured(&mut self, captured: bool) {
        let possible = self.optimizer.devices().len() == 1 && self.optimizer.can_be_captured();
        self.replay = Replay::planned(captured && possible);
        self.not_captured = None;
    }

    /// Whether steps are replayed from a graph by now.
    pub fn is_captured(&self) -> bool {
        matches!(self.replay, Replay::Captured(_))
    }

    /// Why the step is not captured, where that was tried.
    pub fn not_captured(&self) -> Option<&str> {
        self.not_captured.as_deref()
    }

    fn check_rounds(&self, batches: usize) -> Result<()> {
        if batches == self.batches.len() {
            return Ok(());
        }
        Err(Error::argument(format!("a step takes {} batches, got {batches}", self.batches.len())))
    }

    /// Writes what changes from step to step beside the batches into the static tensors, and what someone else changed since
    /// the last step into those that go with it.
    fn begin(&mut self) -> Result<()> {
        self.optimizer.set_lr(self.options.schedule.at(self.step))?;
        self.generator.begin_step(self.step)?;
        self.optimizer.refresh_shadows()?;
        self.step += 1;
        Ok(())
    }

    /// The device work of a step: forward, backward, clip, update.
    fn compute(&self) -> Result<()> {
        self.optimizer.zero_grad();
        let seed = match &self.scaler {
            Some(scaler) if self.batches.len() == 1 => scaler.scale(),
            Some(scaler) => {
                self.seed_gradient.copy_(scaler.scale())?;
                self.seed_gradient.mul_(&self.share)?;
                &self.seed_gradient
            }
            None => &self.seed_gradient,
        };
        let mut mean = None;
        for batch in &self.batches {
            let loss = self.model.loss(batch, &self.pass)?;
            loss.backward_with(seed)?;
            mean = Some(self.add_loss(mean, loss.detach())?);
        }
        let loss_scale = self.scaler.as_ref().map(LossScaler::scale);
        let scale = self.optimizer.gradient_scale(loss_scale, self.options.grad_clip)?;
        self.optimizer.step(&scale)?;
        if let Some(loss) = mean {
            *self.latest() = Latest { loss, norm: scale.norm.clone() };
        }
        if let Some(scaler) = &self.scaler {
            scaler.update(&scale.non_finite)?;
        }
        Ok(())
    }

    /// The mean with the loss of one more round of accumulation.
    fn add_loss(&self, mean: Option<Tensor>, loss: Tensor) -> Result<Tensor> {
        if self.batches.len() == 1 {
            return Ok(loss);
        }
        let part = no_grad(|| loss.mul(&self.share))?;
        let Some(mean) = mean else { return Ok(part) };
        mean.add_(&part)?;
        Ok(mean)
    }

    fn latest(&self) -> MutexGuard<'_, Latest> {
        self.latest.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads back what the last step left on the device; this waits for it.
    pub fn read(&self) -> Result<Reading> {
        let taken = self.optimizer.steps_taken().item()? as u64;
        let latest = self.latest();
        Ok(Reading {
            loss: latest.loss.item()?,
            grad_norm: latest.norm.item()?,
            loss_scale: self.scaler.as_ref().map(|s| s.scale().item()).transpose()?,
            skipped: self.step.saturating_sub(taken),
        })
    }

    /// Steps begun so far: the number of the next one.
    pub fn steps(&self) -> u64 {
        self.step
    }

    /// Goes on from step `step`, after the optimizer's and the scaler's state were loaded.
    pub fn resume_at(&mut self, step: u64) {
        self.step = step;
    }

    /// Changes the learning rate of the steps to come.
    pub fn set_schedule(&mut self, schedule: Schedule) {
        self.options.schedule = schedule;
    }

    /// The model.
    pub fn model(&self) -> &M {
        &self.model
    }

    /// The optimizer.
    pub fn optimizer(&self) -> &Optimizer {
        &self.optimizer
    }

    /// The loss scaler, if the options ask for one.
    pub fn scaler(&self) -> Option<&LossScaler> {
        self.scaler.as_ref()
    }

    /// How steps are done.
    pub fn options(&self) -> &StepOptions {
        &self.options
    }

    /// The model, trained.
    pub fn into_model(self) -> M {
        self.model
    }
}
