//! The CUDA driver: NVIDIA GPUs from compute capability 3.5 on, by the driver API alone, loaded at run time.
//!
//! **Context.** The device's primary context, which other CUDA libraries in the process share. It is made current in
//! whichever thread calls: asking what is current costs next to nothing, and stays right where another library changes
//! it behind our back.
//!
//! **Memory** comes by `cuMemAlloc`, not from CUDA's stream-ordered pool: the device's own [`pool`](crate::Device) is
//! above, so that allocations are rare, and an address that a graph captured has to outlive the capture. A free waits
//! for its stream first.
//!
//! **Capture** is in relaxed mode: nothing that other threads do, nor allocating, disturbs it.

pub mod cublaslt;

mod error;
mod graph;
mod launch;
mod library;

use std::ffi::{c_int, c_uint, c_void};
use std::ptr::NonNull;
use std::time::Duration;

use cudarc::driver::sys::{self, CUcontext, CUevent, CUresult, CUstream, CUstreamCaptureMode};

use crate::capture::Captures;
use crate::driver::{
    DeviceKind, DevicePtr, Driver, DriverInfo, EventId, FunctionId, GraphId, Launch, MemoryInfo, ModuleId,
    Priority, StreamId,
};
use crate::error::{Error, Result};
use crate::fork;
use crate::jit::{Compiler, GpuInfo, Program};

use error::{check, error};
pub use library::ordinal_of;
pub(crate) use library::{Library, Physical, library};

/// An NVIDIA GPU.
#[derive(Debug)]
pub struct CudaDriver {
    info: DriverInfo,
    gpu: GpuInfo,
    library: Library,
    device: c_int,
    context: CUcontext,
    /// Of the process that the context belongs to.
    generation: usize,
    /// What [`StreamId::DEFAULT`] means.
    default: CUstream,
    /// Of streams, by [`Priority`].
    priorities: [c_int; 3],
    captures: Captures,
    /// Why there is none, if there is none: kernel images can be loaded even so.
    compiler: Result<Compiler>,
}

// SAFETY: the driver API may be called from any thread for any handle; the context and stream live as long as this.
unsafe impl Send for CudaDriver {}
// SAFETY: as above; what is mutable here is behind locks.
unsafe impl Sync for CudaDriver {}

impl CudaDriver {
    /// The GPU of this ordinal, among those that `CUDA_VISIBLE_DEVICES` leaves.
    ///
    /// # Errors
    /// There is no driver, it does not work or is too old; there is no such device, or it is too old; `BULLET_TIER`,
    /// `BULLET_CUBLASLT` or a variable of the kernel cache makes no sense. A missing NVRTC is an error of
    /// [`compile`](Driver::compile) only.
    pub fn new(ordinal: usize) -> Result<CudaDriver> {
        let library = library()?;
        crate::search::check_cublaslt()?;
        let physical = Physical::of(ordinal)?;
        let gpu = physical.info()?;
        // NVRTC takes 10 to 100 ms to load, a context 300: side by side.
        let (compiler, context) = std::thread::scope(|scope| {
            let compiler = scope.spawn(|| Compiler::for_gpu(&gpu, library.version));
            let context = retain(physical.device);
            let compiler = compiler.join();
            (compiler.unwrap_or_else(|_| Err(Error::jit_missing("loading it panicked"))), context)
        });
        let mut driver = CudaDriver {
            info: DriverInfo {
                name: physical.name,
                kind: DeviceKind::Cuda(ordinal),
                capability: Some(physical.capability),
                processors: physical.multiprocessors as usize,
                host_memory: false,
            },
            gpu,
            library,
            device: physical.device,
            context: context?,
            generation: fork::generation(),
            default: std::ptr::null_mut(),
            priorities: [0; 3],
            captures: Captures::default(),
            compiler,
        };
        // A setting that makes no sense is not to be found out at the first kernel.
        if let Err(e) = &driver.compiler
            && e.kind == crate::ErrorKind::InvalidArgument
        {
            return Err(e.clone());
        }
        driver.enter()?;
        let (mut least, mut greatest) = (0, 0);
        // SAFETY: the context is current; both pointers are to live integers.
        let range = unsafe { sys::cuCtxGetStreamPriorityRange(&mut least, &mut greatest) };
        check(range, "cuCtxGetStreamPriorityRange")?;
        driver.priorities = [least, (least + greatest) / 2, greatest];
        driver.default = driver.new_stream(Priority::Normal)?;
        Ok(driver)
    }

    /// What compiles for this device, or why nothing can.
    pub fn compiler(&self) -> Result<&Compiler> {
        self.compiler.as_ref().map_err(Clone::clone)
    }

    /// The CUDA version that the installed driver is for, major and minor.
    pub fn driver_version(&self) -> (u32, u32) {
        self.library.version
    }

    /// Makes the device's context current in this thread.
    fn enter(&self) -> Result<()> {
        library::check_process(self.generation)?;
        let mut current = std::ptr::null_mut();
        // SAFETY: the library is initialised; the pointer is to a live variable.
        check(unsafe { sys::cuCtxGetCurrent(&mut current) }, "cuCtxGetCurrent")?;
        if current == self.context {
            return Ok(());
        }
        // SAFETY: the context is retained as long as the driver lives.
        check(unsafe { sys::cuCtxSetCurrent(self.context) }, "cuCtxSetCurrent")
    }

    fn stream(&self, stream: StreamId) -> CUstream {
        match stream {
            StreamId::DEFAULT => self.default,
            stream => std::ptr::with_exposed_provenance_mut(stream.raw() as usize),
        }
    }

    fn new_stream(&self, priority: Priority) -> Result<CUstream> {
        self.enter()?;
        let mut stream = std::ptr::null_mut();
        let flags = sys::CUstream_flags::CU_STREAM_NON_BLOCKING as c_uint;
        let priority = self.priorities[priority as usize];
        // SAFETY: the context is current; the pointer is to a live variable.
        let made = unsafe { sys::cuStreamCreateWithPriority(&mut stream, flags, priority) };
        check(made, "cuStreamCreateWithPriority")?;
        Ok(stream)
    }

    /// Gives memory back at once.
    ///
    /// # Safety
    /// It came from `cuMemAlloc`, and no work uses it any more.
    unsafe fn release(&self, ptr: DevicePtr) -> Result<()> {
        let _relaxed = Relaxed::new();
        // SAFETY: by this function's contract.
        check(unsafe { sys::cuMemFree_v2(ptr.0) }, "cuMemFree")
    }
}

fn event(event: EventId) -> CUevent {
    std::ptr::with_exposed_provenance_mut(event.raw() as usize)
}

fn retain(device: c_int) -> Result<CUcontext> {
    let mut context = std::ptr::null_mut();
    // SAFETY: the device came from the initialised library; the pointer is to a live variable.
    check(unsafe { sys::cuDevicePrimaryCtxRetain(&mut context, device) }, "cuDevicePrimaryCtxRetain")?;
    Ok(context)
}

/// Allows this thread to allocate while another thread of the process captures in CUDA's strict mode.
struct Relaxed(CUstreamCaptureMode);

impl Relaxed {
    fn new() -> Relaxed {
        let mut mode = CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_RELAXED;
        // SAFETY: the library is initialised. If it refuses, nothing has changed and the allocation says what is wrong.
        unsafe { sys::cuThreadExchangeStreamCaptureMode(&mut mode) };
        Relaxed(mode)
    }
}

impl Drop for Relaxed {
    fn drop(&mut self) {
        // SAFETY: as above.
        unsafe { sys::cuThreadExchangeStreamCaptureMode(&mut self.0) };
    }
}

impl Drop for CudaDriver {
    fn drop(&mut self) {
        if self.enter().is_err() {
            return; // The process is ending, or the context is lost: nothing is left to give back.
        }
        // SAFETY: nobody else has the stream, and the context was retained once by this.
        unsafe {
            if !self.default.is_null() {
                sys::cuStreamSynchronize(self.default);
                sys::cuStreamDestroy_v2(self.default);
            }
            sys::cuDevicePrimaryCtxRelease_v2(self.device);
        }
    }
}

impl Driver for CudaDriver {
    fn info(&self) -> &DriverInfo {
        &self.info
    }

    fn memory(&self) -> Result<MemoryInfo> {
        self.enter()?;
        let (mut free, mut total) = (0, 0);
        // SAFETY: the context is current; both pointers are to live integers.
        check(unsafe { sys::cuMemGetInfo_v2(&mut free, &mut total) }, "cuMemGetInfo")?;
        Ok(MemoryInfo { free, total })
    }

    fn alloc(&self, _: StreamId, bytes: usize) -> Result<DevicePtr> {
        self.enter()?;
        let _relaxed = Relaxed::new();
        let mut ptr = 0;
        // SAFETY: the context is current; the pointer is to a live integer.
        match unsafe { sys::cuMemAlloc_v2(&mut ptr, bytes) } {
            CUresult::CUDA_SUCCESS => Ok(DevicePtr(ptr)),
            CUresult::CUDA_ERROR_OUT_OF_MEMORY => Err(Error::driver_out_of_memory(bytes)),
            other => Err(error(other, "cuMemAlloc")),
        }
    }

    unsafe fn free(&self, stream: StreamId, ptr: DevicePtr, bytes: usize) -> Result<()> {
        self.enter()?;
        if self.captures.keep(stream, (ptr, bytes)) {
            return Ok(());
        }
        // Failed work has ended, too; its error shows again at the next synchronisation.
        // SAFETY: the stream is alive by this function's contract, and is not captured.
        unsafe { sys::cuStreamSynchronize(self.stream(stream)) };
        // SAFETY: all work that uses the memory is on the stream or was ordered before it, and that has passed.
        unsafe { self.release(ptr) }
    }

    fn alloc_pinned(&self, bytes: usize) -> Result<NonNull<u8>> {
        self.enter()?;
        let _relaxed = Relaxed::new();
        let mut ptr: *mut c_void = std::ptr::null_mut();
        // SAFETY: the context is current; the pointer is to a live variable.
        match unsafe { sys::cuMemHostAlloc(&mut ptr, bytes, sys::CU_MEMHOSTALLOC_PORTABLE) } {
            CUresult::CUDA_SUCCESS => {}
            CUresult::CUDA_ERROR_OUT_OF_MEMORY => return Err(Error::driver_out_of_memory(bytes)),
            other => return Err(error(other, "cuMemHostAlloc")),
        }
        let ptr = NonNull::new(ptr.cast::<u8>()).ok_or_else(|| Error::driver_out_of_memory(bytes))?;
        // SAFETY: this many bytes were allocated just now. Pages of the system are zero, but Rust does not know.
        unsafe { ptr.write_bytes(0, bytes) };
        Ok(ptr)
    }

    unsafe fn free_pinned(&self, ptr: NonNull<u8>, _: usize) -> Result<()> {
        self.enter()?;
        let _relaxed = Relaxed::new();
        // SAFETY: by this function's contract.
        check(unsafe { sys::cuMemFreeHost(ptr.as_ptr().cast()) }, "cuMemFreeHost")
    }

    unsafe fn copy_to_device(
        &self,
        stream: StreamId,
        dst: DevicePtr,
        src: *const u8,
        bytes: usize,
    ) -> Result<()> {
        self.enter()?;
        // SAFETY: by this function's contract.
        let result = unsafe { sys::cuMemcpyHtoDAsync_v2(dst.0, src.cast(), bytes, self.stream(stream)) };
        check(result, "cuMemcpyHtoDAsync")
    }

    unsafe fn copy_to_host(
        &self,
        stream: StreamId,
        dst: *mut u8,
        src: DevicePtr,
        bytes: usize,
    ) -> Result<()> {
        self.enter()?;
        // SAFETY: by this function's contract.
        let result = unsafe { sys::cuMemcpyDtoHAsync_v2(dst.cast(), src.0, bytes, self.stream(stream)) };
        check(result, "cuMemcpyDtoHAsync")
    }

    unsafe fn copy(&self, stream: StreamId, dst: DevicePtr, src: DevicePtr, bytes: usize) -> Result<()> {
        self.enter()?;
        // SAFETY: by this function's contract.
        let result = unsafe { sys::cuMemcpyDtoDAsync_v2(dst.0, src.0, bytes, self.stream(stream)) };
        check(result, "cuMemcpyDtoDAsync")
    }

    unsafe fn fill(&self, stream: StreamId, dst: DevicePtr, value: u8, bytes: usize) -> Result<()> {
        self.enter()?;
        // SAFETY: by this function's contract.
        let result = unsafe { sys::cuMemsetD8Async(dst.0, value, bytes, self.stream(stream)) };
        check(result, "cuMemsetD8Async")
    }

    fn create_stream(&self, priority: Priority) -> Result<StreamId> {
        let stream = self.new_stream(priority)?;
        // SAFETY: the driver made it.
        Ok(unsafe { StreamId::from_raw(stream.expose_provenance() as u64) })
    }

    unsafe fn destroy_stream(&self, stream: StreamId) -> Result<()> {
        self.enter()?;
        // SAFETY: by this function's contract.
        check(unsafe { sys::cuStreamDestroy_v2(self.stream(stream)) }, "cuStreamDestroy")
    }

    fn synchronize(&self, stream: StreamId) -> Result<()> {
        self.captures.may_wait_for(stream)?;
        self.enter()?;
        // SAFETY: handles of streams are valid until destroyed, which is unsafe.
        check(unsafe { sys::cuStreamSynchronize(self.stream(stream)) }, "cuStreamSynchronize")
    }

    fn synchronize_all(&self) -> Result<()> {
        if self.captures.is_capturing(StreamId::DEFAULT) {
            return Err(Error::invalid("the default stream is being captured; wait after that"));
        }
        self.enter()?;
        // SAFETY: the context is current.
        check(unsafe { sys::cuCtxSynchronize() }, "cuCtxSynchronize")
    }

    fn create_event(&self, timing: bool) -> Result<EventId> {
        self.enter()?;
        let flags = match timing {
            true => sys::CUevent_flags::CU_EVENT_DEFAULT,
            false => sys::CUevent_flags::CU_EVENT_DISABLE_TIMING,
        };
        let mut event = std::ptr::null_mut();
        // SAFETY: the context is current; the pointer is to a live variable.
        check(unsafe { sys::cuEventCreate(&mut event, flags as c_uint) }, "cuEventCreate")?;
        // SAFETY: the driver made it.
        Ok(unsafe { EventId::from_raw(event.expose_provenance() as u64) })
    }

    unsafe fn destroy_event(&self, id: EventId) -> Result<()> {
        self.enter()?;
        self.captures.forget(id);
        // SAFETY: by this function's contract.
        check(unsafe { sys::cuEventDestroy_v2(event(id)) }, "cuEventDestroy")
    }

    fn record(&self, id: EventId, stream: StreamId) -> Result<()> {
        self.enter()?;
        // SAFETY: handles are valid until destroyed, which is unsafe.
        check(unsafe { sys::cuEventRecord(event(id), self.stream(stream)) }, "cuEventRecord")?;
        self.captures.recorded(id, stream);
        Ok(())
    }

    fn wait(&self, stream: StreamId, id: EventId) -> Result<()> {
        self.enter()?;
        // SAFETY: handles are valid until destroyed, which is unsafe.
        let result = unsafe { sys::cuStreamWaitEvent(self.stream(stream), event(id), 0) };
        check(result, "cuStreamWaitEvent")?;
        self.captures.waits(stream, id);
        Ok(())
    }

    fn query(&self, id: EventId) -> Result<bool> {
        self.captures.may_wait_for_event(id)?;
        self.enter()?;
        // SAFETY: handles are valid until destroyed, which is unsafe.
        match unsafe { sys::cuEventQuery(event(id)) } {
            CUresult::CUDA_SUCCESS => Ok(true),
            CUresult::CUDA_ERROR_NOT_READY => Ok(false),
            other => Err(error(other, "cuEventQuery")),
        }
    }

    fn synchronize_event(&self, id: EventId) -> Result<()> {
        self.captures.may_wait_for_event(id)?;
        self.enter()?;
        // SAFETY: handles are valid until destroyed, which is unsafe.
        check(unsafe { sys::cuEventSynchronize(event(id)) }, "cuEventSynchronize")
    }

    fn elapsed(&self, start: EventId, end: EventId) -> Result<Duration> {
        self.captures.may_wait_for_event(start)?;
        self.captures.may_wait_for_event(end)?;
        self.enter()?;
        let mut milliseconds = 0f32;
        // SAFETY: handles are valid until destroyed, which is unsafe; the pointer is to a live number.
        match unsafe { sys::cuEventElapsedTime(&mut milliseconds, event(start), event(end)) } {
            CUresult::CUDA_SUCCESS => Ok(Duration::from_secs_f64(f64::from(milliseconds.max(0.0)) / 1e3)),
            CUresult::CUDA_ERROR_NOT_READY => {
                Err(Error::invalid("this event has not been reached; synchronize it first"))
            }
            CUresult::CUDA_ERROR_INVALID_HANDLE => {
                Err(Error::invalid("this event was made without timing, or was never recorded"))
            }
            other => Err(error(other, "cuEventElapsedTime")),
        }
    }

    fn gpu(&self) -> Option<&GpuInfo> {
        Some(&self.gpu)
    }

    fn native_stream(&self, stream: StreamId) -> Result<u64> {
        self.enter()?;
        Ok(self.stream(stream).expose_provenance() as u64)
    }

    fn compile(&self, program: &Program<'_>) -> Result<Vec<u8>> {
        self.compiler()?.compile(program)
    }

    fn load_module(&self, image: &[u8]) -> Result<ModuleId> {
        self.load(image)
    }

    unsafe fn unload_module(&self, module: ModuleId) -> Result<()> {
        self.enter()?;
        let module = std::ptr::with_exposed_provenance_mut(module.raw() as usize);
        // SAFETY: by this function's contract.
        check(unsafe { sys::cuModuleUnload(module) }, "cuModuleUnload")
    }

    fn function(&self, module: ModuleId, name: &str) -> Result<FunctionId> {
        self.find_function(module, name)
    }

    unsafe fn launch(&self, stream: StreamId, launch: Launch<'_>) -> Result<()> {
        match launch {
            Launch::Host(_) => Err(Error::unsupported(
                "a CUDA device runs kernels, not host closures; launch this on the CPU device",
            )),
            Launch::Kernel { function, config, args } => {
                // SAFETY: by this function's contract.
                unsafe { self.launch_kernel(self.stream(stream), function, &config, args) }
            }
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
