//! TEMPORARY
use super::models::execute;
use crate::{View, ViewMut};
use bullet_ops::{Op, Result};
pub(super) fn embedding(x: &[View<'_>], out: &mut ViewMut<'_>) -> Result<()> {
    one(Op::Embedding, x, out)
}
pub(super) fn embedding_grad<T>(rows: usize, x: &[View<'_>], out: &mut ViewMut<'_>) -> Result<()> {
    one(Op::EmbeddingGrad { rows }, x, out)
}
pub(super) fn gather(axis: usize, x: &[View<'_>], out: &mut ViewMut<'_>) -> Result<()> {
    one(Op::Gather { axis }, x, out)
}
pub(super) fn scatter_add(axis: usize, x: &[View<'_>], out: &mut ViewMut<'_>) -> Result<()> {
    one(Op::ScatterAdd { axis }, x, out)
}
pub(super) fn index_select(axis: usize, x: &[View<'_>], out: &mut ViewMut<'_>) -> Result<()> {
    one(Op::IndexSelect { axis }, x, out)
}
pub(super) fn index_add(axis: usize, x: &[View<'_>], out: &mut ViewMut<'_>) -> Result<()> {
    one(Op::IndexAdd { axis }, x, out)
}
fn one(op: Op, x: &[View<'_>], out: &mut ViewMut<'_>) -> Result<()> {
    // SAFETY: the whole of the view.
    let whole = *out.layout();
    let part = unsafe { out.part(whole) };
    execute(&op, x, &mut [part])
}
