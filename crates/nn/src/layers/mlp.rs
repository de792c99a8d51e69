//! [`Mlp`]: the feed-forward part of a block.

use bullet_tensor::{Activation, Tensor};

use super::Linear;
use crate::config::FeedForward;
use crate::error::Result;
use crate::init::{Fill, Init};
use crate::module::{Module, Pass, join};

/// Two linear layers with an activation between them, or SwiGLU (Shazeer 2020).
#[derive(Debug)]
pub struct Mlp {
    /// Width to inner width; to twice that under SwiGLU: gate, then value.
    pub fc1: Linear,
    /// Inner width to width.
    pub fc2: Linear,
    /// What is between.
    pub kind: FeedForward,
}

impl Mlp {
    /// A layer from and to `dim`, `ff` wide inside; `out` is drawn for the projection back.
    pub fn new(init: &Init, dim: usize, ff: usize, kind: FeedForward, bias: bool, out: Fill) -> Result<Mlp> {
        let inner = if kind == FeedForward::SwiGlu { 2 * ff } else { ff };
        let fc1 = Linear::new(&init.at("fc1"), dim, inner, bias, Fill::GPT2)?;
        let fc2 = Linear::new(&init.at("fc2"), ff, dim, bias, out)?;
        Ok(Mlp { fc1, fc2, kind })
    }

    /// (.., dim) to (.., dim).
    pub fn forward(&self, x: &Tensor, pass: &Pass) -> Result<Tensor> {
        let activation = match self.kind {
            FeedForward::Gelu => Activation::Gelu,
            FeedForward::GeluTanh => Activation::GeluTanh,
            FeedForward::Relu => Activation::Relu,
            FeedForward::Silu => Activation::Silu,
            FeedForward::SwiGlu => {
                let parts = self.fc1.forward(x, pass)?.chunk(2, -1)?;
                return self.fc2.forward(&parts[0].silu()?.mul(&parts[1])?, pass);
            }
        };
        self.fc2.forward(&self.fc1.forward_with(x, activation, pass)?, pass)
    }
}

impl Module for Mlp {
    fn visit(&self, path: &str, f: &mut dyn FnMut(&str, &Tensor)) {
        self.fc1.visit(&join(path, "fc1"), f);
        self.fc2.visit(&join(path, "fc2"), f);
    }
}
