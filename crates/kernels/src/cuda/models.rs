//! Ops that only models have: attention, rotary embedding, convolution.

use bullet_ops::Op;
use bullet_runtime::Result;

use super::gpu::Gpu;
use super::{attention, conv, rope};
use crate::{View, ViewMut};

/// Enqueues attention, rope or a convolution of `x` into `out`, whose views hold device addresses; false if `op` is none
/// of these.
///
/// # Errors
/// Heads of more than 256 elements, a rope whose base is not positive, or an error of the device.
///
/// # Safety
/// Operands and results fit the op, as [`Op::infer`] says, with layouts that [`takes_strided`](super::takes_strided)
/// admits; results are contiguous. Their memory is of this device and stays theirs until the work enqueued here is done.
pub unsafe fn execute_models(gpu: &Gpu, op: &Op, x: &[View<'_>], out: &mut [ViewMut<'_>]) -> Result<bool> {
    match op {
        Op::Attention(spec) => attention::attention(gpu, *spec, x, out)?,
        Op::AttentionGrad(spec) => attention::attention_grad(gpu, *spec, x, out)?,
        Op::AttentionPacked { spec, heads, kv_heads } => {
            attention::attention_packed(gpu, *spec, (*heads, *kv_heads), x, out)?;
        }
        Op::AttentionPackedGrad { spec, heads, kv_heads } => {
            attention::attention_packed_grad(gpu, *spec, (*heads, *kv_heads), x, out)?;
        }
        Op::Rope(spec) => rope::rope(gpu, *spec, x, out)?,
        Op::Conv1d(spec) => conv::conv1d(gpu, *spec, x, out)?,
        Op::Conv1dGradInput { spec, .. } => conv::conv1d_grad_input(gpu, *spec, x, out)?,
        Op::Conv1dGradWeight { spec, .. } => conv::conv1d_grad_weight(gpu, *spec, x, out)?,
        _ => return Ok(false),
    }
    Ok(true)
}
