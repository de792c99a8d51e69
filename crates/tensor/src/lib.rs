//! Tensors, dispatch and reverse-mode differentiation.
