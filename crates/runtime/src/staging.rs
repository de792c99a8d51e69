//! [`Staging`]: small host data on its way to a device, without waiting for the device.
//!
//! A ring of pinned memory in a few segments. Data is copied into the ring and sent from there in stream order, so that
//! the caller's memory is free at once. An event behind the last use of a segment says when it may be filled again; with
//! several segments that is long past by then.

use std::ptr::NonNull;
use std::sync::Arc;

use crate::driver::{DevicePtr, Driver, EventId, StreamId};
use crate::error::Result;

const SEGMENTS: usize = 4;
const SEGMENT_BYTES: usize = 128 << 10;
/// Pieces begin on a cache line.
const ALIGN: usize = 64;

/// The ring of one device, for its default stream.
#[derive(Debug)]
pub(crate) struct Staging {
    driver: Arc<dyn Driver>,
    memory: NonNull<u8>,
    /// Behind the last copy from each segment.
    events: [EventId; SEGMENTS],
    segment: usize,
    used: usize,
}

// SAFETY: the memory is owned, and touched through `&mut self` only.
unsafe impl Send for Staging {}

impl Staging {
    /// The largest piece that it takes.
    pub(crate) const MOST: usize = SEGMENT_BYTES;

    pub(crate) fn new(driver: &Arc<dyn Driver>) -> Result<Staging> {
        let mut events = Vec::with_capacity(SEGMENTS);
        for _ in 0..SEGMENTS {
            events.push(driver.create_event(false)?);
        }
        let memory = driver.alloc_pinned(SEGMENTS * SEGMENT_BYTES)?;
        let events = events.try_into().expect("as many events as segments");
        Ok(Staging { driver: Arc::clone(driver), memory, events, segment: 0, used: 0 })
    }

    /// Sends `data`, of at most [`Staging::MOST`] bytes, to `dst`.
    ///
    /// # Safety
    /// `dst` has room for it, and is used on the default stream only.
    pub(crate) unsafe fn send(&mut self, dst: DevicePtr, data: &[u8]) -> Result<()> {
        assert!(data.len() <= Staging::MOST);
        if self.used + data.len() > SEGMENT_BYTES {
            self.driver.record(self.events[self.segment], StreamId::DEFAULT)?;
            self.segment = (self.segment + 1) % SEGMENTS;
            self.used = 0;
            self.driver.synchronize_event(self.events[self.segment])?;
        }
        let at = self.segment * SEGMENT_BYTES + self.used;
        self.used = (self.used + data.len()).next_multiple_of(ALIGN);
        // SAFETY: inside the ring, in a segment whose earlier copies are done or ordered before; the piece is not
        // written again before the event behind it has passed.
        unsafe {
            let piece = self.memory.as_ptr().add(at);
            piece.copy_from_nonoverlapping(data.as_ptr(), data.len());
            self.driver.copy_to_device(StreamId::DEFAULT, dst, piece, data.len())
        }
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        // What is under way must end before the memory goes; a device that cannot say so has lost its context, and with
        // it the copies.
        let _ = self.driver.synchronize(StreamId::DEFAULT);
        for event in self.events {
            // SAFETY: made by `new` and not used again.
            let _ = unsafe { self.driver.destroy_event(event) };
        }
        // SAFETY: allocated by `new` with this size; no copy is under way.
        let _ = unsafe { self.driver.free_pinned(self.memory, SEGMENTS * SEGMENT_BYTES) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::HostDriver;

    #[test]
    fn pieces_arrive_in_order_over_many_laps() {
        let driver: Arc<dyn Driver> = Arc::new(HostDriver::new());
        let mut staging = Staging::new(&driver).unwrap();
        let bytes = 5000;
        let dst = driver.alloc(StreamId::DEFAULT, bytes).unwrap();
        for lap in 0..600u32 {
            let data: Vec<u8> = (0..bytes as u32).map(|i| (i * 7 + lap) as u8).collect();
            let mut back = vec![0; bytes];
            // SAFETY: memory of this size, of this driver, used here alone.
            unsafe {
                staging.send(dst, &data).unwrap();
                driver.copy_to_host(StreamId::DEFAULT, back.as_mut_ptr(), dst, bytes).unwrap();
            }
            driver.synchronize(StreamId::DEFAULT).unwrap();
            assert!(back == data, "lap {lap}");
        }
        // SAFETY: allocated above, and not used again.
        unsafe { driver.free(StreamId::DEFAULT, dst, bytes).unwrap() };
    }
}
