//! Puts stores as far back as they can be: behind loads of other arrays. A GPU waits for memory once then and not once for each
//! array, as its compiler may not do this: it does not know that arrays share no memory. The way back of a kernel begins with
//! a load of a result's gradient and a store of 0 to it. Such a store, which waits for no value, meets its own load under way, and that
//! takes longer than all the rest of a short kernel: measured on an H200, 415 us with the zeroes in front, 79 us with them at the
//! end, behind stores of what was loaded.

use rustc_hash::FxHashSet;

use crate::ir::{Block, Def, Inst, Kernel, Op, Value};

/// Which arrays an instruction touches, with what is in its blocks.
#[derive(Default)]
struct Touched {
    arrays: FxHashSet<Value>,
    /// Whether nothing may be moved past it.
    fixed: bool,
}

/// Moves the stores to parameters. `memory` says by what value an array's memory is known: arrays of one may overlap.
pub(crate) fn sink(kernel: &mut Kernel, memory: impl Fn(Value) -> Value) {
    let mut blocks = vec![kernel.body];
    while let Some(block) = blocks.pop() {
        let insts = kernel.block(block).insts.clone();
        blocks.extend(insts.iter().flat_map(|&inst| kernel.inst(inst).blocks.iter().copied()));
        if let Some(moved) = sunk(kernel, &insts, &memory) {
            kernel.blocks[block.index()].insts = moved;
        }
    }
}

/// The instructions of a block in their new order, if it is another.
fn sunk(kernel: &Kernel, insts: &[Inst], memory: &impl Fn(Value) -> Value) -> Option<Vec<Inst>> {
    let is_store = |inst: Inst| {
        let data = kernel.inst(inst);
        data.op == Op::Store && matches!(kernel.value(data.args[0]).def, Def::Param(_))
    };
    if !insts.iter().any(|&inst| is_store(inst)) {
        return None;
    }
    let mut order = Vec::with_capacity(insts.len());
    // In their order, as two may be to one element.
    let mut held: Vec<Inst> = vec![];
    for &inst in insts {
        if is_store(inst) {
            held.push(inst);
            continue;
        }
        if held.is_empty() {
            order.push(inst);
            continue;
        }
        let mut touched = Touched::default();
        touch(kernel, inst, memory, &mut touched);
        let meets =
            |&store: &Inst| touched.fixed || touched.arrays.contains(&memory(kernel.inst(store).args[0]));
        // With all in front of it: then stores stay in their order.
        if let Some(last) = held.iter().rposition(meets) {
            order.extend(held.drain(..=last));
        }
        order.push(inst);
    }
    order.extend(constants_last(kernel, held, memory));
    (order != insts).then_some(order)
}

/// Stores of constants behind those of values, but for arrays that both are to.
fn constants_last(kernel: &Kernel, stores: Vec<Inst>, memory: &impl Fn(Value) -> Value) -> Vec<Inst> {
    let target = |store: Inst| memory(kernel.inst(store).args[0]);
    let waits = |store: Inst| {
        let data = kernel.inst(store);
        let lanes = kernel.ty(data.args[0]).array().map_or(1, |array| usize::from(array.lanes));
        data.args[data.args.len() - lanes..].iter().any(|&value| kernel.as_const(value).is_none())
    };
    let (values, constants): (Vec<Inst>, Vec<Inst>) = stores.iter().partition(|&&store| waits(store));
    let shared = constants.iter().any(|&a| values.iter().any(|&b| target(a) == target(b)));
    if shared { stores } else { [values, constants].concat() }
}

fn touch(kernel: &Kernel, inst: Inst, memory: &impl Fn(Value) -> Value, touched: &mut Touched) {
    let data = kernel.inst(inst);
    match data.op {
        Op::Load | Op::Store | Op::Atomic(_) | Op::CompareExchange => {
            touched.arrays.insert(memory(data.args[0]));
        }
        Op::Turn | Op::Barrier | Op::Shuffle(_) | Op::Print(_) | Op::Assert(_) | Op::Within(_) => {
            touched.fixed = true
        }
        _ => {}
    }
    for &block in &data.blocks {
        touch_all(kernel, block, memory, touched);
    }
}

fn touch_all(kernel: &Kernel, block: Block, memory: &impl Fn(Value) -> Value, touched: &mut Touched) {
    kernel.block(block).insts.iter().for_each(|&inst| touch(kernel, inst, memory, touched));
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The operations of the body that access memory, in their order; every array has memory of its own.
    fn order(body: &str) -> String {
        let text = format!(
            "kernel @k(%a.0: array<f32, 1>, %b.1: array<f32, 1>, %x.2: f32, %c.3: bool) grid 1 {{\n  %i.4: i32 = tid 0\n{body}}}\n"
        );
        let mut kernel = Kernel::parse(&text).unwrap_or_else(|e| panic!("{e:?}\n{text}"));
        sink(&mut kernel, |array| array);
        kernel.verify().unwrap();
        let text = kernel.to_string();
        let lines = text.lines().skip(2).map(str::trim).filter(|line| *line != "}");
        lines.map(|line| line.split(" = ").last().unwrap_or(line)).collect::<Vec<_>>().join("; ")
    }

    #[test]
    fn stores_go_behind_loads_of_other_arrays() {
        let body = "  %5: f32 = load %a.0, %i.4\n  store %a.0, %i.4, 0.0f32\n  %6: f32 = load %b.1, %i.4\n  \
                    %7: f32 = add %5, %6\n  store %b.1, %i.4, %7\n";
        assert_eq!(
            order(body),
            "load %a.0, %i.4; load %b.1, %i.4; add %5, %6; store %b.1, %i.4, %7; store %a.0, %i.4, 0.0f32"
        );
    }

    #[test]
    fn nothing_that_meets_them_is_passed() {
        // The same array, the way back, and what has any of that inside.
        let same = "  store %a.0, %i.4, %x.2\n  store %b.1, %i.4, %x.2\n  %5: f32 = load %a.0, %i.4\n  \
                    store %a.0, %i.4, %5\n";
        assert_eq!(
            order(same),
            "store %a.0, %i.4, %x.2; load %a.0, %i.4; store %b.1, %i.4, %x.2; store %a.0, %i.4, %5"
        );
        let turn = "  store %a.0, %i.4, %x.2\n  turn\n  store %b.1, %i.4, %x.2\n";
        assert_eq!(order(turn), "store %a.0, %i.4, %x.2; turn; store %b.1, %i.4, %x.2");
        let branch = "  store %a.0, %i.4, %x.2\n  store %b.1, %i.4, %x.2\n  if %c.3 {\n    %5: f32 = load %a.0, %i.4\n    \
                      store %a.0, %i.4, %5\n  }\n";
        assert_eq!(
            order(branch),
            "store %a.0, %i.4, %x.2; if %c.3 {; load %a.0, %i.4; store %a.0, %i.4, %5; store %b.1, %i.4, %x.2"
        );
    }
}
