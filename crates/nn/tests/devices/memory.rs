//! Training while memory runs out: every allocation of a step fails in turn, and quotas from ample to hopeless. A step ends
//! as it would have, or with an error that says what is held, and the next one works.
//!
//! On the host driver posing as a device; with `BULLET_TEST_DEVICES=cuda:0` on that GPU.

use std::sync::Arc;

use bullet_nn::train::TrainStep;
use bullet_nn::{ErrorKind, Result, Transformer};
use bullet_tensor::Device;
use bullet_tensor::runtime::{
    Call, CudaDriver, DeviceOptions, Driver, FaultDriver, Faults, HostDriver, MemoryStats,
};

use crate::common::{batches, train_step};

fn on_gpu() -> bool {
    std::env::var("BULLET_TEST_DEVICES").is_ok_and(|names| names.contains("cuda:0"))
}

fn device(limit: Option<usize>) -> (Device, Arc<FaultDriver>) {
    let inner: Arc<dyn Driver> = match on_gpu() {
        true => Arc::new(CudaDriver::new(0).unwrap()),
        false => Arc::new(HostDriver::new()),
    };
    let driver = Arc::new(FaultDriver::new(inner, Faults::default()));
    let options = DeviceOptions { memory_limit: limit, poison: true };
    (Device::with_options(driver.clone(), options), driver)
}

const SETTINGS: [&str; 2] = [
    "train.precision=f16 model.dropout=0.1 model.bias=true",
    "train.accumulation=2 train.recompute=true model.norm=rms model.feed_forward=swiglu model.kv_heads=1",
];

/// The loss of one more step.
fn one(step: &mut TrainStep<Transformer>) -> Result<f64> {
    let batches = batches(step.options(), step.steps() as usize);
    step.step(&batches)?;
    Ok(step.read()?.loss)
}

fn close(got: f64, want: f64) -> bool {
    (got - want).abs() <= 1e-3 * want.abs()
}

/// The losses of four steps without faults.
fn healthy(pairs: &str, device: &Device) -> [f64; 4] {
    let mut step = train_step(pairs, device).unwrap();
    [(); 4].map(|()| one(&mut step).unwrap())
}

fn check_error(e: &bullet_nn::Error) {
    assert_eq!(e.kind, ErrorKind::OutOfMemory, "{e}");
    for part in ["out of memory on", "requested", "in use by", "smaller batch"] {
        assert!(e.message.contains(part), "{part} is missing in: {e}");
    }
}

/// A step whose allocations fail from the `n`-th on, `failures` times; whether any did, and whether the step succeeded.
fn fault(
    pairs: &str,
    captured: bool,
    (device, driver): &(Device, Arc<FaultDriver>),
    (n, failures): (u32, u32),
    want: &[f64; 4],
) -> (bool, bool) {
    let what = format!("{pairs}, captured {captured}, {failures} failures from allocation {n} on");
    let mut step = train_step(pairs, device).unwrap();
    step.set_captured(captured);
    for want in &want[..2] {
        assert!(close(one(&mut step).unwrap(), *want), "{what}");
    }
    // An empty cache, so that the driver is asked.
    device.trim();
    let before = driver.injected();
    driver.fail_some(Call::Alloc, n, failures);
    let batches = batches(step.options(), 2);
    let outcome = step.step(&batches);
    driver.fail_some(Call::Alloc, 0, 0);
    let injected = driver.injected() > before;
    let fine = outcome.is_ok();
    match outcome {
        Ok(()) => {
            let loss = step.read().unwrap().loss;
            assert!(close(loss, want[2]), "{what}: loss {loss}, expected {}", want[2]);
            let loss = one(&mut step).unwrap();
            assert!(close(loss, want[3]), "{what}: then loss {loss}, expected {}", want[3]);
        }
        Err(e) => {
            assert!(injected, "{what}: failed by itself: {e}");
            check_error(&e);
            assert!(one(&mut step).unwrap().is_finite(), "{what}");
        }
    }
    (injected, fine)
}

#[test]
fn every_allocation_of_a_step_fails_in_turn() {
    for pairs in SETTINGS {
        let target = device(None);
        let want = healthy(pairs, &target.0);
        let baseline: MemoryStats = target.0.memory_stats();
        let stride = if on_gpu() { 7 } else { 1 };
        for (captured, failures) in [(false, 1), (false, 4), (false, u32::MAX), (true, 4), (true, u32::MAX)] {
            let (mut failed, mut succeeded) = (0, 0);
            for n in (0..).step_by(stride) {
                let (injected, fine) = fault(pairs, captured, &target, (n, failures), &want);
                let now = target.0.memory_stats();
                assert_eq!(
                    (now.buffers, now.used),
                    (baseline.buffers, baseline.used),
                    "allocation {n} leaks"
                );
                if !injected {
                    break;
                }
                succeeded += u32::from(fine);
                failed += u32::from(!fine);
            }
            println!("{pairs}, captured {captured}, {failures}: {succeeded} steps went on, {failed} failed");
            assert!(succeeded + failed > 4);
            // The pool asks the driver again when it has emptied its cache.
            assert!(failures > 1 || failed == 0);
        }
        let (device, driver) = target;
        drop(device);
        if !on_gpu() {
            let counts = driver.counts();
            assert_eq!((counts.live_bytes, counts.live_handles, driver.pinned_bytes()), (0, 0, 0));
        }
    }
}

#[test]
fn under_any_quota_a_step_is_right_or_an_error() {
    for pairs in SETTINGS {
        let (ample, _) = device(None);
        let want = healthy(pairs, &ample);
        let peak = ample.memory_stats().peak_held;
        let (mut fitted, mut refused) = (0, 0);
        for percent in (20..=110).rev().step_by(3) {
            let (device, _) = device(Some(peak * percent / 100));
            let run = || -> Result<()> {
                let mut step = train_step(pairs, &device)?;
                for want in want {
                    let loss = one(&mut step)?;
                    assert!(close(loss, want), "{pairs}, {percent}% of {peak}: loss {loss}, expected {want}");
                }
                Ok(())
            };
            match run() {
                Ok(()) => fitted += 1,
                Err(e) => {
                    assert!(percent < 105, "{percent}%: {e}");
                    check_error(&e);
                    assert!(e.message.contains("BULLET_MEMORY_LIMIT"), "{e}");
                    refused += 1;
                }
            }
            assert!(device.memory_stats().peak_held <= peak * percent / 100);
        }
        println!("{pairs}: {fitted} quotas sufficed, {refused} did not");
        assert!(fitted > 2 && refused > 2);
    }
}

#[test]
fn the_model_of_the_demo_trains_on_a_card_of_2_gib() {
    const LIMIT: usize = 2 << 30;
    let (device, _) = device(Some(LIMIT));
    let pairs = "model.dim=128 model.layers=4 model.heads=4 model.ff=256 model.seq=64 train.batch_size=64 \
                 train.precision=f16 model.vocab=3000";
    let mut step = train_step(pairs, &device).unwrap();
    // Enough on a GPU for the third to be captured.
    for _ in 0..if on_gpu() { 5 } else { 1 } {
        assert!(one(&mut step).unwrap().is_finite());
    }
    assert!(!on_gpu() || step.is_captured(), "{:?}", step.not_captured());
    let stats = device.memory_stats();
    println!("peak: {} MiB in use, {} MiB held", stats.peak >> 20, stats.peak_held >> 20);
    assert!(stats.peak_held <= LIMIT);
}
