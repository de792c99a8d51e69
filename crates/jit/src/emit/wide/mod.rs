//! Threads side by side: [`LANES`] of a row of the grid run together, under a mask.
//!
//! What is [uniform](super::uniform) is done once, as for one thread. A branch that lanes disagree on runs both of its blocks, each
//! under its part of the mask and only if that is not empty; a loop runs until no lane wants another round, and lanes that are done
//! keep what they carry. Memory is read and written in vectors where all lanes are at work on consecutive elements (without gaps, which
//! is known when a round starts), else lane by lane. So each thread does what it would do alone; the order between threads is nobody's
//! business.

use bullet_lang::ir::{self, Inst, Kernel, Op};
use cranelift_codegen::ir::types::{I32, I32X4};
use cranelift_codegen::ir::{InstBuilder, StackSlot, Value};

use super::Emitter;
use super::lanes::{ALL, LANES, Parts};
use super::uniform::Shape;

mod control;
mod memory;

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
            // Only a kernel that `verify` refuses lacks them.
            Shape::Varying => self.lanes().parts[value.index()].clone().unwrap_or_default(),
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
            Op::Assert(_) if !self.is_uniform(data.args[0]) => self.assert_lanes(inst),
            Op::Within(_) if data.args.iter().any(|&arg| !self.is_uniform(arg)) => self.within_lanes(inst),
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
}
