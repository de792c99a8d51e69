//! Reductions of strided operands over any axes: `reduce.cu`, one launch whatever the shape.
//!
//! Kept axes keep their order, reduced ones are sorted by stride; neighbours that lie densely merge. Where neighbouring
//! outputs lie closer than neighbouring elements of one, threads advance along the outputs ([`Plan::columns`]), else along
//! the elements.

use bullet_ops::{AxisSet, DType, Layout, Reduce, Shape};
use bullet_runtime::jit::Tier;
use bullet_runtime::{Error, Result};

use super::gpu::{Define, Gpu, Unit, args, push_layout};
use super::rows::{NULL, ptr, ptr_mut, vector};
use crate::{View, ViewMut};

const SOURCE: &str = concat!(
    include_str!("../../cuda/last_block.cuh"),
    "#line 1 \"reduce.cu\"\n",
    include_str!("../../cuda/reduce.cu")
);
/// Threads of a block.
const THREADS: usize = 256;
/// Outputs' blocks that can be split: those that `last_block.cuh` has counters for.
const COUNTERS: usize = 1024;
/// The largest `State`: three f64.
const STATE: usize = 24;

/// What is computed; the numbers are those of `KIND`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Sum = 0,
    Mean = 1,
    Max = 2,
    Min = 3,
    Var = 4,
    ArgMax = 5,
    ArgMin = 6,
    Prod = 7,
    All = 8,
    Any = 9,
}

impl Kind {
    const EACH: [Kind; 10] = [
        Kind::Sum,
        Kind::Mean,
        Kind::Max,
        Kind::Min,
        Kind::Var,
        Kind::ArgMax,
        Kind::ArgMin,
        Kind::Prod,
        Kind::All,
        Kind::Any,
    ];

    /// The type of the arithmetic on `dtype`.
    fn compute(self, dtype: DType) -> DType {
        match (self, dtype.compute()) {
            (Kind::Mean | Kind::Var, DType::I64 | DType::U64) => DType::F64,
            (_, compute) => compute,
        }
    }
}

/// Reduces `x[0]`, strided, over `axes` into `out[0]`, which is contiguous; sums of integers wrap in 64 bits.
///
/// # Errors
/// Largest or smallest of an empty axis; out of memory; a kernel that does not compile or launch.
pub(crate) fn reduce(
    gpu: &Gpu,
    kind: Reduce,
    axes: AxisSet,
    x: &[View<'_>],
    out: &mut [ViewMut<'_>],
) -> Result<()> {
    let shape = x[0].layout().shape;
    let kept = shape.reduce(axes, false).numel();
    let n: usize = axes.iter().filter(|&a| a < shape.rank()).map(|a| shape[a]).product();
    let (kind, correction) = match kind {
        Reduce::Sum => (Kind::Sum, 0.0),
        Reduce::Mean => (Kind::Mean, 0.0),
        Reduce::Max => (Kind::Max, 0.0),
        Reduce::Min => (Kind::Min, 0.0),
        Reduce::Prod => (Kind::Prod, 0.0),
        Reduce::All => (Kind::All, 0.0),
        Reduce::Any => (Kind::Any, 0.0),
        Reduce::Var { correction } => (Kind::Var, correction),
    };
    if n == 0 && kept > 0 {
        let no_identity = |name: &str| {
            let message = format!("zero-size array to reduction operation {name} which has no identity");
            Err(Error::invalid(message))
        };
        match kind {
            Kind::Max => return no_identity("maximum"),
            Kind::Min => return no_identity("minimum"),
            Kind::Sum => {
                let bytes = kept * out[0].dtype().size();
                // SAFETY: the result has `kept` elements, contiguous.
                return unsafe { gpu.fill(ptr_mut(&mut out[0]), 0, bytes) };
            }
            // The kernel divides nothing by nothing, and gives what products and truths begin with.
            Kind::Mean | Kind::Var | Kind::ArgMax | Kind::ArgMin | Kind::Prod | Kind::All | Kind::Any => {}
        }
    }
    run(gpu, kind, correction, axes, &x[0], &mut out[0])
}

/// The index (i64) of the largest (`max`) or smallest along `axis`: the first of equals, of NaNs before all others.
///
/// # Errors
/// An empty axis; out of memory; a kernel that does not compile or launch.
pub(crate) fn arg_reduce(
    gpu: &Gpu,
    max: bool,
    axis: usize,
    x: &[View<'_>],
    out: &mut [ViewMut<'_>],
) -> Result<()> {
    let shape = x[0].layout().shape;
    let axes = AxisSet::of(&shape, &[axis as isize]).map_err(|e| Error::invalid(e.message))?;
    if shape[axis] == 0 && shape.reduce(axes, false).numel() > 0 {
        let name = if max { "argmax" } else { "argmin" };
        return Err(Error::invalid(format!("attempt to get {name} of an empty sequence")));
    }
    run(gpu, if max { Kind::ArgMax } else { Kind::ArgMin }, 0.0, axes, &x[0], &mut out[0])
}

fn run(
    gpu: &Gpu,
    kind: Kind,
    correction: f64,
    axes: AxisSet,
    x: &View<'_>,
    out: &mut ViewMut<'_>,
) -> Result<()> {
    let (kept, reduced) = split(x.layout(), axes);
    let [outputs, n] = [&kept, &reduced].map(|axes| axes.iter().map(|a| a.0).product::<usize>());
    if outputs == 0 {
        return Ok(());
    }
    let sms = gpu.info().multiprocessors.max(1) as usize;
    let plan = Plan::new(kind, x, out.dtype(), &kept, &reduced, sms);
    let work = plan.work(outputs, n, sms);
    let states = match work.splits {
        1 => None,
        splits => Some(gpu.scratch(splits * outputs * STATE)?),
    };
    let mut args = args![ptr(x), ptr_mut(out)];
    let (kept, reduced) = plan.in_packs(kept, reduced);
    push_layout(&mut args, &layout(&kept));
    push_layout(&mut args, &layout(&reduced));
    args.push(work.outputs as i64).push(work.n as i64).push(work.range as i64).push(n as i64);
    // NumPy's rule: degrees of freedom do not go below 0, and nothing over nothing is NaN.
    args.push((n as f64 - correction).max(0.0)).push(states.as_ref().map_or(NULL, |s| s.ptr()));
    let kernel = gpu.function(&plan.unit(), "reduce")?;
    let grid = [work.outputs.div_ceil(THREADS / plan.lanes) as u32, work.splits as u32, 1];
    // SAFETY: the layouts reach the elements that the view's own does; the result has `outputs` elements, contiguous;
    // `states` has room for each split of each.
    unsafe { gpu.launch(kernel, grid, THREADS as u32, 0, &args) }
}

/// Lengths and strides, merged.
type Axes = Vec<(usize, isize)>;

/// The kept axes in order and the reduced ones, the densest last; at least one of each.
fn split(layout: &Layout, axes: AxisSet) -> (Axes, Axes) {
    let all = layout.shape.iter().copied().zip(layout.strides().iter().copied()).enumerate();
    let (mut kept, mut reduced) = (Axes::new(), Axes::new());
    for (axis, of) in all {
        if axes.contains(axis) { reduced.push(of) } else { kept.push(of) }
    }
    reduced.sort_by_key(|a| std::cmp::Reverse(a.1.unsigned_abs()));
    (merge(kept), merge(reduced))
}

fn merge(axes: Axes) -> Axes {
    let mut merged = Axes::new();
    for (len, stride) in axes.into_iter().filter(|a| a.0 != 1) {
        match merged.last_mut() {
            Some(last) if last.1 == stride * len as isize => *last = (last.0 * len, stride),
            _ => merged.push((len, stride)),
        }
    }
    if merged.is_empty() {
        merged.push((1, 0));
    }
    merged
}

fn layout(axes: &Axes) -> Layout {
    let (dims, strides): (Vec<usize>, Vec<isize>) = axes.iter().copied().unzip();
    Layout::strided(Shape::new(&dims).expect("axes of a shape are a shape"), &strides, 0)
}

/// A specialisation of `reduce.cu`.
#[derive(Clone, Copy, Debug)]
struct Plan {
    kind: Kind,
    dtype: DType,
    out: DType,
    /// Threads advance along the outputs.
    columns: bool,
    vec: usize,
    /// Threads that share an output.
    lanes: usize,
    /// One stride leads through the elements of an output.
    flat: bool,
}

/// What is launched, in packs along the axis that packs are along.
struct Work {
    outputs: usize,
    n: usize,
    splits: usize,
    range: usize,
}

impl Plan {
    fn new(kind: Kind, x: &View<'_>, out: DType, kept: &Axes, reduced: &Axes, sms: usize) -> Plan {
        let dtype = x.dtype();
        let (last_kept, last_reduced) = (kept[kept.len() - 1], reduced[reduced.len() - 1]);
        let alone = last_reduced.0 == 1;
        let columns =
            last_kept.0 > 1 && (alone || last_kept.1.unsigned_abs() < last_reduced.1.unsigned_abs());
        let vec = pack(x, columns, kept, reduced);
        let [outputs, n] = [kept, reduced].map(|axes| axes.iter().map(|a| a.0).product::<usize>());
        let lanes = if columns {
            columns_lanes(outputs / vec, n, vec * dtype.size(), sms)
        } else {
            rows_lanes(outputs, n / vec, sms)
        };
        Plan { kind, dtype, out, columns, vec, lanes, flat: reduced.len() == 1 }
    }

    /// Packs that a thread has in flight: 128 bytes and less of numbers.
    fn items(&self) -> usize {
        let most = if self.vec == 1 { 8 } else { 4 };
        (128 / (self.vec * self.kind.compute(self.dtype).size())).clamp(1, most)
    }

    fn in_packs(&self, mut kept: Axes, mut reduced: Axes) -> (Axes, Axes) {
        let packed = if self.columns { &mut kept } else { &mut reduced };
        if let Some(last) = packed.last_mut() {
            *last = (last.0 / self.vec, last.1 * self.vec as isize);
        }
        (kept, reduced)
    }

    /// Splits few outputs of many elements over blocks, so that there is work for all and some steps for each.
    fn work(&self, outputs: usize, n: usize, sms: usize) -> Work {
        let (outputs, n) = if self.columns { (outputs / self.vec, n) } else { (outputs, n / self.vec) };
        let tiles = outputs.div_ceil(THREADS / self.lanes);
        let splits = if tiles < 2 * sms && tiles <= COUNTERS {
            (4 * sms / tiles).min(n.div_ceil(2 * self.lanes * self.items())).clamp(1, COUNTERS)
        } else {
            1
        };
        let range = n.div_ceil(splits).max(1);
        Work { outputs, n, splits: n.div_ceil(range).max(1), range }
    }

    fn unit(&self) -> Unit {
        let defines = vec![
            Define::Type("T", self.dtype),
            Define::Type("A", self.kind.compute(self.dtype)),
            Define::Type("R", self.out),
            Define::Int("KIND", self.kind as i64),
            Define::Int("VEC", self.vec as i64),
            Define::Int("ITEMS", self.items() as i64),
            Define::Int("LANES", self.lanes as i64),
            Define::Int("COLUMNS", i64::from(self.columns)),
            Define::Int("FLAT", i64::from(self.flat)),
        ];
        Unit { name: "reduce", source: SOURCE, defines, since: Tier::Sm35 }
    }
}

/// Elements of a pack: along the last kept axis if `columns`, else along the last reduced one; 1 unless it is dense.
fn pack(x: &View<'_>, columns: bool, kept: &Axes, reduced: &Axes) -> usize {
    let (along, across) = if columns { (kept, reduced) } else { (reduced, kept) };
    let ((len, stride), rest) = along.split_last().expect("there is an axis");
    if *stride != 1 {
        return 1;
    }
    let mut lengths = vec![*len];
    lengths.extend(rest.iter().chain(across).map(|a| a.1.unsigned_abs()));
    // A thread keeps a state for each output of a pack.
    let most = if columns { 4 } else { 8 } * x.dtype().size();
    vector(x.dtype(), &[ptr(x)], &lengths, most.min(16))
}

/// Threads for each of `outputs` of `n` packs.
fn rows_lanes(outputs: usize, n: usize, sms: usize) -> usize {
    match n {
        0..=4 => 1,
        5..=64 => 8,
        65..=255 => 32,
        256..=1024 if outputs >= 16 * sms => 32,
        _ => THREADS,
    }
}

/// Threads for each of `outputs` packs of `bytes` with `n` elements: all advance alone if that keeps the device busy, else
/// the fewer packs are side by side the more threads share them.
fn columns_lanes(outputs: usize, n: usize, bytes: usize, sms: usize) -> usize {
    if n < 8 || outputs >= 4 * sms * THREADS {
        return 1;
    }
    let mut side = 32;
    let longer = |side: usize| 2 * THREADS / side <= n.next_power_of_two();
    while side > 1
        && longer(side)
        && (outputs <= side / 2 || (side * bytes > 32 && outputs.div_ceil(side) < sms))
    {
        side /= 2;
    }
    THREADS / side
}

/// Every kind of unit that this family asks for, with its entry points.
pub(crate) fn units() -> Vec<(Unit, Vec<&'static str>)> {
    let out = |kind, dtype: DType| match (kind, dtype.is_float()) {
        (Kind::All | Kind::Any, _) => DType::Bool,
        (Kind::Sum | Kind::Prod, _) => dtype.to_sum(),
        (Kind::ArgMax | Kind::ArgMin, _) => DType::I64,
        (Kind::Mean | Kind::Var, false) => DType::F64,
        _ => dtype,
    };
    let plan = |kind, dtype: DType, columns, wide: usize, lanes, flat| {
        let vec = wide.min(16 / dtype.size());
        Plan { kind, dtype, out: out(kind, dtype), columns, vec, lanes, flat }
    };
    let mut plans = Vec::new();
    for kind in Kind::EACH {
        for dtype in [DType::F16, DType::F32, DType::I64, DType::U64] {
            plans.push(plan(kind, dtype, false, 8, 256, true));
            plans.push(plan(kind, dtype, true, 4, 32, true));
        }
        plans.push(plan(kind, DType::F32, false, 1, 8, false));
    }
    for dtype in DType::ALL {
        plans.push(plan(Kind::Mean, dtype, false, 8, 32, false));
        plans.push(plan(Kind::ArgMin, dtype, true, 1, 1, true));
        plans.push(plan(Kind::Max, dtype, true, 4, 8, false));
    }
    plans.iter().map(|plan| (plan.unit(), vec!["reduce"])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(dims: &[usize], axes: &[isize]) -> (Plan, Work) {
        let x = Layout::contiguous(Shape::new(dims).unwrap());
        let set = AxisSet::of(&x.shape, axes).unwrap();
        // SAFETY: nothing reads through the view.
        let view = unsafe { View::new(std::ptr::without_provenance(4096), DType::F32, x) };
        let (kept, reduced) = split(&x, set);
        let [outputs, n] = [&kept, &reduced].map(|axes| axes.iter().map(|a| a.0).product::<usize>());
        let plan = Plan::new(Kind::Sum, &view, DType::F32, &kept, &reduced, 132);
        (plan, plan.work(outputs, n, 132))
    }

    #[test]
    fn axes_merge() {
        let x = Layout::contiguous(Shape::new(&[2, 3, 1, 4, 5]).unwrap());
        let (kept, reduced) = split(&x, AxisSet::of(&x.shape, &[0, 1]).unwrap());
        assert_eq!((kept, reduced), (vec![(20, 1)], vec![(6, 20)]));
        let (kept, reduced) = split(&x, AxisSet::of(&x.shape, &[1, 4]).unwrap());
        assert_eq!((kept, reduced), (vec![(2, 60), (4, 5)], vec![(3, 20), (5, 1)]));
        let (kept, reduced) = split(&x, AxisSet::all(&x.shape));
        assert_eq!((kept, reduced), (vec![(1, 0)], vec![(120, 1)]));
    }

    #[test]
    fn plans_follow_the_strides() {
        let (all, work) = plan(&[100_000_000], &[0]);
        assert!(!all.columns && all.vec == 4 && all.lanes == THREADS && work.splits > 400);
        let (rows, work) = plan(&[5, 33], &[1]);
        assert!(!rows.columns && rows.vec == 1 && work.splits == 1);
        let (columns, work) = plan(&[1024, 128], &[0]);
        assert!(columns.columns && columns.vec == 4 && work.outputs == 32 && columns.lanes == 128);
        assert!(work.splits * work.range >= work.n);
        let (none, work) = plan(&[3, 0], &[1]);
        assert_eq!((none.lanes, work.n, work.splits), (1, 0, 1));
    }

    /// Every block of every plan covers some of the elements, all of them together each once.
    #[test]
    fn splits_cover_the_elements() {
        for rows in [1, 2, 7, 9, 64, 1000, 40_003] {
            for columns in [1, 3, 4, 37, 128, 5000] {
                for axes in [&[0][..], &[1], &[0, 1], &[]] {
                    let (plan, work) = plan(&[rows, columns], axes);
                    assert!((work.splits - 1) * work.range < work.n && work.splits * work.range >= work.n);
                    let side = THREADS / plan.lanes;
                    assert!(!plan.columns || plan.lanes == 1 || side <= 32, "{plan:?}");
                    assert!(work.splits == 1 || work.outputs.div_ceil(side) <= COUNTERS);
                }
            }
        }
    }
}
