//! One-dimensional convolution and its adjoints.

use bullet_ops::{ConvSpec, DType, Shape};
use bullet_runtime::jit::Tier;
use bullet_runtime::{Buffer, Error, KernelArgs, Result};

use super::gpu::{Define, Gpu, Unit, blocks};
use crate::{View, ViewMut};

const SOURCE: &str = include_str!("../../cuda/conv.cu");
const THREADS: usize = 256;
/// Terms of a product that are added from one tile.
const STEP: usize = 16;
/// Rows and columns of a block's results; `conv.cu` has them by the rows.
const TILES: [(usize, usize); 3] = [(64, 64), (16, 128), (4, 256)];

/// `MODE` of `conv.cu`.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    Forward,
    Input,
    Weight,
}

/// The sizes of a convolution; channels are those of a group.
#[derive(Clone, Copy)]
struct Sizes {
    batch: usize,
    ci: usize,
    co: usize,
    length: usize,
    out_length: usize,
    taps: usize,
    spec: ConvSpec,
}

impl Sizes {
    /// From the shapes of the input, the weight and the output.
    fn of(x: Shape, w: Shape, y: Shape, spec: ConvSpec) -> Sizes {
        Sizes {
            batch: x[0],
            ci: w[1],
            co: w[0] / spec.groups,
            length: x[2],
            out_length: y[2],
            taps: w[2],
            spec,
        }
    }

    /// Rows, columns and terms of a group's product.
    fn product(&self, mode: Mode) -> [usize; 3] {
        match mode {
            Mode::Forward => [self.co, self.batch * self.out_length, self.ci * self.taps],
            Mode::Input => [self.ci, self.batch * self.length, self.co * self.taps],
            Mode::Weight => [self.co, self.ci * self.taps, self.batch * self.out_length],
        }
    }
}

fn unit(dtype: DType, mode: Mode, rows: usize) -> Unit {
    let defines =
        vec![Define::Type("T", dtype), Define::Int("MODE", mode as i64), Define::Int("ROWS", rows as i64)];
    Unit { name: "conv", source: SOURCE, defines, since: Tier::Sm35 }
}

/// The tile that computes the least beyond the product.
fn tile([rows, columns, _]: [usize; 3]) -> (usize, usize) {
    let area = |&(r, c): &(usize, usize)| rows.div_ceil(r) * r * columns.div_ceil(c) * c;
    TILES.into_iter().min_by_key(area).expect("there are tiles")
}

/// Into how many parts the terms are divided so that `tiles` blocks fill the GPU, and the terms of a part.
fn splits(terms: usize, tiles: usize, multiprocessors: usize) -> (usize, usize) {
    let wanted = (2 * multiprocessors).div_ceil(tiles.max(1)).min(terms.div_ceil(8 * STEP)).max(1);
    let span = terms.div_ceil(wanted).max(1).next_multiple_of(STEP);
    (terms.div_ceil(span).max(1), span)
}

fn run(gpu: &Gpu, mode: Mode, sizes: &Sizes, operands: [u64; 3], out: &mut ViewMut<'_>) -> Result<()> {
    let product = sizes.product(mode);
    let [rows, columns, terms] = product;
    let small = sizes.taps * sizes.ci.max(sizes.co);
    if small > i32::MAX as usize {
        return Err(Error::unsupported(format!(
            "conv1d on a GPU takes up to 2^31 weights of a channel, not {small}"
        )));
    }
    let groups = sizes.spec.groups;
    if groups * rows * columns == 0 {
        return Ok(());
    }
    let (tile_rows, tile_columns) = tile(product);
    let (row_tiles, column_tiles) = (rows.div_ceil(tile_rows), columns.div_ceil(tile_columns));
    let tiles = row_tiles * column_tiles * groups;
    let (splits, span) = match mode {
        Mode::Weight => splits(terms, tiles, gpu.info().multiprocessors as usize),
        Mode::Forward | Mode::Input => (1, terms.max(1)),
    };
    let results = groups * rows * columns;
    let parts: Option<Buffer> = match splits {
        1 => None,
        _ => Some(gpu.scratch(splits * results * out.dtype().compute().size())?),
    };
    let unit = unit(out.dtype(), mode, tile_rows);
    let mut bytes = Vec::with_capacity(256);
    let mut push = |x: u64| bytes.extend_from_slice(&x.to_ne_bytes());
    operands.iter().for_each(|&at| push(at));
    push(out.bytes() as u64);
    push(parts.as_ref().map_or(0, |parts| parts.ptr().0));
    let ConvSpec { stride, padding, dilation, .. } = sizes.spec;
    let Sizes { batch, ci, co, length, out_length, taps, .. } = *sizes;
    let numbers = [
        batch,
        ci,
        co,
        groups,
        length,
        out_length,
        taps,
        stride,
        padding,
        dilation,
        rows,
        columns,
        terms,
        splits,
        span,
        row_tiles,
        column_tiles,
        tiles * splits,
    ];
    numbers.iter().for_each(|&n| push(n as u64));
    let mut args = KernelArgs::new();
    args.push_bytes(&bytes, 8);
    let x = (tiles * splits).min(1 << 30);
    let grid = [x as u32, (tiles * splits).div_ceil(x) as u32, 1];
    let function = gpu.function(&unit, "conv")?;
    // SAFETY: the argument is `struct Conv`; operands and result are contiguous and of the sizes it says.
    unsafe { gpu.launch(function, grid, THREADS as u32, 0, &args)? };
    if parts.is_some() {
        let combine = gpu.function(&unit, "conv_combine")?;
        // SAFETY: as above; `parts` has an element a split and result.
        unsafe { gpu.launch(combine, [blocks(results, THREADS, 1 << 20), 1, 1], THREADS as u32, 0, &args)? };
    }
    Ok(())
}

/// [`Op::Conv1d`](bullet_ops::Op::Conv1d): input, weight and an optional bias to the output.
pub(crate) fn conv1d(gpu: &Gpu, spec: ConvSpec, x: &[View<'_>], out: &mut [ViewMut<'_>]) -> Result<()> {
    let sizes = Sizes::of(x[0].layout().shape, x[1].layout().shape, out[0].layout().shape, spec);
    let bias = x.get(2).map_or(0, |bias| bias.bytes() as u64);
    run(gpu, Mode::Forward, &sizes, [x[1].bytes() as u64, x[0].bytes() as u64, bias], &mut out[0])
}

/// [`Op::Conv1dGradInput`](bullet_ops::Op::Conv1dGradInput): weight and gradient of the output to that of the input.
pub(crate) fn conv1d_grad_input(
    gpu: &Gpu,
    spec: ConvSpec,
    x: &[View<'_>],
    out: &mut [ViewMut<'_>],
) -> Result<()> {
    let sizes = Sizes::of(out[0].layout().shape, x[0].layout().shape, x[1].layout().shape, spec);
    run(gpu, Mode::Input, &sizes, [x[0].bytes() as u64, x[1].bytes() as u64, 0], &mut out[0])
}

/// [`Op::Conv1dGradWeight`](bullet_ops::Op::Conv1dGradWeight): input and gradient of the output to that of the weight.
pub(crate) fn conv1d_grad_weight(
    gpu: &Gpu,
    spec: ConvSpec,
    x: &[View<'_>],
    out: &mut [ViewMut<'_>],
) -> Result<()> {
    let sizes = Sizes::of(x[0].layout().shape, out[0].layout().shape, x[1].layout().shape, spec);
    run(gpu, Mode::Weight, &sizes, [x[1].bytes() as u64, x[0].bytes() as u64, 0], &mut out[0])
}

/// The units that convolutions ask for.
pub(crate) fn units() -> Vec<(Unit, Vec<&'static str>)> {
    let mut units = Vec::new();
    for dtype in [DType::F16, DType::BF16, DType::F32, DType::F64] {
        for (rows, _) in TILES {
            units.push((unit(dtype, Mode::Forward, rows), vec!["conv"]));
            units.push((unit(dtype, Mode::Input, rows), vec!["conv"]));
            units.push((unit(dtype, Mode::Weight, rows), vec!["conv", "conv_combine"]));
        }
    }
    units
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splits_cover_the_terms() {
        for terms in [0, 1, 16, 127, 129, 5000, 1 << 20] {
            for tiles in [1, 3, 1000] {
                let (splits, span) = splits(terms, tiles, 132);
                assert!(span.is_multiple_of(STEP) && splits * span >= terms, "{terms} {tiles}");
                assert!((splits - 1) * span < terms.max(1), "{terms} {tiles}");
            }
        }
    }

    #[test]
    fn tiles_fit_the_product() {
        assert_eq!(tile([512, 4096, 3]), (64, 64));
        assert_eq!(tile([16, 4096, 3]), (16, 128));
        assert_eq!(tile([1, 4096, 3]), (4, 256));
    }
}
