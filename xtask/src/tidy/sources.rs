//! Rules of source files: headers, paths, length, whitespace, unfinished code.
//!
//! Two markers in comments exempt from a rule: `tidy: table` in the first lines, for files that are one long table or
//! are generated, and `tidy: path` with a reason on a line that must name an absolute path.

use super::Finding;
use super::tree::{File, Tree};

/// Extensions of source code.
const SOURCES: &[&str] = &["rs", "cu", "cuh", "py"];

/// Extensions of everything that could name a path.
const TEXTS: &[&str] = &["rs", "cu", "cuh", "py", "pyi", "toml", "sh", "md", "yml", "yaml", "json"];

/// The most lines a source file may have.
const MAX_LINES: usize = 700;

/// In how many first lines the table marker may stand.
const MARKER_LINES: usize = 5;

/// Marks a file that may be long.
const TABLE_MARKER: &str = "tidy: table";

/// Marks a line that may name an absolute path.
const PATH_MARKER: &str = "tidy: path";

/// Folders at the root of a machine that a project's files never name.
const MACHINE_FOLDERS: &[&str] = &["home", "root", "work", "tmp", "Users"];

/// Every source file opens with what it owns: `//!` in Rust, `//` in CUDA, a docstring in Python.
pub(super) fn header(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in tree.with_extension(SOURCES) {
        let Some((line, text)) = first_line(file) else {
            findings.push(Finding::new(
                &file.path,
                1,
                "the file is empty",
                "delete it, or say what it is for",
            ));
            continue;
        };
        let (openings, fix): (&[&str], _) = match file.extension() {
            "rs" => (&["//!"], "open with `//!` and what the module owns"),
            "py" => (&["\"\"\"", "'''", "r\"\"\""], "open with a docstring that says what the module is for"),
            _ => (&["//", "/*"], "open with `//` and what the kernels compute"),
        };
        if !openings.iter().any(|opening| text.starts_with(opening)) {
            findings.push(Finding::new(&file.path, line, "the file does not say what it owns", fix));
        }
    }
    findings
}

/// The first line that is neither blank, nor a marker, nor (in Python) a comment.
fn first_line(file: &File) -> Option<(usize, &str)> {
    let is_python = file.extension() == "py";
    file.numbered_lines().find(|(_, line)| {
        let line = line.trim();
        let skipped = line.is_empty() || line.contains("tidy: ") || (is_python && line.starts_with('#'));
        !skipped
    })
}

/// No path of one person's machine in any text.
pub(super) fn machine_paths(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    let scripts = tree.files.iter().filter(|file| file.text.starts_with("#!") && file.extension().is_empty());
    for file in tree.with_extension(TEXTS).chain(scripts) {
        for (number, line) in file.numbered_lines() {
            let Some(path) = machine_path(line) else { continue };
            if !line.contains(PATH_MARKER) {
                let message = format!("`{path}` is a path of one machine");
                let fix =
                    format!("use a relative path or an argument, or explain with a `{PATH_MARKER}` comment");
                findings.push(Finding::new(&file.path, number, message, fix));
            }
        }
    }
    findings
}

/// The first `/folder/` of [`MACHINE_FOLDERS`] that starts a path: what stands before it is not part of a path or name.
fn machine_path(line: &str) -> Option<String> {
    for (start, _) in line.match_indices('/') {
        let before = line[..start].chars().next_back();
        let inside = before.is_some_and(|c| c.is_alphanumeric() || "_./-~}>)".contains(c));
        let rest = &line[start + 1..];
        let folder = MACHINE_FOLDERS
            .iter()
            .find(|folder| rest.strip_prefix(**folder).is_some_and(|after| after.starts_with('/')));
        if let (false, Some(folder)) = (inside, folder) {
            return Some(format!("/{folder}/"));
        }
    }
    None
}

/// No source file is longer than [`MAX_LINES`], tables aside.
pub(super) fn length(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in tree.with_extension(SOURCES) {
        let count = file.text.lines().count();
        let is_table = file.text.lines().take(MARKER_LINES).any(|line| line.contains(TABLE_MARKER));
        if count > MAX_LINES && !is_table {
            let message = format!("{count} lines, at most {MAX_LINES} are allowed");
            let fix = format!("split it by what it owns; a pure table says `{TABLE_MARKER}` at the top");
            findings.push(Finding::new(&file.path, MAX_LINES + 1, message, fix));
        }
    }
    findings
}

/// No tabs, and no spaces at line ends.
pub(super) fn whitespace(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in tree.with_extension(SOURCES) {
        for (number, line) in file.numbered_lines() {
            if line.contains('\t') {
                findings.push(Finding::new(&file.path, number, "a tab", "use spaces, or \\t in a string"));
            }
            if line.trim_end() != line {
                findings.push(Finding::new(&file.path, number, "spaces at the line's end", "remove them"));
            }
        }
    }
    findings
}

/// No unfinished code: placeholders, debugging leftovers, notes to oneself.
pub(super) fn unfinished(tree: &Tree) -> Vec<Finding> {
    // Written in two halves, so that this file does not find itself.
    let words = [
        concat!("to", "do!("),
        concat!("unimpl", "emented!("),
        concat!("db", "g!("),
        concat!("FIX", "ME"),
        concat!("TO", "DO"),
        concat!("XX", "X"),
    ];
    let mut findings = Vec::new();
    for file in tree.with_extension(SOURCES) {
        for (number, line) in file.numbered_lines() {
            for word in words.iter().filter(|word| has_word(line, word)) {
                let message = format!("`{word}` marks unfinished code");
                findings.push(Finding::new(&file.path, number, message, "finish it, or open an issue"));
            }
        }
    }
    findings
}

/// Whether `word` stands in `line` with no letter, digit or underscore before it, nor after it.
fn has_word(line: &str, word: &str) -> bool {
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word).any(|(start, _)| {
        let before = line[..start].chars().next_back();
        let after = line[start + word.len()..].chars().next();
        let closed = word.ends_with('(') || !after.is_some_and(is_part);
        closed && !before.is_some_and(is_part)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONE: [usize; 0] = [];

    /// Lines of the findings of a rule in one file.
    fn lines(rule: fn(&Tree) -> Vec<Finding>, path: &str, text: &str) -> Vec<usize> {
        rule(&Tree::of(&[(path, text)])).into_iter().map(|finding| finding.line).collect()
    }

    #[test]
    fn headers_are_demanded_of_every_language() {
        assert_eq!(lines(header, "a.rs", "\nuse std::fmt;\n"), [2]);
        assert_eq!(lines(header, "a.rs", "/// An item's comment is no header.\nfn f() {}\n"), [1]);
        assert_eq!(lines(header, "a.cu", "__global__ void f();\n"), [1]);
        assert_eq!(lines(header, "a.py", "# a comment is no docstring\nimport os\n"), [2]);
        assert_eq!(lines(header, "a.rs", "\n"), [1]);
    }

    #[test]
    fn headers_are_seen_behind_markers_and_shebangs() {
        assert_eq!(lines(header, "a.rs", "// tidy: table\n//! What it owns.\n"), NONE);
        assert_eq!(lines(header, "a.cuh", "// What it computes.\n"), NONE);
        assert_eq!(lines(header, "a.py", "#!/usr/bin/env python3\n\"\"\"What it is for.\"\"\"\n"), NONE);
        assert_eq!(lines(header, "a.md", "anything\n"), NONE);
    }

    #[test]
    fn machine_paths_are_found_in_sources_texts_and_scripts() {
        let line = format!("let p = \"/{}/me/x\";\n", "home");
        assert_eq!(lines(machine_paths, "a.rs", &line), [1]);
        assert_eq!(lines(machine_paths, "a.md", &format!("see\n`/{}/x`\n", "tmp")), [2]);
        assert_eq!(lines(machine_paths, ".ci/run", &format!("#!/bin/sh\ncd /{}/x\n", "root")), [2]);
        assert_eq!(lines(machine_paths, "a.py", &format!("P=/{}/x\n", "work")), [1]);
    }

    #[test]
    fn other_paths_and_explained_ones_are_allowed() {
        let marked = format!("let p = \"/{}/x\"; // tidy: path, what the kernel names it\n", "tmp");
        assert_eq!(lines(machine_paths, "a.rs", &marked), NONE);
        for text in
            ["a/home/b", "https://x.org/home/y", "target/tmp/x", "$DIR/tmp/y", "/proc/stat", "/homework/x"]
        {
            let allowed = machine_path(text).is_none();
            assert!(allowed, "{text}");
        }
        assert_eq!(lines(machine_paths, "data/a.txt", &format!("/{}/x\n", "home")), NONE);
    }

    #[test]
    fn long_files_are_found_unless_marked() {
        let long = "x\n".repeat(MAX_LINES + 1);
        assert_eq!(lines(length, "a.rs", &long), [MAX_LINES + 1]);
        assert_eq!(lines(length, "a.rs", &"x\n".repeat(MAX_LINES)), NONE);
        assert_eq!(lines(length, "a.rs", &format!("//! T\n// tidy: table\n{long}")), NONE);
        assert_eq!(
            lines(length, "a.rs", &format!("{}// tidy: table\n{long}", "\n".repeat(MARKER_LINES))).len(),
            1
        );
        assert_eq!(lines(length, "a.md", &long), NONE);
    }

    #[test]
    fn tabs_and_trailing_spaces_are_found() {
        assert_eq!(lines(whitespace, "a.rs", "ok\n\tx\ny \n"), [2, 3]);
        assert_eq!(lines(whitespace, "a.rs", "    x\n\ny\r\n"), NONE);
        assert_eq!(lines(whitespace, "Makefile", "\tx \n"), NONE);
    }

    #[test]
    fn unfinished_code_is_found_as_whole_words() {
        let text = format!("{}{}\n// {}{}: later\nfine\n{}{}x)\n", "to", "do!()", "FIX", "ME", "db", "g!(");
        assert_eq!(lines(unfinished, "a.rs", &text), [1, 2, 4]);
        let innocent = format!("a_{}{}\n{}{}Y\nmy{}{}x)\n", "FIX", "ME", "XX", "X", "db", "g!(");
        assert_eq!(lines(unfinished, "a.rs", &innocent), NONE);
        assert_eq!(lines(unfinished, "a.md", &text), NONE);
    }
}
