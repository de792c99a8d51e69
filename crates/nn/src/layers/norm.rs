//! [`LayerNorm`], [`RmsNorm`], and [`NormLayer`], either of them.

use bullet_tensor::Tensor;

use crate::config::Norm;
use crate::error::Result;
use crate::init::{Fill, Init};
use crate::module::{Module, Pass, join};

/// Layer normalisation over the last axis (Ba et al. 2016).
#[derive(Debug)]
pub struct LayerNorm {
    /// Scale, shape (width,).
    pub weight: Tensor,
    /// Shift, shape (width,), if there is one.
    pub bias: Option<Tensor>,
    /// Added to the variance.
    pub eps: f64,
}

impl LayerNorm {
    /// Scale 1 and shift 0.
    pub fn new(init: &Init, width: usize, bias: bool, eps: f64) -> Result<LayerNorm> {
        let weight = init.param("weight", &[width], Fill::Ones)?;
        let bias = bias.then(|| init.param("bias", &[width], Fill::Zeros)).transpose()?;
        Ok(LayerNorm { weight, bias, eps })
    }

    /// (.., width) to (.., width).
    pub fn forward(&self, x: &Tensor, pass: &Pass) -> Result<Tensor> {
        let (x, weight) = (pass.cast(x)?, pass.param(&self.weight)?);
        let bias = pass.param_option(self.bias.as_ref())?;
        Ok(x.layer_norm(Some(&weight), bias.as_ref(), self.eps)?)
    }
}

impl Module for LayerNorm {
    fn visit(&self, path: &str, f: &mut dyn FnMut(&str, &Tensor)) {
        f(&join(path, "weight"), &self.weight);
        if let Some(bias) = &self.bias {
            f(&join(path, "bias"), bias);
        }
    }
}

/// Root-mean-square normalisation over the last axis (Zhang and Sennrich 2019).
#[derive(Debug)]
pub struct RmsNorm {
    /// Scale, shape (width,).
    pub weight: Tensor,
    /// Added to the mean square.
    pub eps: f64,
}

impl RmsNorm {
    /// Scale 1.
    pub fn new(init: &Init, width: usize, eps: f64) -> Result<RmsNorm> {
        Ok(RmsNorm { weight: init.param("weight", &[width], Fill::Ones)?, eps })
    }

    /// (.., width) to (.., width).
    pub fn forward(&self, x: &Tensor, pass: &Pass) -> Result<Tensor> {
        Ok(pass.cast(x)?.rms_norm(Some(&pass.param(&self.weight)?), self.eps)?)
    }
}

impl Module for RmsNorm {
    fn visit(&self, path: &str, f: &mut dyn FnMut(&str, &Tensor)) {
        f(&join(path, "weight"), &self.weight);
    }
}

/// The normalisation that a configuration chose.
#[derive(Debug)]
pub enum NormLayer {
    /// [`LayerNorm`].
    Layer(LayerNorm),
    /// [`RmsNorm`].
    Rms(RmsNorm),
}

impl NormLayer {
    /// The one that `kind` names; `bias` is for layer normalisation only.
    pub fn new(init: &Init, kind: Norm, width: usize, bias: bool, eps: f64) -> Result<NormLayer> {
        Ok(match kind {
            Norm::Layer => NormLayer::Layer(LayerNorm::new(init, width, bias, eps)?),
            Norm::Rms => NormLayer::Rms(RmsNorm::new(init, width, eps)?),
        })
    }

    /// (.., width) to (.., width).
    pub fn forward(&self, x: &Tensor, pass: &Pass) -> Result<Tensor> {
        match self {
            NormLayer::Layer(norm) => norm.forward(x, pass),
            NormLayer::Rms(norm) => norm.forward(x, pass),
        }
    }
}

impl Module for NormLayer {
    fn visit(&self, path: &str, f: &mut dyn FnMut(&str, &Tensor)) {
        match self {
            NormLayer::Layer(norm) => norm.visit(path, f),
            NormLayer::Rms(norm) => norm.visit(path, f),
        }
    }
}
