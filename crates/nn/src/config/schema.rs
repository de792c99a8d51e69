//! Every setting, written once: the macro makes the structs, their defaults and the table of [`Field`]s of one list, so
//! that documentation, files and command line cannot drift apart.

use std::sync::LazyLock;

use serde::{Deserialize, Serialize};

use super::value::{Value, choice};

choice! {
    /// How a position enters the model.
    Positions {
        /// A trained table, as in GPT-2.
        Learned = "learned",
        /// Rotary embedding of queries and keys.
        Rope = "rope",
    }
}

choice! {
    /// Normalisation before each part of a block.
    Norm {
        /// Layer normalisation.
        Layer = "layer",
        /// Root-mean-square normalisation.
        Rms = "rms",
    }
}

choice! {
    /// The feed-forward part of a block.
    FeedForward {
        /// Linear, exact GELU (by the error function), linear.
        Gelu = "gelu",
        /// Linear, GELU by its tanh approximation, linear.
        GeluTanh = "gelu_tanh",
        /// Linear, ReLU, linear.
        Relu = "relu",
        /// Linear, SiLU, linear.
        Silu = "silu",
        /// Gated by SiLU, as in LLaMA.
        SwiGlu = "swiglu",
    }
}

choice! {
    /// How text becomes tokens.
    TokenizerKind {
        /// Byte-level byte-pair encoding, learnt from the training text.
        Bpe = "bpe",
        /// One token a character of the training text.
        Char = "char",
    }
}

choice! {
    /// What is done with bytes of the text that are not UTF-8.
    TextEncoding {
        /// They are an error that says where they are.
        Utf8 = "utf-8",
        /// They are replaced by U+FFFD.
        Lossy = "lossy",
    }
}

choice! {
    /// The optimizer.
    OptimizerKind {
        /// Adam with decoupled weight decay.
        AdamW = "adamw",
        /// Adam; weight decay adds to the gradient.
        Adam = "adam",
        /// Stochastic gradient descent.
        Sgd = "sgd",
    }
}

choice! {
    /// The learning rate after warm-up.
    ScheduleKind {
        /// Stays.
        Constant = "constant",
        /// Falls to min_lr along half a cosine, and stays there.
        Cosine = "cosine",
        /// Falls to min_lr along a line, and stays there.
        Linear = "linear",
        /// Is multiplied by step_gamma every step_size steps, not below min_lr.
        Step = "step",
    }
}

choice! {
    /// The numbers that a model computes in while it trains.
    Precision {
        /// 32-bit floats throughout.
        F32 = "f32",
        /// Activations in IEEE half precision, with a dynamic loss scale.
        F16 = "f16",
        /// Activations in bfloat16.
        Bf16 = "bf16",
    }
}

/// One setting of the [table](fields).
pub struct Field {
    /// `section.name`, as in files: `train.batch_size`.
    pub key: &'static str,
    /// What it means, with its unit.
    pub doc: &'static str,
    /// Its default, as text.
    pub default: String,
    /// What a value looks like: "a whole number from 0 to 2^63 - 1, such as 16".
    pub expected: String,
    show: fn(&Config) -> String,
    toml: fn(&Config) -> String,
    set: fn(&mut Config, &str) -> bool,
    set_toml: fn(&mut Config, &toml::Value) -> bool,
}

impl Field {
    /// The section: `train`.
    pub fn section(&self) -> &'static str {
        self.key.split_once('.').map_or("", |(section, _)| section)
    }

    /// The name in its section: `batch_size`.
    pub fn name(&self) -> &'static str {
        self.key.split_once('.').map_or(self.key, |(_, name)| name)
    }

    /// Whether no other section has a setting of this name, so that the name alone will do.
    pub fn is_unique(&self) -> bool {
        fields().iter().filter(|f| f.name() == self.name()).count() == 1
    }

    /// The value in `config`, as text.
    pub fn get(&self, config: &Config) -> String {
        (self.show)(config)
    }

    /// The value in `config`, as it stands in a TOML file.
    pub(super) fn get_toml(&self, config: &Config) -> String {
        (self.toml)(config)
    }

    /// Sets the value from text; false if the text is no value of this type.
    pub(super) fn set_text(&self, config: &mut Config, text: &str) -> bool {
        (self.set)(config, text)
    }

    /// Sets the value from a file's; false if it has another type.
    pub(super) fn set_value(&self, config: &mut Config, value: &toml::Value) -> bool {
        (self.set_toml)(config, value)
    }
}

/// Every setting, in the order of the sections.
pub fn fields() -> &'static [Field] {
    static FIELDS: LazyLock<Vec<Field>> = LazyLock::new(|| table(&Config::default()));
    &FIELDS
}

/// The sections with what each is about, in order.
pub fn sections() -> &'static [(&'static str, &'static str)] {
    SECTIONS
}

macro_rules! config {
    ($(
        $(#[doc = $about:literal])+
        $section:ident: $Section:ident {
            $($(#[doc = $doc:literal])+ $name:ident: $Type:ty = $default:expr;)+
        }
    )+) => {
        /// The settings of a run. Files may leave out any of them: the default is the reference model of the demo.
        #[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
        #[serde(deny_unknown_fields, default)]
        pub struct Config {
            $($(#[doc = $about])+ pub $section: $Section,)+
        }

        $(
            $(#[doc = $about])+
            #[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
            #[serde(deny_unknown_fields, default)]
            pub struct $Section {
                $($(#[doc = $doc])+ pub $name: $Type,)+
            }

            impl Default for $Section {
                fn default() -> $Section {
                    $Section { $($name: $default),+ }
                }
            }
        )+

        const SECTIONS: &[(&str, &str)] = &[$((stringify!($section), concat!($($about),+).trim_ascii())),+];

        fn table(default: &Config) -> Vec<Field> {
            vec![$($(Field {
                key: concat!(stringify!($section), ".", stringify!($name)),
                doc: concat!($($doc),+).trim_ascii(),
                default: default.$section.$name.show(),
                expected: <$Type as Value>::expected(),
                show: |config| config.$section.$name.show(),
                toml: |config| config.$section.$name.toml(),
                set: |config, text| {
                    let value = <$Type as Value>::parse(text);
                    let fits = value.is_some();
                    if let Some(value) = value { config.$section.$name = value; }
                    fits
                },
                set_toml: |config, value| {
                    let value = <$Type as Value>::from_toml(value);
                    let fits = value.is_some();
                    if let Some(value) = value { config.$section.$name = value; }
                    fits
                },
            }),+),+]
        }
    };
}

config! {
    /// The network: a decoder-only transformer, normalised before each part.
    model: ModelConfig {
        /// Width of the residual stream.
        dim: usize = 128;
        /// Number of blocks.
        layers: usize = 4;
        /// Attention heads of a block; divides model.dim.
        heads: usize = 4;
        /// Heads of keys and values (grouped-query attention); divides model.heads; 0: as many as model.heads.
        kv_heads: usize = 0;
        /// Width inside the feed-forward part.
        ff: usize = 256;
        /// Tokens of context, in training and at most in generation.
        seq: usize = 64;
        /// Token ids the embedding has room for; 0: as many as the tokenizer has.
        vocab: usize = 0;
        /// How a position enters the model.
        positions: Positions = Positions::Learned;
        /// Normalisation before each part.
        norm: Norm = Norm::Layer;
        /// The feed-forward part.
        feed_forward: FeedForward = FeedForward::GeluTanh;
        /// Whether linear layers and layer norms have biases; the output layer has none.
        bias: bool = true;
        /// Whether the output layer shares the weights of the token embedding.
        tied: bool = false;
        /// Probability of dropping an activation, or a weight of the attention, in training.
        dropout: f64 = 0.0;
    }

    /// How text becomes tokens.
    tokenizer: TokenizerConfig {
        /// The kind of vocabulary.
        kind: TokenizerKind = TokenizerKind::Bpe;
        /// Tokens of a bpe vocabulary: 256 bytes and the merges learnt; a char vocabulary is as large as its text needs.
        vocab_size: usize = 3000;
        /// A model file (.bullet) or tokenizer (.json) whose vocabulary is used; empty: one is made from the training text.
        path: String = String::new();
    }

    /// The text to learn from.
    data: DataConfig {
        /// A text file, or a folder of text files; empty: Tiny Shakespeare.
        path: String = String::new();
        /// Share of the text, from its end, that is kept for validation.
        val_fraction: f64 = 0.1;
        /// What is done with bytes of the text that are not UTF-8.
        encoding: TextEncoding = TextEncoding::Utf8;
    }

    /// The optimizer and its learning rate.
    optim: OptimConfig {
        /// The update rule.
        kind: OptimizerKind = OptimizerKind::AdamW;
        /// Learning rate: the highest that the schedule reaches.
        lr: f64 = 1e-3;
        /// The learning rate that a falling schedule ends at.
        min_lr: f64 = 0.0;
        /// How the learning rate changes after warm-up.
        schedule: ScheduleKind = ScheduleKind::Constant;
        /// Steps over which the learning rate rises from near 0 to optim.lr.
        warmup: usize = 0;
        /// Step at which a cosine or linear schedule reaches optim.min_lr; 0: train.steps.
        decay_steps: usize = 0;
        /// Steps between two drops of a step schedule.
        step_size: usize = 1000;
        /// Factor of each drop of a step schedule.
        step_gamma: f64 = 0.1;
        /// Adam: decay of the mean of gradients.
        beta1: f64 = 0.9;
        /// Adam: decay of the mean of squared gradients.
        beta2: f64 = 0.999;
        /// Adam: added to the root of the mean square.
        eps: f64 = 1e-8;
        /// SGD: share of the last update that carries over.
        momentum: f64 = 0.9;
        /// SGD: look ahead along the momentum (Nesterov).
        nesterov: bool = false;
        /// Weight decay, a step and unit of learning rate.
        weight_decay: f64 = 0.01;
        /// Only parameters with at least this many axes decay: 2 spares biases and norms, 0 spares nothing.
        decay_min_rank: usize = 0;
        /// Gradients are scaled down to this global norm; 0: never.
        grad_clip: f64 = 0.0;
    }

    /// The run: how long, in which numbers, and what it leaves behind.
    train: TrainConfig {
        /// Optimizer steps.
        steps: usize = 1000;
        /// Where to train: cpu, cuda, cuda:N, auto for the first GPU that can be used, else the CPU, or hybrid for both.
        device: String = "auto".to_string();
        /// Sequences of a batch.
        batch_size: usize = 16;
        /// Batches whose gradients are averaged into one step.
        accumulation: usize = 1;
        /// Numbers that activations and their gradients are computed in.
        precision: Precision = Precision::F32;
        /// Keep weights in 32 bits under f16 or bf16; without, small updates are lost (for experiments only).
        master_weights: bool = true;
        /// First loss scale of f16 training, a power of two; 0: no scaling (for experiments only).
        loss_scale: f64 = 65536.0;
        /// Steps without overflow after which the loss scale doubles; an overflow halves it.
        scale_interval: usize = 2000;
        /// Recompute blocks in backward: less memory, about a third more time.
        recompute: bool = false;
        /// Where all randomness (weights, batches, dropout) starts; the same seed gives the same run.
        seed: u64 = 1337;
        /// Steps between two lines of the log.
        log_interval: usize = 10;
        /// Steps between two evaluations, each of which may save best.bullet; 0: only at the end.
        eval_interval: usize = 250;
        /// Random batches of an evaluation on the way; 0: the whole validation text.
        eval_batches: usize = 20;
        /// Steps between two saves of last.bullet; 0: only at the end.
        save_interval: usize = 500;
        /// Evaluations without improvement after which the run stops; 0: never.
        patience: usize = 0;
        /// Improvement of the validation loss below which an evaluation counts as none.
        min_delta: f64 = 0.0;
        /// Folder of all runs.
        runs: String = String::from("runs");
        /// Name of this run, and of its folder.
        name: String = String::from("default");
    }
}
