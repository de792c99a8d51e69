//! Streams of other libraries in this process, which share a GPU's memory with us: what is enqueued on one side waits for
//! the other side, on the device, while the host goes on.
//!
//! A stream of others is known by its address (`cudaStream_t`); 0 and 1 are CUDA's legacy default stream, 2 is the calling
//! thread's default stream, as in DLPack and `__cuda_array_interface__`.

use crate::device::Device;
use crate::driver::StreamId;
use crate::error::Result;

/// CUDA's name for its legacy default stream, whose address may be given as 0 too.
const LEGACY: u64 = 1;

/// The stream as drivers know it.
///
/// # Safety
/// As for [`Device::precede`].
unsafe fn stream_of(native: u64) -> StreamId {
    // SAFETY: by the caller's promise; a driver takes every id but DEFAULT, which is 0, for an address.
    unsafe { StreamId::from_raw(native.max(LEGACY)) }
}

impl Device {
    /// The address by which other libraries know this device's default stream.
    ///
    /// # Errors
    /// This is no GPU.
    pub fn native_stream(&self) -> Result<u64> {
        self.driver().native_stream(StreamId::DEFAULT)
    }

    /// Makes what is enqueued on `native` from now on wait for all that is on this device's default stream.
    ///
    /// # Errors
    /// This is no GPU; work before has failed; the default stream is being captured.
    ///
    /// # Safety
    /// `native` is a live stream of this GPU, or one of the default streams.
    pub unsafe fn precede(&self, native: u64) -> Result<()> {
        self.native_stream()?;
        let event = self.event(false)?;
        self.record(&event)?;
        // SAFETY: by the caller's promise.
        self.driver().wait(unsafe { stream_of(native) }, event.id())
    }

    /// Makes what is enqueued on this device's default stream from now on wait for all that is on `native`.
    ///
    /// # Errors
    /// As for [`Device::precede`].
    ///
    /// # Safety
    /// As for [`Device::precede`].
    pub unsafe fn follow(&self, native: u64) -> Result<()> {
        self.native_stream()?;
        let event = self.event(false)?;
        // SAFETY: by the caller's promise.
        self.driver().record(event.id(), unsafe { stream_of(native) })?;
        self.driver().wait(StreamId::DEFAULT, event.id())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    #[test]
    fn a_cpu_has_no_streams_of_others() {
        let cpu = Device::cpu();
        // SAFETY: a default stream.
        let results = [unsafe { cpu.precede(0) }, unsafe { cpu.follow(2) }, cpu.native_stream().map(drop)];
        for result in results {
            assert_eq!(result.unwrap_err().kind, ErrorKind::Unsupported);
        }
    }
}
