//! What was measured once and decided for good: which kernel computes a product fastest here.
//!
//! A decision is a line under a line that says what it is about, in a file named by a hash of the latter, beside the
//! compiled kernels and as safe: checksummed, written apart, never seen half. Unlike a kernel it is not replaced: of several
//! processes that decide at once the first wins, and the others go by its decision, so that all have the same results.
//! Decisions take some hundred bytes each, do not count for the limit, and go when they are damaged or the folder is removed.

use std::fs::{self, File};
use std::io;
use std::path::PathBuf;
use std::sync::atomic::Ordering::Relaxed;

use super::stats::lock_soon;
use super::{Cache, Key, files, read, sweep_up};

impl Cache {
    /// What was decided about this, if it was and the file is whole.
    pub fn decision(&self, about: &str) -> Option<String> {
        let key = key(about);
        let payload = read(&self.decision_path(&key), &key)?;
        let (line, decision) = split(&payload)?;
        (line == about).then(|| decision.to_string())
    }

    /// Keeps a decision, both of one line. Returns the one that counts: another's that was first, else this.
    ///
    /// # Errors
    /// The folder cannot be written: the decision does not outlive this process.
    pub fn decide(&self, about: &str, decision: &str) -> io::Result<String> {
        let (key, folder) = (key(about), self.decisions_folder());
        fs::create_dir_all(&folder)?;
        let lock = File::options().write(true).create(true).truncate(false).open(folder.join("lock"))?;
        // Held for microseconds, by one process at a time. Without it (some file systems have no locks) the last decision of
        // several would count, but be whole even so.
        let _ = lock_soon(&lock);
        if let Some(first) = self.decision(about) {
            return Ok(first);
        }
        let payload = format!("{about}\n{decision}");
        let unique = self.stores.fetch_add(1, Relaxed);
        let path = self.decision_path(&key);
        self.write(&folder, unique, &key, payload.as_bytes(), |temporary| fs::rename(temporary, &path))?;
        sweep_up(&folder);
        Ok(decision.to_string())
    }

    /// All decisions, with what each is about.
    pub fn decisions(&self) -> Vec<(String, String)> {
        let all = files(&self.decisions_folder(), "txt").into_iter().filter_map(|entry| {
            let bytes = fs::read(entry.path).ok()?;
            let (about, _) = split(bytes.get(super::HEADER..)?)?;
            Some((about.to_string(), self.decision(about)?))
        });
        let mut all: Vec<(String, String)> = all.collect();
        all.sort();
        all
    }

    fn decisions_folder(&self) -> PathBuf {
        self.folder.join("decisions")
    }

    fn decision_path(&self, key: &Key) -> PathBuf {
        self.decisions_folder().join(format!("{}.txt", key.0.to_hex()))
    }
}

fn key(about: &str) -> Key {
    Key::new(&[b"decision", about.as_bytes()])
}

fn split(payload: &[u8]) -> Option<(&str, &str)> {
    std::str::from_utf8(payload).ok()?.split_once('\n')
}
