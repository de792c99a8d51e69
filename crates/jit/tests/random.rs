//! Random kernels and their adjoints: what a launch leaves in memory is what the interpreter says, bit by bit, as all is f64 and its
//! functions are the same. `BULLET_LANG_KERNELS` and `BULLET_LANG_SEED` as of bullet-lang's.

mod common;
#[path = "../../lang/tests/random/generate.rs"]
mod generate;

use bullet_jit::Lanes;
use bullet_lang::adjoint::{AdjointOptions, Use, adjoint};
use bullet_lang::interp::{Arg, Array, Cells, Options as Run, run};
use bullet_lang::ir::{Kernel, Op};
use bullet_lang::{Options, compile};
use bullet_ops::DType;
use common::{Layout, launch, launch_as, program, program_in_order};
use generate::{COLUMNS, Random, module};

/// How many threads run each kernel: a round side by side, and some.
const THREADS: usize = 11;

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// `x`, `y`, `z`, `out`, `acc`, and the fields of `p`: floats at last, the integers in front of them.
fn arrays(random: &mut Random) -> Vec<Array<f64>> {
    let shapes: [(&[usize], usize); 8] = [
        (&[THREADS], 1),
        (&[THREADS], 1),
        (&[THREADS, COLUMNS], 1),
        (&[THREADS], 1),
        (&[THREADS], 1),
        (&[THREADS], 1),
        (&[THREADS], 1),
        (&[THREADS], 2),
    ];
    let array = |(shape, lanes): &(&[usize], usize)| {
        let count = shape.iter().product::<usize>() * lanes;
        let cells = (0..count).map(|_| random.signed() * 1.5).collect();
        Array { dtype: DType::F64, shape: shape.to_vec(), cells: Cells::Float(cells) }
    };
    let mut arrays: Vec<Array<f64>> = shapes.iter().map(array).collect();
    arrays.insert(6, Array::ints(DType::I32, &[2, 0, 1, 3, 1, 0, 0, 2, 5, 1, 4]));
    arrays
}

/// The parameters that have gradients, in the order of their arrays, and `s`.
const ACTIVE: [usize; 9] = [0, 1, 2, 3, 4, 7, 9, 10, 6];

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
    let kernel =
        &compile("random.py", &module(seed), Options::default()).unwrap_or_else(|e| panic!("{e}"))[0];
    let options = AdjointOptions {
        active: Some(&ACTIVE),
        overlapping: seed.is_multiple_of(2),
        checkpoints: seed.is_multiple_of(3),
    };
    let adjoint = adjoint(kernel, options).unwrap_or_else(|e| panic!("seed {seed}: {e:?}"));
    let mut random = Random::new(seed ^ 0xabcdef);
    let (before, s) = (arrays(&mut random), random.signed());
    let mut args: Vec<Arg<f64>> = (0..5).map(Arg::Array).collect();
    args.extend([Arg::Int(3), Arg::Float(s)]);
    args.extend((5..9).map(Arg::Array));
    let layout = if seed.is_multiple_of(3) { Layout::Strided } else { Layout::Contiguous };
    if both(kernel, &args, &before, layout, seed).is_none() {
        return;
    }
    let mut all: Vec<Array<f64>> = before.clone();
    let params = [0, 1, 2, 3, 4, 7, 8, 9, 10];
    for (array, usage) in all.iter_mut().zip(params.map(|param| &adjoint.uses[param])) {
        // What the adjoint says that it does not need must not matter.
        if let (Use::Shape, Cells::Float(cells)) = (usage, &mut array.cells) {
            cells.fill(f64::NAN);
        }
    }
    let mut weights = arrays(&mut random);
    weights.remove(6);
    all.extend(weights);
    all.push(Array::zeros(DType::F64, &[1], 1));
    args.extend((9..18).map(Arg::Array));
    both(&adjoint.kernel, &args, &all, layout, seed);
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
