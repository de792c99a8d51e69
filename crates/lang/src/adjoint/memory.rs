//! What a kernel does to each array, and what of it the adjoint must do again.

use rustc_hash::FxHashMap;

use super::custom::inside;
use super::{Use, array_of, is_local};
use crate::diag::Diagnostic;
use crate::ir::{Atomic, Binary, Block, Def, Inst, Kernel, Op, Type, Value, Values};
use crate::passes;

/// One access to an array: how often blocks were entered before it, and the loops it is in.
pub(crate) struct Access {
    pub(crate) inst: Inst,
    position: usize,
    pub(crate) loops: Vec<Inst>,
}

/// What happens to one array.
#[derive(Default)]
pub(crate) struct Accesses {
    pub(crate) loads: Vec<Access>,
    pub(crate) stores: Vec<Access>,
    pub(crate) atomics: Vec<Access>,
}

/// What the adjoint knows of a kernel's arrays.
pub(super) struct Memory {
    uses: FxHashMap<Value, Use>,
    /// Arrays whose every access is to one element that no other thread has.
    own: Vec<Value>,
    /// Arrays of which an element may be stored to more than once.
    overwritten: Vec<Value>,
}

impl Memory {
    pub(super) fn use_of(&self, param: Value) -> Use {
        self.uses.get(&param).copied().unwrap_or(Use::Shape)
    }

    /// Whether stores are done again, so that loads behind them see what they saw.
    pub(super) fn is_replayed(&self, array: Value) -> bool {
        self.use_of(array) == Use::Scratch
    }

    /// Whether what was stored may be stored over, so that its gradient is 0.
    pub(super) fn is_overwritten(&self, array: Value) -> bool {
        self.overwritten.contains(&array)
    }

    /// Whether no two threads touch one element.
    pub(super) fn is_own(&self, array: Value) -> bool {
        self.own.contains(&array)
    }
}

/// Drops what the adjoint need not do, and refuses what it cannot.
pub(super) fn prepare(kernel: &mut Kernel, active: &[Value]) -> Result<Memory, Vec<Diagnostic>> {
    let is_active = |array: Value| active.contains(&array);
    // Stores that nobody differentiates and nobody loads, and all that is said on the way.
    let accesses = collect(kernel);
    let inactive =
        |array: Value| !is_active(array) && accesses.get(&array).is_none_or(|found| found.loads.is_empty());
    let unneeded = |kernel: &Kernel, inst: Inst| match kernel.inst(inst).op {
        Op::Print(_) | Op::Assert(_) | Op::Within(_) => true,
        Op::Store => inactive(kernel.inst(inst).args[0]),
        _ => false,
    };
    remove(kernel, kernel.body, &unneeded);
    passes::eliminate(kernel);
    for (&array, found) in &accesses {
        // `a[i] += x` of an element that the thread has for itself, and reads: no other thread comes between.
        if !found.loads.is_empty() && is_own(kernel, found) {
            found.atomics.iter().for_each(|update| read_and_write(kernel, array, update.inst));
        }
    }
    let mut counts = kernel.use_counts();
    if accesses.values().any(|found| !found.atomics.is_empty()) {
        let silent = |kernel: &Kernel, inst: Inst| {
            let data = kernel.inst(inst);
            matches!(data.op, Op::Atomic(_) | Op::CompareExchange)
                && inactive(data.args[0])
                && data.results.iter().all(|result| counts[result.index()] == 0)
        };
        remove(kernel, kernel.body, &silent);
        passes::eliminate(kernel);
        counts = kernel.use_counts();
    }
    let accesses = collect(kernel);
    let mut errors = vec![];
    for inst in kernel.instructions() {
        refuse(kernel, inst, &accesses, &counts, &is_active, &mut errors);
    }
    if !errors.is_empty() {
        errors.dedup();
        return Err(errors);
    }
    let mut memory = Memory { uses: FxHashMap::default(), own: vec![], overwritten: vec![] };
    for (&array, found) in &accesses {
        let usage = match found.loads.is_empty() {
            true => Use::Shape,
            false if is_reloaded(found) => Use::Scratch,
            false => Use::Unchanged,
        };
        memory.uses.insert(array, usage);
        if found.stores.len() > 1 || found.stores.iter().any(|store| !store.loops.is_empty()) {
            memory.overwritten.push(array);
        }
        if is_own(kernel, found) {
            memory.own.push(array);
        }
    }
    Ok(memory)
}

/// What happens to each array, in the order of the text.
pub(crate) fn collect(kernel: &Kernel) -> FxHashMap<Value, Accesses> {
    let mut accesses = FxHashMap::default();
    let mut position = 0;
    walk(kernel, kernel.body, &mut vec![], &mut position, &mut accesses);
    accesses
}

fn walk(
    kernel: &Kernel,
    block: Block,
    loops: &mut Vec<Inst>,
    position: &mut usize,
    accesses: &mut FxHashMap<Value, Accesses>,
) {
    for &inst in &kernel.block(block).insts {
        *position += 1;
        let data = kernel.inst(inst);
        if let Some(array) = array_of(kernel, inst) {
            let found: &mut Accesses = accesses.entry(array).or_default();
            let list = match data.op {
                Op::Load => &mut found.loads,
                Op::Store => &mut found.stores,
                _ => &mut found.atomics,
            };
            list.push(Access { inst, position: *position, loops: loops.clone() });
        }
        let repeats = matches!(data.op, Op::For | Op::While);
        if repeats {
            loops.push(inst);
        }
        for &inner in &data.blocks {
            walk(kernel, inner, loops, position, accesses);
        }
        if repeats {
            loops.pop();
        }
    }
}

/// Makes an atomic sum a load, an addition and a store.
fn read_and_write(kernel: &mut Kernel, array: Value, inst: Inst) {
    let data = kernel.inst(inst).clone();
    if data.op != Op::Atomic(Atomic::Add) {
        return;
    }
    let ndim = kernel.ty(array).array().map_or(0, |ty| usize::from(ty.ndim));
    let (place, lanes) = data.args.split_at(1 + ndim);
    // It gives the old value, as a load does.
    kernel.insts[inst.index()].op = Op::Load;
    kernel.insts[inst.index()].args = place.into();
    let mut new = vec![];
    let mut store: Values = place.into();
    for (&old, &lane) in data.results.iter().zip(lanes) {
        let args = [old, lane].into_iter().collect();
        let sum = kernel.new_inst(Op::Binary(Binary::Add), args, &[kernel.ty(old)], data.span);
        store.push(kernel.inst(sum).results[0]);
        new.push(sum);
    }
    new.push(kernel.new_inst(Op::Store, store, &[], data.span));
    for block in &mut kernel.blocks {
        if let Some(at) = block.insts.iter().position(|&other| other == inst) {
            block.insts.splice(at + 1..at + 1, new);
            return;
        }
    }
}

fn remove(kernel: &mut Kernel, block: Block, unneeded: &impl Fn(&Kernel, Inst) -> bool) {
    let mut insts = std::mem::take(&mut kernel.blocks[block.index()].insts);
    insts.retain(|&inst| !unneeded(kernel, inst));
    for &inst in &insts {
        for inner in kernel.inst(inst).blocks.clone() {
            remove(kernel, inner, unneeded);
        }
    }
    kernel.blocks[block.index()].insts = insts;
}

/// Whether a load may see what a store of the same thread wrote.
fn is_reloaded(found: &Accesses) -> bool {
    found.stores.iter().any(|store| {
        found.loads.iter().any(|load| {
            load.position > store.position || load.loops.iter().any(|around| store.loops.contains(around))
        })
    })
}

/// Whether no other thread touches an element: of a thread's own array, or where all accesses are to the element at one index
/// that holds the thread's place in every dimension of the grid.
pub(crate) fn is_own(kernel: &Kernel, found: &Accesses) -> bool {
    let all: Vec<&Access> = found.loads.iter().chain(&found.stores).chain(&found.atomics).collect();
    let indices = |access: &Access| kernel.indices(access.inst);
    if all.first().is_some_and(|access| is_local(kernel, kernel.inst(access.inst).args[0])) {
        return true;
    }
    let Some(first) = all.first().map(|access| indices(access)) else { return false };
    let axes: Vec<u8> = first.iter().filter_map(|&index| tid_axis(kernel, index)).collect();
    all.iter().all(|access| indices(access) == first) && (0..kernel.grid).all(|axis| axes.contains(&axis))
}

/// The dimension of the grid that an index is the place in, moved by a constant at most.
fn tid_axis(kernel: &Kernel, index: Value) -> Option<u8> {
    let Def::Inst(inst, _) = kernel.value(index).def else { return None };
    let data = kernel.inst(inst);
    match data.op {
        Op::Tid(axis) => Some(axis),
        Op::Binary(Binary::Add | Binary::Sub) => {
            let known = |i: usize| kernel.as_const(data.args[i]).is_some();
            if known(1) {
                tid_axis(kernel, data.args[0])
            } else if known(0) {
                tid_axis(kernel, data.args[1])
            } else {
                None
            }
        }
        _ => None,
    }
}

/// What a function with a gradient of its own may not do.
fn custom(
    kernel: &Kernel,
    inst: Inst,
    accesses: &FxHashMap<Value, Accesses>,
    is_active: &impl Fn(Value) -> bool,
    errors: &mut Vec<Diagnostic>,
) {
    let data = kernel.inst(inst);
    let mut each = |block: Block, wrong: &dyn Fn(Op, Value) -> bool, message: &str, hint: &str| {
        for inner in inside(kernel, block) {
            let Some(array) = array_of(kernel, inner) else { continue };
            if wrong(kernel.inst(inner).op, array) {
                let name = kernel.name_of(array).unwrap_or("an array");
                let message = message.replace('@', name);
                errors.push(Diagnostic::new(kernel.inst(inner).span, message).hint(hint));
            }
        }
    };
    each(
        data.blocks[0],
        &|op, array| op != Op::Load && is_active(array),
        "a function with a gradient of its own writes to `@`, which has a gradient",
        "its gradient function says nothing of that: return the value instead",
    );
    each(
        data.blocks[1],
        &|op, array| op != Op::Load || accesses.get(&array).is_some_and(|found| !found.stores.is_empty()),
        "a gradient function uses `@`, which is written in this kernel",
        "it reads arrays that the kernel does not write, and gives its results by wp.adjoint",
    );
}

/// What the way back cannot do right.
fn refuse(
    kernel: &Kernel,
    inst: Inst,
    accesses: &FxHashMap<Value, Accesses>,
    counts: &[u32],
    is_active: &impl Fn(Value) -> bool,
    errors: &mut Vec<Diagnostic>,
) {
    let data = kernel.inst(inst);
    let mut error = |message: String, hint: &str| {
        errors.push(Diagnostic::new(data.span, message).hint(hint));
    };
    let name = data.args.first().and_then(|&array| kernel.name_of(array)).unwrap_or("an array");
    match data.op {
        Op::Alloc(_) if is_local(kernel, data.results[0]) => {}
        Op::Barrier | Op::Shuffle(_) | Op::Alloc(_) => {
            error(
                "a kernel whose threads work together has no adjoint yet".into(),
                "write the adjoint as a kernel of its own",
            );
        }
        Op::Custom(_) => custom(kernel, inst, accesses, is_active, errors),
        Op::Load => {
            let found = &accesses[&data.args[0]];
            if !found.atomics.is_empty() {
                error(
                    format!(
                        "`{name}` is read and updated by atomics in one kernel, which has no exact adjoint"
                    ),
                    "the order of threads is not known to the way back: update it in a kernel of its own",
                );
            }
            let float = kernel.dtype(data.args[0]).is_float();
            if float && !found.stores.is_empty() && !is_active(data.args[0]) {
                error(
                    format!("`{name}` is stored and read again, but gets no gradient"),
                    "what flows through it would be lost: give it a gradient",
                );
            }
        }
        Op::Atomic(_) | Op::CompareExchange => {
            let float = matches!(kernel.ty(data.args[0]), Type::Array(array) if array.dtype.is_float());
            if data.results.iter().any(|result| counts[result.index()] > 0) {
                error(
                    format!("what an atomic update of `{name}` gives is used, which has no exact adjoint"),
                    "the order of threads is not known to the way back: compute the value in a kernel of its own",
                );
            } else if float && is_active(data.args[0]) && data.op != Op::Atomic(Atomic::Add) {
                error(
                    format!("`{name}` is updated by another atomic than a sum, which has no adjoint yet"),
                    "use atomic_add, or give the array no gradient",
                );
            }
        }
        _ => {}
    }
}
