//! Threads side by side: [`LANES`] of a row of the grid run together, under a mask.
//!
//! What is [uniform](super::uniform) is done once, as for one thread. A branch that lanes disagree on runs both of its blocks, each
//! under its part of the mask and only if that is not empty; a loop runs until no lane wants another round, and lanes that are done
//! keep what they carry. Memory is read and written in vectors where all lanes are at work on consecutive elements (without gaps, which
//! is known when a round starts), else lane by lane. So each thread does what it would do alone; the order between threads is nobody's
//! business.

use bullet_lang::ir::{self, Atomic, Const, Inst, Kernel, Op};
use bullet_ops::DType;
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::types::{I32, I32X4, I64};
use cranelift_codegen::ir::{Block, BlockArg, InstBuilder, StackSlot, Value};

use super::Emitter;
use super::lanes::{ALL, LANES, Parts, count, vector};
use super::scalar::{register, trusted};
use super::uniform::Shape;
use crate::program::Site;

/// Which lanes are at work.
#[derive(Clone, Debug)]
pub(super) struct Mask {
    parts: Parts,
    /// One bit a lane.
    bits: Value,
}

/// What is known of lanes.
pub(super) struct Wide {
    shapes: Vec<Shape>,
    /// The lanes of each varying value.
    parts: Vec<Option<Parts>>,
    /// None if all are at work.
    mask: Option<Mask>,
    /// Which values are used at all.
    used_values: Vec<bool>,
    /// Places on the stack for the lanes of one value, and how many are in use.
    slots: Vec<StackSlot>,
    used: usize,
}

impl Wide {
    pub(super) fn new(kernel: &Kernel, shapes: Vec<Shape>) -> Wide {
        let mut used_values = vec![false; shapes.len()];
        for inst in kernel.instructions() {
            let data = kernel.inst(inst);
            let yields = data.blocks.iter().flat_map(|&block| &kernel.block(block).yields);
            data.args.iter().chain(yields).for_each(|value| used_values[value.index()] = true);
        }
        Wide { parts: vec![None; shapes.len()], shapes, mask: None, used_values, slots: vec![], used: 0 }
    }
}

impl Emitter<'_> {
    /// What is known of lanes; only called where there are some.
    fn lanes(&mut self) -> &mut Wide {
        let kernel = self.kernel;
        self.wide.get_or_insert_with(|| Wide::new(kernel, vec![]))
    }

    fn shape(&self, value: ir::Value) -> Shape {
        self.wide.as_ref().and_then(|wide| wide.shapes.get(value.index()).copied()).unwrap_or(Shape::Uniform)
    }

    fn is_uniform(&self, value: ir::Value) -> bool {
        self.shape(value) == Shape::Uniform
    }

    fn mask(&self) -> Option<Mask> {
        self.wide.as_ref().and_then(|wide| wide.mask.clone())
    }

    /// A place for the lanes of one value, until the end of an instruction.
    pub(super) fn borrow_slot(&mut self) -> StackSlot {
        let used = self.lanes().used;
        self.lanes().used += 1;
        if let Some(&slot) = self.lanes().slots.get(used) {
            return slot;
        }
        let slot = self.slot(8 * LANES);
        self.lanes().slots.push(slot);
        slot
    }

    /// 0, 1, 2 ..
    fn counting(&mut self) -> Parts {
        (0..LANES as u32 / 4)
            .map(|part| {
                let bytes: Vec<u8> = (4 * part..4 * part + 4).flat_map(u32::to_le_bytes).collect();
                let constant = self.ops.b.func.dfg.constants.insert(bytes.into());
                self.ops.b.ins().vconst(I32X4, constant)
            })
            .collect()
    }

    /// All lanes of a value.
    fn parts(&mut self, value: ir::Value) -> Parts {
        let dtype = self.kernel.dtype(value);
        match self.shape(value) {
            Shape::Varying => match self.lanes().parts[value.index()].clone() {
                Some(parts) => parts,
                // Only a kernel that `verify` refuses lacks one.
                None => vec![],
            },
            Shape::Uniform => {
                let x = self.value(value);
                self.splat(dtype, x)
            }
            Shape::Consecutive => {
                let x = self.value(value);
                let first = self.splat(dtype, x);
                let counting = self.counting();
                first.iter().zip(counting).map(|(&x, i)| self.ops.b.ins().iadd(x, i)).collect()
            }
        }
    }

    fn set_parts(&mut self, value: ir::Value, parts: Parts) {
        if self.shape(value) == Shape::Varying {
            self.lanes().parts[value.index()] = Some(parts);
        }
    }

    /// Whether an instruction is done for each lane; what is the same for all is done as for one thread.
    pub(super) fn inst_of_lanes(&mut self, inst: Inst) -> bool {
        if self.wide.is_none() {
            return false;
        }
        let kernel = self.kernel;
        let data = kernel.inst(inst);
        self.lanes().used = 0;
        match data.op {
            op if op.is_pure() => {
                // The first lane of what counts up is that of its operands.
                if self.shape(data.results[0]) != Shape::Varying {
                    return false;
                }
                let parts = self.pure_of_lanes(inst);
                self.set_parts(data.results[0], parts);
            }
            Op::Load => return self.load_lanes(inst),
            Op::Store => self.store_lanes(inst),
            Op::Atomic(op) => self.atomic_lanes(inst, op),
            Op::CompareExchange => self.exchange_lanes(inst),
            Op::If => return self.branch_of_lanes(inst),
            Op::For => return self.counted_of_lanes(inst),
            Op::While => return self.conditional_of_lanes(inst),
            Op::Push(_) => self.push_lanes(data.args[0]),
            Op::Pop(_) => self.pop_lanes(inst),
            Op::Assert(text) if !self.is_uniform(data.args[0]) => self.assert_lanes(inst, text),
            _ => return false,
        }
        true
    }

    fn pure_of_lanes(&mut self, inst: Inst) -> Parts {
        let kernel = self.kernel;
        let data = kernel.inst(inst);
        let args: Vec<Parts> = data.args.iter().map(|&arg| self.parts(arg)).collect();
        let (from, to) = (kernel.dtype(data.args[0]), kernel.dtype(data.results[0]));
        match data.op {
            Op::Unary(op) => self.wide_unary(op, from, &args[0]),
            Op::Binary(op) => self.wide_binary(op, from, &args[0], &args[1]),
            Op::Compare(op) => self.wide_compare(op, from, &args[0], &args[1]),
            Op::Select => self.blend(to, &args[0], &args[1], &args[2]),
            Op::Cast => self.wide_cast(from, to, &args[0]),
            _ => self.wide_bitcast(from, to, &args[0]),
        }
    }

    /// The bits of the lanes at work, of which the first is to blame for what goes wrong in all.
    pub(super) fn mask_bits(&mut self) -> Value {
        match self.mask() {
            Some(mask) => mask.bits,
            None => self.ops.int(I32, if self.wide.is_some() { ALL } else { 1 }),
        }
    }

    // Memory.

    /// Whether an op touches consecutive elements of a parameter, one a lane, that fit vectors; if the parameter has no gaps.
    fn is_run(&self, inst: Inst, shapes: &[Shape]) -> bool {
        let data = self.kernel.inst(inst);
        let Some(ty) = data.args.first().and_then(|&array| self.kernel.ty(array).array()) else {
            return false;
        };
        let shape = |value: &ir::Value| shapes[value.index()];
        let Some((last, others)) = data.args[1..=usize::from(ty.ndim)].split_last() else { return false };
        ty.lanes == 1
            && ty.dtype.size() >= 4
            && matches!(data.op, Op::Load | Op::Store)
            && shape(last) == Shape::Consecutive
            && others.iter().all(|index| shape(index) == Shape::Uniform)
            && self.array_param(data.args[0]).is_some()
    }

    /// Whether arrays have no gaps where ops touch consecutive elements; none if there are no such.
    pub(super) fn is_dense(&mut self, shapes: &[Shape]) -> Option<Value> {
        let mut arrays: Vec<ir::Value> = vec![];
        for inst in self.kernel.instructions() {
            let data = self.kernel.inst(inst);
            if matches!(data.op, Op::Load | Op::Store)
                && self.is_run(inst, shapes)
                && !arrays.contains(&data.args[0])
            {
                arrays.push(data.args[0]);
            }
        }
        let mut dense = None;
        for array in arrays {
            let stride = self.array_param(array).and_then(|(_, param)| param.strides.last().copied())?;
            let one =
                self.ops.b.ins().icmp_imm_s(IntCC::Equal, stride, self.kernel.dtype(array).size() as i64);
            dense = Some(dense.map_or(one, |dense| self.ops.b.ins().band(dense, one)));
        }
        dense
    }

    /// The address of the first element of a run, checked, if an op touches one and all lanes are at work.
    fn run_of(&mut self, inst: Inst) -> Option<Value> {
        let wide = self.wide.as_ref()?;
        if wide.mask.is_some() || !self.is_run(inst, &wide.shapes) {
            return None;
        }
        let data = self.kernel.inst(inst);
        let ndim = usize::from(self.kernel.ty(data.args[0]).array()?.ndim);
        let indices: Vec<Value> = data.args[1..=ndim].iter().map(|&index| self.value(index)).collect();
        if self.options.check {
            for (axis, &index) in indices.iter().enumerate() {
                let site = self.index_site(inst, axis);
                let length = self.dim(data.args[0], axis);
                match axis + 1 == ndim {
                    true => self.check_run(site, index, length),
                    false => {
                        let good = self.ops.b.ins().icmp(IntCC::UnsignedLessThan, index, length);
                        self.unless_fault(good, site, index);
                    }
                }
            }
        }
        Some(self.address(data.args[0], &indices))
    }

    /// Goes on only if the indices of all lanes, which count up from this one, are in range.
    fn check_run(&mut self, site: u32, index: Value, length: Value) {
        let (next, cold) = (self.ops.b.create_block(), self.ops.b.create_block());
        self.ops.b.set_cold_block(cold);
        let last = self.ops.b.ins().iadd_imm_s(index, LANES as i64 - 1);
        let starts = self.ops.b.ins().icmp(IntCC::UnsignedLessThan, index, length);
        let ends = self.ops.b.ins().icmp(IntCC::UnsignedLessThan, last, length);
        let good = self.ops.b.ins().band(starts, ends);
        self.ops.b.ins().brif(good, next, &[], cold, &[]);
        self.ops.b.switch_to_block(cold);
        let (zero, one) = (self.ops.int(I32, 0), self.ops.int(I32, 1));
        let left = self.ops.b.ins().isub(length, index);
        let lane = self.ops.b.ins().select(starts, left, zero);
        let value = self.ops.b.ins().iadd(index, lane);
        let bit = self.ops.b.ins().ishl(one, lane);
        let args = self.fault_args(site, value, bit);
        self.ops.b.ins().jump(self.fault, &args);
        self.ops.b.switch_to_block(next);
    }

    /// The indices of a memory op: scalars that all lanes share, or lanes on the stack.
    fn indices(&mut self, inst: Inst) -> Vec<Result<Value, StackSlot>> {
        let args = self.kernel.inst(inst).args.clone();
        let ndim = self.kernel.ty(args[0]).array().map_or(1, |ty| usize::from(ty.ndim));
        args[1..=ndim]
            .iter()
            .map(|&index| match self.shape(index) {
                Shape::Uniform => Ok(self.value(index)),
                _ => {
                    let parts = self.parts(index);
                    Err(self.spill(&parts))
                }
            })
            .collect()
    }

    /// The address of a lane's element, checked.
    fn lane_element(
        &mut self,
        inst: Inst,
        indices: &[Result<Value, StackSlot>],
        sites: &[u32],
        lane: Value,
    ) -> Value {
        let array = self.kernel.inst(inst).args[0];
        let scalars: Vec<Value> = indices
            .iter()
            .map(|index| match *index {
                Ok(scalar) => scalar,
                Err(slot) => self.lane(DType::I32, slot, lane),
            })
            .collect();
        if self.options.check {
            let one = self.ops.int(I32, 1);
            let bit = self.ops.b.ins().ishl(one, lane);
            for (axis, &index) in scalars.iter().enumerate() {
                let length = self.dim(array, axis);
                let good = self.ops.b.ins().icmp(IntCC::UnsignedLessThan, index, length);
                self.unless_fault_of(good, sites[axis], index, bit);
            }
        }
        self.address(array, &scalars)
    }

    fn sites_of(&mut self, inst: Inst, axes: usize) -> Vec<u32> {
        if !self.options.check {
            return vec![];
        }
        (0..axes).map(|axis| self.index_site(inst, axis)).collect()
    }

    fn load_lanes(&mut self, inst: Inst) -> bool {
        let kernel = self.kernel;
        let data = kernel.inst(inst);
        if data.results.iter().all(|&result| self.is_uniform(result)) {
            return false;
        }
        let dtype = kernel.dtype(data.args[0]);
        if let Some(address) = self.run_of(inst) {
            let ty = vector(dtype);
            let parts = (0..count(dtype))
                .map(|i| self.ops.b.ins().load(ty, trusted(), address, 16 * i as i32))
                .collect();
            self.set_parts(data.results[0], parts);
            return true;
        }
        self.each_lane(inst, |this, address, _| {
            let offsets = (0..data.results.len()).map(|i| (i * dtype.size()) as i32);
            offsets.map(|offset| this.ops.load(dtype, address, offset)).collect()
        });
        true
    }

    fn store_lanes(&mut self, inst: Inst) {
        let kernel = self.kernel;
        let data = kernel.inst(inst);
        let dtype = kernel.dtype(data.args[0]);
        let ndim = kernel.ty(data.args[0]).array().map_or(1, |ty| usize::from(ty.ndim));
        if let Some(address) = self.run_of(inst) {
            let parts = self.parts(data.args[1 + ndim]);
            for (i, part) in parts.into_iter().enumerate() {
                self.ops.b.ins().store(trusted(), part, address, 16 * i as i32);
            }
            return;
        }
        self.each_lane(inst, |this, address, values| {
            for (i, &value) in values.iter().enumerate() {
                this.ops.store(dtype, value, address, (i * dtype.size()) as i32);
            }
            vec![]
        });
    }

    /// A memory op lane by lane: from the element's address and the scalars behind the indices to the results.
    fn each_lane(&mut self, inst: Inst, f: impl FnOnce(&mut Self, Value, &[Value]) -> Vec<Value>) {
        let kernel = self.kernel;
        let data = kernel.inst(inst);
        let indices = self.indices(inst);
        let sites = self.sites_of(inst, indices.len());
        let values: Vec<(DType, Result<Value, StackSlot>)> = data.args[1 + indices.len()..]
            .iter()
            .map(|&arg| {
                let dtype = kernel.dtype(arg);
                if self.is_uniform(arg) {
                    return (dtype, Ok(self.value(arg)));
                }
                let parts = self.parts(arg);
                (dtype, Err(self.spill(&parts)))
            })
            .collect();
        let outs: Vec<Option<StackSlot>> = data
            .results
            .iter()
            .map(
                |&result| {
                    if self.lanes().used_values[result.index()] { Some(self.borrow_slot()) } else { None }
                },
            )
            .collect();
        let bits = self.mask().map(|mask| mask.bits);
        self.for_lanes(bits, |this, lane| {
            let address = this.lane_element(inst, &indices, &sites, lane);
            let scalars: Vec<Value> = values
                .iter()
                .map(|(dtype, value)| match *value {
                    Ok(scalar) => scalar,
                    Err(slot) => this.lane(*dtype, slot, lane),
                })
                .collect();
            let results = f(this, address, &scalars);
            for (i, result) in results.into_iter().enumerate() {
                if let Some(out) = outs[i] {
                    this.put_lane(kernel.dtype(data.results[i]), out, lane, result);
                }
            }
        });
        for (&result, &out) in data.results.iter().zip(&outs) {
            if let Some(out) = out {
                let parts = self.collect(kernel.dtype(result), out);
                self.set_parts(result, parts);
            }
        }
    }

    fn atomic_lanes(&mut self, inst: Inst, op: Atomic) {
        let dtype = self.kernel.dtype(self.kernel.inst(inst).args[0]);
        self.each_lane(inst, |this, address, values| {
            let update = |(i, &value): (usize, &Value)| {
                let at = this.ops.b.ins().iadd_imm_s(address, (i * dtype.size()) as i64);
                this.ops.atomic(op, dtype, at, value)
            };
            values.iter().enumerate().map(update).collect()
        });
    }

    fn exchange_lanes(&mut self, inst: Inst) {
        let dtype = self.kernel.dtype(self.kernel.inst(inst).args[0]);
        self.each_lane(inst, |this, address, values| {
            vec![this.ops.compare_exchange(dtype, address, values[0], values[1])]
        });
    }

    fn assert_lanes(&mut self, inst: Inst, text: u32) {
        let data = self.kernel.inst(inst);
        self.sites.push(Site::Assert { text: self.kernel.text(text).into(), span: data.span });
        let site = self.sites.len() as u32 - 1;
        let parts = self.parts(data.args[0]);
        let (good, mask) = (self.bits(&parts), self.mask_bits());
        let bad = self.ops.b.ins().band_not(mask, good);
        let fine = self.ops.b.ins().icmp_imm_s(IntCC::Equal, bad, 0);
        let zero = self.ops.int(I32, 0);
        self.unless_fault_of(fine, site, zero, bad);
    }

    fn push_lanes(&mut self, x: ir::Value) {
        for part in self.parts(x) {
            self.push_word(part);
        }
    }

    fn pop_lanes(&mut self, inst: Inst) {
        let result = self.kernel.inst(inst).results[0];
        let dtype = self.kernel.dtype(result);
        let mut parts: Parts = (0..count(dtype)).map(|_| self.pop_word(vector(dtype))).collect();
        parts.reverse();
        self.set_parts(result, parts);
    }

    // Control.

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
    pub(super) fn mixed(&mut self, values: &[ir::Value], like: &[ir::Value]) -> Vec<BlockArg> {
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
    pub(super) fn mixed_parameters(&mut self, block: Block, values: &[ir::Value]) {
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
    fn branch_of_lanes(&mut self, inst: Inst) -> bool {
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

    fn zero_parts(&mut self, value: ir::Value) -> Parts {
        let dtype = self.kernel.dtype(value);
        let zero = self.ops.constant(Const::zero(dtype));
        self.splat(dtype, zero)
    }

    /// Whether a block is done sooner than it is known whether to do it: a few operations of values alone.
    fn is_cheap(&self, block: ir::Block) -> bool {
        let cheap = |op: Op| {
            op.is_pure() && !matches!(op, Op::Unary(op) if super::scalar::function(op, false).is_some())
        };
        let insts = &self.kernel.block(block).insts;
        insts.len() <= 6 && insts.iter().all(|&inst| cheap(self.kernel.inst(inst).op))
    }

    /// A loop that lanes leave at different times.
    fn conditional_of_lanes(&mut self, inst: Inst) -> bool {
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
    fn counted_of_lanes(&mut self, inst: Inst) -> bool {
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
