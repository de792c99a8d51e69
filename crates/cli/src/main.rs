//! The `bullet` command: arguments and printing, no logic.

mod args;
mod commands;
mod demo;
mod failure;
mod numbers;
mod output;
mod progress;
mod settings;
mod signals;

use std::process::ExitCode;

use clap::Parser;

use args::{Cli, Command};
use failure::Failure;

fn main() -> ExitCode {
    failure::install_panic_hook();
    signals::ignore_file_size_signal();
    let cli = Cli::parse();
    // The hook has told the user; a panic is a failure like others to whoever reads the exit code.
    match std::panic::catch_unwind(|| run(cli)) {
        Ok(Ok(())) => ExitCode::SUCCESS,
        Ok(Err(failure)) => failure.report(),
        Err(_) => ExitCode::FAILURE,
    }
}

fn run(cli: Cli) -> Result<(), Failure> {
    check_environment()?;
    if let Some(threads) = cli.threads {
        bullet_tensor::par::set_threads(threads);
    }
    match cli.command {
        Command::Demo(args) => demo::run(&args),
        Command::Train(args) => commands::train::run(&args),
        Command::Generate(args) => commands::generate::run(&args),
        Command::Eval(args) => commands::eval::run(&args),
        Command::Info(args) => commands::info::run(&args),
        Command::Devices(args) => commands::devices::run(&args),
        Command::Convert(args) => commands::convert::run(&args),
    }
}

/// A variable with a value that means nothing is a mistake, not a default.
fn check_environment() -> Result<(), Failure> {
    let usage = |message: String| Failure::usage(message);
    bullet_tensor::par::check_environment().map_err(|e| usage(e.to_string()))?;
    bullet_tensor::simd::check_environment().map_err(|e| usage(e.to_string()))?;
    bullet_tensor::Device::parse("cpu").map_err(|e| usage(e.to_string()))?;
    bullet_runtime::jit::check_environment().map_err(|e| usage(e.to_string()))?;
    Ok(())
}
