//! temp
pub mod diag;
pub mod interp;
pub mod ir;
mod lower;
mod passes;
mod syntax;

pub use diag::Diagnostics;

/// The kernels of a Python source, lowered.
///
/// # Errors
/// Everything that is wrong with the source.
pub fn compile(file: &str, text: &str) -> Result<Vec<ir::Kernel>, Diagnostics> {
    let (module, errors) = syntax::parse(text, &lower::Program::HIDDEN);
    if !errors.is_empty() {
        return Err(Diagnostics::new(file, text, errors));
    }
    let program = lower::Program::new(&module);
    let mut kernels = vec![];
    let mut errors = vec![];
    for function in program.kernels() {
        let (kernel, mut found) = lower::lower(&program, function);
        let failed = !found.is_empty();
        errors.append(&mut found);
        if !failed {
            if let Err(e) = kernel.verify() {
                panic!("{e}\n{kernel}");
            }
            let mut kernel = kernel;
            passes::optimize(&mut kernel);
            kernels.push(kernel);
        }
    }
    if errors.is_empty() { Ok(kernels) } else { Err(Diagnostics::new(file, text, errors)) }
}
