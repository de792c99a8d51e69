//! A training step that is captured and replayed does what it does op by op, bit by bit: on the host driver, whose
//! captures have the rules of a GPU's.

mod common;

use std::sync::Arc;

use bullet_nn::train::TrainStep;
use bullet_nn::{LanguageModel, Pass, Transformer};
use bullet_tensor::runtime::{Call, DeviceOptions, FaultDriver, Faults, HostDriver};
use bullet_tensor::{Device, Tensor};
use common::{batches, train_step, weights};

/// A device of its own, since a capture must have its stream to itself; memory that nobody wrote is NaN.
fn device() -> (Device, Arc<FaultDriver>) {
    let faults = Faults { poison: true, ..Faults::default() };
    let driver = Arc::new(FaultDriver::new(Arc::new(HostDriver::new()), faults));
    let options = DeviceOptions { poison: true, ..DeviceOptions::default() };
    (Device::with_options(driver.clone(), options), driver)
}

/// Loss, gradient norm and weights after each of `steps` more steps.
fn run(step: &mut TrainStep<Transformer>, steps: usize) -> Vec<(u64, u64, Vec<Vec<u8>>)> {
    let one = |_| {
        let batches = batches(step.options(), step.steps() as usize);
        step.step(&batches).unwrap();
        let reading = step.read().unwrap();
        assert!(reading.loss.is_finite() && reading.grad_norm.is_finite());
        (reading.loss.to_bits(), reading.grad_norm.to_bits(), weights(step.model()))
    };
    (0..steps).map(one).collect()
}

#[test]
fn a_captured_step_is_the_step() {
    for pairs in [
        "model.dropout=0.1 model.bias=true train.accumulation=2",
        "model.dropout=0.2 train.recompute=true model.norm=rms model.feed_forward=swiglu model.kv_heads=1",
        "train.precision=f16 train.scale_interval=3 optim.grad_clip=0.1",
        "train.precision=bf16 optim.kind=sgd",
    ] {
        let mut eager = train_step(pairs, &device().0).unwrap();
        let (device, driver) = device();
        let mut captured = train_step(pairs, &device).unwrap();
        captured.set_captured(true);
        assert_eq!(run(&mut eager, 2), run(&mut captured, 2), "{pairs}");
        assert!(!captured.is_captured());
        for round in 0..3 {
            assert_eq!(run(&mut eager, 2), run(&mut captured, 2), "{pairs}, round {round}");
            assert!(captured.is_captured(), "{:?}", captured.not_captured());
            // Between steps: work beside the graph, and a trimmed pool.
            device.trim();
            let tokens = Tensor::zeros(&[3, 12], bullet_tensor::DType::I64, &device).unwrap();
            captured.model().forward(&tokens, &Pass::eval()).unwrap().to_f64_vec().unwrap();
        }
        drop(captured);
        assert_eq!(device.memory_stats().buffers, 0, "{pairs}");
        drop(device);
        assert_eq!((driver.counts().live_bytes, driver.counts().live_handles), (0, 0), "{pairs}");
    }
}

#[test]
fn a_capture_that_fails_is_done_op_by_op() {
    let pairs = "model.dropout=0.1";
    let mut eager = train_step(pairs, &device().0).unwrap();
    let want = run(&mut eager, 5);
    let mut tried = 0;
    for n in 0.. {
        let (device, driver) = device();
        let mut step = train_step(pairs, &device).unwrap();
        step.set_captured(true);
        let mut got = run(&mut step, 2);
        // A launch of the capture fails, or beginning and ending it.
        let call = if n < 2 { Call::Sync } else { Call::Launch };
        driver.fail_after(call, if n < 2 { n } else { (n - 2) * 17 });
        let before = driver.injected();
        let batches = batches(step.options(), 2);
        let outcome = step.step(&batches);
        let failed = driver.injected() > before;
        driver.fail_after(call, u32::MAX);
        if !failed || outcome.is_err() {
            // The launch of the graph itself failed, which is an error of the step.
            assert!(step.not_captured().is_none());
            break;
        }
        assert!(step.not_captured().unwrap().contains("injected"), "{:?}", step.not_captured());
        let reading = step.read().unwrap();
        got.push((reading.loss.to_bits(), reading.grad_norm.to_bits(), weights(step.model())));
        got.extend(run(&mut step, 2));
        assert_eq!(got, want, "fault {n}");
        tried += 1;
    }
    assert!(tried > 4, "{tried}");
}
