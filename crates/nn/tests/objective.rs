//! The training step on what is no language model: batches of any tensors, rules of the caller's own, regrouping.

use std::sync::atomic::{AtomicBool, Ordering};

use bullet_nn::optim::{GroupOptions, Optimizer, OwnRule, OwnSlot, Rule, Schedule};
use bullet_nn::train::{BatchTensor, Objective, StepOptions, TrainStep};
use bullet_nn::{Error, Module, Pass, Result};
use bullet_tensor::{DType, Device, Tensor};

/// `y = x w`, by mean square error.
struct Line {
    weight: Tensor,
    broken: AtomicBool,
}

impl Module for Line {
    fn visit(&self, _: &str, f: &mut dyn FnMut(&str, &Tensor)) {
        f("weight", &self.weight);
    }
}

impl Objective for Line {
    fn loss(&self, batch: &[Tensor], pass: &Pass) -> Result<Tensor> {
        if self.broken.load(Ordering::Relaxed) {
            return Err(Error::argument("broken"));
        }
        let guess = pass.cast(&batch[0])?.matmul(&pass.param(&self.weight)?)?;
        Ok(guess.sub(&pass.cast(&batch[1])?)?.cast(DType::F32)?.square()?.mean(&[], false)?)
    }
}

fn line() -> Line {
    let weight = Tensor::zeros(&[2, 1], DType::F32, &Device::cpu()).unwrap().requires_grad().unwrap();
    Line { weight, broken: AtomicBool::new(false) }
}

fn options(rows: usize) -> StepOptions {
    let tensor = |width| BatchTensor { shape: vec![rows, width], dtype: DType::F32 };
    StepOptions {
        batch: vec![tensor(2), tensor(1)],
        accumulation: 1,
        schedule: Schedule::constant(0.05),
        compute: None,
        loss_scale: None,
        grad_clip: None,
        recompute: false,
        seed: 0,
    }
}

/// Points of `y = 3 a - b`.
fn batch(step: usize) -> Vec<Tensor> {
    let x: Vec<f32> = (0..16).map(|i| ((i * 7 + step * 5) % 11) as f32 / 5.0 - 1.0).collect();
    let y: Vec<f32> = x.chunks(2).map(|p| 3.0 * p[0] - p[1]).collect();
    let tensor = |data: &[f32], width| Tensor::from_slice(data, &[8, width], &Device::cpu()).unwrap();
    vec![tensor(&x, 2), tensor(&y, 1)]
}

fn adamw(model: &Line) -> Optimizer {
    Optimizer::new(Rule::ADAMW, model.named_parameters(), |_, _| GroupOptions::default()).unwrap()
}

fn trained(optimizer: impl FnOnce(&Line) -> Optimizer, options: StepOptions) -> [f64; 2] {
    let model = line();
    let optimizer = optimizer(&model);
    let mut step = TrainStep::new(model, optimizer, options, &Device::cpu()).unwrap();
    for i in 0..400 {
        step.step_on(&[batch(i)]).unwrap();
    }
    step.model().weight.to_f64_vec().unwrap().try_into().unwrap()
}

/// Follows the sign of the gradient.
struct Sign;

impl OwnRule for Sign {
    fn update(&self, slot: OwnSlot<'_>) -> Result<()> {
        Ok(slot.param.sub_(&slot.grad.sign()?.mul_scalar(slot.lr)?)?)
    }
}

#[test]
fn a_line_is_learnt_from_floats() {
    let half = StepOptions { compute: Some(DType::BF16), ..options(8) };
    let own = |model: &Line| {
        Optimizer::own(Box::new(Sign), model.named_parameters(), |_, _| GroupOptions::default()).unwrap()
    };
    let slow = StepOptions { schedule: Schedule::constant(0.01), ..options(8) };
    for [a, b] in [trained(adamw, options(8)), trained(adamw, half), trained(own, slow)] {
        assert!((a - 3.0).abs() < 0.1 && (b + 1.0).abs() < 0.1, "{a} {b}");
    }
}

#[test]
fn a_rule_of_ones_own_is_skipped_on_overflow() {
    let model = line();
    let optimizer =
        Optimizer::own(Box::new(Sign), model.named_parameters(), |_, _| GroupOptions::default()).unwrap();
    assert!(!optimizer.can_be_captured());
    let options = StepOptions { loss_scale: Some((1024.0, 2000)), ..options(8) };
    let mut step = TrainStep::new(model, optimizer, options, &Device::cpu()).unwrap();
    let mut bad = batch(0);
    bad[1] = Tensor::full(f64::INFINITY, &[8, 1], DType::F32, &Device::cpu()).unwrap();
    step.step_on(&[bad]).unwrap();
    let reading = step.read().unwrap();
    assert_eq!((reading.skipped, reading.loss_scale), (1, Some(512.0)));
    assert_eq!(step.model().weight.to_vec::<f32>().unwrap(), [0.0, 0.0]);
    step.step_on(&[batch(0)]).unwrap();
    assert_eq!(step.read().unwrap().skipped, 1);
    assert_ne!(step.model().weight.to_vec::<f32>().unwrap(), [0.0, 0.0]);
}

#[test]
fn other_batches_and_failed_steps_change_nothing() {
    let model = line();
    let optimizer = adamw(&model);
    let mut step = TrainStep::new(model, optimizer, options(8), &Device::cpu()).unwrap();
    let narrow = Tensor::zeros(&[8, 1], DType::F32, &Device::cpu()).unwrap();
    for (wrong, words) in [
        (vec![narrow.clone(), narrow.clone()], "expected f32 (8, 2)"),
        (vec![narrow.clone()], "made of 2 tensors"),
        (vec![batch(0)[0].clone(), narrow.cast(DType::F64).unwrap()], "is f64"),
    ] {
        let message = step.step_on(&[wrong]).unwrap_err().message;
        assert!(message.contains(words), "{message}");
    }
    assert!(step.step_on(&[]).unwrap_err().message.contains("takes 1 batches, got 0"));
    step.model().broken.store(true, Ordering::Relaxed);
    assert_eq!(step.step_on(&[batch(0)]).unwrap_err().message, "broken");
    step.model().broken.store(false, Ordering::Relaxed);
    assert_eq!(step.steps(), 0);
    step.step_on(&[batch(0)]).unwrap();
    assert_eq!((step.steps(), step.read().unwrap().skipped), (1, 0));
    let empty =
        StepOptions { batch: vec![BatchTensor { shape: vec![0, 2], dtype: DType::F32 }], ..options(8) };
    let model = line();
    let optimizer = adamw(&model);
    assert!(TrainStep::new(model, optimizer, empty, &Device::cpu()).is_err());
}

#[test]
fn regrouping_keeps_running_averages_and_counts() {
    let model = line();
    let optimizer = adamw(&model);
    let mut step = TrainStep::new(model, optimizer, options(8), &Device::cpu()).unwrap();
    (0..3).for_each(|i| step.step_on(&[batch(i)]).unwrap());
    let old = step.optimizer();
    let decayed = |_: &str, _: &Tensor| GroupOptions { weight_decay: 0.1, lr_scale: 1.0 };
    let new = old.regrouped(step.model().named_parameters(), decayed).unwrap();
    assert_eq!(new.steps_taken().item().unwrap(), 3.0);
    for ((name, old), (_, new)) in old.state().into_iter().zip(new.state()).skip(1) {
        assert!(new.shares_memory(&old), "{name}");
    }
    assert_eq!(new.groups().next().unwrap().0.weight_decay, 0.1);
    let other = Tensor::zeros(&[3], DType::F32, &Device::cpu()).unwrap().requires_grad().unwrap();
    let fresh = old.regrouped(vec![("weight".into(), other)], decayed).unwrap();
    assert!(fresh.state()[1].1.to_vec::<f32>().unwrap().iter().all(|&x| x == 0.0));
}
