//! The next token from logits, on the device: launches of `sample.cu`.
//!
//! Tokens are those of a sequential walk through the probabilities in f64, unless the random number falls within some
//! 2^-40 of the border between two tokens: probabilities are fixed-point numbers here, so that sums are exact in any order.

use bullet_ops::DType;
use bullet_runtime::jit::Tier;
use bullet_runtime::{DevicePtr, Error, Result};

use super::gpu::{Define, Gpu, Unit, args};
use crate::{View, ViewMut};

const SOURCE: &str = include_str!("../../cuda/sample.cu");
/// Up to this many tokens are sorted in shared memory; of more the limits are found by radix selection.
const SORTED: usize = 4096;

/// How the next token is chosen: the limits apply in the order temperature, top-k, top-p.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Sampling {
    /// Logits are divided by this; at 0 the likeliest token is taken, always.
    pub temperature: f64,
    /// Only the `k` likeliest tokens.
    pub top_k: Option<usize>,
    /// Only the smallest set of the likeliest tokens whose probabilities add up to at least this.
    pub top_p: Option<f64>,
    /// Whether each row's position grows by one, for a launch that is replayed.
    pub advance: bool,
}

/// Every unit that this family asks for, with its entry points.
pub(crate) fn units() -> Vec<(Unit, Vec<&'static str>)> {
    let entries = vec!["greedy", "sample_all", "sample_sorted", "sample_select"];
    [DType::F16, DType::BF16, DType::F32].map(|dtype| (unit(dtype), entries.clone())).into()
}

fn unit(dtype: DType) -> Unit {
    Unit { name: "sample", source: SOURCE, defines: vec![Define::Type("T", dtype)], since: Tier::Sm35 }
}

/// Writes the next token of each row into `tokens` (i64 `[rows]`), from contiguous `logits` (f16, bf16 or f32,
/// `[rows, tokens]`) and `state` (i64 `[rows, 2]`: seed and position). Equal settings, logits, seeds and positions give
/// equal tokens; of equal logits the lower token comes first.
///
/// Logits that are NaN or +inf, or all -inf, are reported in the device's fault cell; the token is then the likeliest of
/// the others, or 0.
///
/// # Errors
/// Settings out of range, no tokens to choose from; out of memory; the kernel does not compile or cannot be launched.
///
/// # Panics
/// If the views don't fit each other.
pub fn sample(
    gpu: &Gpu,
    how: &Sampling,
    logits: &View<'_>,
    state: &mut ViewMut<'_>,
    tokens: &mut ViewMut<'_>,
) -> Result<()> {
    check(how)?;
    let shape = logits.layout().shape;
    assert!(shape.rank() == 2 && logits.layout().is_contiguous(), "logits are [rows, tokens]");
    assert!(logits.dtype().is_float() && logits.dtype() != DType::F64, "logits are f16, bf16 or f32");
    let (rows, v) = (shape[0], shape[1]);
    assert!(state.layout().shape.numel() == 2 * rows && tokens.layout().shape.numel() == rows);
    assert!(state.dtype() == DType::I64 && tokens.dtype() == DType::I64);
    if v == 0 || v > 1 << 30 {
        return Err(Error::invalid(format!("there must be 1 to 2^30 tokens to choose from, not {v}")));
    }
    let top_k = how.top_k.filter(|&k| k < v).unwrap_or(0);
    let top_p = how.top_p.unwrap_or(1.0);
    // Of 2^bits each, all tokens together stay below 2^63.
    let bits = 52.min(62 - v.next_power_of_two().trailing_zeros());
    let mut settings = Vec::with_capacity(32);
    settings.extend(how.temperature.to_ne_bytes());
    settings.extend(((1u64 << bits) as f64).to_ne_bytes());
    settings.extend((top_k as u32).to_ne_bytes());
    settings.extend(u32::from(how.advance).to_ne_bytes());
    settings.extend(top_p.to_ne_bytes());
    let mut args = args![DevicePtr(logits.bytes() as u64), DevicePtr(state.bytes() as u64)];
    args.push(tokens.bytes() as u64).push(v as u32).push_bytes(&settings, 8);
    let strided = v.next_multiple_of(32).min(1024);
    let (entry, threads, shared) = if how.temperature == 0.0 || how.top_k == Some(1) {
        ("greedy", strided, 0)
    } else if top_k == 0 && top_p >= 1.0 {
        ("sample_all", strided, 0)
    } else if v <= SORTED {
        let n = v.next_power_of_two().max(32);
        args.push(n as u32);
        ("sample_sorted", n.min(1024), 8 * n)
    } else {
        ("sample_select", 256, 0)
    };
    // Dropped after the launch.
    let masses = if entry == "sample_select" { Some(gpu.scratch(8 * rows * v)?) } else { None };
    masses.iter().for_each(|masses| {
        args.push(masses.ptr());
    });
    args.push(gpu.fault());
    let f = gpu.function(&unit(logits.dtype()), entry)?;
    // SAFETY: the views have the elements that their shapes say, of the unit's type and i64.
    unsafe { gpu.launch(f, [rows as u32, 1, 1], threads as u32, shared as u32, &args) }
}

fn check(how: &Sampling) -> Result<()> {
    if !(how.temperature >= 0.0 && how.temperature.is_finite()) {
        return Err(Error::invalid(format!(
            "temperature = {} must be a number of at least 0 (0 takes the likeliest token)",
            how.temperature
        )));
    }
    if how.top_k == Some(0) {
        return Err(Error::invalid(
            "top_k = 0 leaves no token to choose; use at least 1, or none for no limit",
        ));
    }
    match how.top_p {
        Some(p) if !(p > 0.0 && p <= 1.0) => {
            Err(Error::invalid(format!("top_p = {p} must be greater than 0 and at most 1 (1 is no limit)")))
        }
        _ => Ok(()),
    }
}
