//! The adjoint: from a kernel's IR, a kernel that takes the gradients of what it wrote to those of what it read.
//!
//! **One launch.** The adjoint of a kernel first computes anew what its way back needs (the primal sweep), then goes through
//! the same control flow backwards (the reverse sweep), all within one thread. It takes the kernel's own parameters, then for
//! each active one a gradient: an array like the parameter, or for a scalar an array of one element.
//!
//! **What a value needs to be there in reverse** is decided one by one, where it is asked for (`values.rs`):
//! - at the top level it is still there;
//! - in a branch or loop, what follows from available values by pure operations, or by loads from arrays that do not change,
//!   is computed anew where the way back enters the block; constants, indices and whatever does not change in a loop follow;
//! - else it leaves its branch as a further result, or goes on the thread's tape at the end of its loop's body, and is taken
//!   from it where the body begins in reverse. So a loop that is linear in what it carries puts nothing on the tape, as nothing
//!   of it is asked for, and its primal sweep is dead code; a non-linear one puts there what it carries.
//!
//! `while` loops count their runs. The tape is a stack: the reverse sweep mirrors the control flow, so pops meet their
//! pushes, and [`Adjoint::tape`] says how large it gets or that a launch has to measure it.
//!
//! With [`AdjointOptions::checkpoints`] loops are cut into segments first, whose tape lives no longer than their way back
//! (`checkpoint.rs`).
//!
//! **Memory.** Within a thread the reverse sweep is exact for any sequence of loads and stores: a load adds to the gradient
//! of its element, a store takes it and leaves 0, as what was there before is gone. Between threads a kernel without races has
//! elements that many read and none writes, that one thread has for itself, or that many update by atomics. The first two
//! are exact as they are; the third is for sums that the same kernel does not read. What is loaded behind a store to the same
//! array is computed anew by storing again, into a copy ([`Use::Scratch`]); else nothing is stored.
//!
//! Arrays of a thread's own are filled again by the primal sweep, and have a gradient of their own beside them.
//!
//! **Refused**, by a diagnostic: kernels that read an array they update by atomics, or use what an atomic gives, or update
//! floats by other atomics than sums; barriers, shuffles. Their order between threads is not known to the way back.
//!
//! **Functions with derivatives of their own** ([`Op::Custom`]): the primal sweep runs the replay block if there is one, and the
//! way back what the gradient block says. It may read arrays that the kernel does not write.
//!
//! **Masks.** Where a gradient is 0 because a branch or `where` was not taken, it stays 0 behind infinite derivatives:
//! such products are [`MulMasked`](crate::ir::Binary::MulMasked). At kinks the gradient is that of the operand that was
//! chosen; docs/kernel-language.md lists them.

use bullet_ops::DType;

use crate::diag::Diagnostic;
use crate::ir::{ArrayType, Builder, Def, Kernel, Op, Space, Type, Value};
use crate::passes;

mod activity;
mod checkpoint;
mod custom;
mod memory;
mod reverse;
mod rules;
mod tape;
mod values;

pub(crate) use memory::{Accesses, collect, is_own};
pub use tape::Tape;
pub(crate) use tape::width;

/// What to differentiate.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct AdjointOptions<'a> {
    /// The parameters that get gradients, by index; `None` for all arrays of floats.
    pub active: Option<&'a [usize]>,
    /// Whether gradients may overlap, or have elements at one address (a stride of 0): then all are added to by atomics.
    pub overlapping: bool,
    /// Whether long loops keep what they carry at some runs only, and are run again between these: less tape, more time. It is
    /// for launches whose tape would be too large.
    pub checkpoints: bool,
}

/// What the adjoint of a kernel wants of an argument.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Use {
    /// What it held when the kernel was launched; it is read only.
    Unchanged,
    /// A copy of what it held when the kernel was launched; it is written to.
    Scratch,
    /// What the kernel left in it; it is read only. Of arrays that replay functions read.
    Left,
    /// Its shape only.
    Shape,
}

/// A kernel's adjoint, and what a launch of it must know.
#[derive(Clone, Debug)]
pub struct Adjoint {
    /// Takes the kernel's parameters, then the gradients.
    pub kernel: Kernel,
    /// Of the kernel's parameters, in order.
    pub uses: Vec<Use>,
    /// The parameter that each gradient belongs to.
    pub active: Vec<usize>,
    /// What each thread puts on its tape.
    pub tape: Tape,
}

/// The adjoint of a kernel.
///
/// # Errors
/// What of the kernel has no exact adjoint, by its place in the source.
pub fn adjoint(kernel: &Kernel, options: AdjointOptions<'_>) -> Result<Adjoint, Vec<Diagnostic>> {
    let active = active_params(kernel, options)?;
    let mut primal = kernel.clone();
    let left = custom::prepare(&mut primal)?;
    let arrays = differentiated(&primal, &active);
    let memory = memory::prepare(&mut primal, &arrays)?;
    reverse::count_runs(&mut primal);
    let mut made = None;
    if options.checkpoints {
        let mut cut = primal.clone();
        let segments = checkpoint::cut(&mut cut, &memory);
        // Where the room of a segment cannot be known, all is kept.
        made = differentiate(cut, &arrays, &active, &memory, options, segments)?;
    }
    let made = match made {
        Some(made) => Some(made),
        None => differentiate(primal, &arrays, &active, &memory, options, Default::default())?,
    };
    let Some(mut adjoint) = made else { return Err(vec![]) };
    passes::clean(&mut adjoint);
    let gradients = adjoint.params[kernel.params.len()..].to_vec();
    let is_gradient = |array: &Value| gradients.contains(array);
    passes::sink::sink(&mut adjoint, |array| match options.overlapping && is_gradient(&array) {
        true => gradients[0],
        false => array,
    });
    let uses = uses(kernel, &adjoint, &memory, &left);
    let tape = Tape::of(&adjoint);
    Ok(Adjoint { kernel: adjoint, uses, active, tape })
}

/// The adjoint of a kernel that was prepared; `None` if the room for its segments cannot be known.
fn differentiate(
    primal: Kernel,
    arrays: &[Value],
    active: &[usize],
    memory: &memory::Memory,
    options: AdjointOptions<'_>,
    segments: checkpoint::Segments,
) -> Result<Option<Kernel>, Vec<Diagnostic>> {
    let activity = activity::analyze(&primal, arrays);
    let (mut new, map) = primal.emptied();
    new.name += "_adjoint";
    new.noalias = !options.overlapping;
    let gradients = gradients(&primal, &mut new, active);
    let builder = Builder::new(new);
    reverse::Reverse::new(primal, builder, activity, memory, gradients, map, options.overlapping)
        .run(segments)
}

/// What is wanted of each argument: less than `memory` says, where nothing that was loaded is needed.
fn uses(kernel: &Kernel, adjoint: &Kernel, memory: &memory::Memory, left: &[Value]) -> Vec<Use> {
    let mut touched = vec![false; adjoint.params.len()];
    for inst in adjoint.instructions() {
        if let Some(Def::Param(number)) = array_of(adjoint, inst).map(|array| adjoint.value(array).def) {
            touched[number as usize] = true;
        }
    }
    let wanted = kernel.params.iter().zip(touched);
    wanted
        .map(|(&param, touched)| match touched {
            true if left.contains(&param) => Use::Left,
            true => memory.use_of(param),
            false => Use::Shape,
        })
        .collect()
}

/// What gradients flow through: the active parameters, and the floats that a thread keeps in arrays of its own.
fn differentiated(kernel: &Kernel, active: &[usize]) -> Vec<Value> {
    let params = active.iter().map(|&i| kernel.params[i]);
    let own =
        kernel.block(kernel.body).insts.iter().flat_map(|&inst| kernel.inst(inst).results.iter().copied());
    params.chain(own.filter(|&value| is_local(kernel, value) && kernel.dtype(value).is_float())).collect()
}

/// Whether a value is an array that no other thread sees.
pub(crate) fn is_local(kernel: &Kernel, value: Value) -> bool {
    kernel.ty(value).array().is_some_and(|array| array.space == Space::Local)
}

/// The parameters that get gradients.
fn active_params(kernel: &Kernel, options: AdjointOptions<'_>) -> Result<Vec<usize>, Vec<Diagnostic>> {
    let is_float = |i: usize| kernel.params.get(i).is_some_and(|&param| kernel.dtype(param).is_float());
    let Some(active) = options.active else {
        let arrays = (0..kernel.params.len()).filter(|&i| kernel.ty(kernel.params[i]).array().is_some());
        return Ok(arrays.filter(|&i| is_float(i)).collect());
    };
    match active.iter().find(|&&i| !is_float(i)) {
        Some(i) => {
            let message = format!("parameter {i} of `{}` is no float: it has no gradient", kernel.name);
            Err(vec![Diagnostic::new(Default::default(), message)])
        }
        None => Ok(active.into()),
    }
}

/// The gradient of each active parameter, by the parameter.
fn gradients(from: &Kernel, new: &mut Kernel, active: &[usize]) -> Vec<(Value, Value)> {
    let gradient = |&i: &usize| {
        let param = from.params[i];
        let ty = match from.ty(param) {
            Type::Array(array) => array,
            Type::Scalar(dtype) => ArrayType { dtype, lanes: 1, pitch: 1, ndim: 1, space: Space::Global },
        };
        let name = format!("adj_{}", from.name_of(param).unwrap_or("x"));
        (param, new.param(&name, Type::Array(ty)))
    };
    active.iter().map(gradient).collect()
}

/// Of the index type.
const I32: Type = Type::Scalar(DType::I32);

/// Whether an instruction reads or writes an array, and which.
fn array_of(kernel: &Kernel, inst: crate::ir::Inst) -> Option<Value> {
    let data = kernel.inst(inst);
    matches!(data.op, Op::Load | Op::Store | Op::Atomic(_) | Op::CompareExchange).then(|| data.args[0])
}
