//! Rewrites of a kernel that keep what it computes. Each takes a verified kernel and leaves a verified one.

use crate::ir::Kernel;

pub(crate) mod bounds;
mod dead;
mod range;
mod simplify;
pub(crate) mod sink;
mod unroll;

pub(crate) use dead::eliminate;

/// The pipeline that runs on every kernel, before its adjoint is made and behind it.
pub fn optimize(kernel: &mut Kernel) {
    simplify::simplify(kernel);
    dead::eliminate(kernel);
    if unroll::has_short_loops(kernel) {
        *kernel = unroll::unroll(kernel);
        // What unrolling made constant, and what that made unused.
        simplify::simplify(kernel);
        dead::eliminate(kernel);
    } else {
        *kernel = kernel.compact();
    }
    check(kernel);
}

/// The same without unrolling, which is over when an adjoint is made.
pub(crate) fn clean(kernel: &mut Kernel) {
    // Most of the primal sweep is not needed, and not worth simplifying.
    dead::eliminate(kernel);
    simplify::simplify(kernel);
    dead::eliminate(kernel);
    *kernel = kernel.compact();
    check(kernel);
}

/// In debug builds, and so in tests, a pass that breaks an invariant is found where it is.
fn check(kernel: &Kernel) {
    if cfg!(debug_assertions)
        && let Err(error) = kernel.verify()
    {
        panic!("{error}\n{kernel}");
    }
}
