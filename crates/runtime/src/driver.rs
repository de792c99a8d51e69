//! The [`Driver`] trait: what the runtime needs of a device, and nothing above it.
//!
//! Pool, streams and scheduler are written against this trait alone; [`host`](crate::host) implements it with host
//! memory and threads, [`fault`](crate::fault) wraps any other. The semantics are CUDA's, so that a CUDA driver is a
//! thin mapping: streams are FIFO queues, calls that take a stream return before the work is done, an error of the
//! work itself surfaces at a later synchronisation.
//!
//! **Handles** ([`StreamId`], [`EventId`], [`ModuleId`], [`FunctionId`], [`GraphId`]) are what the driver says they are: an index,
//! or a `CUstream`. They are made by a driver, or by an unsafe `from_raw`; destroying is unsafe because a handle must
//! not be used afterwards.
//!
//! **Threads.** Every method may be called from any thread (a CUDA driver makes its context current first). Two
//! threads that enqueue on one stream at once get some order; who needs a certain order enqueues from one thread.

use std::fmt;
use std::ptr::NonNull;
use std::sync::Arc;
use std::time::Duration;

use crate::error::{Error, Result};
use crate::jit::{GpuInfo, Program};

/// The address of device memory; on a host driver, a host address.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DevicePtr(pub u64);

impl DevicePtr {
    /// The address `bytes` further on.
    pub const fn offset(self, bytes: usize) -> DevicePtr {
        DevicePtr(self.0 + bytes as u64)
    }
}

impl fmt::Debug for DevicePtr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

macro_rules! handle {
    ($($(#[$doc:meta])* $name:ident;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        pub struct $name(u64);

        impl $name {
            /// The driver's own number for it.
            pub const fn raw(self) -> u64 {
                self.0
            }

            /// The handle with this number.
            ///
            /// # Safety
            /// The driver it is given to made this number, and has not destroyed what it names.
            pub const unsafe fn from_raw(raw: u64) -> $name {
                $name(raw)
            }
        }
    )*};
}
handle! {
    /// A queue of work, done in order.
    StreamId;
    /// A point in a stream's work.
    EventId;
    /// A loaded kernel image.
    ModuleId;
    /// An entry point of a module; lives as long as its module.
    FunctionId;
    /// Captured work, to be launched as a whole.
    GraphId;
}

impl StreamId {
    /// The stream that every driver has from the start and that is never destroyed.
    ///
    /// On the host driver it runs work at once, on the calling thread; a CUDA driver maps it to a stream of its own
    /// that does not synchronise with others (not to CUDA's legacy default stream).
    pub const DEFAULT: StreamId = StreamId(0);
}

/// Which device a driver drives.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum DeviceKind {
    /// The host's processor and memory.
    Cpu,
    /// The CUDA device of this ordinal.
    Cuda(usize),
}

impl fmt::Display for DeviceKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DeviceKind::Cpu => f.write_str("cpu"),
            DeviceKind::Cuda(ordinal) => write!(f, "cuda:{ordinal}"),
        }
    }
}

/// What does not change about a device.
#[derive(Clone, PartialEq, Debug)]
pub struct DriverInfo {
    /// The product's name, as its vendor writes it.
    pub name: String,
    /// Which device it is.
    pub kind: DeviceKind,
    /// CUDA compute capability, major and minor; `None` for a CPU.
    pub capability: Option<(u32, u32)>,
    /// Streaming multiprocessors of a GPU, usable cores of a CPU.
    pub processors: usize,
    /// Whether a [`DevicePtr`] is an address that the host can read and write.
    pub host_memory: bool,
}

/// Memory of a device, in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MemoryInfo {
    /// What nobody uses now.
    pub free: usize,
    /// All that this process could ever use.
    pub total: usize,
}

/// How urgent a stream's work is; a hint that preempts nothing.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub enum Priority {
    /// Work that may wait.
    Low,
    /// Most work.
    #[default]
    Normal,
    /// Work somebody waits for.
    High,
}

/// Shape of a kernel launch; `..LaunchConfig::default()` fills in what is seldom set.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LaunchConfig {
    /// Blocks along x, y, z.
    pub grid: [u32; 3],
    /// Threads of a block along x, y, z.
    pub block: [u32; 3],
    /// Dynamic shared memory of a block, in bytes; the driver raises the function's limit where it must.
    pub shared_bytes: u32,
    /// Blocks of a cluster along x, y, z (compute capability 9.0); all 1 for none.
    pub cluster: [u32; 3],
    /// Whether all blocks must be resident at once, for grid-wide synchronisation.
    pub cooperative: bool,
    /// Whether the kernel waits for the one before by itself (`griddepcontrol.wait`, compute capability 9.0), so that the
    /// driver may start its blocks early. Without clusters and cooperation only.
    pub overlaps: bool,
}

impl Default for LaunchConfig {
    fn default() -> LaunchConfig {
        LaunchConfig {
            grid: [1; 3],
            block: [1; 3],
            shared_bytes: 0,
            cluster: [1; 3],
            cooperative: false,
            overlaps: false,
        }
    }
}

/// The arguments of a kernel, packed as its parameters lie in memory: each at its own alignment.
///
/// Serves `cuLaunchKernel` either way: as one buffer, or as an array of pointers to each argument.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct KernelArgs {
    bytes: Vec<u8>,
    offsets: Vec<u32>,
}

/// A value that a kernel may take as a parameter.
pub trait KernelArg: Copy {
    /// Appends the value to `args`.
    fn push_to(self, args: &mut KernelArgs);
}

impl KernelArgs {
    /// No arguments.
    pub fn new() -> KernelArgs {
        KernelArgs::default()
    }

    /// Appends an argument at its natural alignment.
    pub fn push(&mut self, arg: impl KernelArg) -> &mut KernelArgs {
        arg.push_to(self);
        self
    }

    /// Appends a struct given as its bytes, at this alignment (a power of two): a tensor map is 128 bytes at 64.
    ///
    /// # Panics
    /// If `align` is not a power of two.
    pub fn push_bytes(&mut self, value: &[u8], align: usize) -> &mut KernelArgs {
        assert!(align.is_power_of_two(), "the alignment of a kernel argument is a power of two, not {align}");
        self.bytes.resize(self.bytes.len().next_multiple_of(align), 0);
        self.offsets.push(self.bytes.len() as u32);
        self.bytes.extend_from_slice(value);
        self
    }

    /// Forgets the arguments and keeps the memory, for the next launch.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.offsets.clear();
    }

    /// All arguments with the gaps between them.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Where each argument starts in [`bytes`](KernelArgs::bytes).
    pub fn offsets(&self) -> &[u32] {
        &self.offsets
    }
}

macro_rules! kernel_arg {
    ($($ty:ty),*) => {$(
        impl KernelArg for $ty {
            fn push_to(self, args: &mut KernelArgs) {
                args.push_bytes(&self.to_ne_bytes(), size_of::<$ty>());
            }
        }
    )*};
}
kernel_arg!(u8, i8, u16, i16, u32, i32, u64, i64, f32, f64);

impl KernelArg for DevicePtr {
    fn push_to(self, args: &mut KernelArgs) {
        self.0.push_to(args);
    }
}

/// A closure that a host driver runs in its place in the stream; it may run more than once if a graph is replayed.
///
/// As CUDA's host functions, it must not call the driver, allocate from the device or wait for streams: work it waits
/// for may be behind it in the queue.
pub type HostFn = Arc<dyn Fn() + Send + Sync>;

/// What to run on a stream.
#[derive(Clone)]
pub enum Launch<'a> {
    /// A closure, on a driver whose memory is host memory.
    Host(HostFn),
    /// A kernel, on a GPU.
    Kernel {
        /// Which one.
        function: FunctionId,
        /// In what shape.
        config: LaunchConfig,
        /// With what arguments; copied before the call returns.
        args: &'a KernelArgs,
    },
}

impl fmt::Debug for Launch<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Launch::Host(_) => f.write_str("Launch::Host"),
            Launch::Kernel { function, config, .. } => write!(f, "Launch::Kernel({function:?}, {config:?})"),
        }
    }
}

/// A device: memory, copies, streams, events and launches.
///
/// Sizes are in bytes. Where a method takes a stream, the work is done in the order of that stream, after the call
/// has returned for all the caller knows.
pub trait Driver: Send + Sync + fmt::Debug {
    /// What does not change about the device.
    fn info(&self) -> &DriverInfo;

    /// How much memory there is, and how much is free now.
    fn memory(&self) -> Result<MemoryInfo>;

    /// Allocates `bytes` (not 0) of device memory: aligned to 256 on a GPU, to 64 or more on a host, and initialised
    /// in Rust's sense if the host can read it.
    ///
    /// Work that is enqueued on `stream` later may use it; others after they have been ordered behind `stream`
    /// (`cuMemAllocAsync`; a driver that allocates at once allows more than that).
    ///
    /// # Errors
    /// [`OutOfMemory`](crate::ErrorKind::OutOfMemory) with only the request filled in.
    fn alloc(&self, stream: StreamId, bytes: usize) -> Result<DevicePtr>;

    /// Frees memory when `stream` has done the work it has now.
    ///
    /// # Safety
    /// `ptr` came from [`alloc`](Driver::alloc) of this driver with these `bytes` and was not freed since; all work
    /// that uses it is on `stream` or ordered before this point of it.
    unsafe fn free(&self, stream: StreamId, ptr: DevicePtr, bytes: usize) -> Result<()>;

    /// Allocates `bytes` (not 0) of host memory that the device reads and writes at full speed (page-locked, where
    /// there is such a thing); initialised in Rust's sense, aligned to 64 or more.
    fn alloc_pinned(&self, bytes: usize) -> Result<NonNull<u8>>;

    /// Frees pinned memory, at once.
    ///
    /// # Safety
    /// `ptr` came from [`alloc_pinned`](Driver::alloc_pinned) of this driver with these `bytes`; no copy from or to
    /// it is under way.
    unsafe fn free_pinned(&self, ptr: NonNull<u8>, bytes: usize) -> Result<()>;

    /// Copies host memory to device memory.
    ///
    /// # Safety
    /// Both ranges are valid, and `src` is not written, until the stream has done this; nothing else touches `dst`
    /// without being ordered before or after it.
    unsafe fn copy_to_device(
        &self,
        stream: StreamId,
        dst: DevicePtr,
        src: *const u8,
        bytes: usize,
    ) -> Result<()>;

    /// Copies device memory to host memory.
    ///
    /// # Safety
    /// Both ranges are valid, and `dst` is not touched, until the stream has done this; nothing writes `src` without
    /// being ordered before or after it.
    unsafe fn copy_to_host(&self, stream: StreamId, dst: *mut u8, src: DevicePtr, bytes: usize)
    -> Result<()>;

    /// Copies within the device's memory.
    ///
    /// # Safety
    /// Both ranges are valid until the stream has done this, do not overlap, and are used by nothing that is not
    /// ordered before or after it.
    unsafe fn copy(&self, stream: StreamId, dst: DevicePtr, src: DevicePtr, bytes: usize) -> Result<()>;

    /// Sets every byte of a range of device memory.
    ///
    /// # Safety
    /// The range is valid until the stream has done this, and used by nothing that is not ordered before or after it.
    unsafe fn fill(&self, stream: StreamId, dst: DevicePtr, value: u8, bytes: usize) -> Result<()>;

    /// Makes a stream.
    fn create_stream(&self, priority: Priority) -> Result<StreamId>;

    /// Destroys a stream; the work it has is still done.
    ///
    /// # Safety
    /// The stream is not [`StreamId::DEFAULT`] and is not used again.
    unsafe fn destroy_stream(&self, stream: StreamId) -> Result<()>;

    /// Blocks until the stream has done all work it has now.
    ///
    /// # Errors
    /// Whatever went wrong in that work, such as a kernel that failed.
    fn synchronize(&self, stream: StreamId) -> Result<()>;

    /// Waits for all work on the device, on streams of others too.
    ///
    /// # Errors
    /// As for [`Driver::synchronize`].
    fn synchronize_all(&self) -> Result<()> {
        self.synchronize(StreamId::DEFAULT)
    }

    /// Makes an event; `timing` lets [`elapsed`](Driver::elapsed) use it, and costs a little.
    fn create_event(&self, timing: bool) -> Result<EventId>;

    /// Destroys an event; waits that were enqueued for it stay as they are.
    ///
    /// # Safety
    /// The event is not used again.
    unsafe fn destroy_event(&self, event: EventId) -> Result<()>;

    /// Puts the event behind the work that the stream has now; forgets where it was before.
    fn record(&self, event: EventId, stream: StreamId) -> Result<()>;

    /// Makes later work of the stream wait for where the event is recorded now (for nothing, if it never was). Does
    /// not block the caller, unless the stream runs on the calling thread.
    fn wait(&self, stream: StreamId, event: EventId) -> Result<()>;

    /// Whether the event has been reached (or was never recorded).
    fn query(&self, event: EventId) -> Result<bool>;

    /// Blocks until the event has been reached.
    fn synchronize_event(&self, event: EventId) -> Result<()>;

    /// Time from one event to another, on the device's clock.
    ///
    /// # Errors
    /// If either lacks timing, or has not been reached.
    fn elapsed(&self, start: EventId, end: EventId) -> Result<Duration>;

    /// Facts about the GPU; `None` on a host driver.
    fn gpu(&self) -> Option<&GpuInfo> {
        None
    }

    /// The address that libraries for this device know a stream by. The device is made current in the calling thread, for
    /// a library that is called next.
    ///
    /// # Errors
    /// There are no libraries for such a device.
    fn native_stream(&self, _stream: StreamId) -> Result<u64> {
        Err(Error::unsupported(format!("{} has no streams that libraries know", self.info().kind)))
    }

    /// The kernel image of a program: from the disk cache, or compiled.
    ///
    /// # Errors
    /// NVRTC is missing or refuses the source; this is no GPU.
    fn compile(&self, program: &Program<'_>) -> Result<Vec<u8>> {
        Err(Error::unsupported(format!(
            "{} runs closures, not CUDA programs such as {}",
            self.info().kind,
            program.name
        )))
    }

    /// Loads a kernel image (a cubin, or PTX ending in a 0 byte).
    fn load_module(&self, image: &[u8]) -> Result<ModuleId>;

    /// Unloads a module.
    ///
    /// # Safety
    /// No function of the module runs or is used again.
    unsafe fn unload_module(&self, module: ModuleId) -> Result<()>;

    /// The module's entry point of this name.
    fn function(&self, module: ModuleId, name: &str) -> Result<FunctionId>;

    /// Runs a closure or kernel in its place in the stream.
    ///
    /// # Safety
    /// The arguments are what the closure or kernel expects, and the memory it uses is valid until the stream has
    /// done it and used by nothing that is not ordered before or after it.
    unsafe fn launch(&self, stream: StreamId, launch: Launch<'_>) -> Result<()>;

    /// Whether work enqueued on `stream` is recorded into a graph instead of done.
    fn is_capturing(&self, _stream: StreamId) -> bool {
        false
    }

    /// From now on, records what is enqueued on `stream` (and on streams that wait for its events) instead of doing
    /// it, until [`end_capture`](Driver::end_capture). Meanwhile these streams and their events cannot be waited for;
    /// allocations succeed as ever, and memory that is freed stays allocated as long as the graph.
    ///
    /// # Errors
    /// The stream is captured already, or the driver has no graphs.
    fn begin_capture(&self, _stream: StreamId) -> Result<()> {
        Err(no_graphs(self.info()))
    }

    /// Ends the capture that began on `stream`; the graph can be launched at once. On an error there is no graph, but
    /// the stream works as before.
    ///
    /// # Errors
    /// The stream is not captured, something that cannot be captured was asked of it, or another stream that took
    /// part was not joined.
    fn end_capture(&self, _stream: StreamId) -> Result<GraphId> {
        Err(no_graphs(self.info()))
    }

    /// Does all captured work in its place in `stream`, which may be another than the one it was captured on.
    ///
    /// # Safety
    /// As for [`launch`](Driver::launch), for all that the graph does; the memory, modules and arguments it was
    /// captured with still exist.
    unsafe fn launch_graph(&self, _graph: GraphId, _stream: StreamId) -> Result<()> {
        Err(no_graphs(self.info()))
    }

    /// Destroys a graph, and frees what was freed during its capture, for which it waits for the device.
    ///
    /// # Safety
    /// The graph is not used again.
    unsafe fn destroy_graph(&self, _graph: GraphId) -> Result<()> {
        Err(no_graphs(self.info()))
    }
}

fn no_graphs(info: &DriverInfo) -> Error {
    Error::unsupported(format!("{} ({}) cannot capture work into graphs", info.kind, info.name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_lie_at_their_alignment() {
        let mut args = KernelArgs::new();
        args.push(1u8).push(DevicePtr(0x1234)).push(2.5f32).push_bytes(&[7; 128], 64).push(-1i32);
        assert_eq!(args.offsets(), [0, 8, 16, 64, 192]);
        assert_eq!(args.bytes()[8..16], 0x1234u64.to_ne_bytes());
        assert_eq!(args.bytes()[16..20], 2.5f32.to_ne_bytes());
        assert_eq!(args.bytes().len(), 196);
        args.clear();
        assert!(args.bytes().is_empty() && args.offsets().is_empty());
    }
}
