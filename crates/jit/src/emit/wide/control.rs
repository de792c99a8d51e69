//! Branches and loops that threads side by side disagree on.

use bullet_lang::ir::{self, Const, Inst, Op};
use bullet_ops::DType;
use cranelift_codegen::ir::types::{I32, I32X4, I64};
use cranelift_codegen::ir::{Block, BlockArg, InstBuilder, StackSlot, Value};

use super::super::Emitter;
use super::super::lanes::{Parts, count, vector};
use super::super::scalar::{function, register};
use super::super::uniform::Shape;
use super::Mask;

impl Emitter<'_> {
    /// The lanes of the mask for which a condition holds.
    fn masked(&mut self, condition: &[Value]) -> Mask {
        let parts: Parts = match self.mask() {
            Some(mask) => {
                mask.parts.iter().zip(condition).map(|(&a, &b)| self.ops.b.ins().band(a, b)).collect()
            }
            None => condition.to_vec(),
        };
        let bits = self.bits(&parts);
        Mask { parts, bits }
    }

    /// Values as arguments of a block: lanes of what varies, else the scalar.
    pub(in crate::emit) fn mixed(&mut self, values: &[ir::Value], like: &[ir::Value]) -> Vec<BlockArg> {
        let mut args = vec![];
        for (&value, &like) in values.iter().zip(like) {
            match self.shape(like) {
                Shape::Varying => args.extend(self.parts(value).into_iter().map(BlockArg::Value)),
                _ => args.push(BlockArg::Value(self.value(value))),
            }
        }
        args
    }

    /// Parameters of a block for values: lanes of what varies, else a scalar.
    pub(in crate::emit) fn mixed_parameters(&mut self, block: Block, values: &[ir::Value]) {
        for &value in values {
            let dtype = self.kernel.dtype(value);
            if self.shape(value) == Shape::Varying {
                let parts =
                    (0..count(dtype)).map(|_| self.ops.b.append_block_param(block, vector(dtype))).collect();
                self.set_parts(value, parts);
            } else {
                self.values[value.index()] = Some(self.ops.b.append_block_param(block, register(dtype)));
            }
        }
    }

    fn all_parts(&mut self, values: &[ir::Value]) -> Vec<Parts> {
        values.iter().map(|&value| self.parts(value)).collect()
    }

    fn flat(parts: &[Parts]) -> Vec<BlockArg> {
        parts.iter().flatten().map(|&part| BlockArg::Value(part)).collect()
    }

    /// Parameters of a block for the lanes of values.
    fn lane_parameters(&mut self, block: Block, values: &[ir::Value]) -> Vec<Parts> {
        values
            .iter()
            .map(|&value| {
                let dtype = self.kernel.dtype(value);
                (0..count(dtype)).map(|_| self.ops.b.append_block_param(block, vector(dtype))).collect()
            })
            .collect()
    }

    fn blend_all(&mut self, values: &[ir::Value], mask: &Mask, x: &[Parts], y: &[Parts]) -> Vec<Parts> {
        (0..values.len())
            .map(|i| self.blend(self.kernel.dtype(values[i]), &mask.parts, &x[i], &y[i]))
            .collect()
    }

    /// A branch that lanes disagree on.
    pub(super) fn branch_of_lanes(&mut self, inst: Inst) -> bool {
        let kernel = self.kernel;
        let data = kernel.inst(inst);
        if self.is_uniform(data.args[0]) {
            return false;
        }
        let outer = self.mask();
        let test = self.parts(data.args[0]);
        let opposite: Parts = test.iter().map(|&part| self.ops.b.ins().bnot(part)).collect();
        let (yes, no) = (self.masked(&test), self.masked(&opposite));
        if self.is_cheap(data.blocks[0]) && self.is_cheap(data.blocks[1]) {
            self.block(data.blocks[0]);
            let x = self.all_parts(&kernel.block(data.blocks[0]).yields);
            self.block(data.blocks[1]);
            let y = self.all_parts(&kernel.block(data.blocks[1]).yields);
            let both = self.blend_all(&data.results, &yes, &x, &y);
            for (&result, parts) in data.results.iter().zip(both) {
                self.set_parts(result, parts);
            }
            return true;
        }
        let mut given: Vec<Parts> = data.results.iter().map(|&result| self.zero_parts(result)).collect();
        for (mask, block) in [(yes, data.blocks[0]), (no, data.blocks[1])] {
            let yields = &kernel.block(block).yields;
            if kernel.block(block).insts.is_empty() {
                let there = self.all_parts(yields);
                given = self.blend_all(&data.results, &mask, &there, &given);
                continue;
            }
            let (run, end) = (self.ops.b.create_block(), self.ops.b.create_block());
            self.ops.b.ins().brif(mask.bits, run, &[], end, &Self::flat(&given));
            self.ops.b.switch_to_block(run);
            self.lanes().mask = Some(mask.clone());
            self.block(block);
            let there = self.all_parts(yields);
            let both = self.blend_all(&data.results, &mask, &there, &given);
            self.ops.b.ins().jump(end, &Self::flat(&both));
            given = self.lane_parameters(end, &data.results);
            self.ops.b.switch_to_block(end);
        }
        self.lanes().mask = outer;
        for (&result, parts) in data.results.iter().zip(given) {
            self.set_parts(result, parts);
        }
        true
    }

    pub(super) fn zero_parts(&mut self, value: ir::Value) -> Parts {
        let dtype = self.kernel.dtype(value);
        let zero = self.ops.constant(Const::zero(dtype));
        self.splat(dtype, zero)
    }

    /// Whether a block is done sooner than it is known whether to do it: a few operations of values alone.
    fn is_cheap(&self, block: ir::Block) -> bool {
        let cheap = |op: Op| op.is_pure() && !matches!(op, Op::Unary(op) if function(op, false).is_some());
        let insts = &self.kernel.block(block).insts;
        insts.len() <= 6 && insts.iter().all(|&inst| cheap(self.kernel.inst(inst).op))
    }

    /// A loop that lanes leave at different times.
    pub(super) fn conditional_of_lanes(&mut self, inst: Inst) -> bool {
        let kernel = self.kernel;
        let data = kernel.inst(inst);
        let body = kernel.block(data.blocks[0]);
        if self.is_uniform(data.args[0]) && self.is_uniform(body.yields[0]) {
            return false;
        }
        let outer = self.mask();
        let go = self.parts(data.args[0]);
        let first = self.masked(&go);
        let carried = self.all_parts(&data.args[1..]);
        self.rounds(&data.results, first, carried, |this, carried| {
            for (&arg, parts) in body.args.iter().zip(carried) {
                this.set_parts(arg, parts.clone());
            }
            this.block(data.blocks[0]);
            let go = this.parts(body.yields[0]);
            (go, this.all_parts(&body.yields[1..]))
        });
        self.lanes().mask = outer;
        true
    }

    /// Rounds of a loop until no lane wants another; `round` gives which do, and what they carry.
    fn rounds(
        &mut self,
        results: &[ir::Value],
        first: Mask,
        carried: Vec<Parts>,
        round: impl FnOnce(&mut Self, &[Parts]) -> (Parts, Vec<Parts>),
    ) {
        let (head, exit) = (self.ops.b.create_block(), self.ops.b.create_block());
        let mut args: Vec<BlockArg> = first.parts.iter().map(|&part| part.into()).collect();
        args.push(first.bits.into());
        args.extend(Self::flat(&carried));
        self.ops.b.ins().brif(first.bits, head, &args, exit, &Self::flat(&carried));
        let parts: Parts = first.parts.iter().map(|_| self.ops.b.append_block_param(head, I32X4)).collect();
        let bits = self.ops.b.append_block_param(head, I32);
        let mask = Mask { parts, bits };
        let old = self.lane_parameters(head, results);
        self.ops.b.switch_to_block(head);
        self.lanes().mask = Some(mask.clone());
        let (go, new) = round(self, &old);
        self.poll_by_ticks();
        self.lanes().mask = Some(mask.clone());
        let kept = self.blend_all(results, &mask, &new, &old);
        let next = self.masked(&go);
        let mut args: Vec<BlockArg> = next.parts.iter().map(|&part| part.into()).collect();
        args.push(next.bits.into());
        args.extend(Self::flat(&kept));
        self.ops.b.ins().brif(next.bits, head, &args, exit, &Self::flat(&kept));
        let given = self.lane_parameters(exit, results);
        self.ops.b.switch_to_block(exit);
        for (&result, parts) in results.iter().zip(given) {
            self.set_parts(result, parts);
        }
    }

    /// A loop whose count lanes disagree on.
    pub(super) fn counted_of_lanes(&mut self, inst: Inst) -> bool {
        let kernel = self.kernel;
        let data = kernel.inst(inst);
        if data.args[..3].iter().all(|&bound| self.is_uniform(bound)) {
            return false;
        }
        let outer = self.mask();
        let dtype = kernel.dtype(data.args[0]);
        let body = kernel.block(data.blocks[0]);
        let bounds = self.all_parts(&data.args[..3]);
        let runs = self.runs_of_lanes(dtype, &bounds);
        let zero = self.zero_lanes();
        let some = self.wide_compare(ir::Compare::Ne, DType::I64, &runs, &zero);
        let first = self.masked(&some);
        let uniform = self.is_uniform(body.args[0]);
        // The index and the rounds that are left go with what the loop carries, in places of their own.
        let index = if uniform { None } else { Some(bounds[0].clone()) };
        let start = if uniform { Some(self.value(data.args[0])) } else { None };
        self.counted_rounds(inst, first, (start, index, runs), &bounds[2]);
        self.lanes().mask = outer;
        true
    }

    fn zero_lanes(&mut self) -> Parts {
        let zero = self.ops.b.ins().iconst(I64, 0);
        self.splat(DType::I64, zero)
    }

    /// How often a loop runs, for each lane.
    fn runs_of_lanes(&mut self, dtype: DType, bounds: &[Parts]) -> Parts {
        let slots: Vec<StackSlot> = bounds.iter().map(|parts| self.spill(parts)).collect();
        let out = self.borrow_slot();
        self.for_lanes(None, |this, lane| {
            let scalars: Vec<Value> = slots.iter().map(|&slot| this.lane(dtype, slot, lane)).collect();
            let runs = this.runs(dtype, &scalars);
            this.put_lane(DType::I64, out, lane, runs);
        });
        self.collect(DType::I64, out)
    }

    fn counted_rounds(
        &mut self,
        inst: Inst,
        first: Mask,
        (start, index, runs): (Option<Value>, Option<Parts>, Parts),
        step: &Parts,
    ) {
        let kernel = self.kernel;
        let data = kernel.inst(inst);
        let body = kernel.block(data.blocks[0]);
        let dtype = kernel.dtype(data.args[0]);
        let scalar_step = start.map(|_| self.value(data.args[2]));
        let (head, exit) = (self.ops.b.create_block(), self.ops.b.create_block());
        let carried = self.all_parts(&data.args[3..]);
        let pack =
            |mask: &Mask, start: Option<Value>, index: &Option<Parts>, runs: &Parts, carried: &[Parts]| {
                let mut args: Vec<BlockArg> = mask.parts.iter().map(|&part| part.into()).collect();
                args.push(mask.bits.into());
                args.extend(start.map(BlockArg::Value));
                args.extend(index.iter().flatten().map(|&part| BlockArg::Value(part)));
                args.extend(runs.iter().map(|&part| BlockArg::Value(part)));
                args.extend(Self::flat(carried));
                args
            };
        let args = pack(&first, start, &index, &runs, &carried);
        self.ops.b.ins().brif(first.bits, head, &args, exit, &Self::flat(&carried));
        let parts: Parts = first.parts.iter().map(|_| self.ops.b.append_block_param(head, I32X4)).collect();
        let bits = self.ops.b.append_block_param(head, I32);
        let mask = Mask { parts, bits };
        let at = start.map(|_| self.ops.b.append_block_param(head, register(dtype)));
        let lanes_at: Option<Parts> = index
            .as_ref()
            .map(|parts| parts.iter().map(|_| self.ops.b.append_block_param(head, vector(dtype))).collect());
        let left: Parts =
            runs.iter().map(|_| self.ops.b.append_block_param(head, vector(DType::I64))).collect();
        let old = self.lane_parameters(head, &data.results);
        self.ops.b.switch_to_block(head);
        self.lanes().mask = Some(mask.clone());
        if let Some(at) = at {
            self.values[body.args[0].index()] = Some(at);
        }
        if let Some(parts) = &lanes_at {
            self.set_parts(body.args[0], parts.clone());
        }
        for (&arg, parts) in body.args[1..].iter().zip(&old) {
            self.set_parts(arg, parts.clone());
        }
        self.block(data.blocks[0]);
        self.poll_by_ticks();
        let new = self.all_parts(&body.yields);
        self.lanes().mask = Some(mask.clone());
        let kept = self.blend_all(&data.results, &mask, &new, &old);
        let one = self.ops.b.ins().iconst(I64, 1);
        let one = self.splat(DType::I64, one);
        let left: Parts = left.iter().zip(one).map(|(&x, one)| self.ops.b.ins().isub(x, one)).collect();
        let zero = self.zero_lanes();
        let some = self.wide_compare(ir::Compare::Ne, DType::I64, &left, &zero);
        let next = self.masked(&some);
        let at = at.zip(scalar_step).map(|(at, step)| self.ops.b.ins().iadd(at, step));
        let lanes_at = lanes_at.map(|parts| {
            parts.iter().zip(step).map(|(&x, &step)| self.ops.b.ins().iadd(x, step)).collect::<Parts>()
        });
        let args = pack(&next, at, &lanes_at, &left, &kept);
        self.ops.b.ins().brif(next.bits, head, &args, exit, &Self::flat(&kept));
        let given = self.lane_parameters(exit, &data.results);
        self.ops.b.switch_to_block(exit);
        for (&result, parts) in data.results.iter().zip(given) {
            self.set_parts(result, parts);
        }
    }
}
