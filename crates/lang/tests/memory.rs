//! Arrays: of structs, of a thread's own, and parts of arrays.

use bullet_lang::adjoint::{AdjointOptions, Tape, adjoint};
use bullet_lang::interp::{Arg, Array, Options as Run, run};
use bullet_lang::ir::Kernel;
use bullet_lang::{Element, Options, ParamType, Slot, compile};
use bullet_ops::DType;

/// The kernel `k` of a body, in which `i` is the thread, `x` a 2-D and `out` a 1-D array of floats and `n` an int.
fn kernel(body: &str) -> Kernel {
    let lines: Vec<String> = body.lines().map(|line| format!("    {line}\n")).collect();
    let text = format!(
        "import warp as wp\n\n@wp.kernel\ndef k(x: wp.array2d(dtype=float), out: wp.array(dtype=float), n: int):\n    i = \
         wp.tid()\n{}",
        lines.concat()
    );
    compile("test.py", &text, Options::default()).unwrap_or_else(|e| panic!("{e}")).remove(0)
}

/// A matrix of 3 rows: 0, 1, .. 14.
fn matrix() -> Array<f64> {
    let cells = (0..15).map(f64::from).collect::<Vec<_>>();
    Array { shape: vec![3, 5], ..Array::floats(DType::F32, &cells) }
}

/// What a kernel of one thread leaves in `out`, of 5 elements.
fn outputs(body: &str) -> Vec<f64> {
    let mut arrays: Vec<Array<f64>> = vec![matrix(), Array::zeros(DType::F32, &[5], 1)];
    let args = [Arg::Array(0), Arg::Array(1), Arg::Int(2)];
    run(&kernel(body), &[1], &args, &mut arrays, Run::default()).unwrap_or_else(|e| panic!("{e}"));
    arrays[1].as_floats().to_vec()
}

/// The gradient of the sum of `out` by the first row of `x`.
fn gradient(body: &str) -> Vec<f64> {
    let made = adjoint(&kernel(body), AdjointOptions::default()).unwrap_or_else(|e| panic!("{e:?}"));
    let mut arrays: Vec<Array<f64>> = vec![
        matrix(),
        Array::zeros(DType::F32, &[5], 1),
        Array::zeros(DType::F32, &[3, 5], 1),
        Array::floats(DType::F32, &[1.0; 5]),
    ];
    let args = [Arg::Array(0), Arg::Array(1), Arg::Int(2), Arg::Array(2), Arg::Array(3)];
    run(&made.kernel, &[1], &args, &mut arrays, Run::default()).unwrap_or_else(|e| panic!("{e}"));
    arrays[2].as_floats()[..5].to_vec()
}

/// The first mistake in a kernel of such a body.
fn mistake(body: &str) -> String {
    let lines: Vec<String> = body.lines().map(|line| format!("    {line}\n")).collect();
    let text = format!(
        "import warp as wp\n@wp.kernel\ndef k(x: wp.array2d(dtype=float), y: wp.array2d(dtype=float), n: int):\n{}",
        lines.concat()
    );
    let found = compile("test.py", &text, Options::default()).expect_err("a mistake");
    found.items()[0].message.clone()
}

#[test]
fn own_arrays_start_at_zero_wherever_they_are_made() {
    let body = "for j in range(3):\n    a = wp.zeros(shape=2, dtype=float)\n    out[j] = a[0]\n    a[0] = 7.0\nout[3] = a[0]";
    assert_eq!(outputs(body), [0.0, 0.0, 0.0, 7.0, 0.0]);
    let body = "a = wp.zeros((2, 3), dtype=int)\na[1, n] = 5\na[1, n] += 2\nb = a\nb[0, 0] = 3\nout[0] = float(a[1, 2] * a[0, 0])\n\
                out[1] = float(a.shape[1] + len(a))";
    assert_eq!(outputs(body)[..2], [21.0, 5.0]);
    let body = "v = wp.zeros(shape=3, dtype=wp.vec2)\nv[1] = wp.vec2(1.0, 2.0)\nv[1].y += 3.0\nout[0] = v[n - 1].y + v[0].x";
    assert_eq!(outputs(body)[0], 5.0);
    // Only this thread sees it.
    let body = "a = wp.zeros(shape=20, dtype=float)\nout[0] = wp.atomic_add(a, 7, 2.0) + wp.atomic_max(a, 7, 5.0) + a[7]";
    assert_eq!(outputs(body)[0], 7.0);
}

#[test]
fn gradients_pass_through_own_arrays() {
    // Overwritten, read between, and read again.
    let body = "a = wp.zeros(shape=2, dtype=float)\na[0] = x[0, 1]\nout[0] = a[0] * a[0]\na[0] = x[0, 2] * a[0]\nout[1] = a[0]";
    assert_eq!(gradient(body), [0.0, 4.0, 1.0, 0.0, 0.0]);
    // By an index that a loop moves, non-linear in what was stored.
    let body = "a = wp.zeros(shape=4, dtype=float)\na[0] = x[0, 2]\nfor j in range(n + 1):\n    a[j + 1] = a[j] * a[j]\n\
                out[0] = a[n + 1]";
    assert_eq!(gradient(body), [0.0, 0.0, 8.0 * 128.0, 0.0, 0.0]);
    // Made anew in each run of a loop: what the run before stored is gone.
    let body = "for j in range(n + 2):\n    a = wp.zeros(shape=2, dtype=float)\n    a[1] += x[0, j] * x[0, j]\n    out[j] = a[1]";
    assert_eq!(gradient(body), [0.0, 2.0, 4.0, 6.0, 0.0]);
    // What is overwritten keeps its gradient 0 behind an infinite derivative.
    let body = "a = wp.zeros(shape=2, dtype=float)\na[0] = wp.sqrt(x[0, 0])\na[0] = x[0, 1]\nout[0] = a[0]";
    assert_eq!(gradient(body), [0.0, 1.0, 0.0, 0.0, 0.0]);
}

#[test]
fn parts_of_arrays_are_the_arrays() {
    assert_eq!(
        outputs("r = x[1]\nout[0] = r[2]\nout[1] = float(r.shape[0])\nout[2] = x[n][4]"),
        [7.0, 5.0, 14.0, 0.0, 0.0]
    );
    assert_eq!(
        outputs("r = x[1, 1:4]\nfor j in range(len(r)):\n    out[j] = r[j]"),
        [6.0, 7.0, 8.0, 0.0, 0.0]
    );
    assert_eq!(
        outputs("r = x[:, n]\nfor j in range(len(r)):\n    out[j] = r[j]"),
        [2.0, 7.0, 12.0, 0.0, 0.0]
    );
    assert_eq!(
        outputs("r = x[0, ::-2]\nfor j in range(len(r)):\n    out[j] = r[j]"),
        [4.0, 2.0, 0.0, 0.0, 0.0]
    );
    assert_eq!(
        outputs("r = x[0, -3:9]\nfor j in range(len(r)):\n    out[j] = r[j]"),
        [2.0, 3.0, 4.0, 0.0, 0.0]
    );
    assert_eq!(outputs("r = x[0, 4:1]\nout[0] = float(len(r))"), [0.0; 5]);
    assert_eq!(
        outputs("r = x[0:2, 1:]\ns = r[1, ::2]\nout[0] = s[1]\nout[1] = float(s.shape[0])"),
        [8.0, 2.0, 0.0, 0.0, 0.0]
    );
    assert_eq!(outputs("o = out[1:3]\no[0] = 5.0\no[1] += 6.0"), [0.0, 5.0, 6.0, 0.0, 0.0]);
    // Which part it is can depend on branches and loops.
    assert_eq!(outputs("r = x[0]\nif n > 1:\n    r = x[2]\nout[0] = r[1]"), [11.0, 0.0, 0.0, 0.0, 0.0]);
    assert_eq!(
        outputs("r = x[0]\nfor j in range(n + 1):\n    out[j] = r[0]\n    r = x[j]"),
        [0.0, 0.0, 5.0, 0.0, 0.0]
    );
    assert_eq!(gradient("r = x[0, 1:]\nout[0] = r[0] * r[n]"), [0.0, 3.0, 0.0, 1.0, 0.0]);
}

#[test]
fn slices_of_vectors_are_vectors() {
    assert_eq!(
        outputs("v = wp.vec4(1.0, 2.0, 3.0, 4.0)\nw = v[1:3]\nout[0] = w[0] * w[1]\nout[1] = v[::-1][0]"),
        [6.0, 4.0, 0.0, 0.0, 0.0]
    );
    assert_eq!(
        outputs(
            "v = wp.vec4(1.0, 2.0, 3.0, 4.0)\nv[:2] = wp.vec2(7.0, 8.0)\nv[3:] = 9.0\nout[0] = v.x + v.y + v.z + v.w"
        ),
        [27.0, 0.0, 0.0, 0.0, 0.0]
    );
    assert_eq!(outputs("m = wp.mat22(1.0, 2.0, 3.0, 4.0)\nout[0] = m[1:][0, 1]"), [4.0, 0.0, 0.0, 0.0, 0.0]);
}

#[test]
fn misuse_is_a_mistake() {
    for (body, message) in [
        ("a = wp.zeros(shape=n, dtype=float)", "this must be an integer that is known at compile time"),
        (
            "a = wp.zeros(shape=(300, 300), dtype=float)",
            "an array of a kernel's own has 1 to 65536 numbers, not 90000",
        ),
        ("a = wp.zeros(dtype=float)", "`zeros` needs a shape"),
        ("x[0] = 1.0", "a part of an array cannot be assigned"),
        ("a = x[0, ::0]", "the step of a slice cannot be 0"),
        ("a = x[0, 1, 2]", "this array has 2 dimensions, but 3 indices are given"),
        (
            "a = x\nif n > 1:\n    a = y\na[0, 0] = 1.0",
            "`a` is one array on one way to here and another on another",
        ),
        (
            "a = x\nfor j in range(n):\n    a[0, 0] = 1.0\n    a = y",
            "`a` is one array in front of this loop and another at the end of its body",
        ),
        ("v = wp.vec2(1.0, 2.0)\nw = v[2:]", "this slice has no components"),
    ] {
        assert_eq!(mistake(body), message, "{body}");
    }
}

#[test]
fn tapes_of_own_arrays_hold_what_loops_read() {
    let tape = |body: &str| adjoint(&kernel(body), AdjointOptions::default()).expect("an adjoint").tape;
    let linear = "a = wp.zeros(shape=4, dtype=float)\nfor j in range(100):\n    a[j % 4] = 0.5 * a[(j + 1) % 4] + x[0, 1]\nout[0] = a[0]";
    assert_eq!(tape(linear), Tape::Words(0));
    let square = "a = wp.zeros(shape=4, dtype=float)\nfor j in range(100):\n    a[j % 4] = a[j % 4] * a[j % 4] + x[0, 1]\nout[0] = a[0]";
    assert_eq!(tape(square), Tape::Words(100));
}

const STRUCTS: &str = "
import warp as wp

@wp.struct
class Inner:
    v: wp.vec3
    flag: bool

@wp.struct
class Outer:
    id: wp.uint8
    a: Inner
    x: wp.float64
    m: wp.mat22h

@wp.kernel
def k(s: wp.array2d(dtype=Outer), out: wp.array(dtype=float)):
    i = wp.tid()
    e = s[i, 0]
    s[i, 1].a.v = e.a.v * 2.0
    s[i, 1].a.v[1] += float(e.x)
    if e.a.flag:
        s[i, 1] = e
    out[i] = s[i, 1].a.v.y + float(s[i, 1].id)
";

#[test]
fn structs_lie_in_memory_as_in_c() {
    let value = |dtype, dims: &[u16]| {
        ParamType::Value(Element { dtype, dims: dims.iter().copied().collect(), name: String::new() })
    };
    let inner = ParamType::Struct(
        "Inner".into(),
        vec![("v".into(), value(DType::F32, &[3])), ("flag".into(), value(DType::Bool, &[]))],
    );
    assert_eq!(inner.layout(), (16, 4));
    let outer = ParamType::Struct(
        "Outer".into(),
        vec![
            ("id".into(), value(DType::U8, &[])),
            ("a".into(), inner),
            ("x".into(), value(DType::F64, &[])),
            ("m".into(), value(DType::F16, &[2, 2])),
        ],
    );
    // numpy.dtype([("id", "u1"), ("a", ..), ("x", "f8"), ("m", "f2", (2, 2))], align=True)
    assert_eq!(outer.layout(), (40, 8));
    assert_eq!(outer.offsets(), [0, 4, 24, 32]);
    let array = ParamType::StructArray(Box::new(outer), 2);
    let slots = array.slots();
    assert_eq!(slots.len(), array.count());
    let slot = |dtype, lanes, offset| Slot::Array { path: vec![], dtype, lanes, ndim: 2, offset, pitch: 40 };
    assert_eq!(
        slots,
        [
            slot(DType::U8, 1, 0),
            slot(DType::F32, 3, 4),
            slot(DType::Bool, 1, 16),
            slot(DType::F64, 1, 24),
            slot(DType::F16, 4, 32)
        ]
    );
    // As the kernel's parameters say it, in scalars.
    let kernel = compile("k.py", STRUCTS, Options::default()).unwrap_or_else(|e| panic!("{e}")).remove(0);
    let types: Vec<String> = kernel.params.iter().map(|&param| kernel.ty(param).to_string()).collect();
    assert_eq!(
        types,
        [
            "array<u8x1of40, 2>",
            "array<f32x3of10, 2>",
            "array<boolx1of40, 2>",
            "array<f64x1of5, 2>",
            "array<f16x4of20, 2>",
            "array<f32, 1>"
        ]
    );
    assert_eq!(Kernel::parse(&kernel.to_string()).expect("its own text").to_string(), kernel.to_string());
}

#[test]
fn fields_of_elements_are_read_and_written_alone() {
    let kernel = compile("k.py", STRUCTS, Options::default()).unwrap_or_else(|e| panic!("{e}")).remove(0);
    let shaped = |array: Array<f64>| Array { shape: vec![2, 2], ..array };
    let mut arrays: Vec<Array<f64>> = vec![
        shaped(Array::ints(DType::U8, &[1, 2, 3, 4])),
        shaped(Array::floats(DType::F32, &[1.0, 2.0, 3.0, 0.0, 0.0, 0.0, 4.0, 5.0, 6.0, 0.0, 0.0, 0.0])),
        shaped(Array::ints(DType::Bool, &[0, 0, 1, 0])),
        shaped(Array::floats(DType::F64, &[0.5, 0.0, 0.25, 0.0])),
        shaped(Array::floats(DType::F16, &(0..16).map(f64::from).collect::<Vec<_>>())),
        Array::zeros(DType::F32, &[2], 1),
    ];
    let args: Vec<Arg<f64>> = (0..6).map(Arg::Array).collect();
    run(&kernel, &[2], &args, &mut arrays, Run::default()).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(arrays[1].as_floats(), [1.0, 2.0, 3.0, 2.0, 4.5, 6.0, 4.0, 5.0, 6.0, 4.0, 5.0, 6.0]);
    assert_eq!(arrays[0].as_ints(), [1, 2, 3, 3]);
    assert_eq!(arrays[5].as_floats(), [6.5, 8.0]);
    // A store to one field touches no other.
    let text = STRUCTS.replace("    if e.a.flag:\n        s[i, 1] = e\n", "");
    let kernel = compile("k.py", &text, Options::default()).unwrap_or_else(|e| panic!("{e}")).remove(0);
    let stores = kernel.to_string().lines().filter(|line| line.trim().starts_with("store")).count();
    assert_eq!(stores, 3);
}
