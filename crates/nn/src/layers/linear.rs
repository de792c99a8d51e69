//! [`Linear`].

use bullet_tensor::decode::Affine;
use bullet_tensor::{Activation, Tensor};

use crate::error::Result;
use crate::init::{Fill, Init};
use crate::module::{Module, Pass, join};

/// `y = x W^T + b` over the last axis.
#[derive(Debug)]
pub struct Linear {
    /// Shape (outputs, inputs).
    pub weight: Tensor,
    /// Shape (outputs,), if there is one.
    pub bias: Option<Tensor>,
}

impl Linear {
    /// A layer whose weight is drawn from `fill`; the bias, if any, is 0.
    pub fn new(init: &Init, inputs: usize, outputs: usize, bias: bool, fill: Fill) -> Result<Linear> {
        let weight = init.param("weight", &[outputs, inputs], fill)?;
        let bias = bias.then(|| init.param("bias", &[outputs], Fill::Zeros)).transpose()?;
        Ok(Linear { weight, bias })
    }

    /// A layer that shares `weight`, without a bias of its own.
    pub fn tied(weight: &Tensor) -> Linear {
        Linear { weight: weight.clone(), bias: None }
    }

    /// Weight and bias.
    pub(crate) fn affine(&self) -> Affine {
        (self.weight.clone(), self.bias.clone())
    }

    /// (.., inputs) to (.., outputs).
    pub fn forward(&self, x: &Tensor, pass: &Pass) -> Result<Tensor> {
        self.forward_with(x, Activation::Identity, pass)
    }

    /// As [`Linear::forward`], with `activation` fused into the product.
    pub fn forward_with(&self, x: &Tensor, activation: Activation, pass: &Pass) -> Result<Tensor> {
        let (x, weight) = (pass.cast(x)?, pass.param(&self.weight)?);
        let bias = pass.param_option(self.bias.as_ref())?;
        Ok(x.linear(&weight, bias.as_ref(), activation)?)
    }
}

impl Module for Linear {
    fn visit(&self, path: &str, f: &mut dyn FnMut(&str, &Tensor)) {
        f(&join(path, "weight"), &self.weight);
        if let Some(bias) = &self.bias {
            f(&join(path, "bias"), bias);
        }
    }
}
