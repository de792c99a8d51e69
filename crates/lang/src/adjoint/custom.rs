//! Functions with derivatives of their own: what of [`Op::Custom`] the adjoint makes its own before anything else.

use crate::diag::Diagnostic;
use crate::ir::{Block, Inst, Kernel, Op, Value};

use super::array_of;

/// Puts replay blocks in the place of what they replay, and what has no gradient of its own in place. The arrays that a replay
/// reads and the kernel wrote where it is replayed: they must hold what the kernel left.
pub(super) fn prepare(kernel: &mut Kernel) -> Result<Vec<Value>, Vec<Diagnostic>> {
    let customs: Vec<Inst> = kernel
        .instructions()
        .into_iter()
        .filter(|&inst| matches!(kernel.inst(inst).op, Op::Custom(_)))
        .collect();
    if customs.is_empty() {
        return Ok(vec![]);
    }
    let (mut left, mut replays) = (vec![], vec![]);
    for inst in customs {
        let Op::Custom(number) = kernel.inst(inst).op else { continue };
        if number & 2 == 0 {
            continue;
        }
        let data = &mut kernel.insts[inst.index()];
        let Some(replay) = data.blocks.pop() else { continue };
        let forward = std::mem::replace(&mut data.blocks[0], replay);
        data.op = Op::Custom(number & 1);
        let written = arrays(kernel, forward, |op| op != Op::Load);
        left.extend(arrays(kernel, replay, |op| op == Op::Load).into_iter().filter(|a| written.contains(a)));
        replays.extend(inside(kernel, replay));
    }
    let mut errors = vec![];
    for inst in kernel.instructions() {
        let Some(array) = array_of(kernel, inst) else { continue };
        if left.contains(&array) && !replays.contains(&inst) {
            let name = kernel.name_of(array).unwrap_or("an array");
            let message = format!("`{name}` is read by a replay function, and used elsewhere in this kernel");
            let hint = "the way back can see only what the kernel left in it: use another array";
            errors.push(Diagnostic::new(kernel.inst(inst).span, message).hint(hint));
        }
    }
    if !errors.is_empty() {
        return Err(errors);
    }
    kernel.inline_blocks(&|data| data.op == Op::Custom(0));
    Ok(left)
}

/// The instructions of a block and of those in it.
pub(super) fn inside(kernel: &Kernel, block: Block) -> Vec<Inst> {
    let mut insts = vec![];
    kernel.collect(block, &mut insts);
    insts
}

fn arrays(kernel: &Kernel, block: Block, wanted: impl Fn(Op) -> bool) -> Vec<Value> {
    let insts = inside(kernel, block).into_iter().filter(|&inst| wanted(kernel.inst(inst).op));
    insts.filter_map(|inst| array_of(kernel, inst)).collect()
}
