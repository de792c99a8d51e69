//! `bullet_core.Tokenizer`.

use std::sync::Arc;

use bullet_nn::tokenizer::Tokenizer;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::whole;

/// Text to token ids and back: a vocabulary of characters, or byte-level byte-pair encoding.
#[pyclass(name = "Tokenizer", module = "bullet_core", frozen)]
pub(crate) struct PyTokenizer(pub(super) Arc<Tokenizer>);

#[pymethods]
impl PyTokenizer {
    /// The tokenizer that `to_json` wrote.
    #[new]
    fn new(json: &str) -> PyResult<PyTokenizer> {
        Tokenizer::from_json(json).map(PyTokenizer::from).map_err(super::exception)
    }

    /// Learns a vocabulary from `text`: kind "char", one token a character, or "bpe", of at most `vocab_size` tokens.
    #[staticmethod]
    #[pyo3(signature = (text, kind = "char", *, vocab_size = 512))]
    fn train(
        py: Python<'_>,
        text: &str,
        kind: &str,
        #[pyo3(from_py_with = whole::vocab_size)] vocab_size: usize,
    ) -> PyResult<PyTokenizer> {
        let trained = match kind {
            "char" => py.detach(|| Tokenizer::train_char(text)),
            "bpe" => py.detach(|| Tokenizer::train_bpe(text, vocab_size)),
            other => {
                return Err(PyValueError::new_err(format!("kind = {other:?}: expected 'char' or 'bpe'")));
            }
        };
        trained.map(PyTokenizer::from).map_err(super::exception)
    }

    /// `char` or `bpe`.
    #[getter]
    fn kind(&self) -> &'static str {
        self.0.kind()
    }

    /// How many token ids there are.
    #[getter]
    fn vocab_size(&self) -> usize {
        self.0.vocab_size()
    }

    /// The ids of a text.
    fn encode(&self, py: Python<'_>, text: &str) -> PyResult<Vec<u32>> {
        py.detach(|| self.0.encode(text)).map_err(super::exception)
    }

    /// The text of some ids.
    fn decode(&self, #[pyo3(from_py_with = whole::ids)] ids: Vec<u32>) -> PyResult<String> {
        self.0.decode(&ids).map_err(super::exception)
    }

    /// As it stands in a file.
    fn to_json(&self) -> String {
        self.0.to_json()
    }

    fn __len__(&self) -> usize {
        self.0.vocab_size()
    }

    fn __eq__(&self, other: &Bound<'_, PyAny>) -> bool {
        other.cast::<PyTokenizer>().is_ok_and(|other| other.get().0 == self.0)
    }

    fn __repr__(&self) -> String {
        format!("<Tokenizer {}, {} tokens>", self.0.kind(), self.0.vocab_size())
    }

    fn __reduce__<'py>(slf: &Bound<'py, Self>) -> (Bound<'py, PyAny>, (String,)) {
        (slf.get_type().into_any(), (slf.get().0.to_json(),))
    }
}

impl From<Tokenizer> for PyTokenizer {
    fn from(tokenizer: Tokenizer) -> PyTokenizer {
        PyTokenizer(Arc::new(tokenizer))
    }
}

pub(super) fn add(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<PyTokenizer>()
}
