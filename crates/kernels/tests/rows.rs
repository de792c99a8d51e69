//! Row kernels, indexing, cross-entropy, optimizers and random numbers against naive f64 references.

use bullet_kernels::cpu::convert::Storage;
use bullet_kernels::cpu::cross_entropy::{self, Spec};
use bullet_kernels::cpu::optim::{self, Adam, Scalars, Sgd};
use bullet_kernels::cpu::random::{self, Counter, Distribution};
use bullet_kernels::cpu::simd::Isa;
use bullet_kernels::cpu::softmax::{self, Kind};
use bullet_kernels::cpu::{index, norm};
use bullet_kernels::{View, ViewMut};
use bullet_ops::{DType, Element, Layout, Shape};
use half::{bf16, f16};

fn noise(seed: u64, n: usize) -> Vec<f64> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 11) as f64 / (1u64 << 52) as f64 - 1.0
    };
    (0..n).map(|_| next()).collect()
}

fn draw<T: Element>(seed: u64, n: usize, scale: f64) -> Vec<T> {
    noise(seed, n).iter().map(|v| T::from_f64(v * scale)).collect()
}

fn wide<T: Element>(x: &[T]) -> Vec<f64> {
    x.iter().map(|x| x.to_f64()).collect()
}

/// Epsilon of the dtype, and of what it is computed in.
fn epsilon<T: Element>() -> f64 {
    match T::DTYPE {
        DType::F16 => 2f64.powi(-11) + 4e-7,
        DType::BF16 => 2f64.powi(-8) + 4e-7,
        DType::F64 => 1e-15,
        _ => 4e-7,
    }
}

#[track_caller]
fn close<T: Element>(got: &[T], want: &[f64], tolerance: f64, what: &str) {
    assert_eq!(got.len(), want.len());
    for (i, (g, w)) in got.iter().zip(want).enumerate() {
        let off = (g.to_f64() - w).abs();
        assert!(off <= tolerance * w.abs().max(1.0), "{what} [{i}] in {}: {g:?}, not {w}", T::DTYPE);
    }
}

macro_rules! every_float {
    ($f:ident) => {
        for isa in Isa::available() {
            $f::<f32>(isa);
            $f::<f64>(isa);
            $f::<f16>(isa);
            $f::<bf16>(isa);
        }
    };
}

const SIZES: [(usize, usize); 7] = [(0, 5), (1, 1), (3, 7), (5, 64), (2, 515), (40, 33), (65, 300)];
const POISON: f64 = f64::NAN;

#[test]
fn softmaxes() {
    fn check<T: Storage>(isa: Isa) {
        for (rows, n) in SIZES {
            let (x, g) = (draw::<T>(1, rows * n, 8.0), draw::<T>(2, rows * n, 1.0));
            for kind in [Kind::Softmax, Kind::LogSoftmax] {
                let mut y = vec![T::from_f64(POISON); rows * n];
                softmax::forward_on(isa, kind, &x, n, &mut y);
                let (mut want, mut want_dx) = (Vec::new(), Vec::new());
                for r in 0..rows {
                    let row = wide(&x[r * n..][..n]);
                    let max = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                    let sum: f64 = row.iter().map(|v| (v - max).exp()).sum();
                    let log = |v: &f64| v - max - sum.ln();
                    let (y, g) = (wide(&y[r * n..][..n]), wide(&g[r * n..][..n]));
                    match kind {
                        Kind::Softmax => {
                            want.extend(row.iter().map(|v| log(v).exp()));
                            let s: f64 = y.iter().zip(&g).map(|(y, g)| y * g).sum();
                            want_dx.extend(y.iter().zip(&g).map(|(y, g)| y * (g - s)));
                        }
                        Kind::LogSoftmax => {
                            want.extend(row.iter().map(log));
                            let s: f64 = g.iter().sum();
                            want_dx.extend(y.iter().zip(&g).map(|(y, g)| g - y.exp() * s));
                        }
                    }
                }
                close(&y, &want, 2.0 * epsilon::<T>(), "softmax");
                let mut dx = vec![T::from_f64(POISON); rows * n];
                softmax::backward_on(isa, kind, &y, &g, n, &mut dx);
                close(&dx, &want_dx, 8.0 * epsilon::<T>(), "softmax gradient");
            }
        }
    }
    every_float!(check);
    let mut y = [0f32; 3];
    softmax::forward(Kind::Softmax, &[f32::NEG_INFINITY; 3], 3, &mut y);
    assert!(y.iter().all(|v| v.is_nan()));
    softmax::forward(Kind::Softmax, &[f32::NEG_INFINITY, 0.0, 0.0], 3, &mut y);
    assert_eq!(y, [0.0, 0.5, 0.5]);
    softmax::forward::<f32>(Kind::Softmax, &[], 0, &mut []);
}

#[test]
fn norms() {
    fn check<T: Storage>(isa: Isa) {
        for (rows, n) in SIZES {
            for (layer, weighted) in [(true, true), (true, false), (false, true), (false, false)] {
                one::<T>(isa, rows, n, layer, weighted);
            }
        }
    }
    fn one<T: Storage>(isa: Isa, rows: usize, n: usize, layer: bool, weighted: bool) {
        let eps = 1e-5;
        let x: Vec<T> = noise(1, rows * n).iter().map(|v| T::from_f64(v * 3.0 + 1.0)).collect();
        let (g, w, b) = (draw::<T>(2, rows * n, 1.0), draw::<T>(3, n, 1.5), draw::<T>(4, n, 1.0));
        let (w, b) = (weighted.then_some(&w[..]), (weighted && layer).then_some(&b[..]));
        let poison = || vec![T::Compute::from_f64(POISON); rows];
        let (mut mean, mut rstd) = (poison(), poison());
        let mut y = vec![T::from_f64(POISON); rows * n];
        let (mut dx, mut dw, mut db) =
            (y.clone(), vec![T::from_f64(POISON); n], vec![T::from_f64(POISON); n]);
        if layer {
            norm::layer_norm_on(isa, &x, n, w, b, eps, &mut y, &mut mean, &mut rstd);
            norm::layer_norm_grad_on(isa, &x, n, &mean, &rstd, &g, w, &mut dx, Some(&mut dw), Some(&mut db));
        } else {
            norm::rms_norm_on(isa, &x, n, w, eps, &mut y, &mut rstd);
            norm::rms_norm_grad_on(isa, &x, n, &rstd, &g, w, &mut dx, Some(&mut dw));
        }
        let (mut want, mut want_dx) = (Vec::new(), Vec::new());
        let (mut want_dw, mut want_db) = (vec![0.0; n], vec![0.0; n]);
        let count = n as f64;
        for r in 0..rows {
            let (x, g) = (wide(&x[r * n..][..n]), wide(&g[r * n..][..n]));
            let m = if layer { x.iter().sum::<f64>() / count } else { 0.0 };
            let var = x.iter().map(|x| (x - m) * (x - m)).sum::<f64>() / count;
            let s = 1.0 / (var + eps).sqrt();
            let hat: Vec<f64> = x.iter().map(|x| (x - m) * s).collect();
            let weight = |i: usize| w.map_or(1.0, |w| w[i].to_f64());
            let gw: Vec<f64> = (0..n).map(|i| g[i] * weight(i)).collect();
            let shift = if layer { gw.iter().sum::<f64>() / count } else { 0.0 };
            let along = gw.iter().zip(&hat).map(|(a, b)| a * b).sum::<f64>() / count;
            for i in 0..n {
                want.push(hat[i] * weight(i) + b.map_or(0.0, |b| b[i].to_f64()));
                // A single element has no spread: its gradient is that of rounding errors times a huge rstd.
                want_dx.push(s * (gw[i] - shift - hat[i] * along));
                want_dw[i] += g[i] * hat[i];
                want_db[i] += g[i];
            }
        }
        let tolerance = 20.0 * epsilon::<T>();
        close(&y, &want, tolerance, "norm");
        close(&dx, &want_dx, tolerance * if n == 1 { 1e3 } else { 4.0 }, "norm gradient");
        close(&dw, &want_dw, tolerance * 4.0, "weight gradient");
        if layer {
            close(&db, &want_db, tolerance * 4.0, "bias gradient");
        }
    }
    every_float!(check);
}

#[test]
fn cross_entropies() {
    fn check<T: Storage>(isa: Isa) {
        for (rows, c) in [(1, 1), (7, 5), (30, 700), (65, 33)] {
            for label_smoothing in [0.0, 0.1] {
                let spec = Spec { ignore_index: -100, label_smoothing };
                let x = draw::<T>(rows as u64, rows * c, 6.0);
                let targets: Vec<i64> =
                    (0..rows).map(|r| if r % 5 == 4 { -100 } else { (r * 31 % c) as i64 }).collect();
                let mut lse = vec![T::Compute::from_f64(POISON); rows];
                let got = cross_entropy::forward_on(isa, spec, &x, c, &targets, &mut lse).unwrap();
                let count = targets.iter().filter(|&&t| t >= 0).count();
                assert_eq!(got.count, count);
                let (mut loss, mut want) = (0.0, Vec::new());
                for r in 0..rows {
                    let row = wide(&x[r * c..][..c]);
                    let max = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                    let l = max + row.iter().map(|v| (v - max).exp()).sum::<f64>().ln();
                    for (j, v) in row.iter().enumerate() {
                        let hit = f64::from(targets[r] == j as i64);
                        let q = (1.0 - label_smoothing) * hit + label_smoothing / c as f64;
                        if targets[r] < 0 {
                            want.push(0.0);
                        } else {
                            loss += q * (l - v);
                            want.push(((v - l).exp() - q) * 3.0 / count as f64);
                        }
                    }
                }
                close(&[got.loss], &[loss / count as f64], 2e-6, "loss");
                let mut dx = vec![T::from_f64(POISON); rows * c];
                cross_entropy::backward_on(isa, spec, &x, c, &targets, &lse, count, 3.0, &mut dx).unwrap();
                close(&dx, &want, 8.0 * epsilon::<T>(), "logit gradient");
            }
        }
    }
    every_float!(check);
    let spec = Spec { ignore_index: -1, label_smoothing: 0.0 };
    let none = cross_entropy::forward(spec, &[1f32, 2.0], 2, &[-1], &mut [0.0]).unwrap();
    assert!(none.loss.is_nan() && none.count == 0);
    let error = cross_entropy::forward(spec, &[1f32, 2.0], 2, &[2], &mut [0.0]).unwrap_err();
    assert_eq!(error.message, "target 2 is out of bounds for 2 classes (ignore_index is -1)");
}

#[test]
fn embeddings_and_their_gradient() {
    fn check<T: Storage>(_: Isa) {
        let (rows, n) = (50, 33);
        let table = draw::<T>(1, rows * n, 1.0);
        let indices: Vec<i64> = (0..400).map(|k| k * k * 7 % 50 - if k % 3 == 0 { 50 } else { 0 }).collect();
        let at = |k: usize| indices[k].rem_euclid(50) as usize;
        let mut y = vec![T::from_f64(POISON); indices.len() * n];
        index::embedding(&table, rows, n, &indices, &mut y).unwrap();
        assert!((0..400).all(|k| y[k * n..][..n] == table[at(k) * n..][..n]));
        let g = draw::<T>(2, indices.len() * n, 1.0);
        let mut want = vec![0.0; rows * n];
        (0..400 * n).for_each(|i| want[at(i / n) * n + i % n] += g[i].to_f64());
        let mut got = vec![T::from_f64(POISON); rows * n];
        index::embedding_grad(&indices, &g, rows, n, &mut got).unwrap();
        close(&got, &want, 8.0 * epsilon::<T>(), "embedding gradient");
    }
    every_float!(check);
    let error = index::embedding(&[0u8; 5], 5, 1, &[0, 7], &mut [9, 9]).unwrap_err();
    assert_eq!(error.message, "index 7 is out of bounds for axis 0 with size 5");
    assert!(index::embedding(&[0u8; 5], 5, 1, &[-6], &mut [9]).is_err());
}

#[test]
fn gather_and_scatter_along_every_axis() {
    let dims = [4, 5, 6];
    let shape = Shape::new(&dims).unwrap();
    let x: Vec<f32> = draw(1, shape.numel(), 1.0);
    for axis in 0..3 {
        for lens in [[4, 5, 6], [2, 5, 3], [3, 1, 6], [0, 2, 2]] {
            let mut lens = lens;
            lens[axis] = 9;
            let index_shape = Shape::new(&lens).unwrap();
            let n = index_shape.numel();
            let len = dims[axis] as i64;
            let picks: Vec<i64> =
                (0..n as i64).map(|k| k * 13 % len - if k % 2 == 0 { len } else { 0 }).collect();
            let place = |k: usize| {
                let mut i = [k / (lens[1] * lens[2]), k / lens[2] % lens[1], k % lens[2]];
                i[axis] = picks[k].rem_euclid(len) as usize;
                (i[0] * dims[1] + i[1]) * dims[2] + i[2]
            };
            let mut y = vec![f32::NAN; n];
            index::gather(&x, shape, &picks, index_shape, axis, &mut y).unwrap();
            assert!((0..n).all(|k| y[k] == x[place(k)]));
            fn add<A: index::Addend>(
                x: &[f32],
                shape: Shape,
                i: &[i64],
                s: Shape,
                axis: usize,
                at: impl Fn(usize) -> usize,
            ) {
                let x: Vec<A> = x.iter().map(|&x| A::from_f64(f64::from(x) * 8.0)).collect();
                let source: Vec<A> = draw(3, i.len(), 4.0);
                let mut want = wide(&x);
                (0..i.len()).for_each(|k| want[at(k)] += source[k].to_f64());
                let mut y = vec![A::default(); x.len()];
                index::scatter_add(&x, shape, i, s, axis, &source, &mut y).unwrap();
                close(&y, &want, 4.0 * epsilon::<A>(), "scatter_add");
            }
            add::<f32>(&x, shape, &picks, index_shape, axis, place);
            add::<f16>(&x, shape, &picks, index_shape, axis, place);
            add::<i32>(&x, shape, &picks, index_shape, axis, place);
        }
    }
    let long = Shape::new(&[4, 5, 7]).unwrap();
    assert!(index::gather(&x, shape, &[0; 140], long, 1, &mut [0.0; 140]).is_err());
}

#[test]
fn index_select_and_add() {
    for (outer, len, inner) in [(1, 7, 1), (3, 5, 4), (2, 1, 9), (4, 6, 0)] {
        let x: Vec<f64> = draw(1, outer * len * inner, 1.0);
        let picks: Vec<i64> =
            (0..11).map(|k| k * 3 % len as i64 - if k % 2 == 0 { len as i64 } else { 0 }).collect();
        let at = |k: usize| picks[k].rem_euclid(len as i64) as usize;
        let mut y = vec![f64::NAN; outer * 11 * inner];
        index::index_select(&x, outer, len, inner, 1, &picks, &mut y).unwrap();
        let s: Vec<f64> = draw(2, y.len(), 1.0);
        let mut want = x.clone();
        for o in 0..outer {
            for k in 0..11 {
                for i in 0..inner {
                    let (from, to) = ((o * 11 + k) * inner + i, (o * len + at(k)) * inner + i);
                    assert_eq!(y[from], x[to]);
                    want[to] += s[from];
                }
            }
        }
        let mut got = vec![f64::NAN; x.len()];
        index::index_add(&x, outer, len, inner, 1, &picks, &s, &mut got).unwrap();
        close(&got, &want, 1e-14, "index_add");
    }
}

fn flat(n: usize) -> Layout {
    Layout::contiguous(Shape::new(&[n]).unwrap())
}

#[test]
fn adam_follows_pytorch() {
    fn check<P: Storage, G: Element>(isa: Isa, decoupled: bool) {
        let sizes = [1usize, 1030, 0, 7];
        let hyper = Adam { beta1: 0.9, beta2: 0.99, eps: 1e-6, weight_decay: 0.1, decoupled };
        let mut p: Vec<Vec<P>> = sizes.iter().map(|&n| draw(n as u64, n, 1.0)).collect();
        let zeros = || sizes.iter().map(|&n| vec![P::Compute::from_f64(0.0); n]).collect::<Vec<_>>();
        let (mut m, mut v) = (zeros(), zeros());
        let mut want: Vec<Vec<[f64; 3]>> =
            p.iter().map(|p| p.iter().map(|p| [p.to_f64(), 0.0, 0.0]).collect()).collect();
        for step in 1..=3 {
            let s = Scalars { step, lr: 0.02, grad_scale: 0.5 };
            let g: Vec<Vec<G>> = sizes.iter().map(|&n| draw(100 * step as u64 + n as u64, n, 2.0)).collect();
            let grads: Vec<View<'_>> = g.iter().map(|g| View::of(g, flat(g.len()))).collect();
            fn muts<T: Element>(x: &mut [T]) -> ViewMut<'_> {
                let n = x.len();
                ViewMut::of(x, flat(n))
            }
            let mut params: Vec<ViewMut<'_>> = p.iter_mut().map(|p| muts(p)).collect();
            let mut moments: Vec<ViewMut<'_>> =
                m.iter_mut().zip(&mut v).flat_map(|(m, v)| [muts(m), muts(v)]).collect();
            optim::adam_on(isa, &mut params, &grads, &mut moments, &hyper, s);
            for (t, want) in want.iter_mut().enumerate() {
                for (i, [w, m, v]) in want.iter_mut().enumerate() {
                    let mut grad = g[t][i].to_f64() * s.grad_scale;
                    if decoupled {
                        *w *= 1.0 - s.lr * hyper.weight_decay;
                    } else {
                        grad += hyper.weight_decay * *w;
                    }
                    *m = hyper.beta1 * *m + (1.0 - hyper.beta1) * grad;
                    *v = hyper.beta2 * *v + (1.0 - hyper.beta2) * grad * grad;
                    let root = (*v / (1.0 - hyper.beta2.powf(step as f64))).sqrt() + hyper.eps;
                    *w -= s.lr * (*m / (1.0 - hyper.beta1.powf(step as f64))) / root;
                }
            }
        }
        for (p, want) in p.iter().zip(&want) {
            let want: Vec<f64> = want.iter().map(|w| w[0]).collect();
            // Three roundings of a stored half, and what they do to coupled decay.
            close(p, &want, 8.0 * epsilon::<P>(), "adam");
        }
    }
    for isa in Isa::available() {
        for decoupled in [true, false] {
            check::<f32, f32>(isa, decoupled);
            check::<f32, f16>(isa, decoupled);
            check::<f32, bf16>(isa, decoupled);
            check::<f32, f64>(isa, decoupled);
            check::<f64, f64>(isa, decoupled);
            check::<f16, f16>(isa, decoupled);
        }
    }
}

#[test]
fn sgd_follows_pytorch() {
    for isa in Isa::available() {
        for (momentum, nesterov) in [(0.0, false), (0.9, false), (0.9, true)] {
            let n = 1500;
            let hyper = Sgd { momentum, nesterov, weight_decay: 0.01 };
            let mut p: Vec<f32> = draw(1, n, 1.0);
            let mut velocity = vec![0f32; n];
            let mut want: Vec<[f64; 2]> = p.iter().map(|&p| [f64::from(p), 0.0]).collect();
            for step in 1..=3 {
                let g: Vec<f32> = draw(step as u64, n, 1.0);
                let s = Scalars { step, lr: 0.1, grad_scale: 2.0 };
                let mut moments =
                    if momentum == 0.0 { Vec::new() } else { vec![ViewMut::of(&mut velocity, flat(n))] };
                let params = &mut [ViewMut::of(&mut p, flat(n))];
                optim::sgd_on(isa, params, &[View::of(&g, flat(n))], &mut moments, &hyper, s);
                for ([w, v], g) in want.iter_mut().zip(&g) {
                    let grad = f64::from(*g) * 2.0 + 0.01 * *w;
                    *v = momentum * *v + grad;
                    *w -= 0.1 * if nesterov { grad + momentum * *v } else { *v };
                }
            }
            let want: Vec<f64> = want.iter().map(|w| w[0]).collect();
            close(&p, &want, 1e-6, "sgd");
        }
    }
}

#[test]
fn gradient_norms_and_overflow() {
    let (a, b): (Vec<f32>, Vec<f16>) = (draw(1, 40_000, 1.0), draw(2, 77, 1.0));
    let want: f64 = wide(&a).iter().chain(&wide(&b)).map(|x| x * x).sum();
    let norm =
        |a: &[f32], isa| optim::sum_of_squares_on(isa, &[View::of(a, flat(a.len())), View::of(&b, flat(77))]);
    for isa in Isa::available() {
        let (sum, finite) = norm(&a, isa);
        assert!(finite && (sum / want - 1.0).abs() < 1e-6);
        for bad in [f32::INFINITY, f32::NEG_INFINITY, f32::NAN] {
            let mut a = a.clone();
            a[39_999] = bad;
            assert!(!norm(&a, isa).1);
        }
        // Squares beyond f32's range, either way, are no overflow.
        let (sum, finite) = norm(&[1e30, -1e30], isa);
        assert!(finite && (sum / 2e60 - 1.0).abs() < 1e-6);
        let tiny = optim::sum_of_squares_on(isa, &[View::of(&[1e-30f32], flat(1))]);
        assert!((tiny.0 / 1e-60 - 1.0).abs() < 1e-6);
    }
}

#[test]
fn philox_known_answers() {
    // From the kat_vectors of the authors' Random123 distribution.
    assert_eq!(random::philox([0; 4], [0; 2]), [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
    assert_eq!(
        random::philox([u32::MAX; 4], [u32::MAX; 2]),
        [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]
    );
    let pi = [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344];
    let answer = [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1];
    assert_eq!(random::philox(pi, [0xa409_3822, 0x299f_31d0]), answer);
}

#[test]
fn dropout_keeps_its_share_and_repeats() {
    fn check<T: Storage>(isa: Isa) {
        let n = 100_003;
        let counter = Counter { seed: 42, stream: 3, step: 9 };
        let x = vec![T::from_f64(1.0); n];
        let run = |p: f64, counter: Counter, n: usize| {
            let mut y = vec![T::from_f64(POISON); n];
            random::dropout_on(isa, &x[..n], p, counter, &mut y);
            wide(&y)
        };
        let y = run(0.25, counter, n);
        let kept = y.iter().filter(|&&v| v != 0.0).count() as f64 / n as f64;
        assert!((kept - 0.75).abs() < 0.006, "{kept}");
        let scale = T::from_f64(1.0 / 0.75).to_f64();
        assert!(y.iter().all(|&v| v == 0.0 || (v - scale).abs() < 1e-6));
        assert_eq!(y, run(0.25, counter, n));
        // A prefix sees the same numbers: they do not depend on how the work is cut.
        assert_eq!(y[..999], run(0.25, counter, 999));
        for other in [
            Counter { seed: 43, ..counter },
            Counter { stream: 4, ..counter },
            Counter { step: 10, ..counter },
        ] {
            assert_ne!(y, run(0.25, other, n));
        }
        assert!(run(0.0, counter, 100).iter().all(|&v| v == 1.0));
        assert!(run(1.0, counter, 100).iter().all(|&v| v == 0.0));
    }
    every_float!(check);
}

#[test]
fn fills_have_their_moments() {
    let counter = Counter { seed: 1, stream: 0, step: 0 };
    let n = 200_001;
    let mut y = vec![f32::NAN; n];
    random::fill(Distribution::Normal { mean: 2.0, std: 3.0 }, counter, &mut y);
    let mean = wide(&y).iter().sum::<f64>() / n as f64;
    let moment = |k: i32| wide(&y).iter().map(|v| ((v - mean) / 3.0).powi(k)).sum::<f64>() / n as f64;
    assert!((mean - 2.0).abs() < 0.03 && (moment(2) - 1.0).abs() < 0.02, "{mean} {}", moment(2));
    assert!(moment(3).abs() < 0.05 && (moment(4) - 3.0).abs() < 0.1, "{} {}", moment(3), moment(4));
    random::fill(Distribution::Uniform { low: -1.0, high: 2.0 }, counter, &mut y);
    assert!(y.iter().all(|v| (-1.0..2.0).contains(v)));
    let mean = wide(&y).iter().sum::<f64>() / n as f64;
    assert!((mean - 0.5).abs() < 0.01);
    // Neighbours are uncorrelated.
    let lag = y.windows(2).map(|w| (f64::from(w[0]) - 0.5) * (f64::from(w[1]) - 0.5)).sum::<f64>() / n as f64;
    assert!(lag.abs() < 0.01, "{lag}");
}
