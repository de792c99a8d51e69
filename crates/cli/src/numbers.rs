//! Numbers on the command line: read as those of settings are, and refused in words that say what would do.

use std::num::NonZeroUsize;

use bullet_tensor::par::MAX_THREADS;

/// `2_000` is 2000, as in files of settings. Larger numbers than TOML and JSON readers hold are no numbers of anything.
fn natural(text: &str) -> Option<u64> {
    text.replace('_', "").parse().ok().filter(|&n| i64::try_from(n).is_ok())
}

/// A count that may be 0.
pub(crate) fn count(text: &str) -> Result<usize, String> {
    let n = natural(text).and_then(|n| n.try_into().ok());
    n.ok_or_else(|| "expected a whole number of at least 0, such as 200".into())
}

/// A count of at least 1.
pub(crate) fn positive(text: &str) -> Result<NonZeroUsize, String> {
    let n = natural(text).and_then(|n| n.try_into().ok()).and_then(NonZeroUsize::new);
    n.ok_or_else(|| "expected a whole number of at least 1, such as 16".into())
}

/// A seed.
pub(crate) fn seed(text: &str) -> Result<u64, String> {
    natural(text).ok_or_else(|| "expected a whole number from 0 to 2^63 - 1, such as 1337".into())
}

/// A number of threads.
pub(crate) fn threads(text: &str) -> Result<usize, String> {
    let n = natural(text).and_then(|n| usize::try_from(n).ok()).filter(|n| (1..=MAX_THREADS).contains(n));
    n.ok_or_else(|| format!("expected a whole number from 1 to {MAX_THREADS}"))
}

/// A number; its range is checked where its meaning is known.
pub(crate) fn real(text: &str) -> Result<f64, String> {
    let x = text.replace('_', "").parse().ok().filter(|x: &f64| x.is_finite());
    x.ok_or_else(|| "expected a number, such as 0.8".into())
}
