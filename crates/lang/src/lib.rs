//! The kernel language: Python functions become a typed IR, CUDA C++ or PTX, and an exact adjoint. Pure: no device, no Python.
//!
//! ```text
//! source text
//!   syntax    tokens, a tree; host code around kernels is skipped unread
//!   link      or: definitions from anywhere, whose names were looked up by who gathered them
//!   library   functions of wp that are written in the language itself
//!   lower     names, types, inlined functions, structured control flow      -> ir::Kernel
//!   passes    folding, common subexpressions, dead code, unrolling
//!   adjoint   IR -> IR: the primal sweep, then everything backwards         -> another ir::Kernel
//!   emit      CUDA C++; or PTX of our own
//! fault       what may stop a thread, where, and the words for it, the same on every device
//! host        one call of a function on the host, interpreted
//! interp      runs IR slowly and exactly, in f64 or with derivatives: the oracle of all of it
//! ```
//!
//! **Who owns what.** A [`ir::Kernel`] is one arena that owns its instructions, blocks and values; passes change it in
//! place or build another. Names of the source live in the syntax tree, and as text in the kernels that use them. A pass
//! never sees source text, and the front never sees a device.
//!
//! **Mistakes of a user** are [`Diagnostics`]: place, source line, hint, several at once. Mistakes of a pass are found by
//! [`ir::Kernel::verify`], which runs behind the passes in debug builds.
//!
//! **Trust.** `tests/random` makes kernels of every construct and compares adjoints with forward-mode derivatives of the
//! same IR, results with and without passes, and text with itself; `tests/kinds` compares with golden files; `tests/cuda`
//! compiles what is emitted. docs/kernel-language.md is the user's page.

pub mod adjoint;
pub mod diag;
pub mod emit;
pub mod fault;
pub mod host;
pub mod interp;
pub mod ir;
mod library;
pub mod link;
mod lower;
pub mod order;
mod passes;
mod signature;
pub mod sums;
mod syntax;

pub use diag::Diagnostics;
pub use lower::value::dtype_name;
pub use passes::optimize;
pub use signature::{Element, ParamType, Signature, Slot};

/// How to compile.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Options {
    /// Whether passes run on what was lowered; [`optimize`] runs them later.
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
    let (mut module, errors) = syntax::parse(text, &lower::Program::HIDDEN);
    if !errors.is_empty() {
        return Err(Diagnostics::new(file, text, errors));
    }
    let library = library::of_module(&mut module);
    let program = lower::Program::new(&module, &library);
    match lower_all(&program, options) {
        Ok(kernels) => Ok(kernels.into_iter().map(|(kernel, _)| kernel).collect()),
        Err(errors) => Err(Diagnostics::new(file, text, errors)),
    }
}

/// One kernel of a Python source, with its parameters: for these types if they are given, which must be those of its
/// annotations or fill what they leave open (`Any`, `wp.array(dtype=Any)`). The name of a kernel of generic types then holds
/// them, so that with the source and the options it is a key for caches.
///
/// # Errors
/// Everything that is wrong with the kernel and what it calls; that there is no such kernel; types that do not fit.
pub fn compile_kernel(
    file: &str,
    text: &str,
    name: &str,
    types: Option<&[ParamType]>,
    options: Options,
) -> Result<(ir::Kernel, Signature), Diagnostics> {
    let (mut module, errors) = syntax::parse(text, &lower::Program::HIDDEN);
    let fail = |errors| Err(Diagnostics::new(file, text, errors));
    if !errors.is_empty() {
        return fail(errors);
    }
    let library = library::of_module(&mut module);
    let mut program = lower::Program::new(&module, &library);
    let missing = || vec![diag::Diagnostic::new(Default::default(), format!("there is no kernel `{name}`"))];
    if !program.only(name, types) {
        return fail(missing());
    }
    match lower_all(&program, options) {
        Ok(kernels) => kernels.into_iter().next().map_or_else(|| fail(missing()), Ok),
        Err(errors) => fail(errors),
    }
}

/// The kernels of a program with their parameters, or what is wrong with them.
fn lower_all(
    program: &lower::Program<'_>,
    options: Options,
) -> Result<Vec<(ir::Kernel, Signature)>, Vec<diag::Diagnostic>> {
    let (mut kernels, mut errors) = (vec![], vec![]);
    for instance in program.kernels() {
        let (mut kernel, signature, mut found) = lower::lower(program, instance);
        if found.is_empty() {
            if options.optimize {
                passes::optimize(&mut kernel);
            }
            kernels.push((kernel, signature));
        }
        errors.append(&mut found);
    }
    if errors.is_empty() { Ok(kernels) } else { Err(errors) }
}
