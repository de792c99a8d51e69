//! The files that the rules look at.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::command;

/// Folders that hold no source of ours, for a checkout without git.
const SKIPPED_FOLDERS: &[&str] = &["target", "runs", "__pycache__", "node_modules"];

/// One text file.
#[derive(Clone, Debug)]
pub(super) struct File {
    /// Relative to the root, with `/`.
    pub(super) path: String,
    pub(super) text: String,
}

impl File {
    /// What follows the last dot of the file's name; empty if there is none.
    pub(super) fn extension(&self) -> &str {
        let name = self.path.rsplit('/').next().unwrap_or(&self.path);
        name.rsplit_once('.').map_or("", |(_, extension)| extension)
    }

    /// The lines with their numbers, counted from 1.
    pub(super) fn numbered_lines(&self) -> impl Iterator<Item = (usize, &str)> {
        self.text.split('\n').enumerate().map(|(i, line)| (i + 1, line.strip_suffix('\r').unwrap_or(line)))
    }

    /// The number of the first line that starts with `prefix`, or 1.
    pub(super) fn line_starting(&self, prefix: &str) -> usize {
        self.numbered_lines().find(|(_, line)| line.trim_start().starts_with(prefix)).map_or(1, |(i, _)| i)
    }
}

/// Every text file of a checkout, sorted by path.
#[derive(Clone, Debug)]
pub(super) struct Tree {
    pub(super) files: Vec<File>,
}

impl Tree {
    /// The files that git tracks or would (not ignored ones); without git, all but build outputs.
    pub(super) fn of_checkout() -> Result<Tree, String> {
        let mut paths = match listed_by_git() {
            Some(paths) => paths,
            None => {
                let mut paths = Vec::new();
                walk(command::root(), "", &mut paths)
                    .map_err(|error| format!("cannot list the checkout: {error}"))?;
                paths
            }
        };
        paths.sort();
        paths.dedup();
        // What cannot be read is deleted but not yet committed; what is not UTF-8 is data.
        let read = |path: String| {
            let text = std::fs::read_to_string(command::root().join(&path)).ok()?;
            Some(File { path, text })
        };
        Ok(Tree { files: paths.into_iter().filter_map(read).collect() })
    }

    /// The files with one of these extensions.
    pub(super) fn with_extension(&self, extensions: &[&str]) -> impl Iterator<Item = &File> {
        self.files.iter().filter(move |file| extensions.contains(&file.extension()))
    }
}

fn listed_by_git() -> Option<Vec<String>> {
    let mut git = Command::new("git");
    git.current_dir(command::root()).stdin(Stdio::null()).stderr(Stdio::null());
    let output = git.args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"]).output().ok()?;
    let listed = String::from_utf8(output.stdout).ok()?;
    let paths: Vec<String> = listed.split('\0').filter(|path| !path.is_empty()).map(str::to_owned).collect();
    (output.status.success() && !paths.is_empty()).then_some(paths)
}

/// Collects the files below `folder`, whose path from the root is `prefix`.
fn walk(folder: &Path, prefix: &str, paths: &mut Vec<String>) -> std::io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let kind = entry.file_type()?;
        if kind.is_file() {
            paths.push(format!("{prefix}{name}"));
        } else if kind.is_dir()
            && !SKIPPED_FOLDERS.contains(&name.as_str())
            && (!name.starts_with('.') || name == ".ci")
        {
            walk(&entry.path(), &format!("{prefix}{name}/"), paths)?;
        }
    }
    Ok(())
}

#[cfg(test)]
impl Tree {
    /// A tree made up of (path, text) pairs.
    pub(super) fn of(files: &[(&str, &str)]) -> Tree {
        let file = |(path, text): &(&str, &str)| File { path: (*path).to_owned(), text: (*text).to_owned() };
        Tree { files: files.iter().map(file).collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extensions_are_those_of_the_name() {
        let tree = Tree::of(&[("a.d/b", ""), ("a/b.tar.gz", ""), ("c.rs", "")]);
        let extensions: Vec<_> = tree.files.iter().map(File::extension).collect();
        assert_eq!(extensions, ["", "gz", "rs"]);
    }

    #[test]
    fn the_walk_finds_sources_and_skips_build_outputs() {
        let mut paths = Vec::new();
        walk(command::root(), "", &mut paths).unwrap();
        assert!(paths.iter().any(|path| path == "xtask/src/tidy/tree.rs"));
        assert!(!paths.iter().any(|path| path.starts_with("target/") || path.starts_with(".git/")));
    }

    #[test]
    fn the_checkout_holds_this_file() {
        let tree = Tree::of_checkout().unwrap();
        assert!(tree.files.iter().any(|file| file.path == "xtask/src/tidy/tree.rs"));
    }
}
