//! Kernels on the first GPU: against sums in f64, the oracle or the CPU's kernels. Without a GPU the tests pass and say so.

mod attention;
#[path = "../common/mod.rs"]
mod common;
mod gemm;
mod index;
mod map;

use std::sync::Arc;

use bullet_kernels::cuda::Gpu;
use bullet_runtime::{Device, ErrorKind};

/// The kernels of the first GPU; `None`, after a remark, where there is none.
///
/// # Panics
/// There is a GPU that cannot be used.
fn gpu() -> Option<Arc<Gpu>> {
    match Device::parse("cuda:0") {
        Ok(device) => Some(Gpu::of(&device).expect("a GPU has memory for a few bytes")),
        Err(e)
            if matches!(e.kind, ErrorKind::DriverMissing | ErrorKind::NoDevice | ErrorKind::JitMissing) =>
        {
            eprintln!("skipped: {e}");
            None
        }
        Err(e) => panic!("{e}"),
    }
}
