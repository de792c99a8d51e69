//! Layer and RMS normalisation and their adjoints: `norm.cu`.
//!
//! The gradients of the weights are sums of columns. Blocks of their own compute them beside those of `dx`, in the same
//! launch; many rows are cut into ranges, whose sums a second launch adds in order.

use bullet_runtime::{DevicePtr, Result};

use super::gpu::{Define, Gpu, Unit, args};
use super::rows::{Budget, NULL, Plan, ptr, ptr_mut, rows_of};
use crate::{View, ViewMut};

const SOURCE: &str =
    concat!(include_str!("../../cuda/rows.cuh"), "#line 1 \"norm.cu\"\n", include_str!("../../cuda/norm.cu"));

/// `x[.., n], w[n]?, b[n]? -> y, mean[..], rstd[..]`, contiguous.
///
/// # Errors
/// A kernel that does not compile or launch.
pub(crate) fn layer_norm(gpu: &Gpu, eps: f64, x: &[View<'_>], out: &mut [ViewMut<'_>]) -> Result<()> {
    let [y, mean, rstd] = out else { unreachable!("layer_norm has three results") };
    let operands = [Some(&x[0]), None, x.get(1), x.get(2)];
    forward(gpu, false, eps, operands, [ptr_mut(y), NULL, ptr_mut(mean), ptr_mut(rstd)])
}

/// `x[.., n], w[n]? -> y, rstd[..]`, contiguous.
///
/// # Errors
/// A kernel that does not compile or launch.
pub(crate) fn rms_norm(gpu: &Gpu, eps: f64, x: &[View<'_>], out: &mut [ViewMut<'_>]) -> Result<()> {
    let [y, rstd] = out else { unreachable!("rms_norm has two results") };
    forward(gpu, true, eps, [Some(&x[0]), None, x.get(1), None], [ptr_mut(y), NULL, NULL, ptr_mut(rstd)])
}

/// `x, mean, rstd, g, w? -> dx, dw[n]?, db[n]?`, contiguous; `dw` and `db` where there is a weight.
///
/// # Errors
/// Out of memory, or a kernel that does not compile or launch.
pub(crate) fn layer_norm_grad(gpu: &Gpu, x: &[View<'_>], out: &mut [ViewMut<'_>]) -> Result<()> {
    let w = x.get(4).map_or(NULL, ptr);
    let operands = [ptr(&x[0]), ptr(&x[1]), ptr(&x[2]), ptr(&x[3]), NULL, w];
    backward(gpu, false, &x[0], operands, out)
}

/// `x, rstd, g, w? -> dx, dw[n]?`, contiguous; `dw` where there is a weight.
///
/// # Errors
/// Out of memory, or a kernel that does not compile or launch.
pub(crate) fn rms_norm_grad(gpu: &Gpu, x: &[View<'_>], out: &mut [ViewMut<'_>]) -> Result<()> {
    let operands = [ptr(&x[0]), NULL, ptr(&x[1]), ptr(&x[2]), NULL, x.get(3).map_or(NULL, ptr)];
    backward(gpu, true, &x[0], operands, out)
}

/// `x[.., n], r[.., n], w[n]?, b[n]? -> y, s, mean[..]?, rstd[..]`, contiguous; no bias and no mean if `rms`.
///
/// # Errors
/// A kernel that does not compile or launch.
pub(crate) fn add_norm(
    gpu: &Gpu,
    rms: bool,
    eps: f64,
    x: &[View<'_>],
    out: &mut [ViewMut<'_>],
) -> Result<()> {
    let out: Vec<DevicePtr> = out.iter_mut().map(ptr_mut).collect();
    let out = match out[..] {
        [y, s, rstd] if rms => [y, s, NULL, rstd],
        [y, s, mean, rstd] => [y, s, mean, rstd],
        _ => unreachable!("add_layer_norm has four results, add_rms_norm three"),
    };
    forward(gpu, rms, eps, [Some(&x[0]), Some(&x[1]), x.get(2), x.get(3)], out)
}

/// `s, mean?, rstd, g, gs, w? -> ds, dw[n]?, db[n]?`, contiguous; no mean and no `db` if `rms`.
///
/// # Errors
/// Out of memory, or a kernel that does not compile or launch.
pub(crate) fn add_norm_grad(gpu: &Gpu, rms: bool, x: &[View<'_>], out: &mut [ViewMut<'_>]) -> Result<()> {
    let (mean, rest) = if rms { (NULL, &x[1..]) } else { (ptr(&x[1]), &x[2..]) };
    let w = rest.get(3).map_or(NULL, ptr);
    let operands = [ptr(&x[0]), mean, ptr(&rest[0]), ptr(&rest[1]), ptr(&rest[2]), w];
    backward(gpu, rms, &x[0], operands, out)
}

/// `x` are the row, what is added to it, weight and bias; `out` are y, the sum, mean and rstd, null if not there.
fn forward(gpu: &Gpu, rms: bool, eps: f64, x: [Option<&View<'_>>; 4], out: [DevicePtr; 4]) -> Result<()> {
    let like = x[0].expect("a norm has an operand");
    let (rows, width) = rows_of(like.layout());
    if rows == 0 {
        return Ok(());
    }
    let [y, sum, mean, rstd] = out;
    let [x, r, w, b] = x.map(|v| v.map_or(NULL, ptr));
    let budget = if r == NULL { Budget::ONE } else { Budget::TWO };
    let plan = Plan::new(like.dtype(), width, &[x, r, w, b, y, sum], budget);
    let kernel = gpu.function(&unit(&plan, rms, false, r != NULL), "normalise")?;
    let threads = plan.threads(gpu, rows);
    let mut blocks = rows.div_ceil(plan.rows_per_block(threads));
    if plan.narrow() {
        // Threads that take several rows load the weights once; as many each.
        let most = 12 * gpu.info().multiprocessors.max(1) as usize;
        blocks = blocks.div_ceil(blocks.div_ceil(most));
    }
    let args = args![x, r, w, b, y, sum, mean, rstd, rows as i64, width as i64, eps];
    // SAFETY: operands and results have the shapes of the op, contiguous and aligned to the plan's packs.
    unsafe { gpu.launch(kernel, [blocks as u32, 1, 1], threads as u32, 0, &args) }
}

/// How the sums of columns are cut.
struct Cut {
    /// Ranges of rows.
    ranges: usize,
    /// Rows of a range.
    range: usize,
    /// Blocks a range that compute `dx`.
    row_blocks: usize,
    /// Blocks a range that sum columns.
    tiles: usize,
    /// Packs of columns to such a block; a power of two up to 32.
    tile: usize,
}

impl Cut {
    fn new(
        gpu: &Gpu,
        plan: &Plan,
        size: usize,
        rows: usize,
        width: usize,
        per_block: usize,
        sums: bool,
    ) -> Cut {
        let bytes = 2 * rows * width * size;
        // A block's threads go over some thousand rows soon enough; beyond, ranges keep within the cache what dx's blocks
        // have read.
        let wanted = if !sums || (rows <= 4096 && bytes <= 16 << 20) {
            1
        } else {
            (rows / 1024).max(bytes >> 23).min(rows / 16).clamp(1, 1024)
        };
        let range = rows.div_ceil(wanted).next_multiple_of(per_block);
        let ranges = rows.div_ceil(range);
        let (packs, many) = (width / plan.vec, 2 * gpu.info().multiprocessors.max(1) as usize);
        // A row of a tile is 128 bytes, or down to 32 where that makes enough blocks.
        let mut tile = (128 / (plan.vec * size)).clamp(1, 32);
        while tile > 1 && tile * plan.vec * size > 32 && packs.div_ceil(tile) * ranges < many {
            tile /= 2;
        }
        let tiles = if sums { packs.div_ceil(tile) } else { 0 };
        Cut { ranges, range, row_blocks: range.div_ceil(per_block), tiles, tile }
    }
}

/// `operands` are x, mean, rstd, g, what is added to dx, and w, null if not there.
fn backward(
    gpu: &Gpu,
    rms: bool,
    like: &View<'_>,
    operands: [DevicePtr; 6],
    out: &mut [ViewMut<'_>],
) -> Result<()> {
    let (rows, width) = rows_of(like.layout());
    let dtype = like.dtype();
    let [x, mean, rstd, g, added, w] = operands;
    let mut results = out.iter_mut().map(ptr_mut);
    let dx = results.next().expect("the adjoint of a norm has a result");
    let [dw, db] = [results.next().unwrap_or(NULL), results.next().unwrap_or(NULL)];
    if rows == 0 {
        for sum in [dw, db].into_iter().filter(|&sum| sum != NULL) {
            // SAFETY: a result of `width` elements.
            unsafe { gpu.fill(sum, 0, width * dtype.size())? };
        }
    }
    if rows * width == 0 {
        return Ok(());
    }
    let plan = Plan::new(dtype, width, &[x, g, added, w, dx], Budget::TWO);
    let unit = unit(&plan, rms, true, added != NULL);
    let threads = if plan.narrow() { 256 } else { plan.lanes };
    let cut = Cut::new(gpu, &plan, dtype.size(), rows, width, plan.rows_per_block(threads), dw != NULL);
    let parts = match cut.ranges {
        1 => None,
        _ if dw == NULL => None,
        ranges => Some(gpu.scratch(ranges * 2 * width * dtype.compute().size())?),
    };
    let args = args![
        x,
        mean,
        rstd,
        g,
        added,
        w,
        dx,
        dw,
        db,
        parts.as_ref().map_or(NULL, |p| p.ptr()),
        rows as i64,
        width as i64,
        cut.range as i64,
        cut.row_blocks as u32,
        cut.tiles as u32,
        cut.tile as i32,
    ];
    let kernel = gpu.function(&unit, "norm_grad")?;
    let grid = [(cut.ranges * (cut.row_blocks + cut.tiles)) as u32, 1, 1];
    // SAFETY: operands and results have the shapes of the op, contiguous and aligned to the plan's packs; `parts` has two
    // rows for each range.
    unsafe { gpu.launch(kernel, grid, threads as u32, 0, &args)? };
    let Some(parts) = parts else { return Ok(()) };
    let kernel = gpu.function(&unit, "norm_grad_finish")?;
    let columns = if db == NULL { width } else { 2 * width };
    let args = args![parts.ptr(), dw, db, cut.ranges as i64, width as i64];
    // SAFETY: as above; blocks of 32 columns cover them.
    unsafe { gpu.launch(kernel, [columns.div_ceil(32) as u32, 1, 1], 256, 0, &args) }
}

fn unit(plan: &Plan, rms: bool, grad: bool, add: bool) -> Unit {
    let own = [("RMS", rms), ("GRAD", grad), ("ADD", add)].map(|(name, on)| Define::Int(name, i64::from(on)));
    plan.unit("norm", SOURCE, &own)
}

/// Every kind of unit that this family asks for, with its entry points.
pub(crate) fn units() -> Vec<(Unit, Vec<&'static str>)> {
    let mut units = Vec::new();
    for (rms, add) in [(false, false), (true, false), (false, true), (true, true)] {
        let budget = if add { Budget::TWO } else { Budget::ONE };
        units.extend(Plan::samples(budget).iter().map(|p| (unit(p, rms, false, add), vec!["normalise"])));
        let entries = vec!["norm_grad", "norm_grad_finish"];
        units.extend(Plan::samples(Budget::TWO).iter().map(|p| (unit(p, rms, true, add), entries.clone())));
    }
    units
}
