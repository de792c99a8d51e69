//! How large a thread's tape gets.

use crate::ir::{Kernel, Op};

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
        let words = kernel.most(kernel.body, &|inst| {
            let data = kernel.inst(inst);
            match data.op {
                Op::Push(_) => Some(width(kernel, data.args[0])),
                // Room that is computed.
                Op::Turn if !data.args.is_empty() => None,
                _ => Some(0),
            }
        });
        words.map_or(Tape::Measured, Tape::Words)
    }
}

/// The words that a value takes.
pub(crate) fn width(kernel: &Kernel, value: crate::ir::Value) -> u64 {
    if kernel.dtype(value).size() == 8 { 2 } else { 1 }
}
