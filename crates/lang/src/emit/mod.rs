//! Text for compilers from the IR.

pub mod cuda;
pub mod ptx;
