//! Which kernel computes a product: one table of tiles, and one model of their time.
//!
//! The model is fitted to measurements on an H200 (all tiles and shares of k, for the products of small transformers and
//! for squares of 512 to 4096), and meant to rank: a block that is alone takes a time for each step of k, a full
//! multiprocessor takes time for each step and for each block, and the product takes as long as the slower of the two
//! says. Splitting k costs the partial sums. `examples/gemm_table.rs` measures what the table should say.
//! `BULLET_GEMM=name` (or `name/splits`) forces a row of the table wherever it can do the product; `BULLET_GEMM_DEBUG=1`
//! prints every choice once.

use std::cell::RefCell;
use std::collections::HashSet;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

use bullet_ops::DType;
use bullet_runtime::jit::{GpuInfo, Tier};

/// How f32 products may be computed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Precision {
    /// In f32.
    Full,
    /// On tensor cores, from operands rounded to 10 bits of mantissa, where that is faster.
    Tf32,
}

static PRECISION: AtomicU8 = AtomicU8::new(u8::MAX);

/// How f32 products are computed in this process: as [`set_precision`] said, else `Tf32` if `BULLET_ALLOW_TF32` is 1.
pub fn precision() -> Precision {
    let known = match PRECISION.load(Ordering::Relaxed) {
        u8::MAX => {
            let allowed = std::env::var("BULLET_ALLOW_TF32").is_ok_and(|v| v.trim() == "1");
            PRECISION.store(allowed as u8, Ordering::Relaxed);
            allowed as u8
        }
        known => known,
    };
    if known == 1 { Precision::Tf32 } else { Precision::Full }
}

/// Says how f32 products are computed from now on, whatever the environment says.
pub fn set_precision(precision: Precision) {
    PRECISION.store((precision == Precision::Tf32) as u8, Ordering::Relaxed);
}

/// What a tile is computed with.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum Engine {
    /// Scalar arithmetic (`gemm_simt.cu`); a thread computes `part` of the tile.
    Simt,
    /// Tensor cores (`gemm_mma.cu`); a warp computes `part` of the tile.
    Mma,
    /// Few rows (`gemm_skinny.cu`); tile and part are unused.
    Skinny,
}

/// One row of the table.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) struct Tile {
    pub name: &'static str,
    pub engine: Engine,
    /// Rows and columns of the result that a block computes.
    pub size: (usize, usize),
    /// Rows and columns of a thread's or a warp's part.
    pub part: (usize, usize),
    /// Bytes of k of one step, in the type that lies in shared memory.
    pub step_bytes: usize,
    /// Steps in flight, on tier 80 and up; 2 below.
    pub stages: usize,
    /// Microseconds that a step takes a block that is alone on a multiprocessor.
    pub alone: f64,
    /// Microseconds by which a step of one more block keeps a full multiprocessor busy.
    pub full: f64,
    /// The same for all the rest that a block does.
    pub done: f64,
    /// Blocks that fit a multiprocessor.
    pub resident: usize,
}

/// Times of a tile: `(alone, full, done)`.
type Times = (f64, f64, f64);

const fn simt(
    name: &'static str,
    size: (usize, usize),
    part: (usize, usize),
    (step_bytes, resident): (usize, usize),
    (alone, full, done): Times,
) -> Tile {
    Tile { name, engine: Engine::Simt, size, part, step_bytes, stages: 2, alone, full, done, resident }
}

const fn mma(
    name: &'static str,
    size: (usize, usize),
    part: (usize, usize),
    (step_bytes, stages, resident): (usize, usize, usize),
    (alone, full, done): Times,
) -> Tile {
    Tile { name, engine: Engine::Mma, size, part, step_bytes, stages, alone, full, done, resident }
}

/// Every variant.
#[rustfmt::skip]
pub(super) const TILES: &[Tile] = &[
    //    name            tile        part      k bytes, stages, resident  alone  full   done
    simt("simt_128x256",  (128, 256),  (8, 16),  (32, 1),       (0.41, 1.416, 5.71)),
    simt("simt_128x128",  (128, 128),  (8, 8),   (64, 2),       (1.64, 1.433, 0.89)),
    simt("simt_128x64",   (128, 64),   (8, 4),   (64, 4),       (0.07, 0.978, 0.11)),
    simt("simt_64x64w",   (64, 64),    (8, 8),   (64, 4),       (1.38, 0.571, 1.13)),
    simt("simt_64x64",    (64, 64),    (4, 4),   (64, 4),       (0.11, 0.768, 0.36)),
    simt("simt_32x32",    (32, 32),    (4, 2),   (64, 4),       (0.33, 0.215, 0.23)),
    // Fewer steps in flight for GPUs with less shared memory.
    mma("mma_128x256",   (128, 256),  (64, 64), (64, 6, 1),    (0.14, 0.396, 4.31)),
    mma("mma_128x256s",  (128, 256),  (64, 64), (64, 4, 1),    (0.14, 0.396, 4.31)),
    mma("mma_128x128",   (128, 128),  (64, 64), (64, 4, 2),    (0.57, 0.299, 1.37)),
    mma("mma_128x64",    (128, 64),   (64, 32), (64, 4, 3),    (0.06, 0.270, 1.11)),
    mma("mma_64x128",    (64, 128),   (32, 64), (64, 4, 3),    (0.44, 0.204, 0.91)),
    mma("mma_64x64",     (64, 64),    (32, 32), (128, 3, 3),   (0.35, 0.226, 0.50)),
    mma("mma_32x64",     (32, 64),    (16, 32), (128, 4, 4),   (0.26, 0.231, 0.22)),
    mma("mma_64x32",     (64, 32),    (32, 16), (128, 4, 4),   (0.28, 0.179, 0.33)),
    mma("mma_32x32",     (32, 32),    (16, 16), (128, 4, 6),   (0.28, 0.108, 0.19)),
    mma("mma_16x64",     (16, 64),    (16, 16), (128, 4, 5),   (0.12, 0.168, 0.11)),
    SKINNY,
];

/// Microseconds until a block computes, and from its last step to the end.
const START: f64 = 0.27;
/// How much longer steps take with tf32 than with f16, whose steps hold twice as many k.
const TF32: f64 = 1.2;
/// Microseconds that it takes to join shares of k, and those for each element of them on the busiest multiprocessor.
const JOIN: f64 = 1.79;
const PARTIAL: f64 = 4.45e-5;

const SKINNY: Tile = Tile {
    name: "skinny",
    engine: Engine::Skinny,
    size: (1, 1),
    part: (1, 1),
    step_bytes: 0,
    stages: 0,
    alone: 0.0,
    full: 0.0,
    done: 0.0,
    resident: 0,
};

/// Rows or columns that the kernel for few of them takes.
pub(super) const SKINNY_MOST: usize = 16;
/// Tiles of results that may be split over k: each needs a counter.
pub(super) const COUNTERS: usize = 4096;
/// Bytes of partial sums that a split may take.
const PARTIAL_MOST: usize = 32 << 20;

/// A product, as far as the choice depends on it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) struct Case {
    pub dtype: DType,
    pub m: usize,
    pub n: usize,
    pub k: usize,
    pub batch: usize,
    /// Both operands are loaded as vectors; else the widest tile holds more than there are registers.
    pub vectors: bool,
}

/// What is to be launched.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) struct Plan {
    pub tile: &'static Tile,
    /// Blocks that share the k of one tile.
    pub splits: usize,
    /// k that each of them takes: a multiple of the step.
    pub k_split: usize,
}

impl Tile {
    /// Elements of k of one step.
    pub(super) fn bk(&self, dtype: DType) -> usize {
        match self.engine {
            Engine::Mma => self.step_bytes / dtype.size(),
            Engine::Simt => self.step_bytes / acc_bytes(dtype),
            Engine::Skinny => 16,
        }
    }

    /// Threads of a block.
    pub(super) fn threads(&self) -> usize {
        let parts = self.size.0 / self.part.0 * (self.size.1 / self.part.1);
        match self.engine {
            Engine::Mma => parts * 32,
            Engine::Simt | Engine::Skinny => parts,
        }
    }

    /// Steps in shared memory at once.
    pub(super) fn stages_on(&self, tier: Tier) -> usize {
        if tier >= Tier::Sm80 { self.stages } else { 2 }
    }

    /// Dynamic shared memory of a block, in bytes.
    pub(super) fn shared(&self, dtype: DType, tier: Tier) -> usize {
        match self.engine {
            Engine::Mma => {
                // Lines of k of both operands may be padded by 32 bytes each.
                let padding = if dtype == DType::F32 { 2 * self.bk(dtype) * 32 } else { 0 };
                ((self.size.0 + self.size.1) * self.step_bytes + padding) * self.stages_on(tier)
            }
            Engine::Simt | Engine::Skinny => 0,
        }
    }

    /// Whether this GPU can compute products of this type with it.
    pub(super) fn supports(&self, dtype: DType, gpu: &GpuInfo, precision: Precision) -> bool {
        match self.engine {
            Engine::Skinny => true,
            // Sums of 8 bytes need small tiles, the widest the registers that f32 leaves with asynchronous copies.
            Engine::Simt => match self.part.0 * self.part.1 {
                0..=16 => true,
                17..=64 => acc_bytes(dtype) == 4,
                _ => dtype == DType::F32 && gpu.tier >= Tier::Sm80,
            },
            Engine::Mma => {
                let since = match dtype {
                    DType::F16 => Tier::Sm75,
                    DType::BF16 => Tier::Sm80,
                    DType::F32 if precision == Precision::Tf32 => Tier::Sm80,
                    DType::F32
                    | DType::F64
                    | DType::Bool
                    | DType::U8
                    | DType::U16
                    | DType::U32
                    | DType::U64
                    | DType::I8
                    | DType::I16
                    | DType::I32
                    | DType::I64 => return false,
                };
                // Without asynchronous copies the widest tile spills registers.
                let wide = self.size.1 > 128 && gpu.tier < Tier::Sm80;
                gpu.tier >= since && !wide && self.shared(dtype, gpu.tier) <= gpu.shared_per_block as usize
            }
        }
    }

    /// Tiles of a result.
    pub(super) fn tiles(&self, m: usize, n: usize) -> usize {
        m.div_ceil(self.size.0) * n.div_ceil(self.size.1)
    }

    /// Estimated microseconds.
    fn cost(&self, case: &Case, splits: usize, gpu: &GpuInfo) -> f64 {
        let steps = case.k.div_ceil(self.bk(case.dtype)).div_ceil(splits);
        let blocks = self.tiles(case.m, case.n) * case.batch * splits;
        self.time(case.dtype, (blocks, steps), splits, gpu)
    }

    /// Estimated microseconds of so many blocks of so many steps, if a tile is split over at most `splits` of them.
    fn time(&self, dtype: DType, (blocks, steps): (usize, usize), splits: usize, gpu: &GpuInfo) -> f64 {
        let ((bm, bn), steps) = (self.size, steps as f64);
        let each = blocks.div_ceil(gpu.multiprocessors.max(1) as usize);
        let slower = if self.engine == Engine::Mma && dtype == DType::F32 { TF32 } else { 1.0 };
        let waves = each.div_ceil(self.resident) as f64;
        let alone = waves * (START + steps * self.alone * slower);
        let full = each as f64 * (self.done + steps * self.full * slower) + START;
        let partial = (splits * bm * bn * each) as f64;
        alone.max(full) + if splits > 1 { JOIN + partial * PARTIAL } else { 0.0 }
    }
}

/// Bytes of the type that products of `dtype` are summed in.
pub(super) fn acc_bytes(dtype: DType) -> usize {
    match dtype {
        DType::F16 | DType::BF16 | DType::F32 | DType::U8 | DType::U16 | DType::U32 => 4,
        DType::I8 | DType::I16 | DType::I32 => 4,
        DType::F64 | DType::U64 | DType::I64 | DType::Bool => 8,
    }
}

/// The numbers of shares of k worth trying.
const SPLITS: [usize; 13] = [1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 128];

/// Those for a tile.
fn shares(tile: &Tile, case: &Case) -> impl Iterator<Item = (usize, usize)> {
    let (bk, k) = (tile.bk(case.dtype), case.k);
    let tiles = tile.tiles(case.m, case.n) * case.batch;
    let bytes = tiles * tile.size.0 * tile.size.1 * acc_bytes(case.dtype);
    SPLITS.into_iter().map(move |s| share(k, bk, s)).filter(move |&(splits, k_split)| {
        splits == 1 || (k_split >= 2 * bk && tiles <= COUNTERS && bytes * splits <= PARTIAL_MOST)
    })
}

/// `splits` shares of k in whole steps: how many there are then, and how much each takes.
fn share(k: usize, bk: usize, splits: usize) -> (usize, usize) {
    let k_split = (k.div_ceil(bk).div_ceil(splits) * bk).max(bk);
    (k.div_ceil(k_split).max(1), k_split)
}

/// The plan for a product.
pub(super) fn choose(case: &Case, gpu: &GpuInfo) -> Plan {
    let precision = precision();
    let plan = forced(case, gpu, precision).unwrap_or_else(|| automatic(case, gpu, precision));
    if debugging() {
        report(case, &plan);
    }
    plan
}

fn automatic(case: &Case, gpu: &GpuInfo, precision: Precision) -> Plan {
    let fits = |t: &Tile| t.size.1 <= 128 || case.vectors;
    let usable = || TILES.iter().filter(|t| t.supports(case.dtype, gpu, precision) && fits(t));
    let few = case.m.min(case.n);
    let tensor_cores = usable().any(|t| t.engine == Engine::Mma);
    let many = case.m.max(case.n) * case.batch >= gpu.multiprocessors as usize;
    if few <= if tensor_cores { 4 } else { SKINNY_MOST } && (many || case.k <= 4096) {
        return Plan { tile: TILES.last().unwrap_or(&SKINNY), splits: 1, k_split: case.k };
    }
    let mut best: Option<(f64, Plan)> = None;
    for tile in usable().filter(|t| t.engine != Engine::Skinny) {
        if tensor_cores && tile.engine == Engine::Simt {
            continue;
        }
        for (splits, k_split) in shares(tile, case) {
            let cost = tile.cost(case, splits, gpu);
            if best.is_none_or(|(least, _)| cost < least) {
                best = Some((cost, Plan { tile, splits, k_split }));
            }
        }
    }
    best.expect("the scalar 32x32 tile takes every product").1
}

/// What is to be launched for several products at once: a tile, and the k that a block takes.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) struct GroupPlan {
    pub tile: &'static Tile,
    pub k_split: usize,
}

/// The plan for several products of one dtype in one launch.
pub(super) fn choose_group(cases: &[Case], gpu: &GpuInfo) -> GroupPlan {
    let precision = precision();
    let dtype = cases[0].dtype;
    let usable = |t: &&Tile| {
        // The widest tile is for products that fill a GPU alone.
        t.engine != Engine::Skinny && t.size.1 <= 128 && t.supports(dtype, gpu, precision)
    };
    let tensor_cores = TILES.iter().filter(usable).any(|t| t.engine == Engine::Mma);
    let longest = cases.iter().map(|c| c.k).max().unwrap_or(0);
    let mut best: Option<(f64, GroupPlan)> = None;
    for tile in TILES.iter().filter(usable).filter(|t| !tensor_cores || t.engine == Engine::Mma) {
        for splits in SPLITS {
            let (splits, k_split) = share(longest, tile.bk(dtype), splits);
            let (mut tiles, mut blocks) = (0, 0);
            for c in cases {
                tiles += tile.tiles(c.m, c.n);
                blocks += tile.tiles(c.m, c.n) * c.k.div_ceil(k_split).max(1);
            }
            let bytes = blocks * tile.size.0 * tile.size.1 * acc_bytes(dtype);
            if splits > 1 && (tiles > COUNTERS || bytes > PARTIAL_MOST || k_split < 2 * tile.bk(dtype)) {
                continue;
            }
            let cost = tile.time(dtype, (blocks, k_split.div_ceil(tile.bk(dtype))), splits, gpu);
            if best.is_none_or(|(least, _)| cost < least) {
                best = Some((cost, GroupPlan { tile, k_split }));
            }
        }
    }
    best.expect("the scalar 32x32 tile takes every product").1
}

/// What `BULLET_GEMM` asks for.
fn wish() -> Option<&'static str> {
    static WISH: OnceLock<Option<String>> = OnceLock::new();
    WISH.get_or_init(|| std::env::var("BULLET_GEMM").ok().filter(|v| !v.trim().is_empty())).as_deref()
}

thread_local! {
    /// What [`force`] asks for.
    static FORCED: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Forces a variant (`mma_64x64`), or one with a number of shares of k (`mma_64x64/4`), for products that it can do and
/// this thread launches; `None` lets the table choose. For experiments and tests.
pub fn force(variant: Option<&str>) {
    FORCED.set(variant.map(str::to_owned));
}

/// The names that [`force`] knows.
pub fn variants() -> impl Iterator<Item = &'static str> {
    TILES.iter().map(|t| t.name)
}

/// Whether a variant is forced, by [`force`] or the environment.
pub(super) fn is_forced() -> bool {
    wish().is_some() || FORCED.with_borrow(Option::is_some)
}

fn forced(case: &Case, gpu: &GpuInfo, precision: Precision) -> Option<Plan> {
    let own = FORCED.with_borrow(Option::clone);
    forced_to(own.as_deref().or(wish())?, case, gpu, precision)
}

fn forced_to(wish: &str, case: &Case, gpu: &GpuInfo, precision: Precision) -> Option<Plan> {
    let (name, splits) = match wish.trim().split_once('/') {
        Some((name, splits)) => (name, splits.parse::<usize>().ok()),
        None => (wish.trim(), None),
    };
    let tile = TILES.iter().find(|t| t.name == name && t.supports(case.dtype, gpu, precision))?;
    if tile.engine == Engine::Skinny {
        let fits = case.m.min(case.n) <= SKINNY_MOST;
        return fits.then_some(Plan { tile, splits: 1, k_split: case.k });
    }
    let plan = |(splits, k_split)| Plan { tile, splits, k_split };
    let cheapest = || {
        let cost = |&(splits, _): &(usize, usize)| tile.cost(case, splits, gpu);
        shares(tile, case).min_by(|a, b| cost(a).total_cmp(&cost(b)))
    };
    let tiles = tile.tiles(case.m, case.n) * case.batch;
    match splits {
        Some(splits) if splits > 1 && tiles <= COUNTERS => {
            Some(plan(share(case.k, tile.bk(case.dtype), splits.min(1024))))
        }
        Some(_) => Some(plan(share(case.k, tile.bk(case.dtype), 1))),
        None => cheapest().map(plan),
    }
}

pub(super) fn debugging() -> bool {
    static ON: OnceLock<bool> = OnceLock::new();
    *ON.get_or_init(|| std::env::var("BULLET_GEMM_DEBUG").is_ok_and(|v| v.trim() == "1"))
}

fn report(case: &Case, plan: &Plan) {
    static SEEN: Mutex<Option<HashSet<Case>>> = Mutex::new(None);
    let mut seen = SEEN.lock().unwrap_or_else(PoisonError::into_inner);
    if seen.get_or_insert_default().insert(*case) {
        let Case { dtype, m, n, k, batch, .. } = *case;
        eprintln!("gemm {dtype} {batch} x {m}x{n}x{k}: {} / {}", plan.tile.name, plan.splits);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn h200(tier: Tier) -> GpuInfo {
        GpuInfo {
            capability: (9, 0),
            tier,
            multiprocessors: 132,
            shared_per_block: if tier >= Tier::Sm80 { 227 << 10 } else { 48 << 10 },
            shared_per_multiprocessor: 228 << 10,
            threads_per_multiprocessor: 2048,
            l2_bytes: 50 << 20,
        }
    }

    fn plan(dtype: DType, m: usize, n: usize, k: usize, tier: Tier) -> Plan {
        automatic(&Case { dtype, m, n, k, batch: 1, vectors: true }, &h200(tier), Precision::Full)
    }

    #[test]
    fn shapes_get_the_tiles_they_should() {
        let large = plan(DType::F16, 4096, 4096, 4096, Tier::Sm90a);
        assert_eq!((large.tile.engine, large.splits), (Engine::Mma, 1));
        assert!(large.tile.size.0 * large.tile.size.1 >= 128 * 128, "{large:?}");
        assert_eq!(plan(DType::F32, 4096, 4096, 4096, Tier::Sm90a).tile.name, "simt_128x256");
        assert_eq!(plan(DType::F32, 4096, 4096, 4096, Tier::Sm70).tile.name, "simt_128x128");
        assert_eq!(plan(DType::BF16, 1, 384, 128, Tier::Sm90a).tile.engine, Engine::Skinny);
        assert_eq!(plan(DType::BF16, 64, 64, 64, Tier::Sm75).tile.engine, Engine::Simt);
        let double = plan(DType::F64, 512, 512, 512, Tier::Sm35);
        assert!(double.tile.size.0 <= 64);
    }

    #[test]
    fn weight_gradients_of_small_models_fill_the_gpu() {
        for dtype in [DType::F16, DType::F32] {
            for (m, n) in [(128, 384), (128, 128), (3000, 128), (512, 128)] {
                let p = plan(dtype, m, n, 1024, Tier::Sm90a);
                let blocks = m.div_ceil(p.tile.size.0) * n.div_ceil(p.tile.size.1) * p.splits;
                // Below some 100 blocks a split costs as much as it saves in f16; measured.
                assert!(blocks >= 40, "{dtype} {m}x{n}: {p:?}");
            }
        }
    }

    #[test]
    fn shares_cover_k_and_none_is_empty() {
        for (k, bk, splits) in
            [(1024, 64, 8), (1, 16, 4), (0, 16, 4), (1000, 16, 7), (65, 64, 2), (160, 16, 6)]
        {
            let (n, each) = share(k, bk, splits);
            assert!(each % bk == 0 && n * each >= k && (n == 1 || (n - 1) * each < k), "{k} {bk} {splits}");
        }
    }
}
