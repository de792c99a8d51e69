//! Products of a few vectors with a matrix: bound by reading the matrix once, in place.
//!
//! Generation of one token at a time lives here: x W^T with W [n, k] row-major is a dot product a row of W.

use std::ops::Range;

use bullet_ops::{Compute, Element, Float};

use super::vector::{Vector, VectorOp, vectorize};
use super::{Bias, Problem, Scratch, widen};
use crate::cpu::par;

/// Up to this many vectors, dot products beat packing the matrix.
const MAX_DOT_ROWS: usize = 16;
/// Elements of the matrix in a task, at least: half a microsecond's reading. While a text is written, the pool's threads
/// stay awake from one product to the next, and each reads the same part of a matrix for every token, out of its own
/// cache.
const GRAIN: usize = 8 * 1024;
/// Columns whose sums stay in L1 while rows of the matrix stream past.
const SUM_COLUMNS: usize = 2048;

/// Computes the problem if it is of this kind; false if it isn't.
///
/// # Safety
/// As `block::gemm`.
pub(super) unsafe fn try_gemv<T: Float>(p: &Problem<T>) -> bool {
    if p.n == 1 && p.m > 1 && (p.a.col == 1 || p.a.row == 1) {
        // A column vector on the right is a row vector on the left of the transposed matrix.
        let flip = |bias: Bias<T>| Bias { by_row: !bias.by_row, ..bias };
        let mut q = Problem {
            bias: p.bias.map(flip),
            pre: p.pre,
            m: p.n,
            n: p.m,
            a: p.b_as_a(),
            b: p.a_as_b(),
            ..*p
        };
        q.c.transpose();
        if let Some(pre) = &mut q.pre {
            pre.transpose();
        }
        // SAFETY: the same problem.
        return unsafe { try_gemv(&q) };
    }
    let dots = p.b.row == 1 && p.m <= MAX_DOT_ROWS;
    let sums = p.b.col == 1 && p.m == 1;
    if !dots && !sums {
        return false;
    }
    let tasks = (p.n * p.k / GRAIN).clamp(1, 2 * par::threads()).min(p.n);
    par::for_tasks(p.batch * tasks, |i| {
        // SAFETY: tasks write disjoint columns.
        unsafe { columns(p, i / tasks, par::range(p.n, tasks, i % tasks), dots) };
    });
    true
}

/// Computes some columns of one matrix of the batch.
unsafe fn columns<T: Float>(p: &Problem<T>, matrix: usize, cols: Range<usize>, dots: bool) {
    let (a, b) = p.matrix(matrix);
    let mut copy = None;
    // SAFETY: A reaches m rows of k elements, the caller's promise.
    let x = unsafe { vectors(p, a, &mut copy) };
    let step = if dots { 256 } else { SUM_COLUMNS };
    let mut out = Scratch::take(p.m * step.min(cols.len()));
    for first in cols.clone().step_by(step) {
        let n = step.min(cols.end - first);
        let out = &mut out[..p.m * n];
        let b = b.wrapping_offset(first as isize * p.b.col);
        // SAFETY: inside B and C, the caller's promise.
        unsafe {
            if dots {
                let x = x.as_ptr();
                vectorize(p.isa, Dots { m: p.m, n, k: p.k, x, b, stride: p.b.col, out: out.as_mut_ptr() });
            } else {
                vectorize(p.isa, Sums { x, b, stride: p.b.row, out });
            }
            if let Some(Bias { ptr, by_row: false }) = p.bias {
                let bias = std::slice::from_raw_parts(ptr.add(first), n);
                for row in out.chunks_exact_mut(n) {
                    row.iter_mut().zip(bias).for_each(|(x, b)| *x += b.up());
                }
            }
            p.finish(matrix, (0, first), (p.m, n), out.as_ptr(), n as isize);
        }
    }
}

/// The vectors one after the other, in the compute type: A itself where it is that, else put in `copy`.
///
/// # Safety
/// `a`, with the problem's strides, reaches m rows of k elements.
unsafe fn vectors<'a, T: Float>(
    p: &Problem<T>,
    a: *const T,
    copy: &'a mut Option<Scratch<T::Compute>>,
) -> &'a [T::Compute] {
    let dense = p.a.col == 1 && (p.m == 1 || p.a.row == p.k as isize);
    if dense && T::DTYPE == T::Compute::DTYPE {
        // SAFETY: the caller's promise; the cast is of a type to itself.
        return unsafe { std::slice::from_raw_parts(a.cast(), p.m * p.k) };
    }
    let x = copy.insert(Scratch::take(p.m * p.k));
    for i in 0..p.m {
        let row = a.wrapping_offset(i as isize * p.a.row);
        let line = &mut x[i * p.k..(i + 1) * p.k];
        // SAFETY: the caller's promise.
        unsafe {
            if p.a.col == 1 {
                widen(row, line.as_mut_ptr(), p.k);
            } else {
                for (s, x) in line.iter_mut().enumerate() {
                    *x = (*row.offset(s as isize * p.a.col)).up();
                }
            }
        }
    }
    x
}

/// `out[i][j] = x[i] . b[j]` for `n` rows of `b`, `stride` apart.
pub(crate) struct Dots<T: Float> {
    pub(crate) m: usize,
    pub(crate) n: usize,
    pub(crate) k: usize,
    pub(crate) x: *const T::Compute,
    pub(crate) b: *const T,
    pub(crate) stride: isize,
    pub(crate) out: *mut T::Compute,
}

impl<T: Float> VectorOp<T::Compute> for Dots<T> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<V: Vector<T::Compute>>(self) {
        let mut j = 0;
        while j < self.n {
            // Wide registers come 32 at a time: twice the rows keep twice the cache lines on their way.
            let rows = match self.n - j {
                8.. if V::LANES * size_of::<T::Compute>() >= 64 => 8,
                4.. => 4,
                _ => 1,
            };
            for i in 0..self.m {
                // SAFETY: the maker's promise.
                unsafe {
                    let x = self.x.add(i * self.k);
                    let b = self.b.offset(j as isize * self.stride);
                    let out = self.out.add(i * self.n + j);
                    match rows {
                        8 => dot::<T, V, 8>(self.k, x, b, self.stride, out),
                        4 => dot::<T, V, 4>(self.k, x, b, self.stride, out),
                        _ => dot::<T, V, 1>(self.k, x, b, self.stride, out),
                    }
                }
            }
            j += rows;
        }
    }
}

/// `R` dot products of `x`; the order of additions does not depend on `R`.
#[inline(always)]
unsafe fn dot<T: Float, V: Vector<T::Compute>, const R: usize>(
    k: usize,
    x: *const T::Compute,
    b: *const T,
    stride: isize,
    out: *mut T::Compute,
) {
    // SAFETY: the caller's promise that x has k elements, b R rows of k and out R.
    unsafe {
        let zero = V::splat(T::Compute::ZERO);
        let (mut even, mut odd) = ([zero; R], [zero; R]);
        let mut p = 0;
        while p + 2 * V::LANES <= k {
            let (x0, x1) = (V::load(x.add(p)), V::load(x.add(p + V::LANES)));
            for r in 0..R {
                let row = b.offset(r as isize * stride).add(p);
                even[r] = x0.fma(V::widen(row), even[r]);
                odd[r] = x1.fma(V::widen(row.add(V::LANES)), odd[r]);
            }
            p += 2 * V::LANES;
        }
        for r in 0..R {
            let mut sum = even[r].add(odd[r]).sum();
            for q in p..k {
                sum += *x.add(q) * (*b.offset(r as isize * stride).add(q)).up();
            }
            *out.add(r) = sum;
        }
    }
}

/// `out = sum over p of x[p] * b[p]`, rows of `b` being `stride` apart.
pub(crate) struct Sums<'a, T: Float> {
    pub(crate) x: &'a [T::Compute],
    pub(crate) b: *const T,
    pub(crate) stride: isize,
    pub(crate) out: &'a mut [T::Compute],
}

impl<T: Float> VectorOp<T::Compute> for Sums<'_, T> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<V: Vector<T::Compute>>(self) {
        self.out.fill(T::Compute::ZERO);
        let mut p = 0;
        while p < self.x.len() {
            let b = self.b.wrapping_offset(p as isize * self.stride);
            // SAFETY: the maker's promise.
            unsafe {
                if self.x.len() - p >= 4 {
                    let x = [self.x[p], self.x[p + 1], self.x[p + 2], self.x[p + 3]];
                    add_rows::<T, V, 4>(x, b, self.stride, self.out);
                    p += 4;
                } else {
                    add_rows::<T, V, 1>([self.x[p]], b, self.stride, self.out);
                    p += 1;
                }
            }
        }
    }
}

/// Adds `R` scaled rows to `out`, each element in the order of the rows.
#[inline(always)]
unsafe fn add_rows<T: Float, V: Vector<T::Compute>, const R: usize>(
    x: [T::Compute; R],
    b: *const T,
    stride: isize,
    out: &mut [T::Compute],
) {
    // SAFETY: the caller's promise that b has R rows of out's length.
    unsafe {
        let factors = x.map(|x| V::splat(x));
        let mut j = 0;
        while j + V::LANES <= out.len() {
            let mut sum = V::load(out.as_ptr().add(j));
            for r in 0..R {
                sum = factors[r].fma(V::widen(b.offset(r as isize * stride).add(j)), sum);
            }
            sum.store(out.as_mut_ptr().add(j));
            j += V::LANES;
        }
        for j in j..out.len() {
            for r in 0..R {
                out[j] += x[r] * (*b.offset(r as isize * stride).add(j)).up();
            }
        }
    }
}
