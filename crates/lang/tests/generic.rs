//! Kernels of generic types: for the types of arguments, and for those that a module declares.

use bullet_lang::adjoint::{AdjointOptions, adjoint};
use bullet_lang::interp::{Arg, Array, Options as Run, run};
use bullet_lang::{Element, Options, ParamType, compile, compile_kernel};
use bullet_ops::DType;

const SCALE: &str = "
from typing import Any
import warp as wp

@wp.struct
class Pair:
    a: float
    b: float

@wp.func
def twice(x: Any):
    return x + x

@wp.kernel
def scale(x: wp.array(dtype=Any), s: Any, n: int):
    i = wp.tid()
    x[i] = twice(x[i]) * s
";

fn value(dtype: DType, dims: &[u16], name: &str) -> Element {
    Element { dtype, dims: dims.iter().copied().collect(), name: name.into() }
}

fn int() -> ParamType {
    ParamType::Value(value(DType::I32, &[], "int32"))
}

#[test]
fn types_of_arguments_fill_what_is_open() {
    for (dtype, name) in
        [(DType::F32, "float32"), (DType::F64, "float64"), (DType::F16, "float16"), (DType::I64, "int64")]
    {
        let element = value(dtype, &[], name);
        let types = [ParamType::Array(element.clone(), 1), ParamType::Value(element), int()];
        let (kernel, signature) = compile_kernel("k.py", SCALE, "scale", Some(&types), Options::default())
            .unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(kernel.name, format!("scale__{name}_1d_{name}"));
        assert_eq!(signature.iter().map(|(_, ty)| ty.count()).sum::<usize>(), kernel.params.len());
        let mut arrays: Vec<Array<f64>> = match dtype.is_float() {
            true => vec![Array::floats(dtype, &[1.5, 2.5])],
            false => vec![Array::ints(dtype, &[3, 4])],
        };
        let three = if dtype.is_float() { Arg::Float(3.0) } else { Arg::Int(3) };
        let args = [Arg::Array(0), three, Arg::Int(0)];
        run(&kernel, &[2], &args, &mut arrays, Run::default()).unwrap_or_else(|e| panic!("{e}"));
        match dtype.is_float() {
            true => assert_eq!(arrays[0].as_floats(), [9.0, 15.0]),
            false => assert_eq!(arrays[0].as_ints(), [18, 24]),
        }
        adjoint(&kernel, AdjointOptions::default()).unwrap_or_else(|e| panic!("{e:?}"));
    }
    let vectors = [
        ParamType::Array(value(DType::F32, &[3], "vec3 of float32"), 1),
        ParamType::Value(value(DType::F32, &[], "float32")),
        int(),
    ];
    let (kernel, _) = compile_kernel("k.py", SCALE, "scale", Some(&vectors), Options::default())
        .unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(kernel.name, "scale__float32_vec3_1d_float32");
}

#[test]
fn a_module_declares_overloads() {
    let text = format!(
        "{SCALE}\nscale_f16 = wp.overload(scale, [wp.array(dtype=wp.float16), wp.float16, int])\nwp.overload(scale, \
         [wp.array[wp.vec2], float, int])\n\n@wp.overload\ndef scale(x: wp.array(dtype=wp.float64), s: wp.float64, n: int):\n    \
         ...\n"
    );
    let kernels = compile("k.py", &text, Options::default()).unwrap_or_else(|e| panic!("{e}"));
    let names: Vec<&str> = kernels.iter().map(|kernel| kernel.name.as_str()).collect();
    let expected =
        ["scale__float16_1d_float16", "scale__float32_vec2_1d_float32", "scale__float64_1d_float64"];
    assert_eq!(names, expected);
}

#[test]
fn types_that_do_not_fit_are_mistakes() {
    let mistake = |types: &[ParamType]| {
        let found = compile_kernel("k.py", SCALE, "scale", Some(types), Options::default());
        found.expect_err("a mistake").items()[0].message.clone()
    };
    let float = || value(DType::F32, &[], "float32");
    let array = || ParamType::Array(float(), 1);
    assert_eq!(mistake(&[array()]), "`scale` has 3 parameters, but 1 types are given");
    assert_eq!(
        mistake(&[array(), int(), array()]),
        "parameter `n` is int32, not array of float32 with 1 dimensions"
    );
    assert_eq!(
        mistake(&[ParamType::Array(float(), 2), int(), int()]),
        "parameter `x` is array of anything with 1 dimensions, not array of float32 with 2 dimensions"
    );
    assert_eq!(mistake(&[array(), int(), int()]), "`*` cannot be applied to float32 and int32");
    assert_eq!(
        mistake(&[array(), ParamType::Struct("Other".into(), vec![]), int()]),
        "the struct `Other` is not known here"
    );
    let found = compile("k.py", SCALE, Options::default()).expect_err("a mistake");
    assert_eq!(found.items()[0].message, "a kernel of generic types cannot be compiled by itself");
    let found = compile_kernel("k.py", SCALE, "scales", None, Options::default()).expect_err("a mistake");
    assert_eq!(found.items()[0].message, "there is no kernel `scales`");
}
