//! [`Attention`], for training on whole sequences and for decoding with cached keys and values.

use bullet_tensor::{DType, Device, Tensor};

use super::Linear;
use crate::error::{Error, Result};
use crate::init::{Fill, Init};
use crate::module::{Module, Pass, join};

/// Sizes and kind of an [`Attention`].
#[derive(Clone, PartialEq, Debug)]
pub struct AttentionConfig {
    /// Width of input and output.
    pub dim: usize,
    /// Query heads; divides `dim`.
    pub heads: usize,
    /// Key and value heads, each shared by `heads / kv_heads` query heads (Ainslie et al. 2023); divides `heads`.
    pub kv_heads: usize,
    /// Whether a position sees only itself and those before it.
    pub causal: bool,
    /// Base of the rotary embedding of queries and keys; none if `None`.
    pub rope: Option<f64>,
    /// Whether the linear layers have biases.
    pub bias: bool,
    /// What the output projection is drawn from.
    pub out: Fill,
    /// Probability of dropping a weight, in training.
    pub dropout: f64,
}

impl AttentionConfig {
    /// Width of a head.
    pub fn head_dim(&self) -> usize {
        self.dim / self.heads
    }

    /// # Errors
    /// Sizes that are 0 or don't divide each other; an odd head width under rotary embedding.
    pub fn validate(&self) -> Result<()> {
        let AttentionConfig { dim, heads, kv_heads, .. } = *self;
        let problem = if dim == 0 || heads == 0 || kv_heads == 0 {
            format!("dim = {dim}, heads = {heads} and kv_heads = {kv_heads} must be at least 1")
        } else if dim % heads != 0 {
            format!("heads = {heads} must divide dim = {dim}")
        } else if heads % kv_heads != 0 {
            format!("kv_heads = {kv_heads} must divide heads = {heads}")
        } else if self.rope.is_some() && (dim / heads) % 2 != 0 {
            format!(
                "rotary embedding pairs elements, but dim / heads = {dim} / {heads} = {} is odd",
                dim / heads
            )
        } else {
            return Ok(());
        };
        Err(Error::argument(format!("attention: {problem}")))
    }
}

/// Multi-head attention (Vaswani et al. 2017): one product for queries, keys and values, attention, a projection.
#[derive(Debug)]
pub struct Attention {
    /// Queries, keys and values, packed in that order: (heads + 2 kv_heads) * head width outputs.
    pub qkv: Linear,
    /// Back to `dim`.
    pub proj: Linear,
    config: AttentionConfig,
}

impl Attention {
    /// # Errors
    /// [`AttentionConfig::validate`]'s.
    pub fn new(init: &Init, config: AttentionConfig) -> Result<Attention> {
        config.validate()?;
        let outputs = (config.heads + 2 * config.kv_heads) * config.head_dim();
        let qkv = Linear::new(&init.at("qkv"), config.dim, outputs, config.bias, Fill::GPT2)?;
        let proj = Linear::new(&init.at("proj"), config.dim, config.dim, config.bias, config.out)?;
        Ok(Attention { qkv, proj, config })
    }

    /// Its sizes.
    pub fn config(&self) -> &AttentionConfig {
        &self.config
    }

    /// (batch, sequence, dim) to the same; positions count from 0.
    pub fn forward(&self, x: &Tensor, pass: &Pass) -> Result<Tensor> {
        let AttentionConfig { dim, heads, kv_heads, causal, rope, dropout, .. } = self.config;
        let mut qkv = self.qkv.forward(x, pass)?;
        if let Some(base) = rope {
            let packed = [qkv.dim(0) as isize, qkv.dim(1) as isize, qkv.dim(2) as isize];
            qkv = self.heads_of(&qkv)?.rope_heads(base, 0, false, heads + kv_heads)?.reshape(&packed)?;
        }
        let y = qkv.attention_packed(heads, kv_heads, causal, pass.dropout_of(dropout)?)?;
        let y = y.reshape(&[y.dim(0) as isize, y.dim(1) as isize, dim as isize])?;
        self.proj.forward(&y, pass)
    }

    /// As [`Attention::forward`] for positions `past..`, whose keys and values are written to `cache` and attend to all
    /// that it holds up to there. Not for gradients: the cache is overwritten in place.
    ///
    /// # Errors
    /// The cache is too short, or of another batch size; the attention is not causal.
    pub fn forward_cached(&self, x: &Tensor, cache: &LayerCache, past: usize, pass: &Pass) -> Result<Tensor> {
        let AttentionConfig { dim, heads, kv_heads, causal, rope, .. } = self.config;
        if !causal {
            return Err(Error::argument(
                "only causal attention can be decoded step by step: elsewhere later tokens change earlier outputs",
            ));
        }
        let (batch, len) = (x.dim(0), x.dim(1));
        let mut qkv = self.heads_of(&self.qkv.forward(x, pass)?)?;
        if let Some(base) = rope {
            qkv = qkv.rope_heads(base, past, false, heads + kv_heads)?;
        }
        // Heads before positions: a head's rows then lie together, here and in the cache.
        let part = |start, n| qkv.narrow(2, start, n)?.transpose(1, 2);
        cache.keys_values.narrow(2, past, len)?.copy_(&part(heads, 2 * kv_heads)?)?;
        let seen = cache.keys_values.narrow(2, 0, past + len)?;
        let (keys, values) = (seen.narrow(1, 0, kv_heads)?, seen.narrow(1, kv_heads, kv_heads)?);
        let y = part(0, heads)?.attention(&keys, &values, None, true, None)?.transpose(1, 2)?;
        self.proj.forward(&y.reshape(&[batch as isize, len as isize, dim as isize])?, pass)
    }

    /// (batch, sequence, packed) as (batch, sequence, heads + 2 kv_heads, head width).
    fn heads_of(&self, qkv: &Tensor) -> Result<Tensor> {
        let slots = self.config.heads + 2 * self.config.kv_heads;
        let dims = [qkv.dim(0), qkv.dim(1), slots, self.config.head_dim()].map(|d| d as isize);
        Ok(qkv.reshape(&dims)?)
    }
}

impl Module for Attention {
    fn visit(&self, path: &str, f: &mut dyn FnMut(&str, &Tensor)) {
        self.qkv.visit(&join(path, "qkv"), f);
        self.proj.visit(&join(path, "proj"), f);
    }
}

/// Room for the keys and values of one attention layer, written in place as tokens come.
#[derive(Debug)]
pub struct LayerCache {
    /// (batch, 2 kv heads, capacity, head width): the keys' heads, then the values'.
    keys_values: Tensor,
}

impl LayerCache {
    /// Room for `capacity` positions of `batch` sequences.
    pub fn new(
        config: &AttentionConfig,
        batch: usize,
        capacity: usize,
        dtype: DType,
        device: &Device,
    ) -> Result<LayerCache> {
        let dims = [batch, 2 * config.kv_heads, capacity, config.head_dim()];
        Ok(LayerCache { keys_values: Tensor::zeros(&dims, dtype, device)? })
    }

    /// Its memory: (batch, 2 kv heads, capacity, head width).
    pub(crate) fn keys_values(&self) -> &Tensor {
        &self.keys_values
    }
}
