//! The `bullet` command, for the script that the wheel installs.

use std::ffi::OsString;

use pyo3::prelude::*;

/// Does what the command line says; returns the exit code.
#[pyfunction]
#[pyo3(name = "_run_command")]
pub(crate) fn run_command(py: Python<'_>, args: Vec<OsString>) -> u8 {
    py.detach(|| bullet_cli::main(args))
}
