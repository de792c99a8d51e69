//! `bullet_core.train`: the run that `bullet train` does, with callbacks in Python.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bullet_nn::config::Config;
use bullet_nn::train::{
    Callback, CheckpointKind, Ending, Evaluation, Flow, Progress, Report, RunFolder, Trainer, TrainerBuilder,
};
use pyo3::exceptions::PyFileExistsError;
use pyo3::prelude::*;
use serde_json::{Value, json};

use super::model::Core;
use super::step::Raised;
use super::tokenizer::PyTokenizer;
use crate::device::AnyDevice;

/// Calls Python with the name of an event and what there is to say, as JSON. A true answer ends the run.
struct Hook {
    function: Option<Py<PyAny>>,
    raised: Raised,
}

impl Hook {
    fn call(&self, py: Python<'_>, event: &str, value: &Value) -> PyResult<bool> {
        py.check_signals()?;
        match &self.function {
            Some(function) => function.call1(py, (event, value.to_string()))?.is_truthy(py),
            None => Ok(false),
        }
    }

    fn notify(&self, event: &str, value: &Value) -> Flow {
        let stop = crate::interrupt::attached(|py| self.call(py, event, value)).unwrap_or_else(|e| {
            self.raised.keep(e);
            true
        });
        if stop { Flow::Stop } else { Flow::Continue }
    }
}

fn progress(p: &Progress) -> Value {
    json!({
        "step": p.step, "steps": p.steps, "loss": p.loss, "lr": p.lr, "grad_norm": p.grad_norm, "loss_scale": p.loss_scale,
        "skipped": p.skipped, "tokens_per_second": p.tokens_per_second, "elapsed": p.elapsed.as_secs_f64(),
    })
}

fn evaluation(e: &Evaluation) -> Value {
    json!({
        "step": e.step, "loss": e.loss, "perplexity": e.perplexity, "bits_per_byte": e.bits_per_byte, "exact": e.exact,
        "best": e.best,
    })
}

fn report(r: &Report) -> Value {
    let ending = match r.ending {
        Ending::Completed => "completed",
        Ending::EarlyStopped => "early_stopped",
        Ending::Stopped => "stopped",
    };
    json!({
        "ending": ending, "steps": r.steps, "loss": r.loss, "evaluation": r.evaluation.as_ref().map(evaluation),
        "best": r.best, "folder": r.folder, "last": r.last, "best_path": r.best_path,
        "elapsed": r.elapsed.as_secs_f64(), "tokens_per_second": r.tokens_per_second,
    })
}

impl Callback for Hook {
    fn on_step(&mut self, step: u64, steps: u64) -> Flow {
        self.notify("step", &json!({ "step": step, "steps": steps }))
    }
    fn on_log(&mut self, p: &Progress) -> Flow {
        self.notify("log", &progress(p))
    }
    fn on_eval(&mut self, e: &Evaluation) -> Flow {
        self.notify("eval", &evaluation(e))
    }
    fn on_checkpoint(&mut self, kind: CheckpointKind, path: &Path) {
        let kind = match kind {
            CheckpointKind::Last => "last",
            CheckpointKind::Best => "best",
        };
        self.notify("checkpoint", &json!({ "kind": kind, "path": path }));
    }
    fn on_warning(&mut self, message: &str) {
        self.notify("warning", &json!({ "message": message }));
    }
    fn on_end(&mut self, r: &Report) {
        self.notify("end", &report(r));
    }
}

/// Reads the settings and makes the run.
fn build(
    config: Option<PathBuf>,
    pairs: &[(String, String)],
    resume: Option<PathBuf>,
    overwrite: bool,
) -> bullet_nn::Result<(TrainerBuilder, Option<PathBuf>)> {
    let resumed = resume.is_some();
    let mut builder = match (resume, config) {
        (Some(path), _) => TrainerBuilder::resume(path)?,
        (None, Some(path)) => Trainer::builder(Config::load(path)?),
        (None, None) => Trainer::builder(Config::default()),
    };
    for (key, value) in pairs {
        builder.config_mut().set(key, value)?;
    }
    builder.config_mut().validate()?;
    let folder = RunFolder::of(builder.config_mut());
    let taken = !resumed && !overwrite && (folder.last().exists() || folder.best().exists());
    Ok((builder, taken.then(|| folder.path().to_path_buf())))
}

/// Trains a language model on text, to the end or until a callback or Ctrl-C ends it; a checkpoint is written in every case.
/// Returns the report as JSON, the model and its tokenizer.
#[pyfunction]
#[pyo3(signature = (pairs, *, config = None, text = None, resume = None, overwrite = false, device = None, callback = None))]
fn train(
    py: Python<'_>,
    pairs: Vec<(String, String)>,
    config: Option<PathBuf>,
    text: Option<String>,
    resume: Option<PathBuf>,
    overwrite: bool,
    device: Option<AnyDevice>,
    callback: Option<Py<PyAny>>,
) -> PyResult<(String, Core, PyTokenizer)> {
    let raised = Raised::default();
    let hook = Hook { function: callback, raised: raised.clone() };
    let (mut builder, taken) =
        py.detach(|| build(config, &pairs, resume, overwrite)).map_err(super::exception)?;
    if let Some(folder) = taken {
        return Err(PyFileExistsError::new_err(format!(
            "{} holds a run already, which a new one would replace; give another name, overwrite=True, or resume=",
            folder.display()
        )));
    }
    if let Some(text) = text {
        builder = builder.text(text);
    }
    if let Some(device) = device {
        builder = builder.device(device.0);
    }
    let (done, model, tokenizer) = py
        .detach(|| {
            let mut trainer = builder.callback(hook).build()?;
            let done = report(&trainer.run()?);
            let (model, tokenizer) = trainer.into_parts();
            Ok((done, model, tokenizer))
        })
        .map_err(|e| raised.or(e))?;
    if let Some(exception) = raised.take() {
        return Err(exception);
    }
    Ok((done.to_string(), Core(Arc::new(model)), PyTokenizer::from(tokenizer)))
}

pub(super) fn add(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(train, module)?)
}
