//! Tiny runs, shared by the tests of training.

#![allow(dead_code, unreachable_pub)] // each test binary uses a part

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use bullet_nn::config::Config;
use bullet_nn::data::Batch;
use bullet_nn::train::{
    Callback, CheckpointKind, Evaluation, Flow, Progress, Report, StepOptions, TrainStep, Trainer,
    TrainerBuilder, optimizer, step_options,
};
use bullet_nn::{Init, Module, Transformer, TransformerConfig};
use bullet_tensor::{DType, Device};

/// A folder that is removed at the end.
pub struct Scratch(PathBuf);

impl Scratch {
    pub fn new(name: &str) -> Scratch {
        let path = std::env::temp_dir().join(format!("bullet-train-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).unwrap();
        Scratch(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The devices under test: those that `BULLET_TEST_DEVICES` names (`cpu,cuda:0`), else the CPU.
pub fn devices() -> Vec<Device> {
    let names = std::env::var("BULLET_TEST_DEVICES").unwrap_or_else(|_| "cpu".into());
    let parse =
        |name: &str| Device::parse(name).unwrap_or_else(|e| panic!("BULLET_TEST_DEVICES: {name}: {e}"));
    names.split(',').map(parse).collect()
}

/// Text with some structure to learn.
pub fn text() -> String {
    let words = ["the cat ", "sat on ", "a mat; ", "who saw ", "it there? ", "not I, ", "said the dog.\n"];
    (0..400).map(|i: usize| words[(i * i + i / 3) % words.len()]).collect()
}

/// A model that takes milliseconds a step, in `folder`.
pub fn config(folder: &Path) -> Config {
    let mut config = Config::default();
    for pair in [
        "model.dim=16",
        "model.layers=2",
        "model.heads=2",
        "model.ff=32",
        "model.seq=12",
        "tokenizer.kind=char",
        "train.batch_size=4",
        "train.steps=20",
        "train.log_interval=5",
        "train.eval_interval=10",
        "train.eval_batches=2",
        "train.save_interval=10",
    ] {
        config.set_pair(pair).unwrap();
    }
    config.train.runs = folder.display().to_string();
    config
}

/// [`config`] with these settings changed: `key=value` pairs with spaces between.
pub fn config_with(folder: &Path, pairs: &str) -> Config {
    let mut config = config(folder);
    pairs.split_whitespace().for_each(|pair| config.set_pair(pair).unwrap());
    config
}

/// A run on [`text`].
pub fn builder(config: Config) -> TrainerBuilder {
    Trainer::builder(config).text(text())
}

/// What a run told its callback, in order.
#[derive(Clone, Default)]
pub struct Seen(pub Arc<Mutex<Vec<Event>>>);

#[derive(Clone, Debug)]
pub enum Event {
    Step(u64),
    Log(Progress),
    Eval(Evaluation),
    Checkpoint(CheckpointKind, PathBuf),
    Warning(String),
    End(Report),
}

impl Seen {
    fn push(&self, event: Event) {
        self.0.lock().unwrap().push(event);
    }

    pub fn events(&self) -> Vec<Event> {
        self.0.lock().unwrap().clone()
    }

    pub fn logs(&self) -> Vec<Progress> {
        self.events().into_iter().filter_map(|e| if let Event::Log(p) = e { Some(p) } else { None }).collect()
    }

    pub fn evals(&self) -> Vec<Evaluation> {
        self.events()
            .into_iter()
            .filter_map(|e| if let Event::Eval(v) = e { Some(v) } else { None })
            .collect()
    }

    pub fn warnings(&self) -> Vec<String> {
        self.events()
            .into_iter()
            .filter_map(|e| if let Event::Warning(w) = e { Some(w) } else { None })
            .collect()
    }
}

impl Callback for Seen {
    fn on_step(&mut self, step: u64, _: u64) -> Flow {
        self.push(Event::Step(step));
        Flow::Continue
    }
    fn on_log(&mut self, progress: &Progress) -> Flow {
        self.push(Event::Log(progress.clone()));
        Flow::Continue
    }
    fn on_eval(&mut self, evaluation: &Evaluation) -> Flow {
        self.push(Event::Eval(evaluation.clone()));
        Flow::Continue
    }
    fn on_checkpoint(&mut self, kind: CheckpointKind, path: &Path) {
        self.push(Event::Checkpoint(kind, path.to_path_buf()));
    }
    fn on_warning(&mut self, message: &str) {
        self.push(Event::Warning(message.to_string()));
    }
    fn on_end(&mut self, report: &Report) {
        self.push(Event::End(report.clone()));
    }
}

/// A hook that runs at one step.
pub struct AtStep<F: FnMut() -> Flow + Send>(pub u64, pub F);

impl<F: FnMut() -> Flow + Send> Callback for AtStep<F> {
    fn on_step(&mut self, step: u64, _: u64) -> Flow {
        if step == self.0 { (self.1)() } else { Flow::Continue }
    }
}

/// Every tensor of a checkpoint by name, as bytes.
pub fn tensors(path: impl AsRef<Path>) -> Vec<(String, Vec<u8>)> {
    let file = bullet_nn::format::BulletFile::open_verified(path).unwrap();
    file.tensors().map(|t| (t.name.to_string(), t.bytes.to_vec())).collect()
}

/// Tokens of [`train_step`].
pub const VOCAB: usize = 11;

/// What trains the tiny model on `device`, with these settings beside those of [`config`].
pub fn train_step(pairs: &str, device: &Device) -> bullet_nn::Result<TrainStep<Transformer>> {
    let mut config = config(Path::new("runs"));
    pairs.split_whitespace().for_each(|pair| config.set_pair(pair).unwrap());
    let settings = TransformerConfig::from_settings(&config.model, VOCAB);
    let model = Transformer::new(settings, &Init::new(3, DType::F32, device))?;
    let optimizer = optimizer(&config, &model)?;
    TrainStep::new(model, optimizer, step_options(&config), device)
}

/// Batches of one step: repeating sequences, other ones in each step.
pub fn batches(options: &StepOptions, step: usize) -> Vec<Batch> {
    let [rows, length] = options.sequences();
    let at = |round: usize, row: usize, i: usize| (3 * (step + round + row * 5 + i) % VOCAB) as i64;
    let fill = |round, shift| {
        (0..rows).flat_map(|r| (0..length).map(move |i| at(round, r, i + shift))).collect::<Vec<i64>>()
    };
    let batch = |round| Batch { x: fill(round, 0), y: fill(round, 1), targets: rows * length };
    (0..options.accumulation).map(batch).collect()
}

/// The bytes of every parameter.
pub fn weights(module: &impl Module) -> Vec<Vec<u8>> {
    module.named_parameters().iter().map(|(_, t)| t.to_bytes().unwrap()).collect()
}
