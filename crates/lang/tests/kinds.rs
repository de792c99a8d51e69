//! The kinds of kernels in `examples/kernels/kinds`: their IR and CUDA, forward and adjoint, are what `tests/golden` says
//! (`BLESS=1` writes it), and their gradients are what forward-mode derivatives say.

mod sources;

use bullet_lang::adjoint::{Adjoint, AdjointOptions, Use, adjoint};
use bullet_lang::emit::cuda::{self, Checks, CudaOptions};
use bullet_lang::interp::{Arg, Array, Cells, Dual, Options as Run, Real, run};
use bullet_lang::ir::{Kernel, Type};
use bullet_lang::{Options, compile};
use sources::compare;

/// The length of each dimension of arrays and of the grid.
const LENGTH: usize = 6;

/// The kernels of each file, with their adjoints.
fn kinds() -> Vec<(String, Vec<(Kernel, Adjoint)>)> {
    let kernels = |(name, text): (String, String)| {
        let kernels =
            compile(&format!("{name}.py"), &text, Options::default()).unwrap_or_else(|e| panic!("{e}"));
        let made = kernels.into_iter().map(|kernel| {
            let adjoint =
                adjoint(&kernel, AdjointOptions::default()).unwrap_or_else(|e| panic!("{name}: {e:?}"));
            (kernel, adjoint)
        });
        let made = made.collect();
        (name, made)
    };
    sources::kinds().into_iter().map(kernels).collect()
}

#[test]
fn ir_and_cuda_are_as_recorded() {
    for (name, kernels) in kinds() {
        let all: Vec<&Kernel> =
            kernels.iter().flat_map(|(kernel, adjoint)| [kernel, &adjoint.kernel]).collect();
        let ir: Vec<String> = all.iter().map(|kernel| kernel.to_string()).collect();
        compare(&format!("{name}.ir"), &ir.join("\n"));
        for kernel in &all {
            let again = Kernel::parse(&kernel.to_string()).unwrap_or_else(|e| panic!("{e}"));
            assert_eq!(again.to_string(), kernel.to_string());
        }
        compare(&format!("{name}.cu"), &cuda::source(&all, CudaOptions::default()));
    }
}

/// Asserts, and accesses that are in range for sure, or not, or were checked before.
const FAULTS: &str = "import warp as wp

@wp.kernel
def asserts(x: wp.array(dtype=float), out: wp.array(dtype=float)):
    i = wp.tid()
    assert x[i] > 0.0, 'all must be positive'
    out[i] = wp.log(x[i])

@wp.kernel
def indices(x: wp.array2d(dtype=float), at: wp.array(dtype=int), points: wp.array(dtype=wp.vec3), out: wp.array(dtype=float)):
    i, j = wp.tid()
    table = wp.zeros(shape=4, dtype=float)
    for k in range(x.shape[1]):
        table[k % 4] += x[i, k]
        table[at[k]] += points[at[k]][at[j]]
    row = x[i, 1:3]
    wp.atomic_add(out, i + 2 * j, table[3] + row[j])
    out[i + 2 * j] += 1.0
";

#[test]
fn checks_are_as_recorded() {
    let kernels = compile("faults.py", FAULTS, Options::default()).unwrap_or_else(|e| panic!("{e}"));
    let kernels: Vec<&Kernel> = kernels.iter().collect();
    for (name, checks) in [("faults", Checks::Off), ("faults_checked", Checks::All)] {
        let text = cuda::source(&kernels, CudaOptions { checks, ..CudaOptions::default() });
        compare(&format!("{name}.cu"), &text);
    }
}

/// A number in [0.3, 1.7] or its negative, from a counter.
fn number(counter: &mut u64) -> f64 {
    *counter += 1;
    let x = (*counter as f64 * 0.754_877_666_246_693).fract();
    if counter.is_multiple_of(3) { -0.3 - x } else { 0.3 + x }
}

/// Arguments of a kernel, and the arrays that they name.
fn inputs(kernel: &Kernel, counter: &mut u64) -> (Vec<Arg<f64>>, Vec<Array<f64>>) {
    let mut arrays = vec![];
    let args = kernel.params.iter().map(|&param| match kernel.ty(param) {
        Type::Scalar(dtype) if dtype.is_float() => Arg::Float(number(counter)),
        Type::Scalar(_) => Arg::Int(5),
        Type::Array(ty) => {
            let shape = vec![LENGTH; ty.ndim.into()];
            let count = shape.iter().product::<usize>() * usize::from(ty.lanes);
            let cells = match ty.dtype.is_float() {
                true => Cells::Float((0..count).map(|_| number(counter)).collect()),
                false => Cells::Int((0..count).map(|i| (i * 5 + 2) as i64 % LENGTH as i64).collect()),
            };
            arrays.push(Array { dtype: ty.dtype, shape, cells });
            Arg::Array(arrays.len() - 1)
        }
    });
    (args.collect(), arrays)
}

fn map<R: Real>(array: &Array<f64>, mut f: impl FnMut(usize, f64) -> R) -> Array<R> {
    let cells = match &array.cells {
        Cells::Float(cells) => Cells::Float(cells.iter().enumerate().map(|(i, &x)| f(i, x)).collect()),
        Cells::Int(cells) => Cells::Int(cells.clone()),
    };
    Array { dtype: array.dtype, shape: array.shape.clone(), cells }
}

#[test]
fn gradients_are_exact() {
    let exact = Run { rounded: false, ..Run::default() };
    for (name, kernels) in kinds() {
        for (kernel, adjoint) in &kernels {
            let counter = &mut 7;
            let (args, arrays) = inputs(kernel, counter);
            let grid = vec![LENGTH; kernel.grid.into()];
            let way: Vec<Array<f64>> =
                arrays.iter().map(|array| map(array, |_, _| number(counter))).collect();
            let weights: Vec<Array<f64>> =
                arrays.iter().map(|array| map(array, |_, _| number(counter))).collect();
            let moved = arrays.iter().zip(&way);
            let mut duals: Vec<Array<Dual>> =
                moved.map(|(x, v)| map(x, |i, x| Dual::new(x, v.as_floats()[i]))).collect();
            let dual_args: Vec<Arg<Dual>> = args
                .iter()
                .map(|arg| match *arg {
                    Arg::Float(x) => Arg::Float(Dual::new(x, 0.0)),
                    Arg::Int(x) => Arg::Int(x),
                    Arg::Array(x) => Arg::Array(x),
                })
                .collect();
            run(kernel, &grid, &dual_args, &mut duals, exact).unwrap_or_else(|e| panic!("{name}: {e}"));
            let pairs = duals.iter().zip(&weights).flat_map(|(a, w)| a.as_floats().iter().zip(w.as_floats()));
            let expected: f64 = pairs.map(|(dual, weight)| dual.slope * weight).sum();

            let mut all: Vec<Array<f64>> = arrays.clone();
            let mut all_args = args.clone();
            for (arg, usage) in args.iter().zip(&adjoint.uses) {
                match (arg, usage) {
                    (Arg::Array(i), Use::Shape) => all[*i] = map(&all[*i], |_, _| f64::NAN),
                    (Arg::Array(i), Use::Left) => all[*i].cells = Cells::Int(duals[*i].as_ints().to_vec()),
                    _ => {}
                }
            }
            for &param in &adjoint.active {
                let Arg::Array(i) = args[param] else { panic!("only arrays are active") };
                all.push(weights[i].clone());
                all_args.push(Arg::Array(all.len() - 1));
            }
            run(&adjoint.kernel, &grid, &all_args, &mut all, exact).unwrap_or_else(|e| panic!("{name}: {e}"));
            let mut result = 0.0;
            for (number, &param) in adjoint.active.iter().enumerate() {
                let Arg::Array(i) = args[param] else { continue };
                let gradient = all[arrays.len() + number].as_floats();
                result += gradient.iter().zip(way[i].as_floats()).map(|(g, v)| g * v).sum::<f64>();
            }
            // Constants are f32, derivatives of them too.
            let error = (result - expected).abs() / (1.0 + expected.abs());
            assert!(error < 1e-6, "{name}: the adjoint gives {result}, duals {expected}\n{}", adjoint.kernel);
        }
    }
}
