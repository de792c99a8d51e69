//! safetensors files, read through the `safetensors` crate with our own errors and dtypes, and written by us: sorted
//! deterministically, streamed, atomic.
//!
//! What a `.bullet` header holds goes into the string map `__metadata__` under `bullet.*`; everything else there is
//! metadata.

use std::collections::BTreeMap;
use std::path::Path;

use bullet_ops::DType;
use safetensors::tensor::Metadata;
use safetensors::{Dtype, SafeTensors};
use serde_json::{Value, json};

use super::bullet::{Backing, missing};
use super::sniff::describe;
use super::{AtomicFile, FileKind, Header, TensorRef, TensorSpec, show_shape, sniff};
use crate::error::{Error, Result, show};
use crate::tokenizer::Tokenizer;

const MODEL: &str = "bullet.model";
const TOKENIZER: &str = "bullet.tokenizer";
const TRAINING: &str = "bullet.training";
/// Names of the tensors in `.bullet` order, where the order of the data is another.
const ORDER: &str = "bullet.order";
/// Before the key of metadata that would otherwise be taken for one of ours.
const ESCAPE: &str = "bullet.metadata.";
const RESERVED: &str = "bullet.";

/// An opened safetensors file: memory-mapped, its header checked, its tensors views of its pages.
#[derive(Debug)]
pub struct SafetensorsFile {
    header: Header,
    /// With the range of bytes in the file.
    tensors: Vec<(TensorSpec, std::ops::Range<usize>)>,
    bytes: Backing,
}

impl SafetensorsFile {
    /// Maps the file and checks its header. The format has no checksums: damage to the data goes unseen.
    ///
    /// # Errors
    /// No such file; not a safetensors file; damaged or cut off; a tensor of a dtype that Bullet does not have, or a
    /// bool that is neither 0 nor 1.
    pub fn open(path: impl AsRef<Path>) -> Result<SafetensorsFile> {
        let path = path.as_ref();
        SafetensorsFile::from_backing(Backing::open(path)?).map_err(|e| e.context(path.display()))
    }

    /// As [`open`](SafetensorsFile::open), of a file already in memory.
    ///
    /// # Errors
    /// Those of [`open`](SafetensorsFile::open).
    pub fn from_bytes(bytes: Vec<u8>) -> Result<SafetensorsFile> {
        SafetensorsFile::from_backing(Backing::Owned(bytes))
    }

    fn from_backing(backing: Backing) -> Result<SafetensorsFile> {
        let bytes = backing.bytes();
        let (header_len, metadata) = SafeTensors::read_metadata(bytes).map_err(|e| explain(bytes, &e))?;
        let data_start = header_len + 8;
        let mut tensors = Vec::new();
        for (name, info) in metadata.tensors() {
            let spec = TensorSpec { dtype: dtype(&name, info.dtype)?, name, shape: info.shape.clone() };
            let (start, end) = info.data_offsets;
            if spec.byte_len()? != (end - start) as u64 {
                return Err(Error::corrupt(format!(
                    "tensor {} has {} bytes, which is not what {} of {} needs",
                    show(&spec.name),
                    end - start,
                    show_shape(&spec.shape),
                    spec.dtype
                )));
            }
            tensors.push((spec, data_start + start..data_start + end));
        }
        tensors.sort_by(|(a, x), (b, y)| (x.start, x.end, &a.name).cmp(&(y.start, y.end, &b.name)));
        let header = header_from(&metadata, &mut tensors)?;
        let file = SafetensorsFile { header, tensors, bytes: backing };
        file.tensors().try_for_each(|t| t.check_elements())?;
        Ok(file)
    }

    /// What `__metadata__` holds; model and tokenizer are there if the file was converted from `.bullet`.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The tensors, in the order of the `.bullet` file they came from, else of their data.
    pub fn tensors(&self) -> impl ExactSizeIterator<Item = TensorRef<'_>> {
        self.tensors.iter().map(|(spec, range)| TensorRef {
            name: &spec.name,
            dtype: spec.dtype,
            shape: &spec.shape,
            bytes: &self.bytes.bytes()[range.clone()],
        })
    }

    /// The tensor of this name.
    pub fn get(&self, name: &str) -> Option<TensorRef<'_>> {
        self.tensors().find(|t| t.name == name)
    }

    /// The tensor of this name.
    ///
    /// # Errors
    /// There is none; the message lists names that the file has.
    pub fn tensor(&self, name: &str) -> Result<TensorRef<'_>> {
        self.get(name).ok_or_else(|| missing(name, self.tensors().map(|t| t.name)))
    }
}

/// Writes a safetensors file, atomically. Larger elements come first, so that every tensor is aligned to its own.
///
/// # Errors
/// A name is given twice or is `__metadata__`, bytes don't fit a shape, or writing failed.
pub fn write_safetensors(path: impl AsRef<Path>, header: &Header, tensors: &[TensorRef<'_>]) -> Result<()> {
    let mut sorted: Vec<&TensorRef<'_>> = tensors.iter().collect();
    sorted.sort_by_key(|t| std::cmp::Reverse(t.dtype.size()));
    let mut json = serde_json::Map::new();
    let mut places = Vec::with_capacity(sorted.len());
    let mut end = 0usize;
    for t in &sorted {
        if t.spec().byte_len()? != t.bytes.len() as u64 {
            return Err(Error::argument(format!(
                "tensor {} comes with {} bytes, which is not what its shape and dtype need",
                show(t.name),
                t.bytes.len()
            )));
        }
        let start = end;
        end += t.bytes.len();
        places.push((start, end, t.name));
        let entry = json!({
            "dtype": t.dtype.name().to_uppercase(), "shape": t.shape, "data_offsets": [start, end]
        });
        if t.name == "__metadata__" || json.insert(t.name.to_string(), entry).is_some() {
            return Err(Error::argument(format!(
                "safetensors cannot hold a tensor named {}: the name is taken",
                show(t.name)
            )));
        }
    }
    places.sort();
    let as_read = places.iter().map(|p| p.2);
    let order = (!as_read.eq(tensors.iter().map(|t| t.name))).then_some(tensors);
    json.insert("__metadata__".to_string(), json!(metadata_of(header, order)));
    let mut json = Value::Object(json).to_string().into_bytes();
    json.resize(json.len().next_multiple_of(8), b' ');
    let mut file = AtomicFile::create(path.as_ref(), (8 + json.len() + end) as u64)?;
    file.write(&(json.len() as u64).to_le_bytes())?;
    file.write(&json)?;
    for t in sorted {
        file.write(t.bytes)?;
    }
    file.commit()
}

fn metadata_of(header: &Header, order: Option<&[TensorRef<'_>]>) -> BTreeMap<String, String> {
    let mut map = BTreeMap::new();
    for (key, value) in &header.metadata {
        let escape = if key.starts_with(RESERVED) { ESCAPE } else { "" };
        map.insert(format!("{escape}{key}"), value.clone());
    }
    if !header.model.is_null() {
        map.insert(MODEL.to_string(), header.model.to_string());
    }
    map.extend(header.tokenizer.as_ref().map(|t| (TOKENIZER.to_string(), t.to_json())));
    map.extend(header.training.as_ref().map(|t| (TRAINING.to_string(), t.to_string())));
    if let Some(tensors) = order {
        let names: Vec<&str> = tensors.iter().map(|t| t.name).collect();
        map.insert(ORDER.to_string(), json!(names).to_string());
    }
    map
}

fn header_from<R>(metadata: &Metadata, tensors: &mut [(TensorSpec, R)]) -> Result<Header> {
    fn parse<T: serde::de::DeserializeOwned>(key: &str, text: &str) -> Result<T> {
        serde_json::from_str(text)
            .map_err(|e| Error::corrupt(format!("the metadata {key:?} is damaged: {e}")))
    }
    let mut header = Header::default();
    for (key, value) in metadata.metadata().iter().flatten() {
        match key.as_str() {
            MODEL => header.model = parse(key, value)?,
            TOKENIZER => header.tokenizer = Some(Tokenizer::from_json(value)?),
            TRAINING => header.training = Some(parse(key, value)?),
            ORDER => {
                let names: Vec<String> = parse(key, value)?;
                let rank: BTreeMap<&str, usize> =
                    names.iter().enumerate().map(|(i, n)| (n.as_str(), i)).collect();
                // Tensors that another program added since come last.
                tensors.sort_by_key(|(spec, _)| rank.get(spec.name.as_str()).copied().unwrap_or(usize::MAX));
            }
            _ => {
                let key = key.strip_prefix(ESCAPE).unwrap_or(key);
                header.metadata.insert(key.to_string(), value.clone());
            }
        }
    }
    Ok(header)
}

fn dtype(name: &str, dtype: Dtype) -> Result<DType> {
    Ok(match dtype {
        Dtype::BOOL => DType::Bool,
        Dtype::U8 => DType::U8,
        Dtype::U16 => DType::U16,
        Dtype::U32 => DType::U32,
        Dtype::U64 => DType::U64,
        Dtype::I8 => DType::I8,
        Dtype::I16 => DType::I16,
        Dtype::I32 => DType::I32,
        Dtype::I64 => DType::I64,
        Dtype::F16 => DType::F16,
        Dtype::BF16 => DType::BF16,
        Dtype::F32 => DType::F32,
        Dtype::F64 => DType::F64,
        other => {
            return Err(Error::unsupported(format!(
                "tensor {} has dtype {other}, which Bullet does not have; convert it to one of {} first",
                show(name),
                DType::ALL.map(|d| d.name().to_uppercase()).join(", ")
            )));
        }
    })
}

/// The crate's error in words a user can act on.
fn explain(bytes: &[u8], e: &safetensors::SafeTensorError) -> Error {
    match sniff(bytes) {
        FileKind::Safetensors => Error::corrupt(format!(
            "the safetensors file is damaged or cut off ({e}); it has {} bytes: copy or download it again",
            bytes.len()
        )),
        FileKind::Bullet => Error::unsupported(
            "not a safetensors file: this is a .bullet file; convert it with `bullet convert`",
        ),
        _ => Error::unsupported(format!("not a safetensors file: {}", describe(bytes))),
    }
}
