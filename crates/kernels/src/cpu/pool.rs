//! The threads that help with the tasks of a kernel.
//!
//! **The caller works.** A thread that has a kernel to run shares out its tasks and takes tasks itself until none is
//! left; then it waits for those that a worker has begun, and for nothing else. Where no worker is free, or none could
//! be started, the caller does it all.
//!
//! **Workers run tasks only.** A task is a part of one kernel: it takes no lock that is held around a kernel, such as a
//! guard of a tensor's memory. Only what a task starts itself is waited for inside it, so that waits lead from a kernel
//! to its own tasks and never back: a thread may hold guards while its kernel runs, and no two kernels wait for each
//! other. (A pool whose waiting threads take up any work, closures of callers included, breaks this: the thread that
//! holds a guard can be made to wait for that guard.)
//!
//! **Cut by seat.** Tasks are dealt in contiguous runs, one a thread; who is done with its own goes on with the others',
//! so that a core taken by another process slows a run by that core's share. Who runs a task is a matter of timing;
//! what the task does is not.

use std::any::Any;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use smallvec::SmallVec;

/// How long a thread with nothing to do looks for work, or for the end of a task, before it sleeps: about what it costs
/// to wake it twice.
const ALERT: Duration = Duration::from_micros(100);

/// Callers and workers of one process.
pub(super) struct Pool {
    shared: Arc<Shared>,
    /// Workers, and the caller.
    threads: usize,
}

struct Shared {
    open: Mutex<Open>,
    wake: Condvar,
    /// How many of `open.jobs` have tasks left, for workers that look without the lock.
    jobs: AtomicUsize,
}

#[derive(Default)]
struct Open {
    /// Jobs whose callers work on them.
    jobs: Vec<JobRef>,
    asleep: usize,
}

/// A job on its caller's stack.
#[derive(Clone, Copy, PartialEq)]
struct JobRef(*const Job<'static>);
// SAFETY: a `Job` is shared between threads by its atomics; how long it lives is `Pool::run`'s concern.
unsafe impl Send for JobRef {}

/// The tasks of one kernel.
struct Job<'a> {
    run: &'a (dyn Fn(usize) + Sync),
    /// Tasks not taken yet, a contiguous run for each seat.
    runs: SmallVec<[Run; 8]>,
    /// Tasks not taken yet, in all.
    left: AtomicUsize,
    /// Seats given out.
    seats: AtomicUsize,
    /// Workers that may still touch this job.
    helpers: AtomicUsize,
    /// A task panicked: those not begun are left out.
    failed: AtomicBool,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
    caller: Thread,
}

/// On a cache line of its own: each is counted up by another thread.
#[repr(align(64))]
struct Run {
    next: AtomicUsize,
    end: usize,
}

impl Pool {
    /// A pool of `threads`, the caller's among them: `spawn` starts a worker. If it can't, the pool has as many as it
    /// could start, and the error comes back too.
    pub(super) fn start(
        threads: usize,
        mut spawn: impl FnMut(usize, Box<dyn FnOnce() + Send>) -> io::Result<()>,
    ) -> (Pool, Option<io::Error>) {
        let shared =
            Arc::new(Shared { open: Mutex::default(), wake: Condvar::new(), jobs: AtomicUsize::new(0) });
        for worker in 1..threads {
            let of_worker = shared.clone();
            if let Err(e) = spawn(worker, Box::new(move || of_worker.serve())) {
                return (Pool { shared, threads: worker }, Some(e));
            }
        }
        (Pool { shared, threads: threads.max(1) }, None)
    }

    pub(super) fn threads(&self) -> usize {
        self.threads
    }

    /// Calls `f(i)` for every `i` in `0..tasks`, on the calling thread and on workers that are free.
    ///
    /// # Panics
    /// If a task does, with what it panicked with; tasks not begun by then are left out.
    pub(super) fn run(&self, tasks: usize, f: &(dyn Fn(usize) + Sync)) {
        if self.threads == 1 || tasks <= 1 {
            return (0..tasks).for_each(f);
        }
        let seats = self.threads.min(tasks);
        let bound = |seat: usize| tasks * seat / seats;
        let run = |seat| Run { next: AtomicUsize::new(bound(seat)), end: bound(seat + 1) };
        let job = Job {
            run: f,
            runs: (0..seats).map(run).collect(),
            left: AtomicUsize::new(tasks),
            seats: AtomicUsize::new(1),
            helpers: AtomicUsize::new(0),
            failed: AtomicBool::new(false),
            panic: Mutex::new(None),
            caller: thread::current(),
        };
        // Only the lifetime is cast away. The job outlives every use of the reference: workers get hold of it from the
        // list of open jobs only, counted as helpers under its lock; below it is taken off the list, and then their
        // count waited out, and nothing in between unwinds, since `work` catches what tasks panic with.
        let open = JobRef(std::ptr::from_ref(&job).cast());
        self.shared.open(open);
        job.work(0, &self.shared);
        self.shared.close(open);
        job.wait_for_helpers();
        if let Some(panic) = job.panic.into_inner().unwrap_or_else(PoisonError::into_inner) {
            resume_unwind(panic);
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Open> {
        // Nothing that can panic runs under the lock.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn open(&self, job: JobRef) {
        let mut open = self.lock();
        open.jobs.push(job);
        self.jobs.fetch_add(1, Ordering::Relaxed);
        self.wake_some(open);
    }

    /// No worker begins with this job from now on.
    fn close(&self, job: JobRef) {
        self.lock().jobs.retain(|&j| j != job);
    }

    /// Wakes two: each wakes two more, as long as there is a job, so that many wake in little time.
    fn wake_some(&self, open: MutexGuard<'_, Open>) {
        let asleep = open.asleep;
        drop(open);
        (0..asleep.min(2)).for_each(|_| self.wake.notify_one());
    }

    /// The life of a worker.
    fn serve(&self) {
        loop {
            let (job, seat) = self.next_job();
            // SAFETY: `next_job` counted this worker as a helper; the job stays until it no longer is one.
            let job = unsafe { &*job.0 };
            job.work(seat, self);
            let caller = job.caller.clone();
            // The last touch: the job may be gone right after.
            job.helpers.fetch_sub(1, Ordering::Release);
            caller.unpark();
        }
    }

    /// Waits for a job with tasks left, and joins it.
    fn next_job(&self) -> (JobRef, usize) {
        loop {
            let alert = alert_until(|| self.jobs.load(Ordering::Relaxed) > 0);
            let mut open = self.lock();
            // SAFETY: what is on the list is still waited for, and can't leave it while it is locked.
            let job = |at: &JobRef| unsafe { &*at.0 };
            if let Some(at) = open.jobs.iter().copied().find(|at| job(at).left.load(Ordering::Relaxed) > 0) {
                let job = job(&at);
                job.helpers.fetch_add(1, Ordering::Relaxed);
                let seat = job.seats.fetch_add(1, Ordering::Relaxed);
                if seat + 1 < job.runs.len() {
                    self.wake_some(open);
                }
                return (at, seat);
            }
            if !alert {
                open.asleep += 1;
                open = self.wake.wait(open).unwrap_or_else(PoisonError::into_inner);
                open.asleep -= 1;
            }
        }
    }
}

impl Job<'_> {
    /// Runs the tasks of this seat, then those that others have left, until all are taken.
    fn work(&self, seat: usize, shared: &Shared) {
        let seats = self.runs.len();
        for run in (0..seats).map(|i| &self.runs[(seat + i) % seats]) {
            while run.next.load(Ordering::Relaxed) < run.end {
                let task = run.next.fetch_add(1, Ordering::Relaxed);
                if task >= run.end {
                    break;
                }
                if self.left.fetch_sub(1, Ordering::Relaxed) == 1 {
                    shared.jobs.fetch_sub(1, Ordering::Relaxed);
                }
                if self.failed.load(Ordering::Relaxed) {
                    continue;
                }
                if let Err(panic) = catch_unwind(AssertUnwindSafe(|| (self.run)(task))) {
                    self.failed.store(true, Ordering::Relaxed);
                    self.panic.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(panic);
                }
            }
        }
    }

    /// Waits until no worker is at this job, and what they wrote is visible here.
    fn wait_for_helpers(&self) {
        let gone = || self.helpers.load(Ordering::Acquire) == 0;
        if !alert_until(gone) {
            while !gone() {
                // The last helper unparks; who was unparked for an earlier job looks again.
                thread::park();
            }
        }
    }
}

/// Waits awake until `done`, or gives up after [`ALERT`]: first at full attention, then yielding to other threads.
fn alert_until(done: impl Fn() -> bool) -> bool {
    const CHECKS: usize = 64;
    for _ in 0..CHECKS {
        if done() {
            return true;
        }
        std::hint::spin_loop();
    }
    let start = Instant::now();
    while start.elapsed() < ALERT {
        if done() {
            return true;
        }
        thread::yield_now();
    }
    done()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spawn(_: usize, work: Box<dyn FnOnce() + Send>) -> io::Result<()> {
        thread::Builder::new().spawn(work).map(drop)
    }

    fn hits(pool: &Pool, tasks: usize) -> Vec<usize> {
        let hits: Vec<AtomicUsize> = (0..tasks).map(|_| AtomicUsize::new(0)).collect();
        pool.run(tasks, &|i| {
            hits[i].fetch_add(1, Ordering::Relaxed);
        });
        hits.into_iter().map(AtomicUsize::into_inner).collect()
    }

    #[test]
    fn every_task_runs_once_whoever_calls_and_however_deep() {
        let (pool, error) = Pool::start(3, spawn);
        assert!(error.is_none() && pool.threads() == 3);
        thread::scope(|scope| {
            for caller in 0..4 {
                let pool = &pool;
                scope.spawn(move || {
                    for round in 0..200 {
                        let tasks = (caller * 7 + round) % 40;
                        assert_eq!(hits(pool, tasks), vec![1; tasks]);
                    }
                    pool.run(5, &|_| assert_eq!(hits(pool, 11), [1; 11]));
                });
            }
        });
    }

    #[test]
    fn a_pool_with_fewer_workers_than_asked_or_none_does_the_same_work() {
        for started in 0..3 {
            let (pool, error) = Pool::start(8, |i, work| {
                if i > started { Err(io::ErrorKind::WouldBlock.into()) } else { spawn(i, work) }
            });
            assert_eq!((error.unwrap().kind(), pool.threads()), (io::ErrorKind::WouldBlock, started + 1));
            assert_eq!(hits(&pool, 100), [1; 100]);
        }
    }

    #[test]
    fn a_panic_in_a_task_reaches_the_caller_and_the_pool_goes_on() {
        let (pool, _) = Pool::start(4, spawn);
        for bad in [0, 50, 99] {
            let result = catch_unwind(AssertUnwindSafe(|| {
                pool.run(100, &|i| assert!(i != bad, "task {i} fails"));
            }));
            let message = *result.unwrap_err().downcast::<String>().unwrap();
            assert_eq!(message, format!("task {bad} fails"));
            assert_eq!(hits(&pool, 100), [1; 100]);
        }
    }
}
