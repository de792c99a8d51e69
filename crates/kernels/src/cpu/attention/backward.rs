//! The backward pass: scores are computed again from the log-sum-exp (Dao 2023, algorithm 2).
//!
//! With P = exp(S - lse), dP = dO V^T and D = rowsum(dO o O): dV = P^T dO, dS = scale P (dP - D), dQ = dS K and
//! dK = dS^T Q.

use std::ops::Range;

use bullet_ops::{Compute, Error, Float, Result};

use super::rows::{CHUNK, RowDots, Rows, SoftmaxGrad};
use super::{Attention, BLOCK, HeadsLayout, HeadsMut, HeadsRef, Isa, Real, in_compute, narrow};
use crate::cpu::gemm::{Packed, Scratch};
use crate::cpu::par;
use crate::cpu::simd::{self, dispatch_on};

/// What the forward pass read and wrote, and the gradient of its output.
#[derive(Clone, Copy, Debug)]
pub struct Saved<'a, T: Float> {
    /// Queries.
    pub q: HeadsRef<'a, T>,
    /// Keys.
    pub k: HeadsRef<'a, T>,
    /// Values.
    pub v: HeadsRef<'a, T>,
    /// The output.
    pub o: HeadsRef<'a, T>,
    /// The log-sum-exp.
    pub lse: &'a [T::Compute],
    /// The gradient of the output.
    pub grad: HeadsRef<'a, T>,
}

/// Gradients of queries, keys and values, from [`Saved`] and the `spec` of the forward pass.
///
/// Each gradient has the sizes of its operand; those of keys and values are summed over the query heads that share
/// them. Rows that see no key have zero gradients.
///
/// # Errors
/// If the sizes do not fit.
pub fn attention_backward<T: Float<Compute: Real>>(
    saved: &Saved<'_, T>,
    spec: &Attention<'_, T>,
    dq: HeadsMut<'_, T>,
    dk: HeadsMut<'_, T>,
    dv: HeadsMut<'_, T>,
) -> Result<()> {
    attention_backward_on(simd::isa(), saved, spec, dq, dk, dv)
}

/// [`attention_backward`] with the instruction set `isa`, or the portable code where this machine hasn't got it.
///
/// # Errors
/// As [`attention_backward`].
pub fn attention_backward_on<T: Float<Compute: Real>>(
    isa: Isa,
    saved: &Saved<'_, T>,
    spec: &Attention<'_, T>,
    dq: HeadsMut<'_, T>,
    dk: HeadsMut<'_, T>,
    dv: HeadsMut<'_, T>,
) -> Result<()> {
    let (q, k) = (&saved.q.layout, &saved.k.layout);
    spec.check(q, k, &saved.v.layout, &saved.o.layout)?;
    spec.check(&dq.layout, &dk.layout, &dv.layout, &saved.grad.layout)?;
    let same = |a: &HeadsLayout, b: &HeadsLayout| {
        (a.batch, a.heads, a.seq, a.dim) == (b.batch, b.heads, b.seq, b.dim)
    };
    if !same(q, &dq.layout) || !same(k, &dk.layout) || saved.lse.len() != q.batch * q.heads * q.seq {
        return Err(Error::shape(
            "attention: gradients and log-sum-exp do not have the sizes of the forward pass".to_owned(),
        ));
    }
    let backward = Backward { isa, saved, spec, dq, dk, dv };
    let run = |task: usize| {
        // SAFETY: the views reach what their layouts say, and tasks write disjoint heads.
        unsafe { backward.head(task / k.heads, task % k.heads) };
    };
    if q.batch * q.heads * q.seq * k.seq * q.dim < 64 * 1024 {
        (0..k.batch * k.heads).for_each(run);
    } else {
        par::for_tasks(k.batch * k.heads, run);
    }
    Ok(())
}

struct Backward<'a, T: Float> {
    isa: Isa,
    saved: &'a Saved<'a, T>,
    spec: &'a Attention<'a, T>,
    dq: HeadsMut<'a, T>,
    dk: HeadsMut<'a, T>,
    dv: HeadsMut<'a, T>,
}

/// The working memory of a task.
struct Work<C: Compute> {
    /// Weights and gradients of scores: a block of queries by all keys, `pitch` a row.
    weights: Scratch<C>,
    scores: Scratch<C>,
    pitch: usize,
    /// Sums of gradients of queries (a block), keys and values (all): `wide` a row.
    dq: Scratch<C>,
    dk: Scratch<C>,
    dv: Scratch<C>,
    wide: usize,
    /// Widened rows of q, o and the output's gradient.
    rows: [Scratch<C>; 3],
}

/// Keys and values of a head, packed for their three products.
struct Operands<C: Compute> {
    k_transposed: Packed<C>,
    v_transposed: Packed<C>,
    k: Packed<C>,
}

impl<T: Float<Compute: Real>> Backward<'_, T> {
    /// One head of keys and values with the query heads that attend to it.
    ///
    /// # Safety
    /// Nobody else writes these heads of the results.
    unsafe fn head(&self, batch: usize, kv_head: usize) {
        let (q, k, v) = (&self.saved.q.layout, &self.saved.k, &self.saved.v);
        let (dim, keys, group) = (q.dim, k.layout.seq, q.heads / k.layout.heads);
        let pitch = Packed::<T::Compute>::pad(self.isa, keys.max(1)).next_multiple_of(CHUNK);
        let wide = Packed::<T::Compute>::pad(self.isa, dim.max(1));
        let mut work = Work {
            weights: Scratch::take(BLOCK * pitch),
            scores: Scratch::take(BLOCK * pitch),
            pitch,
            dq: Scratch::take(BLOCK * wide),
            dk: Scratch::take(keys * wide),
            dv: Scratch::take(keys * wide),
            wide,
            rows: std::array::from_fn(|_| Scratch::take(BLOCK * dim)),
        };
        work.dk.fill(T::Compute::ZERO);
        work.dv.fill(T::Compute::ZERO);
        let k_ptr = k.ptr.wrapping_offset(k.layout.row(batch, kv_head, 0));
        let v_ptr = v.ptr.wrapping_offset(v.layout.row(batch, kv_head, 0));
        // SAFETY: keys and values have `keys` rows of `dim`.
        let operands = unsafe {
            Operands {
                k_transposed: Packed::new(self.isa, k_ptr, (1, k.layout.seq_stride), (dim, keys)),
                v_transposed: Packed::new(self.isa, v_ptr, (1, v.layout.seq_stride), (dim, keys)),
                k: Packed::new(self.isa, k_ptr, (k.layout.seq_stride, 1), (keys, dim)),
            }
        };
        for head in kv_head * group..(kv_head + 1) * group {
            for first in (0..q.seq).step_by(BLOCK) {
                // SAFETY: the caller's promise.
                unsafe { self.block(batch, head, first..q.seq.min(first + BLOCK), &operands, &mut work) };
            }
        }
        for key in 0..keys {
            let dk = self.dk.ptr.wrapping_offset(self.dk.layout.row(batch, kv_head, key));
            let dv = self.dv.ptr.wrapping_offset(self.dv.layout.row(batch, kv_head, key));
            // SAFETY: rows of `dim` elements.
            unsafe {
                narrow(&work.dk[key * wide..][..dim], T::Compute::ONE, dk);
                narrow(&work.dv[key * wide..][..dim], T::Compute::ONE, dv);
            }
        }
    }

    /// One block of queries: writes its dq, adds to dk and dv.
    unsafe fn block(
        &self,
        batch: usize,
        head: usize,
        block: Range<usize>,
        operands: &Operands<T::Compute>,
        work: &mut Work<T::Compute>,
    ) {
        let (of, dim, keys) = (self.saved.q.layout.seq, self.saved.q.layout.dim, self.saved.k.layout.seq);
        let (n, pitch, wide) = (block.len(), work.pitch, work.wide);
        let seen = self.spec.visible(block.end - 1, of, keys);
        let [q_rows, o_rows, g_rows] = &mut work.rows;
        let from = |x: &HeadsRef<'_, T>, buffer: &mut [T::Compute]| {
            let ptr = x.ptr.wrapping_offset(x.layout.row(batch, head, block.start));
            // SAFETY: n rows of dim elements.
            unsafe { in_compute(ptr, x.layout.seq_stride, (n, dim), buffer) }
        };
        let q = from(&self.saved.q, q_rows);
        let o = from(&self.saved.o, o_rows);
        let g = from(&self.saved.grad, g_rows);
        let mut mean = [T::Compute::ZERO; BLOCK];
        dispatch_on(self.isa, RowDots { a: g, b: o, dim, out: &mut mean[..n] });
        let at = (batch * self.saved.q.layout.heads + head) * of;
        // SAFETY: sizes and strides are those the buffers were made for.
        unsafe {
            operands.k_transposed.multiply(
                (n, dim, seen),
                (q.0, q.1, 1),
                (work.weights.as_mut_ptr(), pitch),
                false,
            );
            operands.v_transposed.multiply(
                (n, dim, seen),
                (g.0, g.1, 1),
                (work.scores.as_mut_ptr(), pitch),
                false,
            );
            let rows = Rows {
                spec: self.spec,
                batch,
                head,
                queries: block.clone(),
                of,
                keys,
                scores: &mut work.weights,
                pitch,
                width: seen,
            };
            let lse = &self.saved.lse[at + block.start..at + block.end];
            dispatch_on(self.isa, SoftmaxGrad { rows, grad: &mut work.scores, lse, mean: &mean });
            let (p, ds) = (work.weights.as_ptr(), work.scores.as_ptr());
            operands.k.multiply((n, seen, dim), (ds, pitch as isize, 1), (work.dq.as_mut_ptr(), wide), false);
            // Transposed by exchanging the strides of the left operand.
            let packed_q = Packed::new(self.isa, q.0, (q.1, 1), (n, dim));
            let packed_g = Packed::new(self.isa, g.0, (g.1, 1), (n, dim));
            packed_q.multiply((seen, n, dim), (ds, 1, pitch as isize), (work.dk.as_mut_ptr(), wide), true);
            packed_g.multiply((seen, n, dim), (p, 1, pitch as isize), (work.dv.as_mut_ptr(), wide), true);
            for (i, query) in block.enumerate() {
                let dq = self.dq.ptr.wrapping_offset(self.dq.layout.row(batch, head, query));
                narrow(&work.dq[i * wide..][..dim], T::Compute::ONE, dq);
            }
        }
    }
}
