//! Several products `dw = g^T x` in one launch: the weight gradients of a small model, none of which fills a GPU.
//!
//! All blocks of a launch compute tiles of one size and take as much of k; a table, which is a parameter of the kernel,
//! says where each product's blocks begin. Products that need another kernel than the others (odd widths, a handful of
//! rows or columns) are launched alone.

use bullet_ops::{Activation, DType};
use bullet_runtime::jit::Tier;
use bullet_runtime::{DevicePtr, ErrorKind, KernelArgs, Result};

use super::choose::{Case, Engine, GroupPlan, SKINNY_MOST, TILES, acc_bytes, choose_group};
use super::launch::{self, Access, Product, tiled_unit, vector_of};
use crate::cuda::gpu::{Define, Gpu, Unit};

/// Products of one launch; `PRODUCTS` of the source.
const MANY: usize = 32;

pub(super) const ENTRY: &str = "gemm_group";

/// Computes the products, which have no leading axes, no bias and no activation, and whose operands have contiguous columns.
pub(super) fn run(gpu: &Gpu, products: Vec<Product>) -> Result<()> {
    let mut groups: Vec<((Access, Access), Vec<Product>)> = Vec::new();
    for mut p in products {
        let few = p.a.rows.min(p.b.rows) <= SKINNY_MOST;
        let fits = i32::try_from(p.a.rows.max(p.b.rows)).is_ok() && p.a.rows * p.b.rows <= i32::MAX as usize;
        if few || !fits {
            launch::run(gpu, p)?;
            continue;
        }
        let (k, dtype) = (p.k, p.dtype);
        let access = [&mut p.a, &mut p.b].map(|side| {
            let own = side.access(k, &[], dtype);
            // One row of k could be read either way.
            Access { k_major: false, vec: if own.k_major { 1 } else { own.vec } }
        });
        let key = (access[0], access[1]);
        match groups.iter_mut().find(|(other, _)| *other == key) {
            Some((_, group)) => group.push(p),
            None => groups.push((key, vec![p])),
        }
    }
    for (access, group) in groups {
        for part in group.chunks(MANY) {
            match part {
                [one] => launch::run(gpu, one.clone())?,
                many => launch_group(gpu, access, many)?,
            }
        }
    }
    Ok(())
}

fn launch_group(gpu: &Gpu, access: (Access, Access), products: &[Product]) -> Result<()> {
    let dtype = products[0].dtype;
    let case = |p: &Product| Case {
        dtype,
        m: p.a.rows,
        n: p.b.rows,
        k: p.k,
        batch: 1,
        vectors: access.0.vec > 1 && access.1.vec > 1,
    };
    let mut plan = choose_group(&products.iter().map(case).collect::<Vec<_>>(), gpu.info());
    let mut table = Table::new(products, &plan);
    let partial = match table.is_split() {
        false => None,
        true => match gpu.scratch(table.elements * acc_bytes(dtype)) {
            Ok(buffer) => Some((buffer, launch::counters(gpu)?)),
            Err(e) if matches!(e.kind, ErrorKind::OutOfMemory(_)) => {
                plan.k_split = usize::MAX;
                table = Table::new(products, &plan);
                None
            }
            Err(e) => return Err(e),
        },
    };
    let null = DevicePtr(0);
    let (at, counters) = partial.as_ref().map_or((null, null), |(at, count)| (at.ptr(), count.ptr()));
    let mut args = KernelArgs::new();
    args.push_bytes(&table.bytes(products), 8).push(products.len() as i32).push(at).push(counters);
    let tier = gpu.info().tier;
    let function = gpu.function(&unit(&plan, dtype, access, partial.is_some(), tier), ENTRY)?;
    let (threads, shared) = (plan.tile.threads() as u32, plan.tile.shared(tier) as u32);
    // SAFETY: the table names operands and results of these sizes, and for each tile a counter and, for each of its blocks,
    // room for a partial sum.
    unsafe { gpu.launch(function, [table.blocks as u32, 1, 1], threads, shared, &args) }
}

/// What `struct Group` says of each product besides its operands.
struct Table {
    rows: Vec<Row>,
    blocks: usize,
    /// Of all partial sums.
    elements: usize,
}

struct Row {
    k_split: usize,
    splits: usize,
    partial: usize,
    first: usize,
    counter: usize,
}

impl Table {
    fn new(products: &[Product], plan: &GroupPlan) -> Table {
        let mut table = Table { rows: Vec::new(), blocks: 0, elements: 0 };
        let mut counter = 0;
        for p in products {
            let (tiles, splits) = (plan.tile.tiles(p.a.rows, p.b.rows), p.k.div_ceil(plan.k_split).max(1));
            table.rows.push(Row {
                k_split: plan.k_split.min(p.k.max(1)),
                splits,
                partial: table.elements,
                first: table.blocks,
                counter,
            });
            counter += tiles;
            table.blocks += tiles * splits;
            table.elements += tiles * splits * plan.tile.size.0 * plan.tile.size.1;
        }
        table
    }

    fn is_split(&self) -> bool {
        self.rows.iter().any(|row| row.splits > 1)
    }

    /// `struct Group` of gemm_entry.cuh.
    fn bytes(&self, products: &[Product]) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut longs = |column: &dyn Fn(&Product, &Row) -> u64| {
            let values = products.iter().zip(&self.rows).map(|(p, row)| column(p, row));
            values.chain(std::iter::repeat(0)).take(MANY).for_each(|v| bytes.extend(v.to_ne_bytes()));
        };
        longs(&|p, _| p.a.at.0);
        longs(&|p, _| p.b.at.0);
        longs(&|p, _| p.c.0);
        longs(&|p, _| p.k as u64);
        longs(&|_, row| row.k_split as u64);
        longs(&|_, row| row.partial as u64);
        let mut ints = |column: &dyn Fn(&Product, &Row) -> usize| {
            let values = products.iter().zip(&self.rows).map(|(p, row)| column(p, row) as i32);
            values.chain(std::iter::repeat(0)).take(MANY).for_each(|v| bytes.extend(v.to_ne_bytes()));
        };
        ints(&|p, _| p.a.rows);
        ints(&|p, _| p.b.rows);
        ints(&|_, row| row.first);
        ints(&|_, row| row.counter);
        ints(&|_, row| row.splits);
        ints(&|p, _| vector_of(p, p.b.rows));
        bytes
    }
}

fn unit(plan: &GroupPlan, dtype: DType, access: (Access, Access), split: bool, tier: Tier) -> Unit {
    let mut unit = tiled_unit(plan.tile, dtype, Activation::Identity, access.0, access.1, split, tier);
    unit.defines.push(Define::Int("PRODUCTS", MANY as i64));
    unit
}

/// Every kind of unit that groups ask for: what training asks for, and odd widths for some.
pub(super) fn units() -> Vec<Unit> {
    let mut units = Vec::new();
    for dtype in super::FLOATS {
        let wide = Access { k_major: false, vec: 16 / dtype.size() };
        let odd = Access { k_major: false, vec: 1 };
        for tile in TILES.iter().filter(|t| t.engine != Engine::Skinny && t.size.1 <= 128) {
            let (mma, part) = (tile.engine == Engine::Mma, tile.part.0 * tile.part.1);
            let fits = match dtype {
                DType::F64 => !mma && part <= 16,
                _ => true,
            };
            if !fits {
                continue;
            }
            let tier = if mma { Tier::Sm80 } else { Tier::Sm35 };
            let plan = GroupPlan { tile, k_split: 0 };
            units.push(unit(&plan, dtype, (wide, wide), true, tier));
            if tile.size == (64, 64) || tile.size == (32, 32) {
                units.push(unit(&plan, dtype, (wide, wide), false, tier));
                units.push(unit(&plan, dtype, (odd, wide), true, tier));
            }
        }
    }
    units
}
