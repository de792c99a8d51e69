//! Hand-written kernels, one module an op family.

pub mod cpu;
mod view;

pub use view::{View, ViewMut};
