//! Random kernels: the adjoint against forward-mode derivatives and finite differences, the passes against none, the text form
//! against itself. `BULLET_LANG_KERNELS=100000` runs more of them, `BULLET_LANG_SEED` other ones.

mod generate;

use bullet_lang::adjoint::{Adjoint, AdjointOptions, Use, adjoint};
use bullet_lang::interp::{Arg, Array, Cells, Dual, Options as Run, Real, run};
use bullet_lang::ir::Kernel;
use bullet_lang::{Options, compile};
use bullet_ops::DType;
use generate::{COLUMNS, LENGTH, Random, module};

/// How many threads run each kernel.
const THREADS: usize = 4;

/// Exact arithmetic, for derivatives.
const EXACT: Run = Run { rounded: false, fuel: 4_000_000 };

fn count() -> u64 {
    let wanted = std::env::var("BULLET_LANG_KERNELS").ok();
    wanted.and_then(|text| text.parse().ok()).unwrap_or(2000)
}

fn first_seed() -> u64 {
    std::env::var("BULLET_LANG_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(1)
}

/// How many arrays of floats there are, and which of the kernel's parameters they and `s` are.
const FLOATS: usize = 8;
const ACTIVE: [usize; 9] = [0, 1, 2, 3, 4, 7, 9, 10, 6];

/// `x`, `y`, `z`, `out`, `acc` and the floats of `p`, random.
fn arrays(random: &mut Random) -> Vec<Array<f64>> {
    let shapes: [(&[usize], usize); FLOATS] = [
        (&[LENGTH], 1),
        (&[LENGTH], 1),
        (&[LENGTH, COLUMNS], 1),
        (&[LENGTH], 1),
        (&[LENGTH], 1),
        (&[LENGTH], 1),
        (&[LENGTH], 1),
        (&[LENGTH], 2),
    ];
    let array = |(shape, lanes): &(&[usize], usize)| {
        let count = shape.iter().product::<usize>() * lanes;
        let cells = (0..count).map(|_| random.signed() * 1.5).collect();
        Array { dtype: DType::F64, shape: shape.to_vec(), cells: Cells::Float(cells) }
    };
    shapes.iter().map(array).collect()
}

/// The integers of `p`.
fn integers<R: Real>() -> Array<R> {
    Array::ints(DType::I32, &[2, 0, 1, 3, 1])
}

fn map<R: Real>(array: &Array<f64>, f: impl FnMut(usize, f64) -> R) -> Array<R> {
    let mut f = f;
    let cells = array.as_floats().iter().enumerate().map(|(i, &x)| f(i, x)).collect();
    Array { dtype: array.dtype, shape: array.shape.clone(), cells: Cells::Float(cells) }
}

fn arguments<R: Real>(s: R) -> Vec<Arg<R>> {
    let arrays = (0..5).map(Arg::Array);
    let structs = [5, FLOATS, 6, 7].map(Arg::Array);
    arrays.chain([Arg::Int(3), Arg::Float(s)]).chain(structs).collect()
}

fn forward<R: Real>(kernel: &Kernel, mut arrays: Vec<Array<R>>, s: R, options: Run) -> Option<Vec<Array<R>>> {
    arrays.push(integers());
    match run(kernel, &[THREADS], &arguments(s), &mut arrays, options) {
        Ok(_) => {
            arrays.truncate(FLOATS);
            Some(arrays)
        }
        Err(fault) if fault.to_string().contains("too long") => None,
        Err(fault) => panic!("{fault}\n{kernel}"),
    }
}

fn dot(a: &[Array<f64>], b: &[Array<f64>]) -> f64 {
    let pairs = a.iter().zip(b).flat_map(|(a, b)| a.as_floats().iter().zip(b.as_floats()));
    pairs.map(|(a, b)| a * b).sum()
}

/// The gradients of the arrays and of `s`, from the weights of what the kernel leaves in the arrays.
fn gradients(
    adjoint: &Adjoint,
    before: &[Array<f64>],
    s: f64,
    weights: &[Array<f64>],
) -> (Vec<Array<f64>>, f64) {
    let mut all: Vec<Array<f64>> = before
        .iter()
        .zip(ACTIVE)
        .map(|(array, param)| match adjoint.uses[param] {
            // What the adjoint says that it does not need must not matter.
            Use::Shape => map(array, |_, _| f64::NAN),
            Use::Unchanged | Use::Scratch | Use::Left => array.clone(),
        })
        .collect();
    all.push(integers());
    all.extend(weights.iter().cloned());
    all.push(Array::zeros(DType::F64, &[1], 1));
    let mut args = arguments(s);
    args.extend((FLOATS + 1..2 * FLOATS + 2).map(Arg::Array));
    if let Err(fault) = run(&adjoint.kernel, &[THREADS], &args, &mut all, EXACT) {
        panic!("{fault}\n{}", adjoint.kernel);
    }
    for (i, param) in ACTIVE.into_iter().enumerate().take(FLOATS) {
        if adjoint.uses[param] == Use::Unchanged {
            assert_eq!(all[i], before[i], "argument {i} was to stay unchanged\n{}", adjoint.kernel);
        }
    }
    let s = all[2 * FLOATS + 1].as_floats()[0];
    (all[FLOATS + 1..2 * FLOATS + 1].to_vec(), s)
}

fn is_tame(arrays: &[Array<f64>]) -> bool {
    arrays.iter().flat_map(|array| array.as_floats()).all(|x| x.is_finite() && x.abs() < 1e6)
}

struct Outcome {
    checked: bool,
    by_differences: bool,
    tape: bool,
}

/// One kernel through everything; panics at a mismatch.
fn check(seed: u64) -> Outcome {
    let text = module(seed);
    let context = || format!("seed {seed}\n{text}");
    let kernels =
        compile("random.py", &text, Options::default()).unwrap_or_else(|e| panic!("{}\n{e}", context()));
    let kernel = &kernels[0];
    let plain =
        &compile("random.py", &text, Options { optimize: false }).unwrap_or_else(|e| panic!("{e}"))[0];
    plain.verify().unwrap_or_else(|e| panic!("{}\n{e}\n{plain}", context()));
    let options = AdjointOptions {
        active: Some(&ACTIVE),
        overlapping: seed.is_multiple_of(2),
        checkpoints: seed.is_multiple_of(3),
    };
    let adjoint = adjoint(kernel, options).unwrap_or_else(|e| panic!("{}\n{e:?}", context()));
    for kernel in [plain, kernel, &adjoint.kernel] {
        let printed = kernel.to_string();
        let again = Kernel::parse(&printed).unwrap_or_else(|e| panic!("{}\n{e}\n{printed}", context()));
        again.verify().unwrap_or_else(|e| panic!("{}\n{e}\n{printed}", context()));
        assert_eq!(again.to_string(), printed, "{}", context());
    }

    let mut random = Random::new(seed ^ 0xabcdef);
    let before = arrays(&mut random);
    let s = random.signed();
    let none = Outcome { checked: false, by_differences: false, tape: false };
    let Some(after) = forward(kernel, before.clone(), s, EXACT) else { return none };
    let plain = forward(plain, before.clone(), s, EXACT);
    assert_eq!(
        format!("{plain:?}"),
        format!("{:?}", Some(&after)),
        "passes changed a result: {}\n{kernel}",
        context()
    );
    if !is_tame(&after) {
        return none;
    }
    let weights: Vec<Array<f64>> = after.iter().map(|array| map(array, |_, _| random.signed())).collect();
    let (found, found_s) = gradients(&adjoint, &before, s, &weights);
    let way: Vec<Array<f64>> = before.iter().map(|array| map(array, |_, _| random.signed())).collect();
    let way_s = random.signed();
    let moved = before.iter().zip(&way);
    let duals = moved.map(|(x, v)| map(x, |i, x| Dual::new(x, v.as_floats()[i]))).collect();
    let Some(duals) = forward(kernel, duals, Dual::new(s, way_s), EXACT) else { return none };
    let slopes = duals.iter().zip(&weights);
    let expected: f64 = slopes
        .flat_map(|(dual, weight)| dual.as_floats().iter().zip(weight.as_floats()))
        .map(|(dual, weight)| dual.slope * weight)
        .sum();
    // Something on the way overflowed, or the kernel is chaotic, and no digit of either is right.
    if expected.is_nan() || expected.abs() > 1e9 {
        return none;
    }
    let result = dot(&found, &way) + found_s * way_s;
    let size: f64 =
        found.iter().flat_map(|array| array.as_floats()).map(|x| x.abs()).sum::<f64>() + found_s.abs();
    let tolerance = 1e-9 * (1.0 + expected.abs() + size);
    assert!(
        (result - expected).abs() <= tolerance,
        "the adjoint gives {result}, duals {expected}: {}\n{kernel}\n{}",
        context(),
        adjoint.kernel
    );
    let by_differences = differences(kernel, &before, s, (&way, way_s), &weights, expected);
    let tape = adjoint.kernel.to_string().contains("push");
    Outcome { checked: true, by_differences, tape }
}

/// Whether finite differences agree; where a kink or jump is near they do not, which is counted and not an error.
fn differences(
    kernel: &Kernel,
    before: &[Array<f64>],
    s: f64,
    (way, way_s): (&[Array<f64>], f64),
    weights: &[Array<f64>],
    expected: f64,
) -> bool {
    let at = |h: f64| {
        let moved = before.iter().zip(way);
        let moved = moved.map(|(x, v)| map(x, |i, x| x + h * v.as_floats()[i])).collect();
        forward(kernel, moved, s + h * way_s, EXACT).map(|after| dot(&after, weights))
    };
    let h = 1e-6;
    let (Some(above), Some(below)) = (at(h), at(-h)) else { return false };
    ((above - below) / (2.0 * h) - expected).abs() <= 1e-4 * (1.0 + expected.abs())
}

#[test]
fn adjoints_of_random_kernels_are_exact() {
    let (first, count) = (first_seed(), count());
    let threads = std::thread::available_parallelism().map_or(2, |n| n.get().min(4)) as u64;
    let outcomes: Vec<Outcome> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|thread| {
                let seeds = (first..first + count).filter(move |seed| seed % threads == thread);
                scope.spawn(move || seeds.map(check).collect::<Vec<_>>())
            })
            .collect();
        workers.into_iter().flat_map(|worker| worker.join().expect("a mismatch, printed above")).collect()
    });
    let checked = outcomes.iter().filter(|outcome| outcome.checked).count();
    let agreed = outcomes.iter().filter(|outcome| outcome.by_differences).count();
    let taped = outcomes.iter().filter(|outcome| outcome.checked && outcome.tape).count();
    println!(
        "{count} kernels: {checked} checked, {taped} of them with a tape; finite differences agree on {agreed}"
    );
    assert!(checked * 10 >= count as usize * 8, "too few kernels could be checked");
    assert!(agreed * 100 >= checked * 90, "finite differences agree on too few");
}
