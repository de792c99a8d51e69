//! One entry for all ops on a GPU: from an [`Op`] and untyped views to launches.

use bullet_ops::{Layout, Op};

use super::gpu::Gpu;
use crate::{View, ViewMut};

/// Whether the kernels of `op` take operand `i` with this layout as it is; otherwise they want a contiguous copy.
pub fn takes_strided(op: &Op, i: usize, layout: &Layout) -> bool {
    layout.is_contiguous() || crate::cpu::takes_strided(op, i, layout)
}
