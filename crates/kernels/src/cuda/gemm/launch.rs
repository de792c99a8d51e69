//! From a product in strides to a launch: operands' layouts, units, arguments.

use std::sync::{Arc, Mutex, PoisonError};

use bullet_ops::{Activation, DType};
use bullet_runtime::jit::Tier;
use bullet_runtime::{Buffer, DevicePtr, Error, KernelArgs, Result};

use super::choose::{COUNTERS, Case, Engine, Plan, SKINNY_MOST, Tile, acc_bytes, choose};
use crate::cuda::gpu::{Define, Gpu, Unit};

/// Leading axes that an operand may have: the most axes of a tensor, less two.
pub(super) const LEAD: usize = 6;
/// Batches of one launch: what blockIdx.z holds.
const BATCHES: usize = 65535;

/// An operand as rows by k; strides in elements.
#[derive(Clone, Copy, Debug)]
pub(super) struct Side {
    pub at: DevicePtr,
    pub rows: usize,
    pub row: isize,
    pub k: isize,
    /// Strides of the leading axes; 0 where it is broadcast.
    pub lead: [isize; LEAD],
}

/// `c[.., m, n] = activation(a b^T + bias)`: a has m rows, b has n.
#[derive(Clone, Debug)]
pub(super) struct Product {
    pub dtype: DType,
    pub k: usize,
    pub a: Side,
    pub b: Side,
    pub lead: [usize; LEAD],
    pub lead_rank: usize,
    /// The result, row-major and without gaps, as is `pre`, the value before the activation.
    pub c: DevicePtr,
    pub pre: Option<DevicePtr>,
    pub bias: Option<DevicePtr>,
    pub activation: Activation,
}

/// How an operand is loaded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Access {
    /// Threads go along k first.
    pub k_major: bool,
    /// Elements that are loaded at once; with more than one they are neighbours.
    pub vec: usize,
}

impl Side {
    /// How it can be loaded. Strides of axes of length 1 become 0, as nothing is to be multiplied by them.
    pub(super) fn access(&mut self, k: usize, lead: &[usize], dtype: DType) -> Access {
        if self.rows == 1 {
            self.row = 0;
        }
        if k <= 1 {
            self.k = 0;
        }
        let size = dtype.size();
        let (k_major, other) = match (self.row, self.k) {
            (row, 1) => (true, row),
            (1, k) => (false, k),
            (row, k) => {
                let near = row == 0 || (k != 0 && k.unsigned_abs() <= row.unsigned_abs());
                return Access { k_major: near, vec: 1 };
            }
        };
        let fits = |vec: usize| {
            let whole = |stride: isize| stride % vec as isize == 0;
            self.at.0.is_multiple_of((vec * size) as u64)
                && whole(other)
                && lead.iter().zip(&self.lead).all(|(&len, &s)| len == 1 || whole(s))
        };
        let vec = [8, 4, 2].into_iter().find(|&v| v * size <= 16 && fits(v)).unwrap_or(1);
        Access { k_major, vec }
    }
}

impl Product {
    /// Merges leading axes that lie behind each other, and makes rows of them where all share one b.
    fn merge_lead(&mut self) {
        let mut kept = 0;
        for d in 0..self.lead_rank {
            let (len, sa, sb) = (self.lead[d], self.a.lead[d], self.b.lead[d]);
            if len == 1 {
                continue;
            }
            let behind = |outer: isize, inner: isize| outer == inner * len as isize;
            if kept > 0 && behind(self.a.lead[kept - 1], sa) && behind(self.b.lead[kept - 1], sb) {
                self.lead[kept - 1] *= len;
                (self.a.lead[kept - 1], self.b.lead[kept - 1]) = (sa, sb);
            } else {
                (self.lead[kept], self.a.lead[kept], self.b.lead[kept]) = (len, sa, sb);
                kept += 1;
            }
        }
        self.lead_rank = kept;
        let rows_follow = |a: &Side| a.rows == 1 || a.lead[0] == a.row * a.rows as isize;
        if kept == 1 && self.b.lead[0] == 0 && rows_follow(&self.a) {
            if self.a.rows == 1 {
                self.a.row = self.a.lead[0];
            }
            self.a.rows *= self.lead[0];
            self.lead_rank = 0;
        }
    }

    fn batch(&self) -> usize {
        self.lead[..self.lead_rank].iter().product()
    }
}

/// Computes a product. Nothing is launched for an empty result.
pub(super) fn run(gpu: &Gpu, mut p: Product) -> Result<()> {
    if p.a.rows == 0 || p.b.rows == 0 || p.batch() == 0 {
        return Ok(());
    }
    p.merge_lead();
    // A library's kernels (cuBLASLt) would be tried here, before the choice among our own.
    let mut sides = [p.a, p.b];
    let vectors = sides.iter_mut().all(|s| s.access(p.k, &p.lead[..p.lead_rank], p.dtype).vec > 1);
    let case = Case { dtype: p.dtype, m: p.a.rows, n: p.b.rows, k: p.k, batch: p.batch(), vectors };
    let plan = choose(&case, gpu.info());
    match plan.tile.engine {
        Engine::Skinny => skinny(gpu, p),
        Engine::Simt | Engine::Mma => tiled(gpu, p, &plan),
    }
}

fn tiled(gpu: &Gpu, mut p: Product, plan: &Plan) -> Result<()> {
    let (tile, tier) = (plan.tile, gpu.info().tier);
    let lead = p.lead;
    let a = p.a.access(p.k, &lead[..p.lead_rank], p.dtype);
    let b = p.b.access(p.k, &lead[..p.lead_rank], p.dtype);
    let unit = tiled_unit(tile, p.dtype, p.activation, a, b, plan.splits > 1, tier);
    let tiles = (p.a.rows.div_ceil(tile.size.0), p.b.rows.div_ceil(tile.size.1));
    let grid = grid(tiles.0.checked_mul(tiles.1), &p)?;
    let (m, n) = (p.a.rows, p.b.rows);
    let form = Form {
        c: (n, 1),
        tiles,
        splits: plan.splits,
        k_split: plan.k_split,
        vector: vector_of(&p, n),
        by_row: false,
    };
    let scratch = match plan.splits {
        1 => None,
        splits => {
            let bytes = tiles.0 * tiles.1 * p.batch() * splits * tile.size.0 * tile.size.1;
            Some((gpu.scratch(bytes * acc_bytes(p.dtype))?, counters(gpu)?))
        }
    };
    let (partial, count) = match &scratch {
        Some((partial, count)) => (partial.ptr(), count.ptr()),
        None => (DevicePtr(0), DevicePtr(0)),
    };
    let shared = tile.shared(tier) as u32;
    launch(gpu, &unit, &p, (m * n, grid, tile.threads() as u32, shared), &form, (partial, count))
}

/// Products with few rows, or few columns, which are turned around.
fn skinny(gpu: &Gpu, mut p: Product) -> Result<()> {
    let (m, n) = (p.a.rows, p.b.rows);
    let turned = n < m;
    if turned {
        std::mem::swap(&mut p.a, &mut p.b);
    }
    let (few, many) = (p.a.rows, p.b.rows);
    let lead = p.lead;
    let a = p.a.access(p.k, &lead[..p.lead_rank], p.dtype);
    let b = p.b.access(p.k, &lead[..p.lead_rank], p.dtype);
    let rows = few.next_power_of_two().min(SKINNY_MOST);
    let (unit, each, threads) = if b.k_major {
        let vec = if a.k_major { a.vec.min(b.vec) } else { 1 };
        let group = p.k.div_ceil(vec).next_power_of_two().clamp(4, 32);
        let blocks = many * p.batch() * group / SKINNY_THREADS;
        let enough = |cols: usize| rows <= 4 && blocks / cols >= 2 * gpu.info().multiprocessors as usize;
        let cols = [4, 2].into_iter().find(|&c| enough(c)).unwrap_or(1);
        let unit = skinny_unit(p.dtype, p.activation, rows, vec, Some((group, cols)));
        (unit, SKINNY_THREADS / group * cols, SKINNY_THREADS)
    } else {
        let vec = if rows > 8 { b.vec.min(4) } else { b.vec };
        (skinny_unit(p.dtype, p.activation, rows, vec, None), 8 * vec, 256)
    };
    let form = Form {
        c: if turned { (1, n) } else { (n, 1) },
        tiles: (1, many.div_ceil(each)),
        splits: 1,
        k_split: p.k,
        vector: 1,
        by_row: turned,
    };
    let grid = grid(Some(many.div_ceil(each)), &p)?;
    launch(gpu, &unit, &p, (m * n, grid, threads as u32, 0), &form, (DevicePtr(0), DevicePtr(0)))
}

const SKINNY_THREADS: usize = 128;

/// Blocks along x.
fn grid(tiles: Option<usize>, p: &Product) -> Result<u32> {
    tiles.filter(|&t| t <= i32::MAX as usize).map(|t| t as u32).ok_or_else(|| {
        Error::unsupported(format!(
            "a product of {} x {} has more tiles than a launch can have blocks (2^31 - 1); cut it into parts",
            p.a.rows, p.b.rows
        ))
    })
}

/// Elements of a result row that can be stored at once.
pub(super) fn vector_of(p: &Product, n: usize) -> usize {
    let size = p.dtype.size();
    let aligned = |at: DevicePtr, v: usize| at.0.is_multiple_of((v * size) as u64);
    let fits = |v: usize| {
        v * size <= 16 && n.is_multiple_of(v) && aligned(p.c, v) && p.pre.is_none_or(|pre| aligned(pre, v))
    };
    [8, 4, 2].into_iter().find(|&v| fits(v)).unwrap_or(1)
}

/// What of `struct Problem` depends on the kernel.
struct Form {
    /// Row and column strides of the result.
    c: (usize, usize),
    tiles: (usize, usize),
    splits: usize,
    k_split: usize,
    vector: usize,
    by_row: bool,
}

impl Form {
    /// Appends `struct Problem` of gemm.cuh.
    fn push(&self, args: &mut KernelArgs, p: &Product, c_batch: usize, batch0: usize) {
        let mut bytes = Vec::with_capacity(264);
        let mut long = |values: &[i64]| values.iter().for_each(|v| bytes.extend_from_slice(&v.to_ne_bytes()));
        long(&[p.a.rows as i64, p.b.rows as i64, p.k as i64]);
        long(&[p.a.row as i64, p.a.k as i64, p.b.row as i64, p.b.k as i64]);
        long(&[self.c.0 as i64, self.c.1 as i64, c_batch as i64, self.k_split as i64, batch0 as i64]);
        let ints = [
            self.tiles.0 as i32,
            self.tiles.1 as i32,
            self.splits as i32,
            self.vector as i32,
            i32::from(self.by_row),
            p.lead_rank as i32,
        ];
        ints.iter().for_each(|v| bytes.extend_from_slice(&v.to_ne_bytes()));
        for d in 0..LEAD {
            bytes.extend_from_slice(&(p.lead[d] as i64).to_ne_bytes());
        }
        for side in [&p.a, &p.b] {
            side.lead.iter().for_each(|&s| bytes.extend_from_slice(&(s as i64).to_ne_bytes()));
        }
        args.push_bytes(&bytes, 8);
    }
}

fn launch(
    gpu: &Gpu,
    unit: &Unit,
    p: &Product,
    (c_batch, blocks, threads, shared): (usize, u32, u32, u32),
    form: &Form,
    (partial, count): (DevicePtr, DevicePtr),
) -> Result<()> {
    let function = gpu.function(unit, ENTRY)?;
    let null = DevicePtr(0);
    let batch = p.batch();
    for batch0 in (0..batch).step_by(BATCHES) {
        let mut args = KernelArgs::new();
        args.push(p.a.at).push(p.b.at).push(p.bias.unwrap_or(null));
        args.push(p.c).push(p.pre.unwrap_or(null)).push(partial).push(count);
        form.push(&mut args, p, c_batch, batch0);
        let grid = [blocks, form.splits as u32, (batch - batch0).min(BATCHES) as u32];
        // SAFETY: these are the arguments of `gemm` in all three sources; operands and results have the elements that
        // their strides reach, as the views that they come from say.
        unsafe { gpu.launch(function, grid, threads, shared, &args)? };
    }
    Ok(())
}

/// Counters of tiles that are split over k: 0 between launches. Made at the first use, and kept, so that a captured graph
/// finds them where they were.
pub(super) fn counters(gpu: &Gpu) -> Result<Arc<Buffer>> {
    struct Counters(Mutex<Option<Arc<Buffer>>>);
    let cell = gpu.device().extension(|| Counters(Mutex::new(None)));
    let mut cell = cell.0.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(buffer) = &*cell {
        return Ok(buffer.clone());
    }
    let mut buffer = gpu.device().alloc(COUNTERS * 4)?;
    buffer.write(0, &[0; COUNTERS * 4])?;
    Ok(cell.insert(Arc::new(buffer)).clone())
}

/// The entry point of all sources.
pub(super) const ENTRY: &str = "gemm";

const SIMT: &str = concat!(
    include_str!("../../../cuda/gemm.cuh"),
    include_str!("../../../cuda/gemm_simt.cu"),
    include_str!("../../../cuda/gemm_entry.cuh")
);
const MMA: &str = concat!(
    include_str!("../../../cuda/gemm.cuh"),
    include_str!("../../../cuda/gemm_mma.cu"),
    include_str!("../../../cuda/gemm_entry.cuh")
);
const FEW: &str =
    concat!(include_str!("../../../cuda/gemm.cuh"), include_str!("../../../cuda/gemm_skinny.cu"));

fn act_number(activation: Activation) -> i64 {
    match activation {
        Activation::Identity => 0,
        Activation::Relu => 1,
        Activation::Gelu => 2,
        Activation::GeluTanh => 3,
        Activation::Silu => 4,
    }
}

/// The unit of a tile on a tier.
pub(super) fn tiled_unit(
    tile: &Tile,
    dtype: DType,
    activation: Activation,
    a: Access,
    b: Access,
    split: bool,
    tier: Tier,
) -> Unit {
    use Define::{Int, Type};
    // One by one these types are transposed by asynchronous copies, which pays for the tile that has no registers left.
    let transposed = tile.engine == Engine::Simt
        && tier >= Tier::Sm80
        && dtype == DType::F32
        && tile.size == (128, 128)
        && tile.part == (8, 8);
    let vec = |x: Access| if transposed && x.k_major { 1 } else { x.vec as i64 };
    let mut defines = vec![
        Type("T", dtype),
        Int("ACT", act_number(activation)),
        Int("BM", tile.size.0 as i64),
        Int("BN", tile.size.1 as i64),
        Int("BK", tile.bk(dtype) as i64),
        Int("A_K", i64::from(a.k_major)),
        Int("A_VEC", vec(a)),
        Int("B_K", i64::from(b.k_major)),
        Int("B_VEC", vec(b)),
        Int("SPLIT", i64::from(split)),
    ];
    let (part, since) =
        ((tile.part.0 as i64, tile.part.1 as i64), if dtype == DType::F16 { Tier::Sm75 } else { Tier::Sm80 });
    match tile.engine {
        Engine::Mma => {
            let stages = tile.stages_on(tier) as i64;
            defines.extend([Int("WM", part.0), Int("WN", part.1), Int("STAGES", stages)]);
            Unit { name: "gemm_mma", source: MMA, defines, since }
        }
        Engine::Simt | Engine::Skinny => {
            defines.extend([Int("TM", part.0), Int("TN", part.1)]);
            let since = if part.0 * part.1 > 64 { Tier::Sm80 } else { Tier::Sm35 };
            Unit { name: "gemm_simt", source: SIMT, defines, since }
        }
    }
}

/// The unit for few rows: with lanes of a group along k and columns a group, or (`None`) with lanes along rows of b.
pub(super) fn skinny_unit(
    dtype: DType,
    activation: Activation,
    rows: usize,
    vec: usize,
    group: Option<(usize, usize)>,
) -> Unit {
    use Define::{Int, Type};
    let mut defines = vec![
        Type("T", dtype),
        Int("ACT", act_number(activation)),
        Int("ROWS", rows as i64),
        Int("VEC", vec as i64),
    ];
    if let Some((lanes, cols)) = group {
        defines.extend([Int("GROUP", lanes as i64), Int("COLS", cols as i64)]);
    }
    Unit { name: "gemm_skinny", source: FEW, defines, since: Tier::Sm35 }
}
