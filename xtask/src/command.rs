//! Running other programs: the repository root, cargo without the outer cargo's variables, and a run with a time limit.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How often a running program is asked whether it has ended.
const POLL: Duration = Duration::from_millis(10);

/// The root of the checkout: cargo says at run time which one, for several may share a target folder and so this program.
pub(crate) fn root() -> &'static Path {
    static ROOT: OnceLock<PathBuf> = OnceLock::new();
    ROOT.get_or_init(|| {
        let xtask =
            std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
        Path::new(&xtask).parent().expect("xtask lies in a folder of the root").into()
    })
}

/// `cargo` in the root, without the variables that `cargo run` set for xtask itself: build scripts that watch them
/// would run again at every turn.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root()).stdin(Stdio::null());
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST_") || text == "CARGO" {
            command.env_remove(&name);
        }
    }
    command
}

/// `pip install` of this interpreter, without questions and news.
pub(crate) fn pip_install(python: &Path) -> Command {
    let mut pip = Command::new(python);
    // In a container everything runs as root, and where this installs is ours alone.
    pip.env("PIP_ROOT_USER_ACTION", "ignore");
    pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]);
    pip
}

/// Whether this variable is set to 1.
pub(crate) fn is_set(variable: &str) -> bool {
    std::env::var_os(variable).is_some_and(|value| value == "1")
}

/// Where cargo puts what it builds, whatever the environment and the configuration say.
pub(crate) fn target_folder() -> Result<PathBuf, String> {
    let mut metadata = cargo();
    metadata.args(["metadata", "--no-deps", "--format-version", "1"]);
    let text = output_of(&mut metadata)?;
    let value: serde_json::Value =
        serde_json::from_str(&text).map_err(|error| format!("cargo metadata printed no JSON: {error}"))?;
    let folder = value["target_directory"].as_str().ok_or("cargo metadata names no target folder")?;
    Ok(PathBuf::from(folder))
}

/// The command as a user would type it.
pub(crate) fn shown(command: &Command) -> String {
    let program = Path::new(command.get_program()).file_name().unwrap_or(command.get_program());
    let mut words = vec![program.to_string_lossy().into_owned()];
    words.extend(command.get_args().map(|argument| argument.to_string_lossy().into_owned()));
    words.join(" ")
}

/// Runs a command that prints for itself; an exit status other than 0 is an error that names the command.
pub(crate) fn run(command: &mut Command) -> Result<(), String> {
    match command.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("`{}` failed: {status}", shown(command))),
        Err(error) => Err(cannot_run(command, &error)),
    }
}

/// Runs a command and returns its standard output; standard error goes to the terminal.
pub(crate) fn output_of(command: &mut Command) -> Result<String, String> {
    let output = command.stderr(Stdio::inherit()).output().map_err(|error| cannot_run(command, &error))?;
    if !output.status.success() {
        return Err(format!("`{}` failed: {}", shown(command), output.status));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Whether a program is there and answers `--version`.
pub(crate) fn is_available(command: &mut Command) -> bool {
    let quiet = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    quiet.status().is_ok_and(|status| status.success())
}

/// The first program of this name on `PATH`.
pub(crate) fn find_on_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(name)).find(|file| file.is_file())
}

/// What a program left behind.
pub(crate) struct Finished {
    /// How it ended; none if it was killed because its time was up.
    pub(crate) status: Option<ExitStatus>,
    /// Standard output, then standard error.
    pub(crate) output: String,
}

/// Runs a command with its output captured, and kills it after `limit`.
pub(crate) fn run_captured(command: &mut Command, limit: Duration) -> Result<Finished, String> {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|error| cannot_run(command, &error))?;
    let streams = [collect(child.stdout.take()), collect(child.stderr.take())];
    let status = wait(&mut child, limit).map_err(|error| cannot_run(command, &error))?;
    let mut output = String::new();
    for (text, reader) in streams {
        // After a kill, the program's own children may hold the pipe open: take what is there.
        if status.is_some() {
            reader.join().map_err(|_| format!("reading the output of `{}` failed", shown(command)))?;
        }
        output.push_str(&String::from_utf8_lossy(&lock(&text)));
    }
    Ok(Finished { status, output })
}

/// What was read from a pipe so far, and the thread that reads on.
type Stream = (Arc<Mutex<Vec<u8>>>, JoinHandle<()>);

/// Reads a pipe to its end on a thread of its own, so that neither pipe fills up and stops the program.
fn collect(pipe: Option<impl Read + Send + 'static>) -> Stream {
    let text = Arc::new(Mutex::new(Vec::new()));
    let shared = Arc::clone(&text);
    let reader = std::thread::spawn(move || {
        let Some(mut pipe) = pipe else { return };
        let mut chunk = [0; 1 << 14];
        // A read error means that the program died; what it had printed is still worth showing.
        while let Ok(length @ 1..) = pipe.read(&mut chunk) {
            lock(&shared).extend_from_slice(&chunk[..length]);
        }
    });
    (text, reader)
}

fn lock(text: &Mutex<Vec<u8>>) -> MutexGuard<'_, Vec<u8>> {
    text.lock().unwrap_or_else(PoisonError::into_inner)
}

fn wait(child: &mut Child, limit: Duration) -> std::io::Result<Option<ExitStatus>> {
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if start.elapsed() > limit {
            child.kill()?;
            child.wait()?;
            return Ok(None);
        }
        std::thread::sleep(POLL);
    }
}

fn cannot_run(command: &Command, error: &std::io::Error) -> String {
    format!("cannot run `{}`: {error}", shown(command))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_root_holds_the_workspace() {
        let manifest = std::fs::read_to_string(root().join("Cargo.toml")).unwrap();
        assert!(manifest.contains("[workspace]"));
    }

    #[test]
    fn captured_runs_keep_both_streams_and_the_status() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo out; echo err >&2; exit 3"]);
        let finished = run_captured(&mut command, Duration::from_secs(20)).unwrap();
        assert_eq!(finished.output, "out\nerr\n");
        assert_eq!(finished.status.unwrap().code(), Some(3));
    }

    #[test]
    fn a_run_past_its_limit_is_killed_and_has_no_status() {
        let mut command = Command::new("sleep");
        command.arg("60");
        let start = Instant::now();
        let finished = run_captured(&mut command, Duration::from_millis(50)).unwrap();
        assert!(finished.status.is_none());
        assert!(start.elapsed() < Duration::from_secs(30));
    }

    #[test]
    fn a_missing_program_is_an_error_that_names_it() {
        let error = run(&mut Command::new("no-such-program-anywhere")).unwrap_err();
        assert!(error.contains("no-such-program-anywhere"), "{error}");
    }

    #[test]
    fn the_target_folder_is_an_absolute_path() {
        assert!(target_folder().unwrap().is_absolute());
    }
}
