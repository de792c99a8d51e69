//! The error of this crate: a wrong shape, dtype or argument, in NumPy's words where NumPy has them.

use std::fmt;

/// Whose mistake it was, for the layers that map errors to exceptions.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ErrorKind {
    /// Shapes that don't go together, an axis out of range.
    Shape,
    /// A dtype that the op doesn't take.
    DType,
    /// Any other argument out of its range.
    Argument,
    /// An index out of bounds.
    Index,
}

/// A call that makes no sense; the message says what was wrong and what was expected.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Error {
    /// What sort of mistake.
    pub kind: ErrorKind,
    /// A full sentence for the user.
    pub message: String,
}

/// `Result` with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An error of kind [`ErrorKind::Shape`].
    pub fn shape(message: impl Into<String>) -> Error {
        Error { kind: ErrorKind::Shape, message: message.into() }
    }
    /// An error of kind [`ErrorKind::DType`].
    pub fn dtype(message: impl Into<String>) -> Error {
        Error { kind: ErrorKind::DType, message: message.into() }
    }
    /// An error of kind [`ErrorKind::Argument`].
    pub fn argument(message: impl Into<String>) -> Error {
        Error { kind: ErrorKind::Argument, message: message.into() }
    }
    /// An error of kind [`ErrorKind::Index`].
    pub fn index(message: impl Into<String>) -> Error {
        Error { kind: ErrorKind::Index, message: message.into() }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}
