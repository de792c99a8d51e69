//! Scans: axes as (before, along, after), and the type that totals are kept in.

use bullet_ops::{DType, Float};

use super::indexing::{around, with_addend};
use crate::cpu::scan::{self, Spec};
use crate::{View, ViewMut};

pub(super) fn scan(spec: Spec, axis: usize, x: &View<'_>, out: &mut ViewMut<'_>) {
    let dims = around(x.layout(), axis);
    with_addend!(x.dtype(), T => {
        if x.dtype().is_float() {
            scan::scan::<f64, T, T>(spec, x.slice(), dims, out.slice());
        } else {
            scan::scan::<i64, T, i64>(spec, x.slice(), dims, out.slice());
        }
    });
}

pub(super) fn cumprod_grad<T: Float>(axis: usize, x: &[View<'_>], out: &mut ViewMut<'_>) {
    scan::cumprod_grad::<T>(x[0].slice(), x[1].slice(), around(x[0].layout(), axis), out.slice());
}
