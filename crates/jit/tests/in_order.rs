//! Launches in order: on all cores, with work of uneven length, they leave what the interpreter leaves, bit by bit.

#[allow(dead_code)]
mod common;

use bullet_jit::{FaultKind, Lanes, Options, Program};
use bullet_lang::adjoint::{AdjointOptions, adjoint};
use bullet_lang::interp::{Arg, Array, Cells, Options as Run, run};
use bullet_lang::ir::Kernel;
use bullet_lang::order::{Order, order, updates_once};
use bullet_lang::{Options as Front, compile};
use bullet_ops::DType;
use common::{Layout, launch_as, program_in_order};

/// Sums to few elements, of vectors, to one's own, and an extreme; how long a thread takes is anybody's guess.
const UNEVEN: &str = "
import warp as wp

@wp.kernel
def uneven(x: wp.array(dtype=TYPE), few: wp.array(dtype=TYPE), most: wp.array(dtype=TYPE), own: wp.array(dtype=TYPE)):
    i = wp.tid()
    y = x[i]
    for k in range((i * 7919) % 61):
        y = y * TYPE(0.75) + TYPE(0.125)
        if k % 3 == 0:
            wp.atomic_add(few, (i + k) % few.shape[0], y)
    wp.atomic_sub(few, 0, x[i])
    wp.atomic_max(most, i % most.shape[0], y)
    own[i] += y
";

fn kernel(text: &str) -> Kernel {
    let all = compile("test.py", text, Front::default()).unwrap_or_else(|e| panic!("{e}"));
    all.into_iter().next().expect("a kernel")
}

fn floats(dtype: DType, count: usize, scale: f64) -> Array<f64> {
    let number = |i: usize| ((i as f64 * 0.754_877_666_246_693).fract() - 0.4) * scale;
    Array::floats(dtype, &(0..count).map(number).collect::<Vec<_>>())
}

/// The bits of everything.
fn bits(arrays: &[Array<f64>]) -> Vec<u64> {
    arrays.iter().flat_map(|array| array.as_floats().iter().map(|x| x.to_bits())).collect()
}

/// What the interpreter leaves is what every launch leaves.
fn check(kernel: &Kernel, threads: usize, arrays: &[Array<f64>], context: &str) {
    let args: Vec<Arg<f64>> = (0..arrays.len()).map(Arg::Array).collect();
    let mut expected = arrays.to_vec();
    run(kernel, &[threads], &args, &mut expected, Run { rounded: true, fuel: u64::MAX })
        .unwrap_or_else(|e| panic!("{e}"));
    for lanes in [Lanes::Off, Lanes::Always] {
        let program = program_in_order(kernel, lanes);
        for _ in 0..3 {
            let grid = [threads as u32];
            let found = launch_as(true, &program, kernel, &grid, &args, arrays, Layout::Contiguous)
                .unwrap_or_else(|e| panic!("{e}"));
            assert!(bits(&found) == bits(&expected), "{context}, {threads} threads, {lanes:?}");
        }
    }
}

#[test]
fn uneven_work_gives_the_bits_of_the_interpreter() {
    for (name, dtype) in [
        ("wp.float16", DType::F16),
        ("wp.bfloat16", DType::BF16),
        ("wp.float32", DType::F32),
        ("wp.float64", DType::F64),
    ] {
        let kernel = kernel(&UNEVEN.replace("TYPE", name));
        assert_eq!(order(&kernel, true), Order::Records);
        for threads in [1, 100, 30_000] {
            let arrays = [floats(dtype, threads, 1.0), floats(dtype, 17, 0.1), floats(dtype, 3, 0.1)];
            let arrays = [&arrays[..], &[floats(dtype, threads, 1.0)]].concat();
            check(&kernel, threads, &arrays, name);
        }
    }
}

#[test]
fn lanes_keep_the_order() {
    let text = "
import warp as wp

@wp.kernel
def once(x: wp.array(dtype=float), few: wp.array(dtype=wp.vec2), total: wp.array(dtype=float)):
    i = wp.tid()
    y = x[i] * 0.75 + 0.125
    if y > 0.0:
        wp.atomic_add(few, (i * 7919) % few.shape[0], wp.vec2(y, x[i]))
    wp.atomic_add(total, 0, y / (1.0 + x[i] * x[i]))
";
    let kernel = kernel(text);
    assert!(updates_once(&kernel, true));
    for threads in [7, 1000, 30_003] {
        let mut few = floats(DType::F32, 22, 1.0);
        few.shape = vec![11];
        check(&kernel, threads, &[floats(DType::F32, threads, 1.0), few, floats(DType::F32, 1, 1.0)], "once");
    }
}

#[test]
fn adjoints_do_the_same() {
    let text = "
import warp as wp

@wp.kernel
def blur(x: wp.array(dtype=float), y: wp.array(dtype=float)):
    i = wp.tid()
    n = x.shape[0]
    s = float(0.0)
    for k in range(5):
        s += x[(i + k * k) % n] * x[i % 7] / (1.0 + float(k))
    y[i] = s
";
    let kernel = kernel(text);
    assert_eq!(order(&kernel, true), Order::Free);
    let made = adjoint(&kernel, AdjointOptions::default()).unwrap_or_else(|e| panic!("{e:?}")).kernel;
    assert_eq!(order(&made, true), Order::Records);
    for threads in [5, 1000, 1 << 16] {
        let array = || floats(DType::F32, threads, 1.0);
        check(&made, threads, &[array(), array(), array(), array()], "blur");
    }
}

#[test]
fn kernels_that_see_the_order_run_one_thread_after_the_other() {
    let text = "
import warp as wp

@wp.kernel
def compact(x: wp.array(dtype=float), count: wp.array(dtype=int), out: wp.array(dtype=float)):
    i = wp.tid()
    if x[i] > 0.0:
        out[wp.atomic_add(count, 0, 1)] = x[i]
";
    let kernel = kernel(text);
    let Order::Serial(why) = order(&kernel, true) else { panic!("its order is seen") };
    assert_eq!(
        why.message,
        "the old value that an atomic update of `count` gives is used, which depends on the order of threads"
    );
    let threads = 1 << 16;
    let count = Array { dtype: DType::I32, shape: vec![1], cells: Cells::Int(vec![0]) };
    check(
        &kernel,
        threads,
        &[floats(DType::F32, threads, 1.0), count, floats(DType::F32, threads, 0.0)],
        "compact",
    );
}

#[test]
fn the_first_fault_is_always_the_same() {
    let text = "
import warp as wp

@wp.kernel
def bad(x: wp.array(dtype=float), out: wp.array(dtype=float)):
    i = wp.tid()
    wp.atomic_add(out, 0, x[i])
    assert i % 20011 != 20010
";
    let kernel = kernel(text);
    let program = program_in_order(&kernel, Lanes::Auto);
    let (threads, args) = (1 << 18, [Arg::Array(0), Arg::Array(1)]);
    let arrays = [floats(DType::F32, threads, 1.0), floats(DType::F32, 1, 1.0)];
    for _ in 0..4 {
        let fault = launch_as(true, &program, &kernel, &[threads as u32], &args, &arrays, Layout::Contiguous)
            .expect_err("an assertion fails");
        assert_eq!((fault.kind, &fault.thread[..]), (FaultKind::Assert, &[20010][..]));
    }
}

#[test]
fn images_keep_that_a_program_records() {
    let kernel = kernel(&UNEVEN.replace("TYPE", "wp.float32"));
    let program = program_in_order(&kernel, Lanes::Auto);
    let again = Program::from_bytes(&program.to_bytes().expect("bytes")).expect("the same program");
    let args: Vec<Arg<f64>> = (0..4).map(Arg::Array).collect();
    let arrays: Vec<Array<f64>> =
        [1000, 5, 2, 1000].map(|count| floats(DType::F32, count, 1.0)).into_iter().collect();
    let left = |program| {
        launch_as(true, program, &kernel, &[1000], &args, &arrays, Layout::Strided).expect("no fault")
    };
    assert!(bits(&left(&program)) == bits(&left(&again)));
    let plain = Program::new(&kernel, Options::default()).expect("a program");
    assert!(plain.to_bytes().expect("bytes") != program.to_bytes().expect("bytes"));
}
