//! How a command fails: what is printed, and the exit code.

use std::fmt::Display;
use std::io;

use bullet_nn::ErrorKind;

use crate::output::note;

/// Why a command ended early.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Something is wrong, and the user is told what.
    Error {
        /// What is wrong, a line each.
        message: String,
        /// What to do, if the message does not say.
        hint: Option<String>,
        /// The exit code.
        code: u8,
    },
    /// Something is wrong, and the user was told.
    Told,
    /// Ctrl-C; what there is to say was said.
    Interrupted,
    /// Whoever read standard output has gone, as `head` does: nothing is wrong.
    NobodyReads,
}

const FAILED: u8 = 1;
const USAGE: u8 = 2;
/// 128 + SIGINT, as shells have it.
pub(crate) const INTERRUPTED: u8 = 130;

impl Failure {
    /// The user asked for something that cannot be.
    pub(crate) fn usage(message: impl Into<String>) -> Failure {
        Failure::Error { message: message.into(), hint: None, code: USAGE }
    }

    /// Something did not work.
    pub(crate) fn failed(message: impl Into<String>) -> Failure {
        Failure::Error { message: message.into(), hint: None, code: FAILED }
    }

    /// The same failure with this advice, unless there is some.
    pub(crate) fn or_hint(mut self, advice: impl Display) -> Failure {
        if let Failure::Error { hint: hint @ None, .. } = &mut self {
            *hint = Some(advice.to_string());
        }
        self
    }

    /// Tells the user; returns the exit code.
    pub(crate) fn report(self) -> u8 {
        match self {
            Failure::Error { message, hint, code } => {
                for line in message.lines() {
                    report_line(line);
                }
                if let Some(hint) = hint {
                    note(format_args!("hint: {hint}"));
                }
                code
            }
            Failure::Told => FAILED,
            Failure::Interrupted => INTERRUPTED,
            Failure::NobodyReads => 0,
        }
    }
}

/// A line of an error. Messages about settings end in `; what to do`, which gets a line of its own.
fn report_line(line: &str) {
    match line.rsplit_once("; ") {
        Some((problem, advice)) if line.contains('`') => {
            note(format_args!("error: {problem}\nhint: {advice}"));
        }
        _ => note(format_args!("error: {line}")),
    }
}

impl From<bullet_nn::Error> for Failure {
    fn from(e: bullet_nn::Error) -> Failure {
        let code = if e.kind == ErrorKind::Argument { USAGE } else { FAILED };
        Failure::Error { message: e.message, hint: None, code }
    }
}

/// Errors of writing to standard output; those of files come from the library, with their paths.
impl From<io::Error> for Failure {
    fn from(e: io::Error) -> Failure {
        match e.kind() {
            io::ErrorKind::BrokenPipe => Failure::NobodyReads,
            _ => Failure::failed(format!("could not write to standard output: {e}")),
        }
    }
}

/// Turns a panic, which is a bug, into a request to report it, instead of a backtrace.
pub(crate) fn install_panic_hook() {
    std::panic::set_hook(Box::new(|panic| {
        let payload = panic.payload();
        let message = payload.downcast_ref::<&str>().copied();
        let message =
            message.or_else(|| payload.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message");
        let place = panic.location().map_or(String::new(), |l| format!(" ({}:{})", l.file(), l.line()));
        note(format_args!(
            "error: internal error: {message}{place}\nhint: this is a bug in bullet {}; please report it with the command line and \
             the output of `bullet devices`: {}/issues",
            env!("CARGO_PKG_VERSION"),
            env!("CARGO_PKG_REPOSITORY"),
        ));
    }));
}
