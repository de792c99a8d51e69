//! Attention and its adjoint, on separate and on packed operands.
//!
//! `attention_tensor` and `attention_tensor_grad` do the work for f16 and bf16 and `attention_tf32` for f32 on tensor cores,
//! `attention` for everything else, and `attention_decode` for a few queries over many keys. All take any strides but that of
//! a head's elements, so packed operands are the same call. Nothing of the size queries x keys is in memory; every result
//! has one writer. Dropout of weights draws the same bits in both passes ([`WeightDropout`]).

use bullet_ops::random::WeightDropout;
use bullet_ops::{AttentionSpec, DType, DropoutSpec, Layout};
use bullet_runtime::jit::Tier;
use bullet_runtime::{DevicePtr, Error, KernelArgs, Result};

use super::gemm::{Precision, precision};
use super::gpu::{Define, Gpu, Unit};
use crate::{View, ViewMut};

/// A source behind what all of them share, and what some do.
macro_rules! source {
    ($($file:literal),+) => {
        concat!(
            include_str!("../../cuda/philox.cuh"),
            include_str!("../../cuda/attention_common.cuh"),
            $("\n#line 1 \"", $file, "\"\n", include_str!(concat!("../../cuda/", $file))),+
        )
    };
}
const PLAIN: &str = source!("attention.cu");
const DECODE: &str = source!("attention_decode.cu");
const TENSOR: &str = source!("attention_tensor.cuh", "attention_tensor.cu");
const TENSOR_GRAD: &str = source!("attention_tensor.cuh", "attention_tensor_grad.cu");
const TF32: &str = source!("attention_tf32.cu");

/// The head dimensions that kernels are compiled for; others take the next one.
const HEADS: [usize; 5] = [16, 32, 64, 128, 256];
/// Queries up to which each has a block of its own, over its keys.
const FEW_QUERIES: usize = 4;
/// Queries of a block of `attention_statistics`.
const STATISTICS_ROWS: usize = 64;
/// Blocks of a grid along its second axis.
const MOST_ROWS: usize = 65535;
/// Rows of a tile on tensor cores.
const TENSOR_ROWS: usize = 64;

/// A tensor `[batch, heads, sequence, dim]` whose last axis is dense.
#[derive(Clone, Copy, Default)]
struct Part {
    at: u64,
    /// Of batch, head, row; in elements.
    strides: [isize; 3],
    lens: [usize; 3],
}

impl Part {
    /// Of a layout `[batch, heads, sequence, dim]`.
    fn by_head(at: u64, layout: &Layout) -> Part {
        let (d, s) = (layout.shape, layout.strides());
        Part { at, strides: [s[0], s[1], s[2]], lens: [d[0], d[1], d[2]] }
    }

    /// Of a layout `[batch, sequence, heads, dim]`.
    fn by_position(at: u64, layout: &Layout) -> Part {
        let (d, s) = (layout.shape, layout.strides());
        Part { at, strides: [s[0], s[2], s[1]], lens: [d[0], d[2], d[1]] }
    }

    /// Queries, keys and values in contiguous `[batch, sequence, (heads + 2 kv_heads) dim]`.
    fn packed(at: u64, layout: &Layout, dtype: DType, heads: usize, kv_heads: usize) -> [Part; 3] {
        let (batch, seq, width) = (layout.shape[0], layout.shape[1], layout.shape[2]);
        let dim = width / (heads + 2 * kv_heads);
        let part = |first: usize, heads: usize| Part {
            at: at + (first * dim * dtype.size()) as u64,
            strides: [(seq * width) as isize, dim as isize, width as isize],
            lens: [batch, heads, seq],
        };
        [part(0, heads), part(heads, kv_heads), part(heads + kv_heads, kv_heads)]
    }

    /// Whether every row begins at a multiple of 16 bytes.
    fn aligned(&self, dtype: DType) -> bool {
        let even = |(&stride, &len): (&isize, &usize)| {
            len <= 1 || (stride.unsigned_abs() * dtype.size()).is_multiple_of(16)
        };
        self.at.is_multiple_of(16) && self.strides.iter().zip(&self.lens).all(even)
    }
}

/// `struct Attention` of `attention_common.cuh`.
struct Problem {
    dtype: DType,
    spec: AttentionSpec,
    q: Part,
    k: Part,
    v: Part,
    /// Backward: the forward result and its gradient, by the same strides.
    o: Part,
    g: Part,
    lse: u64,
    mask: Mask,
    /// Seed and step, with dropout.
    state: u64,
    /// o; or dq, dk, dv.
    out: [Part; 3],
    out_lse: u64,
    dim: usize,
}

#[derive(Clone, Copy, Default)]
struct Mask {
    at: u64,
    /// 0 none, 1 bool, 2 of the operands' dtype.
    kind: u64,
    strides: [isize; 4],
}

impl Mask {
    /// `mask` broadcast to `[batch, heads, queries, keys]`.
    fn of(mask: Option<&View<'_>>) -> Mask {
        let Some(mask) = mask else { return Mask::default() };
        let layout = mask.layout();
        let mut strides = [0; 4];
        let missing = 4 - layout.shape.rank();
        for (axis, (&len, &stride)) in layout.shape.iter().zip(layout.strides()).enumerate() {
            if len != 1 {
                strides[missing + axis] = stride;
            }
        }
        Mask { at: mask.bytes() as u64, kind: if mask.dtype() == DType::Bool { 1 } else { 2 }, strides }
    }
}

impl Problem {
    /// Of queries, keys and values with heads of `dim` elements, and the operands that are not always there.
    fn new(
        spec: AttentionSpec,
        dtype: DType,
        [q, k, v]: [Part; 3],
        dim: usize,
        rest: &[View<'_>],
    ) -> Problem {
        let none = Part::default();
        let (mask, state) = spec.optional(rest);
        Problem {
            dtype,
            spec,
            q,
            k,
            v,
            o: none,
            g: none,
            lse: 0,
            mask: Mask::of(mask),
            state: state.map_or(0, address),
            out: [none; 3],
            out_lse: 0,
            dim,
        }
    }

    /// The forward pass to o and the log-sum-exp.
    fn results(self, out: &mut [ViewMut<'_>]) -> Problem {
        let [o, lse] = out else { unreachable!("attention has two results") };
        let o = Part::by_position(o.bytes() as u64, o.layout());
        Problem { out: [o, Part::default(), Part::default()], out_lse: lse.bytes() as u64, ..self }
    }

    /// The backward pass from o, the log-sum-exp and the gradient of o to dq, dk and dv.
    fn gradients(self, saved: &[View<'_>], out: [Part; 3]) -> Problem {
        let [o, lse, g] = saved else { unreachable!("attention's adjoint reads three tensors more") };
        let [o, g] = [o, g].map(|x| Part::by_position(address(x), x.layout()));
        Problem { o, g, lse: address(lse), out, ..self }
    }

    fn batch(&self) -> usize {
        self.q.lens[0]
    }
    fn heads(&self) -> usize {
        self.q.lens[1]
    }
    fn kv_heads(&self) -> usize {
        self.k.lens[1]
    }
    fn queries(&self) -> usize {
        self.q.lens[2]
    }
    fn keys(&self) -> usize {
        self.k.lens[2]
    }

    /// The dimension that the kernels are compiled for.
    fn head(&self) -> Result<usize> {
        if self.queries().max(self.keys()) > 1 << 30 {
            return Err(Error::unsupported(format!(
                "attention on a GPU takes up to 2^30 queries and keys, not {} and {}",
                self.queries(),
                self.keys()
            )));
        }
        HEADS.into_iter().find(|&head| self.dim <= head).ok_or_else(|| {
            Error::unsupported(format!(
                "attention on a GPU takes heads of up to 256 elements, not {}; use more heads",
                self.dim
            ))
        })
    }

    fn args(&self, blocks: usize, (splits, span): (usize, usize), parts: u64) -> KernelArgs {
        let mut bytes = Vec::with_capacity(512);
        let mut push = |x: u64| bytes.extend_from_slice(&x.to_ne_bytes());
        let tensors = [self.q, self.k, self.v, self.o, self.g];
        tensors.iter().for_each(|part| push(part.at));
        push(self.lse);
        push(self.mask.at);
        self.out.iter().for_each(|part| push(part.at));
        push(self.out_lse);
        push(parts);
        let strided = [self.q, self.k, self.v, self.o, self.out[0], self.out[1], self.out[2]];
        strided.iter().flat_map(|part| part.strides).for_each(|stride| push(stride as u64));
        self.mask.strides.iter().for_each(|&stride| push(stride as u64));
        let sizes = [self.batch(), self.heads(), self.kv_heads(), self.queries(), self.keys(), self.dim];
        sizes.iter().for_each(|&size| push(size as u64));
        push(u64::from(self.spec.causal));
        push(self.mask.kind);
        push(u64::from(self.aligned()));
        [splits, span, blocks].iter().for_each(|&n| push(n as u64));
        push(self.spec.scale.to_bits());
        let dropout = self.spec.dropout.unwrap_or(DropoutSpec { p: 0.0, stream: 0 });
        let (threshold, scale) = WeightDropout::rounded(dropout.p);
        [scale.to_bits(), threshold.into(), dropout.stream, self.state].into_iter().for_each(push);
        let mut args = KernelArgs::new();
        args.push_bytes(&bytes, 8);
        args
    }

    fn rows(&self) -> usize {
        self.batch() * self.heads() * self.queries()
    }

    /// Whether every row begins at a multiple of 16 bytes.
    fn aligned(&self) -> bool {
        let all = [self.q, self.k, self.v, self.o, self.g, self.out[0], self.out[1], self.out[2]];
        all.iter().all(|part| part.aligned(self.dtype))
    }

    /// What its kernels need to look at.
    fn traits(&self, engine: Engine) -> Traits {
        // Without, larger products are larger scores.
        let masked = self.mask.kind != 0 || self.spec.scale.is_nan() || self.spec.scale <= 0.0;
        // One unit less to compile for what is slow by its mask.
        let whole = !masked && self.dim == engine.head() && self.aligned();
        Traits { masked, whole, drop: self.spec.dropout.is_some() }
    }

    /// Whether each head is one tile of queries and one of keys.
    fn is_short(&self) -> bool {
        self.queries().max(self.keys()) <= TENSOR_ROWS
    }

    /// The kernels for it, compiled for heads of up to `head` elements.
    fn engine(&self, gpu: &Gpu, head: usize, backward: bool) -> Engine {
        let info = gpu.info();
        let half = matches!(self.dtype, DType::F16 | DType::BF16);
        if info.tier < Tier::Sm80 || head > 128 {
            return Engine::plain(self.dtype, head);
        }
        if half {
            let long = self.keys().max(if backward { self.queries() } else { 0 }) > TENSOR_ROWS;
            // Twice the rows where that leaves a block for every multiprocessor.
            let rows = self.batch() * self.heads() * (self.queries() / (2 * TENSOR_ROWS));
            let fold = !backward && head > 64 && rows >= info.multiprocessors as usize;
            return Engine::Half { head, fold: 1 + usize::from(fold), stages: 1 + usize::from(long) };
        }
        // Split operands pay for small heads only, and as far as registers reach.
        let exact = precision() == Precision::Full;
        let most = match (exact, backward) {
            (true, _) => 32,
            (false, true) => 64,
            (false, false) => 128,
        };
        if self.dtype != DType::F32 || head > most {
            return Engine::plain(self.dtype, head);
        }
        Engine::Single { head: head.max(32), passes: if exact { 3 } else { 1 } }
    }
}

/// What kernels are specialised by besides dtype and sizes; see `attention_common.cuh`.
#[derive(Clone, Copy, Default)]
struct Traits {
    masked: bool,
    whole: bool,
    drop: bool,
}

/// Kernels, as specialised for a problem.
#[derive(Clone, Copy, Debug)]
enum Engine {
    /// `attention.cu`, with so many rows and threads a block.
    Plain { head: usize, rows: usize, threads: u32 },
    /// `attention_tensor.cu` and `attention_tensor_grad.cu`
    Half { head: usize, fold: usize, stages: usize },
    /// `attention_tf32.cu`
    Single { head: usize, passes: usize },
}

impl Engine {
    /// As `attention.cu` defines them.
    fn plain(dtype: DType, head: usize) -> Engine {
        let row_bytes = head * dtype.compute().size();
        let rows = match row_bytes {
            0..=256 => 32,
            257..=1024 => 16,
            _ => 8,
        };
        let each = if row_bytes <= 1024 { 2 } else { 1 };
        Engine::Plain { head, rows, threads: (rows / each * 8) as u32 }
    }

    fn unit(self, dtype: DType, traits: Traits, backward: bool) -> Unit {
        let int = |name: &'static str, value: usize| Define::Int(name, value as i64);
        let (name, source, since, more) = match self {
            Engine::Plain { .. } => ("attention", PLAIN, Tier::Sm35, vec![]),
            Engine::Half { stages, .. } if backward => {
                ("attention_tensor_grad", TENSOR_GRAD, Tier::Sm80, vec![int("STAGES", stages)])
            }
            Engine::Half { fold, stages, .. } => {
                ("attention_tensor", TENSOR, Tier::Sm80, vec![int("FOLD", fold), int("STAGES", stages)])
            }
            Engine::Single { passes, .. } => {
                ("attention_tf32", TF32, Tier::Sm80, vec![int("PASSES", passes)])
            }
        };
        // The plain kernels gain too little by the others to be compiled for each.
        let Traits { masked, whole, drop } = match self {
            Engine::Plain { .. } => Traits { masked: true, whole: false, ..traits },
            Engine::Half { .. } | Engine::Single { .. } => traits,
        };
        let mut defines = vec![Define::Type("T", dtype), int("HEAD", self.head())];
        let traits = [("MASKED", masked), ("WHOLE", whole), ("DROP", drop)];
        defines.extend(traits.map(|(name, is)| int(name, is.into())));
        defines.extend(more);
        Unit { name, source, defines, since }
    }

    fn head(self) -> usize {
        match self {
            Engine::Plain { head, .. } | Engine::Half { head, .. } | Engine::Single { head, .. } => head,
        }
    }

    /// Rows of a block.
    fn rows(self) -> usize {
        match self {
            Engine::Plain { rows, .. } => rows,
            Engine::Half { fold, .. } => fold * TENSOR_ROWS,
            Engine::Single { .. } => TENSOR_ROWS,
        }
    }

    fn threads(self) -> u32 {
        match self {
            Engine::Plain { threads, .. } => threads,
            Engine::Half { .. } | Engine::Single { .. } => 128,
        }
    }

    /// Bytes of dynamic shared memory of a block.
    fn shared(self, backward: bool) -> u32 {
        let tile = TENSOR_ROWS * (self.head() + 8);
        let bytes = match self {
            Engine::Plain { .. } => 0,
            Engine::Half { fold, stages, .. } if !backward => 2 * tile * (fold + 2 * stages),
            Engine::Half { stages, .. } => 2 * tile * (2 + 2 * stages) + stages * 2 * TENSOR_ROWS * 4,
            Engine::Single { .. } => 4 * (2 * tile + 2 * TENSOR_ROWS),
        };
        bytes as u32
    }
}

/// A grid of at least `blocks` blocks, that kernels count along x, then y.
fn grid(blocks: usize) -> [u32; 3] {
    let x = blocks.min(1 << 30);
    [x as u32, blocks.div_ceil(x.max(1)) as u32, 1]
}

fn forward(gpu: &Gpu, problem: &Problem) -> Result<()> {
    let head = problem.head()?;
    if problem.rows() == 0 {
        return Ok(());
    }
    if problem.queries() <= FEW_QUERIES && problem.spec.dropout.is_none() {
        return decode(gpu, problem, head);
    }
    let engine = problem.engine(gpu, head, false);
    let (batch, heads) = (problem.batch(), problem.heads());
    let blocks = batch * heads * problem.queries().div_ceil(engine.rows());
    let short =
        matches!(engine, Engine::Half { .. }) && head <= 64 && problem.is_short() && batch <= MOST_ROWS;
    let (entry, grid) = match short {
        true => ("attention_forward_short", [heads as u32, batch as u32, 1]),
        false => ("attention_forward", grid(blocks)),
    };
    let function = gpu.function(&engine.unit(problem.dtype, problem.traits(engine), false), entry)?;
    let args = problem.args(blocks, (1, 0), 0);
    // SAFETY: the arguments are the entry point's; operands and results fit the op, as the caller's views promise.
    unsafe { gpu.launch(function, grid, engine.threads(), engine.shared(false), &args) }
}

/// Parts of the keys, and keys in a part, so that `rows` rows fill a GPU of so many multiprocessors.
fn splits(rows: usize, keys: usize, multiprocessors: usize) -> (usize, usize) {
    let wanted = (2 * multiprocessors).div_ceil(rows).min(keys.div_ceil(128)).max(1);
    let span = keys.div_ceil(wanted).max(1);
    (keys.div_ceil(span).max(1), span)
}

fn decode_unit(dtype: DType, head: usize) -> Unit {
    let defines = vec![Define::Type("T", dtype), Define::Int("HEAD", head as i64)];
    Unit { name: "attention_decode", source: DECODE, defines, since: Tier::Sm35 }
}

fn decode(gpu: &Gpu, problem: &Problem, head: usize) -> Result<()> {
    let unit = decode_unit(problem.dtype, head);
    let rows = problem.rows();
    let (splits, span) = splits(rows, problem.keys(), gpu.info().multiprocessors as usize);
    let blocks = rows * splits;
    let decode = gpu.function(&unit, "attention_decode")?;
    if splits == 1 {
        // SAFETY: as in `forward`.
        return unsafe { gpu.launch(decode, grid(blocks), 128, 0, &problem.args(blocks, (1, span), 0)) };
    }
    let combine = gpu.function(&unit, "attention_combine")?;
    let parts = gpu.scratch(blocks * (head + 2) * problem.dtype.compute().size())?;
    let args = problem.args(blocks, (splits, span), parts.ptr().0);
    // SAFETY: as in `forward`; `parts` has a maximum, a sum and `head` elements a block.
    unsafe {
        gpu.launch(decode, grid(blocks), 128, 0, &args)?;
        gpu.launch(combine, grid(rows), 128, 0, &args)
    }
}

fn backward(gpu: &Gpu, problem: &Problem) -> Result<()> {
    let head = problem.head()?;
    let (queries, keys) = (problem.queries(), problem.keys());
    let engine = problem.engine(gpu, head, true);
    let half = matches!(engine, Engine::Half { .. });
    let short = half && problem.is_short() && problem.heads() == problem.kv_heads() && head <= 64;
    let rows = engine.rows();
    let tiles = problem.heads() * queries.div_ceil(rows) + problem.kv_heads() * keys.div_ceil(rows);
    let blocks = problem.batch() * if short { problem.heads() } else { tiles };
    if blocks == 0 {
        return Ok(());
    }
    let unit = engine.unit(problem.dtype, problem.traits(engine), true);
    let mut parts = None;
    if half && !short && problem.rows() > 0 {
        let statistics = gpu.function(&unit, "attention_statistics")?;
        let scratch = &*parts.insert(gpu.scratch(problem.rows() * 2 * size_of::<f32>())?);
        let blocks = problem.rows().div_ceil(STATISTICS_ROWS);
        let args = problem.args(blocks, (1, 0), scratch.ptr().0);
        // SAFETY: as in `forward`; the scratch memory has two numbers a query.
        unsafe { gpu.launch(statistics, grid(blocks), engine.threads(), 0, &args)? };
    }
    let entry = if short { "attention_backward_short" } else { "attention_backward" };
    let function = gpu.function(&unit, entry)?;
    let args = problem.args(blocks, (1, 0), parts.as_ref().map_or(0, |parts| parts.ptr().0));
    // SAFETY: as in `forward`.
    unsafe { gpu.launch(function, grid(blocks), engine.threads(), engine.shared(true), &args) }
}

fn address(x: &View<'_>) -> u64 {
    DevicePtr(x.bytes() as u64).0
}

fn by_head(x: &[View<'_>]) -> [Part; 3] {
    [0, 1, 2].map(|i| Part::by_head(address(&x[i]), x[i].layout()))
}

/// [`Op::Attention`](bullet_ops::Op::Attention): q, k, v, an optional mask and the random state of dropout to o and the
/// log-sum-exp.
pub(crate) fn attention(
    gpu: &Gpu,
    spec: AttentionSpec,
    x: &[View<'_>],
    out: &mut [ViewMut<'_>],
) -> Result<()> {
    let dim = x[0].layout().shape[3];
    forward(gpu, &Problem::new(spec, x[0].dtype(), by_head(x), dim, &x[3..]).results(out))
}

/// [`Op::AttentionGrad`](bullet_ops::Op::AttentionGrad): q, k, v, o, the log-sum-exp, the gradient of o and what else the
/// forward pass had to dq, dk, dv.
pub(crate) fn attention_grad(
    gpu: &Gpu,
    spec: AttentionSpec,
    x: &[View<'_>],
    out: &mut [ViewMut<'_>],
) -> Result<()> {
    let dim = x[0].layout().shape[3];
    let [dq, dk, dv] = out else { unreachable!("attention_grad has three results") };
    let out = [dq, dk, dv].map(|d| Part::by_head(d.bytes() as u64, d.layout()));
    backward(gpu, &Problem::new(spec, x[0].dtype(), by_head(x), dim, &x[6..]).gradients(&x[3..6], out))
}

/// [`Op::AttentionPacked`](bullet_ops::Op::AttentionPacked): one packed tensor and the random state of dropout to o and the
/// log-sum-exp.
pub(crate) fn attention_packed(
    gpu: &Gpu,
    spec: AttentionSpec,
    (heads, kv_heads): (usize, usize),
    x: &[View<'_>],
    out: &mut [ViewMut<'_>],
) -> Result<()> {
    let (dtype, dim) = (x[0].dtype(), out[0].layout().shape[3]);
    let parts = Part::packed(address(&x[0]), x[0].layout(), dtype, heads, kv_heads);
    forward(gpu, &Problem::new(spec, dtype, parts, dim, &x[1..]).results(out))
}

/// [`Op::AttentionPackedGrad`](bullet_ops::Op::AttentionPackedGrad): the packed tensor, o, the log-sum-exp, the gradient of o
/// and the random state of dropout to the packed gradient.
pub(crate) fn attention_packed_grad(
    gpu: &Gpu,
    spec: AttentionSpec,
    (heads, kv_heads): (usize, usize),
    x: &[View<'_>],
    out: &mut [ViewMut<'_>],
) -> Result<()> {
    let (dtype, dim) = (x[0].dtype(), x[1].layout().shape[3]);
    let parts = Part::packed(address(&x[0]), x[0].layout(), dtype, heads, kv_heads);
    let to = Part::packed(out[0].bytes() as u64, out[0].layout(), dtype, heads, kv_heads);
    backward(gpu, &Problem::new(spec, dtype, parts, dim, &x[4..]).gradients(&x[1..4], to))
}

/// The units that attention asks for: all dtypes, some of the head dimensions.
pub(crate) fn units() -> Vec<(Unit, Vec<&'static str>)> {
    let mut units = Vec::new();
    let both = ["attention_forward", "attention_backward"];
    let some = |masked, whole, drop| Traits { masked, whole, drop };
    for dtype in [DType::F16, DType::BF16, DType::F32, DType::F64] {
        for head in [32, 256] {
            let traits = some(true, false, head == 32);
            units.push((Engine::plain(dtype, head).unit(dtype, traits, false), both.to_vec()));
            units.push((decode_unit(dtype, head), vec!["attention_decode", "attention_combine"]));
        }
    }
    for dtype in [DType::F16, DType::BF16] {
        for (head, fold, stages, traits) in [
            (32, 1, 1, some(true, false, false)),
            (32, 1, 1, some(false, true, false)),
            (64, 1, 2, some(false, true, true)),
            (128, 2, 2, some(false, false, false)),
        ] {
            let engine = Engine::Half { head, fold, stages };
            let (mut there, mut back) =
                (vec!["attention_forward"], vec!["attention_statistics", "attention_backward"]);
            if head <= 64 {
                there.push("attention_forward_short");
                back.push("attention_backward_short");
            }
            units.push((engine.unit(dtype, traits, false), there));
            units.push((engine.unit(dtype, traits, true), back));
        }
    }
    for (head, passes, traits) in [
        (32, 1, some(false, true, false)),
        (32, 3, some(true, false, true)),
        (64, 1, some(false, false, false)),
    ] {
        units.push((Engine::Single { head, passes }.unit(DType::F32, traits, false), both.to_vec()));
    }
    units
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splits_cover_the_keys() {
        for rows in [1, 4, 100, 1000] {
            for keys in [0, 1, 127, 129, 1000, 4096, 100_003] {
                let (splits, span) = splits(rows, keys, 132);
                assert!(splits * span >= keys && (splits - 1) * span < keys.max(1), "{rows} {keys}");
            }
        }
        assert_eq!(splits(1000, 4096, 132).0, 1);
        assert_eq!(splits(4, 64, 132).0, 1);
        assert!(splits(4, 4096, 132).0 > 16);
    }

    #[test]
    fn alignment_is_of_rows() {
        let part = Part { at: 256, strides: [64, 8, 24], lens: [2, 3, 4] };
        assert!(part.aligned(DType::F16) && part.aligned(DType::F32));
        assert!(!Part { at: 258, ..part }.aligned(DType::F16));
        assert!(!Part { strides: [64, 8, 20], ..part }.aligned(DType::F16));
        assert!(Part { strides: [64, 7, 24], lens: [2, 1, 4], ..part }.aligned(DType::F16));
    }
}
