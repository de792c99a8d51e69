//! How long a training step takes here.

use std::time::{Duration, Instant};

use bullet_nn::TransformerConfig;
use bullet_nn::config::Config;
use bullet_nn::data::{Sampler, TokenDataset};
use bullet_nn::place::Placement;
use bullet_nn::train::{TrainStep, model, optimizer, step_options};

use crate::failure::Failure;

/// Steps before the clock starts: they fill caches and the memory pool.
const WARM_UP: u64 = 3;
const TIMED: u64 = 12;

/// The median time of a step of `config` on a model that is thrown away.
pub(super) fn measure(
    config: &Config,
    data: &TokenDataset,
    placement: &Placement,
) -> Result<Duration, Failure> {
    let settings = TransformerConfig::from_settings(&config.model, data.vocab_size);
    let model = model(config, settings, placement)?;
    let optimizer = optimizer(config, &model)?;
    let mut step = TrainStep::new(model, optimizer, step_options(config), &placement.head)?;
    let sampler = Sampler::new(config.train.seed, Sampler::TRAIN, config.train.batch_size, config.model.seq)?;
    let mut timed = |i: u64| -> bullet_nn::Result<Duration> {
        let start = Instant::now();
        step.step(&[sampler.batch(&data.train, i)?])?;
        step.read()?;
        Ok(start.elapsed())
    };
    (0..WARM_UP).try_for_each(|i| timed(i).map(drop))?;
    let mut times = (WARM_UP..WARM_UP + TIMED).map(timed).collect::<bullet_nn::Result<Vec<_>>>()?;
    times.sort();
    Ok(times[times.len() / 2])
}
