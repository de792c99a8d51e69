//! The `bullet` command: arguments and printing, no logic. A library, as the Python package brings the command too.

mod args;
mod commands;
mod demo;
mod failure;
mod numbers;
mod output;
mod progress;
mod settings;
mod signals;

use std::ffi::OsString;

use clap::Parser;

use args::{Cli, Command};
use failure::Failure;

/// Does what the command line `args` says, whose first word is the name of the program. Returns the exit code, with all
/// output written.
///
/// It sets the panic hook and the handlers of signals of the process, which it takes to be its own.
pub fn main(args: impl IntoIterator<Item = OsString>) -> u8 {
    failure::install_panic_hook();
    signals::ignore_file_size_signal();
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(e) => {
            // Help and version are no errors; there is nobody to tell if they cannot be printed.
            let _ = e.print();
            return u8::try_from(e.exit_code()).unwrap_or(1);
        }
    };
    // The hook has told the user; a panic is a failure like others to whoever reads the exit code.
    match std::panic::catch_unwind(|| run(cli)) {
        Ok(Ok(())) => 0,
        Ok(Err(failure)) => failure.report(),
        Err(_) => 1,
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
        Command::Compile(args) => commands::compile::run(&args),
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
