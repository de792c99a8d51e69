//! The array API standard's own tests, against the installed package. What of them is not run or known to fail is in
//! `tests/array_api`, with its reasons in `docs/array-api.md`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::Session;
use super::python::{pytest, run_pytest};
use crate::command;

/// Set to 1, it leaves these tests out.
const SKIP: &str = "BULLET_SKIP_ARRAY_API";
/// Where the repositories are, if not on GitHub: a folder or the beginning of a URL.
const FROM: &str = "BULLET_ARRAY_API_FROM";
const GITHUB: &str = "https://github.com/data-apis";

/// The suite (of 3 April 2026) and the standard that it reads, at the commit that the suite names.
const SUITE: (&str, &str) = ("array-api-tests", "55fcc60179efa2680ddd6cd926ddf17b83530e2b");
const STANDARD: (&str, &str) = ("array-api", "5f847a3858875c682ae901aa22b0413bf24be9da");

/// Examples a test: some 20 seconds of them all on two cores.
const EXAMPLES: &str = "30";

/// Runs the suite with this interpreter, in a checkout in `folder`.
pub(super) fn run(session: &mut Session, python: &Path, folder: &Path) -> Result<(), String> {
    if command::is_set(SKIP) {
        println!("{SKIP}=1: the array API's own tests are not run");
        return Ok(());
    }
    let suite = match checkout(folder) {
        Ok(suite) => suite,
        // Whoever names a place means it; else a machine without GitHub tests the rest.
        Err(error) if std::env::var_os(FROM).is_none() => {
            println!("WARNING: the array API's own tests were NOT run: {error}");
            return Ok(());
        }
        Err(error) => return Err(error),
    };
    let lists = command::root().join("tests/array_api");
    let mut pytest = pytest(python);
    pytest.current_dir(&suite).arg("array_api_tests");
    pytest.args([
        "-W",
        "ignore",
        "--tb=short",
        "--disable-deadline",
        "--derandomize",
        "--max-examples",
        EXAMPLES,
    ]);
    pytest.arg(format!("--skips-file={}", lists.join("skips.txt").display()));
    pytest.arg(format!("--xfails-file={}", lists.join("xfails.txt").display()));
    pytest.env("ARRAY_API_TESTS_MODULE", "bullet_core").env("ARRAY_API_TESTS_VERSION", "2024.12");
    pytest.env("ARRAY_API_TESTS_SKIP_DTYPES", "complex64,complex128");
    run_pytest(session, pytest, "array API 2024.12: ")
}

/// The suite as it is tested, fetched at the first use.
fn checkout(folder: &Path) -> Result<PathBuf, String> {
    let suite = folder.join(SUITE.0);
    let patch = command::root().join("tests/array_api/no-complex.patch");
    let patched = fs::read_to_string(&patch).map_err(|error| format!("{}: {error}", patch.display()))?;
    // What is there is that if both commits and the patch are the same.
    let wanted = format!("{} {}\n{patched}", SUITE.1, STANDARD.1);
    let ready = suite.join("ready");
    if fs::read_to_string(&ready).is_ok_and(|there| there == wanted) {
        return Ok(suite);
    }
    let _ = fs::remove_dir_all(&suite);
    fetch(SUITE, &suite)?;
    fetch(STANDARD, &suite.join(STANDARD.0))?;
    command::run(Command::new("git").arg("-C").arg(&suite).arg("apply").arg(&patch))?;
    fs::write(&ready, wanted).map_err(|error| format!("{}: {error}", ready.display()))?;
    Ok(suite)
}

/// One commit of a repository, without its history.
fn fetch((name, commit): (&str, &str), into: &Path) -> Result<(), String> {
    let from = std::env::var(FROM).unwrap_or_else(|_| GITHUB.into());
    let git = || {
        let mut git = Command::new("git");
        git.arg("-C").arg(into).stdin(Stdio::null());
        git
    };
    fs::create_dir_all(into).map_err(|error| format!("{}: {error}", into.display()))?;
    let fetched = command::run(git().args(["init", "--quiet"]))
        .and_then(|()| {
            command::run(git().args(["fetch", "--quiet", "--depth", "1", &format!("{from}/{name}"), commit]))
        })
        .and_then(|()| {
            command::run(git().args(["-c", "advice.detachedHead=false", "checkout", "--quiet", "FETCH_HEAD"]))
        });
    fetched.map_err(|error| {
        format!(
            "{error}\nthe array API's tests come from {from} by git; {FROM} names another place with {} and {}, {SKIP}=1 does \
             without",
            SUITE.0, STANDARD.0
        )
    })
}
