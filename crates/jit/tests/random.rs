//! Random kernels and their adjoints: what a launch leaves in memory is what the interpreter says, bit by bit, as all is f64 and its
//! functions are the same. `BULLET_LANG_KERNELS` and `BULLET_LANG_SEED` as of bullet-lang's.

#[path = "../../lang/tests/random/arguments.rs"]
mod arguments;
mod common;
#[path = "../../lang/tests/random/generate.rs"]
mod generate;

use arguments::Given;
use bullet_jit::Lanes;
use bullet_lang::interp::{Arg, Array, Options as Run, run};
use bullet_lang::ir::{Kernel, Op};
use common::{Layout, launch, launch_as, program, program_in_order};
use generate::module;

/// How many threads run each kernel: a round side by side, and some.
const THREADS: usize = 11;

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// Bit by bit, but for NaN, and for the order of sums by atomics between threads.
fn same(a: &[Array<f64>], b: &[Array<f64>], summed: &[bool]) -> bool {
    let equal = |a: &f64, b: &f64| a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan());
    let near = |a: &f64, b: &f64| (a - b).abs() <= 1e-9 * (1.0 + b.abs());
    let pairs = a.iter().zip(b).zip(summed);
    let mut cells = pairs.flat_map(|((a, b), &summed)| {
        a.as_floats().iter().zip(b.as_floats()).map(move |(a, b)| (a, b, summed))
    });
    a.len() == b.len() && cells.all(|(a, b, summed)| equal(a, b) || (summed && near(a, b)))
}

/// Which arrays a kernel updates by atomics.
fn summed(kernel: &Kernel, args: &[Arg<f64>], arrays: usize) -> Vec<bool> {
    let mut summed = vec![false; arrays];
    for inst in kernel.instructions() {
        let data = kernel.inst(inst);
        if let (Op::Atomic(_), Some(&array)) = (data.op, data.args.first())
            && let Some(number) = kernel.params.iter().position(|&param| param == array)
            && let Arg::Array(i) = args[number]
        {
            summed[i] = true;
        }
    }
    summed
}

/// Runs a kernel both ways; panics at a difference. None if it runs too long.
fn both(
    kernel: &Kernel,
    args: &[Arg<f64>],
    before: &[Array<f64>],
    layout: Layout,
    seed: u64,
) -> Option<Vec<Array<f64>>> {
    let mut after = before.to_vec();
    match run(kernel, &[THREADS], args, &mut after, Run { rounded: true, fuel: 1_000_000 }) {
        Ok(_) => {}
        Err(fault) if fault.to_string().contains("too long") => return None,
        Err(fault) => panic!("seed {seed}: {fault}\n{kernel}"),
    }
    let summed = summed(kernel, args, before.len());
    let lanes = if seed.is_multiple_of(2) { Lanes::Always } else { Lanes::Off };
    let found = launch(&program(kernel, lanes), kernel, &[THREADS as u32], args, before, layout)
        .unwrap_or_else(|e| panic!("seed {seed}: {e}\n{kernel}"));
    assert!(
        same(&found, &after, &summed),
        "seed {seed}: {found:?}, not {after:?}\n{}\n{kernel}",
        module(seed)
    );
    // In order it is the same without exceptions.
    let found =
        launch_as(true, &program_in_order(kernel, lanes), kernel, &[THREADS as u32], args, before, layout)
            .unwrap_or_else(|e| panic!("seed {seed}: {e}\n{kernel}"));
    assert!(
        same(&found, &after, &vec![false; before.len()]),
        "seed {seed}, in order: {found:?}, not {after:?}\n{}\n{kernel}",
        module(seed)
    );
    Some(after)
}

fn check(seed: u64) {
    let given = Given::new(seed, THREADS);
    let layout = if seed.is_multiple_of(3) { Layout::Strided } else { Layout::Contiguous };
    if both(&given.kernel, given.args(), &given.before, layout, seed).is_some() {
        both(&given.adjoint.kernel, given.args_adjoint(), &given.before_adjoint, layout, seed);
    }
}

#[test]
fn random_kernels_do_what_the_interpreter_says() {
    let (first, count) = (number("BULLET_LANG_SEED", 1), number("BULLET_LANG_KERNELS", 2000));
    let threads = std::thread::available_parallelism().map_or(2, |n| n.get().min(4)) as u64;
    std::thread::scope(|scope| {
        for thread in 0..threads {
            scope.spawn(move || {
                (first..first + count).filter(|seed| seed % threads == thread).for_each(check)
            });
        }
    });
}
