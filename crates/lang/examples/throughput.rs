//! How many kernels a second go from Python source to CUDA C++ with their adjoints, on one core, and what each part takes:
//! `cargo run --release -p bullet-lang --example throughput [--json] FILE.py...`

use std::time::{Duration, Instant};

use bullet_lang::adjoint::{AdjointOptions, adjoint};
use bullet_lang::emit::cuda::{CudaOptions, source};
use bullet_lang::{Options, compile, optimize};

/// Seconds of work between two looks at the clock for a rate, and how many of these there are of a file.
const SLICE: f64 = 0.1;
const SLICES: usize = 9;

/// Of one file.
#[derive(Default)]
struct Run {
    kernels: usize,
    /// Of CUDA C++.
    bytes: usize,
    /// Front, passes, adjoint, CUDA C++; all kernels together.
    parts: [Duration; 4],
}

/// One file through everything.
fn once(file: &str, text: &str) -> Result<Run, String> {
    let mut run = Run::default();
    let mut last = Instant::now();
    let mut lap = |part: &mut Duration| {
        let now = Instant::now();
        *part += now - last;
        last = now;
    };
    let kernels = compile(file, text, Options { optimize: false }).map_err(|e| e.to_string())?;
    lap(&mut run.parts[0]);
    for mut kernel in kernels {
        optimize(&mut kernel);
        lap(&mut run.parts[1]);
        let made = adjoint(&kernel, AdjointOptions::default()).map_err(|e| format!("{e:?}"))?;
        lap(&mut run.parts[2]);
        run.bytes += source(&[&kernel, &made.kernel], CudaOptions::default()).len();
        lap(&mut run.parts[3]);
        run.kernels += 1;
    }
    Ok(run)
}

/// What a kernel of a file takes: the slice of the median rate, and the best, in microseconds; of the former the parts.
struct Rate {
    median: f64,
    best: f64,
    parts: [f64; 4],
}

fn measure(file: &str, text: &str) -> Result<Rate, String> {
    let mut slices = vec![];
    for _ in 0..SLICES {
        let (start, mut kernels, mut parts) = (Instant::now(), 0, [Duration::ZERO; 4]);
        while start.elapsed().as_secs_f64() < SLICE {
            let run = once(file, text)?;
            kernels += run.kernels;
            parts.iter_mut().zip(run.parts).for_each(|(sum, part)| *sum += part);
        }
        let per_kernel = |time: Duration| 1e6 * time.as_secs_f64() / kernels as f64;
        slices.push((per_kernel(start.elapsed()), parts.map(per_kernel)));
    }
    slices.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (median, parts) = slices[SLICES / 2];
    Ok(Rate { median, best: slices[0].0, parts })
}

fn main() -> Result<(), String> {
    let (json, files): (Vec<_>, Vec<_>) = std::env::args().skip(1).partition(|argument| argument == "--json");
    let (mut median, mut best) = (0.0, 0.0);
    for file in &files {
        let text = std::fs::read_to_string(file).map_err(|e| format!("{file}: {e}"))?;
        let run = once(file, &text)?;
        if run.kernels == 0 {
            return Err(format!("{file} has no kernel"));
        }
        let Rate { median: us, best: best_us, parts: [front, passes, adjoint, cuda] } = measure(file, &text)?;
        let bytes = run.bytes / run.kernels;
        if json.is_empty() {
            println!(
                "{file}: {us:.0} us a kernel (front {front:.0}, passes {passes:.0}, adjoint {adjoint:.0}, CUDA {cuda:.0}), best \
                 {best_us:.0}; {bytes} bytes of CUDA"
            );
        } else {
            println!(
                "{{\"file\": {file:?}, \"us\": {us:.1}, \"best_us\": {best_us:.1}, \"front_us\": {front:.1}, \"passes_us\": {passes:.1}, \
                 \"adjoint_us\": {adjoint:.1}, \"cuda_us\": {cuda:.1}, \"cuda_bytes\": {bytes}}}"
            );
        }
        median += us;
        best += best_us;
    }
    if json.is_empty() && !files.is_empty() {
        let rate = |us: f64| 1e6 * files.len() as f64 / us;
        println!("all, equally often: {:.0} kernels/s, best slices {:.0}", rate(median), rate(best));
    }
    Ok(())
}
