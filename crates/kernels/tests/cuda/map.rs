//! Elementwise kernels and copies on a GPU against the CPU's: every row of the table, random layouts and dtypes. Results
//! are compared with all the memory around them, which is poisoned. Without a GPU the tests pass and say so.

use crate::common::Rng;
use crate::gpu;
use bullet_kernels::cuda::{Gpu, copy, map};
use bullet_kernels::{View, ViewMut, cpu};
use bullet_ops::expr::Expr;
use bullet_ops::table::{Body, Row, TABLE};
use bullet_ops::{DType, Element, Layout, Map, Op, Shape};
use bullet_runtime::{Buffer, Result};
use half::{bf16, f16};

/// A strided tensor in host memory, with what lies around and between its elements.
#[derive(Clone)]
struct Host {
    dtype: DType,
    layout: Layout,
    /// Words, for the alignment of every dtype.
    memory: Vec<u64>,
}

impl Host {
    /// Elements that `value` gives, everywhere.
    fn new(dtype: DType, layout: Layout, mut value: impl FnMut() -> f64) -> Host {
        let mut host = Host::poisoned(dtype, layout);
        for at in 0..host.memory.len() * 8 / dtype.size() {
            let (size, bytes) = (dtype.size(), encode(dtype, value()));
            host.bytes_mut()[at * size..(at + 1) * size].copy_from_slice(&bytes[..size]);
        }
        host
    }

    /// Bytes that no kernel should leave behind.
    fn poisoned(dtype: DType, layout: Layout) -> Host {
        let elements = layout.bounds().map_or(0, |(_, hi)| hi + 1) + 3;
        Host { dtype, layout, memory: vec![0xa5a5_a5a5_a5a5_a5a5; (elements * dtype.size()).div_ceil(8)] }
    }

    fn bytes(&self) -> &[u8] {
        // SAFETY: words are bytes.
        unsafe { std::slice::from_raw_parts(self.memory.as_ptr().cast(), self.memory.len() * 8) }
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: words are bytes.
        unsafe { std::slice::from_raw_parts_mut(self.memory.as_mut_ptr().cast(), self.memory.len() * 8) }
    }

    fn view(&self) -> View<'_> {
        // SAFETY: the memory was made for the layout.
        unsafe { View::new(self.memory.as_ptr().cast(), self.dtype, self.layout) }
    }

    fn view_mut(&mut self) -> ViewMut<'_> {
        // SAFETY: as above.
        unsafe { ViewMut::new(self.memory.as_mut_ptr().cast(), self.dtype, self.layout) }
    }

    /// A copy of the memory on the device.
    fn upload(&self, gpu: &Gpu) -> Buffer {
        let mut buffer = gpu.device().alloc(self.memory.len() * 8).unwrap();
        buffer.write(0, self.bytes()).unwrap();
        buffer
    }

    fn view_in(&self, buffer: &Buffer) -> View<'static> {
        // SAFETY: the buffer holds what `memory` does; the callers keep it until they have read the result.
        unsafe { View::new(buffer.ptr().0 as *const u8, self.dtype, self.layout) }
    }

    fn view_mut_in(&self, buffer: &Buffer) -> ViewMut<'static> {
        // SAFETY: as above.
        unsafe { ViewMut::new(buffer.ptr().0 as *mut u8, self.dtype, self.layout) }
    }
}

fn encode(dtype: DType, x: f64) -> [u8; 8] {
    fn put<const N: usize>(x: [u8; N]) -> [u8; 8] {
        let mut bytes = [0; 8];
        bytes[..N].copy_from_slice(&x);
        bytes
    }
    match dtype {
        DType::Bool => put([u8::from(bool::from_f64(x))]),
        DType::U8 => put(u8::from_f64(x).to_ne_bytes()),
        DType::U16 => put(u16::from_f64(x).to_ne_bytes()),
        DType::U32 => put(u32::from_f64(x).to_ne_bytes()),
        DType::U64 => put(u64::from_f64(x).to_ne_bytes()),
        DType::I8 => put(i8::from_f64(x).to_ne_bytes()),
        DType::I16 => put(i16::from_f64(x).to_ne_bytes()),
        DType::I32 => put(i32::from_f64(x).to_ne_bytes()),
        DType::I64 => put(i64::from_f64(x).to_ne_bytes()),
        DType::F16 => put(<f16 as Element>::from_f64(x).to_ne_bytes()),
        DType::BF16 => put(<bf16 as Element>::from_f64(x).to_ne_bytes()),
        DType::F32 => put(f32::from_f64(x).to_ne_bytes()),
        DType::F64 => put(x.to_ne_bytes()),
    }
}

/// A float as f64; integers are compared by their bytes.
fn decode(dtype: DType, bytes: &[u8]) -> Option<f64> {
    match dtype {
        DType::Bool | DType::U8 | DType::U16 | DType::U32 | DType::U64 => None,
        DType::I8 | DType::I16 | DType::I32 | DType::I64 => None,
        DType::F16 => Some(f16::from_ne_bytes(bytes.try_into().ok()?).to_f64()),
        DType::BF16 => Some(bf16::from_ne_bytes(bytes.try_into().ok()?).to_f64()),
        DType::F32 => Some(f64::from(f32::from_ne_bytes(bytes.try_into().ok()?))),
        DType::F64 => Some(f64::from_ne_bytes(bytes.try_into().ok()?)),
    }
}

/// Every element of both memories is the same, or near (`tolerance` times the magnitude, 1 at least, and one unit of a
/// 16-bit result).
fn compare(what: &str, got: &[u8], want: &Host, tolerance: f64) {
    let size = want.dtype.size();
    let unit = match want.dtype {
        DType::F16 => 2f64.powi(-10),
        DType::BF16 => 2f64.powi(-7),
        _ => 0.0,
    };
    let tolerance = if tolerance == 0.0 { 0.0 } else { tolerance + unit };
    for (i, (g, w)) in got.chunks_exact(size).zip(want.bytes().chunks_exact(size)).enumerate() {
        if g == w {
            continue;
        }
        let near = match (decode(want.dtype, g), decode(want.dtype, w)) {
            (Some(g), Some(w)) => {
                g == w || g.is_nan() && w.is_nan() || (g - w).abs() <= tolerance * w.abs().max(1.0)
            }
            _ => false,
        };
        let show = |b: &[u8]| format!("{b:02x?} {:?}", decode(want.dtype, b));
        assert!(near, "{what}: element {i} of {:?} is {}, not {}", want.layout, show(g), show(w));
    }
}

/// Runs `on_gpu` and `on_cpu` from the same operands to equally poisoned results and compares these. `aliased` names an
/// operand whose memory the result takes.
fn check(
    what: &str,
    gpu: &Gpu,
    x: &[Host],
    out: &Host,
    aliased: Option<usize>,
    tolerance: f64,
    on_gpu: impl FnOnce(&[View<'_>], &mut ViewMut<'_>) -> Result<()>,
    on_cpu: impl FnOnce(&[View<'_>], &mut ViewMut<'_>),
) {
    let mut want = aliased.map_or(out, |i| &x[i]).clone();
    let views: Vec<View<'_>> = x.iter().map(Host::view).collect();
    on_cpu(&views, &mut want.view_mut());
    let buffers: Vec<Buffer> = x.iter().map(|x| x.upload(gpu)).collect();
    let fresh = out.upload(gpu);
    let target = aliased.map_or(&fresh, |i| &buffers[i]);
    let views: Vec<View<'_>> = x.iter().zip(&buffers).map(|(x, b)| x.view_in(b)).collect();
    on_gpu(&views, &mut want.view_mut_in(target)).unwrap_or_else(|e| panic!("{what}: {e}"));
    let mut got = vec![0; target.len()];
    target.read(0, &mut got).unwrap_or_else(|e| panic!("{what}: {e}"));
    compare(what, &got, &want, tolerance);
}

fn check_map(
    what: &str,
    gpu: &Gpu,
    f: &Expr,
    compute: DType,
    x: &[Host],
    out: &Host,
    aliased: Option<usize>,
    tolerance: f64,
) {
    let what =
        format!("{what} in {compute}, {:?} to {}", x.iter().map(|x| x.dtype).collect::<Vec<_>>(), out.dtype);
    check(
        &what,
        gpu,
        x,
        out,
        aliased,
        tolerance,
        |x, out| map::map(gpu, f, compute, x, out),
        |x, out| cpu::map(f, compute, x, out),
    );
}

fn dense(dims: &[usize]) -> Layout {
    Layout::contiguous(Shape::new(dims).unwrap())
}

/// A layout of this shape with permuted axes, gaps, an offset, reversed axes; for operands, also broadcast axes.
fn random_layout(rng: &mut Rng, shape: &[usize], operand: bool) -> Layout {
    let offset = rng.pick(&[0, 0, 0, 1, 2, 8]);
    if rng.below(4) == 0 {
        let dense = dense(shape);
        return Layout::strided(dense.shape, dense.strides(), offset);
    }
    let mut order: Vec<usize> = (0..shape.len()).collect();
    if rng.below(2) == 0 {
        (1..order.len()).for_each(|i| order.swap(i, rng.below(i + 1)));
    }
    let (mut strides, mut step, mut offset) = (vec![0; shape.len()], 1, offset);
    for &axis in order.iter().rev() {
        let len = shape[axis];
        if operand && rng.below(4) == 0 {
            continue;
        }
        step *= rng.pick(&[1, 1, 1, 1, 2, 3]);
        strides[axis] = step;
        if rng.below(8) == 0 && len > 0 {
            strides[axis] = -step;
            offset += (len - 1) * step as usize;
        }
        step *= len.max(1) as isize;
        step += rng.pick(&[0, 0, 0, 4, 1]);
    }
    Layout::strided(Shape::new(shape).unwrap(), &strides, offset)
}

fn epsilon(compute: DType) -> f64 {
    match compute {
        DType::F32 => f64::from(f32::EPSILON),
        DType::F64 => f64::EPSILON,
        _ => 0.0,
    }
}

/// Numbers of the row's domain that the dtype has; whole ones for integers.
fn draw(rng: &mut Rng, row: &Row, dtype: DType) -> f64 {
    let (lo, hi) = row.domain;
    let x = lo + (hi - lo) * (rng.unit() + 1.0) / 2.0;
    if dtype.is_float() { x } else { x.round() }
}

/// The op and the adjoint of each operand, of operands of one dtype, in all floats and an integer.
fn check_row(gpu: &Gpu, rng: &mut Rng, row: &Row, op: Map, dtype: DType, dims: &[usize]) {
    let mut dtypes = vec![dtype; op.arity()];
    if op == Map::Where {
        dtypes[0] = DType::Bool;
    } else if op == Map::MaskedFill {
        dtypes[1] = DType::Bool;
    }
    let Ok((compute, out)) = op.types(&dtypes) else { return };
    let layout = dense(dims);
    let mut x: Vec<Host> = dtypes.iter().map(|&d| Host::new(d, layout, || draw(rng, row, d))).collect();
    let allowed = if row.ulps == 0.0 { 0.0 } else { (2.0 * row.ulps + 2.0) * epsilon(compute) };
    let exprs = op.exprs();
    check_map(row.name, gpu, &exprs.forward, compute, &x, &Host::poisoned(out, layout), None, allowed);
    if !dtype.is_float() {
        return;
    }
    let mut y = Host::poisoned(dtype, layout);
    cpu::map(&exprs.forward, compute, &x.iter().map(Host::view).collect::<Vec<_>>(), &mut y.view_mut());
    x.push(y);
    x.push(Host::new(dtype, layout, || rng.unit()));
    for adjoint in exprs.adjoint.iter().flatten() {
        let allowed = (8.0 * row.ulps + 64.0) * epsilon(compute);
        check_map(row.name, gpu, adjoint, compute, &x, &Host::poisoned(dtype, layout), None, allowed);
    }
}

#[test]
fn every_row_equals_the_cpus() {
    let Some(gpu) = gpu() else { return };
    let mut rng = Rng(1);
    for row in TABLE {
        let Body::Map(op, _) = row.body else { continue };
        for dtype in [DType::F32, DType::F16, DType::BF16, DType::F64, DType::I64, DType::U8, DType::U64] {
            check_row(&gpu, &mut rng, row, op, dtype, &[37, 29]);
        }
    }
}

#[test]
fn sizes_from_none_to_many_waves() {
    let Some(gpu) = gpu() else { return };
    let mut rng = Rng(2);
    let row = Map::Gelu.row();
    for n in [0, 1, 2, 3, 7, 8, 9, 255, 1023, 1025, 65_537, 3_000_001] {
        for dtype in [DType::F16, DType::F32] {
            check_row(&gpu, &mut rng, row, Map::Gelu, dtype, &[n]);
        }
    }
}

#[test]
fn random_layouts_and_dtypes() {
    let Some(gpu) = gpu() else { return };
    let mut rng = Rng(3);
    let f = Expr::build(3, |x| x[0] * x[1] + x[2]);
    for case in 0..300 {
        let rank = rng.below(if case % 10 == 0 { 9 } else { 5 });
        let lens: &[usize] = if rank > 5 { &[1, 2, 3] } else { &[1, 2, 3, 5, 8, 16, 33] };
        let shape: Vec<usize> = (0..rank).map(|_| rng.pick(lens)).collect();
        let compute = rng.pick(&[DType::I64, DType::F32, DType::F64]);
        // Integers below 8 bits' range and their products are exact in every compute type.
        let dtypes: [DType; 4] = std::array::from_fn(|_| rng.pick(&DType::ALL));
        let x: Vec<Host> = (0..3)
            .map(|i| {
                let layout = random_layout(&mut rng, &shape, true);
                Host::new(dtypes[i], layout, || rng.below(7) as f64)
            })
            .collect();
        let out = Host::poisoned(dtypes[3], random_layout(&mut rng, &shape, false));
        check_map(&format!("case {case}"), &gpu, &f, compute, &x, &out, None, 0.0);
    }
}

#[test]
fn biases_columns_and_scalars() {
    let Some(gpu) = gpu() else { return };
    let mut rng = Rng(4);
    let f = Expr::build(4, |x| (x[0] + x[1]) * x[2] + x[3]);
    for (rows, cols) in [(1000, 128), (3, 4096), (77, 65), (5000, 6), (1, 9)] {
        let shape = Shape::new(&[rows, cols]).unwrap();
        let layouts = [[cols as isize, 1], [0, 1], [1, 0], [0, 0]].map(|s| Layout::strided(shape, &s, 0));
        for dtype in [DType::F32, DType::F16] {
            let x: Vec<Host> = layouts.iter().map(|&l| Host::new(dtype, l, || rng.below(9) as f64)).collect();
            let out = Host::poisoned(dtype, Layout::contiguous(shape));
            check_map("bias", &gpu, &f, DType::F32, &x, &out, None, 0.0);
            check_map("bias in place", &gpu, &f, DType::F32, &x, &out, Some(0), 0.0);
        }
    }
}

#[test]
fn results_may_take_an_operands_memory() {
    let Some(gpu) = gpu() else { return };
    let mut rng = Rng(5);
    let f = Expr::build(2, |x| x[0] * 2.0 + x[1]);
    for case in 0..60 {
        let shape: Vec<usize> = (0..rng.below(4)).map(|_| rng.pick(&[1, 2, 3, 8, 40, 129])).collect();
        let dtype = rng.pick(&[DType::F32, DType::F16, DType::I64, DType::U8]);
        let own = random_layout(&mut rng, &shape, false);
        let other = random_layout(&mut rng, &shape, true);
        let x = [own, other].map(|l| Host::new(dtype, l, || rng.below(9) as f64));
        check_map(&format!("case {case}"), &gpu, &f, dtype.compute(), &x, &x[0], Some(0), 0.0);
    }
}

#[test]
fn large_operands_that_lie_across() {
    let Some(gpu) = gpu() else { return };
    let mut rng = Rng(6);
    let f = Expr::build(2, |x| x[0] - x[1]);
    let across = dense(&[3, 500, 301]).permute(&[0, 2, 1]).unwrap();
    for dtype in [DType::F16, DType::F32, DType::I64] {
        let layouts = [across, dense(&[3, 301, 500])];
        let x = layouts.map(|l| Host::new(dtype, l, || rng.below(99) as f64));
        check_map("across", &gpu, &f, dtype.compute(), &x, &Host::poisoned(dtype, layouts[1]), None, 0.0);
    }
}

#[test]
fn casts_between_all_dtypes() {
    let Some(gpu) = gpu() else { return };
    let special = [
        0.0,
        -0.0,
        1.0,
        -1.0,
        2.5,
        -2.5,
        100.9,
        127.0,
        128.0,
        200.0,
        300.7,
        -300.7,
        65_519.9,
        70_000.0,
        3e9,
        -3e9,
        0.3,
        1e-7,
        1e18,
        9.3e18,
        -9.3e18,
        1e300,
        16_777_217.0,
        1.000_488_281_25,
        1.000_488_281_251,
        f64::INFINITY,
        f64::NEG_INFINITY,
        f64::NAN,
    ];
    let shapes = [dense(&[special.len() * 40]), dense(&[40, special.len()]).permute(&[1, 0]).unwrap()];
    for from in DType::ALL {
        for to in DType::ALL {
            for layout in shapes {
                let mut i = 0;
                let x = Host::new(from, layout, || {
                    i += 1;
                    special[i % special.len()]
                });
                let out = Host::poisoned(to, Layout::contiguous(layout.shape));
                check_copy(&format!("{from} to {to}"), &gpu, &x, &out);
            }
        }
    }
}

fn check_copy(what: &str, gpu: &Gpu, x: &Host, out: &Host) {
    let operands = std::slice::from_ref(x);
    check(
        what,
        gpu,
        operands,
        out,
        None,
        0.0,
        |x, out| copy::copy(gpu, &x[0], out),
        |x, out| cpu::copy::copy(&x[0], out),
    );
}

#[test]
fn copies_of_random_layouts() {
    let Some(gpu) = gpu() else { return };
    let mut rng = Rng(7);
    for case in 0..300 {
        let shape: Vec<usize> = (0..rng.below(6)).map(|_| rng.pick(&[1, 2, 3, 8, 13, 32, 40])).collect();
        let from = rng.pick(&DType::ALL);
        let to = if rng.below(3) == 0 { rng.pick(&DType::ALL) } else { from };
        let x = Host::new(from, random_layout(&mut rng, &shape, true), || rng.below(100) as f64);
        let out = Host::poisoned(to, random_layout(&mut rng, &shape, false));
        check_copy(&format!("case {case}: {:?}", x.layout), &gpu, &x, &out);
    }
    for (rows, cols) in [(8, 8), (37, 65), (200, 129), (8, 1000), (64, 64), (1023, 1025)] {
        for dtype in [DType::U8, DType::F16, DType::F32, DType::F64] {
            let across = dense(&[2, rows, cols]).permute(&[0, 2, 1]).unwrap();
            let x = Host::new(dtype, across, || rng.below(120) as f64);
            check_copy("transpose", &gpu, &x, &Host::poisoned(dtype, dense(&[2, cols, rows])));
        }
    }
}

fn check_op(what: &str, gpu: &Gpu, op: &Op, x: &[Host], out: &Host) {
    check(
        what,
        gpu,
        x,
        out,
        None,
        0.0,
        |x, out| match op {
            Op::Concat { axis } => copy::concat(gpu, *axis, x, out),
            Op::Pad { widths, value } => copy::pad(gpu, widths, *value, &x[0], out),
            other => panic!("{} is not tested here", other.name()),
        },
        |x, out| {
            // SAFETY: the same view, as the only result.
            let whole = unsafe { out.part(out.layout().at_origin()) };
            cpu::execute(op, x, &mut [whole]).unwrap();
        },
    );
}

#[test]
fn tensors_are_joined() {
    let Some(gpu) = gpu() else { return };
    let mut rng = Rng(8);
    for case in 0..80 {
        let mut shape: Vec<usize> = (0..1 + rng.below(3)).map(|_| rng.pick(&[1, 2, 4, 7, 64])).collect();
        let axis = rng.below(shape.len());
        let dtype = rng.pick(&DType::ALL);
        let strided = rng.below(4) == 0;
        let parts = rng.pick(&[1, 2, 3, 5, 16, 17, 40]);
        let mut total = 0;
        let x: Vec<Host> = (0..parts)
            .map(|_| {
                shape[axis] = rng.pick(&[0, 1, 2, 8, 33]);
                total += shape[axis];
                let layout = if strided { random_layout(&mut rng, &shape, true) } else { dense(&shape) };
                Host::new(dtype, layout, || rng.below(100) as f64)
            })
            .collect();
        shape[axis] = total;
        let out = Host::poisoned(dtype, dense(&shape));
        check_op(&format!("case {case}: {parts} along {axis}"), &gpu, &Op::Concat { axis }, &x, &out);
    }
}

#[test]
fn borders_are_put_around() {
    let Some(gpu) = gpu() else { return };
    let mut rng = Rng(9);
    for case in 0..120 {
        let shape: Vec<usize> = (0..rng.below(5)).map(|_| rng.pick(&[0, 1, 2, 8, 8, 16, 31])).collect();
        let widths: Vec<(usize, usize)> =
            shape.iter().map(|_| rng.pick(&[(0, 0), (0, 0), (1, 2), (4, 8), (0, 3)])).collect();
        let dims: Vec<usize> = shape.iter().zip(&widths).map(|(d, (a, b))| d + a + b).collect();
        let dtype = rng.pick(&DType::ALL);
        let x = Host::new(dtype, random_layout(&mut rng, &shape, true), || rng.below(100) as f64);
        let op = Op::Pad { widths, value: rng.pick(&[0.0, 1.0, -2.5]) };
        let out = Host::poisoned(dtype, dense(&dims));
        check_op(&format!("case {case}: {op:?} of {:?}", x.layout), &gpu, &op, &[x], &out);
    }
}

#[test]
fn fills_touch_their_elements_only() {
    let Some(gpu) = gpu() else { return };
    let mut rng = Rng(10);
    for case in 0..120 {
        let shape: Vec<usize> = (0..rng.below(5)).map(|_| rng.pick(&[0, 1, 2, 7, 64])).collect();
        let out = Host::poisoned(rng.pick(&DType::ALL), random_layout(&mut rng, &shape, false));
        let value = rng.pick(&[0.0, 1.0, -3.75, 300.0, f64::NEG_INFINITY]);
        check(
            &format!("case {case}: {value}"),
            &gpu,
            &[],
            &out,
            None,
            0.0,
            |_, out| copy::fill(&gpu, out, value),
            |_, out| cpu::copy::fill(out, value),
        );
    }
}
