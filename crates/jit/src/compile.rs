//! From a kernel to machine code, by Cranelift, and the memory that it runs in.

use std::fmt::Write;
use std::sync::OnceLock;

use bullet_lang::ir::{Kernel, Type};
use cranelift_codegen::Context;
use cranelift_codegen::control::ControlPlane;
use cranelift_codegen::ir::Function;
use cranelift_codegen::isa::OwnedTargetIsa;
use cranelift_codegen::settings::{self, Configurable};
use memmap2::{Mmap, MmapMut};

use crate::abi::Entry;
use crate::emit::{Emitted, emit};
use crate::program::{Error, Meta, Options};

/// Machine code that can be called.
#[derive(Debug)]
pub(crate) struct Code {
    memory: Mmap,
    length: usize,
}

impl Code {
    /// Code that depends on nothing around it.
    pub(crate) fn new(bytes: &[u8]) -> Result<Code, Error> {
        let refused = |e: std::io::Error| Error::new(format!("the system gives no memory for code: {e}"));
        let mut memory = MmapMut::map_anon(bytes.len().max(1)).map_err(refused)?;
        memory[..bytes.len()].copy_from_slice(bytes);
        Ok(Code { memory: memory.make_exec().map_err(refused)?, length: bytes.len() })
    }

    pub(crate) fn entry(&self) -> Entry {
        // SAFETY: the bytes are a function of this type, which `compile` made.
        unsafe { std::mem::transmute::<*const u8, Entry>(self.memory.as_ptr()) }
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.memory[..self.length]
    }
}

/// Functions of more than this go without Cranelift's optimisation, which takes a third of the time: what it finds behind our own
/// passes lies around a kernel, mostly, and counts for little in a large one. In instructions of Cranelift's, each of whose blocks
/// takes as long as two.
const LARGE: usize = 440;

/// How code is made.
#[derive(Clone, Copy)]
enum Effort {
    Whole,
    /// Without optimisation.
    Less,
}

impl Effort {
    fn of(function: &Function) -> Effort {
        let size = function.dfg.num_insts() + 2 * function.dfg.num_blocks();
        if size > LARGE { Effort::Less } else { Effort::Whole }
    }
}

/// The instructions of this machine.
fn target(effort: Effort) -> Result<&'static OwnedTargetIsa, Error> {
    static TARGETS: [OnceLock<Result<OwnedTargetIsa, Error>>; 2] = [const { OnceLock::new() }; 2];
    TARGETS[effort as usize].get_or_init(|| find_target(effort)).as_ref().map_err(Clone::clone)
}

fn find_target(effort: Effort) -> Result<OwnedTargetIsa, Error> {
    let failed =
        |e: &dyn std::fmt::Display| Error::new(format!("no CPU code can be made for this machine: {e}"));
    if !cfg!(target_arch = "x86_64") {
        return Err(failed(&"kernels are compiled for x86-64 only"));
    }
    let mut flags = settings::builder();
    let chosen = [
        (
            "opt_level",
            match effort {
                Effort::Whole => "speed",
                Effort::Less => "none",
            },
        ),
        ("enable_probestack", "false"),
        ("unwind_info", "false"),
        ("enable_verifier", if cfg!(debug_assertions) { "true" } else { "false" }),
    ];
    for (name, value) in chosen {
        flags.set(name, value).map_err(|e| failed(&e))?;
    }
    let builder = cranelift_native::builder().map_err(|e| failed(&e))?;
    builder.finish(settings::Flags::new(flags)).map_err(|e| failed(&e))
}

/// The compiler, and all of this machine that code depends on.
pub(crate) fn target_name() -> Result<String, Error> {
    static NAME: OnceLock<String> = OnceLock::new();
    let target = target(Effort::Whole)?;
    let flags = || {
        let set = target.isa_flags().into_iter().filter(|flag| flag.as_bool() != Some(false));
        set.map(|flag| format!(" {flag}")).collect::<String>()
    };
    let name = NAME
        .get_or_init(|| format!("cranelift {}, {}{}", cranelift_codegen::VERSION, target.triple(), flags()));
    Ok(name.clone())
}

/// A kernel compiled; with its text if it is asked for.
fn compiled(kernel: &Kernel, options: Options, text: bool) -> Result<(Emitted, Context), Error> {
    kernel.verify().map_err(|e| Error::new(format!("kernel `{}` is malformed: {e}", kernel.name)))?;
    let mut emitted = emit(kernel, options, &**target(Effort::Whole)?)?;
    let target = target(Effort::of(&emitted.function))?;
    let mut context = Context::for_function(std::mem::replace(&mut emitted.function, Function::new()));
    context.set_disasm(text);
    context.compile(&**target, &mut ControlPlane::default()).map_err(|e| {
        let error = cranelift_codegen::print_errors::pretty_error(e.func, e.inner);
        Error::new(format!("kernel `{}` could not be compiled for the CPU: {error}", kernel.name))
    })?;
    Ok((emitted, context))
}

/// The code of a kernel, which may lie anywhere, and what a launch must know.
pub(crate) fn compile(kernel: &Kernel, options: Options) -> Result<(Meta, Vec<u8>), Error> {
    let (emitted, context) = compiled(kernel, options, false)?;
    let code = context.compiled_code().ok_or_else(|| Error::new("no code"))?;
    if !code.buffer.relocs().is_empty() {
        return Err(Error::new(format!(
            "kernel `{}` needs instructions that this CPU lacks: SSE4.1 at least",
            kernel.name
        )));
    }
    let meta = Meta {
        name: kernel.name.clone(),
        grid: kernel.grid,
        ndims: kernel.params.iter().map(|&param| kernel.ty(param).array().map_or(0, |ty| ty.ndim)).collect(),
        sites: emitted.sites,
        prints: emitted.prints,
        scratch: emitted.scratch,
        tape: emitted.tape,
    };
    Ok((meta, code.buffer.data().to_vec()))
}

/// Cranelift's IR of a kernel, as text.
///
/// # Errors
/// As of [`Program::new`](crate::Program::new).
pub fn clif(kernel: &Kernel, options: Options) -> Result<String, Error> {
    let emitted = emit(kernel, options, &**target(Effort::Whole)?)?;
    Ok(described(kernel) + &emitted.function.display().to_string())
}

/// The instructions of a kernel for this machine, as text.
///
/// # Errors
/// As of [`Program::new`](crate::Program::new).
pub fn asm(kernel: &Kernel, options: Options) -> Result<String, Error> {
    let (_, context) = compiled(kernel, options, true)?;
    let text = context.compiled_code().and_then(|code| code.vcode.clone());
    Ok(described(kernel) + &text.unwrap_or_default())
}

/// A comment of what the parameters are, as code names none.
fn described(kernel: &Kernel) -> String {
    let mut text = format!("; {}", kernel.name);
    for &param in &kernel.params {
        let ty: Type = kernel.ty(param);
        let _ = write!(text, "\n;   {}: {ty}", kernel.name_of(param).unwrap_or("arg"));
    }
    text + "\n"
}
