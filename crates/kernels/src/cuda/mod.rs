//! CUDA kernels: device sources in `crates/kernels/cuda`, and the host code that chooses, compiles and launches them.
//!
//! **Units.** A device source is a template: the host puts the prelude, then a few definitions (`typedef f16 T;`,
//! `#define HEAD 32`), then the source into one translation unit, which becomes one module. [`Unit`] names the source and
//! the definitions; [`Gpu`] keeps the loaded functions by unit and entry point, so that a launch costs one lookup.
//!
//! **Families.** One host file a family of ops (`rows`, `reduce`, `gemm`, ..) next to the source of the same name. Each
//! says in `units` which units it can ask for, so that all of them are compiled for every tier in CI, without a GPU.
//!
//! **Order.** All work goes to the device's default stream; operands are read and results written in that order. Scratch
//! memory comes from the pool and may be dropped at once after the launch, as its next user is behind it in the stream.
//!
//! **Values.** Kernels cannot return errors. What they find wrong (an index out of range) they report into a fault
//! cell of the device, which the host reads when it next reads a tensor.

mod attention;
mod bias_grad;
mod conv;
pub mod copy;
mod cross_entropy;
pub mod decode;
mod execute;
mod fault;
pub mod gemm;
mod gpu;
pub mod index;
pub mod map;
mod norm;
pub mod optim;
mod print;
pub mod random;
mod reduce;
mod rope;
mod rows;
mod scan;
mod softmax;
mod sort;

use bullet_runtime::jit::Tier;

pub use execute::{execute, takes_strided};
pub use fault::{Explain, Report};
pub use gpu::{Define, Gpu, Unit};
pub use map::map;

/// Samples of the kernels that [`map()`] writes at run time: names, and whole texts for a tier.
pub fn sample_sources(tier: Tier) -> Vec<(String, String)> {
    let whole = |(name, source): (String, String)| {
        let text = gpu::assemble(tier, &[], &name, &source);
        (name, text)
    };
    map::sample_sources().into_iter().map(whole).collect()
}

/// Every unit that kernels may ask for, with its entry points: what a machine without a GPU can compile.
pub fn units() -> Vec<(Unit, Vec<&'static str>)> {
    let families = [
        attention::units,
        bias_grad::units,
        conv::units,
        copy::units,
        cross_entropy::units,
        decode::units,
        gemm::units,
        index::units,
        norm::units,
        optim::units,
        random::units,
        reduce::units,
        rope::units,
        scan::units,
        softmax::units,
        sort::units,
    ];
    families.into_iter().flat_map(|units| units()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The text behind each kernel's opening brace.
    fn bodies(text: &str) -> impl Iterator<Item = &str> {
        text.split("\nKERNEL ").skip(1).map(|kernel| kernel.split_once("{\n").map_or("", |(_, body)| body))
    }

    #[test]
    fn every_kernel_waits_for_the_one_before() {
        let own = units().into_iter().map(|(unit, _)| (unit.name.to_string(), unit.text(Tier::Sm90a)));
        for (name, text) in own.chain(sample_sources(Tier::Sm90a)) {
            assert!(bodies(&text).count() > 0, "{name} has no kernel");
            for body in bodies(&text) {
                assert!(body.trim_start().starts_with("begin_kernel();"), "{name}:\n{body}");
            }
            assert_eq!(
                text.matches("__global__").count(),
                1,
                "{name}: only KERNEL of the prelude says __global__"
            );
        }
    }
}
