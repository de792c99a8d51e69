//! Rows of scores: scaling, masking, and the softmax with its adjoint, in place.

use std::ops::Range;

use bullet_ops::random::WeightDropout;
use bullet_ops::{Compute, Float};

use super::{Attention, BLOCK, Mask, Real};
use crate::cpu::simd::{SimdOp, Target};

/// Rows are worked on in whole chunks, their ends filled with what changes nothing: the remainders of vectorised loops
/// would cost more than the chunks, rows being short. Sums and maxima are taken in this many strands.
pub(super) const CHUNK: usize = 16;

/// A block of rows of scores of one head.
pub(super) struct Rows<'a, T: Float> {
    pub(super) spec: &'a Attention<'a, T>,
    pub(super) batch: usize,
    pub(super) head: usize,
    /// The queries of the block, of how many, and how many keys there are.
    pub(super) queries: Range<usize>,
    pub(super) of: usize,
    pub(super) keys: usize,
    /// Row after row, `pitch` (a multiple of `CHUNK`) apart; on entry q . k.
    pub(super) scores: &'a mut [T::Compute],
    pub(super) pitch: usize,
    /// Columns that the next product reads; those a row doesn't see become 0.
    pub(super) width: usize,
}

impl<T: Float<Compute: Real>> Rows<'_, T> {
    /// Scales and masks row `i`; returns how many scores the row has. Its last chunk is filled up with -inf.
    #[inline(always)]
    fn mask(&mut self, i: usize) -> usize {
        let query = self.queries.start + i;
        let seen = self.spec.visible(query, self.of, self.keys);
        let row = &mut self.scores[i * self.pitch..][..seen.next_multiple_of(CHUNK)];
        let scale = T::Compute::of(self.spec.scale);
        match &self.spec.mask {
            Mask::None => {
                for chunk in row.as_chunks_mut::<CHUNK>().0 {
                    chunk.iter_mut().for_each(|x| *x *= scale);
                }
            }
            Mask::Attend(mask) => {
                let (ptr, stride) = mask.row(self.batch, self.head, query);
                for (j, x) in row[..seen].iter_mut().enumerate() {
                    // SAFETY: the mask's bounds were checked, or promised.
                    let attend = unsafe { *ptr.offset(j as isize * stride) };
                    *x = if attend { *x * scale } else { T::Compute::NEG_INFINITY };
                }
            }
            Mask::Bias(mask) => {
                let (ptr, stride) = mask.row(self.batch, self.head, query);
                for (j, x) in row[..seen].iter_mut().enumerate() {
                    // SAFETY: as above.
                    *x = *x * scale + unsafe { *ptr.offset(j as isize * stride) }.up();
                }
            }
        }
        row[seen..].fill(T::Compute::NEG_INFINITY);
        seen
    }
}

/// What dropout multiplies a chunk of a query's weights by, 0 or 1.
#[inline(always)]
fn kept<C: Compute>(dropout: &WeightDropout, [batch, head, query, chunk]: [usize; 4]) -> [C; CHUNK] {
    // A chunk's keys are those of four blocks.
    const { assert!(CHUNK == 16) };
    let first = dropout.block([batch, head, query, chunk * CHUNK]);
    // By word and then by block, so that the rounds are vector code.
    let mut planes = [[0; CHUNK / 4]; 4];
    for b in 0..CHUNK / 4 {
        let words = dropout.words(first + b as u64);
        for n in 0..4 {
            planes[n][b] = words[n];
        }
    }
    let of_query = if query / 8 % 2 == 0 { [planes[0], planes[1]] } else { [planes[2], planes[3]] };
    std::array::from_fn(|l| {
        let bits = of_query[l / 8][l % 8 / 2] >> (l % 2 * 16) & 0xffff;
        if bits < dropout.threshold { C::ZERO } else { C::ONE }
    })
}

/// Turns scores into weights exp(s - max), of which dropout then takes some; leaves the log-sum-exp and the reciprocal of each row's sum.
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
        let (n, first, batch, head) =
            (self.rows.queries.len(), self.rows.queries.start, self.rows.batch, self.rows.head);
        // What dropout leaves is multiplied by this.
        let left = self.rows.spec.dropout.map_or(T::Compute::ONE, |dropout| T::Compute::of(dropout.scale));
        let mut sums = [T::Compute::ONE; BLOCK];
        for i in 0..n {
            let seen = self.rows.mask(i).next_multiple_of(CHUNK);
            let row = &mut self.rows.scores[i * self.rows.pitch..][..self.rows.width.next_multiple_of(CHUNK)];
            let (row, unseen) = row.split_at_mut(seen);
            unseen.fill(zero);
            let row = row.as_chunks_mut::<CHUNK>().0;
            let mut strands = [T::Compute::NEG_INFINITY; CHUNK];
            for chunk in &*row {
                for l in 0..CHUNK {
                    strands[l] = strands[l].larger(chunk[l]);
                }
            }
            let max = pairs(strands, T::Compute::larger);
            if max == T::Compute::NEG_INFINITY && row.iter().flatten().all(|&x| x == max) {
                row.as_flattened_mut().fill(zero);
                (self.lse[i], self.inverse[i]) = (max, zero);
                continue;
            }
            let mut strands = [zero; CHUNK];
            for chunk in &mut *row {
                for l in 0..CHUNK {
                    chunk[l] = (chunk[l] - max).exp_nonpositive::<S>();
                    strands[l] += chunk[l];
                }
            }
            sums[i] = pairs(strands, |a, b| a + b);
            (self.lse[i], self.inverse[i]) = (max, left);
            if let Some(dropout) = &self.rows.spec.dropout {
                for (c, chunk) in row.iter_mut().enumerate() {
                    let kept = kept::<T::Compute>(dropout, [batch, head, first + i, c]);
                    for l in 0..CHUNK {
                        chunk[l] *= kept[l];
                    }
                }
            }
        }
        // All rows at once, so that logarithm and division vectorise; rows that see nothing have a sum of 1 here.
        for i in 0..n {
            self.lse[i] += sums[i].log::<S>();
            self.inverse[i] = self.inverse[i] / sums[i];
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
        let width = self.rows.width.next_multiple_of(CHUNK);
        let (first, batch, head) = (self.rows.queries.start, self.rows.batch, self.rows.head);
        let left = self.rows.spec.dropout.map_or(T::Compute::ONE, |dropout| T::Compute::of(dropout.scale));
        for i in 0..self.rows.queries.len() {
            let seen = self.rows.mask(i);
            let (lse, mean) = (self.lse[i], self.mean[i]);
            let seen = if lse == T::Compute::NEG_INFINITY { 0 } else { seen };
            let row = &mut self.rows.scores[i * self.rows.pitch..][..width];
            let grad = &mut self.grad[i * self.rows.pitch..][..width];
            let chunks = seen.div_ceil(CHUNK);
            let whole = row.as_chunks_mut::<CHUNK>().0.iter_mut().zip(grad.as_chunks_mut::<CHUNK>().0);
            for (c, (x, g)) in whole.take(chunks).enumerate() {
                for l in 0..CHUNK {
                    // Above 0 by rounding only.
                    let exponent = x[l] - lse;
                    let exponent = if exponent > zero { zero } else { exponent };
                    x[l] = exponent.exp_nonpositive::<S>();
                }
                // The weight that was left goes to the values, the one before to the scores.
                let Some(dropout) = &self.rows.spec.dropout else {
                    for l in 0..CHUNK {
                        g[l] = x[l] * (g[l] - mean) * scale;
                    }
                    continue;
                };
                let kept = kept::<T::Compute>(dropout, [batch, head, first + i, c]);
                for l in 0..CHUNK {
                    g[l] = x[l] * (g[l] * kept[l] * left - mean) * scale;
                    x[l] = x[l] * kept[l] * left;
                }
            }
            row[seen..].fill(zero);
            grad[seen..].fill(zero);
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
            let mut strands = [C::ZERO; CHUNK];
            let (whole_a, rest_a) = a.as_chunks::<CHUNK>();
            let (whole_b, rest_b) = b.as_chunks::<CHUNK>();
            for (a, b) in whole_a.iter().zip(whole_b) {
                for l in 0..CHUNK {
                    strands[l] = S::fma(a[l], b[l], strands[l]);
                }
            }
            let rest = rest_a.iter().zip(rest_b).fold(C::ZERO, |sum, (&a, &b)| sum + a * b);
            *out = rest + pairs(strands, |a, b| a + b);
        }
    }
}

#[inline(always)]
fn pairs<C: Copy>(mut strands: [C; CHUNK], f: impl Fn(C, C) -> C) -> C {
    let mut width = CHUNK;
    while width > 1 {
        width /= 2;
        for l in 0..width {
            strands[l] = f(strands[l], strands[l + width]);
        }
    }
    strands[0]
}
