//! Sums that the threads of a warp make before they add to memory.
//!
//! Where many threads add to one element, a GPU does it one by one, at about 2 ns each on an H200: gradients of what all threads
//! read are that, and totals. The lanes of a warp that are all there and all add to one element therefore make a sum first, and one
//! adds it. That they are, and do, is asked when they do it, so that it is right wherever it is written; here is only
//! decided where it is likely, as asking takes some 30 cycles.

use bullet_ops::DType;

use crate::ir::{Atomic, Block, Inst, Kernel, Op, Space, Value};

/// Asks, and sums.
pub(super) const SUMS: &str = "
// Whether this lane adds x to the cell. Where all lanes of a warp are here with one cell, the first does, for all.
template <class T>
__device__ __forceinline__ bool leads_sum(const void* cell, T& x) {
    const unsigned all = 0xffffffffu;
    if (__activemask() != all) return true;
    const unsigned long long place = (unsigned long long)cell;
    if (!__all_sync(all, place == __shfl_sync(all, place, 0))) return true;
#pragma unroll
    for (int step = 16; step > 0; step /= 2) x += __shfl_down_sync(all, x, step);
    return threadIdx.x % 32 == 0;
}
";

/// Which instructions, by their number, are sums that lanes side by side likely add to one element; those are of one grid's last
/// dimension.
pub(crate) fn likely(kernel: &Kernel) -> Vec<bool> {
    let mut likely = vec![false; kernel.insts.len()];
    let sums: Vec<Inst> = kernel.instructions().into_iter().filter(|&inst| is_sum(kernel, inst)).collect();
    if sums.is_empty() {
        return likely;
    }
    let mut varying = vec![false; kernel.value_count()];
    vary(kernel, kernel.body, &mut varying);
    for inst in sums {
        let args = &kernel.inst(inst).args;
        let ndim = kernel.ty(args[0]).array().map_or(0, |array| usize::from(array.ndim));
        likely[inst.index()] = args[1..=ndim].iter().all(|index| !varying[index.index()]);
    }
    likely
}

/// Whether an instruction adds to what several threads see.
fn is_sum(kernel: &Kernel, inst: Inst) -> bool {
    let data = kernel.inst(inst);
    let seen = |array: Value| kernel.ty(array).array().is_some_and(|array| array.space != Space::Local);
    // Compilers do the same where the sum is of int and unsigned.
    let by_compiler = |array: Value| matches!(kernel.dtype(array), DType::I32 | DType::U32);
    data.op == Op::Atomic(Atomic::Add) && seen(data.args[0]) && !by_compiler(data.args[0])
}

/// Notes which values may differ from lane to lane. What loops carry and branches give is taken to.
fn vary(kernel: &Kernel, block: Block, varying: &mut [bool]) {
    for &inst in &kernel.block(block).insts {
        let data = kernel.inst(inst);
        let any = |values: &[Value], varying: &[bool]| values.iter().any(|value| varying[value.index()]);
        let own = match data.op {
            Op::Tid(axis) => axis + 1 == kernel.grid,
            Op::Load => {
                let is_local =
                    kernel.ty(data.args[0]).array().is_some_and(|array| array.space == Space::Local);
                is_local || any(&data.args, varying)
            }
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

    /// The sums of a kernel's body that are likely of a warp, in the order of the text.
    fn found(body: &str) -> Vec<bool> {
        let text = format!(
            "kernel @k(%a.0: array<f32, 1>, %b.1: array<i32, 1>, %x.2: f32, %n.3: i32) grid 2 {{\n  %i.4: i32 = tid 0\n  \
             %j.5: i32 = tid 1\n{body}}}\n"
        );
        let kernel = Kernel::parse(&text).unwrap_or_else(|e| panic!("{e:?}\n{text}"));
        let likely = likely(&kernel);
        let sums = kernel.instructions().into_iter().filter(|&inst| is_sum(&kernel, inst));
        sums.map(|inst| likely[inst.index()]).collect()
    }

    #[test]
    fn sums_to_what_lanes_share_are_likely() {
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
}
