//! GFLOP/s of the matrix product on the shapes of a small language model, against the `gemm` crate.
//!
//! `cargo run --release -p bullet-kernels --example gemm_bench`. The two alternate in one process; minima are shown.

use std::hint::black_box;
use std::time::Instant;

use bullet_kernels::cpu::gemm::{Epilogue, MatLayout, MatMut, MatRef, gemm};
use bullet_kernels::cpu::par;

#[derive(Clone, Copy)]
enum Kind {
    /// X W^T, W stored [n, k].
    Forward,
    /// dY W: B row-major.
    Input,
    /// dY^T X: A transposed, m and n being the sizes of the weight and k the rows of X.
    Weight,
}

fn views(kind: Kind, m: usize, k: usize, n: usize) -> (MatLayout, MatLayout) {
    match kind {
        Kind::Forward => (MatLayout::row_major(m, k), MatLayout::row_major(n, k).transposed()),
        Kind::Input => (MatLayout::row_major(m, k), MatLayout::row_major(k, n)),
        Kind::Weight => (MatLayout::row_major(k, m).transposed(), MatLayout::row_major(k, n)),
    }
}

fn measure(name: &str, kind: Kind, m: usize, k: usize, n: usize) {
    let (a, b) = (vec![0.5f32; m * k], vec![0.25f32; k * n]);
    let mut c = vec![0f32; m * n];
    let (la, lb) = views(kind, m, k, n);
    let flops = 2.0 * (m * k * n) as f64;
    let rounds = (4e9 / flops).clamp(20.0, 4000.0) as usize;
    let mut best = [f64::INFINITY; 2];
    for _ in 0..rounds {
        let start = Instant::now();
        let out = MatMut::new(&mut c, 0, MatLayout::row_major(m, n)).unwrap();
        gemm(MatRef::new(&a, 0, la).unwrap(), MatRef::new(&b, 0, lb).unwrap(), out, Epilogue::default())
            .unwrap();
        best[0] = best[0].min(start.elapsed().as_secs_f64());
        black_box(&mut c);
        let start = Instant::now();
        crate_gemm(&a, la, &b, lb, &mut c, m, k, n);
        best[1] = best[1].min(start.elapsed().as_secs_f64());
        black_box(&mut c);
    }
    let [ours, theirs] = best.map(|t| flops / t / 1e9);
    println!(
        "{name:8} m {m:5} k {k:5} n {n:5}  ours {ours:7.1}  gemm crate {theirs:7.1} GFLOP/s  {:6.1} us",
        best[0] * 1e6
    );
}

fn crate_gemm(
    a: &[f32],
    la: MatLayout,
    b: &[f32],
    lb: MatLayout,
    c: &mut [f32],
    m: usize,
    k: usize,
    n: usize,
) {
    // SAFETY: the slices have the sizes that the layouts say.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            c.as_mut_ptr(),
            1,
            n as isize,
            false,
            a.as_ptr(),
            la.col_stride,
            la.row_stride,
            b.as_ptr(),
            lb.col_stride,
            lb.row_stride,
            0.0,
            1.0,
            false,
            false,
            false,
            gemm::Parallelism::Rayon(par::threads()),
        );
    }
}

fn main() {
    println!("{} threads, {:?}", par::threads(), bullet_kernels::cpu::simd::isa());
    par::install(|| {
        for (m, k, n) in [
            (1024, 128, 384),
            (1024, 128, 128),
            (1024, 128, 256),
            (1024, 256, 128),
            (1024, 128, 3000),
            (768, 128, 65),
        ] {
            measure("forward", Kind::Forward, m, k, n);
            measure("input", Kind::Input, m, n, k);
            measure("weight", Kind::Weight, n, m, k);
        }
        for n in [128, 512, 2048] {
            measure("square", Kind::Input, n, n, n);
        }
        for (k, n) in [(128, 384), (1024, 1024), (4096, 4096)] {
            measure("vector", Kind::Forward, 1, k, n);
            measure("vec row", Kind::Input, 1, k, n);
        }
        measure("few", Kind::Forward, 4, 1024, 1024);
        measure("few", Kind::Forward, 8, 1024, 1024);
    });
}
