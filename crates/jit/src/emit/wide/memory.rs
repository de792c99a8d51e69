//! Memory of threads side by side: in vectors where they touch consecutive elements, else lane by lane.

use bullet_lang::ir::{self, Atomic, Inst, Op};
use bullet_ops::DType;
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::types::{I32, I64};
use cranelift_codegen::ir::{InstBuilder, StackSlot, Value};

use super::super::Emitter;
use super::super::lanes::{LANES, Parts, count, vector};
use super::super::scalar::trusted;
use super::super::uniform::Shape;

/// The elements of all lanes.
enum Run {
    /// Side by side, from this address.
    Dense(Value),
    /// At these addresses, each a stride behind the one before.
    Apart(Vec<Value>),
}

impl Emitter<'_> {
    /// Whether an op touches elements of a parameter whose addresses are one stride apart from lane to lane.
    fn run_axis(&self, inst: Inst, shapes: &[Shape]) -> Option<usize> {
        let data = self.kernel.inst(inst);
        if !matches!(data.op, Op::Load | Op::Store) {
            return None;
        }
        let ty = self.kernel.ty(data.args[0]).array()?;
        let shape = |value: &ir::Value| shapes[value.index()];
        let indices = &data.args[1..=usize::from(ty.ndim)];
        let axis = indices.iter().position(|index| shape(index) != Shape::Uniform)?;
        let alone = indices.iter().filter(|index| shape(index) != Shape::Uniform).count() == 1;
        let known = self.array_param(data.args[0]).is_some();
        (alone && ty.dtype.size() >= 4 && known && shape(&indices[axis]) == Shape::Consecutive)
            .then_some(axis)
    }

    /// Whether such elements lie side by side, if the parameter has no gaps.
    fn is_dense_run(&self, inst: Inst, axis: usize) -> bool {
        let ty = self.kernel.ty(self.kernel.inst(inst).args[0]).array();
        ty.is_some_and(|ty| ty.lanes == 1 && axis + 1 == usize::from(ty.ndim))
    }

    /// Whether arrays have no gaps where ops touch elements side by side; none if there are no such.
    pub(in crate::emit) fn is_dense(&mut self, shapes: &[Shape]) -> Option<Value> {
        let mut arrays: Vec<ir::Value> = vec![];
        for inst in self.kernel.instructions() {
            let is_dense = self.run_axis(inst, shapes).is_some_and(|axis| self.is_dense_run(inst, axis));
            if is_dense && !arrays.contains(&self.kernel.inst(inst).args[0]) {
                arrays.push(self.kernel.inst(inst).args[0]);
            }
        }
        let mut dense = None;
        for array in arrays {
            let ndim = self.kernel.ty(array).array().map_or(1, |ty| usize::from(ty.ndim));
            let number = self.array_param(array)?;
            let stride = self.stride(number, ndim - 1);
            let size = self.kernel.dtype(array).size() as i64;
            let one = self.ops.b.ins().icmp_imm_s(IntCC::Equal, stride, size);
            dense = Some(dense.map_or(one, |dense| self.ops.b.ins().band(dense, one)));
        }
        dense
    }

    /// Where the elements of an op are, checked, if they are a run and all lanes are at work.
    fn run_of(&mut self, inst: Inst) -> Option<Run> {
        let wide = self.wide.as_ref()?;
        if wide.mask.is_some() {
            return None;
        }
        let run = self.run_axis(inst, &wide.shapes)?;
        let data = self.kernel.inst(inst);
        let ndim = usize::from(self.kernel.ty(data.args[0]).array()?.ndim);
        let indices: Vec<Value> = data.args[1..=ndim].iter().map(|&index| self.value(index)).collect();
        if self.options.check {
            for (axis, &index) in indices.iter().enumerate() {
                let site = self.index_site(inst, axis);
                let length = self.dim(data.args[0], axis);
                if axis == run {
                    self.check_run(site, index, length);
                } else {
                    let good = self.ops.b.ins().icmp(IntCC::UnsignedLessThan, index, length);
                    self.unless_fault(good, site, index);
                }
            }
        }
        let first = self.address(data.args[0], &indices);
        if self.is_dense_run(inst, run) {
            return Some(Run::Dense(first));
        }
        let number = self.array_param(data.args[0])?;
        let stride = self.stride(number, run);
        let mut all = vec![first];
        for lane in 1..LANES {
            let next = self.ops.b.ins().iadd(all[lane - 1], stride);
            all.push(next);
        }
        Some(Run::Apart(all))
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

    pub(super) fn load_lanes(&mut self, inst: Inst) -> bool {
        let kernel = self.kernel;
        let data = kernel.inst(inst);
        if data.results.iter().all(|&result| self.is_uniform(result)) {
            return false;
        }
        let dtype = kernel.dtype(data.args[0]);
        if let Some(run) = self.run_of(inst) {
            for (i, &result) in data.results.iter().enumerate() {
                let parts = self.load_run(&run, dtype, (i * dtype.size()) as i32);
                self.set_parts(result, parts);
            }
            return true;
        }
        self.each_lane(inst, |this, address, _| {
            let offsets = (0..data.results.len()).map(|i| (i * dtype.size()) as i32);
            offsets.map(|offset| this.ops.load(dtype, address, offset)).collect()
        });
        true
    }

    pub(super) fn store_lanes(&mut self, inst: Inst) {
        let kernel = self.kernel;
        let data = kernel.inst(inst);
        let dtype = kernel.dtype(data.args[0]);
        let ndim = kernel.ty(data.args[0]).array().map_or(1, |ty| usize::from(ty.ndim));
        if let Some(run) = self.run_of(inst) {
            for (i, &value) in data.args[1 + ndim..].iter().enumerate() {
                let parts = self.parts(value);
                self.store_run(&run, &parts, (i * dtype.size()) as i32);
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

    /// One scalar of each element of a run.
    fn load_run(&mut self, run: &Run, dtype: DType, offset: i32) -> Parts {
        let ty = vector(dtype);
        let lanes = ty.lane_count() as usize;
        let one = |this: &mut Self, part: usize| match run {
            Run::Dense(first) => this.ops.b.ins().load(ty, trusted(), *first, offset + 16 * part as i32),
            Run::Apart(all) => {
                let all = &all[lanes * part..lanes * (part + 1)];
                let scalars: Vec<Value> = all
                    .iter()
                    .map(|&address| this.ops.b.ins().load(ty.lane_type(), trusted(), address, offset))
                    .collect();
                this.gathered(ty, &scalars)
            }
        };
        (0..count(dtype)).map(|part| one(self, part)).collect()
    }

    /// Puts one scalar in each element of a run.
    fn store_run(&mut self, run: &Run, parts: &[Value], offset: i32) {
        for (i, &part) in parts.iter().enumerate() {
            match run {
                Run::Dense(first) => {
                    self.ops.b.ins().store(trusted(), part, *first, offset + 16 * i as i32);
                }
                Run::Apart(all) => {
                    let lanes = LANES / parts.len();
                    for lane in 0..lanes {
                        let scalar = self.ops.b.ins().extractlane(part, lane as u8);
                        self.ops.b.ins().store(trusted(), scalar, all[lanes * i + lane], offset);
                    }
                }
            }
        }
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

    pub(super) fn atomic_lanes(&mut self, inst: Inst, op: Atomic) {
        let recorded = self.recorded.get(inst.index()).is_some_and(|&recorded| recorded);
        if !recorded && self.is_sum(inst, op) {
            return self.sum_lanes(inst);
        }
        let dtype = self.kernel.dtype(self.kernel.inst(inst).args[0]);
        self.each_lane(inst, |this, address, values| {
            let update = |(i, &value): (usize, &Value)| {
                let at = this.ops.b.ins().iadd_imm_s(address, (i * dtype.size()) as i64);
                if recorded {
                    this.record(op, dtype, at, value)
                } else {
                    this.ops.atomic(op, dtype, at, value)
                }
            };
            values.iter().enumerate().map(update).collect()
        });
    }

    /// Whether an atomic adds to one element, and nobody asks what was there.
    fn is_sum(&mut self, inst: Inst, op: Atomic) -> bool {
        let kernel = self.kernel;
        let data = kernel.inst(inst);
        let ndim = kernel.ty(data.args[0]).array().map_or(1, |ty| usize::from(ty.ndim));
        let used = data.results.iter().any(|result| self.lanes().used_values[result.index()]);
        op == Atomic::Add && !used && data.args[1..=ndim].iter().all(|&index| self.is_uniform(index))
    }

    /// Adds what lanes add to one element up first.
    fn sum_lanes(&mut self, inst: Inst) {
        let kernel = self.kernel;
        let data = kernel.inst(inst);
        let dtype = kernel.dtype(data.args[0]);
        let (address, first) = self.element(inst);
        for (i, &value) in data.args[first..].iter().enumerate() {
            let mut parts = self.parts(value);
            if let Some(mask) = self.mask() {
                let zero = self.zero_parts(value);
                parts = self.blend(dtype, &mask.parts, &parts, &zero);
            }
            let lanes = LANES / parts.len();
            let mut scalars = vec![];
            for &part in &parts {
                scalars.extend((0..lanes).map(|lane| self.ops.b.ins().extractlane(part, lane as u8)));
            }
            let sum = scalars
                .iter()
                .skip(1)
                .fold(scalars[0], |a, &b| self.ops.binary(ir::Binary::Add, dtype, a, b));
            let at = self.ops.b.ins().iadd_imm_s(address, (i * dtype.size()) as i64);
            if !self.add_later(inst, i, at, sum) {
                self.ops.atomic(Atomic::Add, dtype, at, sum);
            }
        }
    }

    pub(super) fn exchange_lanes(&mut self, inst: Inst) {
        let dtype = self.kernel.dtype(self.kernel.inst(inst).args[0]);
        self.each_lane(inst, |this, address, values| {
            vec![this.ops.compare_exchange(dtype, address, values[0], values[1])]
        });
    }

    pub(super) fn assert_lanes(&mut self, inst: Inst) {
        let data = self.kernel.inst(inst);
        let site = self.site(inst);
        let parts = self.parts(data.args[0]);
        let (good, mask) = (self.bits(&parts), self.mask_bits());
        let bad = self.ops.b.ins().band_not(mask, good);
        let fine = self.ops.b.ins().icmp_imm_s(IntCC::Equal, bad, 0);
        let zero = self.ops.int(I32, 0);
        self.unless_fault_of(fine, site, zero, bad);
    }

    /// Goes on only if the indices of all lanes at work are within their bounds.
    pub(super) fn within_lanes(&mut self, inst: Inst) {
        if !self.options.check {
            return;
        }
        let [index, low, high] = [0, 1, 2].map(|at| self.kernel.inst(inst).args[at]);
        let [index, low, high] = [index, low, high].map(|value| self.parts(value));
        let below = self.wide_compare(ir::Compare::Lt, DType::I32, &index, &low);
        let above = self.wide_compare(ir::Compare::Ge, DType::I32, &index, &high);
        let outside = self.wide_binary(ir::Binary::Or, DType::Bool, &below, &above);
        let (outside, mask) = (self.bits(&outside), self.mask_bits());
        let bad = self.ops.b.ins().band(mask, outside);
        let fine = self.ops.b.ins().icmp_imm_s(IntCC::Equal, bad, 0);
        let site = self.site(inst);
        let (next, cold) = (self.ops.b.create_block(), self.ops.b.create_block());
        self.ops.b.set_cold_block(cold);
        self.ops.b.ins().brif(fine, next, &[], cold, &[]);
        self.ops.b.switch_to_block(cold);
        let slot = self.spill(&index);
        let first = self.ops.b.ins().ctz(bad);
        let first = self.ops.b.ins().uextend(I64, first);
        let value = self.lane(DType::I32, slot, first);
        let args = self.fault_args(site, value, bad);
        self.ops.b.ins().jump(self.fault, &args);
        self.ops.b.switch_to_block(next);
    }

    pub(super) fn push_lanes(&mut self, x: ir::Value) {
        for part in self.parts(x) {
            self.push_word(part);
        }
    }

    pub(super) fn pop_lanes(&mut self, inst: Inst) {
        let result = self.kernel.inst(inst).results[0];
        let dtype = self.kernel.dtype(result);
        let mut parts: Parts = (0..count(dtype)).map(|_| self.pop_word(vector(dtype))).collect();
        parts.reverse();
        self.set_parts(result, parts);
    }
}
