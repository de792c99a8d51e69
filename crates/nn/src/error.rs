//! The error of this crate: what went wrong with a file, a text, a tokenizer or an argument, and what to do.

use std::fmt;
use std::io;
use std::path::Path;

use bullet_tensor::runtime;

/// Whose fault it was, for the layers that map errors to exit codes and exceptions.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ErrorKind {
    /// The operating system refused: no such file, disk full, no permission.
    Io,
    /// A file is damaged, truncated or hostile.
    Corrupt,
    /// A file is sound, but of a version, format or dtype that this build does not read.
    Unsupported,
    /// The training text or the token stream does not fit what was asked of it.
    Data,
    /// An argument out of its range.
    Argument,
    /// A tensor operation refused its operands.
    Tensor,
    /// A device, or the share of it that this process may use, is full.
    OutOfMemory,
}

/// A failure with a full sentence for the user.
#[derive(Debug)]
pub struct Error {
    /// Whose fault.
    pub kind: ErrorKind,
    /// What was wrong, what was expected, what to do.
    pub message: String,
    /// The operating system's error, if there was one.
    pub source: Option<io::Error>,
}

/// `Result` with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An error of this kind without a cause below it.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Error {
        Error { kind, message: message.into(), source: None }
    }
    /// An error of kind [`ErrorKind::Corrupt`].
    pub fn corrupt(message: impl Into<String>) -> Error {
        Error::new(ErrorKind::Corrupt, message)
    }
    /// An error of kind [`ErrorKind::Unsupported`].
    pub fn unsupported(message: impl Into<String>) -> Error {
        Error::new(ErrorKind::Unsupported, message)
    }
    /// An error of kind [`ErrorKind::Data`].
    pub fn data(message: impl Into<String>) -> Error {
        Error::new(ErrorKind::Data, message)
    }
    /// An error of kind [`ErrorKind::Argument`].
    pub fn argument(message: impl Into<String>) -> Error {
        Error::new(ErrorKind::Argument, message)
    }
    /// `could not {verb} {path}: {cause}`, of kind [`ErrorKind::Io`].
    pub fn io(verb: &str, path: &Path, source: io::Error) -> Error {
        let message = format!("could not {verb} {}: {source}", path.display());
        Error { kind: ErrorKind::Io, message, source: Some(source) }
    }
    /// The same error, its message led by `context: `.
    pub fn context(mut self, context: impl fmt::Display) -> Error {
        self.message = format!("{context}: {}", self.message);
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_ref().map(|e| e as _)
    }
}

impl From<bullet_ops::Error> for Error {
    fn from(e: bullet_ops::Error) -> Error {
        Error::new(ErrorKind::Tensor, e.message)
    }
}

impl From<bullet_tensor::Error> for Error {
    fn from(e: bullet_tensor::Error) -> Error {
        let kind = if e.is_out_of_memory() { ErrorKind::OutOfMemory } else { ErrorKind::Tensor };
        Error::new(kind, e.to_string())
    }
}

impl From<Error> for bullet_tensor::Error {
    /// For a module inside of a function that tensors call, such as one that is recomputed.
    fn from(e: Error) -> bullet_tensor::Error {
        match e.kind {
            ErrorKind::OutOfMemory => {
                let numbers = runtime::OutOfMemory::default();
                runtime::Error::new(runtime::ErrorKind::OutOfMemory(numbers.into()), e.message).into()
            }
            ErrorKind::Io
            | ErrorKind::Corrupt
            | ErrorKind::Unsupported
            | ErrorKind::Data
            | ErrorKind::Argument
            | ErrorKind::Tensor => bullet_ops::Error::argument(e.message).into(),
        }
    }
}

/// `1 byte`, `999 bytes`, `1.5 kB`, `12.3 MB`: for messages.
pub(crate) fn human_bytes(n: u64) -> String {
    const UNITS: [&str; 6] = ["kB", "MB", "GB", "TB", "PB", "EB"];
    if n < 1000 {
        return format!("{n} byte{}", if n == 1 { "" } else { "s" });
    }
    let mut value = n as f64 / 1000.0;
    let mut unit = 0;
    while value >= 999.95 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// A name from a file, quoted, control characters escaped, cut to a readable length: a hostile file may hold any.
pub(crate) fn show(name: &str) -> String {
    const MAX: usize = 80;
    match name.char_indices().nth(MAX) {
        None => format!("{name:?}"),
        Some((cut, _)) => format!("{:?}...", &name[..cut]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_read_well() {
        for (n, want) in [
            (0, "0 bytes"),
            (1, "1 byte"),
            (999, "999 bytes"),
            (1000, "1.0 kB"),
            (999_960, "1.0 MB"),
            (12_345_678, "12.3 MB"),
            (u64::MAX, "18.4 EB"),
        ] {
            assert_eq!(human_bytes(n), want);
        }
    }

    #[test]
    fn hostile_names_are_cut_and_escaped() {
        assert_eq!(show("a\u{1b}"), "\"a\\u{1b}\"");
        assert!(show(&"é".repeat(1000)).len() < 200);
    }
}
