//! [`LayerNorm`], [`RmsNorm`], and [`NormLayer`], either of them.

use bullet_tensor::decode::Affine;
use bullet_tensor::{Device, Tensor};

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

    /// The norm of the sum of `x` and `added`, of one shape, and the sum.
    pub fn forward_sum(&self, x: &Tensor, added: &Tensor, pass: &Pass) -> Result<(Tensor, Tensor)> {
        let (x, added, weight) = (pass.cast(x)?, pass.cast(added)?, pass.param(&self.weight)?);
        let bias = pass.param_option(self.bias.as_ref())?;
        Ok(x.add_layer_norm(&added, Some(&weight), bias.as_ref(), self.eps)?)
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

    /// The norm of the sum of `x` and `added`, of one shape, and the sum.
    pub fn forward_sum(&self, x: &Tensor, added: &Tensor, pass: &Pass) -> Result<(Tensor, Tensor)> {
        let (x, added, weight) = (pass.cast(x)?, pass.cast(added)?, pass.param(&self.weight)?);
        Ok(x.add_rms_norm(&added, Some(&weight), self.eps)?)
    }
}

impl Module for RmsNorm {
    fn visit(&self, path: &str, f: &mut dyn FnMut(&str, &Tensor)) {
        f(&join(path, "weight"), &self.weight);
    }
}

/// A residual stream, with what is still to be added to it: the norm that comes next does both at once.
#[derive(Clone)]
pub struct Stream {
    /// The stream so far.
    pub x: Tensor,
    /// What the last part adds, of the same shape.
    pub added: Option<Tensor>,
}

impl Stream {
    /// A stream of `x` alone.
    pub fn new(x: Tensor) -> Stream {
        Stream { x, added: None }
    }

    /// The stream on `device`: itself if it is there, else its sum, which is less to move.
    pub fn to_device(self, device: &Device) -> Result<Stream> {
        if self.x.device() == device {
            return Ok(self);
        }
        Ok(Stream::new(self.sum()?.to_device(device)?))
    }

    /// The stream as one tensor.
    pub fn sum(&self) -> Result<Tensor> {
        Ok(match &self.added {
            Some(added) => self.x.add(added)?,
            None => self.x.clone(),
        })
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

    /// Scale and shift.
    pub(crate) fn affine(&self) -> Affine {
        match self {
            NormLayer::Layer(norm) => (norm.weight.clone(), norm.bias.clone()),
            NormLayer::Rms(norm) => (norm.weight.clone(), None),
        }
    }

    /// Where its parameters are.
    pub fn device(&self) -> &Device {
        match self {
            NormLayer::Layer(norm) => norm.weight.device(),
            NormLayer::Rms(norm) => norm.weight.device(),
        }
    }

    /// (.., width) to (.., width).
    pub fn forward(&self, x: &Tensor, pass: &Pass) -> Result<Tensor> {
        match self {
            NormLayer::Layer(norm) => norm.forward(x, pass),
            NormLayer::Rms(norm) => norm.forward(x, pass),
        }
    }

    /// The norm of a residual stream, and the stream.
    pub fn forward_stream(&self, stream: &Stream, pass: &Pass) -> Result<(Tensor, Tensor)> {
        let Stream { x, added } = stream;
        match (self, added) {
            (norm, None) => Ok((norm.forward(x, pass)?, x.clone())),
            (NormLayer::Layer(norm), Some(added)) => norm.forward_sum(x, added, pass),
            (NormLayer::Rms(norm), Some(added)) => norm.forward_sum(x, added, pass),
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
