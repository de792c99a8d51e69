//! The workspace's test programs: built once by cargo, then run by xtask itself.
//!
//! Running them directly lets several stages use one build: the same programs run again under each instruction set and
//! for the fuzz stage, where a second `cargo test` with other packages selected would choose other features and rebuild.

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::libtest::Counts;
use crate::command::{self, Finished};

/// The longest one test program may run: device sources take minutes where none is cached and the machine is busy.
const LIMIT: Duration = Duration::from_secs(50 * 60);

/// One test program.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Binary {
    /// The package that it tests.
    pub(crate) package: String,
    /// The target inside the package: a library, a program or a file in `tests/`.
    pub(crate) target: String,
    executable: PathBuf,
    folder: PathBuf,
}

/// What one run of a test program gave.
pub(crate) struct Outcome {
    pub(crate) counts: Counts,
    pub(crate) elapsed: Duration,
    /// What it printed.
    pub(crate) output: String,
    /// What went wrong, with the program's output; none if every test passed.
    pub(crate) failure: Option<String>,
}

/// Builds every test of the workspace (libraries, programs, `tests/`, examples) and lists the test programs.
pub(crate) fn build() -> Result<Vec<Binary>, String> {
    let mut cargo = command::cargo();
    cargo.args(["test", "--workspace", "--lib", "--bins", "--tests", "--examples", "--no-run", "--quiet"]);
    // Nothing but Python can run it: what it needs of the interpreter is not there for a program.
    cargo.args(["--exclude", "bullet-python"]);
    cargo.arg("--message-format=json-render-diagnostics");
    let binaries = parse(&command::output_of(&mut cargo)?);
    if binaries.is_empty() {
        return Err("cargo built no test program".into());
    }
    Ok(binaries)
}

/// Reads cargo's JSON messages, one a line.
fn parse(messages: &str) -> Vec<Binary> {
    let parsed = messages.lines().filter_map(|line| serde_json::from_str(line).ok());
    let mut binaries: Vec<Binary> = parsed.filter_map(|message| binary(&message)).collect();
    binaries.sort_by(|a, b| (&a.package, &a.target).cmp(&(&b.package, &b.target)));
    binaries
}

fn binary(message: &Value) -> Option<Binary> {
    let is_test = message["reason"] == "compiler-artifact" && message["profile"]["test"] == true;
    if !is_test {
        return None;
    }
    let folder = PathBuf::from(message["manifest_path"].as_str()?).parent()?.to_path_buf();
    let kind = message["target"]["kind"][0].as_str()?;
    let name = message["target"]["name"].as_str()?;
    Some(Binary {
        package: package_name(message["package_id"].as_str()?)?.to_owned(),
        target: if kind == "test" { format!("tests/{name}") } else { kind.to_owned() },
        executable: PathBuf::from(message["executable"].as_str()?),
        folder,
    })
}

/// The name in a package id: `path+file:///root/crates/ops#bullet-ops@0.1.0`, or `...crates/ops#0.1.0` where the
/// folder has the package's name.
fn package_name(id: &str) -> Option<&str> {
    let (location, fragment) = id.rsplit_once('#')?;
    match fragment.split_once('@') {
        Some((name, _version)) => Some(name),
        None => location.rsplit('/').next(),
    }
}

impl Binary {
    /// Runs the tests whose names contain `filter` (all for an empty one) with these environment variables.
    pub(crate) fn run(&self, filter: &str, variables: &[(&str, &str)]) -> Outcome {
        let mut program = Command::new(&self.executable);
        program.current_dir(&self.folder).env("CARGO_MANIFEST_DIR", &self.folder);
        program.envs(variables.iter().copied());
        if !filter.is_empty() {
            program.arg(filter);
        }
        let start = Instant::now();
        let finished = command::run_captured(&mut program, LIMIT);
        let elapsed = start.elapsed();
        match finished {
            Ok(finished) => judge(finished, elapsed),
            Err(message) => {
                let counts = Counts { failed: 1, ..Counts::default() };
                Outcome { counts, elapsed, output: String::new(), failure: Some(message) }
            }
        }
    }
}

/// Turns an ended program into counts. A program that ended badly without a failed test (a crash, the time limit) is
/// one failure of its own: its remaining tests never ran.
fn judge(finished: Finished, elapsed: Duration) -> Outcome {
    let (mut counts, lines) = Counts::parse(&finished.output);
    let verdict = match finished.status {
        None => format!("killed after {} s", LIMIT.as_secs()),
        Some(status) if !status.success() => status.to_string(),
        Some(_) if lines == 0 => "ended without a `test result:` line".to_owned(),
        Some(_) => return Outcome { counts, elapsed, output: finished.output, failure: None },
    };
    if counts.failed == 0 {
        counts.failed = 1;
    }
    let failure = Some(format!("{}\n{verdict}", finished.output.trim_end()));
    Outcome { counts, elapsed, output: finished.output, failure }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;
    use std::process::ExitStatus;

    use super::*;

    fn finished(output: &str, wait_status: Option<i32>) -> Outcome {
        let status = wait_status.map(ExitStatus::from_raw);
        judge(Finished { status, output: output.to_owned() }, Duration::ZERO)
    }

    #[test]
    fn test_programs_are_found_in_cargo_messages() {
        let messages = r#"{"reason":"compiler-artifact","package_id":"registry+x#half@2.7.1","profile":{"test":false}}
not json
{"reason":"compiler-artifact","package_id":"path+file:///r/crates/ops#bullet-ops@0.1.0","manifest_path":"/r/crates/ops/Cargo.toml","target":{"kind":["lib"],"name":"bullet_ops"},"profile":{"test":true},"executable":"/t/deps/bullet_ops-1"}
{"reason":"compiler-artifact","package_id":"path+file:///r/xtask#0.1.0","manifest_path":"/r/xtask/Cargo.toml","target":{"kind":["test"],"name":"e2e"},"profile":{"test":true},"executable":"/t/deps/e2e-1"}
{"reason":"build-finished","success":true}"#;
        let binaries = parse(messages);
        let named: Vec<_> = binaries.iter().map(|b| (b.package.as_str(), b.target.as_str())).collect();
        assert_eq!(named, [("bullet-ops", "lib"), ("xtask", "tests/e2e")]);
        assert_eq!(binaries[0].folder, PathBuf::from("/r/crates/ops"));
    }

    #[test]
    fn a_crash_without_a_failed_test_counts_as_one_failure() {
        let outcome = finished("running 3 tests\ntest a ... ok\n", Some(11));
        assert_eq!(outcome.counts, Counts { passed: 0, failed: 1, ignored: 0 });
        assert!(outcome.failure.unwrap().contains("signal: 11"));
    }

    #[test]
    fn a_silent_success_counts_as_one_failure() {
        assert_eq!(finished("", Some(0)).counts.failed, 1);
        assert_eq!(finished("", None).counts.failed, 1);
    }

    #[test]
    fn a_clean_run_has_no_failure() {
        let outcome = finished("test result: ok. 2 passed; 0 failed; 0 ignored; 0 measured", Some(0));
        assert_eq!(outcome.counts, Counts { passed: 2, failed: 0, ignored: 0 });
        assert!(outcome.failure.is_none());
    }
}
