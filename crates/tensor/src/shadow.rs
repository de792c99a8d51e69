//! Shadows: the values of a parameter in another dtype, kept beside it, so that mixed precision (fp32 master weights under
//! f16 or bf16: Micikevicius et al. 2018) does not cast every parameter in every step.
//!
//! A shadow is made at the first use. An optimizer step writes it together with the parameter
//! ([`Slot::shadow`](crate::optim::Slot::shadow)); whatever else changes the parameter is noticed by its version, and the
//! next use, or [`Tensor::refresh_shadow`], casts it again into the same memory, which captured graphs read.
//!
//! On the tape a shadow is the parameter: gradients go to its leaf, in the shadow's dtype, as no cast stands between.

use std::sync::{Arc, MutexGuard, PoisonError};

use bullet_ops::DType;

use crate::dispatch::copy_into;
use crate::error::Result;
use crate::tape::{Autograd, Leaf, no_grad};
use crate::tensor::Tensor;

/// A copy of a leaf's values.
pub(crate) struct Shadow {
    /// Contiguous, in a dtype of its own.
    values: Tensor,
    /// The version of the leaf's memory that it is a copy of.
    version: u64,
    /// Its own version then: it may be overwritten too.
    own: u64,
}

impl Shadow {
    fn is_fresh(&self, of: &Tensor) -> bool {
        self.version == of.version() && self.own == self.values.version()
    }

    fn refresh(&mut self, of: &Tensor) -> Result<()> {
        // Before the copy: what is written meanwhile is copied once more by the next user.
        self.version = of.version();
        no_grad(|| copy_into(&self.values, &of.detach()))?;
        self.own = self.values.version();
        Ok(())
    }
}

fn lock(leaf: &Leaf) -> MutexGuard<'_, Option<Shadow>> {
    leaf.shadow.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Tensor {
    /// This parameter in `dtype`, from a copy that is kept beside it and up to date: for training, which uses it in every
    /// step. Its gradient goes to this leaf, in `dtype`.
    ///
    /// Of a tensor that is no contiguous leaf, or has a shadow of another dtype, it is the cast, and of one that has the
    /// dtype, itself.
    ///
    /// # Errors
    /// Out of memory.
    pub fn shadow(&self, dtype: DType) -> Result<Tensor> {
        if dtype == self.dtype() {
            return Ok(self.clone());
        }
        let Some(leaf) = self.leaf().filter(|_| self.is_contiguous() && dtype.is_float()) else {
            return self.cast(dtype);
        };
        let mut slot = lock(leaf);
        if slot.is_none() {
            let version = self.version();
            let values = no_grad(|| self.detach().cast(dtype))?;
            *slot = Some(Shadow { own: values.version(), values, version });
        }
        // A shadow is never replaced: captured graphs write to it.
        let Some(shadow) = slot.as_mut().filter(|s| s.values.dtype() == dtype) else {
            return self.cast(dtype);
        };
        if !shadow.is_fresh(self) {
            shadow.refresh(self)?;
        }
        Ok(shadow.values.view_as(*shadow.values.layout(), Some(Autograd::Leaf(Arc::clone(leaf)))))
    }

    /// Brings the shadow of this leaf up to date, if it has one and the leaf was overwritten since, for a captured graph
    /// that reads it.
    ///
    /// # Errors
    /// Out of memory.
    pub fn refresh_shadow(&self) -> Result<()> {
        let Some(leaf) = self.leaf() else { return Ok(()) };
        match lock(leaf).as_mut() {
            Some(shadow) if !shadow.is_fresh(self) => shadow.refresh(self),
            Some(_) | None => Ok(()),
        }
    }

    /// The values of the shadow of this leaf, cut off the tape: for an optimizer step, which keeps it up to date.
    pub fn shadow_values(&self) -> Option<Tensor> {
        lock(self.leaf()?).as_ref().map(|s| s.values.clone())
    }

    /// Says that one kernel wrote this leaf and its shadow, or neither; the caller holds its guards. A shadow that was out
    /// of date before stays so.
    pub(crate) fn shadow_was_written(&self) {
        let Some(leaf) = self.leaf() else { return };
        if let Some(shadow) = lock(leaf).as_mut() {
            let now = (self.version(), shadow.values.version());
            if now == (shadow.version + 1, shadow.own + 1) {
                (shadow.version, shadow.own) = now;
            }
        }
    }
}
