//! [`Stream`] and [`Event`]: a driver's handles, owned and tied to their device.

use std::sync::Arc;
use std::time::Duration;

use crate::device::{Buffer, Device};
use crate::driver::{EventId, Launch, Priority, StreamId};
use crate::error::{Error, Result};

/// A queue of work on a device; clones are the same queue. The last one waits for its work and destroys it.
#[derive(Clone, Debug)]
pub struct Stream(Arc<StreamInner>);

#[derive(Debug)]
struct StreamInner {
    id: StreamId,
    priority: Priority,
    device: Device,
}

impl Stream {
    pub(crate) fn new(device: &Device, priority: Priority) -> Result<Stream> {
        let id = device.driver().create_stream(priority)?;
        Ok(Stream(Arc::new(StreamInner { id, priority, device: device.clone() })))
    }

    /// The driver's handle; valid as long as this stream.
    pub fn id(&self) -> StreamId {
        self.0.id
    }

    /// How urgent its work is.
    pub fn priority(&self) -> Priority {
        self.0.priority
    }

    /// Where it runs.
    pub fn device(&self) -> &Device {
        &self.0.device
    }

    /// Memory for work on this stream. The contents are unspecified, but initialised.
    ///
    /// # Errors
    /// As [`Device::alloc`].
    pub fn alloc(&self, bytes: usize) -> Result<Buffer> {
        self.0.device.alloc_on(Some(self.clone()), bytes)
    }

    /// Puts the event behind the work this stream has now.
    pub fn record(&self, event: &Event) -> Result<()> {
        self.same_device(event)?;
        self.0.device.driver().record(event.id, self.0.id)
    }

    /// Makes later work of this stream wait for the event as it is recorded now.
    pub fn wait(&self, event: &Event) -> Result<()> {
        self.same_device(event)?;
        self.0.device.driver().wait(self.0.id, event.id)
    }

    /// Blocks until the work this stream has now is done.
    ///
    /// # Errors
    /// If some of that work failed.
    pub fn synchronize(&self) -> Result<()> {
        self.0.device.driver().synchronize(self.0.id)
    }

    /// Runs a closure or kernel in its place in the stream.
    ///
    /// # Safety
    /// As [`Driver::launch`](crate::Driver::launch). Buffers that belong to another stream have been told by
    /// [`Buffer::record_use`].
    pub unsafe fn launch(&self, launch: Launch<'_>) -> Result<()> {
        // SAFETY: by this function's contract.
        unsafe { self.0.device.driver().launch(self.0.id, launch) }
    }

    fn same_device(&self, event: &Event) -> Result<()> {
        if self.0.device == event.device {
            return Ok(());
        }
        Err(Error::invalid(format!(
            "a stream of {} cannot use an event of {}; both must be of one device",
            self.0.device, event.device
        )))
    }
}

impl Drop for StreamInner {
    fn drop(&mut self) {
        self.device.bury(self.id);
    }
}

/// A point in a stream's work.
#[derive(Debug)]
pub struct Event {
    id: EventId,
    device: Device,
}

impl Event {
    pub(crate) fn new(device: &Device, timing: bool) -> Result<Event> {
        Ok(Event { id: device.driver().create_event(timing)?, device: device.clone() })
    }

    /// The driver's handle; valid as long as this event.
    pub fn id(&self) -> EventId {
        self.id
    }

    /// Whether the work before it is done (or it was never recorded).
    pub fn query(&self) -> Result<bool> {
        self.device.driver().query(self.id)
    }

    /// Blocks until the work before it is done.
    pub fn synchronize(&self) -> Result<()> {
        self.device.driver().synchronize_event(self.id)
    }

    /// Time on the device since `start`.
    ///
    /// # Errors
    /// If either was made without timing, or has not been reached.
    pub fn elapsed_since(&self, start: &Event) -> Result<Duration> {
        self.device.driver().elapsed(start.id, self.id)
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        // SAFETY: this is the only owner. Failing to destroy it leaks it, which harms nobody.
        let _ = unsafe { self.device.driver().destroy_event(self.id) };
    }
}
