//! Streams as worker threads, and the events that order them.

use std::any::Any;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::NonNull;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::{self, JoinHandle, ThreadId};
use std::time::Instant;

use super::memory;
use crate::driver::{DevicePtr, HostFn};
use crate::error::{Error, Result};

thread_local! {
    /// Whether this thread is a stream's.
    static ON_STREAM: Cell<bool> = const { Cell::new(false) };
}

/// Refuses to block a stream's own thread: what it would wait for may be behind it in the queue. CUDA refuses all
/// driver calls there.
pub(super) fn may_block() -> Result<()> {
    match ON_STREAM.get() {
        true => Err(Error::invalid("a host closure on a stream cannot wait for a stream or an event")),
        false => Ok(()),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|e| e.into_inner())
}

/// One piece of a stream's work. Whoever makes one vouches for its addresses until it has run: that is the contract
/// of the driver's unsafe functions, which alone make those with addresses.
#[derive(Clone)]
pub(super) enum Task {
    /// Copy between ranges that do not overlap.
    Copy { dst: DevicePtr, src: DevicePtr, bytes: usize },
    /// Set every byte.
    Fill { dst: DevicePtr, value: u8, bytes: usize },
    /// Give memory back to the system.
    Free { ptr: DevicePtr, bytes: usize },
    /// Run a closure.
    Host(HostFn),
    /// Reach an event.
    Record(Arc<Mark>),
    /// Wait for one.
    Wait(Arc<Mark>),
}

impl Task {
    /// Does the work on this thread; a closure that panics is an error.
    pub(super) fn run(&self) -> Result<()> {
        match *self {
            Task::Copy { dst, src, bytes } => {
                // SAFETY: the maker of the task vouches for both ranges.
                unsafe { std::ptr::copy_nonoverlapping(src.0 as *const u8, dst.0 as *mut u8, bytes) };
            }
            Task::Fill { dst, value, bytes } => {
                // SAFETY: the maker of the task vouches for the range.
                unsafe { std::ptr::write_bytes(dst.0 as *mut u8, value, bytes) };
            }
            Task::Free { ptr, bytes } => {
                let ptr =
                    NonNull::new(ptr.0 as *mut u8).ok_or_else(|| Error::invalid("cannot free address 0"))?;
                // SAFETY: the maker of the task vouches that `alloc` gave it with this size.
                unsafe { memory::free(ptr, bytes) };
            }
            Task::Host(ref f) => {
                catch_unwind(AssertUnwindSafe(|| f())).map_err(|panic| {
                    Error::launch(format!("a host closure panicked: {}", panic_message(&*panic)))
                })?;
            }
            Task::Record(ref mark) => mark.reach(),
            Task::Wait(ref mark) => mark.wait(),
        }
        Ok(())
    }
}

fn panic_message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("(no message)")
}

/// A thread that does tasks in the order they come. Dropping it waits for those it has.
#[derive(Debug)]
pub(super) struct Worker {
    queue: Option<Sender<Task>>,
    thread: Option<JoinHandle<()>>,
    id: ThreadId,
    /// The first failure since the last synchronisation.
    failure: Arc<Mutex<Option<Error>>>,
}

impl Worker {
    pub(super) fn start(name: &str) -> Result<Worker> {
        let (queue, tasks): (Sender<Task>, Receiver<Task>) = channel();
        let failure = Arc::new(Mutex::new(None));
        let failed = Arc::clone(&failure);
        let run = move || {
            ON_STREAM.set(true);
            for task in tasks {
                if let Err(e) = task.run() {
                    lock(&failed).get_or_insert(e);
                }
            }
        };
        let thread = thread::Builder::new()
            .name(name.to_string())
            .spawn(run)
            .map_err(|e| Error::launch(format!("could not start the thread of stream '{name}': {e}")))?;
        Ok(Worker { queue: Some(queue), id: thread.thread().id(), thread: Some(thread), failure })
    }

    pub(super) fn enqueue(&self, task: Task) -> Result<()> {
        let queue = self.queue.as_ref().expect("the queue is open until the worker is dropped");
        queue.send(task).map_err(|_| Error::launch("the thread of a stream has ended"))
    }

    /// Waits for the tasks it has; leaves their failures to the next [`synchronize`](Worker::synchronize).
    pub(super) fn drain(&self) -> Result<()> {
        may_block()?;
        let mark = Arc::new(Mark::default());
        self.enqueue(Task::Record(Arc::clone(&mark)))?;
        mark.wait();
        Ok(())
    }

    pub(super) fn synchronize(&self) -> Result<()> {
        self.drain()?;
        lock(&self.failure).take().map_or(Ok(()), Err)
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        drop(self.queue.take());
        // A worker dropped by one of its own closures cannot join itself; its thread ends when the queue is empty.
        if let Some(thread) = self.thread.take().filter(|_| thread::current().id() != self.id) {
            // The loop catches panics of closures, so the thread has none to report.
            let _ = thread.join();
        }
    }
}

/// One recording of an event: reached at most once.
#[derive(Debug, Default)]
pub(super) struct Mark {
    at: Mutex<Option<Instant>>,
    reached: Condvar,
}

impl Mark {
    fn reach(&self) {
        *lock(&self.at) = Some(Instant::now());
        self.reached.notify_all();
    }

    pub(super) fn wait(&self) {
        let mut at = lock(&self.at);
        while at.is_none() {
            at = self.reached.wait(at).unwrap_or_else(|e| e.into_inner());
        }
    }

    pub(super) fn reached(&self) -> Option<Instant> {
        *lock(&self.at)
    }
}

/// An event: its latest recording. Waits hold the recording that was latest when they were enqueued.
#[derive(Debug)]
pub(super) struct Event {
    timing: bool,
    latest: Mutex<Option<Arc<Mark>>>,
}

impl Event {
    pub(super) fn new(timing: bool) -> Event {
        Event { timing, latest: Mutex::new(None) }
    }

    /// Makes this the latest recording; it is in a stream already, so it will be reached.
    pub(super) fn set(&self, mark: Arc<Mark>) {
        *lock(&self.latest) = Some(mark);
    }

    /// The latest recording, if any.
    pub(super) fn mark(&self) -> Option<Arc<Mark>> {
        lock(&self.latest).clone()
    }

    /// When the latest recording was reached.
    pub(super) fn time(&self) -> Result<Instant> {
        if !self.timing {
            return Err(Error::invalid("this event was made without timing"));
        }
        let mark = self.mark().ok_or_else(|| Error::invalid("this event was never recorded"))?;
        mark.reached().ok_or_else(|| Error::invalid("this event has not been reached; synchronize it first"))
    }
}
