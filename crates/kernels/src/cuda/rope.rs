//! Rotary position embedding.

use bullet_ops::{DType, RopeSpec};
use bullet_runtime::{Error, KernelArgs, Result};

use super::gpu::{Define, Gpu, Unit};
use crate::{View, ViewMut};

const SOURCE: &str = include_str!("../../cuda/rope.cu");
const THREADS: usize = 128;
/// Frequencies that travel with the launch; for larger heads the kernel computes them.
const MOST_FREQUENCIES: usize = 128;

fn unit(dtype: DType, pairs: usize) -> Unit {
    let defines = vec![Define::Type("T", dtype), Define::Int("N", pairs as i64)];
    Unit { name: "rope", source: SOURCE, defines, since: bullet_runtime::jit::Tier::Sm35 }
}

/// Pairs that a thread turns where sizes and alignment allow it.
fn pairs(dtype: DType) -> usize {
    if dtype == DType::F64 { 2 } else { 4 }
}

/// [`Op::Rope`](bullet_ops::Op::Rope) of `[batch, sequence, heads, dim]`, whose last axis is dense.
///
/// # Errors
/// If the base is not a positive number.
pub(crate) fn rope(gpu: &Gpu, spec: RopeSpec, x: &[View<'_>], out: &mut [ViewMut<'_>]) -> Result<()> {
    if !(spec.base > 0.0 && spec.base.is_finite()) {
        return Err(Error::invalid(format!("rope: base {}, expected a positive number", spec.base)));
    }
    let (dtype, shape, strides) = (x[0].dtype(), x[0].layout().shape, x[0].layout().strides());
    let (seq, heads, dim) = (shape[1], shape[2], shape[3]);
    let (rows, half) = (shape[0] * seq, dim / 2);
    if rows * heads * half == 0 {
        return Ok(());
    }
    let whole = |bytes: usize| bytes.is_multiple_of(pairs(dtype) * dtype.size());
    let vectors = half.is_multiple_of(pairs(dtype))
        && whole(x[0].bytes() as usize)
        && whole(out[0].bytes() as usize)
        && strides[..3].iter().all(|stride| whole(stride.unsigned_abs() * dtype.size()));
    let each = if vectors { pairs(dtype) } else { 1 };
    // Few rows are divided by heads too, as long as that makes threads that the GPU has room for.
    let (threads, room) = (rows * (half / each), gpu.info().multiprocessors as usize * 512);
    let of_slice = heads.div_ceil((room / threads).clamp(1, heads));
    let slices = heads.div_ceil(of_slice);
    let blocks = threads.div_ceil(THREADS) * slices;
    let mut bytes = Vec::with_capacity(1200);
    let mut push = |x: u64| bytes.extend_from_slice(&x.to_ne_bytes());
    push(x[0].bytes() as u64);
    push(out[0].bytes() as u64);
    [rows, seq, heads, dim].iter().for_each(|&n| push(n as u64));
    [strides[0], strides[1], strides[2]].iter().for_each(|&stride| push(stride as u64));
    push(spec.offset as u64);
    push(spec.heads.min(heads) as u64);
    [spec.interleaved, spec.inverse].iter().for_each(|&flag| push(u64::from(flag)));
    [slices, blocks].iter().for_each(|&n| push(n as u64));
    push(spec.base.to_bits());
    for i in 0..MOST_FREQUENCIES {
        let frequency = if i < half { spec.base.powf(-2.0 * i as f64 / dim as f64) } else { 0.0 };
        push(frequency.to_bits());
    }
    let mut args = KernelArgs::new();
    args.push_bytes(&bytes, 8);
    let function = gpu.function(&unit(dtype, each), "rope")?;
    let x = blocks.min(1 << 30);
    let grid = [x as u32, blocks.div_ceil(x) as u32, 1];
    // SAFETY: the argument is `struct Rope`; every row has `dim` elements, and the result is contiguous.
    unsafe { gpu.launch(function, grid, THREADS as u32, 0, &args) }
}

/// The units that rope asks for.
pub(crate) fn units() -> Vec<(Unit, Vec<&'static str>)> {
    [DType::F16, DType::BF16, DType::F32, DType::F64]
        .into_iter()
        .flat_map(|dtype| [1, pairs(dtype)].map(|n| (unit(dtype, n), vec!["rope"])))
        .collect()
}
