//! `cargo xtask gpu-bundle`: one folder with all that a machine with a GPU needs to test and time Bullet, no Rust there.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use crate::command;
use crate::test::python::{build_wheel, environment};

pub(crate) const HELP: &str = "a folder with test programs, the Python package and benchmarks to run on a machine with a GPU

  --out FOLDER   where to (default: gpu-bundle, which git ignores)

  Copy the folder to a machine with an NVIDIA driver and run run_on_gpu.sh there; docs/gpu-testing.md says more. The
  programs need a glibc as new as this machine's, and NVRTC.";

/// Test programs, by package and test target; `None` is the package's unit tests.
const TESTS: &[(&str, Option<&str>)] = &[
    ("bullet-runtime", Some("cuda")),
    ("bullet-kernels", Some("cuda")),
    ("bullet-tensor", Some("conformance")),
    ("bullet-nn", Some("devices")),
    ("bullet-launch", None),
];

/// Programs, by package and name.
const PROGRAMS: &[(&str, &str)] = &[("bullet", "bullet"), ("bullet-bench", "bullet-bench-gpu")];

/// What is copied as it is, from the repository's root, and into which folder of the bundle.
const FILES: &[(&str, &str)] = &[
    ("benches/gpu/run_on_gpu.sh", ""),
    ("benches/gpu/peers.py", ""),
    ("benches/gpu/python.py", ""),
    ("benches/gpu/kernels.py", ""),
    ("benches/gpu/report.py", ""),
    ("configs", ""),
    ("README.md", ""),
    ("docs", ""),
    ("examples", ""),
    ("tests/python", "tests"),
    ("tests/array_api", "tests"),
];

/// The folder must fit where bundles are carried.
const MOST_BYTES: u64 = 60 << 20;

/// Runs the task.
pub(crate) fn run(arguments: &[String]) -> Result<ExitCode, String> {
    let out = match arguments {
        [] => command::root().join("gpu-bundle"),
        [flag, folder] if flag == "--out" => PathBuf::from(folder),
        other => return Err(format!("expected --out FOLDER or nothing, got {}", other.join(" "))),
    };
    let text = |e: std::io::Error| format!("{}: {e}", out.display());
    if out.exists() {
        fs::remove_dir_all(&out).map_err(text)?;
    }
    fs::create_dir_all(out.join("tests")).map_err(text)?;
    let mut programs: Vec<String> = Vec::new();
    for (package, name) in PROGRAMS {
        let built = build(&["build", "--release", "-p", package, "--bin", name])?;
        install(&built, &out.join(name))?;
        programs.push((*name).into());
    }
    for (package, test) in TESTS {
        let target = test.map_or_else(|| vec!["--lib"], |t| vec!["--test", t]);
        let built = build(&[&["test", "--no-run", "--release", "-p", package][..], &target].concat())?;
        let name = format!("tests/{}-{}", package.trim_start_matches("bullet-"), test.unwrap_or("unit"));
        install(&built, &out.join(&name))?;
        programs.push(name);
    }
    // Packed they are a third as large; run_on_gpu.sh unpacks them.
    let packed = fs::canonicalize(&out).map_err(text)?.join("programs.tar.gz");
    command::run(
        Command::new("tar").arg("-czf").arg(packed).arg("-C").arg(&out).arg("--remove-files").args(programs),
    )?;
    for (file, folder) in FILES {
        let from = command::root().join(file);
        command::run(Command::new("cp").arg("-r").arg(&from).arg(out.join(folder)))?;
    }
    let folder = command::target_folder()?.join("python");
    let wheel = build_wheel(&environment(&folder)?, "release", &folder.join("wheels-release"))?;
    command::run(Command::new("cp").arg(&wheel).arg(&out))?;
    let bytes = size(&out).map_err(text)?;
    println!("{}: {:.1} MiB", out.display(), bytes as f64 / f64::from(1 << 20));
    if bytes > MOST_BYTES {
        return Err(format!("the bundle is larger than {} MiB; leave something out", MOST_BYTES >> 20));
    }
    Ok(ExitCode::SUCCESS)
}

/// Builds one program and says where it is.
fn build(arguments: &[&str]) -> Result<PathBuf, String> {
    let mut cargo = command::cargo();
    cargo.args(arguments).arg("--message-format=json-render-diagnostics");
    let output = command::output_of(&mut cargo)?;
    let executable = |line: &str| {
        let message: serde_json::Value = serde_json::from_str(line).ok()?;
        message.get("executable")?.as_str().map(PathBuf::from)
    };
    output
        .lines()
        .filter_map(executable)
        .next_back()
        .ok_or_else(|| format!("cargo {} built no program", arguments.join(" ")))
}

/// Copies a program without its symbols.
fn install(from: &Path, to: &Path) -> Result<(), String> {
    command::run(Command::new("strip").arg("-o").arg(to).arg(from))
}

fn size(path: &Path) -> std::io::Result<u64> {
    if !path.is_dir() {
        return Ok(fs::metadata(path)?.len());
    }
    fs::read_dir(path)?.map(|entry| size(&entry?.path())).sum()
}
