//! Arguments that count: whole numbers of at least 0. A mistake names the argument, which the conversions of integers
//! themselves do not.

use pyo3::exceptions::{PyOverflowError, PyTypeError, PyValueError};
use pyo3::prelude::*;

/// What counts: an unsigned integer, or None where that may be left out.
pub(crate) trait Count: Sized {
    /// This argument, called `name`.
    fn of(object: &Bound<'_, PyAny>, name: &str) -> PyResult<Self>;
}

macro_rules! counts {
    ($($ty:ty),*) => {$(
        impl Count for $ty {
            fn of(object: &Bound<'_, PyAny>, name: &str) -> PyResult<$ty> {
                if let Ok(value) = object.extract::<$ty>() {
                    return Ok(value);
                }
                let py = object.py();
                let index = py.import("operator")?.call_method1("index", (object,)).map_err(|_| {
                    PyTypeError::new_err(format!("{name}: expected a whole number, got {}", object.get_type()))
                })?;
                if index.lt(0)? {
                    return Err(PyValueError::new_err(format!(
                        "{name} = {index}: expected a whole number of at least 0"
                    )));
                }
                Err(PyOverflowError::new_err(format!("{name} = {index}: expected at most {}", <$ty>::MAX)))
            }
        }
    )*};
}
counts!(usize, u64);

impl<T: Count> Count for Option<T> {
    fn of(object: &Bound<'_, PyAny>, name: &str) -> PyResult<Option<T>> {
        if object.is_none() { Ok(None) } else { T::of(object, name).map(Some) }
    }
}

/// Defines, for each argument of this name, what reads it: for `from_py_with`.
macro_rules! arguments {
    ($($name:ident),* $(,)?) => {$(
        pub(crate) fn $name<T: Count>(object: &Bound<'_, PyAny>) -> PyResult<T> {
            T::of(object, stringify!($name))
        }
    )*};
}
arguments! {
    num, n_rows, n_cols, seed, n, offset, heads, kv_heads, stride, padding, dilation, groups, step, batch, sequence, max_tokens,
    top_k, warmup, end, every, vocab_size, accumulation, axes, repeats,
}

/// Token ids: a sequence of whole numbers, or what has a `tolist` that gives one.
pub(crate) fn ids(object: &Bound<'_, PyAny>) -> PyResult<Vec<u32>> {
    if let Ok(ids) = object.extract() {
        return Ok(ids);
    }
    let listed = object.call_method0("tolist").and_then(|list| list.extract());
    listed.map_err(|_| {
        PyTypeError::new_err(format!(
            "expected token ids, a sequence of whole numbers from 0 to {}, got {}",
            u32::MAX,
            object.repr().map_or_else(
                |_| object.get_type().to_string(),
                |r| {
                    let text = r.to_string();
                    if text.chars().count() > 60 { object.get_type().to_string() } else { text }
                }
            )
        ))
    })
}
