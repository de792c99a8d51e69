//! Files that appear whole or not at all: written beside their destination, synced, then renamed over it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::{Error, ErrorKind, Result, human_bytes};

/// A file being written. Until [`commit`](AtomicFile::commit) the destination is as it was; dropped before that, the
/// temporary file is removed.
///
/// The temporary file is `.<name>.<process>-<n>.tmp` in the destination's folder, and locked while it is written.
/// One that a killed process left behind is unlocked, and is removed when the same destination is written next.
#[derive(Debug)]
pub struct AtomicFile {
    destination: PathBuf,
    temporary: PathBuf,
    /// `None` once committed.
    file: Option<File>,
    expected: u64,
}

impl AtomicFile {
    /// Starts to write `path`; `expected` is the size to come in bytes, for messages.
    ///
    /// # Errors
    /// The folder does not exist or may not be written, or `path` is a folder.
    pub fn create(path: &Path, expected: u64) -> Result<AtomicFile> {
        // Through a symbolic link the file that it names is replaced, not the link.
        let destination = fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf());
        if destination.is_dir() {
            return Err(Error::argument(format!(
                "could not write {}: it is a folder; give the name of a file in it",
                path.display()
            )));
        }
        let Some(name) = destination.file_name() else {
            return Err(Error::argument(format!(
                "could not write {}: not the name of a file",
                path.display()
            )));
        };
        let name = name.to_string_lossy().into_owned();
        remove_leftovers(&folder(&destination), &name);
        let (temporary, file) = create_locked(&folder(&destination), &name)
            .map_err(|e| write_error(path, expected, "the folder must exist and be writable", e))?;
        if let Ok(existing) = fs::metadata(&destination) {
            // Best effort: on file systems without permissions there is nothing to keep.
            let _ = file.set_permissions(existing.permissions());
        }
        Ok(AtomicFile { destination, temporary, file: Some(file), expected })
    }

    /// Where the file will be.
    pub fn path(&self) -> &Path {
        &self.destination
    }

    /// Appends at the current position.
    ///
    /// # Errors
    /// Disk full, file size limit, input/output error; the message says how many bytes the whole file needs.
    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        let result = self.file().write_all(bytes);
        result.map_err(|e| self.fail(e))
    }

    /// Moves to `offset` from the start.
    ///
    /// # Errors
    /// Input/output error.
    pub fn seek(&mut self, offset: u64) -> Result<()> {
        let result = self.file().seek(SeekFrom::Start(offset)).map(drop);
        result.map_err(|e| self.fail(e))
    }

    /// Syncs the data to the disk, renames the file to its destination and syncs the folder.
    ///
    /// # Errors
    /// Any of the three failed; unless only the folder's sync did, the destination is as it was.
    pub fn commit(mut self) -> Result<()> {
        let synced = self.file().sync_all();
        synced.map_err(|e| self.fail(e))?;
        fs::rename(&self.temporary, &self.destination).map_err(|e| self.fail(e))?;
        self.file = None;
        sync_folder(&folder(&self.destination))
            .map_err(|e| Error::io("sync the folder of", &self.destination, e))
    }

    fn file(&mut self) -> &mut File {
        self.file.as_mut().expect("commit takes the file by value")
    }

    fn fail(&self, e: io::Error) -> Error {
        let advice = match e.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                "free some space there or choose another folder"
            }
            io::ErrorKind::FileTooLarge => {
                "raise the file size limit (ulimit -f) or choose another file system"
            }
            _ => "check the disk and the permissions of the folder",
        };
        write_error(&self.destination, self.expected, advice, e)
    }
}

impl Drop for AtomicFile {
    fn drop(&mut self) {
        if self.file.take().is_some() {
            // Nobody is left to tell; a file that stays is removed by the next write.
            let _ = fs::remove_file(&self.temporary);
        }
    }
}

fn write_error(path: &Path, expected: u64, advice: &str, e: io::Error) -> Error {
    let message = format!(
        "could not write {}: {e}; {expected} bytes ({}) are needed in {}; {advice}; a file that was there before is \
         unchanged",
        path.display(),
        human_bytes(expected),
        folder(path).display(),
    );
    Error { kind: ErrorKind::Io, message, source: Some(e) }
}

fn folder(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_path_buf(),
        _ => PathBuf::from("."),
    }
}

fn create_locked(folder: &Path, name: &str) -> io::Result<(PathBuf, File)> {
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    loop {
        let n = COUNTER.fetch_add(1, Ordering::Relaxed);
        let path = folder.join(format!(".{name}.{}-{n}.tmp", std::process::id()));
        let file = match OpenOptions::new().write(true).create_new(true).open(&path) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => continue,
            other => other?,
        };
        // Another process may have taken the still unlocked file for a leftover: then begin again. Where the file
        // system knows no locks, leftovers are not removed either.
        let taken = matches!(file.try_lock(), Err(fs::TryLockError::WouldBlock));
        if !taken && path.exists() {
            return Ok((path, file));
        }
    }
}

/// Removes temporary files for `name` that no living process holds.
fn remove_leftovers(folder: &Path, name: &str) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let file_name = entry.file_name();
        let Some(middle) = file_name
            .to_str()
            .and_then(|f| f.strip_prefix('.')?.strip_prefix(name)?.strip_prefix('.')?.strip_suffix(".tmp"))
        else {
            continue;
        };
        let ours = middle
            .split_once('-')
            .is_some_and(|(process, n)| process.parse::<u32>().is_ok() && n.parse::<u64>().is_ok());
        let unlocked = || File::open(entry.path()).is_ok_and(|f| f.try_lock().is_ok());
        if ours && unlocked() {
            let _ = fs::remove_file(entry.path());
        }
    }
}

#[cfg(unix)]
fn sync_folder(folder: &Path) -> io::Result<()> {
    match File::open(folder)?.sync_all() {
        // Some network file systems cannot sync a folder; the rename itself is still atomic there.
        Err(e) if matches!(e.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported) => Ok(()),
        other => other,
    }
}

/// Elsewhere a folder cannot be opened as a file, and renames are journalled.
#[cfg(not(unix))]
fn sync_folder(_folder: &Path) -> io::Result<()> {
    Ok(())
}
