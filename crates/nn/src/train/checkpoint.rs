//! Checkpoints: a model with its tokenizer, and what a run needs to go on as if it had not stopped.
//!
//! Tensors are called `model.NAME` and `optim.NAME`. All randomness is a function of seed and step, so that these two
//! are the state of every generator and the position in the data.

use std::path::Path;

use bullet_tensor::{Device, Tensor};
use serde::{Deserialize, Serialize};

use crate::config::Config;
use crate::error::{Error, Result};
use crate::format::{BulletFile, Header, TensorSpec, Writer};
use crate::module::{Module, StateDict};
use crate::tokenizer::Tokenizer;

use crate::init::Init;
use crate::transformer::{Transformer, TransformerConfig};

/// What a run needs to resume, beside tensors.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainingState {
    /// Steps done; with the seed, the position in the data and the state of all random numbers.
    pub step: u64,
    /// The seed.
    pub seed: u64,
    /// The optimizer.
    pub optimizer: String,
    /// Lowest validation loss so far, and its step.
    pub best: Option<(f64, u64)>,
    /// Evaluations since then.
    pub stale: usize,
    /// Checksum (CRC-32C) of training and validation tokens and where they part, as eight hexadecimal digits.
    pub data: String,
    /// The absolute path of the text, which finds it from other working folders than that of the run; none for the
    /// built-in text, and for text that did not come from a file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// All settings.
    pub config: Config,
}

/// A model read from a file.
pub struct LoadedModel {
    /// The network, in the dtype it was saved in.
    pub model: Transformer,
    /// What made tokens of its text.
    pub tokenizer: Tokenizer,
    /// Where training stood, in a file that can be resumed.
    pub training: Option<TrainingState>,
}

/// Writes a checkpoint; the file appears whole, or an older one stays.
pub(super) fn save(
    path: &Path,
    model: &Transformer,
    tokenizer: &Tokenizer,
    state: Option<(&TrainingState, &[(String, Tensor)])>,
) -> Result<()> {
    let json = |e: serde_json::Error| Error::argument(format!("the settings cannot be written as JSON: {e}"));
    let header = Header {
        model: serde_json::to_value(model.config()).map_err(json)?,
        tokenizer: Some(tokenizer.clone()),
        training: state.map(|(s, _)| serde_json::to_value(s)).transpose().map_err(json)?,
        metadata: [("writer".to_string(), concat!("bullet ", env!("CARGO_PKG_VERSION")).to_string())].into(),
    };
    let named = model.named_parameters();
    let mut tensors: Vec<(String, &Tensor)> = named.iter().map(|(n, t)| (format!("model.{n}"), t)).collect();
    tensors.extend(state.into_iter().flat_map(|(_, optim)| optim).map(|(n, t)| (n.clone(), t)));
    let spec = |(name, t): &(String, &Tensor)| TensorSpec {
        name: name.clone(),
        dtype: t.dtype(),
        shape: t.shape().to_vec(),
    };
    let mut writer = Writer::create(path, &header, &tensors.iter().map(spec).collect::<Vec<_>>())?;
    for (name, tensor) in tensors {
        writer.tensor(&name, &tensor.to_bytes()?)?;
    }
    writer.finish()
}

/// The tensors of a file whose names begin with `prefix`; `strip` leaves the prefix out of the names.
pub(super) fn tensors(file: &BulletFile, prefix: &str, strip: bool, device: &Device) -> Result<StateDict> {
    let mut state = StateDict::new();
    for t in file.tensors() {
        if let Some(name) = t.name.strip_prefix(prefix) {
            let name = if strip { name } else { t.name };
            state.insert(name.to_string(), Tensor::from_bytes(t.bytes, t.dtype, t.shape, device)?);
        }
    }
    Ok(state)
}

/// The model in a `.bullet` file, for generation, evaluation or fine-tuning.
///
/// # Errors
/// The file is no model file, or damaged; it lacks settings or tokenizer; the tokenizer has another number of tokens
/// than the model; its tensors don't fit its settings.
pub fn load_model(path: impl AsRef<Path>, device: &Device) -> Result<LoadedModel> {
    let path = path.as_ref();
    let file = BulletFile::open_verified(path)?;
    from_file(&file, device).map_err(|e| e.context(path.display()))
}

pub(super) fn from_file(file: &BulletFile, device: &Device) -> Result<LoadedModel> {
    let header = file.header();
    if header.model.is_null() {
        return Err(Error::data(
            "the file does not say what model its tensors are; it holds tensors only: load them into a model you make",
        ));
    }
    let config: TransformerConfig = serde_json::from_value(header.model.clone())
        .map_err(|e| Error::unsupported(format!("the file holds another kind of model: {e}")))?;
    let tokenizer = header.tokenizer.clone().ok_or_else(|| {
        Error::data("the file has no tokenizer; models that are trained here have theirs inside: save it again with one")
    })?;
    check_vocabulary(config.vocab, &tokenizer)?;
    let training: Option<TrainingState> =
        header.training.clone().map(serde_json::from_value).transpose().map_err(|e| {
            Error::unsupported(format!("the file's training state is not of this version: {e}"))
        })?;
    let state = tensors(file, "model.", true, device)?;
    let dtype = state
        .values()
        .next()
        .map(Tensor::dtype)
        .ok_or_else(|| Error::data("the file has no model tensors"))?;
    let model = Transformer::new(config, &Init::new(0, dtype, device))?;
    model.load_state_dict(&state)?;
    Ok(LoadedModel { model, tokenizer, training })
}

/// Checks that a model has a row for every token.
pub(super) fn check_vocabulary(rows: usize, tokenizer: &Tokenizer) -> Result<()> {
    let tokens = tokenizer.vocab_size();
    if rows >= tokens {
        return Ok(());
    }
    Err(Error::data(format!(
        "the tokenizer has {tokens} tokens and the model has room for model.vocab = {rows}: use the tokenizer that the model \
         was trained with, or train a model with model.vocab = {tokens} or 0"
    )))
}
