//! Functions of kernels on the host.

use bullet_lang::host::{Error, Outcome, Value, evaluate as call};
use bullet_lang::interp::Arg;
use bullet_lang::{Element, dtype_name};
use bullet_tensor::DType;
use pyo3::exceptions::{PyArithmeticError, PyTypeError};
use pyo3::prelude::*;
use pyo3::types::PyTuple;

/// A value as Python gives it: its kind, how its numbers are arranged, their dtype, and the numbers.
#[derive(FromPyObject)]
pub(super) struct Given<'py>(String, Vec<u16>, String, Vec<Bound<'py, PyAny>>);

impl Given<'_> {
    fn value(self) -> PyResult<Value> {
        let Given(kind, dims, dtype, numbers) = self;
        let dtype = DType::parse(&dtype).map_err(|e| PyTypeError::new_err(e.to_string()))?;
        let number = |number: &Bound<'_, PyAny>| {
            Ok(match dtype {
                dtype if dtype.is_float() => Arg::Float(number.extract()?),
                DType::U64 => Arg::Int(number.extract::<u64>()? as i64),
                DType::Bool => Arg::Int(number.extract::<bool>()?.into()),
                _ => Arg::Int(number.extract()?),
            })
        };
        let numbers = numbers.iter().map(number).collect::<PyResult<_>>()?;
        Ok(Value { element: Element { dtype, dims: dims.into(), name: kind }, numbers })
    }
}

/// The same of a result.
fn result<'py>(py: Python<'py>, value: &Value) -> PyResult<Bound<'py, PyTuple>> {
    let Element { dtype, dims, name } = &value.element;
    let kind = match &dims[..] {
        [] => "number",
        _ if name.starts_with("quat") => "quaternion",
        _ if name.starts_with("transform") => "transformation",
        [_] => "vector",
        _ => "matrix",
    };
    let number = |number: &Arg<f64>| match (*number, dtype) {
        (Arg::Float(x), _) => Ok(x.into_pyobject(py)?.into_any()),
        (Arg::Int(n), DType::U64) => Ok((n as u64).into_pyobject(py)?.into_any()),
        (Arg::Int(n), DType::Bool) => Ok((n != 0).into_pyobject(py)?.to_owned().into_any()),
        (Arg::Int(n), _) => Ok(n.into_pyobject(py)?.into_any()),
        (Arg::Array(_), _) => Err(PyTypeError::new_err("an array is no result of a call on the host")),
    };
    let numbers = value.numbers.iter().map(number).collect::<PyResult<Vec<_>>>()?;
    (kind, PyTuple::new(py, dims.iter())?, dtype_name(*dtype), numbers).into_pyobject(py)
}

/// What an expression of kernels comes to, where `a0`, `a1` .. are these values: whether it is a tuple, and its values.
#[pyfunction]
pub(super) fn evaluate<'py>(
    py: Python<'py>,
    expression: &str,
    values: Vec<Given<'py>>,
) -> PyResult<(bool, Vec<Bound<'py, PyTuple>>)> {
    let values: Vec<Value> = values.into_iter().map(Given::value).collect::<PyResult<_>>()?;
    let outcome = call(expression, &values).map_err(|error| match error {
        Error::Fault(fault) => PyArithmeticError::new_err(fault.to_string()),
        other => PyTypeError::new_err(other.to_string()),
    })?;
    let (is_tuple, values) = match outcome {
        Outcome::One(value) => (false, vec![value]),
        Outcome::Several(values) => (true, values),
    };
    Ok((is_tuple, values.iter().map(|value| result(py, value)).collect::<PyResult<_>>()?))
}
