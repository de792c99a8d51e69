//! Half precision: what loss scaling and fp32 master weights are for, shown by training with and without them; on the
//! devices that `BULLET_TEST_DEVICES` names.

use bullet_nn::config::Config;
use bullet_nn::data::Batch;
use bullet_nn::optim::{GroupOptions, Optimizer, Rule, Schedule};
use bullet_nn::train::{Objective, StepOptions, TrainStep, optimizer, step_options};
use bullet_nn::{Init, Module, Pass, Result, Transformer, TransformerConfig};
use bullet_tensor::{DType, Device, Tensor};

use crate::common::{Scratch, Seen, builder, config, config_with, devices, tensors};
use crate::scaled::Scaled;

const VOCAB: usize = 11;

fn on_each_device(test: impl Fn(&Device)) {
    devices().iter().for_each(test);
}

fn scaled(config: &Config, factor: f32, device: &Device) -> Scaled {
    let settings = TransformerConfig::from_settings(&config.model, VOCAB);
    let init = Init::new(3, DType::F32, device);
    Scaled {
        model: Transformer::new(settings, &init).unwrap(),
        factor: Tensor::scalar(factor, device).unwrap(),
    }
}

fn train_step(
    config: &Config,
    factor: f32,
    device: &Device,
    change: impl FnOnce(&mut StepOptions),
) -> TrainStep<Scaled> {
    let model = scaled(config, factor, device);
    let optimizer = optimizer(config, &model).unwrap();
    let mut options = step_options(config);
    change(&mut options);
    TrainStep::new(model, optimizer, options, device).unwrap()
}

/// The same repeating sequence at every step: token `i` is `3 i mod 11`.
fn batch([rows, length]: [usize; 2]) -> Batch {
    let at = |row: usize, i: usize| (3 * (row * 5 + i) % VOCAB) as i64;
    let fill = |shift| (0..rows).flat_map(|r| (0..length).map(move |i| at(r, i + shift))).collect();
    Batch { x: fill(0), y: fill(1), targets: rows * length }
}

fn run(step: &mut TrainStep<Scaled>, steps: usize) -> f64 {
    for _ in 0..steps {
        step.step(&[batch(step.options().sequences())]).unwrap();
    }
    step.read().unwrap().loss
}

fn weights(module: &impl Module) -> Vec<Vec<u8>> {
    module.named_parameters().iter().map(|(_, t)| t.to_bytes().unwrap()).collect()
}

fn tiny(pairs: &str) -> Config {
    let mut config = config(std::path::Path::new("runs"));
    pairs.split_whitespace().for_each(|pair| config.set_pair(pair).unwrap());
    config
}

#[test]
fn scaling_by_a_power_of_two_does_not_change_a_step() {
    on_each_device(|device| {
        // f32 and bf16 have exponents to spare, so that not one bit may differ.
        for precision in ["f32", "bf16"] {
            let trained = |scale: Option<f64>| {
                let config = tiny(&format!("train.precision={precision} optim.grad_clip=1 optim.lr=0.01"));
                let mut step = train_step(&config, 1.0, device, |o| o.loss_scale = scale.map(|s| (s, 1000)));
                run(&mut step, 8);
                weights(step.model())
            };
            let plain = trained(None);
            assert_eq!(plain, trained(Some(1024.0)), "{precision}");
            assert_eq!(plain, trained(Some(65536.0)), "{precision}");
        }
        // In f16 only gradients that were flushed or rounded as subnormals may differ: each by less than the smallest
        // number, 2^-24, and a share of the sums it is part of.
        let gradients = |scale: f64| {
            let config = tiny("train.precision=f16");
            let mut step = train_step(&config, 1.0, device, |o| o.loss_scale = Some((scale, 1000)));
            run(&mut step, 1);
            let grads = step
                .model()
                .named_parameters()
                .into_iter()
                .map(|(_, t)| t.grad().unwrap().to_f64_vec().unwrap());
            grads.flatten().map(|g| g / scale).collect::<Vec<f64>>()
        };
        let (low, high) = (gradients(4096.0), gradients(16384.0));
        let largest = low.iter().fold(0.0, |m: f64, g| m.max(g.abs()));
        for (i, (a, b)) in low.iter().zip(&high).enumerate() {
            assert!((a - b).abs() <= 1e-5 * largest, "element {i}: {a} and {b}, of {largest}");
        }
    });
}

#[test]
fn faint_gradients_train_with_a_scaler_and_vanish_without() {
    on_each_device(|device| {
        // The loss times 1e-8: in f16, whose smallest number is 6e-8, every gradient of a logit is zero. Adam does not
        // care for the size of gradients, if epsilon is smaller.
        let trained = |precision: &str, scale: f64| {
            let config = tiny(&format!(
                "train.precision={precision} optim.lr=0.01 optim.eps=1e-30 optim.weight_decay=0"
            ));
            let mut step =
                train_step(&config, 1e-8, device, |o| o.loss_scale = (scale > 0.0).then_some((scale, 2000)));
            let before = weights(step.model());
            let first = run(&mut step, 1);
            let last = run(&mut step, 60);
            (last / first, before == weights(step.model()))
        };
        let (full, _) = trained("f32", 0.0);
        let (with, _) = trained("f16", 2f64.powi(24));
        let (without, unchanged) = trained("f16", 0.0);
        assert!(full < 0.2, "f32 needs no scaler: {full}");
        assert!(with < 0.2, "f16 with one learns: {with}");
        assert!(unchanged && without == 1.0, "f16 without one must fail: {without}");
    });
}

#[test]
fn f16_loses_gradients_of_a_trained_model_that_scaling_keeps() {
    on_each_device(|device| {
        // As small as this model is, a third of its non-zero logit gradients would be nothing to speak of; so the count
        // is of parameters whose whole gradient is zero in f16 and is not in f32, at a low loss.
        let zeros = |precision: &str, scale: Option<(f64, u64)>| {
            let config = tiny("optim.lr=0.02 optim.weight_decay=0");
            let mut trained = train_step(&config, 1.0, device, |_| {});
            assert!(run(&mut trained, 150) < 0.02);
            let half = tiny(&format!("train.precision={precision}"));
            let mut step = train_step(&half, 1e-4, device, |o| o.loss_scale = scale);
            step.model().load_state_dict(&trained.model().state_dict()).unwrap();
            run(&mut step, 1);
            let grads = step
                .model()
                .named_parameters()
                .into_iter()
                .flat_map(|(_, t)| t.grad().unwrap().to_f64_vec().unwrap());
            grads.filter(|&g| g == 0.0).count()
        };
        let (full, without, with) =
            (zeros("f32", None), zeros("f16", None), zeros("f16", Some((65536.0, 2000))));
        assert!(without > 10 * with.max(full).max(10), "zeros: f32 {full}, f16 {without}, f16 scaled {with}");
    });
}

#[test]
fn an_overflow_leaves_everything_as_it_was_and_halves_the_scale() {
    on_each_device(|device| {
        let config = tiny("train.precision=f16 optim.lr=0.01 train.loss_scale=1024");
        let mut step = train_step(&config, 1.0, device, |_| {});
        run(&mut step, 3);
        let state = |step: &TrainStep<Scaled>| {
            let optim: Vec<_> = step.optimizer().state().iter().map(|(_, t)| t.to_bytes().unwrap()).collect();
            (weights(step.model()), optim)
        };
        let before = state(&step);
        step.model().factor.fill_(f64::INFINITY).unwrap();
        run(&mut step, 1);
        assert!(state(&step) == before, "weights, moments and step count must stay");
        let reading = step.read().unwrap();
        assert_eq!((reading.loss_scale, reading.skipped), (Some(512.0), 1));
        step.model().factor.fill_(1.0).unwrap();
        run(&mut step, 1);
        assert!(state(&step) != before);
        assert_eq!((step.optimizer().steps_taken().item().unwrap(), step.steps()), (4.0, 5));
    });
}

/// Weights near 2, to be moved to 1.9: mean of (w - 1.9)^2.
struct Distance {
    weight: Tensor,
}

impl Module for Distance {
    fn visit(&self, _: &str, f: &mut dyn FnMut(&str, &Tensor)) {
        f("weight", &self.weight);
    }
}

impl Objective for Distance {
    fn loss(&self, _: &[Tensor], pass: &Pass) -> Result<Tensor> {
        Ok(pass.cast(&self.weight)?.cast(DType::F32)?.add_scalar(-1.9)?.square()?.mean(&[], false)?)
    }
}

#[test]
fn small_updates_need_master_weights() {
    on_each_device(|device| {
        let trained = |dtype: DType| {
            let weight = Tensor::full(2.0, &[64], dtype, device).unwrap().requires_grad().unwrap();
            let model = Distance { weight };
            let optimizer =
                Optimizer::new(Rule::ADAMW, model.named_parameters(), |_, _| GroupOptions::default())
                    .unwrap();
            let options = StepOptions {
                batch: StepOptions::tokens([1, 1]),
                accumulation: 1,
                schedule: Schedule::constant(1e-4),
                compute: Some(DType::F16),
                loss_scale: Some((1024.0, 2000)),
                grad_clip: None,
                recompute: false,
                seed: 0,
            };
            let mut step = TrainStep::new(model, optimizer, options, device).unwrap();
            for _ in 0..1200 {
                step.step(&[Batch { x: vec![0], y: vec![0], targets: 1 }]).unwrap();
            }
            step.model().weight.to_f64_vec().unwrap()[0]
        };
        let with = trained(DType::F32);
        assert!((with - 1.9).abs() < 0.03, "with fp32 master weights they come near: {with}");
        // An f16 near 2 moves by 0.001 at least; 1e-4 rounds away, every time.
        assert_eq!(trained(DType::F16), 2.0, "without them nothing may move");
    });
}

#[test]
fn a_run_without_master_weights_loses_most_updates() {
    let scratch = Scratch::new("master");
    let unchanged = |name: &str, master: bool| {
        let mut config =
            config_with(scratch.path(), "train.precision=bf16 optim.lr=1e-5 optim.weight_decay=0");
        config.train.master_weights = master;
        config.train.name = name.into();
        let mut trainer = builder(config).build().unwrap();
        let before = weights(trainer.model());
        trainer.run().unwrap();
        let elements = trainer.model().named_parameters()[0].1.dtype().size();
        let (mut same, mut all) = (0, 0);
        for (a, b) in before.iter().zip(weights(trainer.model())) {
            for (x, y) in a.chunks(elements).zip(b.chunks(elements)) {
                same += usize::from(x == y);
                all += 1;
            }
        }
        f64::from(same as u32) / f64::from(all as u32)
    };
    let (with, without) = (unchanged("with", true), unchanged("without", false));
    assert!(with < 0.1, "fp32 master weights all move, but rows of characters that don't occur: {with}");
    assert!(without > 0.6, "bf16 weights must lose most updates: {without}");
}

#[test]
fn a_scale_that_is_too_high_comes_down_and_its_state_is_saved() {
    let scratch = Scratch::new("scale");
    let pairs =
        "train.precision=f16 train.loss_scale=16777216 train.steps=40 optim.lr=0.01 train.log_interval=1";
    let seen = Seen::default();
    let report =
        builder(config_with(scratch.path(), pairs)).callback(seen.clone()).build().unwrap().run().unwrap();
    let logs = seen.logs();
    let last = logs.last().unwrap();
    assert!(last.skipped > 0 && last.skipped < 20, "{} skipped", last.skipped);
    assert_eq!(last.loss_scale.unwrap(), 2f64.powi(24 - last.skipped as i32));
    assert!(last.loss < 0.8 * logs[0].loss, "{} to {}", logs[0].loss, last.loss);
    let saved = tensors(&report.last);
    let bytes =
        |name: &str| saved.iter().find(|(n, _)| n == name).unwrap_or_else(|| panic!("no {name}")).1.clone();
    assert_eq!(
        f64::from(f32::from_le_bytes(bytes("optim.loss_scale").try_into().unwrap())),
        last.loss_scale.unwrap()
    );
    assert_eq!(i64::from_le_bytes(bytes("optim.step").try_into().unwrap()), 40 - last.skipped as i64);
    assert!(i64::from_le_bytes(bytes("optim.clean_steps").try_into().unwrap()) > 0);
}
