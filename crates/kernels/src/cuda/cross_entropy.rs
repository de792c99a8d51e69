//! Cross-entropy with the softmax fused in, and its adjoint: `cross_entropy.cu`. One launch each.

use bullet_ops::DType;
use bullet_runtime::{DevicePtr, Result};

use super::gpu::{Define, Gpu, Unit, args};
use super::rows::{Budget, NULL, Plan, ptr, ptr_mut};
use crate::{View, ViewMut};

const SOURCE: &str = concat!(
    include_str!("../../cuda/rows.cuh"),
    include_str!("../../cuda/last_block.cuh"),
    "#line 1 \"cross_entropy.cu\"\n",
    include_str!("../../cuda/cross_entropy.cu")
);
/// Bytes of `struct Part`: the sum of a block's losses and how many count.
const PART: usize = 16;

/// `logits[n, c], target[n] -> loss, lse[n], count`; all contiguous. Targets out of range are reported as a fault.
///
/// # Errors
/// Out of memory (16 bytes a block), or a kernel that does not compile or launch.
pub(crate) fn cross_entropy(
    gpu: &Gpu,
    ignore_index: i64,
    label_smoothing: f64,
    x: &[View<'_>],
    out: &mut [ViewMut<'_>],
) -> Result<()> {
    let [loss, lse, count] = out else { unreachable!("cross_entropy has three results") };
    let shape = x[0].layout().shape;
    let (rows, classes) = (shape[0], shape[1]);
    let logits = ptr(&x[0]);
    let plan = forward_plan(x[0].dtype(), classes, logits);
    let kernel = gpu.function(&unit(&plan, false), "cross_entropy")?;
    let threads = plan.threads(gpu, rows).min(if plan.narrow() { 128 } else { 1024 });
    // Blocks beyond those that are resident take several rows: the last block reads what each of them leaves. One there is
    // in any case, as the loss of no rows is a result too.
    let most = 4 * gpu.info().multiprocessors.max(1) as usize;
    let blocks = rows.div_ceil(plan.rows_per_block(threads)).clamp(1, most);
    let parts = if blocks > 1 { Some(gpu.scratch(blocks * PART)?) } else { None };
    let args = args![
        logits,
        ptr(&x[1]),
        ptr_mut(loss),
        ptr_mut(lse),
        ptr_mut(count),
        parts.as_ref().map_or(NULL, |p| p.ptr()),
        gpu.fault(),
        rows as i64,
        classes as i64,
        ignore_index,
        label_smoothing,
    ];
    // SAFETY: operands and results have the shapes of the op; `parts` has room for each block.
    unsafe { gpu.launch(kernel, [blocks as u32, 1, 1], threads as u32, 0, &args) }
}

/// A row a warp, if its threads' registers hold it: then no thread waits for another warp's.
fn forward_plan(dtype: DType, classes: usize, logits: DevicePtr) -> Plan {
    let plan = Plan::new(dtype, classes, &[logits], Budget { target: 96, most: 96 });
    if plan.narrow() && plan.vec > 1 { plan } else { Plan::new(dtype, classes, &[logits], Budget::ONE) }
}

/// `logits, target, lse, count, g -> dlogits`; all contiguous. Targets out of range are reported as a fault.
///
/// # Errors
/// A kernel that does not compile or launch.
pub(crate) fn cross_entropy_grad(
    gpu: &Gpu,
    ignore_index: i64,
    label_smoothing: f64,
    x: &[View<'_>],
    out: &mut [ViewMut<'_>],
) -> Result<()> {
    let [logits, target, lse, count, g] = x else { unreachable!("cross_entropy_grad has five operands") };
    let shape = logits.layout().shape;
    let (rows, classes) = (shape[0], shape[1]);
    if rows * classes == 0 {
        return Ok(());
    }
    let (logits, dlogits) = (ptr(logits), ptr_mut(&mut out[0]));
    let plan = Plan::new(x[0].dtype(), classes, &[logits, dlogits], Budget::ONE);
    let kernel = gpu.function(&unit(&plan, true), "cross_entropy_grad")?;
    let threads = plan.threads(gpu, rows);
    let grid = [rows.div_ceil(plan.rows_per_block(threads)) as u32, 1, 1];
    let args = args![
        logits,
        ptr(target),
        ptr(lse),
        ptr(count),
        ptr(g),
        dlogits,
        gpu.fault(),
        rows as i64,
        classes as i64,
        ignore_index,
        1.0 - label_smoothing,
        label_smoothing / classes as f64,
    ];
    // SAFETY: operands and results have the shapes of the op.
    unsafe { gpu.launch(kernel, grid, threads as u32, 0, &args) }
}

fn unit(plan: &Plan, grad: bool) -> Unit {
    plan.unit("cross_entropy", SOURCE, &[Define::Int("GRAD", i64::from(grad))])
}

/// Every kind of unit that this family asks for, with its entry points.
pub(crate) fn units() -> Vec<(Unit, Vec<&'static str>)> {
    let plans = Plan::samples(Budget::ONE);
    let wide =
        DType::FLOATS.map(|dtype| forward_plan(dtype, if dtype == DType::F64 { 1500 } else { 3000 }, NULL));
    let forward =
        plans.iter().chain(&wide).map(|p| (unit(p, false), vec!["cross_entropy"])).collect::<Vec<_>>();
    forward.into_iter().chain(plans.iter().map(|p| (unit(p, true), vec!["cross_entropy_grad"]))).collect()
}
