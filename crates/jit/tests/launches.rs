//! Launches: the kinds of kernels in every form, faults, grids, tapes, images.

mod common;

use std::path::Path;

use bullet_jit::{Arg, Lanes, Options, Program};
use bullet_lang::adjoint::{AdjointOptions, Use, adjoint};
use bullet_lang::interp::{Arg as Given, Array, Cells, Options as Run, run};
use bullet_lang::ir::{Kernel, Type};
use bullet_lang::{Options as Front, compile};
use bullet_ops::DType;
use common::{Layout, float_bits, launch, program};

fn kernels(text: &str) -> Vec<Kernel> {
    let text = format!("import warp as wp\n\n{text}");
    compile("test.py", &text, Front::default()).unwrap_or_else(|e| panic!("{e}"))
}

fn kernel(text: &str) -> Kernel {
    kernels(text).into_iter().next().unwrap_or_else(|| panic!("no kernel in {text}"))
}

/// A number in [0.3, 1.3] or its negative, from a counter.
fn number(counter: &mut u64) -> f64 {
    *counter += 1;
    let x = (*counter as f64 * 0.754_877_666_246_693).fract() + 0.3;
    let x = f64::from(x as f32);
    if counter.is_multiple_of(3) { -x } else { x }
}

/// Arguments of a kernel for arrays of this length, and the arrays.
fn inputs(kernel: &Kernel, length: usize, counter: &mut u64) -> (Vec<Given<f64>>, Vec<Array<f64>>) {
    let mut arrays = vec![];
    let args = kernel.params.iter().map(|&param| match kernel.ty(param) {
        Type::Scalar(dtype) if dtype.is_float() => Given::Float(number(counter)),
        Type::Scalar(_) => Given::Int(length as i64 - 1),
        Type::Array(ty) => {
            let shape = vec![length; ty.ndim.into()];
            let count = shape.iter().product::<usize>() * usize::from(ty.lanes);
            let cells = match ty.dtype.is_float() {
                true => {
                    Array::floats(ty.dtype, &(0..count).map(|_| number(counter)).collect::<Vec<_>>()).cells
                }
                false => Cells::Int((0..count).map(|i| (i * 5 + 2) as i64 % length as i64).collect()),
            };
            arrays.push(Array { dtype: ty.dtype, shape, cells });
            Given::Array(arrays.len() - 1)
        }
    });
    (args.collect(), arrays)
}

/// Floats to 32 bits may differ by what functions, and sums in another order, are off.
fn assert_near(found: &[Array<f64>], expected: &[Array<f64>], context: &str) {
    for (found, expected) in found.iter().zip(expected) {
        assert_eq!(found.as_ints(), expected.as_ints(), "{context}");
        let tolerance = match found.dtype {
            DType::F16 => 4e-3,
            DType::BF16 => 3e-2,
            _ => 2e-5,
        };
        for (a, b) in found.as_floats().iter().zip(expected.as_floats()) {
            let near = (a - b).abs() <= tolerance * (1.0 + b.abs()) || (a.is_nan() && b.is_nan()) || a == b;
            assert!(near, "{a}, not {b}: {context}");
        }
    }
}

#[test]
fn kinds_give_what_the_interpreter_gives() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/kernels/kinds");
    let mut count = 0;
    for file in std::fs::read_dir(folder).expect("kernels of bullet-lang") {
        let text = std::fs::read_to_string(file.expect("a file").path()).expect("a readable file");
        for kernel in compile("kind.py", &text, Front::default()).unwrap_or_else(|e| panic!("{e}")) {
            check_kind(&kernel);
            count += 1;
        }
    }
    assert!(count >= 10, "only {count} kernels");
}

fn check_kind(kernel: &Kernel) {
    let made =
        adjoint(kernel, AdjointOptions::default()).unwrap_or_else(|e| panic!("{}: {e:?}", kernel.name));
    for length in [3, 8, 21] {
        let mut counter = length as u64;
        let grid = vec![length; kernel.grid.into()];
        let (args, arrays) = inputs(kernel, length, &mut counter);
        both(kernel, &grid, &args, &arrays);
        let (mut all_args, mut all) = (args.clone(), arrays.clone());
        for (arg, usage) in args.iter().zip(&made.uses) {
            if let (Given::Array(i), Use::Shape) = (arg, usage)
                && let Cells::Float(cells) = &mut all[*i].cells
            {
                cells.fill(f64::NAN);
            }
        }
        for &param in &made.active {
            let Given::Array(i) = args[param] else { continue };
            let mut weights = arrays[i].clone();
            let numbers: Vec<f64> = weights.as_floats().iter().map(|_| number(&mut counter)).collect();
            weights.cells = Array::floats(weights.dtype, &numbers).cells;
            all.push(weights);
            all_args.push(Given::Array(all.len() - 1));
        }
        both(&made.kernel, &grid, &all_args, &all);
    }
}

/// Runs a kernel in every form and compares.
fn both(kernel: &Kernel, grid: &[usize], args: &[Given<f64>], arrays: &[Array<f64>]) {
    let mut after = arrays.to_vec();
    let interpreted = run(kernel, grid, args, &mut after, Run::default());
    let sizes: Vec<u32> = grid.iter().map(|&length| length as u32).collect();
    for lanes in [Lanes::Off, Lanes::Auto, Lanes::Always] {
        for layout in [Layout::Contiguous, Layout::Strided] {
            let found = launch(&program(kernel, lanes), kernel, &sizes, args, arrays, layout);
            // Some kinds take what they are given as places, and not all of that is in range.
            if let Err(fault) = &interpreted {
                assert!(fault.to_string().contains("is outside") && found.is_err(), "{fault}\n{kernel}");
                continue;
            }
            let found = found.unwrap_or_else(|e| panic!("{e}\n{kernel}"));
            assert_near(&found, &after, &format!("{grid:?} {lanes:?} {layout:?}\n{kernel}"));
        }
    }
}

#[test]
fn grids_of_any_shape_visit_every_thread_once() {
    let places = ["i", "i, j", "i, j, k", "i, j, k, l"];
    for (ndim, places) in places.iter().enumerate().map(|(i, places)| (i + 1, places)) {
        let kind = if ndim == 1 { "array".to_string() } else { format!("array{ndim}d") };
        let code: String = places
            .split(", ")
            .enumerate()
            .map(|(axis, place)| format!(" + {place} * {}", 10i64.pow(axis as u32)))
            .collect();
        let text = format!(
            "@wp.kernel\ndef k(n: wp.{kind}(dtype=int), c: wp.{kind}(dtype=int)):\n    {places} = wp.tid()\n    n[{places}] = n[{places}] + 1\n    \
             c[{places}] = 0{code}\n"
        );
        let kernel = kernel(&text);
        for shape in [vec![3, 9, 2, 17], vec![17, 2, 3, 1], vec![2, 0, 3, 4], vec![130, 2, 2, 8]] {
            let shape = &shape[..ndim];
            let zeros: Array<f64> = Array::zeros(DType::I32, shape, 1);
            both(&kernel, shape, &[Given::Array(0), Given::Array(1)], &[zeros.clone(), zeros]);
        }
    }
}

#[test]
fn large_grids_are_shared_out() {
    let kernel = kernel(
        "@wp.kernel\ndef k(x: wp.array(dtype=float), y: wp.array(dtype=float)):\n    i = wp.tid()\n    y[i] = wp.sin(x[i]) + 1.0\n",
    );
    let length = 300_003;
    let x = Array::floats(DType::F32, &(0..length).map(f64::from).collect::<Vec<_>>());
    let y = Array::zeros(DType::F32, &[length as usize], 1);
    both(&kernel, &[length as usize], &[Given::Array(0), Given::Array(1)], &[x, y]);
}

#[test]
fn an_index_out_of_range_is_a_fault_that_names_all() {
    let kernel = kernel(
        "@wp.kernel\ndef shift(x: wp.array2d(dtype=float), by: int):\n    i, j = wp.tid()\n    x[i, j + by] = 1.0\n",
    );
    for lanes in [Lanes::Off, Lanes::Always] {
        let x: Array<f64> = Array::zeros(DType::F32, &[3, 20], 1);
        let args = [Given::Array(0), Given::Int(7)];
        let fault = launch(&program(&kernel, lanes), &kernel, &[3, 20], &args, &[x], Layout::Contiguous)
            .expect_err("a fault");
        let message = "kernel `shift`, thread (0, 13): index 20 of `x` is outside 0 to 20 in dimension 1 of its shape (3, 20)";
        assert_eq!(fault.message, message);
        assert_eq!(fault.thread, [0, 13]);
        assert!(fault.span.is_some());
        let x: Array<f64> = Array::zeros(DType::F32, &[3, 20], 1);
        let args = [Given::Array(0), Given::Int(-1)];
        let fault = launch(&program(&kernel, lanes), &kernel, &[3, 20], &args, &[x], Layout::Strided)
            .expect_err("a fault");
        assert!(fault.message.contains("thread (0, 0): index -1 of `x`"), "{fault}");
    }
}

#[test]
fn a_fault_of_a_late_thread_stops_a_large_launch() {
    let kernel = kernel(
        "@wp.kernel\ndef k(x: wp.array(dtype=float), bad: int):\n    i = wp.tid()\n    assert i != bad, \"here\"\n    x[i] = 1.0\n",
    );
    for lanes in [Lanes::Off, Lanes::Always] {
        let x: Array<f64> = Array::zeros(DType::F32, &[1_000_000], 1);
        let args = [Given::Array(0), Given::Int(765_432)];
        let fault = launch(&program(&kernel, lanes), &kernel, &[1_000_000], &args, &[x], Layout::Contiguous)
            .expect_err("a fault");
        assert!(fault.message.starts_with("kernel `k`, thread (765432,): "), "{fault}");
        assert!(fault.message.contains("here"), "{fault}");
    }
}

#[test]
fn arguments_that_do_not_fit_are_faults() {
    let kernel = kernel("@wp.kernel\ndef k(x: wp.array(dtype=float)):\n    x[wp.tid()] = 1.0\n");
    let program = program(&kernel, Lanes::Auto);
    // SAFETY: refused before anything is touched.
    let faults = unsafe {
        [
            program.launch(&[4], &[]),
            program.launch(&[4, 4], &[Arg::scalar(0)]),
            program.launch(&[u32::MAX], &[Arg::scalar(0)]),
        ]
    };
    for fault in faults {
        assert!(fault.expect_err("a fault").message.starts_with("kernel `k` "));
    }
}

const STEPS: &str = "@wp.kernel\ndef k(x: wp.array(dtype=wp.float64), n: int):\n    i = wp.tid()\n    v = x[i]\n    for j in range(n):\n        \
                     v = wp.sin(v) + wp.float64(0.1)\n    x[i] = v\n";

#[test]
fn tapes_grow_and_end_at_their_limit() {
    let kernel = kernel(STEPS);
    let adjoint = adjoint(&kernel, AdjointOptions::default()).unwrap_or_else(|e| panic!("{e:?}"));
    let x = Array::floats(DType::F64, &(0..20).map(|i| f64::from(i) * 0.1).collect::<Vec<_>>());
    let args = [Given::Array(0), Given::Int(3000), Given::Array(1)];
    both(&adjoint.kernel, &[20], &args, &[x.clone(), x.clone()]);
    for lanes in [Lanes::Off, Lanes::Always] {
        let options = Options { lanes, tape_limit: 16 << 10, ..Options::default() };
        let program = Program::new(&adjoint.kernel, options).unwrap_or_else(|e| panic!("{e}"));
        let args = [Given::Array(0), Given::Int(300_000), Given::Array(1)];
        // A thread of its own, whose tape has not grown yet.
        let fault = std::thread::scope(|scope| {
            let launched = scope.spawn(|| {
                launch(&program, &adjoint.kernel, &[20], &args, &[x.clone(), x.clone()], Layout::Contiguous)
            });
            launched.join().expect("no panic").expect_err("a fault")
        });
        assert!(fault.message.contains("tape does not fit 16384 bytes"), "{fault}");
    }
}

#[test]
fn a_division_by_zero_gives_all_ones() {
    let kernel = kernel(
        "@wp.kernel\ndef k(a: wp.array(dtype=int), q: wp.array(dtype=int), r: wp.array(dtype=int), z: int):\n    i = wp.tid()\n    \
         q[i] = a[i] / z\n    r[i] = a[i] % z\n",
    );
    let a: Array<f64> = Array::ints(DType::I32, &[0, 1, -5, 7, i32::MIN.into(), 9, 10, 11, 12]);
    let zeros = Array::zeros(DType::I32, &[9], 1);
    let args = [Given::Array(0), Given::Array(1), Given::Array(2), Given::Int(0)];
    for lanes in [Lanes::Off, Lanes::Always] {
        let arrays = [a.clone(), zeros.clone(), zeros.clone()];
        let found = launch(&program(&kernel, lanes), &kernel, &[9], &args, &arrays, Layout::Contiguous)
            .unwrap_or_else(|e| panic!("{e}"));
        assert_eq!([found[1].as_ints(), found[2].as_ints()], [[-1; 9], [-1; 9]]);
    }
}

#[test]
fn what_needs_threads_side_by_side_is_refused() {
    let text = "kernel @t(%o.0: array<f32, 1>) grid 1 {\n  barrier\n}\n";
    let kernel = Kernel::parse(text).unwrap_or_else(|e| panic!("{e}"));
    let error = Program::new(&kernel, Options::default()).expect_err("an error");
    assert!(error.to_string().contains("has a barrier"), "{error}");
}

#[test]
fn local_arrays_are_each_thread_s_own() {
    let text = "kernel @t(%o.0: array<i32, 1>, %n.1: i32) grid 1 {\n  %i.2: i32 = tid 0\n  %3: local<i32, 1> = alloc 4\n  \
                %4: local<i32, 1> = alloc 9000\n  for %k.5: i32 in 0i32, 4i32, 1i32 {\n    %6: i32 = mul %k.5, %i.2\n    \
                store %3, %k.5, %6\n    store %4, %n.1, %6\n  }\n  %7: i32 = load %3, 3i32\n  %8: i32 = load %4, %n.1\n  %9: i32 = add %7, %8\n  \
                store %o.0, %i.2, %9\n}\n";
    let kernel = Kernel::parse(text).unwrap_or_else(|e| panic!("{e}"));
    let out: Array<f64> = Array::zeros(DType::I32, &[100], 1);
    both(&kernel, &[100], &[Given::Array(0), Given::Int(8999)], std::slice::from_ref(&out));
    let fault = launch(
        &program(&kernel, Lanes::Auto),
        &kernel,
        &[100],
        &[Given::Array(0), Given::Int(9000)],
        &[out],
        Layout::Contiguous,
    )
    .expect_err("a fault");
    assert!(fault.message.contains("index 9000 of"), "{fault}");
}

#[test]
fn images_are_programs_again() {
    let kernel = kernel(STEPS);
    let options = Options { lanes: Lanes::Always, ..Options::default() };
    let program = Program::new(&kernel, options).unwrap_or_else(|e| panic!("{e}"));
    let bytes = program.to_bytes().unwrap_or_else(|e| panic!("{e}"));
    let again = Program::from_bytes(&bytes).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(again.to_bytes().as_ref(), Ok(&bytes));
    let x = Array::floats(DType::F64, &[0.5; 11]);
    let args = [Given::Array(0), Given::Int(10)];
    let run = |program: &Program, args: &[Given<f64>]| {
        launch(program, &kernel, &[11], args, std::slice::from_ref(&x), Layout::Contiguous)
    };
    assert_eq!(run(&program, &args), run(&again, &args));
    for end in [0, 7, 9, 40, bytes.len() / 2, bytes.len() - 1] {
        assert!(Program::from_bytes(&bytes[..end]).is_err(), "{end} bytes of {}", bytes.len());
    }
    let mut other = bytes.clone();
    let at = other.windows(9).position(|window| window == b"cranelift").expect("the compiler's name");
    other[at] = b'C';
    let error = Program::from_bytes(&other).expect_err("another compiler's");
    assert!(error.to_string().contains("was compiled for"), "{error}");
}

#[test]
fn the_cache_gives_the_same_program() {
    let kernel = kernel(STEPS);
    let [first, second] =
        [(); 2].map(|()| Program::cached(&kernel, Options::default()).unwrap_or_else(|e| panic!("{e}")));
    assert_eq!(first.to_bytes(), second.to_bytes());
}

#[test]
fn text_shows_what_runs() {
    let kernel = kernel(STEPS);
    let clif = bullet_jit::clif(&kernel, Options::default()).unwrap_or_else(|e| panic!("{e}"));
    assert!(
        clif.contains("function %k(i64, i64, i64) -> i32") && clif.contains("x: array<f64, 1>"),
        "{clif}"
    );
    let asm = bullet_jit::asm(&kernel, Options::default()).unwrap_or_else(|e| panic!("{e}"));
    assert!(asm.contains("ret"), "{asm}");
}

#[test]
fn without_checks_kernels_run_the_same() {
    let kernel = kernel(STEPS);
    for lanes in [Lanes::Off, Lanes::Always] {
        let options = Options { check: false, lanes, ..Options::default() };
        let program = Program::new(&kernel, options).unwrap_or_else(|e| panic!("{e}"));
        let x = Array::floats(DType::F64, &[0.25; 13]);
        let found =
            launch(&program, &kernel, &[13], &[Given::Array(0), Given::Int(2)], &[x], Layout::Contiguous)
                .unwrap_or_else(|e| panic!("{e}"));
        let expected = ((0.25f64).sin() + 0.1).sin() + 0.1;
        assert_eq!(found[0].as_floats(), [expected; 13]);
        assert_eq!(float_bits(DType::F64, expected), expected.to_bits());
    }
}
