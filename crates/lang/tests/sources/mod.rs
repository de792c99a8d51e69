//! The kinds of kernels in `examples/kernels/kinds`, and texts that `tests/golden` has.

use std::path::{Path, PathBuf};
use std::{env, fs};

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

/// Names and sources, in the order of the names.
pub(crate) fn kinds() -> Vec<(String, String)> {
    let mut files: Vec<PathBuf> = fs::read_dir(folder("../../examples/kernels/kinds"))
        .expect("examples/kernels/kinds")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "py"))
        .collect();
    files.sort();
    let read = |path: &PathBuf| {
        let name = path.file_stem().expect("a name").to_string_lossy().into_owned();
        (name, fs::read_to_string(path).expect("a readable file"))
    };
    files.iter().map(read).collect()
}

/// Compares a text with the golden file of this name; with `BLESS=1` writes it.
pub(crate) fn compare(name: &str, text: &str) {
    let path = folder("tests/golden").join(name);
    if env::var_os("BLESS").is_some() {
        fs::write(path, text).expect("tests/golden can be written");
        return;
    }
    let golden = fs::read_to_string(&path).unwrap_or_default();
    let name = path.display();
    assert!(golden == text, "the text differs from {name}: run with BLESS=1 and read the difference");
}
