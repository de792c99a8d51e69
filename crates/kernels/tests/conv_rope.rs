//! Convolution and rotary embedding against their definitions, in f64.

use bullet_kernels::cpu::attention::{HeadsLayout, HeadsMut, HeadsRef};
use bullet_kernels::cpu::conv::Conv1d;
use bullet_kernels::cpu::math::Real;
use bullet_kernels::cpu::rope::{Positions, Rope, rope};
use bullet_ops::{ConvSpec, DType, Float};
use half::{bf16, f16};

mod common;
use common::Rng;

fn random<T: Float>(rng: &mut Rng, n: usize) -> Vec<T> {
    (0..n).map(|_| T::from_f64(rng.unit())).collect()
}

fn epsilon<T: Float>() -> f64 {
    match T::DTYPE {
        DType::F16 => 1e-3,
        DType::BF16 => 8e-3,
        DType::F32 => 1e-6,
        _ => 1e-14,
    }
}

fn close<T: Float>(got: &[T], want: &[f64], eps: f64, what: &str) {
    let size = want.iter().fold(1.0, |m: f64, x| m.max(x.abs()));
    for (i, (got, &want)) in got.iter().zip(want).enumerate() {
        let got = got.to_f64();
        assert!((got - want).abs() <= eps * size, "{what}: element {i} is {got}, expected {want}");
    }
}

fn conv_case<T: Float<Compute: Real>>(rng: &mut Rng) {
    let groups = rng.pick(&[1, 1, 2, 3]);
    let (n, ci, co) = (rng.pick(&[0, 1, 3]), groups * rng.pick(&[1, 2, 9]), groups * rng.pick(&[1, 3, 10]));
    let (taps, stride, dilation, padding): (usize, usize, usize, usize) =
        (rng.pick(&[1, 2, 3, 5]), rng.pick(&[1, 1, 2, 3]), rng.pick(&[1, 1, 2]), rng.pick(&[0, 1, 2, 9]));
    let window = (taps - 1) * dilation + 1;
    let length = window.saturating_sub(2 * padding).max(1) + rng.below(40);
    let spec = ConvSpec { stride, padding, dilation, groups };
    let conv = Conv1d::new([n, ci, length], [co, ci / groups, taps], spec).unwrap();
    let lo = conv.out_length();
    let (gi, go) = (ci / groups, co / groups);
    let what = format!("{} n {n} ci {ci} co {co} length {length} taps {taps} {spec:?}", T::DTYPE);
    let (x, w): (Vec<T>, Vec<T>) = (random(rng, n * ci * length), random(rng, co * gi * taps));
    let (bias, g): (Vec<T>, Vec<T>) = (random(rng, co), random(rng, n * co * lo));
    let with_bias = rng.below(2) == 0;
    let (mut y, mut dx, mut dw) = (vec![0.0; g.len()], vec![0.0; x.len()], vec![0.0; w.len()]);
    for (i, y) in y.iter_mut().enumerate() {
        let (s, c, o) = (i / (co * lo), i / lo % co, i % lo);
        if with_bias {
            *y = bias[c].to_f64();
        }
        for (j, t) in (0..gi).flat_map(|j| (0..taps).map(move |t| (j, t))) {
            let Some(at) = (o * stride + t * dilation).checked_sub(padding).filter(|&at| at < length) else {
                continue;
            };
            let (xi, wi) = ((s * ci + c / go * gi + j) * length + at, (c * gi + j) * taps + t);
            *y += x[xi].to_f64() * w[wi].to_f64();
            dx[xi] += g[i].to_f64() * w[wi].to_f64();
            dw[wi] += g[i].to_f64() * x[xi].to_f64();
        }
    }
    let nan = T::from_f64(f64::NAN);
    let eps = 8.0 * epsilon::<T>();
    let (mut got_y, mut got_x, mut got_w) = (vec![nan; y.len()], vec![nan; x.len()], vec![nan; w.len()]);
    conv.forward(&x, &w, with_bias.then_some(&bias[..]), &mut got_y).unwrap();
    conv.grad_input(&w, &g, &mut got_x).unwrap();
    conv.grad_weight(&x, &g, &mut got_w).unwrap();
    close(&got_y, &y, eps, &what);
    close(&got_x, &dx, eps, &format!("dx {what}"));
    close(&got_w, &dw, eps, &format!("dw {what}"));
}

#[test]
fn conv1d_matches_definition() {
    let rng = &mut Rng(1);
    for _ in 0..150 {
        conv_case::<f32>(rng);
        conv_case::<f64>(rng);
    }
    for _ in 0..40 {
        conv_case::<f16>(rng);
        conv_case::<bf16>(rng);
    }
}

#[test]
fn conv1d_refuses_what_makes_no_sense() {
    let spec = ConvSpec { stride: 1, padding: 0, dilation: 1, groups: 1 };
    let new = |input, weight, spec| Conv1d::new(input, weight, spec).map(|_| ()).unwrap_err().message;
    assert!(new([1, 2, 5], [4, 2, 6], spec).contains("span 6"));
    assert!(new([1, 2, 5], [4, 3, 2], spec).contains("groups"));
    assert!(new([1, 2, 5], [4, 2, 2], ConvSpec { stride: 0, ..spec }).contains("at least 1"));
    let conv = Conv1d::new([1, 2, 5], [4, 2, 2], spec).unwrap();
    let error = conv.forward(&[0f32; 9], &[0.0; 16], None, &mut [0.0; 16]).unwrap_err();
    assert!(error.message.contains("input of 9 elements, expected 10"), "{error}");
}

fn rope_case<T: Float<Compute: Real>>(rng: &mut Rng) {
    let (b, h, s, d) =
        (rng.pick(&[0, 1, 3]), rng.pick(&[1, 4]), rng.pick(&[1, 7, 40]), 2 * rng.pick(&[1, 4, 8, 17]));
    let (interleaved, inverse) = (rng.below(2) == 0, rng.below(2) == 0);
    let first = rng.pick(&[0, 5, 1000]);
    let each: Vec<i64> = (0..b * s).map(|_| rng.pick(&[0, 3, -4, 77, 3_000_000])).collect();
    let explicit = rng.below(2) == 0;
    let positions = if explicit { Positions::Each(&each) } else { Positions::From(first) };
    let spec = Rope { base: 10000.0, interleaved, inverse, heads: rng.below(h + 1), positions };
    let what = format!("{} b {b} h {h} s {s} d {d} {spec:?}", T::DTYPE);
    let (from, to) = (HeadsLayout::by_position(b, h, s, d), HeadsLayout::by_head(b, h, s, d));
    let x: Vec<T> = random(rng, b * h * s * d);
    let mut want = vec![0.0; x.len()];
    for (b, h, i) in (0..b).flat_map(|b| (0..h).flat_map(move |h| (0..s).map(move |i| (b, h, i)))) {
        let position = if explicit { each[b * s + i] } else { (first + i) as i64 } as f64;
        let x = &x[(b * s * from.heads + i * from.heads + h) * d..][..d];
        let y = &mut want[((b * from.heads + h) * s + i) * d..][..d];
        for p in 0..d / 2 {
            let (l, r) = if interleaved { (2 * p, 2 * p + 1) } else { (p, p + d / 2) };
            let angle = position / 10000f64.powf(2.0 * p as f64 / d as f64);
            let angle = if h >= spec.heads { 0.0 } else { angle };
            let (sin, cos) = if inverse { (-angle).sin_cos() } else { angle.sin_cos() };
            y[l] = x[l].to_f64() * cos - x[r].to_f64() * sin;
            y[r] = x[l].to_f64() * sin + x[r].to_f64() * cos;
        }
    }
    let mut y = vec![T::from_f64(f64::NAN); x.len()];
    rope(HeadsRef::new(&x, 0, from).unwrap(), &spec, HeadsMut::new(&mut y, 0, to).unwrap()).unwrap();
    // Angles of millions of radians are themselves rounded in f64.
    close(&y, &want, epsilon::<T>().max(2e-9), &what);
    let mut back = vec![T::from_f64(f64::NAN); x.len()];
    let spec = Rope { inverse: !inverse, ..spec };
    rope(HeadsRef::new(&y, 0, to).unwrap(), &spec, HeadsMut::new(&mut back, 0, from).unwrap()).unwrap();
    let x: Vec<f64> = x.iter().map(|x| x.to_f64()).collect();
    close(&back, &x, 3.0 * epsilon::<T>(), &format!("inverse {what}"));
}

#[test]
fn rope_matches_definition_and_inverts() {
    let rng = &mut Rng(2);
    for _ in 0..60 {
        rope_case::<f32>(rng);
        rope_case::<f64>(rng);
        rope_case::<f16>(rng);
        rope_case::<bf16>(rng);
    }
}

#[test]
fn rope_refuses_odd_heads_and_wrong_positions() {
    let (x, mut y) = ([0f32; 12], [0f32; 12]);
    let spec =
        Rope { base: 10000.0, interleaved: false, inverse: false, heads: 9, positions: Positions::From(0) };
    let odd = HeadsLayout::by_head(1, 1, 4, 3);
    let out = HeadsMut::new(&mut y, 0, odd).unwrap();
    assert!(rope(HeadsRef::new(&x, 0, odd).unwrap(), &spec, out).unwrap_err().message.contains("even"));
    let even = HeadsLayout::by_head(1, 1, 3, 4);
    let spec = Rope { positions: Positions::Each(&[1, 2]), ..spec };
    let out = HeadsMut::new(&mut y, 0, even).unwrap();
    assert!(rope(HeadsRef::new(&x, 0, even).unwrap(), &spec, out).unwrap_err().message.contains("positions"));
}
