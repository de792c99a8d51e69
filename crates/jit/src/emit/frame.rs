//! Where arrays are, and the way to an element: checks and addresses.

use bullet_lang::fault::Site;
use bullet_lang::ir::{self, Atomic, Def, Inst, Type as IrType};
use bullet_ops::DType;
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::types::{I32, I64};
use cranelift_codegen::ir::{InstBuilder, StackSlot, StackSlotData, StackSlotKind, Type, Value};

use super::Emitter;
use super::scalar::{register, trusted};
use crate::abi::{Arg, Context};
use crate::in_order;

/// Local arrays beyond this many bytes of a kernel lie beside the stack.
const MOST_STACK: usize = 16 << 10;

/// An array that the kernel allocates.
#[derive(Clone, Copy, Debug)]
pub(super) enum Local {
    Stack(StackSlot),
    /// So far into the scratch memory.
    Scratch(usize),
}

/// Where the arrays of a kernel are.
#[derive(Default)]
pub(super) struct Frame {
    /// The address of the arguments.
    args: Option<Value>,
    stack: usize,
    /// Bytes of scratch memory.
    pub(super) scratch: usize,
    locals: Vec<(ir::Value, Local, u32)>,
}

impl Emitter<'_> {
    /// Reads the scalars among the arguments. Of arrays each part is read where it is needed: most would not find a register in which
    /// to wait, and looking for one is what takes a compiler's time.
    pub(super) fn bind(&mut self, args: Value) {
        self.frame.args = Some(args);
        for (number, &param) in self.kernel.params.iter().enumerate() {
            if let IrType::Scalar(dtype) = self.kernel.ty(param) {
                let bits = self.of_arg(super::scalar::memory(dtype), number, Arg::BITS);
                self.values[param.index()] = Some(self.ops.loaded(dtype, bits));
            }
        }
    }

    /// A part of an argument.
    fn of_arg(&mut self, ty: Type, number: usize, offset: i32) -> Value {
        let args = self.frame.args.unwrap_or(self.context);
        let at = (number * size_of::<Arg>()) as i32 + offset;
        self.ops.b.ins().load(ty, trusted().with_readonly(), args, at)
    }

    /// The number of the parameter that an array is.
    pub(super) fn array_param(&self, array: ir::Value) -> Option<usize> {
        match self.kernel.value(array).def {
            Def::Param(number) => Some(number as usize),
            _ => None,
        }
    }

    /// Bytes from an element of a parameter to the next.
    pub(super) fn stride(&mut self, number: usize, axis: usize) -> Value {
        self.of_arg(I64, number, Arg::STRIDES + 8 * axis as i32)
    }

    /// The length of a dimension.
    pub(super) fn dim(&mut self, array: ir::Value, axis: usize) -> Value {
        if let Some(number) = self.array_param(array) {
            return self.of_arg(I32, number, Arg::SHAPE + 4 * axis as i32);
        }
        let count = self.local(array).map_or(0, |(_, count)| count);
        self.ops.int(I32, count.into())
    }

    fn local(&self, array: ir::Value) -> Option<(Local, u32)> {
        let found = self.frame.locals.iter().find(|(known, ..)| *known == array);
        found.map(|&(_, local, count)| (local, count))
    }

    /// Memory for a local array.
    pub(super) fn alloc(&mut self, inst: Inst, count: u32) {
        let array = self.kernel.inst(inst).results[0];
        let lanes = self.kernel.ty(array).array().map_or(1, |ty| usize::from(ty.lanes));
        let bytes = count as usize * lanes * self.kernel.dtype(array).size();
        let local = if self.frame.stack + bytes <= MOST_STACK {
            self.frame.stack += bytes;
            Local::Stack(self.slot(bytes))
        } else {
            let at = self.frame.scratch;
            self.frame.scratch += bytes.next_multiple_of(64);
            Local::Scratch(at)
        };
        self.frame.locals.push((array, local, count));
    }

    /// A place on the stack.
    pub(super) fn slot(&mut self, bytes: usize) -> StackSlot {
        self.ops.b.create_sized_stack_slot(StackSlotData::new(StackSlotKind::ExplicitSlot, bytes as u32, 4))
    }

    /// The address of the element that a memory op names, checked, and the number of its first operand behind the indices.
    pub(super) fn element(&mut self, inst: Inst) -> (Value, usize) {
        let args = self.kernel.inst(inst).args.clone();
        let ndim = self.kernel.ty(args[0]).array().map_or(1, |ty| usize::from(ty.ndim));
        let indices: Vec<Value> = args[1..=ndim].iter().map(|&index| self.value(index)).collect();
        for (axis, &index) in indices.iter().enumerate() {
            self.check(inst, axis, index);
        }
        (self.address(args[0], &indices), 1 + ndim)
    }

    /// Goes on only if an index is in range.
    fn check(&mut self, inst: Inst, axis: usize, index: Value) {
        if !self.options.check {
            return;
        }
        let site = self.index_site(inst, axis);
        let length = self.dim(self.kernel.inst(inst).args[0], axis);
        let good = self.ops.b.ins().icmp(IntCC::UnsignedLessThan, index, length);
        self.unless_fault(good, site, index);
    }

    /// Goes on only if an index is within its bounds.
    pub(super) fn within(&mut self, inst: Inst) {
        if !self.options.check {
            return;
        }
        let [index, low, high] = [0, 1, 2].map(|at| self.kernel.inst(inst).args[at]);
        let [index, low, high] = [index, low, high].map(|value| self.value(value));
        let (place, count) = (self.ops.b.ins().isub(index, low), self.ops.b.ins().isub(high, low));
        let good = self.ops.b.ins().icmp(IntCC::UnsignedLessThan, place, count);
        let site = self.site(inst);
        self.unless_fault(good, site, index);
    }

    /// The site of an assertion, or of an index that is checked by itself.
    pub(super) fn site(&mut self, inst: Inst) -> u32 {
        self.sites.extend(Site::of(self.kernel, inst));
        self.sites.len() as u32 - 1
    }

    /// The site of an index of a memory op.
    pub(super) fn index_site(&mut self, inst: Inst, axis: usize) -> u32 {
        self.sites.push(Site::of_index(self.kernel, inst, axis));
        self.sites.len() as u32 - 1
    }

    /// The address of an element; indices are in range.
    pub(super) fn address(&mut self, array: ir::Value, indices: &[Value]) -> Value {
        if let Some(number) = self.array_param(array) {
            let mut at = self.of_arg(I64, number, Arg::BITS);
            for (axis, &index) in indices.iter().enumerate() {
                let stride = self.stride(number, axis);
                let index = self.ops.b.ins().sextend(I64, index);
                let offset = self.ops.b.ins().imul(index, stride);
                at = self.ops.b.ins().iadd(at, offset);
            }
            return at;
        }
        let lanes = self.kernel.ty(array).array().map_or(1, |ty| i64::from(ty.lanes));
        let bytes = lanes * self.kernel.dtype(array).size() as i64;
        let start = match self.local(array) {
            Some((Local::Stack(slot), _)) => self.ops.b.ins().stack_addr(I64, slot, 0),
            Some((Local::Scratch(at), _)) => {
                let scratch = self.of_context(I64, Context::SCRATCH);
                self.ops.b.ins().iadd_imm_s(scratch, at as i64)
            }
            None => self.context,
        };
        let index = self.ops.b.ins().sextend(I64, indices[0]);
        let offset = self.ops.b.ins().imul_imm_s(index, bytes);
        self.ops.b.ins().iadd(start, offset)
    }

    /// The start of a thread's tape.
    pub(super) fn start_tape(&mut self) {
        if self.tape != super::TapeUse::None {
            let tape = self.ops.b.ins().load(I64, trusted(), self.context, Context::TAPE);
            self.ops.b.def_var(self.top, tape);
        }
    }

    /// Puts a value on the tape: in 8 bytes if it has as many, else in 4.
    pub(super) fn push(&mut self, x: ir::Value) {
        let dtype = self.kernel.dtype(x);
        let x = self.value(x);
        let narrow = register(dtype).bits() < 32;
        let word = if narrow { self.ops.b.ins().uextend(I32, x) } else { x };
        self.push_word(word);
    }

    /// Puts as many bytes on the tape as this has.
    pub(super) fn push_word(&mut self, word: Value) {
        let bytes = i64::from(self.ops.b.func.dfg.value_type(word).bytes());
        let mut top = self.ops.b.use_var(self.top);
        if self.tape == super::TapeUse::Grows {
            top = self.room(top, bytes);
        }
        self.ops.b.ins().store(trusted(), word, top, 0);
        let top = self.ops.b.ins().iadd_imm_s(top, bytes);
        self.ops.b.def_var(self.top, top);
    }

    /// The end of a tape that has room for so many bytes.
    fn room(&mut self, top: Value, bytes: i64) -> Value {
        let (grow, next) = (self.ops.b.create_block(), self.ops.b.create_block());
        self.ops.b.set_cold_block(grow);
        let place = self.ops.b.append_block_param(next, I64);
        let end = self.ops.b.ins().load(I64, trusted(), self.context, Context::TAPE_END);
        let left = self.ops.b.ins().isub(end, top);
        let enough = self.ops.b.ins().icmp_imm_s(IntCC::SignedGreaterThanOrEqual, left, bytes);
        self.ops.b.ins().brif(enough, next, &[top.into()], grow, &[]);
        self.ops.b.switch_to_block(grow);
        let grown = self.ops.number(crate::abi::Function::Grow, &[self.context, top], I64);
        let (value, bits) = (self.ops.int(I32, 0), self.mask_bits());
        let args = self.fault_args(crate::host::TAPE_SITE, value, bits);
        self.ops.b.ins().brif(grown, next, &[grown.into()], self.fault, &args);
        self.ops.b.switch_to_block(next);
        place
    }

    /// Puts down a record of an update that is made later; of an old value that nobody uses, some number.
    pub(super) fn record(&mut self, op: Atomic, dtype: DType, address: Value, x: Value) -> Value {
        let (full, next) = (self.ops.b.create_block(), self.ops.b.create_block());
        self.ops.b.set_cold_block(full);
        let place = self.ops.b.append_block_param(next, I64);
        let top = self.ops.b.ins().load(I64, trusted(), self.context, Context::RECORDS);
        let end = self.ops.b.ins().load(I64, trusted(), self.context, Context::RECORDS_END);
        let is_full = self.ops.b.ins().icmp(IntCC::Equal, top, end);
        self.ops.b.ins().brif(is_full, full, &[], next, &[top.into()]);
        self.ops.b.switch_to_block(full);
        let grown = self.ops.number(crate::abi::Function::Records, &[self.context], I64);
        let (value, bits) = (self.ops.int(I32, 0), self.mask_bits());
        let args = self.fault_args(crate::host::RECORDS_SITE, value, bits);
        self.ops.b.ins().brif(grown, next, &[grown.into()], self.fault, &args);
        self.ops.b.switch_to_block(next);
        let kind = self.ops.int(I64, in_order::kind(op, dtype) as i64);
        let word = self.ops.b.ins().bor(address, kind);
        self.ops.b.ins().store(trusted(), word, place, 0);
        self.ops.b.ins().store(trusted(), x, place, 8);
        let top = self.ops.b.ins().iadd_imm_s(place, 16);
        self.ops.b.ins().store(trusted(), top, self.context, Context::RECORDS);
        x
    }

    /// Takes a value from the tape.
    pub(super) fn pop(&mut self, inst: Inst) {
        let dtype = self.kernel.dtype(self.kernel.inst(inst).results[0]);
        let ty = register(dtype);
        let word = if ty.bits() < 32 { I32 } else { ty };
        let x = self.pop_word(word);
        let x = if word == ty { x } else { self.ops.b.ins().ireduce(ty, x) };
        self.set(inst, x);
    }

    /// Takes as many bytes from the tape as a type has.
    pub(super) fn pop_word(&mut self, ty: Type) -> Value {
        let top = self.ops.b.use_var(self.top);
        let top = self.ops.b.ins().iadd_imm_s(top, -i64::from(ty.bytes()));
        self.ops.b.def_var(self.top, top);
        self.ops.b.ins().load(ty, trusted(), top, 0)
    }
}
