//! Ending a kernel from inside: the thread that called asks, now and then, whether it should go on; and memory that a
//! kernel needs besides its operands may not be there.
//!
//! Kernels have no way to fail. Such a call therefore unwinds, as for a panic but without a message: parts of the kernel
//! that are not begun are left out, those of other threads end at their next [`check`], guards are released on the way, and
//! [`stoppable`] or [`with_memory`] catches it. Results that were being written are lost; what was written in place is half
//! done.

use std::any::Any;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bullet_runtime::hardware::memory_holds;

/// How often a call asks.
const EVERY: Duration = Duration::from_millis(50);

/// Why there is no result: the call was told to stop.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stopped;

/// Why there is no result: a kernel's own memory was refused, of so many bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NoMemory(pub usize);

/// What a stoppable call asks, and when it does next.
#[derive(Clone, Copy)]
struct Watch {
    should_stop: fn() -> bool,
    next: Instant,
}

thread_local! {
    static WATCH: Cell<Option<Watch>> = const { Cell::new(None) };
    /// Whether the job that this thread works on has failed; null outside of jobs.
    static JOB: Cell<*const AtomicBool> = const { Cell::new(ptr::null()) };
}

/// Runs `f`, a part of a job that ends early where `failed` is set.
pub(super) fn in_job(failed: &AtomicBool, f: impl FnOnce()) {
    struct Restore(*const AtomicBool);
    impl Drop for Restore {
        fn drop(&mut self) {
            JOB.set(self.0);
        }
    }
    let _restore = Restore(JOB.replace(failed));
    f();
}

/// Runs `f`, whose kernels may find too little memory.
///
/// # Errors
/// [`NoMemory`].
pub fn with_memory<R>(f: impl FnOnce() -> R) -> Result<R, NoMemory> {
    // Results that were being written are given up by whoever gets the error.
    catch_unwind(AssertUnwindSafe(f)).map_err(|payload: Box<dyn Any + Send>| {
        match payload.downcast::<NoMemory>() {
            Ok(refused) => *refused,
            Err(other) => resume_unwind(other),
        }
    })
}

/// `n` times `x`, as `vec!` makes it; where there is no room for them the kernel ends ([`with_memory`]).
pub(crate) fn filled<T: Clone>(x: T, n: usize) -> Vec<T> {
    /// Below this many bytes the question costs more than it is worth: then nothing else has memory either.
    const LARGE: usize = 1 << 20;
    let bytes = n.saturating_mul(size_of::<T>());
    if bytes >= LARGE {
        // Asked for by itself, since `vec!` gets zeros from the system without writing them.
        let mut room = Vec::<T>::new();
        if !memory_holds(bytes) || room.try_reserve_exact(n).is_err() {
            resume_unwind(Box::new(NoMemory(bytes)));
        }
    }
    vec![x; n]
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

/// Asks whether to go on, if it is time to; returns only then. In a part of a job that another thread's part has ended it
/// does not return.
pub fn check() {
    if is_told() {
        end();
    }
}

/// Whether [`check`] would not return, for callers that cannot unwind where they ask. Who is told to stop asks no more, and
/// comes to its [`end`] soon.
pub fn is_told() -> bool {
    let job = JOB.get();
    // SAFETY: null, or borrowed by `in_job` further up this thread's stack.
    if unsafe { job.as_ref() }.is_some_and(|failed| failed.load(Ordering::Acquire)) {
        return true;
    }
    let Some(watch) = WATCH.get() else { return false };
    if Instant::now() < watch.next {
        return false;
    }
    let told = (watch.should_stop)();
    WATCH.set(Some(Watch { next: Instant::now() + EVERY, ..watch }));
    told
}

/// Ends the call that was told to stop.
pub fn end() -> ! {
    resume_unwind(Box::new(Stopped))
}

/// How long a thread that is [asked](stoppable) may wait for others before it asks itself; `None` if it is not.
pub(super) fn patience() -> Option<Duration> {
    WATCH.get().map(|_| EVERY)
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
    fn parts_of_other_threads_stop_too() {
        let start = Instant::now();
        // Fewer parts than would be seen between them.
        let slow = |_| {
            for _ in 0..2000 {
                check();
                nap();
            }
        };
        assert_eq!(stoppable(|| true, || par::for_tasks(par::threads(), slow)), Err(Stopped));
        assert!(start.elapsed() < 8 * EVERY, "{:?}", start.elapsed());
    }

    #[test]
    fn memory_that_is_not_there_is_an_error() {
        let work = |i: usize| drop(filled(0u8, if i == 3 { 1 << 55 } else { 1 }));
        assert_eq!(with_memory(|| par::for_tasks(8, work)), Err(NoMemory(1 << 55)));
        assert_eq!(with_memory(|| filled(0u64, usize::MAX / 4)), Err(NoMemory(usize::MAX)));
        assert_eq!(with_memory(|| filled(7u8, 1 << 21).len()), Ok(1 << 21));
    }

    #[test]
    fn other_panics_pass() {
        let caught = catch_unwind(|| stoppable(|| false, || panic!("mine")));
        assert_eq!(*caught.unwrap_err().downcast::<&str>().unwrap(), "mine");
    }
}
