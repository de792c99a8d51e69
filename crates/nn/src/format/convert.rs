//! Between `.bullet` and safetensors, losslessly: model, tokenizer, training state, metadata and the order of the
//! tensors survive the way there and back.

use std::path::Path;

use super::bullet::Backing;
use super::sniff::describe;
use super::{BulletFile, FileKind, Header, SafetensorsFile, TensorRef, sniff, write, write_safetensors};
use crate::error::{Error, Result};

/// A model file of either format.
#[derive(Debug)]
pub enum ModelFile {
    /// A `.bullet` file.
    Bullet(BulletFile),
    /// A safetensors file.
    Safetensors(SafetensorsFile),
}

impl ModelFile {
    /// Opens either format, told apart by content.
    ///
    /// # Errors
    /// Those of [`BulletFile::open`] and [`SafetensorsFile::open`].
    pub fn open(path: impl AsRef<Path>) -> Result<ModelFile> {
        let path = path.as_ref();
        let backing = Backing::open(path)?;
        match sniff(backing.bytes()) {
            FileKind::Safetensors => SafetensorsFile::open(path).map(ModelFile::Safetensors),
            FileKind::Bullet => BulletFile::open(path).map(ModelFile::Bullet),
            _ => Err(Error::unsupported(format!(
                "{}: neither a .bullet nor a .safetensors file: {}",
                path.display(),
                describe(backing.bytes())
            ))),
        }
    }

    /// All but the tensors.
    pub fn header(&self) -> &Header {
        match self {
            ModelFile::Bullet(f) => f.header(),
            ModelFile::Safetensors(f) => f.header(),
        }
    }

    /// The tensors, in order.
    pub fn tensors(&self) -> Vec<TensorRef<'_>> {
        match self {
            ModelFile::Bullet(f) => f.tensors().collect(),
            ModelFile::Safetensors(f) => f.tensors().collect(),
        }
    }

    /// The tensor of this name.
    ///
    /// # Errors
    /// There is none.
    pub fn tensor(&self, name: &str) -> Result<TensorRef<'_>> {
        match self {
            ModelFile::Bullet(f) => f.tensor(name),
            ModelFile::Safetensors(f) => f.tensor(name),
        }
    }

    /// Checks the data where the format has checksums; safetensors has none.
    ///
    /// # Errors
    /// Those of [`BulletFile::verify`].
    pub fn verify(&self) -> Result<()> {
        match self {
            ModelFile::Bullet(f) => f.verify(),
            ModelFile::Safetensors(_) => Ok(()),
        }
    }
}

/// Converts `source`, of either format, to the one that the extension of `destination` names.
///
/// # Errors
/// Those of reading (the source is verified) and writing; a source without tensors; an extension that is neither
/// `bullet` nor `safetensors`.
pub fn convert(source: impl AsRef<Path>, destination: impl AsRef<Path>) -> Result<()> {
    let (source, destination) = (source.as_ref(), destination.as_ref());
    let extension = destination.extension().map(|e| e.to_ascii_lowercase());
    let write = match extension.as_ref().and_then(|e| e.to_str()) {
        Some("bullet") => write,
        Some("safetensors") => write_safetensors,
        _ => {
            return Err(Error::argument(format!(
                "{}: the name must end in .bullet or .safetensors, to say what to convert to",
                destination.display()
            )));
        }
    };
    let file = ModelFile::open(source)?;
    file.verify().map_err(|e| e.context(source.display()))?;
    if file.tensors().is_empty() {
        return Err(Error::data(format!(
            "{} is a sound file but holds no tensors: there is nothing to convert; check how it was saved",
            source.display()
        )));
    }
    write(destination, file.header(), &file.tensors())
}

/// Writes the contents of a `.bullet` file as safetensors, whatever the names.
///
/// # Errors
/// Those of reading (the source is verified) and writing.
pub fn bullet_to_safetensors(source: impl AsRef<Path>, destination: impl AsRef<Path>) -> Result<()> {
    let file = BulletFile::open_verified(source)?;
    write_safetensors(destination, file.header(), &file.tensors().collect::<Vec<_>>())
}

/// Writes the contents of a safetensors file as `.bullet`, whatever the names.
///
/// # Errors
/// Those of reading and writing.
pub fn safetensors_to_bullet(source: impl AsRef<Path>, destination: impl AsRef<Path>) -> Result<()> {
    let file = SafetensorsFile::open(source)?;
    write(destination, file.header(), &file.tensors().collect::<Vec<_>>())
}
