//! Softmax and log-softmax of the rows of a contiguous matrix, and their adjoints.
//!
//! A row of nothing but -inf gives NaN, and so does one with NaN or +inf: as in PyTorch and SciPy.

use bullet_ops::Compute;

use super::convert::Storage;
use super::lanes;
use super::math::Real;
use super::par::{self, SharedMut};
use super::simd::{Isa, SimdOp, Target, dispatch_on, isa};

/// What is done to a row.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// `e^x / sum(e^x)`.
    Softmax,
    /// `x - log(sum(e^x))`.
    LogSoftmax,
}

/// `y[r] = softmax(x[r])` (or its logarithm) for each row of `n` elements.
///
/// # Panics
/// If the lengths differ or are no multiple of `n`.
pub fn forward<S: Storage>(kind: Kind, x: &[S], n: usize, y: &mut [S]) {
    forward_on(isa(), kind, x, n, y);
}

/// As [`forward`], on this instruction set.
pub fn forward_on<S: Storage>(isa: Isa, kind: Kind, x: &[S], n: usize, y: &mut [S]) {
    let rows = rows(x.len(), n);
    assert_eq!(x.len(), y.len());
    let out = SharedMut::new(y);
    par::for_ranges(rows, row_grain(n), |r| {
        let cells = r.start * n..r.end * n;
        // SAFETY: ranges of rows are disjoint.
        let y = unsafe { out.part(cells.clone()) };
        dispatch_on(isa, Forward { kind, x: &x[cells], n, y });
    });
}

/// The adjoint: `dx` of results `y` and gradients `g`, each `[rows, n]`.
///
/// # Panics
/// If the lengths differ or are no multiple of `n`.
pub fn backward<S: Storage>(kind: Kind, y: &[S], g: &[S], n: usize, dx: &mut [S]) {
    backward_on(isa(), kind, y, g, n, dx);
}

/// As [`backward`], on this instruction set.
pub fn backward_on<S: Storage>(isa: Isa, kind: Kind, y: &[S], g: &[S], n: usize, dx: &mut [S]) {
    let rows = rows(y.len(), n);
    assert!(y.len() == dx.len() && g.len() == dx.len());
    let out = SharedMut::new(dx);
    par::for_ranges(rows, row_grain(n), |r| {
        let cells = r.start * n..r.end * n;
        // SAFETY: ranges of rows are disjoint.
        let dx = unsafe { out.part(cells.clone()) };
        dispatch_on(isa, Backward { kind, y: &y[cells.clone()], g: &g[cells], n, dx });
    });
}

/// How many rows of `n` a slice holds; none if `n` is 0.
pub(super) fn rows(len: usize, n: usize) -> usize {
    if n == 0 {
        assert_eq!(len, 0, "rows of no elements");
        return 0;
    }
    assert_eq!(len % n, 0, "{len} elements are no rows of {n}");
    len / n
}

/// Rows that are worth a thread.
pub(super) fn row_grain(n: usize) -> usize {
    (par::SERIAL_BELOW / (16 * n.max(1))).max(1)
}

struct Forward<'a, S: Storage> {
    kind: Kind,
    x: &'a [S],
    n: usize,
    y: &'a mut [S],
}

impl<S: Storage> SimdOp for Forward<'_, S> {
    type Output = ();

    #[inline(always)]
    fn run<T: Target>(self) {
        let (mut xs, mut ys) = (S::scratch(self.n), S::scratch(self.n));
        for (x, y) in self.x.chunks_exact(self.n).zip(self.y.chunks_exact_mut(self.n)) {
            let x = S::load::<T>(x, &mut xs);
            match S::as_compute_mut(y) {
                Some(y) => row::<T, _>(self.kind, x, y),
                None => {
                    row::<T, _>(self.kind, x, &mut ys);
                    S::narrow::<T>(&ys, y);
                }
            }
        }
    }
}

#[inline(always)]
fn row<T: Target, R: Real>(kind: Kind, x: &[R], y: &mut [R]) {
    let max = lanes::max(x);
    let y = &mut y[..x.len()];
    match kind {
        Kind::Softmax => {
            for i in 0..x.len() {
                y[i] = (x[i] - max).exp_nonpositive::<T>();
            }
            let scale = R::ONE / lanes::sum(y);
            y.iter_mut().for_each(|y| *y *= scale);
        }
        Kind::LogSoftmax => {
            let log_sum = sum_exp::<T, R>(x, max).log::<T>();
            for i in 0..x.len() {
                y[i] = x[i] - max - log_sum;
            }
        }
    }
}

/// Sum of `e^(x - max)`, block by block so that no result is kept.
#[inline(always)]
pub(super) fn sum_exp<T: Target, R: Real>(x: &[R], max: R) -> R {
    let mut block = [R::ZERO; 256];
    let mut total = R::ZERO;
    for x in x.chunks(256) {
        let block = &mut block[..x.len()];
        for i in 0..x.len() {
            block[i] = (x[i] - max).exp_nonpositive::<T>();
        }
        total += lanes::sum(block);
    }
    total
}

struct Backward<'a, S: Storage> {
    kind: Kind,
    y: &'a [S],
    g: &'a [S],
    n: usize,
    dx: &'a mut [S],
}

impl<S: Storage> SimdOp for Backward<'_, S> {
    type Output = ();

    #[inline(always)]
    fn run<T: Target>(self) {
        let n = self.n;
        let (mut ys, mut gs, mut dxs) = (S::scratch(n), S::scratch(n), S::scratch(n));
        let inputs = self.y.chunks_exact(n).zip(self.g.chunks_exact(n));
        for ((y, g), dx) in inputs.zip(self.dx.chunks_exact_mut(n)) {
            let (y, g) = (S::load::<T>(y, &mut ys), S::load::<T>(g, &mut gs));
            match S::as_compute_mut(dx) {
                Some(dx) => row_grad::<T, _>(self.kind, y, g, dx),
                None => {
                    row_grad::<T, _>(self.kind, y, g, &mut dxs);
                    S::narrow::<T>(&dxs, dx);
                }
            }
        }
    }
}

#[inline(always)]
fn row_grad<T: Target, R: Real + Compute>(kind: Kind, y: &[R], g: &[R], dx: &mut [R]) {
    let n = dx.len();
    let (y, g) = (&y[..n], &g[..n]);
    match kind {
        Kind::Softmax => {
            let s = lanes::dot::<T, R>(y, g);
            (0..n).for_each(|i| dx[i] = y[i] * (g[i] - s));
        }
        Kind::LogSoftmax => {
            let s = lanes::sum(g);
            (0..n).for_each(|i| dx[i] = g[i] - y[i].exp_nonpositive::<T>() * s);
        }
    }
}
