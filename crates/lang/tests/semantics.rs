//! What kernels compute, where Warp's users expect it and Python or C++ would differ; and what adjoints are, where others
//! are wrong.

use bullet_lang::adjoint::{Adjoint, AdjointOptions, Tape, Use, adjoint};
use bullet_lang::interp::{Arg, Array, Options as Run, run};
use bullet_lang::ir::Kernel;
use bullet_lang::{Options, compile};
use bullet_ops::DType;

/// The kernel `k` of a body, in which `i` is the thread, `x` and `out` are float arrays and `n` an int.
fn kernel(body: &str) -> Kernel {
    let lines: Vec<String> = body.lines().map(|line| format!("    {line}\n")).collect();
    let text = format!(
        "import warp as wp\n\n@wp.kernel\ndef k(x: wp.array(dtype=float), out: wp.array(dtype=float), n: int):\n    \
         i = wp.tid()\n{}",
        lines.concat()
    );
    compile("test.py", &text, Options::default()).unwrap_or_else(|e| panic!("{e}")).remove(0)
}

/// What a kernel leaves in `out`, for a thread an element.
fn outputs(body: &str, x: &[f64]) -> Vec<f64> {
    let mut arrays: Vec<Array<f64>> =
        vec![Array::floats(DType::F32, x), Array::zeros(DType::F32, &[x.len()], 1)];
    let args = [Arg::Array(0), Arg::Array(1), Arg::Int(x.len() as i64)];
    run(&kernel(body), &[x.len()], &args, &mut arrays, Run::default()).unwrap_or_else(|e| panic!("{e}"));
    arrays[1].as_floats().to_vec()
}

fn differentiated(body: &str) -> Adjoint {
    adjoint(&kernel(body), AdjointOptions::default()).unwrap_or_else(|e| panic!("{e:?}"))
}

/// The gradient of the sum of `out` by `x`.
fn gradient(body: &str, x: &[f64]) -> Vec<f64> {
    let made = differentiated(body);
    let mut arrays: Vec<Array<f64>> = vec![
        Array::floats(DType::F32, x),
        Array::zeros(DType::F32, &[x.len()], 1),
        Array::zeros(DType::F32, &[x.len()], 1),
        Array::floats(DType::F32, &vec![1.0; x.len()]),
    ];
    let args = [Arg::Array(0), Arg::Array(1), Arg::Int(x.len() as i64), Arg::Array(2), Arg::Array(3)];
    run(&made.kernel, &[x.len()], &args, &mut arrays, Run::default()).unwrap_or_else(|e| panic!("{e}"));
    arrays[2].as_floats().to_vec()
}

#[test]
fn division_and_rounding_are_warps() {
    let x = [-7.0, 7.0, -2.5, 2.5, 3.5];
    assert_eq!(outputs("out[i] = x[i] % 3.0", &x), [-1.0, 1.0, -2.5, 2.5, 0.5]);
    assert_eq!(outputs("out[i] = x[i] // 3.0", &x), [-3.0, 2.0, -1.0, 0.0, 1.0]);
    assert_eq!(outputs("out[i] = wp.round(x[i])", &x), [-7.0, 7.0, -3.0, 3.0, 4.0]);
    assert_eq!(outputs("out[i] = wp.rint(x[i])", &x), [-7.0, 7.0, -2.0, 2.0, 4.0]);
    assert_eq!(outputs("out[i] = float(int(x[i]))", &x), [-7.0, 7.0, -2.0, 2.0, 3.0]);
    assert_eq!(outputs("out[i] = float(int(x[i]) // 2)", &x), [-4.0, 3.0, -1.0, 1.0, 1.0]);
    assert_eq!(outputs("out[i] = float(int(x[i]) // -2)", &x), [3.0, -4.0, 1.0, -1.0, -2.0]);
    assert_eq!(outputs("out[i] = float(wp.floordiv(int(x[i]), n))", &x), [-2.0, 1.0, -1.0, 0.0, 0.0]);
    assert_eq!(outputs("out[i] = float(-7 // 2 + int(wp.uint32(7) // wp.uint32(2)))", &x[..1]), [-1.0]);
    assert!(kernel("out[i] = float(i // 4)").to_string().lines().count() < 8);
    assert_eq!(outputs("out[i] = float(int(x[i]) % 3)", &x), [-1.0, 1.0, -2.0, 2.0, 0.0]);
    assert_eq!(outputs("out[i] = wp.sign(x[i]) + wp.step(x[i])", &x), [0.0, 1.0, 0.0, 1.0, 1.0]);
}

#[test]
fn integers_wrap_and_convert() {
    assert_eq!(outputs("a = 2147483647\nout[i] = float(a + 1)", &[0.0]), [-2147483648.0]);
    assert_eq!(outputs("a = wp.uint8(250)\nout[i] = float(a + 10)", &[0.0]), [4.0]);
    assert_eq!(outputs("out[i] = float(wp.int8(x[i]))", &[1000.0, -1000.0]), [127.0, -128.0]);
    assert_eq!(outputs("out[i] = float(1 << 4 | 3)", &[0.0]), [19.0]);
    assert_eq!(outputs("out[i] = float(wp.cast(wp.cast(x[i], wp.int32), wp.float32))", &[1.5]), [1.5]);
}

#[test]
fn control_flow_leaves_as_python_does() {
    let body = "s = 0.0\nfor k in range(10):\n    if k == 2:\n        continue\n    if float(k) > x[i]:\n        break\n    s += \
                float(k)\nout[i] = s + float(k)";
    // The loop's variable keeps its value, and `range(10)` of literals runs.
    assert_eq!(outputs(body, &[4.0, 20.0, -1.0]), [13.0, 52.0, 0.0]);
    let body = "if x[i] < 0.0:\n    return\nfor k in range(5):\n    for j in range(5):\n        if float(k * j) >= x[i]:\n            \
                out[i] = float(10 * k + j)\n            return\nout[i] = -1.0";
    assert_eq!(outputs(body, &[-1.0, 0.0, 6.0, 100.0]), [0.0, 0.0, 23.0, -1.0]);
    let body = "t = x[i]\nwhile True:\n    t = t * 0.5\n    if t < 1.0:\n        break\nout[i] = t";
    assert_eq!(outputs(body, &[8.0, 0.5]), [0.5, 0.25]);
    // What stands behind `and` is not read where it would be out of bounds.
    let body = "if i > 0 and x[i - 1] > 0.0:\n    out[i] = 1.0";
    assert_eq!(outputs(body, &[1.0, -1.0, 1.0]), [0.0, 1.0, 0.0]);
}

#[test]
fn what_a_gpu_leaves_open_is_a_fault() {
    let fault = |body: &str| {
        let mut arrays: Vec<Array<f64>> =
            vec![Array::zeros(DType::F32, &[2], 1), Array::zeros(DType::F32, &[2], 1)];
        let args = [Arg::Array(0), Arg::Array(1), Arg::Int(0)];
        let run = run(&kernel(body), &[2], &args, &mut arrays, Run { fuel: 10_000, ..Run::default() });
        run.expect_err("a fault").to_string()
    };
    assert_eq!(fault("out[i + 1] = 1.0"), "k, thread [1]: index 2 of `out` is outside 0 to 2 in dimension 0");
    assert_eq!(fault("out[i] = float(i / n)"), "k, thread [0]: div 0, 0 of i32 is undefined");
    assert_eq!(
        fault("t = x[i]\nwhile t < 1.0:\n    t = t * 0.5\nout[i] = t"),
        "k, thread [0]: the kernel runs too long"
    );
    assert_eq!(fault("assert i < 1, \"one thread\""), "k, thread [1]: one thread");
}

#[test]
fn what_is_not_taken_has_no_gradient() {
    // The derivative of the root is infinite at 0.
    assert_eq!(gradient("out[i] = wp.where(x[i] > 0.0, wp.sqrt(x[i]), 0.0)", &[0.0, 4.0]), [0.0, 0.25]);
    assert_eq!(gradient("r = wp.sqrt(x[i])\nif x[i] > 0.0:\n    out[i] = r", &[0.0, 4.0]), [0.0, 0.25]);
    assert_eq!(
        gradient("r = 1.0 / x[i]\nout[i] = wp.min(r * x[i], 1.0) if x[i] > 0.0 else 2.0", &[0.0]),
        [0.0]
    );
    assert_eq!(gradient("r = wp.log(x[i])\nfor k in range(n - 2):\n    out[i] = r", &[0.0, 2.0]), [0.0, 0.0]);
    assert_eq!(gradient("out[i] = wp.log(x[i])\nout[i] = x[i]", &[0.0]), [1.0]);
    assert_eq!(gradient("out[i] = wp.length(wp.vec2(x[i], 0.0))", &[3.0]), [1.0]);
    assert_eq!(gradient("out[i] = wp.normalize(wp.vec2(x[i], 0.0)).x", &[0.0]), [0.0]);
}

#[test]
fn slopes_at_kinks_are_as_documented() {
    assert_eq!(gradient("out[i] = wp.abs(x[i])", &[0.0, -1.0]), [1.0, -1.0]);
    assert_eq!(gradient("out[i] = wp.min(x[i], 0.0)", &[0.0, -1.0, 1.0]), [0.0, 1.0, 0.0]);
    assert_eq!(gradient("out[i] = wp.max(0.0, x[i])", &[0.0, -1.0, 1.0]), [1.0, 0.0, 1.0]);
    assert_eq!(gradient("out[i] = wp.floor(x[i]) + wp.sign(x[i]) + float(int(x[i]))", &[0.5]), [0.0]);
    assert_eq!(gradient("out[i] = wp.atan2(x[i], x[i])", &[0.0]), [0.0]);
    assert_eq!(
        gradient("out[i] = wp.pow(2.0, x[i]) + wp.pow(0.0, 1.0 + x[i])", &[0.0]),
        [std::f32::consts::LN_2.into()]
    );
}

#[test]
fn loops_are_differentiated_as_often_as_they_ran() {
    // A product of what is carried, two runs each.
    let body = "p = x[i]\nfor k in range(n):\n    p = p * p\nout[i] = p";
    assert_eq!(gradient(body, &[2.0, 3.0]), [32.0, 108.0]);
    let body = "p = x[i]\nwhile p < 100.0:\n    p = p * p\nout[i] = p";
    assert_eq!(gradient(body, &[2.0, 200.0]), [1024.0, 1.0]);
    // Updates of the thread's own element, read between and behind.
    let body = "out[i] += x[i]\nfor k in range(2):\n    out[i] += out[i] * x[i]";
    assert_eq!(gradient(body, &[2.0]), [21.0]);
    // Stored and read again, twice over.
    let body = "out[i] = x[i]\nfor k in range(2):\n    out[i] = out[i] * out[i]";
    assert_eq!(gradient(body, &[2.0]), [32.0]);
}

#[test]
fn tapes_hold_what_is_not_linear() {
    let tape = |body: &str| differentiated(body).tape;
    assert_eq!(tape("s = 0.0\nfor k in range(n):\n    s += x[k] * x[i]\nout[i] = s"), Tape::Words(0));
    assert_eq!(tape("s = x[i]\nfor k in range(n):\n    s = 0.5 * s + x[k]\nout[i] = s"), Tape::Words(0));
    assert_eq!(tape("s = x[i]\nfor k in range(n):\n    s = wp.sin(s)\nout[i] = s"), Tape::Measured);
    assert_eq!(tape("s = x[i]\nfor k in range(100):\n    s = wp.sin(s)\nout[i] = s"), Tape::Words(100));
    // Short loops are written out.
    assert_eq!(tape("s = x[i]\nfor k in range(8):\n    s = wp.sin(s)\nout[i] = s"), Tape::Words(0));
    // The counter of a loop that can be left follows from the number of the run.
    assert_eq!(
        tape("for k in range(n):\n    if x[k] > 3.0:\n        break\n    out[i] = x[k]"),
        Tape::Words(0)
    );
}

#[test]
fn loops_are_written_out_only_while_that_is_short() {
    let nested = |depth: usize| {
        let heads: Vec<String> =
            (0..depth).map(|d| format!("{}for k{d} in range(16):\n", "    ".repeat(d))).collect();
        let body =
            format!("s = x[i]\n{}{}s = 0.5 * s + 1.0\nout[i] = s", heads.concat(), "    ".repeat(depth));
        kernel(&body).to_string().lines().count()
    };
    assert!(nested(1) > 32 && nested(1) < 60, "{}", nested(1));
    assert!(nested(5) < 600, "{}", nested(5));
}

#[test]
fn arrays_are_copied_only_where_they_must() {
    let uses = |body: &str| differentiated(body).uses[..2].to_vec();
    assert_eq!(uses("out[i] = x[i]"), [Use::Shape, Use::Shape]);
    assert_eq!(uses("out[i] = x[i] * x[i]"), [Use::Unchanged, Use::Shape]);
    assert_eq!(uses("x[i] = x[i] * x[i]"), [Use::Unchanged, Use::Shape]);
    assert_eq!(uses("x[i] = x[i] * x[i]\nout[i] = x[i]"), [Use::Scratch, Use::Shape]);
}

#[test]
fn random_numbers_are_warps() {
    // rand_init and randf by hand, for seed 42 and offset 0.
    let pcg = |state: u32| {
        let b = state.wrapping_mul(747_796_405).wrapping_add(2_891_336_453);
        let c = ((b >> ((b >> 28) + 4)) ^ b).wrapping_mul(277_803_737);
        (c >> 22) ^ c
    };
    let state = pcg(42u32.wrapping_add(pcg(0)));
    let (first, second) = (pcg(state), pcg(pcg(state)));
    let unit = |state: u32| f64::from((state >> 8) as f32 * (1.0 / 16_777_216.0));
    let body = "s = wp.rand_init(42, i)\na = wp.randf(s)\nout[i] = a + 2.0 * wp.randf(s)";
    let expected = (unit(first) as f32 + 2.0 * unit(second) as f32).into();
    assert_eq!(outputs(body, &[0.0]), [expected]);
    // Draws in a loop go on.
    let body = "s = wp.rand_init(42, i)\nt = 0.0\nfor k in range(n + 1):\n    t += wp.randf(s)\nout[i] = t";
    assert_eq!(outputs(body, &[0.0]), [f64::from(unit(first) as f32 + unit(second) as f32)]);
}

#[test]
fn components_are_found_by_an_index_of_run_time_or_it_is_a_fault() {
    let body = "v = wp.vec3(1.0, 2.0, 3.0)\nout[i] = v[int(x[i])]";
    assert_eq!(outputs(body, &[0.0, 2.0, -1.0, -3.0]), [1.0, 3.0, 3.0, 1.0]);
    let wrong = [
        (body, 3.0, "index 3 is outside of 3 components"),
        (body, -4.0, "index -4 is outside of 3 components"),
        ("q = wp.quat_identity()\nj = int(x[i])\nq[j] = 2.0\nout[i] = q[3]", 4.0, "outside of 4 components"),
        ("m = wp.identity(n=2, dtype=float)\nout[i] = m[0, int(x[i])]", 2.0, "outside of 2 columns"),
        ("m = wp.identity(n=2, dtype=float)\nr = m[int(x[i])]\nout[i] = r[0]", -3.0, "outside of 2 rows"),
        ("a = wp.zeros(shape=(2, 3), dtype=float)\nout[i] = a[0, int(x[i])]", 3.0, "outside of dimension 1"),
        (
            "a = wp.zeros(shape=(2, 3), dtype=float)\nb = a[int(x[i])]\nout[i] = b[0]",
            2.0,
            "outside of dimension 0",
        ),
        ("a = x[0:1]\nout[i] = a[int(x[i])]", 1.0, "outside of a slice"),
        ("t = (1.0, 2.0)[int(x[i])]\nout[i] = t", 2.0, "outside of 2 items"),
    ];
    for (body, index, expected) in wrong {
        let mut arrays: Vec<Array<f64>> =
            vec![Array::floats(DType::F32, &[index, 0.0]), Array::zeros(DType::F32, &[2], 1)];
        let args = [Arg::Array(0), Arg::Array(1), Arg::Int(2)];
        let fault = run(&kernel(body), &[1], &args, &mut arrays, Run::default()).expect_err(body);
        assert!(fault.to_string().contains(expected), "{body}\n{fault}");
    }
}

#[test]
fn indices_that_are_surely_in_range_are_not_checked() {
    let in_range = [
        "v = wp.vec3(x[i])\nfor k in range(3):\n    out[i] = v[k]",
        "v = wp.types.vector(length=40, dtype=float)(x[i])\nfor k in range(40):\n    out[i] = v[k]",
        "v = wp.vec3(x[i])\nfor k in range(n):\n    out[i] = v[k % 3]",
        "v = wp.vec3(x[i])\nout[i] = v[wp.clamp(n, 0, 2)]",
        "v = wp.vec3(x[i])\nout[i] = v[n & 1]",
        "v = wp.vec3(x[i])\nif n >= 0 and n < 3:\n    out[i] = v[n]",
        "v = wp.vec3(x[i])\nif n < 0:\n    return\nif n > 2:\n    return\nout[i] = v[n]",
        "a = wp.zeros(shape=(3, 4), dtype=float)\nfor k in range(3):\n    for j in range(4):\n        out[i] = a[k, j]",
        "a = x[1:n]\nfor k in range(len(a)):\n    out[i] = a[k]",
        "s = float(0.0)\nfor c in (1.0, 2.0, 4.0):\n    s += c\nout[i] = s",
    ];
    for body in in_range {
        let text = kernel(body).to_string();
        assert!(!text.contains("within"), "{body}\n{text}");
    }
    // One that may be out of range is checked once.
    let text = kernel("v = wp.vec3(x[i])\nv[n] = v[n] + v[n]\nout[i] = v[n]").to_string();
    assert_eq!(text.matches("within").count(), 1, "{text}");
}

#[test]
fn loops_go_over_tuples_and_vectors() {
    let body = "s = float(0.0)\nfor c in (1.0, 2.0, 4.0):\n    if c > x[i]:\n        continue\n    s += c\nfor c in wp.vec2(10.0, \
                20.0):\n    s += c\nout[i] = s + float(len((1, 2)))";
    assert_eq!(outputs(body, &[0.0, 2.0, 9.0]), [32.0, 35.0, 39.0]);
    let body = "t = (wp.vec2(1.0, 2.0), wp.vec2(3.0, 4.0))[i % 2]\nout[i] = t[1] * x[i]";
    assert_eq!(gradient(body, &[1.0, 1.0]), [2.0, 4.0]);
}

#[test]
fn what_stands_among_arguments_is_done_once() {
    // The second number of a generator, whichever array it indexes on the way.
    let drawn = "r = wp.rand_init(7)\na = wp.randi(r, 0, 1000)\nout[i] = float(wp.randi(r, 0, 1000))";
    for index in [
        "wp.atomic_add(x, wp.randi(r, 0, 1), 0.0)",
        "wp.atomic_cas(x, wp.randi(r, 0, 1), 1.0, 1.0)",
        "a = wp.load(x, wp.randi(r, 0, 1))",
        "wp.store(x, wp.randi(r, 0, 1), 1.0)",
        "x[wp.randi(r, 0, 1)] = 1.0",
        "x[wp.randi(r, 0, 1)] += 1.0",
        "x[wp.randi(r, 0, 1)] *= 1.0",
        "v = wp.vec3(1.0)\na = v[wp.randi(r, 0, 1)]",
        "a = (1, 2)[wp.randi(r, 0, 1)]",
    ] {
        let body = format!("r = wp.rand_init(7)\n{index}\nout[i] = float(wp.randi(r, 0, 1000))");
        assert_eq!(outputs(&body, &[1.0]), outputs(drawn, &[1.0]), "{index}");
    }
}
