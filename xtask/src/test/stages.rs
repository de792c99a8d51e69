//! The stages of `cargo xtask test`, in the order they run: cheap checks first.

use std::collections::BTreeMap;
use std::path::Path;

use super::binaries::{self, Binary};
use super::libtest::Counts;
use super::{Session, Stage, python, wheels};
use crate::{command, tidy};

/// Crates whose results depend on the instruction set that kernels choose.
const ISA_PACKAGES: &[&str] = &["bullet-kernels", "bullet-tensor"];

/// Package, target and filter of the tests that compile device sources with NVRTC.
const NVRTC_TESTS: &[(&str, &str, &str)] = &[
    ("bullet-kernels", "tests/cuda_compile", ""),
    ("bullet-lang", "tests/cuda", ""),
    ("bullet", "tests/cli", "nvrtc"),
];

/// As above, with nvcc.
const NVCC_TEST: (&str, &str, &str) = ("bullet-lang", "tests/nvcc", "");
/// As above, with the `ptxas` beside nvcc.
const PTXAS_TEST: (&str, &str, &str) = ("bullet-lang", "tests/ptx", "");

/// How long each fuzz test of the fuzz stage runs.
const FUZZ_SECONDS: &str = "10";

/// Every stage. A new one is a row here and a function below.
pub(super) const STAGES: &[Stage] = &[
    Stage {
        name: "setup",
        help: "rustfmt, clippy, the dependencies and NVIDIA's compilers are here",
        in_quick: true,
        run: setup,
    },
    Stage { name: "fmt", help: "the code is formatted", in_quick: true, run: fmt },
    Stage { name: "tidy", help: "rules that rustc and clippy don't know", in_quick: true, run: check_tidy },
    Stage { name: "clippy", help: "no warning on any target", in_quick: false, run: clippy },
    Stage { name: "build", help: "every test and example compiles", in_quick: true, run: build },
    Stage { name: "test", help: "unit, integration and command-line tests", in_quick: true, run: test },
    Stage {
        name: "isa",
        help: "kernels and tensors on each lower instruction set",
        in_quick: true,
        run: isa,
    },
    Stage {
        name: "cuda",
        help: "every device source compiles for every architecture, without a GPU",
        in_quick: true,
        run: cuda,
    },
    Stage {
        name: "python",
        help: "the wheel, built and installed, under its own tests",
        in_quick: true,
        run: python::run,
    },
    Stage { name: "fuzz", help: "tests named *fuzz*, for some seconds each", in_quick: true, run: fuzz },
    Stage { name: "doctest", help: "the examples in the documentation", in_quick: true, run: doctest },
    Stage { name: "doc", help: "the documentation builds without a warning", in_quick: false, run: doc },
];

/// Installs what a minimal Rust toolchain lacks, and downloads the dependencies that the lock file names.
fn setup(_: &mut Session) -> Result<(), String> {
    for component in ["rustfmt", "clippy"] {
        let subcommand = if component == "rustfmt" { "fmt" } else { "clippy" };
        if command::is_available(command::cargo().args([subcommand, "--version"])) {
            continue;
        }
        let Some(rustup) = command::find_on_path("rustup") else {
            return Err(format!("`cargo {subcommand}` is missing and there is no rustup to install it with"));
        };
        command::run(std::process::Command::new(rustup).args(["component", "add", component]))?;
    }
    let mut fetch = command::cargo();
    fetch.args(["fetch", "--quiet"]);
    // A lock file that does not fit the manifests is a mistake to commit, but normal while editing.
    if std::env::var_os("CI").is_some() {
        fetch.arg("--locked");
    }
    command::run(&mut fetch)?;
    wheels::install()
}

fn fmt(_: &mut Session) -> Result<(), String> {
    command::run(command::cargo().args(["fmt", "--all", "--check"]))
        .map_err(|error| format!("{error}; `cargo fmt` repairs it"))
}

fn check_tidy(_: &mut Session) -> Result<(), String> {
    tidy::check_checkout()
}

fn clippy(_: &mut Session) -> Result<(), String> {
    let arguments =
        ["clippy", "--quiet", "--workspace", "--all-targets", "--keep-going", "--", "-D", "warnings"];
    command::run(command::cargo().args(arguments))
}

fn build(session: &mut Session) -> Result<(), String> {
    session.binaries().map(drop)
}

fn test(session: &mut Session) -> Result<(), String> {
    let binaries = session.binaries()?;
    run_binaries(session, &binaries, "", &[]).map(drop)
}

fn isa(session: &mut Session) -> Result<(), String> {
    let all = session.binaries()?;
    let chosen: Vec<Binary> =
        all.into_iter().filter(|binary| ISA_PACKAGES.contains(&binary.package.as_str())).collect();
    if chosen.is_empty() {
        return Err(format!("no test program of {}", ISA_PACKAGES.join(" or ")));
    }
    let mut failures = Vec::new();
    for (name, is_here) in lower_isas() {
        if !is_here {
            println!("BULLET_ISA={name}: not on this machine");
            continue;
        }
        println!("BULLET_ISA={name}");
        failures.extend(run_binaries(session, &chosen, "", &[("BULLET_ISA", name)]).err());
    }
    if failures.is_empty() { Ok(()) } else { Err(failures.join("\n")) }
}

/// The instruction sets below the best one that kernels know, with whether this machine has them.
fn lower_isas() -> Vec<(&'static str, bool)> {
    #[cfg(target_arch = "x86_64")]
    return vec![
        ("avx2", is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma")),
        ("sse4.2", is_x86_feature_detected!("sse4.2")),
        ("portable", true),
    ];
    // Elsewhere there is one instruction set only, and the test stage ran it.
    #[cfg(not(target_arch = "x86_64"))]
    return Vec::new();
}

fn cuda(session: &mut Session) -> Result<(), String> {
    // Not only in `setup`, so that the stage can run alone.
    wheels::install()?;
    if wheels::skipped() {
        return Ok(());
    }
    let all = session.binaries()?;
    let own = wheels::variables()?;
    let variables = own.iter().map(|(name, value)| (*name, value.as_str()));
    let mut variables: Vec<_> = variables.chain([("RUST_TEST_NOCAPTURE", "1")]).collect();
    let mut tests = NVRTC_TESTS.to_vec();
    let nvcc = wheels::nvcc()?.map(|path| path.display().to_string());
    let ptxas = nvcc.as_ref().map(|nvcc| Path::new(nvcc).with_file_name("ptxas").display().to_string());
    let programs = wheels::programs()?.display().to_string();
    if let (Some(nvcc), Some(ptxas)) = (&nvcc, &ptxas) {
        tests.extend([NVCC_TEST, PTXAS_TEST]);
        variables.push(("BULLET_PTXAS", ptxas.as_str()));
        variables.extend([("BULLET_NVCC", nvcc.as_str()), ("BULLET_NVCC_OUT", programs.as_str())]);
    }
    let mut failures = Vec::new();
    for (package, target, filter) in tests {
        let is_it = |binary: &&Binary| binary.package == package && binary.target == target;
        let binary =
            all.iter().find(is_it).ok_or_else(|| format!("no test program {target} of {package}"))?;
        let outcome = binary.run(filter, &variables);
        session.counts += outcome.counts;
        let lines = outcome.output.lines().filter(|line| line.starts_with("sm_"));
        lines.for_each(|line| println!("{line}"));
        failures.extend(outcome.failure);
    }
    if failures.is_empty() { Ok(()) } else { Err(failures.join("\n")) }
}

fn fuzz(session: &mut Session) -> Result<(), String> {
    let binaries = session.binaries()?;
    let counts = run_binaries(session, &binaries, "fuzz", &[("BULLET_FUZZ_SECONDS", FUZZ_SECONDS)])?;
    if counts.passed == 0 {
        return Err("no test has `fuzz` in its name: the stage tested nothing".into());
    }
    Ok(())
}

fn doctest(session: &mut Session) -> Result<(), String> {
    let mut cargo = command::cargo();
    cargo.args(["test", "--quiet", "--workspace", "--doc", "--no-fail-fast"]);
    let output = cargo.stderr(std::process::Stdio::inherit()).output();
    let output = output.map_err(|error| format!("cannot run `{}`: {error}", command::shown(&cargo)))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let (counts, _) = Counts::parse(&text);
    session.counts += counts;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{text}\n`{}` failed: {}", command::shown(&cargo), output.status))
}

fn doc(_: &mut Session) -> Result<(), String> {
    let mut cargo = command::cargo();
    cargo.env("RUSTDOCFLAGS", "-D warnings").args(["doc", "--quiet", "--workspace", "--no-deps"]);
    command::run(&mut cargo)
}

impl Session {
    /// The test programs, built if no stage did so before. A build that failed is not tried again.
    fn binaries(&mut self) -> Result<Vec<Binary>, String> {
        self.binaries.get_or_insert_with(binaries::build).clone()
    }
}

/// Runs test programs one after another, all of them whatever fails, and prints a line for each that had tests and a
/// line for each crate that has several.
fn run_binaries(
    session: &mut Session,
    binaries: &[Binary],
    filter: &str,
    variables: &[(&str, &str)],
) -> Result<Counts, String> {
    let mut sum = Counts::default();
    let mut crates: BTreeMap<&str, (usize, Counts)> = BTreeMap::new();
    let mut failed = Vec::new();
    for binary in binaries {
        let outcome = binary.run(filter, variables);
        let counts = outcome.counts;
        sum += counts;
        let of_crate = crates.entry(&binary.package).or_default();
        of_crate.0 += usize::from(counts != Counts::default());
        of_crate.1 += counts;
        let name = format!("{} {}", binary.package, binary.target);
        if counts != Counts::default() {
            println!("{name:34} {} {:7.1} s", columns(counts), outcome.elapsed.as_secs_f64());
        }
        if let Some(failure) = outcome.failure {
            println!("--- output of {name}\n{failure}\n---");
            failed.push(name);
        }
    }
    for (name, (_, counts)) in crates.iter().filter(|(_, (programs, _))| *programs > 1) {
        println!("{:34} {}", format!("{name} (all)"), columns(*counts));
    }
    session.counts += sum;
    if failed.is_empty() { Ok(sum) } else { Err(format!("failed: {}", failed.join(", "))) }
}

fn columns(counts: Counts) -> String {
    let Counts { passed, failed, ignored } = counts;
    format!("{passed:5} passed {failed:3} failed {ignored:3} ignored")
}
