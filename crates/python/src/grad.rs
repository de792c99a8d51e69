//! Whether ops are recorded; `bullet_core.no_grad` is made of these.

use pyo3::prelude::*;

/// Whether ops of this thread are recorded for backward.
#[pyfunction]
pub(crate) fn is_grad_enabled() -> bool {
    bullet_tensor::grad_enabled()
}

/// Says whether ops of this thread are recorded for backward; returns what was before.
#[pyfunction]
pub(crate) fn set_grad_enabled(enabled: bool) -> bool {
    bullet_tensor::set_grad_enabled(enabled)
}
