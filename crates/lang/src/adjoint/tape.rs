//! How large a thread's tape gets.

use crate::ir::{Block, Const, Kernel, Op, eval};

/// What each thread of an adjoint puts on its tape, in words of four bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Tape {
    /// At most so many words; 0 for none.
    Words(u64),
    /// It depends on the arguments: a launch has to measure it first.
    Measured,
}

impl Tape {
    /// Of a kernel.
    pub fn of(kernel: &Kernel) -> Tape {
        words(kernel, kernel.body).map_or(Tape::Measured, Tape::Words)
    }
}

/// The words that a value takes.
pub(crate) fn width(kernel: &Kernel, value: crate::ir::Value) -> u64 {
    if kernel.dtype(value).size() == 8 { 2 } else { 1 }
}

fn words(kernel: &Kernel, block: Block) -> Option<u64> {
    let mut total: u64 = 0;
    for &inst in &kernel.block(block).insts {
        let data = kernel.inst(inst);
        let inner: Option<Vec<u64>> = data.blocks.iter().map(|&inner| words(kernel, inner)).collect();
        let inner = inner?;
        let most = inner.iter().copied().max().unwrap_or(0);
        let own = match data.op {
            Op::Push(_) => width(kernel, data.args[0]),
            Op::For if most > 0 => {
                let int = |i: usize| kernel.as_const(data.args[i]).and_then(Const::as_int);
                most.checked_mul(eval::trips(int(0)?, int(1)?, int(2)?))?
            }
            Op::While if most > 0 => return None,
            // Room that is computed.
            Op::Turn if !data.args.is_empty() => return None,
            _ => most,
        };
        total = total.checked_add(own)?;
    }
    Some(total)
}
