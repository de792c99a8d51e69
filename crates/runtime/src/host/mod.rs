//! The host driver: device memory is host memory, streams are threads.
//!
//! The default stream runs its work at once on the calling thread, which is what eager CPU tensors use. Streams made by
//! [`Driver::create_stream`] are worker threads with a FIFO queue: asynchronous as CUDA's are, so that a missing
//! synchronisation gives wrong results here as it would there (the CPU simulation mode). Work can be captured into graphs
//! (`graph.rs`).

mod graph;
mod memory;
mod stream;

use std::collections::HashMap;
use std::hash::Hash;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, RwLock};
use std::time::Duration;

use crate::capture::Captures;
use crate::driver::{
    DeviceKind, DevicePtr, Driver, DriverInfo, EventId, FunctionId, GraphId, Launch, MemoryInfo, ModuleId,
    Priority, StreamId,
};
use crate::error::{Error, Result};
use crate::hardware;

use graph::Graphs;
use stream::{Event, Mark, Task, Worker};

/// The CPU as a device.
#[derive(Debug)]
pub struct HostDriver {
    info: DriverInfo,
    total_memory: usize,
    next_id: AtomicU64,
    /// The default stream's thread, if it has one.
    default: Option<Worker>,
    streams: RwLock<HashMap<StreamId, Arc<Worker>>>,
    events: RwLock<HashMap<EventId, Arc<Event>>>,
    captures: Captures,
    graphs: Graphs,
}

impl HostDriver {
    /// A driver whose default stream runs on the calling thread.
    pub fn new() -> HostDriver {
        let cpu = hardware::cpu();
        HostDriver {
            info: DriverInfo {
                name: cpu.model.clone(),
                kind: DeviceKind::Cpu,
                capability: None,
                processors: cpu.usable_cores,
                host_memory: true,
            },
            total_memory: cpu.memory_total,
            next_id: AtomicU64::new(1),
            default: None,
            streams: RwLock::default(),
            events: RwLock::default(),
            captures: Captures::default(),
            graphs: Graphs::default(),
        }
    }

    /// A driver whose default stream is a thread too, so that all of its work is asynchronous, as on a GPU.
    ///
    /// # Errors
    /// If the thread cannot be started.
    pub fn simulation() -> Result<HostDriver> {
        let mut driver = HostDriver::new();
        driver.default = Some(Worker::start("bullet-stream-0")?);
        Ok(driver)
    }

    fn id(&self) -> u64 {
        self.next_id.fetch_add(1, Ordering::Relaxed)
    }

    /// Runs `task` in its place in `stream`, or records it if the stream is captured.
    fn enqueue(&self, stream: StreamId, task: Task) -> Result<()> {
        if let Some(origin) = self.captures.origin(stream) {
            self.graphs.record(origin, task);
            return Ok(());
        }
        if stream == StreamId::DEFAULT {
            return match &self.default {
                None => task.run(),
                Some(worker) => worker.enqueue(task),
            };
        }
        look_up(&self.streams, stream, "stream")?.enqueue(task)
    }

    fn event(&self, event: EventId) -> Result<Arc<Event>> {
        look_up(&self.events, event, "event")
    }
}

impl Default for HostDriver {
    fn default() -> HostDriver {
        HostDriver::new()
    }
}

fn look_up<K: Hash + Eq + Copy + std::fmt::Debug, V>(
    table: &RwLock<HashMap<K, Arc<V>>>,
    key: K,
    what: &str,
) -> Result<Arc<V>> {
    let table = table.read().unwrap_or_else(|e| e.into_inner());
    table.get(&key).cloned().ok_or_else(|| Error::invalid(format!("this driver has no {what} {key:?}")))
}

fn remove<K: Hash + Eq + Copy + std::fmt::Debug, V>(
    table: &RwLock<HashMap<K, Arc<V>>>,
    key: K,
    what: &str,
) -> Result<Arc<V>> {
    let mut table = table.write().unwrap_or_else(|e| e.into_inner());
    table.remove(&key).ok_or_else(|| Error::invalid(format!("this driver has no {what} {key:?}")))
}

fn insert<K: Hash + Eq, V>(table: &RwLock<HashMap<K, Arc<V>>>, key: K, value: V) {
    table.write().unwrap_or_else(|e| e.into_inner()).insert(key, Arc::new(value));
}

const NO_KERNELS: &str = "the CPU device runs host closures, not kernel images; launch this on a CUDA device";

impl Driver for HostDriver {
    fn info(&self) -> &DriverInfo {
        &self.info
    }

    fn memory(&self) -> Result<MemoryInfo> {
        Ok(MemoryInfo { free: hardware::memory_available(), total: self.total_memory })
    }

    fn alloc(&self, _: StreamId, bytes: usize) -> Result<DevicePtr> {
        memory::alloc(bytes).map(|p| DevicePtr(p.as_ptr() as u64))
    }

    unsafe fn free(&self, stream: StreamId, ptr: DevicePtr, bytes: usize) -> Result<()> {
        if self.captures.keep(stream, (ptr, bytes)) {
            return Ok(());
        }
        self.enqueue(stream, Task::Free { ptr, bytes })
    }

    fn alloc_pinned(&self, bytes: usize) -> Result<NonNull<u8>> {
        memory::alloc(bytes)
    }

    unsafe fn free_pinned(&self, ptr: NonNull<u8>, bytes: usize) -> Result<()> {
        // SAFETY: by this function's contract.
        unsafe { memory::free(ptr, bytes) };
        Ok(())
    }

    unsafe fn copy_to_device(
        &self,
        stream: StreamId,
        dst: DevicePtr,
        src: *const u8,
        bytes: usize,
    ) -> Result<()> {
        self.enqueue(stream, Task::Copy { dst, src: DevicePtr(src as u64), bytes })
    }

    unsafe fn copy_to_host(
        &self,
        stream: StreamId,
        dst: *mut u8,
        src: DevicePtr,
        bytes: usize,
    ) -> Result<()> {
        self.enqueue(stream, Task::Copy { dst: DevicePtr(dst as u64), src, bytes })
    }

    unsafe fn copy(&self, stream: StreamId, dst: DevicePtr, src: DevicePtr, bytes: usize) -> Result<()> {
        self.enqueue(stream, Task::Copy { dst, src, bytes })
    }

    unsafe fn fill(&self, stream: StreamId, dst: DevicePtr, value: u8, bytes: usize) -> Result<()> {
        self.enqueue(stream, Task::Fill { dst, value, bytes })
    }

    /// The operating system schedules the threads; `_priority` changes nothing here.
    fn create_stream(&self, _priority: Priority) -> Result<StreamId> {
        let id = self.id();
        // SAFETY: the number is new, and enters the table here.
        let stream = unsafe { StreamId::from_raw(id) };
        insert(&self.streams, stream, Worker::start(&format!("bullet-stream-{id}"))?);
        Ok(stream)
    }

    unsafe fn destroy_stream(&self, stream: StreamId) -> Result<()> {
        remove(&self.streams, stream, "stream").map(drop)
    }

    fn synchronize(&self, stream: StreamId) -> Result<()> {
        self.captures.may_wait_for(stream)?;
        match (stream, &self.default) {
            (StreamId::DEFAULT, None) => Ok(()),
            (StreamId::DEFAULT, Some(worker)) => worker.synchronize(),
            _ => look_up(&self.streams, stream, "stream")?.synchronize(),
        }
    }

    fn create_event(&self, timing: bool) -> Result<EventId> {
        // SAFETY: the number is new, and enters the table here.
        let event = unsafe { EventId::from_raw(self.id()) };
        insert(&self.events, event, Event::new(timing));
        Ok(event)
    }

    unsafe fn destroy_event(&self, event: EventId) -> Result<()> {
        self.captures.forget(event);
        remove(&self.events, event, "event").map(drop)
    }

    fn record(&self, event: EventId, stream: StreamId) -> Result<()> {
        let (id, event, mark) = (event, self.event(event)?, Arc::new(Mark::default()));
        self.captures.recorded(id, stream);
        if self.captures.is_captured(id) {
            return Ok(());
        }
        self.enqueue(stream, Task::Record(Arc::clone(&mark)))?;
        event.set(mark);
        Ok(())
    }

    fn wait(&self, stream: StreamId, event: EventId) -> Result<()> {
        if self.captures.is_captured(event) {
            self.captures.waits(stream, event);
            return Ok(());
        }
        if self.captures.is_capturing(stream) {
            return Err(Error::invalid("a captured stream cannot wait for an event outside of its capture"));
        }
        match self.event(event)?.mark() {
            Some(mark) => {
                if stream == StreamId::DEFAULT && self.default.is_none() {
                    stream::may_block()?;
                }
                self.enqueue(stream, Task::Wait(mark))
            }
            None => Ok(()),
        }
    }

    fn query(&self, event: EventId) -> Result<bool> {
        self.captures.may_wait_for_event(event)?;
        Ok(self.event(event)?.mark().is_none_or(|mark| mark.reached().is_some()))
    }

    fn synchronize_event(&self, event: EventId) -> Result<()> {
        self.captures.may_wait_for_event(event)?;
        stream::may_block()?;
        if let Some(mark) = self.event(event)?.mark() {
            mark.wait();
        }
        Ok(())
    }

    fn elapsed(&self, start: EventId, end: EventId) -> Result<Duration> {
        Ok(self.event(end)?.time()?.saturating_duration_since(self.event(start)?.time()?))
    }

    fn load_module(&self, _: &[u8]) -> Result<ModuleId> {
        Err(Error::unsupported(NO_KERNELS))
    }

    unsafe fn unload_module(&self, module: ModuleId) -> Result<()> {
        Err(Error::invalid(format!("this driver has no module {module:?}")))
    }

    fn function(&self, module: ModuleId, _: &str) -> Result<FunctionId> {
        Err(Error::invalid(format!("this driver has no module {module:?}")))
    }

    unsafe fn launch(&self, stream: StreamId, launch: Launch<'_>) -> Result<()> {
        match launch {
            Launch::Host(f) => self.enqueue(stream, Task::Host(f)),
            Launch::Kernel { .. } => Err(Error::unsupported(NO_KERNELS)),
        }
    }

    fn is_capturing(&self, stream: StreamId) -> bool {
        self.captures.is_capturing(stream)
    }

    fn begin_capture(&self, stream: StreamId) -> Result<()> {
        self.begin(stream)
    }

    fn end_capture(&self, stream: StreamId) -> Result<GraphId> {
        self.end(stream)
    }

    unsafe fn launch_graph(&self, graph: GraphId, stream: StreamId) -> Result<()> {
        // SAFETY: by this function's contract.
        unsafe { self.replay(graph, stream) }
    }

    unsafe fn destroy_graph(&self, graph: GraphId) -> Result<()> {
        // SAFETY: by this function's contract.
        unsafe { self.drop_graph(graph) }
    }
}
