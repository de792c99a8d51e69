//! Reductions of strided views over any axes: sum, mean, product, largest, smallest, variance, truth, and the places of
//! extremes.
//!
//! **Accuracy.** Floats are summed in f32 (f64 for f64) in blocks by many lanes, blocks pairwise as a binary counter
//! carries, so that the error grows with the logarithm of the length. The variance takes two passes, of which the second
//! corrects for the rounding of the mean (Chan, Golub and LeVeque 1983), so that values far from 0 lose nothing. Integers
//! are summed in i64, wrapping. **Order.** Sums depend on shape, strides and thread count only.
//!
//! **Shape of the loops.** If a kept axis is dense, a block of neighbouring results advances together over the reduced
//! axes (a column sum reads rows); else each result runs over its elements. Few results over many elements are cut into
//! ranges of elements whose partial results are combined in order.

use std::ops::Range;

use bullet_ops::{AxisSet, DType, Error, Reduce, Result};

use super::convert::{BlockElement, Lane, load_block, store_block};
use super::copy;
use super::lanes;
use super::par::{self, SharedMut};
use super::simd::{Isa, SimdOp, Target, dispatch_on, isa};
use super::space::Space;
use super::stop;
use crate::view::{View, ViewMut};

/// Elements loaded at once, and the widest block of results that advances together.
const BLOCK: usize = 512;
/// Rows that a block of results takes in plainly before the pairwise scheme.
const ROWS: usize = 32;

/// The type in which `kind` of `dtype` is computed: i64 or u64 for sums and extremes of integers and bools, f64 for their
/// means and variances, else [`DType::compute`].
pub fn compute_type(kind: Reduce, dtype: DType) -> DType {
    match (kind, dtype.compute()) {
        (Reduce::Mean | Reduce::Var { .. }, DType::I64 | DType::U64) => DType::F64,
        (_, compute) => compute,
    }
}

/// Reduces `x` over `axes` into `out`, which is contiguous and has the kept axes' elements (with or without axes of
/// length 1 for the others), of any dtype.
///
/// Sum of nothing is 0, its product 1; none of it is zero, nor not zero; mean and variance of nothing are NaN. NaN
/// propagates through largest and smallest.
///
/// # Errors
/// Largest or smallest of an empty axis.
///
/// # Panics
/// If `out` has another number of elements or is not contiguous.
pub fn reduce(kind: Reduce, x: &View<'_>, axes: AxisSet, out: &mut ViewMut<'_>) -> Result<()> {
    reduce_on(isa(), kind, x, axes, out)
}

/// As [`reduce`], on this instruction set.
pub fn reduce_on(isa: Isa, kind: Reduce, x: &View<'_>, axes: AxisSet, out: &mut ViewMut<'_>) -> Result<()> {
    let shape = x.layout().shape;
    let kept = shape.reduce(axes, false).numel();
    assert_eq!(out.layout().shape.numel(), kept, "one result for each combination of kept axes");
    assert!(out.layout().is_contiguous(), "a reduction's result is contiguous");
    let reduced: usize = axes.iter().filter(|&a| a < shape.rank()).map(|a| shape[a]).product();
    if reduced == 0 && kept > 0 {
        let name = match kind {
            Reduce::Max => "maximum",
            Reduce::Min => "minimum",
            Reduce::Sum | Reduce::Any => {
                copy::fill(out, 0.0);
                return Ok(());
            }
            Reduce::Prod | Reduce::All => {
                copy::fill(out, 1.0);
                return Ok(());
            }
            Reduce::Mean | Reduce::Var { .. } => {
                copy::fill(out, f64::NAN);
                return Ok(());
            }
        };
        let message = format!("zero-size array to reduction operation {name} which has no identity");
        return Err(Error::argument(message));
    }
    if kept == 0 {
        return Ok(());
    }
    match compute_type(kind, x.dtype()) {
        DType::I64 => Task::<i64>::new(isa, kind, x, axes).run(out),
        DType::U64 => Task::<u64>::new(isa, kind, x, axes).run(out),
        DType::F64 => Task::<f64>::new(isa, kind, x, axes).run(out),
        _ => Task::<f32>::new(isa, kind, x, axes).run(out),
    }
    Ok(())
}

/// How values come together.
#[derive(Clone, Copy, PartialEq)]
enum Fold {
    Sum,
    /// Two numbers: the sum of squared distances from the centre, and that of the distances.
    Moments,
    Max,
    Min,
    Prod,
    /// 1 if none is zero, else 0.
    All,
    /// 0 if all are zero, else 1.
    Any,
}

impl Fold {
    /// Numbers a result.
    fn width(self) -> usize {
        match self {
            Fold::Moments => 2,
            Fold::Sum | Fold::Max | Fold::Min | Fold::Prod | Fold::All | Fold::Any => 1,
        }
    }
}

/// Arithmetic of the types that reductions are computed in.
trait Num: Lane + BlockElement + PartialOrd {
    fn plus(self, other: Self) -> Self;
    fn minus(self, centre: Self) -> Self;
    fn times(self, other: Self) -> Self;
    /// This divided by `n`, in f64 where it is an integer (never asked).
    fn over(self, n: f64) -> Self;
    /// Where sums, and extremes, begin.
    fn start(fold: Fold) -> Self;
    fn is_nan(self) -> bool;

    /// The larger, or the NaN.
    #[inline(always)]
    fn max_of(self, x: Self) -> Self {
        if (x > self) | x.is_nan() { x } else { self }
    }

    #[inline(always)]
    fn min_of(self, x: Self) -> Self {
        if (x < self) | x.is_nan() { x } else { self }
    }

    /// 1 if neither is zero, else 0.
    #[inline(always)]
    fn all_of(self, x: Self) -> Self {
        let zero = Self::default();
        if (self == zero) | (x == zero) { zero } else { Self::start(Fold::Prod) }
    }

    /// 0 if both are zero, else 1.
    #[inline(always)]
    fn any_of(self, x: Self) -> Self {
        let zero = Self::default();
        if (self == zero) & (x == zero) { zero } else { Self::start(Fold::Prod) }
    }

    #[inline(always)]
    fn combine(fold: Fold, a: Self, b: Self) -> Self {
        match fold {
            Fold::Sum | Fold::Moments => a.plus(b),
            Fold::Max => a.max_of(b),
            Fold::Min => a.min_of(b),
            Fold::Prod => a.times(b),
            Fold::All => a.all_of(b),
            Fold::Any => a.any_of(b),
        }
    }
}

macro_rules! float_num {
    ($($ty:ident),*) => {$(
        impl Num for $ty {
            #[inline(always)]
            fn plus(self, other: $ty) -> $ty { self + other }
            #[inline(always)]
            fn minus(self, centre: $ty) -> $ty { self - centre }
            #[inline(always)]
            fn times(self, other: $ty) -> $ty { self * other }
            #[inline(always)]
            fn over(self, n: f64) -> $ty { (self as f64 / n) as $ty }
            #[inline(always)]
            fn start(fold: Fold) -> $ty {
                match fold {
                    // -0, so that a sum of negative zeros stays one, as in IEEE's own sum.
                    Fold::Sum | Fold::Moments => -0.0,
                    Fold::Max => $ty::NEG_INFINITY,
                    Fold::Min => $ty::INFINITY,
                    Fold::Prod | Fold::All => 1.0,
                    Fold::Any => 0.0,
                }
            }
            #[inline(always)]
            fn is_nan(self) -> bool { self != self }
        }
    )*};
}
float_num!(f32, f64);

macro_rules! int_num {
    ($($ty:ident),*) => {$(
        impl Num for $ty {
            #[inline(always)]
            fn plus(self, other: $ty) -> $ty {
                self.wrapping_add(other)
            }
            #[inline(always)]
            fn minus(self, centre: $ty) -> $ty {
                self.wrapping_sub(centre)
            }
            #[inline(always)]
            fn times(self, other: $ty) -> $ty {
                self.wrapping_mul(other)
            }
            #[inline(always)]
            fn over(self, n: f64) -> $ty {
                (self as f64 / n) as $ty
            }
            #[inline(always)]
            fn start(fold: Fold) -> $ty {
                match fold {
                    Fold::Sum | Fold::Moments | Fold::Any => 0,
                    Fold::Prod | Fold::All => 1,
                    Fold::Max => $ty::MIN,
                    Fold::Min => $ty::MAX,
                }
            }
            #[inline(always)]
            fn is_nan(self) -> bool {
                false
            }
        }
    )*};
}
int_num!(i64, u64);

/// A reduction as two nested spaces over one operand.
struct Task<L> {
    isa: Isa,
    kind: Reduce,
    ptr: *const u8,
    dtype: DType,
    /// Kept axes, in order (so that results lie row-major).
    kept: Space,
    /// Reduced axes, the densest last.
    reduced: Space,
    _lane: std::marker::PhantomData<L>,
}

// SAFETY: the pointer is that of a view, only read.
unsafe impl<L> Sync for Task<L> {}

impl<L: Num> Task<L> {
    fn new(isa: Isa, kind: Reduce, x: &View<'_>, axes: AxisSet) -> Task<L> {
        let (kept, reduced) = split(x, axes);
        let (ptr, dtype) = (x.bytes(), x.dtype());
        Task { isa, kind, ptr, dtype, kept, reduced, _lane: std::marker::PhantomData }
    }

    fn run(&self, out: &mut ViewMut<'_>) {
        let mut results = stop::filled(L::default(), self.kept.len());
        match self.kind {
            Reduce::Sum => self.fold(Fold::Sum, None, &mut results),
            Reduce::Max => self.fold(Fold::Max, None, &mut results),
            Reduce::Min => self.fold(Fold::Min, None, &mut results),
            Reduce::Prod => self.fold(Fold::Prod, None, &mut results),
            Reduce::All => self.fold(Fold::All, None, &mut results),
            Reduce::Any => self.fold(Fold::Any, None, &mut results),
            Reduce::Mean => self.mean(&mut results),
            Reduce::Var { correction } => self.variance(correction, &mut results),
        }
        // SAFETY: `out` is contiguous and as long as the results: checked by `reduce_on`.
        unsafe { store_block(self.isa, &results, out.dtype(), out.bytes(), 1) };
    }

    fn mean(&self, results: &mut [L]) {
        self.fold(Fold::Sum, None, results);
        let n = self.reduced.len() as f64;
        results.iter_mut().for_each(|r| *r = r.over(n));
    }

    fn variance(&self, correction: f64, results: &mut [L]) {
        self.mean(results);
        let mut moments = stop::filled(L::default(), 2 * results.len());
        self.fold(Fold::Moments, Some(results), &mut moments);
        let n = self.reduced.len() as f64;
        // NumPy's rule: degrees of freedom do not go below 0, and nothing over nothing is NaN.
        let freedom = (n - correction).max(0.0);
        for (result, moments) in results.iter_mut().zip(moments.chunks_exact(2)) {
            // A mean of 10000 is off by up to 0.0005 in f32. The distances from it show by how much, since they are
            // small and therefore exact.
            let (squares, distance) = (moments[0].to_f64(), moments[1].to_f64());
            let corrected = squares - distance * distance / n;
            // Not `max`, which would lose a NaN.
            *result = L::from_f64(if corrected < 0.0 { 0.0 } else { corrected } / freedom);
        }
    }

    /// Whether neighbouring results are to advance together.
    fn by_columns(&self) -> bool {
        let last = self.kept.strides(0).last().is_some_and(|&s| s == 1) && self.kept.inner() > 1;
        let reduced_dense = self.reduced.strides(0).last() == Some(&1) && self.reduced.inner() > 1;
        last && (!reduced_dense || self.reduced.inner() < 16)
    }

    /// Folds the elements of each result, for moments about its `centre`, into the numbers of each result.
    fn fold(&self, fold: Fold, centre: Option<&[L]>, results: &mut [L]) {
        let w = fold.width();
        let (kept, reduced) = (self.kept.len(), self.reduced.len());
        let grain = par::SERIAL_BELOW / self.dtype.size();
        // A range of columns keeps 64 bytes and more of each row.
        let unit = if self.by_columns() { 32 } else { 1 };
        if kept / unit >= par::threads() || kept * reduced <= grain {
            let out = SharedMut::new(results);
            par::for_ranges(kept.div_ceil(unit), (grain / reduced / unit).max(1), |r| {
                let results = r.start * unit..(r.end * unit).min(kept);
                // SAFETY: ranges are disjoint.
                let part = unsafe { out.part(results.start * w..results.end * w) };
                self.fold_part(fold, centre, results, 0..reduced, part);
            });
            return;
        }
        let parts = par::map_ranges(reduced, (grain / kept).max(1), |r| {
            let mut part = stop::filled(L::default(), kept * w);
            self.fold_part(fold, centre, 0..kept, r, &mut part);
            part
        });
        results.copy_from_slice(&parts[0]);
        for part in &parts[1..] {
            results.iter_mut().zip(part).for_each(|(a, &b)| *a = L::combine(fold, *a, b));
        }
    }

    fn fold_part(
        &self,
        fold: Fold,
        centre: Option<&[L]>,
        results: Range<usize>,
        elements: Range<usize>,
        out: &mut [L],
    ) {
        dispatch_on(self.isa, Part { task: self, fold, centre, results, elements, out });
    }
}

/// Asks whether to go on, every thousand blocks or rows: a part of a millisecond.
#[inline(always)]
fn check_at(block: usize) {
    if block % 1024 == 1023 {
        stop::check();
    }
}

/// The kept axes in order and the reduced ones sorted, each a space over `x`.
fn split(x: &View<'_>, axes: AxisSet) -> (Space, Space) {
    let (shape, strides) = (x.layout().shape, x.layout().strides());
    let pick = |reduced: bool| {
        let chosen: Vec<usize> = (0..shape.rank()).filter(|&a| axes.contains(a) == reduced).collect();
        let dims: Vec<usize> = chosen.iter().map(|&a| shape[a]).collect();
        let strides: Vec<isize> = chosen.iter().map(|&a| strides[a]).collect();
        (dims, strides)
    };
    let ((kd, ks), (rd, rs)) = (pick(false), pick(true));
    (Space::new(&kd, &[&ks]), Space::sorted(&rd, &[&rs]))
}

/// Some results over some elements.
struct Part<'a, L> {
    task: &'a Task<L>,
    fold: Fold,
    centre: Option<&'a [L]>,
    results: Range<usize>,
    elements: Range<usize>,
    out: &'a mut [L],
}

impl<L: Num> SimdOp for Part<'_, L> {
    type Output = ();

    #[inline(always)]
    fn run<T: Target>(self) {
        if self.task.by_columns() { self.columns() } else { self.rows() }
    }
}

impl<L: Num> Part<'_, L> {
    /// Each result by itself: its elements block by block, the blocks pairwise.
    #[inline(always)]
    fn rows(self) {
        let mut buffer = [L::default(); BLOCK];
        let w = self.fold.width();
        for (n, out) in self.results.clone().zip(self.out.chunks_exact_mut(w)) {
            let base = self.task.kept.offset(0, n);
            let centre = self.centre.map_or(L::default(), |c| c[n]);
            let mut tree = Tree::new(self.fold, w);
            let mut at = self.elements.start;
            while at < self.elements.end {
                check_at((at - self.elements.start) / BLOCK);
                let len = BLOCK.min(self.elements.end - at);
                // SAFETY: the points from `at` on are in the view.
                let block = unsafe { self.task.block(base, at, &mut buffer[..len]) };
                tree.push(&fold_block(self.fold, block, centre)[..w]);
                at += len;
            }
            out.copy_from_slice(tree.finish());
        }
    }

    /// Blocks of neighbouring results together: row after row, groups of rows pairwise.
    #[inline(always)]
    fn columns(self) {
        let inner = self.task.kept.inner();
        let mut buffer = [L::default(); BLOCK];
        let w = self.fold.width();
        let mut n = self.results.start;
        while n < self.results.end {
            let width = BLOCK.min(inner - n % inner).min(self.results.end - n);
            let base = self.task.kept.offset(0, n);
            // The first number of each result, then the second ones.
            let mut tree = Tree::new(self.fold, width * w);
            let mut acc = vec![L::start(self.fold); width * w];
            for at in self.elements.clone() {
                check_at(at - self.elements.start);
                let offset = base + self.task.reduced.offset(0, at);
                // SAFETY: the `width` neighbours at `offset` are in the view.
                let row = unsafe { self.task.row(offset, &mut buffer[..width]) };
                let centre = self.centre.map(|c| &c[n..n + width]);
                fold_row(self.fold, &mut acc, row, centre);
                if (at - self.elements.start) % ROWS == ROWS - 1 {
                    tree.push(&acc);
                    acc.fill(L::start(self.fold));
                }
            }
            tree.push(&acc);
            let at = (n - self.results.start) * w;
            let out = &mut self.out[at..at + width * w];
            for (k, numbers) in tree.finish().chunks_exact(width).enumerate() {
                numbers.iter().enumerate().for_each(|(i, &x)| out[i * w + k] = x);
            }
            n += width;
        }
    }
}

impl<L: Num> Task<L> {
    /// The reduced points from `at` on of the result at `base`: in place if they can be, else in `buffer`.
    ///
    /// # Safety
    /// The points exist.
    #[inline(always)]
    unsafe fn block<'a>(&'a self, base: isize, at: usize, buffer: &'a mut [L]) -> &'a [L] {
        if self.dtype == L::DTYPE && self.reduced.linear(0) == Some(1) {
            // SAFETY: dense, of this type, and existing by the caller's promise.
            return unsafe {
                let first = self.ptr.cast::<L>().offset(base + at as isize);
                std::slice::from_raw_parts(first, buffer.len())
            };
        }
        let stride = *self.reduced.strides(0).last().expect("at least one axis");
        let size = self.dtype.size() as isize;
        self.reduced.stretches(0, at, buffer.len(), |to, n, offset| {
            // SAFETY: the points exist by the caller's promise.
            unsafe {
                let src = self.ptr.offset((base + offset) * size);
                load_block(self.isa, self.dtype, src, stride, &mut buffer[to..to + n]);
            }
        });
        buffer
    }

    /// Neighbouring elements from `offset` on.
    ///
    /// # Safety
    /// They exist.
    #[inline(always)]
    unsafe fn row<'a>(&'a self, offset: isize, buffer: &'a mut [L]) -> &'a [L] {
        // SAFETY: by the caller's promise.
        unsafe {
            if self.dtype == L::DTYPE {
                return std::slice::from_raw_parts(self.ptr.cast::<L>().offset(offset), buffer.len());
            }
            let src = self.ptr.offset(offset * self.dtype.size() as isize);
            load_block(self.isa, self.dtype, src, 1, buffer);
        }
        buffer
    }
}

#[inline(always)]
fn fold_block<L: Num>(fold: Fold, x: &[L], centre: L) -> [L; 2] {
    let start = L::start(fold);
    let square = |a: L, x: L| a.plus(x.minus(centre).times(x.minus(centre)));
    match fold {
        Fold::Sum => [lanes::fold(x, start, L::plus, L::plus), start],
        // The block stays in the first-level cache from one to the other.
        Fold::Moments => [
            lanes::fold(x, start, square, L::plus),
            lanes::fold(x, start, |a, x| a.plus(x.minus(centre)), L::plus),
        ],
        Fold::Max => [lanes::fold(x, start, L::max_of, L::max_of), start],
        Fold::Min => [lanes::fold(x, start, L::min_of, L::min_of), start],
        Fold::Prod => [lanes::fold(x, start, L::times, L::times), start],
        Fold::All => [lanes::fold(x, start, L::all_of, L::all_of), start],
        Fold::Any => [lanes::fold(x, start, L::any_of, L::any_of), start],
    }
}

#[inline(always)]
fn fold_row<L: Num>(fold: Fold, acc: &mut [L], row: &[L], centre: Option<&[L]>) {
    if fold == Fold::Moments {
        let n = row.len();
        let (squares, distances) = acc.split_at_mut(n);
        let (centre, distances) = (&centre.expect("moments have a centre")[..n], &mut distances[..n]);
        for i in 0..n {
            let d = row[i].minus(centre[i]);
            squares[i] = squares[i].plus(d.times(d));
            distances[i] = distances[i].plus(d);
        }
        return;
    }
    let n = acc.len();
    let row = &row[..n];
    match fold {
        Fold::Sum => (0..n).for_each(|i| acc[i] = acc[i].plus(row[i])),
        Fold::Moments => unreachable!("handled above"),
        Fold::Max => (0..n).for_each(|i| acc[i] = acc[i].max_of(row[i])),
        Fold::Min => (0..n).for_each(|i| acc[i] = acc[i].min_of(row[i])),
        Fold::Prod => (0..n).for_each(|i| acc[i] = acc[i].times(row[i])),
        Fold::All => (0..n).for_each(|i| acc[i] = acc[i].all_of(row[i])),
        Fold::Any => (0..n).for_each(|i| acc[i] = acc[i].any_of(row[i])),
    }
}

/// Combines a stream of partial results of `width` numbers pairwise: level `k` holds the combination of 2^k of them, as
/// the bits of a counter.
struct Tree<L> {
    fold: Fold,
    width: usize,
    levels: Vec<L>,
    count: usize,
}

impl<L: Num> Tree<L> {
    fn new(fold: Fold, width: usize) -> Tree<L> {
        Tree { fold, width, levels: Vec::new(), count: 0 }
    }

    #[inline(always)]
    fn push(&mut self, part: &[L]) {
        let (w, fold) = (self.width, self.fold);
        let carries = self.count.trailing_ones() as usize;
        self.count += 1;
        if self.levels.len() < (carries + 1) * w {
            self.levels.resize((carries + 1) * w, L::start(fold));
        }
        let (below, here) = self.levels.split_at_mut(carries * w);
        here[..w].copy_from_slice(part);
        for level in below.chunks_exact(w).rev() {
            // Order does not matter to accuracy; it is fixed, which is what does.
            (0..w).for_each(|i| here[i] = L::combine(fold, level[i], here[i]));
        }
    }

    #[inline(always)]
    fn finish(&mut self) -> &[L] {
        let (w, fold) = (self.width, self.fold);
        // The levels whose bit of the count is set, smallest first.
        let mut total = vec![L::start(fold); w];
        for (k, level) in self.levels.chunks_exact(w).enumerate() {
            if self.count >> k & 1 == 1 {
                (0..w).for_each(|i| total[i] = L::combine(fold, level[i], total[i]));
            }
        }
        self.levels = total;
        &self.levels
    }
}

/// Index (i64) along `axis` of the largest (`max`) or smallest element: the first of equals; NaN, the first of them,
/// beats every number. `out` is contiguous i64 with the other axes' elements.
///
/// # Errors
/// An empty axis.
///
/// # Panics
/// If `out` is not i64, not contiguous or of another size.
pub fn arg_reduce(max: bool, x: &View<'_>, axis: usize, out: &mut ViewMut<'_>) -> Result<()> {
    arg_reduce_on(isa(), max, x, axis, out)
}

/// As [`arg_reduce`], on this instruction set.
pub fn arg_reduce_on(isa: Isa, max: bool, x: &View<'_>, axis: usize, out: &mut ViewMut<'_>) -> Result<()> {
    let shape = x.layout().shape;
    let axes = AxisSet::of(&shape, &[axis as isize])?;
    if shape[axis] == 0 && shape.reduce(axes, false).numel() > 0 {
        let name = if max { "argmax" } else { "argmin" };
        return Err(Error::argument(format!("attempt to get {name} of an empty sequence")));
    }
    let out = out.slice::<i64>();
    assert_eq!(out.len(), shape.reduce(axes, false).numel(), "one result for each combination of kept axes");
    match x.dtype().compute() {
        DType::I64 => Task::<i64>::new(isa, Reduce::Max, x, axes).arg(max, out),
        DType::U64 => Task::<u64>::new(isa, Reduce::Max, x, axes).arg(max, out),
        DType::F64 => Task::<f64>::new(isa, Reduce::Max, x, axes).arg(max, out),
        _ => Task::<f32>::new(isa, Reduce::Max, x, axes).arg(max, out),
    }
    Ok(())
}

impl<L: Num> Task<L> {
    fn arg(&self, max: bool, out: &mut [i64]) {
        let n = self.reduced.len();
        let grain = (par::SERIAL_BELOW / self.dtype.size() / n.max(1)).max(1);
        let shared = SharedMut::new(out);
        par::for_ranges(out_len(&self.kept, n), grain, |results| {
            // SAFETY: ranges are disjoint.
            let out = unsafe { shared.part(results.clone()) };
            dispatch_on(self.isa, ArgPart { task: self, max, results, out });
        });
    }
}

/// No results if an axis is empty.
fn out_len(kept: &Space, reduced: usize) -> usize {
    if reduced == 0 { 0 } else { kept.len() }
}

struct ArgPart<'a, L> {
    task: &'a Task<L>,
    max: bool,
    results: Range<usize>,
    out: &'a mut [i64],
}

impl<L: Num> SimdOp for ArgPart<'_, L> {
    type Output = ();

    #[inline(always)]
    fn run<T: Target>(self) {
        if self.task.by_columns() { self.columns() } else { self.rows() }
    }
}

impl<L: Num> ArgPart<'_, L> {
    /// Finds the extreme of each block, and its place only where the block beats those before.
    #[inline(always)]
    fn rows(self) {
        let fold = if self.max { Fold::Max } else { Fold::Min };
        let mut buffer = [L::default(); BLOCK];
        let n = self.task.reduced.len();
        for (k, row) in self.results.clone().enumerate() {
            let base = self.task.kept.offset(0, row);
            let (mut best, mut place) = (L::start(fold), None);
            let mut at = 0;
            while at < n {
                check_at(at / BLOCK);
                let len = BLOCK.min(n - at);
                // SAFETY: the points from `at` on are in the view.
                let block = unsafe { self.task.block(base, at, &mut buffer[..len]) };
                let [extreme, _] = fold_block(fold, block, L::default());
                let beats = if self.max { extreme > best } else { extreme < best };
                if place.is_none() || (!best.is_nan() && (beats || extreme.is_nan())) {
                    let same = |x: &L| *x == extreme || (x.is_nan() && extreme.is_nan());
                    place = block.iter().position(same).map(|i| at + i);
                    best = extreme;
                }
                at += len;
            }
            self.out[k] = place.map_or(0, |p| p as i64);
        }
    }

    #[inline(always)]
    fn columns(self) {
        let inner = self.task.kept.inner();
        let mut buffer = [L::default(); BLOCK];
        let mut best = [L::default(); BLOCK];
        let mut n = self.results.start;
        while n < self.results.end {
            let width = BLOCK.min(inner - n % inner).min(self.results.end - n);
            let base = self.task.kept.offset(0, n);
            let places = &mut self.out[n - self.results.start..][..width];
            for at in 0..self.task.reduced.len() {
                check_at(at);
                let offset = base + self.task.reduced.offset(0, at);
                // SAFETY: the `width` neighbours at `offset` are in the view.
                let row = unsafe { self.task.row(offset, &mut buffer[..width]) };
                for i in 0..width {
                    let (x, b) = (row[i], best[i]);
                    let beats = if self.max { x > b } else { x < b };
                    let wins = (at == 0) | (!b.is_nan() & (beats | x.is_nan()));
                    best[i] = if wins { x } else { b };
                    places[i] = if wins { at as i64 } else { places[i] };
                }
            }
            n += width;
        }
    }
}
