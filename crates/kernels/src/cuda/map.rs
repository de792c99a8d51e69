//! Elementwise ops: a kernel is written for each [`Expr`], with the element types and the kind of layouts it meets.
//!
//! All kernels have one form. A point is a group of `lanes` elements along the last axis, up to 16 bytes an operand; a
//! thread takes a few points, loads all of them, then computes and stores. What differs is how an operand is met:
//! `Access`, and whether points are found by walking axes (`Space` in `map.cuh`) or simply lie one after the other.
//! Shapes, strides and sizes are arguments, so that few kernels are compiled.
//!
//! Operands that lie across a large result (a transposed matrix) are brought into its order first, tile by tile.

use std::fmt::Write as _;

use bullet_ops::expr::{Expr, Node};
use bullet_ops::table::{Body, TABLE};
use bullet_ops::{DType, Layout, Map};
use bullet_runtime::{Buffer, DevicePtr, KernelArgs, Result};
use smallvec::{SmallVec, smallvec};

use super::copy;
use super::gpu::{Gpu, device_type};
use super::print;
use crate::cpu::space::Space;
use crate::{View, ViewMut};

/// Conversions, arithmetic and iteration that the generated kernels use.
pub(super) const HEADER: &str = include_str!("../../cuda/map.cuh");

/// Threads of a block.
const BLOCK: usize = 256;
/// From this many elements on, reading an operand across the result's order costs more than a launch.
const ACROSS: usize = 1 << 18;

/// Evaluates `expr` for each element of `out` in the type `compute` (i64, u64, f32 or f64), as [`cpu::map`] does.
///
/// `x` are as many as the expression's inputs and have `out`'s shape (broadcast axes have stride 0). `out` may be
/// strided, and may be the same memory as an operand of the same layout.
///
/// # Errors
/// The kernel cannot be compiled or launched, or there is no memory for scratch.
///
/// # Panics
/// If a shape differs or operands are missing.
///
/// [`cpu::map`]: crate::cpu::map()
pub fn map(gpu: &Gpu, expr: &Expr, compute: DType, x: &[View<'_>], out: &mut ViewMut<'_>) -> Result<()> {
    assert_eq!(x.len(), expr.inputs(), "operands of the expression");
    let shape = out.layout().shape;
    assert!(x.iter().all(|x| x.layout().shape == shape), "operands are broadcast to the result's shape");
    if shape.numel() == 0 {
        return Ok(());
    }
    if let Some(c) = expr.as_const() {
        return copy::fill(gpu, out, c);
    }
    if let Some(i) = expr.as_input().filter(|&i| x[i].dtype() == out.dtype()) {
        return copy::copy(gpu, &x[i], out);
    }
    let mut used: SmallVec<[View<'_>; 4]> = SmallVec::new();
    used.extend((0..x.len()).filter(|&i| expr.uses(i)).map(|i| x[i]));
    let scratch = straighten(gpu, &mut used, out)?;
    launch(gpu, expr, compute, &used, out)?;
    // The launch is enqueued; whoever gets this memory next is behind it in the stream.
    drop(scratch);
    Ok(())
}

/// Replaces operands that lie across a large, contiguous result by copies in its order.
fn straighten(gpu: &Gpu, used: &mut [View<'_>], out: &ViewMut<'_>) -> Result<Vec<Buffer>> {
    let mut scratch = Vec::new();
    if out.layout().shape.numel() < ACROSS || !out.layout().is_contiguous() {
        return Ok(scratch);
    }
    for x in used.iter_mut().filter(|x| copy::lies_across(x.layout())) {
        let layout = Layout::contiguous(x.layout().shape);
        let memory = gpu.scratch(layout.shape.numel() * x.dtype().size())?;
        let base = memory.ptr().0 as *mut u8;
        // SAFETY: the memory has room for the layout, and only this function knows of it.
        copy::copy(gpu, x, &mut unsafe { ViewMut::new(base, x.dtype(), layout) })?;
        // SAFETY: written before whatever is enqueued from now on reads it.
        *x = unsafe { View::new(base, x.dtype(), layout) };
        scratch.push(memory);
    }
    Ok(scratch)
}

/// As [`map`], for the operands that the expression uses, always by a generated kernel; there are elements.
pub(super) fn launch(
    gpu: &Gpu,
    expr: &Expr,
    compute: DType,
    used: &[View<'_>],
    out: &mut ViewMut<'_>,
) -> Result<()> {
    let plan = Plan::new(used, out);
    let dtypes: SmallVec<[DType; 4]> = used.iter().map(View::dtype).collect();
    let kernel = Kernel { expr, compute, out: out.dtype(), dtypes: &dtypes, form: &plan.form };
    let function = gpu.generated(&kernel.key(), "map", || kernel.unit("map"))?;
    let mut args = KernelArgs::new();
    args.push(DevicePtr(out.bytes() as u64));
    used.iter().for_each(|x| {
        args.push(DevicePtr(x.bytes() as u64));
    });
    if let Some(space) = &plan.space {
        push_space(&mut args, space, plan.form.lanes);
    }
    let info = gpu.info();
    let resident = info.multiprocessors as usize * (info.threads_per_multiprocessor as usize / BLOCK);
    let spread = Spread::new(plan.points, kernel.unroll(), resident);
    args.push(plan.points as i64);
    args.push(spread.step as i64);
    args.push(spread.span as i64);
    if plan.form.tail() {
        args.push(plan.elements as i64);
    }
    // SAFETY: the arguments are those that `Kernel::text` declares; the views vouch for the memory.
    unsafe { gpu.launch(function, [spread.blocks, 1, 1], BLOCK as u32, 0, &args) }
}

/// Sources as they are generated, each with a name: of every elementwise row, the op and its adjoints in the dtypes they
/// take, over contiguous operands; of one op, the other kinds of layouts. The entry points begin with the source's name.
pub(crate) fn sample_sources() -> Vec<(String, String)> {
    let rows = TABLE.iter().filter_map(|row| {
        let Body::Map(op, _) = row.body else { return None };
        let name = format!("map_{}", row.name);
        let kernels: Vec<String> =
            samples_of(op).iter().map(|(tag, s)| s.text(&format!("{name}_{tag}"))).collect();
        Some((name, format!("{HEADER}\n{}", kernels.join("\n"))))
    });
    rows.chain([layout_samples()]).collect()
}

/// A kernel that owns what it is made of.
struct Sample {
    expr: Expr,
    compute: DType,
    out: DType,
    dtypes: Vec<DType>,
    form: Form,
}

impl Sample {
    /// Over contiguous operands.
    fn flat(expr: &Expr, compute: DType, dtypes: &[DType], out: DType) -> Sample {
        let dtypes: Vec<DType> = (0..dtypes.len()).filter(|&i| expr.uses(i)).map(|i| dtypes[i]).collect();
        let widest = dtypes.iter().chain([&out]).map(|d| d.size()).max().unwrap_or(1);
        let access = vec![Access::Group; dtypes.len()];
        let form = Form { lanes: 16 / widest, rank: 0, wide: false, access };
        Sample { expr: expr.clone(), compute, out, dtypes, form }
    }

    fn text(&self, name: &str) -> String {
        let Sample { expr, compute, out, dtypes, form } = self;
        Kernel { expr, compute: *compute, out: *out, dtypes, form }.text(name)
    }
}

/// An op and its adjoints, each with a tag.
fn samples_of(op: Map) -> Vec<(String, Sample)> {
    let mut samples = Vec::new();
    for dtype in [DType::I64, DType::U64, DType::F16, DType::F32, DType::F64] {
        let mut dtypes = vec![dtype; op.arity()];
        match op {
            Map::Where => dtypes[0] = DType::Bool,
            Map::MaskedFill => dtypes[1] = DType::Bool,
            _ => {}
        }
        let Ok((compute, out)) = op.types(&dtypes) else { continue };
        let exprs = op.exprs();
        samples.push((dtype.to_string(), Sample::flat(&exprs.forward, compute, &dtypes, out)));
        let adjoints = exprs.adjoint.iter().flatten().enumerate();
        for (i, adjoint) in adjoints.filter(|_| dtype.is_float()) {
            if adjoint.as_const().is_none() && adjoint.as_input().is_none() {
                let operands = [&dtypes[..], &[dtype, dtype]].concat();
                let sample = Sample::flat(adjoint, compute, &operands, dtype);
                samples.push((format!("{dtype}_adjoint{i}"), sample));
            }
        }
    }
    samples
}

/// A product and a sum over operands of mixed dtypes, by every kind of access and several ranks.
fn layout_samples() -> (String, String) {
    let expr = Expr::build(3, |x| x[0] * x[1] + x[2]);
    let name = "map_layouts";
    let mut text = format!("{HEADER}\n");
    let shapes = [
        (1, 0, false),
        (4, 0, false),
        (1, 1, false),
        (4, 2, false),
        (1, 3, false),
        (4, 8, false),
        (1, 8, true),
    ];
    for (lanes, rank, wide) in shapes {
        let row = if lanes > 1 && rank > 0 { Access::Row } else { Access::Group };
        let form = Form { lanes, rank, wide, access: vec![Access::Group, row, Access::Once] };
        let dtypes = vec![DType::F32, DType::BF16, DType::Bool];
        let sample = Sample { expr: expr.clone(), compute: DType::F32, out: DType::F16, dtypes, form };
        let wide = if wide { "_wide" } else { "" };
        let _ = write!(text, "\n{}", sample.text(&format!("{name}_{lanes}_{rank}{wide}")));
    }
    (name.to_owned(), text)
}

/// How a kernel meets an operand.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Access {
    /// The elements of a point lie one after the other, or are one.
    Group,
    /// All elements of a point are the same: broadcast along the last axis.
    Row,
    /// All elements of the operand are the same.
    Once,
}

/// What the layouts contribute to a kernel's text.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Form {
    /// Elements of a point.
    lanes: usize,
    /// Axes walked; 0 if point `n` begins at element `n * lanes` of every group.
    rank: usize,
    /// The points are too many for 32 bits.
    wide: bool,
    /// Of each operand, in order.
    access: Vec<Access>,
}

impl Form {
    /// Whether elements may be left behind the last whole point.
    fn tail(&self) -> bool {
        self.rank == 0 && self.lanes > 1
    }
}

/// A form with its sizes.
struct Plan {
    form: Form,
    /// Operand 0 is the result, operand i + 1 is operand i.
    space: Option<Space>,
    elements: usize,
    points: usize,
}

impl Plan {
    fn new(used: &[View<'_>], out: &mut ViewMut<'_>) -> Plan {
        let elements = out.layout().shape.numel();
        let flat = |x: &View<'_>| x.layout().is_contiguous() || is_scalar(x.layout());
        if out.layout().is_contiguous() && used.iter().all(flat) {
            let once = |x: &View<'_>| elements > 1 && is_scalar(x.layout());
            return Plan::flat(used, out, |i| once(&used[i]));
        }
        let dims = out.layout().shape;
        let mut strides = vec![out.layout().strides()];
        strides.extend(used.iter().map(|x| x.layout().strides()));
        let space = Space::sorted(&dims, &strides);
        let rank = space.dims().len();
        let unit = |o: usize| matches!(space.strides(o), [0 | 1]);
        if space.strides(0) == [1] && (1..=used.len()).all(unit) {
            return Plan::flat(used, out, |i| space.strides(i + 1) == [0]);
        }
        let once = |i: usize| space.strides(i + 1).iter().all(|&s| s == 0);
        let last = |o: usize| space.strides(o)[rank - 1];
        let rows = last(0) == 1 && (1..=used.len()).all(|o| matches!(last(o), 0 | 1));
        let groups = |i: usize| last(i + 1) == 1;
        let lanes = if rows { lanes(used, out, groups, Some(&space)) } else { 1 };
        let access = (0..used.len()).map(|i| match () {
            () if once(i) => Access::Once,
            () if lanes == 1 || groups(i) => Access::Group,
            () => Access::Row,
        });
        let points = elements / lanes;
        let form = Form { lanes, rank, wide: points >= 1 << 31, access: access.collect() };
        Plan { form, space: Some(space), elements, points }
    }

    fn flat(used: &[View<'_>], out: &mut ViewMut<'_>, once: impl Fn(usize) -> bool) -> Plan {
        let elements = out.layout().shape.numel();
        let lanes = lanes(used, out, |i| !once(i), None);
        let access = (0..used.len()).map(|i| if once(i) { Access::Once } else { Access::Group }).collect();
        // With one lane the points are the elements, else some may be left over.
        let form = Form { lanes, rank: 0, wide: false, access };
        Plan { form, space: None, elements, points: elements / lanes }
    }
}

/// Whether all elements are one.
fn is_scalar(layout: &Layout) -> bool {
    layout.shape.iter().zip(layout.strides()).all(|(&d, &s)| d == 1 || s == 0)
}

/// How many elements of every group can move as one word, and 16 bytes of the largest do.
fn lanes(
    used: &[View<'_>],
    out: &mut ViewMut<'_>,
    groups: impl Fn(usize) -> bool,
    space: Option<&Space>,
) -> usize {
    let mut operands: SmallVec<[_; 5]> = smallvec![(0, out.bytes() as usize, out.dtype().size())];
    let grouped = (0..used.len()).filter(|&i| groups(i));
    operands.extend(grouped.map(|i| (i + 1, used[i].bytes() as usize, used[i].dtype().size())));
    let widest = operands.iter().map(|o| o.2).max().unwrap_or(1);
    let fits = |lanes: &usize| {
        let aligned = operands.iter().all(|&(_, address, size)| address.is_multiple_of(lanes * size));
        let whole = space.is_none_or(|space| {
            let outer = space.dims().len() - 1;
            let strides = |o: usize| space.strides(o)[..outer].iter();
            space.inner().is_multiple_of(*lanes)
                && operands.iter().all(|&(o, ..)| strides(o).all(|s| s.unsigned_abs().is_multiple_of(*lanes)))
        });
        aligned && whole
    };
    [16, 8, 4, 2].into_iter().filter(|lanes| lanes * widest <= 16).find(fits).unwrap_or(1)
}

/// How points are dealt to threads: thread `t` of block `b` takes `b * span + t`, and then `step` further on each.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Spread {
    blocks: u32,
    step: usize,
    span: usize,
}

impl Spread {
    /// `unroll` points a thread where there are enough of them to keep the device's `resident` blocks busy; one each
    /// below that, as more threads then hide more latency.
    fn new(points: usize, unroll: usize, resident: usize) -> Spread {
        let blocks = points.div_ceil(BLOCK).max(1);
        if blocks <= 2 * resident {
            return Spread { blocks: blocks as u32, step: blocks * BLOCK, span: BLOCK };
        }
        let span = unroll * BLOCK;
        Spread { blocks: super::gpu::blocks(points, span, i32::MAX as usize), step: BLOCK, span }
    }
}

/// Appends `struct Space` of `map.cuh`, over points of `lanes` elements.
fn push_space(args: &mut KernelArgs, space: &Space, lanes: usize) {
    let rank = space.dims().len();
    let mut bytes = Vec::with_capacity(8 * rank * (space.operands() + 2));
    for o in 0..space.operands() {
        for (d, &stride) in space.strides(o).iter().enumerate() {
            let stride = if d == rank - 1 { stride * lanes as isize } else { stride };
            bytes.extend_from_slice(&(stride as i64).to_ne_bytes());
        }
    }
    let mut dims = space.dims().to_vec();
    dims[rank - 1] /= lanes;
    dims.iter().for_each(|&d| bytes.extend_from_slice(&(d as i64).to_ne_bytes()));
    let magic: Vec<(u32, u32)> = dims.iter().map(|&d| magic(d)).collect();
    magic.iter().for_each(|(m, _)| bytes.extend_from_slice(&m.to_ne_bytes()));
    magic.iter().for_each(|(_, shift)| bytes.extend_from_slice(&shift.to_ne_bytes()));
    args.push_bytes(&bytes, 8);
}

/// Factor and shift by which a number below 2^31 is divided by `d`: `(n * factor / 2^32 + n) >> shift`. Zeros, which
/// nobody uses, for a `d` beyond 31 bits.
fn magic(d: usize) -> (u32, u32) {
    if d > 1 << 31 {
        return (0, 0);
    }
    let d = d.max(1) as u64;
    let shift = d.next_power_of_two().trailing_zeros();
    ((((1u64 << 32) * ((1u64 << shift) - d)) / d + 1) as u32, shift)
}

/// Everything that a kernel's text depends on.
struct Kernel<'a> {
    expr: &'a Expr,
    compute: DType,
    out: DType,
    /// Of the inputs that the expression uses, in order.
    dtypes: &'a [DType],
    form: &'a Form,
}

impl Kernel<'_> {
    /// The bytes that tell this kernel from others of [`Gpu::generated`].
    fn key(&self) -> SmallVec<[u8; 128]> {
        let mut key = SmallVec::from_slice(b"map");
        let form = self.form;
        key.extend([
            self.compute as u8,
            self.out as u8,
            form.lanes as u8,
            form.rank as u8,
            u8::from(form.wide),
        ]);
        key.push(self.dtypes.len() as u8);
        for (&dtype, &access) in self.dtypes.iter().zip(&form.access) {
            key.extend([dtype as u8, access as u8]);
        }
        let used: SmallVec<[u8; 8]> = self.inputs().map(|i| i as u8).collect();
        for node in self.expr.nodes() {
            match *node {
                // By its place among those used, so that the same function of other operands is the same kernel.
                Node::Input(i) => key.extend([0, used.iter().position(|&u| u == i).unwrap_or(0) as u8]),
                Node::Const(c) => {
                    key.push(1);
                    key.extend(c.to_bits().to_ne_bytes());
                }
                Node::Unary(op, _) => key.extend([2, op as u8]),
                Node::Binary(op, ..) => key.extend([3, op as u8]),
                Node::Select(..) => key.push(4),
            }
            node.args().for_each(|a| key.extend(a.to_ne_bytes()));
        }
        key
    }

    /// The inputs that the expression uses.
    fn inputs(&self) -> impl Iterator<Item = usize> {
        (0..self.expr.inputs()).filter(|&i| self.expr.uses(i))
    }

    /// Points that a thread has in flight: some 64 bytes of operands, unless that makes the text long.
    fn unroll(&self) -> usize {
        let lanes = self.form.lanes;
        let loads = self.dtypes.iter().zip(&self.form.access).filter(|(_, a)| **a == Access::Group);
        let bytes = lanes * loads.map(|(d, _)| d.size()).sum::<usize>();
        let slow = self.expr.nodes().iter().any(|node| match node {
            Node::Unary(op, _) => !op.is_cheap(),
            Node::Binary(op, ..) => !op.is_cheap(),
            Node::Input(_) | Node::Const(_) | Node::Select(..) => false,
        });
        // Copies of the expression's code: more of long ones spill registers on old GPUs, and are slow to compile.
        let copies = match () {
            () if matches!(self.compute, DType::F64 | DType::U64) && slow => 2,
            () if self.compute == DType::F64 => 4,
            () if slow => 16,
            () => 32,
        };
        (64 / bytes.max(1)).clamp(1, 8).min(copies / lanes).max(1)
    }

    /// The source of a unit with this kernel alone, as entry point `name`.
    fn unit(&self, name: &str) -> String {
        format!("{HEADER}\n{}", self.text(name))
    }

    /// The kernel `name` and the function `name_value` that it applies to each element.
    fn text(&self, name: &str) -> String {
        let mut text = print::print(&format!("{name}_value"), self.expr, self.compute);
        let parts = Parts::of(self, name);
        let Form { lanes, rank, wide, .. } = *self.form;
        let (operands, unroll) = (self.dtypes.len() + 1, self.unroll());
        let out = device_type(self.out);
        let space = if rank > 0 { format!(", Space<{operands}, {rank}> space") } else { String::new() };
        let tail = if self.form.tail() { ", i64 elements" } else { "" };
        let locate = match rank {
            0 => String::new(),
            _ => format!("                locate<{wide}>(space, n, at[u]);\n"),
        };
        let (place, at) = match rank {
            0 => (format!("n * {lanes}"), String::new()),
            _ => ("at[u][0]".into(), format!("        i64 at[{unroll}][{operands}];\n")),
        };
        // Writing to a string cannot fail.
        let _ = write!(
            text,
            "
KERNEL __launch_bounds__({BLOCK}) {name}({out} *out{params}{space}, i64 points, i64 step, i64 span{tail}) {{
    begin_kernel();
{once}    for (i64 first = blockIdx.x * span + threadIdx.x; first < points; first += gridDim.x * span) {{
{at}{groups}#pragma unroll
        for (int u = 0; u < {unroll}; ++u) {{
            i64 n = first + u * step;
            if (n < points) {{
{locate}{loads}            }}
        }}
#pragma unroll
        for (int u = 0; u < {unroll}; ++u) {{
            i64 n = first + u * step;
            if (n < points) {{
                Pack<{out}, {lanes}> y;
#pragma unroll
                for (int i = 0; i < {lanes}; ++i) y.at[i] = Stored<{out}>::of({value});
                y.store(out + {place});
            }}
        }}
    }}
",
            params = parts.params,
            once = parts.once,
            groups = parts.groups,
            loads = parts.loads,
            value = parts.value,
        );
        if self.form.tail() {
            let _ = write!(
                text,
                "    i64 i = points * {lanes} + threadIdx.x;
    if (blockIdx.x == 0 && i < elements) out[i] = Stored<{out}>::of({});
",
                parts.single
            );
        }
        text.push_str("}\n");
        text
    }
}

/// The pieces of a kernel's text that repeat for each operand.
#[derive(Default)]
struct Parts {
    params: String,
    once: String,
    groups: String,
    loads: String,
    /// The value of element `i` of point `u`.
    value: String,
    /// The value of element `i` of the whole.
    single: String,
}

impl Parts {
    fn of(kernel: &Kernel<'_>, name: &str) -> Parts {
        let mut parts = Parts::default();
        let (mut values, mut singles) = (Vec::new(), Vec::new());
        let Form { lanes, rank, .. } = *kernel.form;
        let (unroll, c) = (kernel.unroll(), device_type(kernel.compute));
        let operands = kernel.dtypes.iter().zip(&kernel.form.access);
        // Writing to a string cannot fail.
        for (k, (&dtype, access)) in operands.enumerate() {
            let t = device_type(dtype);
            let _ = write!(parts.params, ", const {t} *p{k}");
            let from = if rank > 0 { format!("at[u][{}]", k + 1) } else { format!("n * {lanes}") };
            let value = match access {
                Access::Once => {
                    let _ = writeln!(parts.once, "    const {c} once{k} = load<{c}>(*p{k});");
                    singles.push(format!("once{k}"));
                    format!("once{k}")
                }
                Access::Row => {
                    let _ = writeln!(parts.groups, "        {t} row{k}[{unroll}];");
                    let _ = writeln!(parts.loads, "                row{k}[u] = p{k}[{from}];");
                    format!("load<{c}>(row{k}[u])")
                }
                Access::Group => {
                    let _ = writeln!(parts.groups, "        Pack<{t}, {lanes}> group{k}[{unroll}];");
                    let _ = writeln!(parts.loads, "                group{k}[u].load(p{k} + {from});");
                    singles.push(format!("load<{c}>(p{k}[i])"));
                    format!("load<{c}>(group{k}[u].at[i])")
                }
            };
            values.push(value);
        }
        parts.value = format!("{name}_value({})", values.join(", "));
        parts.single = format!("{name}_value({})", singles.join(", "));
        parts
    }
}

#[cfg(test)]
mod tests {
    use bullet_ops::Shape;

    use super::*;

    /// A view at an address that nobody reads.
    fn view(address: usize, dtype: DType, layout: Layout) -> View<'static> {
        // SAFETY: only the description is used.
        unsafe { View::new(address as *const u8, dtype, layout) }
    }

    fn view_mut(address: usize, dtype: DType, layout: Layout) -> ViewMut<'static> {
        // SAFETY: as above.
        unsafe { ViewMut::new(address as *mut u8, dtype, layout) }
    }

    fn dense(dims: &[usize]) -> Layout {
        Layout::contiguous(Shape::new(dims).unwrap())
    }

    fn form(used: &[View<'_>], out: (usize, DType, Layout)) -> Form {
        Plan::new(used, &mut view_mut(out.0, out.1, out.2)).form
    }

    #[test]
    fn forms_follow_layouts_and_alignment() {
        let (f32_, f16) = (DType::F32, DType::F16);
        let square = dense(&[64, 64]);
        let scalar = Layout::strided(square.shape, &[0, 0], 0);
        let bias = Layout::strided(square.shape, &[0, 1], 0);
        let column = Layout::strided(square.shape, &[1, 0], 0);
        let across = Layout::strided(square.shape, &[1, 64], 0);
        let ends =
            |access: &[Access], lanes, rank| Form { lanes, rank, wide: false, access: access.to_vec() };
        use Access::{Group, Once, Row};
        let x = |layout| view(4096, f32_, layout);
        assert_eq!(form(&[x(square), x(scalar)], (256, f32_, square)), ends(&[Group, Once], 4, 0));
        assert_eq!(form(&[view(4096, f16, square)], (256, f16, square)), ends(&[Group], 8, 0));
        assert_eq!(form(&[view(4098, f16, square)], (256, f16, square)), ends(&[Group], 1, 0));
        assert_eq!(form(&[view(4100, f16, square)], (256, f16, square)), ends(&[Group], 2, 0));
        assert_eq!(form(&[view(4096, f16, square)], (256, f32_, square)), ends(&[Group], 4, 0));
        let mixed = [x(square), x(bias), x(column), x(scalar)];
        assert_eq!(form(&mixed, (256, f32_, square)), ends(&[Group, Group, Row, Once], 4, 2));
        assert_eq!(form(&[x(square), x(across)], (256, f32_, square)), ends(&[Group, Group], 1, 2));
        // The same transposed layout on both sides is a contiguous one in another order.
        assert_eq!(form(&[x(across)], (256, f32_, across)), ends(&[Group], 4, 0));
        // A slice whose rows are no multiples of a group apart.
        let slice = Layout::strided(square.shape, &[66, 1], 0);
        assert_eq!(form(&[x(slice)], (256, f32_, square)), ends(&[Group], 2, 2));
        let one = dense(&[1, 1]);
        assert_eq!(form(&[x(one)], (256, f32_, one)), ends(&[Group], 4, 0));
        let reversed = Layout::strided(Shape::new(&[9]).unwrap(), &[-1], 8);
        assert_eq!(form(&[x(reversed)], (256, f32_, dense(&[9]))), ends(&[Group], 1, 1));
    }

    #[test]
    fn magic_numbers_divide() {
        for d in (1..70).chain([127, 128, 1000, 65535, 65537, 1 << 20, (1 << 30) + 1, (1 << 31) - 1, 1 << 31])
        {
            let (factor, shift) = magic(d);
            let top = (1u64 << 31) - 1;
            let near = (0..4)
                .flat_map(|k| [k * d as u64, (k * d as u64).wrapping_sub(1), top / d as u64 * d as u64]);
            for n in near.chain([0, 1, 12345, top - 1, top]).filter(|&n| n <= top) {
                let high = (n * u64::from(factor)) >> 32;
                assert!(high + n < 1 << 32);
                assert_eq!((high + n) >> shift, n / d as u64, "{n} / {d}");
            }
        }
    }

    #[test]
    fn every_point_has_one_thread() {
        for (points, unroll, resident) in [(1, 4, 8), (0, 4, 8), (4095, 4, 8), (5000, 2, 8), (100_000, 3, 8)]
        {
            let Spread { blocks, step, span } = Spread::new(points, unroll, resident);
            let mut seen = vec![0; points];
            for thread in 0..blocks as usize * BLOCK {
                let mut first = thread / BLOCK * span + thread % BLOCK;
                while first < points {
                    (0..unroll).map(|u| first + u * step).filter(|&n| n < points).for_each(|n| seen[n] += 1);
                    first += blocks as usize * span;
                }
            }
            assert!(seen.iter().all(|&n| n == 1), "{points} {unroll} {resident}");
        }
    }

    #[test]
    fn keys_tell_kernels_apart_and_nothing_else() {
        let form = Form { lanes: 4, rank: 0, wide: false, access: vec![Access::Group; 2] };
        let dtypes = [DType::F32; 2];
        let key = |expr: &Expr| {
            Kernel { expr, compute: DType::F32, out: DType::F32, dtypes: &dtypes, form: &form }.key()
        };
        let product = Expr::build(2, |x| x[0] * x[1]);
        assert_eq!(key(&product), key(&Expr::build(3, |x| x[1] * x[2])));
        assert_ne!(key(&product), key(&Expr::build(2, |x| x[1] * x[0])));
        let plus = |c: f64| Expr::build(2, move |x| x[0] + x[1] + c);
        assert_ne!(key(&plus(0.0)), key(&plus(-0.0)));
    }

    #[test]
    fn generated_text_is_as_agreed() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/map.cu");
        let mut text = String::from(
            "// Generated kernels; a test of map.rs writes this file when run with BLESS=1.\n\n",
        );
        for (tag, sample) in samples_of(Map::Silu).iter().filter(|(tag, _)| tag.starts_with("f16")) {
            text += &format!("{}\n", sample.text(&format!("silu_{tag}")));
        }
        text += layout_samples().1.strip_prefix(HEADER).unwrap().trim_start();
        if std::env::var_os("BLESS").is_some() {
            std::fs::write(path, &text).unwrap();
        }
        let golden = std::fs::read_to_string(path).unwrap();
        assert!(golden == text, "the text differs from {path}: run with BLESS=1 and read the difference");
    }
}
