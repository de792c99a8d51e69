//! Matrix products on the GPU.
//!
//! Three sources: `gemm_simt.cu` (every type and tier), `gemm_mma.cu` (tensor cores by `mma.sync`), `gemm_skinny.cu` (up to
//! 16 rows or columns, bound by memory). `choose` says which, with which tile, and over how many blocks the k of a tile
//! is split; `launch` turns strided operands into units and arguments. Both operands are "rows by k" from here on: b of
//! `a b` has a row for each column of the result.
//!
//! Results are the same bits every time: shares of a split k are added in their order, by whichever block comes last.

mod choose;
mod group;
mod launch;

use bullet_ops::{Activation, DType, Layout};
use bullet_runtime::jit::Tier;
use bullet_runtime::{DevicePtr, Result};

pub use choose::{Precision, force, precision, set_precision, variants};

use super::gpu::{Gpu, Unit};
use crate::{View, ViewMut};
use choose::{Engine, TILES, acc_bytes};
use launch::{Access, ENTRY, LEAD, Product, Side};

/// `c[.., m, n] = a[.., m, k] b[.., k, n]` for every dtype; leading axes broadcast, operands may have any strides, the
/// result is row-major. Integers wrap; of bools the result is whether any product is true.
///
/// # Errors
/// Out of memory, the kernel does not compile, or the launch fails.
pub fn matmul(gpu: &Gpu, x: &[View<'_>], out: &mut [ViewMut<'_>]) -> Result<()> {
    let (la, lb) = (x[0].layout(), x[1].layout());
    let shape = out[0].layout().shape;
    let lead_rank = shape.rank() - 2;
    let mut lead = [1; LEAD];
    lead[..lead_rank].copy_from_slice(&shape[..lead_rank]);
    let axis = |l: &Layout, from_end: usize| {
        let d = l.shape.rank() - from_end;
        (l.shape[d], l.strides()[d])
    };
    let ((m, a_row), (k, a_k)) = (axis(la, 2), axis(la, 1));
    let ((_, b_k), (n, b_row)) = (axis(lb, 2), axis(lb, 1));
    let side = |v: &View<'_>, rows, row, k| Side {
        at: DevicePtr(v.bytes() as u64),
        rows,
        row,
        k,
        lead: lead_strides(v.layout(), lead_rank),
    };
    let product = Product {
        dtype: x[0].dtype(),
        k,
        a: side(&x[0], m, a_row, a_k),
        b: side(&x[1], n, b_row, b_k),
        lead,
        lead_rank,
        c: DevicePtr(out[0].bytes() as u64),
        pre: None,
        bias: None,
        activation: Activation::Identity,
    };
    launch::run(gpu, product)
}

/// Strides of the leading axes of an operand among those of the result; 0 where it is broadcast.
fn lead_strides(layout: &Layout, lead_rank: usize) -> [isize; LEAD] {
    let own = layout.shape.rank() - 2;
    let mut strides = [0; LEAD];
    for d in 0..own {
        if layout.shape[d] != 1 {
            strides[lead_rank - own + d] = layout.strides()[d];
        }
    }
    strides
}

/// `y = activation(x w^T + bias)` for floating-point dtypes: x is contiguous, w[n, k] has any strides, bias (if there is
/// one) is contiguous. The value before the activation goes to the second result, if there is one.
///
/// # Errors
/// As [`matmul`].
pub fn linear(activation: Activation, gpu: &Gpu, x: &[View<'_>], out: &mut [ViewMut<'_>]) -> Result<()> {
    let w = x[1].layout();
    let (n, k) = (w.shape[0], w.shape[1]);
    // Without outputs there are no results, and without inputs the rows can't be told from the input's size.
    let m = out[0].layout().shape.numel() / n.max(1);
    let side =
        |v: &View<'_>, rows, row, k| Side { at: DevicePtr(v.bytes() as u64), rows, row, k, lead: [0; LEAD] };
    let (y, pre) = out.split_first_mut().expect("linear has a result");
    let product = Product {
        dtype: x[0].dtype(),
        k,
        a: side(&x[0], m, k as isize, 1),
        b: side(&x[1], n, w.strides()[0], w.strides()[1]),
        lead: [1; LEAD],
        lead_rank: 0,
        c: DevicePtr(y.bytes() as u64),
        pre: pre.first_mut().map(|pre| DevicePtr(pre.bytes() as u64)),
        bias: x.get(2).map(|b| DevicePtr(b.bytes() as u64)),
        activation,
    };
    launch::run(gpu, product)
}

/// `dw = g^T x` for each pair of operands g (.., outputs) and x (.., inputs), both contiguous, of one floating-point dtype;
/// small ones share launches.
///
/// # Errors
/// As [`matmul`].
pub fn weight_grads(gpu: &Gpu, x: &[View<'_>], out: &mut [ViewMut<'_>]) -> Result<()> {
    let side = |v: &View<'_>| Side {
        at: DevicePtr(v.bytes() as u64),
        rows: v.layout().shape[1],
        row: 1,
        k: v.layout().shape[1] as isize,
        lead: [0; LEAD],
    };
    let product = |(pair, dw): (&[View<'_>; 2], &mut ViewMut<'_>)| {
        let [g, x] = [pair[0].as_rows(false), pair[1].as_rows(false)];
        Product {
            dtype: g.dtype(),
            k: g.layout().shape[0],
            a: side(&g),
            b: side(&x),
            lead: [1; LEAD],
            lead_rank: 0,
            c: DevicePtr(dw.bytes() as u64),
            pre: None,
            bias: None,
            activation: Activation::Identity,
        }
    };
    let pairs = x.as_chunks::<2>().0.iter();
    group::run(gpu, pairs.zip(out).map(product).collect())
}

const FLOATS: [DType; 4] = [DType::F16, DType::BF16, DType::F32, DType::F64];
const INTS: [DType; 6] = [DType::Bool, DType::U8, DType::I8, DType::I16, DType::I32, DType::I64];

/// Every kind of unit that products ask for, with its entry points: all tiles and types in the layouts of training, and
/// those of other strides, activations and widths for some.
pub(crate) fn units() -> Vec<(Unit, Vec<&'static str>)> {
    use Activation::{Gelu, GeluTanh, Identity, Relu, Silu};
    let mut units = Vec::new();
    for dtype in FLOATS.into_iter().chain(INTS) {
        let wide = (16 / dtype.size()).min(8);
        let (along_k, along_rows) =
            (Access { k_major: true, vec: wide }, Access { k_major: false, vec: wide });
        let odd = [true, false].map(|k_major| Access { k_major, vec: 1 });
        for tile in TILES {
            let fits = match tile.engine {
                Engine::Mma => {
                    matches!(dtype, DType::F16 | DType::BF16) || dtype == DType::F32 && tile.size.1 <= 128
                }
                Engine::Simt => match tile.part.0 * tile.part.1 {
                    0..=16 => true,
                    17..=64 => acc_bytes(dtype) == 4,
                    _ => dtype == DType::F32,
                },
                Engine::Skinny => false,
            };
            if !fits {
                continue;
            }
            let wide = tile.part.0 * tile.part.1 > 64;
            let tier = if tile.engine == Engine::Simt && !wide { Tier::Sm35 } else { Tier::Sm80 };
            let mut add = |activation, a, b, split| {
                let unit = launch::tiled_unit(tile, dtype, activation, a, b, split, tier);
                units.push(unit);
            };
            add(if dtype.is_float() { Gelu } else { Identity }, along_k, along_k, false);
            add(Identity, along_rows, along_rows, true);
            if tile.size == (64, 64) {
                add(Identity, odd[0], odd[1], true);
                add(Identity, along_k, along_rows, false);
                if dtype.is_float() {
                    for act in [Relu, GeluTanh, Silu] {
                        add(act, odd[0], along_k, false);
                    }
                }
            }
        }
        for rows in [1, 4, 16] {
            let narrow = if rows > 8 { wide.min(4) } else { wide };
            units.push(launch::skinny_unit(dtype, Identity, rows, wide, Some((32, 1))));
            units.push(launch::skinny_unit(dtype, Identity, rows, narrow, None));
        }
        units.push(launch::skinny_unit(dtype, Identity, 2, 1, Some((8, 4))));
    }
    let mut units: Vec<_> = units.into_iter().map(|unit| (unit, vec![ENTRY])).collect();
    units.extend(group::units().into_iter().map(|unit| (unit, vec![group::ENTRY])));
    units
}
