//! Sums of many threads to one element: totals, and gradients of what all threads read. Emitters make partial sums of them, as
//! atomic updates of one element by many threads come one by one.

use crate::adjoint::{collect, is_local};
use crate::ir::{Atomic, Block, Def, Inst, Kernel, Op, Value};

/// Which instructions, by their number, are sums that threads side by side, in the last dimension of the grid, likely add to
/// one element.
pub fn shared(kernel: &Kernel) -> Vec<bool> {
    let mut shared = vec![false; kernel.insts.len()];
    let sums: Vec<Inst> = kernel.instructions().into_iter().filter(|&inst| is_sum(kernel, inst)).collect();
    if sums.is_empty() {
        return shared;
    }
    let mut varying = vec![false; kernel.value_count()];
    vary(kernel, kernel.body, &mut varying);
    for inst in sums {
        shared[inst.index()] = kernel.indices(inst).iter().all(|index| !varying[index.index()]);
    }
    shared
}

/// The [shared] sums that may be added at any later time, as nobody uses the old value, and the kernel does nothing else
/// to the array than add to it. Only those that one thread adds to the same element again, or the next thread does.
pub fn postponable(kernel: &Kernel) -> Vec<Inst> {
    let shared = shared(kernel);
    let sums: Vec<Inst> = kernel.instructions().into_iter().filter(|&inst| shared[inst.index()]).collect();
    if sums.is_empty() {
        return sums;
    }
    let (accesses, counts) = (collect(kernel), kernel.use_counts());
    let unused = |inst: Inst| kernel.inst(inst).results.iter().all(|result| counts[result.index()] == 0);
    let is_param = |array: Value| matches!(kernel.value(array).def, Def::Param(_));
    let only_added_to = |array: Value| {
        accesses.get(&array).is_some_and(|found| {
            let added = |inst: Inst| kernel.inst(inst).op == Op::Atomic(Atomic::Add) && unused(inst);
            found.loads.is_empty()
                && found.stores.is_empty()
                && found.atomics.iter().all(|one| added(one.inst))
        })
    };
    let mut depths = vec![0; kernel.value_count()];
    let mut places = vec![0; kernel.insts.len()];
    nest(kernel, kernel.body, 0, &mut depths, &mut places);
    let may = |inst: &Inst| {
        let array = kernel.inst(*inst).args[0];
        let depth = places[inst.index()];
        let stays = |index: &Value| depth == 0 || depths[index.index()] < depth;
        is_param(array) && only_added_to(array) && kernel.indices(*inst).iter().all(stays)
    };
    sums.into_iter().filter(may).collect()
}

/// Notes in how many loops values and instructions are.
fn nest(kernel: &Kernel, block: Block, depth: u32, depths: &mut [u32], places: &mut [u32]) {
    for &inst in &kernel.block(block).insts {
        let data = kernel.inst(inst);
        places[inst.index()] = depth;
        data.results.iter().for_each(|result| depths[result.index()] = depth);
        let inner_depth = depth + u32::from(matches!(data.op, Op::For | Op::While));
        for &inner in &data.blocks {
            kernel.block(inner).args.iter().for_each(|arg| depths[arg.index()] = inner_depth);
            nest(kernel, inner, inner_depth, depths, places);
        }
    }
}

/// Whether an instruction adds to what several threads see.
fn is_sum(kernel: &Kernel, inst: Inst) -> bool {
    let data = kernel.inst(inst);
    data.op == Op::Atomic(Atomic::Add) && !is_local(kernel, data.args[0])
}

/// Notes which values may differ from lane to lane. What loops carry and branches give is taken to.
fn vary(kernel: &Kernel, block: Block, varying: &mut [bool]) {
    for &inst in &kernel.block(block).insts {
        let data = kernel.inst(inst);
        let any = |values: &[Value], varying: &[bool]| values.iter().any(|value| varying[value.index()]);
        let own = match data.op {
            Op::Tid(axis) => axis + 1 == kernel.grid,
            Op::Load => is_local(kernel, data.args[0]) || any(&data.args, varying),
            op if op.is_pure() => any(&data.args, varying),
            _ => true,
        };
        data.results.iter().for_each(|result| varying[result.index()] = own);
        let counted = usize::from(data.op == Op::For);
        for &inner in &data.blocks {
            let args = &kernel.block(inner).args;
            if let [index, ..] = args[..counted] {
                varying[index.index()] = any(&[data.args[0], data.args[2]], varying);
            }
            args[counted..].iter().for_each(|arg| varying[arg.index()] = true);
            vary(kernel, inner, varying);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kernel(body: &str) -> Kernel {
        let text = format!(
            "kernel @k(%a.0: array<f32, 1>, %b.1: array<i32, 1>, %x.2: f32, %n.3: i32) grid 2 {{\n  %i.4: i32 = tid 0\n  \
             %j.5: i32 = tid 1\n{body}}}\n"
        );
        Kernel::parse(&text).unwrap_or_else(|e| panic!("{e:?}\n{text}"))
    }

    /// Whether the sums of a kernel's body are likely shared, in the order of the text.
    fn found(body: &str) -> Vec<bool> {
        let kernel = kernel(body);
        let likely = shared(&kernel);
        let sums = kernel.instructions().into_iter().filter(|&inst| is_sum(&kernel, inst));
        sums.map(|inst| likely[inst.index()]).collect()
    }

    #[test]
    fn sums_to_what_threads_share_are_found() {
        let body = "  %6: f32 = atomic_add %a.0, 0i32, %x.2\n  %7: f32 = atomic_add %a.0, %i.4, %x.2\n  \
                    %8: f32 = atomic_add %a.0, %j.5, %x.2\n  %9: i32 = add %n.3, %i.4\n  \
                    %10: i32 = load %b.1, %9\n  %11: f32 = atomic_add %a.0, %10, %x.2\n";
        assert_eq!(found(body), [true, true, false, true]);
    }

    #[test]
    fn what_loops_count_is_shared_and_what_they_carry_is_not() {
        let body = "  %6: i32 = for %k.7: i32 in 0i32, %j.5, 1i32 carry (%c.8: i32 = 0i32) {\n    \
                    %9: f32 = atomic_add %a.0, %k.7, %x.2\n    %10: f32 = atomic_add %a.0, %c.8, %x.2\n    \
                    %11: i32 = add %c.8, %j.5\n    yield %11\n  }\n  %12: f32 = atomic_add %a.0, %6, %x.2\n";
        assert_eq!(found(body), [true, false, false]);
    }

    #[test]
    fn sums_to_another_element_each_round_do_not_wait() {
        let body = "  for %k.6: i32 in 0i32, %n.3, 1i32 {\n    %7: f32 = atomic_add %a.0, %k.6, %x.2\n    \
                    %8: f32 = atomic_add %a.0, %n.3, %x.2\n  }\n";
        assert_eq!(postponable(&kernel(body)).len(), 1);
    }

    #[test]
    fn sums_may_wait_where_nobody_looks() {
        let sum = "  %6: f32 = atomic_add %a.0, 0i32, %x.2\n";
        assert_eq!(postponable(&kernel(sum)).len(), 1);
        let read = "  %7: f32 = load %a.0, %j.5\n  store %a.0, 3i32, %7\n";
        assert_eq!(postponable(&kernel(&format!("{sum}{read}"))).len(), 0);
        let used = "  %7: f32 = atomic_add %a.0, %j.5, %6\n";
        assert_eq!(postponable(&kernel(&format!("{sum}{used}"))).len(), 0);
        let other = "  %7: f32 = atomic_max %a.0, %j.5, %x.2\n";
        assert_eq!(postponable(&kernel(&format!("{sum}{other}"))).len(), 0);
    }
}
