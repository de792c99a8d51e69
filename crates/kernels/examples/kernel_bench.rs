//! Speed of matrix products and attention on the shapes of small language models.
//!
//! `cargo run --release -p bullet-kernels --example kernel_bench`; the best of many calls is shown.

use std::hint::black_box;
use std::time::Instant;

use bullet_kernels::cpu::attention::{
    Attention, HeadsLayout, HeadsMut, HeadsRef, Mask, Saved, attention_backward, attention_forward,
};
use bullet_kernels::cpu::gemm::{Epilogue, MatLayout, MatMut, MatRef, gemm};
use bullet_kernels::cpu::par;

#[derive(Clone, Copy, Debug)]
enum Kind {
    /// X W^T, W stored [n, k].
    Forward,
    /// dY W: B row-major.
    Input,
    /// dY^T X: A transposed, m and n being the sizes of the weight and k the rows of X.
    Weight,
}

fn best(rounds: usize, mut f: impl FnMut()) -> f64 {
    (0..rounds).fold(f64::INFINITY, |best, _| {
        let start = Instant::now();
        f();
        best.min(start.elapsed().as_secs_f64())
    })
}

fn product(kind: Kind, m: usize, k: usize, n: usize) {
    let (a, b) = (vec![0.5f32; m * k], vec![0.25f32; k * n]);
    let mut c = vec![0f32; m * n];
    let (la, lb) = match kind {
        Kind::Forward => (MatLayout::row_major(m, k), MatLayout::row_major(n, k).transposed()),
        Kind::Input => (MatLayout::row_major(m, k), MatLayout::row_major(k, n)),
        Kind::Weight => (MatLayout::row_major(k, m).transposed(), MatLayout::row_major(k, n)),
    };
    let flops = 2.0 * (m * k * n) as f64;
    let time = best((8e9 / flops).clamp(20.0, 4000.0) as usize, || {
        let (a, b) = (MatRef::new(&a, 0, la).unwrap(), MatRef::new(&b, 0, lb).unwrap());
        gemm(a, b, MatMut::new(&mut c, 0, MatLayout::row_major(m, n)).unwrap(), Epilogue::default()).unwrap();
        black_box(&mut c);
    });
    let kind = format!("{kind:?}");
    println!("{kind:8} m {m:5} k {k:5} n {n:5} {:8.1} GFLOP/s {:9.1} us", flops / time / 1e9, time * 1e6);
}

/// Causal self-attention on packed `[b, s, 3, h, d]`, forward and backward.
fn attention(b: usize, h: usize, s: usize, d: usize) {
    let qkv = vec![0.1f32; b * s * 3 * h * d];
    let row = 3 * h * d;
    let packed = HeadsLayout {
        seq_stride: row as isize,
        batch_stride: (s * row) as isize,
        ..HeadsLayout::by_position(b, h, s, d)
    };
    let by_position = HeadsLayout::by_position(b, h, s, d);
    let (mut o, mut lse, mut dqkv) =
        (vec![0f32; b * s * h * d], vec![0f32; b * h * s], vec![0f32; qkv.len()]);
    let part = |i: usize| HeadsRef::new(&qkv, i * h * d, packed).unwrap();
    let spec = Attention { causal: true, scale: 1.0 / (d as f64).sqrt(), mask: Mask::None, dropout: None };
    let rounds = (200_000_000 / (b * h * s * s * d)).clamp(5, 500);
    let forward = best(rounds, || {
        let out = HeadsMut::new(&mut o, 0, by_position).unwrap();
        attention_forward(part(0), part(1), part(2), &spec, out, &mut lse).unwrap();
        black_box(&mut lse);
    });
    let o = HeadsRef::new(&o, 0, by_position).unwrap();
    let saved = Saved { q: part(0), k: part(1), v: part(2), o, lse: &lse, grad: o };
    let backward = best(rounds, || {
        let ptr = dqkv.as_mut_ptr();
        // SAFETY: the three parts of the packed gradient are disjoint.
        let [dq, dk, dv] = std::array::from_fn(|i| unsafe { HeadsMut::from_raw(ptr.add(i * h * d), packed) });
        attention_backward(&saved, &spec, dq, dk, dv).unwrap();
        black_box(&mut dqkv);
    });
    println!(
        "attention b {b} h {h} s {s} d {d}: forward {:.1} us, backward {:.1} us",
        forward * 1e6,
        backward * 1e6
    );
}

fn main() {
    println!("{} threads, {:?}", par::threads(), bullet_kernels::cpu::simd::isa());
    attention(16, 4, 64, 32);
    attention(12, 4, 64, 32);
    attention(64, 6, 256, 64);
    for (m, k, n) in [
        (1024, 128, 384),
        (1024, 128, 128),
        (1024, 128, 256),
        (1024, 256, 128),
        (1024, 128, 3000),
        (768, 128, 65),
    ] {
        product(Kind::Forward, m, k, n);
        product(Kind::Input, m, n, k);
        product(Kind::Weight, n, m, k);
    }
    for n in [128, 512, 2048] {
        product(Kind::Input, n, n, n);
    }
    for (m, k, n) in [(1, 128, 384), (1, 1024, 1024), (1, 4096, 4096), (4, 1024, 1024), (16, 1024, 1024)] {
        product(Kind::Forward, m, k, n);
        product(Kind::Input, m, k, n);
    }
}
