//! Modules, functions and kernel launches.

use std::ffi::{CString, c_int, c_void};
use std::mem::MaybeUninit;

use cudarc::driver::sys::{
    self, CUfunction, CUfunction_attribute as Attribute, CUjit_option, CUlaunchAttribute,
    CUlaunchAttributeID as LaunchAttribute, CUlaunchConfig, CUresult, CUstream,
};

use super::CudaDriver;
use super::error::{check, error};
use crate::driver::{FunctionId, KernelArgs, LaunchConfig, ModuleId};
use crate::error::{Error, Result};

/// Shared memory that every block may have without being asked for.
const DEFAULT_SHARED: u32 = 48 << 10;
/// Arguments whose addresses fit on the stack.
const FEW: usize = 48;
/// Blocks of a cluster that every device with clusters can do.
const PORTABLE_CLUSTER: u32 = 8;

impl CudaDriver {
    pub(super) fn load(&self, image: &[u8]) -> Result<ModuleId> {
        self.enter()?;
        let mut log = vec![0u8; 4096];
        let mut options =
            [CUjit_option::CU_JIT_ERROR_LOG_BUFFER, CUjit_option::CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES];
        // An option's value is the pointer itself: here an address, there a number.
        let mut values = [log.as_mut_ptr().cast::<c_void>(), std::ptr::without_provenance_mut(log.len())];
        let mut module = std::ptr::null_mut();
        // The driver reads a size from the image's header, and PTX up to its 0 byte.
        // SAFETY: all pointers are to live variables; the log is as long as the option says.
        let result = unsafe {
            sys::cuModuleLoadDataEx(
                &mut module,
                image.as_ptr().cast(),
                options.len() as u32,
                options.as_mut_ptr(),
                values.as_mut_ptr(),
            )
        };
        if result == CUresult::CUDA_SUCCESS {
            // SAFETY: the driver made it.
            return Ok(unsafe { ModuleId::from_raw(module.expose_provenance() as u64) });
        }
        let mut e = error(result, "cuModuleLoadDataEx");
        let text: Vec<u8> = log.into_iter().take_while(|&b| b != 0).collect();
        let text = String::from_utf8_lossy(&text);
        if !text.trim().is_empty() {
            e.message += &format!("\n{}", text.trim_end());
        }
        Err(e)
    }

    /// The entry point, allowed all the dynamic shared memory that its static memory leaves.
    pub(super) fn find_function(&self, module: ModuleId, name: &str) -> Result<FunctionId> {
        self.enter()?;
        let c_name = CString::new(name)
            .map_err(|_| Error::invalid(format!("'{name:?}' is no name of a kernel: it has a 0 byte")))?;
        let mut function = std::ptr::null_mut();
        // SAFETY: the module came from `load`; the name ends in 0.
        let result = unsafe {
            sys::cuModuleGetFunction(
                &mut function,
                std::ptr::with_exposed_provenance_mut(module.raw() as usize),
                c_name.as_ptr(),
            )
        };
        if result == CUresult::CUDA_ERROR_NOT_FOUND {
            return Err(Error::invalid(format!(
                "the module has no kernel '{name}'; is it extern \"C\" and __global__?"
            )));
        }
        check(result, "cuModuleGetFunction")?;
        // Set once here and not at a launch: a limit by itself changes nothing, and launches stay one call.
        if self.gpu.shared_per_block > DEFAULT_SHARED {
            let mut fixed: c_int = 0;
            // SAFETY: the function has just been found; the pointer is to a live integer.
            unsafe {
                let shared = Attribute::CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES;
                check(sys::cuFuncGetAttribute(&mut fixed, shared, function), "cuFuncGetAttribute")?;
                let most = self.gpu.shared_per_block as c_int - fixed;
                let dynamic = Attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
                check(sys::cuFuncSetAttribute(function, dynamic, most.max(0)), "cuFuncSetAttribute")?;
            }
        }
        // SAFETY: the driver made it.
        Ok(unsafe { FunctionId::from_raw(function.expose_provenance() as u64) })
    }

    /// Launches a kernel.
    ///
    /// # Safety
    /// As [`Driver::launch`](crate::Driver::launch).
    pub(super) unsafe fn launch_kernel(
        &self,
        stream: CUstream,
        function: FunctionId,
        config: &LaunchConfig,
        args: &KernelArgs,
    ) -> Result<()> {
        self.enter()?;
        let function: CUfunction = std::ptr::with_exposed_provenance_mut(function.raw() as usize);
        with_pointers(args, |params| {
            let blocks: u32 = config.cluster.iter().product();
            // Also where launches are not captured: of small kernels that overlap the host enqueues more.
            let (call, result) = if config.overlaps && blocks == 1 && self.takes_attributes() {
                let id = LaunchAttribute::CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION;
                let mut attribute = no_attribute();
                attribute.id = id;
                attribute.value.programmaticStreamSerializationAllowed = 1;
                // SAFETY: by this function's contract.
                ("cuLaunchKernelEx", unsafe { launch_ex(stream, function, config, &mut [attribute], params) })
            } else if blocks != 1 {
                // SAFETY: by this function's contract.
                ("cuLaunchKernelEx", unsafe { self.launch_clusters(stream, function, config, params)? })
            } else {
                let ([x, y, z], [bx, by, bz], shared) = (config.grid, config.block, config.shared_bytes);
                // SAFETY: by this function's contract; a pointer for each argument.
                unsafe {
                    if config.cooperative {
                        let launch = sys::cuLaunchCooperativeKernel;
                        let result = launch(function, x, y, z, bx, by, bz, shared, stream, params);
                        ("cuLaunchCooperativeKernel", result)
                    } else {
                        let none = std::ptr::null_mut();
                        let launch = sys::cuLaunchKernel;
                        let result = launch(function, x, y, z, bx, by, bz, shared, stream, params, none);
                        ("cuLaunchKernel", result)
                    }
                }
            };
            if result == CUresult::CUDA_SUCCESS { Ok(()) } else { Err(self.refused(result, call, config)) }
        })
    }

    /// A launch with an attribute for clusters.
    ///
    /// # Safety
    /// As [`launch_kernel`](CudaDriver::launch_kernel); `params` are its arguments.
    unsafe fn launch_clusters(
        &self,
        stream: CUstream,
        function: CUfunction,
        config: &LaunchConfig,
        params: *mut *mut c_void,
    ) -> Result<CUresult> {
        if !self.takes_attributes() {
            return Err(Error::unsupported(format!(
                "cannot launch clusters of {:?} blocks on {}: that needs compute capability 9.0 and a driver for CUDA 11.8",
                config.cluster, self.info.name
            )));
        }
        let mut attributes = [no_attribute(); 2];
        let [x, y, z] = config.cluster;
        attributes[0].id = LaunchAttribute::CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION;
        attributes[0].value.clusterDim = sys::CUlaunchAttributeValue_union__bindgen_ty_1 { x, y, z };
        attributes[1].id = LaunchAttribute::CU_LAUNCH_ATTRIBUTE_COOPERATIVE;
        attributes[1].value.cooperative = c_int::from(config.cooperative);
        if x * y * z > PORTABLE_CLUSTER {
            let large = Attribute::CU_FUNC_ATTRIBUTE_NON_PORTABLE_CLUSTER_SIZE_ALLOWED;
            // SAFETY: the caller vouches for the function.
            check(unsafe { sys::cuFuncSetAttribute(function, large, 1) }, "cuFuncSetAttribute")?;
        }
        // SAFETY: by this function's contract.
        Ok(unsafe { launch_ex(stream, function, config, &mut attributes, params) })
    }

    /// Whether launches may have attributes for what Hopper brought: clusters, and launches that overlap.
    fn takes_attributes(&self) -> bool {
        self.library.launch_ex && self.gpu.capability >= (9, 0)
    }

    /// The error of a launch, with its shape if that is what may be wrong.
    #[cold]
    fn refused(&self, result: CUresult, call: &str, config: &LaunchConfig) -> Error {
        let mut e = error(result, call);
        if result == CUresult::CUDA_ERROR_INVALID_VALUE {
            e.kind = crate::ErrorKind::LaunchFailed;
        }
        if e.kind == crate::ErrorKind::LaunchFailed {
            e.message += &format!(
                " (grid {:?}, block {:?}, {} bytes of shared memory of {}, cluster {:?})",
                config.grid, config.block, config.shared_bytes, self.gpu.shared_per_block, config.cluster
            );
        }
        e
    }
}

/// An attribute to be filled in: the driver wants what is unused to be 0.
fn no_attribute() -> CUlaunchAttribute {
    // SAFETY: integers only, for which zeroes are values.
    unsafe { MaybeUninit::zeroed().assume_init() }
}

/// `cuLaunchKernelEx`.
///
/// # Safety
/// The driver has it. As [`launch_kernel`](CudaDriver::launch_kernel); `params` are its arguments.
unsafe fn launch_ex(
    stream: CUstream,
    function: CUfunction,
    config: &LaunchConfig,
    attributes: &mut [CUlaunchAttribute],
    params: *mut *mut c_void,
) -> CUresult {
    let launch = CUlaunchConfig {
        gridDimX: config.grid[0],
        gridDimY: config.grid[1],
        gridDimZ: config.grid[2],
        blockDimX: config.block[0],
        blockDimY: config.block[1],
        blockDimZ: config.block[2],
        sharedMemBytes: config.shared_bytes,
        hStream: stream,
        attrs: attributes.as_mut_ptr(),
        numAttrs: attributes.len() as u32,
    };
    // SAFETY: the caller vouches for function and arguments; the attributes live behind the call.
    unsafe { sys::cuLaunchKernelEx(&launch, function, params, std::ptr::null_mut()) }
}

/// Calls `launch` with an array of pointers to each argument, as the driver takes them.
fn with_pointers<R>(args: &KernelArgs, launch: impl FnOnce(*mut *mut c_void) -> R) -> R {
    let start = args.bytes().as_ptr().cast_mut();
    // Inside the arguments' bytes: offsets are made where bytes are pushed.
    let pointer = |&offset: &u32| start.wrapping_add(offset as usize).cast::<c_void>();
    let offsets = args.offsets();
    if offsets.len() <= FEW {
        let mut few = [std::ptr::null_mut(); FEW];
        few.iter_mut().zip(offsets).for_each(|(to, offset)| *to = pointer(offset));
        launch(few.as_mut_ptr())
    } else {
        let mut many: Vec<*mut c_void> = offsets.iter().map(pointer).collect();
        launch(many.as_mut_ptr())
    }
}
