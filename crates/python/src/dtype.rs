//! `bullet_core.float32` and the others: one object a dtype, equal to its name.

use bullet_ops::{DType, Kind};
use pyo3::exceptions::{PyAttributeError, PyTypeError};
use pyo3::prelude::*;
use pyo3::types::{PyString, PyType};

/// The type of a tensor's elements.
#[pyclass(name = "dtype", module = "bullet_core", frozen)]
#[derive(Clone, Copy)]
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

    /// What kind it is, in NumPy's letters: `b`, `u`, `i` or `f`.
    #[getter]
    fn kind(&self) -> &'static str {
        match self.0.kind() {
            Kind::Bool => "b",
            Kind::Int if self.0.is_unsigned() => "u",
            Kind::Int => "i",
            Kind::Float => "f",
        }
    }

    /// NumPy's dtype of that name, by which NumPy takes it for one.
    #[getter]
    fn dtype<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        if self.0 == DType::BF16 {
            return Err(PyAttributeError::new_err("NumPy has no bfloat16"));
        }
        py.import("numpy")?.call_method1("dtype", (self.name(),))
    }

    /// Whether the other is this dtype, or another name of it: a string, NumPy's dtype or scalar type.
    fn __eq__(&self, other: &Bound<'_, PyAny>) -> bool {
        !other.is_none() && other.extract::<AnyDType>().is_ok_and(|other| other.0 == self.0)
    }

    fn __hash__(&self) -> isize {
        self.0 as isize
    }

    fn __ne__(&self, other: &Bound<'_, PyAny>) -> bool {
        !self.__eq__(other)
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
        named(&name).map(AnyDType).ok_or_else(|| {
            let known: Vec<&str> = DType::ALL.into_iter().map(numpy_name).collect();
            PyTypeError::new_err(format!(
                "data type '{name}' not understood; expected one of {}",
                known.join(", ")
            ))
        })
    }
}

/// The dtype of a name, as NumPy has them: `i8` is of 8 bytes.
fn named(name: &str) -> Option<DType> {
    Some(match name.trim_start_matches(['<', '|', '=']) {
        "bool_" | "?" | "b1" => DType::Bool,
        "int" | "i8" => DType::I64,
        "float" | "f4" => DType::F32,
        "u1" => DType::U8,
        "u2" => DType::U16,
        "u4" => DType::U32,
        "u8" => DType::U64,
        "i1" => DType::I8,
        "i2" => DType::I16,
        "i4" => DType::I32,
        "f2" | "half" => DType::F16,
        "f8" | "double" => DType::F64,
        other => return DType::parse(other).ok(),
    })
}

/// Adds a constant for each dtype.
pub(crate) fn add_constants(module: &Bound<'_, PyModule>) -> PyResult<()> {
    DType::ALL.into_iter().try_for_each(|dtype| module.add(numpy_name(dtype), PyDType(dtype)))
}
