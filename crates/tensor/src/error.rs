//! The error of this crate.

use bullet_ops::DType;

/// What went wrong, and so whose mistake it was.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Error {
    /// Operands or arguments that don't fit the op.
    #[error(transparent)]
    Op(#[from] bullet_ops::Error),
    /// The device refused: out of memory, a failed launch, no such device.
    #[error(transparent)]
    Runtime(#[from] bullet_runtime::Error),
    /// Reading a tensor as another type than it holds.
    #[error("tensor holds {holds}, not {asked}; cast it first")]
    WrongType {
        /// Its dtype.
        holds: DType,
        /// The one asked for.
        asked: DType,
    },
    /// Operands on different devices.
    #[error("expected all tensors to be on the same device, but found {0} and {1}; move one with `to`")]
    DeviceMismatch(String, String),
    /// A mistake in the use of gradients.
    #[error("{0}")]
    Autograd(String),
}

/// `Result` with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// Whether a device was full.
    pub fn is_out_of_memory(&self) -> bool {
        matches!(self, Error::Runtime(e) if e.is_out_of_memory())
    }
}
