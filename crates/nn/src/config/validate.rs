//! Settings that make no sense, alone or together: each names the field, its value, and what would do.

use super::{Config, OptimizerKind, Positions, Precision, ScheduleKind, find};
use crate::error::{Error, Result};

/// Tokens of a step, all of which are drawn before it: what is beyond any memory is a mistyped number.
const MOST_TOKENS: u64 = 1 << 32;

/// Collects what is wrong, so that one run of the program shows it all.
struct Problems<'a> {
    config: &'a Config,
    found: Vec<String>,
}

impl Problems<'_> {
    /// Notes that `key` has a bad value unless `ok`: why it is bad, and what to do.
    fn check(&mut self, ok: bool, key: &str, why: &str, fix: &str) {
        if ok {
            return;
        }
        let value = find(key).map_or_else(|e| e.message, |field| field.get(self.config));
        self.found.push(format!("`{key}` = {value}: {why}; {fix}"));
    }

    fn at_least_one(&mut self, key: &str, value: usize) {
        self.check(value > 0, key, "must be at least 1", &format!("set {key} to 1 or more"));
    }

    fn share(&mut self, key: &str, value: f64) {
        let fix = format!("set {key} to 0 or a number below 1");
        self.check((0.0..1.0).contains(&value), key, "must be in 0..1, 1 excluded", &fix);
    }

    fn not_negative(&mut self, key: &str, value: f64) {
        self.check(value >= 0.0, key, "must not be negative", &format!("set {key} to 0 or more"));
    }
}

impl Config {
    /// Checks every setting, alone and with the others.
    ///
    /// # Errors
    /// One error that lists all problems, a line each: field, value, reason, fix.
    pub fn validate(&self) -> Result<()> {
        let mut problems = Problems { config: self, found: Vec::new() };
        check_model(self, &mut problems);
        check_text(self, &mut problems);
        check_optim(self, &mut problems);
        check_train(self, &mut problems);
        if problems.found.is_empty() { Ok(()) } else { Err(Error::argument(problems.found.join("\n"))) }
    }

    /// Heads of keys and values: `model.kv_heads`, or `model.heads` if that is 0.
    pub fn kv_heads(&self) -> usize {
        if self.model.kv_heads == 0 { self.model.heads } else { self.model.kv_heads }
    }

    /// The step at which a falling learning rate arrives: `optim.decay_steps`, or `train.steps` if that is 0.
    pub fn decay_steps(&self) -> usize {
        if self.optim.decay_steps == 0 { self.train.steps } else { self.optim.decay_steps }
    }
}

fn check_model(config: &Config, p: &mut Problems<'_>) {
    let m = &config.model;
    let sizes = [m.dim, m.layers, m.heads, m.ff, m.seq];
    for (key, value) in
        ["model.dim", "model.layers", "model.heads", "model.ff", "model.seq"].iter().zip(sizes)
    {
        p.at_least_one(key, value);
    }
    p.share("model.dropout", m.dropout);
    if m.dim == 0 || m.heads == 0 {
        return;
    }
    let divides = m.dim.is_multiple_of(m.heads);
    let near: Vec<String> =
        (1..=m.dim.min(m.heads * 2)).filter(|&h| m.dim.is_multiple_of(h)).map(|h| h.to_string()).collect();
    let fix =
        format!("set model.heads to one of {}, or model.dim to a multiple of {}", near.join(", "), m.heads);
    p.check(divides, "model.heads", &format!("must divide model.dim = {}", m.dim), &fix);
    let even = !divides || m.positions != Positions::Rope || (m.dim / m.heads).is_multiple_of(2);
    let why = format!("rotary positions need an even number of channels a head, not {}", m.dim / m.heads);
    p.check(even, "model.positions", &why, "set model.heads lower, or model.positions to learned");
    let why = format!("must divide model.heads = {}", m.heads);
    let fix = "set model.kv_heads to a divisor of model.heads, or to 0 for as many";
    p.check(m.heads.is_multiple_of(config.kv_heads()), "model.kv_heads", &why, fix);
}

fn check_text(config: &Config, p: &mut Problems<'_>) {
    p.check(
        config.tokenizer.kind != super::TokenizerKind::Bpe || config.tokenizer.vocab_size >= 256,
        "tokenizer.vocab_size",
        "a bpe vocabulary holds the 256 bytes and what is learnt",
        "set tokenizer.vocab_size to 256 or more, or tokenizer.kind to char",
    );
    let (vocab, tokens) = (config.model.vocab, config.tokenizer.vocab_size);
    let made_here = config.tokenizer.kind == super::TokenizerKind::Bpe && config.tokenizer.path.is_empty();
    p.check(
        vocab == 0 || !made_here || vocab >= tokens,
        "model.vocab",
        &format!("the tokenizer may have tokenizer.vocab_size = {tokens} tokens, more than the embedding has room for"),
        &format!("set model.vocab to {tokens} or to 0, or tokenizer.vocab_size to {vocab}"),
    );
    p.check(
        config.data.val_fraction > 0.0 && config.data.val_fraction < 1.0,
        "data.val_fraction",
        "must be above 0 and below 1",
        "set data.val_fraction to 0.1 to keep a tenth of the text for validation",
    );
}

fn check_optim(config: &Config, p: &mut Problems<'_>) {
    let o = &config.optim;
    p.check(o.lr > 0.0, "optim.lr", "must be above 0", "set optim.lr to 1e-3, a usual value for AdamW");
    p.check(
        (0.0..=o.lr.max(0.0)).contains(&o.min_lr),
        "optim.min_lr",
        &format!("must be between 0 and optim.lr = {:?}", o.lr),
        "set optim.min_lr to a tenth of optim.lr, or to 0",
    );
    p.share("optim.beta1", o.beta1);
    p.share("optim.beta2", o.beta2);
    p.share("optim.momentum", o.momentum);
    p.check(o.eps > 0.0, "optim.eps", "must be above 0", "set optim.eps to 1e-8");
    p.not_negative("optim.weight_decay", o.weight_decay);
    p.not_negative("optim.grad_clip", o.grad_clip);
    p.check(
        !(o.nesterov && o.kind == OptimizerKind::Sgd && o.momentum == 0.0),
        "optim.nesterov",
        "Nesterov's method needs a momentum",
        "set optim.momentum above 0 (0.9 is usual), or optim.nesterov to false",
    );
    let steps = config.train.steps;
    p.check(
        o.warmup <= steps,
        "optim.warmup",
        &format!("warm-up is longer than the run of train.steps = {steps}"),
        &format!(
            "set optim.warmup to {steps} or less (a tenth of the run is usual), or train.steps to {} or more",
            o.warmup
        ),
    );
    let falls = matches!(o.schedule, ScheduleKind::Cosine | ScheduleKind::Linear);
    p.check(
        !falls || o.decay_steps == 0 || o.decay_steps > o.warmup,
        "optim.decay_steps",
        &format!("the learning rate must fall after optim.warmup = {}", o.warmup),
        "set optim.decay_steps above optim.warmup, or to 0 for the whole run",
    );
    if o.schedule == ScheduleKind::Step {
        p.at_least_one("optim.step_size", o.step_size);
        let ok = o.step_gamma > 0.0 && o.step_gamma <= 1.0;
        p.check(ok, "optim.step_gamma", "must be above 0 and at most 1", "set optim.step_gamma to 0.1");
    }
}

fn check_train(config: &Config, p: &mut Problems<'_>) {
    let t = &config.train;
    p.at_least_one("train.steps", t.steps);
    p.at_least_one("train.batch_size", t.batch_size);
    p.at_least_one("train.accumulation", t.accumulation);
    let sequences = t.batch_size.checked_mul(t.accumulation);
    let tokens = sequences.and_then(|n| n.checked_mul(config.model.seq)).and_then(|n| u64::try_from(n).ok());
    p.check(
        tokens.is_some_and(|n| n <= MOST_TOKENS),
        "train.batch_size",
        &format!(
            "with train.accumulation = {} and model.seq = {}, a step would take more than 2^32 tokens",
            t.accumulation, config.model.seq
        ),
        "set train.batch_size and train.accumulation lower (16 and 1 are the defaults)",
    );
    p.at_least_one("train.log_interval", t.log_interval);
    p.at_least_one("train.scale_interval", t.scale_interval);
    p.not_negative("train.min_delta", t.min_delta);
    // Other factors than powers of two would round every gradient.
    let power = t.loss_scale == 0.0 || t.loss_scale >= 1.0 && t.loss_scale.log2().fract() == 0.0;
    let in_range = t.loss_scale <= 16_777_216.0;
    p.check(
        power && in_range,
        "train.loss_scale",
        "must be 0 or a power of two from 1 to 16777216",
        "set train.loss_scale to 65536",
    );
    p.check(
        t.master_weights || t.precision != Precision::F32,
        "train.master_weights",
        "in f32 the weights are the master weights",
        "set train.master_weights to true, or train.precision to f16 or bf16",
    );
    let patient = t.patience == 0 || t.eval_interval > 0;
    p.check(patient, "train.patience", "early stopping needs evaluations", "set train.eval_interval to 250");
    let plain = !t.name.is_empty() && !t.name.contains(['/', '\\']) && t.name != "." && t.name != "..";
    p.check(
        plain,
        "train.name",
        "must be the name of one folder",
        "set train.name to a word without slashes (train.runs is the folder around it)",
    );
}
