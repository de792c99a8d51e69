//! One entry for all ops on a GPU: from an [`Op`] and untyped views to launches.

use bullet_ops::{Layout, Op, Shape};
use bullet_runtime::{Error, Result};
use smallvec::SmallVec;

use super::gpu::Gpu;
use super::{
    attention, bias_grad, conv, copy, cross_entropy, gemm, index, map, norm, random, reduce, rope, scan,
    softmax, sort,
};
use crate::{View, ViewMut};

/// Whether the kernels of `op` take operand `i` with this layout as it is; otherwise they want a contiguous copy.
pub fn takes_strided(op: &Op, i: usize, layout: &Layout) -> bool {
    layout.is_contiguous() || crate::cpu::takes_strided(op, i, layout)
}

/// Enqueues `op` of `x` into `out` on the default stream; the views are of the device's memory.
///
/// Operands and results fit the op, as [`Op::infer`] says, with layouts that [`takes_strided`] admits; results are
/// contiguous and fresh.
///
/// # Errors
/// A reduction of nothing that has no identity; out of memory; a kernel that does not compile or launch. An index out of
/// range is reported when a result is next read.
pub fn execute(gpu: &Gpu, op: &Op, x: &[View<'_>], out: &mut [ViewMut<'_>]) -> Result<()> {
    match op {
        Op::Map(m) => {
            let dtypes: SmallVec<[_; 4]> = x.iter().map(View::dtype).collect();
            let (compute, _) = m.types(&dtypes).map_err(invalid)?;
            let shape = out[0].layout().shape;
            let mut spreads: SmallVec<[View<'_>; 4]> = SmallVec::new();
            for v in x {
                spreads.push(spread(v, shape)?);
            }
            map::map(gpu, &m.exprs().forward, compute, &spreads, &mut out[0])
        }
        Op::Cast(_) | Op::Copy => copy::copy(gpu, &x[0], &mut out[0]),
        Op::Reduce { kind, axes, .. } => reduce::reduce(gpu, *kind, *axes, x, out),
        Op::ArgReduce { max, axis, .. } => reduce::arg_reduce(gpu, *max, *axis, x, out),
        Op::Scan { product, axis, reverse, exclusive } => {
            scan::scan(gpu, *product, *axis, (*reverse, *exclusive), x, out)
        }
        Op::CumProdGrad { axis } => scan::cumprod_grad(gpu, *axis, x, out),
        Op::Sort { descending } => sort::sort(gpu, *descending, &x[0], out),
        Op::NonZero => scan::nonzero(gpu, &x[0], out),
        Op::SearchSorted { right } => sort::searchsorted(gpu, *right, x, out),
        Op::MatMul => wrapping(gemm::matmul, gpu, x, out),
        Op::Linear { activation } => gemm::linear(*activation, gpu, x, out),
        Op::LinearBiasGrad => bias_grad::bias_grad(gpu, x, out),
        Op::LinearWeightGrad => gemm::weight_grads(gpu, x, out),
        Op::Softmax => softmax::softmax(gpu, false, x, out),
        Op::LogSoftmax => softmax::softmax(gpu, true, x, out),
        Op::SoftmaxGrad => softmax::softmax_grad(gpu, false, x, out),
        Op::LogSoftmaxGrad => softmax::softmax_grad(gpu, true, x, out),
        Op::LayerNorm { eps } => norm::layer_norm(gpu, *eps, x, out),
        Op::LayerNormGrad => norm::layer_norm_grad(gpu, x, out),
        Op::RmsNorm { eps } => norm::rms_norm(gpu, *eps, x, out),
        Op::RmsNormGrad => norm::rms_norm_grad(gpu, x, out),
        Op::AddNorm { rms, eps } => norm::add_norm(gpu, *rms, *eps, x, out),
        Op::AddNormGrad { rms } => norm::add_norm_grad(gpu, *rms, x, out),
        Op::Embedding => index::embedding(gpu, x, out),
        Op::EmbeddingGrad { rows } => index::embedding_grad(gpu, *rows, x, out),
        Op::Gather { axis } => index::gather(gpu, *axis, x, out),
        Op::ScatterAdd { axis } => {
            wrapping(|gpu, x, out| index::scatter_add(gpu, *axis, x, out), gpu, x, out)
        }
        Op::IndexSelect { axis } => index::index_select(gpu, *axis, x, out),
        Op::IndexAdd { axis } => wrapping(|gpu, x, out| index::index_add(gpu, *axis, x, out), gpu, x, out),
        Op::Concat { axis } => copy::concat(gpu, *axis, x, &mut out[0]),
        Op::Pad { widths, value } => copy::pad(gpu, widths, *value, &x[0], &mut out[0]),
        Op::Dropout(spec) => random::dropout(gpu, *spec, x, out),
        Op::CrossEntropy { ignore_index, label_smoothing } => {
            cross_entropy::cross_entropy(gpu, *ignore_index, *label_smoothing, x, out)
        }
        Op::CrossEntropyGrad { ignore_index, label_smoothing } => {
            cross_entropy::cross_entropy_grad(gpu, *ignore_index, *label_smoothing, x, out)
        }
        Op::Attention(spec) => attention::attention(gpu, *spec, x, out),
        Op::AttentionGrad(spec) => attention::attention_grad(gpu, *spec, x, out),
        Op::AttentionPacked { spec, heads, kv_heads } => {
            attention::attention_packed(gpu, *spec, (*heads, *kv_heads), x, out)
        }
        Op::AttentionPackedGrad { spec, heads, kv_heads } => {
            attention::attention_packed_grad(gpu, *spec, (*heads, *kv_heads), x, out)
        }
        Op::Rope(spec) => rope::rope(gpu, *spec, x, out),
        Op::Conv1d(spec) => conv::conv1d(gpu, *spec, x, out),
        Op::Conv1dGradInput { spec, .. } => conv::conv1d_grad_input(gpu, *spec, x, out),
        Op::Conv1dGradWeight { spec, .. } => conv::conv1d_grad_weight(gpu, *spec, x, out),
    }
}

/// What multiplies and adds, and so gives unsigned integers the bits of signed ones: operands of the result's dtype and
/// the result as these, so that no kernel is compiled for the others.
fn wrapping(
    run: impl FnOnce(&Gpu, &[View<'_>], &mut [ViewMut<'_>]) -> Result<()>,
    gpu: &Gpu,
    x: &[View<'_>],
    out: &mut [ViewMut<'_>],
) -> Result<()> {
    let (dtype, layout) = (out[0].dtype(), *out[0].layout());
    let signed = |v: &View<'_>| {
        let dtype = if v.dtype() == dtype { dtype.as_signed() } else { v.dtype() };
        // SAFETY: the same elements, whose bits are an integer of either dtype.
        unsafe { View::new(v.bytes(), dtype, *v.layout()) }
    };
    let x: Vec<View<'_>> = x.iter().map(signed).collect();
    // SAFETY: as above.
    run(gpu, &x, &mut [unsafe { ViewMut::new(out[0].bytes(), dtype.as_signed(), layout) }])
}

/// The view broadcast to `shape`.
fn spread<'a>(v: &View<'a>, shape: Shape) -> Result<View<'a>> {
    let layout = v.layout().broadcast_to(shape).map_err(invalid)?;
    // SAFETY: a broadcast layout reaches the elements that the view's own layout does.
    Ok(unsafe { v.with_layout(layout) })
}

fn invalid(e: bullet_ops::Error) -> Error {
    Error::invalid(e.message)
}
