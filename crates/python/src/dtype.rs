//! `bullet_core.float32` and the others: one object a dtype, equal to its name.

use bullet_ops::DType;
use pyo3::prelude::*;
use pyo3::types::{PyString, PyType};

use crate::error;

/// The type of a tensor's elements.
#[pyclass(name = "dtype", module = "bullet_core", frozen, eq, hash)]
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct PyDType(pub(crate) DType);

/// The name that NumPy has for it.
pub(crate) fn numpy_name(dtype: DType) -> &'static str {
    match dtype {
        DType::Bool => "bool",
        DType::U8 => "uint8",
        DType::U16 => "uint16",
        DType::U32 => "uint32",
        DType::U64 => "uint64",
        DType::I8 => "int8",
        DType::I16 => "int16",
        DType::I32 => "int32",
        DType::I64 => "int64",
        DType::F16 => "float16",
        DType::BF16 => "bfloat16",
        DType::F32 => "float32",
        DType::F64 => "float64",
    }
}

#[pymethods]
impl PyDType {
    #[new]
    fn new(of: AnyDType) -> PyDType {
        PyDType(of.0)
    }

    /// Its name, as NumPy has it.
    #[getter]
    fn name(&self) -> &'static str {
        numpy_name(self.0)
    }

    /// Bytes of an element.
    #[getter]
    fn itemsize(&self) -> usize {
        self.0.size()
    }

    fn __repr__(&self) -> String {
        format!("bullet_core.{}", self.name())
    }

    fn __str__(&self) -> &'static str {
        self.name()
    }

    fn __reduce__<'py>(&self, py: Python<'py>) -> (Bound<'py, PyType>, (&'static str,)) {
        (py.get_type::<PyDType>(), (self.name(),))
    }
}

/// What is taken for a dtype: one of ours, a name, NumPy's dtypes and scalar types, Python's `bool`, `int` and `float`.
#[derive(Clone, Copy)]
pub(crate) struct AnyDType(pub(crate) DType);

impl<'a, 'py> FromPyObject<'a, 'py> for AnyDType {
    type Error = PyErr;

    fn extract(object: Borrowed<'a, 'py, PyAny>) -> PyResult<AnyDType> {
        if let Ok(dtype) = object.cast::<PyDType>() {
            return Ok(AnyDType(dtype.get().0));
        }
        let name: String = match object.cast::<PyString>() {
            Ok(name) => name.to_string(),
            // NumPy's dtypes have a name; types are known by theirs.
            Err(_) => match object.getattr("name").or_else(|_| object.getattr("__name__")) {
                Ok(name) => name.to_string(),
                Err(_) => object.repr()?.to_string(),
            },
        };
        let name = match name.as_str() {
            "int" => "int64",
            "float" => "float32",
            "bool_" => "bool",
            name => name,
        };
        DType::parse(name).map(AnyDType).map_err(error::op)
    }
}

/// Adds a constant for each dtype.
pub(crate) fn add_constants(module: &Bound<'_, PyModule>) -> PyResult<()> {
    DType::ALL.into_iter().try_for_each(|dtype| module.add(numpy_name(dtype), PyDType(dtype)))
}
