//! [`Scaled`], for tests of numbers that are too small or too large.

use bullet_nn::train::{Objective, tokens_of};
use bullet_nn::{LanguageModel, Module, Pass, Result, Transformer};
use bullet_tensor::Tensor;

/// A model whose loss is multiplied by a number on its (last) device, in f32: small to make gradients faint, infinite to
/// break one step.
pub(crate) struct Scaled {
    pub(crate) model: Transformer,
    pub(crate) factor: Tensor,
}

impl Module for Scaled {
    fn visit(&self, path: &str, f: &mut dyn FnMut(&str, &Tensor)) {
        self.model.visit(path, f);
    }
}

impl Objective for Scaled {
    fn loss(&self, batch: &[Tensor], pass: &Pass) -> Result<Tensor> {
        let (inputs, targets) = tokens_of(batch)?;
        Ok(LanguageModel::loss(&self.model, inputs, targets, pass)?.mul(&self.factor)?)
    }
}
