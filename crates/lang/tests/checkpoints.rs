//! Long loops whose tape is cut into segments: the gradients stay exact, the tape gets short.

use bullet_lang::adjoint::{Adjoint, AdjointOptions, Tape, adjoint};
use bullet_lang::emit::cuda::{CudaOptions, source};
use bullet_lang::interp::{Arg, Array, Options as Run, run_measured};
use bullet_lang::ir::Kernel;
use bullet_lang::{Options, compile};
use bullet_ops::DType;

fn made(body: &str, checkpoints: bool) -> Adjoint {
    let lines: Vec<String> = body.lines().map(|line| format!("    {line}\n")).collect();
    let text = format!(
        "import warp as wp\n@wp.kernel\ndef k(x: wp.array(dtype=wp.float64), out: wp.array(dtype=wp.float64), n: int, m: \
         int):\n    i = wp.tid()\n{}",
        lines.concat()
    );
    let kernel = compile("k.py", &text, Options::default()).unwrap_or_else(|e| panic!("{e}")).remove(0);
    let options = AdjointOptions { checkpoints, ..AdjointOptions::default() };
    adjoint(&kernel, options).unwrap_or_else(|e| panic!("{e:?}"))
}

/// The gradient of the sum of `out` by `x`, and the most words of a thread's tape.
fn gradient(made: &Adjoint, x: &[f64], n: i64, m: i64) -> (Vec<f64>, u64) {
    let mut arrays: Vec<Array<f64>> = vec![
        Array::floats(DType::F64, x),
        Array::zeros(DType::F64, &[x.len()], 1),
        Array::zeros(DType::F64, &[x.len()], 1),
        Array::floats(DType::F64, &vec![1.0; x.len()]),
    ];
    let args = [Arg::Array(0), Arg::Array(1), Arg::Int(n), Arg::Int(m), Arg::Array(2), Arg::Array(3)];
    let mut peak = 0;
    run_measured(&made.kernel, &[x.len()], &args, &mut arrays, Run::default(), &mut peak)
        .unwrap_or_else(|e| panic!("{e}\n{}", made.kernel));
    (arrays[2].as_floats().to_vec(), peak)
}

/// With and without checkpoints, bit by bit, for several lengths.
fn same(body: &str, lengths: &[(i64, i64)]) {
    let (whole, cut) = (made(body, false), made(body, true));
    let text = cut.kernel.to_string();
    assert_eq!(Kernel::parse(&text).unwrap_or_else(|e| panic!("{e}\n{text}")).to_string(), text);
    for &(n, m) in lengths {
        let (expected, _) = gradient(&whole, &[0.3, -0.7, 1.1], n, m);
        let (found, _) = gradient(&cut, &[0.3, -0.7, 1.1], n, m);
        assert_eq!(found, expected, "{n} {m}: {body}\n{text}");
    }
}

#[test]
fn a_loop_of_a_million_runs_keeps_some_thousand_words() {
    let body = "s = x[i]\nfor k in range(n):\n    s = wp.sin(s) + 0.001 * s * s\nout[i] = s";
    let cut = made(body, true);
    assert_eq!(cut.tape, Tape::Measured);
    let (found, peak) = gradient(&cut, &[0.5], 1_000_000, 0);
    assert!((3_000..8_500).contains(&peak), "{peak} words");
    let (expected, whole) = gradient(&made(body, false), &[0.5], 1_000_000, 0);
    assert_eq!(found, expected);
    assert_eq!(whole, 2_000_000);
    assert!(source(&[&cut.kernel], CudaOptions::default()).contains("tape_words_needed"));
}

#[test]
fn gradients_are_those_of_the_whole_tape() {
    let lengths = [(0, 1), (1, 0), (2, 3), (7, 5), (16, 2), (63, 1), (100, 4), (-3, 2)];
    same("s = x[i]\nfor k in range(n):\n    s = s * s - 0.9\nout[i] = s", &lengths);
    same(
        "s = x[i]\nfor k in range(n, 0, -1):\n    s = wp.sin(s) * x[k % 3] + float(0.0) * 0.0\nout[i] = s"
            .replace("float(0.0) * 0.0", "s")
            .as_str(),
        &lengths,
    );
    same(
        "s = x[i]\nt = x[0]\nfor k in range(-2, n, 3):\n    if s > 0.2:\n        s, t = t * s, s - t\n    else:\n        s = s + wp.cos(t)\nout[i] = s * t",
        &lengths,
    );
    // Loops in loops, of lengths known at the top and of others.
    same(
        "s = x[i]\nfor k in range(n):\n    for j in range(m):\n        s = wp.sin(s + x[j % 3])\nout[i] = s",
        &lengths,
    );
    same(
        "s = x[i]\nfor k in range(n):\n    for j in range(k % 4):\n        s = wp.sin(s + x[j % 3])\nout[i] = s",
        &lengths,
    );
    same(
        "s = x[i]\nfor k in range(n):\n    t = s\n    while t > 0.5:\n        t = 0.7 * wp.sin(t)\n    s = wp.sin(s) + t\nout[i] = s",
        &lengths,
    );
    // In a branch, two in a row, and what is read behind.
    same(
        "s = x[i]\nif s > 0.0:\n    for k in range(n):\n        s = wp.sin(s)\nfor k in range(m):\n    s = s * s\nout[i] = s",
        &lengths,
    );
    same(
        "s = x[i]\nfor k in range(n):\n    s = wp.tanh(s) * 1.5\n    if k == m:\n        x[i] = s\nout[i] = s",
        &lengths,
    );
    same("s = x[i]\nfor k in range(200):\n    s = wp.sin(s)\nout[i] = s", &[(0, 0)]);
    // An array of the thread's own is filled once: such a loop keeps all.
    same(
        "l = wp.zeros(shape=3, dtype=wp.float64)\nl[0] = x[i]\nfor k in range(n):\n    l[k % 3] = wp.sin(l[(k + 1) % 3] + x[i])\nout[i] = l[1]",
        &lengths,
    );
}

#[test]
fn linear_loops_need_no_checkpoints() {
    let cut = made("s = x[i]\nfor k in range(n):\n    s = 0.5 * s + x[k]\nout[i] = s", true);
    assert_eq!(cut.tape, Tape::Words(0));
}
