//! `.bullet` and safetensors files as named tensors.

use std::collections::BTreeMap;
use std::path::PathBuf;

use bullet_nn::format::{Header, ModelFile, TensorRef, write, write_safetensors};
use bullet_tensor::Tensor;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use super::tokenizer::PyTokenizer;
use crate::device::{AnyDevice, chosen};
use crate::tensor::PyTensor;

/// Name and tensor.
pub(super) type Named = Vec<(String, PyTensor)>;

/// A file, read: tensors by name, the model's configuration as JSON (null if there is none), the tokenizer, and text.
type Contents = (Named, String, Option<PyTokenizer>, BTreeMap<String, String>);

/// Reads a `.bullet` or safetensors file, which is told by its contents. All of it is checked.
#[pyfunction]
#[pyo3(signature = (path, device = None))]
fn read(py: Python<'_>, path: PathBuf, device: Option<AnyDevice>) -> PyResult<Contents> {
    let device = chosen(device)?;
    py.detach(|| {
        let file = ModelFile::open(&path)?;
        file.verify().map_err(|e| e.context(path.display()))?;
        let read = |t: TensorRef<'_>| {
            let tensor = Tensor::from_bytes(t.bytes, t.dtype, t.shape, &device)?;
            Ok((t.name.to_string(), PyTensor::new(tensor)))
        };
        let tensors = file.tensors().into_iter().map(read).collect::<bullet_nn::Result<_>>()?;
        let Header { model, tokenizer, metadata, .. } = file.header().clone();
        Ok((tensors, model.to_string(), tokenizer.map(PyTokenizer::from), metadata))
    })
    .map_err(super::exception)
}

/// Writes named tensors: a safetensors file if the name ends so, else a `.bullet` file. The file appears whole or not at all.
#[pyfunction]
#[pyo3(signature = (path, tensors, *, model = None, tokenizer = None, metadata = BTreeMap::new()))]
fn save(
    py: Python<'_>,
    path: PathBuf,
    tensors: Vec<(String, Bound<'_, PyTensor>)>,
    model: Option<&str>,
    tokenizer: Option<&Bound<'_, PyTokenizer>>,
    metadata: BTreeMap<String, String>,
) -> PyResult<()> {
    let model = model.map_or(Ok(serde_json::Value::Null), serde_json::from_str);
    let model = model.map_err(|e| PyValueError::new_err(format!("the model's configuration: {e}")))?;
    let tokenizer = tokenizer.map(|t| t.get().0.as_ref().clone());
    let header = Header { model, tokenizer, training: None, metadata };
    let tensors: Vec<(String, Tensor)> =
        tensors.into_iter().map(|(name, tensor)| (name, tensor.get().tensor())).collect();
    py.detach(|| {
        let bytes: Vec<Vec<u8>> = tensors.iter().map(|(_, t)| t.to_bytes()).collect::<Result<_, _>>()?;
        let refs: Vec<TensorRef<'_>> = tensors
            .iter()
            .zip(&bytes)
            .map(|((name, t), bytes)| TensorRef { name, dtype: t.dtype(), shape: t.shape(), bytes })
            .collect();
        if path.extension().is_some_and(|e| e == "safetensors") {
            write_safetensors(&path, &header, &refs)
        } else {
            write(&path, &header, &refs)
        }
    })
    .map_err(super::exception)
}

pub(super) fn add(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(read, module)?)?;
    module.add_function(wrap_pyfunction!(save, module)?)
}
