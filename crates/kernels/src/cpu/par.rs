//! How kernels share their work between threads.
//!
//! Work is cut into contiguous ranges whose bounds depend only on the problem size and the thread count, never on
//! timing, so that a seeded run is bit-identical on the same machine and thread count. Reductions across ranges
//! must combine their partial results in range order.
//!
//! **Invariant: workers run parts of kernels, and nothing else.** A kernel starts on the thread that calls it, with
//! whatever guards and locks that thread holds; what goes to the workers of the one pool (`pool.rs`) takes none of
//! those, and waits for nothing but parts of its own. Therefore no thread is ever made to wait for a guard that it holds
//! further up its stack. There is no way to run a closure of a caller on a worker; do not add one.

use std::ops::Range;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicPtr, Ordering};

use bullet_runtime::fork;

use super::pool::Pool;

/// The pool of a process: a forked child has none of its parent's workers, and makes a new one.
struct OfProcess {
    generation: usize,
    pool: OnceLock<Pool>,
}

static POOL: AtomicPtr<OfProcess> = AtomicPtr::new(std::ptr::null_mut());

fn of_process() -> &'static OnceLock<Pool> {
    let (at, generation) = (POOL.load(Ordering::Acquire), fork::generation());
    // SAFETY: null, or from a box that is never freed.
    if let Some(found) = unsafe { at.as_ref() }
        && found.generation == generation
    {
        return &found.pool;
    }
    let new = Box::into_raw(Box::new(OfProcess { generation, pool: OnceLock::new() }));
    let kept = match POOL.compare_exchange(at, new, Ordering::AcqRel, Ordering::Acquire) {
        Ok(_) => new,
        Err(other) => {
            // SAFETY: made above, and nobody else has seen it.
            drop(unsafe { Box::from_raw(new) });
            other
        }
    };
    // SAFETY: as above; another thread was faster by this process's own.
    unsafe { &(*kept).pool }
}

/// Below this many bytes touched (or flops / 8), an op stays on the calling thread: waking another costs more.
pub const SERIAL_BELOW: usize = 64 * 1024;

/// The most grains of a range: some 10 ms of work, where a grain is what one thread does in the time it takes to wake another.
const GRAINS: usize = 256;

/// The most ranges, so that what each gives takes little room: kernels ask inside of longer ones whether to go on.
const MAX_PIECES: usize = 1 << 14;

/// The most threads that the pool may have: far more than cores only adds switching, and thousands stall a machine.
pub const MAX_THREADS: usize = 256;

fn default_threads() -> usize {
    let asked = std::env::var("BULLET_THREADS").ok().and_then(|s| s.parse::<usize>().ok()).filter(|&n| n > 0);
    asked.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, |n| n.get()))
}

/// Whether `BULLET_THREADS` is unset or a number of threads; the pool takes the default for anything else.
///
/// # Errors
/// The value, and what would do.
pub fn check_environment() -> bullet_ops::Result<()> {
    match std::env::var("BULLET_THREADS") {
        Ok(text) if !text.parse().is_ok_and(|n: usize| (1..=MAX_THREADS).contains(&n)) => {
            Err(bullet_ops::Error::argument(format!(
                "BULLET_THREADS = '{text}' must be a whole number from 1 to {MAX_THREADS}"
            )))
        }
        _ => Ok(()),
    }
}

/// The pool, with fewer workers and one warning where the system refuses some: kernels run on any number of threads.
fn build(threads: usize) -> Pool {
    let threads = threads.min(MAX_THREADS);
    let (pool, refused) = Pool::start(threads, |i, work| {
        std::thread::Builder::new().name(format!("bullet-cpu-{i}")).spawn(work).map(drop)
    });
    if let Some(error) = refused {
        eprintln!(
            "warning: the system started only {} of {} worker threads for CPU kernels ({error}); going on with those; set \
             BULLET_THREADS={} to ask for no more",
            pool.threads() - 1,
            threads - 1,
            pool.threads()
        );
    }
    pool
}

fn pool() -> &'static Pool {
    of_process().get_or_init(|| build(default_threads()))
}

/// Sets the number of threads, [`MAX_THREADS`] at most; false if the pool already runs with another number,
/// or could not start as many.
///
/// The default is `BULLET_THREADS`, else the cores this process may use.
pub fn set_threads(threads: usize) -> bool {
    let threads = threads.clamp(1, MAX_THREADS);
    of_process().get_or_init(|| build(threads)).threads() == threads
}

/// How many threads a kernel runs on, its caller among them.
pub fn threads() -> usize {
    pool().threads()
}

/// Calls `f` with disjoint ranges that cover `0..len`, none (but the last) shorter than `grain`, and of long work several a
/// thread, so that it can be stopped in between; runs on the caller if there is one range. The ranges are a function of `len`,
/// `grain` and the thread count.
pub fn for_ranges(len: usize, grain: usize, f: impl Fn(Range<usize>) + Sync) {
    match pieces(len, grain) {
        0 => {}
        1 => f(0..len),
        pieces => pool().run(pieces, &|i| f(range(len, pieces, i))),
    }
}

/// As [`for_ranges`], with the same ranges, and returns what each gave, in range order (empty if `len` is 0).
pub fn map_ranges<R: Send>(len: usize, grain: usize, f: impl Fn(Range<usize>) -> R + Sync) -> Vec<R> {
    let parts = pieces(len, grain);
    if parts <= 1 {
        return if len > 0 { vec![f(0..len)] } else { Vec::new() };
    }
    let slots: Vec<std::sync::Mutex<Option<R>>> = (0..parts).map(|_| std::sync::Mutex::new(None)).collect();
    pool().run(parts, &|i| *slots[i].lock().unwrap() = Some(f(range(len, parts, i))));
    slots.into_iter().map(|s| s.into_inner().unwrap().expect("every range ran")).collect()
}

/// Calls `f(i)` for every `i` in `0..tasks`, each a task that any thread may take; for uneven work.
pub fn for_tasks(tasks: usize, f: impl Fn(usize) + Sync) {
    match tasks {
        0 => {}
        1 => f(0),
        _ => pool().run(tasks, &f),
    }
}

/// How many ranges `len` items make when a range has at least `grain`, and not more than [`GRAINS`] of them; at most
/// [`MAX_PIECES`].
fn pieces(len: usize, grain: usize) -> usize {
    let grain = grain.max(1);
    if len <= grain {
        return usize::from(len > 0);
    }
    let parts = (len / grain).clamp(1, threads());
    (parts * (len / parts).div_ceil(GRAINS.saturating_mul(grain))).min(MAX_PIECES.max(parts))
}

/// The `i`-th of `parts` nearly equal ranges of `0..len`.
pub fn range(len: usize, parts: usize, i: usize) -> Range<usize> {
    let bound = |i: usize| match len.checked_mul(i) {
        Some(product) => product / parts,
        // Broadcast views have more elements than memory has bytes.
        None => (len as u128 * i as u128 / parts as u128) as usize,
    };
    bound(i)..bound(i + 1)
}

/// A pointer that threads may share, for kernels that write disjoint parts of one output.
#[derive(Clone, Copy)]
pub struct SharedMut<T>(*mut T, usize);

// SAFETY: the methods that use the pointer are unsafe, and their contract is that parts are disjoint.
unsafe impl<T: Send> Send for SharedMut<T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for SharedMut<T> {}

impl<T> SharedMut<T> {
    /// Shares `slice` until the borrow that made it ends; the caller keeps `slice` borrowed meanwhile.
    pub fn new(slice: &mut [T]) -> SharedMut<T> {
        SharedMut(slice.as_mut_ptr(), slice.len())
    }

    /// The part `range` of the slice.
    ///
    /// # Safety
    /// No two parts that are alive at once overlap, and the slice given to `new` is still borrowed.
    ///
    /// # Panics
    /// If `range` is out of bounds.
    #[allow(clippy::mut_from_ref)]
    pub unsafe fn part<'a>(&self, range: Range<usize>) -> &'a mut [T] {
        assert!(range.start <= range.end && range.end <= self.1);
        // SAFETY: in bounds by the assertion, exclusive by the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.0.add(range.start), range.end - range.start) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_cover_without_overlap() {
        for (len, grain) in [
            (0, 1),
            (1, 1),
            (7, 3),
            (1000, 10),
            (64, 64),
            (65, 64),
            (100_000, 1),
            (10_000_000, 100),
            (1 << 62, 1000),
        ] {
            let mut seen: Vec<Range<usize>> = map_ranges(len, grain, |r| r);
            seen.sort_by_key(|r| r.start);
            // Kernels that go twice over their elements count on the same ranges both times.
            let again = std::sync::Mutex::new(Vec::new());
            for_ranges(len, grain, |r| again.lock().unwrap().push(r));
            let mut again = again.into_inner().unwrap();
            again.sort_by_key(|r| r.start);
            assert_eq!(seen, again);
            let mut at = 0;
            for r in seen {
                assert_eq!(r.start, at);
                at = r.end;
            }
            assert_eq!(at, len);
        }
    }

    #[test]
    fn tasks_all_run_once() {
        let hits: Vec<_> = (0..37).map(|_| std::sync::atomic::AtomicUsize::new(0)).collect();
        for_tasks(hits.len(), |i| {
            hits[i].fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        });
        assert!(hits.iter().all(|h| h.load(std::sync::atomic::Ordering::Relaxed) == 1));
    }
}
