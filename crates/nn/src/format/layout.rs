//! The bytes of a `.bullet` file: prelude, JSON header, tensor data. Building the header and checking one that comes
//! from anywhere. docs/bullet-format.md is the specification; a rule there and its check here go together.

use std::collections::{BTreeMap, HashMap};

use bullet_ops::DType;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Header, TensorSpec, show_shape, sniff};
use crate::error::{Error, Result, show};
use crate::tokenizer::Tokenizer;

/// The first bytes. As in PNG, a byte with the high bit and both kinds of line end show up a text-mode transfer.
pub const MAGIC: [u8; 8] = *b"\x89BULLT\r\n";

/// The version of the format that this build writes, and the only one it reads.
pub const VERSION: u32 = 1;

/// Tensor data begins at a multiple of this many bytes: a cache line, and the widest vector register.
pub const ALIGNMENT: u64 = 64;

/// The longest JSON header that is read or written.
pub const MAX_HEADER_BYTES: u64 = 64 << 20;

/// Magic, version, header checksum, header length, file length.
pub(super) const PRELUDE: usize = 32;

/// The JSON header as it stands in the file.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct JsonHeader {
    model: Value,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tokenizer: Option<Tokenizer>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    training: Option<Value>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    metadata: BTreeMap<String, String>,
    tensors: Vec<JsonTensor>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct JsonTensor {
    name: String,
    dtype: String,
    shape: Vec<u64>,
    offset: u64,
    bytes: u64,
    crc32c: String,
}

/// Where a tensor lies in its file.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Entry {
    pub(super) spec: TensorSpec,
    /// From the start of the data section.
    pub(super) offset: u64,
    pub(super) bytes: u64,
    pub(super) crc: u32,
}

/// A header with the places of its tensors.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Layout {
    pub(super) header: Header,
    pub(super) entries: Vec<Entry>,
    /// Where the data section begins in the file; a multiple of [`ALIGNMENT`].
    pub(super) data_start: u64,
    pub(super) file_len: u64,
}

/// CRC-32C of the whole header, its own field left out.
fn header_crc(prelude: &[u8], json: &[u8]) -> u32 {
    let crc = crc32c::crc32c(&prelude[..12]);
    crc32c::crc32c_append(crc32c::crc32c_append(crc, &prelude[16..PRELUDE]), json)
}

fn align(n: u64) -> Option<u64> {
    n.checked_next_multiple_of(ALIGNMENT)
}

impl Layout {
    /// Places the tensors one after the other, in the order given; checksums are still 0.
    ///
    /// # Errors
    /// A name is given twice, a size overflows, or the header is longer than [`MAX_HEADER_BYTES`].
    pub(super) fn plan(header: &Header, specs: &[TensorSpec]) -> Result<Layout> {
        let mut entries = Vec::with_capacity(specs.len());
        let mut end = 0u64;
        for spec in specs {
            let bytes = spec.byte_len()?;
            let offset = align(end).ok_or_else(too_large)?;
            end = offset.checked_add(bytes).ok_or_else(too_large)?;
            entries.push(Entry { spec: spec.clone(), offset, bytes, crc: 0 });
        }
        check_names(&entries).map_err(|e| Error::argument(e.message))?;
        let mut layout = Layout { header: header.clone(), entries, data_start: 0, file_len: 0 };
        // Checksums are fixed-width text, so that this length holds once they are known.
        let json = layout.json()?;
        // What this build could not read again (values nested more than 127 deep) it does not write either.
        serde_json::from_slice::<JsonHeader>(&json)
            .map_err(|e| Error::argument(format!("the header could not be read again: {e}")))?;
        layout.data_start = align(PRELUDE as u64 + json.len() as u64).ok_or_else(too_large)?;
        layout.file_len = layout.data_start.checked_add(end).ok_or_else(too_large)?;
        Ok(layout)
    }

    /// The bytes of the file up to its data section.
    pub(super) fn to_bytes(&self) -> Result<Vec<u8>> {
        let json = self.json()?;
        let mut out = Vec::with_capacity(self.data_start as usize);
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&VERSION.to_le_bytes());
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&(json.len() as u64).to_le_bytes());
        out.extend_from_slice(&self.file_len.to_le_bytes());
        let crc = header_crc(&out, &json);
        out[12..16].copy_from_slice(&crc.to_le_bytes());
        out.extend_from_slice(&json);
        out.resize(self.data_start as usize, 0);
        Ok(out)
    }

    fn json(&self) -> Result<Vec<u8>> {
        let Header { model, tokenizer, training, metadata } = self.header.clone();
        let tensors = self.entries.iter().map(JsonTensor::from).collect();
        let header = JsonHeader { model, tokenizer, training, metadata, tensors };
        let json = serde_json::to_vec(&header)
            .map_err(|e| Error::argument(format!("the header cannot be written as JSON: {e}")))?;
        if json.len() as u64 > MAX_HEADER_BYTES {
            return Err(Error::argument(format!(
                "the header is {} bytes; a .bullet file allows {MAX_HEADER_BYTES}: shorten the metadata or the \
                 tokenizer",
                json.len()
            )));
        }
        Ok(json)
    }

    /// Reads and checks the header of a whole file. Nothing is allocated by a length that the file claims and does
    /// not have.
    pub(super) fn parse(file: &[u8]) -> Result<Layout> {
        let (json, file_len) = check_prelude(file)?;
        let JsonHeader { model, tokenizer, training, metadata, tensors } = serde_json::from_slice(json)
            .map_err(|e| Error::corrupt(format!("the header is not what the format prescribes: {e}")))?;
        let header = Header { model, tokenizer, training, metadata };
        let json_end = PRELUDE + json.len();
        let data_start = align(json_end as u64).ok_or_else(too_large)?;
        let data_len = file_len.checked_sub(data_start).ok_or_else(|| {
            Error::corrupt(format!(
                "the file ends at byte {file_len}, before its data section at {data_start}"
            ))
        })?;
        check_padding(&file[json_end..data_start as usize], "after the header")?;
        let entries = tensors.into_iter().map(Entry::try_from).collect::<Result<Vec<_>>>()?;
        check_names(&entries)?;
        check_places(&entries, data_len)?;
        Ok(Layout { header, entries, data_start, file_len })
    }

    /// The bytes of the file between tensors, which must be zero.
    pub(super) fn check_gaps(&self, file: &[u8]) -> Result<()> {
        let mut end = self.data_start;
        for e in &self.entries {
            let start = self.data_start + e.offset;
            check_padding(
                &file[end as usize..start as usize],
                &format!("before tensor {}", show(&e.spec.name)),
            )?;
            end = start + e.bytes;
        }
        Ok(())
    }
}

/// The JSON bytes and the file length, once magic, version, lengths and checksum are right.
fn check_prelude(file: &[u8]) -> Result<(&[u8], u64)> {
    if !file.starts_with(&MAGIC) {
        return Err(Error::unsupported(format!("not a .bullet file: {}", sniff::describe(file))));
    }
    let Some((prelude, rest)) = file.split_at_checked(PRELUDE) else {
        return Err(Error::corrupt(format!(
            "the file is cut off: it has {} bytes, and the fixed part alone has {PRELUDE}; copy or download it again",
            file.len()
        )));
    };
    let word = |at: usize| u32::from_le_bytes(prelude[at..at + 4].try_into().expect("4 bytes"));
    let long = |at: usize| u64::from_le_bytes(prelude[at..at + 8].try_into().expect("8 bytes"));
    let (version, crc, json_len, file_len) = (word(8), word(12), long(16), long(24));
    if version != VERSION {
        return Err(Error::unsupported(format!(
            "the file has format version {version}; this build reads version {VERSION}{}",
            if version > VERSION { ": update Bullet to read it" } else { "" }
        )));
    }
    if json_len > MAX_HEADER_BYTES {
        return Err(Error::corrupt(format!(
            "the header claims {json_len} bytes; the format allows {MAX_HEADER_BYTES}: the file is damaged"
        )));
    }
    let Some(json) = rest.get(..json_len as usize) else {
        return Err(Error::corrupt(format!(
            "the header claims {json_len} bytes, but only {} follow: the file is cut off or damaged; copy or download \
             it again",
            rest.len()
        )));
    };
    if header_crc(prelude, json) != crc {
        return Err(Error::corrupt("the header does not match its checksum: the file is damaged"));
    }
    if file_len != file.len() as u64 {
        let what = if file_len > file.len() as u64 { "is cut off" } else { "has extra bytes at its end" };
        return Err(Error::corrupt(format!(
            "the file {what}: it has {} bytes and should have {file_len}; copy or download it again",
            file.len()
        )));
    }
    Ok((json, file_len))
}

fn check_padding(bytes: &[u8], place: &str) -> Result<()> {
    match bytes.iter().all(|&b| b == 0) {
        true => Ok(()),
        false => Err(Error::corrupt(format!("the padding {place} is not zero: the file is damaged"))),
    }
}

fn check_names(entries: &[Entry]) -> Result<()> {
    let mut seen = HashMap::with_capacity(entries.len());
    for (i, e) in entries.iter().enumerate() {
        if let Some(first) = seen.insert(&e.spec.name, i) {
            return Err(Error::corrupt(format!(
                "two tensors, number {first} and number {i}, have the same name {}",
                show(&e.spec.name)
            )));
        }
    }
    Ok(())
}

/// Every tensor lies inside the data section, aligned, after the one before it, with no room for anything else.
fn check_places(entries: &[Entry], data_len: u64) -> Result<()> {
    let mut end = 0u64;
    for e in entries {
        let name = show(&e.spec.name);
        let (offset, bytes) = (e.offset, e.bytes);
        let stop = offset.checked_add(bytes).filter(|&stop| stop <= data_len).ok_or_else(|| {
            Error::corrupt(format!(
                "tensor {name} lies outside the file: {bytes} bytes at offset {offset} of a data section of {data_len}"
            ))
        })?;
        if !offset.is_multiple_of(ALIGNMENT) {
            return Err(Error::corrupt(format!(
                "tensor {name} is misaligned: its offset {offset} is not a multiple of {ALIGNMENT}"
            )));
        }
        if offset < end {
            return Err(Error::corrupt(format!(
                "tensor {name} at offset {offset} overlaps the one before it, which ends at {end}"
            )));
        }
        if Some(offset) != align(end) {
            return Err(Error::corrupt(format!(
                "there is a gap before tensor {name}: it is at offset {offset}, and the one before it ends at {end}"
            )));
        }
        end = stop;
    }
    if end != data_len {
        return Err(Error::corrupt(format!("{} bytes after the last tensor belong to none", data_len - end)));
    }
    Ok(())
}

fn too_large() -> Error {
    Error::argument("the tensors are larger than a file can be (2^64 bytes)")
}

impl From<&Entry> for JsonTensor {
    fn from(e: &Entry) -> JsonTensor {
        JsonTensor {
            name: e.spec.name.clone(),
            dtype: e.spec.dtype.name().to_string(),
            shape: e.spec.shape.iter().map(|&d| d as u64).collect(),
            offset: e.offset,
            bytes: e.bytes,
            crc32c: format!("{:08x}", e.crc),
        }
    }
}

impl TryFrom<JsonTensor> for Entry {
    type Error = Error;
    fn try_from(t: JsonTensor) -> Result<Entry> {
        let name = show(&t.name);
        // Only the names that the format lists: DType::parse also takes NumPy's.
        let dtype = DType::ALL.into_iter().find(|d| d.name() == t.dtype).ok_or_else(|| {
            Error::unsupported(format!(
                "tensor {name} has dtype {}, which this build does not know",
                show(&t.dtype)
            ))
        })?;
        let shape =
            t.shape.iter().map(|&d| usize::try_from(d)).collect::<Result<Vec<_>, _>>().map_err(|_| {
                Error::unsupported(format!("tensor {name} has a dimension too large for this machine"))
            })?;
        let crc = Some(&t.crc32c)
            .filter(|s| s.len() == 8 && s.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')))
            .and_then(|s| u32::from_str_radix(s, 16).ok())
            .ok_or_else(|| {
                Error::corrupt(format!("tensor {name} has a checksum that is not 8 hexadecimal digits"))
            })?;
        let spec = TensorSpec { name: t.name, dtype, shape };
        let want = spec.byte_len()?;
        if want != t.bytes {
            return Err(Error::corrupt(format!(
                "tensor {name} has {} bytes, but {} of {dtype} need {want}",
                t.bytes,
                show_shape(&spec.shape)
            )));
        }
        Ok(Entry { spec, offset: t.offset, bytes: t.bytes, crc })
    }
}
