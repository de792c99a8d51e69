//! Deterministic launches: what of a kernel's results depends on the order in which atomic updates of its threads come, and
//! what is done about it.
//!
//! **What is promised.** A deterministic launch of the same arguments leaves the same bits, at every run and for any number of
//! threads of the CPU. On a CPU they are those of the grid's threads one after the other, the last dimension fastest, as the
//! [interpreter](crate::interp) has them. On a GPU they are those of one fixed order of the sums of each element, which is not
//! that of the CPU; sums are made in float64 and rounded once for each element. It is no promise about plain stores of several threads to
//! one element, which have no order anywhere.
//!
//! **Three kinds of kernels** ([`Order`]):
//! - [`Order::Free`]: every order gives the same bits, and such a kernel is launched as ever. So are integer sums, extremes and
//!   bit operations whose old value is not used, and any update of elements that one thread has for itself (`out[i] += x`).
//! - [`Order::Records`]: sums of floats whose old value is not used, to arrays that the kernel does not touch otherwise. Nobody
//!   sees when such an update is made. Threads therefore put down a record of each, its element and value, and the records are
//!   applied behind the threads: in order on a CPU; on a GPU sorted by element, stably, and summed by a tree whose
//!   shape depends on the records alone. Extremes of floats differ in the sign of zero and in NaN; the CPU records
//!   them, the instructions of GPUs have an order of their own for those.
//! - [`Order::Serial`]: the kernel itself sees the order: it uses an old value, exchanges, or reads or stores what it updates. Only
//!   running its threads one after the other defines what it does. A CPU does that; on a GPU such a launch is an error that
//!   says so, as it would take thousands of times as long there.
//!
//! **Adjoints** are kernels like others: what many threads read has a gradient that they add to by atomics, and such adjoints
//! are `Records` mostly.
//!
//! **Arrays that share memory**, and those with a stride of 0, break what is said here of an array alone: the launch looks for
//! them, and has all elements taken as anybody's (`distinct` below), or goes one thread after the other.
//!
//! **Room for records on a GPU** is so many a thread: the most that its text can make ([`most_records`]), or where loops run as
//! often as the arguments say, what a launch of the [counting] kernel finds, which has the same control flow
//! and no effects. Large grids are run in slices of a fixed size, each with its records applied before the next.

use crate::adjoint::{Accesses, collect, is_local, is_own};
use crate::diag::Diagnostic;
use crate::ir::{Atomic, Const, Def, Inst, Kernel, Op, Space, Value};
use crate::passes;

/// How much of the order of updates can be seen.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Order {
    /// Nothing.
    Free,
    /// What sums of floats are rounded to.
    Records,
    /// More, by the kernel itself: what, where, and what to write instead.
    Serial(Diagnostic),
}

/// What a kernel's updates are. `distinct` says that no two elements of arrays share memory.
pub fn order(kernel: &Kernel, distinct: bool) -> Order {
    let plain = kernel.plain();
    let kernel = &*plain;
    let (counts, mut records) = (kernel.use_counts(), false);
    let accesses = collect(kernel);
    // In the order of the text, so that the message is the same every time.
    for inst in kernel.instructions() {
        let data = kernel.inst(inst);
        if !matches!(data.op, Op::Atomic(_) | Op::CompareExchange) {
            continue;
        }
        let Some(found) = accesses.get(&data.args[0]) else { continue };
        if is_private(kernel, data.args[0], found, distinct) {
            continue;
        }
        let used = data.results.iter().any(|result| counts[result.index()] > 0);
        if let Some(what) = visible(kernel, inst, found, used) {
            return Order::Serial(explain(kernel, inst, what));
        }
        records |= kernel.dtype(data.args[0]).is_float();
    }
    if records { Order::Records } else { Order::Free }
}

/// Whether no other thread touches what this one updates.
fn is_private(kernel: &Kernel, array: Value, found: &Accesses, distinct: bool) -> bool {
    is_local(kernel, array) || (distinct && is_own(kernel, found))
}

/// How a kernel sees when an update is made.
fn visible(kernel: &Kernel, inst: Inst, found: &Accesses, used: bool) -> Option<&'static str> {
    let data = kernel.inst(inst);
    let is_shared = kernel.ty(data.args[0]).array().is_some_and(|array| array.space == Space::Shared);
    if used {
        return Some("the old value that an atomic update of `@` gives is used");
    }
    match data.op {
        Op::Atomic(Atomic::Exchange) | Op::CompareExchange => {
            return Some("`@` keeps what the last of several threads puts there");
        }
        _ if is_shared && !kernel.dtype(data.args[0]).is_float() => return None,
        _ if is_shared => return Some("the threads of a block add to `@`, which they share"),
        _ => {}
    }
    if !found.loads.is_empty() || !found.stores.is_empty() {
        return Some(
            "`@` is updated by atomics of several threads, and read or stored to in the same kernel",
        );
    }
    let mixed = found.atomics.iter().any(|other| kernel.inst(other.inst).op != data.op);
    mixed.then_some("`@` is updated by several kinds of atomics")
}

/// What to do about [`Order::Serial`].
const SPLIT: &str = "a deterministic launch runs such a kernel on the CPU only, one thread after the other; split it into kernels \
                     that add to arrays they do not read, or launch it with deterministic=False";

fn explain(kernel: &Kernel, inst: Inst, what: &str) -> Diagnostic {
    let data = kernel.inst(inst);
    let name = kernel.name_of(data.args[0]).unwrap_or("an array");
    let message = format!("{}, which depends on the order of threads", what.replace('@', name));
    Diagnostic::new(data.span, message).hint(SPLIT)
}

/// Which instructions put down records instead of updating memory, by their number; none unless the kernel's order is
/// [`Order::Records`].
pub fn recorded(kernel: &Kernel, distinct: bool) -> Vec<bool> {
    let mut recorded = vec![false; kernel.insts.len()];
    if order(kernel, distinct) != Order::Records {
        return recorded;
    }
    let accesses = collect(kernel);
    for inst in kernel.instructions() {
        let data = kernel.inst(inst);
        let Op::Atomic(_) = data.op else { continue };
        let shared =
            accesses.get(&data.args[0]).is_some_and(|all| !is_private(kernel, data.args[0], all, distinct));
        recorded[inst.index()] = shared && kernel.dtype(data.args[0]).is_float();
    }
    recorded
}

/// Whether a thread records at most one update of each element, so that the order of threads is all that there is: then those that
/// run side by side may put down their records one instruction after the other.
pub fn updates_once(kernel: &Kernel, distinct: bool) -> bool {
    let recorded = recorded(kernel, distinct);
    collect(kernel).values().all(|found| match &found.atomics[..] {
        [one] => one.loops.is_empty(),
        all => all.iter().all(|update| !recorded[update.inst.index()]),
    })
}

/// Which instructions put down records on a GPU: sums only.
pub(crate) fn recorded_sums(kernel: &Kernel, distinct: bool) -> Vec<bool> {
    let mut recorded = recorded(kernel, distinct);
    for inst in kernel.instructions() {
        recorded[inst.index()] &= kernel.inst(inst).op == Op::Atomic(Atomic::Add);
    }
    recorded
}

/// The parameters whose sums are recorded on a GPU, by their number, in order.
pub fn summed(kernel: &Kernel, distinct: bool) -> Vec<usize> {
    let plain = kernel.plain();
    arrays_of(&plain, &recorded_sums(&plain, distinct))
}

/// The parameters that these instructions update, by their number, in order.
pub(crate) fn arrays_of(kernel: &Kernel, recorded: &[bool]) -> Vec<usize> {
    let number = |inst: Inst| match kernel.value(kernel.inst(inst).args[0]).def {
        Def::Param(number) => Some(number as usize),
        _ => None,
    };
    let instructions = kernel.instructions().into_iter();
    let mut found: Vec<usize> =
        instructions.filter(|inst| recorded[inst.index()]).filter_map(number).collect();
    found.sort_unstable();
    found.dedup();
    found
}

/// The most records that a thread puts down on a GPU, if the text says it; one for each lane of an element.
pub fn most_records(kernel: &Kernel, distinct: bool) -> Option<u64> {
    let plain = kernel.plain();
    let recorded = recorded_sums(&plain, distinct);
    plain.most(plain.body, &|inst| match recorded[inst.index()] {
        true => Some(plain.inst(inst).results.len() as u64),
        false => Some(0),
    })
}

/// A kernel of the same parameters that makes as many records a thread and does nothing else, to count them before a launch.
///
/// # Errors
/// How often it adds depends on what the kernel stores.
pub fn counting(kernel: &Kernel, distinct: bool) -> Result<Kernel, Diagnostic> {
    let mut counting = kernel.plain().into_owned();
    let recorded = recorded_sums(&counting, distinct);
    // By the number of the parameter, which passes keep.
    let mut written = vec![false; counting.params.len()];
    for (&array, found) in &collect(&counting) {
        if let Def::Param(number) = counting.value(array).def {
            written[number as usize] = !(found.stores.is_empty() && found.atomics.is_empty());
        }
    }
    let is_written = |kernel: &Kernel, array: Value| match kernel.value(array).def {
        Def::Param(number) => written[number as usize],
        _ => false,
    };
    for inst in counting.instructions() {
        if recorded[inst.index()] {
            // Which element and by how much does not matter.
            for i in 1..counting.inst(inst).args.len() {
                let Some(dtype) = counting.ty(counting.inst(inst).args[i]).scalar() else { continue };
                let zero = counting.constant(Const::zero(dtype));
                counting.insts[inst.index()].args[i] = zero;
            }
        }
    }
    strip(&mut counting, &|kernel, inst| match kernel.inst(inst).op {
        Op::Store | Op::Atomic(_) | Op::CompareExchange => {
            is_written(kernel, kernel.inst(inst).args[0]) && !recorded[inst.index()]
        }
        Op::Print(_) | Op::Assert(_) => true,
        _ => false,
    });
    passes::clean(&mut counting);
    counting.name += "_count";
    for inst in counting.instructions() {
        let data = counting.inst(inst);
        if data.op == Op::Load && is_written(&counting, data.args[0]) {
            let name = counting.name_of(data.args[0]).unwrap_or("an array");
            let message =
                format!("how often this kernel adds to arrays depends on `{name}`, which it writes itself");
            return Err(Diagnostic::new(data.span, message).hint(
                "a deterministic launch on a GPU has to count its sums beforehand: read a copy, or split the kernel in two",
            ));
        }
    }
    Ok(counting)
}

/// Drops instructions without results that matter.
fn strip(kernel: &mut Kernel, unneeded: &impl Fn(&Kernel, Inst) -> bool) {
    for index in 0..kernel.blocks.len() {
        let mut insts = std::mem::take(&mut kernel.blocks[index].insts);
        insts.retain(|&inst| !unneeded(kernel, inst));
        kernel.blocks[index].insts = insts;
    }
}
