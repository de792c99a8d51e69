//! Tensors: strided views of device memory, the ops on them, and reverse-mode differentiation.
//!
//! [`dispatch::run`] is the waist: every op that computes goes through it, as data ([`bullet_ops::Op`]), is checked by
//! `Op::infer`, allocated, run by the device's kernels and recorded on the [tape]. Methods of [`Tensor`] are thin.
//!
//! ```
//! use bullet_tensor::{Device, Tensor};
//! let x = Tensor::from_slice(&[1.0f32, 2.0, 3.0], &[3], &Device::cpu())?.requires_grad()?;
//! x.square()?.sum(&[], false)?.backward()?;
//! assert_eq!(x.grad().unwrap().to_vec::<f32>()?, [2.0, 4.0, 6.0]);
//! # Ok::<(), bullet_tensor::Error>(())
//! ```

mod access;
mod adjoint;
mod arrays;
mod capture;
mod constants;
mod custom;
pub mod decode;
pub mod dispatch;
mod error;
mod index;
mod ops;
pub mod optim;
mod order;
mod random;
mod recompute;
mod rescue;
mod shadow;
mod storage;
pub mod tape;
mod tensor;
mod views;
mod wait;

pub use access::access;
pub use bullet_kernels::cpu::{par, simd, stop};
pub use bullet_ops::{Activation, ConvSpec, DType, Element, Op, Shape};
/// Devices and drivers, for who brings a device of his own.
pub use bullet_runtime as runtime;
pub use bullet_runtime::{Device, DeviceKind, Graph};
pub use custom::custom;
pub use error::{Error, Result};
pub use index::Index;
pub use order::Unique;
pub use random::{Distribution, Generator};
pub use recompute::recompute;
pub use rescue::rescued;
pub use tape::{Backward, grad_enabled, no_grad, set_grad_enabled, with_grad};
pub use tensor::Tensor;
pub use views::Slice;
pub use wait::synchronize;
