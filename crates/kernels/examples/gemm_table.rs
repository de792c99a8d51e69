//! Times every variant of the GPU's matrix products, with several numbers of shares of k, on the products of small
//! transformers and on squares: what the table in `cuda/gemm/choose.rs` is fitted to.
//!
//! usage: gemm_table [DTYPE | SIZE]... (f32, tf32, f16, bf16; 4096x4096x4096; all without). One line a product: what
//! the table chooses and its microseconds, then the fastest five. Launches follow each other, operands may lie in the
//! second-level cache.

use std::error::Error;

use bullet_kernels::cuda::{Gpu, gemm};
use bullet_kernels::{View, ViewMut};
use bullet_ops::{DType, Layout, Shape};
use bullet_runtime::{Buffer, Device};

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// Shares of k that are tried.
const SPLITS: [usize; 7] = [1, 2, 4, 8, 16, 32, 64];
/// Launches that are timed at once.
const REPEAT: usize = 20;

/// `c[m, n] = a[m, k] b[k, n]`; an operand that is `turned` lies in memory as its transpose.
#[derive(Clone, Copy)]
struct Case {
    m: usize,
    n: usize,
    k: usize,
    turned: (bool, bool),
}

/// Forward, gradient of the input and gradient of the weight of the reference model's layers, then squares.
fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for rows in [1024, 16384] {
        for (out, inputs) in [(384, 128), (128, 128), (256, 128), (128, 256), (3000, 128)] {
            cases.push(Case { m: rows, n: out, k: inputs, turned: (false, true) });
            cases.push(Case { m: rows, n: inputs, k: out, turned: (false, false) });
            cases.push(Case { m: out, n: inputs, k: rows, turned: (true, false) });
        }
    }
    cases.extend([512, 1024, 2048, 4096].map(|n| Case { m: n, n, k: n, turned: (false, false) }));
    cases
}

fn main() -> Result<()> {
    let (sizes, wanted): (Vec<String>, Vec<String>) =
        std::env::args().skip(1).partition(|word| word.contains('x'));
    let device = Device::parse("cuda")?;
    let gpu = Gpu::of(&device)?;
    gemm::set_library(gemm::Library::Off);
    use gemm::Precision::{Full, Tf32};
    let kinds = [
        ("f32", DType::F32, Full),
        ("tf32", DType::F32, Tf32),
        ("f16", DType::F16, Full),
        ("bf16", DType::BF16, Full),
    ];
    for (name, dtype, precision) in kinds {
        if wanted.is_empty() || wanted.iter().any(|w| w == name) {
            gemm::set_precision(precision);
            let asked = |c: &Case| sizes.is_empty() || sizes.contains(&format!("{}x{}x{}", c.m, c.n, c.k));
            for case in cases().into_iter().filter(asked) {
                println!("{name} {}", line(&gpu, dtype, precision, &case)?);
            }
        }
    }
    Ok(())
}

/// Small values of changing sign, so that sums stay finite.
fn operand(gpu: &Gpu, dtype: DType, rows: usize, cols: usize, turned: bool) -> Result<(Buffer, Layout)> {
    let mut bytes = Vec::with_capacity(rows * cols * dtype.size());
    for i in 0..rows * cols {
        let v = (i * 7919 % 2003) as f32 / 1001.0 - 1.0;
        match dtype {
            DType::F16 => bytes.extend_from_slice(&half::f16::from_f32(v).to_ne_bytes()),
            DType::BF16 => bytes.extend_from_slice(&half::bf16::from_f32(v).to_ne_bytes()),
            _ => bytes.extend_from_slice(&v.to_ne_bytes()),
        }
    }
    let mut buffer = gpu.device().alloc(bytes.len())?;
    buffer.write(0, &bytes)?;
    let strides = if turned { [1, rows as isize] } else { [cols as isize, 1] };
    Ok((buffer, Layout::strided(Shape::new(&[rows, cols])?, &strides, 0)))
}

fn line(gpu: &Gpu, dtype: DType, precision: gemm::Precision, case: &Case) -> Result<String> {
    let &Case { m, n, k, turned } = case;
    let (a, la) = operand(gpu, dtype, m, k, turned.0)?;
    let (b, lb) = operand(gpu, dtype, k, n, turned.1)?;
    let (c, lc) = operand(gpu, dtype, m, n, false)?;
    let once = || {
        // SAFETY: the buffers hold the elements of their layouts; nothing but these launches uses them.
        let (x, out) = unsafe {
            let view = |b: &Buffer, l: Layout| View::new(b.ptr().0 as *const u8, dtype, l);
            ([view(&a, la), view(&b, lb)], ViewMut::new(c.ptr().0 as *mut u8, dtype, lc))
        };
        gemm::matmul(gpu, &x, &mut [out])
    };
    let micros = |variant: Option<&str>| -> Result<f64> {
        gemm::force(variant);
        once()?;
        let mut times = [0.0; 5];
        for t in &mut times {
            *t = gpu.device().time(|| (0..REPEAT).try_for_each(|_| once()))? * 1e3 / REPEAT as f64;
        }
        times.sort_by(f64::total_cmp);
        Ok(times[2])
    };
    let chosen = micros(None)?;
    let mut all = Vec::new();
    let half = !matches!(dtype, DType::F32) || precision == gemm::Precision::Tf32;
    for variant in gemm::variants().filter(|v| v.starts_with(if half { "mma" } else { "simt" })) {
        for splits in SPLITS.into_iter().filter(|s| *s == 1 || k / s >= 64) {
            let name = format!("{variant}/{splits}");
            all.push((micros(Some(&name))?, name));
        }
    }
    all.sort_by(|x, y| x.0.total_cmp(&y.0));
    let best: Vec<String> = all.iter().take(5).map(|(t, name)| format!("{name} {t:.1}")).collect();
    Ok(format!("{m}x{n}x{k} {turned:?}: chosen {chosen:.1} us; {}", best.join(", ")))
}
