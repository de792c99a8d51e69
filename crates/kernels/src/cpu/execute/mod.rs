//! One entry for all ops: from an [`Op`] and untyped views to the kernel, typed by dtype.
//!
//! Operands and results fit the op, as [`Op::infer`] says; results are contiguous and fresh. An error is about values
//! (an index out of range, the maximum of nothing); shapes and dtypes were checked before.

mod indexing;
mod models;
mod order;
mod products;

use bullet_ops::{AxisSet, DType, Layout, Op, Reduce, Result};
use smallvec::SmallVec;

use super::{copy, map, norm, reduce, scan, softmax};
use crate::{View, ViewMut};

/// Runs `$body` with `$T` the Rust type of a floating-point dtype.
macro_rules! with_float {
    ($dtype:expr, $T:ident => $body:expr) => {
        match $dtype {
            bullet_ops::DType::F16 => {
                type $T = half::f16;
                $body
            }
            bullet_ops::DType::BF16 => {
                type $T = half::bf16;
                $body
            }
            bullet_ops::DType::F32 => {
                type $T = f32;
                $body
            }
            bullet_ops::DType::F64 => {
                type $T = f64;
                $body
            }
            other @ (bullet_ops::DType::Bool
            | bullet_ops::DType::U8
            | bullet_ops::DType::U16
            | bullet_ops::DType::U32
            | bullet_ops::DType::U64
            | bullet_ops::DType::I8
            | bullet_ops::DType::I16
            | bullet_ops::DType::I32
            | bullet_ops::DType::I64) => {
                unreachable!("{other} was refused when the op was inferred")
            }
        }
    };
}
pub(super) use with_float;

/// The compute type of a floating-point type.
type Wide<T> = <T as bullet_ops::Float>::Compute;

/// Whether the kernel of `op` takes operand `i` with this layout as it is; otherwise it wants a contiguous copy.
pub fn takes_strided(op: &Op, i: usize, layout: &Layout) -> bool {
    if layout.is_contiguous() {
        return true;
    }
    match op {
        Op::Map(_) | Op::Cast(_) | Op::Copy | Op::Reduce { .. } | Op::ArgReduce { .. } => true,
        Op::LinearBiasGrad => true,
        Op::MatMul | Op::Concat { .. } | Op::Pad { .. } => true,
        Op::Rope(_) => models::dense_rows(layout),
        Op::Linear { .. } => i == 1,
        Op::Attention(spec) => models::attention_takes(*spec, 3, i, layout),
        Op::AttentionGrad(spec) => models::attention_takes(*spec, 6, i, layout),
        Op::Scan { .. }
        | Op::CumProdGrad { .. }
        | Op::Sort { .. }
        | Op::NonZero
        | Op::SearchSorted { .. }
        | Op::Softmax
        | Op::SoftmaxGrad
        | Op::LinearWeightGrad
        | Op::LogSoftmax
        | Op::LogSoftmaxGrad
        | Op::LayerNorm { .. }
        | Op::LayerNormGrad
        | Op::RmsNorm { .. }
        | Op::RmsNormGrad
        | Op::AddNorm { .. }
        | Op::AddNormGrad { .. }
        | Op::Embedding
        | Op::EmbeddingGrad { .. }
        | Op::Gather { .. }
        | Op::ScatterAdd { .. }
        | Op::IndexSelect { .. }
        | Op::IndexAdd { .. }
        | Op::Dropout(_)
        | Op::CrossEntropy { .. }
        | Op::CrossEntropyGrad { .. }
        | Op::AttentionPacked { .. }
        | Op::AttentionPackedGrad { .. }
        | Op::Conv1d(_)
        | Op::Conv1dGradInput { .. }
        | Op::Conv1dGradWeight { .. } => false,
    }
}

/// Computes `op` of `x` into `out`.
///
/// # Errors
/// An index out of range, or a reduction of nothing that has no identity.
pub fn execute(op: &Op, x: &[View<'_>], out: &mut [ViewMut<'_>]) -> Result<()> {
    let dtype = x[0].dtype();
    match op {
        Op::Map(m) => elementwise(*m, x, &mut out[0])?,
        Op::Cast(_) | Op::Copy => copy::copy(&x[0], &mut out[0]),
        Op::Reduce { kind, axes, .. } => reduce::reduce(*kind, &x[0], *axes, &mut out[0])?,
        Op::ArgReduce { max, axis, .. } => reduce::arg_reduce(*max, &x[0], *axis, &mut out[0])?,
        Op::Scan { product, axis, reverse, exclusive } => {
            let spec = scan::Spec { product: *product, reverse: *reverse, exclusive: *exclusive };
            order::scan(spec, *axis, &x[0], &mut out[0]);
        }
        Op::CumProdGrad { axis } => with_float!(dtype, T => order::cumprod_grad::<T>(*axis, x, &mut out[0])),
        Op::Sort { descending } => order::sort(*descending, &x[0], out),
        Op::NonZero => order::nonzero(&x[0], out),
        Op::SearchSorted { right } => order::searchsorted(*right, x, &mut out[0]),
        Op::MatMul => with_float_or_int_product(x, &mut out[0])?,
        Op::Linear { activation } => with_float!(dtype, T => products::linear::<T>(*activation, x, out))?,
        Op::Softmax => with_float!(dtype, T => rows_op::<T>(softmax::Kind::Softmax, x, out)),
        Op::LogSoftmax => with_float!(dtype, T => rows_op::<T>(softmax::Kind::LogSoftmax, x, out)),
        Op::SoftmaxGrad => with_float!(dtype, T => rows_grad::<T>(softmax::Kind::Softmax, x, out)),
        Op::LogSoftmaxGrad => with_float!(dtype, T => rows_grad::<T>(softmax::Kind::LogSoftmax, x, out)),
        Op::LayerNorm { eps } => with_float!(dtype, T => layer_norm::<T>(*eps, x, out)),
        Op::LayerNormGrad => with_float!(dtype, T => layer_norm_grad::<T>(x, out)),
        Op::RmsNorm { eps } => with_float!(dtype, T => rms_norm::<T>(*eps, x, out)),
        Op::RmsNormGrad => with_float!(dtype, T => rms_norm_grad::<T>(x, out)),
        Op::AddNorm { rms, eps } => with_float!(dtype, T => add_norm::<T>(*rms, *eps, x, out)),
        Op::AddNormGrad { rms } => with_float!(dtype, T => add_norm_grad::<T>(*rms, x, out)),
        Op::LinearBiasGrad => {
            for (g, db) in x.iter().zip(out) {
                reduce::reduce(Reduce::Sum, g, AxisSet::leading(g.layout().shape.rank() - 1), db)?;
            }
        }
        Op::LinearWeightGrad => {
            for (pair, dw) in x.as_chunks::<2>().0.iter().zip(out) {
                let (g, x) = (pair[0].as_rows(true), pair[1].as_rows(false));
                with_float!(dtype, T => products::matmul::<T>(&g, &x, dw))?;
            }
        }
        Op::Embedding => indexing::embedding(x, &mut out[0])?,
        Op::EmbeddingGrad { rows } => {
            with_float!(x[1].dtype(), T => indexing::embedding_grad::<T>(*rows, x, &mut out[0]))?
        }
        Op::Gather { axis } => indexing::gather(*axis, x, &mut out[0])?,
        Op::ScatterAdd { axis } => indexing::scatter_add(*axis, x, &mut out[0])?,
        Op::IndexSelect { axis } => indexing::index_select(*axis, x, &mut out[0])?,
        Op::IndexAdd { axis } => indexing::index_add(*axis, x, &mut out[0])?,
        Op::Concat { axis } => concat(*axis, x, &mut out[0]),
        Op::Pad { widths, value } => pad(widths, *value, &x[0], &mut out[0]),
        Op::Dropout(_)
        | Op::CrossEntropy { .. }
        | Op::CrossEntropyGrad { .. }
        | Op::Attention(_)
        | Op::AttentionGrad(_)
        | Op::AttentionPacked { .. }
        | Op::AttentionPackedGrad { .. }
        | Op::Rope(_)
        | Op::Conv1d(_)
        | Op::Conv1dGradInput { .. }
        | Op::Conv1dGradWeight { .. } => models::execute(op, x, out)?,
    }
    Ok(())
}

fn elementwise(m: bullet_ops::Map, x: &[View<'_>], out: &mut ViewMut<'_>) -> Result<()> {
    let dtypes: SmallVec<[DType; 3]> = x.iter().map(View::dtype).collect();
    let (compute, _) = m.types(&dtypes)?;
    let (expr, shape) = (&m.exprs().forward, out.layout().shape);
    if x.iter().all(|v| v.layout().shape == shape) {
        map::map(expr, compute, x, out);
        return Ok(());
    }
    let x: Vec<View<'_>> = x.iter().map(|v| spread(v, shape)).collect::<Result<_>>()?;
    map::map(expr, compute, &x, out);
    Ok(())
}

/// The view broadcast to `shape`.
fn spread<'a>(v: &View<'a>, shape: bullet_ops::Shape) -> Result<View<'a>> {
    // SAFETY: a broadcast layout reaches the elements that the view's own layout does.
    Ok(unsafe { v.with_layout(v.layout().broadcast_to(shape)?) })
}

fn with_float_or_int_product(x: &[View<'_>], out: &mut ViewMut<'_>) -> Result<()> {
    match x[0].dtype() {
        DType::F16 | DType::BF16 | DType::F32 | DType::F64 => {
            with_float!(x[0].dtype(), T => products::matmul::<T>(&x[0], &x[1], out))
        }
        DType::Bool
        | DType::U8
        | DType::U16
        | DType::U32
        | DType::U64
        | DType::I8
        | DType::I16
        | DType::I32
        | DType::I64 => products::matmul_int(&x[0], &x[1], out),
    }
}

/// Length of the last axis.
fn width(layout: &Layout) -> usize {
    layout.shape.last().copied().unwrap_or(1)
}

fn rows_op<T: super::convert::Storage>(kind: softmax::Kind, x: &[View<'_>], out: &mut [ViewMut<'_>]) {
    softmax::forward::<T>(kind, x[0].slice(), width(x[0].layout()), out[0].slice());
}

fn rows_grad<T: super::convert::Storage>(kind: softmax::Kind, x: &[View<'_>], out: &mut [ViewMut<'_>]) {
    softmax::backward::<T>(kind, x[0].slice(), x[1].slice(), width(x[0].layout()), out[0].slice());
}

fn layer_norm<T: super::convert::Storage>(eps: f64, x: &[View<'_>], out: &mut [ViewMut<'_>]) {
    let [y, mean, rstd] = out else { unreachable!("layer_norm has three results") };
    let (w, b) = (x.get(1).map(View::slice), x.get(2).map(View::slice));
    let (mean, rstd) = (mean.slice::<Wide<T>>(), rstd.slice::<Wide<T>>());
    norm::layer_norm::<T>(x[0].slice(), width(x[0].layout()), w, b, eps, y.slice(), mean, rstd);
}

fn layer_norm_grad<T: super::convert::Storage>(x: &[View<'_>], out: &mut [ViewMut<'_>]) {
    let (dx, rest) = out.split_first_mut().expect("layer_norm_grad has a result");
    let (dw, db) = match rest {
        [dw, db] => (Some(dw.slice()), Some(db.slice())),
        _ => (None, None),
    };
    let (mean, rstd) = (x[1].slice::<Wide<T>>(), x[2].slice::<Wide<T>>());
    let w = x.get(4).map(View::slice);
    norm::layer_norm_grad::<T>(
        x[0].slice(),
        width(x[0].layout()),
        mean,
        rstd,
        x[3].slice(),
        w,
        dx.slice(),
        dw,
        db,
    );
}

fn rms_norm<T: super::convert::Storage>(eps: f64, x: &[View<'_>], out: &mut [ViewMut<'_>]) {
    let [y, rstd] = out else { unreachable!("rms_norm has two results") };
    let w = x.get(1).map(View::slice);
    norm::rms_norm::<T>(x[0].slice(), width(x[0].layout()), w, eps, y.slice(), rstd.slice::<Wide<T>>());
}

fn rms_norm_grad<T: super::convert::Storage>(x: &[View<'_>], out: &mut [ViewMut<'_>]) {
    let (dx, rest) = out.split_first_mut().expect("rms_norm_grad has a result");
    let dw = rest.first_mut().map(ViewMut::slice);
    let (rstd, w) = (x[1].slice::<Wide<T>>(), x.get(3).map(View::slice));
    norm::rms_norm_grad::<T>(x[0].slice(), width(x[0].layout()), rstd, x[2].slice(), w, dx.slice(), dw);
}

fn add_norm<T: super::convert::Storage>(rms: bool, eps: f64, x: &[View<'_>], out: &mut [ViewMut<'_>]) {
    let (y, s, mean, rstd) = match out {
        [y, s, rstd] if rms => (y, s, None, rstd),
        [y, s, mean, rstd] => (y, s, Some(mean.slice::<Wide<T>>()), rstd),
        _ => unreachable!("add_layer_norm has four results, add_rms_norm three"),
    };
    let (w, b) = (x.get(2).map(View::slice), x.get(3).map(View::slice));
    let (n, rstd) = (width(x[0].layout()), rstd.slice::<Wide<T>>());
    norm::add_norm::<T>(x[0].slice(), x[1].slice(), n, w, b, eps, y.slice(), s.slice(), mean, rstd);
}

fn add_norm_grad<T: super::convert::Storage>(rms: bool, x: &[View<'_>], out: &mut [ViewMut<'_>]) {
    let mut results = out.iter_mut();
    let ds = results.next().expect("add_norm_grad has a result");
    let (dw, db) = (results.next().map(ViewMut::slice), results.next().map(ViewMut::slice));
    let (mean, rest) = if rms { (None, &x[1..]) } else { (Some(x[1].slice::<Wide<T>>()), &x[2..]) };
    let (rstd, g, gs) = (rest[0].slice::<Wide<T>>(), rest[1].slice(), rest[2].slice());
    let (n, w) = (width(x[0].layout()), rest.get(3).map(View::slice));
    norm::add_norm_grad::<T>(x[0].slice(), n, mean, rstd, g, gs, w, ds.slice(), dw, db);
}

fn concat(axis: usize, x: &[View<'_>], out: &mut ViewMut<'_>) {
    let mut start = 0;
    for part in x {
        let len = part.layout().shape[axis];
        let window = out.layout().slice(axis, start, len, 1);
        // SAFETY: a slice of the result's own layout.
        copy::copy(part, &mut unsafe { out.part(window) });
        start += len;
    }
}

fn pad(widths: &[(usize, usize)], value: f64, x: &View<'_>, out: &mut ViewMut<'_>) {
    copy::fill(out, value);
    let mut window = *out.layout();
    for (axis, &(before, _)) in widths.iter().enumerate() {
        window = window.slice(axis, before, x.layout().shape[axis], 1);
    }
    // SAFETY: a slice of the result's own layout.
    copy::copy(x, &mut unsafe { out.part(window) });
}
