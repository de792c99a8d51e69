//! Copies and casts between strided views, concatenation, borders, fills: the ops that compute nothing.
//!
//! A copy is, in this order of preference: a memory copy where both sides are dense; a transpose through shared memory
//! where one runs across the other; an elementwise kernel of the identity. Where the dtypes are equal, elements are
//! words of their size, so that f32 and i32 share a kernel.

use std::sync::OnceLock;

use bullet_ops::expr::Expr;
use bullet_ops::{DType, Element, Layout, MAX_DIMS, Shape};
use bullet_runtime::jit::Tier;
use bullet_runtime::{DevicePtr, KernelArgs, Result, StreamId};

use super::gpu::{Define, Gpu, Unit, args, blocks, push_layout};
use super::map;
use crate::cpu::convert::with_element;
use crate::cpu::space::Space;
use crate::{View, ViewMut};

const SOURCE: &str = concat!(include_str!("../../cuda/map.cuh"), include_str!("../../cuda/copy.cu"));

/// Threads of a block, as in the source.
const BLOCK: usize = 256;
/// Words that a thread moves at once, as in the source.
const IN_FLIGHT: usize = 4;
/// Tensors that one launch joins, as in the source.
const PARTS: usize = 16;
/// Blocks of a launch at most; the kernels walk the rest in strides.
const MOST_BLOCKS: usize = 1 << 20;

fn words_unit(bytes: usize) -> Unit {
    let defines = vec![Define::Int("CAST", 0), Define::Int("WORD_BYTES", bytes as i64)];
    Unit { name: "copy", source: SOURCE, defines, since: Tier::Sm35 }
}

fn cast_unit(from: DType, to: DType) -> Unit {
    let types = [("T", from), ("O", to), ("C", from.compute())];
    let mut defines = vec![Define::Int("CAST", 1)];
    defines.extend(types.map(|(name, dtype)| Define::Type(name, dtype)));
    Unit { name: "copy", source: SOURCE, defines, since: Tier::Sm35 }
}

/// Units and their entry points; of the transposing casts, each dtype as source and as result once or more.
pub(crate) fn units() -> Vec<(Unit, Vec<&'static str>)> {
    let words = [1, 2, 4, 8].map(|b| (words_unit(b), vec!["transpose", "concat", "pad", "fill"]));
    let wide = (words_unit(16), vec!["concat", "pad", "fill"]);
    let shifted = (0..DType::ALL.len()).map(|i| (DType::ALL[i], DType::ALL[(i + 3) % DType::ALL.len()]));
    let casts =
        shifted.chain([(DType::F32, DType::F16), (DType::F16, DType::F32), (DType::F32, DType::BF16)]);
    words.into_iter().chain([wide]).chain(casts.map(|(a, b)| (cast_unit(a, b), vec!["transpose"]))).collect()
}

/// The dtype by whose kernels elements of this one are moved unchanged.
fn word(dtype: DType) -> DType {
    match dtype {
        DType::Bool | DType::U8 | DType::I8 => DType::U8,
        DType::U16 | DType::I16 | DType::F16 | DType::BF16 => DType::I16,
        DType::U32 | DType::I32 | DType::F32 => DType::I32,
        DType::U64 | DType::I64 | DType::F64 => DType::I64,
    }
}

/// Copies `x` to `out`, of the same shape, converting to its dtype as [`cpu::copy`](crate::cpu::copy::copy()) does.
///
/// # Errors
/// A kernel cannot be compiled or launched.
///
/// # Panics
/// If the shapes differ.
pub fn copy(gpu: &Gpu, x: &View<'_>, out: &mut ViewMut<'_>) -> Result<()> {
    assert_eq!(x.layout().shape, out.layout().shape, "a copy keeps the shape");
    let dims = out.layout().shape;
    let same = x.dtype() == out.dtype();
    if dims.numel() == 0 || same && x.bytes() == out.bytes().cast_const() && x.layout() == out.layout() {
        return Ok(());
    }
    let space = Space::sorted(&dims, &[out.layout().strides(), x.layout().strides()]);
    if same && space.dims().len() == 1 && (0..2).all(|o| space.strides(o) == [1] || space.len() == 1) {
        let (dst, src) = (DevicePtr(out.bytes() as u64), DevicePtr(x.bytes() as u64));
        let bytes = space.len() * x.dtype().size();
        // SAFETY: both views reach these bytes; a result overlaps no operand of another layout.
        return unsafe { gpu.device().driver().copy(StreamId::DEFAULT, dst, src, bytes) };
    }
    if let Some(axis) = across(&space) {
        return transpose(gpu, &space, axis, x, out);
    }
    static IDENTITY: OnceLock<Expr> = OnceLock::new();
    let identity = IDENTITY.get_or_init(|| Expr::build(1, |x| x[0]));
    if !same {
        return map::launch(gpu, identity, x.dtype().compute(), &[*x], out);
    }
    let word = word(x.dtype());
    // SAFETY: the same memory, as words of the same size.
    let (x, mut out) = unsafe {
        (View::new(x.bytes(), word, *x.layout()), ViewMut::new(out.bytes(), word, out.layout().at_origin()))
    };
    map::launch(gpu, identity, DType::I64, &[x], &mut out)
}

/// The axis along which operand 1 is dense, where that isn't the last and both are long enough for tiles.
fn across(space: &Space) -> Option<usize> {
    let (dims, src) = (space.dims(), space.strides(1));
    let last = dims.len() - 1;
    if src[last].unsigned_abs() <= 1 || dims[last] < 8 {
        return None;
    }
    (0..last).find(|&axis| src[axis].unsigned_abs() == 1 && dims[axis] >= 8)
}

/// Whether reading this layout row by row jumps, although another axis of it is dense. A layout that repeats elements
/// is small, and stays in a cache.
pub(super) fn lies_across(layout: &Layout) -> bool {
    let dense = layout.shape.strides();
    let space = Space::new(&layout.shape, &[&dense[..layout.shape.rank()], layout.strides()]);
    !space.strides(1).contains(&0) && across(&space).is_some()
}

fn transpose(gpu: &Gpu, space: &Space, axis: usize, x: &View<'_>, out: &mut ViewMut<'_>) -> Result<()> {
    let size = x.dtype().size();
    let unit = if x.dtype() == out.dtype() { words_unit(size) } else { cast_unit(x.dtype(), out.dtype()) };
    let function = gpu.function(&unit, "transpose")?;
    let (dims, last) = (space.dims(), space.dims().len() - 1);
    let (rows, cols) = (dims[axis], dims[last]);
    let tile = if size <= 2 { 64 } else { 32 };
    let others: Vec<usize> = (0..last).filter(|&a| a != axis).collect();
    let outer: Vec<usize> = others.iter().map(|&a| dims[a]).collect();
    let tiles = outer.iter().product::<usize>() * rows.div_ceil(tile) * cols.div_ceil(tile);
    let mut args =
        args![DevicePtr(out.bytes() as u64), DevicePtr(x.bytes() as u64), rows as i64, cols as i64];
    for o in 0..2 {
        args.push(space.strides(o)[axis] as i64);
        args.push(space.strides(o)[last] as i64);
    }
    for o in 0..2 {
        let strides: Vec<i64> = others.iter().map(|&a| space.strides(o)[a] as i64).collect();
        push_axes(&mut args, &outer, &strides);
    }
    args.push(tiles as i64);
    // SAFETY: the arguments are the kernel's; it visits the points of the space, which are those of the views.
    unsafe { gpu.launch(function, [blocks(tiles, 1, MOST_BLOCKS), 1, 1], BLOCK as u32, 0, &args) }
}

/// Appends `struct Layout` of the prelude for merged axes, of which there are [`MAX_DIMS`] at most.
fn push_axes(args: &mut KernelArgs, dims: &[usize], strides: &[i64]) {
    let shape = Shape::new(dims).expect("axes of a shape that exists, merged");
    let strides: Vec<isize> = strides.iter().map(|&s| s as isize).collect();
    push_layout(args, &Layout::strided(shape, &strides, 0));
}

/// Writes `value`, converted to the dtype, to every element.
///
/// # Errors
/// The kernel cannot be compiled or launched.
pub fn fill(gpu: &Gpu, out: &mut ViewMut<'_>, value: f64) -> Result<()> {
    let dims = out.layout().shape;
    if dims.numel() == 0 {
        return Ok(());
    }
    let pattern = pattern(out.dtype(), value);
    let size = out.dtype().size();
    let space = Space::sorted(&dims, &[out.layout().strides()]);
    let at = DevicePtr(out.bytes() as u64);
    let dense = space.strides(0) == [1] || space.len() == 1;
    let bytes = space.len() * size;
    let first = pattern as u8;
    if dense && pattern == u64::from_ne_bytes([first; 8]) {
        // SAFETY: the view reaches these bytes.
        return unsafe { gpu.fill(at, first, bytes) };
    }
    let word = if dense && at.0.is_multiple_of(16) { 16 } else { size };
    let words = bytes / word;
    let function = gpu.function(&words_unit(word), "fill")?;
    let mut args = args![at, pattern, words as i64];
    let strides: Vec<i64> = space.strides(0).iter().map(|&s| s as i64).collect();
    if dense {
        push_axes(&mut args, &[], &[])
    } else {
        push_axes(&mut args, space.dims(), &strides)
    }
    args.push((bytes % word) as i32);
    let grid = [blocks(words.max(1), BLOCK, MOST_BLOCKS), 1, 1];
    // SAFETY: the arguments are the kernel's; the view reaches the words that it writes.
    unsafe { gpu.launch(function, grid, BLOCK as u32, 0, &args) }
}

/// The bytes of `value` in this dtype, repeated to eight.
fn pattern(dtype: DType, value: f64) -> u64 {
    let mut bytes = [0u8; 8];
    with_element!(dtype, T => {
        let value = T::from_f64(value);
        for at in (0..8).step_by(size_of::<T>()) {
            // SAFETY: sizes of elements divide 8, so that this stays in the array; a write may be unaligned.
            unsafe { bytes.as_mut_ptr().add(at).cast::<T>().write_unaligned(value) };
        }
    });
    u64::from_ne_bytes(bytes)
}

/// Joins `x` along `axis` into `out`, as [`Op::Concat`](bullet_ops::Op::Concat) says.
///
/// # Errors
/// A kernel cannot be compiled or launched.
pub fn concat(gpu: &Gpu, axis: usize, x: &[View<'_>], out: &mut ViewMut<'_>) -> Result<()> {
    let dense = |v: &View<'_>| v.layout().is_contiguous() && v.dtype() == out.dtype();
    if out.layout().is_contiguous() && x.iter().all(dense) {
        return concat_dense(gpu, axis, x, out);
    }
    let mut start = 0;
    for part in x {
        let len = part.layout().shape[axis];
        let window = out.layout().slice(axis, start, len, 1);
        // SAFETY: a slice of the result's own layout.
        copy(gpu, part, &mut unsafe { out.part(window) })?;
        start += len;
    }
    Ok(())
}

fn concat_dense(gpu: &Gpu, axis: usize, x: &[View<'_>], out: &mut ViewMut<'_>) -> Result<()> {
    let shape = out.layout().shape;
    let rows: usize = shape[..axis].iter().product();
    let bytes_of = |shape: &[usize]| shape[axis..].iter().product::<usize>() * out.dtype().size();
    let pitch = bytes_of(&shape);
    let x: Vec<(DevicePtr, usize)> =
        x.iter().map(|v| (DevicePtr(v.bytes() as u64), bytes_of(&v.layout().shape))).collect();
    let dst = DevicePtr(out.bytes() as u64);
    let all = x.iter().filter(|(_, width)| *width > 0);
    let joint = all.fold(pitch | dst.0 as usize, |bits, (at, width)| bits | at.0 as usize | width);
    let word = widest_word(joint);
    let function = gpu.function(&words_unit(word), "concat")?;
    let mut start = 0;
    for group in x.chunks(PARTS) {
        let mut table = [0u8; 24 * PARTS];
        let mut most = 0;
        for (row, &(at, width)) in table.chunks_exact_mut(24).zip(group) {
            let fields = [at.0, (width / word) as u64, (start / word) as u64];
            fields.iter().zip(row.chunks_exact_mut(8)).for_each(|(f, b)| b.copy_from_slice(&f.to_ne_bytes()));
            most = most.max(rows * width / word);
            start += width;
        }
        let mut args = args![dst, rows as i64, (pitch / word) as i64];
        args.push_bytes(&table, 8);
        let grid = [spread(gpu, most), group.len() as u32, 1];
        // SAFETY: the arguments are the kernel's; parts and result have these rows, as the op was inferred.
        unsafe { gpu.launch(function, grid, BLOCK as u32, 0, &args)? };
    }
    Ok(())
}

/// The largest word of which all these numbers, joined by "or", are multiples.
fn widest_word(joint: usize) -> usize {
    1 << joint.trailing_zeros().min(4)
}

/// Blocks for so many words: one a thread while the device has room, [`IN_FLIGHT`] beyond.
fn spread(gpu: &Gpu, words: usize) -> u32 {
    let info = gpu.info();
    let resident = info.multiprocessors as usize * info.threads_per_multiprocessor as usize / BLOCK;
    let single = words.div_ceil(BLOCK);
    if single <= 2 * resident { single as u32 } else { blocks(words, BLOCK * IN_FLIGHT, MOST_BLOCKS) }
}

/// Puts a border of `value` around `x`, as [`Op::Pad`](bullet_ops::Op::Pad) says; `out` is contiguous, of its dtype.
///
/// # Errors
/// A kernel cannot be compiled or launched.
pub fn pad(
    gpu: &Gpu,
    widths: &[(usize, usize)],
    value: f64,
    x: &View<'_>,
    out: &mut ViewMut<'_>,
) -> Result<()> {
    assert_eq!(x.dtype(), out.dtype(), "a border keeps the dtype");
    assert!(out.layout().is_contiguous(), "results of pad are contiguous, got {:?}", out.layout());
    if out.layout().shape.numel() == 0 {
        return Ok(());
    }
    if x.layout().shape.numel() == 0 {
        return fill(gpu, out, value);
    }
    let size = out.dtype().size();
    let (dst, src) = (DevicePtr(out.bytes() as u64), DevicePtr(x.bytes() as u64));
    let mut axes = bordered(widths, x.layout());
    let group = group_of(&axes, (dst.0 | src.0) as usize, size);
    let last = axes.len() - 1;
    for (d, axis) in axes.iter_mut().enumerate() {
        if d == last {
            (axis.len, axis.begin, axis.end) = (axis.len / group, axis.begin / group, axis.end / group);
        } else {
            axis.stride /= group as i64;
        }
    }
    let words: usize = axes.iter().map(|a| a.len).product();
    let function = gpu.function(&words_unit(size * group), "pad")?;
    let mut args = args![dst, src, pattern(out.dtype(), value), words as i64];
    push_border(&mut args, &axes);
    // SAFETY: the arguments are the kernel's; it reads inside the border only, where the operand has elements.
    unsafe { gpu.launch(function, [spread(gpu, words), 1, 1], BLOCK as u32, 0, &args) }
}

/// An axis of a bordered tensor: its length in the result, where the operand begins and ends, and its stride there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Bordered {
    len: usize,
    begin: usize,
    end: usize,
    stride: i64,
}

/// The axes, of which those without a border are merged into the one before where the operand lies densely; at least
/// one.
fn bordered(widths: &[(usize, usize)], x: &Layout) -> Vec<Bordered> {
    let mut axes: Vec<Bordered> = Vec::with_capacity(MAX_DIMS);
    for ((&(before, after), &d), &stride) in widths.iter().zip(x.shape.iter()).zip(x.strides()) {
        let bare = before == 0 && after == 0;
        if bare && d == 1 {
            continue;
        }
        match axes.last_mut() {
            Some(last) if bare && last.stride == stride as i64 * d as i64 => {
                *last = Bordered {
                    len: last.len * d,
                    begin: last.begin * d,
                    end: last.end * d,
                    stride: stride as i64,
                };
            }
            _ => axes.push(Bordered {
                len: before + d + after,
                begin: before,
                end: before + d,
                stride: stride as i64,
            }),
        }
    }
    if axes.is_empty() {
        axes.push(Bordered { len: 1, begin: 0, end: 1, stride: 1 });
    }
    axes
}

/// Elements that move as one word: neighbours along the last axis, on one side of every border.
fn group_of(axes: &[Bordered], addresses: usize, size: usize) -> usize {
    let (last, outer) = axes.split_last().expect("at least one axis");
    if last.stride != 1 {
        return 1;
    }
    let strides = outer.iter().fold(0, |bits, a| bits | a.stride.unsigned_abs() as usize);
    let elements = last.len | last.begin | last.end | strides;
    widest_word(addresses | (elements * size)) / size
}

/// Appends `struct Border` of the source.
fn push_border(args: &mut KernelArgs, axes: &[Bordered]) {
    let mut bytes = [0u8; 8 + 4 * 8 * MAX_DIMS];
    bytes[..4].copy_from_slice(&(axes.len() as i32).to_ne_bytes());
    for (d, axis) in axes.iter().enumerate() {
        let fields = [axis.len as i64, axis.begin as i64, axis.end as i64, axis.stride];
        for (f, field) in fields.iter().enumerate() {
            let at = 8 + 8 * (f * MAX_DIMS + d);
            bytes[at..at + 8].copy_from_slice(&field.to_ne_bytes());
        }
    }
    args.push_bytes(&bytes, 8);
}
