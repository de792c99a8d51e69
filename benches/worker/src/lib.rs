//! What the benchmark programs share: the reference model of benches/README.md, and how it is trained and timed.

use std::error::Error;
use std::time::Instant;

use bullet_nn::config::{FeedForward, Norm, Positions};
use bullet_nn::generate::{Sampler, TokenStream};
use bullet_nn::optim::{GroupOptions, Optimizer, Rule, Schedule};
use bullet_nn::train::{StepOptions, TrainStep};
use bullet_nn::{Init, Module, Pass, Transformer, TransformerConfig};
use bullet_tensor::{DType, Device, Tensor};

/// Any failure ends a benchmark.
pub type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// Tokens of context.
pub const SEQ: usize = 64;

/// The reference model on `device`, f32, with weights drawn from seed 0.
///
/// # Errors
/// Out of memory.
pub fn model(device: &Device) -> Result<Transformer> {
    Ok(Transformer::new(reference_model(), &Init::new(0, DType::F32, device))?)
}

/// Its training step: AdamW at 1e-3, every parameter decayed by 0.01, no clipping.
///
/// # Errors
/// Out of memory.
pub fn train_step(
    model: Transformer,
    batch: usize,
    compute: Option<DType>,
    loss_scale: Option<(f64, u64)>,
    device: &Device,
) -> Result<TrainStep<Transformer>> {
    let decay = |_: &str, _: &Tensor| GroupOptions { weight_decay: 0.01, ..GroupOptions::default() };
    let optimizer = Optimizer::new(Rule::ADAMW, model.named_parameters(), decay)?;
    let options = StepOptions {
        batch: StepOptions::tokens([batch, SEQ]),
        accumulation: 1,
        schedule: Schedule::constant(1e-3),
        compute,
        loss_scale,
        grad_clip: None,
        recompute: false,
        seed: 0,
    };
    Ok(TrainStep::new(model, optimizer, options, device)?)
}

/// Tokens a second of greedy generation: batch 1, a prompt of 1 token, 63 new ones; the median of `runs` after one more.
///
/// # Errors
/// Out of memory; a token outside the vocabulary.
pub fn generation_speed(model: &Transformer, first_token: u32, runs: usize) -> Result<f64> {
    let run = || -> Result<f64> {
        let start = Instant::now();
        let stream = TokenStream::new(model, &[first_token], Sampler::greedy(), Pass::eval())?;
        let made = stream.take(SEQ - 1).collect::<std::result::Result<Vec<u32>, _>>()?.len();
        Ok(made as f64 / start.elapsed().as_secs_f64())
    };
    run()?;
    let mut speeds = (0..runs).map(|_| run()).collect::<Result<Vec<f64>>>()?;
    speeds.sort_by(f64::total_cmp);
    Ok(speeds[runs / 2])
}

/// The reference model of benches/README.md.
fn reference_model() -> TransformerConfig {
    TransformerConfig {
        vocab: 3000,
        dim: 128,
        layers: 4,
        heads: 4,
        kv_heads: 0,
        ff: 256,
        max_seq: SEQ,
        positions: Positions::Learned,
        rope_base: 10_000.0,
        norm: Norm::Layer,
        norm_eps: 1e-5,
        feed_forward: FeedForward::GeluTanh,
        bias: true,
        head_bias: false,
        tie_embeddings: false,
        dropout: 0.0,
    }
}
