//! The `bullet` command: see the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(bullet_cli::main(std::env::args_os()))
}
