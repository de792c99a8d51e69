//! The run folder and what accumulates in it: JSONL log, TensorBoard events, the loss curve.

use std::fs;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::Value;

use crate::config::Config;
use crate::error::{Error, Result};
use crate::format::AtomicFile;
use crate::log::{Curve, EventWriter, JsonlLog};

use super::events::{Evaluation, Progress};

/// The paths of a run: `RUNS/NAME/` with `config.toml`, `last.bullet`, `best.bullet`, `log.jsonl`,
/// `events.out.tfevents...` and `loss.svg`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RunFolder {
    path: PathBuf,
}

impl RunFolder {
    /// The folder of the run that `config` names.
    pub fn of(config: &Config) -> RunFolder {
        RunFolder { path: Path::new(&config.train.runs).join(&config.train.name) }
    }

    /// The folder `path`.
    pub fn at(path: impl Into<PathBuf>) -> RunFolder {
        RunFolder { path: path.into() }
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }
    /// The settings.
    pub fn config(&self) -> PathBuf {
        self.path.join("config.toml")
    }
    /// The latest state.
    pub fn last(&self) -> PathBuf {
        self.path.join("last.bullet")
    }
    /// The state of the lowest validation loss.
    pub fn best(&self) -> PathBuf {
        self.path.join("best.bullet")
    }
    /// The log, a JSON object a line.
    pub fn log(&self) -> PathBuf {
        self.path.join("log.jsonl")
    }
    /// The loss curve.
    pub fn curve(&self) -> PathBuf {
        self.path.join("loss.svg")
    }

    /// Makes the folder, and writes the settings into it.
    pub(super) fn prepare(&self, config: &Config) -> Result<()> {
        fs::create_dir_all(&self.path).map_err(|e| Error::io("create the run folder", &self.path, e))?;
        let text = config.to_toml();
        let mut file = AtomicFile::create(&self.config(), text.len() as u64)?;
        file.write(text.as_bytes())?;
        file.commit()
    }

    /// Removes the checkpoints of an older run of this name, whose `best.bullet` would pass for this run's.
    pub(super) fn clear(&self) -> Result<()> {
        for path in [self.last(), self.best(), self.curve()] {
            match fs::remove_file(&path) {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                    return Err(Error::io("remove", &path, e));
                }
                Ok(()) | Err(_) => {}
            }
        }
        Ok(())
    }
}

/// A line of the log for a logging step.
#[derive(Serialize)]
struct TrainLine {
    kind: &'static str,
    step: u64,
    loss: f64,
    lr: f64,
    grad_norm: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    loss_scale: Option<f64>,
    skipped: u64,
    tokens_per_second: f64,
}

/// A line of the log for an evaluation.
#[derive(Serialize)]
struct EvalLine {
    kind: &'static str,
    step: u64,
    loss: f64,
    perplexity: f64,
    bits_per_byte: f64,
    exact: bool,
}

/// The logs of a run.
pub(super) struct Record {
    log: JsonlLog,
    events: EventWriter,
}

impl Record {
    /// New logs in `folder`, or the old ones up to step `resumed`.
    pub(super) fn open(folder: &RunFolder, config: &Config, resumed: Option<u64>) -> Result<Record> {
        let log = match resumed {
            None => JsonlLog::create(folder.log())?,
            Some(step) => JsonlLog::resume(folder.log(), step)?,
        };
        let mut events = EventWriter::create(folder.path())?;
        if resumed.is_none() {
            events.text("config", 0, &format!("```toml\n{}```", config.to_toml()))?;
        }
        Ok(Record { log, events })
    }

    pub(super) fn progress(&mut self, p: &Progress) -> Result<()> {
        self.log.write(&TrainLine {
            kind: "train",
            step: p.step,
            loss: p.loss,
            lr: p.lr,
            grad_norm: p.grad_norm,
            loss_scale: p.loss_scale,
            skipped: p.skipped,
            tokens_per_second: p.tokens_per_second.round(),
        })?;
        let mut values = vec![
            ("loss/train", p.loss as f32),
            ("optim/lr", p.lr as f32),
            ("optim/grad_norm", p.grad_norm as f32),
            ("speed/tokens_per_second", p.tokens_per_second as f32),
        ];
        values.extend(p.loss_scale.map(|s| ("optim/loss_scale", s as f32)));
        self.events.scalars(p.step, &values)
    }

    pub(super) fn evaluation(&mut self, e: &Evaluation) -> Result<()> {
        self.log.write(&EvalLine {
            kind: "eval",
            step: e.step,
            loss: e.loss,
            perplexity: e.perplexity,
            bits_per_byte: e.bits_per_byte,
            exact: e.exact,
        })?;
        let values =
            [("loss/validation", e.loss as f32), ("bits_per_byte/validation", e.bits_per_byte as f32)];
        self.events.scalars(e.step, &values)
    }
}

/// Draws `loss.svg` from the log.
pub(super) fn draw_curve(folder: &RunFolder, name: &str) -> Result<()> {
    let lines = JsonlLog::read(folder.log())?;
    let points = |kind: &str| -> Vec<(f64, f64)> {
        let of_kind = lines.iter().filter(|l| l.get("kind").and_then(Value::as_str) == Some(kind));
        of_kind.filter_map(|l| Some((l.get("step")?.as_f64()?, l.get("loss")?.as_f64()?))).collect()
    };
    Curve::losses(name, points("train"), points("eval")).write_svg(folder.curve())
}
