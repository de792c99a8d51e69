//! Sums of the columns of many matrices in one launch: `bias_grad.cu`. Their addresses are parameters of the launch, so that
//! a captured one replays.

use bullet_ops::{AxisSet, DType, Reduce};
use bullet_runtime::jit::Tier;
use bullet_runtime::{KernelArgs, Result};

use super::gpu::{Define, Gpu, Unit};
use super::reduce;
use super::rows::{NULL, ptr, ptr_mut, rows_of, vector};
use crate::{View, ViewMut};

const SOURCE: &str = concat!(
    include_str!("../../cuda/last_block.cuh"),
    "#line 1 \"bias_grad.cu\"\n",
    include_str!("../../cuda/bias_grad.cu")
);
const THREADS: usize = 256;
/// Matrices of one launch, and rows that a thread has in flight; as in the source.
const MANY: usize = 64;
const FLIGHT: usize = 4;
/// Tiles that `last_block.cuh` has counters for.
const COUNTERS: usize = 1024;

/// `g[.., n].. -> db[n]..`: sums over all axes but the last, of one dtype. Rows are added in an order that depends on the
/// sizes and the GPU only.
///
/// # Errors
/// Out of memory, or a kernel that does not compile or launch.
pub(crate) fn bias_grad(gpu: &Gpu, x: &[View<'_>], out: &mut [ViewMut<'_>]) -> Result<()> {
    let mut dense = Vec::new();
    for (g, db) in x.iter().zip(out) {
        let (rows, width) = rows_of(g.layout());
        match g.layout().is_contiguous() && rows > 0 {
            true if width == 0 => {}
            true => dense.push(Matrix { g: ptr(g).0, sums: ptr_mut(db).0, rows, width }),
            false => {
                let axes = AxisSet::leading(g.layout().shape.rank() - 1);
                reduce::reduce(gpu, Reduce::Sum, axes, std::slice::from_ref(g), std::slice::from_mut(db))?;
            }
        }
    }
    let dtype = x[0].dtype();
    dense.chunks(MANY).try_for_each(|part| launch(gpu, dtype, part))
}

/// A matrix and where its sums go, by address.
#[derive(Clone, Copy)]
struct Matrix {
    g: u64,
    sums: u64,
    rows: usize,
    width: usize,
}

fn launch(gpu: &Gpu, dtype: DType, part: &[Matrix]) -> Result<()> {
    let addresses: Vec<_> = part.iter().map(|m| bullet_runtime::DevicePtr(m.g)).collect();
    let widths: Vec<usize> = part.iter().map(|m| m.width).collect();
    let vec = vector(dtype, &addresses, &widths, 16);
    let across = across(vec);
    let mut first = Vec::new();
    let mut tiles = 0;
    for m in part {
        first.push(tiles as u32);
        tiles += m.width.div_ceil(across * vec);
    }
    let most = part.iter().map(|m| m.rows).max().unwrap_or(0);
    let blocks = 4 * gpu.info().multiprocessors.max(1) as usize;
    let splits = match tiles <= COUNTERS {
        true => (blocks / tiles).min(most.div_ceil(THREADS / across * FLIGHT)).max(1),
        false => 1,
    };
    let parts = match splits {
        1 => None,
        _ => Some(gpu.scratch(splits * tiles * across * vec * dtype.compute().size())?),
    };
    let columns: [&dyn Fn(&Matrix) -> u64; 4] =
        [&|m| m.g, &|m| m.sums, &|m| m.rows as u64, &|m| m.width as u64];
    let mut table = Vec::new();
    for column in columns {
        let filled = part.iter().map(column).chain(std::iter::repeat(0)).take(MANY);
        filled.for_each(|v| table.extend(v.to_ne_bytes()));
    }
    first.resize(MANY, 0);
    first.iter().for_each(|v| table.extend(v.to_ne_bytes()));
    let mut args = KernelArgs::new();
    args.push_bytes(&table, 8).push(part.len() as u32).push(parts.as_ref().map_or(NULL, |p| p.ptr()));
    let kernel = gpu.function(&unit(dtype, vec), "bias_grad")?;
    // SAFETY: the table names matrices of these sizes, aligned to packs, and results of their widths; `parts` has room for
    // each block's sums.
    unsafe { gpu.launch(kernel, [tiles as u32, splits as u32, 1], THREADS as u32, 0, &args) }
}

/// Packs of a row that a block's threads read side by side.
fn across(vec: usize) -> usize {
    if vec == 1 { 32 } else { 8 }
}

fn unit(dtype: DType, vec: usize) -> Unit {
    let defines = vec![
        Define::Type("T", dtype),
        Define::Int("VEC", vec as i64),
        Define::Int("ACROSS", across(vec) as i64),
    ];
    Unit { name: "bias_grad", source: SOURCE, defines, since: Tier::Sm35 }
}

/// Every kind of unit that this family asks for, with its entry points.
pub(crate) fn units() -> Vec<(Unit, Vec<&'static str>)> {
    let of = |dtype: DType| [1, 2, 16 / dtype.size()].map(|vec| (unit(dtype, vec), vec!["bias_grad"]));
    DType::FLOATS.into_iter().flat_map(of).collect()
}
