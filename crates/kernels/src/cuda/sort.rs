//! Stable sorts of rows, and places in sorted vectors: launches of `sort.cu`, on contiguous operands.
//!
//! A short row is sorted by one launch, with as many others as fit into a block. Of a long one tiles are sorted, then runs
//! merged pairwise, a launch for each doubling, from one scratch buffer into the other.

use bullet_ops::DType;
use bullet_runtime::jit::Tier;
use bullet_runtime::{Error, Result};

use super::gpu::{Define, Gpu, Unit, args, blocks};
use super::rows::{NULL, ptr, ptr_mut, rows_of};
use crate::{View, ViewMut};

const SOURCE: &str = include_str!("../../cuda/sort.cu");
/// Threads of a block.
const THREADS: usize = 256;
/// Elements that a block sorts, or merges.
const TILE: usize = 1024;

fn unit(dtype: DType) -> Unit {
    let wide = i64::from(dtype.size() == 8);
    let defines = vec![Define::Type("T", dtype), Define::Int("WIDE", wide)];
    Unit { name: "sort", source: SOURCE, defines, since: Tier::Sm35 }
}

/// Bytes of a key.
fn key_size(dtype: DType) -> usize {
    if dtype.size() == 8 { 8 } else { 4 }
}

/// Rows of `x` in order, and where their elements were (i64); equals keep their order, NaN is last.
///
/// # Errors
/// Rows of 2^32 elements and more; out of memory; a kernel that does not compile or launch.
pub(crate) fn sort(gpu: &Gpu, descending: bool, x: &View<'_>, out: &mut [ViewMut<'_>]) -> Result<()> {
    let [y, index] = out else { unreachable!("sort has two results") };
    let (rows, n) = rows_of(x.layout());
    if rows * n == 0 {
        return Ok(());
    }
    // A place is a number of 32 bits, of which the largest stands for none.
    if n >= u32::MAX as usize {
        return Err(Error::invalid(format!(
            "sort: {n} elements in a row are too many for {}, which sorts up to {}; sort on the CPU",
            gpu.device(),
            u32::MAX - 1
        )));
    }
    let (segment, per_row) = (n.next_power_of_two().min(TILE), n.div_ceil(TILE));
    let (unit, grid) = (unit(x.dtype()), |blocks: usize| [blocks as u32, 1, 1]);
    let tiles = gpu.function(&unit, "tiles")?;
    let first = grid((rows * per_row).div_ceil(TILE / segment));
    let shape = [rows as i64, n as i64, segment as i64, per_row as i64, i64::from(descending)];
    if per_row == 1 {
        let mut args = args![ptr(x), ptr_mut(y), ptr_mut(index), NULL, NULL];
        shape.iter().for_each(|&s| _ = args.push(s));
        // SAFETY: operand and results have `rows * n` elements.
        return unsafe { gpu.launch(tiles, first, THREADS as u32, 0, &args) };
    }
    let merge = gpu.function(&unit, "merge")?;
    let scratch = |bytes: usize| gpu.scratch(rows * n * bytes);
    let keys = [scratch(key_size(x.dtype()))?, scratch(key_size(x.dtype()))?];
    let places = [scratch(4)?, scratch(4)?];
    let mut args = args![ptr(x), NULL, NULL, keys[0].ptr(), places[0].ptr()];
    shape.iter().for_each(|&s| _ = args.push(s));
    // SAFETY: the operand and each scratch buffer have `rows * n` elements.
    unsafe { gpu.launch(tiles, first, THREADS as u32, 0, &args) }?;
    let (mut run, mut from) = (TILE, 0);
    while run < n {
        let (to, last) = (1 - from, 2 * run >= n);
        let (y, index) = if last { (ptr_mut(y), ptr_mut(index)) } else { (NULL, NULL) };
        let mut args = args![ptr(x), y, index, keys[from].ptr(), places[from].ptr()];
        args.push(keys[to].ptr()).push(places[to].ptr());
        args.push(n as i64).push(run as i64).push(per_row as i64);
        // SAFETY: as above; the runs of the pass before are sorted, so that merging stays inside them.
        unsafe { gpu.launch(merge, grid(rows * per_row), THREADS as u32, 0, &args) }?;
        (run, from) = (2 * run, to);
    }
    Ok(())
}

/// How many elements of the sorted vector `x[0]` are below each of `x[1]`, or (`right`) not above it.
///
/// # Errors
/// A kernel that does not compile or launch.
pub(crate) fn searchsorted(gpu: &Gpu, right: bool, x: &[View<'_>], out: &mut [ViewMut<'_>]) -> Result<()> {
    let (n, count) = (x[0].layout().shape.numel(), x[1].layout().shape.numel());
    let kernel = gpu.function(&unit(x[0].dtype()), "search")?;
    let args = args![ptr(&x[0]), ptr(&x[1]), ptr_mut(&mut out[0]), n as i64, count as i64, i64::from(right)];
    let most = 8 * gpu.info().multiprocessors.max(1) as usize;
    // SAFETY: the operands have `n` and `count` elements, the result has as many as the latter.
    unsafe { gpu.launch(kernel, [blocks(count, THREADS, most), 1, 1], THREADS as u32, 0, &args) }
}

/// Every unit that this family asks for, with its entry points.
pub(crate) fn units() -> Vec<(Unit, Vec<&'static str>)> {
    DType::ALL.into_iter().map(|dtype| (unit(dtype), vec!["tiles", "merge", "search"])).collect()
}
