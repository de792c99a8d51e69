//! The one place where errors become exceptions.

use bullet_ops::ErrorKind as OpKind;
use bullet_runtime::ErrorKind as RuntimeKind;
use bullet_tensor::Error;
use pyo3::PyErr;
use pyo3::exceptions::{
    PyAssertionError, PyIndexError, PyMemoryError, PyRuntimeError, PyTypeError, PyValueError,
};

/// The exception for an error, with its text.
pub(crate) fn exception(error: Error) -> PyErr {
    match error {
        Error::Op(e) => op(e),
        Error::Runtime(e) => runtime(e),
        e @ Error::WrongType { .. } => PyTypeError::new_err(e.to_string()),
        e @ Error::DeviceMismatch(..) => PyValueError::new_err(e.to_string()),
        Error::Autograd(message) => {
            crate::grad::raised(&message).unwrap_or_else(|| PyRuntimeError::new_err(message))
        }
    }
}

/// As [`exception`], of a mistake in a call.
pub(crate) fn op(error: bullet_ops::Error) -> PyErr {
    match error.kind {
        OpKind::Shape | OpKind::Argument => PyValueError::new_err(error.message),
        OpKind::DType => PyTypeError::new_err(error.message),
        OpKind::Index => PyIndexError::new_err(error.message),
    }
}

/// As [`exception`], of what a device refused.
pub(crate) fn runtime(error: bullet_runtime::Error) -> PyErr {
    match error.kind {
        RuntimeKind::OutOfMemory(_) => PyMemoryError::new_err(error.message),
        RuntimeKind::InvalidArgument => PyValueError::new_err(error.message),
        RuntimeKind::Index => PyIndexError::new_err(error.message),
        RuntimeKind::Assert => PyAssertionError::new_err(error.message),
        RuntimeKind::DriverMissing
        | RuntimeKind::NoDevice
        | RuntimeKind::JitMissing
        | RuntimeKind::CompileFailed
        | RuntimeKind::LaunchFailed
        | RuntimeKind::Unsupported
        | RuntimeKind::Cancelled
        | RuntimeKind::Driver => PyRuntimeError::new_err(error.message),
    }
}
