//! Modules, optimizers, data, training, generation and checkpoints.

pub mod config;
pub mod data;
mod error;
pub mod format;
pub mod log;
pub mod module;
pub mod rng;
pub mod tokenizer;

pub use error::{Error, ErrorKind, Result};
pub use module::{Module, Pass, StateDict};
