//! Source text from the IR.

pub mod cuda;
