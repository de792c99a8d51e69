//! Development tasks, run as `cargo xtask TASK`: the command line; each task is a module.
//!
//! | task | module | what it does |
//! |---|---|---|
//! | `test` | [`mod@test`] | everything that must pass, on a fresh machine too |
//! | `tidy` | [`tidy`] | rules of the code that rustc and clippy don't know |
//! | `bench` | [`mod@bench`] | Bullet and its peers side by side |
//! | `gpu-bundle` | [`gpu_bundle`] | tests and benchmarks in a folder, for a machine with a GPU |

mod bench;
mod command;
mod gpu_bundle;
mod test;
mod tidy;

use std::process::ExitCode;

/// A task: its name, its help (the first line says what it does), and what runs it with the remaining arguments.
struct Task {
    name: &'static str,
    help: &'static str,
    run: fn(&[String]) -> Result<ExitCode, String>,
}

/// Every task, in the order the help lists them.
const TASKS: &[Task] = &[
    Task { name: "test", help: test::HELP, run: test::run },
    Task { name: "tidy", help: tidy::HELP, run: tidy::run },
    Task { name: "bench", help: bench::HELP, run: bench::run },
    Task { name: "gpu-bundle", help: gpu_bundle::HELP, run: gpu_bundle::run },
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let Some(name) = arguments.first() else {
        eprint!("{}", help());
        return ExitCode::FAILURE;
    };
    let Some(task) = TASKS.iter().find(|task| task.name == name) else {
        let asked_for_help = ["-h", "--help", "help"].contains(&name.as_str());
        if asked_for_help {
            print!("{}", help());
            return ExitCode::SUCCESS;
        }
        eprint!("xtask: there is no task `{name}`\n\n{}", help());
        return ExitCode::FAILURE;
    };
    if arguments.iter().any(|argument| argument == "-h" || argument == "--help") {
        println!("cargo xtask {name}: {}", task.help);
        return ExitCode::SUCCESS;
    }
    match (task.run)(&arguments[1..]) {
        Ok(code) => code,
        Err(message) => {
            eprintln!("xtask {name}: {message}");
            ExitCode::FAILURE
        }
    }
}

fn help() -> String {
    let mut text = String::from("usage: cargo xtask TASK [OPTIONS]\n\n");
    for task in TASKS {
        let summary = task.help.lines().next().unwrap_or_default();
        text.push_str(&format!("  {:10} {summary}\n", task.name));
    }
    text.push_str("\n`cargo xtask TASK --help` lists a task's options.\n");
    text
}
