//! Sums and extremes of a contiguous row, in enough parallel lanes to keep the vector units busy.
//!
//! Lane `j` takes elements `j`, `j + 64`, ..; the lanes are then combined pairwise. Order depends on the length only.

use super::math::Real;
use super::simd::Target;

const LANES: usize = 64;

#[inline(always)]
fn tree<R: Copy>(mut acc: [R; LANES], combine: impl Fn(R, R) -> R) -> R {
    let mut width = LANES / 2;
    while width > 0 {
        for j in 0..width {
            acc[j] = combine(acc[j], acc[j + width]);
        }
        width /= 2;
    }
    acc[0]
}

/// `f` folded over `x` from `start` by lanes, the lanes joined by `combine`.
#[inline(always)]
pub(super) fn fold<R: Copy>(x: &[R], start: R, f: impl Fn(R, R) -> R, combine: impl Fn(R, R) -> R) -> R {
    let mut acc = [start; LANES];
    let (chunks, rest) = x.as_chunks::<LANES>();
    for chunk in chunks {
        for j in 0..LANES {
            acc[j] = f(acc[j], chunk[j]);
        }
    }
    for (a, &x) in acc.iter_mut().zip(rest) {
        *a = f(*a, x);
    }
    tree(acc, combine)
}

/// Sum.
#[inline(always)]
pub(super) fn sum<R: Real>(x: &[R]) -> R {
    fold(x, R::ZERO, |a, x| a + x, |a, b| a + b)
}

/// Largest; -inf of none. NaN may be passed over.
#[inline(always)]
pub(super) fn max<R: Real>(x: &[R]) -> R {
    fold(x, R::NEG_INFINITY, |a, x| x.larger(a), R::larger)
}

/// Sum of `(x - centre)^2`.
#[inline(always)]
pub(super) fn squares<T: Target, R: Real>(x: &[R], centre: R) -> R {
    fold(x, R::ZERO, |a, x| T::fma(x - centre, x - centre, a), |a, b| a + b)
}

/// Sum of products.
#[inline(always)]
pub(super) fn dot<T: Target, R: Real>(x: &[R], y: &[R]) -> R {
    debug_assert_eq!(x.len(), y.len());
    let mut acc = [R::ZERO; LANES];
    let (xs, x_rest) = x.as_chunks::<LANES>();
    let (ys, y_rest) = y.as_chunks::<LANES>();
    for (x, y) in xs.iter().zip(ys) {
        for j in 0..LANES {
            acc[j] = T::fma(x[j], y[j], acc[j]);
        }
    }
    for ((a, &x), &y) in acc.iter_mut().zip(x_rest).zip(y_rest) {
        *a = T::fma(x, y, *a);
    }
    tree(acc, |a, b| a + b)
}
