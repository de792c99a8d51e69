//! Softmax, its logarithm, and their adjoints: `softmax.cu`.

use bullet_runtime::Result;

use super::gpu::{Define, Gpu, Unit, args};
use super::rows::{Budget, Plan, ptr, ptr_mut, rows_of};
use crate::{View, ViewMut};

const SOURCE: &str = concat!(
    include_str!("../../cuda/rows.cuh"),
    "#line 1 \"softmax.cu\"\n",
    include_str!("../../cuda/softmax.cu")
);
/// Rows twice as long as elsewhere stay in registers: nothing else does.
const FORWARD: Budget = Budget { target: 16, most: 32 };

/// `softmax`, or `log_softmax` if `log`: `x -> y`, contiguous.
///
/// # Errors
/// A kernel that does not compile or launch.
pub(crate) fn softmax(gpu: &Gpu, log: bool, x: &[View<'_>], out: &mut [ViewMut<'_>]) -> Result<()> {
    let (rows, width) = rows_of(x[0].layout());
    if rows * width == 0 {
        return Ok(());
    }
    let (from, to) = (ptr(&x[0]), ptr_mut(&mut out[0]));
    let plan = Plan::new(x[0].dtype(), width, &[from, to], FORWARD);
    let kernel = gpu.function(&unit(&plan, log, false), "softmax")?;
    let threads = plan.threads(gpu, rows);
    let grid = [rows.div_ceil(plan.rows_per_block(threads)) as u32, 1, 1];
    // SAFETY: both have `rows * width` elements, contiguous and aligned to the plan's packs.
    unsafe { gpu.launch(kernel, grid, threads as u32, 0, &args![from, to, rows as i64, width as i64]) }
}

/// `softmax_grad`, or `log_softmax_grad` if `log`: `y, g -> dx`, contiguous.
///
/// # Errors
/// A kernel that does not compile or launch.
pub(crate) fn softmax_grad(gpu: &Gpu, log: bool, x: &[View<'_>], out: &mut [ViewMut<'_>]) -> Result<()> {
    let (rows, width) = rows_of(x[0].layout());
    if rows * width == 0 {
        return Ok(());
    }
    let (y, g, dx) = (ptr(&x[0]), ptr(&x[1]), ptr_mut(&mut out[0]));
    let plan = Plan::new(x[0].dtype(), width, &[y, g, dx], Budget::TWO);
    let kernel = gpu.function(&unit(&plan, log, true), "softmax_grad")?;
    let threads = plan.threads(gpu, rows);
    let grid = [rows.div_ceil(plan.rows_per_block(threads)) as u32, 1, 1];
    // SAFETY: all have `rows * width` elements, contiguous and aligned to the plan's packs.
    unsafe { gpu.launch(kernel, grid, threads as u32, 0, &args![y, g, dx, rows as i64, width as i64]) }
}

fn unit(plan: &Plan, log: bool, grad: bool) -> Unit {
    let own = [Define::Int("LOG", i64::from(log)), Define::Int("GRAD", i64::from(grad))];
    plan.unit("softmax", SOURCE, &own)
}

/// Every kind of unit that this family asks for, with its entry points.
pub(crate) fn units() -> Vec<(Unit, Vec<&'static str>)> {
    let mut units = Vec::new();
    for log in [false, true] {
        units.extend(Plan::samples(FORWARD).iter().map(|p| (unit(p, log, false), vec!["softmax"])));
        units.extend(Plan::samples(Budget::TWO).iter().map(|p| (unit(p, log, true), vec!["softmax_grad"])));
    }
    units
}
