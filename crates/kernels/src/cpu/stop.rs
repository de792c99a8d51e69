//! Stopping a long call from inside: the thread that called asks, now and then, whether it should go on.
//!
//! Kernels have no way to fail. A call that is told to stop therefore unwinds, as for a panic but without a message: parts
//! of the kernel that are not begun are left out, guards are released on the way, and [`stoppable`] catches it. Results
//! that were being written are lost; what was written in place is half done.

use std::any::Any;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::{Duration, Instant};

/// How often a call asks.
const EVERY: Duration = Duration::from_millis(50);

/// Why there is no result: the call was told to stop.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stopped;

/// What a stoppable call asks, and when it does next.
#[derive(Clone, Copy)]
struct Watch {
    should_stop: fn() -> bool,
    next: Instant,
}

thread_local! {
    static WATCH: Cell<Option<Watch>> = const { Cell::new(None) };
}

/// Runs `f`, which asks `should_stop` on this thread every 50 ms while it runs kernels on the CPU, and ends early if that
/// says so. It may be asked while guards of tensors are held.
///
/// # Errors
/// [`Stopped`].
pub fn stoppable<R>(should_stop: fn() -> bool, f: impl FnOnce() -> R) -> Result<R, Stopped> {
    struct Restore(Option<Watch>);
    impl Drop for Restore {
        fn drop(&mut self) {
            WATCH.set(self.0);
        }
    }
    let _restore = Restore(WATCH.replace(Some(Watch { should_stop, next: Instant::now() + EVERY })));
    // What is left half done is named above, and the caller is told.
    catch_unwind(AssertUnwindSafe(f)).map_err(|payload: Box<dyn Any + Send>| {
        match payload.downcast::<Stopped>() {
            Ok(stopped) => *stopped,
            Err(panic) => resume_unwind(panic),
        }
    })
}

/// Asks whether to go on, if it is time to; returns only then.
pub fn check() {
    let Some(watch) = WATCH.get() else { return };
    let now = Instant::now();
    if now < watch.next {
        return;
    }
    if (watch.should_stop)() {
        resume_unwind(Box::new(Stopped));
    }
    WATCH.set(Some(Watch { next: Instant::now() + EVERY, ..watch }));
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::cpu::par;

    fn nap() {
        std::thread::sleep(Duration::from_millis(2));
    }

    #[test]
    fn who_is_told_to_stop_stops_soon_and_the_pool_goes_on() {
        let begun = AtomicUsize::new(0);
        let work = |_| {
            begun.fetch_add(1, Ordering::Relaxed);
            nap();
        };
        let start = Instant::now();
        assert_eq!(stoppable(|| true, || par::for_tasks(10_000, work)), Err(Stopped));
        assert!(start.elapsed() < 4 * EVERY, "{:?}", start.elapsed());
        assert!(begun.into_inner() < 10_000);
        // Nobody asks outside.
        par::for_tasks(50, |_| nap());
        assert_eq!(stoppable(|| false, || par::for_tasks(100, |_| nap())), Ok(()));
    }

    #[test]
    fn long_ranges_stop_too() {
        let start = Instant::now();
        let slow =
            |range: std::ops::Range<usize>| range.for_each(|_| std::thread::sleep(Duration::from_micros(1)));
        assert_eq!(stoppable(|| true, || par::for_ranges(1 << 20, 1, slow)), Err(Stopped));
        assert!(start.elapsed() < 4 * EVERY, "{:?}", start.elapsed());
    }

    #[test]
    fn other_panics_pass() {
        let caught = catch_unwind(|| stoppable(|| false, || panic!("mine")));
        assert_eq!(*caught.unwrap_err().downcast::<&str>().unwrap(), "mine");
    }
}
