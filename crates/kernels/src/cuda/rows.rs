//! What the families of row ops share: how many threads hold a row, and how many elements each, as `rows.cuh` has it.

use bullet_ops::{DType, Layout};
use bullet_runtime::DevicePtr;
use bullet_runtime::jit::Tier;

use super::gpu::{Define, Gpu, Unit};
use crate::{View, ViewMut};

/// Threads of a warp.
const WARP: usize = 32;

/// How many elements a thread holds of a row of f32 or narrower; half as many of f64.
#[derive(Clone, Copy, Debug)]
pub(super) struct Budget {
    /// What is best: enough bytes in flight, enough threads.
    pub(super) target: usize,
    /// What registers can take, in packs.
    pub(super) most: usize,
}

impl Budget {
    /// One row a thread group, and what is computed of it.
    pub(super) const ONE: Budget = Budget { target: 16, most: 16 };
    /// Two rows together.
    pub(super) const TWO: Budget = Budget { target: 8, most: 8 };
}

/// A specialisation of `rows.cuh`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Plan {
    dtype: DType,
    /// Elements of a pack.
    pub(super) vec: usize,
    /// Packs a thread.
    items: usize,
    /// Threads a row: up to 32, or a whole block.
    pub(super) lanes: usize,
    /// The row does not fit into registers.
    long: bool,
}

impl Plan {
    /// For rows of `width` elements, at these addresses.
    pub(super) fn new(dtype: DType, width: usize, addresses: &[DevicePtr], budget: Budget) -> Plan {
        let size = dtype.size();
        let double = if size == 8 { 2 } else { 1 };
        let vec = vector(dtype, addresses, &[width], 16);
        // Packs of one element cost more registers: an address each.
        let most = if vec == 1 { budget.most.min(budget.target) } else { budget.most };
        let (target, most) = (budget.target / double, most / double);
        let packs = (width / vec).max(1);
        if width <= WARP * target {
            // Neighbours read 128 bytes together, if the row has them.
            let dense = packs.next_power_of_two().min((128 / (vec * size)).clamp(1, WARP));
            let lanes = dense.max(width.div_ceil(target).next_power_of_two());
            return Plan { dtype, vec, items: packs.div_ceil(lanes), lanes, long: false };
        }
        let lanes = (width.div_ceil(target).div_ceil(WARP) * WARP).clamp(2 * WARP, 1024);
        let items = packs.div_ceil(lanes);
        if items * vec > most {
            return Plan { dtype, vec, items: (target / 2 / vec).max(1), lanes: 1024, long: true };
        }
        Plan { dtype, vec, items, lanes, long: false }
    }

    /// The unit of this plan, with definitions of the family's own.
    pub(super) fn unit(&self, name: &'static str, source: &'static str, own: &[Define]) -> Unit {
        let mut defines = vec![
            Define::Type("T", self.dtype),
            Define::Int("VEC", self.vec as i64),
            Define::Int("ITEMS", self.items as i64),
            Define::Int("LANES", self.lanes as i64),
            Define::Int("LONG", i64::from(self.long)),
        ];
        defines.extend_from_slice(own);
        Unit { name, source, defines, since: Tier::Sm35 }
    }

    /// Whether a warp has a row, or several.
    pub(super) fn narrow(&self) -> bool {
        self.lanes <= WARP
    }

    /// Threads of a block: few where there are few rows, so that they spread over the multiprocessors.
    pub(super) fn threads(&self, gpu: &Gpu, rows: usize) -> usize {
        if !self.narrow() {
            return self.lanes;
        }
        let warps = rows.div_ceil(WARP / self.lanes) / gpu.info().multiprocessors.max(1) as usize;
        warps.next_power_of_two().min(8) * WARP
    }

    /// Rows that a block of so many threads takes in one step.
    pub(super) fn rows_per_block(&self, threads: usize) -> usize {
        if self.narrow() { threads / self.lanes } else { 1 }
    }

    /// Dtypes and widths whose plans stand for all others where units are only compiled.
    pub(super) fn samples(budget: Budget) -> Vec<Plan> {
        let widths = |dtype| match dtype {
            DType::F16 | DType::F32 => &[33, 128, 3000, 100_000][..],
            _ => &[7, 3000, 100_001],
        };
        let plans = |dtype| widths(dtype).iter().map(move |&width| Plan::new(dtype, width, &[], budget));
        DType::FLOATS.into_iter().flat_map(plans).collect()
    }
}

/// Elements that can move together, up to `bytes`: the most by which all addresses and `lengths` (in elements) are
/// divisible.
pub(super) fn vector(dtype: DType, addresses: &[DevicePtr], lengths: &[usize], bytes: usize) -> usize {
    let size = dtype.size();
    let mut vec = (bytes / size).max(1);
    let fits = |vec: usize| {
        addresses.iter().all(|a| a.0.is_multiple_of((vec * size) as u64))
            && lengths.iter().all(|n| n.is_multiple_of(vec))
    };
    while vec > 1 && !fits(vec) {
        vec /= 2;
    }
    vec
}

/// The device address of an operand.
pub(super) fn ptr(x: &View<'_>) -> DevicePtr {
    DevicePtr(x.bytes() as u64)
}

/// The device address of a result.
pub(super) fn ptr_mut(x: &mut ViewMut<'_>) -> DevicePtr {
    DevicePtr(x.bytes() as u64)
}

/// An operand that is not there.
pub(super) const NULL: DevicePtr = DevicePtr(0);

/// Rows of a layout and their length: all axes but the last, and that.
pub(super) fn rows_of(layout: &Layout) -> (usize, usize) {
    let dims = &layout.shape[..];
    let (width, lead) = dims.split_last().expect("an op of rows has operands of one axis and more");
    (lead.iter().product(), *width)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plans_cover_their_rows() {
        for dtype in DType::FLOATS {
            for budget in [Budget::ONE, Budget::TWO, Budget { target: 16, most: 32 }] {
                for width in (0..5000).chain([8192, 16384, 32767, 32768, 50257, 1 << 20]) {
                    for address in [0, dtype.size() as u64] {
                        let plan = Plan::new(dtype, width, &[DevicePtr(4096 + address)], budget);
                        assert_eq!(width % plan.vec, 0, "{plan:?}");
                        assert!((plan.vec * dtype.size()) as u64 <= 16);
                        assert!(address == 0 || plan.vec == 1);
                        assert!(
                            plan.long || plan.lanes * plan.items * plan.vec >= width,
                            "{width}: {plan:?}"
                        );
                        let powers = plan.lanes.is_power_of_two() && plan.narrow();
                        assert!(
                            powers || (plan.lanes.is_multiple_of(WARP) && (64..=1024).contains(&plan.lanes))
                        );
                        let each = plan.items * plan.vec * if dtype == DType::F64 { 2 } else { 1 };
                        assert!(each <= budget.most, "{width}: {plan:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn narrow_rows_share_warps() {
        let plan = Plan::new(DType::F16, 128, &[], Budget::ONE);
        assert_eq!((plan.vec, plan.items, plan.lanes), (8, 2, 8));
        let plan = Plan::new(DType::F32, 8192, &[], Budget::ONE);
        assert_eq!((plan.vec, plan.items, plan.lanes, plan.long), (4, 4, 512, false));
    }
}
