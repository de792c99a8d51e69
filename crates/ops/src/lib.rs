//! Leaf crate: what can be computed, said once.
//!
//! [`DType`] and [`Shape`] are the only ones of the workspace. [`Op`] is everything a device can be asked to do, as data;
//! its [`table`] row gives name, documentation, expression, adjoint, test domain and tolerance, and [`Op::infer`] gives
//! the shapes and dtypes of its results. Nothing here knows a device.

mod dtype;
mod error;
pub mod expr;
pub mod fits;
mod infer;
mod op;
pub mod random;
pub mod reference;
pub mod scalar;
mod shape;
mod split;
pub mod table;

pub use dtype::{Compute, DType, Element, Float, Kind};
pub use error::{Error, ErrorKind, Result};
pub use infer::Meta;
pub use op::{Activation, AttentionSpec, ConvSpec, DropoutSpec, Map, Op, Reduce, RopeSpec};
pub use shape::{AxisSet, Layout, MAX_DIMS, Shape, fmt_tuple};
pub use split::Split;
