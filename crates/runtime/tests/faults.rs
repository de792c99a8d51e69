//! One scenario over two streams with every call failing in turn: errors, but no leak, no hang, no wrong bytes.

mod common;

use std::sync::Arc;
use std::time::{Duration, Instant};

use bullet_runtime::{
    Call, Device, DeviceOptions, DevicePtr, ErrorKind, FaultDriver, Faults, HostDriver, Launch, Priority,
    Result, Stream,
};
use common::faulty;

/// Adds one to each byte of a buffer.
fn increment(stream: &Stream, at: DevicePtr, bytes: usize) -> Result<()> {
    let add = move || {
        for i in 0..bytes {
            // SAFETY: in bounds; the scenario orders all that touches the buffer.
            unsafe { *(at.0 as *mut u8).add(i) += 1 };
        }
    };
    // SAFETY: the buffer lives until its stream has passed its drop.
    unsafe { stream.launch(Launch::Host(Arc::new(add))) }
}

/// Allocates, copies, launches and synchronises over two streams, with reuse across them; checks the bytes it reads.
fn scenario(driver: &Arc<FaultDriver>) -> Result<()> {
    let options = DeviceOptions { memory_limit: Some(40 << 10), ..DeviceOptions::default() };
    let device = Device::with_options(driver.clone(), options);
    let (a, b) = (device.stream(Priority::Normal)?, device.stream(Priority::Low)?);
    let event = device.event(false)?;
    for round in 0..3u8 {
        let mut x = a.alloc(16 << 10)?;
        x.write(0, &[round; 16 << 10])?;
        increment(&a, x.ptr(), x.len())?;
        a.record(&event)?;
        b.wait(&event)?;
        x.record_use(&b);
        increment(&b, x.ptr(), x.len())?;
        let mut out = vec![0; x.len()];
        x.read(0, &mut out)?;
        assert!(out.iter().all(|&v| v == round + 2), "wrong bytes without an error");
        drop(x);
        // Too large beside what is cached: takes over from a, or trims.
        let mut y = b.alloc(16 << 10)?;
        let mut z = device.alloc(24 << 10)?;
        z.write(0, &[9; 24 << 10])?;
        y.copy_from(&z).unwrap_err();
        z.copy_from(&y)?;
    }
    device.trim();
    Ok(())
}

/// Runs the scenario with the `n`-th call failing, for every `n`; returns how many of the runs failed.
fn fail_each(call: Call, fail: impl Fn(&FaultDriver, u32)) -> u32 {
    let mut failures = 0;
    for n in 0.. {
        let host = Arc::new(HostDriver::new());
        let driver = Arc::new(FaultDriver::new(host, Faults { poison: true, ..Faults::default() }));
        fail(&driver, n);
        let outcome = scenario(&driver);
        if let Err(e) = &outcome {
            assert!(driver.injected() > 0, "failed by itself: {e}");
            failures += 1;
            let expected = match call {
                Call::Alloc => e.is_out_of_memory(),
                Call::Launch => e.kind == ErrorKind::LaunchFailed,
                Call::Copy => e.kind == ErrorKind::Driver,
                // A block whose users cannot be waited for cannot be given back either.
                Call::Sync => e.kind == ErrorKind::Driver || e.is_out_of_memory(),
            };
            assert!(expected, "{call:?} {n}: {e:?}");
        }
        let counts = driver.counts();
        // A failed wait may cost a block whose users cannot be known to have finished; nothing else may leak.
        if call != Call::Sync {
            assert_eq!((counts.live_bytes, counts.live_handles), (0, 0), "{call:?} {n} leaks");
        }
        if driver.injected() == 0 {
            assert!(n > 0);
            break;
        }
    }
    failures
}

#[test]
fn every_call_may_fail_once() {
    // One allocation that fails is made up for by emptying the cache.
    assert_eq!(fail_each(Call::Alloc, |driver, n| driver.fail_after(Call::Alloc, n)), 0);
    for call in [Call::Copy, Call::Launch, Call::Sync] {
        assert!(fail_each(call, |driver, n| driver.fail_after(call, n)) > 0, "{call:?}");
    }
}

#[test]
fn every_call_may_fail_for_good() {
    for call in Call::ALL {
        assert!(fail_each(call, |driver, n| driver.fail_from(call, n)) > 0, "{call:?}");
    }
}

#[test]
fn copies_can_be_slow_and_are_counted() {
    let (device, driver) = faulty(Faults { delay_per_kib: Duration::from_micros(500), ..Faults::default() });
    let mut buffer = device.alloc(20 << 10).unwrap();
    let start = Instant::now();
    buffer.write(0, &[1; 20 << 10]).unwrap();
    assert!(start.elapsed() >= Duration::from_millis(10));
    buffer.read(0, &mut [0; 1000]).unwrap();
    let mut copy = device.alloc(20 << 10).unwrap();
    copy.copy_from(&buffer).unwrap();
    let counts = driver.counts();
    assert_eq!(
        (counts.bytes_to_device, counts.bytes_to_host, counts.bytes_within),
        (20 << 10, 1000, 20 << 10)
    );
    assert_eq!((counts.allocs, counts.frees, counts.launches), (2, 0, 0));
}

#[test]
fn poison_marks_fresh_and_freed_memory() {
    let (device, driver) = faulty(Faults { poison: true, ..Faults::default() });
    let buffer = device.alloc(100).unwrap();
    let mut out = [0; 100];
    buffer.read(0, &mut out).unwrap();
    assert_eq!(out, [0xFF; 100]);
    drop(buffer);
    device.trim();
    assert_eq!(driver.counts().frees, 1);
}

#[test]
fn capacity_limits_the_device() {
    let (device, driver) = faulty(Faults { capacity: Some(10_000), ..Faults::default() });
    let held = device.alloc(6000).unwrap();
    assert!(device.alloc(6000).unwrap_err().is_out_of_memory());
    let memory = driver_memory(&driver);
    assert_eq!(memory, (10_000, 10_000 - device.memory_stats().held()));
    drop(held);
    assert!(device.alloc(8000).is_ok());
}

fn driver_memory(driver: &FaultDriver) -> (usize, usize) {
    use bullet_runtime::Driver;
    let memory = driver.memory().unwrap();
    (memory.total, memory.free)
}

#[test]
fn pinned_memory_is_counted() {
    use bullet_runtime::Driver;
    let (_, driver) = faulty(Faults::default());
    let p = driver.alloc_pinned(4096).unwrap();
    assert_eq!(driver.pinned_bytes(), 4096);
    // SAFETY: allocated above with this size; nothing copies from or to it.
    unsafe { driver.free_pinned(p, 4096).unwrap() };
    assert_eq!(driver.pinned_bytes(), 0);
    driver.fail_after(Call::Alloc, 0);
    assert!(driver.alloc_pinned(1).unwrap_err().is_out_of_memory());
}
