//! Rows and elements picked by index, and their adjoints: launches of `index.cu`.
//!
//! Operands are contiguous; indices are of any integer dtype and count from the end if negative. One out of range is
//! reported in the device's fault cell, reads as zeros and adds nothing. Sums are in the order of the indices, so that
//! results are those of the CPU to the bit.

use bullet_ops::{DType, Layout, Shape};
use bullet_runtime::jit::Tier;
use bullet_runtime::{DevicePtr, KernelArgs, Result, StreamId};

use super::gpu::{Define, Gpu, Unit, args, blocks, push_layout};
use crate::{View, ViewMut};

const SOURCE: &str = include_str!("../../cuda/index.cu");
/// Threads of every block here.
const THREADS: usize = 256;
/// Lanes of a warp: lines of a tile, or groups of columns.
const WARP: usize = 32;
/// Static shared memory of `add_rows`, rounded up.
const ROWS_STATIC: usize = 34 << 10;
/// From this many elements a row on, whole rows are added by `add_rows`.
const ROW: usize = 8;
/// Below this many words, 32-bit numbers hold every place.
const NEAR: usize = 1 << 31;

/// Every unit that this family asks for, with its entry points: all dtypes with i64 indices, all indices with f32.
pub(crate) fn units() -> Vec<(Unit, Vec<&'static str>)> {
    use DType::{BF16, Bool, F16, F32, F64, I8, I16, I32, I64, U8, U16, U32};
    let moves = [1, 2, 4, 8, 16].map(|bytes| (bytes, I64)).into_iter();
    let moves = moves.chain([U8, U16, U32, I8, I16, I32].map(|index| (16, index)));
    let moves = moves.map(|(bytes, index)| {
        (move_unit(bytes, index), vec!["select", "select_far", "gather", "gather_far"])
    });
    let sums = [Bool, U8, I8, I16, I32, I64, F16, BF16, F32, F64].map(|dtype| (dtype, I64)).into_iter();
    let sums = sums.chain([U8, U16, U32, I8, I16, I32].map(|index| (F32, index)));
    let sums = sums.flat_map(|(dtype, index)| {
        let mut all = vec![(lines_unit(dtype, index), vec!["add_lines"])];
        let mut widths = vec![1, 8 / dtype.size()];
        widths.dedup();
        all.extend(widths.into_iter().map(|v| (rows_unit(dtype, index, v), vec!["add_rows"])));
        all
    });
    moves.chain(sums).collect()
}

fn unit(defines: Vec<Define>) -> Unit {
    Unit { name: "index", source: SOURCE, defines, since: Tier::Sm35 }
}

fn move_unit(bytes: usize, index: DType) -> Unit {
    unit(vec![Define::Int("BYTES", bytes as i64), Define::Type("I", index)])
}

fn lines_unit(dtype: DType, index: DType) -> Unit {
    unit(vec![Define::Type("T", dtype), Define::Type("I", index)])
}

fn rows_unit(dtype: DType, index: DType, lane: usize) -> Unit {
    unit(vec![Define::Type("T", dtype), Define::Type("I", index), Define::Int("V", lane as i64)])
}

fn at(x: &View<'_>) -> DevicePtr {
    DevicePtr(x.bytes() as u64)
}

fn out_at(y: &mut ViewMut<'_>) -> DevicePtr {
    DevicePtr(y.bytes() as u64)
}

/// Elements before, along and after an axis.
fn around(shape: Shape, axis: usize) -> (usize, usize, usize) {
    (shape[..axis].iter().product(), shape[axis], shape[axis + 1..].iter().product())
}

/// `y[.., :] = table[i[..], :]`; operands `table[v, n]`, `i[..]`.
///
/// # Errors
/// The kernel does not compile or cannot be launched.
pub fn embedding(gpu: &Gpu, x: &[View<'_>], out: &mut [ViewMut<'_>]) -> Result<()> {
    let table = x[0].layout().shape;
    select(gpu, (1, table[0], table[1]), x, &mut out[0])
}

/// `y[.., j, ..] = x[.., i[j], ..]` along `axis`; operands `x`, `i[m]`.
///
/// # Errors
/// The kernel does not compile or cannot be launched.
pub fn index_select(gpu: &Gpu, axis: usize, x: &[View<'_>], out: &mut [ViewMut<'_>]) -> Result<()> {
    select(gpu, around(x[0].layout().shape, axis), x, &mut out[0])
}

/// `y[o, k, :] = x[o, i[k], :]` of `x[outer, len, inner]`.
fn select(
    gpu: &Gpu,
    (outer, len, inner): (usize, usize, usize),
    x: &[View<'_>],
    y: &mut ViewMut<'_>,
) -> Result<()> {
    let m = x[1].layout().shape.numel();
    if outer * m * inner == 0 {
        return Ok(());
    }
    let (from, index, to) = (at(&x[0]), at(&x[1]), out_at(y));
    // The largest word that rows are made of and lie at.
    let row = inner * x[0].dtype().size();
    let fits = |&w: &usize| [row as u64, from.0, to.0].iter().all(|n| n.is_multiple_of(w as u64));
    let word = [16, 8, 4, 2].into_iter().find(fits).unwrap_or(1);
    let inner = row / word;
    let total = outer * m * inner;
    let unit = move_unit(word, x[1].dtype());
    let f = gpu.function(&unit, if total < NEAR { "select" } else { "select_far" })?;
    let args = args![from, index, to, total as u64, inner as u64, m as u64, len as i64, gpu.fault()];
    // SAFETY: the views have the elements that these lengths say; the words divide rows and addresses.
    unsafe { gpu.launch(f, [spread(gpu, total), 1, 1], THREADS as u32, 0, &args) }
}

/// Blocks for `n` threads of a grid-stride loop: as many as are resident at once, at most.
fn spread(gpu: &Gpu, n: usize) -> u32 {
    blocks(n, THREADS, 8 * gpu.info().multiprocessors as usize)
}

/// `y[.., j, ..] = x[.., i[.., j, ..], ..]` along `axis`; operands `x`, `i`, of the result's shape.
///
/// # Errors
/// The kernel does not compile or cannot be launched.
pub fn gather(gpu: &Gpu, axis: usize, x: &[View<'_>], out: &mut [ViewMut<'_>]) -> Result<()> {
    let (shape, picks) = (x[0].layout().shape, x[1].layout().shape);
    let total = picks.numel();
    if total == 0 {
        return Ok(());
    }
    let strides = shape.strides();
    let places = fold((0..picks.rank()).map(|a| (picks[a], if a == axis { 0 } else { strides[a] })));
    let unit = move_unit(x[0].dtype().size(), x[1].dtype());
    let f = gpu.function(&unit, if total < NEAR { "gather" } else { "gather_far" })?;
    let mut args = args![at(&x[0]), at(&x[1]), out_at(&mut out[0])];
    push_layout(&mut args, &places);
    args.push(total as u64).push(strides[axis] as i64).push(shape[axis] as i64).push(gpu.fault());
    // SAFETY: the views have the elements that these shapes say, of the unit's size.
    unsafe { gpu.launch(f, [spread(gpu, total), 1, 1], THREADS as u32, 0, &args) }
}

/// A layout of these axes (length, stride), in as few axes as can tell the same places in the same order.
fn fold(axes: impl Iterator<Item = (usize, isize)>) -> Layout {
    let mut kept: Vec<(usize, isize)> = Vec::new();
    for (len, stride) in axes.filter(|&(len, _)| len != 1) {
        match kept.last_mut() {
            Some(last) if last.1 == stride * len as isize => *last = (last.0 * len, stride),
            _ => kept.push((len, stride)),
        }
    }
    let (dims, strides): (Vec<usize>, Vec<isize>) = kept.into_iter().unzip();
    let shape = Shape::new(&dims).expect("no more axes and elements than the shape it comes from");
    Layout::strided(shape, &strides, 0)
}

/// `dtable[v, :]` is the sum of the rows `g[.., :]` with `i[..] == v`, 0 where there is none; operands `i[..]`,
/// `g[.., n]`, result `[rows, n]`.
///
/// # Errors
/// The kernel does not compile or cannot be launched.
pub fn embedding_grad(gpu: &Gpu, rows: usize, x: &[View<'_>], out: &mut [ViewMut<'_>]) -> Result<()> {
    let n = out[0].layout().shape[1];
    add_rows(gpu, (1, rows, n), None, &x[0], &x[1], &mut out[0])
}

/// `y = x`, and `y[.., i[j], ..] += s[.., j, ..]` along `axis`; operands `x`, `i[m]`, `s`.
///
/// # Errors
/// A kernel does not compile or cannot be launched.
pub fn index_add(gpu: &Gpu, axis: usize, x: &[View<'_>], out: &mut [ViewMut<'_>]) -> Result<()> {
    let (outer, len, inner) = around(x[0].layout().shape, axis);
    if inner >= ROW {
        return add_rows(gpu, (outer, len, inner), Some(&x[0]), &x[1], &x[2], &mut out[0]);
    }
    let m = x[1].layout().shape.numel();
    let of = |length: usize| fold([(outer, (length * inner) as isize), (inner, 1)].into_iter());
    let lines = Lines {
        count: outer * inner,
        m,
        len,
        places: [of(len), of(m), fold([(outer * inner, 0)].into_iter())],
        strides: [inner, inner, 1],
    };
    add_lines(gpu, &lines, x, &mut out[0])
}

/// `y[o, v, :] = x[o, v, :] + the sum of s[o, k, :]` with `index[k] == v`, of `x[outer, len, inner]`; x is 0 if absent.
fn add_rows(
    gpu: &Gpu,
    (outer, len, inner): (usize, usize, usize),
    x: Option<&View<'_>>,
    index: &View<'_>,
    s: &View<'_>,
    y: &mut ViewMut<'_>,
) -> Result<()> {
    if outer * len * inner == 0 {
        return Ok(());
    }
    let (dtype, m) = (s.dtype(), index.layout().shape.numel());
    let (start, from, to) = (x.map_or(DevicePtr(0), at), at(s), out_at(y));
    let wide = 8 / dtype.size();
    let aligned = inner.is_multiple_of(wide) && (start.0 | from.0 | to.0).is_multiple_of(8);
    let lane = if aligned { wide } else { 1 };
    let slices = inner.div_ceil(WARP * lane);
    let pieces = outer * slices;
    let row_bytes = WARP * lane * dtype.compute().size() + 4;
    let rows = share(gpu, len, pieces, 1, shared_room(gpu) / row_bytes);
    let f = gpu.function(&rows_unit(dtype, index.dtype(), lane), "add_rows")?;
    let mut args = args![start, at(index), from, to, m as i64, len as i64, inner as i64];
    args.push(slices as u64).push(pieces as u64).push(rows as u32).push(gpu.fault());
    let grid = [len.div_ceil(rows) as u32, pieces.min(65535) as u32, 1];
    // SAFETY: the views have the elements that these lengths say; lanes divide rows and addresses.
    unsafe { gpu.launch(f, grid, THREADS as u32, (rows * row_bytes) as u32, &args) }
}

/// Dynamic shared memory that `add_rows` may have: two blocks of it or more are resident together.
fn shared_room(gpu: &Gpu) -> usize {
    let info = gpu.info();
    let most = if info.tier == Tier::Sm35 { 48 << 10 } else { info.shared_per_block as usize };
    (most.max(48 << 10) - ROWS_STATIC).min(64 << 10)
}

/// How many of `len` rows one block owns, so that with `groups` of such blocks there are two for each multiprocessor.
fn share(gpu: &Gpu, len: usize, groups: usize, least: usize, most: usize) -> usize {
    let wanted = 2 * gpu.info().multiprocessors as usize;
    (len * groups).div_ceil(wanted).clamp(least, most).min(len)
}

/// `y = x`, and `y[.., i[.., j, ..], ..] += s[.., j, ..]` along `axis`; operands `x`, `i`, `s`, the last two of one shape.
///
/// # Errors
/// A kernel does not compile or cannot be launched.
pub fn scatter_add(gpu: &Gpu, axis: usize, x: &[View<'_>], out: &mut [ViewMut<'_>]) -> Result<()> {
    let (shape, picks) = (x[0].layout().shape, x[1].layout().shape);
    let others = || (0..shape.rank()).filter(|&a| a != axis);
    let of = |strides: &[isize]| fold(others().map(|a| (picks[a], strides[a])));
    let (in_x, in_s) = (shape.strides(), picks.strides());
    let lines = Lines {
        count: others().map(|a| picks[a]).product(),
        m: picks[axis],
        len: shape[axis],
        places: [of(&in_x), of(&in_s), of(&in_s)],
        strides: [in_x[axis] as usize, in_s[axis] as usize, in_s[axis] as usize],
    };
    add_lines(gpu, &lines, x, &mut out[0])
}

/// Lines along an axis that the same index picks in one go: see `add_lines` in `index.cu`.
struct Lines {
    /// How many there are.
    count: usize,
    /// Indices of a line.
    m: usize,
    /// Elements of a line of x.
    len: usize,
    /// Where lines begin in x, in s and in the index.
    places: [Layout; 3],
    /// From one element of a line to the next, in the same order.
    strides: [usize; 3],
}

fn add_lines(gpu: &Gpu, lines: &Lines, x: &[View<'_>], y: &mut ViewMut<'_>) -> Result<()> {
    let (dtype, numel) = (x[0].dtype(), x[0].layout().shape.numel());
    let to = out_at(y);
    let reached = if lines.m == 0 { 0 } else { lines.count * lines.len };
    if reached < numel {
        // SAFETY: x and the result are distinct memory of as many elements.
        unsafe { gpu.device().driver().copy(StreamId::DEFAULT, to, at(&x[0]), numel * dtype.size())? };
    }
    if reached == 0 {
        return Ok(());
    }
    let row_bytes = (WARP + 1) * dtype.compute().size();
    let tiles = lines.count.div_ceil(WARP);
    let rows = share(gpu, lines.len, tiles, ROW, (32 << 10) / row_bytes);
    let f = gpu.function(&lines_unit(dtype, x[1].dtype()), "add_lines")?;
    let mut args: KernelArgs = args![at(&x[0]), at(&x[1]), at(&x[2]), to];
    lines.places.iter().for_each(|layout| push_layout(&mut args, layout));
    args.push(lines.count as u64).push(lines.m as i64).push(lines.len as i64);
    lines.strides.iter().for_each(|&stride| {
        args.push(stride as i64);
    });
    args.push(rows as u32).push(gpu.fault());
    let grid = [tiles.min(1 << 30) as u32, lines.len.div_ceil(rows).min(65535) as u32, 1];
    // SAFETY: the views have the elements that these layouts reach.
    unsafe { gpu.launch(f, grid, THREADS as u32, (rows * row_bytes) as u32, &args) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folding_keeps_places() {
        let layout = fold([(2, 60), (3, 20), (1, 7), (4, 5), (5, 1)].into_iter());
        assert_eq!((&layout.shape[..], layout.strides()), (&[120][..], &[1][..]));
        // The indexed axis (stride 0) and a shorter axis stay apart.
        let layout = fold([(2, 60), (3, 0), (4, 5), (3, 1)].into_iter());
        assert_eq!((&layout.shape[..], layout.strides()), (&[2, 3, 4, 3][..], &[60, 0, 5, 1][..]));
        assert_eq!(fold([(1, 3)].into_iter()).shape.rank(), 0);
    }
}
