//! Ops that only models have: dropout, cross-entropy, attention, rotary embedding, convolution.

use bullet_ops::random::WeightDropout;
use bullet_ops::{AttentionSpec, ConvSpec, DType, DropoutSpec, Layout, Op, Result, RopeSpec, Shape};

use super::{Wide, with_float};
use crate::cpu::attention::{Attention, HeadsLayout, HeadsMut, HeadsRef, Mask, Saved, StridedMask};
use crate::cpu::attention::{attention_backward, attention_forward};
use crate::cpu::conv::Conv1d;
use crate::cpu::convert::Storage;
use crate::cpu::rope::{Positions, Rope};
use crate::cpu::{cross_entropy, random, rope};
use crate::{View, ViewMut};

/// Whether operand `i` of attention or its adjoint, whose mask is operand `mask` if there is one, may have this layout.
pub(super) fn attention_takes(spec: AttentionSpec, mask: usize, i: usize, layout: &Layout) -> bool {
    // With dropout, it may be the random state.
    (i == mask && spec.dropout.is_none()) || (i < 3 && dense_rows(layout))
}

pub(super) fn execute(op: &Op, x: &[View<'_>], out: &mut [ViewMut<'_>]) -> Result<()> {
    let dtype = x[0].dtype();
    match op {
        Op::Dropout(spec) => with_float!(dtype, T => dropout::<T>(*spec, x, out)),
        Op::CrossEntropy { ignore_index, label_smoothing } => {
            let spec = cross_entropy::Spec { ignore_index: *ignore_index, label_smoothing: *label_smoothing };
            with_float!(dtype, T => cross_entropy::<T>(spec, x, out))
        }
        Op::CrossEntropyGrad { ignore_index, label_smoothing } => {
            let spec = cross_entropy::Spec { ignore_index: *ignore_index, label_smoothing: *label_smoothing };
            with_float!(dtype, T => cross_entropy_grad::<T>(spec, x, out))
        }
        Op::Attention(spec) => with_float!(dtype, T => attention::<T>(*spec, x, out)),
        Op::AttentionGrad(spec) => with_float!(dtype, T => attention_grad::<T>(*spec, x, out)),
        Op::AttentionPacked { spec, heads, kv_heads } => {
            with_float!(dtype, T => packed::<T>(*spec, *heads, *kv_heads, x, out))
        }
        Op::AttentionPackedGrad { spec, heads, kv_heads } => {
            with_float!(dtype, T => packed_grad::<T>(*spec, *heads, *kv_heads, x, out))
        }
        Op::Rope(spec) => with_float!(dtype, T => rope::<T>(*spec, x, out)),
        Op::Conv1d(spec) => with_float!(dtype, T => conv1d::<T>(*spec, x, out)),
        Op::Conv1dGradInput { spec, .. } => with_float!(dtype, T => conv1d_grad_input::<T>(*spec, x, out)),
        Op::Conv1dGradWeight { spec, .. } => with_float!(dtype, T => conv1d_grad_weight::<T>(*spec, x, out)),
        other => unreachable!("{} is not a model op", other.name()),
    }
}

fn dropout<T: Storage>(spec: DropoutSpec, x: &[View<'_>], out: &mut [ViewMut<'_>]) -> Result<()> {
    let state = x[1].slice::<i64>();
    let counter = random::Counter { seed: state[0] as u64, stream: spec.stream, step: state[1] as u64 };
    random::dropout::<T>(x[0].slice(), spec.p, counter, out[0].slice());
    Ok(())
}

fn cross_entropy<T: Storage>(
    spec: cross_entropy::Spec,
    x: &[View<'_>],
    out: &mut [ViewMut<'_>],
) -> Result<()> {
    let [loss, lse, count] = out else { unreachable!("cross_entropy has three results") };
    let classes = x[0].layout().shape[1];
    let found = cross_entropy::forward::<T>(spec, x[0].slice(), classes, x[1].slice(), lse.slice())?;
    let of = <Wide<T> as bullet_ops::Element>::from_f64;
    loss.slice()[0] = of(found.loss);
    count.slice()[0] = of(found.count as f64);
    Ok(())
}

fn cross_entropy_grad<T: Storage>(
    spec: cross_entropy::Spec,
    x: &[View<'_>],
    out: &mut [ViewMut<'_>],
) -> Result<()> {
    let [logits, targets, lse, count, g] = x else { unreachable!("cross_entropy_grad has five operands") };
    let scalar = |x: &View<'_>| bullet_ops::Element::to_f64(x.slice::<Wide<T>>()[0]);
    let (classes, count) = (logits.layout().shape[1], scalar(count) as usize);
    let (logits, targets, lse) = (logits.slice(), targets.slice(), lse.slice());
    cross_entropy::backward::<T>(spec, logits, classes, targets, lse, count, scalar(g), out[0].slice())
}

/// The layout of `[batch, heads, seq, dim]`.
fn by_head(layout: &Layout) -> HeadsLayout {
    let (d, s) = (layout.shape, layout.strides());
    HeadsLayout {
        batch: d[0],
        heads: d[1],
        seq: d[2],
        dim: d[3],
        batch_stride: s[0],
        head_stride: s[1],
        seq_stride: s[2],
    }
}

/// The layout of contiguous `[batch, seq, heads, dim]`.
fn by_position(layout: &Layout) -> HeadsLayout {
    let d = layout.shape;
    HeadsLayout::by_position(d[0], d[2], d[1], d[3])
}

fn heads<'a, T: Storage>(x: &View<'a>, layout: HeadsLayout) -> HeadsRef<'a, T> {
    // SAFETY: the layout was derived from the view's own.
    unsafe { HeadsRef::from_raw(x.ptr(), layout) }
}

fn heads_mut<'a, T: Storage>(x: &'a mut ViewMut<'_>, layout: HeadsLayout) -> HeadsMut<'a, T> {
    // SAFETY: the layout was derived from the view's own, which names each element once.
    unsafe { HeadsMut::from_raw(x.ptr(), layout) }
}

/// What attention of weights of these sizes (batch, heads, queries, keys) does, from the operands behind those that are
/// always there.
fn attention_of<'a, T: Storage>(
    spec: AttentionSpec,
    sizes: [usize; 4],
    rest: &[View<'a>],
) -> Result<Attention<'a, T>> {
    let (mask, state) = spec.optional(rest);
    let mask = match mask {
        None => Mask::None,
        Some(mask) => {
            let wide = mask.layout().broadcast_to(Shape::new(&sizes)?)?;
            let strides: [isize; 4] = wide.strides().try_into().expect("the scores have four axes");
            // SAFETY: broadcasting reaches no element that the mask's own layout doesn't.
            unsafe {
                match mask.dtype() {
                    DType::Bool => Mask::Attend(StridedMask::from_raw(mask.ptr(), strides)),
                    _ => Mask::Bias(StridedMask::from_raw(mask.ptr(), strides)),
                }
            }
        }
    };
    let dropout = spec.dropout.zip(state).map(|(dropout, state)| {
        let state = state.slice::<i64>();
        WeightDropout::new(dropout, [state[0], state[1]], [sizes[1], sizes[2], sizes[3]])
    });
    Ok(Attention { causal: spec.causal, scale: spec.scale, mask, dropout })
}

/// Sizes of the weights of queries and keys `[batch, heads, sequence, dim]`.
fn weights_of(q: &View<'_>, k: &View<'_>) -> [usize; 4] {
    let (q, k) = (q.layout().shape, k.layout().shape);
    [q[0], q[1], q[2], k[2]]
}

fn attention<T: Storage>(spec: AttentionSpec, x: &[View<'_>], out: &mut [ViewMut<'_>]) -> Result<()> {
    let spec = attention_of::<T>(spec, weights_of(&x[0], &x[1]), &x[3..])?;
    let [q, k, v] = [&x[0], &x[1], &x[2]].map(|x| heads::<T>(x, by_head(x.layout())));
    let [o, lse] = out else { unreachable!("attention has two results") };
    let layout = by_position(o.layout());
    attention_forward(q, k, v, &spec, heads_mut(o, layout), lse.slice())
}

fn attention_grad<T: Storage>(spec: AttentionSpec, x: &[View<'_>], out: &mut [ViewMut<'_>]) -> Result<()> {
    let spec = attention_of::<T>(spec, weights_of(&x[0], &x[1]), &x[6..])?;
    let [q, k, v] = [&x[0], &x[1], &x[2]].map(|x| heads::<T>(x, by_head(x.layout())));
    let [o, grad] = [&x[3], &x[5]].map(|x| heads::<T>(x, by_position(x.layout())));
    let saved = Saved { q, k, v, o, lse: x[4].slice(), grad };
    let [dq, dk, dv] = out else { unreachable!("attention_grad has three results") };
    let [lq, lk, lv] = [&*dq, &*dk, &*dv].map(|d| by_head(d.layout()));
    attention_backward(&saved, &spec, heads_mut(dq, lq), heads_mut(dk, lk), heads_mut(dv, lv))
}

/// Where queries, keys and values lie in `[batch, seq, (heads + 2 kv_heads) * dim]`: first element and layout of each.
fn packed_layouts(shape: Shape, heads: usize, kv_heads: usize) -> [(usize, HeadsLayout); 3] {
    let (batch, seq, width) = (shape[0], shape[1], shape[2]);
    let dim = width / (heads + 2 * kv_heads);
    let part = |first: usize, heads: usize| {
        let layout = HeadsLayout {
            batch,
            heads,
            seq,
            dim,
            batch_stride: (seq * width) as isize,
            head_stride: dim as isize,
            seq_stride: width as isize,
        };
        (first * dim, layout)
    };
    [part(0, heads), part(heads, kv_heads), part(heads + kv_heads, kv_heads)]
}

fn packed<T: Storage>(
    spec: AttentionSpec,
    heads: usize,
    kv_heads: usize,
    x: &[View<'_>],
    out: &mut [ViewMut<'_>],
) -> Result<()> {
    let all = x[0].slice::<T>();
    let [q, k, v] = packed_layouts(x[0].layout().shape, heads, kv_heads);
    let part = |(offset, layout)| HeadsRef::new(all, offset, layout);
    let spec = attention_of::<T>(spec, [q.1.batch, heads, q.1.seq, q.1.seq], &x[1..])?;
    let [o, lse] = out else { unreachable!("attention has two results") };
    let layout = by_position(o.layout());
    attention_forward(part(q)?, part(k)?, part(v)?, &spec, heads_mut(o, layout), lse.slice())
}

fn packed_grad<T: Storage>(
    spec: AttentionSpec,
    heads_q: usize,
    kv_heads: usize,
    x: &[View<'_>],
    out: &mut [ViewMut<'_>],
) -> Result<()> {
    let all = x[0].slice::<T>();
    let layouts = packed_layouts(x[0].layout().shape, heads_q, kv_heads);
    let part = |(offset, layout)| HeadsRef::new(all, offset, layout);
    let [q, k, v] = layouts;
    let (o, grad) = (heads(&x[1], by_position(x[1].layout())), heads(&x[3], by_position(x[3].layout())));
    let saved = Saved { q: part(q)?, k: part(k)?, v: part(v)?, o, lse: x[2].slice(), grad };
    let spec = attention_of::<T>(spec, [q.1.batch, heads_q, q.1.seq, q.1.seq], &x[4..])?;
    let dx: *mut T = out[0].slice::<T>().as_mut_ptr();
    // SAFETY: the three layouts name disjoint elements of the result, which this function borrows exclusively.
    let part_mut = |(offset, layout)| unsafe { HeadsMut::from_raw(dx.wrapping_add(offset), layout) };
    attention_backward(&saved, &spec, part_mut(q), part_mut(k), part_mut(v))
}

/// Whether the last axis is dense, as kernels that work on whole heads want it.
pub(super) fn dense_rows(layout: &Layout) -> bool {
    layout.shape.last() == Some(&1) || layout.strides().last() == Some(&1)
}

/// The layout of `[batch, seq, heads, dim]` with any strides but that of `dim`.
fn by_position_strided(layout: &Layout) -> HeadsLayout {
    let (d, s) = (layout.shape, layout.strides());
    HeadsLayout {
        batch: d[0],
        heads: d[2],
        seq: d[1],
        dim: d[3],
        batch_stride: s[0],
        head_stride: s[2],
        seq_stride: s[1],
    }
}

fn rope<T: Storage>(spec: RopeSpec, x: &[View<'_>], out: &mut [ViewMut<'_>]) -> Result<()> {
    let rope = Rope {
        base: spec.base,
        interleaved: spec.interleaved,
        inverse: spec.inverse,
        heads: spec.heads,
        positions: Positions::From(spec.offset),
    };
    let layout = by_position(out[0].layout());
    rope::rope(heads::<T>(&x[0], by_position_strided(x[0].layout())), &rope, heads_mut(&mut out[0], layout))
}

fn conv1d<T: Storage>(spec: ConvSpec, x: &[View<'_>], out: &mut [ViewMut<'_>]) -> Result<()> {
    let conv = Conv1d::new(sizes(x[0].layout()), sizes(x[1].layout()), spec)?;
    conv.forward::<T>(x[0].slice(), x[1].slice(), x.get(2).map(View::slice), out[0].slice())
}

fn conv1d_grad_input<T: Storage>(spec: ConvSpec, x: &[View<'_>], out: &mut [ViewMut<'_>]) -> Result<()> {
    let conv = Conv1d::new(sizes(out[0].layout()), sizes(x[0].layout()), spec)?;
    conv.grad_input::<T>(x[0].slice(), x[1].slice(), out[0].slice())
}

fn conv1d_grad_weight<T: Storage>(spec: ConvSpec, x: &[View<'_>], out: &mut [ViewMut<'_>]) -> Result<()> {
    let conv = Conv1d::new(sizes(x[0].layout()), sizes(out[0].layout()), spec)?;
    conv.grad_weight::<T>(x[0].slice(), x[1].slice(), out[0].slice())
}

fn sizes(layout: &Layout) -> [usize; 3] {
    [layout.shape[0], layout.shape[1], layout.shape[2]]
}
