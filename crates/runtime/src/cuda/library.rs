//! The CUDA driver's library: loaded once, checked before anything of it is called, and what it says of its devices.
//!
//! The bindings panic where the library or a symbol is missing, so [`library`] looks for both first.

use std::ffi::{c_char, c_int};
use std::sync::OnceLock;

use cudarc::driver::sys::{self, CUdevice, CUdevice_attribute as Attribute};

use super::error::check;
use crate::error::{Error, ErrorKind, Result};
use crate::fork;
use crate::jit::{GpuInfo, Tier};

/// The loaded driver.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Library {
    /// The CUDA version it is for, major and minor.
    pub(crate) version: (u32, u32),
    /// Whether it has `cuLaunchKernelEx` (11.8): clusters.
    pub(super) launch_ex: bool,
    /// Whether it has `cuGraphInstantiateWithFlags` (11.4).
    pub(super) graphs: bool,
}

/// Each symbol that is called without a check, in the oldest driver this works with (470, CUDA 11.4).
const NEEDED: &[&str] = &[
    "cuInit",
    "cuDriverGetVersion",
    "cuDeviceGet",
    "cuDeviceGetCount",
    "cuDeviceGetName",
    "cuDeviceGetAttribute",
    "cuDeviceTotalMem_v2",
    "cuDevicePrimaryCtxRetain",
    "cuDevicePrimaryCtxRelease_v2",
    "cuCtxGetCurrent",
    "cuCtxSetCurrent",
    "cuCtxSynchronize",
    "cuCtxGetStreamPriorityRange",
    "cuThreadExchangeStreamCaptureMode",
    "cuMemGetInfo_v2",
    "cuMemAlloc_v2",
    "cuMemFree_v2",
    "cuMemHostAlloc",
    "cuMemFreeHost",
    "cuMemcpyHtoDAsync_v2",
    "cuMemcpyDtoHAsync_v2",
    "cuMemcpyDtoDAsync_v2",
    "cuMemsetD8Async",
    "cuPointerGetAttribute",
    "cuStreamCreateWithPriority",
    "cuStreamDestroy_v2",
    "cuStreamSynchronize",
    "cuStreamWaitEvent",
    "cuStreamBeginCapture_v2",
    "cuStreamEndCapture",
    "cuEventCreate",
    "cuEventDestroy_v2",
    "cuEventRecord",
    "cuEventQuery",
    "cuEventSynchronize",
    "cuEventElapsedTime",
    "cuModuleLoadDataEx",
    "cuModuleUnload",
    "cuModuleGetFunction",
    "cuFuncGetAttribute",
    "cuFuncSetAttribute",
    "cuLaunchKernel",
    "cuLaunchCooperativeKernel",
    "cuGraphDestroy",
    "cuGraphExecDestroy",
    "cuGraphLaunch",
    "cuGetErrorName",
    "cuGetErrorString",
];

/// The driver, loaded and initialised at the first call.
///
/// # Errors
/// There is none, it is too old, it does not work (no kernel module, say), or it finds no device.
pub(crate) fn library() -> Result<Library> {
    static LIBRARY: OnceLock<(Result<Library>, usize)> = OnceLock::new();
    let (library, generation) = LIBRARY.get_or_init(|| (load(), fork::generation()));
    library.clone().and_then(|library| check_process(*generation).map(|()| library))
}

/// Refuses a child of the process in which CUDA was initialised, whose `fork::generation` is given: its calls would fail, or
/// hang.
pub(super) fn check_process(generation: usize) -> Result<()> {
    if generation == fork::generation() {
        return Ok(());
    }
    Err(Error::unsupported(
        "CUDA cannot be used in a process that was forked after CUDA was initialised; start processes with 'spawn' or \
         'forkserver' (multiprocessing.set_start_method), or fork before a GPU is asked for",
    ))
}

fn load() -> Result<Library> {
    // SAFETY: loading NVIDIA's driver runs its initialisers, which is what any CUDA program does.
    if !unsafe { sys::is_culib_present() } {
        return Err(Error::driver_missing());
    }
    // SAFETY: as above; it is there, so this does not panic.
    let library = unsafe { sys::culib() };
    // SAFETY: the symbol is only looked for, never called with this type.
    let has = |name: &str| unsafe { library.get::<unsafe extern "C" fn()>(name.as_bytes()) }.is_ok();
    if let Some(missing) = NEEDED.iter().find(|name| !has(name)) {
        return Err(Error::new(
            ErrorKind::DriverMissing,
            format!(
                "CUDA driver not detected: the one that is installed is too old, it has no '{missing}'. Install NVIDIA \
                 driver 470 or newer, or use the device 'cpu' (CPU simulation backend)."
            ),
        ));
    }
    let mut version = 0;
    // SAFETY: the symbols exist; the pointer is to a live integer.
    unsafe {
        check(sys::cuInit(0), "cuInit")?;
        check(sys::cuDriverGetVersion(&mut version), "cuDriverGetVersion")?;
    }
    Ok(Library {
        version: (version as u32 / 1000, version as u32 % 1000 / 10),
        launch_ex: has("cuLaunchKernelEx"),
        graphs: has("cuGraphInstantiateWithFlags"),
    })
}

/// The CUDA device that this address belongs to.
///
/// # Errors
/// There is no driver; the address is no memory that CUDA knows.
pub fn ordinal_of(address: u64) -> Result<usize> {
    library()?;
    let mut ordinal: c_int = -1;
    let attribute = sys::CUpointer_attribute::CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL;
    // SAFETY: the library is initialised; this attribute is an int, and the pointer is to a live one.
    let asked = unsafe { sys::cuPointerGetAttribute((&raw mut ordinal).cast(), attribute, address) };
    check(asked, "cuPointerGetAttribute")?;
    usize::try_from(ordinal)
        .map_err(|_| Error::invalid(format!("the address {address:#x} belongs to no GPU")))
}

/// A GPU as the driver describes it, before anything is set up on it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Physical {
    pub(super) device: CUdevice,
    pub(crate) ordinal: usize,
    pub(crate) name: String,
    pub(crate) capability: (u32, u32),
    pub(crate) memory: usize,
    pub(crate) multiprocessors: u32,
}

impl Physical {
    /// All devices.
    ///
    /// # Errors
    /// As [`library`]; there is none.
    pub(crate) fn all() -> Result<Vec<Physical>> {
        library()?;
        let mut count = 0;
        // SAFETY: the library is loaded and initialised; the pointer is to a live integer.
        check(unsafe { sys::cuDeviceGetCount(&mut count) }, "cuDeviceGetCount")?;
        match count {
            ..=0 => Err(Error::no_device()),
            _ => (0..count as usize).map(Physical::read).collect(),
        }
    }

    /// The device of this ordinal.
    ///
    /// # Errors
    /// As [`Physical::all`]; there are not as many.
    pub(crate) fn of(ordinal: usize) -> Result<Physical> {
        let mut all = Physical::all()?;
        if ordinal >= all.len() {
            let last = all.len() - 1;
            let there = if last == 0 { "only cuda:0".into() } else { format!("cuda:0 to cuda:{last}") };
            return Err(Error::new(
                ErrorKind::NoDevice,
                format!("there is no device cuda:{ordinal}; this process sees {there}"),
            ));
        }
        Ok(all.swap_remove(ordinal))
    }

    fn read(ordinal: usize) -> Result<Physical> {
        let (mut device, mut memory) = (0, 0);
        let mut name = [0 as c_char; 256];
        // SAFETY: the library is initialised; all pointers are to live variables, the name's with its length.
        unsafe {
            check(sys::cuDeviceGet(&mut device, ordinal as c_int), "cuDeviceGet")?;
            check(sys::cuDeviceTotalMem_v2(&mut memory, device), "cuDeviceTotalMem")?;
            check(sys::cuDeviceGetName(name.as_mut_ptr(), name.len() as c_int, device), "cuDeviceGetName")?;
        }
        let name: Vec<u8> = name.iter().take_while(|&&c| c != 0).map(|&c| c as u8).collect();
        let number = |what| attribute(device, what);
        Ok(Physical {
            device,
            ordinal,
            name: String::from_utf8_lossy(&name).into_owned(),
            capability: (
                number(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?,
                number(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?,
            ),
            memory,
            multiprocessors: number(Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?,
        })
    }

    /// The tier of the device, or the lower one that `BULLET_TIER` asks for.
    ///
    /// # Errors
    /// The device is too old, or the variable makes no sense for it.
    pub(crate) fn tier(&self) -> Result<Tier> {
        Tier::from_env()
            .and_then(|forced| tier(self.capability, forced))
            .map_err(|e| Error::new(e.kind, format!("cuda:{} ({}): {}", self.ordinal, self.name, e.message)))
    }

    /// What kernels need to know of it.
    pub(crate) fn info(&self) -> Result<GpuInfo> {
        let number = |what| attribute(self.device, what);
        let shared = number(Attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK)?;
        // 0 where a block cannot have more than the default.
        let optin = number(Attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN).unwrap_or(0);
        Ok(GpuInfo {
            capability: self.capability,
            tier: self.tier()?,
            multiprocessors: self.multiprocessors,
            shared_per_block: shared.max(optin),
            shared_per_multiprocessor: number(
                Attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_MULTIPROCESSOR,
            )?,
            threads_per_multiprocessor: number(
                Attribute::CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_MULTIPROCESSOR,
            )?,
            l2_bytes: number(Attribute::CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE)? as usize,
        })
    }
}

fn attribute(device: CUdevice, what: Attribute) -> Result<u32> {
    let mut value = 0;
    // SAFETY: the library is initialised, the device came from it, the pointer is to a live integer.
    check(unsafe { sys::cuDeviceGetAttribute(&mut value, what, device) }, "cuDeviceGetAttribute")?;
    Ok(value.max(0) as u32)
}

fn tier(capability: (u32, u32), forced: Option<Tier>) -> Result<Tier> {
    let (major, minor) = capability;
    let own = Tier::of(capability).ok_or_else(|| {
        Error::unsupported(format!("its compute capability is {major}.{minor}; 3.5 (Kepler GK110) is needed"))
    })?;
    match forced {
        Some(tier) if tier > own => Err(Error::invalid(format!(
            "the environment variable BULLET_TIER is wrong: '{tier}'; a device of compute capability {major}.{minor} can be \
             {own} at most"
        ))),
        forced => Ok(forced.unwrap_or(own)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tier_can_be_forced_lower_only() {
        assert_eq!(tier((9, 0), None).unwrap(), Tier::Sm90a);
        assert_eq!(tier((9, 0), Some(Tier::Sm35)).unwrap(), Tier::Sm35);
        assert_eq!(tier((12, 0), Some(Tier::Sm80)).unwrap(), Tier::Sm80);
        for (capability, forced) in [((7, 0), Tier::Sm80), ((12, 0), Tier::Sm90a)] {
            let e = tier(capability, Some(forced)).unwrap_err();
            assert!(e.message.contains("BULLET_TIER") && e.message.contains(&format!("'{forced}'")), "{e}");
        }
        let old = tier((3, 0), None).unwrap_err();
        assert!(old.kind == ErrorKind::Unsupported && old.message.contains("3.0"), "{old}");
    }
}
