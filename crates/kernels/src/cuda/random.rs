//! Random numbers by counter: launches of `random.cu`, which draws what [`crate::cpu::random`] draws.

use bullet_ops::{DType, DropoutSpec};
use bullet_runtime::jit::Tier;
use bullet_runtime::{DevicePtr, FunctionId, KernelArgs, Result};

use super::gpu::{Define, Gpu, Unit, args, blocks};
use crate::cpu::random::{Counter, Distribution};
use crate::{View, ViewMut};

const SOURCE: &str = concat!(
    include_str!("../../cuda/philox.cuh"),
    "\n#line 1 \"random.cu\"\n",
    include_str!("../../cuda/random.cu")
);
const THREADS: usize = 256;

/// Every unit that this family asks for, with its entry points.
pub(crate) fn units() -> Vec<(Unit, Vec<&'static str>)> {
    let dtypes = [DType::F16, DType::BF16, DType::F32, DType::F64];
    dtypes.map(|dtype| (unit(dtype), vec!["dropout", "uniform", "normal"])).into()
}

fn unit(dtype: DType) -> Unit {
    Unit { name: "random", source: SOURCE, defines: vec![Define::Type("T", dtype)], since: Tier::Sm35 }
}

/// `y = x / (1 - p)` with probability `1 - p`, else 0; operands `x` (floats) and the state, i64 `[seed, step]`, which is
/// read on the device. The bits are the CPU's. `x` may be the result's memory.
///
/// # Errors
/// The kernel does not compile or cannot be launched.
pub fn dropout(gpu: &Gpu, spec: DropoutSpec, x: &[View<'_>], out: &mut [ViewMut<'_>]) -> Result<()> {
    let n = out[0].layout().shape.numel();
    let (from, to) = (x[0].bytes() as u64, out[0].bytes() as u64);
    let aligned = aligned(x[0].dtype(), from | to);
    let mut args = args![DevicePtr(from), DevicePtr(x[1].bytes() as u64), DevicePtr(to)];
    args.push(n as u64).push(spec.threshold()).push(spec.stream).push(spec.scale()).push(u32::from(aligned));
    let f = gpu.function(&unit(x[0].dtype()), "dropout")?;
    // SAFETY: operand and result have `n` elements of the unit's type, the state two i64.
    unsafe { launch(gpu, f, n, &args) }
}

/// Fills a contiguous float tensor with independent numbers of a distribution: uniform ones are the CPU's to the bit,
/// normal ones within its rounding.
///
/// # Errors
/// The kernel does not compile or cannot be launched.
pub fn fill(gpu: &Gpu, distribution: Distribution, counter: Counter, out: &mut ViewMut<'_>) -> Result<()> {
    let (n, dtype, to) = (out.layout().shape.numel(), out.dtype(), out.bytes() as u64);
    let (entry, a, b) = match distribution {
        Distribution::Uniform { low, high } => ("uniform", low, high),
        Distribution::Normal { mean, std } => ("normal", mean, std),
    };
    let mut args = args![DevicePtr(to), n as u64, counter.seed, counter.stream, counter.step];
    args.push(a).push(b).push(u32::from(aligned(dtype, to)));
    let f = gpu.function(&unit(dtype), entry)?;
    // SAFETY: the result has `n` elements of the unit's type.
    unsafe { launch(gpu, f, n, &args) }
}

/// Whether four elements at a multiple of four from here (several addresses or-ed) can be moved as one, or f64 as two.
fn aligned(dtype: DType, addresses: u64) -> bool {
    addresses.is_multiple_of((4 * dtype.size() as u64).min(16))
}

/// A thread for four elements.
///
/// # Safety
/// As [`Gpu::launch`].
unsafe fn launch(gpu: &Gpu, f: FunctionId, n: usize, args: &KernelArgs) -> Result<()> {
    let grid = blocks(n.div_ceil(4), THREADS, 16 * gpu.info().multiprocessors as usize);
    // SAFETY: by the caller's promise.
    unsafe { gpu.launch(f, [grid, 1, 1], THREADS as u32, 0, args) }
}
