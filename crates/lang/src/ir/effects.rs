//! What a kernel does to the arrays it is given.

use super::{Def, Kernel, Op};

/// Whether a kernel reads the elements of a parameter, and whether it writes them.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Effect {
    /// By a load or an atomic update.
    pub reads: bool,
    /// By a store or an atomic update.
    pub writes: bool,
}

impl Kernel {
    /// Of each parameter; nothing of scalars.
    pub fn effects(&self) -> Vec<Effect> {
        let mut effects = vec![Effect::default(); self.params.len()];
        // What is for the adjoint only does nothing.
        let plain = self.plain();
        for inst in plain.instructions() {
            let data = plain.inst(inst);
            let (reads, writes) = match data.op {
                Op::Load => (true, false),
                Op::Store => (false, true),
                Op::Atomic(_) | Op::CompareExchange => (true, true),
                _ => continue,
            };
            if let Def::Param(number) = plain.value(data.args[0]).def {
                let effect = &mut effects[number as usize];
                effect.reads |= reads;
                effect.writes |= writes;
            }
        }
        effects
    }
}
