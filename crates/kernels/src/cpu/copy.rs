//! Copies between strided views, casts, and fills: the elementwise ops that compute nothing.

use std::mem::MaybeUninit;

use bullet_ops::expr::Expr;
use bullet_ops::{DType, Element, Layout};

use super::convert::with_element;
use super::map;
use super::par::{self, SharedMut};
use super::space::Space;
use super::stop;
use crate::view::{View, ViewMut};

/// Side of the tiles of a transposing copy: two of them, of 8-byte elements, fit half the first-level cache.
const TILE: usize = 32;

/// Copies `x` to `out`, of the same shape, converting to its dtype (see [`map`](mod@super::map)).
///
/// # Panics
/// If the shapes differ.
pub fn copy(x: &View<'_>, out: &mut ViewMut<'_>) {
    assert_eq!(x.layout().shape, out.layout().shape, "a copy keeps the shape");
    map::map(&Expr::build(1, |x| x[0]), x.dtype().compute(), &[*x], out);
}

/// Writes `value`, converted to the dtype, to every element.
pub fn fill(out: &mut ViewMut<'_>, value: f64) {
    let dims = out.layout().shape;
    if dims.numel() == 0 {
        return;
    }
    let space = Space::sorted(&dims, &[out.layout().strides()]);
    let stride = *space.strides(0).last().expect("at least one axis");
    with_element!(out.dtype(), T => {
        let base = Shared(out.ptr::<T>());
        let value = T::from_f64(value);
        par::for_ranges(space.len(), par::SERIAL_BELOW / size_of::<T>(), |range| {
            space.stretches(0, range.start, range.len(), |_, n, offset| {
                // SAFETY: the points are those of the view, and this range's alone.
                unsafe {
                    let at = base.get().offset(offset);
                    match stride {
                        1 => std::slice::from_raw_parts_mut(at, n).fill(value),
                        _ => (0..n as isize).for_each(|i| *at.offset(i * stride) = value),
                    }
                }
            });
        });
    });
}

/// A pointer that threads write disjoint elements through.
#[derive(Clone, Copy)]
struct Shared<T>(*mut T);
// SAFETY: users write disjoint elements.
unsafe impl<T> Send for Shared<T> {}
// SAFETY: as above.
unsafe impl<T> Sync for Shared<T> {}
impl<T> Shared<T> {
    fn get(&self) -> *mut T {
        self.0
    }
}

/// As [`copy`], where both have the same dtype.
pub(super) fn copy_same(x: &View<'_>, out: &mut ViewMut<'_>) {
    debug_assert_eq!(x.dtype(), out.dtype());
    match x.dtype().size() {
        1 => copy_words::<u8>(x, out),
        2 => copy_words::<u16>(x, out),
        4 => copy_words::<u32>(x, out),
        _ => copy_words::<u64>(x, out),
    }
}

fn copy_words<W: Copy + Send + Sync>(x: &View<'_>, out: &mut ViewMut<'_>) {
    let dims = out.layout().shape;
    if dims.numel() == 0 || x.bytes() == out.bytes().cast_const() && x.layout() == out.layout() {
        return;
    }
    let space = Space::sorted(&dims, &[out.layout().strides(), x.layout().strides()]);
    let (src, dst) = (Shared(x.bytes().cast_mut().cast::<W>()), Shared(out.bytes().cast::<W>()));
    match across(&space) {
        Some(axis) => copy_tiles(&space, axis, src, dst),
        None => copy_rows(&space, src, dst),
    }
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

/// Whether row-major iteration jumps through this layout although another axis of it is dense.
pub(super) fn lies_across(layout: &Layout) -> bool {
    if layout.shape.numel() <= 4096 {
        return false;
    }
    let dense = layout.shape.strides();
    let space = Space::new(&layout.shape, &[&dense[..layout.shape.rank()], layout.strides()]);
    across(&space).is_some()
}

fn copy_rows<W: Copy + Send + Sync>(space: &Space, src: Shared<W>, dst: Shared<W>) {
    let last = space.dims().len() - 1;
    let (from_step, to_step) = (space.strides(1)[last], space.strides(0)[last]);
    let inner = space.inner();
    par::for_ranges(space.len(), par::SERIAL_BELOW / size_of::<W>(), |range| {
        let mut n = range.start;
        while n < range.end {
            let len = (inner - n % inner).min(range.end - n);
            // SAFETY: the points are those of the views; ranges write disjoint ones.
            unsafe {
                let from = src.get().cast_const().offset(space.offset(1, n));
                let to = dst.get().offset(space.offset(0, n));
                match (from_step, to_step) {
                    (1, 1) => to.copy_from_nonoverlapping(from, len),
                    (0, 1) => std::slice::from_raw_parts_mut(to, len).fill(*from),
                    _ => {
                        (0..len as isize).for_each(|i| *to.offset(i * to_step) = *from.offset(i * from_step))
                    }
                }
            }
            n += len;
        }
    });
}

/// Copies tile by tile, so that each cache line fetched on either side is used up while it is there.
fn copy_tiles<W: Copy + Send + Sync>(space: &Space, axis: usize, src: Shared<W>, dst: Shared<W>) {
    let dims = space.dims();
    let last = dims.len() - 1;
    let (rows, cols) = (dims[axis], dims[last]);
    let others: usize = space.len() / rows / cols;
    let bands = rows.div_ceil(TILE);
    let band_bytes = TILE * cols * size_of::<W>();
    // The other axes as a space of their own, in the same order.
    let keep: Vec<usize> = (0..last).filter(|&a| a != axis).collect();
    let pick = |o: usize| keep.iter().map(|&a| space.strides(o)[a]).collect::<Vec<_>>();
    let outer_dims: Vec<usize> = keep.iter().map(|&a| dims[a]).collect();
    let outer = Space::new(&outer_dims, &[&pick(0), &pick(1)]);
    let (to, from) = (space.strides(0), space.strides(1));
    let grain = (par::SERIAL_BELOW / band_bytes).max(1);
    par::for_ranges(others * bands, grain, |range| {
        let mut tile = [[MaybeUninit::<W>::uninit(); TILE]; TILE];
        for job in range {
            let (other, band) = (job / bands, job % bands);
            let r0 = band * TILE;
            let height = TILE.min(rows - r0);
            // SAFETY: the points are those of the views; bands write disjoint ones; what is read of the tile was written.
            unsafe {
                let src = src.get().cast_const().offset(outer.offset(1, other) + r0 as isize * from[axis]);
                let dst = dst.get().offset(outer.offset(0, other) + r0 as isize * to[axis]);
                for c0 in (0..cols).step_by(TILE) {
                    let width = TILE.min(cols - c0);
                    // Through a buffer, so that both sides are touched a whole stretch at a time: with strides of a
                    // power of two, lines of one tile evict each other before they are used up.
                    for c in 0..width {
                        let src = src.offset((c0 + c) as isize * from[last]);
                        for r in 0..height {
                            tile[r][c].write(*src.offset(r as isize * from[axis]));
                        }
                    }
                    for r in 0..height {
                        let dst = dst.offset(r as isize * to[axis] + c0 as isize * to[last]);
                        for c in 0..width {
                            *dst.offset(c as isize * to[last]) = tile[r][c].assume_init();
                        }
                    }
                }
            }
        }
    });
}

/// A contiguous copy of a view, with its memory.
pub(super) struct Owned {
    // u64 for the alignment of every dtype.
    memory: Vec<u64>,
    dtype: DType,
    layout: Layout,
}

impl Owned {
    pub(super) fn contiguous(x: &View<'_>) -> Owned {
        let layout = Layout::contiguous(x.layout().shape);
        let mut memory = stop::filled(0u64, (layout.shape.numel() * x.dtype().size()).div_ceil(8));
        // SAFETY: `memory` has room for the layout, and is borrowed here only.
        let mut out = unsafe { ViewMut::new(memory.as_mut_ptr().cast(), x.dtype(), layout) };
        copy_same(x, &mut out);
        Owned { memory, dtype: x.dtype(), layout }
    }

    pub(super) fn view(&self) -> View<'_> {
        // SAFETY: `contiguous` wrote every element of the layout; the memory is not written while borrowed.
        unsafe { View::new(self.memory.as_ptr().cast(), self.dtype, self.layout) }
    }
}

/// Copies a contiguous slice, in parallel where that is worth it.
pub fn copy_slice<T: Element>(src: &[T], dst: &mut [T]) {
    assert_eq!(src.len(), dst.len());
    let out = SharedMut::new(dst);
    par::for_ranges(src.len(), par::SERIAL_BELOW / size_of::<T>(), |r| {
        // SAFETY: ranges are disjoint.
        unsafe { out.part(r.clone()) }.copy_from_slice(&src[r]);
    });
}
