//! Models that lie on two devices: they train as on one. The fast device is a host device with a pool and a quota of its
//! own, the slow one the CPU.

mod common;

use std::path::Path;
use std::sync::Arc;

use bullet_nn::config::Config;
use bullet_nn::place::Placement;
use bullet_nn::train::{Objective, TrainStep, optimizer, step_options};
use bullet_nn::{Init, LanguageModel, Module, Pass, Result, Transformer, TransformerConfig};
use bullet_tensor::runtime::{DeviceOptions, HostDriver};
use bullet_tensor::{DType, Device, Tensor, no_grad};
use common::{VOCAB, batches, config_with, weights};

/// A device that is not the CPU, as far as anything can tell but the clock.
fn other(limit: Option<usize>) -> Device {
    let options = DeviceOptions { memory_limit: limit, poison: true };
    Device::with_options(Arc::new(HostDriver::new()), options)
}

/// A placement of four blocks as a word: a letter for embedding, each block and head; `f` is on `fast`, `s` on the CPU.
fn placed(word: &str, fast: &Device) -> Placement {
    let device = |letter| if letter == 'f' { fast.clone() } else { Device::cpu() };
    let all: Vec<Device> = word.chars().map(device).collect();
    let [embedding, blocks @ .., head] = &all[..] else { panic!("{word} has no ends") };
    Placement { embedding: embedding.clone(), blocks: blocks.to_vec(), head: head.clone() }
}

/// A model whose loss is multiplied by a number on its last device: infinite to break a step.
struct Scaled {
    model: Transformer,
    factor: Tensor,
}

impl Module for Scaled {
    fn visit(&self, path: &str, f: &mut dyn FnMut(&str, &Tensor)) {
        self.model.visit(path, f);
    }
}

impl Objective for Scaled {
    fn loss(&self, inputs: &Tensor, targets: &Tensor, pass: &Pass) -> Result<Tensor> {
        Ok(LanguageModel::loss(&self.model, inputs, targets, pass)?.mul(&self.factor)?)
    }
}

fn settings(pairs: &str) -> Config {
    config_with(Path::new("runs"), &format!("model.layers=4 optim.lr=0.003 {pairs}"))
}

fn train_step(pairs: &str, placement: &Placement) -> Result<TrainStep<Scaled>> {
    let config = settings(pairs);
    let model = TransformerConfig::from_settings(&config.model, VOCAB);
    let init = Init::new(3, DType::F32, &placement.head);
    let factor = Tensor::scalar(1.0f32, &placement.head)?;
    let model = Scaled { model: Transformer::placed(model, &init, placement)?, factor };
    let optimizer = optimizer(&config, &model)?;
    TrainStep::new(model, optimizer, step_options(&config), &placement.head)
}

/// Loss, norm of gradients and loss scale of each of `steps` more steps; the loss of step `broken` is infinite.
fn curve(step: &mut TrainStep<Scaled>, steps: usize, broken: Option<usize>) -> Result<Vec<[f64; 3]>> {
    let one = |i| {
        let factor = if broken == Some(i) { f64::INFINITY } else { 1.0 };
        no_grad(|| step.model().factor.fill_(factor))?;
        step.step(&batches(&step.options().clone(), i))?;
        let r = step.read()?;
        Ok([r.loss, r.grad_norm, r.loss_scale.unwrap_or(0.0)])
    };
    (0..steps).map(one).collect()
}

const SETTINGS: [&str; 4] = [
    "model.dropout=0.2 optim.grad_clip=0.5 train.accumulation=2",
    "model.dropout=0.2 optim.grad_clip=0.5 model.tied=true train.recompute=true",
    "model.norm=rms model.positions=rope model.feed_forward=swiglu model.bias=false optim.decay_min_rank=2",
    "train.precision=f16 model.dropout=0.1 optim.grad_clip=1 train.accumulation=2",
];
const PLACES: [&str; 5] = ["fffsss", "ssffss", "sfffff", "ssssff", "sffffs"];

#[test]
fn the_loss_curve_is_that_of_one_device() {
    for pairs in SETTINGS {
        let cpu = Placement::on(&Device::cpu(), 4);
        let mut alone = train_step(pairs, &cpu).unwrap();
        let want = curve(&mut alone, 24, None).unwrap();
        assert!(want[23][0] < want[0][0], "{pairs}: nothing is learnt: {want:?}");
        for word in PLACES {
            let placement = placed(word, &other(None));
            let tied = pairs.contains("tied") && placement.embedding != placement.head;
            let made = train_step(pairs, &placement);
            assert_eq!(made.is_err(), tied, "{pairs}, {word}");
            let Ok(mut step) = made else { continue };
            assert_eq!(step.model().model.placement(), placement);
            let got = curve(&mut step, 24, None).unwrap();
            // The same kernels compute the same numbers; only the norm is rounded once more, and f16 rounds a moved sum.
            let close = if pairs.contains("f16") { 2e-3 } else { 2e-6 };
            for (i, (got, want)) in got.iter().zip(&want).enumerate() {
                for (got, want) in got.iter().zip(want) {
                    let error = (got - want).abs() / want.abs().max(1e-3);
                    assert!(error < close, "{pairs}, {word}: step {i}: {got} instead of {want}");
                }
            }
        }
    }
}
