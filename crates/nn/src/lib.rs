//! Modules, optimizers, data, training, generation and checkpoints.

mod error;
pub mod format;
pub mod rng;
pub mod tokenizer;

pub use error::{Error, ErrorKind, Result};
