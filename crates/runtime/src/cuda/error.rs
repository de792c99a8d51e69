//! Results of the CUDA driver as errors of this crate.

use std::ffi::{CStr, c_char};

use cudarc::driver::sys::{self, CUresult};

use crate::error::{Error, ErrorKind, Result};

/// The result of the driver's function `call`.
pub(super) fn check(result: CUresult, call: &str) -> Result<()> {
    if result == CUresult::CUDA_SUCCESS { Ok(()) } else { Err(error(result, call)) }
}

/// The error of the driver's function `call`, which did not succeed.
#[cold]
pub(super) fn error(result: CUresult, call: &str) -> Error {
    let message = format!("{call} failed: {}", describe(result));
    let kind = match result {
        CUresult::CUDA_ERROR_OUT_OF_MEMORY => ErrorKind::OutOfMemory(Box::default()),
        CUresult::CUDA_ERROR_NO_DEVICE => return Error::no_device(),
        CUresult::CUDA_ERROR_STUB_LIBRARY => return Error::driver_missing(),
        CUresult::CUDA_ERROR_INVALID_DEVICE => ErrorKind::NoDevice,
        CUresult::CUDA_ERROR_NOT_SUPPORTED | CUresult::CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED => {
            ErrorKind::Unsupported
        }
        CUresult::CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES
        | CUresult::CUDA_ERROR_COOPERATIVE_LAUNCH_TOO_LARGE
        | CUresult::CUDA_ERROR_INVALID_CLUSTER_SIZE => ErrorKind::LaunchFailed,
        result if is_sticky(result) => {
            return Error::launch(format!(
                "{message}. A kernel failed, and the CUDA context with it: every later call on this device fails too; \
                 restart the process. compute-sanitizer finds the kernel"
            ));
        }
        _ => ErrorKind::Driver,
    };
    Error::new(kind, message)
}

/// Whether the error ends the context: nothing more can be done in this process.
fn is_sticky(result: CUresult) -> bool {
    matches!(
        result,
        CUresult::CUDA_ERROR_ILLEGAL_ADDRESS
            | CUresult::CUDA_ERROR_LAUNCH_TIMEOUT
            | CUresult::CUDA_ERROR_ASSERT
            | CUresult::CUDA_ERROR_HARDWARE_STACK_ERROR
            | CUresult::CUDA_ERROR_ILLEGAL_INSTRUCTION
            | CUresult::CUDA_ERROR_MISALIGNED_ADDRESS
            | CUresult::CUDA_ERROR_INVALID_ADDRESS_SPACE
            | CUresult::CUDA_ERROR_INVALID_PC
            | CUresult::CUDA_ERROR_LAUNCH_FAILED
            | CUresult::CUDA_ERROR_ECC_UNCORRECTABLE
    )
}

/// `CUDA_ERROR_INVALID_VALUE (1): invalid argument`, in the driver's words.
fn describe(result: CUresult) -> String {
    let words = |ask: unsafe fn(CUresult, *mut *const c_char) -> CUresult| {
        let mut text = std::ptr::null();
        // SAFETY: the driver sets the pointer to a constant string, or leaves it null if it does not know the number.
        let asked = unsafe { ask(result, &mut text) };
        if asked != CUresult::CUDA_SUCCESS || text.is_null() {
            return None;
        }
        // SAFETY: as above.
        Some(unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned())
    };
    let name = words(sys::cuGetErrorName).unwrap_or_else(|| format!("{result:?}"));
    let text = words(sys::cuGetErrorString).unwrap_or_else(|| "the driver has no words for it".into());
    format!("{name} ({}): {text}", result as u32)
}
