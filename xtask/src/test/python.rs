//! The stage for the Python package: builds the wheel, installs it where nothing else is, and runs its tests there.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::{Session, array_api};
use crate::command;

/// Set to 1, it leaves the stage out.
const SKIP: &str = "BULLET_SKIP_PYTHON";

/// What the environment of the tests holds besides the wheel.
const TOOLS: &[&str] = &[
    "maturin==1.16.0",
    "numpy>=1.26",
    "pytest>=8",
    "hypothesis>=6.151",
    "mypy>=1.18",
    // What the notebook draws with.
    "matplotlib>=3.9",
    // What the array API's own tests ask for.
    "pytest-json-report>=1.5",
    "ndindex>=1.8",
];

/// Runs the stage.
pub(super) fn run(session: &mut Session) -> Result<(), String> {
    if command::is_set(SKIP) {
        println!("{SKIP}=1: the Python package is not tested");
        return Ok(());
    }
    let folder = command::target_folder()?.join("python");
    let python = environment(&folder)?;
    // Without optimisation of its own: what computes is the same code as the other tests'.
    let wheel = build_wheel(&python, "dev", &folder.join("wheels"))?;
    let mut install = command::pip_install(&python);
    install.args(["--force-reinstall", "--no-deps"]).arg(&wheel);
    command::run(&mut install)?;
    check_types(&python, &folder)?;
    let mut tests = pytest(&python);
    // Elsewhere, so that the package of the source tree is not found.
    tests.current_dir(&folder).arg(command::root().join("tests/python"));
    run_pytest(session, tests, "")?;
    array_api::run(session, &python, &folder)
}

/// pytest, which leaves nothing beside the tests.
pub(super) fn pytest(python: &Path) -> Command {
    let mut pytest = Command::new(python);
    pytest.args(["-m", "pytest", "-q", "-p", "no:cacheprovider"]);
    pytest
}

/// Runs pytest, counts its tests, and says how many there were, after `label`.
pub(super) fn run_pytest(session: &mut Session, mut pytest: Command, label: &str) -> Result<(), String> {
    pytest.stdin(Stdio::null()).stderr(Stdio::inherit());
    let output =
        pytest.output().map_err(|error| format!("cannot run `{}`: {error}", command::shown(&pytest)))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let last = text.lines().next_back().unwrap_or_default();
    session.counts.passed += count(last, "passed");
    session.counts.failed += count(last, "failed") + count(last, "error");
    println!("{label}{last}");
    if output.status.success() {
        Ok(())
    } else {
        Err(format!("{text}\n{label}pytest failed: {}", output.status))
    }
}

/// Builds the wheel into a folder of its own, which is emptied before.
pub(crate) fn build_wheel(python: &Path, profile: &str, out: &Path) -> Result<PathBuf, String> {
    // Of several versions one could get an old one.
    let _ = fs::remove_dir_all(out);
    let mut build = Command::new(python);
    build.current_dir(command::root()).args([
        "-m",
        "maturin",
        "build",
        "--quiet",
        "--profile",
        profile,
        "--out",
    ]);
    build.arg(out);
    command::run(&mut build)?;
    fs::read_dir(out)
        .ok()
        .and_then(|mut entries| entries.find_map(|entry| Some(entry.ok()?.path())))
        .ok_or_else(|| "maturin made no wheel".into())
}

/// The stub file is that of the extension, and the examples and what they use of the package fit its types.
fn check_types(python: &Path, folder: &Path) -> Result<(), String> {
    let mut stubs = Command::new(python);
    stubs.current_dir(folder).arg(command::root().join("crates/python/make_stubs.py")).arg("--check");
    command::run(&mut stubs)?;
    let mut mypy = Command::new(python);
    mypy.current_dir(folder).args(["-m", "mypy", "--cache-dir"]).arg(folder.join("mypy"));
    mypy.arg(command::root().join("examples/python")).arg(command::root().join("tests/python/typed.py"));
    command::run(&mut mypy)
}

/// The interpreter of an environment with the tools, made at the first use.
pub(crate) fn environment(folder: &Path) -> Result<PathBuf, String> {
    let place = folder.join("venv");
    let python = place.join("bin/python");
    // An environment of other tools than these is made anew.
    let wanted = TOOLS.join("\n");
    if !fs::read_to_string(place.join("ready")).is_ok_and(|there| there == wanted) {
        let needs = |error| {
            format!(
                "{error}\nthe Python package is tested with python3 (3.11 or newer), venv, pip and a network; {SKIP}=1 does without"
            )
        };
        let _ = fs::remove_dir_all(&place);
        command::run(Command::new("python3").args(["-m", "venv"]).arg(&place)).map_err(needs)?;
        command::run(command::pip_install(&python).args(TOOLS)).map_err(needs)?;
        fs::write(place.join("ready"), wanted).map_err(|error| format!("{}: {error}", place.display()))?;
    }
    Ok(python)
}

/// The number before a word of pytest's last line: `12 passed, 1 failed in 3.4s`.
fn count(line: &str, word: &str) -> u64 {
    let words: Vec<&str> = line.split([' ', ',']).filter(|w| !w.is_empty()).collect();
    let at = words.iter().position(|w| w.starts_with(word));
    at.and_then(|at| words.get(at.checked_sub(1)?)?.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::count;

    #[test]
    fn pytests_last_line_is_read() {
        let line = "2 failed, 108 passed, 1 error in 12.34s";
        assert_eq!((count(line, "passed"), count(line, "failed"), count(line, "error")), (108, 2, 1));
        assert_eq!(count("no tests ran in 0.01s", "passed"), 0);
    }
}
