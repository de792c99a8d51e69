//! Several threads over the same tensors: nothing waits for ever, and nothing is torn.

use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use bullet_tensor::{DType, Device, Result, Tensor};

/// Elements enough for every op here to be cut into several tasks.
const SIDE: usize = 512;
/// A run takes a second or so; one that is stuck, for ever.
const WATCHDOG: Duration = Duration::from_secs(120);

/// Runs `work` on a thread of its own, and fails if it takes longer than the watchdog waits.
fn watched(work: impl FnOnce() -> Result<()> + Send + 'static) {
    let (done, result) = mpsc::channel();
    thread::spawn(move || done.send(work()).ok());
    result.recv_timeout(WATCHDOG).expect("threads wait for each other").unwrap();
}

/// Overwrites and reads of one tensor, each one parallel kernel: a thread that waits for part of its kernel, and holds
/// the tensor meanwhile, must not be made to run something that wants the tensor too.
#[test]
fn writers_and_readers_of_one_tensor_do_not_wait_for_ever() {
    watched(|| {
        let shared = Tensor::full(1.0, &[SIDE, SIDE], DType::F32, &Device::cpu())?;
        let step = |t: usize, i: usize| -> Result<()> {
            if (t + i).is_multiple_of(2) {
                return shared.fill_((t + 1) as f64);
            }
            // One kernel sees one value everywhere: no writer gets between.
            let spread = shared.var(&[], 0.0, false)?.item()?;
            assert_eq!(spread, 0.0, "a kernel read what another was writing");
            shared.mul(&shared)?.sum(&[], false)?.item().map(drop)
        };
        thread::scope(|scope| {
            let threads: Vec<_> =
                (0..6).map(|t| scope.spawn(move || (0..300).try_for_each(|i| step(t, i)))).collect();
            threads.into_iter().try_for_each(|t| t.join().expect("no panic"))
        })
    });
}
