//! Writing a `.bullet` file: tensors stream through, one at a time, and the file appears whole or not at all.

use std::path::Path;

use super::layout::{ALIGNMENT, Layout};
use super::{AtomicFile, Header, TensorRef, TensorSpec};
use crate::error::{Error, Result, show};

/// A `.bullet` file being written: what its tensors are is known from the start, their data comes in turn.
///
/// Dropped before [`finish`](Writer::finish), it leaves no trace.
#[derive(Debug)]
pub struct Writer {
    file: AtomicFile,
    layout: Layout,
    next: usize,
}

impl Writer {
    /// Starts a file that will hold `tensors` in this order.
    ///
    /// # Errors
    /// Two tensors have one name, a size overflows, or the folder cannot be written.
    pub fn create(path: impl AsRef<Path>, header: &Header, tensors: &[TensorSpec]) -> Result<Writer> {
        let layout = Layout::plan(header, tensors)?;
        let mut file = AtomicFile::create(path.as_ref(), layout.file_len)?;
        // Room for the header, whose checksums come last.
        file.write(&vec![0; layout.data_start as usize])?;
        Ok(Writer { file, layout, next: 0 })
    }

    /// Bytes that the finished file will have.
    pub fn file_len(&self) -> u64 {
        self.layout.file_len
    }

    /// Writes the next tensor; `name` must be its name.
    ///
    /// # Errors
    /// Another tensor is next, `bytes` is not as long as its shape needs, or writing failed.
    pub fn tensor(&mut self, name: &str, bytes: &[u8]) -> Result<()> {
        let Some(entry) = self.layout.entries.get_mut(self.next).filter(|e| e.spec.name == name) else {
            let due = self.layout.entries.get(self.next).map_or("none".to_string(), |e| show(&e.spec.name));
            return Err(Error::argument(format!(
                "tensor {} came where {due} was due: write tensors in the order announced",
                show(name)
            )));
        };
        if bytes.len() as u64 != entry.bytes {
            return Err(Error::argument(format!(
                "tensor {} came with {} bytes; its shape and dtype need {}",
                show(name),
                bytes.len(),
                entry.bytes
            )));
        }
        entry.crc = crc32c::crc32c(bytes);
        let stop = entry.offset + entry.bytes;
        self.next += 1;
        self.file.write(bytes)?;
        let padding = match self.layout.entries.get(self.next) {
            Some(next) => next.offset - stop,
            None => 0,
        };
        self.file.write(&[0; ALIGNMENT as usize][..padding as usize])
    }

    /// Writes the header, syncs, and puts the file in place.
    ///
    /// # Errors
    /// Tensors are missing, or writing failed; an older file of this name is then as it was.
    pub fn finish(mut self) -> Result<()> {
        if let Some(entry) = self.layout.entries.get(self.next) {
            return Err(Error::argument(format!(
                "tensor {} was announced, not written",
                show(&entry.spec.name)
            )));
        }
        self.file.seek(0)?;
        self.file.write(&self.layout.to_bytes()?)?;
        self.file.commit()
    }
}

/// Writes a whole file: see [`Writer`].
///
/// # Errors
/// Those of [`Writer`].
pub fn write(path: impl AsRef<Path>, header: &Header, tensors: &[TensorRef<'_>]) -> Result<()> {
    let specs: Vec<TensorSpec> = tensors.iter().map(TensorRef::spec).collect();
    let mut writer = Writer::create(path, header, &specs)?;
    for t in tensors {
        writer.tensor(t.name, t.bytes)?;
    }
    writer.finish()
}
