//! Matrix products against a naive f64 reference, over shapes, strides, dtypes, epilogues and instruction sets.

use bullet_kernels::cpu::gemm::{Activation, Epilogue, MatLayout, MatMut, MatRef, gemm, gemm_on};
use bullet_kernels::cpu::simd::Isa;
use bullet_ops::{Float, scalar};
use half::{bf16, f16};

mod common;
use common::Rng;

/// A layout for `batch` matrices of these sizes: row- or column-major, with gaps, perhaps with both strides above 1 or
/// negative; and how many elements it needs before and after its first.
fn layout(rng: &mut Rng, batch: usize, rows: usize, cols: usize) -> (MatLayout, usize, usize) {
    let (unit, gap) = (rng.pick(&[1, 1, 1, 2]), rng.pick(&[0, 0, 3]));
    let (mut row, mut col) = if rng.below(2) == 0 {
        ((cols.max(1) * unit + gap) as isize, unit as isize)
    } else {
        (unit as isize, (rows.max(1) * unit + gap) as isize)
    };
    let size = rows.max(1) * row as usize + cols.max(1) * col as usize;
    let mut offset = 0;
    if rng.below(8) == 0 {
        offset += rows.saturating_sub(1) * row as usize;
        row = -row;
    }
    if rng.below(8) == 0 {
        offset += cols.saturating_sub(1) * col as usize;
        col = -col;
    }
    (MatLayout::new(rows, cols, row, col).batched(batch, size as isize), offset, batch.max(1) * size + 1)
}

fn index(l: &MatLayout, offset: usize, b: usize, i: usize, j: usize) -> usize {
    let b = if l.batch == 1 { 0 } else { b };
    (offset as isize + b as isize * l.batch_stride + i as isize * l.row_stride + j as isize * l.col_stride)
        as usize
}

fn activate(activation: Activation, x: f64) -> f64 {
    match activation {
        Activation::Identity => x,
        Activation::Relu => x.max(0.0),
        Activation::Gelu => 0.5 * x * (1.0 + scalar::erf(x / 2f64.sqrt())),
        Activation::GeluTanh => {
            0.5 * x * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x * x * x)).tanh())
        }
        Activation::Silu => x / (1.0 + (-x).exp()),
    }
}

fn random<T: Float>(rng: &mut Rng, n: usize) -> Vec<T> {
    (0..n).map(|_| T::from_f64(rng.unit())).collect()
}

/// One random call of these sizes on `isa`, compared element by element; gaps must keep their poison.
fn check<T: Float>(rng: &mut Rng, isa: Isa, batch: usize, (m, k, n): (usize, usize, usize)) {
    let broadcast = |rng: &mut Rng| if rng.below(3) == 0 { 1 } else { batch };
    let (batch_a, batch_b) = (broadcast(rng), broadcast(rng));
    let (la, oa, na) = layout(rng, batch_a, m, k);
    let (lb, ob, nb) = layout(rng, batch_b, k, n);
    let (lc, oc, nc) = layout(rng, batch, m, n);
    let (lp, op, np) = layout(rng, batch, m, n);
    let (a, b): (Vec<T>, Vec<T>) = (random(rng, na), random(rng, nb));
    let bias: Option<Vec<T>> = (rng.below(2) == 0).then(|| random(rng, n));
    let activation = rng.pick(&[
        Activation::Identity,
        Activation::Identity,
        Activation::Relu,
        Activation::Gelu,
        Activation::GeluTanh,
        Activation::Silu,
    ]);
    let accumulate = rng.below(3) == 0;
    let mut c: Vec<T> = vec![T::from_f64(f64::NAN); nc];
    let mut named = vec![false; nc];
    for (s, i, j) in (0..batch).flat_map(|s| (0..m).flat_map(move |i| (0..n).map(move |j| (s, i, j)))) {
        let at = index(&lc, oc, s, i, j);
        named[at] = true;
        if accumulate {
            c[at] = T::from_f64(rng.unit());
        }
    }
    let before = c.clone();
    let mut pre: Option<Vec<T>> = (rng.below(3) == 0).then(|| vec![T::from_f64(f64::NAN); np]);
    let epilogue = Epilogue {
        accumulate,
        bias: bias.as_deref(),
        activation,
        pre_activation: pre.as_mut().map(|p| MatMut::new(p, op, lp).unwrap()),
    };
    let (va, vb) = (MatRef::new(&a, oa, la).unwrap(), MatRef::new(&b, ob, lb).unwrap());
    gemm_on(isa, va, vb, MatMut::new(&mut c, oc, lc).unwrap(), epilogue).unwrap();
    let eps = [f16::EPSILON.to_f64(), bf16::EPSILON.to_f64(), f32::EPSILON as f64, f64::EPSILON]
        [bullet_ops::DType::FLOATS.iter().position(|&d| d == T::DTYPE).unwrap()];
    let sums = (k as f64).sqrt()
        * if T::DTYPE == bullet_ops::DType::F64 { f64::EPSILON } else { f32::EPSILON as f64 };
    let what = format!("{} {isa:?} batch {batch} m {m} k {k} n {n} {la:?} {lb:?} {lc:?}", T::DTYPE);
    for (s, i, j) in (0..batch).flat_map(|s| (0..m).flat_map(move |i| (0..n).map(move |j| (s, i, j)))) {
        let dot: f64 =
            (0..k).map(|p| a[index(&la, oa, s, i, p)].to_f64() * b[index(&lb, ob, s, p, j)].to_f64()).sum();
        let x = dot + bias.as_ref().map_or(0.0, |b| b[j].to_f64());
        let at = index(&lc, oc, s, i, j);
        let want = activate(activation, x) + if accumulate { before[at].to_f64() } else { 0.0 };
        let tolerance = (1.0 + want.abs()) * (eps + 4.0 * sums + if eps > 1e-10 { 4e-7 } else { 4e-14 });
        let got = c[at].to_f64();
        assert!(
            (got - want).abs() <= tolerance,
            "{what} {activation:?}: C[{s},{i},{j}] is {got}, expected {want}"
        );
        if let Some(pre) = &pre {
            let got = pre[index(&lp, op, s, i, j)].to_f64();
            assert!(
                (got - x).abs() <= (1.0 + x.abs()) * (eps + 4.0 * sums),
                "{what}: pre-activation {got}, expected {x}"
            );
        }
    }
    assert!(c.iter().zip(&named).all(|(x, &named)| named || x.to_f64().is_nan()), "{what}: wrote outside C");
}

fn check_all<T: Float>(seed: u64, rounds: usize) {
    let rng = &mut Rng(seed);
    let sizes = [0, 1, 2, 3, 5, 7, 8, 11, 12, 13, 16, 17, 24, 31, 32, 33, 40, 64, 65];
    for isa in Isa::available() {
        for _ in 0..rounds {
            let shape = (rng.pick(&sizes), rng.pick(&sizes), rng.pick(&sizes));
            let batch = rng.pick(&[0, 1, 1, 1, 2, 3]);
            check::<T>(rng, isa, batch, shape);
        }
        // Several slices of K; several blocks and threads; vectors long enough to be divided.
        for shape in
            [(13, 600, 37), (200, 130, 150), (1, 300, 700), (700, 300, 1), (1, 65, 5000), (5, 257, 33)]
        {
            for _ in 0..3 {
                check::<T>(rng, isa, 1, shape);
            }
        }
        check::<T>(rng, isa, 20, (33, 40, 65));
    }
}

#[test]
fn f32_matches_reference() {
    check_all::<f32>(1, 100);
}

#[test]
fn f64_matches_reference() {
    check_all::<f64>(2, 100);
}

#[test]
fn f16_matches_reference() {
    check_all::<f16>(3, 100);
}

#[test]
fn bf16_matches_reference() {
    check_all::<bf16>(4, 100);
}

#[test]
fn zero_k_gives_bias_or_zeros() {
    let (bias, mut c) = ([1.0f32, -2.0, 3.0], [f32::NAN; 6]);
    let layout = MatLayout::row_major(2, 3);
    for (bias, want) in [(None, [0.0; 6]), (Some(&bias[..]), [1.0, -2.0, 3.0, 1.0, -2.0, 3.0])] {
        let a = MatRef::new(&[], 0, MatLayout::row_major(2, 0)).unwrap();
        let b = MatRef::new(&[], 0, MatLayout::row_major(0, 3)).unwrap();
        let out = MatMut::new(&mut c, 0, layout).unwrap();
        gemm(a, b, out, Epilogue { bias, ..Epilogue::default() }).unwrap();
        assert_eq!(c, want);
    }
}

#[test]
fn bits_repeat() {
    let rng = &mut Rng(9);
    let (a, b): (Vec<f32>, Vec<f32>) = (random(rng, 300 * 400), random(rng, 400 * 500));
    let run = || {
        let mut c = vec![f32::NAN; 300 * 500];
        let a = MatRef::new(&a, 0, MatLayout::row_major(300, 400)).unwrap();
        let b = MatRef::new(&b, 0, MatLayout::row_major(500, 400)).unwrap().t();
        let out = MatMut::new(&mut c, 0, MatLayout::row_major(300, 500)).unwrap();
        gemm(a, b, out, Epilogue::default()).unwrap();
        c.iter().map(|x| x.to_bits()).collect::<Vec<_>>()
    };
    let first = run();
    for _ in 0..5 {
        assert_eq!(run(), first);
    }
}

#[test]
fn wrong_views_and_sizes_are_errors() {
    let (a, mut c) = ([0f32; 6], [0f32; 6]);
    assert!(MatRef::new(&a, 0, MatLayout::row_major(2, 4)).is_err());
    assert!(MatRef::new(&a, 0, MatLayout::new(2, 3, -3, 1)).is_err());
    assert!(MatRef::new(&a, 3, MatLayout::new(2, 3, -3, 1)).is_ok());
    assert!(MatMut::new(&mut c, 0, MatLayout::new(2, 3, 1, 1)).is_err());
    assert!(MatMut::new(&mut c, 0, MatLayout::new(2, 3, 0, 1)).is_err());
    let view = MatRef::new(&a, 0, MatLayout::row_major(2, 3)).unwrap();
    let out = MatMut::new(&mut c, 0, MatLayout::row_major(2, 2)).unwrap();
    let error = gemm(view, view, out, Epilogue::default()).unwrap_err();
    assert!(error.message.contains("(2, 3) and (2, 3)"), "{error}");
    let out = MatMut::new(&mut c, 0, MatLayout::row_major(2, 2)).unwrap();
    let bias = [0f32; 3];
    let epilogue = Epilogue { bias: Some(&bias[..]), ..Epilogue::default() };
    assert!(gemm(view, view.t(), out, epilogue).unwrap_err().message.contains("bias"));
}
