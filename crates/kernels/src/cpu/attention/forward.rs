//! The forward pass.

use std::ops::Range;

use bullet_ops::{Compute, Error, Float, Result};

use super::rows::{CHUNK, Rows, Softmax};
use super::{Attention, BLOCK, HeadsLayout, HeadsMut, HeadsRef, Isa, Real, in_compute, narrow};
use crate::cpu::gemm::vector::vectorize;
use crate::cpu::gemm::{Dots, Packed, Scratch, Sums};
use crate::cpu::par::{self, SharedMut};
use crate::cpu::simd::{self, dispatch_on};

/// Up to this many queries (generation) keys and values are read in place, not packed.
const DECODE: usize = 4;
/// Multiply-adds below which a call stays on the caller.
const SERIAL_WORK: usize = 128 * 1024;

/// `o = softmax(scale q k^T + mask) v`, and the log-sum-exp of each row of scores for the backward pass.
///
/// q and o are `[b, hq, sq, d]`, k and v `[b, hk, sk, d]` with hq a multiple of hk: query head `h` attends to key head
/// `h / (hq / hk)`. `lse` is `[b, hq, sq]`, contiguous; a query that sees no key gives zeros, and -inf there.
///
/// # Errors
/// If the sizes do not fit.
pub fn attention_forward<T: Float<Compute: Real>>(
    q: HeadsRef<'_, T>,
    k: HeadsRef<'_, T>,
    v: HeadsRef<'_, T>,
    spec: &Attention<'_, T>,
    o: HeadsMut<'_, T>,
    lse: &mut [T::Compute],
) -> Result<()> {
    attention_forward_on(simd::isa(), q, k, v, spec, o, lse)
}

/// [`attention_forward`] with the instruction set `isa`, or the portable code where this machine hasn't got it.
///
/// # Errors
/// As [`attention_forward`].
pub fn attention_forward_on<T: Float<Compute: Real>>(
    isa: Isa,
    q: HeadsRef<'_, T>,
    k: HeadsRef<'_, T>,
    v: HeadsRef<'_, T>,
    spec: &Attention<'_, T>,
    o: HeadsMut<'_, T>,
    lse: &mut [T::Compute],
) -> Result<()> {
    spec.check(&q.layout, &k.layout, &v.layout, &o.layout)?;
    let HeadsLayout { batch, heads, seq, dim, .. } = q.layout;
    let keys = k.layout.seq;
    if lse.len() != batch * heads * seq {
        return Err(Error::shape(format!(
            "attention: log-sum-exp of {} elements, expected {batch} * {heads} * {seq}",
            lse.len()
        )));
    }
    if lse.is_empty() {
        return Ok(());
    }
    let lse = SharedMut::new(lse);
    let forward = Forward { isa, q, k, v, spec, o, lse };
    // With few heads their queries are divided, at block bounds, so that every thread has some.
    let blocks = seq.div_ceil(BLOCK);
    let parts = (4 * par::threads()).div_ceil(batch * heads).min(blocks);
    let run = |task: usize| {
        let (head, part) = (task / parts, task % parts);
        let blocks = par::range(blocks, parts, part);
        let queries = blocks.start * BLOCK..seq.min(blocks.end * BLOCK);
        // SAFETY: the views reach what their layouts say, and tasks write disjoint queries.
        unsafe { forward.queries(head / heads, head % heads, queries) };
    };
    if batch * heads * seq * keys * dim < SERIAL_WORK {
        (0..batch * heads * parts).for_each(run);
    } else {
        par::for_tasks(batch * heads * parts, run);
    }
    Ok(())
}

struct Forward<'a, T: Float> {
    isa: Isa,
    q: HeadsRef<'a, T>,
    k: HeadsRef<'a, T>,
    v: HeadsRef<'a, T>,
    spec: &'a Attention<'a, T>,
    o: HeadsMut<'a, T>,
    lse: SharedMut<T::Compute>,
}

impl<T: Float<Compute: Real>> Forward<'_, T> {
    /// Some queries of one head.
    ///
    /// # Safety
    /// Nobody else writes these rows of the results.
    unsafe fn queries(&self, batch: usize, head: usize, queries: Range<usize>) {
        let (of, dim, keys) = (self.q.layout.seq, self.q.layout.dim, self.k.layout.seq);
        let group = self.q.layout.heads / self.k.layout.heads;
        let k = self.k.ptr.wrapping_offset(self.k.layout.row(batch, head / group, 0));
        let v = self.v.ptr.wrapping_offset(self.v.layout.row(batch, head / group, 0));
        // The last query sees the most keys.
        let most = self.spec.visible(queries.end - 1, of, keys);
        let pitch = Packed::<T::Compute>::pad(self.isa, most.max(1)).next_multiple_of(CHUNK);
        let wide = Packed::<T::Compute>::pad(self.isa, dim.max(1));
        let mut scores = Scratch::take(BLOCK * pitch);
        let mut out = Scratch::take(BLOCK * wide);
        let mut buffer = Scratch::take(BLOCK * dim);
        let mut inverse = [T::Compute::ZERO; BLOCK];
        // SAFETY: keys and values have `keys` rows of `dim`.
        let packed = (queries.len() > DECODE).then(|| unsafe {
            (
                Packed::new(self.isa, k, (1, self.k.layout.seq_stride), (dim, most)),
                Packed::new(self.isa, v, (self.v.layout.seq_stride, 1), (most, dim)),
            )
        });
        for first in queries.clone().step_by(BLOCK) {
            let block = first..queries.end.min(first + BLOCK);
            let n = block.len();
            let seen = self.spec.visible(block.end - 1, of, keys);
            let q = self.q.ptr.wrapping_offset(self.q.layout.row(batch, head, first));
            // SAFETY: every pointer and size comes from the checked layouts.
            unsafe {
                let (q, q_row) = in_compute(q, self.q.layout.seq_stride, (n, dim), &mut buffer);
                match &packed {
                    Some((k, _)) => {
                        k.multiply((n, dim, seen), (q, q_row, 1), (scores.as_mut_ptr(), pitch), false);
                    }
                    None => self.scores(k, (q, q_row), (n, seen), &mut scores, pitch),
                }
                let at = (batch * self.q.layout.heads + head) * of;
                let rows = Rows {
                    spec: self.spec,
                    batch,
                    head,
                    queries: block.clone(),
                    of,
                    keys,
                    scores: &mut scores,
                    pitch,
                    width: seen,
                };
                let lse = self.lse.part(at + block.start..at + block.end);
                dispatch_on(self.isa, Softmax { rows, lse, inverse: &mut inverse });
                match &packed {
                    Some((_, v)) => {
                        v.multiply(
                            (n, seen, dim),
                            (scores.as_ptr(), pitch as isize, 1),
                            (out.as_mut_ptr(), wide),
                            false,
                        );
                    }
                    None => self.means(v, &scores, (n, seen, pitch), &mut out, wide),
                }
                for (i, query) in block.enumerate() {
                    let o = self.o.ptr.wrapping_offset(self.o.layout.row(batch, head, query));
                    narrow(&out[i * wide..][..dim], inverse[i], o);
                }
            }
        }
    }

    /// `scores[i][j] = q[i] . k[j]`, reading the keys in place.
    unsafe fn scores(
        &self,
        k: *const T,
        (q, q_row): (*const T::Compute, isize),
        (n, seen): (usize, usize),
        scores: &mut [T::Compute],
        pitch: usize,
    ) {
        for i in 0..n {
            let out = scores[i * pitch..].as_mut_ptr();
            let x = q.wrapping_offset(i as isize * q_row);
            let stride = self.k.layout.seq_stride;
            vectorize(self.isa, Dots { m: 1, n: seen, k: self.q.layout.dim, x, b: k, stride, out });
        }
    }

    /// `out[i] = sum over j of weights[i][j] v[j]`, reading the values in place.
    unsafe fn means(
        &self,
        v: *const T,
        weights: &[T::Compute],
        (n, seen, pitch): (usize, usize, usize),
        out: &mut [T::Compute],
        wide: usize,
    ) {
        for i in 0..n {
            let out = &mut out[i * wide..][..self.q.layout.dim];
            let x = &weights[i * pitch..][..seen];
            vectorize(self.isa, Sums { x, b: v, stride: self.v.layout.seq_stride, out });
        }
    }
}
