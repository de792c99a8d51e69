//! Who makes GPU code of kernels: NVRTC, or Bullet itself, whose PTX the driver compiles.

use std::sync::atomic::{AtomicU8, Ordering};

use bullet_lang::emit::cuda::{CudaOptions, source, symbol};
use bullet_lang::emit::ptx::{Target, Unsupported, module};
use bullet_lang::ir;
use bullet_tensor::Device;
use bullet_tensor::runtime::jit::Program;
use bullet_tensor::runtime::{ErrorKind, ModuleId};

use crate::error::{Error, Result};

/// What compiles kernels for GPUs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum KernelCompiler {
    /// CUDA C++ by NVIDIA's library: the fastest code.
    Nvrtc,
    /// PTX by Bullet: at once, and without NVRTC. What that has not ([`Unsupported`]) goes to NVRTC.
    Bullet,
}

/// The variable that says which.
const VARIABLE: &str = "BULLET_KERNEL_COMPILER";

/// What [`set_kernel_compiler`] was told, as a number; 0 for nothing.
static CHOSEN: AtomicU8 = AtomicU8::new(0);

/// Has kernels that were not launched yet compiled so; with none as the environment variable `BULLET_KERNEL_COMPILER` says, or by NVRTC
/// where there is one.
pub fn set_kernel_compiler(compiler: Option<KernelCompiler>) {
    CHOSEN.store(compiler.map_or(0, |compiler| 1 + compiler as u8), Ordering::Relaxed);
}

impl KernelCompiler {
    /// The one that its name says: `nvrtc` or `bullet`.
    pub fn parse(name: &str) -> Option<KernelCompiler> {
        match name {
            "nvrtc" => Some(KernelCompiler::Nvrtc),
            "bullet" => Some(KernelCompiler::Bullet),
            _ => None,
        }
    }

    /// What was asked for, if anything.
    fn chosen() -> Result<Option<KernelCompiler>> {
        match CHOSEN.load(Ordering::Relaxed) {
            1 => return Ok(Some(KernelCompiler::Nvrtc)),
            2 => return Ok(Some(KernelCompiler::Bullet)),
            _ => {}
        }
        let name = std::env::var_os(VARIABLE).map(|name| name.to_string_lossy().trim().to_string());
        let Some(name) = name.filter(|name| !name.is_empty()) else { return Ok(None) };
        let wrong = || {
            Error::Argument(format!(
                "the environment variable {VARIABLE} is wrong: '{name}'; expected nvrtc or bullet"
            ))
        };
        KernelCompiler::parse(&name).map(Some).ok_or_else(wrong)
    }
}

/// The module of a kernel, loaded.
///
/// # Errors
/// The environment variable makes no sense; neither compiler has the kernel, which names why for both.
pub(crate) fn load(device: &Device, kernel: &ir::Kernel, options: CudaOptions) -> Result<ModuleId> {
    let chosen = KernelCompiler::chosen()?;
    if chosen == Some(KernelCompiler::Bullet) {
        return match by_bullet(device, kernel, options)? {
            Ok(module) => Ok(module),
            Err(unsupported) => by_nvrtc(device, kernel, options).map_err(|e| both(e, &unsupported)),
        };
    }
    match by_nvrtc(device, kernel, options) {
        Err(e) if chosen.is_none() && e.kind == ErrorKind::JitMissing => {
            by_bullet(device, kernel, options)?.map_err(|unsupported| both(e, &unsupported))
        }
        loaded => Ok(loaded?),
    }
}

fn by_nvrtc(
    device: &Device,
    kernel: &ir::Kernel,
    options: CudaOptions,
) -> std::result::Result<ModuleId, bullet_tensor::runtime::Error> {
    let text = source(&[kernel], options);
    device.load(&Program { name: &symbol(&kernel.name), source: &text, minimal: true })
}

fn by_bullet(
    device: &Device,
    kernel: &ir::Kernel,
    options: CudaOptions,
) -> Result<std::result::Result<ModuleId, Unsupported>> {
    // A CPU has none, and its driver says so.
    let target = device.gpu().and_then(|gpu| Target::of(gpu.capability)).unwrap_or(Target::Sm35);
    match module(&[kernel], options, target) {
        Ok(text) => Ok(Ok(device.load_ptx(&text)?)),
        Err(unsupported) => Ok(Err(unsupported)),
    }
}

/// The error of a kernel that neither has.
fn both(mut error: bullet_tensor::runtime::Error, unsupported: &Unsupported) -> Error {
    error.message = format!("{unsupported}; {}", error.message);
    error.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_set_counts() {
        assert_eq!(KernelCompiler::parse("bullet"), Some(KernelCompiler::Bullet));
        assert_eq!(KernelCompiler::parse("nvcc"), None);
    }

    #[test]
    fn an_error_of_both_names_both() {
        let unsupported = Unsupported { kernel: "k".into(), what: "magic".into() };
        let error = both(bullet_tensor::runtime::Error::jit_missing("none was found"), &unsupported);
        let text = error.to_string();
        assert!(text.contains("`k` uses magic") && text.contains("none was found"), "{text}");
    }
}
