//! `bullet_core._core._lang`: kernels written in Python, compiled and launched. Private: `bullet_core.lang` is the public
//! side. It gathers the sources and what their names mean; here they become [`Definition`]s, and Python's arguments those of
//! a [`Kernel`].

mod args;
mod host;
mod tape;

use std::sync::Arc;

use bullet_lang::Options;
use bullet_lang::link::{Binding, Definition, Kind, link};
use bullet_launch::{
    Error, FaultKind, Kernel, KernelCompiler, LaunchOptions, set_kernel_compiler as set_compiler,
};
use bullet_tensor::Device;
use pyo3::exceptions::{PyAssertionError, PyIndexError, PyRuntimeError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyTuple;

use crate::device::{AnyDevice, chosen};
use crate::interrupt;
use args::{Args, PyArray};
use tape::PyTape;

pyo3::create_exception!(
    bullet_core.lang,
    CompileError,
    PyValueError,
    "A kernel whose source cannot be compiled, or differentiated."
);

/// Adds the module `_lang`.
pub(crate) fn add(parent: &Bound<'_, PyModule>) -> PyResult<()> {
    let module = PyModule::new(parent.py(), "_lang")?;
    module.add_class::<PyArray>()?;
    module.add_class::<PyKernel>()?;
    module.add_class::<PyTape>()?;
    module.add_function(wrap_pyfunction!(compile, &module)?)?;
    module.add_function(wrap_pyfunction!(set_kernel_compiler, &module)?)?;
    module.add_function(wrap_pyfunction!(host::evaluate, &module)?)?;
    module.add("CompileError", parent.py().get_type::<CompileError>())?;
    parent.add_submodule(&module)
}

/// What compiles kernels for GPUs from now on: `nvrtc`, `bullet`, or with none what the environment or the machine says.
#[pyfunction]
fn set_kernel_compiler(name: Option<&str>) -> PyResult<()> {
    let parse = |name: &str| {
        let wrong = || {
            PyValueError::new_err(format!(
                "wp.config.kernel_compiler cannot be '{name}': expected 'nvrtc', 'bullet' or None"
            ))
        };
        KernelCompiler::parse(name).ok_or_else(wrong)
    };
    set_compiler(name.map(parse).transpose()?);
    Ok(())
}

/// The exception for an error of `bullet_launch`, with its text.
fn exception(error: Error) -> PyErr {
    match error {
        Error::Compile(diagnostics) => CompileError::new_err(format!("\n{diagnostics}")),
        Error::Argument(message) => PyValueError::new_err(message),
        Error::Fault(FaultKind::Index, message) => PyIndexError::new_err(message),
        Error::Fault(FaultKind::Assert, message) => PyAssertionError::new_err(message),
        Error::Fault(FaultKind::Other, message) | Error::Unsupported(message) | Error::Gradient(message) => {
            PyRuntimeError::new_err(message)
        }
        Error::Tensor(error) => crate::error::exception(error),
    }
}

/// A name and what it means: the kind of [`Binding`], and what that holds.
struct Named(String, Binding);

impl<'a, 'py> FromPyObject<'a, 'py> for Named {
    type Error = PyErr;

    fn extract(object: Borrowed<'a, 'py, PyAny>) -> PyResult<Named> {
        let (name, kind, what): (String, String, Bound<'py, PyAny>) = object.extract()?;
        let binding = match kind.as_str() {
            "expr" => Binding::Expr(what.extract()?),
            "builtin" => Binding::Builtin(what.extract()?),
            "functions" => Binding::Functions(what.extract()?),
            "struct" => Binding::Struct(what.extract()?),
            "other" => Binding::Other(what.extract()?),
            kind => return Err(PyTypeError::new_err(format!("no binding is a '{kind}'"))),
        };
        Ok(Named(name, binding))
    }
}

/// A [`Definition`] as Python gathers it.
#[derive(FromPyObject)]
struct Gathered {
    kind: String,
    of: usize,
    file: String,
    line: usize,
    indent: usize,
    text: String,
    names: Vec<Named>,
    types: Vec<(String, String)>,
    statics: Vec<(usize, String)>,
}

impl Gathered {
    fn definition(self) -> PyResult<Definition> {
        let kind = match self.kind.as_str() {
            "kernel" => Kind::Kernel,
            "function" => Kind::Function,
            "gradient" => Kind::Gradient(self.of),
            "replay" => Kind::Replay(self.of),
            "struct" => Kind::Struct,
            kind => return Err(PyTypeError::new_err(format!("no definition is a '{kind}'"))),
        };
        let Gathered { file, line, indent, text, types, statics, .. } = self;
        let names = self.names.into_iter().map(|Named(name, binding)| (name, binding)).collect();
        Ok(Definition { kind, file, line, indent, text, names, types, statics })
    }
}

/// The kernels among these definitions.
#[pyfunction]
fn compile(py: Python<'_>, definitions: Vec<Gathered>) -> PyResult<Vec<PyKernel>> {
    let definitions: Vec<Definition> =
        definitions.into_iter().map(Gathered::definition).collect::<PyResult<_>>()?;
    let linked = py
        .detach(|| link(&definitions, Options::default()))
        .map_err(|diagnostics| exception(diagnostics.into()))?;
    Ok(Kernel::all(linked).into_iter().map(PyKernel).collect())
}

/// The lengths of a grid: a number, or up to four.
struct Grid([i32; 4], usize);

impl<'a, 'py> FromPyObject<'a, 'py> for Grid {
    type Error = PyErr;

    fn extract(object: Borrowed<'a, 'py, PyAny>) -> PyResult<Grid> {
        let length = |item: &Bound<'py, PyAny>| -> PyResult<i32> {
            let wide: i64 = item.extract().map_err(|_| {
                PyTypeError::new_err(format!("dim takes integers, got {} of type {}", item, item.get_type()))
            })?;
            i32::try_from(wide).map_err(|_| {
                PyValueError::new_err(format!(
                    "dim has a length of {wide}; at most {} are possible",
                    i32::MAX
                ))
            })
        };
        let mut grid = [1; 4];
        if let Ok(tuple) = object.cast::<PyTuple>() {
            if tuple.is_empty() || tuple.len() > 4 {
                return Err(PyValueError::new_err(format!("dim takes 1 to 4 lengths, got {}", tuple.len())));
            }
            for (slot, item) in grid.iter_mut().zip(tuple.iter()) {
                *slot = length(&item)?;
            }
            return Ok(Grid(grid, tuple.len()));
        }
        grid[0] = length(&object)?;
        Ok(Grid(grid, 1))
    }
}

/// A kernel that can be launched.
#[pyclass(name = "Kernel", module = "bullet_core._core._lang", frozen)]
struct PyKernel(Arc<Kernel>);

#[pymethods]
impl PyKernel {
    #[getter]
    fn name(&self) -> &str {
        self.0.name()
    }

    /// The text form of the IR.
    #[getter]
    fn ir(&self) -> String {
        self.0.ir().to_string()
    }

    /// The names of the parameters.
    #[getter]
    fn parameters(&self) -> Vec<&str> {
        self.0.signature().iter().map(|(name, _)| name.as_str()).collect()
    }

    /// Runs it over a grid, with the arguments of both tuples; on the tape if there is one. A block of 0 threads is the usual one.
    #[pyo3(signature = (dim, inputs, outputs, device, tape, block = 0, differentiable = true, deterministic = false, debug = false))]
    #[expect(clippy::too_many_arguments, reason = "those of a launch")]
    fn launch(
        &self,
        py: Python<'_>,
        dim: Grid,
        inputs: Vec<Bound<'_, PyAny>>,
        outputs: Vec<Bound<'_, PyAny>>,
        device: Option<AnyDevice>,
        tape: Option<&Bound<'_, PyTape>>,
        block: u32,
        differentiable: bool,
        deterministic: bool,
        debug: bool,
    ) -> PyResult<()> {
        let given = inputs.iter().chain(&outputs);
        let Args { args, gradients, foreign } = Args::of(&self.0, given, inputs.len() + outputs.len())?;
        let device = device_of(device, &args)?;
        let grid = &dim.0[..dim.1];
        let usual = LaunchOptions::default();
        let block = if block == 0 { usual.block } else { block };
        let options = LaunchOptions { block, differentiable, deterministic, debug };
        match tape {
            Some(tape) => tape.get().launch(py, &self.0, &device, grid, args, &gradients, &foreign, options),
            None => {
                interrupt::detached(py, || self.0.launch(&device, grid, &args, options))?.map_err(exception)
            }
        }
    }
}

/// The device that was named, or that of the first array.
fn device_of(named: Option<AnyDevice>, args: &[bullet_launch::Arg]) -> PyResult<Device> {
    let first = args.iter().find_map(|arg| match arg {
        bullet_launch::Arg::Array(tensor) => Some(tensor.device().clone()),
        bullet_launch::Arg::Scalar(_) => None,
    });
    match (named, first) {
        (None, Some(device)) => Ok(device),
        (named, _) => chosen(named),
    }
}
