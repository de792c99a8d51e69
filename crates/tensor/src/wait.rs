//! Waiting for a device, and what its kernels reported meanwhile.

use bullet_kernels::cuda::Gpu;
use bullet_runtime::Device;

use crate::error::Result;

/// Waits for all work of a device.
///
/// # Errors
/// What its kernels found wrong since somebody last read a tensor or waited: told once, and forgotten; what the device reports.
pub fn synchronize(device: &Device) -> Result<()> {
    device.synchronize()?;
    check_faults(device)
}

/// What the kernels of a device found wrong, which somebody has waited for.
pub(crate) fn check_faults(device: &Device) -> Result<()> {
    match device.gpu() {
        Some(_) => Ok(Gpu::of(device)?.check_faults()?),
        None => Ok(()),
    }
}
