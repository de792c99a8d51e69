//! Generation as a Python iterator.

use std::sync::{Arc, Mutex, PoisonError};

use bullet_nn::Transformer;
use bullet_nn::generate::{Sampler, TokenStream};
use bullet_nn::tokenizer::{StreamDecoder, Tokenizer};
use bullet_tensor::DType;
use pyo3::IntoPyObjectExt;
use pyo3::prelude::*;

use crate::error;
use crate::tensor::PyTensor;
use crate::whole;

/// Yields token ids, or pieces of text.
#[pyclass(name = "Tokens", frozen)]
pub(super) struct PyTokens(Mutex<State>);

struct State {
    stream: TokenStream<Arc<Transformer>>,
    left: Option<usize>,
    text: Option<Text>,
}

/// Pieces of text from tokens: none while a character is unfinished.
struct Text {
    tokenizer: Arc<Tokenizer>,
    decoder: StreamDecoder,
}

impl PyTokens {
    pub(super) fn new(
        stream: TokenStream<Arc<Transformer>>,
        tokenizer: Option<Arc<Tokenizer>>,
        max_tokens: Option<usize>,
    ) -> PyTokens {
        let text = tokenizer.map(|tokenizer| Text { tokenizer, decoder: StreamDecoder::new() });
        PyTokens(Mutex::new(State { stream, left: max_tokens, text }))
    }
}

impl State {
    fn token(&mut self) -> bullet_nn::Result<Option<u32>> {
        if let Some(left) = &mut self.left {
            if *left == 0 {
                return Ok(None);
            }
            *left -= 1;
        }
        self.stream.next().transpose()
    }
}

#[pymethods]
impl PyTokens {
    fn __iter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    fn __next__<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        loop {
            let (token, piece) = py
                .detach(|| {
                    let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
                    let token = state.token()?;
                    let mut piece = String::new();
                    if let Some(text) = &mut state.text {
                        match token {
                            Some(token) => text.decoder.push(text.tokenizer.token_bytes(token)?, &mut piece),
                            None => text.decoder.finish(&mut piece),
                        }
                        return Ok((token, Some(piece)));
                    }
                    Ok((token, None))
                })
                .map_err(super::exception)?;
            match (token, piece) {
                (_, Some(piece)) if !piece.is_empty() => return piece.into_bound_py_any(py).map(Some),
                (Some(token), None) => return token.into_bound_py_any(py).map(Some),
                (None, _) => return Ok(None),
                (Some(_), Some(_)) => py.check_signals()?,
            }
        }
    }
}

/// The token for step `step` of a text by these logits, of any shape.
#[pyfunction]
#[pyo3(signature = (logits, step, *, temperature = 1.0, top_k = None, top_p = None, seed = 0))]
fn sample(
    py: Python<'_>,
    logits: &Bound<'_, PyTensor>,
    #[pyo3(from_py_with = whole::step)] step: u64,
    temperature: f64,
    #[pyo3(from_py_with = whole::top_k)] top_k: Option<usize>,
    top_p: Option<f64>,
    #[pyo3(from_py_with = whole::seed)] seed: u64,
) -> PyResult<u32> {
    let logits = logits.get().tensor().detach();
    let values = py.detach(|| logits.cast(DType::F32)?.to_vec::<f32>()).map_err(error::exception)?;
    Sampler { temperature, top_k, top_p, seed }.sample(&values, step).map_err(super::exception)
}

pub(super) fn add(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<PyTokens>()?;
    module.add_function(wrap_pyfunction!(sample, module)?)
}
