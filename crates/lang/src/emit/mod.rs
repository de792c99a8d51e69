//! Source text from the IR, and from Python all the way.

use crate::adjoint::{AdjointOptions, adjoint};
use crate::{Diagnostics, Options, compile};

pub mod cuda;

/// What a source is turned into.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Target {
    /// The text form of the IR.
    Ir,
    /// CUDA C++ without headers, for NVRTC.
    Cuda,
    /// CUDA C++ with a `main`, for nvcc.
    Standalone,
}

/// One kernel's text.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Emitted {
    /// The kernel's name.
    pub name: String,
    /// Of the kernel, and of its adjoint if that was asked for.
    pub text: String,
}

/// The text of each kernel of a Python source, for a command line or a file each.
///
/// # Errors
/// Everything that is wrong with the source; with `adjoints`, kernels that have no exact one, too.
pub fn emit(file: &str, text: &str, target: Target, adjoints: bool) -> Result<Vec<Emitted>, Diagnostics> {
    let (mut out, mut errors) = (vec![], vec![]);
    for kernel in compile(file, text, Options::default())? {
        let made = match adjoints.then(|| adjoint(&kernel, AdjointOptions::default())).transpose() {
            Ok(made) => made,
            Err(mut found) => {
                errors.append(&mut found);
                continue;
            }
        };
        let both: Vec<_> =
            [Some(&kernel), made.as_ref().map(|made| &made.kernel)].into_iter().flatten().collect();
        let text = match target {
            Target::Ir => both.iter().map(|kernel| kernel.to_string()).collect::<Vec<_>>().join("\n"),
            Target::Cuda => cuda::source(&both, cuda::CudaOptions::default()),
            Target::Standalone => cuda::standalone(&kernel, made.as_ref()),
        };
        out.push(Emitted { name: kernel.name, text });
    }
    if errors.is_empty() { Ok(out) } else { Err(Diagnostics::new(file, text, errors)) }
}
