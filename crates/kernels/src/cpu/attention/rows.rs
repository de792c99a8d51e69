//! Rows of scores: scaling, masking, and the softmax with its adjoint, in place.

use std::ops::Range;

use bullet_ops::{Compute, Float};

use super::{Attention, Mask, Real};
use crate::cpu::simd::{SimdOp, Target};

/// Sums and maxima are taken in this many strands, so that they vectorise.
const STRANDS: usize = 32;

/// A block of rows of scores of one head.
pub(super) struct Rows<'a, T: Float> {
    pub(super) spec: &'a Attention<'a, T>,
    pub(super) batch: usize,
    pub(super) head: usize,
    /// The queries of the block, of how many, and how many keys there are.
    pub(super) queries: Range<usize>,
    pub(super) of: usize,
    pub(super) keys: usize,
    /// Row after row, `pitch` apart; on entry q . k.
    pub(super) scores: &'a mut [T::Compute],
    pub(super) pitch: usize,
    /// Columns that the next product reads; those a row doesn't see become 0.
    pub(super) width: usize,
}

impl<T: Float<Compute: Real>> Rows<'_, T> {
    /// Scales and masks row `i`; returns how many scores the row has (the others are not set).
    #[inline(always)]
    fn mask(&mut self, i: usize) -> usize {
        let query = self.queries.start + i;
        let seen = self.spec.visible(query, self.of, self.keys);
        let row = &mut self.scores[i * self.pitch..][..seen];
        let scale = T::Compute::of(self.spec.scale);
        match &self.spec.mask {
            Mask::None => row.iter_mut().for_each(|x| *x *= scale),
            Mask::Attend(mask) => {
                let (ptr, stride) = mask.row(self.batch, self.head, query);
                for (j, x) in row.iter_mut().enumerate() {
                    // SAFETY: the mask's bounds were checked, or promised.
                    let attend = unsafe { *ptr.offset(j as isize * stride) };
                    *x = if attend { *x * scale } else { T::Compute::NEG_INFINITY };
                }
            }
            Mask::Bias(mask) => {
                let (ptr, stride) = mask.row(self.batch, self.head, query);
                for (j, x) in row.iter_mut().enumerate() {
                    // SAFETY: as above.
                    *x = *x * scale + unsafe { *ptr.offset(j as isize * stride) }.up();
                }
            }
        }
        seen
    }
}

/// Turns scores into weights exp(s - max); leaves the log-sum-exp and the reciprocal of each row's sum.
pub(super) struct Softmax<'a, T: Float> {
    pub(super) rows: Rows<'a, T>,
    pub(super) lse: &'a mut [T::Compute],
    pub(super) inverse: &'a mut [T::Compute],
}

impl<T: Float<Compute: Real>> SimdOp for Softmax<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<S: Target>(mut self) {
        let zero = T::Compute::ZERO;
        for i in 0..self.rows.queries.len() {
            let seen = self.rows.mask(i);
            let row = &mut self.rows.scores[i * self.rows.pitch..][..self.rows.width];
            let (row, unseen) = row.split_at_mut(seen);
            unseen.fill(zero);
            let max = fold(row, T::Compute::NEG_INFINITY, |a, b| if b > a { b } else { a });
            if max == T::Compute::NEG_INFINITY && row.iter().all(|&x| x == max) {
                row.fill(zero);
                (self.lse[i], self.inverse[i]) = (max, zero);
                continue;
            }
            row.iter_mut().for_each(|x| *x = (*x - max).exp_nonpositive::<S>());
            let sum = fold(row, zero, |a, b| a + b);
            self.lse[i] = max + sum.log::<S>();
            self.inverse[i] = T::Compute::ONE / sum;
        }
    }
}

/// Turns scores into weights exp(s - lse), and `grad` (on entry dO . v) into gradients of the scores before scaling.
pub(super) struct SoftmaxGrad<'a, T: Float> {
    pub(super) rows: Rows<'a, T>,
    /// As `rows.scores`.
    pub(super) grad: &'a mut [T::Compute],
    pub(super) lse: &'a [T::Compute],
    /// dO . o of each row, which is the weighted mean of `grad`.
    pub(super) mean: &'a [T::Compute],
}

impl<T: Float<Compute: Real>> SimdOp for SoftmaxGrad<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<S: Target>(mut self) {
        let zero = T::Compute::ZERO;
        let scale = T::Compute::of(self.rows.spec.scale);
        for i in 0..self.rows.queries.len() {
            let seen = self.rows.mask(i);
            let (lse, mean) = (self.lse[i], self.mean[i]);
            let seen = if lse == T::Compute::NEG_INFINITY { 0 } else { seen };
            let row = &mut self.rows.scores[i * self.rows.pitch..][..self.rows.width];
            let grad = &mut self.grad[i * self.rows.pitch..][..self.rows.width];
            row[seen..].fill(zero);
            grad[seen..].fill(zero);
            for (x, g) in row[..seen].iter_mut().zip(&mut grad[..seen]) {
                // Above 0 by rounding only.
                let exponent = *x - lse;
                let exponent = if exponent > zero { zero } else { exponent };
                *x = exponent.exp_nonpositive::<S>();
                *g = *x * (*g - mean) * scale;
            }
        }
    }
}

/// Dot products of rows: `out[i] = a[i] . b[i]`.
pub(super) struct RowDots<'a, C> {
    pub(super) a: (*const C, isize),
    pub(super) b: (*const C, isize),
    pub(super) dim: usize,
    pub(super) out: &'a mut [C],
}

impl<C: Real> SimdOp for RowDots<'_, C> {
    type Output = ();

    #[inline(always)]
    fn run<S: Target>(self) {
        for (i, out) in self.out.iter_mut().enumerate() {
            // SAFETY: the maker's promise that both have as many rows of `dim` elements as `out`.
            let (a, b) = unsafe {
                (
                    std::slice::from_raw_parts(self.a.0.offset(i as isize * self.a.1), self.dim),
                    std::slice::from_raw_parts(self.b.0.offset(i as isize * self.b.1), self.dim),
                )
            };
            let mut strands = [C::ZERO; STRANDS];
            let (whole_a, rest_a) = a.as_chunks::<STRANDS>();
            let (whole_b, rest_b) = b.as_chunks::<STRANDS>();
            for (a, b) in whole_a.iter().zip(whole_b) {
                for l in 0..STRANDS {
                    strands[l] = S::fma(a[l], b[l], strands[l]);
                }
            }
            let rest = rest_a.iter().zip(rest_b).fold(C::ZERO, |sum, (&a, &b)| sum + a * b);
            *out = rest + pairs(strands, |a, b| a + b);
        }
    }
}

/// Folds a row with an associative `f`.
#[inline(always)]
fn fold<C: Copy>(row: &[C], start: C, f: impl Fn(C, C) -> C + Copy) -> C {
    let mut strands = [start; STRANDS];
    let (whole, rest) = row.as_chunks::<STRANDS>();
    for chunk in whole {
        for l in 0..STRANDS {
            strands[l] = f(strands[l], chunk[l]);
        }
    }
    rest.iter().fold(pairs(strands, f), |a, &b| f(a, b))
}

#[inline(always)]
fn pairs<C: Copy>(mut strands: [C; STRANDS], f: impl Fn(C, C) -> C) -> C {
    let mut width = STRANDS;
    while width > 1 {
        width /= 2;
        for l in 0..width {
            strands[l] = f(strands[l], strands[l + width]);
        }
    }
    strands[0]
}
