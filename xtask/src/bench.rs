//! `cargo xtask bench`: builds the workers, makes the data and starts benches/run.py, which does the measuring.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use crate::command;

pub(crate) const HELP: &str = "Bullet and its peers side by side, on the reference training step

  --peers A,B    peers to run beside Bullet: torch-eager, torch-compile, torch-eager-bf16, torch-compile-bf16, jax,
                 candle; they are installed on first use (PyTorch is a large download)
  --peers-only   leave Bullet out
  -r ROUNDS      and every other option: as `python benches/run.py --help` lists them

  BULLET_BENCH_PYTHON names a Python that has what benches/requirements-peers.txt lists; without it a virtual
  environment benches/.venv is made.";

/// What the command line asks for.
#[derive(Default, PartialEq, Eq, Debug)]
struct Options {
    peers: Vec<String>,
    peers_only: bool,
    /// Passed on to run.py.
    rest: Vec<String>,
}

/// Runs the task.
pub(crate) fn run(arguments: &[String]) -> Result<ExitCode, String> {
    let options = parse(arguments)?;
    let benches = command::root().join("benches");
    let python = python(&benches, &options)?;
    command::run(Command::new(&python).arg(benches.join("make_data.py")))?;
    let mut workers = Vec::new();
    if !options.peers_only {
        workers.push(build_bullet(&benches)?);
    }
    let mut run = Command::new(&python);
    if options.peers.iter().any(|peer| peer == "candle") {
        run.env("CANDLE_TARGET_DIR", build_candle(&benches)?);
    }
    workers.extend(options.peers);
    command::run(run.arg(benches.join("run.py")).args(&options.rest).arg("--").args(workers))?;
    Ok(ExitCode::SUCCESS)
}

fn parse(arguments: &[String]) -> Result<Options, String> {
    let mut options = Options::default();
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        match argument.as_str() {
            "--peers" => {
                let names = rest.next().ok_or("--peers needs names, as in `--peers torch-eager,candle`")?;
                options.peers.extend(names.split(',').map(str::to_owned));
            }
            "--peers-only" => options.peers_only = true,
            _ => options.rest.push(argument.clone()),
        }
    }
    if options.peers_only && options.peers.is_empty() {
        return Err("--peers-only without --peers leaves nothing to run".into());
    }
    Ok(options)
}

/// The Python to run with: the one asked for, else a virtual environment that gets what is missing.
fn python(benches: &Path, options: &Options) -> Result<PathBuf, String> {
    if let Some(named) = std::env::var_os("BULLET_BENCH_PYTHON") {
        return Ok(named.into());
    }
    let environment = benches.join(".venv");
    let python = environment.join("bin/python");
    if !python.exists() {
        command::run(Command::new("python3").args(["-m", "venv"]).arg(&environment))?;
    }
    let needs_peers = options.peers.iter().any(|peer| peer.starts_with("torch") || peer == "jax");
    let requirements = if needs_peers { "requirements-peers.txt" } else { "requirements.txt" };
    let mut pip = Command::new(&python);
    pip.args(["-m", "pip", "install", "--quiet", "-r"]).arg(benches.join(requirements));
    command::run(&mut pip)?;
    Ok(python)
}

/// Builds Bullet's worker; returns it as an argument of run.py.
fn build_bullet(benches: &Path) -> Result<String, String> {
    command::run(command::cargo().args(["build", "--release", "--quiet", "--package", "bullet-bench"]))?;
    let program = command::target_folder()?.join("release/bullet-bench");
    let data = benches.join("micro.safetensors");
    Ok(format!("bullet='{}' '{}'", program.display(), data.display()))
}

/// Builds the candle worker, which is a workspace of its own; returns its target folder.
fn build_candle(benches: &Path) -> Result<PathBuf, String> {
    let folder = benches.join("peers/candle");
    let target = folder.join("target");
    let mut cargo = command::cargo();
    cargo.current_dir(&folder).args(["build", "--release", "--locked", "--target-dir"]).arg(&target);
    command::run(&mut cargo)?;
    Ok(target)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Options, String> {
        parse(&line.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn peers_are_split_and_the_rest_is_passed_on() {
        let options = parsed("-r 3 --peers torch-eager,candle --gen").unwrap();
        assert_eq!(options.peers, ["torch-eager", "candle"]);
        assert_eq!(options.rest, ["-r", "3", "--gen"]);
        assert!(!options.peers_only);
    }

    #[test]
    fn a_run_of_nothing_is_refused() {
        assert!(parsed("--peers").is_err());
        assert!(parsed("--peers-only").is_err());
        assert!(parsed("--peers-only --peers jax").unwrap().peers_only);
    }
}
