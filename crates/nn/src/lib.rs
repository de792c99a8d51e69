//! Modules, optimizers, data, training, generation and checkpoints.

pub mod config;
pub mod data;
mod error;
pub mod format;
pub mod generate;
pub mod init;
pub mod layers;
pub mod log;
pub mod module;
pub mod optim;
pub mod place;
pub mod rng;
pub mod tokenizer;
pub mod train;
pub mod transformer;

pub use error::{Error, ErrorKind, Result};
pub use init::{Fill, Init};
pub use module::{Module, Pass, StateDict};
pub use transformer::{LanguageModel, Transformer, TransformerConfig};
