//! A crew of threads that stay awake between short parallel jobs.
//!
//! Decoding one token is a chain of matrix-vector products of a few microseconds each. Waking a thread of the pool costs
//! as much as such a product, so these go to a crew instead: its workers spin for a while after each job before they
//! park, and a job that finds them parked wakes them and starts without them.
//!
//! **Claims.** A job is cut into chunks, and each member of the crew begins with its own share, the same in every job of
//! the same size: a core that reads the same part of a matrix for every token finds it in its own cache. Who has
//! finished takes chunks of the others, so that nobody waits for a worker that has not arrived. Chunks must give the same
//! result whoever runs them.
//!
//! **Lending.** A job borrows its closure from the caller's stack. A worker counts itself in (`inside`), and only then
//! reads which job is open; the caller closes the job, and then waits until nobody is inside. Both are sequentially
//! consistent, so that a worker either is seen by the caller or sees the job closed.

use std::cell::UnsafeCell;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock, TryLockError};
use std::thread::Thread;
use std::time::{Duration, Instant};

use super::par;

/// Most members, the caller counted: jobs this short have no use for more.
const MAX_MEMBERS: usize = 8;
/// How long a worker spins without a job before it parks: longer than the gap between two tokens.
const AWAKE_FOR: Duration = Duration::from_micros(300);

type Chunk<'a> = dyn Fn(usize) + Sync + 'a;

/// What the members work on while a job is open.
struct Job {
    chunk: *const Chunk<'static>,
    chunks: usize,
}

/// A counter with a cache line of its own.
#[repr(align(64))]
#[derive(Default)]
struct Claims(AtomicUsize);

struct Worker {
    parked: AtomicBool,
    thread: OnceLock<Thread>,
}

struct Crew {
    members: usize,
    /// Held by who runs a job.
    turn: Mutex<()>,
    /// Written by the holder of `turn` while the job is closed and nobody is inside.
    job: UnsafeCell<Job>,
    /// The number of the open job; 0 while none is.
    open: AtomicU64,
    inside: AtomicUsize,
    panicked: AtomicBool,
    /// Chunks that each member's share has given away.
    claimed: Vec<Claims>,
    workers: Vec<Worker>,
}

// SAFETY: `job` is written under `turn` with nobody inside, and read by members inside an open job; the closure that it
// points to is `Sync` and outlives the job.
unsafe impl Sync for Crew {}
// SAFETY: as above.
unsafe impl Send for Crew {}

/// Runs `chunk(i)` once for every `i` in `0..chunks`, on the caller and whichever members of the crew are awake.
///
/// If another thread runs a job already, the caller does all of it.
pub fn for_chunks(chunks: usize, chunk: &(dyn Fn(usize) + Sync)) {
    let crew = if chunks > 1 { crew() } else { None };
    let Some(crew) = crew else { return (0..chunks).for_each(chunk) };
    let turn = match crew.turn.try_lock() {
        Ok(turn) => turn,
        Err(TryLockError::Poisoned(turn)) => turn.into_inner(),
        Err(TryLockError::WouldBlock) => return (0..chunks).for_each(chunk),
    };
    crew.run(chunks, chunk);
    drop(turn);
}

/// The crew, started at the first call; `None` where one thread is all there is.
fn crew() -> Option<&'static Crew> {
    static CREW: OnceLock<Option<&'static Crew>> = OnceLock::new();
    *CREW.get_or_init(|| {
        let members = par::threads().min(MAX_MEMBERS);
        let crew: &'static Crew = Box::leak(Box::new(Crew::new(members)));
        let start = |i: usize| {
            std::thread::Builder::new().name(format!("bullet-crew-{i}")).spawn(move || crew.serve(i))
        };
        // A worker that cannot start never takes a chunk; the others do its share.
        (1..members).for_each(|i| drop(start(i)));
        (members > 1).then_some(crew)
    })
}

impl Crew {
    fn new(members: usize) -> Crew {
        let worker = |_| Worker { parked: AtomicBool::new(false), thread: OnceLock::new() };
        Crew {
            members,
            turn: Mutex::new(()),
            job: UnsafeCell::new(Job { chunk: std::ptr::from_ref::<Chunk<'static>>(&|_| ()), chunks: 0 }),
            open: AtomicU64::new(0),
            inside: AtomicUsize::new(0),
            panicked: AtomicBool::new(false),
            claimed: (0..members).map(|_| Claims::default()).collect(),
            workers: (1..members).map(worker).collect(),
        }
    }

    /// Runs a job; the caller holds `turn`.
    fn run(&self, chunks: usize, chunk: &Chunk<'_>) {
        self.claimed.iter().for_each(|c| c.0.store(0, Ordering::Relaxed));
        self.panicked.store(false, Ordering::Relaxed);
        let chunk: *const Chunk<'_> = chunk;
        // SAFETY: only the lifetime changes; the closure is used inside this job only, which `Close` ends before the
        // borrow does. Nobody is inside, so that nobody reads while this writes.
        unsafe { *self.job.get() = Job { chunk: std::mem::transmute::<*const Chunk<'_>, *const Chunk<'static>>(chunk), chunks } };
        static NUMBER: AtomicU64 = AtomicU64::new(1);
        self.open.store(NUMBER.fetch_add(1, Ordering::Relaxed), Ordering::SeqCst);
        {
            let _close = Close(self);
            for worker in &self.workers {
                if worker.parked.load(Ordering::SeqCst)
                    && let Some(thread) = worker.thread.get()
                {
                    thread.unpark();
                }
            }
            self.take_chunks(0);
        }
        if self.panicked.load(Ordering::Relaxed) {
            resume_unwind(Box::new("a kernel panicked on another thread"));
        }
    }

    /// Runs chunks until none is left: those of member `me` first, then the others'.
    fn take_chunks(&self, me: usize) {
        // SAFETY: a job is open and this member is inside (or is its caller), so that nobody writes it.
        let Job { chunk, chunks } = unsafe { &*self.job.get() };
        for k in 0..self.members {
            let owner = (me + k) % self.members;
            let share: Range<usize> = par::range(*chunks, self.members, owner);
            loop {
                let i = share.start + self.claimed[owner].0.fetch_add(1, Ordering::Relaxed);
                if i >= share.end {
                    break;
                }
                // SAFETY: the closure lives until the job is closed and nobody is inside.
                unsafe { (**chunk)(i) };
            }
        }
    }

    /// The life of a worker.
    fn serve(&self, me: usize) {
        let worker = &self.workers[me - 1];
        let _ = worker.thread.set(std::thread::current());
        let mut done = 0;
        loop {
            let number = self.next_job(worker, done);
            self.inside.fetch_add(1, Ordering::SeqCst);
            if self.open.load(Ordering::SeqCst) == number
                && catch_unwind(AssertUnwindSafe(|| self.take_chunks(me))).is_err()
            {
                self.panicked.store(true, Ordering::Relaxed);
            }
            self.inside.fetch_sub(1, Ordering::SeqCst);
            done = number;
        }
    }

    /// Waits for a job other than `done`: spinning for a while, then parked.
    fn next_job(&self, worker: &Worker, done: u64) -> u64 {
        let mut start = Instant::now();
        for spins in 1u32.. {
            match self.open.load(Ordering::Acquire) {
                number if number != 0 && number != done => return number,
                _ => std::hint::spin_loop(),
            }
            if spins % 64 == 0 && start.elapsed() > AWAKE_FOR {
                worker.parked.store(true, Ordering::SeqCst);
                // A caller that opened a job before it could see the flag is seen here.
                if matches!(self.open.load(Ordering::SeqCst), number if number == 0 || number == done) {
                    std::thread::park();
                }
                worker.parked.store(false, Ordering::SeqCst);
                start = Instant::now();
            }
        }
        unreachable!("a worker waits without end")
    }
}

/// Closes the job and waits until nobody is inside, also while unwinding.
struct Close<'a>(&'a Crew);

impl Drop for Close<'_> {
    fn drop(&mut self) {
        self.0.open.store(0, Ordering::SeqCst);
        let mut spins = 0u32;
        while self.0.inside.load(Ordering::SeqCst) != 0 {
            spins += 1;
            // A worker that lost its core needs this one to come back.
            if spins > 10_000 { std::thread::yield_now() } else { std::hint::spin_loop() }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_chunk_runs_once() {
        for round in 0..2000 {
            let chunks = round % 23;
            let hits: Vec<AtomicUsize> = (0..chunks).map(|_| AtomicUsize::new(0)).collect();
            for_chunks(chunks, &|i| {
                hits[i].fetch_add(1, Ordering::Relaxed);
            });
            assert!(hits.iter().all(|h| h.load(Ordering::Relaxed) == 1), "round {round}");
        }
    }

    #[test]
    fn callers_at_once_and_nested_calls_do_all_their_work() {
        std::thread::scope(|s| {
            for _ in 0..4 {
                s.spawn(|| {
                    for _ in 0..300 {
                        let sum = AtomicUsize::new(0);
                        for_chunks(9, &|i| {
                            for_chunks(3, &|j| {
                                sum.fetch_add(i * j, Ordering::Relaxed);
                            });
                        });
                        assert_eq!(sum.into_inner(), 36 * 3);
                    }
                });
            }
        });
    }

    #[test]
    fn a_panic_reaches_the_caller_and_the_crew_goes_on() {
        for bad in 0..8 {
            let result = catch_unwind(|| for_chunks(8, &|i| assert_ne!(i, bad)));
            assert!(result.is_err(), "{bad}");
        }
        let sum = AtomicUsize::new(0);
        for_chunks(8, &|i| {
            sum.fetch_add(i, Ordering::Relaxed);
        });
        assert_eq!(sum.into_inner(), 28);
    }

    #[test]
    fn parked_workers_are_woken() {
        std::thread::sleep(3 * AWAKE_FOR);
        // Long enough for a worker to arrive; nothing depends on whether it does.
        let sum = AtomicUsize::new(0);
        for_chunks(64, &|i| {
            std::thread::sleep(Duration::from_micros(50));
            sum.fetch_add(i, Ordering::Relaxed);
        });
        assert_eq!(sum.into_inner(), 63 * 32);
    }
}
