//! Leaf crate: dtypes, shapes, the op set and the op table.

mod dtype;
mod error;

pub use dtype::{Compute, DType, Element, Float, Kind};
pub use error::{Error, ErrorKind, Result};
