//! Where loops ask whether to go on: what runs long must be possible to stop, and may not become slower by it.
//!
//! A loop with a count and no loop in it asks by its index, every [`STRIDE`] rounds. Rounds of other loops, and threads of kernels that
//! have loops, count down a word on the stack, and ask every [`TICKS`] or, of `while` loops without a loop in them, every
//! [`SHORT_TICKS`]. A multiple of the longer is one of the shorter, so that whoever counts down to it asks. Behind so many rounds
//! it is some ten milliseconds at most, unless one of them takes as long; asking takes some 50 ns.

use bullet_lang::ir::{self, Const, Inst, Op};
use cranelift_codegen::ir::types::{I32, I64};
use cranelift_codegen::ir::{AbiParam, Block, InstBuilder, SigRef, Signature, StackSlot, Value};
use cranelift_codegen::isa::CallConv;

use super::Emitter;
use super::scalar::trusted;
use crate::abi::{Context, Function, STOPPED};

/// A power of two.
const STRIDE: i64 = 1 << 14;
/// Powers of two.
const TICKS: i64 = 64;
const SHORT_TICKS: i64 = 1024;

/// What asking needs in a function.
#[derive(Clone, Copy)]
pub(super) struct Polls {
    /// The word that is counted down.
    ticks: StackSlot,
    /// Of the function that asks, which keeps all registers.
    signature: SigRef,
    /// Where it ends if it may not go on.
    stopped: Block,
}

impl Emitter<'_> {
    /// In kernels with loops only.
    pub(super) fn start_polls(&mut self) {
        if self.has_loops(self.kernel.body) {
            let ticks = self.slot(4);
            let zero = self.ops.int(I32, 0);
            self.ops.b.ins().stack_store(I64, zero, ticks, 0);
            let mut signature = Signature::new(CallConv::PreserveAll);
            signature.params.push(AbiParam::new(I64));
            let signature = self.ops.b.import_signature(signature);
            self.polls = Some(Polls { ticks, signature, stopped: self.ops.b.create_block() });
        }
    }

    /// The end of a function that may not go on.
    pub(super) fn end_stopped(&mut self) {
        let Some(polls) = self.polls else { return };
        self.ops.b.set_cold_block(polls.stopped);
        self.ops.b.switch_to_block(polls.stopped);
        self.end_sums();
        let status = self.ops.int(I32, STOPPED.into());
        self.ops.b.ins().return_(&[status]);
    }

    fn has_loops(&self, block: ir::Block) -> bool {
        self.kernel.block(block).insts.iter().any(|&inst| {
            let data = self.kernel.inst(inst);
            matches!(data.op, Op::For | Op::While) || data.blocks.iter().any(|&inner| self.has_loops(inner))
        })
    }

    /// At the end of a round of a `for` loop: `count` goes up or down by one from round to round.
    pub(super) fn poll_by_count(&mut self, inst: Inst, count: Value) {
        let data = self.kernel.inst(inst);
        if self.has_loops(data.blocks[0]) {
            return self.poll_by_ticks();
        }
        let int = |i: usize| self.kernel.as_const(data.args[i]).and_then(Const::as_int);
        if let (Some(low), Some(high), Some(_)) = (int(0), int(1), int(2))
            && low.abs_diff(high) <= STRIDE as u64
        {
            return;
        }
        let rest = self.ops.b.ins().band_imm_u(count, STRIDE - 1);
        self.unless_due(rest);
    }

    /// At the end of a round of a `while` loop.
    pub(super) fn poll_by_test(&mut self, inst: Inst) {
        let has_loops = self.has_loops(self.kernel.inst(inst).blocks[0]);
        self.poll_by_word(if has_loops { TICKS } else { SHORT_TICKS });
    }

    /// At the end of a round that may be long, or of a thread.
    pub(super) fn poll_by_ticks(&mut self) {
        self.poll_by_word(TICKS);
    }

    fn poll_by_word(&mut self, every: i64) {
        let Some(polls) = self.polls else { return };
        let word = self.ops.b.ins().stack_load(I64, I32, polls.ticks, 0);
        let word = self.ops.b.ins().iadd_imm_s(word, -1);
        self.ops.b.ins().stack_store(I64, word, polls.ticks, 0);
        let rest = self.ops.b.ins().band_imm_u(word, every - 1);
        self.unless_due(rest);
    }

    /// Asks where the number is 0.
    fn unless_due(&mut self, rest: Value) {
        let Some(polls) = self.polls else { return };
        let (ask, next) = (self.ops.b.create_block(), self.ops.b.create_block());
        self.ops.b.set_cold_block(ask);
        self.ops.b.ins().brif(rest, next, &[], ask, &[]);
        self.ops.b.switch_to_block(ask);
        let table = trusted().with_readonly().with_aligned();
        let address = self.ops.b.ins().load(I64, table, self.ops.table, 8 * Function::Ask as i32);
        self.ops.b.ins().call_indirect(polls.signature, address, &[self.context]);
        let stop = self.ops.b.ins().load(I32, trusted(), self.context, Context::STOPPED);
        self.ops.b.ins().brif(stop, polls.stopped, &[], next, &[]);
        self.ops.b.switch_to_block(next);
    }
}
