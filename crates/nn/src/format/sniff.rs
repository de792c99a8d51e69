//! What a file that is not what was asked for looks like, so that the message can say.

use super::layout::MAGIC;

/// The format that the first bytes of a file suggest.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FileKind {
    /// Nothing at all.
    Empty,
    /// A `.bullet` file.
    Bullet,
    /// A `.bullet` file whose line ends or high bits a text-mode transfer changed.
    MangledBullet,
    /// safetensors.
    Safetensors,
    /// A zip archive, as `torch.save` writes.
    Zip,
    /// A bare Python pickle, as old versions of `torch.save` write.
    Pickle,
    /// gzip.
    Gzip,
    /// Zstandard.
    Zstd,
    /// xz.
    Xz,
    /// A tar archive.
    Tar,
    /// GGUF of llama.cpp.
    Gguf,
    /// HDF5, as Keras writes.
    Hdf5,
    /// A NumPy array.
    Npy,
    /// A pointer of Git LFS instead of the file.
    GitLfs,
    /// HTML: most often an error page saved under the file's name.
    Html,
    /// UTF-8 text.
    Text,
    /// Only zeros: most often a file whose writing a crash cut short.
    Zeros,
    /// Anything else.
    Unknown,
}

/// Guesses the format from the start of a file.
pub fn sniff(bytes: &[u8]) -> FileKind {
    const STARTS: [(&[u8], FileKind); 12] = [
        (&MAGIC, FileKind::Bullet),
        (b"PK\x03\x04", FileKind::Zip),
        (b"\x1f\x8b", FileKind::Gzip),
        (b"\x28\xb5\x2f\xfd", FileKind::Zstd),
        (b"\xfd7zXZ\0", FileKind::Xz),
        (b"GGUF", FileKind::Gguf),
        (b"\x89HDF\r\n\x1a\n", FileKind::Hdf5),
        (b"\x93NUMPY", FileKind::Npy),
        (b"version https://git-lfs", FileKind::GitLfs),
        (b"<!DOCTYPE", FileKind::Html),
        (b"<!doctype", FileKind::Html),
        (b"<html", FileKind::Html),
    ];
    if bytes.is_empty() {
        return FileKind::Empty;
    }
    if let Some((_, kind)) = STARTS.iter().find(|(start, _)| bytes.starts_with(start)) {
        return *kind;
    }
    let head = &bytes[..bytes.len().min(4096)];
    if head.len() >= 6 && &head[1..6] == b"BULLT" {
        return FileKind::MangledBullet;
    }
    if looks_like_safetensors(bytes) {
        return FileKind::Safetensors;
    }
    if head[0] == 0x80 && matches!(head.get(1), Some(2..=5)) {
        return FileKind::Pickle;
    }
    if head.get(257..262) == Some(b"ustar") {
        return FileKind::Tar;
    }
    if head.iter().all(|&b| b == 0) {
        return FileKind::Zeros;
    }
    let text = match std::str::from_utf8(head) {
        Ok(_) => true,
        Err(e) => e.error_len().is_none() && e.valid_up_to() > 0,
    };
    if text && !head.contains(&0) { FileKind::Text } else { FileKind::Unknown }
}

/// A 64-bit header length that fits the file, then the `{` of JSON.
fn looks_like_safetensors(bytes: &[u8]) -> bool {
    let Some((length, rest)) = bytes.split_first_chunk::<8>() else { return false };
    let length = u64::from_le_bytes(*length);
    rest.first() == Some(&b'{') && (2..=1 << 32).contains(&length)
}

/// A sentence about a file that is not a `.bullet` file, with what to do.
pub(super) fn describe(bytes: &[u8]) -> String {
    let hint = match sniff(bytes) {
        FileKind::Empty => "the file is empty; its writing may have been cut short",
        FileKind::Bullet => "it begins like one",
        FileKind::MangledBullet => {
            "it was one, but a transfer in text mode changed its bytes; copy it again in binary mode"
        }
        FileKind::Safetensors => "this is a safetensors file; convert it with `bullet convert`",
        FileKind::Zip => {
            "this is a zip archive, perhaps a PyTorch checkpoint; save its state_dict with safetensors in Python, then \
             convert that with `bullet convert`"
        }
        FileKind::Pickle => {
            "this is a Python pickle, perhaps an old PyTorch checkpoint; save its state_dict with safetensors in \
             Python, then convert that with `bullet convert`"
        }
        FileKind::Gzip => "this is a gzip file; decompress it first (gunzip)",
        FileKind::Zstd => "this is a Zstandard file; decompress it first (unzstd)",
        FileKind::Xz => "this is an xz file; decompress it first (unxz)",
        FileKind::Tar => "this is a tar archive; unpack it first (tar xf)",
        FileKind::Gguf => "this is a GGUF file of llama.cpp, which Bullet does not read",
        FileKind::Hdf5 => "this is an HDF5 file, perhaps of Keras, which Bullet does not read",
        FileKind::Npy => "this is a NumPy array, not a model",
        FileKind::GitLfs => "this is a Git LFS pointer; fetch the file itself with `git lfs pull`",
        FileKind::Html => {
            "this is a web page, perhaps an error page saved by a download; download the file again"
        }
        FileKind::Text => "this is a text file",
        FileKind::Zeros => "it holds only zeros; its writing was cut short by a crash",
        FileKind::Unknown => {
            let start: Vec<String> = bytes.iter().take(8).map(|b| format!("{b:02x}")).collect();
            return format!("its first bytes, {}, are of no format known here", start.join(" "));
        }
    };
    hint.to_string()
}
