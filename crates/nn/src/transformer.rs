//! [`Transformer`], the decoder-only language model, its configuration, and [`LanguageModel`], what trainer and
//! generation need of a model.

use std::sync::Arc;

use bullet_tensor::decode::{Decoder, DecoderLayer, DecoderModel};
use bullet_tensor::{Activation, DType, Device, Tensor, no_grad};
use serde::{Deserialize, Serialize};

use crate::config::{FeedForward, ModelConfig, Norm, Positions};
use crate::error::{Error, Result};
use crate::init::{Fill, Init};
use crate::layers::{
    AttentionConfig, BlockConfig, Embedding, LayerCache, Linear, NormLayer, Stream, TransformerBlock,
};
use crate::module::{Module, Pass, join};
use crate::place::Placement;

/// Targets of this value count for nothing in [`LanguageModel::loss`] (PyTorch's default).
pub const IGNORE_INDEX: i64 = -100;

/// A model that predicts the next token.
pub trait LanguageModel: Module {
    /// Number of token ids.
    fn vocab(&self) -> usize;

    /// Longest sequence that it takes.
    fn max_seq(&self) -> usize;

    /// Token ids (batch, sequence) to logits (batch, sequence, vocab) in the dtype of the pass.
    ///
    /// # Errors
    /// A sequence that is empty or longer than [`LanguageModel::max_seq`]; an id outside the vocabulary.
    fn forward(&self, tokens: &Tensor, pass: &Pass) -> Result<Tensor>;

    /// Mean cross-entropy in nats of `targets` (batch, sequence): a scalar, f32 even where activations are f16 or bf16.
    fn loss(&self, tokens: &Tensor, targets: &Tensor, pass: &Pass) -> Result<Tensor> {
        let logits = self.forward(tokens, pass)?;
        Ok(logits.cross_entropy(&targets.to_device(logits.device())?, IGNORE_INDEX, 0.0)?)
    }

    /// An empty cache for decoding `batch` sequences of up to [`LanguageModel::max_seq`] tokens.
    fn new_cache(&self, batch: usize, pass: &Pass) -> Result<KvCache>;

    /// Logits (batch, vocab) of what follows `tokens` (batch, new), which follow those already in `cache`; no gradients.
    ///
    /// # Errors
    /// As [`LanguageModel::forward`], and where the cache has no room; the cache is then as it was.
    fn forward_cached(&self, tokens: &Tensor, cache: &mut KvCache, pass: &Pass) -> Result<Tensor>;

    /// What generates many tokens at a time with `cache`, where there is such a thing for this model, device and pass.
    /// The caller counts what it adds to the cache.
    fn decoder(&self, _cache: &KvCache, _pass: &Pass) -> Result<Option<Decoder>> {
        Ok(None)
    }
}

/// Keys and values of the tokens seen so far, in every layer: memory of a fixed size, written in place.
#[derive(Debug)]
pub struct KvCache {
    layers: Vec<LayerCache>,
    batch: usize,
    len: usize,
    capacity: usize,
    device: Device,
}

impl KvCache {
    /// Tokens that it holds.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Tokens that it has room for.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Where it lives, and so where tokens must be.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Forgets all tokens after the first `len`.
    pub fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }

    /// Counts one more token, whose keys and values a [`Decoder`] has written.
    pub(crate) fn advance(&mut self) {
        self.len = (self.len + 1).min(self.capacity);
    }
}

/// Sizes and kinds of a [`Transformer`].
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TransformerConfig {
    /// Number of token ids.
    pub vocab: usize,
    /// Width of the residual stream.
    pub dim: usize,
    /// Number of blocks.
    pub layers: usize,
    /// Attention heads of a block; divides `dim`.
    pub heads: usize,
    /// Heads of keys and values; divides `heads`; 0: as many as `heads`.
    #[serde(default)]
    pub kv_heads: usize,
    /// Width inside the feed-forward part.
    pub ff: usize,
    /// Longest sequence.
    pub max_seq: usize,
    /// How a position enters the model.
    pub positions: Positions,
    /// Base of the rotary embedding's angles, where `positions` is `rope`.
    #[serde(default = "default_rope_base")]
    pub rope_base: f64,
    /// Normalisation before each part, and before the output layer.
    pub norm: Norm,
    /// Added to the variance, or mean square, in the norms.
    #[serde(default = "default_norm_eps")]
    pub norm_eps: f64,
    /// The feed-forward part.
    pub feed_forward: FeedForward,
    /// Whether linear layers and layer norms have biases.
    pub bias: bool,
    /// Whether the output layer has a bias; not if it is tied.
    #[serde(default)]
    pub head_bias: bool,
    /// Whether the output layer shares the weights of the token embedding (Press and Wolf 2017).
    pub tie_embeddings: bool,
    /// Probability of dropping an element of the embeddings and of what each part adds to the residual stream, in
    /// training; and of dropping a weight of the attention.
    pub dropout: f64,
}

fn default_rope_base() -> f64 {
    10_000.0
}

fn default_norm_eps() -> f64 {
    1e-5
}

impl TransformerConfig {
    /// The model that the settings of a run describe; `vocab` is the tokenizer's size, used where `model.vocab` is 0.
    pub fn from_settings(model: &ModelConfig, vocab: usize) -> TransformerConfig {
        TransformerConfig {
            vocab: if model.vocab == 0 { vocab } else { model.vocab },
            dim: model.dim,
            layers: model.layers,
            heads: model.heads,
            kv_heads: model.kv_heads,
            ff: model.ff,
            max_seq: model.seq,
            positions: model.positions,
            rope_base: default_rope_base(),
            norm: model.norm,
            norm_eps: default_norm_eps(),
            feed_forward: model.feed_forward,
            bias: model.bias,
            head_bias: false,
            tie_embeddings: model.tied,
            dropout: model.dropout,
        }
    }

    /// Heads of keys and values, 0 resolved.
    pub fn kv_heads(&self) -> usize {
        if self.kv_heads == 0 { self.heads } else { self.kv_heads }
    }

    /// # Errors
    /// Every field that makes no sense: its name, its value and what would do, in one error.
    pub fn validate(&self) -> Result<()> {
        let mut wrong: Vec<String> = self.sizes_problem().into_iter().collect();
        if wrong.is_empty() {
            wrong.extend(self.heads_problems());
        }
        if !(0.0..1.0).contains(&self.dropout) {
            wrong.push(format!("dropout = {} must be at least 0 and less than 1", self.dropout));
        }
        if !(self.norm_eps > 0.0 && self.norm_eps.is_finite()) {
            wrong.push(format!("norm_eps = {} must be positive, such as 1e-5", self.norm_eps));
        }
        if self.positions == Positions::Rope && !(self.rope_base > 1.0 && self.rope_base.is_finite()) {
            wrong.push(format!("rope_base = {} must be greater than 1, such as 10000", self.rope_base));
        }
        if self.tie_embeddings && self.head_bias {
            wrong.push(
                "head_bias = true does not go with tie_embeddings = true: set one of them to false".into(),
            );
        }
        if wrong.is_empty() {
            Ok(())
        } else {
            Err(Error::argument(format!("transformer: {}", wrong.join("; "))))
        }
    }

    fn sizes_problem(&self) -> Option<String> {
        let sizes = [
            ("vocab", self.vocab),
            ("dim", self.dim),
            ("layers", self.layers),
            ("heads", self.heads),
            ("ff", self.ff),
            ("max_seq", self.max_seq),
        ];
        let zero: Vec<&str> = sizes.iter().filter(|(_, size)| *size == 0).map(|(name, _)| *name).collect();
        (!zero.is_empty()).then(|| format!("{} = 0: each must be at least 1", zero.join(" = 0, ")))
    }

    /// Sizes are not 0 here.
    fn heads_problems(&self) -> Option<String> {
        // The small ones are enough to choose from, however large a size was mistyped.
        let divisors = |n: usize| {
            let all: Vec<String> =
                (1..=n.min(1024)).filter(|d| n.is_multiple_of(*d)).map(|d| d.to_string()).collect();
            all.join(", ")
        };
        let TransformerConfig { dim, heads, .. } = *self;
        if dim % heads != 0 {
            return Some(format!("heads = {heads} must divide dim = {dim}: one of {}", divisors(dim)));
        }
        if heads % self.kv_heads() != 0 {
            let kv_heads = self.kv_heads;
            return Some(format!(
                "kv_heads = {kv_heads} must divide heads = {heads}: one of {}",
                divisors(heads)
            ));
        }
        if self.positions == Positions::Rope && (dim / heads) % 2 != 0 {
            return Some(format!(
                "positions = rope needs an even head width, but dim / heads = {dim} / {heads} = {}: change dim or heads, or \
                 use positions = learned",
                dim / heads
            ));
        }
        None
    }

    /// Whether the parameters alone fit the devices together: better said now than after minutes of allocating.
    pub(crate) fn check_memory(&self, dtype: DType, devices: &[Device]) -> Result<()> {
        let [dim, ff, layers] = [self.dim, self.ff, self.layers].map(|n| n as f64);
        let kv_dim = dim / self.heads as f64 * self.kv_heads() as f64;
        let matrices = if self.feed_forward == FeedForward::SwiGlu { 3.0 } else { 2.0 };
        let block = 2.0 * dim * (dim + kv_dim) + matrices * dim * ff;
        let tables = if self.tie_embeddings { 1.0 } else { 2.0 } * self.vocab as f64;
        let positions = if self.positions == Positions::Learned { self.max_seq as f64 } else { 0.0 };
        let parameters = layers * block + (tables + positions) * dim;
        let need = parameters * dtype.size() as f64;
        let of = |device: &Device| {
            let free = device.driver().memory().map_or(usize::MAX, |m| m.free);
            free.min(device.memory_stats().limit.unwrap_or(usize::MAX))
        };
        let most = devices.iter().map(of).fold(0, usize::saturating_add);
        let names: Vec<String> = devices.iter().map(Device::to_string).collect();
        if need <= most as f64 {
            return Ok(());
        }
        const GIB: f64 = (1u64 << 30) as f64;
        Err(Error::argument(format!(
            "transformer: {parameters:.2e} parameters (layers = {layers}, dim = {dim}, ff = {ff}, vocab = {}, max_seq = {}) \
             take {:.1} GiB, and {} has {:.1} GiB to give; choose smaller sizes (training takes four times as much)",
            self.vocab,
            self.max_seq,
            need / GIB,
            names.join(" with "),
            most as f64 / GIB
        )))
    }

    /// All on one device, with parameters of `dtype`.
    ///
    /// # Errors
    /// [`TransformerConfig::validate`]'s; the parameters don't fit the device.
    pub(crate) fn on(&self, device: &Device, dtype: DType) -> Result<Placement> {
        self.validate()?;
        self.check_memory(dtype, std::slice::from_ref(device))?;
        Ok(Placement::on(device, self.layers))
    }

    /// The tables of tokens and, where they are learned, of positions.
    pub(crate) fn new_tables(&self, init: &Init) -> Result<(Embedding, Option<Embedding>)> {
        let table = |name, rows| Embedding::new(&init.at(name), rows, self.dim, Fill::GPT2);
        let learned = self.positions == Positions::Learned;
        let positions = learned.then(|| table("pos_embedding", self.max_seq)).transpose()?;
        Ok((table("tok_embedding", self.vocab)?, positions))
    }

    /// Block `i`.
    pub(crate) fn new_block(&self, init: &Init, i: usize) -> Result<TransformerBlock> {
        TransformerBlock::new(&init.at("blocks").at(&i.to_string()), self.block())
    }

    /// The last norm, and the output layer with these weights if it is tied to them.
    pub(crate) fn new_head(&self, init: &Init, tied: Option<&Tensor>) -> Result<(NormLayer, Linear)> {
        let ln_f = NormLayer::new(&init.at("ln_f"), self.norm, self.dim, self.bias, self.norm_eps)?;
        let head = match tied {
            Some(weight) => Linear::tied(weight),
            None => Linear::new(&init.at("head"), self.dim, self.vocab, self.head_bias, Fill::GPT2)?,
        };
        Ok((ln_f, head))
    }

    fn block(&self) -> BlockConfig {
        let attention = AttentionConfig {
            dim: self.dim,
            heads: self.heads,
            kv_heads: self.kv_heads(),
            causal: true,
            rope: (self.positions == Positions::Rope).then_some(self.rope_base),
            bias: self.bias,
            out: Fill::residual(self.layers),
            dropout: self.dropout,
        };
        BlockConfig {
            attention,
            ff: self.ff,
            feed_forward: self.feed_forward,
            norm: self.norm,
            norm_eps: self.norm_eps,
            dropout: self.dropout,
        }
    }
}

/// A decoder-only transformer, normalised before each part: GPT-2 (Radford et al. 2019), or LLaMA (Touvron et al. 2023)
/// with rotary positions, RMS norms, SwiGLU and no biases.
#[derive(Debug)]
pub struct Transformer {
    /// Token ids to vectors.
    pub tok_embedding: Embedding,
    /// Positions to vectors, where they are learned.
    pub pos_embedding: Option<Embedding>,
    /// The blocks.
    pub blocks: Vec<Arc<TransformerBlock>>,
    /// Before the output layer.
    pub ln_f: NormLayer,
    /// The output layer.
    pub head: Linear,
    config: TransformerConfig,
}

impl Transformer {
    /// A model initialised as GPT-2.
    ///
    /// # Errors
    /// [`TransformerConfig::validate`]'s; out of memory.
    pub fn new(config: TransformerConfig, init: &Init) -> Result<Transformer> {
        let everything = config.on(init.device(), init.dtype())?;
        Transformer::placed(config, init, &everything)
    }

    /// As [`Transformer::new`], with each part on its device; that of `init` counts for nothing.
    ///
    /// # Errors
    /// As [`Transformer::new`]; the placement is of another number of blocks, or parts what is tied.
    pub fn placed(config: TransformerConfig, init: &Init, placement: &Placement) -> Result<Transformer> {
        config.validate()?;
        placement.check(&config)?;
        config.check_memory(init.dtype(), &placement.devices())?;
        let (tok_embedding, pos_embedding) = config.new_tables(&init.on(&placement.embedding))?;
        let block = |(i, device): (usize, &Device)| config.new_block(&init.on(device), i).map(Arc::new);
        let blocks = placement.blocks.iter().enumerate().map(block).collect::<Result<_>>()?;
        let tied = config.tie_embeddings.then_some(&tok_embedding.weight);
        let (ln_f, head) = config.new_head(&init.on(&placement.head), tied)?;
        Ok(Transformer { tok_embedding, pos_embedding, blocks, ln_f, head, config })
    }

    /// Where its parts are.
    pub fn placement(&self) -> Placement {
        Placement {
            embedding: self.tok_embedding.weight.device().clone(),
            blocks: self.blocks.iter().map(|block| block.device().clone()).collect(),
            head: self.head.weight.device().clone(),
        }
    }

    /// Its sizes and kinds.
    pub fn config(&self) -> &TransformerConfig {
        &self.config
    }

    /// A copy with parameters of `dtype` on `device`: for generation in half precision, which would otherwise cast every
    /// weight for every token.
    pub fn to(&self, dtype: DType, device: &Device) -> Result<Transformer> {
        let copy = Transformer::new(self.config.clone(), &Init::new(0, dtype, device))?;
        let pairs = copy.named_parameters().into_iter().zip(self.named_parameters());
        no_grad(|| pairs.into_iter().try_for_each(|((_, to), (_, from))| to.copy_(&from)))?;
        Ok(copy)
    }

    /// Token vectors with those of the positions `past..`, where the tables are.
    fn embed(&self, tokens: &Tensor, past: usize, pass: &Pass) -> Result<Tensor> {
        self.check_tokens(tokens, past)?;
        let tokens = tokens.to_device(self.tok_embedding.weight.device())?;
        let tables = (&self.tok_embedding, self.pos_embedding.as_ref());
        embed(tables, &tokens, past, self.config.dropout, pass)
    }

    fn check_tokens(&self, tokens: &Tensor, past: usize) -> Result<()> {
        if tokens.rank() != 2 || tokens.numel() == 0 {
            return Err(Error::argument(format!(
                "token ids must have shape (batch, sequence) with at least one token, got {}",
                tokens.shape()
            )));
        }
        let (len, max_seq) = (tokens.dim(1), self.config.max_seq);
        if past + len > max_seq {
            let seen = if past == 0 { String::new() } else { format!(" after {past} cached ones") };
            return Err(Error::argument(format!(
                "a sequence of {len} tokens{seen} is longer than the {max_seq} positions of the model (max_seq); shorten \
                 it, or make a model with a larger max_seq"
            )));
        }
        Ok(())
    }

    fn decode(&self, tokens: &Tensor, cache: &KvCache, pass: &Pass) -> Result<Tensor> {
        let mut x = self.embed(tokens, cache.len, pass)?;
        for (block, layer) in self.blocks.iter().zip(&cache.layers) {
            x = block.forward_cached(&x.to_device(block.device())?, layer, cache.len, pass)?;
        }
        // Only the last position says what comes next.
        let last = x.select(1, -1)?.to_device(self.ln_f.device())?;
        self.head.forward(&self.ln_f.forward(&last, pass)?, pass)
    }
}

/// Token vectors (batch, sequence, width) with those of the positions `past..`, after dropout of probability `p`.
pub(crate) fn embed(
    (tokens, positions): (&Embedding, Option<&Embedding>),
    ids: &Tensor,
    past: usize,
    p: f64,
    pass: &Pass,
) -> Result<Tensor> {
    let x = tokens.forward(ids, pass)?;
    let x = match positions {
        Some(table) => x.add(&table.rows(past, ids.dim(1), pass)?)?,
        None => x,
    };
    pass.dropout(&x, p)
}

impl LanguageModel for Transformer {
    fn vocab(&self) -> usize {
        self.config.vocab
    }

    fn max_seq(&self) -> usize {
        self.config.max_seq
    }

    fn forward(&self, tokens: &Tensor, pass: &Pass) -> Result<Tensor> {
        let mut stream = Stream::new(self.embed(tokens, 0, pass)?);
        for block in &self.blocks {
            stream = block.forward_in_model(stream.to_device(block.device())?, pass)?;
        }
        let stream = stream.to_device(self.ln_f.device())?;
        self.head.forward(&self.ln_f.forward_stream(&stream, pass)?.0, pass)
    }

    fn new_cache(&self, batch: usize, pass: &Pass) -> Result<KvCache> {
        let weight = &self.tok_embedding.weight;
        let (dtype, capacity) = (pass.compute.unwrap_or(weight.dtype()), self.config.max_seq);
        let attention = self.config.block().attention;
        let layer = |block: &Arc<TransformerBlock>| {
            LayerCache::new(&attention, batch, capacity, dtype, block.device())
        };
        let layers = self.blocks.iter().map(layer).collect::<Result<_>>()?;
        Ok(KvCache { layers, batch, len: 0, capacity, device: weight.device().clone() })
    }

    fn forward_cached(&self, tokens: &Tensor, cache: &mut KvCache, pass: &Pass) -> Result<Tensor> {
        if tokens.rank() == 2 && tokens.dim(0) != cache.batch || cache.layers.len() != self.blocks.len() {
            return Err(Error::argument(format!(
                "tokens of shape {} don't fit a cache of {} sequences and {} layers; make one with new_cache",
                tokens.shape(),
                cache.batch,
                cache.layers.len()
            )));
        }
        let pass = Pass { training: false, recompute: false, ..pass.clone() };
        let logits = no_grad(|| self.decode(tokens, cache, &pass))?;
        cache.len += tokens.dim(1);
        Ok(logits)
    }

    fn decoder(&self, cache: &KvCache, pass: &Pass) -> Result<Option<Decoder>> {
        let dtype = self.tok_embedding.weight.dtype();
        // Under another dtype every op casts its weights; one launch reads them as they are.
        let as_stored = pass.compute.is_none_or(|compute| compute == dtype);
        if cache.device.gpu().is_none()
            || cache.batch != 1
            || !as_stored
            || self.placement().devices().len() > 1
        {
            return Ok(None);
        }
        Ok(Decoder::new(self.decoder_model(cache))?)
    }
}

impl Transformer {
    fn decoder_model(&self, cache: &KvCache) -> DecoderModel {
        let layer = |(block, layer): (&Arc<TransformerBlock>, &LayerCache)| DecoderLayer {
            norm1: block.ln1.affine(),
            qkv: block.attn.qkv.affine(),
            proj: block.attn.proj.affine(),
            norm2: block.ln2.affine(),
            fc1: block.mlp.fc1.affine(),
            fc2: block.mlp.fc2.affine(),
            cache: layer.keys_values().clone(),
        };
        let config = &self.config;
        let (activation, gated) = match config.feed_forward {
            FeedForward::Gelu => (Activation::Gelu, false),
            FeedForward::GeluTanh => (Activation::GeluTanh, false),
            FeedForward::Relu => (Activation::Relu, false),
            FeedForward::Silu => (Activation::Silu, false),
            FeedForward::SwiGlu => (Activation::Silu, true),
        };
        DecoderModel {
            tokens: self.tok_embedding.weight.clone(),
            positions: self.pos_embedding.as_ref().map(|table| table.weight.clone()),
            layers: self.blocks.iter().zip(&cache.layers).map(layer).collect(),
            norm: self.ln_f.affine(),
            head: self.head.affine(),
            heads: config.heads,
            kv_heads: config.kv_heads(),
            rms: config.norm == Norm::Rms,
            eps: config.norm_eps,
            rope: (config.positions == Positions::Rope).then_some(config.rope_base),
            activation,
            gated,
        }
    }
}

impl Module for Transformer {
    fn visit(&self, path: &str, f: &mut dyn FnMut(&str, &Tensor)) {
        self.tok_embedding.visit(&join(path, "tok_embedding"), f);
        if let Some(table) = &self.pos_embedding {
            table.visit(&join(path, "pos_embedding"), f);
        }
        for (i, block) in self.blocks.iter().enumerate() {
            block.visit(&join(path, &format!("blocks.{i}")), f);
        }
        self.ln_f.visit(&join(path, "ln_f"), f);
        self.head.visit(&join(path, "head"), f);
    }
}
