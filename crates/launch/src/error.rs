//! The error of this crate.

use bullet_jit::FaultKind;
use bullet_lang::Diagnostics;

/// What went wrong, and so whose mistake it was.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// The source of a kernel, or its adjoint.
    #[error("{0}")]
    Compile(#[from] Diagnostics),
    /// Arguments that a kernel does not take.
    #[error("{0}")]
    Argument(String),
    /// What a kernel did when it ran: an index out of range, an assertion.
    #[error("{1}")]
    Fault(FaultKind, String),
    /// What a kernel needs, and this device or build has not.
    #[error("{0}")]
    Unsupported(String),
    /// A gradient that cannot be computed any more.
    #[error("{0}")]
    Gradient(String),
    /// Memory of tensors.
    #[error(transparent)]
    Tensor(#[from] bullet_tensor::Error),
}

impl From<bullet_tensor::runtime::Error> for Error {
    fn from(error: bullet_tensor::runtime::Error) -> Error {
        Error::Tensor(error.into())
    }
}

/// `Result` with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

pub(crate) fn argument<T>(message: String) -> Result<T> {
    Err(Error::Argument(message))
}
