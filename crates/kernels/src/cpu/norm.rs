//! Layer normalisation (Ba et al. 2016) and root-mean-square normalisation (Zhang and Sennrich 2019) of the rows of a
//! contiguous matrix, with their adjoints.
//!
//! Statistics are in the compute type; the variance takes a second pass over the row, which is in cache. Gradients of
//! the weights are partial sums of each range of rows, added in order: the same for the same thread count.

use super::convert::Storage;
use super::lanes;
use super::math::Real;
use super::par::{self, SharedMut};
use super::simd::{Isa, SimdOp, Target, dispatch_on, isa};
use super::softmax::{row_grain, rows};
use bullet_ops::Compute;

/// Rows whose weight gradients are added plainly before they join the total, to bound rounding.
const GROUP: usize = 32;

/// Which normalisation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Norm {
    Layer,
    Rms,
}

/// `y = (x - mean) * rstd * w + b` for each row of `n`; `w` and `b` are `[n]`, `mean` and `rstd` `[rows]`.
///
/// `rstd` is `1 / sqrt(variance + eps)`, the variance that of the population.
///
/// # Panics
/// If a length is wrong.
pub fn layer_norm<S: Storage>(
    x: &[S],
    n: usize,
    w: Option<&[S]>,
    b: Option<&[S]>,
    eps: f64,
    y: &mut [S],
    mean: &mut [S::Compute],
    rstd: &mut [S::Compute],
) {
    layer_norm_on(isa(), x, n, w, b, eps, y, mean, rstd);
}

/// As [`layer_norm`], on this instruction set.
pub fn layer_norm_on<S: Storage>(
    isa: Isa,
    x: &[S],
    n: usize,
    w: Option<&[S]>,
    b: Option<&[S]>,
    eps: f64,
    y: &mut [S],
    mean: &mut [S::Compute],
    rstd: &mut [S::Compute],
) {
    assert_eq!(mean.len(), rstd.len(), "a mean and a deviation for each row");
    forward(isa, Norm::Layer, x, n, None, w, b, eps, y, Some(mean), rstd);
}

/// `s = x + r`, and [`layer_norm`], or [`rms_norm`] if there is no `mean`, of the sum as it is stored.
///
/// # Panics
/// If a length is wrong.
pub fn add_norm<S: Storage>(
    x: &[S],
    r: &[S],
    n: usize,
    w: Option<&[S]>,
    b: Option<&[S]>,
    eps: f64,
    y: &mut [S],
    s: &mut [S],
    mean: Option<&mut [S::Compute]>,
    rstd: &mut [S::Compute],
) {
    assert!(r.len() == x.len() && s.len() == x.len(), "summands and a sum of one length");
    let norm = if mean.is_some() { Norm::Layer } else { Norm::Rms };
    forward(isa(), norm, x, n, Some((r, s)), w, b, eps, y, mean, rstd);
}

/// The adjoint of [`add_norm`]: that of the norm at the sum `s`, with the sum's own gradient `gs` added to `ds`.
///
/// # Panics
/// If a length is wrong.
pub fn add_norm_grad<S: Storage>(
    s: &[S],
    n: usize,
    mean: Option<&[S::Compute]>,
    rstd: &[S::Compute],
    g: &[S],
    gs: &[S],
    w: Option<&[S]>,
    ds: &mut [S],
    dw: Option<&mut [S]>,
    db: Option<&mut [S]>,
) {
    assert_eq!(gs.len(), s.len(), "a gradient for each element");
    let norm = if mean.is_some() { Norm::Layer } else { Norm::Rms };
    backward(isa(), norm, s, n, mean, rstd, g, Some(gs), w, ds, dw, db);
}

/// `y = x * rstd * w` for each row of `n`, with `rstd = 1 / sqrt(mean(x^2) + eps)` in `[rows]`.
///
/// # Panics
/// If a length is wrong.
pub fn rms_norm<S: Storage>(
    x: &[S],
    n: usize,
    w: Option<&[S]>,
    eps: f64,
    y: &mut [S],
    rstd: &mut [S::Compute],
) {
    forward(isa(), Norm::Rms, x, n, None, w, None, eps, y, None, rstd);
}

/// As [`rms_norm`], on this instruction set.
pub fn rms_norm_on<S: Storage>(
    isa: Isa,
    x: &[S],
    n: usize,
    w: Option<&[S]>,
    eps: f64,
    y: &mut [S],
    rstd: &mut [S::Compute],
) {
    forward(isa, Norm::Rms, x, n, None, w, None, eps, y, None, rstd);
}

fn forward<S: Storage>(
    isa: Isa,
    norm: Norm,
    x: &[S],
    n: usize,
    add: Option<(&[S], &mut [S])>,
    w: Option<&[S]>,
    b: Option<&[S]>,
    eps: f64,
    y: &mut [S],
    mean: Option<&mut [S::Compute]>,
    rstd: &mut [S::Compute],
) {
    let rows = rows(x.len(), n);
    assert!(y.len() == x.len() && (rstd.len() == rows || n == 0), "as many results as rows");
    assert!(w.is_none_or(|w| w.len() == n) && b.is_none_or(|b| b.len() == n), "a weight for each column");
    if n == 0 {
        // Means of nothing.
        rstd.fill(S::Compute::of(f64::NAN));
        mean.into_iter().for_each(|m| m.fill(S::Compute::of(f64::NAN)));
        return;
    }
    let wide = |v: Option<&[S]>, fill: f64| match v {
        Some(v) => v.iter().map(|v| v.up()).collect(),
        None => vec![S::Compute::of(fill); n],
    };
    let (w, b) = (wide(w, 1.0), wide(b, 0.0));
    let (y, rstd, mean) = (SharedMut::new(y), SharedMut::new(rstd), mean.map(SharedMut::new));
    let add = add.map(|(r, s)| (r, SharedMut::new(s)));
    par::for_ranges(rows, row_grain(n), |r| {
        let cells = r.start * n..r.end * n;
        // SAFETY: ranges of rows are disjoint.
        let (y, rstd, mean) = unsafe {
            (y.part(cells.clone()), rstd.part(r.clone()), mean.as_ref().map(|m| m.part(r.clone())))
        };
        // SAFETY: as above.
        let add = add.as_ref().map(|(of, s)| (&of[cells.clone()], unsafe { s.part(cells.clone()) }));
        dispatch_on(
            isa,
            Forward { norm, x: &x[cells], add, w: &w, b: &b, eps: S::Compute::of(eps), y, mean, rstd },
        );
    });
}

struct Forward<'a, S: Storage> {
    norm: Norm,
    x: &'a [S],
    /// What is added to `x`, and where the sum goes.
    add: Option<(&'a [S], &'a mut [S])>,
    w: &'a [S::Compute],
    b: &'a [S::Compute],
    eps: S::Compute,
    y: &'a mut [S],
    mean: Option<&'a mut [S::Compute]>,
    rstd: &'a mut [S::Compute],
}

impl<S: Storage> SimdOp for Forward<'_, S> {
    type Output = ();

    #[inline(always)]
    fn run<T: Target>(mut self) {
        let n = self.w.len();
        let count = S::Compute::of(n as f64);
        let (mut xs, mut ys) = (S::scratch(n), S::scratch(n));
        let summed = if self.add.is_some() { n } else { 0 };
        let (mut others, mut sums) = (S::scratch(summed), vec![S::Compute::ZERO; summed]);
        let rows = self.x.chunks_exact(n).zip(self.y.chunks_exact_mut(n));
        for (r, (x, y)) in rows.enumerate() {
            let x = S::load::<T>(x, &mut xs);
            let x = match &mut self.add {
                None => x,
                Some((other, to)) => {
                    let row = r * n..(r + 1) * n;
                    add_row(x, S::load::<T>(&other[row.clone()], &mut others), &mut sums);
                    match S::as_compute_mut(&mut to[row.clone()]) {
                        Some(to) => to.copy_from_slice(&sums),
                        None => S::narrow::<T>(&sums, &mut to[row.clone()]),
                    }
                    S::load::<T>(&to[row], &mut sums)
                }
            };
            let mean = match self.norm {
                Norm::Layer => lanes::sum(x) / count,
                Norm::Rms => S::Compute::ZERO,
            };
            let rstd = S::Compute::ONE / (lanes::squares::<T, _>(x, mean) / count + self.eps).sqrt();
            match S::as_compute_mut(y) {
                Some(y) => scale_row::<T, _>(x, mean, rstd, self.w, self.b, y),
                None => {
                    scale_row::<T, _>(x, mean, rstd, self.w, self.b, &mut ys);
                    S::narrow::<T>(&ys, y);
                }
            }
            self.rstd[r] = rstd;
            if let Some(means) = &mut self.mean {
                means[r] = mean;
            }
        }
    }
}

#[inline(always)]
fn add_row<R: Real>(x: &[R], other: &[R], sum: &mut [R]) {
    let n = sum.len();
    let (x, other) = (&x[..n], &other[..n]);
    for i in 0..n {
        sum[i] = x[i] + other[i];
    }
}

#[inline(always)]
fn scale_row<T: Target, R: Real>(x: &[R], mean: R, rstd: R, w: &[R], b: &[R], y: &mut [R]) {
    let n = y.len();
    let (x, w, b) = (&x[..n], &w[..n], &b[..n]);
    for i in 0..n {
        y[i] = T::fma((x[i] - mean) * rstd, w[i], b[i]);
    }
}

/// The adjoint of [`layer_norm`]: `dx` of `x`, the saved `mean` and `rstd`, and the gradient `g`; `dw` and `db` are
/// overwritten.
///
/// # Panics
/// If a length is wrong.
pub fn layer_norm_grad<S: Storage>(
    x: &[S],
    n: usize,
    mean: &[S::Compute],
    rstd: &[S::Compute],
    g: &[S],
    w: Option<&[S]>,
    dx: &mut [S],
    dw: Option<&mut [S]>,
    db: Option<&mut [S]>,
) {
    layer_norm_grad_on(isa(), x, n, mean, rstd, g, w, dx, dw, db);
}

/// As [`layer_norm_grad`], on this instruction set.
pub fn layer_norm_grad_on<S: Storage>(
    isa: Isa,
    x: &[S],
    n: usize,
    mean: &[S::Compute],
    rstd: &[S::Compute],
    g: &[S],
    w: Option<&[S]>,
    dx: &mut [S],
    dw: Option<&mut [S]>,
    db: Option<&mut [S]>,
) {
    assert_eq!(mean.len(), rstd.len(), "a mean and a deviation for each row");
    backward(isa, Norm::Layer, x, n, Some(mean), rstd, g, None, w, dx, dw, db);
}

/// The adjoint of [`rms_norm`]; `dw` is overwritten.
///
/// # Panics
/// If a length is wrong.
pub fn rms_norm_grad<S: Storage>(
    x: &[S],
    n: usize,
    rstd: &[S::Compute],
    g: &[S],
    w: Option<&[S]>,
    dx: &mut [S],
    dw: Option<&mut [S]>,
) {
    backward(isa(), Norm::Rms, x, n, None, rstd, g, None, w, dx, dw, None);
}

/// As [`rms_norm_grad`], on this instruction set.
pub fn rms_norm_grad_on<S: Storage>(
    isa: Isa,
    x: &[S],
    n: usize,
    rstd: &[S::Compute],
    g: &[S],
    w: Option<&[S]>,
    dx: &mut [S],
    dw: Option<&mut [S]>,
) {
    backward(isa, Norm::Rms, x, n, None, rstd, g, None, w, dx, dw, None);
}

fn backward<S: Storage>(
    isa: Isa,
    norm: Norm,
    x: &[S],
    n: usize,
    mean: Option<&[S::Compute]>,
    rstd: &[S::Compute],
    g: &[S],
    add: Option<&[S]>,
    w: Option<&[S]>,
    dx: &mut [S],
    dw: Option<&mut [S]>,
    db: Option<&mut [S]>,
) {
    let rows = rows(x.len(), n);
    assert!(g.len() == x.len() && dx.len() == x.len() && (rstd.len() == rows || n == 0));
    assert!(w.is_none_or(|w| w.len() == n), "a weight for each column");
    let w: Vec<S::Compute> = match w {
        Some(w) => w.iter().map(|w| w.up()).collect(),
        None => vec![S::Compute::ONE; n],
    };
    let sums = dw.is_some() || db.is_some();
    let out = SharedMut::new(dx);
    let parts = par::map_ranges(rows, row_grain(n), |r| {
        let cells = r.start * n..r.end * n;
        // SAFETY: ranges of rows are disjoint.
        let dx = unsafe { out.part(cells.clone()) };
        let mean = mean.map(|m| &m[r.clone()]);
        let (x, g, add) = (&x[cells.clone()], &g[cells.clone()], add.map(|add| &add[cells]));
        dispatch_on(isa, Backward { norm, x, mean, rstd: &rstd[r], g, add, w: &w, dx, sums })
    });
    for (which, out) in [dw, db].into_iter().enumerate() {
        let Some(out) = out else { continue };
        assert_eq!(out.len(), n, "a gradient for each column");
        let mut total = vec![S::Compute::ZERO; n];
        for part in &parts {
            total.iter_mut().zip(&part[which * n..]).for_each(|(t, &p)| *t += p);
        }
        out.iter_mut().zip(total).for_each(|(o, t)| *o = S::down(t));
    }
}

struct Backward<'a, S: Storage> {
    norm: Norm,
    x: &'a [S],
    mean: Option<&'a [S::Compute]>,
    rstd: &'a [S::Compute],
    g: &'a [S],
    /// Added to `dx`.
    add: Option<&'a [S]>,
    w: &'a [S::Compute],
    dx: &'a mut [S],
    /// Whether gradients of weights are wanted.
    sums: bool,
}

impl<S: Storage> SimdOp for Backward<'_, S> {
    /// Gradients of `w`, then of `b`.
    type Output = Vec<S::Compute>;

    #[inline(always)]
    fn run<T: Target>(self) -> Vec<S::Compute> {
        let n = self.w.len();
        let (mut xs, mut gs, mut dxs) = (S::scratch(n), S::scratch(n), S::scratch(n));
        let mut adds = S::scratch(if self.add.is_some() { n } else { 0 });
        let mut hat = vec![S::Compute::ZERO; n];
        let mut group = vec![S::Compute::ZERO; 2 * n];
        let mut total = vec![S::Compute::ZERO; 2 * n];
        let inputs = self.x.chunks_exact(n).zip(self.g.chunks_exact(n));
        for (r, ((x, g), dx)) in inputs.zip(self.dx.chunks_exact_mut(n)).enumerate() {
            let (x, g) = (S::load::<T>(x, &mut xs), S::load::<T>(g, &mut gs));
            let mean = self.mean.map_or(S::Compute::ZERO, |m| m[r]);
            normalise::<_>(x, mean, self.rstd[r], &mut hat);
            match S::as_compute_mut(dx) {
                Some(dx) => {
                    row_grad::<T, _>(self.norm, &hat, self.rstd[r], g, self.w, dx);
                    if let Some(add) = self.add {
                        accumulate(S::load::<T>(&add[r * n..(r + 1) * n], &mut adds), dx);
                    }
                }
                None => {
                    row_grad::<T, _>(self.norm, &hat, self.rstd[r], g, self.w, &mut dxs);
                    if let Some(add) = self.add {
                        accumulate(S::load::<T>(&add[r * n..(r + 1) * n], &mut adds), &mut dxs);
                    }
                    S::narrow::<T>(&dxs, dx);
                }
            }
            if self.sums {
                let (dw, db) = group.split_at_mut(n);
                add_sums::<T, _>(&hat, g, dw, db);
                if r % GROUP == GROUP - 1 {
                    flush(&mut group, &mut total);
                }
            }
        }
        flush(&mut group, &mut total);
        total
    }
}

#[inline(always)]
fn accumulate<R: Real>(add: &[R], to: &mut [R]) {
    let add = &add[..to.len()];
    for i in 0..to.len() {
        to[i] += add[i];
    }
}

#[inline(always)]
fn normalise<R: Real>(x: &[R], mean: R, rstd: R, hat: &mut [R]) {
    let x = &x[..hat.len()];
    for i in 0..hat.len() {
        hat[i] = (x[i] - mean) * rstd;
    }
}

/// `dx = rstd * (g w - mean(g w) - hat * mean(g w hat))`, without the first mean for the RMS norm.
#[inline(always)]
fn row_grad<T: Target, R: Real>(norm: Norm, hat: &[R], rstd: R, g: &[R], w: &[R], dx: &mut [R]) {
    let n = dx.len();
    let (hat, g, w) = (&hat[..n], &g[..n], &w[..n]);
    let count = R::of(n as f64);
    for i in 0..n {
        dx[i] = g[i] * w[i];
    }
    let shift = match norm {
        Norm::Layer => lanes::sum(dx) / count,
        Norm::Rms => R::ZERO,
    };
    let along = lanes::dot::<T, R>(dx, hat) / count;
    for i in 0..n {
        dx[i] = rstd * T::fma(hat[i], -along, dx[i] - shift);
    }
}

#[inline(always)]
fn add_sums<T: Target, R: Real>(hat: &[R], g: &[R], dw: &mut [R], db: &mut [R]) {
    let n = dw.len();
    let (hat, g, db) = (&hat[..n], &g[..n], &mut db[..n]);
    for i in 0..n {
        dw[i] = T::fma(g[i], hat[i], dw[i]);
        db[i] += g[i];
    }
}

#[inline(always)]
fn flush<R: Real>(group: &mut [R], total: &mut [R]) {
    for (g, t) in group.iter_mut().zip(total) {
        *t += *g;
        *g = R::ZERO;
    }
}
