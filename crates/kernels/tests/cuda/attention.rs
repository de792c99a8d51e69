//! Attention, rope and convolution against the oracle: on the first GPU, if there is one (`BULLET_TIER` forces its code
//! lower), and on the CPU, so that the operands and tolerances used here are known to be right.

use std::sync::Arc;

use bullet_kernels::cuda::{Gpu, execute};
use bullet_kernels::{View, ViewMut, cpu};
use bullet_ops::reference::{self, Array, cases};
use bullet_ops::table::TABLE;
use bullet_ops::{AttentionSpec, ConvSpec, DType, DropoutSpec, Element, Layout, Meta, Op, RopeSpec};
use bullet_runtime::{Buffer, Device};
use half::{bf16, f16};

use crate::common::Rng;
use crate::gpu;

const FLOATS: [DType; 4] = [DType::F16, DType::BF16, DType::F32, DType::F64];
const POISON: u8 = 0xff;

/// Where ops run.
struct Target {
    device: Device,
    gpu: Option<Arc<Gpu>>,
}

fn targets() -> Vec<Target> {
    let mut targets = vec![Target { device: Device::cpu(), gpu: None }];
    if let Some(gpu) = gpu() {
        let device = Device::parse("cuda:0").expect("it was there");
        targets.push(Target { device, gpu: Some(gpu) });
    }
    targets
}

fn encode(dtype: DType, x: f64) -> Vec<u8> {
    match dtype {
        DType::Bool => vec![u8::from(x != 0.0)],
        DType::F16 => f16::from_f64(x).to_ne_bytes().to_vec(),
        DType::BF16 => bf16::from_f64(x).to_ne_bytes().to_vec(),
        DType::F32 => <f32 as Element>::from_f64(x).to_ne_bytes().to_vec(),
        DType::F64 => x.to_ne_bytes().to_vec(),
        DType::I64 => (x as i64).to_ne_bytes().to_vec(),
        other => unreachable!("no op here takes {other}"),
    }
}

fn decode(dtype: DType, bytes: &[u8]) -> f64 {
    match dtype {
        DType::F16 => f16::from_ne_bytes(bytes.try_into().unwrap()).to_f64(),
        DType::BF16 => bf16::from_ne_bytes(bytes.try_into().unwrap()).to_f64(),
        DType::F32 => f64::from(f32::from_ne_bytes(bytes.try_into().unwrap())),
        DType::F64 => f64::from_ne_bytes(bytes.try_into().unwrap()),
        other => unreachable!("no op here gives {other}"),
    }
}

fn epsilon(dtype: DType) -> f64 {
    match dtype {
        DType::F16 => f16::EPSILON.to_f64(),
        DType::BF16 => bf16::EPSILON.to_f64(),
        DType::F32 => f64::from(f32::EPSILON),
        _ => f64::EPSILON,
    }
}

/// An operand with the layout that it shall have in memory.
struct Operand {
    array: Array,
    layout: Layout,
}

impl Operand {
    fn dense(array: Array) -> Operand {
        let layout = Layout::contiguous(array.shape);
        Operand { array, layout }
    }

    /// Axes of memory in another order, each position `gap` elements longer than it need be, after `offset` elements.
    fn strided(array: Array, order: &[usize], gap: usize, offset: usize) -> Operand {
        let rank = array.shape.rank();
        let mut strides = vec![0isize; rank];
        let mut step = 1;
        for (n, &axis) in order.iter().rev().enumerate() {
            strides[axis] = step as isize;
            step = (step * array.shape[axis] + if n == 0 { gap } else { 0 }).max(1);
        }
        let layout = Layout::strided(array.shape, &strides, offset);
        Operand { array, layout }
    }

    fn place(&self, device: &Device) -> Buffer {
        let (dtype, layout) = (self.array.dtype, &self.layout);
        let size = dtype.size();
        let end = layout.bounds().map_or(1, |(_, hi)| hi + 1);
        // Bytes of a bool are 0 or 1 even where nothing reads them.
        let mut bytes = vec![if dtype == DType::Bool { 1 } else { POISON }; end * size];
        for (index, &x) in reference::indices(&self.array.shape).zip(&self.array.data) {
            let at: isize = index.iter().zip(layout.strides()).map(|(&i, &s)| i as isize * s).sum();
            let at = (layout.offset as isize + at) as usize;
            bytes[at * size..(at + 1) * size].copy_from_slice(&encode(dtype, x));
        }
        let mut buffer = device.alloc(bytes.len()).unwrap();
        buffer.write(0, &bytes).unwrap();
        buffer
    }
}

/// Runs `op` into poisoned results; their bytes.
fn run(target: &Target, op: &Op, x: &[Operand], metas: &[Meta]) -> Vec<Vec<u8>> {
    let base = |buffer: &Buffer| std::ptr::with_exposed_provenance_mut::<u8>(buffer.ptr().0 as usize);
    let buffers: Vec<Buffer> = x.iter().map(|x| x.place(&target.device)).collect();
    let mut results: Vec<Buffer> = metas
        .iter()
        .map(|meta| target.device.alloc((meta.shape.numel() * meta.dtype.size()).max(1)).unwrap())
        .collect();
    for result in &mut results {
        let poison = vec![POISON; result.len()];
        result.write(0, &poison).unwrap();
    }
    // SAFETY: the buffers hold what the layouts reach, and are not used otherwise meanwhile.
    let views: Vec<View<'_>> = x
        .iter()
        .zip(&buffers)
        .map(|(x, buffer)| unsafe { View::new(base(buffer), x.array.dtype, x.layout) })
        .collect();
    // SAFETY: as above.
    let mut out: Vec<ViewMut<'_>> = metas
        .iter()
        .zip(&results)
        .map(|(meta, b)| unsafe { ViewMut::new(base(b), meta.dtype, Layout::contiguous(meta.shape)) })
        .collect();
    match &target.gpu {
        None => cpu::execute(op, &views, &mut out).unwrap(),
        // SAFETY: the buffers live until their results are read, which waits.
        Some(gpu) => execute(gpu, op, &views, &mut out).unwrap(),
    }
    results
        .iter()
        .zip(metas)
        .map(|(result, meta)| {
            let mut bytes = vec![0; meta.shape.numel() * meta.dtype.size()];
            result.read(0, &mut bytes).unwrap();
            bytes
        })
        .collect()
}

/// Compares with the oracle, by the tolerance of the op's row, and with itself, bit by bit.
fn check(targets: &[Target], op: &Op, x: &[Operand]) {
    check_within(targets, op, x, 0.0);
}

/// As [`check`]; allows so many more roundings of the largest result.
fn check_within(targets: &[Target], op: &Op, x: &[Operand], roundings: f64) {
    let arrays: Vec<Array> = x.iter().map(|x| x.array.clone()).collect();
    let metas = op.infer(&arrays.iter().map(Array::meta).collect::<Vec<_>>()).unwrap();
    let want = reference::eval(op, &arrays).unwrap();
    let magnitudes = reference::magnitudes(op, &arrays, &want);
    for (i, x) in x.iter().enumerate() {
        assert!(cpu::takes_strided(op, i, &x.layout), "{op:?} operand {i}: {:?}", x.layout);
    }
    for target in targets {
        let got = run(target, op, x, &metas);
        let layouts: Vec<&Layout> = x.iter().map(|x| &x.layout).collect();
        let what = format!("{} {op:?} {} {layouts:?}", target.device.name(), arrays[0].dtype);
        assert!(got == run(target, op, x, &metas), "{what}: not deterministic");
        for (r, (bytes, want)) in got.iter().zip(&want).enumerate() {
            let (dtype, compute) = (want.dtype, epsilon(want.dtype.compute()));
            for (i, bytes) in bytes.chunks_exact(dtype.size()).enumerate() {
                let (got, want) = (decode(dtype, bytes), want.data[i]);
                let rounded = reference::round(dtype, want);
                if got == rounded || (got.is_nan() && rounded.is_nan()) {
                    continue;
                }
                let rounding = if dtype == dtype.compute() { 0.0 } else { 0.5 * epsilon(dtype) * want.abs() };
                let scale = magnitudes[r].data[i].max(want.abs());
                let allowed = op.row().tolerance(compute, scale) + roundings * compute * scale + rounding;
                assert!(
                    (got - want).abs() <= allowed,
                    "{what}: result {r}, element {i}: {got} instead of {want}, allowed {allowed:e}"
                );
            }
        }
    }
}

fn random(rng: &mut Rng, dims: &[usize], dtype: DType) -> Array {
    let data = (0..dims.iter().product()).map(|_| 2.0 * rng.unit()).collect();
    Array::new(dims, dtype, data).unwrap().rounded()
}

#[test]
fn cases_of_the_table() {
    let targets = targets();
    let names = ["attention", "attention_grad", "attention_packed", "attention_packed_grad", "rope"];
    let convs = ["conv1d", "conv1d_grad_input", "conv1d_grad_weight"];
    for row in TABLE.iter().filter(|row| names.contains(&row.name) || convs.contains(&row.name)) {
        for dtype in FLOATS {
            let rng = &mut Rng(1);
            for case in cases::cases(row, dtype, &mut || 0.5 * (rng.unit() + 1.0)) {
                let x: Vec<Operand> = case.inputs.into_iter().map(Operand::dense).collect();
                check(&targets, &case.op, &x);
            }
        }
    }
}

/// A mask that broadcasts over some of the axes of the scores, hides some keys, and all of the first query's.
fn mask(rng: &mut Rng, scores: [usize; 4], dtype: DType) -> Operand {
    let dims: Vec<usize> = scores.iter().map(|&n| if rng.below(3) == 0 { 1 } else { n }).collect();
    let mut mask = random(rng, &dims, dtype);
    for (i, x) in mask.data.iter_mut().enumerate() {
        let hidden = i < dims[3] || rng.below(4) == 0;
        *x = match dtype {
            DType::Bool => f64::from(!hidden),
            _ if hidden => f64::NEG_INFINITY,
            _ => *x,
        };
    }
    // Stored with keys first, half of the time.
    if rng.below(2) == 0 { Operand::strided(mask, &[3, 0, 1, 2], 0, 3) } else { Operand::dense(mask) }
}

/// One attention with its adjoint, with operands in some layout.
fn attention(targets: &[Target], rng: &mut Rng, dtype: DType, sizes: [usize; 6]) {
    let [b, heads, kv_heads, queries, keys, dim] = sizes;
    let dropout = (rng.below(3) == 0)
        .then(|| DropoutSpec { p: rng.pick(&[0.0, 0.2, 0.9]), stream: rng.below(1000) as u64 });
    let spec = AttentionSpec { causal: rng.below(2) == 0, scale: (dim as f64).powf(-0.5), dropout };
    let tensor = |rng: &mut Rng, heads: usize, seq: usize| {
        let array = random(rng, &[b, heads, seq, dim], dtype);
        // A cache longer than what is in it and an odd start leave rows that no vector load fits.
        match rng.below(3) {
            0 => Operand::dense(array),
            1 => Operand::strided(array, &[0, 2, 1, 3], 0, 0),
            _ => Operand::strided(array, &[0, 1, 2, 3], rng.below(3), 1 + rng.below(8)),
        }
    };
    let mut x = vec![tensor(rng, heads, queries), tensor(rng, kv_heads, keys), tensor(rng, kv_heads, keys)];
    let scores = [b, heads, queries, keys];
    match rng.below(3) {
        0 => {}
        1 => x.push(mask(rng, scores, DType::Bool)),
        _ => x.push(mask(rng, scores, dtype)),
    }
    if dropout.is_some() {
        // With it, masks are contiguous.
        x[3..].iter_mut().for_each(|x| *x = Operand::dense(x.array.clone()));
        let state = vec![rng.below(1 << 20) as f64, rng.below(1 << 20) as f64];
        x.push(Operand::dense(Array::new(&[2], DType::I64, state).unwrap()));
    }
    check(targets, &Op::Attention(spec), &x);
    let arrays: Vec<Array> = x.iter().map(|x| x.array.clone()).collect();
    let y: Vec<Array> =
        reference::eval(&Op::Attention(spec), &arrays).unwrap().iter().map(Array::rounded).collect();
    let g = random(rng, &y[0].shape, dtype);
    let rest = x.split_off(3);
    x.extend(y.into_iter().map(Operand::dense));
    x.push(Operand::dense(g));
    x.extend(rest);
    check(targets, &Op::AttentionGrad(spec), &x);
}

#[test]
fn attention_of_random_sizes() {
    let targets = targets();
    let rng = &mut Rng(2);
    for round in 0..160 {
        let dtype = FLOATS[round % 4];
        let dim = rng.pick(&[1, 3, 8, 16, 17, 32, 33, 64, 72, 100, 128, 130, 256]);
        let (queries, keys) =
            (rng.pick(&[1, 2, 4, 5, 16, 31, 63, 64, 65, 130]), rng.pick(&[1, 2, 15, 33, 64, 65, 100, 129]));
        // The oracle is slow.
        let many = if queries * keys * dim > 200_000 { 1 } else { 2 };
        let kv_heads = rng.pick(&[1, many]);
        let heads = kv_heads * rng.pick(&[1, many]);
        let batch = rng.pick(&[1, many]);
        attention(&targets, rng, dtype, [batch, heads, kv_heads, queries, keys, dim]);
    }
}

#[test]
fn attention_of_the_shapes_that_matter() {
    let targets = targets();
    let rng = &mut Rng(3);
    for dtype in FLOATS {
        for sizes in [
            // The micro-model, the larger model, decoding over few and over many keys.
            [2, 2, 2, 64, 64, 32],
            [1, 1, 1, 256, 256, 64],
            [1, 4, 4, 1, 64, 32],
            [1, 4, 2, 1, 1500, 64],
            [1, 1, 1, 3, 777, 16],
            [1, 2, 1, 2, 700, 256],
        ] {
            attention(&targets, rng, dtype, sizes);
        }
    }
}

#[test]
fn rope_at_large_positions_and_strides() {
    let targets = targets();
    let rng = &mut Rng(4);
    for round in 0..80 {
        let dtype = FLOATS[round % 4];
        let dims = [
            rng.pick(&[1, 3]),
            rng.pick(&[1, 5, 64]),
            rng.pick(&[1, 4, 12]),
            rng.pick(&[2, 6, 32, 34, 64, 300]),
        ];
        let spec = RopeSpec {
            base: rng.pick(&[10_000.0, 500_000.0]),
            offset: if dtype == DType::F64 { rng.below(100) } else { rng.pick(&[0, 77, 1_000_000]) },
            interleaved: rng.below(2) == 0,
            heads: rng.pick(&[0, 1, 3, usize::MAX]),
            inverse: rng.below(2) == 0,
        };
        let x = random(rng, &dims, dtype);
        let x = match rng.below(3) {
            0 => Operand::dense(x),
            1 => Operand::strided(x, &[0, 2, 1, 3], 0, 0),
            _ => Operand::strided(x, &[0, 1, 2, 3], rng.below(3), rng.below(4)),
        };
        // An f64 angle, computed here and in the oracle, is off by some roundings of itself, and both elements of a pair
        // by as much. For other types it is computed in f64, too, where that is nothing.
        let positions = if dtype == DType::F64 { spec.offset + dims[1] } else { 0 };
        check_within(&targets, &Op::Rope(spec), &[x], positions as f64);
    }
}

#[test]
fn convolutions_of_random_sizes() {
    let targets = targets();
    let rng = &mut Rng(5);
    for round in 0..100 {
        let dtype = FLOATS[round % 4];
        let spec = ConvSpec {
            stride: rng.pick(&[1, 1, 2, 3]),
            padding: rng.pick(&[0, 1, 2, 7]),
            dilation: rng.pick(&[1, 1, 2]),
            groups: rng.pick(&[1, 1, 2, 5]),
        };
        let (ci, co, taps) = (rng.pick(&[1, 3, 20]), rng.pick(&[1, 4, 9, 40]), rng.pick(&[1, 2, 3, 5]));
        let length = (taps - 1) * spec.dilation + 1 + rng.pick(&[0, 1, 10, 100]);
        let batch = rng.pick(&[1, 3]);
        let x = random(rng, &[batch, spec.groups * ci, length], dtype);
        let w = random(rng, &[spec.groups * co, ci, taps], dtype);
        let bias = random(rng, &[spec.groups * co], dtype);
        let y = Op::Conv1d(spec).infer(&[x.meta(), w.meta()]).unwrap()[0];
        let g = random(rng, &y.shape, dtype);
        let mut operands = vec![x.clone(), w.clone()];
        if round % 3 == 0 {
            operands.push(bias);
        }
        let run = |op: Op, x: Vec<Array>| {
            check(&targets, &op, &x.into_iter().map(Operand::dense).collect::<Vec<_>>());
        };
        run(Op::Conv1d(spec), operands);
        run(Op::Conv1dGradInput { spec, length }, vec![w, g.clone()]);
        run(Op::Conv1dGradWeight { spec, taps }, vec![x, g]);
    }
}
