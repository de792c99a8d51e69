//! Every operation of every type, on values where types end, against the interpreter: exactly, but for functions of f32 that are
//! approximated, which are within 2 units in the last place.

mod common;

use bullet_jit::Lanes;
use bullet_lang::interp::{Arg, Array, Cells, Options as Run, run};
use bullet_lang::ir::{Atomic, Binary, Compare, Kernel, Unary};
use bullet_ops::DType;
use common::{Layout, launch, program};

fn kernel(text: &str) -> Kernel {
    let kernel = Kernel::parse(text).unwrap_or_else(|e| panic!("{e}\n{text}"));
    kernel.verify().unwrap_or_else(|e| panic!("{e}\n{text}"));
    kernel
}

/// Values of a type where something may go wrong.
fn values(dtype: DType) -> Array<f64> {
    if dtype.is_float() {
        let (most, least) = match dtype {
            DType::F16 => (65504.0, 6e-8),
            DType::BF16 | DType::F32 => (3.38e38, 1e-40),
            _ => (1.7e308, 5e-310),
        };
        let mut cells = vec![
            0.0,
            -0.0,
            1.0,
            -1.0,
            0.5,
            -0.5,
            1.5,
            -1.5,
            2.5,
            -2.5,
            0.3,
            -0.7,
            0.49999997,
            3.7,
            -3.7,
            100.25,
            127.0,
            128.5,
            -129.0,
            255.6,
            300.0,
            32768.0,
            -40000.0,
            65535.0,
            2147483647.0,
            2147483648.0,
            -3e9,
            4294967296.0,
            1e19,
            -1e19,
            most,
            -most,
            least,
            -least,
            f64::INFINITY,
            f64::NEG_INFINITY,
            f64::NAN,
            8388609.0,
            0.9999,
            20.5,
            -20.5,
        ];
        cells.extend((0..40).map(|i| (f64::from(i) * 0.754_877).fract() * 8.0 - 4.0));
        return Array::floats(dtype, &cells);
    }
    if dtype == DType::Bool {
        return Array::ints(dtype, &[0, 1, 0, 1, 1]);
    }
    let mut cells = vec![0, 1, -1, 2, -2, 3, 5, 7, -7, 10, 31, 63, 100, 127, -128, 255, 32767, -32768, 65535];
    cells.extend([
        i64::from(i32::MAX),
        i64::from(i32::MIN),
        i64::from(u32::MAX),
        i64::MAX,
        i64::MIN,
        1234567,
    ]);
    Array::ints(dtype, &cells)
}

/// All pairs of values.
fn pairs(dtype: DType) -> (Array<f64>, Array<f64>) {
    let array = values(dtype);
    let n = array.shape[0];
    let pick = |f: &dyn Fn(usize) -> usize| match &array.cells {
        Cells::Float(cells) => Array {
            dtype,
            shape: vec![n * n],
            cells: Cells::Float((0..n * n).map(|i| cells[f(i)]).collect()),
        },
        Cells::Int(cells) => {
            Array { dtype, shape: vec![n * n], cells: Cells::Int((0..n * n).map(|i| cells[f(i)]).collect()) }
        }
    };
    (pick(&|i| i / n), pick(&|i| i % n))
}

/// As many zeros of a type as another array has.
fn like(array: &Array<f64>, dtype: DType) -> Array<f64> {
    Array::zeros(dtype, &array.shape, 1)
}

/// The distance of two floats of a type, in units of the last place of the second.
fn ulps(dtype: DType, a: f64, b: f64) -> f64 {
    if a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan()) {
        return 0.0;
    }
    let (digits, least) = match dtype {
        DType::F16 => (11, -24),
        DType::BF16 => (8, -133),
        DType::F32 => (24, -149),
        _ => (53, -1074),
    };
    let exponent = (b.abs().max(f64::MIN_POSITIVE).log2().floor() as i32 - digits + 1).max(least);
    // Zeros of two signs differ.
    ((a - b).abs() / 2f64.powi(exponent)).max(1e-3)
}

/// Runs a kernel both ways with arrays as its arguments; floats of the last array may differ by so many units.
fn check(text: &str, arrays: &[Array<f64>], tolerance: f64) {
    let kernel = kernel(text);
    let args: Vec<Arg<f64>> = (0..arrays.len()).map(Arg::Array).collect();
    let mut after = arrays.to_vec();
    let threads = arrays[0].shape[0];
    run(&kernel, &[threads], &args, &mut after, Run::default()).unwrap_or_else(|e| panic!("{e}\n{text}"));
    let [alone, beside] = &[Lanes::Off, Lanes::Always].map(|lanes| program(&kernel, lanes));
    let contiguous = Layout::Contiguous;
    for (program, layout) in [(alone, contiguous), (beside, contiguous), (beside, Layout::Strided)] {
        let found = launch(program, &kernel, &[threads as u32], &args, arrays, layout)
            .unwrap_or_else(|e| panic!("{e}\n{text}"));
        for (found, after) in found.iter().zip(&after) {
            assert_eq!(found.as_ints(), after.as_ints(), "{text}\n{:?}", &arrays[..arrays.len() - 1]);
            for (i, (&a, &b)) in found.as_floats().iter().zip(after.as_floats()).enumerate() {
                let error = ulps(found.dtype, a, b);
                let given: Vec<_> = arrays[..arrays.len() - 1].iter().map(|x| x.as_floats().get(i)).collect();
                assert!(error <= tolerance, "{a:e}, not {b:e}, of {given:?}: {error} units\n{text}");
            }
        }
    }
}

fn unary_text(what: &str, from: DType, to: DType) -> String {
    let (from, to) = (from.name(), to.name());
    format!(
        "kernel @t(%a.0: array<{from}, 1>, %o.1: array<{to}, 1>) grid 1 {{\n  %i.2: i32 = tid 0\n  %3: {from} = load %a.0, %i.2\n  \
         %4: {to} = {what} %3\n  store %o.1, %i.2, %4\n}}\n"
    )
}

fn binary_text(what: &str, dtype: DType, to: DType) -> String {
    let (from, to) = (dtype.name(), to.name());
    format!(
        "kernel @t(%a.0: array<{from}, 1>, %b.1: array<{from}, 1>, %o.2: array<{to}, 1>) grid 1 {{\n  %i.3: i32 = tid 0\n  \
         %4: {from} = load %a.0, %i.3\n  %5: {from} = load %b.1, %i.3\n  %6: {to} = {what} %4, %5\n  store %o.2, %i.3, %6\n}}\n"
    )
}

/// Functions that are approximated in f32 and below.
fn is_approximated(op: Unary) -> bool {
    use Unary::*;
    matches!(
        op,
        Cbrt | Exp
            | Log
            | Log2
            | Log10
            | Sin
            | Cos
            | Tan
            | Asin
            | Acos
            | Atan
            | Sinh
            | Cosh
            | Tanh
            | Erf
            | Erfc
            | Erfinv
    )
}

#[test]
fn functions_of_one_number() {
    for &dtype in &DType::ALL {
        for &op in Unary::ALL.iter().filter(|op| op.takes(dtype)) {
            let array = values(dtype);
            let out = like(&array, op.result(dtype));
            let tolerance = if is_approximated(op) && dtype != DType::F64 { 2.0 } else { 0.0 };
            check(&unary_text(op.name(), dtype, op.result(dtype)), &[array, out], tolerance);
        }
    }
}

#[test]
fn functions_of_two_numbers() {
    for &dtype in &DType::ALL {
        for &op in Binary::ALL.iter().filter(|op| op.takes(dtype)) {
            let (a, b) = pairs(dtype);
            let width = 8 * dtype.size() as i64;
            // What is unspecified.
            let kept = |&i: &usize| {
                let y = b.as_ints().get(i).copied().unwrap_or(1);
                match op {
                    Binary::Div | Binary::Mod if !dtype.is_float() => y != 0,
                    Binary::Shl | Binary::Shr => (0..width).contains(&y),
                    // Either zero is the smaller and the larger.
                    Binary::Min | Binary::Max if dtype.is_float() => {
                        a.as_floats()[i] != 0.0 || b.as_floats()[i] != 0.0
                    }
                    _ => true,
                }
            };
            let kept: Vec<usize> = (0..a.shape[0]).filter(kept).collect();
            let [a, b] = [&a, &b].map(|x| match &x.cells {
                Cells::Float(cells) => {
                    let cells: Vec<f64> = kept.iter().map(|&i| cells[i]).collect();
                    Array::floats(dtype, &cells)
                }
                Cells::Int(cells) => Array::ints(dtype, &kept.iter().map(|&i| cells[i]).collect::<Vec<_>>()),
            });
            let out = like(&a, dtype);
            let near = matches!(op, Binary::Pow | Binary::Atan2) && dtype != DType::F64;
            check(&binary_text(op.name(), dtype, dtype), &[a, b, out], if near { 2.0 } else { 0.0 });
        }
        for &op in Compare::ALL.iter().filter(|op| op.takes(dtype)) {
            let (a, b) = pairs(dtype);
            let out = like(&a, DType::Bool);
            check(&binary_text(op.name(), dtype, DType::Bool), &[a, b, out], 0.0);
        }
    }
}

#[test]
fn casts_and_bits() {
    for &from in &DType::ALL {
        for &to in &DType::ALL {
            let array = values(from);
            let out = like(&array, to);
            check(&unary_text("cast", from, to), &[array.clone(), out.clone()], 0.0);
            // The interpreter has no bits of 16-bit floats.
            let half = |dtype| matches!(dtype, DType::F16 | DType::BF16);
            if from.size() == to.size() && !half(from) && !half(to) {
                check(&unary_text("bitcast", from, to), &[array, out], 0.0);
            }
        }
    }
}

#[test]
fn atomics_on_one_cell() {
    let types = [DType::I32, DType::U32, DType::I64, DType::U64, DType::F32, DType::F64];
    for dtype in types {
        for &op in Atomic::ALL.iter().filter(|op| op.takes(dtype)) {
            let name = dtype.name();
            let text = format!(
                "kernel @t(%a.0: array<{name}, 1>, %o.1: array<{name}, 1>, %c.2: array<{name}, 1>) grid 1 {{\n  \
                 %i.3: i32 = tid 0\n  %4: {name} = load %a.0, %i.3\n  %5: {name} = {} %c.2, 0i32, %4\n  store %o.1, %i.3, %5\n}}\n",
                op.name()
            );
            let mut array = values(dtype);
            if let Cells::Float(cells) = &mut array.cells {
                cells.retain(|x| x.abs() < 1e6 && *x != 0.0);
                array.shape = vec![cells.len()];
            }
            let out = like(&array, dtype);
            check(&text, &[array, out, Array::zeros(dtype, &[1], 1)], 0.0);
        }
    }
}

#[test]
fn loops_run_as_often_as_they_say() {
    let mut cases = vec![];
    for low in [-3i64, 0, 4, i64::from(i32::MIN), i64::from(i32::MAX) - 2, i64::from(i32::MAX)] {
        for distance in [-5i64, -1, 0, 1, 2, 7] {
            for step in [-3, -1, 0, 1, 2, 5, 1 << 30, i64::from(i32::MIN)] {
                let high = (low + distance).clamp(i32::MIN.into(), i32::MAX.into());
                cases.push((low, high, step));
            }
        }
    }
    for step in ["%step.8", "1i32", "-1i32", "3i32", "-2i32"] {
        let text = format!(
            "kernel @t(%a.0: array<i32, 1>, %b.1: array<i32, 1>, %c.2: array<i32, 1>, %o.3: array<i64, 1>) grid 1 {{\n  \
             %i.4: i32 = tid 0\n  %5: i32 = load %a.0, %i.4\n  %6: i32 = load %b.1, %i.4\n  %step.8: i32 = load %c.2, %i.4\n  \
             %9: i64 = for %k.10: i32 in %5, %6, {step} carry (%11: i64 = 1i64) {{\n    %12: i64 = cast %k.10\n    \
             %13: i64 = mul %11, 31i64\n    %14: i64 = add %12, %13\n    yield %14\n  }}\n  store %o.3, %i.4, %9\n}}\n"
        );
        let text = renumbered(&text);
        let column = |f: &dyn Fn(&(i64, i64, i64)) -> i64| {
            Array::ints(DType::I32, &cases.iter().map(f).collect::<Vec<_>>())
        };
        let out = Array::zeros(DType::I64, &[cases.len()], 1);
        check(&text, &[column(&|c| c.0), column(&|c| c.1), column(&|c| c.2), out], 0.0);
    }
}

/// Through the printer, whose numbering the parser wants.
fn renumbered(text: &str) -> String {
    kernel(text).to_string()
}

#[test]
fn many_threads_meet_in_a_cell() {
    let text = "kernel @t(%c.0: array<f32, 1>, %d.1: array<i32, 1>, %e.2: array<f64x3, 1>) grid 2 {\n  %i.3: i32 = tid 0\n  \
                %j.4: i32 = tid 1\n  %5: f32 = atomic_add %c.0, 0i32, 1.0f32\n  %6: i32 = atomic_max %d.1, 1i32, %j.4\n  \
                %7: i32 = atomic_add %d.1, 0i32, %i.3\n  %8: f64, %9: f64, %10: f64 = atomic_add %e.2, 1i32, 1.0f64, 2.0f64, 0.5f64\n}\n";
    let kernel = kernel(text);
    let arrays = [
        Array::zeros(DType::F32, &[1], 1),
        Array::zeros(DType::I32, &[2], 1),
        Array::zeros(DType::F64, &[2], 3),
    ];
    let args = [Arg::Array(0), Arg::Array(1), Arg::Array(2)];
    for lanes in [Lanes::Off, Lanes::Always] {
        let found =
            launch(&program(&kernel, lanes), &kernel, &[1000, 777], &args, &arrays, Layout::Contiguous)
                .unwrap_or_else(|e| panic!("{e}"));
        let threads = 777_000.0;
        assert_eq!(found[0].as_floats(), [threads]);
        assert_eq!(found[1].as_ints(), [777 * 999 * 1000 / 2, 776]);
        assert_eq!(found[2].as_floats(), [0.0, 0.0, 0.0, threads, 2.0 * threads, 0.5 * threads]);
    }
}
