//! CPU kernels over plain slices: SIMD chosen at run time, threads from one pool.

pub mod convert;
pub mod copy;
pub mod gemm;
pub mod map;
pub mod math;
pub mod par;
pub mod reduce;
pub mod simd;
mod space;
