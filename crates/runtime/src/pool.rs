//! The caching allocator of a device: size classes, stream-ordered reuse, a quota, statistics.
//!
//! **Classes.** Sizes are rounded up to multiples of 64 bytes up to 1 KiB, and above to an eighth of the power of two
//! below, so that less than 12.5% is wasted. A freed block goes to the cache and serves its class again.
//!
//! **Streams.** A freed block is cached under the stream that used it last, and that stream gets it back at once: its
//! later work is ordered behind its earlier. Another stream gets it when the first is known to have passed the free.
//! No event is recorded at a free; when a stream finds nothing of its own, one marker is recorded on each stream that
//! has such a block, and covers every block freed there before. Until the marker is reached the stream takes fresh
//! memory instead of waiting; it waits (on the device, not the host) only when fresh memory has run out.
//!
//! **Invariants.** `used + padding + cached` never exceeds the limit, nor with what is in flight to or from the driver.
//! The driver is never asked for memory, nor made to wait, with the lock held.

mod classes;
mod lanes;

use std::sync::{Arc, Mutex, MutexGuard};

use crate::driver::{DevicePtr, Driver, StreamId};
use crate::error::{Error, OutOfMemory, Result};

use classes::{Class, class_of};
use lanes::{Cached, Lanes, Marker, Unready};

/// Memory of a device as its pool sees it; sizes in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct MemoryStats {
    /// What live buffers asked for.
    pub used: usize,
    /// What size classes add to that.
    pub padding: usize,
    /// Free blocks kept for reuse.
    pub cached: usize,
    /// The highest [`used`](MemoryStats::used) since the start or the last reset.
    pub peak: usize,
    /// The highest [`held`](MemoryStats::held) since the start or the last reset.
    pub peak_held: usize,
    /// The quota, if one is set.
    pub limit: Option<usize>,
    /// Number of live buffers.
    pub buffers: usize,
    /// Number of allocations ever.
    pub allocations: u64,
    /// Those served from the cache.
    pub hits: u64,
    /// Those served from the cache that made a stream wait for another.
    pub waits: u64,
    /// Blocks given back to the driver.
    pub released: u64,
}

impl MemoryStats {
    /// All that the pool has from the driver.
    pub fn held(&self) -> usize {
        self.used + self.padding + self.cached
    }
}

/// How a pool behaves.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct PoolOptions {
    /// Never hold more than this.
    pub(crate) limit: Option<usize>,
    /// Empty the cache before holding more than this.
    pub(crate) trim_above: Option<usize>,
    /// Fill what is handed out with this.
    pub(crate) poison: Option<u8>,
}

/// Memory handed out by a pool; must be given back to it.
#[derive(Debug)]
pub(crate) struct Block {
    pub(crate) ptr: DevicePtr,
    class: Class,
}

impl Block {
    /// Whether the pool would give a block of this class for `bytes`.
    pub(crate) fn serves(&self, bytes: usize) -> bool {
        class_of(bytes) == Some(self.class)
    }
}

#[derive(Debug)]
pub(crate) struct Pool {
    driver: Arc<dyn Driver>,
    options: PoolOptions,
    state: Mutex<State>,
    /// Held while blocks that are not in the cache are still tied to streams, so that these are not destroyed.
    slow: Mutex<()>,
}

#[derive(Debug)]
struct State {
    stats: MemoryStats,
    /// Bytes asked of the driver, and not yet counted as used.
    arriving: usize,
    /// Bytes no longer cached that the driver does not have back yet.
    leaving: usize,
    lanes: Lanes,
}

impl State {
    fn held(&self) -> usize {
        self.stats.held() + self.arriving + self.leaving
    }

    /// Counts a block of this class as handed out.
    fn hand_out(&mut self, class: Class, bytes: usize, hit: bool) {
        let stats = &mut self.stats;
        if hit {
            stats.cached -= class.size();
            stats.hits += 1;
        } else {
            self.arriving -= class.size();
        }
        stats.used += bytes;
        stats.padding += class.size() - bytes;
        stats.buffers += 1;
        stats.allocations += 1;
        stats.peak = stats.peak.max(stats.used);
        stats.peak_held = stats.peak_held.max(stats.held());
    }
}

/// Why there is no fresh memory.
enum NotFresh {
    /// That much too much for the limit.
    OverLimit(usize),
    /// The driver has none.
    DriverFull,
}

impl Pool {
    pub(crate) fn new(driver: Arc<dyn Driver>, options: PoolOptions) -> Pool {
        let stats = MemoryStats { limit: options.limit, ..MemoryStats::default() };
        let state = State { stats, arriving: 0, leaving: 0, lanes: Lanes::new(Arc::clone(&driver)) };
        Pool { driver, options, state: Mutex::new(state), slow: Mutex::new(()) }
    }

    /// A block of at least `bytes` (not 0) for work on `stream`.
    pub(crate) fn alloc(&self, stream: StreamId, bytes: usize) -> Result<Block> {
        let class = class_of(bytes).ok_or_else(|| self.out_of_memory(bytes, 0))?;
        let mut state = self.lock();
        let block = match state.lanes.take(stream, class) {
            Some(cached) => {
                state.hand_out(class, bytes, true);
                drop(state);
                Block { ptr: cached.ptr, class }
            }
            None => {
                drop(state);
                self.alloc_slowly(stream, class, bytes)?
            }
        };
        if let Some(value) = self.options.poison {
            // SAFETY: the block is this size, and the caller has not got it yet.
            let filled = unsafe { self.driver.fill(stream, block.ptr, value, class.size()) };
            if let Err(e) = filled {
                self.free(block, bytes, stream, None);
                return Err(e);
            }
        }
        Ok(block)
    }

    /// Takes back a block that was allocated with these `bytes` on `stream`, and that work on `others` used too.
    pub(crate) fn free(&self, block: Block, bytes: usize, stream: StreamId, others: Option<Box<[StreamId]>>) {
        let class = block.class;
        let mut state = self.lock();
        let stats = &mut state.stats;
        stats.used -= bytes;
        stats.padding -= class.size() - bytes;
        stats.cached += class.size();
        stats.buffers -= 1;
        state.lanes.put(stream, class, block.ptr, others);
    }

    /// Gives cached blocks of at least so many bytes back to the driver, or all there are; returns their bytes.
    pub(crate) fn trim(&self, bytes: usize) -> usize {
        self.reclaim(bytes)
    }

    /// Forgets a stream that has done all its work and is about to be destroyed.
    pub(crate) fn retire(&self, stream: StreamId) {
        let _slow = self.slow.lock().unwrap_or_else(|e| e.into_inner());
        self.lock().lanes.retire(stream);
    }

    pub(crate) fn stats(&self) -> MemoryStats {
        self.lock().stats
    }

    pub(crate) fn reset_peak(&self) {
        let stats = &mut self.lock().stats;
        stats.peak = stats.used;
        stats.peak_held = stats.held();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No code that can panic leaves the state half changed, so a poisoned lock is as good as another.
        self.state.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// Fresh memory; else a cached block that another stream must finish with; else what emptying the cache makes room
    /// for; else an error.
    fn alloc_slowly(&self, stream: StreamId, class: Class, bytes: usize) -> Result<Block> {
        let largest_free = self.lock().lanes.largest();
        let mut driver_full = false;
        let mut patient = true;
        loop {
            let why = match self.alloc_fresh(stream, class, bytes, patient)? {
                Ok(ptr) => return Ok(Block { ptr, class }),
                Err(why) => why,
            };
            if let Some(ptr) = self.alloc_waiting(stream, class, bytes)? {
                return Ok(Block { ptr, class });
            }
            let wanted = match why {
                NotFresh::OverLimit(excess) => excess,
                // Fragments do not help the driver: what is enough by the numbers is tried once, then everything.
                NotFresh::DriverFull if !driver_full => class.size(),
                NotFresh::DriverFull => usize::MAX,
            };
            driver_full |= matches!(why, NotFresh::DriverFull);
            if self.reclaim(wanted) == 0 {
                if !patient {
                    return Err(self.out_of_memory(bytes, largest_free));
                }
                patient = false;
            }
        }
    }

    /// Asks the driver, if the limit allows; `patient` means to keep below the threshold of trimming too.
    fn alloc_fresh(
        &self,
        stream: StreamId,
        class: Class,
        bytes: usize,
        patient: bool,
    ) -> Result<Result<DevicePtr, NotFresh>> {
        let mut state = self.lock();
        let limit = self.options.limit.unwrap_or(usize::MAX);
        let limit = if patient { limit.min(self.options.trim_above.unwrap_or(usize::MAX)) } else { limit };
        let held = state.held().saturating_add(class.size());
        if held > limit {
            return Ok(Err(NotFresh::OverLimit(held - limit)));
        }
        state.arriving += class.size();
        drop(state);
        let answer = self.driver.alloc(stream, class.size());
        let mut state = self.lock();
        match answer {
            Ok(ptr) => {
                state.hand_out(class, bytes, false);
                Ok(Ok(ptr))
            }
            Err(e) => {
                state.arriving -= class.size();
                if e.is_out_of_memory() { Ok(Err(NotFresh::DriverFull)) } else { Err(e) }
            }
        }
    }

    /// A cached block whose last users are not known to have finished, after making `stream` wait for them.
    fn alloc_waiting(&self, stream: StreamId, class: Class, bytes: usize) -> Result<Option<DevicePtr>> {
        let _slow = self.slow.lock().unwrap_or_else(|e| e.into_inner());
        let mut state = self.lock();
        let Some(Unready { lane, cached, markers }) = state.lanes.take_unready(stream, class)? else {
            return Ok(None);
        };
        state.hand_out(class, bytes, true);
        state.stats.waits += u64::from(!markers.is_empty());
        drop(state);
        let waited = markers.iter().try_for_each(|marker| self.driver.wait(stream, marker.event()));
        if let Err(e) = waited {
            // Back to where it was: some of its users may still be at work.
            self.free(Block { ptr: cached.ptr, class }, bytes, lane, cached.others);
            return Err(e);
        }
        Ok(Some(cached.ptr))
    }

    /// Gives at least `wanted` bytes of cached blocks back to the driver, or all there are but those of streams that are
    /// being captured; returns how many.
    fn reclaim(&self, wanted: usize) -> usize {
        let _slow = self.slow.lock().unwrap_or_else(|e| e.into_inner());
        let mut taken: Vec<(StreamId, Class, Cached)> = Vec::new();
        let mut freed: Vec<StreamId> = Vec::new();
        let mut bytes = 0;
        {
            let mut state = self.lock();
            while bytes < wanted {
                let Some(entry) = state.lanes.take_any(wanted - bytes) else { break };
                bytes += entry.1.size();
                taken.push(entry);
            }
            state.stats.cached -= bytes;
            state.leaving += bytes;
        }
        if bytes == 0 {
            return 0;
        }
        let mut drained: Vec<StreamId> = Vec::new();
        let mut kept: Vec<(StreamId, Class, Cached)> = Vec::new();
        for (stream, class, cached) in taken {
            if !cached.others.iter().flatten().all(|&other| self.drain(other, &mut drained)) {
                kept.push((stream, class, cached));
                continue;
            }
            freed.push(stream);
            // SAFETY: nobody has the block, and those who used it on other streams have just been waited for. A driver
            // that cannot take it back loses it; there is nobody to tell.
            let _ = unsafe { self.driver.free(stream, cached.ptr, class.size()) };
        }
        // Frees are done in the order of their streams; the memory is there for an allocation only after.
        drained.clear();
        for &stream in &freed {
            self.drain(stream, &mut drained);
        }
        let mut state = self.lock();
        state.leaving -= bytes;
        state.stats.released += freed.len() as u64;
        for (stream, class, cached) in kept {
            bytes -= class.size();
            state.stats.cached += class.size();
            state.lanes.put(stream, class, cached.ptr, cached.others);
        }
        bytes
    }

    /// Waits until `stream` has done what it has now, if `drained` does not name it yet; false if that failed. Leaves
    /// errors of that work for the owner of the stream to see.
    fn drain(&self, stream: StreamId, drained: &mut Vec<StreamId>) -> bool {
        if drained.contains(&stream) {
            return true;
        }
        let passed = Marker::new(&self.driver).and_then(|marker| {
            self.driver.record(marker.event(), stream)?;
            self.driver.synchronize_event(marker.event())
        });
        if passed.is_ok() {
            drained.push(stream);
        }
        passed.is_ok()
    }

    fn out_of_memory(&self, requested: usize, largest_free: usize) -> Error {
        let stats = self.stats();
        Error::out_of_memory(OutOfMemory {
            device: self.driver.info().kind.to_string(),
            requested,
            used: stats.used,
            buffers: stats.buffers,
            padding: stats.padding,
            cached: stats.cached,
            limit: stats.limit,
            device_free: self.driver.memory().ok().map(|m| m.free),
            largest_free,
        })
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.trim(usize::MAX);
    }
}
