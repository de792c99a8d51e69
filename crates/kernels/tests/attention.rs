//! Attention against a naive f64 reference, and its gradients against finite differences of that.

use bullet_kernels::cpu::attention::{
    Attention, HeadsLayout, HeadsMut, HeadsRef, Mask, Saved, StridedMask, attention_backward_on,
    attention_forward, attention_forward_on,
};
use bullet_kernels::cpu::math::Real;
use bullet_kernels::cpu::simd::Isa;
use bullet_ops::{DType, Float};
use half::{bf16, f16};

mod common;
use common::Rng;

#[derive(Clone, Debug)]
struct Case {
    batch: usize,
    heads: usize,
    kv_heads: usize,
    queries: usize,
    keys: usize,
    dim: usize,
    causal: bool,
    /// 0 none, 1 attend, 2 bias.
    mask: usize,
    /// Which of the mask's axes are broadcast.
    broadcast: [bool; 3],
    packed: bool,
}

impl Case {
    fn random(rng: &mut Rng) -> Case {
        let kv_heads = rng.pick(&[1, 2, 3]);
        let queries = rng.pick(&[1, 2, 5, 17, 32, 33, 64, 70]);
        let packed = rng.below(2) == 0;
        let keys = if packed { queries } else { rng.pick(&[1, 3, 16, 31, 64, 100]) };
        Case {
            batch: rng.pick(&[1, 2, 3]),
            heads: kv_heads * rng.pick(&[1, 1, 2]),
            kv_heads,
            queries,
            keys,
            dim: rng.pick(&[1, 4, 7, 16, 32, 33]),
            causal: rng.below(2) == 0,
            mask: rng.below(3),
            broadcast: std::array::from_fn(|_| rng.below(2) == 0),
            packed,
        }
    }

    /// Layouts of q, k and v and their offsets, and how long the buffers are: one packed `[b, s, h + 2 hk, d]`, or
    /// q by position and k and v by head.
    fn layouts(&self) -> [(HeadsLayout, usize, usize); 3] {
        let (b, h, hk, d) = (self.batch, self.heads, self.kv_heads, self.dim);
        if !self.packed {
            let kv = HeadsLayout::by_head(b, hk, self.keys, d);
            let len = b * hk * self.keys * d;
            return [
                (HeadsLayout::by_position(b, h, self.queries, d), 0, b * h * self.queries * d),
                (kv, 0, len),
                (kv, 0, len),
            ];
        }
        let row = (h + 2 * hk) * d;
        let all = HeadsLayout {
            seq_stride: row as isize,
            batch_stride: (self.queries * row) as isize,
            ..HeadsLayout::by_position(b, h, self.queries, d)
        };
        let len = b * self.queries * row;
        let kv = HeadsLayout { heads: hk, ..all };
        [(all, 0, len), (kv, h * d, len), (kv, (h + hk) * d, len)]
    }

    fn mask_strides(&self) -> [isize; 4] {
        let (h, s, t) = (self.heads, self.queries, self.keys);
        let [b_, h_, q_] = self.broadcast;
        let sizes = [if h_ { 1 } else { h }, if q_ { 1 } else { s }];
        [
            if b_ { 0 } else { (sizes[0] * sizes[1] * t) as isize },
            if h_ { 0 } else { (sizes[1] * t) as isize },
            if q_ { 0 } else { t as isize },
            1,
        ]
    }
}

fn at(l: &HeadsLayout, offset: usize, b: usize, h: usize, s: usize) -> usize {
    (offset as isize + b as isize * l.batch_stride + h as isize * l.head_stride + s as isize * l.seq_stride)
        as usize
}

/// The operands of a case, as f64 copies in `[b, h, s, d]` order.
struct Data {
    q: Vec<f64>,
    k: Vec<f64>,
    v: Vec<f64>,
    attend: Vec<bool>,
    bias: Vec<f64>,
    grad: Vec<f64>,
}

const SCALE: f64 = 0.7;

/// The output and log-sum-exps.
fn reference(c: &Case, x: &Data) -> (Vec<f64>, Vec<f64>) {
    let (s, t, d) = (c.queries, c.keys, c.dim);
    let (mut o, mut lse) =
        (vec![0.0; c.batch * c.heads * s * d], vec![f64::NEG_INFINITY; c.batch * c.heads * s]);
    let m = c.mask_strides().map(|x| x as usize);
    for (b, h, i) in (0..c.batch).flat_map(|b| (0..c.heads).flat_map(move |h| (0..s).map(move |i| (b, h, i))))
    {
        let q = &x.q[((b * c.heads + h) * s + i) * d..][..d];
        let kv = b * c.kv_heads + h / (c.heads / c.kv_heads);
        let scores: Vec<f64> = (0..t)
            .map(|j| {
                let mask = b * m[0] + h * m[1] + i * m[2] + j;
                if (c.causal && j + s > i + t) || (c.mask == 1 && !x.attend[mask]) {
                    return f64::NEG_INFINITY;
                }
                let dot: f64 = q.iter().zip(&x.k[(kv * t + j) * d..][..d]).map(|(a, b)| a * b).sum();
                SCALE * dot + if c.mask == 2 { x.bias[mask] } else { 0.0 }
            })
            .collect();
        let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        if max == f64::NEG_INFINITY {
            continue;
        }
        let sum: f64 = scores.iter().map(|s| (s - max).exp()).sum();
        let row = (b * c.heads + h) * s + i;
        lse[row] = max + sum.ln();
        for j in 0..t {
            let p = (scores[j] - max).exp() / sum;
            for l in 0..d {
                o[row * d + l] += p * x.v[(kv * t + j) * d + l];
            }
        }
    }
    (o, lse)
}

/// Gradients of sum(o * grad), by the chain rule written out, in f64.
fn reference_grad(c: &Case, x: &Data) -> [Vec<f64>; 3] {
    let (s, t, d) = (c.queries, c.keys, c.dim);
    let (o, lse) = reference(c, x);
    let (mut dq, mut dk, mut dv) = (vec![0.0; x.q.len()], vec![0.0; x.k.len()], vec![0.0; x.v.len()]);
    let m = c.mask_strides().map(|x| x as usize);
    for (b, h, i) in (0..c.batch).flat_map(|b| (0..c.heads).flat_map(move |h| (0..s).map(move |i| (b, h, i))))
    {
        let row = (b * c.heads + h) * s + i;
        let kv = b * c.kv_heads + h / (c.heads / c.kv_heads);
        let mean: f64 = (0..d).map(|l| o[row * d + l] * x.grad[row * d + l]).sum();
        for j in 0..t {
            let mask = b * m[0] + h * m[1] + i * m[2] + j;
            let hidden = (c.causal && j + s > i + t) || (c.mask == 1 && !x.attend[mask]);
            if hidden || lse[row] == f64::NEG_INFINITY {
                continue;
            }
            let key = (kv * t + j) * d;
            let dot: f64 = (0..d).map(|l| x.q[row * d + l] * x.k[key + l]).sum();
            let p = (SCALE * dot + if c.mask == 2 { x.bias[mask] } else { 0.0 } - lse[row]).exp();
            let dp: f64 = (0..d).map(|l| x.grad[row * d + l] * x.v[key + l]).sum();
            let ds = p * (dp - mean) * SCALE;
            for l in 0..d {
                dq[row * d + l] += ds * x.k[key + l];
                dk[key + l] += ds * x.q[row * d + l];
                dv[key + l] += p * x.grad[row * d + l];
            }
        }
    }
    [dq, dk, dv]
}

fn gather<T: Float>(data: &[T], l: &HeadsLayout, offset: usize) -> Vec<f64> {
    let mut out = Vec::new();
    for (b, h, s) in
        (0..l.batch).flat_map(|b| (0..l.heads).flat_map(move |h| (0..l.seq).map(move |s| (b, h, s))))
    {
        let from = at(l, offset, b, h, s);
        out.extend(data[from..from + l.dim].iter().map(|x| x.to_f64()));
    }
    out
}

fn close(got: &[f64], want: &[f64], eps: f64, what: &str) {
    assert_eq!(got.len(), want.len(), "{what}");
    let size = want.iter().filter(|x| x.is_finite()).fold(1.0, |m: f64, x| m.max(x.abs()));
    for (i, (&got, &want)) in got.iter().zip(want).enumerate() {
        let ok = got == want || (got - want).abs() <= eps * (size + want.abs());
        assert!(ok, "{what}: element {i} is {got}, expected {want}");
    }
}

fn random<T: Float>(rng: &mut Rng, n: usize) -> Vec<T> {
    (0..n).map(|_| T::from_f64(2.0 * rng.unit())).collect()
}

fn check<T: Float<Compute: Real>>(rng: &mut Rng, isa: Isa, c: &Case) {
    let what = format!("{} {isa:?} {c:?}", T::DTYPE);
    let [(lq, oq, nq), (lk, ok, nk), (lv, ov, nv)] = c.layouts();
    let q: Vec<T> = random(rng, nq);
    let (k, v) = if c.packed { (q.clone(), q.clone()) } else { (random(rng, nk), random(rng, nv)) };
    let lo = HeadsLayout::by_position(c.batch, c.heads, c.queries, c.dim);
    let size = c.batch * c.heads * c.queries * c.dim;
    let grad: Vec<T> = random(rng, size);
    let mask_len = c.batch * c.heads * c.queries * c.keys;
    // Rows of the mask are all hidden now and then.
    let attend: Vec<bool> = (0..mask_len).map(|i| (i / c.keys) % 5 != 2 && rng.below(3) > 0).collect();
    let bias: Vec<T> = random(rng, mask_len);
    let mask = match c.mask {
        0 => Mask::None,
        1 => Mask::Attend(StridedMask::new(&attend, 0, c.mask_strides())),
        _ => Mask::Bias(StridedMask::new(&bias, 0, c.mask_strides())),
    };
    let spec = Attention { causal: c.causal, scale: SCALE, mask, dropout: None };
    let nan = T::from_f64(f64::NAN);
    let mut o = vec![nan; size];
    let mut lse = vec![nan.up(); c.batch * c.heads * c.queries];
    let (vq, vk, vv) = (
        HeadsRef::new(&q, oq, lq).unwrap(),
        HeadsRef::new(&k, ok, lk).unwrap(),
        HeadsRef::new(&v, ov, lv).unwrap(),
    );
    attention_forward_on(isa, vq, vk, vv, &spec, HeadsMut::new(&mut o, 0, lo).unwrap(), &mut lse).unwrap();
    let data = Data {
        q: gather(&q, &lq, oq),
        k: gather(&k, &lk, ok),
        v: gather(&v, &lv, ov),
        attend: attend.clone(),
        bias: bias.iter().map(|x| x.to_f64()).collect(),
        grad: gather(&grad, &lo, 0),
    };
    let (want, want_lse) = reference(c, &data);
    let eps = match T::DTYPE {
        DType::F16 => 2e-3,
        DType::BF16 => 1.2e-2,
        DType::F32 => 4e-6,
        _ => 1e-13,
    };
    close(&gather(&o, &lo, 0), &want, eps, &what);
    let lse_eps = if T::DTYPE == DType::F64 { 1e-13 } else { 4e-6 };
    close(&lse.iter().map(|x| x.wide()).collect::<Vec<_>>(), &want_lse, lse_eps, &what);

    let o_view = HeadsRef::new(&o, 0, lo).unwrap();
    let saved =
        Saved { q: vq, k: vk, v: vv, o: o_view, lse: &lse, grad: HeadsRef::new(&grad, 0, lo).unwrap() };
    let (mut dq, mut dk, mut dv) = (vec![nan; nq], vec![nan; nk], vec![nan; nv]);
    attention_backward_on(
        isa,
        &saved,
        &spec,
        HeadsMut::new(&mut dq, oq, lq).unwrap(),
        HeadsMut::new(&mut dk, ok, lk).unwrap(),
        HeadsMut::new(&mut dv, ov, lv).unwrap(),
    )
    .unwrap();
    let [want_q, want_k, want_v] = reference_grad(c, &data);
    close(&gather(&dq, &lq, oq), &want_q, 12.0 * eps, &format!("dq {what}"));
    close(&gather(&dk, &lk, ok), &want_k, 12.0 * eps, &format!("dk {what}"));
    close(&gather(&dv, &lv, ov), &want_v, 12.0 * eps, &format!("dv {what}"));
}

fn check_all<T: Float<Compute: Real>>(seed: u64, rounds: usize) {
    let rng = &mut Rng(seed);
    for isa in Isa::available() {
        for _ in 0..rounds {
            let case = Case::random(rng);
            check::<T>(rng, isa, &case);
        }
    }
}

#[test]
fn f32_matches_reference() {
    check_all::<f32>(1, 30);
}

#[test]
fn f64_matches_reference() {
    check_all::<f64>(2, 20);
}

#[test]
fn half_types_match_reference() {
    check_all::<f16>(3, 12);
    check_all::<bf16>(4, 12);
}

#[test]
fn long_decode_matches_reference() {
    let rng = &mut Rng(5);
    for isa in Isa::available() {
        let case = Case {
            batch: 1,
            heads: 4,
            kv_heads: 2,
            queries: 1,
            keys: 1500,
            dim: 32,
            causal: true,
            mask: 0,
            broadcast: [true; 3],
            packed: false,
        };
        check::<f32>(rng, isa, &case);
    }
}

/// The reference's own gradients are those of the reference's output.
#[test]
fn reference_gradients_are_finite_differences() {
    let rng = &mut Rng(6);
    for _ in 0..6 {
        let c = Case { batch: 1, queries: 4, keys: 5, dim: 3, packed: false, ..Case::random(rng) };
        let unit = |rng: &mut Rng, n: usize| (0..n).map(|_| rng.unit()).collect::<Vec<f64>>();
        let masks = c.heads * c.queries * c.keys;
        let mut x = Data {
            q: unit(rng, c.heads * 4 * 3),
            k: unit(rng, c.kv_heads * 5 * 3),
            v: unit(rng, c.kv_heads * 5 * 3),
            attend: (0..masks).map(|_| rng.below(3) > 0).collect(),
            bias: unit(rng, masks),
            grad: unit(rng, c.heads * 4 * 3),
        };
        let loss = |x: &Data| reference(&c, x).0.iter().zip(&x.grad).map(|(a, b)| a * b).sum::<f64>();
        let grads = reference_grad(&c, &x);
        let h = 1e-5;
        for (which, grad) in grads.iter().enumerate() {
            for i in 0..grad.len() {
                let mut moved = |by: f64| {
                    [&mut x.q, &mut x.k, &mut x.v][which][i] += by;
                    let y = loss(&x);
                    [&mut x.q, &mut x.k, &mut x.v][which][i] -= by;
                    y
                };
                let slope = (moved(h) - moved(-h)) / (2.0 * h);
                assert!((slope - grad[i]).abs() < 1e-8, "{c:?}: {which} {i}: {slope} {}", grad[i]);
            }
        }
    }
}

#[test]
fn wrong_sizes_are_errors() {
    let x = [0f32; 64];
    let view = |heads, seq| HeadsRef::new(&x, 0, HeadsLayout::by_head(1, heads, seq, 4)).unwrap();
    let spec = Attention { causal: true, scale: 1.0, mask: Mask::None, dropout: None };
    let mut o = [0f32; 64];
    let mut lse = [0f32; 12];
    let out = HeadsMut::new(&mut o, 0, HeadsLayout::by_position(1, 3, 4, 4)).unwrap();
    let error = attention_forward(view(3, 4), view(2, 4), view(2, 4), &spec, out, &mut lse).unwrap_err();
    assert!(error.message.contains("multiple"), "{error}");
    let out = HeadsMut::new(&mut o, 0, HeadsLayout::by_position(1, 3, 4, 4)).unwrap();
    let error = attention_forward(view(3, 4), view(3, 4), view(3, 4), &spec, out, &mut lse[1..]).unwrap_err();
    assert!(error.message.contains("log-sum-exp"), "{error}");
    assert!(HeadsRef::new(&x, 1, HeadsLayout::by_head(1, 2, 8, 4)).is_err());
    let overlapping = HeadsLayout { seq_stride: 3, ..HeadsLayout::by_head(1, 2, 8, 4) };
    assert!(HeadsMut::new(&mut o, 0, overlapping).is_err());
    let short = StridedMask::new(&[true; 3], 0, [0, 0, 0, 1]);
    let spec = Attention { mask: Mask::Attend(short), ..spec };
    let out = HeadsMut::new(&mut o, 0, HeadsLayout::by_position(1, 3, 4, 4)).unwrap();
    assert!(attention_forward(view(3, 4), view(3, 4), view(3, 4), &spec, out, &mut lse).is_err());
}
