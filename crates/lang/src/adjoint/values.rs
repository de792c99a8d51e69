//! How values of the kernel are there on the way back: still there, computed anew, kept as results of branches, or on the tape.

use bullet_ops::DType;
use smallvec::smallvec;

use super::I32;
use super::reverse::Reverse;
use crate::ir::{Binary, Const, Def, Inst, Op, Value, Values};

impl Reverse<'_> {
    /// A value of the kernel, here on the way back.
    pub(super) fn obtain(&mut self, value: Value) -> Value {
        let block = match self.f.value(value).def {
            Def::Const(_) | Def::Param(_) => return self.there(value),
            Def::Arg(block, _) => block,
            Def::Inst(inst, _) => self.inside[inst.index()],
        };
        let Some(at) = self.frames.iter().position(|frame| frame.of == block) else {
            return self.there(value);
        };
        if at == 0 {
            return self.there(value);
        }
        if let Some(known) = self.frames[at].have.get(value) {
            return known;
        }
        let again = match self.f.value(value).def {
            Def::Inst(inst, number) => {
                self.again(inst, at).map(|copy| self.b.kernel.inst(copy).results[number as usize])
            }
            Def::Arg(_, number) => self.induced(value, number as usize, at),
            _ => None,
        };
        match again {
            Some(known) => known,
            None => self.saved(value, at),
        }
    }

    /// Computes an instruction anew where a block begins, if its results are the same there.
    fn again(&mut self, inst: Inst, at: usize) -> Option<Inst> {
        let data = self.f.inst(inst).clone();
        let is_same = data.op.is_pure() || (data.op == Op::Load && !self.memory.is_replayed(data.args[0]));
        if !is_same {
            return None;
        }
        let args: Values = data.args.iter().map(|&arg| self.obtain(arg)).collect();
        let types: Vec<_> = data.results.iter().map(|&result| self.f.ty(result)).collect();
        let copy = self.b.kernel.new_inst(data.op, args, &types, data.span);
        self.frames[at].prologue.push(copy);
        for (i, &result) in data.results.iter().enumerate() {
            let new = self.b.kernel.inst(copy).results[i];
            self.frames[at].have.insert(result, new);
            self.b.kernel.copy_name(&self.f, result, new);
        }
        Some(copy)
    }

    /// A whole number that each run of a `while` loop moves by the same step follows from the number of the run.
    fn induced(&mut self, value: Value, number: usize, at: usize) -> Option<Value> {
        let (run, owner) = (self.frames[at].run?, self.frames[at].owner?);
        let data = self.f.inst(owner).clone();
        let next = self.f.block(data.blocks[0]).yields[1 + number];
        let Def::Inst(inst, _) = self.f.value(next).def else { return None };
        let sum = self.f.inst(inst).clone();
        let is_step =
            sum.op == Op::Binary(Binary::Add) && sum.args[0] == value && self.f.dtype(value) == DType::I32;
        if !is_step || self.f.as_const(sum.args[1]).is_none() {
            return None;
        }
        let (first, step) = (self.obtain(data.args[1 + number]), self.obtain(sum.args[1]));
        let mut moved = run;
        for (op, other) in [(Binary::Mul, step), (Binary::Add, first)] {
            let is_neutral =
                self.b.kernel.as_const(other).is_some_and(|c| c.is(if op == Binary::Mul { 1 } else { 0 }));
            if is_neutral {
                continue;
            }
            let inst = self.b.kernel.new_inst(Op::Binary(op), smallvec![moved, other], &[I32], data.span);
            self.frames[at].prologue.push(inst);
            moved = self.b.kernel.inst(inst).results[0];
        }
        self.frames[at].have.insert(value, moved);
        self.b.kernel.copy_name(&self.f, value, moved);
        Some(moved)
    }

    /// Keeps a value from the primal sweep: out of a branch as a result, out of a loop on the tape.
    fn saved(&mut self, value: Value, at: usize) -> Value {
        let frame = &self.frames[at];
        let Some(owner) = frame.owner else { return self.there(value) };
        let (of, primal) = (frame.of, self.blocks[&frame.of]);
        let here = self.there(value);
        let ty = self.f.ty(value);
        let known = if self.f.inst(owner).op == Op::If {
            let region = self.regions[&owner];
            let zero = Const::zero(self.f.dtype(value));
            for (number, block) in self.f.inst(owner).blocks.clone().into_iter().enumerate() {
                let copy = self.b.kernel.inst(region).blocks[number];
                let (outer, inner) = if block == of {
                    (value, here)
                } else {
                    (self.f.constant(zero), self.b.kernel.constant(zero))
                };
                self.f.blocks[block.index()].yields.push(outer);
                self.b.kernel.blocks[copy.index()].yields.push(inner);
            }
            let outside = self.f.inst_result(owner, ty);
            let result = self.b.kernel.inst_result(region, ty);
            self.b.kernel.copy_name(&self.f, value, result);
            self.primal.insert(outside, result);
            self.obtain(outside)
        } else {
            let slot = self.slots;
            self.slots += 1;
            let push = self.b.kernel.new_inst(Op::Push(slot), smallvec![here], &[], Default::default());
            self.b.kernel.blocks[primal.index()].insts.push(push);
            let pop = self.b.kernel.new_inst(Op::Pop(slot), smallvec![], &[ty], Default::default());
            self.frames[at].pops.push(pop);
            let result = self.b.kernel.inst(pop).results[0];
            self.b.kernel.copy_name(&self.f, value, result);
            result
        };
        self.frames[at].have.insert(value, known);
        known
    }
}
