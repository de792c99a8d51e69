//! How many kernels a second go from Python source to CUDA C++ with their adjoints, on one core, and what each part takes; beside it
//! what PTX of our own takes:
//! `cargo run --release -p bullet-lang --example throughput [--json] FILE.py...`

use std::time::{Duration, Instant};

use bullet_lang::adjoint::{AdjointOptions, adjoint};
use bullet_lang::emit::cuda::{CudaOptions, source};
use bullet_lang::emit::ptx::{Target, module};
use bullet_lang::{Options, compile, optimize};

/// For how long a file is measured.
const SECONDS: f64 = 1.0;

/// Of one file.
#[derive(Default)]
struct Run {
    kernels: usize,
    /// Of CUDA C++, and of PTX.
    bytes: [usize; 2],
    /// Front, passes, adjoint, CUDA C++, PTX; all kernels together.
    parts: [Duration; 5],
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
        let both = [&kernel, &made.kernel];
        run.bytes[0] += source(&both, CudaOptions::default()).len();
        lap(&mut run.parts[3]);
        let ptx = module(&both, CudaOptions::default(), Target::Sm80).map_err(|e| e.to_string())?;
        run.bytes[1] += ptx.len();
        lap(&mut run.parts[4]);
        run.kernels += 1;
    }
    Ok(run)
}

/// What a kernel of a file takes, in microseconds: all but PTX, and the parts.
struct Rate {
    all: f64,
    parts: [f64; 5],
}

/// Medians of single runs, each shorter than what a busy machine lets a program run for, so that others' work is not in them.
fn measure(file: &str, text: &str) -> Result<Rate, String> {
    let mut times: [Vec<f64>; 6] = Default::default();
    let start = Instant::now();
    while start.elapsed().as_secs_f64() < SECONDS {
        let run = once(file, text)?;
        let all = run.parts[..4].iter().sum();
        for (times, time) in times.iter_mut().zip(run.parts.into_iter().chain([all])) {
            times.push(1e6 * time.as_secs_f64() / run.kernels as f64);
        }
    }
    let [front, passes, adjoint, cuda, ptx, all] = times.map(|mut times| {
        times.sort_by(f64::total_cmp);
        times[times.len() / 2]
    });
    Ok(Rate { all, parts: [front, passes, adjoint, cuda, ptx] })
}

fn main() -> Result<(), String> {
    let (json, files): (Vec<_>, Vec<_>) = std::env::args().skip(1).partition(|argument| argument == "--json");
    let mut sum = 0.0;
    for file in &files {
        let text = std::fs::read_to_string(file).map_err(|e| format!("{file}: {e}"))?;
        let run = once(file, &text)?;
        if run.kernels == 0 {
            return Err(format!("{file} has no kernel"));
        }
        let Rate { all, parts: [front, passes, adjoint, cuda, ptx] } = measure(file, &text)?;
        let [bytes, ptx_bytes] = run.bytes.map(|bytes| bytes / run.kernels);
        if json.is_empty() {
            println!(
                "{file}: {all:.0} us a kernel (front {front:.0}, passes {passes:.0}, adjoint {adjoint:.0}, CUDA {cuda:.0}), {bytes} bytes \
                 of CUDA; PTX {ptx:.0} us, {ptx_bytes} bytes"
            );
        } else {
            println!(
                "{{\"file\": {file:?}, \"us\": {all:.1}, \"front_us\": {front:.1}, \"passes_us\": {passes:.1}, \"adjoint_us\": \
                 {adjoint:.1}, \"cuda_us\": {cuda:.1}, \"cuda_bytes\": {bytes}, \
                 \"ptx_us\": {ptx:.1}, \"ptx_bytes\": {ptx_bytes}}}"
            );
        }
        sum += all;
    }
    if json.is_empty() && !files.is_empty() {
        println!("all, equally often: {:.0} kernels/s", 1e6 * files.len() as f64 / sum);
    }
    Ok(())
}
