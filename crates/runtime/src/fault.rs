//! A driver around another that fails, delays and poisons on request, and counts what it is asked: for tests.
//!
//! The same scenario runs with the n-th call failing, for every n; what holds then holds on a device that fails by
//! itself. The wrapper is of use over any driver, so that tests of layers above need no real device to break.

use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use crate::driver::{
    DevicePtr, Driver, DriverInfo, EventId, FunctionId, GraphId, Launch, MemoryInfo, ModuleId, Priority,
    StreamId,
};
use crate::error::{Error, ErrorKind, Result};
use crate::jit::{GpuInfo, Program};

/// The calls that can be made to fail.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Call {
    /// Allocation of device or pinned memory: out of memory.
    Alloc,
    /// Copies and fills, as they are enqueued.
    Copy,
    /// Launches of closures, kernels and graphs, as they are enqueued.
    Launch,
    /// All that makes, records and waits for streams and events.
    Sync,
}

impl Call {
    /// Every one.
    pub const ALL: [Call; 4] = [Call::Alloc, Call::Copy, Call::Launch, Call::Sync];
}

/// What a [`FaultDriver`] does besides what it is asked; the default is nothing.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Faults {
    /// Refuse single allocations of more bytes than this.
    pub largest_alloc: Option<usize>,
    /// Refuse to hold more bytes of device memory than this.
    pub capacity: Option<usize>,
    /// Make every copy take this long for each KiB, begun ones too, in its place in the stream.
    pub delay_per_kib: Duration,
    /// Fill memory with 0xFF when it is allocated and 0xA5 before it is freed.
    pub poison: bool,
}

/// What a [`FaultDriver`] was asked, successes only.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counts {
    /// Allocations of device memory.
    pub allocs: u64,
    /// Frees of device memory.
    pub frees: u64,
    /// Bytes of device memory allocated and not freed.
    pub live_bytes: usize,
    /// The highest of that.
    pub peak_bytes: usize,
    /// Bytes copied from the host to the device.
    pub bytes_to_device: u64,
    /// Bytes copied from the device to the host.
    pub bytes_to_host: u64,
    /// Bytes copied within the device.
    pub bytes_within: u64,
    /// Closures, kernels and graphs launched.
    pub launches: u64,
    /// Streams, events and graphs made and not destroyed.
    pub live_handles: i64,
}

/// Does what the driver inside does, with faults.
#[derive(Debug)]
pub struct FaultDriver {
    inner: Arc<dyn Driver>,
    faults: Mutex<Faults>,
    counts: Mutex<Counts>,
    /// By [`Call`].
    plans: Mutex<[Plan; 4]>,
    /// Faults injected so far.
    injected: AtomicU64,
    pinned_bytes: AtomicUsize,
}

/// How many more calls succeed, and how many fail after these; all succeed after that.
#[derive(Clone, Copy, Debug, Default)]
struct Plan {
    succeed: u32,
    fail: u32,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|e| e.into_inner())
}

impl FaultDriver {
    /// A driver around `inner` with these faults.
    pub fn new(inner: Arc<dyn Driver>, faults: Faults) -> FaultDriver {
        FaultDriver {
            inner,
            faults: Mutex::new(faults),
            counts: Mutex::default(),
            plans: Mutex::default(),
            injected: AtomicU64::new(0),
            pinned_bytes: AtomicUsize::new(0),
        }
    }

    /// Replaces the standing faults.
    pub fn set_faults(&self, faults: Faults) {
        *lock(&self.faults) = faults;
    }

    /// Lets `successes` more calls of this sort succeed and the one after that fail, once.
    pub fn fail_after(&self, call: Call, successes: u32) {
        self.fail_some(call, successes, 1);
    }

    /// Lets `successes` more calls of this sort succeed, and none after that.
    pub fn fail_from(&self, call: Call, successes: u32) {
        self.fail_some(call, successes, u32::MAX);
    }

    /// Lets `successes` more calls of this sort succeed, the next `failures` fail, and all others succeed.
    pub fn fail_some(&self, call: Call, successes: u32, failures: u32) {
        lock(&self.plans)[call as usize] = Plan { succeed: successes, fail: failures };
    }

    /// What it was asked so far.
    pub fn counts(&self) -> Counts {
        *lock(&self.counts)
    }

    /// Number of calls that failed on request so far.
    pub fn injected(&self) -> u64 {
        self.injected.load(Relaxed)
    }

    /// Bytes of pinned memory allocated and not freed.
    pub fn pinned_bytes(&self) -> usize {
        self.pinned_bytes.load(Relaxed)
    }

    /// Whether a call of this sort is to fail now.
    fn due(&self, call: Call) -> bool {
        let plan = &mut lock(&self.plans)[call as usize];
        let due = plan.succeed == 0 && plan.fail > 0;
        if plan.fail == 0 {
            return false;
        }
        if !due {
            plan.succeed -= 1;
        } else if plan.fail < u32::MAX {
            plan.fail -= 1;
        }
        self.injected.fetch_add(u64::from(due), Relaxed);
        due
    }

    fn sync(&self) -> Result<()> {
        match self.due(Call::Sync) {
            true => Err(Error::new(ErrorKind::Driver, "injected fault: a stream or event call failed")),
            false => Ok(()),
        }
    }

    /// What comes before a copy: its failure or its delay.
    fn before_copy(&self, stream: StreamId, bytes: usize) -> Result<()> {
        if self.due(Call::Copy) {
            return Err(Error::new(ErrorKind::Driver, "injected fault: a copy failed"));
        }
        let delay = lock(&self.faults).delay_per_kib * bytes.div_ceil(1024).try_into().unwrap_or(u32::MAX);
        if delay.is_zero() {
            return Ok(());
        }
        if !self.inner.info().host_memory {
            // A GPU runs no closure of ours; the copy starts late instead.
            std::thread::sleep(delay);
            return Ok(());
        }
        // SAFETY: the closure touches no memory.
        unsafe { self.inner.launch(stream, Launch::Host(Arc::new(move || std::thread::sleep(delay)))) }
    }

    /// Counts `bytes` as allocated if the faults allow that.
    fn reserve(&self, bytes: usize) -> Result<()> {
        let Faults { largest_alloc, capacity, .. } = *lock(&self.faults);
        let mut counts = lock(&self.counts);
        let live = counts.live_bytes.saturating_add(bytes);
        let full = live > capacity.unwrap_or(usize::MAX) || bytes > largest_alloc.unwrap_or(usize::MAX);
        if self.due(Call::Alloc) || full {
            return Err(Error::driver_out_of_memory(bytes));
        }
        counts.live_bytes = live;
        counts.peak_bytes = counts.peak_bytes.max(live);
        counts.allocs += 1;
        Ok(())
    }

    fn unreserve(&self, bytes: usize) {
        let mut counts = lock(&self.counts);
        counts.live_bytes -= bytes;
        counts.allocs -= 1;
    }
}

impl Driver for FaultDriver {
    fn info(&self) -> &DriverInfo {
        self.inner.info()
    }

    fn memory(&self) -> Result<MemoryInfo> {
        let inner = self.inner.memory()?;
        Ok(match lock(&self.faults).capacity {
            None => inner,
            Some(capacity) => {
                let left = capacity.saturating_sub(lock(&self.counts).live_bytes);
                MemoryInfo { free: inner.free.min(left), total: inner.total.min(capacity) }
            }
        })
    }

    fn alloc(&self, stream: StreamId, bytes: usize) -> Result<DevicePtr> {
        self.reserve(bytes)?;
        let ptr = self.inner.alloc(stream, bytes).inspect_err(|_| self.unreserve(bytes))?;
        if lock(&self.faults).poison {
            // SAFETY: the memory is fresh and this size, and nobody else knows it.
            let filled = unsafe { self.inner.fill(stream, ptr, 0xFF, bytes) };
            if let Err(e) = filled {
                self.unreserve(bytes);
                // SAFETY: as above, and nobody ever will.
                unsafe { self.inner.free(stream, ptr, bytes)? };
                return Err(e);
            }
        }
        Ok(ptr)
    }

    unsafe fn free(&self, stream: StreamId, ptr: DevicePtr, bytes: usize) -> Result<()> {
        if lock(&self.faults).poison {
            // SAFETY: the caller has no more use for the memory, and its work is ordered before this.
            unsafe { self.inner.fill(stream, ptr, 0xA5, bytes)? };
        }
        // SAFETY: by this function's contract.
        unsafe { self.inner.free(stream, ptr, bytes)? };
        let mut counts = lock(&self.counts);
        counts.live_bytes -= bytes;
        counts.frees += 1;
        Ok(())
    }

    fn alloc_pinned(&self, bytes: usize) -> Result<NonNull<u8>> {
        if self.due(Call::Alloc) {
            return Err(Error::driver_out_of_memory(bytes));
        }
        let ptr = self.inner.alloc_pinned(bytes)?;
        self.pinned_bytes.fetch_add(bytes, Relaxed);
        Ok(ptr)
    }

    unsafe fn free_pinned(&self, ptr: NonNull<u8>, bytes: usize) -> Result<()> {
        self.pinned_bytes.fetch_sub(bytes, Relaxed);
        // SAFETY: by this function's contract.
        unsafe { self.inner.free_pinned(ptr, bytes) }
    }

    unsafe fn copy_to_device(
        &self,
        stream: StreamId,
        dst: DevicePtr,
        src: *const u8,
        bytes: usize,
    ) -> Result<()> {
        self.before_copy(stream, bytes)?;
        // SAFETY: by this function's contract.
        unsafe { self.inner.copy_to_device(stream, dst, src, bytes)? };
        lock(&self.counts).bytes_to_device += bytes as u64;
        Ok(())
    }

    unsafe fn copy_to_host(
        &self,
        stream: StreamId,
        dst: *mut u8,
        src: DevicePtr,
        bytes: usize,
    ) -> Result<()> {
        self.before_copy(stream, bytes)?;
        // SAFETY: by this function's contract.
        unsafe { self.inner.copy_to_host(stream, dst, src, bytes)? };
        lock(&self.counts).bytes_to_host += bytes as u64;
        Ok(())
    }

    unsafe fn copy(&self, stream: StreamId, dst: DevicePtr, src: DevicePtr, bytes: usize) -> Result<()> {
        self.before_copy(stream, bytes)?;
        // SAFETY: by this function's contract.
        unsafe { self.inner.copy(stream, dst, src, bytes)? };
        lock(&self.counts).bytes_within += bytes as u64;
        Ok(())
    }

    unsafe fn fill(&self, stream: StreamId, dst: DevicePtr, value: u8, bytes: usize) -> Result<()> {
        self.before_copy(stream, bytes)?;
        // SAFETY: by this function's contract.
        unsafe { self.inner.fill(stream, dst, value, bytes) }
    }

    fn create_stream(&self, priority: Priority) -> Result<StreamId> {
        self.sync()?;
        let stream = self.inner.create_stream(priority)?;
        lock(&self.counts).live_handles += 1;
        Ok(stream)
    }

    unsafe fn destroy_stream(&self, stream: StreamId) -> Result<()> {
        lock(&self.counts).live_handles -= 1;
        // SAFETY: by this function's contract.
        unsafe { self.inner.destroy_stream(stream) }
    }

    fn synchronize(&self, stream: StreamId) -> Result<()> {
        // As on a GPU, the failure shows when the work has ended: nothing is left under way.
        self.inner.synchronize(stream)?;
        self.sync()
    }

    fn create_event(&self, timing: bool) -> Result<EventId> {
        self.sync()?;
        let event = self.inner.create_event(timing)?;
        lock(&self.counts).live_handles += 1;
        Ok(event)
    }

    unsafe fn destroy_event(&self, event: EventId) -> Result<()> {
        lock(&self.counts).live_handles -= 1;
        // SAFETY: by this function's contract.
        unsafe { self.inner.destroy_event(event) }
    }

    fn record(&self, event: EventId, stream: StreamId) -> Result<()> {
        self.sync()?;
        self.inner.record(event, stream)
    }

    fn wait(&self, stream: StreamId, event: EventId) -> Result<()> {
        self.sync()?;
        self.inner.wait(stream, event)
    }

    fn query(&self, event: EventId) -> Result<bool> {
        self.sync()?;
        self.inner.query(event)
    }

    fn synchronize_all(&self) -> Result<()> {
        self.inner.synchronize_all()?;
        self.sync()
    }

    fn synchronize_event(&self, event: EventId) -> Result<()> {
        // As on a GPU, the failure shows when the work has ended: nothing is left under way.
        self.inner.synchronize_event(event)?;
        self.sync()
    }

    fn elapsed(&self, start: EventId, end: EventId) -> Result<Duration> {
        self.sync()?;
        self.inner.elapsed(start, end)
    }

    fn gpu(&self) -> Option<&GpuInfo> {
        self.inner.gpu()
    }

    fn native_stream(&self, stream: StreamId) -> Result<u64> {
        self.inner.native_stream(stream)
    }

    fn compile(&self, program: &Program<'_>) -> Result<Vec<u8>> {
        self.inner.compile(program)
    }

    fn load_module(&self, image: &[u8]) -> Result<ModuleId> {
        self.inner.load_module(image)
    }

    unsafe fn unload_module(&self, module: ModuleId) -> Result<()> {
        // SAFETY: by this function's contract.
        unsafe { self.inner.unload_module(module) }
    }

    fn function(&self, module: ModuleId, name: &str) -> Result<FunctionId> {
        self.inner.function(module, name)
    }

    unsafe fn launch(&self, stream: StreamId, launch: Launch<'_>) -> Result<()> {
        if self.due(Call::Launch) {
            return Err(Error::launch("injected fault: a launch failed"));
        }
        // SAFETY: by this function's contract.
        unsafe { self.inner.launch(stream, launch)? };
        lock(&self.counts).launches += 1;
        Ok(())
    }

    fn is_capturing(&self, stream: StreamId) -> bool {
        self.inner.is_capturing(stream)
    }

    fn begin_capture(&self, stream: StreamId) -> Result<()> {
        self.sync()?;
        self.inner.begin_capture(stream)
    }

    fn end_capture(&self, stream: StreamId) -> Result<GraphId> {
        let graph = self.inner.end_capture(stream)?;
        if let Err(e) = self.sync() {
            // SAFETY: nobody else knows the graph.
            unsafe { self.inner.destroy_graph(graph)? };
            return Err(e);
        }
        lock(&self.counts).live_handles += 1;
        Ok(graph)
    }

    unsafe fn launch_graph(&self, graph: GraphId, stream: StreamId) -> Result<()> {
        if self.due(Call::Launch) {
            return Err(Error::launch("injected fault: a launch failed"));
        }
        // SAFETY: by this function's contract.
        unsafe { self.inner.launch_graph(graph, stream)? };
        lock(&self.counts).launches += 1;
        Ok(())
    }

    unsafe fn destroy_graph(&self, graph: GraphId) -> Result<()> {
        lock(&self.counts).live_handles -= 1;
        // SAFETY: by this function's contract.
        unsafe { self.inner.destroy_graph(graph) }
    }
}
