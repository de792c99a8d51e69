//! Graphs on the host: captured work is a list of tasks in the order in which they were enqueued, which is an order that
//! streams and events allow; a launch puts them all into one stream.
//!
//! The rules are CUDA's, so that code which captures is tested without a GPU: what is captured is not done, cannot be
//! waited for, and what is freed meanwhile stays until the graph is destroyed. Unlike CUDA, a stream that joined the
//! capture and was not joined back goes unnoticed.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::HostDriver;
use super::stream::Task;
use crate::capture::Freed;
use crate::driver::{GraphId, StreamId};
use crate::error::{Error, Result};

/// Captured work, finished or under way.
#[derive(Default)]
pub(super) struct Graphs(Mutex<State>);

#[derive(Default)]
struct State {
    /// By the stream on which the capture began.
    open: HashMap<StreamId, Vec<Task>>,
    done: HashMap<GraphId, Arc<[Task]>>,
}

impl fmt::Debug for Graphs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.lock();
        write!(f, "Graphs({} under way, {} done)", state.open.len(), state.done.len())
    }
}

impl Graphs {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Appends a task to the capture that began on `origin`.
    pub(super) fn record(&self, origin: StreamId, task: Task) {
        self.lock().open.entry(origin).or_default().push(task);
    }
}

impl HostDriver {
    pub(super) fn begin(&self, stream: StreamId) -> Result<()> {
        if self.captures.is_capturing(stream) {
            return Err(Error::invalid("this stream is being captured into a graph already"));
        }
        self.captures.begin(stream);
        Ok(())
    }

    pub(super) fn end(&self, stream: StreamId) -> Result<GraphId> {
        if self.captures.origin(stream) != Some(stream) {
            return Err(Error::invalid("no capture into a graph began on this stream"));
        }
        // SAFETY: the number is new, and enters the table here.
        let graph = unsafe { GraphId::from_raw(self.id()) };
        self.captures.end(stream, Some(graph));
        let mut state = self.graphs.lock();
        let tasks = state.open.remove(&stream).unwrap_or_default();
        state.done.insert(graph, tasks.into());
        Ok(graph)
    }

    /// Puts the graph's tasks into `stream`; where that runs at once, the first failure is the last task done.
    ///
    /// # Safety
    /// As [`Driver::launch_graph`](crate::Driver::launch_graph).
    pub(super) unsafe fn replay(&self, graph: GraphId, stream: StreamId) -> Result<()> {
        let tasks = self.graphs.lock().done.get(&graph).cloned();
        let tasks = tasks.ok_or_else(|| Error::invalid(format!("this driver has no graph {graph:?}")))?;
        tasks.iter().try_for_each(|task| self.enqueue(stream, task.clone()))
    }

    /// Forgets the graph, and frees what was freed in its capture once all streams have done what they have.
    ///
    /// # Safety
    /// As [`Driver::destroy_graph`](crate::Driver::destroy_graph).
    pub(super) unsafe fn drop_graph(&self, graph: GraphId) -> Result<()> {
        self.graphs.lock().done.remove(&graph);
        let kept: Vec<Freed> = self.captures.release(graph);
        if kept.is_empty() {
            return Ok(());
        }
        let streams = self.streams.read().unwrap_or_else(PoisonError::into_inner);
        let workers: Vec<_> = streams.values().cloned().collect();
        drop(streams);
        for worker in workers.iter().map(|w| &**w).chain(&self.default) {
            // A failure of the work is for the stream's owner to see: it stays with the stream.
            worker.drain()?;
        }
        kept.into_iter().try_for_each(|(ptr, bytes)| Task::Free { ptr, bytes }.run())
    }
}
