//! Text generation by one launch for many tokens: see `decode.cu`.
//!
//! [`ways`] says in which shapes a model can run on a GPU, best first; [`run`] launches one. The caller owns the memory
//! that lives longer than a launch: weights, cache, the table of the layers' addresses.

use bullet_ops::{Activation, DType};
use bullet_runtime::jit::Tier;
use bullet_runtime::{Buffer, DevicePtr, KernelArgs, LaunchConfig, Result};

use super::gpu::{Define, Gpu, Unit};

const SOURCE: &str = concat!(
    include_str!("../../cuda/decode.cuh"),
    "#line 1 \"decode.cu\"\n",
    include_str!("../../cuda/decode.cu")
);
const ENTRY: &str = "decode";
/// 32-bit words of `out` before the tokens.
pub const HEADER: usize = 4;
/// Addresses in the table of a layer: weight and bias of norm 1, qkv, proj, norm 2, fc1 and fc2, then the cache.
pub const LAYER_WORDS: usize = 13;
/// Tokens of one launch at most, so that its counters do not overflow.
pub const MOST_TOKENS: usize = 1024;
/// Threads of a block on this tier, as in the source.
fn threads(tier: Tier) -> u32 {
    if tier >= Tier::Sm70 { 512 } else { 256 }
}

/// Registers hold a head's share of a lane up to this width.
const MOST_HEAD_DIM: usize = 256;
/// Weights up to which a cluster is faster than the whole GPU: its barriers are quicker, its share of the second-level
/// cache's bandwidth is smaller.
const CLUSTER_BYTES: usize = 32 << 20;
/// Weights for which another block is worth its part in the barriers.
const BLOCK_BYTES: usize = 64 << 10;
/// Positions of a head for which another block is worth joining partial results.
const SPLIT_POSITIONS: usize = 64;

/// What a model looks like, and how its tokens are chosen.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Spec {
    /// Of weights, activations and cache: f32, f16 or bf16.
    pub dtype: DType,
    /// Width of the residual stream.
    pub dim: usize,
    /// Blocks.
    pub layers: usize,
    /// Query heads.
    pub heads: usize,
    /// Heads of keys and values.
    pub kv_heads: usize,
    /// Width inside the feed-forward part.
    pub ff: usize,
    /// Token ids.
    pub vocab: usize,
    /// Positions of the cache.
    pub capacity: usize,
    /// Root-mean-square norms instead of layer norms.
    pub rms: bool,
    /// Queries and keys are turned by position.
    pub rope: bool,
    /// The activation's result is multiplied by a second half of the first feed-forward layer.
    pub gated: bool,
    /// The feed-forward part's activation; not the identity.
    pub activation: Activation,
    /// The elements that every tensor's address is aligned to, if fewer than 16 bytes.
    pub aligned: usize,
    /// Tokens are drawn; otherwise the likeliest is taken.
    pub sample: bool,
}

/// How the blocks of a launch meet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Meeting {
    /// There is one block.
    Alone,
    /// All are resident, and count arrivals in device memory.
    Grid,
    /// They are one cluster.
    Cluster,
}

/// A shape of the launch.
#[derive(Clone, PartialEq, Debug)]
pub struct Way {
    unit: Unit,
    meeting: Meeting,
    blocks: u32,
    threads: u32,
    shared_bytes: usize,
    exchange_bytes: usize,
    vocab: usize,
    sample: bool,
}

/// Device addresses of a model; 0 for what it lacks.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Model {
    /// [`LAYER_WORDS`] addresses a layer.
    pub layers: DevicePtr,
    /// Token embedding (vocab, dim).
    pub tokens: DevicePtr,
    /// Position embedding (capacity or more, dim).
    pub positions: DevicePtr,
    /// Last norm: scale, shift.
    pub norm: [DevicePtr; 2],
    /// Output layer (vocab, dim), and its bias.
    pub head: [DevicePtr; 2],
    /// f32 (capacity, head width): cosines, then sines, of the angles of a position.
    pub turns: DevicePtr,
    /// Added to the variance.
    pub eps: f32,
}

/// Tokens to make.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Request {
    /// The token to begin with, in the vocabulary.
    pub token: u32,
    /// Tokens in the cache.
    pub past: usize,
    /// How many to make: at most [`MOST_TOKENS`], and as the cache has room.
    pub count: usize,
    /// f64, one for each token, in 0..1; if tokens are drawn.
    pub uniforms: DevicePtr,
    /// Divides the logits; not 0.
    pub temperature: f64,
    /// 1 for no limit.
    pub top_p: f64,
    /// 0 for no limit.
    pub top_k: usize,
}

impl Spec {
    fn head_dim(&self) -> usize {
        self.dim / self.heads
    }

    fn qkv(&self) -> usize {
        (self.heads + 2 * self.kv_heads) * self.head_dim()
    }

    fn weight_bytes(&self) -> usize {
        let inner = if self.gated { 3 } else { 2 } * self.ff;
        (self.layers * (self.qkv() + self.dim + inner) + self.vocab) * self.dim * self.dtype.size()
    }

    /// Parts that the positions of a head are cut into.
    fn splits(&self, blocks: usize) -> usize {
        (blocks / self.heads).min(self.capacity.div_ceil(SPLIT_POSITIONS)).max(1)
    }

    /// Floats of the exchanged part of shared memory, and of all of it: the offsets of `decode.cu`.
    fn shared_floats(&self, blocks: usize, warps: usize) -> (usize, usize) {
        let up = |n: usize| n.next_multiple_of(4);
        let head = self.head_dim();
        let attended = self.splits(blocks) * self.heads * (head + 2);
        let exchanged = up(2 * blocks) + 4 + up(self.dim) + up(self.qkv()) + up(attended) + up(self.ff);
        let own = up(self.dim) + up(head) + up(warps * (head + 2)) + 64 + 8;
        (exchanged, exchanged + own + 2 * LAYER_WORDS * self.layers)
    }

    fn way(&self, tier: Tier, meeting: Meeting, blocks: usize) -> Way {
        let int = |name, value: usize| Define::Int(name, value as i64);
        let activation = match self.activation {
            Activation::Gelu => 0,
            Activation::GeluTanh => 1,
            Activation::Relu => 2,
            Activation::Silu | Activation::Identity => 3,
        };
        let defines = vec![
            Define::Type("T", self.dtype),
            int("SYNC", meeting as usize),
            int("BLOCKS", blocks),
            int("DIM", self.dim),
            int("LAYERS", self.layers),
            int("HEADS", self.heads),
            int("KV_HEADS", self.kv_heads),
            int("FF", self.ff),
            int("VOCAB", self.vocab),
            int("CAPACITY", self.capacity),
            int("RMS", self.rms.into()),
            int("ROPE", self.rope.into()),
            int("GATED", self.gated.into()),
            int("ACT", activation),
            int("SPLITS", self.splits(blocks)),
            int("PACK", self.aligned.min(16 / self.dtype.size())),
            int("SAMPLE", self.sample.into()),
        ];
        let since = if meeting == Meeting::Cluster { Tier::Sm90a } else { Tier::Sm35 };
        let threads = threads(tier);
        let (exchanged, all) = self.shared_floats(blocks, threads as usize / 32);
        Way {
            unit: Unit { name: "decode", source: SOURCE, defines, since },
            meeting,
            blocks: blocks as u32,
            threads,
            shared_bytes: 4 * all,
            exchange_bytes: 4 * exchanged,
            vocab: self.vocab,
            sample: self.sample,
        }
    }
}

/// The ways in which this GPU may run the model, the fastest first; none if no block can hold its vectors, or a size is
/// none the kernel is made for.
pub fn ways(gpu: &Gpu, spec: &Spec) -> Vec<Way> {
    let info = gpu.info();
    let sizes = [spec.vocab, spec.dim * spec.qkv().max(2 * spec.ff), spec.capacity];
    if spec.head_dim() > MOST_HEAD_DIM || sizes.iter().any(|&n| n >= 1 << 30) {
        return Vec::new();
    }
    let weights = spec.weight_bytes();
    let mut ways = Vec::new();
    if info.tier == Tier::Sm90a && weights <= CLUSTER_BYTES {
        ways.extend([16, 8].map(|blocks| spec.way(info.tier, Meeting::Cluster, blocks)));
    }
    // A GPU made to act as an older one takes that one's way; Pascal, of the same tier, has cooperative launches.
    let acts_older = Tier::of(info.capability) != Some(info.tier) && info.tier == Tier::Sm35;
    let blocks = (weights / BLOCK_BYTES).min(info.multiprocessors as usize);
    if info.capability >= (6, 0) && !acts_older && blocks > 1 {
        ways.push(spec.way(info.tier, Meeting::Grid, blocks));
    }
    ways.push(spec.way(info.tier, Meeting::Alone, 1));
    ways.retain(|way| way.shared_bytes <= info.shared_per_block as usize);
    ways
}

/// Host view of `struct Args`.
#[repr(C)]
struct Args {
    layers: u64,
    tokens: u64,
    positions: u64,
    norm: [u64; 2],
    head: [u64; 2],
    turns: u64,
    exchange: u64,
    arrived: u64,
    logits: u64,
    weights: u64,
    uniforms: u64,
    out: u64,
    temperature: f64,
    top_p: f64,
    top_k: i32,
    eps: f32,
    token: u32,
    past: i32,
    count: i32,
    unused: i32,
}

impl Args {
    fn bytes(&self) -> &[u8] {
        // SAFETY: plain numbers without padding between or behind them.
        unsafe { std::slice::from_raw_parts(std::ptr::from_ref(self).cast::<u8>(), size_of::<Args>()) }
    }
}

/// Memory of one launch: logits, weights and the exchange between blocks, one behind the other.
struct Scratch {
    buffer: Buffer,
    logits: usize,
    exchange: usize,
    arrived: usize,
}

impl Scratch {
    fn new(gpu: &Gpu, way: &Way) -> Result<Scratch> {
        // f64 first, then f32, each part aligned to 256 bytes.
        let vocab = if way.sample { way.vocab } else { 0 };
        let logits = (8 * vocab).next_multiple_of(256);
        let exchange = logits + (4 * vocab).next_multiple_of(256);
        let arrived = exchange + way.exchange_bytes.next_multiple_of(256);
        let buffer = gpu.scratch(arrived + 256)?;
        Ok(Scratch { buffer, logits, exchange, arrived })
    }
}

/// Makes tokens: `out` gets the number made, a status, the token and the kind of a bad logit, then the tokens, all u32.
/// The statuses are 0; 1: a logit was +inf, or NaN if the kind is 1; 2: none was above -inf.
///
/// # Safety
/// The addresses are those of a model of the spec that `way` is of, on this GPU, with their elements; nothing else uses
/// the cache meanwhile. `out` has [`HEADER`] words more than the request has tokens. The request keeps to its limits.
///
/// # Errors
/// The kernel does not compile; the GPU refuses this way; out of memory.
pub unsafe fn run(gpu: &Gpu, way: &Way, model: &Model, request: &Request, out: DevicePtr) -> Result<()> {
    let function = gpu.function(&way.unit, ENTRY)?;
    let scratch = Scratch::new(gpu, way)?;
    let base = scratch.buffer.ptr();
    if way.meeting == Meeting::Grid {
        // SAFETY: the counter is in the scratch memory.
        unsafe { gpu.fill(base.offset(scratch.arrived), 0, 4)? };
    }
    let packed = Args {
        layers: model.layers.0,
        tokens: model.tokens.0,
        positions: model.positions.0,
        norm: model.norm.map(|p| p.0),
        head: model.head.map(|p| p.0),
        turns: model.turns.0,
        exchange: base.offset(scratch.exchange).0,
        arrived: base.offset(scratch.arrived).0,
        logits: base.offset(scratch.logits).0,
        weights: base.0,
        uniforms: request.uniforms.0,
        out: out.0,
        temperature: request.temperature,
        top_p: request.top_p,
        top_k: request.top_k.min(i32::MAX as usize) as i32,
        eps: model.eps,
        token: request.token,
        past: request.past as i32,
        count: request.count as i32,
        unused: 0,
    };
    let mut args = KernelArgs::new();
    args.push_bytes(packed.bytes(), 8);
    let config = LaunchConfig {
        grid: [way.blocks, 1, 1],
        block: [way.threads, 1, 1],
        shared_bytes: way.shared_bytes as u32,
        cluster: if way.meeting == Meeting::Cluster { [way.blocks, 1, 1] } else { [1; 3] },
        cooperative: way.meeting == Meeting::Grid,
        overlaps: false,
    };
    // SAFETY: the arguments are the kernel's; what they point to is as the caller says, and the scratch memory.
    unsafe { gpu.launch_shaped(function, config, &args) }
}

/// Every kind of unit: each dtype, each way of meeting, each kind of model.
pub(crate) fn units() -> Vec<(Unit, Vec<&'static str>)> {
    let small = Spec {
        dtype: DType::F32,
        dim: 128,
        layers: 4,
        heads: 4,
        kv_heads: 4,
        ff: 256,
        vocab: 3000,
        capacity: 64,
        rms: false,
        rope: false,
        gated: false,
        activation: Activation::GeluTanh,
        aligned: 4,
        sample: false,
    };
    let llama = Spec {
        dim: 288,
        kv_heads: 2,
        ff: 770,
        vocab: 100_003,
        capacity: 1024,
        rms: true,
        rope: true,
        gated: true,
        activation: Activation::Silu,
        aligned: 8,
        sample: true,
        ..small.clone()
    };
    let odd = Spec {
        dim: 33,
        heads: 3,
        kv_heads: 1,
        ff: 50,
        vocab: 7,
        activation: Activation::Gelu,
        aligned: 1,
        sample: true,
        ..small.clone()
    };
    let wide =
        Spec { dim: 2048, heads: 8, kv_heads: 8, ff: 8190, activation: Activation::Relu, ..small.clone() };
    let mut units = Vec::new();
    for (spec, dtype) in [
        (&small, DType::F32),
        (&llama, DType::F32),
        (&llama, DType::F16),
        (&llama, DType::BF16),
        (&odd, DType::F32),
        (&odd, DType::F16),
        (&wide, DType::BF16),
    ] {
        let spec = Spec { dtype, ..spec.clone() };
        for (meeting, blocks) in [(Meeting::Alone, 1), (Meeting::Grid, 56), (Meeting::Cluster, 16)] {
            units.push((spec.way(Tier::Sm35, meeting, blocks).unit, vec![ENTRY]));
        }
    }
    units
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `push_bytes` and the kernel agree only if nothing is padded.
    #[test]
    fn arguments_have_no_gaps() {
        assert_eq!(size_of::<Args>(), 14 * 8 + 2 * 8 + 6 * 4);
        assert_eq!(size_of::<Args>() % 8, 0);
    }
}
