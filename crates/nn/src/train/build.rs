//! From settings to the parts of a run.

use std::path::Path;

use bullet_tensor::{DType, Device, Tensor};

use crate::config::{Config, OptimizerKind, Precision, ScheduleKind, TokenizerKind};
use crate::error::{Error, Result};
use crate::format::BulletFile;
use crate::init::Init;
use crate::module::{Module, Pass};
use crate::optim::{Decay, GroupOptions, Optimizer, Rule, Schedule};
use crate::place::{Placement, plan};
use crate::tokenizer::Tokenizer;
use crate::transformer::{LanguageModel, Transformer, TransformerConfig};

use super::probe::measure;
use super::step::{Objective, StepOptions, tokens_of};

impl Objective for Transformer {
    fn loss(&self, batch: &[Tensor], pass: &Pass) -> Result<Tensor> {
        let (inputs, targets) = tokens_of(batch)?;
        LanguageModel::loss(self, inputs, targets, pass)
    }
}

/// The learning rate of every step that `config` describes.
pub fn schedule(config: &Config) -> Schedule {
    let o = &config.optim;
    let (end, floor) = (config.decay_steps() as u64, o.min_lr);
    let decay = match o.schedule {
        ScheduleKind::Constant => Decay::Constant,
        ScheduleKind::Cosine => Decay::Cosine { end, floor },
        ScheduleKind::Linear => Decay::Linear { end, floor },
        ScheduleKind::Step => Decay::Step { every: o.step_size as u64, gamma: o.step_gamma, floor },
    };
    Schedule { base: o.lr, warmup: o.warmup as u64, decay }
}

/// The optimizer that `config` describes, for the parameters of `model`.
///
/// # Errors
/// A hyper-parameter out of range; out of memory.
pub fn optimizer(config: &Config, model: &(impl Module + ?Sized)) -> Result<Optimizer> {
    let o = &config.optim;
    let rule = match o.kind {
        OptimizerKind::Sgd => Rule::Sgd { momentum: o.momentum, nesterov: o.nesterov },
        OptimizerKind::Adam => Rule::Adam { beta1: o.beta1, beta2: o.beta2, eps: o.eps },
        OptimizerKind::AdamW => Rule::AdamW { beta1: o.beta1, beta2: o.beta2, eps: o.eps },
    };
    let decays = |t: &Tensor| t.rank() >= o.decay_min_rank;
    Optimizer::new(rule, model.named_parameters(), |_, t| GroupOptions {
        lr_scale: 1.0,
        weight_decay: if decays(t) { o.weight_decay } else { 0.0 },
    })
}

/// The name of both, GPU and CPU: for `train.device`.
pub const HYBRID: &str = "hybrid";

/// The device of this name to train on; of [`HYBRID`] the one that comes first, which is that of `auto`.
///
/// # Errors
/// There is no such device, or it cannot be used.
pub fn first_device(name: &str) -> Result<Device, bullet_tensor::runtime::Error> {
    Device::parse(if name == HYBRID { "auto" } else { name })
}

/// Where a model of these settings is trained, by the device that `config` names; under [`HYBRID`] the plan in words, unless
/// there is no GPU that can be used: then it is the CPU, as under `auto`.
///
/// # Errors
/// There is no such device, or it cannot be used; the model fits neither device nor both.
pub fn place(config: &Config, settings: &TransformerConfig) -> Result<(Placement, Option<String>)> {
    let name = &config.train.device;
    let wrong = |e: bullet_tensor::runtime::Error| {
        let hint = "set it to auto or cpu to go on without a GPU, or to hybrid for GPU and CPU together";
        Error::argument(format!("`train.device` = {name}: {e}; {hint}"))
    };
    let alone = first_device(name).map_err(wrong)?;
    if name != HYBRID || alone.gpu().is_none() {
        return Ok((settings.on(&alone, weights(config))?, None));
    }
    let cpu = Device::cpu();
    settings.check_memory(weights(config), &[alone.clone(), cpu.clone()])?;
    let plan = plan(&measure(config, settings, &alone, &cpu)?)?;
    Ok((plan.placement(&alone, &cpu), Some(plan.describe(&alone, &cpu))))
}

/// How `config` wants its steps.
pub fn step_options(config: &Config) -> StepOptions {
    let t = &config.train;
    let scaled = t.precision == Precision::F16 && t.loss_scale > 0.0;
    StepOptions {
        batch: StepOptions::tokens([t.batch_size, config.model.seq]),
        accumulation: t.accumulation,
        schedule: schedule(config),
        compute: compute(t.precision),
        loss_scale: scaled.then_some((t.loss_scale, t.scale_interval as u64)),
        grad_clip: (config.optim.grad_clip > 0.0).then_some(config.optim.grad_clip),
        recompute: t.recompute,
        seed: t.seed,
    }
}

/// The dtype of activations; that of the weights if `None`.
fn compute(precision: Precision) -> Option<DType> {
    match precision {
        Precision::F32 => None,
        Precision::F16 => Some(DType::F16),
        Precision::Bf16 => Some(DType::BF16),
    }
}

/// The dtype that weights are kept in.
pub(super) fn weights(config: &Config) -> DType {
    match compute(config.train.precision) {
        Some(half) if !config.train.master_weights => half,
        Some(_) | None => DType::F32,
    }
}

/// A new model, initialised from the seed of `config`.
pub fn model(config: &Config, settings: TransformerConfig, placement: &Placement) -> Result<Transformer> {
    let init = Init::new(config.train.seed, weights(config), &placement.head);
    Transformer::placed(settings, &init, placement)
}

/// The tokenizer that `config` names, or one made from `text`.
///
/// # Errors
/// The file that it names holds none; the text has too few characters.
pub fn tokenizer(config: &Config, text: &str) -> Result<Tokenizer> {
    let t = &config.tokenizer;
    if !t.path.is_empty() {
        let found = read_tokenizer(Path::new(&t.path))?;
        if config.model.vocab != 0 && config.model.vocab < found.vocab_size() {
            return Err(Error::argument(format!(
                "`model.vocab` = {}: the tokenizer in {} has {} tokens; set model.vocab to that or to 0",
                config.model.vocab,
                t.path,
                found.vocab_size()
            )));
        }
        return Ok(found);
    }
    match t.kind {
        TokenizerKind::Char => Tokenizer::train_char(text),
        TokenizerKind::Bpe => Tokenizer::train_bpe(text, t.vocab_size),
    }
}

fn read_tokenizer(path: &Path) -> Result<Tokenizer> {
    if path.extension().is_some_and(|e| e == "json") {
        let json = std::fs::read_to_string(path).map_err(|e| Error::io("read", path, e))?;
        return Tokenizer::from_json(&json).map_err(|e| e.context(path.display()));
    }
    let file = BulletFile::open(path)?;
    file.header().tokenizer.clone().ok_or_else(|| {
        Error::data(format!("{} holds no tokenizer; name a model that was trained on text", path.display()))
    })
}
