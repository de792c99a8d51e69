//! Model files: the `.bullet` container (specified in docs/bullet-format.md), safetensors, and conversion between
//! them. Tensors are names, dtypes, shapes and little-endian bytes here; nothing knows the `Tensor` type.

mod atomic;
mod bullet;
mod convert;
mod layout;
mod safetensors;
mod sniff;
mod write;

use std::collections::BTreeMap;

use bullet_ops::DType;
use serde_json::Value;

pub use atomic::AtomicFile;
pub use bullet::BulletFile;
pub use convert::{ModelFile, bullet_to_safetensors, convert, safetensors_to_bullet};
pub use layout::{ALIGNMENT, MAGIC, MAX_HEADER_BYTES, VERSION};
pub use safetensors::{SafetensorsFile, write_safetensors};
pub use sniff::{FileKind, sniff};
pub use write::{Writer, write};

use crate::error::{Error, Result, show};
use crate::tokenizer::Tokenizer;

/// What a model file holds beside its tensors.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Header {
    /// The architecture's configuration; `Null` if unknown.
    pub model: Value,
    /// The tokenizer that the model was trained with.
    pub tokenizer: Option<Tokenizer>,
    /// What a run needs to resume: step, seed, optimizer settings. Absent in a file for inference only.
    pub training: Option<Value>,
    /// Anything else, as text.
    pub metadata: BTreeMap<String, String>,
}

/// What a tensor of a file is, without its data.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TensorSpec {
    /// Unique in its file.
    pub name: String,
    /// Element type.
    pub dtype: DType,
    /// Extent of each dimension, outermost first; empty for a scalar.
    pub shape: Vec<usize>,
}

/// A tensor in a file or about to be written to one: row-major, little-endian.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TensorRef<'a> {
    /// Unique in its file.
    pub name: &'a str,
    /// Element type.
    pub dtype: DType,
    /// Extent of each dimension, outermost first; empty for a scalar.
    pub shape: &'a [usize],
    /// The elements; in an opened `.bullet` file these lie in the file's memory map, at a multiple of
    /// [`ALIGNMENT`] bytes.
    pub bytes: &'a [u8],
}

impl TensorRef<'_> {
    /// This tensor without its data.
    pub fn spec(&self) -> TensorSpec {
        TensorSpec { name: self.name.to_string(), dtype: self.dtype, shape: self.shape.to_vec() }
    }

    /// Refuses bytes that are no element of the dtype.
    fn check_elements(&self) -> Result<()> {
        match self.dtype.invalid_byte(self.bytes) {
            None => Ok(()),
            Some((i, byte)) => Err(Error::corrupt(format!(
                "tensor {} is of bools, which are 0 or 1, but its byte {i} is {byte}; write such data as u8, or restore \
                 the file from a copy",
                show(self.name)
            ))),
        }
    }
}

impl TensorSpec {
    /// Bytes that the elements take.
    ///
    /// # Errors
    /// More than a `u64` counts.
    pub fn byte_len(&self) -> Result<u64> {
        let elements = self.shape.iter().try_fold(1u64, |n, &d| n.checked_mul(u64::try_from(d).ok()?));
        elements.and_then(|n| n.checked_mul(self.dtype.size() as u64)).ok_or_else(|| {
            Error::corrupt(format!(
                "tensor {} has a shape whose size overflows 64 bits: {}",
                show(&self.name),
                show_shape(&self.shape)
            ))
        })
    }
}

/// A shape for a message, cut after eight dimensions: a hostile file may give any number.
pub(crate) fn show_shape(shape: &[usize]) -> String {
    let dims: Vec<String> = shape.iter().take(8).map(|d| d.to_string()).collect();
    let more = if shape.len() > 8 { format!(", ... {} dimensions", shape.len()) } else { String::new() };
    format!("[{}{more}]", dims.join(", "))
}
