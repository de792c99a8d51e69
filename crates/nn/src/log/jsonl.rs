//! The run log: one JSON object a line, on disk as soon as it is written.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::Value;

use crate::error::{Error, Result};
use crate::format::AtomicFile;

/// A log that lines are appended to.
#[derive(Debug)]
pub struct JsonlLog {
    path: PathBuf,
    file: File,
}

impl JsonlLog {
    /// Starts a new log; one that was there is overwritten.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn create(path: impl AsRef<Path>) -> Result<JsonlLog> {
        let path = path.as_ref();
        let file = File::create(path).map_err(|e| Error::io("create", path, e))?;
        Ok(JsonlLog { path: path.to_path_buf(), file })
    }

    /// Goes on with a log after a run resumed at `step`. Lines whose `"step"` is later are dropped (the run writes them
    /// again), and so is a last line that a crash cut off. Starts a new log if there is none.
    ///
    /// # Errors
    /// The file cannot be read or written, or a line before the last is not JSON.
    pub fn resume(path: impl AsRef<Path>, step: u64) -> Result<JsonlLog> {
        let path = path.as_ref();
        if path.exists() {
            let text = fs::read_to_string(path).map_err(|e| Error::io("read", path, e))?;
            let kept = lines_until(&text, step).map_err(|e| e.context(path.display()))?;
            if kept != text {
                let mut file = AtomicFile::create(path, kept.len() as u64)?;
                file.write(kept.as_bytes())?;
                file.commit()?;
            }
        }
        let file = OpenOptions::new()
            .append(true)
            .create(true)
            .open(path)
            .map_err(|e| Error::io("open", path, e))?;
        Ok(JsonlLog { path: path.to_path_buf(), file })
    }

    /// Appends one line, in one write.
    ///
    /// # Errors
    /// The record is not JSON, or the file cannot be written.
    pub fn write(&mut self, record: &impl Serialize) -> Result<()> {
        let mut line = serde_json::to_vec(record)
            .map_err(|e| Error::argument(format!("a log record cannot be written as JSON: {e}")))?;
        line.push(b'\n');
        self.file.write_all(&line).map_err(|e| Error::io("write the log", &self.path, e))
    }

    /// Where the log is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The records of a log; a last line that a crash cut off is left out.
    ///
    /// # Errors
    /// The file cannot be read, or a line before the last is not JSON.
    pub fn read(path: impl AsRef<Path>) -> Result<Vec<Value>> {
        let path = path.as_ref();
        let text = fs::read_to_string(path).map_err(|e| Error::io("read", path, e))?;
        records(&text)
            .map(|r| r.map(|(_, value)| value))
            .collect::<Result<_>>()
            .map_err(|e| e.context(path.display()))
    }
}

/// Whole lines with their values.
fn records(text: &str) -> impl Iterator<Item = Result<(&str, Value)>> {
    let whole = text.rfind('\n').map_or(0, |i| i + 1);
    text[..whole].split_inclusive('\n').enumerate().filter(|(_, line)| !line.trim().is_empty()).map(
        |(i, line)| {
            let value = serde_json::from_str(line).map_err(|e| {
                Error::corrupt(format!("line {} is not JSON ({e}); repair or remove it", i + 1))
            })?;
            Ok((line, value))
        },
    )
}

fn lines_until(text: &str, step: u64) -> Result<String> {
    let mut kept = String::new();
    for record in records(text) {
        let (line, value) = record?;
        if value.get("step").and_then(Value::as_u64).is_none_or(|s| s <= step) {
            kept.push_str(line);
        }
    }
    Ok(kept)
}
