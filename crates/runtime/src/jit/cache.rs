//! Compiled kernels on disk, so that a second process start compiles nothing.
//!
//! **Entries** are files named by a hash of all that the result depends on. Each carries its length and a checksum of
//! key and content; what does not match is compiled again and replaced. An entry is written to a file of its own and
//! renamed, so that any number of processes may share the folder and a killed one leaves at most a temporary file,
//! which is swept up later.
//!
//! **A folder that cannot be used** (read-only, full) costs the caching, one warning, and nothing else.

mod decisions;
mod stats;

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime};

use crate::error::{Error, Result};
use crate::options::parse_bytes;

pub use stats::Stats;
use stats::StatsFile;

/// Changes with the layout of entries and with what a key is made of.
const MAGIC: &[u8; 8] = b"BLTKRNL1";
/// Magic, length, checksum.
const HEADER: usize = 8 + 8 + 32;
/// Most bytes of all entries, unless `BULLET_CACHE_LIMIT` says otherwise.
const DEFAULT_LIMIT: u64 = 512 << 20;
/// A temporary file this old belongs to no living writer.
const ABANDONED: Duration = Duration::from_secs(3600);
/// An entry's time of last use is kept no more exactly than this.
const STALE: Duration = Duration::from_secs(12 * 3600);
/// Stores after which the folder is looked through again, because other processes write there, too.
const SWEEP_EVERY: u64 = 256;

/// Names an entry: a hash of all that a compiled kernel depends on.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Key(blake3::Hash);

impl Key {
    /// The key of these parts, in this order.
    pub fn new(parts: &[&[u8]]) -> Key {
        let mut hash = blake3::Hasher::new();
        hash.update(MAGIC);
        for part in parts {
            // The length first, so that no two lists of parts run together the same.
            hash.update(&(part.len() as u64).to_le_bytes());
            hash.update(part);
        }
        Key(hash.finalize())
    }
}

/// What is in a cache, and how it served so far.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct CacheReport {
    /// The folder.
    pub folder: PathBuf,
    /// Number of entries.
    pub entries: u64,
    /// Bytes of all entries.
    pub bytes: u64,
    /// Most bytes that entries may have; the least recently used go first.
    pub limit: u64,
    /// Of this process.
    pub process: Stats,
    /// Of all processes since the folder was made.
    pub ever: Stats,
}

/// A folder of compiled kernels.
#[derive(Debug)]
pub struct Cache {
    folder: PathBuf,
    limit: u64,
    stats: StatsFile,
    /// Bytes of all entries, as far as this process knows; `u64::MAX` before it looked.
    bytes: AtomicU64,
    stores: AtomicU64,
    warned: AtomicBool,
}

impl Cache {
    /// The cache of this process: in `BULLET_CACHE_DIR`, else `$XDG_CACHE_HOME/bullet`, else `~/.cache/bullet`; `None`
    /// if `BULLET_CACHE` is 0 or there is no such folder. `BULLET_CACHE_LIMIT` bounds its size.
    ///
    /// # Errors
    /// A variable makes no sense.
    pub fn shared() -> Result<Option<Arc<Cache>>> {
        static SHARED: OnceLock<Result<Option<Arc<Cache>>>> = OnceLock::new();
        SHARED.get_or_init(|| Ok(Cache::from_vars(|name| std::env::var_os(name))?.map(Arc::new))).clone()
    }

    fn from_vars(var: impl Fn(&str) -> Option<OsString>) -> Result<Option<Cache>> {
        let var = |name: &str| var(name).filter(|v| !v.is_empty());
        let wrong = |name: &str, why: String| {
            Error::invalid(format!("the environment variable {name} is wrong: {why}"))
        };
        match var("BULLET_CACHE").as_deref().map(|v| v.to_string_lossy()).as_deref().map(str::trim) {
            None | Some("1") => {}
            Some("0") => return Ok(None),
            Some(other) => return Err(wrong("BULLET_CACHE", format!("'{other}'; expected 1 or 0"))),
        }
        let limit = match var("BULLET_CACHE_LIMIT") {
            None => DEFAULT_LIMIT,
            Some(text) => parse_bytes(&text.to_string_lossy())
                .map_err(|e| wrong("BULLET_CACHE_LIMIT", e.message))? as u64,
        };
        let folder = |name: &str, below: &str| var(name).map(|v| Path::new(&v).join(below));
        let folder = var("BULLET_CACHE_DIR")
            .map(PathBuf::from)
            .or_else(|| folder("XDG_CACHE_HOME", "bullet"))
            .or_else(|| folder("HOME", ".cache/bullet"));
        Ok(folder.map(|folder| Cache::new(folder, limit)))
    }

    /// A cache in this folder, which is made when the first entry is stored.
    pub fn new(folder: impl Into<PathBuf>, limit: u64) -> Cache {
        let folder = folder.into();
        Cache {
            stats: StatsFile::new(folder.join("stats")),
            folder,
            limit,
            bytes: AtomicU64::new(u64::MAX),
            stores: AtomicU64::new(0),
            warned: AtomicBool::new(false),
        }
    }

    /// The entry of this key, or what `compile` makes, which is stored.
    ///
    /// # Errors
    /// Those of `compile`. The cache itself never fails.
    pub fn get_or(&self, key: &Key, compile: impl FnOnce() -> Result<Vec<u8>>) -> Result<Vec<u8>> {
        if let Some(image) = self.load(key) {
            self.stats.add(Stats { hits: 1, ..Stats::default() });
            return Ok(image);
        }
        let start = Instant::now();
        let image = compile()?;
        let compile_us = start.elapsed().as_micros() as u64;
        if let Err(e) = self.store(key, &image) {
            self.warn(&e);
        }
        self.stats.add(Stats { hits: 0, misses: 1, compile_us });
        Ok(image)
    }

    /// The entry of this key, if there is one and it is whole.
    pub fn load(&self, key: &Key) -> Option<Vec<u8>> {
        let path = self.path(key);
        let image = read(&path, key)?;
        touch(&path);
        Some(image)
    }

    /// Stores an entry, in place of one of the same key.
    ///
    /// # Errors
    /// The folder cannot be written; an older entry is still whole then.
    pub fn store(&self, key: &Key, image: &[u8]) -> io::Result<()> {
        if (image.len() + HEADER) as u64 > self.limit {
            return Ok(());
        }
        let unique = self.stores.fetch_add(1, Relaxed);
        // Not forced to the disk first: after a power cut the checksum tells.
        self.write(&self.kernels(), unique, key, image, |temporary| fs::rename(temporary, self.path(key)))?;
        let added = (image.len() + HEADER) as u64;
        let known = self.bytes.load(Relaxed);
        if unique.is_multiple_of(SWEEP_EVERY) || known.saturating_add(added) > self.limit {
            self.sweep();
        } else {
            self.bytes.fetch_add(added, Relaxed);
        }
        Ok(())
    }

    /// Writes an entry to a file of its own, and has it `published`; it is gone then, or swept up later.
    fn write(
        &self,
        folder: &Path,
        unique: u64,
        key: &Key,
        payload: &[u8],
        publish: impl FnOnce(&Path) -> io::Result<()>,
    ) -> io::Result<()> {
        fs::create_dir_all(folder)?;
        let nanos = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_nanos();
        // Processes of several machines may share the folder, with equal numbers; one file is never written twice.
        let temporary = folder.join(format!("{}-{nanos:x}-{unique}.tmp", std::process::id()));
        let written = (|| {
            let mut file = File::create_new(&temporary)?;
            file.write_all(MAGIC)?;
            file.write_all(&(payload.len() as u64).to_le_bytes())?;
            file.write_all(checksum(key, payload).as_bytes())?;
            file.write_all(payload)?;
            drop(file);
            publish(&temporary)
        })();
        if written.is_err() {
            let _ = fs::remove_file(&temporary);
        }
        written
    }

    /// What is in it, and how it served.
    pub fn report(&self) -> CacheReport {
        let entries = self.entries();
        CacheReport {
            folder: self.folder.clone(),
            entries: entries.len() as u64,
            bytes: entries.iter().map(|entry| entry.bytes).sum(),
            limit: self.limit,
            process: self.stats.process(),
            ever: self.stats.ever(),
        }
    }

    fn kernels(&self) -> PathBuf {
        self.folder.join("kernels")
    }

    fn path(&self, key: &Key) -> PathBuf {
        self.kernels().join(format!("{}.bin", key.0.to_hex()))
    }

    fn entries(&self) -> Vec<Entry> {
        files(&self.kernels(), "bin")
    }

    /// Removes what killed writers left, and the least recently used entries beyond the limit.
    fn sweep(&self) {
        sweep_up(&self.kernels());
        let mut entries = self.entries();
        let mut bytes: u64 = entries.iter().map(|entry| entry.bytes).sum();
        if bytes > self.limit {
            // Some room at once, or every later store would sweep again.
            let enough = self.limit / 10 * 9;
            entries.sort_by_key(|entry| entry.used);
            for entry in entries {
                if bytes <= enough {
                    break;
                }
                let _ = fs::remove_file(entry.path); // As above.
                bytes -= entry.bytes;
            }
        }
        self.bytes.store(bytes, Relaxed);
    }

    fn warn(&self, e: &io::Error) {
        if !self.warned.swap(true, Relaxed) {
            eprintln!(
                "warning: compiled kernels cannot be kept in {}: {e}. They are compiled anew at every start; set \
                 BULLET_CACHE_DIR to a folder with room, or BULLET_CACHE=0",
                self.folder.display()
            );
        }
    }
}

#[derive(Debug)]
struct Entry {
    path: PathBuf,
    bytes: u64,
    used: SystemTime,
}

impl Entry {
    fn of(path: PathBuf) -> io::Result<Entry> {
        let data = fs::metadata(&path)?;
        Ok(Entry { path, bytes: data.len(), used: data.modified()? })
    }
}

/// The files of a folder with this extension.
fn files(folder: &Path, extension: &str) -> Vec<Entry> {
    let files = fs::read_dir(folder).into_iter().flatten().flatten();
    let files = files.filter(|file| file.path().extension().is_some_and(|e| e == extension));
    // A file that another process removes meanwhile is not there.
    files.filter_map(|file| Entry::of(file.path()).ok()).collect()
}

/// Removes what killed writers left.
fn sweep_up(folder: &Path) {
    for left in files(folder, "tmp") {
        if age(left.used) > ABANDONED {
            let _ = fs::remove_file(left.path); // Another process may have been first.
        }
    }
}

/// The payload of a file, if it is there and whole.
fn read(path: &Path, key: &Key) -> Option<Vec<u8>> {
    let mut bytes = fs::read(path).ok()?;
    let header = bytes.get(..HEADER)?;
    let payload = &bytes[HEADER..];
    let whole = header[..8] == *MAGIC
        && header[8..16] == (payload.len() as u64).to_le_bytes()
        && header[16..] == *checksum(key, payload).as_bytes();
    if !whole {
        return None;
    }
    bytes.drain(..HEADER);
    Some(bytes)
}

fn age(time: SystemTime) -> Duration {
    time.elapsed().unwrap_or_default()
}

fn checksum(key: &Key, payload: &[u8]) -> blake3::Hash {
    // With the key, so that an entry under another's name is refused.
    blake3::Hasher::new().update(key.0.as_bytes()).update(payload).finalize()
}

/// Notes that an entry was used, where that is not known yet; a folder that is read-only does not know.
fn touch(path: &Path) {
    let used = fs::metadata(path).and_then(|data| data.modified());
    if used.is_ok_and(|used| age(used) > STALE) {
        let _ = File::options().write(true).open(path).and_then(|file| file.set_modified(SystemTime::now()));
    }
}

#[cfg(test)]
mod tests;
