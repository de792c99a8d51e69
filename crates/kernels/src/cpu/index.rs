//! Rows and elements picked by index, and their adjoints, on contiguous tensors.
//!
//! Indices are i64 and count from the end if negative, as in NumPy. All are checked before anything is written.
//! Ops that only move elements take any `Copy` word, so that callers choose by element size; those that add are generic
//! over [`Addend`]. Sums are in the order of the indices, whatever the thread count; f16 and bf16 are summed in f32.

use bullet_ops::{Element, Error, Result, Shape};
use half::{bf16, f16};

use super::convert::{self, Storage};
use super::copy::copy_slice;
use super::par::{self, SharedMut};
use super::stop;

/// Checks indices into an axis of length `len` and turns negative ones into positive.
///
/// # Errors
/// An index out of range, in NumPy's words.
pub fn resolve(indices: &[i64], axis: usize, len: usize) -> Result<Vec<usize>> {
    let n = len as i64;
    if let Some(bad) = indices.iter().find(|&&i| i < -n || i >= n) {
        return Err(Error::index(format!("index {bad} is out of bounds for axis {axis} with size {len}")));
    }
    let mut at = stop::filled(0, indices.len());
    at.iter_mut().zip(indices).for_each(|(at, &i)| *at = if i < 0 { i + n } else { i } as usize);
    Ok(at)
}

/// `y[k, :] = table[i[k], :]`: rows of `n` words.
///
/// # Errors
/// An index out of range.
///
/// # Panics
/// If a length is wrong.
pub fn embedding<W: Copy + Send + Sync>(
    table: &[W],
    rows: usize,
    n: usize,
    indices: &[i64],
    y: &mut [W],
) -> Result<()> {
    assert!(table.len() == rows * n && y.len() == indices.len() * n);
    index_select(table, 1, rows, n, 0, indices, y)
}

/// `y[o, k, :] = x[o, i[k], :]` of `x[outer, len, inner]`; `axis` is for the message.
///
/// # Errors
/// An index out of range.
///
/// # Panics
/// If a length is wrong.
pub fn index_select<W: Copy + Send + Sync>(
    x: &[W],
    outer: usize,
    len: usize,
    inner: usize,
    axis: usize,
    indices: &[i64],
    y: &mut [W],
) -> Result<()> {
    let m = indices.len();
    assert!(x.len() == outer * len * inner && y.len() == outer * m * inner);
    let at = resolve(indices, axis, len)?;
    if y.is_empty() {
        return Ok(());
    }
    let out = SharedMut::new(y);
    let grain = (par::SERIAL_BELOW / (2 * inner * size_of::<W>())).max(1);
    par::for_ranges(outer * m, grain, |r| {
        // SAFETY: ranges are disjoint.
        let y = unsafe { out.part(r.start * inner..r.end * inner) };
        for (k, y) in r.zip(y.chunks_exact_mut(inner)) {
            let row = k / m * len + at[k % m];
            y.copy_from_slice(&x[row * inner..][..inner]);
        }
    });
    Ok(())
}

/// The adjoint of [`embedding`]: `dtable[v, :]` is the sum of the rows `g[k, :]` with `i[k] == v`, 0 where there is none.
///
/// # Errors
/// An index out of range.
///
/// # Panics
/// If a length is wrong.
pub fn embedding_grad<S: Storage>(
    indices: &[i64],
    g: &[S],
    rows: usize,
    n: usize,
    dtable: &mut [S],
) -> Result<()> {
    assert!(g.len() == indices.len() * n && dtable.len() == rows * n);
    let at = resolve(indices, 0, rows)?;
    if dtable.is_empty() {
        return Ok(());
    }
    let (starts, order) = group_by(&at, rows);
    let out = SharedMut::new(dtable);
    par::for_ranges(rows, (par::SERIAL_BELOW / (n * size_of::<S>())).max(1), |r| {
        // SAFETY: ranges are disjoint.
        let dtable = unsafe { out.part(r.start * n..r.end * n) };
        let mut sum = S::scratch(n);
        for (v, row) in r.zip(dtable.chunks_exact_mut(n)) {
            let sources = order[starts[v]..starts[v + 1]].iter().map(|&k| &g[k * n..][..n]);
            add_rows(sources, row, &mut sum);
        }
    });
    Ok(())
}

/// For each `v` the positions `k` with `at[k] == v`, ascending: `order[starts[v]..starts[v + 1]]`. A counting sort.
fn group_by(at: &[usize], rows: usize) -> (Vec<usize>, Vec<usize>) {
    let mut starts = stop::filled(0, rows + 1);
    at.iter().for_each(|&v| starts[v + 1] += 1);
    (0..rows).for_each(|v| starts[v + 1] += starts[v]);
    let mut next = starts.clone();
    let mut order = stop::filled(0, at.len());
    for (k, &v) in at.iter().enumerate() {
        order[next[v]] = k;
        next[v] += 1;
    }
    (starts, order)
}

/// `row = ` the sum of `sources`, in the compute type.
fn add_rows<'a, S: Storage>(
    mut sources: impl Iterator<Item = &'a [S]>,
    row: &mut [S],
    scratch: &mut [S::Compute],
) {
    let Some(first) = sources.next() else {
        return row.fill(S::default());
    };
    row.copy_from_slice(first);
    match S::as_compute_mut(row) {
        Some(row) => {
            for source in sources {
                let source = S::as_compute(source).expect("as the row");
                row.iter_mut().zip(source).for_each(|(r, &s)| *r += s);
            }
        }
        None => {
            scratch.iter_mut().zip(first).for_each(|(r, s)| *r = s.up());
            for source in sources {
                scratch.iter_mut().zip(source).for_each(|(r, s)| *r += s.up());
            }
            row.iter_mut().zip(scratch).for_each(|(r, s)| *r = S::down(*s));
        }
    }
}

/// `y[.., j, ..] = x[.., i[.., j, ..], ..]` along `axis`: `y` has the shape of the index, which has `x`'s rank and is no
/// longer than `x` along the other axes.
///
/// # Errors
/// An index out of range; an index shape that doesn't go with `x`.
///
/// # Panics
/// If a length is wrong.
pub fn gather<W: Copy + Send + Sync>(
    x: &[W],
    shape: Shape,
    indices: &[i64],
    index_shape: Shape,
    axis: usize,
    y: &mut [W],
) -> Result<()> {
    assert!(x.len() == shape.numel() && indices.len() == index_shape.numel() && y.len() == indices.len());
    let walk = Walk::new(shape, index_shape, axis)?;
    let at = resolve(indices, axis, shape[axis])?;
    if y.is_empty() {
        return Ok(());
    }
    let out = SharedMut::new(y);
    let row = walk.row();
    par::for_ranges(at.len() / row, (par::SERIAL_BELOW / (16 * row)).max(1), |r| {
        // SAFETY: ranges are disjoint.
        let y = unsafe { out.part(r.start * row..r.end * row) };
        for (k, y) in r.zip(y.chunks_exact_mut(row)) {
            let (base, step) = walk.base(k);
            for (j, y) in y.iter_mut().enumerate() {
                *y = x[base + j * step + at[k * row + j] * walk.stride];
            }
        }
    });
    Ok(())
}

/// The places in `x` that an index tensor names.
struct Walk {
    shape: Shape,
    index: Shape,
    axis: usize,
    /// Of `axis` in `x`.
    stride: usize,
}

impl Walk {
    fn new(shape: Shape, index: Shape, axis: usize) -> Result<Walk> {
        let goes = shape.rank() == index.rank()
            && axis < shape.rank()
            && (0..shape.rank()).all(|a| a == axis || index[a] <= shape[a]);
        if !goes {
            return Err(Error::shape(format!(
                "index of shape {index} does not go with a tensor of shape {shape} along axis {axis}: it needs as many \
                 axes, none but that one longer"
            )));
        }
        Ok(Walk { shape, index, axis, stride: shape.strides()[axis] as usize })
    }

    /// Length of a row of the index.
    fn row(&self) -> usize {
        self.index[self.index.rank() - 1]
    }

    /// Place of the first element of row `k` of the index, but for `axis`, and the step to its neighbours.
    fn base(&self, mut k: usize) -> (usize, usize) {
        let (strides, last) = (self.shape.strides(), self.shape.rank() - 1);
        let mut base = 0;
        for a in (0..last).rev() {
            if a != self.axis {
                base += k % self.index[a] * strides[a] as usize;
            }
            k /= self.index[a];
        }
        (base, usize::from(self.axis != last))
    }
}

/// Elements that can be summed into place.
pub trait Addend: Element {
    /// The type sums are kept in: f32 for f16 and bf16, else this one.
    type Sum: Addend<Sum = Self::Sum>;
    /// Wraps, for integers; `or`, for bools.
    fn plus(self, other: Self) -> Self;
    /// The slice in the type of sums, if that is this one.
    fn as_sums(x: &mut [Self]) -> Option<&mut [Self::Sum]>;
    /// Widens.
    fn to_sum(self) -> Self::Sum;
    /// Rounds.
    fn of_sum(sum: Self::Sum) -> Self;
}

macro_rules! addends {
    ($($ty:ty: $plus:expr),* $(,)?) => {$(
        impl Addend for $ty {
            type Sum = $ty;
            #[inline(always)]
            fn plus(self, other: $ty) -> $ty { $plus(self, other) }
            fn as_sums(x: &mut [$ty]) -> Option<&mut [$ty]> { Some(x) }
            #[inline(always)]
            fn to_sum(self) -> $ty { self }
            #[inline(always)]
            fn of_sum(sum: $ty) -> $ty { sum }
        }
    )*};
}
addends!(f32: |a, b| a + b, f64: |a, b| a + b, u8: u8::wrapping_add,
    u16: u16::wrapping_add, u32: u32::wrapping_add, u64: u64::wrapping_add, i8: i8::wrapping_add, i16: i16::wrapping_add,
    i32: i32::wrapping_add, i64: i64::wrapping_add, bool: |a, b| a | b);

macro_rules! half_addends {
    ($($ty:ty: $up:expr, $down:expr);*) => {$(
        impl Addend for $ty {
            type Sum = f32;
            fn plus(self, other: $ty) -> $ty { Self::of_sum(self.to_sum() + other.to_sum()) }
            fn as_sums(_: &mut [$ty]) -> Option<&mut [f32]> { None }
            #[inline(always)]
            fn to_sum(self) -> f32 { $up(self.to_bits()) }
            #[inline(always)]
            fn of_sum(sum: f32) -> $ty { <$ty>::from_bits($down(sum)) }
        }
    )*};
}
half_addends!(f16: convert::f16_to_f32, convert::f32_to_f16;
    bf16: |b| f32::from_bits(u32::from(b) << 16), convert::f32_to_bf16);

/// Gives `add` the result in the type of sums, holding `x`.
fn with_sums<A: Addend>(x: &[A], y: &mut [A], add: impl FnOnce(&mut [A::Sum])) {
    copy_slice(x, y);
    match A::as_sums(y) {
        Some(y) => add(y),
        None => {
            let mut sums: Vec<A::Sum> = x.iter().map(|x| x.to_sum()).collect();
            add(&mut sums);
            y.iter_mut().zip(sums).for_each(|(y, s)| *y = A::of_sum(s));
        }
    }
}

/// `y = x`, and `y[.., i[.., j, ..], ..] += s[.., j, ..]` along `axis`; `s` has the shape of the index.
///
/// # Errors
/// An index out of range; an index shape that doesn't go with `x`.
///
/// # Panics
/// If a length is wrong.
pub fn scatter_add<A: Addend>(
    x: &[A],
    shape: Shape,
    indices: &[i64],
    index_shape: Shape,
    axis: usize,
    s: &[A],
    y: &mut [A],
) -> Result<()> {
    assert!(x.len() == shape.numel() && indices.len() == index_shape.numel());
    assert!(y.len() == x.len() && s.len() == indices.len());
    let walk = Walk::new(shape, index_shape, axis)?;
    let at = resolve(indices, axis, shape[axis])?;
    with_sums(x, y, |sums| {
        if at.is_empty() {
            return;
        }
        let row = walk.row();
        let rows = at.len() / row;
        // Slices of the first axis, unless it is the one that is indexed, go to different places.
        let apart = if axis > 0 { index_shape[0] } else { 1 };
        let each = rows / apart;
        let slice = shape.numel() / shape[0].max(1);
        let out = SharedMut::new(sums);
        par::for_ranges(apart, (par::SERIAL_BELOW / (16 * row * each)).max(1), |r| {
            let origin = if axis > 0 { r.start * slice } else { 0 };
            let end = if axis > 0 { r.end * slice } else { shape.numel() };
            // SAFETY: ranges write disjoint slices of the first axis, or there is one range.
            let y = unsafe { out.part(origin..end) };
            for k in r.start * each..r.end * each {
                let (base, step) = walk.base(k);
                for j in 0..row {
                    let cell = &mut y[base + j * step + at[k * row + j] * walk.stride - origin];
                    *cell = cell.plus(s[k * row + j].to_sum());
                }
            }
        });
    });
    Ok(())
}

/// `y = x`, and `y[o, i[k], :] += s[o, k, :]` of `x[outer, len, inner]`; `axis` is for the message.
///
/// # Errors
/// An index out of range.
///
/// # Panics
/// If a length is wrong.
pub fn index_add<A: Addend>(
    x: &[A],
    outer: usize,
    len: usize,
    inner: usize,
    axis: usize,
    indices: &[i64],
    s: &[A],
    y: &mut [A],
) -> Result<()> {
    let m = indices.len();
    assert!(x.len() == outer * len * inner && y.len() == x.len() && s.len() == outer * m * inner);
    let at = resolve(indices, axis, len)?;
    with_sums(x, y, |sums| {
        if sums.is_empty() || m == 0 {
            return;
        }
        let (starts, order) = group_by(&at, len);
        let out = SharedMut::new(sums);
        let grain = (par::SERIAL_BELOW * len / (16 * inner * (m + len))).max(1);
        par::for_ranges(outer * len, grain, |r| {
            // SAFETY: ranges are disjoint.
            let y = unsafe { out.part(r.start * inner..r.end * inner) };
            for (row, y) in r.zip(y.chunks_exact_mut(inner)) {
                let (o, v) = (row / len, row % len);
                for &k in &order[starts[v]..starts[v + 1]] {
                    let source = &s[(o * m + k) * inner..][..inner];
                    y.iter_mut().zip(source).for_each(|(y, s)| *y = y.plus(s.to_sum()));
                }
            }
        });
    });
    Ok(())
}
