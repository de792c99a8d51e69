//! Running sums and products along an axis, the adjoint of the latter, and the places of elements that are not zero:
//! launches of `scan.cu`, on contiguous operands.

use bullet_ops::DType;
use bullet_runtime::jit::Tier;
use bullet_runtime::{DevicePtr, KernelArgs, Result};

use super::gpu::{Define, Gpu, Unit, args};
use super::rows::{NULL, ptr, ptr_mut};
use crate::{View, ViewMut};

const SOURCE: &str = include_str!("../../cuda/scan.cu");
/// Threads of a block, and the most parts of a row.
const THREADS: usize = 256;
/// Rows from which on each thread has one to itself, where the axis is not the last.
const MANY: usize = 4096;
/// Steps of a block that are worth a part.
const STEPS: usize = 2;
/// The largest `State`: two f64.
const STATE: usize = 16;

/// What is computed; the numbers are those of `KIND`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Sum = 0,
    Prod = 1,
    Chain = 2,
    NonZero = 3,
}

/// A specialisation of `scan.cu`.
#[derive(Clone, Copy, Debug)]
struct Plan {
    kind: Kind,
    dtype: DType,
    out: DType,
    /// Threads that share a row.
    lanes: usize,
}

impl Plan {
    fn compute(&self) -> DType {
        if self.kind == Kind::NonZero { DType::I64 } else { self.dtype.compute() }
    }

    fn unit(&self) -> Unit {
        let defines = vec![
            Define::Type("T", self.dtype),
            Define::Type("A", self.compute()),
            Define::Type("R", self.out),
            Define::Int("KIND", self.kind as i64),
            Define::Int("LANES", self.lanes as i64),
        ];
        Unit { name: "scan", source: SOURCE, defines, since: Tier::Sm35 }
    }

    /// Elements of a row that a block takes in one step.
    fn step(&self) -> usize {
        let state = self.compute().size() * if self.kind == Kind::Chain { 2 } else { 1 };
        self.lanes * if state > 4 { 4 } else { 8 }
    }
}

/// Rows of `n` elements which are `inner` apart.
#[derive(Clone, Copy)]
struct Rows {
    rows: usize,
    n: usize,
    inner: usize,
    reverse: bool,
    exclusive: bool,
}

impl Rows {
    fn new(x: &View<'_>, axis: usize, (reverse, exclusive): (bool, bool)) -> Rows {
        let shape = x.layout().shape;
        let inner: usize = shape[axis + 1..].iter().product();
        let rows = shape[..axis].iter().product::<usize>() * inner;
        Rows { rows, n: shape[axis], inner, reverse, exclusive }
    }

    fn push(&self, args: &mut KernelArgs) {
        let words = [self.rows, self.n, self.inner, self.reverse.into(), self.exclusive.into()];
        let bytes: Vec<u8> = words.iter().flat_map(|&word| (word as i64).to_ne_bytes()).collect();
        args.push_bytes(&bytes, 8);
    }
}

/// Running sums or products of `x[0]` along `axis`; integers wrap in i64.
///
/// # Errors
/// Out of memory; a kernel that does not compile or launch.
pub(crate) fn scan(
    gpu: &Gpu,
    product: bool,
    axis: usize,
    ends: (bool, bool),
    x: &[View<'_>],
    out: &mut [ViewMut<'_>],
) -> Result<()> {
    let kind = if product { Kind::Prod } else { Kind::Sum };
    let plan = Plan { kind, dtype: x[0].dtype(), out: out[0].dtype(), lanes: THREADS };
    launch(gpu, plan, Rows::new(&x[0], axis, ends), [ptr(&x[0]), NULL, ptr_mut(&mut out[0]), NULL])
}

/// Adjoint of the running product of `x[0]` along `axis`, from the gradient `x[1]`: the products of what comes before each
/// element, then the recurrence from the other end, which multiplies by them.
///
/// # Errors
/// Out of memory; a kernel that does not compile or launch.
pub(crate) fn cumprod_grad(gpu: &Gpu, axis: usize, x: &[View<'_>], out: &mut [ViewMut<'_>]) -> Result<()> {
    let dtype = x[0].dtype();
    let rows = Rows::new(&x[0], axis, (false, true));
    let before = gpu.scratch(rows.rows * rows.n * dtype.compute().size())?;
    let plan = Plan { kind: Kind::Prod, dtype, out: dtype.compute(), lanes: THREADS };
    launch(gpu, plan, rows, [ptr(&x[0]), NULL, before.ptr(), NULL])?;
    let plan = Plan { kind: Kind::Chain, dtype, out: dtype, lanes: THREADS };
    let rows = Rows { reverse: true, exclusive: false, ..rows };
    launch(gpu, plan, rows, [ptr(&x[0]), ptr(&x[1]), ptr_mut(&mut out[0]), before.ptr()])
}

/// Row-major positions of the elements of `x` that are not zero, then zeros; and how many there are.
///
/// # Errors
/// Out of memory; a kernel that does not compile or launch.
pub(crate) fn nonzero(gpu: &Gpu, x: &View<'_>, out: &mut [ViewMut<'_>]) -> Result<()> {
    let [places, count] = out else { unreachable!("nonzero has two results") };
    let n = x.layout().shape.numel();
    // SAFETY: the results have `n` elements and one, of i64.
    unsafe {
        gpu.fill(ptr_mut(places), 0, n * DType::I64.size())?;
        gpu.fill(ptr_mut(count), 0, DType::I64.size())?;
    }
    let plan = Plan { kind: Kind::NonZero, dtype: x.dtype(), out: DType::I64, lanes: THREADS };
    let row = Rows { rows: 1, n, inner: 1, reverse: false, exclusive: true };
    launch(gpu, plan, row, [ptr(x), NULL, ptr_mut(places), ptr_mut(count)])
}

/// Runs a plan, whose `lanes` are set here, on `x`, `g`, `y` and `more` of the kernel.
fn launch(gpu: &Gpu, mut plan: Plan, of: Rows, [x, g, y, more]: [DevicePtr; 4]) -> Result<()> {
    if of.rows * of.n == 0 {
        return Ok(());
    }
    if of.inner > 1 && of.rows >= MANY {
        let kernel = gpu.function(&plan.unit(), "columns")?;
        let mut args = args![x, g, y, more];
        of.push(&mut args);
        // SAFETY: the operands have `rows * n` elements, as `of` says where.
        return unsafe { gpu.launch(kernel, [blocks(of.rows, 1), 1, 1], THREADS as u32, 0, &args) };
    }
    plan.lanes = lanes(of.n, of.rows);
    let sms = gpu.info().multiprocessors.max(1) as usize;
    let (parts, range) = split(&plan, of, sms);
    let grid = [blocks(of.rows, plan.lanes), parts as u32, 1];
    let states = match parts {
        1 => None,
        _ => Some(gpu.scratch(of.rows * parts * STATE)?),
    };
    let states_at = states.as_ref().map_or(NULL, |s| s.ptr());
    if parts > 1 {
        let kernel = gpu.function(&plan.unit(), "totals")?;
        let mut args = args![x, g];
        of.push(&mut args);
        args.push(range as i64).push(states_at);
        // SAFETY: as below; there is a state for each part of each row.
        unsafe { gpu.launch(kernel, grid, THREADS as u32, 0, &args) }?;
    }
    let kernel = gpu.function(&plan.unit(), "scan")?;
    let mut args = args![x, g, y, more];
    of.push(&mut args);
    args.push(range as i64).push(states_at);
    // SAFETY: the operands have `rows * n` elements, as `of` says where; the parts cover each row.
    unsafe { gpu.launch(kernel, grid, THREADS as u32, 0, &args) }
}

/// Blocks for rows that so many threads share.
fn blocks(rows: usize, lanes: usize) -> u32 {
    rows.div_ceil(THREADS / lanes) as u32
}

/// Threads that share a row.
fn lanes(n: usize, rows: usize) -> usize {
    match n {
        0..=64 => 8,
        65..=512 => 32,
        // A warp does a longer row too, if there is work for all.
        513..=2048 if rows >= MANY => 32,
        _ => THREADS,
    }
}

/// Parts of each row, and their length: as many as keep the device busy, of some steps each.
fn split(plan: &Plan, of: Rows, sms: usize) -> (usize, usize) {
    let least = STEPS * plan.step();
    if plan.lanes < THREADS || of.rows >= sms || of.n <= 2 * least {
        return (1, of.n);
    }
    let parts = (2 * sms / of.rows).clamp(1, THREADS).min(of.n / least);
    let range = of.n.div_ceil(parts).next_multiple_of(plan.step());
    (of.n.div_ceil(range), range)
}

/// Every kind of unit that this family asks for, with its entry points.
pub(crate) fn units() -> Vec<(Unit, Vec<&'static str>)> {
    let mut plans = Vec::new();
    for dtype in DType::ALL {
        let out = dtype.to_sum();
        for kind in [Kind::Sum, Kind::Prod] {
            plans.push(Plan { kind, dtype, out, lanes: THREADS });
        }
        plans.push(Plan { kind: Kind::Sum, dtype, out, lanes: 8 });
        plans.push(Plan { kind: Kind::NonZero, dtype, out: DType::I64, lanes: THREADS });
    }
    for dtype in DType::FLOATS {
        plans.push(Plan { kind: Kind::Chain, dtype, out: dtype, lanes: THREADS });
        plans.push(Plan { kind: Kind::Prod, dtype, out: dtype.compute(), lanes: 32 });
    }
    plans.push(Plan { kind: Kind::Chain, dtype: DType::F64, out: DType::F64, lanes: 8 });
    plans.iter().map(|plan| (plan.unit(), vec!["scan", "totals", "columns"])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_cover_their_rows() {
        for rows in [1, 2, 7, 131, 132, 5000] {
            for n in [1, 64, 65, 513, 4096, 8193, 100_000, 123_456_789] {
                let lanes = lanes(n, rows);
                let plan = Plan { kind: Kind::Sum, dtype: DType::F32, out: DType::F32, lanes };
                let of = Rows { rows, n, inner: 1, reverse: false, exclusive: false };
                let (parts, range) = split(&plan, of, 132);
                assert!(parts * range >= n && (parts - 1) * range < n && parts <= THREADS);
                assert!(parts == 1 || (lanes == THREADS && range % plan.step() == 0));
            }
        }
    }
}
