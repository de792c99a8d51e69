//! CPU kernels over plain slices: SIMD chosen at run time, threads from one pool.

pub mod attention;
pub mod conv;
pub mod convert;
pub mod copy;
pub mod cross_entropy;
mod execute;
pub mod gemm;
pub mod index;
mod lanes;
pub mod map;
pub mod math;
pub mod norm;
pub mod optim;
pub mod par;
mod pool;
pub mod random;
pub mod reduce;
pub mod rope;
pub mod scan;
pub mod simd;
pub mod softmax;
pub mod sort;
pub(crate) mod space;
pub mod stop;

pub use execute::{execute, takes_strided};
pub use map::map;
