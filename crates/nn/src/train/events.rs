//! What a run tells its callers while it goes, and at its end.

use std::path::{Path, PathBuf};
use std::time::Duration;

/// Where training stands, at a logging step.
#[derive(Clone, PartialEq, Debug)]
pub struct Progress {
    /// Steps done.
    pub step: u64,
    /// Steps of the whole run.
    pub steps: u64,
    /// Mean loss of the last step, in nats per token.
    pub loss: f64,
    /// Learning rate of the last step.
    pub lr: f64,
    /// Global norm of its gradients before clipping.
    pub grad_norm: f64,
    /// The loss scale, under f16.
    pub loss_scale: Option<f64>,
    /// Steps so far that were skipped because gradients overflowed.
    pub skipped: u64,
    /// Tokens trained on a second since the last logging step, evaluations and saves not counted.
    pub tokens_per_second: f64,
    /// Time until the end at this speed.
    pub eta: Duration,
    /// Time since this process began to train.
    pub elapsed: Duration,
}

/// The result of an evaluation.
#[derive(Clone, PartialEq, Debug)]
pub struct Evaluation {
    /// Steps done before it.
    pub step: u64,
    /// Mean cross-entropy on the validation text, in nats per token.
    pub loss: f64,
    /// `exp(loss)`.
    pub perplexity: f64,
    /// Bits for each byte of text: it compares across tokenizers.
    pub bits_per_byte: f64,
    /// Over the whole validation text; else over some random batches of it.
    pub exact: bool,
    /// No evaluation of this run was better.
    pub best: bool,
}

/// Which checkpoint was written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CheckpointKind {
    /// The latest state: `last.bullet`.
    Last,
    /// The lowest validation loss: `best.bullet`.
    Best,
}

/// What a callback asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Flow {
    /// Go on.
    Continue,
    /// Save, and end the run; it can be resumed.
    Stop,
}

/// Hooks into a run. All have a default that does nothing.
pub trait Callback: Send {
    /// After every step; `step` are done. Nothing was read from the device.
    fn on_step(&mut self, step: u64, steps: u64) -> Flow {
        let _ = (step, steps);
        Flow::Continue
    }
    /// At every logging step.
    fn on_log(&mut self, progress: &Progress) -> Flow {
        let _ = progress;
        Flow::Continue
    }
    /// After an evaluation.
    fn on_eval(&mut self, evaluation: &Evaluation) -> Flow {
        let _ = evaluation;
        Flow::Continue
    }
    /// After a checkpoint was written.
    fn on_checkpoint(&mut self, kind: CheckpointKind, path: &Path) {
        let _ = (kind, path);
    }
    /// Something went wrong that the run survives.
    fn on_warning(&mut self, message: &str) {
        let _ = message;
    }
    /// The run is over.
    fn on_end(&mut self, report: &Report) {
        let _ = report;
    }
}

/// Why a run ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ending {
    /// All steps are done.
    Completed,
    /// The validation loss stopped to improve.
    EarlyStopped,
    /// A callback or the stop flag asked for it; `last.bullet` resumes it.
    Stopped,
}

/// What a run achieved, and where it left it.
#[derive(Clone, PartialEq, Debug)]
pub struct Report {
    /// Why it ended.
    pub ending: Ending,
    /// Steps done, those before a resume included.
    pub steps: u64,
    /// Training loss at the last logging step.
    pub loss: Option<f64>,
    /// The evaluation at the end, over the whole validation text; none if the run was stopped or has no such text.
    pub evaluation: Option<Evaluation>,
    /// Lowest validation loss of an evaluation, and its step.
    pub best: Option<(f64, u64)>,
    /// The run folder.
    pub folder: PathBuf,
    /// The latest state: resume or generate from it.
    pub last: PathBuf,
    /// The state of the lowest validation loss, if one was saved.
    pub best_path: Option<PathBuf>,
    /// Time since this process began to train.
    pub elapsed: Duration,
    /// Tokens trained on a second, evaluations and saves not counted.
    pub tokens_per_second: f64,
}
