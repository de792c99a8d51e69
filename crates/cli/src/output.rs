//! Printing. Standard output gets what was asked for, standard error all the rest: a reader that goes away ends the
//! command quietly in the first case, and is of no consequence in the second.

use std::fmt::Display;
use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

/// A line to standard error.
pub(crate) fn note(line: impl Display) {
    // If standard error is closed there is nobody to tell.
    let _ = writeln!(io::stderr(), "{line}");
}

/// A warning to standard error.
pub(crate) fn warn(message: impl Display) {
    note(format_args!("warning: {message}"));
}

/// Text to standard output, at once.
pub(crate) fn put(text: impl Display) -> io::Result<()> {
    let mut out = io::stdout().lock();
    write!(out, "{text}")?;
    out.flush()
}

/// A model's text to standard output, at once. In a terminal control characters are made harmless: an untrained model
/// writes any.
pub(crate) fn stream(text: &str) -> io::Result<()> {
    if io::stdout().is_terminal() { put(harmless(text)) } else { put(text) }
}

fn harmless(text: &str) -> String {
    let replace = |c: char| if c.is_control() && c != '\n' && c != '\t' { '\u{fffd}' } else { c };
    text.chars().map(replace).collect()
}

/// A line to standard output.
pub(crate) fn line(text: impl Display) -> io::Result<()> {
    put(format_args!("{text}\n"))
}

/// A JSON object to standard output, indented.
pub(crate) fn json(value: &Value) -> io::Result<()> {
    line(format_args!("{value:#}"))
}

/// `0:42`, `1:02:03`.
pub(crate) fn clock(time: Duration) -> String {
    let s = time.as_secs_f64().round() as u64;
    match s / 3600 {
        0 => format!("{}:{:02}", s / 60, s % 60),
        h => format!("{h}:{:02}:{:02}", s / 60 % 60, s % 60),
    }
}

/// `999`, `21.3k`, `1.3M`.
pub(crate) fn count(n: f64) -> String {
    match n {
        n if n < 1e3 => format!("{n:.0}"),
        n if n < 999_950.0 => format!("{:.1}k", n / 1e3),
        n if n < 999_950_000.0 => format!("{:.1}M", n / 1e6),
        n => format!("{:.1}G", n / 1e9),
    }
}

/// `999 bytes`, `5.3 MB`, `32.0 GB`.
pub(crate) fn bytes(n: u64) -> String {
    match n as f64 {
        b if b < 1e3 => format!("{n} bytes"),
        b if b < 999_950.0 => format!("{:.1} kB", b / 1e3),
        b if b < 999_950_000.0 => format!("{:.1} MB", b / 1e6),
        b => format!("{:.1} GB", b / 1e9),
    }
}

/// A path as a person writes it: without `./` before it.
pub(crate) fn shown(path: &Path) -> impl Display + '_ {
    path.strip_prefix(".").ok().filter(|p| !p.as_os_str().is_empty()).unwrap_or(path).display()
}

/// A path as a shell reads it.
pub(crate) fn shell(path: &Path) -> String {
    let text = shown(path).to_string();
    let plain = |c: char| c.is_alphanumeric() || "/._-+=:,@".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        text
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

/// A number with `digits` decimals, or a word where there is none.
pub(crate) fn number(x: f64, digits: usize) -> String {
    if x.is_finite() { format!("{x:.digits$}") } else { "unknown".into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_read_well() {
        assert_eq!(clock(Duration::from_secs_f64(59.6)), "1:00");
        assert_eq!(clock(Duration::from_secs(3723)), "1:02:03");
        for (n, want) in [(7.0, "7"), (21_340.0, "21.3k"), (999_960.0, "1.0M"), (2e9, "2.0G")] {
            assert_eq!(count(n), want);
        }
        assert_eq!(bytes(5_300_000), "5.3 MB");
        assert_eq!(number(f64::NAN, 2), "unknown");
    }

    #[test]
    fn a_model_cannot_steer_the_terminal() {
        assert_eq!(harmless("a\u{1b}[2J\r\n\tü"), "a\u{fffd}[2J\u{fffd}\n\tü");
    }

    #[test]
    fn paths_are_quoted_where_a_shell_needs_it() {
        assert_eq!(shell(Path::new("./runs/book")), "runs/book");
        assert_eq!(shell(Path::new(".")), ".");
        assert_eq!(shell(Path::new("my runs/it's")), r"'my runs/it'\''s'");
    }
}
