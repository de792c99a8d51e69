//! Capturing work into graphs, and launching those.

use cudarc::driver::sys::{self, CUgraphExec, CUstreamCaptureMode};

use super::CudaDriver;
use super::error::check;
use crate::driver::{GraphId, StreamId};
use crate::error::{Error, Result};

fn exec(graph: GraphId) -> CUgraphExec {
    std::ptr::with_exposed_provenance_mut(graph.raw() as usize)
}

impl CudaDriver {
    pub(super) fn begin(&self, stream: StreamId) -> Result<()> {
        if !self.library.graphs {
            return Err(Error::unsupported("this CUDA driver has no graphs; they need driver 470 or newer"));
        }
        if self.captures.is_capturing(stream) {
            return Err(Error::invalid("this stream is being captured into a graph already"));
        }
        self.enter()?;
        let mode = CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_RELAXED;
        // SAFETY: handles of streams are valid until destroyed, which is unsafe.
        let begun = unsafe { sys::cuStreamBeginCapture_v2(self.stream(stream), mode) };
        check(begun, "cuStreamBeginCapture")?;
        self.captures.begin(stream);
        Ok(())
    }

    pub(super) fn end(&self, stream: StreamId) -> Result<GraphId> {
        if !self.captures.is_capturing(stream) {
            return Err(Error::invalid("this stream is not being captured into a graph"));
        }
        self.enter()?;
        let mut graph = std::ptr::null_mut();
        // SAFETY: handles of streams are valid until destroyed, which is unsafe; the pointer is to a live variable.
        let ended = unsafe { sys::cuStreamEndCapture(self.stream(stream), &mut graph) };
        let made = check(ended, "cuStreamEndCapture").and_then(|()| {
            let mut exec = std::ptr::null_mut();
            // SAFETY: the graph was captured just now and is nobody else's; what is instantiated is a copy.
            let instantiated = unsafe {
                let instantiated = sys::cuGraphInstantiateWithFlags(&mut exec, graph, 0);
                sys::cuGraphDestroy(graph);
                instantiated
            };
            check(instantiated, "cuGraphInstantiate")?;
            // SAFETY: the driver made it.
            Ok(unsafe { GraphId::from_raw(exec.expose_provenance() as u64) })
        });
        for (ptr, _) in self.captures.end(stream, made.as_ref().ok().copied()) {
            // Before the capture began, work on its streams may have used the memory; it is seldom freed here.
            // SAFETY: what was freed in a capture that came to nothing is used by nobody but that work.
            unsafe {
                sys::cuStreamSynchronize(self.stream(stream));
                self.release(ptr)?;
            }
        }
        made
    }

    /// Launches a graph.
    ///
    /// # Safety
    /// As [`Driver::launch_graph`](crate::Driver::launch_graph).
    pub(super) unsafe fn replay(&self, graph: GraphId, stream: StreamId) -> Result<()> {
        self.enter()?;
        // SAFETY: by this function's contract.
        check(unsafe { sys::cuGraphLaunch(exec(graph), self.stream(stream)) }, "cuGraphLaunch")
    }

    /// Destroys a graph.
    ///
    /// # Safety
    /// As [`Driver::destroy_graph`](crate::Driver::destroy_graph).
    pub(super) unsafe fn drop_graph(&self, graph: GraphId) -> Result<()> {
        self.enter()?;
        let kept = self.captures.release(graph);
        if !kept.is_empty() {
            // SAFETY: the context is current.
            check(unsafe { sys::cuCtxSynchronize() }, "cuCtxSynchronize")?;
        }
        // SAFETY: by this function's contract; a launch under way is finished by the driver first.
        check(unsafe { sys::cuGraphExecDestroy(exec(graph)) }, "cuGraphExecDestroy")?;
        kept.into_iter().try_for_each(|(ptr, _)| {
            // SAFETY: freed by its owner during the capture; the graph is gone, and what it did has passed.
            unsafe { self.release(ptr) }
        })
    }
}
