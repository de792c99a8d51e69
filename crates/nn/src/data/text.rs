//! Text from a file, or from every text file of a folder, in an order that does not depend on the file system.

use std::fs;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// What to do with bytes that are not UTF-8.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum Encoding {
    /// Refuse the file and say where they are.
    #[default]
    Utf8,
    /// Replace them by U+FFFD.
    Lossy,
}

impl Encoding {
    /// `utf-8` or `lossy`.
    ///
    /// # Errors
    /// Another word.
    pub fn parse(name: &str) -> Result<Encoding> {
        match name {
            "utf-8" | "utf8" => Ok(Encoding::Utf8),
            "lossy" => Ok(Encoding::Lossy),
            _ => Err(Error::argument(format!(
                "encoding {name:?} is not known; expected \"utf-8\" or \"lossy\""
            ))),
        }
    }
}

/// How to load text.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct TextOptions {
    /// What to do with bytes that are not UTF-8.
    pub encoding: Encoding,
}

/// Loaded text, and where it came from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TextSource {
    /// The text: not empty. Files follow one another, with a line end between where the first has none.
    pub text: String,
    /// The files read, in order.
    pub files: Vec<PathBuf>,
    /// What a folder held that was not read.
    pub skipped: Vec<Skipped>,
}

/// A file or folder that was left out.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Skipped {
    /// Which.
    pub path: PathBuf,
    /// Why: `hidden`, `binary`, `a link to a folder`, `not a file`.
    pub reason: &'static str,
}

impl TextSource {
    /// Loads a file, or all text files of a folder and its folders, sorted by path. In a folder, hidden entries,
    /// links to folders and binary files (a zero byte in the first 8 kB, and no `.txt` or `.md` name) are left out
    /// and listed. A UTF-8 byte-order mark at the start of a file is dropped.
    ///
    /// # Errors
    /// No such file; no text in it; bytes that are not UTF-8, unless `options` says to replace them.
    pub fn load(path: impl AsRef<Path>, options: &TextOptions) -> Result<TextSource> {
        let path = path.as_ref();
        let mut source = TextSource { text: String::new(), files: Vec::new(), skipped: Vec::new() };
        let metadata = fs::metadata(path).map_err(|e| Error::io("read", path, e))?;
        if metadata.is_dir() {
            source.add_folder(path, options)?;
        } else if is_device(&metadata) {
            return Err(Error::data(format!(
                "{} is a device, which may never end: name a file",
                path.display()
            )));
        } else {
            let bytes = fs::read(path).map_err(|e| Error::io("read", path, e))?;
            source.add_file(path, bytes, options)?;
        }
        if source.text.is_empty() {
            return Err(Error::data(match (metadata.is_dir(), source.files.len()) {
                (false, _) => format!("{} is empty: there is no text in it", path.display()),
                (true, 0) => format!(
                    "{} has no text file ({} entries were skipped as hidden or binary)",
                    path.display(),
                    source.skipped.len()
                ),
                (true, n) => format!("all {n} text files in {} are empty", path.display()),
            }));
        }
        Ok(source)
    }

    fn add_folder(&mut self, folder: &Path, options: &TextOptions) -> Result<()> {
        let entries = fs::read_dir(folder).and_then(|entries| entries.collect::<Result<Vec<_>, _>>());
        let mut entries = entries.map_err(|e| Error::io("list", folder, e))?;
        entries.sort_by_key(|e| e.file_name());
        for entry in entries {
            let path = entry.path();
            let link = entry.file_type().map_err(|e| Error::io("read", &path, e))?.is_symlink();
            let metadata = match fs::metadata(&path) {
                Err(_) if link => {
                    self.skip(path, "a broken link");
                    continue;
                }
                other => other.map_err(|e| Error::io("read", &path, e))?,
            };
            if entry.file_name().as_encoded_bytes().starts_with(b".") {
                self.skip(path, "hidden");
            } else if metadata.is_dir() && link {
                // It may lead back up; what it names is read where it lies, if that is inside.
                self.skip(path, "a link to a folder");
            } else if metadata.is_dir() {
                self.add_folder(&path, options)?;
            } else if !metadata.is_file() {
                self.skip(path, "not a file");
            } else {
                let bytes = fs::read(&path).map_err(|e| Error::io("read", &path, e))?;
                if is_binary(&path, &bytes) {
                    self.skip(path, "binary");
                } else {
                    self.add_file(&path, bytes, options)?;
                }
            }
        }
        Ok(())
    }

    fn skip(&mut self, path: PathBuf, reason: &'static str) {
        self.skipped.push(Skipped { path, reason });
    }

    fn add_file(&mut self, path: &Path, bytes: Vec<u8>, options: &TextOptions) -> Result<()> {
        let text = match (String::from_utf8(bytes), options.encoding) {
            (Ok(text), _) => text,
            (Err(e), Encoding::Lossy) => String::from_utf8_lossy(e.as_bytes()).into_owned(),
            (Err(e), Encoding::Utf8) => {
                return Err(not_utf8(path, e.as_bytes(), e.utf8_error().valid_up_to()));
            }
        };
        if !self.text.is_empty() && !self.text.ends_with('\n') && !text.is_empty() {
            self.text.push('\n');
        }
        self.text.push_str(text.strip_prefix('\u{feff}').unwrap_or(&text));
        self.files.push(path.to_path_buf());
        Ok(())
    }
}

/// A pipe ends when its writer does; `/dev/zero` does not.
#[cfg(unix)]
fn is_device(metadata: &fs::Metadata) -> bool {
    use std::os::unix::fs::FileTypeExt;
    metadata.file_type().is_char_device() || metadata.file_type().is_block_device()
}

#[cfg(not(unix))]
fn is_device(_: &fs::Metadata) -> bool {
    false
}

fn is_binary(path: &Path, bytes: &[u8]) -> bool {
    let text_name =
        path.extension().is_some_and(|e| e.eq_ignore_ascii_case("txt") || e.eq_ignore_ascii_case("md"));
    !text_name && bytes[..bytes.len().min(8192)].contains(&0)
}

fn not_utf8(path: &Path, bytes: &[u8], at: usize) -> Error {
    let utf16 = bytes.starts_with(&[0xFF, 0xFE]) || bytes.starts_with(&[0xFE, 0xFF]);
    let advice = if utf16 {
        "it looks like UTF-16: save it as UTF-8"
    } else {
        "save it as UTF-8, or have what is invalid replaced by `data.encoding` = lossy (`bullet eval --lossy`)"
    };
    Error::data(format!(
        "{} is not UTF-8: the byte 0x{:02x} at offset {at} does not belong; {advice}",
        path.display(),
        bytes[at]
    ))
}
