//! A name for this version of the compiler: a hash of its sources, and of those of the language, whose analyses it asks. Kernels
//! kept on disk are those of one version, and must not outlive it, also while it is being developed.

use std::path::{Path, PathBuf};
use std::{fs, io};

fn main() -> io::Result<()> {
    let mut files = vec![];
    for sources in ["src", "../lang/src"] {
        println!("cargo::rerun-if-changed={sources}");
        collect(Path::new(sources), &mut files)?;
    }
    files.sort();
    // FNV-1a, of 64 bits.
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for file in files {
        for byte in file.to_string_lossy().bytes().chain(fs::read(&file)?) {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
    println!("cargo::rustc-env=BULLET_JIT_SOURCES={hash:016x}");
    Ok(())
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() { collect(&path, files)? } else { files.push(path) }
    }
    Ok(())
}
