//! Definitions gathered from several places.

use bullet_lang::interp::{Arg, Array, Options as Run, run};
use bullet_lang::link::{Binding, Definition, Kind, link};
use bullet_lang::{Diagnostics, Options, ParamType};

fn definition(kind: Kind, file: &str, line: usize, text: &str) -> Definition {
    let names = vec![("wp".into(), Binding::Builtin("warp".into()))];
    Definition {
        kind,
        file: file.into(),
        line,
        indent: 0,
        text: text.into(),
        names,
        types: vec![],
        statics: vec![],
    }
}

impl Bind for Definition {
    fn name(mut self, name: &str, binding: Binding) -> Definition {
        self.names.push((name.into(), binding));
        self
    }
}

trait Bind {
    fn name(self, name: &str, binding: Binding) -> Definition;
}

fn expr(text: &str) -> Binding {
    Binding::Expr(text.into())
}

/// What the only kernel leaves in its array of three floats.
fn outcome(definitions: &[Definition]) -> Vec<f64> {
    let linked = link(definitions, Options::default()).unwrap_or_else(|e| panic!("{e}"));
    let kernel = &linked.kernels[0].0;
    kernel.verify().unwrap();
    let mut arrays = vec![Array::<f64>::floats(bullet_ops::DType::F32, &[1.0, 2.0, 3.0])];
    run(kernel, &[3], &[Arg::Array(0)], &mut arrays, Run::default()).unwrap();
    arrays[0].as_floats().to_vec()
}

fn failure(definitions: &[Definition]) -> Diagnostics {
    link(definitions, Options::default()).expect_err("this cannot compile")
}

const KERNEL: &str = "def k(x: wp.array(dtype=float)):\n    i = wp.tid()\n";

#[test]
fn two_files_may_use_one_name_for_two_things() {
    let kernel = definition(Kind::Kernel, "a.py", 1, &format!("{KERNEL}    x[i] = f(x[i]) + n\n"))
        .name("f", Binding::Functions(vec![1]))
        .name("n", expr("-0.5"));
    let middle = definition(Kind::Function, "b.py", 7, "def f(x: float):\n    return g(x) * float(n)\n")
        .name("g", Binding::Functions(vec![2]))
        .name("n", expr("3"));
    // A function of the same name as the one that calls it is no recursion.
    let last =
        definition(Kind::Function, "c.py", 2, "def f(x: float):\n    return x + n\n").name("n", expr("10.0"));
    assert_eq!(outcome(&[kernel, middle, last]), [32.5, 35.5, 38.5]);
}

#[test]
fn paths_are_names_unless_a_variable_hides_them() {
    let text = format!("{KERNEL}    v = wp.vec2(x[i], 1.0)\n    x[i] = cfg.scale * lib.twice(v.x)\n");
    let kernel = definition(Kind::Kernel, "a.py", 1, &text)
        .name("cfg.scale", expr("0.5"))
        .name("lib.twice", Binding::Functions(vec![1]))
        .name("v.x", expr("100.0"));
    let twice = definition(Kind::Function, "b.py", 1, "def twice(x: float):\n    return x * 2.0\n");
    assert_eq!(outcome(&[kernel, twice]), [1.0, 2.0, 3.0]);
}

#[test]
fn overloads_types_and_statics_are_what_was_found() {
    let mut kernel = definition(
        Kind::Kernel,
        "a.py",
        1,
        "def k(x: annotation):\n    i = wp.tid()\n    x[i] = f(x[i]) + float(f(1)) + wp.static(table[2])\n",
    )
    .name("f", Binding::Functions(vec![1, 2]));
    kernel.types.push(("x".into(), "wp.array(dtype=float)".into()));
    kernel.statics.push((kernel.text.find("table").unwrap(), "0.25".into()));
    let first = definition(Kind::Function, "a.py", 9, "def f(x: int):\n    return x + 4\n");
    let second = definition(Kind::Function, "a.py", 12, "def f(x: float):\n    return x * float(f(1))\n")
        .name("f", Binding::Functions(vec![1, 2]));
    assert_eq!(outcome(&[kernel, first, second]), [10.25, 15.25, 20.25]);
}

#[test]
fn structs_are_looked_up_where_they_were_written() {
    let kernel = definition(
        Kind::Kernel,
        "a.py",
        1,
        &format!("{KERNEL}    s = S()\n    s.p.y = x[i]\n    x[i] = s.p.y + s.p.x\n"),
    )
    .name("S", Binding::Struct(1));
    let outer =
        definition(Kind::Struct, "b.py", 1, "class S:\n    p: Inner\n").name("Inner", Binding::Struct(2));
    let inner =
        definition(Kind::Struct, "c.py", 1, "class S:\n    x: T\n    y: T\n").name("T", expr("wp.float32"));
    assert_eq!(outcome(&[kernel, outer, inner]), [1.0, 2.0, 3.0]);
}

#[test]
fn a_mistake_is_shown_in_its_own_file() {
    let kernel = definition(Kind::Kernel, "a.py", 10, &format!("{KERNEL}    x[i] = f(x[i])\n"))
        .name("f", Binding::Functions(vec![1]));
    let mut f = definition(
        Kind::Function,
        "lib.py",
        20,
        "def f(x: float):\n    y = x + unknown\n    return data * x\n",
    )
    .name("data", Binding::Other("a numpy.ndarray".into()));
    f.indent = 4;
    let text = failure(&[kernel, f]).to_string();
    assert!(text.contains("--> lib.py:21:17\n"), "{text}");
    assert!(text.contains("21 |     y = x + unknown\n   |             ^^^^^^^"), "{text}");
    assert!(
        text.contains("`data` is a numpy.ndarray, which kernels cannot use\n  --> lib.py:22:16"),
        "{text}"
    );
}

#[test]
fn functions_that_call_each_other_are_refused() {
    let kernel = definition(Kind::Kernel, "a.py", 1, &format!("{KERNEL}    x[i] = f(x[i])\n"))
        .name("f", Binding::Functions(vec![1]));
    let f = definition(Kind::Function, "a.py", 5, "def f(x: float):\n    return g(x)\n")
        .name("g", Binding::Functions(vec![2]));
    let g = definition(Kind::Function, "a.py", 8, "def g(x: float):\n    return f(x)\n")
        .name("f", Binding::Functions(vec![1]));
    assert!(failure(&[kernel, f, g]).to_string().contains("`f` calls itself"));
}

#[test]
fn nothing_is_no_kernel_and_what_cannot_be_read_is_said() {
    assert!(link(&[], Options::default()).unwrap().kernels.is_empty());
    let broken = definition(Kind::Kernel, "a.py", 5, "def k(x: float):\n    y = = 2\n");
    assert!(failure(&[broken]).to_string().contains("--> a.py:6:9"));
}

#[test]
fn a_launch_is_told_what_the_parameters_are() {
    let text = "def k(x: wp.array2d(dtype=wp.vec3), n: int, s: S, m: wp.mat22d):\n    i = wp.tid()\n";
    let kernel = definition(Kind::Kernel, "a.py", 1, text).name("S", Binding::Struct(1));
    let s = definition(Kind::Struct, "a.py", 9, "class S:\n    q: wp.quat\n    data: wp.array(dtype=bool)\n");
    let (kernel, signature) = &link(&[kernel, s], Options::default()).unwrap().kernels[0];
    assert_eq!(signature.iter().map(|(_, ty)| ty.count()).sum::<usize>(), kernel.params.len());
    let names: Vec<&str> = signature.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["x", "n", "s", "m"]);
    let ParamType::Array(element, 2) = &signature[0].1 else { panic!("{signature:?}") };
    assert_eq!((&element.dims[..], element.lanes(), element.name.as_str()), (&[3][..], 3, "vec3 of float32"));
    let ParamType::Struct(name, fields) = &signature[2].1 else { panic!("{signature:?}") };
    assert_eq!((name.as_str(), fields.len(), signature[2].1.count()), ("S", 2, 5));
}
