//! [`TransformerBlock`].

use std::sync::Arc;

use bullet_tensor::{Device, Error as TensorError, Tensor, grad_enabled, recompute};

use super::{Attention, AttentionConfig, LayerCache, Mlp, NormLayer, Stream};
use crate::config::{FeedForward, Norm};
use crate::error::Result;
use crate::init::Init;
use crate::module::{Module, Pass, join};

/// Sizes and kinds of a [`TransformerBlock`].
#[derive(Clone, PartialEq, Debug)]
pub struct BlockConfig {
    /// Its attention; `dim`, `bias` and `out` hold for the feed-forward part too.
    pub attention: AttentionConfig,
    /// Width inside the feed-forward part.
    pub ff: usize,
    /// Kind of the feed-forward part.
    pub feed_forward: FeedForward,
    /// Kind of the norms.
    pub norm: Norm,
    /// Added to the variance, or mean square, in the norms.
    pub norm_eps: f64,
    /// Probability of dropping an element of what each part adds to the residual stream.
    pub dropout: f64,
}

/// Attention, then feed-forward, each normalised before and added to its input (pre-norm: Xiong et al. 2020).
#[derive(Debug)]
pub struct TransformerBlock {
    /// Before the attention.
    pub ln1: NormLayer,
    /// The attention.
    pub attn: Attention,
    /// Before the feed-forward part.
    pub ln2: NormLayer,
    /// The feed-forward part.
    pub mlp: Mlp,
    dropout: f64,
}

impl TransformerBlock {
    /// # Errors
    /// Sizes that don't fit each other.
    pub fn new(init: &Init, config: BlockConfig) -> Result<TransformerBlock> {
        let BlockConfig { attention, ff, feed_forward, norm, norm_eps, dropout } = config;
        let AttentionConfig { dim, bias, out, .. } = attention;
        let norm = |name| NormLayer::new(&init.at(name), norm, dim, bias, norm_eps);
        Ok(TransformerBlock {
            ln1: norm("ln1")?,
            attn: Attention::new(&init.at("attn"), attention)?,
            ln2: norm("ln2")?,
            mlp: Mlp::new(&init.at("mlp"), dim, ff, feed_forward, bias, out)?,
            dropout,
        })
    }

    /// Where its parameters are, and so where its input must be.
    pub fn device(&self) -> &Device {
        self.ln1.device()
    }

    /// (batch, sequence, dim) to the same.
    pub fn forward(&self, x: &Tensor, pass: &Pass) -> Result<Tensor> {
        self.forward_stream(&Stream::new(x.clone()), pass)?.sum()
    }

    /// As [`TransformerBlock::forward`] of a stream whose last sum is still to be done, to another such one.
    pub fn forward_stream(&self, stream: &Stream, pass: &Pass) -> Result<Stream> {
        let (normed, x) = self.ln1.forward_stream(stream, pass)?;
        let attended = self.attn.forward(&normed, pass)?;
        self.feed_forward(&Stream { x, added: Some(pass.dropout(&attended, self.dropout)?) }, pass)
    }

    /// As [`TransformerBlock::forward_stream`], recomputed in backward if the pass says so.
    pub fn forward_in_model(self: &Arc<Self>, stream: Stream, pass: &Pass) -> Result<Stream> {
        match pass.recompute {
            true => Ok(Stream::new(self.forward_recomputed(&stream.sum()?, pass)?)),
            false => self.forward_stream(&stream, pass),
        }
    }

    /// As [`TransformerBlock::forward`] for positions `past..`; see [`Attention::forward_cached`].
    pub fn forward_cached(&self, x: &Tensor, cache: &LayerCache, past: usize, pass: &Pass) -> Result<Tensor> {
        let attended = self.attn.forward_cached(&self.ln1.forward(x, pass)?, cache, past, pass)?;
        self.feed_forward(&Stream { x: x.clone(), added: Some(attended) }, pass)?.sum()
    }

    /// As [`TransformerBlock::forward`], keeping nothing but `x` for backward, which runs the block again.
    pub fn forward_recomputed(self: &Arc<Self>, x: &Tensor, pass: &Pass) -> Result<Tensor> {
        if !grad_enabled() {
            return self.forward(x, pass);
        }
        let (block, inner) = (self.clone(), pass.clone());
        let generator = pass.generator.clone().filter(|_| pass.training);
        let function = move |inputs: &[Tensor]| {
            // A tape function speaks in the tape's errors.
            block.forward(&inputs[0], &inner).map_err(TensorError::from)
        };
        Ok(recompute(function, &[x], generator)?)
    }

    fn feed_forward(&self, stream: &Stream, pass: &Pass) -> Result<Stream> {
        let (normed, x) = self.ln2.forward_stream(stream, pass)?;
        let y = self.mlp.forward(&normed, pass)?;
        Ok(Stream { x, added: Some(pass.dropout(&y, self.dropout)?) })
    }
}

impl Module for TransformerBlock {
    fn visit(&self, path: &str, f: &mut dyn FnMut(&str, &Tensor)) {
        self.ln1.visit(&join(path, "ln1"), f);
        self.attn.visit(&join(path, "attn"), f);
        self.ln2.visit(&join(path, "ln2"), f);
        self.mlp.visit(&join(path, "mlp"), f);
    }
}
