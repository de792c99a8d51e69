//! The adjoint of every op: from the gradient of its result to those of its operands.
//!
//! Elementwise ops take theirs from the op table, as expressions. The others are one arm of a match each, in terms of
//! other ops. [`reads`] says what an adjoint reads; the tape keeps that and nothing else.

mod order;

use std::cell::RefCell;

use bullet_ops::expr::Expr;
use bullet_ops::table::Adjoint;
use bullet_ops::{Activation, DType, Map, Meta, Op, Reduce, RopeSpec};
use smallvec::smallvec;

use crate::dispatch::{Few, execute, run_expr};
use crate::error::Result;
use crate::tensor::Tensor;

/// What an adjoint has to work with.
pub(crate) struct Context<'a> {
    inputs: &'a [Meta],
    outputs: &'a [Meta],
    needs: &'a [bool],
    saved: Vec<Option<Tensor>>,
    later: RefCell<Few<Deferred>>,
}

/// A gradient that is still to be computed, by an op that computes several at once: [`Op::LinearBiasGrad`],
/// [`Op::LinearWeightGrad`].
pub(crate) struct Deferred {
    /// The operand of the node whose gradient it is.
    pub(crate) operand: usize,
    /// What computes it,
    pub(crate) op: Op,
    /// of these.
    pub(crate) of: Few<Tensor>,
}

impl<'a> Context<'a> {
    pub(crate) fn new(
        inputs: &'a [Meta],
        outputs: &'a [Meta],
        needs: &'a [bool],
        saved: Vec<Option<Tensor>>,
    ) -> Context<'a> {
        Context { inputs, outputs, needs, saved, later: RefCell::default() }
    }

    /// What the adjoint left to be computed.
    pub(crate) fn take_later(&self) -> Few<Deferred> {
        self.later.take()
    }

    fn defer(&self, operand: usize, op: Op, of: Few<Tensor>) {
        if self.needs.get(operand) == Some(&true) {
            self.later.borrow_mut().push(Deferred { operand, op, of });
        }
    }

    /// Operand `i`, which [`reads`] asked for.
    fn x(&self, i: usize) -> &Tensor {
        self.saved[i].as_ref().expect("`reads` lists every operand that an adjoint uses")
    }

    /// Result `i`, which [`reads`] asked for.
    fn y(&self, i: usize) -> &Tensor {
        self.saved[self.inputs.len() + i].as_ref().expect("`reads` lists every result that an adjoint uses")
    }

    /// `f()` if operand `i` needs a gradient.
    fn if_needed(&self, i: usize, f: impl FnOnce() -> Result<Tensor>) -> Result<Option<Tensor>> {
        if self.needs.get(i) == Some(&true) { f().map(Some) } else { Ok(None) }
    }
}

/// Whether gradients flow through this op.
pub(crate) fn is_differentiable(op: &Op) -> bool {
    !matches!(op.row().adjoint, Adjoint::NotDifferentiable)
}

/// Which operands, then which results, the adjoint of `op` reads, given which operands need a gradient.
pub(crate) fn reads(op: &Op, inputs: &[&Tensor]) -> Vec<bool> {
    let needs = |i: usize| inputs.get(i).is_some_and(|t| t.is_tracked());
    let n = inputs.len();
    let mask = |operands: &[usize], results: &[usize]| {
        // Five results are more than any op has.
        let mut keep = vec![false; n + 5];
        operands.iter().filter(|&&i| i < n).for_each(|&i| keep[i] = true);
        results.iter().for_each(|&i| keep[n + i] = true);
        keep
    };
    match op {
        Op::Map(map) => map_reads(*map, n, needs),
        Op::Cast(_) | Op::Copy | Op::Concat { .. } | Op::Pad { .. } | Op::Rope(_) => mask(&[], &[]),
        Op::Reduce { kind: Reduce::Sum | Reduce::Mean, .. } | Op::Scan { product: false, .. } => {
            mask(&[], &[])
        }
        Op::Reduce { kind: Reduce::Max | Reduce::Min, .. } => mask(&[0], &[0]),
        Op::Reduce { kind: Reduce::Var { .. } | Reduce::Prod, .. } => mask(&[0], &[]),
        Op::Scan { product: true, .. } => mask(&[0], &[]),
        Op::Sort { .. } => mask(&[], &[1]),
        Op::MatMul | Op::Conv1d(_) => {
            let mut keep = mask(&[], &[]);
            (keep[0], keep[1]) = (needs(1), needs(0));
            keep
        }
        Op::Linear { activation } => {
            let mut keep = mask(&[], &[]);
            (keep[0], keep[1]) = (needs(1), needs(0));
            keep[n + 1] = *activation != Activation::Identity;
            keep
        }
        Op::Softmax | Op::LogSoftmax => mask(&[], &[0]),
        Op::LayerNorm { .. } => mask(&[0, 1], &[1, 2]),
        Op::RmsNorm { .. } => mask(&[0, 1], &[1]),
        Op::AddNorm { rms: false, .. } => mask(&[2], &[1, 2, 3]),
        Op::AddNorm { rms: true, .. } => mask(&[2], &[1, 2]),
        Op::Embedding
        | Op::Gather { .. }
        | Op::ScatterAdd { .. }
        | Op::IndexSelect { .. }
        | Op::IndexAdd { .. } => mask(&[1], &[]),
        Op::Dropout(_) => mask(&[1], &[]),
        Op::CrossEntropy { .. } => mask(&[0, 1], &[1, 2]),
        Op::Attention(_) => mask(&[0, 1, 2, 3, 4], &[0, 1]),
        Op::AttentionPacked { .. } => mask(&[0, 1], &[0, 1]),
        Op::ArgReduce { .. }
        | Op::Reduce { kind: Reduce::All | Reduce::Any, .. }
        | Op::CumProdGrad { .. }
        | Op::NonZero
        | Op::SearchSorted { .. }
        | Op::SoftmaxGrad
        | Op::LogSoftmaxGrad
        | Op::LayerNormGrad
        | Op::RmsNormGrad
        | Op::AddNormGrad { .. }
        | Op::LinearBiasGrad
        | Op::LinearWeightGrad
        | Op::EmbeddingGrad { .. }
        | Op::CrossEntropyGrad { .. }
        | Op::AttentionGrad(_)
        | Op::AttentionPackedGrad { .. }
        | Op::Conv1dGradInput { .. }
        | Op::Conv1dGradWeight { .. } => mask(&[], &[]),
    }
}

fn map_reads(map: Map, n: usize, needs: impl Fn(usize) -> bool) -> Vec<bool> {
    let rules = map.exprs().adjoint.as_deref().unwrap_or_default();
    (0..=n).map(|v| (0..n).any(|i| needs(i) && rules.get(i).is_some_and(|rule| rule.uses(v)))).collect()
}

/// How many of the first results of `op` gradients flow back from.
pub(crate) fn tracked_results(op: &Op) -> usize {
    if matches!(op, Op::AddNorm { .. }) { 2 } else { 1 }
}

/// The gradients of the operands that need one, from those of the results.
pub(crate) fn adjoint(
    op: &Op,
    cx: &Context<'_>,
    mut grads: Vec<Option<Tensor>>,
) -> Result<Vec<Option<Tensor>>> {
    if let Op::AddNorm { rms, .. } = op {
        let of_sum = grads[1].take();
        return add_norm_adjoint(*rms, cx, grads[0].take(), of_sum);
    }
    let Some(g) = grads.swap_remove(0) else { return Ok(vec![None; cx.inputs.len()]) };
    Ok(match op {
        Op::AddNorm { .. } => unreachable!("handled above: it has gradients of two results"),
        Op::Map(map) => map_adjoint(*map, cx, &g)?,
        Op::Cast(_) => vec![Some(g.cast(cx.inputs[0].dtype)?)],
        Op::Copy => vec![Some(g)],
        Op::Reduce { kind, axes, .. } => vec![Some(reduce_adjoint(*kind, *axes, cx, g)?)],
        Op::Scan { product, axis, reverse, exclusive } => {
            vec![Some(order::scan_adjoint(*product, *axis, (*reverse, *exclusive), cx, &g)?)]
        }
        Op::Sort { .. } => {
            let axis = g.rank() - 1;
            let zeros = Tensor::zeros(&cx.inputs[0].shape, g.dtype(), g.device())?;
            vec![Some(first(execute(&Op::ScatterAdd { axis }, &[&zeros, cx.y(1), &g]))?)]
        }
        Op::MatMul => {
            let da = cx.if_needed(0, || g.matmul(&cx.x(1).transpose(-1, -2)?)?.sum_to(cx.inputs[0].shape))?;
            let db = cx.if_needed(1, || cx.x(0).transpose(-1, -2)?.matmul(&g)?.sum_to(cx.inputs[1].shape))?;
            vec![da, db]
        }
        Op::Linear { activation } => linear_adjoint(*activation, cx, g)?,
        Op::Softmax => some(execute(&Op::SoftmaxGrad, &[cx.y(0), &g])?),
        Op::LogSoftmax => some(execute(&Op::LogSoftmaxGrad, &[cx.y(0), &g])?),
        Op::LayerNorm { .. } => {
            let weight = cx.saved[1].as_ref().filter(|_| cx.inputs.len() > 1);
            let mut operands = vec![cx.x(0), cx.y(1), cx.y(2), &g];
            operands.extend(weight);
            let mut grads = some(execute(&Op::LayerNormGrad, &operands)?);
            grads.truncate(cx.inputs.len());
            grads
        }
        Op::RmsNorm { .. } => {
            let weight = cx.saved[1].as_ref().filter(|_| cx.inputs.len() > 1);
            let mut operands = vec![cx.x(0), cx.y(1), &g];
            operands.extend(weight);
            some(execute(&Op::RmsNormGrad, &operands)?)
        }
        Op::Embedding => {
            let op = Op::EmbeddingGrad { rows: cx.inputs[0].shape[0] };
            vec![execute(&op, &[cx.x(1), &g])?.pop(), None]
        }
        Op::Gather { axis } => vec![Some(add_at(Op::ScatterAdd { axis: *axis }, cx, &g)?), None],
        Op::IndexSelect { axis } => vec![Some(add_at(Op::IndexAdd { axis: *axis }, cx, &g)?), None],
        Op::ScatterAdd { axis } => {
            let ds = cx.if_needed(2, || first(execute(&Op::Gather { axis: *axis }, &[&g, cx.x(1)])))?;
            vec![Some(g), None, ds]
        }
        Op::IndexAdd { axis } => {
            let ds = cx.if_needed(2, || first(execute(&Op::IndexSelect { axis: *axis }, &[&g, cx.x(1)])))?;
            vec![Some(g), None, ds]
        }
        Op::Concat { axis } => {
            let sizes: Vec<usize> = cx.inputs.iter().map(|m| m.shape[*axis]).collect();
            some(g.split(&sizes, *axis as isize)?)
        }
        Op::Pad { widths, .. } => {
            let mut dx = g;
            for (axis, &(before, _)) in widths.iter().enumerate() {
                dx = dx.narrow(axis as isize, before, cx.inputs[0].shape[axis])?;
            }
            vec![Some(dx)]
        }
        // Linear in x, with the same mask.
        Op::Dropout(_) => vec![execute(op, &[&g, cx.x(1)])?.pop(), None],
        Op::CrossEntropy { ignore_index, label_smoothing } => {
            let grad =
                Op::CrossEntropyGrad { ignore_index: *ignore_index, label_smoothing: *label_smoothing };
            vec![execute(&grad, &[cx.x(0), cx.x(1), cx.y(1), cx.y(2), &g])?.pop(), None]
        }
        Op::Attention(spec) => {
            let mut operands = vec![cx.x(0), cx.x(1), cx.x(2), cx.y(0), cx.y(1), &g];
            // The mask and the random state, as far as there are any.
            operands.extend((3..cx.inputs.len()).map(|i| cx.x(i)));
            let mut grads = some(execute(&Op::AttentionGrad(*spec), &operands)?);
            grads.resize(cx.inputs.len(), None);
            grads
        }
        Op::AttentionPacked { spec, heads, kv_heads } => {
            let grad = Op::AttentionPackedGrad { spec: *spec, heads: *heads, kv_heads: *kv_heads };
            let mut operands = vec![cx.x(0), cx.y(0), cx.y(1), &g];
            operands.extend((1..cx.inputs.len()).map(|i| cx.x(i)));
            let mut grads = some(execute(&grad, &operands)?);
            grads.resize(cx.inputs.len(), None);
            grads
        }
        Op::Rope(spec) => some(execute(&Op::Rope(RopeSpec { inverse: !spec.inverse, ..*spec }), &[&g])?),
        Op::Conv1d(spec) => {
            let (length, taps) = (cx.inputs[0].shape[2], cx.inputs[1].shape[2]);
            let dx = cx.if_needed(0, || {
                first(execute(&Op::Conv1dGradInput { spec: *spec, length }, &[cx.x(1), &g]))
            })?;
            let dw = cx.if_needed(1, || {
                first(execute(&Op::Conv1dGradWeight { spec: *spec, taps }, &[cx.x(0), &g]))
            })?;
            let db = cx.if_needed(2, || g.sum(&[0, 2], false))?;
            let mut grads = vec![dx, dw, db];
            grads.truncate(cx.inputs.len());
            grads
        }
        Op::ArgReduce { .. }
        | Op::CumProdGrad { .. }
        | Op::NonZero
        | Op::SearchSorted { .. }
        | Op::SoftmaxGrad
        | Op::LogSoftmaxGrad
        | Op::LayerNormGrad
        | Op::RmsNormGrad
        | Op::AddNormGrad { .. }
        | Op::LinearBiasGrad
        | Op::LinearWeightGrad
        | Op::EmbeddingGrad { .. }
        | Op::CrossEntropyGrad { .. }
        | Op::AttentionGrad(_)
        | Op::AttentionPackedGrad { .. }
        | Op::Conv1dGradInput { .. }
        | Op::Conv1dGradWeight { .. } => {
            unreachable!("{} is not differentiable, so it is not recorded", op.name())
        }
    })
}

/// From the gradients of norm and sum, of which one may be missing.
fn add_norm_adjoint(
    rms: bool,
    cx: &Context<'_>,
    of_norm: Option<Tensor>,
    of_sum: Option<Tensor>,
) -> Result<Vec<Option<Tensor>>> {
    let n = cx.inputs.len();
    let mut grads = match (of_norm, of_sum) {
        (None, None) => return Ok(vec![None; n]),
        (None, of_sum) => vec![of_sum],
        (Some(g), of_sum) => {
            // The sum and its statistics.
            let mut operands: Vec<&Tensor> = (1..if rms { 3 } else { 4 }).map(|i| cx.y(i)).collect();
            operands.push(&g);
            operands.extend(&of_sum);
            operands.extend(cx.saved[2].as_ref().filter(|_| n > 2));
            let op = match (of_sum.is_some(), rms) {
                (true, rms) => Op::AddNormGrad { rms },
                (false, true) => Op::RmsNormGrad,
                (false, false) => Op::LayerNormGrad,
            };
            some(execute(&op, &operands)?)
        }
    };
    // Both summands have the gradient of the sum; each is there only if it is wanted, so that it can be added to in place.
    let of_sum = grads.remove(0);
    let mut all: Vec<Option<Tensor>> = (0..2).map(|i| of_sum.clone().filter(|_| cx.needs[i])).collect();
    all.extend(grads);
    all.resize(n, None);
    Ok(all)
}

fn some(tensors: impl IntoIterator<Item = Tensor>) -> Vec<Option<Tensor>> {
    tensors.into_iter().map(Some).collect()
}

fn first(tensors: Result<Few<Tensor>>) -> Result<Tensor> {
    Ok(tensors?.swap_remove(0))
}

/// Zeros of operand 0 with `g` added at the indices in operand 1.
fn add_at(op: Op, cx: &Context<'_>, g: &Tensor) -> Result<Tensor> {
    let zeros = Tensor::zeros(&cx.inputs[0].shape, g.dtype(), g.device())?;
    first(execute(&op, &[&zeros, cx.x(1), g]))
}

fn map_adjoint(map: Map, cx: &Context<'_>, g: &Tensor) -> Result<Vec<Option<Tensor>>> {
    let rules = map.exprs().adjoint.as_deref().unwrap_or_default();
    let operands: Vec<Option<&Tensor>> = cx.saved.iter().map(Option::as_ref).chain([Some(g)]).collect();
    let grad = |(i, rule): (usize, &Expr)| {
        if !cx.needs[i] {
            return Ok(None);
        }
        let Meta { shape, dtype } = cx.inputs[i];
        if rule.as_const() == Some(0.0) {
            // Whatever `g` is, NaN included. A leaf that went into the result has a gradient, if only of zeros.
            return Tensor::zeros(&shape, dtype, g.device()).map(Some);
        }
        let full = if rule.as_input() == Some(operands.len() - 1) && g.dtype() == dtype {
            g.clone()
        } else {
            let joint = operands.iter().flatten().map(|t| t.dtype()).fold(dtype, DType::promote);
            run_expr(rule, joint.compute(), &operands, Meta::new(cx.outputs[0].shape, dtype), g.device())?
        };
        full.sum_to(shape).map(Some)
    };
    rules.iter().enumerate().map(grad).collect()
}

fn reduce_adjoint(kind: Reduce, axes: bullet_ops::AxisSet, cx: &Context<'_>, g: Tensor) -> Result<Tensor> {
    let shape = cx.inputs[0].shape;
    let kept = shape.reduce(axes, true);
    let n = axes.iter().map(|a| shape[a]).product::<usize>() as f64;
    let g = g.reshape_to(kept)?;
    // As the op has them: to the methods of Tensor no axes means all of them.
    let over_axes = |kind, x: &Tensor| first(execute(&Op::Reduce { kind, axes, keepdims: true }, &[x]));
    match kind {
        Reduce::Sum => g.broadcast_to(&shape),
        Reduce::Mean => scaled(&g, 1.0 / n)?.broadcast_to(&shape),
        Reduce::Prod => order::prod_adjoint(axes, cx.x(0), &g),
        Reduce::All | Reduce::Any => unreachable!("truths are not differentiable, so they are not recorded"),
        Reduce::Max | Reduce::Min => {
            let x = cx.x(0);
            // Counted in the compute type: f16 ends at 65504.
            let wide = g.dtype().compute();
            let hits = x.eq(&cx.y(0).reshape_to(kept)?)?.cast(wide)?;
            let share = g.div(&over_axes(Reduce::Sum, &hits)?)?;
            hits.mul(&share)?.cast(g.dtype())
        }
        Reduce::Var { correction } => {
            let x = cx.x(0);
            let deviation = x.sub(&over_axes(Reduce::Mean, x)?)?;
            // Once more: the mean of values far from 0 is rounded to more than a small deviation, and that of the
            // deviations says by how much.
            let deviation = deviation.sub(&over_axes(Reduce::Mean, &deviation)?)?;
            deviation.mul(&scaled(&g, 2.0 / (n - correction).max(0.0))?)
        }
    }
}

/// `g` times a factor that stays in the type of the computation: 1/n of a large n is 0 in f16.
fn scaled(g: &Tensor, factor: f64) -> Result<Tensor> {
    let expr = Expr::build(1, |x| x[0] * factor);
    run_expr(&expr, g.dtype().compute(), &[Some(g)], g.meta(), g.device())
}

fn linear_adjoint(activation: Activation, cx: &Context<'_>, g: Tensor) -> Result<Vec<Option<Tensor>>> {
    let g = match activation.map() {
        None => g,
        Some(map) => {
            let rule = &map.exprs().adjoint.as_ref().expect("activations are differentiable")[0];
            // An activation's adjoint may read its result; computing it from `pre` again is cheaper than keeping it.
            let pre = cx.y(1);
            let result =
                if rule.uses(1) { Some(execute(&Op::Map(map), &[pre])?.swap_remove(0)) } else { None };
            run_expr(
                rule,
                g.dtype().compute(),
                &[Some(pre), result.as_ref(), Some(&g)],
                g.meta(),
                g.device(),
            )?
        }
    };
    let outputs = *g.shape().last().expect("linear results have an axis");
    let rows = |t: &Tensor| t.reshape(&[-1, *t.shape().last().expect("has an axis") as isize]);
    let flat = if outputs == 0 || g.numel() == 0 { g.clone() } else { rows(&g)? };
    let dx = cx.if_needed(0, || {
        if g.numel() == 0 {
            return Tensor::zeros(&cx.inputs[0].shape, g.dtype(), g.device());
        }
        flat.matmul(cx.x(1))?.reshape_to(cx.inputs[0].shape)
    })?;
    if cx.needs.get(1) == Some(&true) {
        cx.defer(1, Op::LinearWeightGrad, smallvec![g.clone(), cx.x(0).clone()]);
    }
    cx.defer(2, Op::LinearBiasGrad, smallvec![g]);
    let mut grads = vec![dx, None, None];
    grads.truncate(cx.inputs.len());
    Ok(grads)
}
