//! `cargo xtask tidy`: rules of the code base that rustc and clippy don't know.
//!
//! A rule is a function from the files of the checkout to findings; [`RULES`] lists them all. Rules see only a
//! [`Tree`], so that tests give them small ones made up in memory.

mod manifests;
mod results;
mod sources;
mod tree;

use std::fmt;
use std::process::ExitCode;

use tree::Tree;

pub(crate) const HELP: &str = "rules of the code that rustc and clippy don't know

  --list         list the rules";

/// One rule.
struct Rule {
    name: &'static str,
    help: &'static str,
    check: fn(&Tree) -> Vec<Finding>,
}

/// Every rule. A new one is a row here and a function in the module of its files.
const RULES: &[Rule] = &[
    Rule { name: "direction", help: "crates depend downwards only", check: manifests::direction },
    Rule { name: "lints", help: "every crate inherits the workspace's lints", check: manifests::lints },
    Rule {
        name: "versions",
        help: "dependency versions live in the root manifest",
        check: manifests::versions,
    },
    Rule { name: "header", help: "every source file opens with what it owns", check: sources::header },
    Rule { name: "paths", help: "no path of one person's machine", check: sources::machine_paths },
    Rule { name: "length", help: "files stay short", check: sources::length },
    Rule { name: "whitespace", help: "no tabs, no spaces at line ends", check: sources::whitespace },
    Rule { name: "unfinished", help: "no unfinished code", check: sources::unfinished },
    Rule { name: "results", help: "benchmark results say when, where and what", check: results::provenance },
];

/// A place that breaks a rule.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Finding {
    path: String,
    /// Counted from 1.
    line: usize,
    message: String,
    /// How to repair it.
    fix: String,
}

impl Finding {
    fn new(path: &str, line: usize, message: impl Into<String>, fix: impl Into<String>) -> Finding {
        Finding { path: path.to_owned(), line, message: message.into(), fix: fix.into() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {} ({})", self.path, self.line, self.message, self.fix)
    }
}

/// Runs the task.
pub(crate) fn run(arguments: &[String]) -> Result<ExitCode, String> {
    match arguments {
        [] => {}
        [option] if option == "--list" => {
            RULES.iter().for_each(|rule| println!("{:10} {}", rule.name, rule.help));
            return Ok(ExitCode::SUCCESS);
        }
        [other, ..] => return Err(format!("unknown option `{other}`; --help lists them")),
    }
    check_checkout()?;
    Ok(ExitCode::SUCCESS)
}

/// Prints what the rules find in the checkout; any finding is an error.
pub(crate) fn check_checkout() -> Result<(), String> {
    let tree = Tree::of_checkout()?;
    let mut count = 0;
    for rule in RULES {
        for finding in (rule.check)(&tree) {
            println!("{finding} [{}]", rule.name);
            count += 1;
        }
    }
    match count {
        0 => {
            println!("{} files, {} rules, no finding", tree.files.len(), RULES.len());
            Ok(())
        }
        1 => Err("1 finding".into()),
        _ => Err(format!("{count} findings")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rule_names_are_unique() {
        for (i, rule) in RULES.iter().enumerate() {
            assert!(!RULES[..i].iter().any(|other| other.name == rule.name), "{} twice", rule.name);
        }
    }

    #[test]
    fn a_finding_reads_as_a_place_that_editors_jump_to() {
        let finding = Finding::new("a/b.rs", 7, "a tab", "use spaces");
        assert_eq!(finding.to_string(), "a/b.rs:7: a tab (use spaces)");
    }

    #[test]
    fn no_rule_finds_anything_in_an_empty_tree() {
        for rule in RULES {
            assert_eq!((rule.check)(&Tree { files: Vec::new() }), [], "{}", rule.name);
        }
    }
}
