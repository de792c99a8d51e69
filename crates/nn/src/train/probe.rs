//! [`measure`]: what the parts of a model cost on two devices, found by trying; see [`place`](crate::place).

use std::sync::Arc;
use std::time::{Duration, Instant};

use bullet_tensor::{DType, Device, Generator, Tensor, no_grad, rescued};

use crate::config::Config;
use crate::data::IGNORE_INDEX;
use crate::error::{ErrorKind, Result};
use crate::init::Init;
use crate::layers::{Embedding, Linear, NormLayer, Stream, TransformerBlock};
use crate::module::{Module, Pass};
use crate::optim::Optimizer;
use crate::place::{Cost, Costs, DeviceCosts};
use crate::transformer::{TransformerConfig, embed};

use super::build;

/// Timed runs of a part, of which the fastest counts: no more after so many, or so long.
const RUNS: usize = 5;
const ENOUGH: Duration = Duration::from_millis(20);

/// What a step of the run that `config` describes costs on `fast` and `slow`, for [`plan`](crate::place::plan).
///
/// # Errors
/// What the model's ops refuse; a part that does not fit is none.
pub fn measure(config: &Config, settings: &TransformerConfig, fast: &Device, slow: &Device) -> Result<Costs> {
    settings.validate()?;
    let probe = Probe { config, settings };
    let moved = unless_full(|| probe.transfer(fast, slow))?;
    Ok(Costs {
        fast: probe.device(fast)?,
        slow: probe.device(slow)?,
        transfer: moved.unwrap_or_default(),
        activation: probe.activation_shape().iter().product::<usize>() * probe.compute().size(),
        layers: settings.layers,
        tied: settings.tie_embeddings,
        rounds: config.train.accumulation,
    })
}

/// The result, or `None` if a device was full, be it that the result is there all the same.
fn unless_full<T>(f: impl FnOnce() -> Result<T>) -> Result<Option<T>> {
    let before = rescued();
    match f() {
        Ok(found) => Ok((rescued() == before).then_some(found)),
        Err(e) if e.kind == ErrorKind::OutOfMemory => Ok(None),
        Err(e) => Err(e),
    }
}

/// Bytes of buffers on a device.
fn used(device: &Device) -> usize {
    device.memory_stats().used
}

/// Bytes that a device can still give.
fn room(device: &Device) -> usize {
    let stats = device.memory_stats();
    let free = device.driver().memory().map_or(usize::MAX, |m| m.free.saturating_add(stats.cached));
    stats.limit.map_or(free, |limit| free.min(limit.saturating_sub(stats.used + stats.padding)))
}

/// Seconds of `f` with all that it makes `device` do.
fn time(device: &Device, f: impl FnOnce() -> Result<()>) -> Result<f64> {
    let wait = || device.synchronize().map_err(bullet_tensor::Error::from);
    wait()?;
    let start = Instant::now();
    f()?;
    wait()?;
    Ok(start.elapsed().as_secs_f64())
}

/// The least of several times of `f`, which says how long it took.
fn fastest<T>(mut f: impl FnMut() -> Result<T>, seconds: impl Fn(&T) -> f64) -> Result<T> {
    let start = Instant::now();
    let mut best = f()?;
    for _ in 1..RUNS {
        if start.elapsed() > ENOUGH {
            break;
        }
        let next = f()?;
        if seconds(&next) < seconds(&best) {
            best = next;
        }
    }
    Ok(best)
}

/// A part of a model, alone.
enum Part {
    Embedding(Embedding, Option<Embedding>),
    Block(Arc<TransformerBlock>),
    /// With the weights of the embedding, if they are shared: these count as the embedding's.
    Head(NormLayer, Linear, Option<Tensor>),
}

impl Module for Part {
    fn visit(&self, path: &str, f: &mut dyn FnMut(&str, &Tensor)) {
        match self {
            Part::Embedding(tokens, positions) => {
                tokens.visit(path, f);
                positions.iter().for_each(|table| table.visit(path, f));
            }
            Part::Block(block) => block.visit(path, f),
            Part::Head(norm, _, Some(_)) => norm.visit(path, f),
            Part::Head(norm, linear, None) => {
                norm.visit(path, f);
                linear.visit(path, f);
            }
        }
    }
}

struct Probe<'a> {
    config: &'a Config,
    settings: &'a TransformerConfig,
}

impl Probe<'_> {
    fn compute(&self) -> DType {
        build::step_options(self.config).compute.unwrap_or(build::weights(self.config))
    }

    fn batch(&self) -> [usize; 2] {
        [self.config.train.batch_size, self.config.model.seq]
    }

    fn activation_shape(&self) -> [usize; 3] {
        let [batch, seq] = self.batch();
        [batch, seq, self.settings.dim]
    }

    /// Token ids, as far apart as those of a text: kernels take longer for many of one kind.
    fn ids(&self, device: &Device) -> Result<Tensor> {
        let batch = self.batch();
        let ids: Vec<i64> =
            (0..batch[0] * batch[1]).map(|i| (i * 7919 % self.settings.vocab) as i64).collect();
        Ok(Tensor::from_slice(&ids, &batch, device)?)
    }

    /// Some activations, to which a gradient flows.
    fn activation(&self, device: &Device) -> Result<Tensor> {
        let x = Tensor::randn(&self.activation_shape(), self.compute(), device, 0)?;
        Ok(x.requires_grad()?)
    }

    /// Seconds for activations to go to the other device, and for their gradient to come back.
    fn transfer(&self, fast: &Device, slow: &Device) -> Result<f64> {
        let x = self.activation(fast)?.detach();
        let there_and_back = || time(fast, || Ok(x.to_device(slow)?.to_device(fast).map(drop)?));
        there_and_back()?;
        fastest(there_and_back, |seconds| *seconds)
    }

    fn device(&self, device: &Device) -> Result<DeviceCosts> {
        device.trim();
        let room = room(device);
        let init = Init::new(0, build::weights(self.config), device);
        let cost = |part: &dyn Fn() -> Result<Part>| unless_full(|| self.cost(device, part));
        let embedding = || {
            let (tokens, positions) = self.settings.new_tables(&init)?;
            Ok(Part::Embedding(tokens, positions))
        };
        let block = || Ok(Part::Block(Arc::new(self.settings.new_block(&init, 0)?)));
        let shared = match self.settings.tie_embeddings {
            true => unless_full(|| Ok(self.settings.new_tables(&init)?.0.weight))?,
            false => None,
        };
        let head = || {
            let (norm, linear) = self.settings.new_head(&init, shared.as_ref())?;
            Ok(Part::Head(norm, linear, shared.clone()))
        };
        let (embedding, block) = (cost(&embedding)?, cost(&block)?);
        // Without room for the weights that it shares, the head has none either.
        let head = if self.settings.tie_embeddings && shared.is_none() { None } else { cost(&head)? };
        drop(shared);
        device.trim();
        device.reset_peak();
        Ok(DeviceCosts { room, embedding, block, head })
    }

    /// What a part costs, once what it needs for the first time only is done.
    fn cost(&self, device: &Device, part: &dyn Fn() -> Result<Part>) -> Result<Cost> {
        let input = self.activation(device)?;
        let ids = self.ids(device)?;
        let before = used(device);
        let part = part()?;
        let options = build::step_options(self.config);
        let pass = Pass {
            training: true,
            compute: options.compute,
            generator: Some(Arc::new(Generator::new(options.seed, device)?)),
            recompute: options.recompute,
        };
        let alone = Alone {
            optimizer: build::optimizer(self.config, &part)?,
            // Gradients of further batches are added to those of the first, which may be narrower.
            rounds: options.accumulation.min(2),
            part,
            input,
            ids,
            pass,
            dropout: self.settings.dropout,
            before,
        };
        alone.step(device)?;
        fastest(|| alone.step(device), |cost| cost.pass + cost.update)
    }
}

/// A part with what a step of it needs.
struct Alone {
    part: Part,
    optimizer: Optimizer,
    /// (batch, sequence, width), a leaf.
    input: Tensor,
    /// i64 (batch, sequence).
    ids: Tensor,
    pass: Pass,
    dropout: f64,
    rounds: usize,
    /// Bytes on the device before the part was there.
    before: usize,
}

impl Alone {
    fn forward(&self) -> Result<Tensor> {
        let stream = Stream::new(self.input.clone());
        match &self.part {
            Part::Embedding(tokens, positions) => {
                embed((tokens, positions.as_ref()), &self.ids, 0, self.dropout, &self.pass)
            }
            Part::Block(block) => block.forward_in_model(stream, &self.pass)?.sum(),
            Part::Head(norm, linear, _) => {
                let logits = linear.forward(&norm.forward_stream(&stream, &self.pass)?.0, &self.pass)?;
                Ok(logits.cross_entropy(&self.ids, IGNORE_INDEX, 0.0)?)
            }
        }
    }

    /// Drops gradients of what is not the part's own.
    fn forget(&self) {
        self.input.set_grad(None);
        if let Part::Head(_, _, Some(shared)) = &self.part {
            shared.set_grad(None);
        }
    }

    fn step(&self, device: &Device) -> Result<Cost> {
        self.optimizer.zero_grad();
        device.reset_peak();
        let mut saved = 0;
        let pass = time(device, || {
            for _ in 0..self.rounds {
                let before = used(device);
                let y = self.forward()?;
                saved = used(device).saturating_sub(before);
                // As small as the gradient of a mean, so that sums of it are finite in half precision.
                let seed =
                    no_grad(|| Tensor::full(1.0 / self.ids.numel() as f64, y.shape(), y.dtype(), device))?;
                y.backward_with(&seed)?;
                self.forget();
            }
            Ok(())
        })?;
        let kept = used(device).saturating_sub(self.before);
        let peak = device.memory_stats().peak.saturating_sub(self.before);
        let update = time(device, || self.optimizer.step(&self.optimizer.gradient_scale(None, None)?))?;
        let work = peak.saturating_sub(kept + saved);
        Ok(Cost { kept, saved, work, pass: pass / self.rounds as f64, update })
    }
}
