//! The text of a run: where it lies, and how a checkpoint knows it again.

use std::path::{Component, Path, PathBuf};

use crate::config::{Config, TextEncoding};
use crate::data::{Encoding, TextOptions, TextSource, TokenDataset};
use crate::error::{Error, Result};
use crate::tokenizer::Tokenizer;

use super::checkpoint::TrainingState;
use super::record::RunFolder;

/// Tiny Shakespeare (public domain): the text of the demo, and of runs that name no other.
pub const TINY_SHAKESPEARE: &str = include_str!("../../../../data/tinyshakespeare.txt");

/// A text as tokens.
pub(super) struct RunText {
    pub(super) data: TokenDataset,
    /// See [`fingerprint`].
    pub(super) checksum: String,
    /// See [`TrainingState::text`].
    pub(super) place: Option<String>,
}

impl RunText {
    /// The tokens of `text`, split as `config` says.
    pub(super) fn new(
        text: &str,
        config: &Config,
        tokenizer: &Tokenizer,
        place: Option<String>,
    ) -> Result<RunText> {
        let data = TokenDataset::new(text, tokenizer, 1.0 - config.data.val_fraction)?;
        Ok(RunText { checksum: fingerprint(&data), data, place })
    }
}

/// The text that `config` names.
///
/// # Errors
/// It cannot be read, is empty, or is not text.
pub(super) fn text(config: &Config) -> Result<String> {
    if config.data.path.is_empty() {
        return Ok(TINY_SHAKESPEARE.to_string());
    }
    read(Path::new(&config.data.path), config)
}

fn read(path: &Path, config: &Config) -> Result<String> {
    let encoding = match config.data.encoding {
        TextEncoding::Utf8 => Encoding::Utf8,
        TextEncoding::Lossy => Encoding::Lossy,
    };
    Ok(TextSource::load(path, &TextOptions { encoding })?.text)
}

/// The absolute path of the text that `config` names, if it has one that can be written as text.
pub(super) fn place(config: &Config) -> Option<String> {
    absolute(Path::new(&config.data.path))
}

fn absolute(path: &Path) -> Option<String> {
    std::path::absolute(path).ok()?.to_str().map(str::to_string)
}

/// The tokens of the text that the checkpoint at `checkpoint` was trained on, split as then.
///
/// # Errors
/// The text is not where it was, neither from here nor beside a run folder that was moved with it, or is another one: the
/// message names each path that was tried.
pub fn saved_data(state: &TrainingState, checkpoint: &Path, tokenizer: &Tokenizer) -> Result<TokenDataset> {
    Ok(find(state, &state.config, checkpoint, tokenizer)?.data)
}

/// As [`saved_data`], with the settings of a run that goes on.
pub(super) fn find(
    state: &TrainingState,
    config: &Config,
    checkpoint: &Path,
    tokenizer: &Tokenizer,
) -> Result<RunText> {
    let attempt = |path: Option<&Path>| -> Result<RunText> {
        let text = path.map_or_else(|| text(config), |path| read(path, config))?;
        let found = RunText::new(&text, config, tokenizer, path.and_then(absolute))?;
        if found.checksum == state.data {
            Ok(found)
        } else {
            Err(another(checkpoint, state, &found.checksum))
        }
    };
    let candidates = candidates(state, config, checkpoint);
    if candidates.is_empty() {
        return attempt(None);
    }
    let mut tried = Vec::new();
    for path in candidates {
        match attempt(Some(&path)) {
            Ok(found) => return Ok(found),
            Err(e) if e.source.is_some() => tried.push(e.message),
            Err(e) => tried.push(format!("{}: {}", path.display(), e.message)),
        }
    }
    Err(Error::data(format!(
        "`data.path` = {}: no text there is the one that {} was trained on ({})",
        config.data.path,
        checkpoint.display(),
        tried.join(", ")
    )))
}

/// Where the text of a checkpoint may be: where it was; where its setting leads from here; where it leads from the
/// working folder of the run, had that been moved as a whole. None if the text is the built-in one.
fn candidates(state: &TrainingState, config: &Config, checkpoint: &Path) -> Vec<PathBuf> {
    let written = Path::new(&config.data.path);
    if config.data.path.is_empty() {
        return Vec::new();
    }
    let moved = working_folder(&state.config, checkpoint).map(|folder| folder.join(written));
    let all = [state.text.as_ref().map(PathBuf::from), std::path::absolute(written).ok(), moved];
    let mut distinct: Vec<PathBuf> = Vec::new();
    for path in all.into_iter().flatten() {
        if !distinct.contains(&path) {
            distinct.push(path);
        }
    }
    distinct
}

/// The folder that the relative path of a run folder starts from, judged by where its checkpoint is now.
fn working_folder(config: &Config, checkpoint: &Path) -> Option<PathBuf> {
    let run = RunFolder::of(config);
    let run: PathBuf = run.path().components().filter(|c| *c != Component::CurDir).collect();
    let folder = std::path::absolute(checkpoint.parent()?).ok()?;
    if run.is_absolute() || !folder.ends_with(&run) {
        return None;
    }
    folder.ancestors().nth(run.components().count()).map(Path::to_path_buf)
}

/// The error of a text with `checksum` that is not that of a checkpoint.
pub(super) fn another(checkpoint: &Path, state: &TrainingState, checksum: &str) -> Error {
    Error::data(format!(
        "the training text is not the one that {} was trained on (its tokens have checksum {checksum}, expected {})",
        checkpoint.display(),
        state.data
    ))
}

/// A checksum (CRC-32C) of the number of training tokens, the training and the validation tokens, by which a resumed run
/// knows its data again.
fn fingerprint(data: &TokenDataset) -> String {
    let mut crc = crc32c::crc32c(&(data.train.len() as u64).to_le_bytes());
    let mut bytes = Vec::with_capacity(1 << 16);
    for tokens in [&data.train, &data.validation] {
        for start in (0..tokens.len()).step_by(1 << 14) {
            bytes.clear();
            let end = tokens.len().min(start + (1 << 14));
            tokens.iter(start..end).for_each(|id| bytes.extend_from_slice(&id.to_le_bytes()));
            crc = crc32c::crc32c_append(crc, &bytes);
        }
    }
    format!("{crc:08x}")
}
