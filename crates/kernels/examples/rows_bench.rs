//! Times of the row kernels, in microseconds: the least of many runs.
//!
//! `cargo run --release -p bullet-kernels --example rows_bench`

use std::time::Instant;

use bullet_kernels::cpu::cross_entropy::{self, Spec};
use bullet_kernels::cpu::optim::{Adam, Scalars, adam, sum_of_squares};
use bullet_kernels::cpu::random::{self, Counter};
use bullet_kernels::cpu::softmax::{self, Kind};
use bullet_kernels::cpu::{copy, index, map, norm, par, reduce, simd};
use bullet_kernels::{View, ViewMut};
use bullet_ops::expr::Expr;
use bullet_ops::{AxisSet, DType, Layout, Map, Reduce, Shape};

const ROWS: usize = 1024;
const N: usize = 1024;

fn time(name: &str, mut f: impl FnMut() + Send) {
    f();
    let mut times: Vec<f64> = Vec::new();
    let start = Instant::now();
    while times.len() < 20 || (start.elapsed().as_secs_f64() < 0.3 && times.len() < 1000) {
        let t = Instant::now();
        f();
        times.push(t.elapsed().as_secs_f64() * 1e6);
    }
    times.sort_by(f64::total_cmp);
    println!("{name:32} {:9.1} {:9.1}", times[0], times[times.len() / 2]);
}

fn data(n: usize) -> Vec<f32> {
    let mut x = vec![0f32; n];
    let normal = random::Distribution::Normal { mean: 0.0, std: 1.0 };
    random::fill(normal, Counter { seed: n as u64, stream: 0, step: 0 }, &mut x);
    x
}

fn flat(dims: &[usize]) -> Layout {
    Layout::contiguous(Shape::new(dims).expect("small"))
}

fn maps(x: &[f32], g: &[f32], y: &mut [f32]) {
    let all = flat(&[ROWS * N]);
    for op in [Map::Add, Map::Relu, Map::Exp, Map::GeluTanh, Map::Gelu, Map::Silu] {
        let views = [View::of(x, all), View::of(g, all)];
        let exprs = op.exprs();
        let name = op.row().name;
        time(name, || map::map(&exprs.forward, DType::F32, &views[..op.arity()], &mut ViewMut::of(y, all)));
        if let (Some(adjoint), 1) = (&exprs.adjoint, op.arity()) {
            let views = [views[0], views[0], views[1]];
            time(&format!("{name} adjoint"), || {
                map::map(&adjoint[0], DType::F32, &views, &mut ViewMut::of(y, all))
            });
        }
    }
    let bias = flat(&[N]).broadcast_to(flat(&[ROWS, N]).shape).expect("broadcasts");
    let views = [View::of(x, flat(&[ROWS, N])), View::of(g, bias)];
    let add = Expr::build(2, |x| x[0] + x[1]);
    time("add a row", || map::map(&add, DType::F32, &views, &mut ViewMut::of(y, flat(&[ROWS, N]))));
    let across = flat(&[N, ROWS]).permute(&[1, 0]).expect("two axes");
    time("copy", || copy::copy(&View::of(x, all), &mut ViewMut::of(y, all)));
    time("copy transposed", || copy::copy(&View::of(x, across), &mut ViewMut::of(y, flat(&[ROWS, N]))));
    let mut half = vec![half::f16::ZERO; ROWS * N];
    time("cast f32 to f16", || copy::copy(&View::of(x, all), &mut ViewMut::of(&mut half, all)));
    time("dropout", || random::dropout(x, 0.1, Counter { seed: 1, stream: 2, step: 3 }, y));
}

fn rows(x: &[f32], g: &[f32], y: &mut [f32]) {
    time("softmax", || softmax::forward(Kind::Softmax, x, N, y));
    time("softmax grad", || softmax::backward(Kind::Softmax, g, x, N, y));
    let (w, b) = (data(N), data(N));
    let (mut mean, mut rstd) = (vec![0f32; ROWS], vec![0f32; ROWS]);
    let (mut dw, mut db) = (vec![0f32; N], vec![0f32; N]);
    time("layer_norm", || norm::layer_norm(x, N, Some(&w), Some(&b), 1e-5, y, &mut mean, &mut rstd));
    time("layer_norm grad", || {
        norm::layer_norm_grad(x, N, &mean, &rstd, g, Some(&w), y, Some(&mut dw), Some(&mut db));
    });
    time("rms_norm", || norm::rms_norm(x, N, Some(&w), 1e-5, y, &mut rstd));
    time("rms_norm grad", || norm::rms_norm_grad(x, N, &rstd, g, Some(&w), y, Some(&mut dw)));
    let layout = flat(&[ROWS, N]);
    let variance = Reduce::Var { correction: 1.0 };
    for (name, axis, kind) in [
        ("sum of rows", 1, Reduce::Sum),
        ("sum of columns", 0, Reduce::Sum),
        ("variance of rows", 1, variance),
        ("variance of columns", 0, variance),
    ] {
        let axes = AxisSet::of(&layout.shape, &[axis]).expect("two axes");
        let run = || {
            let out = &mut ViewMut::of(&mut dw, flat(&[N]));
            reduce::reduce(kind, &View::of(x, layout), axes, out).expect("not empty");
        };
        time(name, run);
    }
    let axes = AxisSet::of(&flat(&[1024, 384]).shape, &[0]).expect("two axes");
    time("sum of columns 1024 x 384", || {
        let out = &mut ViewMut::of(&mut dw[..384], flat(&[384]));
        reduce::reduce(Reduce::Sum, &View::of(x, flat(&[1024, 384])), axes, out).expect("not empty");
    });
}

fn models() {
    const VOCABULARY: usize = 3000;
    let targets: Vec<i64> = (0..ROWS as i64).map(|i| i * 7919 % VOCABULARY as i64).collect();
    let logits = data(ROWS * VOCABULARY);
    let (mut lse, mut d) = (vec![0f32; ROWS], vec![0f32; ROWS * VOCABULARY]);
    let spec = Spec { ignore_index: -100, label_smoothing: 0.0 };
    time("cross_entropy 1024 x 3000", || {
        cross_entropy::forward(spec, &logits, VOCABULARY, &targets, &mut lse).expect("in range");
    });
    time("cross_entropy grad", || {
        cross_entropy::backward(spec, &logits, VOCABULARY, &targets, &lse, ROWS, 1.0, &mut d)
            .expect("in range");
    });
    let (table, mut y) = (data(VOCABULARY * 128), vec![0f32; ROWS * 128]);
    let mut dtable = table.clone();
    time("embedding 3000 x 128", || {
        index::embedding(&table, VOCABULARY, 128, &targets, &mut y).expect("in range")
    });
    time("embedding grad", || {
        index::embedding_grad(&targets, &logits[..ROWS * 128], VOCABULARY, 128, &mut dtable)
            .expect("in range");
    });
}

fn optimizer() {
    let sizes = [384_000, 147_456, 147_456, 196_608, 196_608, 227_872];
    let mut p: Vec<Vec<f32>> = sizes.iter().map(|&n| data(n)).collect();
    let g = p.clone();
    let mut state: Vec<Vec<f32>> = sizes.iter().flat_map(|&n| [vec![0.0; n], vec![0.0; n]]).collect();
    let views: Vec<View<'_>> = g.iter().map(|g| View::of(g, flat(&[g.len()]))).collect();
    let view = |x: &mut [f32]| {
        let layout = flat(&[x.len()]);
        // SAFETY: the vectors outlive the timing, and each is viewed once.
        unsafe { ViewMut::new(x.as_mut_ptr().cast(), DType::F32, layout) }
    };
    let mut params: Vec<ViewMut<'_>> = p.iter_mut().map(|p| view(p)).collect();
    let mut moments: Vec<ViewMut<'_>> = state.iter_mut().map(|s| view(s)).collect();
    let mut step = 0;
    time("adamw 1.3M parameters", || {
        step += 1;
        let scalars = Scalars { step, lr: 1e-4, grad_scale: 1.0 };
        adam(&mut params, &views, &mut moments, &Adam::default(), scalars);
    });
    time("sum of squares 1.3M", || {
        std::hint::black_box(sum_of_squares(&views));
    });
}

fn main() {
    println!("{} threads, {}; 1024 x 1024 f32 unless said otherwise", par::threads(), simd::isa().name());
    println!("{:32} {:>9} {:>9}", "", "least us", "median us");
    let (x, g, mut y) = (data(ROWS * N), data(ROWS * N), vec![0f32; ROWS * N]);
    maps(&x, &g, &mut y);
    rows(&x, &g, &mut y);
    models();
    optimizer();
}
