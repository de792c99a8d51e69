//! Ops that move or add elements by index: indices to i64, elements by size or by type.

use bullet_ops::{DType, Layout, Result};

use crate::cpu::{convert::Storage, copy, index, stop};
use crate::{View, ViewMut};

/// Runs `$body` with `$T` an unsigned integer of the dtype's size, for kernels that only move elements.
macro_rules! with_bits {
    ($dtype:expr, $T:ident => $body:expr) => {
        match $dtype.size() {
            1 => {
                type $T = u8;
                $body
            }
            2 => {
                type $T = u16;
                $body
            }
            4 => {
                type $T = u32;
                $body
            }
            _ => {
                type $T = u64;
                $body
            }
        }
    };
}

/// Runs `$body` with `$T` the Rust type of any dtype.
macro_rules! with_addend {
    ($dtype:expr, $T:ident => $body:expr) => {
        with_addend!(@ $dtype, $T, $body,
            Bool bool, U8 u8, U16 u16, U32 u32, U64 u64, I8 i8, I16 i16, I32 i32, I64 i64, F16 half::f16, BF16 half::bf16, F32 f32, F64 f64)
    };
    (@ $dtype:expr, $T:ident, $body:expr, $($variant:ident $ty:ty),*) => {
        match $dtype {
            $(DType::$variant => {
                type $T = $ty;
                $body
            })*
        }
    };
}

pub(super) use with_addend;

/// The elements of a contiguous view as bits of their size.
pub(super) fn bits<'a, W>(x: &View<'a>) -> &'a [W] {
    assert!(x.layout().is_contiguous() && size_of::<W>() == x.dtype().size());
    // SAFETY: contiguous memory of as many elements of this size and alignment; any bits are a valid unsigned integer.
    unsafe { std::slice::from_raw_parts(x.bytes().cast(), x.layout().shape.numel()) }
}

pub(super) fn bits_mut<'a, W>(x: &'a mut ViewMut<'_>) -> &'a mut [W] {
    assert!(x.layout().is_contiguous() && size_of::<W>() == x.dtype().size());
    let len = x.layout().shape.numel();
    // SAFETY: as in `bits`; what is written are bits of elements of the same dtype.
    unsafe { std::slice::from_raw_parts_mut(x.bytes().cast(), len) }
}

/// Indices of any integer dtype as i64.
fn indices<R>(x: &View<'_>, f: impl FnOnce(&[i64]) -> R) -> R {
    if x.dtype() == DType::I64 {
        return f(x.slice());
    }
    let mut wide = stop::filled(0i64, x.layout().shape.numel());
    copy::copy(x, &mut ViewMut::of(&mut wide, Layout::contiguous(x.layout().shape)));
    f(&wide)
}

/// Elements before, along and after an axis.
pub(super) fn around(layout: &Layout, axis: usize) -> (usize, usize, usize) {
    let shape = layout.shape;
    (shape[..axis].iter().product(), shape[axis], shape[axis + 1..].iter().product())
}

pub(super) fn embedding(x: &[View<'_>], out: &mut ViewMut<'_>) -> Result<()> {
    let table = x[0].layout().shape;
    indices(
        &x[1],
        |i| with_bits!(x[0].dtype(), W => index::embedding::<W>(bits(&x[0]), table[0], table[1], i, bits_mut(out))),
    )
}

pub(super) fn embedding_grad<T: Storage>(rows: usize, x: &[View<'_>], out: &mut ViewMut<'_>) -> Result<()> {
    let n = out.layout().shape[1];
    indices(&x[0], |i| index::embedding_grad::<T>(i, x[1].slice(), rows, n, out.slice()))
}

pub(super) fn gather(axis: usize, x: &[View<'_>], out: &mut ViewMut<'_>) -> Result<()> {
    let (shape, picks) = (x[0].layout().shape, x[1].layout().shape);
    indices(
        &x[1],
        |i| with_bits!(x[0].dtype(), W => index::gather::<W>(bits(&x[0]), shape, i, picks, axis, bits_mut(out))),
    )
}

pub(super) fn scatter_add(axis: usize, x: &[View<'_>], out: &mut ViewMut<'_>) -> Result<()> {
    let (shape, picks) = (x[0].layout().shape, x[1].layout().shape);
    indices(&x[1], |i| {
        with_addend!(x[0].dtype(), T => {
            index::scatter_add::<T>(x[0].slice(), shape, i, picks, axis, x[2].slice(), out.slice())
        })
    })
}

pub(super) fn index_select(axis: usize, x: &[View<'_>], out: &mut ViewMut<'_>) -> Result<()> {
    let (outer, len, inner) = around(x[0].layout(), axis);
    indices(
        &x[1],
        |i| with_bits!(x[0].dtype(), W => index::index_select::<W>(bits(&x[0]), outer, len, inner, axis, i, bits_mut(out))),
    )
}

pub(super) fn index_add(axis: usize, x: &[View<'_>], out: &mut ViewMut<'_>) -> Result<()> {
    let (outer, len, inner) = around(x[0].layout(), axis);
    indices(&x[1], |i| {
        with_addend!(x[0].dtype(), T => {
            index::index_add::<T>(x[0].slice(), outer, len, inner, axis, i, x[2].slice(), out.slice())
        })
    })
}
