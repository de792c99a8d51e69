//! Captures on a CPU device: kernels there are calls of functions, which a graph keeps as closures.
//!
//! A capture on the CPU has the rules of one on a GPU (nothing is done, nothing can be read), so that what the trainer
//! captures can be tested, and compared bit by bit with what it does op by op, where there is no GPU. A replay takes no
//! guards: as on a GPU, whoever launches a graph answers for the memory that it uses.

use std::panic::resume_unwind;
use std::sync::{Arc, Mutex, PoisonError};

use bullet_runtime::{Device, HostFn, Launch, StreamId};

use crate::error::Result;

/// Adds `work` to the graph that this thread is capturing on `device`, a CPU. An error of it fails the launch.
///
/// # Safety
/// All that `work` borrows is memory of tensors, named by views: the lifetime of these is forgotten here, and who
/// launches the graph keeps that memory.
pub(crate) unsafe fn record<'a>(device: &Device, work: impl FnMut() -> Result<()> + Send + 'a) -> Result<()> {
    let work: Box<dyn FnMut() -> Result<()> + Send + 'a> = Box::new(work);
    // SAFETY: only the lifetime changes; by the caller's promise it is that of memory which outlives the graph's use.
    let work: Box<dyn FnMut() -> Result<()> + Send + 'static> = unsafe { std::mem::transmute(work) };
    let work = Mutex::new(work);
    let closure: HostFn = Arc::new(move || {
        let mut work = work.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(e) = work() {
            // A stream's closure fails by unwinding; nothing is printed for that.
            resume_unwind(Box::new(e.to_string()));
        }
    });
    // SAFETY: by the caller's promise.
    Ok(unsafe { device.driver().launch(StreamId::DEFAULT, Launch::Host(closure)) }?)
}
