//! Sums that wait: what threads one after the other add to one element is summed on the stack, and added where another element
//! comes, and at the end. An atomic update takes some 5 ns, and many times that where several cores make them of one element.

use bullet_lang::ir::{Atomic, Inst};
use bullet_lang::sums;
use bullet_ops::DType;
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::types::I64;
use cranelift_codegen::ir::{InstBuilder, StackSlot, Value};

use super::Emitter;
use super::scalar::register;

/// A sum that an instruction adds to, of one lane of its elements.
#[derive(Clone, Copy)]
pub(super) struct Waiting {
    inst: Inst,
    lane: usize,
    dtype: DType,
    /// What it will be added to; 0 if there is none.
    address: StackSlot,
    sum: StackSlot,
}

impl Emitter<'_> {
    /// At the start of the function.
    pub(super) fn start_sums(&mut self) {
        if !self.options.sums {
            return;
        }
        for inst in sums::postponable(self.kernel) {
            let data = self.kernel.inst(inst);
            let dtype = self.kernel.dtype(data.args[0]);
            for lane in 0..data.results.len() {
                let (address, sum) = (self.slot(8), self.slot(8));
                let none = self.ops.b.ins().iconst(I64, 0);
                self.ops.b.ins().stack_store(I64, none, address, 0);
                self.waiting.push(Waiting { inst, lane, dtype, address, sum });
            }
        }
    }

    /// Adds to an element, now or later; whether nothing else is to be done.
    pub(super) fn add_later(&mut self, inst: Inst, lane: usize, address: Value, x: Value) -> bool {
        let known = self.waiting.iter().find(|waiting| waiting.inst == inst && waiting.lane == lane);
        let Some(&waiting) = known else { return false };
        let ty = register(waiting.dtype);
        let (again, other, next) =
            (self.ops.b.create_block(), self.ops.b.create_block(), self.ops.b.create_block());
        let last = self.ops.b.ins().stack_load(I64, I64, waiting.address, 0);
        let same = self.ops.b.ins().icmp(IntCC::Equal, last, address);
        self.ops.b.ins().brif(same, again, &[], other, &[]);

        self.ops.b.switch_to_block(again);
        let sum = self.ops.b.ins().stack_load(I64, ty, waiting.sum, 0);
        let sum = self.ops.binary(bullet_lang::ir::Binary::Add, waiting.dtype, sum, x);
        self.ops.b.ins().stack_store(I64, sum, waiting.sum, 0);
        self.ops.b.ins().jump(next, &[]);

        self.ops.b.switch_to_block(other);
        self.ops.b.set_cold_block(other);
        self.add_now(waiting);
        self.ops.b.ins().stack_store(I64, address, waiting.address, 0);
        self.ops.b.ins().stack_store(I64, x, waiting.sum, 0);
        self.ops.b.ins().jump(next, &[]);
        self.ops.b.switch_to_block(next);
        true
    }

    /// Adds what waits, where the function ends.
    pub(super) fn end_sums(&mut self) {
        for waiting in self.waiting.clone() {
            self.add_now(waiting);
        }
    }

    fn add_now(&mut self, waiting: Waiting) {
        let (add, next) = (self.ops.b.create_block(), self.ops.b.create_block());
        let address = self.ops.b.ins().stack_load(I64, I64, waiting.address, 0);
        self.ops.b.ins().brif(address, add, &[], next, &[]);
        self.ops.b.switch_to_block(add);
        let sum = self.ops.b.ins().stack_load(I64, register(waiting.dtype), waiting.sum, 0);
        self.ops.atomic(Atomic::Add, waiting.dtype, address, sum);
        self.ops.b.ins().jump(next, &[]);
        self.ops.b.switch_to_block(next);
    }
}
