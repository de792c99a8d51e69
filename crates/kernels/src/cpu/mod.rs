//! CPU kernels over plain slices: SIMD chosen at run time, threads from one pool.

pub mod par;
pub mod simd;
