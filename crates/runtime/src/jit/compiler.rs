//! [`Compiler`]: an NVRTC that suits a GPU, and the cache before it.

use std::path::PathBuf;
use std::sync::Arc;

use super::cache::{Cache, Key};
use super::nvrtc::{Nvrtc, Target};
use super::{GpuInfo, Program, Tier};
use crate::error::{Error, Result};
use crate::search;

/// Compiles programs for one GPU.
#[derive(Debug)]
pub struct Compiler {
    nvrtc: Nvrtc,
    target: Target,
    /// CUDA version of the driver.
    driver: (u32, u32),
    cache: Option<Arc<Cache>>,
}

/// How well an NVRTC suits a GPU and its driver; the lower the better.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Fit {
    /// Machine code, and the driver is as new as the compiler, or newer.
    Right,
    /// Machine code by a later minor version, which CUDA promises to run.
    LaterMinor,
    /// PTX, which the driver is new enough to compile on.
    Ptx,
    /// Machine code by a later major version, which may run.
    LaterMajor,
}

impl Fit {
    /// `None` for what cannot run.
    fn of(target: &Target, version: (u32, u32), driver: (u32, u32)) -> Option<Fit> {
        match target {
            Target::Cubin(_) if version <= driver => Some(Fit::Right),
            Target::Cubin(_) if version.0 == driver.0 => Some(Fit::LaterMinor),
            Target::Cubin(_) => Some(Fit::LaterMajor),
            Target::Ptx(_) => (version <= driver).then_some(Fit::Ptx),
        }
    }
}

impl Compiler {
    /// The best NVRTC there is for this GPU, with the cache of this process.
    ///
    /// # Errors
    /// [`JitMissing`](crate::ErrorKind::JitMissing) if there is none, or none for this GPU and driver; a variable of
    /// the cache makes no sense.
    pub fn for_gpu(gpu: &GpuInfo, driver: (u32, u32)) -> Result<Compiler> {
        let cache = Cache::shared()?;
        let (nvrtc, target) = find(gpu, driver, search::nvrtc()?)?;
        Ok(Compiler::new(nvrtc, target, driver, cache))
    }

    /// A compiler by this NVRTC for this target. `driver` is the CUDA version of the driver that will load the results.
    pub fn new(nvrtc: Nvrtc, target: Target, driver: (u32, u32), cache: Option<Arc<Cache>>) -> Compiler {
        Compiler { nvrtc, target, driver, cache }
    }

    /// The compiler itself.
    pub fn nvrtc(&self) -> &Nvrtc {
        &self.nvrtc
    }

    /// What it compiles to.
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// The kernel image of a program, from the cache if it is there.
    ///
    /// # Errors
    /// As [`Nvrtc::compile`].
    pub fn compile(&self, program: &Program<'_>) -> Result<Vec<u8>> {
        let compile = || self.nvrtc.compile(program, &self.target);
        match &self.cache {
            Some(cache) => cache.get_or(&self.key(program), compile),
            None => compile(),
        }
    }

    /// Of all that the image depends on. The program's name is in messages only.
    fn key(&self, program: &Program<'_>) -> Key {
        let options = self.nvrtc.options(program, &self.target).join("\n");
        let versions =
            format!("nvrtc {:?} driver {:?} for {:?}", self.nvrtc.version(), self.driver, self.target);
        Key::new(&[program.source.as_bytes(), options.as_bytes(), versions.as_bytes()])
    }
}

/// The first of the libraries that fits best, and what it is to compile to.
fn find(gpu: &GpuInfo, driver: (u32, u32), candidates: Vec<PathBuf>) -> Result<(Nvrtc, Target)> {
    let mut best: Option<(Fit, Nvrtc, Target)> = None;
    let mut unfit = Vec::new();
    for path in candidates {
        // A name that the system's loader does not know is no news; a file that is no NVRTC is.
        let named = path.parent().is_some_and(|folder| !folder.as_os_str().is_empty());
        let nvrtc = match Nvrtc::open(&path) {
            Ok(nvrtc) => nvrtc,
            Err(e) if named => {
                unfit.push(e.message.trim_start_matches("NVRTC JIT compiler not available: ").to_string());
                continue;
            }
            Err(_) => continue,
        };
        let target = Target::choose(gpu.capability, gpu.tier, nvrtc.archs(), nvrtc.version());
        let fit = target.as_ref().and_then(|target| Fit::of(target, nvrtc.version(), driver));
        match (fit, target) {
            (Some(Fit::Right), Some(target)) => return Ok((nvrtc, target)),
            (Some(fit), Some(target)) => {
                if best.as_ref().is_none_or(|(other, ..)| fit < *other) {
                    best = Some((fit, nvrtc, target));
                }
            }
            _ => unfit.push(format!(
                "{}.{} at {} does not suit this GPU and driver",
                nvrtc.version().0,
                nvrtc.version().1,
                nvrtc.path().display()
            )),
        }
    }
    best.map(|(_, nvrtc, target)| (nvrtc, target)).ok_or_else(|| missing(gpu, driver, &unfit))
}

/// The error of a machine without an NVRTC for its GPU, with the wheel that has one.
fn missing(gpu: &GpuInfo, driver: (u32, u32), unfit: &[String]) -> Error {
    let ((major, minor), wheel) = (gpu.capability, wheel(gpu, driver));
    let found = if unfit.is_empty() { "none was found".into() } else { unfit.join("; ") };
    Error::jit_missing(format!(
        "{found}. For compute capability {major}.{minor} under a driver of CUDA {}.{} install it with `pip install {wheel}`, or \
         set BULLET_NVRTC to the path of libnvrtc.so.",
        driver.0, driver.1
    ))
}

/// The Python package with an NVRTC that suits.
fn wheel(gpu: &GpuInfo, driver: (u32, u32)) -> &'static str {
    // 11 ends with Hopper's baseline, 13 starts with Turing.
    if gpu.capability < (5, 0) || (driver.0 < 12 && gpu.tier != Tier::Sm90a) {
        "nvidia-cuda-nvrtc-cu11"
    } else if driver.0 >= 13 && gpu.capability >= (7, 5) {
        "nvidia-cuda-nvrtc"
    } else {
        "nvidia-cuda-nvrtc-cu12"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gpu(capability: (u32, u32)) -> GpuInfo {
        GpuInfo {
            capability,
            tier: Tier::of(capability).unwrap(),
            multiprocessors: 1,
            shared_per_block: 48 << 10,
            shared_per_multiprocessor: 48 << 10,
            threads_per_multiprocessor: 1024,
            l2_bytes: 0,
        }
    }

    #[test]
    fn machine_code_that_the_driver_knows_comes_first() {
        let (cubin, ptx) = (Target::Cubin("sm_80".into()), Target::Ptx("compute_80".into()));
        assert_eq!(Fit::of(&cubin, (12, 9), (12, 9)), Some(Fit::Right));
        assert_eq!(Fit::of(&cubin, (11, 8), (13, 0)), Some(Fit::Right));
        assert_eq!(Fit::of(&cubin, (12, 9), (12, 2)), Some(Fit::LaterMinor));
        assert_eq!(Fit::of(&ptx, (12, 2), (12, 4)), Some(Fit::Ptx));
        assert_eq!(Fit::of(&ptx, (12, 9), (12, 4)), None);
        assert_eq!(Fit::of(&cubin, (13, 0), (12, 9)), Some(Fit::LaterMajor));
        assert!(Fit::Right < Fit::LaterMinor && Fit::LaterMinor < Fit::Ptx && Fit::Ptx < Fit::LaterMajor);
    }

    #[test]
    fn a_missing_compiler_is_named_with_its_wheel() {
        for (capability, driver, wheel) in [
            ((3, 5), (11, 4), "nvidia-cuda-nvrtc-cu11`"),
            ((6, 1), (12, 4), "nvidia-cuda-nvrtc-cu12`"),
            ((6, 1), (13, 0), "nvidia-cuda-nvrtc-cu12`"),
            ((8, 6), (11, 8), "nvidia-cuda-nvrtc-cu11`"),
            ((9, 0), (13, 0), "nvidia-cuda-nvrtc`"),
        ] {
            let e = find(&gpu(capability), driver, vec!["libnot-there.so".into()]).unwrap_err();
            assert_eq!(e.kind, crate::ErrorKind::JitMissing);
            assert!(e.message.starts_with("NVRTC JIT compiler not available: none was found"), "{e}");
            assert!(e.message.contains(wheel), "{e}");
        }
        let e = find(&gpu((9, 0)), (13, 0), vec!["/nowhere/libnvrtc.so.13".into()]).unwrap_err();
        assert!(e.message.contains("/nowhere/libnvrtc.so.13"), "{e}");
    }
}
