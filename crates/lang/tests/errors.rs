//! Diagnostics: each file of `tests/errors` is wrong in the ways that the text beside it says (`BLESS=1` writes it).

use std::fs;
use std::path::{Path, PathBuf};

use bullet_lang::adjoint::{AdjointOptions, adjoint};
use bullet_lang::{Diagnostics, Options, compile};

/// What is wrong with a file: of its source, else of its kernels' adjoints.
fn report(name: &str, text: &str) -> String {
    let kernels = match compile(name, text, Options::default()) {
        Ok(kernels) => kernels,
        Err(diagnostics) => return diagnostics.to_string(),
    };
    let found: Vec<_> = kernels
        .iter()
        .filter_map(|kernel| adjoint(kernel, AdjointOptions::default()).err())
        .flatten()
        .collect();
    if found.is_empty() { "nothing\n".into() } else { Diagnostics::new(name, text, found).to_string() }
}

#[test]
fn diagnostics_are_as_recorded() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/errors");
    let mut files: Vec<PathBuf> =
        fs::read_dir(&folder).expect("tests/errors").map(|entry| entry.expect("an entry").path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "py"));
    files.sort();
    assert!(!files.is_empty());
    let mut wrong = vec![];
    for path in files {
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        let text = fs::read_to_string(&path).expect("a readable file");
        let found = report(&name, &text);
        assert!(found != "nothing\n", "{name}: nothing is wrong with it");
        let golden = path.with_extension("txt");
        if std::env::var_os("BLESS").is_some() {
            fs::write(&golden, &found).expect("tests/errors can be written");
        } else if fs::read_to_string(&golden).unwrap_or_default() != found {
            wrong.push(format!("{name}:\n{found}"));
        }
    }
    assert!(wrong.is_empty(), "run with BLESS=1 and read the difference\n{}", wrong.join("\n"));
}

#[test]
fn broken_sources_end_in_diagnostics_and_not_in_panics() {
    let place = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/kernels/kinds/combined.py");
    let source = fs::read_to_string(place).expect("examples/kernels/kinds/combined.py");
    // Every prefix, and every text without one of its bytes.
    for end in (0..source.len()).filter(|&end| source.is_char_boundary(end)) {
        let _ = compile("cut.py", &source[..end], Options::default());
        let mut without = source.clone();
        without.remove(end);
        let _ = compile("without.py", &without, Options::default());
    }
    let kernel = |body: &str| {
        format!("import warp as wp\n@wp.kernel\ndef k(x: wp.array(dtype=float), n: int):\n{body}")
    };
    let twice = |i: usize| format!("@wp.func\ndef f{}(x: float):\n    return f{i}(x) + f{i}(x)\n", i + 1);
    let doubling = (0..25).map(twice).collect::<String>();
    let doubling = format!("import warp as wp\n@wp.func\ndef f0(x: float):\n    return x\n{doubling}");
    let doubling = format!("{doubling}@wp.kernel\ndef k(x: wp.array(dtype=float)):\n    x[0] = f25(x[0])\n");
    assert!(compile("doubling.py", &doubling, Options::default()).is_err());
    let nested = [
        format!("    y = {}n{}\n", "(".repeat(5000), ")".repeat(5000)),
        format!("    y = {}n\n", "-".repeat(5000)),
        format!("    y = n{}\n", " + n".repeat(5000)),
        format!("    y = n{}\n", " ** n".repeat(5000)),
        format!("    y = n{}\n", ".x".repeat(5000)),
        format!("    y = n{}\n", " if n > 0 else n".repeat(5000)),
        format!("    y = {}n\n", "not ".repeat(5000)),
        "    if n > 3:\n        return\n".repeat(5000),
        format!("    if n > 3:\n        pass\n{}", "    elif n > 4:\n        pass\n".repeat(5000)),
        (1..300).map(|depth| format!("{}if n > 3:\n", "    ".repeat(depth))).collect::<String>(),
    ];
    for body in nested {
        assert!(compile("deep.py", &kernel(&body), Options::default()).is_err(), "{}", &body[..40]);
    }
}
