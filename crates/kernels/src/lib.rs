//! Hand-written kernels, one module an op family.

pub mod cpu;
pub mod cuda;
mod view;

pub use view::{View, ViewMut};
