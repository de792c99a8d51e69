//! Random kernels, their adjoints, and what both are given: floats of f64, and few integers.

use bullet_lang::adjoint::{Adjoint, AdjointOptions, Use, adjoint};
use bullet_lang::interp::{Arg, Array, Cells};
use bullet_lang::ir::Kernel;
use bullet_lang::{Options, compile};
use bullet_ops::DType;

use super::generate::{COLUMNS, Random, module};

/// The parameters that have gradients, in the order of their arrays, and `s`.
const ACTIVE: [usize; 9] = [0, 1, 2, 3, 4, 7, 9, 10, 6];

/// `x`, `y`, `z`, `out`, `acc`, and the fields of `p`: floats at last, the integers in front of them.
fn arrays(random: &mut Random, threads: usize) -> Vec<Array<f64>> {
    let mut float = |shape: &[usize], lanes: usize| {
        let count = shape.iter().product::<usize>() * lanes;
        let cells = (0..count).map(|_| random.signed() * 1.5).collect();
        Array { dtype: DType::F64, shape: shape.to_vec(), cells: Cells::Float(cells) }
    };
    let row = [threads];
    let mut arrays = vec![float(&row, 1), float(&row, 1), float(&[threads, COLUMNS], 1), float(&row, 1)];
    arrays.extend([float(&row, 1), float(&row, 1), float(&row, 1), float(&row, 2)]);
    let ids = [2, 0, 1, 3, 1, 0, 0, 2, 5, 1, 4];
    let ids: Vec<i64> = ids.into_iter().cycle().take(threads).collect();
    arrays.insert(6, Array::ints(DType::I32, &ids));
    arrays
}

/// How many arguments the kernel itself has.
const OWN: usize = 11;

/// A kernel and its adjoint with their arguments.
pub(crate) struct Given {
    pub(crate) kernel: Kernel,
    pub(crate) adjoint: Adjoint,
    /// Of both: those of the kernel come first.
    all: Vec<Arg<f64>>,
    /// The kernel's arrays.
    pub(crate) before: Vec<Array<f64>>,
    /// Those of the adjoint: the kernel's, gradients like them, and one number for that of `s`.
    pub(crate) before_adjoint: Vec<Array<f64>>,
}

impl Given {
    /// The kernel of a seed, for so many threads.
    pub(crate) fn new(seed: u64, threads: usize) -> Given {
        let mut kernels =
            compile("random.py", &module(seed), Options::default()).unwrap_or_else(|e| panic!("{e}"));
        let kernel = kernels.remove(0);
        let options = AdjointOptions {
            active: Some(&ACTIVE),
            overlapping: seed.is_multiple_of(2),
            checkpoints: seed.is_multiple_of(3),
        };
        let adjoint = adjoint(&kernel, options).unwrap_or_else(|e| panic!("seed {seed}: {e:?}"));
        let mut random = Random::new(seed ^ 0xabcdef);
        let (before, s) = (arrays(&mut random, threads), random.signed());
        let mut all: Vec<Arg<f64>> = (0..5).map(Arg::Array).collect();
        all.extend([Arg::Int(3), Arg::Float(s)]);
        all.extend((5..18).map(Arg::Array));
        let mut before_adjoint = before.clone();
        let params = [0, 1, 2, 3, 4, 7, 8, 9, 10];
        for (array, usage) in before_adjoint.iter_mut().zip(params.map(|param| &adjoint.uses[param])) {
            // What the adjoint says that it does not need must not matter.
            if let (Use::Shape, Cells::Float(cells)) = (usage, &mut array.cells) {
                cells.fill(f64::NAN);
            }
        }
        let mut gradients = arrays(&mut random, threads);
        gradients.remove(6);
        before_adjoint.extend(gradients);
        before_adjoint.push(Array::zeros(DType::F64, &[1], 1));
        Given { kernel, adjoint, all, before, before_adjoint }
    }

    /// The kernel's arguments.
    pub(crate) fn args(&self) -> &[Arg<f64>] {
        &self.all[..OWN]
    }

    /// Those of the adjoint.
    pub(crate) fn args_adjoint(&self) -> &[Arg<f64>] {
        &self.all
    }
}
