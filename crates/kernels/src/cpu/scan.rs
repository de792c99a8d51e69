//! Running sums and products along an axis of contiguous tensors, and the adjoint of the latter.
//!
//! Floats run in f64, so that 100,000 f32 add up to the last digit, and each result is rounded once; integers wrap in i64.
//! A row is one chain of additions. Few long rows are cut into ranges, each of which begins with the total of those before:
//! sums depend on shape and thread count only.

use bullet_ops::{Element, Float};

use super::par::{self, SharedMut};
use super::stop;

/// Columns that advance together, where the axis is not the last.
const COLUMNS: usize = 64;

/// What runs, and which way.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Spec {
    /// Products instead of sums.
    pub product: bool,
    /// From the end to the start.
    pub reverse: bool,
    /// Without the element itself.
    pub exclusive: bool,
}

/// A type that totals are kept in: f64, or i64.
pub trait Total: Copy + Send + Sync + Default {
    /// An element's value.
    fn of<T: Element>(x: T) -> Self;
    /// As an element.
    fn get<T: Element>(self) -> T;
    /// What nothing comes to.
    fn start(spec: Spec) -> Self;
    /// Both together.
    fn with(self, spec: Spec, x: Self) -> Self;
}

impl Total for f64 {
    #[inline(always)]
    fn of<T: Element>(x: T) -> f64 {
        x.to_f64()
    }
    #[inline(always)]
    fn get<T: Element>(self) -> T {
        T::from_f64(self)
    }
    fn start(spec: Spec) -> f64 {
        match (spec.product, spec.exclusive) {
            (true, _) => 1.0,
            (false, true) => 0.0,
            // A sum of negative zeros stays one.
            (false, false) => -0.0,
        }
    }
    #[inline(always)]
    fn with(self, spec: Spec, x: f64) -> f64 {
        if spec.product { self * x } else { self + x }
    }
}

impl Total for i64 {
    #[inline(always)]
    fn of<T: Element>(x: T) -> i64 {
        x.to_i64()
    }
    #[inline(always)]
    fn get<T: Element>(self) -> T {
        T::from_i64(self)
    }
    fn start(spec: Spec) -> i64 {
        i64::from(spec.product)
    }
    #[inline(always)]
    fn with(self, spec: Spec, x: i64) -> i64 {
        if spec.product { self.wrapping_mul(x) } else { self.wrapping_add(x) }
    }
}

/// `y = x[outer, len, inner]` with running totals along the middle axis.
///
/// # Panics
/// If a length is wrong.
pub fn scan<A: Total, T: Element, O: Element>(
    spec: Spec,
    x: &[T],
    (outer, len, inner): (usize, usize, usize),
    y: &mut [O],
) {
    assert!(x.len() == outer * len * inner && y.len() == x.len());
    if x.is_empty() {
        return;
    }
    let grain = par::SERIAL_BELOW / size_of::<O>();
    if inner > 1 {
        return columns::<A, T, O>(spec, x, (outer, len, inner), y);
    }
    if outer < par::threads() && len > grain {
        for (x, y) in x.chunks_exact(len).zip(y.chunks_exact_mut(len)) {
            long_row::<A, T, O>(spec, x, grain, y);
        }
        return;
    }
    let out = SharedMut::new(y);
    par::for_ranges(outer, (grain / len).max(1), |rows| {
        for row in rows {
            let at = row * len..(row + 1) * len;
            // SAFETY: rows are disjoint.
            let y = unsafe { out.part(at.clone()) };
            run(spec, A::start(spec), &x[at], y);
        }
    });
}

/// One row, or a range of one, from this total on; returns the next.
#[inline(always)]
fn step<A: Total, T: Element, O: Element>(spec: Spec, total: &mut A, x: T, y: &mut O) {
    let next = total.with(spec, A::of(x));
    *y = if spec.exclusive { *total } else { next }.get();
    *total = next;
}

fn run<A: Total, T: Element, O: Element>(spec: Spec, mut total: A, x: &[T], y: &mut [O]) {
    /// How many elements are gone through before a call asks whether to go on.
    const STRETCH: usize = 1 << 19;
    let stretches = x.chunks(STRETCH).zip(y.chunks_mut(STRETCH));
    let mut pass = |(x, y): (&[T], &mut [O])| {
        stop::check();
        let pairs = x.iter().zip(y);
        if spec.reverse {
            pairs.rev().for_each(|(&x, y)| step(spec, &mut total, x, y));
        } else {
            pairs.for_each(|(&x, y)| step(spec, &mut total, x, y));
        }
    };
    if spec.reverse { stretches.rev().for_each(&mut pass) } else { stretches.for_each(&mut pass) }
}

/// A row that threads share: the total of each range first, then each from that of the ranges before.
fn long_row<A: Total, T: Element, O: Element>(spec: Spec, x: &[T], grain: usize, y: &mut [O]) {
    let totals = par::map_ranges(x.len(), grain, |r| {
        let (start, part) = (r.start, &x[r]);
        (start, part.iter().fold(A::start(spec), |total, &x| total.with(spec, A::of(x))))
    });
    let before = |start: usize| {
        let counts = totals.iter().filter(|(at, _)| if spec.reverse { *at > start } else { *at < start });
        counts.fold(A::start(spec), |total, &(_, part)| total.with(spec, part))
    };
    let out = SharedMut::new(y);
    par::for_ranges(x.len(), grain, |r| {
        // SAFETY: ranges are disjoint, and those of above.
        let y = unsafe { out.part(r.clone()) };
        run(spec, before(r.start), &x[r], y);
    });
}

/// As [`scan`] where elements of a row are apart: blocks of neighbouring rows advance together.
fn columns<A: Total, T: Element, O: Element>(
    spec: Spec,
    x: &[T],
    (outer, len, inner): (usize, usize, usize),
    y: &mut [O],
) {
    let blocks = inner.div_ceil(COLUMNS);
    let grain = par::SERIAL_BELOW / size_of::<O>() / (len * inner.min(COLUMNS));
    let out = SharedMut::new(y);
    par::for_ranges(outer * blocks, grain.max(1), |tasks| {
        for task in tasks {
            let first = task % blocks * COLUMNS;
            let width = COLUMNS.min(inner - first);
            let mut totals = [A::start(spec); COLUMNS];
            for k in 0..len {
                if k % 4096 == 4095 {
                    stop::check();
                }
                let k = if spec.reverse { len - 1 - k } else { k };
                let at = (task / blocks * len + k) * inner + first;
                // SAFETY: each stretch of columns of each row is one task's.
                let y = unsafe { out.part(at..at + width) };
                let pairs = x[at..at + width].iter().zip(y);
                totals.iter_mut().zip(pairs).for_each(|(total, (&x, y))| step(spec, total, x, y));
            }
        }
    });
}

/// `dx[i] = sum over k >= i of g[k] (product over j <= k, j != i, of x[j])` along the middle axis of `[outer, len, inner]`:
/// the product of what comes before `i`, times `s[i] = g[i] + x[i + 1] s[i + 1]`. Nothing is divided, so zeros do no harm.
///
/// # Panics
/// If a length is wrong.
pub fn cumprod_grad<T: Float>(x: &[T], g: &[T], (outer, len, inner): (usize, usize, usize), dx: &mut [T]) {
    assert!(x.len() == outer * len * inner && g.len() == x.len() && dx.len() == x.len());
    if x.is_empty() {
        return;
    }
    let out = SharedMut::new(dx);
    par::for_ranges(outer, (par::SERIAL_BELOW / size_of::<T>() / (len * inner)).max(1), |outers| {
        let mut before = stop::filled(0.0f64, len);
        for o in outers {
            let at = o * len * inner..(o + 1) * len * inner;
            // SAFETY: ranges are disjoint.
            let (x, g, dx) = (&x[at.clone()], &g[at.clone()], unsafe { out.part(at) });
            for column in 0..inner {
                let mut product = 1.0;
                for (k, before) in before.iter_mut().enumerate() {
                    *before = product;
                    product *= x[k * inner + column].to_f64();
                }
                let (mut sum, mut factor) = (0.0, 0.0);
                for (k, before) in before.iter().enumerate().rev() {
                    let i = k * inner + column;
                    sum = g[i].to_f64() + factor * sum;
                    factor = x[i].to_f64();
                    dx[i] = T::from_f64(before * sum);
                }
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_rows_are_their_parts() {
        let n = 300_001;
        let x: Vec<i32> = (0..n).map(|i| (i * 7919 % 101) as i32 - 50).collect();
        for reverse in [false, true] {
            for exclusive in [false, true] {
                let spec = Spec { product: false, reverse, exclusive };
                let (mut whole, mut parts) = (vec![0i64; n], vec![0i64; n]);
                run(spec, 0i64, &x, &mut whole);
                long_row::<i64, i32, i64>(spec, &x, 1000, &mut parts);
                assert_eq!(whole, parts);
            }
        }
    }

    #[test]
    fn f32_adds_up() {
        let x = vec![0.1f32; 100_000];
        let mut y = vec![0f32; x.len()];
        let spec = Spec { product: false, reverse: false, exclusive: false };
        scan::<f64, f32, f32>(spec, &x, (1, x.len(), 1), &mut y);
        assert_eq!(y[99_999], (f64::from(0.1f32) * 1e5) as f32);
    }
}
