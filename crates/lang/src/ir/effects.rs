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
        for inst in self.instructions() {
            let data = self.inst(inst);
            let (reads, writes) = match data.op {
                Op::Load => (true, false),
                Op::Store => (false, true),
                Op::Atomic(_) | Op::CompareExchange => (true, true),
                _ => continue,
            };
            if let Def::Param(number) = self.value(data.args[0]).def {
                let effect = &mut effects[number as usize];
                effect.reads |= reads;
                effect.writes |= writes;
            }
        }
        effects
    }
}
