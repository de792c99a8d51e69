//! 16-bit floats: what kernels compute with them, rounded behind each operation.

use bullet_lang::emit::cuda::{CudaOptions, source};
use bullet_lang::interp::{Arg, Array, Options as Run, run};
use bullet_lang::{Options, compile};
use bullet_ops::DType;
use half::{bf16, f16};

/// What a kernel leaves in `out`, from `x`, both of this type.
fn outputs(name: &str, dtype: DType, body: &str, x: &[f64]) -> Vec<f64> {
    let lines: Vec<String> = body.lines().map(|line| format!("    {line}\n")).collect();
    let text = format!(
        "import warp as wp\n\nT = wp.{name}\n\n@wp.kernel\ndef k(x: wp.array(dtype=T), out: wp.array(dtype=T)):\n    i = \
         wp.tid()\n{}",
        lines.concat()
    );
    let kernel = compile("test.py", &text, Options::default()).unwrap_or_else(|e| panic!("{e}")).remove(0);
    let mut arrays: Vec<Array<f64>> = vec![Array::floats(dtype, x), Array::zeros(dtype, &[x.len()], 1)];
    let args = [Arg::Array(0), Arg::Array(1)];
    run(&kernel, &[x.len()], &args, &mut arrays, Run::default()).unwrap_or_else(|e| panic!("{e}"));
    arrays[1].as_floats().to_vec()
}

#[test]
fn every_operation_is_rounded() {
    let x = [0.1, 3.3, -7.77, 1234.0];
    let found = outputs("float16", DType::F16, "out[i] = x[i] * x[i] + x[i] / T(3.0)", &x);
    let expected = x.map(|x| {
        let x = f16::from_f32(x as f32);
        let product = f16::from_f32(x.to_f32() * x.to_f32());
        let quotient = f16::from_f32(x.to_f32() / 3.0);
        f64::from(f16::from_f32(product.to_f32() + quotient.to_f32()))
    });
    assert_eq!(found, expected);
    assert!(found[3].is_infinite());
    let found = outputs("bfloat16", DType::BF16, "out[i] = wp.sqrt(x[i] * x[i]) - T(0.1)", &x);
    let expected = x.map(|x| {
        let x = bf16::from_f32(x as f32);
        let root = bf16::from_f32(bf16::from_f32(x.to_f32() * x.to_f32()).to_f32().sqrt());
        f64::from(bf16::from_f32(root.to_f32() - bf16::from_f32(0.1).to_f32()))
    });
    assert_eq!(found, expected);
}

#[test]
fn types_are_converted_when_asked() {
    let outputs = |body: &str, x: &[f64]| outputs("float16", DType::F16, body, x);
    assert_eq!(outputs("out[i] = T(float(x[i]) + 0.5)", &[1.5]), [2.0]);
    assert_eq!(outputs("out[i] = T(int(x[i])) + T(wp.bfloat16(x[i]))", &[1.00390625]), [2.0]);
    assert_eq!(outputs("out[i] = T(70000)", &[0.0]), [f64::INFINITY]);
    assert_eq!(outputs("out[i] = T(wp.float64(2049.0))", &[0.0]), [2048.0]);
    assert_eq!(outputs("out[i] = T(int(wp.cast(x[i], wp.uint16)))", &[1.0]), [15360.0]);
    assert_eq!(outputs("out[i] = wp.cast(wp.int16(15361), wp.float16)", &[0.0]), [1.0009765625]);
    assert_eq!(outputs("a = wp.vec3h(x[i], 1.0, 2.0)\nout[i] = wp.dot(a, a)", &[3.0]), [14.0]);
    assert_eq!(outputs("m = wp.mat22h(x[i], 1.0, 2.0, 4.0)\nout[i] = wp.determinant(m)", &[3.0]), [10.0]);
    assert_eq!(
        outputs(
            "out[0] += x[i]\nwp.atomic_max(out, 1, x[i])\nwp.atomic_min(out, 2, x[i])",
            &[1.5, -2.0, 3.0]
        ),
        [2.5, 3.0, -2.0]
    );
    let message = |body: &str| {
        let text = format!(
            "import warp as wp\n@wp.kernel\ndef k(x: wp.array(dtype=wp.float16), y: float):\n    {body}\n"
        );
        compile("k.py", &text, Options::default()).expect_err("a mistake").items()[0].message.clone()
    };
    assert_eq!(message("x[0] = x[0] * y"), "`*` cannot be applied to float16 and float32");
    assert_eq!(message("x[0] = y"), "expected float16, found float32");
    assert_eq!(message("wp.atomic_exch(x, 0, wp.float16(y))"), "`atomic_exch` is not there for float16");
}

#[test]
fn memory_holds_16_bits_and_expressions_floats() {
    let text = "import warp as wp\n@wp.kernel\ndef k(x: wp.array(dtype=wp.float16), s: wp.bfloat16):\n    i = wp.tid()\n    \
                x[i] = wp.abs(x[i] * x[i]) + wp.float16(s)\n";
    let kernel = compile("k.py", text, Options::default()).unwrap_or_else(|e| panic!("{e}")).remove(0);
    let text = source(&[&kernel], CudaOptions::default());
    for part in [
        "Array1<Half> x, Bfloat s_bits",
        "const float s = s_bits;",
        "x(i) = Half(fabsf(round_half(v * v)) + round_half(s));",
    ] {
        assert!(text.contains(part), "{part} is not in\n{text}");
    }
}
