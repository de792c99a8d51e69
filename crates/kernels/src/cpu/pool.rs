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
//! **Cut by seat.** Tasks are dealt in contiguous runs, one a thread, the same run to the same thread in every job of as
//! many tasks: a core that reads the same part of a matrix for every token finds it in its own cache. Who is done with
//! its own run goes on with the others', so that a core taken by another process slows a job by that core's share. Who
//! runs a task is a matter of timing; what the task does is not.
//!
//! **Lending.** A job borrows its closure from the caller's stack, and is offered in a slot that outlives it. A worker
//! first counts itself in (`inside`), and only then reads whether the slot is open; the caller closes the slot, and then
//! waits until nobody is inside. All four are sequentially consistent, so that a worker is either seen by the caller or
//! sees the slot closed. Sleep works the same way round: who is about to sleep says so before it looks a last time, who
//! has something to say looks for sleepers after it was said. No lock is taken while everybody is awake: a product of a
//! small matrix takes a few microseconds, of which a lock that several cores want would be a good part.

use std::any::Any;
use std::cell::UnsafeCell;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release, SeqCst};
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::stop;

/// How long a thread with nothing to do looks for work, or for the end of a task, before it sleeps: about what it costs
/// to wake it twice.
const ALERT: Duration = Duration::from_micros(100);
/// How long of that it does nothing else: longer than what lies between two products of a small model.
const ATTENTIVE: Duration = Duration::from_micros(15);
/// Jobs that can be offered to workers at once; the callers of more do these alone.
const SLOTS: usize = 8;

type Task<'a> = dyn Fn(usize) + Sync + 'a;

/// Callers and workers of one process.
pub(super) struct Pool {
    shared: Arc<Shared>,
    /// Workers, and the caller.
    threads: usize,
}

struct Shared {
    slots: [Slot; SLOTS],
    /// Workers that sleep, or are about to.
    asleep: AtomicUsize,
    /// Held from the last look before sleep until asleep.
    sleep: Mutex<()>,
    /// A job is open.
    wake: Condvar,
    /// Nobody is inside a slot that somebody waits for.
    done: Condvar,
}

/// Where a caller offers a job.
///
/// Lines of a cache travel between cores in a tenth of a microsecond, several times as long as anything else here takes:
/// what is written at different times, or by different threads, lies on different ones.
struct Slot {
    offer: Apart<Offer>,
    helpers: Apart<Helpers>,
    /// Some thread's: from before a job is open until nobody is inside.
    taken: Apart<AtomicBool>,
    /// One for each thread.
    runs: Box<[Apart<Run>]>,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

/// Alone on its cache line, and on the next one, which comes along with it.
#[repr(align(128))]
#[derive(Default)]
struct Apart<T>(T);

/// What a worker reads first.
struct Offer {
    /// How many threads the open job has runs for; 0 while none is open.
    seats: AtomicUsize,
    /// Written by who has taken the slot, while it is closed with nobody inside.
    task: UnsafeCell<*const Task<'static>>,
    /// A task panicked: those not begun are left out.
    failed: AtomicBool,
}

#[derive(Default)]
struct Helpers {
    /// Workers that may be at the job.
    inside: AtomicUsize,
    /// The caller sleeps until nobody is inside.
    awaited: AtomicBool,
}

// SAFETY: `task` is written by the one who has taken the slot, with nobody inside, and read by that one and by workers
// inside an open job; what it points to may be called by several threads, and outlives the job.
unsafe impl Sync for Slot {}
// SAFETY: as above.
unsafe impl Send for Slot {}

/// Tasks of a job that are not begun.
#[derive(Default)]
struct Run {
    next: AtomicUsize,
    end: AtomicUsize,
}

impl Pool {
    /// A pool of `threads`, the caller's among them: `spawn` starts a worker. If it can't, the pool has as many as it
    /// could start, and the error comes back too.
    pub(super) fn start(
        threads: usize,
        mut spawn: impl FnMut(usize, Box<dyn FnOnce() + Send>) -> io::Result<()>,
    ) -> (Pool, Option<io::Error>) {
        let shared = Arc::new(Shared {
            slots: std::array::from_fn(|_| Slot::new(threads)),
            asleep: AtomicUsize::new(0),
            sleep: Mutex::new(()),
            wake: Condvar::new(),
            done: Condvar::new(),
        });
        for worker in 1..threads {
            let of_worker = shared.clone();
            if let Err(e) = spawn(worker, Box::new(move || of_worker.serve(worker))) {
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
    /// If a task does, with what it panicked with, or if the caller is told to stop; tasks not begun by then are left out.
    pub(super) fn run(&self, tasks: usize, f: &(dyn Fn(usize) + Sync)) {
        let slot = if self.threads > 1 && tasks > 1 { self.shared.take_slot() } else { None };
        let Some(slot) = slot else {
            return (0..tasks).for_each(|i| {
                stop::check();
                f(i);
            });
        };
        let seats = self.threads.min(tasks);
        let f: *const Task<'_> = f;
        // SAFETY: only the lifetime is cast away. The closure outlives every use of it: workers call it inside the slot
        // only, which is closed and waited for below; nothing in between unwinds, since `work` catches what tasks panic
        // with.
        let f = unsafe { std::mem::transmute::<*const Task<'_>, *const Task<'static>>(f) };
        slot.open(seats, tasks, f);
        self.shared.wake_some(seats - 1);
        slot.work(0, seats);
        slot.offer.0.seats.store(0, SeqCst);
        self.shared.wait_for_helpers(slot);
        let failed = slot.offer.0.failed.load(Relaxed);
        let panic =
            if failed { slot.panic.lock().unwrap_or_else(PoisonError::into_inner).take() } else { None };
        slot.taken.0.store(false, Release);
        if let Some(panic) = panic {
            resume_unwind(panic);
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, ()> {
        // Nothing that can panic runs under the lock.
        self.sleep.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take_slot(&self) -> Option<&Slot> {
        let take = |slot: &&Slot| {
            !slot.taken.0.load(Relaxed)
                && slot.taken.0.compare_exchange(false, true, Acquire, Relaxed).is_ok()
        };
        self.slots.iter().find(take)
    }

    /// Wakes two of `wanted`: each wakes two more, as long as a job wants them, so that many wake in little time.
    fn wake_some(&self, wanted: usize) {
        let sleepers = self.asleep.load(SeqCst).min(wanted).min(2);
        if sleepers > 0 {
            drop(self.lock());
            (0..sleepers).for_each(|_| self.wake.notify_one());
        }
    }

    /// The life of a worker.
    fn serve(&self, worker: usize) {
        let wanted = || self.slots.iter().any(Slot::wants_help);
        loop {
            if !alert_until(wanted) {
                let mut lock = self.lock();
                self.asleep.fetch_add(1, SeqCst);
                while !wanted() {
                    lock = self.wake.wait(lock).unwrap_or_else(PoisonError::into_inner);
                }
                self.asleep.fetch_sub(1, SeqCst);
            }
            for slot in self.slots.iter().filter(|slot| slot.wants_help()) {
                self.help(slot, worker);
            }
        }
    }

    /// Works on the job in the slot, if it is still open.
    fn help(&self, slot: &Slot, worker: usize) {
        slot.helpers.0.inside.fetch_add(1, SeqCst);
        let seats = slot.offer.0.seats.load(SeqCst);
        if seats > 0 {
            if slot.wants_help() {
                self.wake_some(2);
            }
            slot.work(worker, seats);
            // Nothing is left to begin: nobody else need come in to find that out.
            if slot.wants_help() {
                slot.offer.0.seats.store(0, SeqCst);
            }
        }
        if slot.helpers.0.inside.fetch_sub(1, SeqCst) == 1 && slot.helpers.0.awaited.load(SeqCst) {
            drop(self.lock());
            self.done.notify_all();
        }
    }

    /// Waits until no worker is inside a closed slot, and what they wrote is visible here.
    fn wait_for_helpers(&self, slot: &Slot) {
        let gone = || slot.helpers.0.inside.load(SeqCst) == 0;
        if alert_until(gone) {
            return;
        }
        slot.helpers.0.awaited.store(true, SeqCst);
        let mut patience = stop::patience();
        while self.still_inside(slot, patience) {
            // Parts of workers may take long, and only this thread is told to stop. It asks without the lock.
            if stop::is_told() {
                slot.fail(Box::new(stop::Stopped));
                patience = None;
            }
        }
        slot.helpers.0.awaited.store(false, SeqCst);
    }

    /// Sleeps until no worker is inside a slot, or for so long; whether there still is one.
    fn still_inside(&self, slot: &Slot, patience: Option<Duration>) -> bool {
        let mut lock = self.lock();
        let is_inside = |_: &mut ()| slot.helpers.0.inside.load(SeqCst) > 0;
        match patience {
            Some(time) => {
                let waited = self.done.wait_timeout_while(lock, time, is_inside);
                let (_lock, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
                timeout.timed_out()
            }
            None => {
                while is_inside(&mut ()) {
                    lock = self.done.wait(lock).unwrap_or_else(PoisonError::into_inner);
                }
                false
            }
        }
    }
}

impl Slot {
    fn new(threads: usize) -> Slot {
        Slot {
            offer: Apart(Offer {
                seats: AtomicUsize::new(0),
                task: UnsafeCell::new(std::ptr::from_ref::<Task<'static>>(&|_| ())),
                failed: AtomicBool::new(false),
            }),
            helpers: Apart::default(),
            taken: Apart::default(),
            runs: (0..threads).map(|_| Apart::default()).collect(),
            panic: Mutex::new(None),
        }
    }

    /// Ends the job: tasks that have not begun are left out, others may look.
    fn fail(&self, panic: Box<dyn Any + Send>) {
        // First, as other tasks end by panics of their own once they see that this one has failed.
        self.panic.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(panic);
        self.offer.0.failed.store(true, Release);
    }

    /// Offers a job; the caller has taken the slot, and nobody is inside but workers who will find it closed.
    fn open(&self, seats: usize, tasks: usize, f: *const Task<'static>) {
        if self.offer.0.failed.load(Relaxed) {
            self.offer.0.failed.store(false, Relaxed);
        }
        for (seat, run) in self.runs[..seats].iter().enumerate() {
            run.0.next.store(tasks * seat / seats, Relaxed);
            run.0.end.store(tasks * (seat + 1) / seats, Relaxed);
        }
        // SAFETY: the slot is closed: nobody reads this.
        unsafe { *self.offer.0.task.get() = f };
        self.offer.0.seats.store(seats, SeqCst);
    }

    /// Whether a job is open, with a seat that no one has taken.
    fn wants_help(&self) -> bool {
        let seats = self.offer.0.seats.load(SeqCst);
        seats > 0 && seats > self.helpers.0.inside.load(Relaxed) + 1
    }

    /// Runs the tasks of this thread's seat, then those that others have left, until none is left to begin.
    fn work(&self, thread: usize, seats: usize) {
        // SAFETY: the job is open, or was when the worker, who is inside, looked; so it is still waited for.
        let task = unsafe { &**self.offer.0.task.get() };
        for run in (0..seats).map(|i| &self.runs[(thread + i) % seats]) {
            let end = run.0.end.load(Relaxed);
            while run.0.next.load(Relaxed) < end {
                let i = run.0.next.fetch_add(1, Relaxed);
                if i >= end {
                    break;
                }
                if self.offer.0.failed.load(Acquire) {
                    continue;
                }
                let work = || {
                    stop::in_job(&self.offer.0.failed, || {
                        // Workers are never asked.
                        stop::check();
                        task(i);
                    });
                };
                if let Err(panic) = catch_unwind(AssertUnwindSafe(work)) {
                    self.fail(panic);
                }
            }
        }
    }
}

/// Waits awake until `done`, or gives up after [`ALERT`]: first at full attention, then yielding to other threads.
fn alert_until(done: impl Fn() -> bool) -> bool {
    let checks = || {
        (0..16).any(|_| {
            std::hint::spin_loop();
            done()
        })
    };
    let start = Instant::now();
    loop {
        if done() || checks() {
            return true;
        }
        let waited = start.elapsed();
        if waited > ALERT {
            return done();
        }
        if waited > ATTENTIVE {
            thread::yield_now();
        }
    }
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
            hits[i].fetch_add(1, Relaxed);
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
    fn who_fell_asleep_is_woken_also_with_more_callers_than_slots() {
        let (pool, _) = Pool::start(3, spawn);
        let nap = || thread::sleep(3 * ALERT);
        thread::scope(|scope| {
            for _ in 0..2 * SLOTS {
                scope.spawn(|| {
                    for round in 0..20 {
                        // Workers fall asleep between jobs, and the caller before the others' tasks end.
                        nap();
                        let me = thread::current().id();
                        let done = AtomicUsize::new(0);
                        pool.run(3, &|_| {
                            if thread::current().id() != me {
                                nap();
                            }
                            done.fetch_add(1, Relaxed);
                        });
                        assert_eq!(done.into_inner(), 3, "round {round}");
                        assert_eq!(hits(&pool, 7), [1; 7]);
                    }
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
