//! [`Graph`]: device work that is captured once and replayed as a whole.
//!
//! **Memory.** A replay uses the addresses of the capture. What is allocated while capturing therefore belongs to an
//! [`Arena`] of the graph: a block that is freed goes back to the arena, serves later allocations of the same capture
//! (the replay runs in the same order), and returns to the pool with the graph, or, where a tensor still holds it, with
//! that. What was allocated before and is freed by the capturing thread meanwhile may have been used by the captured
//! work, and goes to the arena too. What was allocated before and lives on must be kept alive by who keeps the graph.
//!
//! To the pool all of that is in use, so it neither trims it nor gives it to others. Nor does it trim what it has cached
//! for a stream that is being captured: the driver could not free that before the capture has ended.

use std::cell::RefCell;
use std::fmt;
use std::marker::PhantomData;
use std::sync::{Arc, Mutex, PoisonError};

use crate::device::Device;
use crate::driver::{GraphId, StreamId};
use crate::error::{Error, Result};
use crate::pool::Block;
use crate::stream::Stream;

thread_local! {
    /// The capture that this thread is in.
    static CAPTURE: RefCell<Option<(Device, Arc<Arena>)>> = const { RefCell::new(None) };
}

/// A block that nobody uses, with what the pool has to know when it comes back.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) block: Block,
    /// The bytes that the pool counts for it.
    pub(crate) counted: usize,
    /// The stream it was allocated for; `None` for the default one.
    pub(crate) stream: Option<Stream>,
    /// Other streams that used it.
    pub(crate) others: Vec<Stream>,
}

/// The blocks of one graph.
#[derive(Debug, Default)]
pub(crate) struct Arena(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    free: Vec<Held>,
    /// The graph is gone: blocks go to the pool.
    closed: bool,
}

impl Arena {
    /// The arena of the capture that this thread is in, if it is one of `device`.
    pub(crate) fn current(device: &Device) -> Option<Arc<Arena>> {
        let of_device = |(of, arena): &(Device, Arc<Arena>)| (of == device).then(|| Arc::clone(arena));
        // A buffer may be dropped when the thread's variables are gone already; it is in no capture then.
        CAPTURE.try_with(|c| c.borrow().as_ref().and_then(of_device)).ok().flatten()
    }

    /// A free block of the default stream that the pool would give for `bytes`, and the bytes that the pool counts for it.
    pub(crate) fn take(&self, bytes: usize) -> Option<(Block, usize)> {
        let mut state = self.lock();
        let serves =
            |held: &Held| held.stream.is_none() && held.others.is_empty() && held.block.serves(bytes);
        let at = state.free.iter().rposition(serves)?;
        let held = state.free.swap_remove(at);
        Some((held.block, held.counted))
    }

    /// Keeps a block as long as the graph; gives it back if that is gone.
    pub(crate) fn put(&self, held: Held) -> Option<Held> {
        let mut state = self.lock();
        if state.closed {
            return Some(held);
        }
        state.free.push(held);
        None
    }

    fn close(&self) -> Vec<Held> {
        let mut state = self.lock();
        state.closed = true;
        std::mem::take(&mut state.free)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Work captured by [`Device::capture`].
pub struct Graph {
    device: Device,
    id: GraphId,
    arena: Arc<Arena>,
}

impl Graph {
    /// Does the captured work, in its place in the default stream.
    ///
    /// # Safety
    /// All memory that the captured work uses and that was allocated before the capture still exists; no tensor made
    /// during the capture is read as if it still held what an earlier replay left.
    ///
    /// # Errors
    /// What the driver says.
    pub unsafe fn launch(&self) -> Result<()> {
        // SAFETY: the arena keeps what was allocated in the capture, the caller what was before.
        unsafe { self.device.driver().launch_graph(self.id, StreamId::DEFAULT) }
    }

    /// Where it runs.
    pub fn device(&self) -> &Device {
        &self.device
    }
}

impl fmt::Debug for Graph {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Graph({:?} on {})", self.id, self.device)
    }
}

impl Drop for Graph {
    fn drop(&mut self) {
        // SAFETY: this is the only handle. Failing to destroy it leaks it, which harms nobody.
        let _ = unsafe { self.device.driver().destroy_graph(self.id) };
        give_back(&self.device, &self.arena);
    }
}

/// Returns the free blocks of an arena to the pool; the rest follow as their buffers are dropped.
fn give_back(device: &Device, arena: &Arena) {
    arena.close().into_iter().for_each(|held| device.give_back(held));
}

/// A capture under way on this thread; dropping it gives the captured work up.
pub struct Capture {
    device: Device,
    ended: bool,
    /// It must end on the thread on which it began.
    _thread: PhantomData<*const ()>,
}

impl Capture {
    /// The captured work.
    ///
    /// # Errors
    /// Something was done meanwhile that cannot be captured. The device is as before then.
    pub fn end(mut self) -> Result<Graph> {
        self.ended = true;
        let (device, arena) = CAPTURE.take().expect("the capture began on this thread");
        match device.driver().end_capture(StreamId::DEFAULT) {
            Ok(id) => Ok(Graph { device, id, arena }),
            Err(e) => {
                give_back(&device, &arena);
                Err(e)
            }
        }
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        let driver = self.device.driver();
        if let Ok(id) = driver.end_capture(StreamId::DEFAULT) {
            // SAFETY: nobody else has the handle. Failing to destroy it leaks it, which harms nobody.
            let _ = unsafe { driver.destroy_graph(id) };
        }
        if let Some((_, arena)) = CAPTURE.take() {
            give_back(&self.device, &arena);
        }
    }
}

impl Device {
    /// From now until [`Capture::end`], records what this thread enqueues on the default stream, without doing it.
    ///
    /// Meanwhile nothing may be read from the device, sent to it or waited for, and no other thread may enqueue on the
    /// default stream. Buffers that are allocated meanwhile hold nothing before the first launch.
    ///
    /// # Errors
    /// The driver has no graphs; a capture is under way already.
    pub fn capture(&self) -> Result<Capture> {
        if CAPTURE.with_borrow(Option::is_some) {
            return Err(Error::invalid("a capture is under way on this thread; end it before the next"));
        }
        self.driver().begin_capture(StreamId::DEFAULT)?;
        CAPTURE.set(Some((self.clone(), Arc::new(Arena::default()))));
        Ok(Capture { device: self.clone(), ended: false, _thread: PhantomData })
    }

    /// Whether this thread is capturing what it enqueues on the default stream of this device.
    pub fn is_capturing(&self) -> bool {
        Arena::current(self).is_some()
    }
}
