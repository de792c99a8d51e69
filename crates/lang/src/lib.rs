//! temp
pub mod adjoint;
pub mod diag;
pub mod emit;
pub mod interp;
pub mod ir;
mod lower;
mod passes;
mod syntax;

pub use diag::Diagnostics;

/// How to compile.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Options {
    /// Whether passes run on what was lowered.
    pub optimize: bool,
}

impl Default for Options {
    fn default() -> Options {
        Options { optimize: true }
    }
}

/// The kernels of a Python source, in its order.
///
/// # Errors
/// Everything that is wrong with the source.
pub fn compile(file: &str, text: &str, options: Options) -> Result<Vec<ir::Kernel>, Diagnostics> {
    let (module, errors) = syntax::parse(text, &lower::Program::HIDDEN);
    if !errors.is_empty() {
        return Err(Diagnostics::new(file, text, errors));
    }
    let program = lower::Program::new(&module);
    let (mut kernels, mut errors) = (vec![], vec![]);
    for function in program.kernels() {
        let (mut kernel, mut found) = lower::lower(&program, function);
        if found.is_empty() {
            if options.optimize {
                passes::optimize(&mut kernel);
            }
            kernels.push(kernel);
        }
        errors.append(&mut found);
    }
    if errors.is_empty() { Ok(kernels) } else { Err(Diagnostics::new(file, text, errors)) }
}
