//! Hand-written kernels, one module an op family.

pub mod cpu;
