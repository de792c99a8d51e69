//! Branches and loops: labels, and registers that regions assign to.

use super::asm::{Class, Operand, arithmetic, moves, put};
use super::{Emitter, Key};
use crate::ir::{Block, Const, Inst, Op, Value};

impl Emitter<'_> {
    /// The instructions of a block. What was found out on the way is forgotten behind it.
    pub(super) fn block(&mut self, block: Block) {
        let kernel = self.kernel;
        let outer = self.order.len();
        self.find_sums(block);
        for &inst in &kernel.block(block).insts {
            self.inst(inst);
        }
        self.forget(outer);
    }

    fn inst(&mut self, inst: Inst) {
        let data = self.kernel.inst(inst);
        match data.op {
            op if op.is_pure() => self.pure(inst),
            Op::Load => self.load(inst),
            Op::Store => self.store(inst),
            Op::Atomic(op) => self.atomic(inst, op),
            Op::CompareExchange => self.exchange(inst),
            Op::Alloc(count) => self.alloc(data.results[0], count),
            Op::If => self.either(inst),
            Op::For => self.counted(inst),
            Op::While => self.conditional(inst),
            Op::Push(number) => self.push(number, data.args[0]),
            Op::Pop(number) => self.pop(number, data.results[0]),
            Op::Turn => self.turn(data.args.first().copied()),
            Op::Barrier => put!(self.asm, "bar.sync 0;"),
            Op::Shuffle(op) => self.shuffle(inst, op),
            Op::Within(_) => self.within(inst),
            Op::Print(text) => self.print(inst, text),
            Op::Assert(_) => self.assert(inst),
            _ => self.fail("an instruction that emitters do not see"),
        }
    }

    /// A new register for a value that several places assign to.
    fn variable(&mut self, value: Value) -> Operand {
        let register = self.asm.reg(Class::of(self.kernel.dtype(value)));
        self.values[value.index()] = Some(register);
        register
    }

    fn assign(&mut self, to: Operand, value: Value) {
        let from = self.get(value);
        if from != to {
            self.asm.set(to, moves(self.kernel.dtype(value)), &[from]);
        }
    }

    fn either(&mut self, inst: Inst) {
        let data = self.kernel.inst(inst);
        let test = self.get(data.args[0]);
        let results: Vec<Operand> = data.results.iter().map(|&result| self.variable(result)).collect();
        let [then, orelse] = [data.blocks[0], data.blocks[1]];
        let is_empty = |block: Block| self.kernel.block(block).insts.is_empty() && results.is_empty();
        let (no_then, no_else) = (is_empty(then), is_empty(orelse));
        let end = self.asm.label();
        match (no_then, no_else) {
            (true, true) => return,
            (true, false) => {
                self.asm.branch(true, test, end);
                self.side(orelse, &results);
            }
            (false, true) => {
                self.asm.branch(false, test, end);
                self.side(then, &results);
            }
            (false, false) => {
                let other = self.asm.label();
                self.asm.branch(false, test, other);
                self.side(then, &results);
                put!(self.asm, "bra {end};");
                self.asm.place(other);
                self.side(orelse, &results);
            }
        }
        self.asm.place(end);
    }

    fn side(&mut self, block: Block, results: &[Operand]) {
        self.block(block);
        let yields = &self.kernel.block(block).yields;
        for (&result, &value) in results.iter().zip(yields) {
            self.assign(result, value);
        }
    }

    /// Registers for what a loop carries, with its first values; they become its results.
    fn carry(&mut self, args: &[Value], initial: &[Value]) -> Vec<Operand> {
        let pairs = args.iter().zip(initial);
        pairs
            .map(|(&arg, &value)| {
                let register = self.variable(arg);
                self.assign(register, value);
                register
            })
            .collect()
    }

    /// Assigns what a body yields, all at once: what a later assignment still reads is kept aside.
    fn advance(&mut self, registers: &[Operand], yields: &[Value]) {
        let values: Vec<Operand> = yields.iter().map(|&value| self.get(value)).collect();
        let mut late = vec![];
        for (i, (&to, &from)) in registers.iter().zip(&values).enumerate() {
            if to == from {
                continue;
            }
            let op = moves(self.kernel.dtype(yields[i]));
            if values[i + 1..].contains(&to) {
                let Operand::Reg(class, _) = to else { continue };
                late.push((to, op, self.asm.make(class, op, &[from])));
            } else {
                self.asm.set(to, op, &[from]);
            }
        }
        for (to, op, from) in late {
            self.asm.set(to, op, &[from]);
        }
    }

    fn finish(&mut self, registers: &[Operand], results: &[Value]) {
        for (&register, result) in registers.iter().zip(results) {
            self.values[result.index()] = Some(register);
        }
    }

    fn counted(&mut self, inst: Inst) {
        let kernel = self.kernel;
        let data = kernel.inst(inst);
        let body = kernel.block(data.blocks[0]);
        let carried = self.carry(&body.args[1..], &data.args[3..]);
        let index = self.carry(&body.args[..1], &data.args[..1])[0];
        let [high, step] = [data.args[1], data.args[2]].map(|value| self.get(value));
        let (again, end) = (self.asm.label(), self.asm.label());
        let sign = kernel.as_const(data.args[2]).and_then(Const::as_int).map(i64::signum);
        let ty = arithmetic(kernel.dtype(body.args[0]));
        let runs = kernel.trips(&data.args);
        if runs != Some(0) {
            if runs.is_none() {
                let goes = self.goes_on(index, high, step, sign, ty);
                self.asm.branch(false, goes, end);
            }
            self.asm.place(again);
            self.block(data.blocks[0]);
            self.advance(&carried, &body.yields);
            self.asm.set(index, &format!("add.{ty}"), &[index, step]);
            let goes = self.goes_on(index, high, step, sign, ty);
            self.asm.branch(true, goes, again);
            self.asm.place(end);
        }
        self.finish(&carried, &data.results);
    }

    /// Whether a loop runs for this index.
    fn goes_on(
        &mut self,
        index: Operand,
        high: Operand,
        step: Operand,
        sign: Option<i64>,
        ty: &str,
    ) -> Operand {
        let below = |this: &mut Self| this.asm.test(&format!("lt.{ty}"), index, high);
        let above = |this: &mut Self| this.asm.test(&format!("gt.{ty}"), index, high);
        match sign {
            Some(1) => below(self),
            Some(-1) => above(self),
            _ => {
                let zero = Operand::Int(0);
                let (below, above) = (below(self), above(self));
                let down = self.asm.reg(Class::Truth);
                put!(self.asm, "setp.lt.and.{ty} {down},{step},{zero},{above};");
                let up = self.asm.reg(Class::Truth);
                put!(self.asm, "setp.gt.and.{ty} {up},{step},{zero},{below};");
                self.asm.make(Class::Truth, "or.pred", &[up, down])
            }
        }
    }

    fn conditional(&mut self, inst: Inst) {
        let kernel = self.kernel;
        let data = kernel.inst(inst);
        let body = kernel.block(data.blocks[0]);
        let first = self.get(data.args[0]);
        let carried = self.carry(&body.args, &data.args[1..]);
        let (again, end) = (self.asm.label(), self.asm.label());
        self.asm.branch(false, first, end);
        self.asm.place(again);
        self.block(data.blocks[0]);
        let mut go = self.get(body.yields[0]);
        // The test may be one of the variables, as it was.
        if carried.contains(&go) {
            go = self.asm.make(Class::Truth, "mov.pred", &[go]);
        }
        self.advance(&carried, &body.yields[1..]);
        self.asm.branch(true, go, again);
        self.asm.place(end);
        self.finish(&carried, &data.results);
    }

    /// What was found out in this block or around it.
    pub(super) fn known(&self, key: &Key) -> Option<Operand> {
        self.facts.get(key).copied()
    }

    /// Keeps what was found out until the end of the block.
    pub(super) fn learn(&mut self, key: Key, value: Operand) -> Operand {
        self.order.push(key.clone());
        self.facts.insert(key, value);
        value
    }

    fn forget(&mut self, outer: usize) {
        for key in self.order.drain(outer..) {
            self.facts.remove(&key);
        }
    }
}
