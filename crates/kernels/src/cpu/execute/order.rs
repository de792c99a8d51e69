//! Scans and order: axes as (before, along, after), elements by type, and the type that totals are kept in.

use bullet_ops::{DType, Float};

use super::indexing::{around, with_addend};
use crate::cpu::scan::{self, Spec};
use crate::cpu::sort;
use crate::{View, ViewMut};

pub(super) fn scan(spec: Spec, axis: usize, x: &View<'_>, out: &mut ViewMut<'_>) {
    let dims = around(x.layout(), axis);
    with_addend!(x.dtype(), T => {
        match out.dtype() {
            // Sums and products of unsigned integers that wrap have the same bits.
            DType::U64 => scan::scan::<i64, T, u64>(spec, x.slice(), dims, out.slice()),
            DType::I64 => scan::scan::<i64, T, i64>(spec, x.slice(), dims, out.slice()),
            _ => scan::scan::<f64, T, T>(spec, x.slice(), dims, out.slice()),
        }
    });
}

pub(super) fn cumprod_grad<T: Float>(axis: usize, x: &[View<'_>], out: &mut ViewMut<'_>) {
    scan::cumprod_grad::<T>(x[0].slice(), x[1].slice(), around(x[0].layout(), axis), out.slice());
}

pub(super) fn sort(descending: bool, x: &View<'_>, out: &mut [ViewMut<'_>]) {
    let [y, places] = out else { unreachable!("sort has two results") };
    let width = x.layout().shape.last().copied().unwrap_or(1);
    with_addend!(x.dtype(), T => sort::sort::<T>(x.slice(), width, descending, y.slice(), places.slice()));
}

pub(super) fn nonzero(x: &View<'_>, out: &mut [ViewMut<'_>]) {
    let [places, count] = out else { unreachable!("nonzero has two results") };
    let found = with_addend!(x.dtype(), T => sort::nonzero::<T>(x.slice(), places.slice()));
    count.slice::<i64>()[0] = found as i64;
}

pub(super) fn searchsorted(right: bool, x: &[View<'_>], out: &mut ViewMut<'_>) {
    let (sorted, values) = (&x[0], &x[1]);
    with_addend!(sorted.dtype(), T => {
        sort::searchsorted::<T>(right, sorted.slice(), values.slice(), out.slice())
    });
}
