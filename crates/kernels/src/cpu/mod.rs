//! CPU kernels over plain slices: SIMD chosen at run time, threads from one pool.

pub mod attention;
pub mod convert;
pub mod copy;
mod execute;
pub mod gemm;
pub mod lanes;
pub mod map;
pub mod math;
pub mod norm;
pub mod par;
pub mod reduce;
pub mod simd;
pub mod softmax;
mod space;

pub use execute::{execute, takes_strided};
pub use map::map;

// TEMPORARY until optim.rs and random.rs are in: delete this module and `fill_random` then.
#[allow(missing_docs)]
pub mod optim {
    use crate::{View, ViewMut};
    pub struct Adam {
        pub beta1: f64,
        pub beta2: f64,
        pub eps: f64,
        pub weight_decay: f64,
        pub decoupled: bool,
    }
    pub struct Sgd {
        pub momentum: f64,
        pub nesterov: bool,
        pub weight_decay: f64,
    }
    pub struct Scalars {
        pub step: i64,
        pub lr: f64,
        pub grad_scale: f64,
    }
    pub fn sum_of_squares(_: &[View<'_>]) -> (f64, bool) {
        panic!()
    }
    pub fn adam(_: &mut [ViewMut<'_>], _: &[View<'_>], _: &mut [ViewMut<'_>], _: &Adam, _: Scalars) {
        panic!()
    }
    pub fn sgd(_: &mut [ViewMut<'_>], _: &[View<'_>], _: &mut [ViewMut<'_>], _: &Sgd, _: Scalars) {
        panic!()
    }
}
/// TEMPORARY
pub fn fill_random(_: &mut crate::ViewMut<'_>, _: bool, _: f64, _: f64, _: u64, _: u64) {}
