//! [`Trainer`]: a run from its settings to its report. The loop reads from the device at logging steps, evaluations and
//! saves only; see [`TrainStep`].

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bullet_tensor::Device;

use crate::config::Config;
use crate::data::{Batch, Sampler, TokenDataset};
use crate::error::Result;
use crate::module::Pass;
use crate::tokenizer::Tokenizer;
use crate::transformer::Transformer;

use super::builder::TrainerBuilder;
use super::checkpoint::{TrainingState, save};
use super::diagnose::not_finite;
use super::evaluate::{estimate, evaluate};
use super::events::{Callback, CheckpointKind, Ending, Evaluation, Flow, Progress, Report};
use super::record::{Record, RunFolder, draw_curve};
use super::step::{Reading, TrainStep};

/// A run: model, data, optimizer, logs and checkpoints.
pub struct Trainer {
    pub(super) config: Config,
    pub(super) step: TrainStep<Transformer>,
    pub(super) tokenizer: Tokenizer,
    pub(super) data: TokenDataset,
    pub(super) data_checksum: String,
    /// See [`TrainingState::text`].
    pub(super) text: Option<String>,
    /// Where the loss is computed.
    pub(super) device: Device,
    /// See [`Trainer::plan`].
    pub(super) plan: Option<String>,
    pub(super) folder: RunFolder,
    pub(super) record: Record,
    pub(super) callbacks: Vec<Box<dyn Callback>>,
    pub(super) stop: Arc<AtomicBool>,
    pub(super) best: Option<(f64, u64)>,
    /// Evaluations since the best.
    pub(super) stale: usize,
    pub(super) last_loss: Option<f64>,
    pub(super) skipped: u64,
    pub(super) record_failed: bool,
    pub(super) clock: Clock,
}

/// Time spent training, without evaluations and saves.
pub(super) struct Clock {
    began: Instant,
    /// Time since the run began that was not training.
    other: Duration,
    steps: u64,
    /// Training time and steps at the last logging step.
    mark: (Duration, u64),
}

impl Clock {
    pub(super) fn start() -> Clock {
        Clock { began: Instant::now(), other: Duration::ZERO, steps: 0, mark: (Duration::ZERO, 0) }
    }

    fn training(&self) -> Duration {
        self.began.elapsed().saturating_sub(self.other)
    }

    /// Seconds a step since the last call.
    fn lap(&mut self) -> f64 {
        let now = (self.training(), self.steps);
        let (time, steps) = (now.0.saturating_sub(self.mark.0), now.1 - self.mark.1);
        self.mark = now;
        time.as_secs_f64() / steps.max(1) as f64
    }
}

impl Trainer {
    /// A run with these settings; the builder takes what is not a setting.
    pub fn builder(config: Config) -> TrainerBuilder {
        TrainerBuilder::new(config)
    }

    /// The settings.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The model.
    pub fn model(&self) -> &Transformer {
        self.step.model()
    }
    /// The tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }
    /// The text as tokens.
    pub fn data(&self) -> &TokenDataset {
        &self.data
    }
    /// Where the run leaves its files.
    pub fn folder(&self) -> &RunFolder {
        &self.folder
    }
    /// Where the parts of the model are, in words, if that was planned: with `train.device` = `hybrid`.
    pub fn plan(&self) -> Option<&str> {
        self.plan.as_deref()
    }
    /// One optimizer step with its state.
    pub fn train_step(&self) -> &TrainStep<Transformer> {
        &self.step
    }

    /// The model and its tokenizer, trained.
    pub fn into_parts(self) -> (Transformer, Tokenizer) {
        (self.step.into_model(), self.tokenizer)
    }

    /// Trains to the end, or until a callback, the stop flag or early stopping ends it. `last.bullet` is written in
    /// every case.
    ///
    /// # Errors
    /// Numbers that are not finite (the message names the tensor and what to try); a last checkpoint that cannot be
    /// written; out of memory. A checkpoint on the way that cannot be written is a warning, and the older one stays.
    pub fn run(&mut self) -> Result<Report> {
        self.clock = Clock::start();
        let total = self.config.train.steps as u64;
        let mut ending = Ending::Completed;
        while self.step.steps() < total {
            if self.stop.load(Ordering::Relaxed) {
                ending = Ending::Stopped;
                break;
            }
            if let Some(end) = self.advance(total)? {
                ending = end;
                break;
            }
        }
        let report = self.finish(ending)?;
        self.callbacks.iter_mut().for_each(|c| c.on_end(&report));
        Ok(report)
    }

    /// One step and what is due after it.
    fn advance(&mut self, total: u64) -> Result<Option<Ending>> {
        let batches = self.batches(self.step.steps())?;
        self.step.step(&batches)?;
        self.clock.steps += 1;
        let done = self.step.steps();
        let t = &self.config.train;
        let due = |interval: usize| interval > 0 && done.is_multiple_of(interval as u64) && done < total;
        let (eval, save) = (due(t.eval_interval), due(t.save_interval));
        let log = done == 1 || done.is_multiple_of(t.log_interval as u64) || done == total;
        let mut flow = self.notify(|c| c.on_step(done, total));
        if log {
            flow = flow.or(self.log(total)?);
        }
        let (other, mut patient) = (Instant::now(), true);
        if eval {
            flow = flow.or(self.evaluate_and_note()?.1);
            patient = self.config.train.patience == 0 || self.stale < self.config.train.patience;
        }
        if save {
            self.save_on_the_way()?;
        }
        if eval || save {
            self.clock.other += other.elapsed();
        }
        Ok(match flow {
            // The last step was done: there is nothing left to stop.
            Flow::Stop if done < total => Some(Ending::Stopped),
            Flow::Stop | Flow::Continue => (!patient).then_some(Ending::EarlyStopped),
        })
    }

    /// The batches of a step: a function of the seed and the step.
    fn batches(&self, step: u64) -> Result<Vec<Batch>> {
        let t = &self.config.train;
        let sampler = Sampler::new(t.seed, Sampler::TRAIN, t.batch_size, self.config.model.seq)?;
        let rounds = t.accumulation as u64;
        (0..rounds).map(|i| sampler.batch(&self.data.train, step * rounds + i)).collect()
    }

    fn notify(&mut self, mut hook: impl FnMut(&mut dyn Callback) -> Flow) -> Flow {
        self.callbacks.iter_mut().fold(Flow::Continue, |flow, c| flow.or(hook(&mut **c)))
    }

    fn warn(&mut self, message: &str) {
        self.callbacks.iter_mut().for_each(|c| c.on_warning(message));
    }

    fn log(&mut self, total: u64) -> Result<Flow> {
        let reading = self.checked_reading()?;
        let step = self.step.steps();
        let t = &self.config.train;
        let seconds = self.clock.lap();
        let tokens = (t.batch_size * t.accumulation * self.config.model.seq) as f64;
        let progress = Progress {
            step,
            steps: total,
            loss: reading.loss,
            lr: self.step.options().schedule.at(step - 1),
            grad_norm: reading.grad_norm,
            loss_scale: reading.loss_scale,
            skipped: reading.skipped,
            tokens_per_second: tokens / seconds.max(1e-9),
            eta: Duration::from_secs_f64((seconds * (total - step) as f64).min(1e9)),
            elapsed: self.clock.began.elapsed(),
        };
        let written = self.record.progress(&progress);
        self.note_record(written);
        Ok(self.notify(|c| c.on_log(&progress)))
    }

    /// What the last step left on the device, unless the run broke down.
    fn checked_reading(&mut self) -> Result<Reading> {
        let reading = self.step.read()?;
        self.last_loss = Some(reading.loss);
        let skipped = reading.skipped > self.skipped;
        self.skipped = reading.skipped;
        // A dynamic loss scale overflows now and then by design; one that has come down to 1 has nowhere to go.
        let overflow = skipped && reading.loss_scale.is_none_or(|scale| scale <= 1.0);
        if reading.loss.is_finite() && !overflow {
            return Ok(reading);
        }
        let half = self.config.train.precision == crate::config::Precision::F16;
        Err(not_finite(self.step.steps(), reading.loss, half, self.step.optimizer().parameters())?)
    }

    /// A log that cannot be written is worth one warning, not the run.
    fn note_record(&mut self, written: Result<()>) {
        if let Err(e) = written
            && !self.record_failed
        {
            self.record_failed = true;
            self.warn(&format!("{}; training goes on without a complete log", e.message));
        }
    }

    /// Evaluation on the way: notes the best and saves it.
    fn evaluate_and_note(&mut self) -> Result<(Option<Evaluation>, Flow)> {
        let Some(mut evaluation) = self.evaluate(self.config.train.eval_batches)? else {
            return Ok((None, Flow::Continue));
        };
        let delta = self.config.train.min_delta;
        evaluation.best = self.best.is_none_or(|(best, _)| evaluation.loss < best - delta);
        if evaluation.best {
            self.best = Some((evaluation.loss, evaluation.step));
            self.stale = 0;
        } else {
            self.stale += 1;
        }
        let written = self.record.evaluation(&evaluation);
        self.note_record(written);
        let flow = self.notify(|c| c.on_eval(&evaluation));
        if evaluation.best {
            let saved = self.save(CheckpointKind::Best);
            self.note_save(saved);
        }
        Ok((Some(evaluation), flow))
    }

    /// The validation loss on `batches` random batches, or on the whole text if that is 0 or the text is shorter than
    /// a window; `None` if there is nothing to predict.
    ///
    /// # Errors
    /// What the model refuses; out of memory.
    pub fn evaluate(&self, batches: usize) -> Result<Option<Evaluation>> {
        let shape = self.step.options().sequences();
        if self.data.validation.len() < 2 {
            return Ok(None);
        }
        let exact = batches == 0 || self.data.validation.len() <= shape[1];
        let pass = Pass { compute: self.step.options().compute, ..Pass::eval() };
        let (model, data, seed) = (self.step.model(), &self.data, self.config.train.seed);
        let loss = if exact {
            evaluate(model, data, shape, &pass, &self.device)?
        } else {
            estimate(model, data, shape, batches, seed, &pass, &self.device)?
        };
        Ok(Some(Evaluation {
            step: self.step.steps(),
            loss,
            perplexity: loss.exp(),
            bits_per_byte: data.bits_per_byte(loss).unwrap_or(f64::NAN),
            exact,
            best: false,
        }))
    }

    /// The evaluation at the end; it goes into the log.
    fn evaluate_exactly(&mut self) -> Result<Option<Evaluation>> {
        let evaluation = self.evaluate(0)?;
        if let Some(e) = &evaluation {
            let written = self.record.evaluation(e);
            self.note_record(written);
        }
        Ok(evaluation)
    }

    /// Writes a checkpoint of the state now.
    ///
    /// # Errors
    /// It cannot be written; an older file is then as it was.
    pub fn save(&mut self, kind: CheckpointKind) -> Result<()> {
        let path = match kind {
            CheckpointKind::Last => self.folder.last(),
            CheckpointKind::Best => self.folder.best(),
        };
        let state = TrainingState {
            step: self.step.steps(),
            seed: self.config.train.seed,
            optimizer: self.step.optimizer().rule().name().to_string(),
            best: self.best,
            stale: self.stale,
            data: self.data_checksum.clone(),
            text: self.text.clone(),
            config: self.config.clone(),
        };
        let mut optim = self.step.optimizer().state();
        optim.extend(self.step.scaler().into_iter().flat_map(|s| s.state()));
        save(&path, self.step.model(), &self.tokenizer, Some((&state, &optim)))?;
        self.callbacks.iter_mut().for_each(|c| c.on_checkpoint(kind, &path));
        Ok(())
    }

    fn save_on_the_way(&mut self) -> Result<()> {
        // Broken numbers must not replace a good checkpoint.
        self.checked_reading()?;
        let saved = self.save(CheckpointKind::Last);
        self.note_save(saved);
        Ok(())
    }

    fn note_save(&mut self, saved: Result<()>) {
        if let Err(e) = saved {
            let step = self.step.steps();
            self.warn(&format!("no checkpoint at step {step}: {}; training goes on", e.message));
        }
    }

    fn finish(&mut self, ending: Ending) -> Result<Report> {
        let training = self.clock.training();
        if self.clock.steps > 0 {
            self.checked_reading()?;
        }
        let noted = if ending == Ending::Completed { self.evaluate_and_note()?.0 } else { None };
        self.save(CheckpointKind::Last)?;
        let evaluation = match noted {
            Some(e) if e.exact => Some(e),
            Some(_) | None if ending == Ending::Stopped => None,
            Some(_) | None => self.evaluate_exactly()?,
        };
        let drawn = draw_curve(&self.folder, &self.config.train.name);
        if let Err(e) = drawn {
            self.warn(&format!("no loss curve: {}", e.message));
        }
        let t = &self.config.train;
        let tokens = self.clock.steps as f64 * (t.batch_size * t.accumulation * self.config.model.seq) as f64;
        let best_path = self.folder.best();
        Ok(Report {
            ending,
            steps: self.step.steps(),
            loss: self.last_loss,
            evaluation,
            best: self.best,
            folder: self.folder.path().to_path_buf(),
            last: self.folder.last(),
            best_path: best_path.exists().then_some(best_path),
            elapsed: self.clock.began.elapsed(),
            tokens_per_second: tokens / training.as_secs_f64().max(1e-9),
        })
    }
}

impl Flow {
    /// Stop, if either asks for it.
    fn or(self, other: Flow) -> Flow {
        match (self, other) {
            (Flow::Continue, Flow::Continue) => Flow::Continue,
            (Flow::Stop, _) | (_, Flow::Stop) => Flow::Stop,
        }
    }
}
