//! Models that lie on two devices: they train as on one. The fast device is a host device with a pool and a quota of its
//! own, and in some tests a GPU, where there is one; the slow one is the CPU.

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bullet_nn::config::Config;
use bullet_nn::generate::{Sampler, TokenStream};
use bullet_nn::place::{Placement, Plan, plan};
use bullet_nn::train::{
    Ending, Flow, Report, TrainStep, TrainerBuilder, load_model, measure, optimizer, step_options,
};
use bullet_nn::{ErrorKind, Init, Module, Pass, Result, Transformer, TransformerConfig};
use bullet_tensor::runtime::{self, Call, CudaDriver, DeviceOptions, FaultDriver, Faults, HostDriver};
use bullet_tensor::{DType, Device, Tensor, no_grad, rescued};

use crate::common::{AtStep, Scratch, VOCAB, batches, builder, config_with, tensors, text, weights};
use crate::scaled::Scaled;

/// A device that is not the CPU, as far as anything can tell but the clock.
fn other(limit: Option<usize>) -> Device {
    Device::with_options(Arc::new(HostDriver::new()), DeviceOptions { memory_limit: limit, poison: true })
}

/// A GPU with a pool of its own, or `None` where there is none; a GPU that does not work is a failure.
fn gpu(limit: Option<usize>) -> Option<Device> {
    match CudaDriver::new(0) {
        Ok(driver) => {
            Some(Device::with_options(Arc::new(driver), DeviceOptions { memory_limit: limit, poison: false }))
        }
        Err(e) => {
            let absent = matches!(e.kind, runtime::ErrorKind::DriverMissing | runtime::ErrorKind::NoDevice);
            assert!(absent, "there is a GPU, but: {e}");
            println!("skipped: no CUDA device");
            None
        }
    }
}

/// Held by tests that run out of memory, or look whether any did: ops done with less are counted for the whole process.
static MEMORY: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    MEMORY.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A placement of four blocks as a word: a letter for embedding, each block and head; `f` is on `fast`, `s` on the CPU.
fn placed(word: &str, fast: &Device) -> Placement {
    let device = |letter| if letter == 'f' { fast.clone() } else { Device::cpu() };
    let all: Vec<Device> = word.chars().map(device).collect();
    let [embedding, blocks @ .., head] = &all[..] else { panic!("{word} has no ends") };
    Placement { embedding: embedding.clone(), blocks: blocks.to_vec(), head: head.clone() }
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
    F16,
];
/// Recomputed blocks round the residual stream at the same places, whether it is moved or not; and without clipping the
/// last bit of the norm does not decide how weights are rounded.
const F16: &str = "train.precision=f16 model.dropout=0.1 train.accumulation=2 train.recompute=true";
const PLACES: [&str; 5] = ["fffsss", "ssffss", "sfffff", "ssssff", "sffffs"];
/// The same kernels compute the same numbers; only the norm of gradients is rounded once more.
const CLOSE: f64 = 2e-6;

fn assert_close(got: &[[f64; 3]], want: &[[f64; 3]], close: f64, what: &str) {
    assert_eq!(got.len(), want.len());
    for (i, (got, want)) in got.iter().flatten().zip(want.iter().flatten()).enumerate() {
        let (step, same) = (i / 3, got == want || got.is_nan() && want.is_nan());
        let error = (got - want).abs() / want.abs().max(1e-3);
        assert!(same || error < close, "{what}: step {step}: {got} instead of {want}");
    }
}

/// Trains with parts of the model on `fast` and others on the CPU, and all on the CPU; `close` says how alike the curves
/// must be.
fn check_curves(fast: &Device, close: impl Fn(&str) -> f64) {
    let rounded = format!("{F16} train.recompute=false optim.grad_clip=0.5");
    for pairs in SETTINGS.into_iter().chain([&*rounded]) {
        let mut alone = train_step(pairs, &Placement::on(&Device::cpu(), 4)).unwrap();
        let want = curve(&mut alone, 24, None).unwrap();
        assert!(want[23][0] < want[0][0], "{pairs}: nothing is learnt: {want:?}");
        for word in PLACES {
            let placement = placed(word, fast);
            let parted = pairs.contains("tied") && placement.embedding != placement.head;
            let made = train_step(pairs, &placement);
            assert_eq!(
                made.as_ref().err().map(|e| e.message.contains("tie_embeddings")),
                parted.then_some(true)
            );
            let Ok(mut step) = made else { continue };
            assert_eq!(step.model().model.placement(), placement);
            let (got, close) = (curve(&mut step, 24, None).unwrap(), close(pairs));
            assert_close(&got, &want, close, &format!("{pairs}, {word}"));
        }
    }
}

#[test]
fn the_loss_curve_is_that_of_one_device() {
    let rounded = |pairs: &str| pairs.contains("f16") && pairs.contains("grad_clip");
    check_curves(&other(None), |pairs| if rounded(pairs) { 1e-2 } else { CLOSE });
}

#[test]
fn on_a_gpu_the_loss_curve_is_the_cpus() {
    let Some(fast) = gpu(None) else { return };
    check_curves(&fast, |pairs| if pairs.contains("f16") { 3e-2 } else { 1e-4 });
}

#[test]
fn an_overflow_anywhere_skips_the_step_everywhere() {
    let fast = other(None);
    let mut alone = train_step(F16, &Placement::on(&Device::cpu(), 4)).unwrap();
    let want = curve(&mut alone, 8, Some(5)).unwrap();
    assert_eq!((want[5][2], want[6][2]), (32768.0, 32768.0), "the scale halves behind the broken step");
    for word in PLACES {
        let mut step = train_step(F16, &placed(word, &fast)).unwrap();
        let mut got = curve(&mut step, 5, None).unwrap();
        let before = weights(step.model());
        no_grad(|| step.model().factor.fill_(f64::INFINITY)).unwrap();
        step.step(&batches(&step.options().clone(), 5)).unwrap();
        assert_eq!(before, weights(step.model()), "{word}: some parameter moved");
        let reading = step.read().unwrap();
        assert_eq!((reading.skipped, reading.loss_scale), (1, Some(32768.0)), "{word}");
        got.push([reading.loss, reading.grad_norm, 32768.0]);
        for i in 6..8 {
            no_grad(|| step.model().factor.fill_(1.0)).unwrap();
            step.step(&batches(&step.options().clone(), i)).unwrap();
            let r = step.read().unwrap();
            got.push([r.loss, r.grad_norm, r.loss_scale.unwrap()]);
        }
        assert_close(&got, &want, CLOSE, word);
    }
}

/// Where an overflow begins does not matter: a gradient of one part alone that is not finite stops all.
#[test]
fn one_broken_gradient_stops_both_devices() {
    let fast = other(None);
    for broken in ["tok_embedding.weight", "head.weight"] {
        let config = settings("optim.grad_clip=1");
        let placement = placed("fffsss", &fast);
        let model = TransformerConfig::from_settings(&config.model, VOCAB);
        let model = Transformer::placed(model, &Init::new(3, DType::F32, &fast), &placement).unwrap();
        let optimizer = optimizer(&config, &model).unwrap();
        optimizer.set_lr(0.1).unwrap();
        for (name, t) in model.named_parameters() {
            let value = if name == broken { f64::NAN } else { 1.0 };
            t.set_grad(Some(Tensor::full(value, t.shape(), DType::F32, t.device()).unwrap()));
        }
        let before = weights(&model);
        let scale = optimizer.gradient_scale(None, Some(1.0)).unwrap();
        optimizer.step(&scale).unwrap();
        assert_eq!(scale.non_finite.item().unwrap(), 1.0, "{broken}");
        assert_eq!(before, weights(&model), "{broken}");
        for (_, t) in model.named_parameters() {
            t.set_grad(Some(Tensor::ones(t.shape(), DType::F32, t.device()).unwrap()));
        }
        let scale = optimizer.gradient_scale(None, None).unwrap();
        let norm = (model.num_parameters() as f64).sqrt();
        assert!((scale.norm.item().unwrap() - norm).abs() < 1e-5 * norm);
        optimizer.step(&scale).unwrap();
        assert!(before.iter().zip(weights(&model)).all(|(before, after)| *before != after), "{broken}");
    }
}

/// Wide enough that a block is more than small change.
const WIDE: &str = "model.layers=6 model.dim=64 model.ff=128 model.heads=4 model.seq=32 train.batch_size=8 \
                    optim.grad_clip=1 model.dropout=0.1";

/// The plan for `fast` and the CPU, were the CPU so many times slower than it is.
fn plan_of(pairs: &str, fast: &Device, slower: f64) -> Plan {
    let config = settings(pairs);
    let model = TransformerConfig::from_settings(&config.model, VOCAB);
    let mut costs = measure(&config, &model, fast, &Device::cpu()).unwrap();
    let slow = &mut costs.slow;
    for cost in [&mut slow.embedding, &mut slow.block, &mut slow.head].into_iter().flatten() {
        cost.pass *= slower;
        cost.update *= slower;
    }
    plan(&costs).unwrap()
}

#[test]
fn what_is_planned_is_what_is_used() {
    let _alone = alone();
    for more in ["", "train.recompute=true", "train.precision=f16 train.accumulation=3", "model.tied=true"] {
        let pairs = format!("{WIDE} {more}");
        let device = other(None);
        let found = plan_of(&pairs, &device, 100.0);
        let all = Placement::on(&device, 6);
        assert_eq!(found.placement(&device, &Device::cpu()), all, "{pairs}");
        assert_eq!(device.memory_stats().held(), 0, "the probe leaves nothing behind");
        let mut step = train_step(&pairs, &all).unwrap();
        curve(&mut step, 3, None).unwrap();
        let ratio = found.bytes[0] as f64 / device.memory_stats().peak as f64;
        assert!((0.97..1.35).contains(&ratio), "{pairs}: planned {ratio} of what was used");
    }
}

/// Trains a model that takes twice the memory that devices of `make` then have; curves must be as close as said. Returns
/// how many ops were done with less memory than they want.
fn check_twice_the_quota(make: impl Fn(Option<usize>) -> Device, close: impl Fn(&str) -> f64) -> u64 {
    let _alone = alone();
    let mut rescues = 0;
    // Of a model that recomputes, more blocks: what one needs while it is computed has to fit beside what others keep.
    let deep = "model.tied=true train.recompute=true model.layers=12";
    for more in ["", deep, "train.precision=f16 train.accumulation=2"] {
        let pairs = format!("{WIDE} {more}");
        let layers = settings(&pairs).model.layers;
        let on = |device: &Device| train_step(&pairs, &Placement::on(device, layers)).unwrap();
        let want = curve(&mut on(&Device::cpu()), 20, None).unwrap();
        let ample = make(None);
        curve(&mut on(&ample), 2, None).unwrap();
        let quota = ample.memory_stats().peak / 2;
        let full = make(Some(quota));
        let refused =
            train_step(&pairs, &Placement::on(&full, layers)).and_then(|mut s| curve(&mut s, 1, None));
        assert!(refused.is_err(), "{pairs}: half the memory would do");
        drop(refused);
        let fast = make(Some(quota));
        let found = plan_of(&pairs, &fast, 1000.0);
        println!("{pairs}: {}", found.describe(&fast, &Device::cpu()));
        assert!(found.fits() && (1..layers).contains(&found.blocks.len()), "{pairs}: {found:?}");
        let before = rescued();
        let mut step = train_step(&pairs, &found.placement(&fast, &Device::cpu())).unwrap();
        let got = curve(&mut step, 20, None).unwrap();
        assert_close(&got, &want, close(&pairs), &pairs);
        let after = rescued();
        rescues += after.0 - before.0 + after.1 - before.1;
        assert!(fast.memory_stats().peak_held <= quota);
        assert!(fast.memory_stats().peak > quota / 3, "{pairs}: {found:?}");
    }
    rescues
}

#[test]
fn a_model_of_twice_the_quota_trains() {
    let rescues = check_twice_the_quota(other, |pairs| if pairs.contains("f16") { 1e-2 } else { CLOSE });
    assert_eq!(rescues, 0);
}

#[test]
fn on_a_gpu_a_model_of_twice_the_quota_trains() {
    if gpu(None).is_none() {
        return;
    }
    let make = |limit| gpu(limit).expect("it was there");
    let rescues = check_twice_the_quota(make, |pairs| if pairs.contains("f16") { 3e-2 } else { 1e-4 });
    println!("{rescues} ops were done with less memory than they want");
}

#[test]
fn where_memory_runs_out_a_step_is_right_or_an_error() {
    let _alone = alone();
    let pairs = "train.precision=f16 model.dropout=0.1 model.bias=true";
    let driver = Arc::new(FaultDriver::new(Arc::new(HostDriver::new()), Faults::default()));
    let fast = Device::with_options(driver.clone(), DeviceOptions { memory_limit: None, poison: true });
    let placement = placed("sfffss", &fast);
    let want = curve(&mut train_step(pairs, &placement).unwrap(), 3, None).unwrap();
    let (mut fitted, mut refused) = (0, 0);
    // The pool asks again once it has emptied its cache, and then an op is done with less.
    for (n, failures) in (0..40).flat_map(|n| [(n, 2), (n, 6)]) {
        let mut step = train_step(pairs, &placement).unwrap();
        assert_close(&curve(&mut step, 1, None).unwrap(), &want[..1], 1e-3, "first step");
        fast.trim();
        driver.fail_some(Call::Alloc, n, failures);
        let done = step.step(&batches(&step.options().clone(), 1));
        driver.fail_some(Call::Alloc, 0, 0);
        let right = |step: &TrainStep<Scaled>, i: usize| {
            let loss = step.read().unwrap().loss;
            assert!(
                (loss - want[i][0]).abs() < 1e-3 * loss,
                "allocation {n}: {loss} instead of {}",
                want[i][0]
            );
        };
        if let Err(e) = done {
            assert_eq!(e.kind, ErrorKind::OutOfMemory, "allocation {n}: {e}");
            step.step(&batches(&step.options().clone(), 2)).unwrap();
            assert!(step.read().unwrap().loss.is_finite());
            refused += 1;
            continue;
        }
        right(&step, 1);
        step.step(&batches(&step.options().clone(), 2)).unwrap();
        right(&step, 2);
        fitted += 1;
    }
    println!("{fitted} steps went on, {refused} did not");
    assert!(fitted > 0 && refused > 0);
}

/// A run of 20 steps on `placement`, or the CPU, that stops after `stop` steps.
fn run(scratch: &Scratch, name: &str, placement: Option<&Placement>, stop: Option<u64>) -> Report {
    let pairs =
        "model.layers=4 optim.grad_clip=1 model.dropout=0.1 train.accumulation=2 optim.decay_min_rank=2";
    let mut config = config_with(scratch.path(), pairs);
    config.train.name = name.into();
    config.train.device = "cpu".into();
    let mut b = builder(config);
    if let Some(placement) = placement {
        b = b.placement(placement.clone());
    }
    if let Some(step) = stop {
        b = b.callback(AtStep(step, || Flow::Stop));
    }
    b.build().unwrap().run().unwrap()
}

/// The largest difference between two checkpoints, which hold the same tensors.
fn difference(a: &Report, b: &Report) -> f64 {
    let sorted = |report: &Report| {
        let mut all = tensors(&report.last);
        all.sort();
        all
    };
    let (a, b) = (sorted(a), sorted(b));
    let names = |all: &[(String, Vec<u8>)]| all.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
    assert_eq!(names(&a), names(&b));
    let mut worst = 0.0;
    for ((name, x), (_, y)) in a.iter().zip(&b) {
        assert_eq!(x.len(), y.len(), "{name}");
        let number = |bytes: &[u8]| f64::from(f32::from_le_bytes(bytes.try_into().unwrap()));
        if name == "optim.step" {
            assert_eq!(x, y);
            continue;
        }
        for (x, y) in x.chunks_exact(4).zip(y.chunks_exact(4)) {
            worst = f64::max(worst, (number(x) - number(y)).abs());
        }
    }
    worst
}

#[test]
fn checkpoints_go_from_any_placement_to_any_other() {
    let scratch = Scratch::new("hybrid-resume");
    let placement = placed("fffsss", &other(None));
    let back = placed("ssssff", &other(None));
    let whole = run(&scratch, "cpu", None, None);
    for (name, first, second) in [
        ("both", Some(&placement), Some(&placement)),
        ("to-cpu", Some(&placement), None),
        ("from-cpu", None, Some(&placement)),
        ("turned", Some(&placement), Some(&back)),
    ] {
        let part = run(&scratch, name, first, Some(9));
        assert_eq!((part.ending, part.steps), (Ending::Stopped, 9));
        let mut resumed = TrainerBuilder::resume(&part.last).unwrap().text(text());
        if let Some(placement) = second {
            resumed = resumed.placement(placement.clone());
        }
        let resumed = resumed.build().unwrap().run().unwrap();
        assert_eq!(resumed.steps, 20);
        let worst = difference(&whole, &resumed);
        assert!(worst < 1e-5, "{name}: tensors differ by {worst}");
        let losses = [&whole, &resumed].map(|r| r.evaluation.as_ref().unwrap().loss);
        assert!((losses[0] - losses[1]).abs() < 1e-5, "{name}: {losses:?}");
    }
}

#[test]
fn a_model_on_two_devices_evaluates_and_writes() {
    let scratch = Scratch::new("hybrid-writes");
    let fast = other(None);
    for word in ["fffsss", "sffffs", "ssssff"] {
        let placement = placed(word, &fast);
        let report = run(&scratch, word, Some(&placement), None);
        let on_cpu = load_model(&report.last, &Device::cpu()).unwrap().model;
        let config = on_cpu.config().clone();
        let split = Transformer::placed(config, &Init::new(0, DType::F32, &fast), &placement).unwrap();
        split.load_state_dict(&on_cpu.state_dict()).unwrap();
        let tokens = |model: &Transformer| -> Vec<u32> {
            let sampler = Sampler { seed: 4, ..Sampler::default() };
            let stream = TokenStream::new(model, &[1, 2], sampler, Pass::eval()).unwrap();
            stream.take(40).map(std::result::Result::unwrap).collect()
        };
        assert_eq!(tokens(&split), tokens(&on_cpu), "{word}");
        let joined = split.to(DType::F32, &fast).unwrap();
        assert_eq!(tokens(&joined), tokens(&on_cpu), "{word}");
    }
}

#[test]
fn hybrid_without_a_gpu_is_the_cpu() {
    let scratch = Scratch::new("hybrid-alone");
    let config = config_with(scratch.path(), "train.device=hybrid train.steps=2");
    let trainer = builder(config).build().unwrap();
    let gpu = Device::auto().unwrap().0.gpu().is_some();
    assert_eq!(trainer.plan().is_some(), gpu);
    assert!(gpu || trainer.model().placement() == Placement::on(&Device::cpu(), 2));
    let wrong = config_with(scratch.path(), "train.device=hybird");
    let message = builder(wrong).build().err().unwrap().message;
    assert!(message.contains("`train.device` = hybird") && message.contains("or to hybrid"), "{message}");
}

#[test]
fn a_placement_of_another_model_is_refused() {
    let scratch = Scratch::new("hybrid-refused");
    let b = builder(config_with(scratch.path(), "")).placement(Placement::on(&Device::cpu(), 5));
    let message = b.build().err().unwrap().message;
    assert!(message.contains("where 5 blocks are") && message.contains("has 2"), "{message}");
}

#[test]
fn steps_on_two_devices_are_not_captured() {
    let mut step = train_step("", &placed("fffsss", &other(None))).unwrap();
    step.set_captured(true);
    curve(&mut step, 5, None).unwrap();
    assert!(!step.is_captured() && step.not_captured().is_none());
}
