//! `bullet_core._core._nn`: what the Python modules, optimizers and the trainer are made on. Private: `bullet_core.nn`,
//! `.optim` and `.trainer` are the public side.
//!
//! There is one trainer, that of `bullet_nn`: a model and a loss written in Python are an `Objective` to it (`step`).

mod data;
mod files;
mod generate;
mod model;
mod ops;
mod optim;
mod parameter;
mod pass;
mod run;
pub(crate) mod step;
mod tokenizer;

use bullet_nn::{Error, ErrorKind};
use pyo3::exceptions::{PyMemoryError, PyOSError, PyRuntimeError, PyValueError};
use pyo3::prelude::*;

/// Adds the module `_nn`.
pub(crate) fn add(parent: &Bound<'_, PyModule>) -> PyResult<()> {
    let module = PyModule::new(parent.py(), "_nn")?;
    data::add(&module)?;
    files::add(&module)?;
    generate::add(&module)?;
    model::add(&module)?;
    ops::add(&module)?;
    optim::add(&module)?;
    parameter::add(&module)?;
    pass::add(&module)?;
    run::add(&module)?;
    step::add(&module)?;
    tokenizer::add(&module)?;
    parent.add_submodule(&module)
}

/// The exception for an error of `bullet_nn`, with its text.
pub(crate) fn exception(error: Error) -> PyErr {
    let Error { kind, message, source } = error;
    match kind {
        ErrorKind::Io => match source {
            // With its number the exception is of the right subclass, such as FileNotFoundError.
            Some(source) => match source.raw_os_error() {
                Some(number) => PyOSError::new_err((number, message)),
                None => PyOSError::new_err(message),
            },
            None => PyOSError::new_err(message),
        },
        ErrorKind::Corrupt | ErrorKind::Unsupported | ErrorKind::Data | ErrorKind::Argument => {
            PyValueError::new_err(message)
        }
        ErrorKind::Tensor => PyRuntimeError::new_err(message),
        ErrorKind::OutOfMemory => PyMemoryError::new_err(message),
    }
}
