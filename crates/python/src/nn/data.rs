//! Text as batches: the same ones that `bullet train` draws.

use bullet_nn::data::{Batch, Sampler, TokenDataset, Tokens, eval_windows};
use bullet_nn::train::TINY_SHAKESPEARE;
use bullet_tensor::{Device, Tensor};
use pyo3::prelude::*;

use super::tokenizer::PyTokenizer;
use crate::tensor::PyTensor;
use crate::whole;

/// Token ids, of 16 bits each where the vocabulary allows.
#[pyclass(name = "TokenData", frozen)]
pub(super) struct TokenData(Tokens);

fn tensors(batch: &Batch, sequence: usize) -> bullet_nn::Result<(PyTensor, PyTensor)> {
    let shape = [batch.x.len() / sequence, sequence];
    let tensor = |ids: &[i64]| Tensor::from_slice(ids, &shape, &Device::cpu()).map(PyTensor::new);
    Ok((tensor(&batch.x)?, tensor(&batch.y)?))
}

#[pymethods]
impl TokenData {
    #[new]
    fn new(#[pyo3(from_py_with = whole::ids)] ids: Vec<u32>, vocab: usize) -> PyResult<TokenData> {
        Tokens::new(&ids, vocab).map(TokenData).map_err(super::exception)
    }

    /// A text, split after `1 - validation` of its characters: training and validation tokens.
    #[staticmethod]
    fn of_text(
        py: Python<'_>,
        text: &str,
        tokenizer: &Bound<'_, PyTokenizer>,
        validation: f64,
    ) -> PyResult<(TokenData, TokenData)> {
        let tokenizer = tokenizer.get().0.clone();
        let data = py.detach(|| TokenDataset::new(text, &tokenizer, 1.0 - validation));
        let data = data.map_err(super::exception)?;
        Ok((TokenData(data.train), TokenData(data.validation)))
    }

    fn __len__(&self) -> usize {
        self.0.len()
    }

    /// Random windows: inputs and targets, each (batch, sequence); a function of seed, stream and step. `for_evaluation`
    /// draws from the stream of evaluations.
    fn windows(
        &self,
        py: Python<'_>,
        #[pyo3(from_py_with = whole::step)] step: u64,
        #[pyo3(from_py_with = whole::batch)] batch: usize,
        #[pyo3(from_py_with = whole::sequence)] sequence: usize,
        #[pyo3(from_py_with = whole::seed)] seed: u64,
        for_evaluation: bool,
    ) -> PyResult<(PyTensor, PyTensor)> {
        let stream = if for_evaluation { Sampler::EVAL } else { Sampler::TRAIN };
        py.detach(|| {
            let drawn = Sampler::new(seed, stream, batch, sequence)?.batch(&self.0, step)?;
            tensors(&drawn, sequence)
        })
        .map_err(super::exception)
    }

    /// Every token but the first once as a target: inputs, targets and how many targets count, a list.
    fn all_windows(
        &self,
        py: Python<'_>,
        #[pyo3(from_py_with = whole::batch)] batch: usize,
        #[pyo3(from_py_with = whole::sequence)] sequence: usize,
    ) -> PyResult<Vec<((PyTensor, PyTensor), usize)>> {
        py.detach(|| {
            let windows = eval_windows(&self.0, batch, sequence)?;
            windows.map(|b| Ok((tensors(&b, sequence)?, b.targets))).collect::<bullet_nn::Result<_>>()
        })
        .map_err(super::exception)
    }
}

/// The text that ships with Bullet: Shakespeare, about a million characters.
#[pyfunction]
fn tiny_shakespeare() -> &'static str {
    TINY_SHAKESPEARE
}

pub(super) fn add(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<TokenData>()?;
    module.add_function(wrap_pyfunction!(tiny_shakespeare, module)?)
}
