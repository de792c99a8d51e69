//! What launches in order cost on the CPU: `cargo run --release -p bullet-jit --example in_order_bench [runs]`.
//!
//! Milliseconds of 2^20 threads: as ever, in order with records on all cores, and in order on one core, which is what kernels
//! get that see the order. The best of several runs each, as the machine may be shared.

use std::time::Instant;

use bullet_jit::{Arg, Lanes, Options, Program};
use bullet_lang::adjoint::{AdjointOptions, adjoint};
use bullet_lang::ir::{Kernel, Type};
use bullet_lang::order::{Order, order};
use bullet_lang::{Options as Front, compile};

/// Threads of a launch, and elements of arrays with one dimension.
const THREADS: usize = 1 << 20;

const KERNELS: &str = "
import warp as wp

@wp.kernel
def total(x: wp.array(dtype=float), places: wp.array(dtype=int), out: wp.array(dtype=float)):
    wp.atomic_add(out, 0, x[wp.tid()])

@wp.kernel
def total_of_sines(x: wp.array(dtype=float), places: wp.array(dtype=int), out: wp.array(dtype=float)):
    y = x[wp.tid()]
    for k in range(10):
        y = wp.sin(y) * 1.5 + 0.1
    wp.atomic_add(out, 0, y)

@wp.kernel
def scatter(x: wp.array(dtype=float), places: wp.array(dtype=int), out: wp.array(dtype=float)):
    i = wp.tid()
    wp.atomic_add(out, places[i], x[i])

@wp.kernel
def gather(x: wp.array(dtype=float), places: wp.array(dtype=int), out: wp.array(dtype=float)):
    i = wp.tid()
    v = x[places[i]]
    out[i] = v * v

@wp.kernel
def stencil(x: wp.array(dtype=float), places: wp.array(dtype=int), out: wp.array(dtype=float)):
    i = wp.tid()
    n = x.shape[0]
    out[i] = x[wp.max(i - 1, 0)] + x[wp.min(i + 1, n - 1)] - 2.0 * x[i] * x[i]
";

/// The best milliseconds of so many runs.
fn best(runs: usize, mut f: impl FnMut()) -> f64 {
    let time = |f: &mut dyn FnMut()| {
        let start = Instant::now();
        f();
        start.elapsed().as_secs_f64() * 1e3
    };
    (0..runs).map(|_| time(&mut f)).fold(f64::INFINITY, f64::min)
}

/// Milliseconds as ever, with records, and one thread after the other.
fn measure(kernel: &Kernel, runs: usize) -> Result<[f64; 3], String> {
    let mut memory: Vec<Vec<u32>> = vec![];
    for &param in &kernel.params {
        let is_float = kernel.dtype(param).is_float();
        let number = |i: usize| match is_float {
            true => (0.3 + (i as f32 * 0.618_034).fract()).to_bits(),
            false => (i * 7919 % THREADS) as u32,
        };
        memory.push((0..THREADS).map(number).collect());
    }
    let args: Vec<Arg> = memory
        .iter_mut()
        .zip(&kernel.params)
        .map(|(cells, &param)| match kernel.ty(param) {
            Type::Array(_) => Arg::array(cells.as_mut_ptr().cast(), [THREADS as i32, 0, 0, 0], [4, 0, 0, 0]),
            Type::Scalar(_) => Arg::scalar(1),
        })
        .collect();
    let program = |options| Program::new(kernel, options).map_err(|e| e.to_string());
    let ever = program(Options::default())?;
    let records = program(Options { records: true, ..Options::default() })?;
    let alone = program(Options { lanes: Lanes::Off, ..Options::default() })?;
    let grid = [THREADS as u32];
    // SAFETY: arguments of the kernel's types, each its own memory.
    let time = |program: &Program, in_order: bool| unsafe {
        best(runs, || {
            let done =
                if in_order { program.launch_in_order(&grid, &args) } else { program.launch(&grid, &args) };
            done.unwrap_or_else(|e| panic!("{e}"));
        })
    };
    Ok([time(&ever, false), time(&records, true), time(&alone, true)])
}

fn main() -> Result<(), String> {
    let runs = std::env::args().nth(1).and_then(|text| text.parse().ok()).unwrap_or(20);
    println!("{:<24}{:>12}{:>12}{:>12}", "kernel, 2^20 threads", "as ever ms", "in order ms", "one core ms");
    for kernel in compile("bench.py", KERNELS, Front::default()).map_err(|e| e.to_string())? {
        let options = AdjointOptions { active: Some(&[0, 2]), ..AdjointOptions::default() };
        let made = adjoint(&kernel, options).map_err(|e| format!("{e:?}"))?.kernel;
        for kernel in [&kernel, &made].into_iter().filter(|kernel| order(kernel, true) == Order::Records) {
            let [ever, records, alone] = measure(kernel, runs)?;
            println!("{:<24}{ever:>12.2}{records:>12.2}{alone:>12.2}", kernel.name);
        }
    }
    Ok(())
}
