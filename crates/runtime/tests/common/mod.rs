//! What the tests of this folder share.
#![allow(dead_code, unreachable_pub)] // Each test crate uses its part.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};

use bullet_runtime::{Buffer, Device, FaultDriver, Faults, HostDriver, HostFn, Launch, Stream};

/// A small generator (Vigna, "xorshift64*"): seeded, so that a failure repeats.
pub struct Rng(pub u64);

impl Rng {
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 11
    }

    pub fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    /// Sizes spread evenly over their logarithm, from 1 to `max`.
    pub fn size(&mut self, max: usize) -> usize {
        let top = 1 << self.below(max.ilog2() as usize + 1);
        (top + self.below(top)).min(max)
    }
}

/// A host device whose driver fails and counts.
pub fn faulty(faults: Faults) -> (Device, Arc<FaultDriver>) {
    let driver = Arc::new(FaultDriver::new(Arc::new(HostDriver::new()), faults));
    (Device::with_driver(driver.clone()), driver)
}

/// Holds streams up until it is opened or dropped, so that a test that fails does not hang.
#[derive(Default)]
pub struct Gate(Arc<(Mutex<bool>, Condvar)>);

impl Gate {
    pub fn open(&self) {
        *self.0.0.lock().unwrap() = true;
        self.0.1.notify_all();
    }

    /// Work behind this on `stream` starts when the gate is open.
    pub fn hold(&self, stream: &Stream) {
        let gate = Arc::clone(&self.0);
        run(stream, move || {
            let mut open = gate.0.lock().unwrap();
            while !*open {
                open = gate.1.wait(open).unwrap();
            }
        });
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.open();
    }
}

/// Runs a closure on a stream.
pub fn run(stream: &Stream, f: impl Fn() + Send + Sync + 'static) {
    let f: HostFn = Arc::new(f);
    // SAFETY: the closures of these tests touch memory that outlives them, ordered as the test means it.
    unsafe { stream.launch(Launch::Host(f)).unwrap() };
}

/// Enqueues a fill of a buffer.
pub fn fill(stream: &Stream, buffer: &Buffer, value: u8) {
    // SAFETY: in bounds; the pool keeps the memory until the stream has passed the buffer's drop.
    unsafe { stream.device().driver().fill(stream.id(), buffer.ptr(), value, buffer.len()).unwrap() };
}

/// A flag that a closure on a stream sets.
#[derive(Clone, Default)]
pub struct Flag(Arc<AtomicBool>);

impl Flag {
    pub fn set_on(&self, stream: &Stream) {
        let flag = self.clone();
        run(stream, move || flag.0.store(true, Ordering::SeqCst));
    }

    pub fn get(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}
