//! Random kernels and their adjoints on every device there is: what a launch leaves in memory is what the interpreter says, but
//! for rounding; deterministic launches leave the same bits. `BULLET_LANG_KERNELS` and `BULLET_LANG_SEED` as of bullet-lang's tests, `BULLET_TEST_DEVICES` as of the tensors'.

#[path = "../../lang/tests/random/arguments.rs"]
mod arguments;
#[path = "../../lang/tests/random/generate.rs"]
mod generate;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arguments::Given;
use bullet_lang::Options;
use bullet_lang::adjoint::{Adjoint, Use};
use bullet_lang::interp::{self, Array, Cells, Options as Run};
use bullet_lang::ir::Kernel;
use bullet_lang::link::{Linked, link};
use bullet_tensor::{DType, Device, Tensor, access};
use generate::module;

use crate::code::Code;
use crate::error::Error;
use crate::kernel::{Arg, LaunchOptions, types};

/// How many threads run each kernel: a warp and some.
const THREADS: usize = 37;

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// What a kernel is given, as the interpreter takes it.
struct Case<'a> {
    kernel: &'a Kernel,
    adjoint: Option<&'a Adjoint>,
    args: &'a [interp::Arg<f64>],
    before: &'a [Array<f64>],
}

impl Case<'_> {
    /// What the interpreter leaves in memory, after inputs that are `1 + by` times as large. None if it runs too long.
    fn expected(&self, by: f64) -> Option<Vec<Array<f64>>> {
        let mut after = self.before.to_vec();
        for array in &mut after {
            if let Cells::Float(cells) = &mut array.cells {
                cells.iter_mut().for_each(|cell| *cell *= 1.0 + by);
            }
        }
        let options = Run { rounded: true, fuel: 4_000_000 };
        match interp::run(self.kernel, &[THREADS], self.args, &mut after, options) {
            Ok(_) => Some(after),
            Err(fault) if fault.to_string().contains("too long") => None,
            Err(fault) => panic!("{fault}\n{}", self.kernel),
        }
    }

    /// What a launch leaves in memory; none if a device cannot do it deterministically.
    fn found(&self, device: &Device, strided: bool, options: LaunchOptions) -> Option<Vec<Vec<f64>>> {
        thread_local! {
            static NOTHING: Arc<Linked> = Arc::new(link(&[], Options::default()).expect("nothing is right"));
        }
        let linked = NOTHING.with(Arc::clone);
        let code = match self.adjoint {
            Some(adjoint) => Code::of(adjoint, linked),
            None => Code::new(self.kernel.clone(), linked),
        };
        let upload = |array: &Array<f64>, lanes: usize| upload(array, lanes, strided, device);
        let mut tensors: Vec<Option<Tensor>> = vec![None; self.before.len()];
        let args: Vec<Arg> = types(self.kernel)
            .zip(self.args)
            .map(|(ty, arg)| match *arg {
                interp::Arg::Array(i) => {
                    let lanes = usize::from(ty.array().expect("an array").lanes);
                    Arg::Array(tensors[i].get_or_insert_with(|| upload(&self.before[i], lanes)).clone())
                }
                interp::Arg::Float(x) => Arg::Scalar(x.to_bits()),
                interp::Arg::Int(n) => Arg::Scalar(n as u64),
            })
            .collect();
        match code.launch(device, &[THREADS as i32], &args, options) {
            Ok(()) => {}
            Err(Error::Unsupported(_)) if options.deterministic && device.gpu().is_some() => return None,
            Err(e) => panic!("{e}\n{}", self.kernel),
        }
        let read = |tensor: &Option<Tensor>| {
            let tensor = tensor.as_ref().expect("every array is an argument");
            tensor.cast(DType::F64).and_then(|t| t.to_vec::<f64>()).unwrap_or_else(|e| panic!("{e}"))
        };
        Some(tensors.iter().map(read).collect())
    }

    /// Deterministic launches leave the same bits: on a CPU those of the interpreter, which has the same functions of f64.
    fn check_order(&self, device: &Device, strided: bool, seed: u64, expected: &[Array<f64>]) {
        let bits = |found: Vec<Vec<f64>>| {
            let bits = |x: f64| if x.is_nan() { u64::MAX } else { x.to_bits() };
            found.into_iter().map(|cells| cells.into_iter().map(bits).collect()).collect::<Vec<Vec<u64>>>()
        };
        let options = LaunchOptions { deterministic: true, ..options(seed) };
        let Some(first) = self.found(device, strided, options).map(bits) else { return };
        let again = self.found(device, strided, options).map(bits);
        assert!(again.as_ref() == Some(&first), "seed {seed} on {device}: {}", self.kernel);
        if device.gpu().is_none() {
            let expected = bits(expected.iter().map(floats).collect());
            assert!(first == expected, "seed {seed}, in order:\n{}\n{}", module(seed), self.kernel);
        }
    }

    /// Compares both; whether the kernel could be compared.
    fn check(&self, device: &Device, strided: bool, seed: u64) -> bool {
        let Some(expected) = self.expected(0.0) else { return false };
        // A GPU's compiler takes its time for each of the kernels that this needs.
        if device.gpu().is_none() || seed.is_multiple_of(4) {
            self.check_order(device, strided, seed, &expected);
        }
        let Some(found) = self.found(device, strided, options(seed)) else { return false };
        let far = |a: f64, b: f64, tolerance: f64| {
            a.to_bits() != b.to_bits()
                && !(a.is_nan() && b.is_nan())
                // Also where one is NaN and the other is not.
                && (a - b).abs().partial_cmp(&(tolerance * (1.0 + b.abs()))).is_none_or(|order| order.is_gt())
        };
        let wrong = |tolerance: f64, other: &[Vec<f64>]| {
            let pairs = other.iter().zip(&expected).flat_map(|(a, b)| a.iter().copied().zip(floats(b)));
            pairs.filter(|&(a, b)| far(a, b, tolerance)).count()
        };
        if wrong(1e-7, &found) == 0 {
            return true;
        }
        // A branch may turn on the last bit, and a result may lose all of its digits: then other inputs, the same but for
        // theirs, give other results, too.
        for by in [1e-12, -1e-12, 3e-13, -3e-13] {
            let Some(moved) = self.expected(by) else { return false };
            let moved: Vec<Vec<f64>> = moved.iter().map(floats).collect();
            if wrong(1e-9, &moved) > 0 {
                return false;
            }
        }
        panic!("seed {seed} on {device}: {found:?}, not {expected:?}\n{}\n{}", module(seed), self.kernel)
    }
}

/// Half of all kernels are launched with checks of indices, which are in range.
fn options(seed: u64) -> LaunchOptions {
    LaunchOptions { debug: seed % 8 < 4, ..LaunchOptions::default() }
}

fn floats(array: &Array<f64>) -> Vec<f64> {
    match &array.cells {
        Cells::Float(cells) => cells.clone(),
        Cells::Int(cells) => cells.iter().map(|&n| n as f64).collect(),
    }
}

/// A tensor of the array; strided ones have a place of NaN or 99 behind each element.
fn upload(array: &Array<f64>, lanes: usize, strided: bool, device: &Device) -> Tensor {
    let gap = usize::from(strided);
    let values: Vec<f64> = floats(array)
        .chunks(lanes)
        .flat_map(|element| element.iter().copied().chain(std::iter::repeat_n(99.0, gap * lanes)))
        .collect();
    let mut shape = array.shape.clone();
    shape.push(1 + gap);
    if lanes > 1 {
        shape.push(lanes);
    }
    let whole = match array.dtype {
        DType::I32 => {
            Tensor::from_slice(&values.iter().map(|&x| x as i32).collect::<Vec<i32>>(), &shape, device)
        }
        _ => Tensor::from_slice(&values, &shape, device),
    };
    whole.and_then(|t| t.select(array.shape.len() as isize, 0)).unwrap_or_else(|e| panic!("{e}"))
}

/// A kernel and its adjoint; how many of the two could be compared.
fn check(seed: u64, device: &Device) -> u64 {
    let given = Given::new(seed, THREADS);
    let strided = seed.is_multiple_of(3);
    let (kernel, args, before) = (&given.kernel, given.args(), &given.before[..]);
    if !(Case { kernel, adjoint: None, args, before }.check(device, strided, seed)) {
        return 0;
    }
    let (adjoint, before) = (&given.adjoint, &given.before_adjoint[..]);
    let case = Case { kernel: &adjoint.kernel, adjoint: Some(adjoint), args: given.args_adjoint(), before };
    1 + u64::from(case.check(device, strided, seed))
}

/// What a GPU does before it measures a tape, as far as a CPU can do it.
#[test]
fn what_is_overwritten_can_be_copied_while_a_launch_holds_its_arrays() {
    let linked = Arc::new(link(&[], Options::default()).unwrap());
    let mut overwritten = 0;
    for seed in 1..60 {
        let adjoint = Given::new(seed, THREADS).adjoint;
        let code = Code::of(&adjoint, linked.clone());
        let arg = |ty: bullet_lang::ir::Type| match ty.array() {
            Some(_) => Arg::Array(Tensor::zeros(&[1], DType::F64, &Device::cpu()).unwrap()),
            None => Arg::Scalar(0),
        };
        let args: Vec<Arg> = types(&adjoint.kernel).map(arg).collect();
        let [reads, writes] = code.held(&args);
        let own = access(&reads, &writes, || code.work(&[1], &args).to_measure()).unwrap().unwrap();
        for (i, usage) in adjoint.uses.iter().enumerate().filter(|(_, usage)| **usage == Use::Scratch) {
            let (Arg::Array(own), Arg::Array(given)) = (&own[i], &args[i]) else { panic!("{usage:?}") };
            assert!(!own.shares_memory(given));
            overwritten += 1;
        }
    }
    assert!(overwritten > 10, "{overwritten}");
}

#[test]
fn random_kernels_do_on_devices_what_the_interpreter_says() {
    let names = std::env::var("BULLET_TEST_DEVICES").unwrap_or_else(|_| "cpu".into());
    for name in names.split(',') {
        let device = Device::parse(name).unwrap_or_else(|e| panic!("{name}: {e}"));
        let (first, count) = (number("BULLET_LANG_SEED", 1), number("BULLET_LANG_KERNELS", 50));
        let (next, compared) = (AtomicU64::new(first), AtomicU64::new(0));
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    loop {
                        let seed = next.fetch_add(1, Ordering::Relaxed);
                        if seed >= first + count {
                            break;
                        }
                        compared.fetch_add(check(seed, &device), Ordering::Relaxed);
                    }
                });
            }
        });
        let compared = compared.into_inner();
        println!("{device}: {compared} of {} kernels and adjoints could be compared", 2 * count);
        assert!(compared * 10 >= 2 * count * 7, "too few, {compared}, could be compared");
    }
}
