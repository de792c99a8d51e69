//! Models on GPUs, in half precision, on devices that are too small, and on two devices at once: one program, as each
//! carries all kernels.

#[path = "../common/mod.rs"]
mod common;
#[path = "../models/mod.rs"]
mod models;

mod gpu;
mod hybrid;
mod memory;
mod precision;
mod scaled;
