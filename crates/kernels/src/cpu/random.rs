//! Random numbers by counter ([`bullet_ops::random`]): dropout and fills.
//!
//! The numbers of element `i` are a function of (seed, stream, step, i) alone, word `i % 4` of block `i / 4`.

pub use bullet_ops::random::{Counter, philox};
use bullet_ops::{Compute, DropoutSpec};

use super::convert::Storage;
use super::math::Real;
use super::par::{self, SharedMut};
use super::simd::{Isa, SimdOp, Target, dispatch_on, isa};

/// Blocks of four that are drawn together.
const BATCH: usize = 64;

/// The words of elements `4 first .. 4 (first + BATCH)`, one word an element.
#[inline(always)]
fn draw(counter: Counter, first: u64, words: &mut [u32; 4 * BATCH]) {
    // By word and then by block, so that the rounds are vector code; interleaved afterwards.
    let mut planes = [[0u32; BATCH]; 4];
    for b in 0..BATCH {
        let w = counter.words(first + b as u64);
        for i in 0..4 {
            planes[i][b] = w[i];
        }
    }
    for b in 0..BATCH {
        for i in 0..4 {
            words[4 * b + i] = planes[i][b];
        }
    }
}

/// `y = x / (1 - p)` with probability `1 - p`, else 0. The adjoint is the same call on the gradient.
///
/// # Panics
/// If the lengths differ or `p` is not in `0..=1`.
pub fn dropout<S: Storage>(x: &[S], p: f64, counter: Counter, y: &mut [S]) {
    dropout_on(isa(), x, p, counter, y);
}

/// As [`dropout`], on this instruction set.
pub fn dropout_on<S: Storage>(isa: Isa, x: &[S], p: f64, counter: Counter, y: &mut [S]) {
    assert_eq!(x.len(), y.len());
    assert!((0.0..=1.0).contains(&p), "dropout probability {p} is not in 0..=1");
    let spec = DropoutSpec { p, stream: counter.stream };
    let (threshold, scale) = (spec.threshold(), spec.scale());
    for_batches(y, |first, at, y| {
        dispatch_on(isa, Dropout { x: &x[at..at + y.len()], threshold, scale, counter, first, y });
    });
}

/// Calls `f(block, element, part)` for parts of `y` that begin at a batch, in parallel.
fn for_batches<S: Storage>(y: &mut [S], f: impl Fn(u64, usize, &mut [S]) + Sync) {
    let len = y.len();
    let out = SharedMut::new(y);
    let batch = 4 * BATCH;
    par::for_ranges(len.div_ceil(batch), par::SERIAL_BELOW / (8 * batch), |r| {
        let cells = r.start * batch..(r.end * batch).min(len);
        // SAFETY: ranges are disjoint.
        f((r.start * BATCH) as u64, cells.start, unsafe { out.part(cells.clone()) });
    });
}

struct Dropout<'a, S: Storage> {
    x: &'a [S],
    threshold: u64,
    scale: f64,
    counter: Counter,
    first: u64,
    y: &'a mut [S],
}

impl<S: Storage> SimdOp for Dropout<'_, S> {
    type Output = ();

    #[inline(always)]
    fn run<T: Target>(self) {
        const N: usize = 4 * BATCH;
        let scale = S::Compute::of(self.scale);
        // A word is dropped if it is at most `last`; with p below 2^-32 none is.
        let (none, last) = (self.threshold == 0, self.threshold.saturating_sub(1) as u32);
        let mut words = [0; N];
        let (mut xs, mut ys) = (S::scratch(N), S::scratch(N));
        for (b, (x, y)) in self.x.chunks(N).zip(self.y.chunks_mut(N)).enumerate() {
            draw(self.counter, self.first + (b * BATCH) as u64, &mut words);
            let x = S::load::<T>(x, &mut xs);
            let keep = |y: &mut [S::Compute]| {
                for i in 0..x.len() {
                    let dropped = !none & (words[i] <= last);
                    y[i] = if dropped { S::Compute::ZERO } else { x[i] * scale };
                }
            };
            match S::as_compute_mut(y) {
                Some(y) => keep(y),
                None => {
                    keep(&mut ys[..x.len()]);
                    S::narrow::<T>(&ys[..x.len()], y);
                }
            }
        }
    }
}

/// A distribution to fill with.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Distribution {
    /// Uniform in `low..high`.
    Uniform {
        /// Least value.
        low: f64,
        /// Bound above.
        high: f64,
    },
    /// Normal, by Box and Muller's transform.
    Normal {
        /// Mean.
        mean: f64,
        /// Standard deviation.
        std: f64,
    },
}

/// Fills `y` with independent numbers of a distribution.
pub fn fill<S: Storage>(distribution: Distribution, counter: Counter, y: &mut [S]) {
    for_batches(y, |first, _, y| fill_part(distribution, counter, first, y));
}

fn fill_part<S: Storage>(distribution: Distribution, counter: Counter, first: u64, y: &mut [S]) {
    for (b, y) in y.chunks_mut(4).enumerate() {
        // f64 throughout, so that f32 results are the same on every machine up to the last place of libm.
        let w = counter.words(first + b as u64);
        // The middle of each of 2^32 cells: never 0, so that its logarithm is finite.
        let u = w.map(|w| (f64::from(w) + 0.5) / 4_294_967_296.0);
        let values = match distribution {
            Distribution::Uniform { low, high } => u.map(|u| uniform::<S>(low, high, u)),
            Distribution::Normal { mean, std } => {
                let pair = |u: f64, v: f64| {
                    let (r, angle) = ((-2.0 * u.ln()).sqrt() * std, std::f64::consts::TAU * v);
                    [mean + r * angle.cos(), mean + r * angle.sin()]
                };
                let ([a, b], [c, d]) = (pair(u[0], u[1]), pair(u[2], u[3]));
                [a, b, c, d].map(S::from_f64)
            }
        };
        y.copy_from_slice(&values[..y.len()]);
    }
}

/// `low + (high - low) u`, kept below `high` where rounding to `S` would reach it.
fn uniform<S: Storage>(low: f64, high: f64, u: f64) -> S {
    let x = S::from_f64(low + (high - low) * u);
    if x.to_f64() >= high && high > low { S::from_f64(low) } else { x }
}
