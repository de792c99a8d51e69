//! Derivatives that the source gives or asks for: `@wp.func_grad`, `@wp.func_replay`, `wp.grad`.

use bullet_lang::adjoint::{Adjoint, AdjointOptions, Use, adjoint};
use bullet_lang::emit::cuda::{CudaOptions, source};
use bullet_lang::interp::{Arg, Array, Options as Run, run};
use bullet_lang::ir::Kernel;
use bullet_lang::link::{Binding, Definition, Kind, link};
use bullet_lang::{Options, compile};
use bullet_ops::DType;

fn kernel(functions: &str, body: &str) -> Kernel {
    let lines: Vec<String> = body.lines().map(|line| format!("    {line}\n")).collect();
    let text = format!(
        "import warp as wp\n{functions}\n@wp.kernel\ndef k(x: wp.array(dtype=float), out: wp.array(dtype=float)):\n    i = \
         wp.tid()\n{}",
        lines.concat()
    );
    compile("test.py", &text, Options::default()).unwrap_or_else(|e| panic!("{e}")).remove(0)
}

fn outputs(functions: &str, body: &str, x: &[f64]) -> Vec<f64> {
    let mut arrays: Vec<Array<f64>> =
        vec![Array::floats(DType::F32, x), Array::zeros(DType::F32, &[x.len()], 1)];
    let kernel = kernel(functions, body);
    run(&kernel, &[x.len()], &[Arg::Array(0), Arg::Array(1)], &mut arrays, Run::default())
        .unwrap_or_else(|e| panic!("{e}"));
    // Emitters and all who run it see the function only.
    let plain = kernel.plain();
    assert!(!plain.to_string().contains("custom"));
    plain.verify().unwrap_or_else(|e| panic!("{e}"));
    assert!(!source(&[&kernel], CudaOptions::default()).contains("undefined"));
    arrays[1].as_floats().to_vec()
}

fn gradient_of(made: &Adjoint, x: &[f64]) -> Vec<f64> {
    let mut arrays: Vec<Array<f64>> = vec![
        Array::floats(DType::F32, x),
        Array::zeros(DType::F32, &[x.len()], 1),
        Array::zeros(DType::F32, &[x.len()], 1),
        Array::floats(DType::F32, &vec![1.0; x.len()]),
    ];
    let args: Vec<Arg<f64>> = (0..4).map(Arg::Array).collect();
    run(&made.kernel, &[x.len()], &args, &mut arrays, Run::default()).unwrap_or_else(|e| panic!("{e}"));
    arrays[2].as_floats().to_vec()
}

fn gradient(functions: &str, body: &str, x: &[f64]) -> Vec<f64> {
    let kernel = kernel(functions, body);
    let again = Kernel::parse(&kernel.to_string()).unwrap_or_else(|e| panic!("{e}\n{kernel}"));
    again.verify().unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(again.to_string(), kernel.to_string());
    let made = adjoint(&kernel, AdjointOptions::default()).unwrap_or_else(|e| panic!("{e:?}"));
    gradient_of(&made, x)
}

const SAFE_ROOT: &str = "
@wp.func
def root(x: float):
    return wp.sqrt(x)

@wp.func_grad(root)
def adj_root(x: float, adj: float):
    if x > 0.0:
        wp.adjoint[x] += wp.grad(wp.sqrt)(x) * adj
";

#[test]
fn a_gradient_function_takes_the_place_of_the_derivative() {
    assert_eq!(gradient(SAFE_ROOT, "out[i] = root(x[i])", &[0.0, 4.0]), [0.0, 0.25]);
    assert_eq!(outputs(SAFE_ROOT, "out[i] = root(x[i])", &[0.0, 4.0]), [0.0, 2.0]);
    // In loops, branches and other functions, with values that change there.
    let body = "s = x[i]\nfor k in range(3):\n    s = root(s) * s\nout[i] = s";
    assert!((gradient(SAFE_ROOT, body, &[4.0])[0] - 27.0 / 8.0 * 4f64.powf(19.0 / 8.0)).abs() < 1e-4);
    let body =
        "s = x[i]\nn = int(x[i])\nfor k in range(n):\n    if k > 0:\n        s = root(s) * 2.0\nout[i] = s";
    assert!((gradient(SAFE_ROOT, body, &[4.0])[0] - 0.125).abs() < 1e-6);
    // It need not be the derivative, may read arrays, and sees several results.
    let functions = "
@wp.func
def both(v: wp.vec2, n: int, s: wp.array(dtype=float)):
    return v.x * s[0], wp.dot(v, v)

@wp.func_grad(both)
def adj_both(v: wp.vec2, n: int, s: wp.array(dtype=float), a: float, b: float):
    wp.adjoint[v] += wp.vec2(10.0 * a * s[0], float(n) * b)
";
    let body = "a, b = both(wp.vec2(x[i], x[i]), 3, x)\nout[i] = a + 2.0 * b";
    assert_eq!(gradient(functions, body, &[5.0]), [10.0 * 5.0 + 3.0 * 2.0]);
    assert_eq!(outputs(functions, body, &[5.0]), [125.0]);
}

#[test]
fn a_replay_function_is_what_the_way_back_computes() {
    let functions = "
@wp.func
def place(count: wp.array(dtype=int), places: wp.array(dtype=int), i: int):
    at = wp.atomic_add(count, 0, 1)
    places[i] = at
    return at

@wp.func_replay(place)
def replay_place(count: wp.array(dtype=int), places: wp.array(dtype=int), i: int):
    return places[i]

@wp.kernel
def gather(x: wp.array(dtype=float), count: wp.array(dtype=int), places: wp.array(dtype=int), out: wp.array(dtype=float)):
    i = wp.tid()
    if x[i] > 0.0:
        at = place(count, places, i)
        out[at] = x[i] * x[i]
";
    let text = format!("import warp as wp\n{functions}");
    let kernel = compile("k.py", &text, Options::default()).unwrap_or_else(|e| panic!("{e}")).remove(0);
    let made = adjoint(&kernel, AdjointOptions::default()).unwrap_or_else(|e| panic!("{e:?}"));
    assert_eq!(made.uses, [Use::Unchanged, Use::Shape, Use::Left, Use::Shape]);
    let mut arrays: Vec<Array<f64>> = vec![
        Array::floats(DType::F32, &[1.0, -1.0, 3.0]),
        Array::ints(DType::I32, &[0]),
        Array::ints(DType::I32, &[0, 0, 0]),
        Array::zeros(DType::F32, &[3], 1),
    ];
    let args: Vec<Arg<f64>> = (0..4).map(Arg::Array).collect();
    run(&kernel, &[3], &args, &mut arrays, Run::default()).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(arrays[3].as_floats(), [1.0, 9.0, 0.0]);
    // The gradient of the second element.
    arrays.push(Array::zeros(DType::F32, &[3], 1));
    arrays.push(Array::floats(DType::F32, &[0.0, 1.0, 0.0]));
    let args: Vec<Arg<f64>> = (0..6).map(Arg::Array).collect();
    run(&made.kernel, &[3], &args, &mut arrays, Run::default()).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(arrays[4].as_floats(), [0.0, 0.0, 6.0]);
    assert_eq!(arrays[1].as_ints(), [2]);
}

#[test]
fn grad_gives_derivatives_that_have_derivatives() {
    let functions = "
@wp.func
def f(a: float, n: int, v: wp.vec2):
    s = a
    for k in range(3):
        s = s * a
    return s * v.x + float(n) * v.y
";
    let body = "da, dv = wp.grad(f)(x[i], 2, wp.vec2(x[i], 1.0))\nout[i] = da + 10.0 * dv.x + 100.0 * dv.y";
    // a^4 v.x + n v.y, at a = v.x = 2, n = 2.
    assert_eq!(outputs(functions, body, &[2.0]), [64.0 + 160.0 + 200.0]);
    // 4 x^4 + 10 x^4 + 200.
    assert_eq!(gradient(functions, body, &[2.0]), [56.0 * 8.0]);
    assert_eq!(outputs("", "out[i] = wp.grad(wp.sin)(x[i])", &[0.0]), [1.0]);
    assert_eq!(outputs("", "dy, dx = wp.grad(wp.atan2)(x[i], 2.0)\nout[i] = dx + dy", &[0.0]), [0.5]);
    // A gradient of its own is taken.
    let twice = "
@wp.func
def f(a: float):
    return a

@wp.func_grad(f)
def adj_f(a: float, adj: float):
    wp.adjoint[a] += 7.0 * adj
";
    assert_eq!(outputs(twice, "out[i] = wp.grad(f)(x[i])", &[3.0]), [7.0]);
}

#[test]
fn misuse_is_a_mistake() {
    let mistake = |functions: &str, body: &str| {
        let text = format!(
            "import warp as wp\n{functions}\n@wp.kernel\ndef k(x: wp.array(dtype=float), n: int):\n    {}\n",
            body.replace('\n', "\n    ")
        );
        let found = match compile("test.py", &text, Options::default()) {
            Ok(kernels) => adjoint(&kernels[0], AdjointOptions::default()).expect_err("a mistake")[0].clone(),
            Err(found) => found.items()[0].clone(),
        };
        found.message
    };
    let f = "@wp.func\ndef f(a: float):\n    return a * a\n";
    let with = |gradient: &str| format!("{f}\n{gradient}");
    assert_eq!(
        mistake(&with("@wp.func_grad(f)\ndef g(a: float):\n    pass\n"), "x[0] = f(x[0])"),
        "`g` takes 1 arguments, expected 2: those of `f`, then the adjoint of each result"
    );
    assert_eq!(
        mistake(&with("@wp.func_grad(f)\ndef g(a: float, b: float):\n    return b\n"), "x[0] = f(x[0])"),
        "`g` returns a value"
    );
    assert_eq!(
        mistake(
            &with("@wp.func_grad(f)\ndef g(a: float, b: float):\n    wp.adjoint[b] += 1.0\n"),
            "x[0] = f(x[0])"
        ),
        "`adjoint` is of a parameter of a gradient function"
    );
    assert_eq!(
        mistake(&with("@wp.func_replay(f)\ndef g(a: float):\n    return 1\n"), "x[0] = f(x[0])"),
        "`g` gives int32, but `f` float32"
    );
    assert_eq!(mistake("", "wp.adjoint[n] += 1"), "`adjoint` is of a parameter of a gradient function");
    assert_eq!(
        mistake("@wp.func\ndef f(a: float):\n    return wp.vec2(a, a)\n", "v = wp.grad(f)(x[0])"),
        "`grad` differentiates functions that give a float, not vec2 of float32"
    );
    assert_eq!(mistake("", "v = wp.grad(x)(1.0)"), "`grad` takes a @wp.func or one of wp's functions");
    let loops =
        "@wp.func\ndef f(a: float, n: int):\n    for k in range(n):\n        a = a * a\n    return a\n";
    assert_eq!(
        mistake(loops, "v = wp.grad(f)(x[0], n)"),
        "the gradient of this function needs a tape, which `grad` has not"
    );
    let writes = "@wp.func\ndef f(a: float, x: wp.array(dtype=float)):\n    x[1] = a\n    return a\n\n@wp.func_grad(f)\ndef \
                  g(a: float, x: wp.array(dtype=float), b: float):\n    wp.adjoint[a] += b\n";
    assert_eq!(
        mistake(writes, "x[0] = f(x[0], x)"),
        "a function with a gradient of its own writes to `x`, which has a gradient"
    );
}

#[test]
fn gathered_definitions_have_derivatives_of_their_own() {
    let definition = |kind, text: &str| Definition {
        kind,
        file: "a.py".into(),
        line: 1,
        indent: 0,
        text: text.into(),
        names: vec![
            ("wp".into(), Binding::Builtin("warp".into())),
            ("f".into(), Binding::Functions(vec![1])),
        ],
        types: vec![],
        statics: vec![],
    };
    let kernel = "def k(x: wp.array(dtype=float), out: wp.array(dtype=float)):\n    i = wp.tid()\n    out[i] = f(x[i])\n";
    let definitions = [
        definition(Kind::Kernel, kernel),
        definition(Kind::Function, "def f(a: float):\n    return a\n"),
        definition(Kind::Gradient(1), "def g(a: float, adj: float):\n    wp.adjoint[a] += 5.0 * adj\n"),
    ];
    let linked = link(&definitions, Options::default()).unwrap_or_else(|e| panic!("{e}"));
    let made = adjoint(&linked.kernels[0].0, AdjointOptions::default()).unwrap_or_else(|e| panic!("{e:?}"));
    assert_eq!(gradient_of(&made, &[1.0]), [5.0]);
}
