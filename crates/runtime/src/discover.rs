//! What this machine has to compute with: every device, and what is missing of those that cannot be used.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock};

use crate::cuda::{CudaDriver, Physical, library};
use crate::device::Device;
use crate::driver::DeviceKind;
use crate::error::{Error, ErrorKind, Result};
use crate::jit::{Compiler, Program, Tier};

/// A GPU that the CUDA driver lists.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GpuReport {
    /// Its number: `cuda:0`.
    pub ordinal: usize,
    /// The product's name.
    pub name: String,
    /// Compute capability, major and minor.
    pub capability: (u32, u32),
    /// Bytes of its memory.
    pub memory: usize,
    /// Streaming multiprocessors.
    pub multiprocessors: u32,
    /// The tier of its kernels; an error if it is too old, or `BULLET_TIER` makes no sense for it.
    pub tier: Result<Tier>,
    /// What compiles for it, or why nothing can.
    pub jit: Result<JitReport>,
}

impl GpuReport {
    /// Why it cannot be used; `None` if it can.
    pub fn unusable(&self) -> Option<&Error> {
        self.tier.as_ref().err().or(self.jit.as_ref().err())
    }
}

/// The NVRTC chosen for a GPU.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct JitReport {
    /// Major and minor.
    pub version: (u32, u32),
    /// Where it was found, or the name that the system's loader knew.
    pub path: PathBuf,
    /// What it compiles to: `sm_90a`, or a virtual architecture such as `compute_90`.
    pub target: String,
}

/// What CUDA there is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CudaReport {
    /// The CUDA version that the driver is for, major and minor.
    pub driver: (u32, u32),
    /// All GPUs that this process may see.
    pub gpus: Vec<GpuReport>,
}

/// All GPUs, and what is missing to use them. Sets nothing up on any of them.
///
/// # Errors
/// There is no CUDA driver, it does not work, or it lists no GPU.
pub fn gpus() -> Result<CudaReport> {
    let driver = library()?.version;
    let gpus = Physical::all()?.iter().map(|physical| report(physical, driver)).collect();
    Ok(CudaReport { driver, gpus })
}

fn report(physical: &Physical, driver: (u32, u32)) -> GpuReport {
    let jit = physical.info().and_then(|gpu| {
        let compiler = Compiler::for_gpu(&gpu, driver)?;
        let nvrtc = compiler.nvrtc();
        Ok(JitReport {
            version: nvrtc.version(),
            path: nvrtc.path().to_path_buf(),
            target: compiler.target().to_string(),
        })
    });
    GpuReport {
        ordinal: physical.ordinal,
        name: physical.name.clone(),
        capability: physical.capability,
        memory: physical.memory,
        multiprocessors: physical.multiprocessors,
        tier: physical.tier(),
        jit,
    }
}

/// A kernel that does nothing: if it compiles and loads, others will.
const PROBE: Program<'_> =
    Program { name: "probe", source: "extern \"C\" __global__ void probe() {}\n", minimal: false };

impl Device {
    /// The GPU of this ordinal; the same device at every call. Its settings come from the environment
    /// (see [`DeviceOptions::from_env`](crate::DeviceOptions::from_env)) at the first.
    ///
    /// # Errors
    /// There is no CUDA driver or no such GPU, the GPU is too old, its memory is full already, or a setting makes no
    /// sense. A missing NVRTC is an error when the first kernel is needed.
    pub fn cuda(ordinal: usize) -> Result<Device> {
        static DEVICES: OnceLock<Mutex<HashMap<usize, Device>>> = OnceLock::new();
        let devices = DEVICES.get_or_init(Mutex::default);
        // Held while a device is set up: a second thread waits for the first instead of setting it up, too.
        let mut devices = devices.lock().unwrap_or_else(|e| e.into_inner());
        if let Some(device) = devices.get(&ordinal) {
            return Ok(device.clone());
        }
        let options = crate::DeviceOptions::from_env(DeviceKind::Cuda(ordinal))?;
        let device = Device::with_options(Arc::new(CudaDriver::new(ordinal)?), options);
        devices.insert(ordinal, device.clone());
        Ok(device)
    }

    /// The first GPU that can be used, else the CPU, with the reason: a kernel has been compiled for the GPU, or found in
    /// the cache, and loaded.
    ///
    /// # Errors
    /// A setting in the environment makes no sense.
    pub fn auto() -> Result<(Device, Option<Error>)> {
        // Probing loads or even compiles a kernel: a GPU is probed until it is found usable, and not again.
        static FOUND: OnceLock<Device> = OnceLock::new();
        if let Some(device) = FOUND.get() {
            return Ok((device.clone(), None));
        }
        let found = Device::find()?;
        if let (device, None) = &found {
            let _ = FOUND.set(device.clone());
        }
        Ok(found)
    }

    fn find() -> Result<(Device, Option<Error>)> {
        let count = match Physical::all() {
            Ok(all) => all.len(),
            Err(e) => return Ok((Device::cpu(), Some(e))),
        };
        let mut reason = None;
        for ordinal in 0..count {
            match Device::cuda(ordinal).and_then(|device| device.probe().map(|()| device)) {
                Ok(device) => return Ok((device, None)),
                Err(e) if e.kind == ErrorKind::InvalidArgument => return Err(e),
                Err(e) => reason = reason.or(Some(e)),
            }
        }
        Ok((Device::cpu(), reason.or_else(|| Some(Error::no_device()))))
    }

    fn probe(&self) -> Result<()> {
        let module = self.load(&PROBE)?;
        self.driver().function(module, PROBE.name)?;
        // SAFETY: the kernel was found and never launched.
        unsafe { self.driver().unload_module(module) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn auto_is_the_cpu_where_there_is_no_gpu_and_says_why() {
        let (device, reason) = Device::auto().unwrap();
        match gpus() {
            Ok(report) if report.gpus.iter().any(|gpu| gpu.unusable().is_none()) => {
                assert!(device.gpu().is_some() && reason.is_none());
            }
            Ok(_) => assert!(device == Device::cpu() && reason.is_some()),
            Err(e) => assert_eq!((device, reason), (Device::cpu(), Some(e))),
        }
    }
}
