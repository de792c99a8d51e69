//! The transformer of `bullet_nn` beside Python's: its parameters are those of the Python module, so that what runs in Rust,
//! generation with cached keys and values above all, needs no copy.

use std::sync::Arc;

use bullet_nn::generate::{Sampler, TokenStream};
use bullet_nn::{Init, LanguageModel, Module, Pass, Transformer, TransformerConfig};
use bullet_tensor::{Tensor, no_grad};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use super::files::Named;
use super::generate::PyTokens;
use super::tokenizer::PyTokenizer;
use crate::device::{AnyDevice, chosen};
use crate::dtype::AnyDType;
use crate::tensor::PyTensor;
use crate::whole;

/// A transformer of `bullet_nn`.
#[pyclass(name = "TransformerCore", frozen)]
pub(super) struct Core(pub(super) Arc<Transformer>);

#[pymethods]
impl Core {
    /// Initialised as `bullet train` does it; `config` is JSON.
    #[new]
    #[pyo3(signature = (config, seed = 0, *, dtype = None, device = None))]
    fn new(
        py: Python<'_>,
        config: &str,
        #[pyo3(from_py_with = whole::seed)] seed: u64,
        dtype: Option<AnyDType>,
        device: Option<AnyDevice>,
    ) -> PyResult<Core> {
        let config: TransformerConfig = serde_json::from_str(config).map_err(|e| {
            let text = e.to_string();
            // Where it stands in the JSON says nothing to who wrote none.
            let text = text.split(" at line ").next().unwrap_or_default();
            PyValueError::new_err(format!("Transformer: {text}"))
        })?;
        let init = Init::new(seed, dtype.map_or(bullet_tensor::DType::F32, |d| d.0), &chosen(device)?);
        let model = py.detach(|| Transformer::new(config, &init)).map_err(super::exception)?;
        Ok(Core(Arc::new(model)))
    }

    /// All settings, as JSON.
    fn config(&self) -> PyResult<String> {
        serde_json::to_string(self.0.config()).map_err(|e| PyValueError::new_err(e.to_string()))
    }

    /// Every parameter once; a tied one has its first name.
    fn named_parameters(&self) -> Named {
        self.0.named_parameters().into_iter().map(|(name, t)| (name, PyTensor::new(t))).collect()
    }

    /// Copies the values of those tensors that are not this model's own memory.
    fn follow(&self, py: Python<'_>, named: Vec<(String, Bound<'_, PyTensor>)>) -> PyResult<()> {
        let own = self.0.named_parameters();
        for (name, tensor) in named {
            let tensor = tensor.get().tensor();
            let Some((_, mine)) = own.iter().find(|(n, _)| *n == name) else { continue };
            if mine.shape() != tensor.shape() {
                return Err(PyValueError::new_err(format!(
                    "{name} has shape {}, expected {}",
                    tensor.shape(),
                    mine.shape()
                )));
            }
            if !(mine.shares_memory(&tensor) && mine.layout() == tensor.layout()) {
                let copy = || no_grad(|| mine.copy_(&tensor.to_device(mine.device())?));
                py.detach(copy).map_err(crate::error::exception)?;
            }
        }
        Ok(())
    }

    /// Logits (batch, sequence, vocab) of token ids.
    fn logits(&self, py: Python<'_>, tokens: &Bound<'_, PyTensor>) -> PyResult<PyTensor> {
        let tokens: Tensor = tokens.get().tensor();
        py.detach(|| no_grad(|| self.0.forward(&tokens, &Pass::eval())))
            .map(PyTensor::new)
            .map_err(super::exception)
    }

    /// What follows `prompt`: token ids, or text if there is a tokenizer. It has no end unless `max_tokens` says one.
    #[pyo3(signature = (prompt, *, tokenizer = None, max_tokens = None, temperature = 1.0, top_k = None, top_p = None, seed = 0))]
    fn generate(
        &self,
        py: Python<'_>,
        #[pyo3(from_py_with = whole::ids)] prompt: Vec<u32>,
        tokenizer: Option<&Bound<'_, PyTokenizer>>,
        #[pyo3(from_py_with = whole::max_tokens)] max_tokens: Option<usize>,
        temperature: f64,
        #[pyo3(from_py_with = whole::top_k)] top_k: Option<usize>,
        top_p: Option<f64>,
        #[pyo3(from_py_with = whole::seed)] seed: u64,
    ) -> PyResult<PyTokens> {
        let sampler = Sampler { temperature, top_k, top_p, seed };
        let (model, pass) = (self.0.clone(), Pass { training: false, ..super::pass::current() });
        let stream =
            py.detach(|| TokenStream::new(model, &prompt, sampler, pass)).map_err(super::exception)?;
        Ok(PyTokens::new(stream, tokenizer.map(|t| t.get().0.clone()), max_tokens))
    }
}

pub(super) fn add(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<Core>()
}
