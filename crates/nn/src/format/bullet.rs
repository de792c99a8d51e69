//! Reading a `.bullet` file: memory-mapped, its header checked at once, its tensors when asked.

use std::collections::HashMap;
use std::fs::File;
use std::path::Path;

use memmap2::Mmap;

use super::layout::{Entry, Layout};
use super::{Header, TensorRef};
use crate::error::{Error, Result, show};

/// An opened `.bullet` file. Its tensors are views of the file's pages: opening reads the header only.
#[derive(Debug)]
pub struct BulletFile {
    layout: Layout,
    index: HashMap<String, usize>,
    bytes: Backing,
}

/// A whole file: mapped, or in memory.
#[derive(Debug)]
pub(super) enum Backing {
    Map(Mmap),
    Owned(Vec<u8>),
}

impl Backing {
    pub(super) fn open(path: &Path) -> Result<Backing> {
        let file = File::open(path).map_err(|e| Error::io("open", path, e))?;
        let metadata = file.metadata().map_err(|e| Error::io("open", path, e))?;
        if metadata.is_dir() {
            return Err(Error::argument(format!("{} is a folder, not a model file", path.display())));
        }
        if metadata.len() == 0 {
            return Ok(Backing::Owned(Vec::new()));
        }
        // SAFETY: the map is read-only and lives as long as every slice of it. Bullet replaces model files by
        // renaming and never writes into one, so that its own runs cannot change mapped bytes; like every program
        // that maps files, it relies on others not to overwrite or cut one in place while it is open.
        let map = unsafe { Mmap::map(&file) }.map_err(|e| Error::io("map", path, e))?;
        Ok(Backing::Map(map))
    }

    pub(super) fn bytes(&self) -> &[u8] {
        match self {
            Backing::Map(map) => map,
            Backing::Owned(bytes) => bytes,
        }
    }
}

impl BulletFile {
    /// Maps the file and checks its header, not its tensors: see [`verify`](BulletFile::verify).
    ///
    /// # Errors
    /// No such file; not a `.bullet` file (the message says what it looks like); a version that this build does not
    /// read; damaged, cut off, or with tensors that overlap or lie outside it.
    pub fn open(path: impl AsRef<Path>) -> Result<BulletFile> {
        let path = path.as_ref();
        BulletFile::from_backing(Backing::open(path)?).map_err(|e| e.context(path.display()))
    }

    /// Opens the file and verifies every byte of it.
    ///
    /// # Errors
    /// Those of [`open`](BulletFile::open) and [`verify`](BulletFile::verify).
    pub fn open_verified(path: impl AsRef<Path>) -> Result<BulletFile> {
        let file = BulletFile::open(&path)?;
        file.verify().map_err(|e| e.context(path.as_ref().display()))?;
        Ok(file)
    }

    /// As [`open`](BulletFile::open), of a file already in memory, where tensors are aligned only as `bytes` is.
    ///
    /// # Errors
    /// Those of [`open`](BulletFile::open).
    pub fn from_bytes(bytes: Vec<u8>) -> Result<BulletFile> {
        BulletFile::from_backing(Backing::Owned(bytes))
    }

    fn from_backing(bytes: Backing) -> Result<BulletFile> {
        let layout = Layout::parse(bytes.bytes())?;
        let index = layout.entries.iter().enumerate().map(|(i, e)| (e.spec.name.clone(), i)).collect();
        Ok(BulletFile { layout, index, bytes })
    }

    /// All but the tensors.
    pub fn header(&self) -> &Header {
        &self.layout.header
    }

    /// The tensors, in file order.
    pub fn tensors(&self) -> impl ExactSizeIterator<Item = TensorRef<'_>> {
        self.layout.entries.iter().map(|e| self.view(e))
    }

    /// The tensor of this name.
    pub fn get(&self, name: &str) -> Option<TensorRef<'_>> {
        Some(self.view(&self.layout.entries[*self.index.get(name)?]))
    }

    /// The tensor of this name.
    ///
    /// # Errors
    /// There is none; the message lists names that the file has.
    pub fn tensor(&self, name: &str) -> Result<TensorRef<'_>> {
        self.get(name).ok_or_else(|| missing(name, self.tensors().map(|t| t.name)))
    }

    /// The checksum (CRC-32C) that the file states for the tensor of this name.
    pub fn checksum(&self, name: &str) -> Option<u32> {
        Some(self.layout.entries[*self.index.get(name)?].crc)
    }

    /// Length of the file in bytes.
    pub fn len(&self) -> u64 {
        self.layout.file_len
    }

    /// Whether the file holds no tensor.
    pub fn is_empty(&self) -> bool {
        self.layout.entries.is_empty()
    }

    /// Checks every tensor against its checksum and the padding between them; the header was checked by
    /// [`open`](BulletFile::open). Together they find any single flipped bit for certain, and any other change but
    /// one in 2^32.
    ///
    /// # Errors
    /// The first tensor that is damaged, or has a bool that is neither 0 nor 1.
    pub fn verify(&self) -> Result<()> {
        self.layout.check_gaps(self.bytes.bytes())?;
        for e in &self.layout.entries {
            let tensor = self.view(e);
            let found = crc32c::crc32c(tensor.bytes);
            if found != e.crc {
                return Err(Error::corrupt(format!(
                    "tensor {} is damaged: its checksum is {found:08x} and should be {:08x}; restore the file from a \
                     copy",
                    show(&e.spec.name),
                    e.crc
                )));
            }
            tensor.check_elements()?;
        }
        Ok(())
    }

    fn view<'a>(&'a self, e: &'a Entry) -> TensorRef<'a> {
        let start = (self.layout.data_start + e.offset) as usize;
        let bytes = &self.bytes.bytes()[start..start + e.bytes as usize];
        TensorRef { name: &e.spec.name, dtype: e.spec.dtype, shape: &e.spec.shape, bytes }
    }
}

pub(super) fn missing<'a>(name: &str, names: impl ExactSizeIterator<Item = &'a str>) -> Error {
    let count = names.len();
    let some: Vec<String> = names.take(5).map(show).collect();
    let more = if count > some.len() { ", ..." } else { "" };
    Error::argument(format!(
        "the file has no tensor named {}; it has {count}: {}{more}",
        show(name),
        some.join(", ")
    ))
}
