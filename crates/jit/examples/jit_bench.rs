//! What the CPU backend costs: `cargo run --release -p bullet-jit --example jit_bench [runs] [kind] [cold]`, with `cold`
//! for code alone, without launches.
//!
//! Processor time from Python source to code, forward and adjoint, of the kinds in `examples/kernels/kinds`; time of launches of one
//! thread and of 2^20. The best of several runs each, as the machine may be shared.

use std::path::Path;
use std::time::Instant;

use bullet_jit::{Arg, Options, Program};
use bullet_lang::adjoint::{AdjointOptions, adjoint};
use bullet_lang::ir::{Kernel, Type};
use bullet_lang::{Options as Front, compile};

/// Threads of a large launch.
const LARGE: u32 = 1 << 20;

const LOOP: &str = "
import warp as wp

@wp.kernel
def loop_sin(x: wp.array(dtype=float), out: wp.array(dtype=float), n: int):
    i = wp.tid()
    state = x[i]
    for k in range(n):
        state = state + 0.1 * wp.sin(state)
    out[i] = state

@wp.kernel
def loop_mul(x: wp.array(dtype=float), out: wp.array(dtype=float), n: int):
    i = wp.tid()
    state = x[i]
    for k in range(n):
        state = state * 0.99 + 0.01 * float(k)
    out[i] = state
";

/// Arrays of a kernel, kept as long as the arguments.
struct Launch {
    _memory: Vec<Vec<u64>>,
    args: Vec<Arg>,
    grid: Vec<u32>,
}

/// Arguments for so many threads: floats in [0.3, 1.3], integers that are places.
fn arguments(kernel: &Kernel, threads: u32, int: u64) -> Launch {
    let side = if kernel.grid == 2 { f64::from(threads).sqrt() as usize } else { threads as usize };
    let (mut memory, mut args) = (vec![], vec![]);
    for &param in &kernel.params {
        match kernel.ty(param) {
            Type::Scalar(dtype) if dtype.is_float() => args.push(Arg::scalar(0.25f32.to_bits().into())),
            Type::Scalar(_) => args.push(Arg::scalar(int)),
            Type::Array(ty) => {
                let columns = if kernel.grid == 2 { side } else { 16 };
                let shape = match ty.ndim {
                    1 => vec![side],
                    _ => vec![side, columns],
                };
                let count = shape.iter().product::<usize>() * usize::from(ty.lanes);
                let mut words = vec![0u64; count / 2 + 1];
                // SAFETY: the words, in halves.
                let cells =
                    unsafe { std::slice::from_raw_parts_mut(words.as_mut_ptr().cast::<u32>(), count) };
                for (i, cell) in cells.iter_mut().enumerate() {
                    let float = 0.3 + (i as f32 * 0.618_034).fract();
                    *cell = if ty.dtype.is_float() { float.to_bits() } else { (i * 7 % side) as u32 };
                }
                let bytes = 4 * i64::from(ty.lanes);
                let (mut lengths, mut strides) = ([0; 4], [0; 4]);
                for (axis, &length) in shape.iter().enumerate() {
                    lengths[axis] = length as i32;
                    strides[axis] = bytes * shape[axis + 1..].iter().product::<usize>() as i64;
                }
                args.push(Arg::array(words.as_mut_ptr().cast(), lengths, strides));
                memory.push(words);
            }
        }
    }
    Launch { _memory: memory, args, grid: vec![side as u32; kernel.grid.into()] }
}

/// Seconds of the processor's time that this thread has used.
fn processor_seconds() -> f64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the call writes to the place it is given.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    time.tv_sec as f64 + 1e-9 * time.tv_nsec as f64
}

/// The least processor time of so many runs.
fn least(runs: usize, mut f: impl FnMut()) -> f64 {
    let time = |f: &mut dyn FnMut()| {
        let start = processor_seconds();
        f();
        processor_seconds() - start
    };
    (0..runs).map(|_| time(&mut f)).fold(f64::INFINITY, f64::min)
}

/// The best seconds of so many runs.
fn best(runs: usize, mut f: impl FnMut()) -> f64 {
    let time = |f: &mut dyn FnMut()| {
        let start = Instant::now();
        f();
        start.elapsed().as_secs_f64()
    };
    (0..runs).map(|_| time(&mut f)).fold(f64::INFINITY, f64::min)
}

fn launches(kernel: &Kernel, int: u64, runs: usize) -> Result<f64, String> {
    let program = Program::new(kernel, Options::default()).map_err(|e| e.to_string())?;
    let launch = arguments(kernel, LARGE, int);
    // SAFETY: arguments of the kernel's types.
    let run = || unsafe { program.launch(&launch.grid, &launch.args) };
    run().map_err(|e| e.to_string())?;
    Ok(best(runs, || drop(run())))
}

/// Nanoseconds of a launch of one thread.
fn small(kernel: &Kernel) -> Result<f64, String> {
    let program = Program::new(kernel, Options::default()).map_err(|e| e.to_string())?;
    let launch = arguments(kernel, 1, 1);
    let many = || {
        for _ in 0..1000 {
            // SAFETY: arguments of the kernel's types.
            let _ = unsafe { program.launch(&launch.grid, &launch.args) };
        }
    };
    Ok(best(50, many) * 1e6)
}

/// Processor seconds from source to code, forward and adjoint, and of the code alone; bytes of code.
fn cold(name: &str, text: &str, runs: usize) -> Result<(f64, f64, usize), String> {
    let parts = || {
        let kernels = compile(name, text, Front::default()).map_err(|e| e.to_string())?;
        let kernel = kernels.into_iter().next().ok_or("no kernel")?;
        let made = adjoint(&kernel, AdjointOptions::default()).map_err(|e| format!("{e:?}"))?;
        Ok::<_, String>((kernel, made.kernel))
    };
    let code = |(kernel, adjoint): &(Kernel, Kernel)| {
        let both = [kernel, adjoint].map(|kernel| Program::new(kernel, Options::default()));
        both.iter().map(|program| program.as_ref().map_or(0, Program::code_bytes)).sum::<usize>()
    };
    let kernels = parts()?;
    let all = least(runs, || _ = parts().map(|kernels| code(&kernels)));
    let back = least(runs, || _ = code(&kernels));
    Ok((all, back, code(&kernels)))
}

fn main() -> Result<(), String> {
    let runs = std::env::args().nth(1).and_then(|text| text.parse().ok()).unwrap_or(10);
    let only = std::env::args().nth(2);
    let is_cold = std::env::args().nth(3).is_some_and(|text| text == "cold");
    let is_wanted = |name: &str| only.as_deref().is_none_or(|only| name.contains(only));
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/kernels/kinds");
    let mut files: Vec<_> =
        std::fs::read_dir(folder).map_err(|e| e.to_string())?.flatten().map(|file| file.path()).collect();
    files.sort();
    println!(
        "{:<14}{:>10}{:>10}{:>8}{:>10}{:>12}{:>12}",
        "kind", "cold ms", "code ms", "bytes", "n=1 ns", "forward ms", "adjoint ms"
    );
    for file in &files {
        let name = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        if !is_wanted(&name) {
            continue;
        }
        let text = std::fs::read_to_string(file).map_err(|e| e.to_string())?;
        let (all, back, bytes) = cold(&name, &text, runs)?;
        let kernels = compile(&name, &text, Front::default()).map_err(|e| e.to_string())?;
        let made = adjoint(&kernels[0], AdjointOptions::default()).map_err(|e| format!("{e:?}"))?;
        let alone = small(&kernels[0])?;
        // Its first loop goes over a whole array, which for 2^20 threads is no benchmark.
        let (forward, back_time) = match name.as_str() {
            "loop" => (f64::NAN, f64::NAN),
            _ if is_cold => (f64::NAN, f64::NAN),
            _ => (launches(&kernels[0], LARGE.into(), runs)?, launches(&made.kernel, LARGE.into(), runs)?),
        };
        println!(
            "{name:<14}{:>10.2}{:>10.2}{bytes:>8}{alone:>10.0}{:>12.2}{:>12.2}",
            all * 1e3,
            back * 1e3,
            forward * 1e3,
            back_time * 1e3
        );
    }
    for kernel in compile("loop.py", LOOP, Front::default()).map_err(|e| e.to_string())? {
        if is_cold || !is_wanted(&kernel.name) {
            continue;
        }
        let made = adjoint(&kernel, AdjointOptions::default()).map_err(|e| format!("{e:?}"))?;
        let (forward, back) = (launches(&kernel, 100, runs)?, launches(&made.kernel, 100, runs)?);
        println!("{:<54}{:>12.2}{:>12.2}", format!("{}, 100 steps", kernel.name), forward * 1e3, back * 1e3);
    }
    Ok(())
}
