//! `bullet_core._core`: tensors for Python. Conversions, the interpreter's lock and errors, and nothing else: what is
//! computed, and how, is in the crates below.
//!
//! **The lock.** Whatever computes, waits or copies much does so without the interpreter's lock (`tensor::unlocked`). A
//! kernel's guards are never held while the lock is taken, so that two threads cannot wait for each other.
//!
//! **Signals.** Ctrl-C ends a call into the engine within 200 ms (`interrupt`): that is the one time when the lock is taken
//! inside a kernel, and guards are held while Python's handler runs.
//!
//! **Errors.** `error` maps every error to the exception that a Python user expects; its text stays as it is.
//!
//! **Memory.** Arrays of NumPy and of whoever speaks DLPack come and go without a copy (`interop`): the tensor keeps the
//! owner of the memory, and the array keeps the tensor.

mod buffer;
mod cli;
mod creation;
mod device;
mod dlpack;
mod dtype;
mod error;
mod functions;
mod grad;
mod index;
mod info;
mod interop;
mod interrupt;
mod lang;
mod methods;
mod nn;
mod operand;
mod operators;
mod tensor;
mod whole;

#[pyo3::pymodule]
mod _core {
    #[pymodule_export]
    use crate::creation::{
        arange, array, asarray, empty, empty_like, eye, from_numpy, full, full_like, linspace, ones,
        ones_like, randn, uniform, zeros, zeros_like,
    };
    #[pymodule_export]
    use crate::device::{PyDevice, cuda_is_available, default_device, memory_stats, set_default_device};
    #[pymodule_export]
    use crate::dlpack::from_dlpack;
    #[pymodule_export]
    use crate::dtype::PyDType;
    #[pymodule_export]
    use crate::grad::{_custom, is_grad_enabled, set_grad_enabled};
    #[pymodule_export]
    use crate::info::{FloatInfo, IntInfo, NamespaceInfo, can_cast, isdtype, result_type};
    #[pymodule_export]
    use crate::interop::host_copies;
    #[pymodule_export]
    use crate::tensor::PyTensor;
    use pyo3::prelude::*;

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        crate::dtype::add_constants(module)?;
        crate::functions::add_all(module)?;
        crate::lang::add(module)?;
        crate::nn::add(module)?;
        module.add_function(wrap_pyfunction!(crate::cli::run_command, module)?)?;
        module.add("__version__", env!("CARGO_PKG_VERSION"))
    }
}
