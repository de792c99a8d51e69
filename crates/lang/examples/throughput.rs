//! How many kernels a second go from Python source to CUDA C++ with their adjoints, on one core:
//! `cargo run --release -p bullet-lang --example throughput FILE.py...`

use std::time::Instant;

use bullet_lang::adjoint::{AdjointOptions, adjoint};
use bullet_lang::emit::cuda::{CudaOptions, source};
use bullet_lang::{Options, compile};

/// One file through everything; how many kernels it has, and how many bytes the text.
fn once(file: &str, text: &str) -> Result<(usize, usize), String> {
    let kernels = compile(file, text, Options::default()).map_err(|e| e.to_string())?;
    let mut bytes = 0;
    for kernel in &kernels {
        let made = adjoint(kernel, AdjointOptions::default()).map_err(|e| format!("{e:?}"))?;
        bytes += source(&[kernel, &made.kernel], CudaOptions::default()).len();
    }
    Ok((kernels.len(), bytes))
}

fn main() -> Result<(), String> {
    let (mut rates, mut files) = (0.0, 0.0);
    for file in std::env::args().skip(1) {
        let text = std::fs::read_to_string(&file).map_err(|e| format!("{file}: {e}"))?;
        let (count, bytes) = once(&file, &text)?;
        // The median of runs of a tenth of a second each.
        let mut times: Vec<f64> = (0..7)
            .map(|_| {
                let (start, mut runs) = (Instant::now(), 0);
                while start.elapsed().as_secs_f64() < 0.1 {
                    let _ = once(&file, &text);
                    runs += count;
                }
                start.elapsed().as_secs_f64() / runs as f64
            })
            .collect();
        times.sort_by(f64::total_cmp);
        println!("{file}: {:.0} us, {:.0} kernels/s, {bytes} bytes of CUDA", 1e6 * times[3], 1.0 / times[3]);
        rates += times[3];
        files += 1.0;
    }
    println!("all, equally often: {:.0} kernels/s", files / rates);
    Ok(())
}
