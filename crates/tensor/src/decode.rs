//! [`Decoder`]: text generation by a decoder-only transformer on a GPU, many tokens by one launch.
//!
//! It reads the tensors of a model where they are, so that a step of training between two texts needs no new decoder, and
//! keeps on with a cache of keys and values that other ops have written to.

use bullet_kernels::cuda::Gpu;
use bullet_kernels::cuda::decode::{self, HEADER, LAYER_WORDS, MOST_TOKENS, Model, Request, Spec, Way};
use bullet_ops::{Activation, DType};
use bullet_runtime::{Buffer, Device, DevicePtr, ErrorKind};

use crate::dispatch::{common_device, storages, view};
use crate::error::Result;
use crate::storage::Guards;
use crate::tensor::Tensor;

/// Weight and bias of a layer.
pub type Affine = (Tensor, Option<Tensor>);

/// The tensors of one block: normalised, attended, added; normalised, fed forward, added.
#[derive(Clone, Debug)]
pub struct DecoderLayer {
    /// Scale and shift (dim,) before attention.
    pub norm1: Affine,
    /// ((heads + 2 kv_heads) head width, dim): queries, keys, values.
    pub qkv: Affine,
    /// (dim, dim).
    pub proj: Affine,
    /// Scale and shift (dim,) before the feed-forward part.
    pub norm2: Affine,
    /// (ff, dim), or (2 ff, dim) if it is gated: gate, then value.
    pub fc1: Affine,
    /// (dim, ff).
    pub fc2: Affine,
    /// Keys, then values: (1, 2 kv_heads, capacity, head width).
    pub cache: Tensor,
}

/// A model as [`Decoder`] takes it. All tensors are contiguous, of one device and one dtype.
#[derive(Clone, Debug)]
pub struct DecoderModel {
    /// Token embedding (vocab, dim).
    pub tokens: Tensor,
    /// Position embedding (at least capacity, dim), where positions are learned.
    pub positions: Option<Tensor>,
    /// The blocks.
    pub layers: Vec<DecoderLayer>,
    /// Scale and shift (dim,) before the output.
    pub norm: Affine,
    /// Output layer (vocab, dim).
    pub head: Affine,
    /// Query heads; divides dim.
    pub heads: usize,
    /// Heads of keys and values; divides heads.
    pub kv_heads: usize,
    /// Root-mean-square norms instead of layer norms.
    pub rms: bool,
    /// Added to the variance.
    pub eps: f64,
    /// Base of the angles by which pairs (i, i + head width / 2) of queries and keys turn, if they do.
    pub rope: Option<f64>,
    /// Of the feed-forward part; not the identity.
    pub activation: Activation,
    /// The feed-forward part has a second half that the activation's result is multiplied by.
    pub gated: bool,
}

/// How tokens are chosen from logits.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Choice<'a> {
    /// The largest logit, the first of equals.
    Likeliest,
    /// Drawn from the softmax of the logits over `temperature`, limited as in `bullet_nn`'s `Sampler`.
    Drawn {
        /// Greater than 0.
        temperature: f64,
        /// Only so many of the likeliest.
        top_k: Option<usize>,
        /// Only the likeliest that make up this much probability.
        top_p: Option<f64>,
        /// A number in 0..1 for each token.
        uniforms: &'a [f64],
    },
}

/// Why a text ends early.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Stop {
    /// The logit of a token, the first such one, is NaN or +inf.
    NotFinite {
        /// Which token.
        token: u32,
        /// Its logit.
        logit: f32,
    },
    /// No logit is above -inf.
    NoneLikely,
}

/// What [`Decoder::run`] made.
#[derive(Clone, PartialEq, Debug)]
pub struct Decoded {
    /// As many as were asked for, or fewer.
    pub tokens: Vec<u32>,
    /// Why there are fewer.
    pub stopped: Option<Stop>,
}

/// A model bound to a cache, ready to generate on a GPU.
#[derive(Debug)]
pub struct Decoder {
    device: Device,
    weights: Vec<Tensor>,
    caches: Vec<Tensor>,
    /// Addresses of the layers' tensors; held for `model`.
    _table: Buffer,
    spec: Spec,
    model: Model,
    /// Ways to take the likeliest token and to draw one, best first; none yet if `None`.
    ways: [Option<Vec<Way>>; 2],
}

impl Decoder {
    /// `None` if the device is no GPU, or cannot run such a model in one launch.
    ///
    /// # Errors
    /// Tensors that don't fit each other; out of memory.
    pub fn new(model: DecoderModel) -> Result<Option<Decoder>> {
        let device = model.tokens.device().clone();
        let dtype = model.tokens.dtype();
        if device.gpu().is_none() || !matches!(dtype, DType::F32 | DType::F16 | DType::BF16) {
            return Ok(None);
        }
        let spec = model.check()?;
        if decode::ways(&*Gpu::of(&device)?, &spec).is_empty() {
            return Ok(None);
        }
        let caches: Vec<Tensor> = model.layers.iter().map(|l| l.cache.clone()).collect();
        let weights: Vec<Tensor> = model.named(&spec).into_iter().map(|(_, t, _)| t.clone()).collect();
        let words: Vec<u8> =
            model.layers.iter().flat_map(DecoderLayer::addresses).flat_map(|p| p.0.to_ne_bytes()).collect();
        let table = device.alloc(words.len())?;
        table.send(0, &words)?;
        let turns = model.turns(&spec, &device)?;
        let addresses = Model {
            layers: table.ptr(),
            tokens: address(&model.tokens),
            positions: optional(model.positions.as_ref()),
            norm: pair(&model.norm),
            head: pair(&model.head),
            turns: optional(turns.as_ref()),
            eps: model.eps as f32,
        };
        let weights = weights.into_iter().chain(turns).collect();
        let ways = [None, None];
        Ok(Some(Decoder { device, weights, caches, _table: table, spec, model: addresses, ways }))
    }

    /// Positions of the cache.
    pub fn capacity(&self) -> usize {
        self.spec.capacity
    }

    /// Makes `n` tokens that follow `token`, which follows the first `past` positions of the cache: keys and values of all
    /// but the last of them are in the cache then. One transfer brings the tokens back.
    ///
    /// # Errors
    /// More tokens than the cache has room for, or uniform numbers; the kernel cannot be compiled or launched; out of
    /// memory.
    pub fn run(&mut self, token: u32, past: usize, n: usize, choice: Choice<'_>) -> Result<Decoded> {
        self.check(token, past, n, choice)?;
        if n == 0 {
            return Ok(Decoded { tokens: Vec::new(), stopped: None });
        }
        let mut request =
            Request { token, past, count: n, uniforms: DevicePtr(0), temperature: 1.0, top_p: 1.0, top_k: 0 };
        let mut numbers = None;
        if let Choice::Drawn { temperature, top_k, top_p, uniforms } = choice {
            let bytes: Vec<u8> = uniforms[..n].iter().flat_map(|u| u.to_ne_bytes()).collect();
            let buffer = self.device.alloc(bytes.len())?;
            buffer.send(0, &bytes)?;
            request.uniforms = buffer.ptr();
            request.temperature = temperature;
            request.top_p = top_p.unwrap_or(1.0);
            request.top_k = top_k.unwrap_or(0);
            numbers = Some(buffer);
        }
        let out = self.device.alloc(4 * (HEADER + n))?;
        self.launch(&request, numbers.is_some(), out.ptr())?;
        let mut bytes = vec![0; out.len()];
        out.read(0, &mut bytes)?;
        let words: Vec<u32> =
            bytes.chunks_exact(4).map(|b| u32::from_ne_bytes([b[0], b[1], b[2], b[3]])).collect();
        Ok(decoded(&words))
    }

    fn check(&self, token: u32, past: usize, n: usize, choice: Choice<'_>) -> Result<()> {
        let Spec { vocab, capacity, .. } = self.spec;
        let most = capacity.saturating_sub(past).min(MOST_TOKENS);
        let problem = if token as usize >= vocab {
            format!("token {token} is outside the vocabulary of {vocab}")
        } else if n > most {
            format!(
                "asked for {n} tokens after {past}, but the cache of {capacity} has room for {most} in one call"
            )
        } else {
            match choice {
                Choice::Drawn { uniforms, .. } if uniforms.len() < n => {
                    format!("{n} tokens need as many uniform numbers, got {}", uniforms.len())
                }
                Choice::Drawn { temperature, .. } if temperature.is_nan() || temperature <= 0.0 => {
                    format!(
                        "temperature = {temperature} must be greater than 0; take the likeliest token instead"
                    )
                }
                Choice::Drawn { .. } | Choice::Likeliest => return Ok(()),
            }
        };
        Err(bullet_ops::Error::argument(format!("decoder: {problem}")).into())
    }

    /// Launches the best way that the GPU takes; one that it refuses (a cluster too large for it) is not tried again.
    fn launch(&mut self, request: &Request, sample: bool, out: DevicePtr) -> Result<()> {
        let gpu = Gpu::of(&self.device)?;
        let spec = &self.spec;
        let ways = self.ways[usize::from(sample)]
            .get_or_insert_with(|| decode::ways(&gpu, &Spec { sample, ..spec.clone() }));
        let _guards = Guards::take(&storages(&self.weights), &storages(&self.caches));
        loop {
            let Some(way) = ways.first() else {
                return Err(bullet_ops::Error::argument("decoder: no way to run this model is left").into());
            };
            // SAFETY: the tensors were checked against the spec and are held by the guards; `out` and the uniform
            // numbers have a place for each token; `check` keeps the request to its limits.
            match unsafe { decode::run(&gpu, way, &self.model, request, out) } {
                Ok(()) => return Ok(()),
                Err(e) if ways.len() == 1 || matches!(e.kind, ErrorKind::OutOfMemory(_)) => {
                    return Err(e.into());
                }
                Err(_) => ways.remove(0),
            };
        }
    }
}

/// The kernel's words as a result.
fn decoded(words: &[u32]) -> Decoded {
    let (header, tokens) = words.split_at(HEADER);
    let stopped = match header[1] {
        0 => None,
        1 => {
            let logit = if header[3] == 1 { f32::NAN } else { f32::INFINITY };
            Some(Stop::NotFinite { token: header[2], logit })
        }
        _ => Some(Stop::NoneLikely),
    };
    Decoded { tokens: tokens[..tokens.len().min(header[0] as usize)].to_vec(), stopped }
}

fn address(t: &Tensor) -> DevicePtr {
    DevicePtr(view(t).bytes() as u64)
}

fn optional(t: Option<&Tensor>) -> DevicePtr {
    t.map_or(DevicePtr(0), address)
}

fn pair((weight, bias): &Affine) -> [DevicePtr; 2] {
    [address(weight), optional(bias.as_ref())]
}

impl DecoderLayer {
    fn addresses(&self) -> [DevicePtr; LAYER_WORDS] {
        let mut all = [address(&self.cache); LAYER_WORDS];
        let affine = [&self.norm1, &self.qkv, &self.proj, &self.norm2, &self.fc1, &self.fc2];
        for (to, from) in all.chunks_exact_mut(2).zip(affine) {
            to.copy_from_slice(&pair(from));
        }
        all
    }
}

impl DecoderModel {
    fn sizes(&self) -> Result<Spec> {
        let error = |what: &str| Err(bullet_ops::Error::argument(format!("decoder: {what}")).into());
        let Some(first) = self.layers.first() else {
            return error("a model without layers");
        };
        if self.tokens.rank() != 2 || first.fc2.0.rank() != 2 || first.cache.rank() != 4 {
            return error("embedding and second feed-forward layer must be matrices, the cache of rank 4");
        }
        let (dim, heads, kv_heads) = (self.tokens.dim(1), self.heads, self.kv_heads);
        if heads == 0 || kv_heads == 0 || dim == 0 || dim % heads != 0 || heads % kv_heads != 0 {
            return error(&format!(
                "heads = {heads} must divide dim = {dim}, and kv_heads = {kv_heads} the heads"
            ));
        }
        if self.rope.is_some() && dim / heads % 2 != 0 || self.activation == Activation::Identity {
            return error("rotary positions need an even head width, the feed-forward part an activation");
        }
        Ok(Spec {
            dtype: self.tokens.dtype(),
            dim,
            layers: self.layers.len(),
            heads,
            kv_heads,
            ff: first.fc2.0.dim(1),
            vocab: self.tokens.dim(0),
            capacity: first.cache.dim(2),
            rms: self.rms,
            rope: self.rope.is_some(),
            gated: self.gated,
            activation: self.activation,
            aligned: 16 / self.tokens.dtype().size(),
            sample: false,
        })
    }

    /// Every tensor but the caches, with its name and the shape that it must have.
    fn named(&self, spec: &Spec) -> Vec<(&'static str, &Tensor, Vec<usize>)> {
        let Spec { dim, ff, vocab, .. } = *spec;
        let inner = if self.gated { 2 * ff } else { ff };
        let qkv = (self.heads + 2 * self.kv_heads) * (dim / self.heads);
        let mut all = vec![("token embedding", &self.tokens, vec![vocab, dim])];
        // It may have more rows than the cache has positions.
        all.extend(self.positions.iter().map(|t| {
            let rows = if t.rank() == 0 { 0 } else { t.dim(0) };
            ("position embedding", t, vec![rows.max(spec.capacity), dim])
        }));
        for layer in &self.layers {
            add(&mut all, "norm 1", &layer.norm1, &[dim]);
            add(&mut all, "queries, keys and values", &layer.qkv, &[qkv, dim]);
            add(&mut all, "projection", &layer.proj, &[dim, dim]);
            add(&mut all, "norm 2", &layer.norm2, &[dim]);
            add(&mut all, "first feed-forward layer", &layer.fc1, &[inner, dim]);
            add(&mut all, "second feed-forward layer", &layer.fc2, &[dim, ff]);
        }
        add(&mut all, "last norm", &self.norm, &[dim]);
        add(&mut all, "output layer", &self.head, &[vocab, dim]);
        all
    }

    /// Sizes and kinds, after checking every tensor against them.
    fn check(&self) -> Result<Spec> {
        let mut spec = self.sizes()?;
        let cache = [1, 2 * self.kv_heads, spec.capacity, spec.dim / self.heads];
        let mut all = self.named(&spec);
        all.extend(self.layers.iter().map(|l| ("cache", &l.cache, cache.to_vec())));
        common_device(&all.iter().map(|&(_, t, _)| t).collect::<Vec<_>>())?;
        for (name, t, shape) in &all {
            if t.shape()[..] != shape[..] || t.dtype() != spec.dtype || !t.is_contiguous() {
                return Err(bullet_ops::Error::argument(format!(
                    "decoder: {name} must be a contiguous {} tensor of shape {shape:?}, got {} of shape {}",
                    spec.dtype,
                    t.dtype(),
                    t.shape()
                ))
                .into());
            }
            // Loads are as wide as the least aligned tensor allows; the trailing zeros of an address say how wide.
            let aligned = 1 << (address(t).0.trailing_zeros().min(4));
            spec.aligned = spec.aligned.min((aligned / spec.dtype.size()).max(1));
        }
        Ok(spec)
    }

    /// Cosines and sines of every position's angles, as the CPU's kernel has them: f32 (capacity, head width).
    fn turns(&self, spec: &Spec, device: &Device) -> Result<Option<Tensor>> {
        let Some(base) = self.rope else {
            return Ok(None);
        };
        let head = spec.dim / spec.heads;
        let mut turns = vec![0f32; spec.capacity * head];
        for (position, line) in turns.chunks_exact_mut(head).enumerate() {
            for i in 0..head / 2 {
                let angle = position as f64 * base.powf(-2.0 * i as f64 / head as f64);
                let (sin, cos) = angle.sin_cos();
                (line[i], line[head / 2 + i]) = (cos as f32, sin as f32);
            }
        }
        Ok(Some(Tensor::from_slice(&turns, &[spec.capacity, head], device)?))
    }
}

/// Adds a layer's weight of this shape, and its bias, of one element a row.
fn add<'a>(
    all: &mut Vec<(&'static str, &'a Tensor, Vec<usize>)>,
    name: &'static str,
    (weight, bias): &'a Affine,
    shape: &[usize],
) {
    all.push((name, weight, shape.to_vec()));
    all.extend(bias.iter().map(|bias| (name, bias, shape[..1].to_vec())));
}
