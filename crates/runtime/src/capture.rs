//! Which streams and events take part in a capture, and what a graph keeps allocated: for drivers that have graphs.
//!
//! CUDA gives a whole capture up when a captured stream or event is waited for, so the driver has to know them: such a
//! call is refused here, and the capture goes on. The host driver's captures have the same rules.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard};

use crate::driver::{DevicePtr, EventId, GraphId, StreamId};
use crate::error::{Error, Result};

/// Memory that was freed, and its bytes.
pub(crate) type Freed = (DevicePtr, usize);

#[derive(Debug, Default)]
pub(crate) struct Captures {
    /// Number of captures under way; where it is 0, nothing else is looked at.
    active: AtomicUsize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Captured streams, with the one that their capture began on.
    streams: HashMap<StreamId, StreamId>,
    /// Events recorded last on a captured stream, with the one that the capture began on.
    events: HashMap<EventId, StreamId>,
    /// What was freed on captured streams, by the one the capture began on.
    freed: HashMap<StreamId, Vec<Freed>>,
    /// What was freed during the capture of a graph.
    kept: HashMap<GraphId, Vec<Freed>>,
}

impl Captures {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|e| e.into_inner())
    }

    fn idle(&self) -> bool {
        // A stream is used by one thread at a time, or ordered between them by the caller; that orders this, too.
        self.active.load(Ordering::Acquire) == 0
    }

    pub(crate) fn is_capturing(&self, stream: StreamId) -> bool {
        self.origin(stream).is_some()
    }

    /// The stream on which the capture began that this one takes part in.
    pub(crate) fn origin(&self, stream: StreamId) -> Option<StreamId> {
        if self.idle() { None } else { self.lock().streams.get(&stream).copied() }
    }

    /// Whether the event was recorded last in a capture.
    pub(crate) fn is_captured(&self, event: EventId) -> bool {
        !self.idle() && self.lock().events.contains_key(&event)
    }

    /// Refuses to wait for work that is recorded and not done.
    pub(crate) fn may_wait_for(&self, stream: StreamId) -> Result<()> {
        match self.is_capturing(stream) {
            true => Err(Error::invalid(
                "this stream is being captured into a graph: nothing is done, so it cannot be waited for, nor can its \
                 results be read",
            )),
            false => Ok(()),
        }
    }

    /// As [`may_wait_for`](Captures::may_wait_for), for an event.
    pub(crate) fn may_wait_for_event(&self, event: EventId) -> Result<()> {
        match self.is_captured(event) {
            true => Err(Error::invalid(
                "this event was recorded in a capture: it marks a place in a graph and is never reached itself",
            )),
            false => Ok(()),
        }
    }

    /// An event was recorded on a stream.
    pub(crate) fn recorded(&self, event: EventId, stream: StreamId) {
        if self.idle() {
            return;
        }
        let mut state = self.lock();
        match state.streams.get(&stream).copied() {
            Some(origin) => state.events.insert(event, origin),
            None => state.events.remove(&event),
        };
    }

    /// A stream was made to wait for an event; it takes part in the event's capture from here on.
    pub(crate) fn waits(&self, stream: StreamId, event: EventId) {
        if self.idle() {
            return;
        }
        let mut state = self.lock();
        if let Some(origin) = state.events.get(&event).copied() {
            state.streams.insert(stream, origin);
        }
    }

    pub(crate) fn forget(&self, event: EventId) {
        if !self.idle() {
            self.lock().events.remove(&event);
        }
    }

    /// Whether memory freed on `stream` must stay, because a capture has used it; it is noted then.
    pub(crate) fn keep(&self, stream: StreamId, freed: Freed) -> bool {
        if self.idle() {
            return false;
        }
        let mut state = self.lock();
        let origin = state.streams.get(&stream).copied();
        if let Some(origin) = origin {
            state.freed.entry(origin).or_default().push(freed);
        }
        origin.is_some()
    }

    pub(crate) fn begin(&self, stream: StreamId) {
        self.lock().streams.insert(stream, stream);
        self.active.fetch_add(1, Ordering::Release);
    }

    /// Ends the capture; returns what was freed in it if there is no graph to keep that for.
    pub(crate) fn end(&self, stream: StreamId, graph: Option<GraphId>) -> Vec<Freed> {
        let mut state = self.lock();
        state.streams.retain(|_, origin| *origin != stream);
        state.events.retain(|_, origin| *origin != stream);
        self.active.fetch_sub(1, Ordering::Release);
        let freed = state.freed.remove(&stream).unwrap_or_default();
        match graph {
            Some(graph) => {
                state.kept.insert(graph, freed);
                Vec::new()
            }
            None => freed,
        }
    }

    /// What was kept for a graph.
    pub(crate) fn release(&self, graph: GraphId) -> Vec<Freed> {
        self.lock().kept.remove(&graph).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_join_a_capture_by_its_events() {
        // SAFETY: these handles are given to no driver.
        let (stream, other, event, graph) = unsafe {
            (StreamId::from_raw(1), StreamId::from_raw(2), EventId::from_raw(3), GraphId::from_raw(4))
        };
        let captures = Captures::default();
        captures.recorded(event, stream);
        assert!(!captures.keep(stream, (DevicePtr(64), 8)) && captures.may_wait_for_event(event).is_ok());
        captures.begin(stream);
        assert!(captures.is_capturing(stream) && !captures.is_capturing(other));
        captures.recorded(event, stream);
        assert!(captures.may_wait_for_event(event).is_err() && captures.may_wait_for(stream).is_err());
        captures.waits(other, event);
        assert!(captures.is_capturing(other) && captures.keep(other, (DevicePtr(128), 8)));
        assert!(captures.end(stream, Some(graph)).is_empty());
        assert!(captures.may_wait_for(other).is_ok() && !captures.keep(stream, (DevicePtr(64), 8)));
        assert_eq!(captures.release(graph), [(DevicePtr(128), 8)]);
        assert!(captures.release(graph).is_empty());
    }
}
