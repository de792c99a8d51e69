//! One operation on scalars: what [`bullet_lang::ir::Op`] says, in Cranelift's instructions.
//!
//! A bool is an I8 of 0 or 1; integers have their own width; f16 and bf16 are held as F32 and rounded behind each operation, as
//! f32 has more than twice their digits.

use bullet_lang::ir::{Atomic, Binary, Compare, Const, Unary};
use bullet_ops::DType;
use cranelift_codegen::ir::condcodes::{FloatCC, IntCC};
use cranelift_codegen::ir::types::{F32, F64, I8, I16, I32, I64};
use cranelift_codegen::ir::{
    AbiParam, AtomicRmwOp, BlockArg, InstBuilder, MemFlagsData, SigRef, Signature, Type, Value,
};
use cranelift_codegen::isa::CallConv;
use cranelift_frontend::FunctionBuilder;

use crate::abi::{Function, Slot};

/// The type of a scalar in registers.
pub(super) fn register(dtype: DType) -> Type {
    match dtype {
        DType::Bool | DType::U8 | DType::I8 => I8,
        DType::U16 | DType::I16 => I16,
        DType::U32 | DType::I32 => I32,
        DType::U64 | DType::I64 => I64,
        DType::F16 | DType::BF16 | DType::F32 => F32,
        DType::F64 => F64,
    }
}

/// Memory that kernels may touch: no trap is caught, so none is promised.
pub(super) fn trusted() -> MemFlagsData {
    MemFlagsData::new().with_notrap()
}

/// The builder of a function with what every operation may need.
pub(super) struct Ops<'a> {
    pub(super) b: FunctionBuilder<'a>,
    /// The address of the [`Table`](crate::abi::Table).
    pub(super) table: Value,
    pub(super) call_conv: CallConv,
    signatures: Vec<(Signature, SigRef)>,
}

impl<'a> Ops<'a> {
    pub(super) fn new(b: FunctionBuilder<'a>, call_conv: CallConv) -> Ops<'a> {
        Ops { b, table: Value::from_u32(0), call_conv, signatures: vec![] }
    }

    /// Calls a function of the table.
    pub(super) fn call(
        &mut self,
        function: impl Into<Slot>,
        args: &[Value],
        result: Option<Type>,
    ) -> Option<Value> {
        let mut signature = Signature::new(self.call_conv);
        for &arg in args {
            signature.params.push(AbiParam::new(self.b.func.dfg.value_type(arg)));
        }
        signature.returns.extend(result.map(AbiParam::new));
        let known = self.signatures.iter().find(|(known, _)| *known == signature).map(|&(_, known)| known);
        let reference = known.unwrap_or_else(|| {
            let reference = self.b.import_signature(signature.clone());
            self.signatures.push((signature, reference));
            reference
        });
        let flags = trusted().with_readonly().with_aligned();
        let address = self.b.ins().load(I64, flags, self.table, 8 * function.into().0 as i32);
        let call = self.b.ins().call_indirect(reference, address, args);
        self.b.inst_results(call).first().copied()
    }

    /// Calls a function that gives a number.
    pub(super) fn number(&mut self, function: Function, args: &[Value], result: Type) -> Value {
        self.call(function, args, Some(result)).unwrap_or(self.table)
    }

    pub(super) fn constant(&mut self, constant: Const) -> Value {
        let ty = register(constant.dtype());
        match constant.as_float() {
            Some(x) if ty == F64 => self.b.ins().f64const(x),
            Some(x) => self.b.ins().f32const(x as f32),
            None => self.int(ty, constant.as_int().unwrap_or(0)),
        }
    }

    /// An integer, cut to its width.
    pub(super) fn int(&mut self, ty: Type, value: i64) -> Value {
        let mask = if ty == I64 { !0 } else { (1u64 << ty.bits()) - 1 };
        self.b.ins().iconst(ty, (value as u64 & mask) as i64)
    }

    fn float(&mut self, ty: Type, value: f64) -> Value {
        if ty == F64 { self.b.ins().f64const(value) } else { self.b.ins().f32const(value as f32) }
    }

    /// Of a dtype.
    fn literal(&mut self, dtype: DType, value: i64) -> Value {
        let ty = register(dtype);
        if dtype.is_float() { self.float(ty, value as f64) } else { self.int(ty, value) }
    }

    /// Rounds an F32 to the type that it stands for.
    pub(super) fn rounded(&mut self, dtype: DType, x: Value) -> Value {
        match dtype {
            DType::F16 => self.number(Function::RoundF16, &[x], F32),
            DType::BF16 => self.number(Function::RoundBF16, &[x], F32),
            _ => x,
        }
    }

    pub(super) fn unary(&mut self, op: Unary, dtype: DType, x: Value) -> Value {
        if !dtype.is_float() {
            return self.unary_int(op, dtype, x);
        }
        let ty = register(dtype);
        let y = match op {
            Unary::IsNan => return self.b.ins().fcmp(FloatCC::Unordered, x, x),
            Unary::IsInf | Unary::IsFinite => {
                let size = self.b.ins().fabs(x);
                let infinity = self.float(ty, f64::INFINITY);
                let code = if op == Unary::IsInf { FloatCC::Equal } else { FloatCC::LessThan };
                return self.b.ins().fcmp(code, size, infinity);
            }
            Unary::Neg => return self.b.ins().fneg(x),
            Unary::Abs => return self.b.ins().fabs(x),
            Unary::Sign => return self.choose(FloatCC::LessThan, dtype, x, -1, 1),
            Unary::Step => return self.choose(FloatCC::LessThan, dtype, x, 1, 0),
            Unary::Nonzero => return self.choose(FloatCC::Equal, dtype, x, 0, 1),
            Unary::Sqrt => self.b.ins().sqrt(x),
            Unary::Floor => self.b.ins().floor(x),
            Unary::Ceil => self.b.ins().ceil(x),
            Unary::Rint => self.b.ins().nearest(x),
            Unary::Trunc => self.b.ins().trunc(x),
            Unary::Round => {
                // The largest number below a half, which carries no other fraction up to the next whole number.
                let half = if ty == F64 { 0.5f64.next_down() } else { 0.5f32.next_down().into() };
                let half = self.float(ty, half);
                let half = self.b.ins().fcopysign(half, x);
                let moved = self.b.ins().fadd(x, half);
                self.b.ins().trunc(moved)
            }
            _ => match function(op, ty == F64) {
                Some(function) => self.number(function, &[x], ty),
                None => x,
            },
        };
        self.rounded(dtype, y)
    }

    /// One of two numbers by a comparison of x with 0.
    fn choose(&mut self, code: FloatCC, dtype: DType, x: Value, yes: i64, no: i64) -> Value {
        let (zero, yes, no) = (self.literal(dtype, 0), self.literal(dtype, yes), self.literal(dtype, no));
        let test = self.b.ins().fcmp(code, x, zero);
        self.b.ins().select(test, yes, no)
    }

    fn unary_int(&mut self, op: Unary, dtype: DType, x: Value) -> Value {
        let unsigned = dtype.is_unsigned() || dtype == DType::Bool;
        let zero = self.literal(dtype, 0);
        match op {
            Unary::Neg => self.b.ins().ineg(x),
            Unary::Not => self.b.ins().icmp(IntCC::Equal, x, zero),
            Unary::Invert => self.b.ins().bnot(x),
            Unary::Abs if unsigned => x,
            Unary::Sign if unsigned => self.literal(dtype, 1),
            Unary::Step if unsigned => zero,
            Unary::Nonzero => {
                let test = self.b.ins().icmp(IntCC::NotEqual, x, zero);
                self.widen_bool(test, register(dtype))
            }
            _ => {
                let test = self.b.ins().icmp(IntCC::SignedLessThan, x, zero);
                let (yes, no) = match op {
                    Unary::Abs => (self.b.ins().ineg(x), x),
                    Unary::Sign => (self.literal(dtype, -1), self.literal(dtype, 1)),
                    _ => (self.literal(dtype, 1), zero),
                };
                self.b.ins().select(test, yes, no)
            }
        }
    }

    fn widen_bool(&mut self, x: Value, ty: Type) -> Value {
        if ty == I8 { x } else { self.b.ins().uextend(ty, x) }
    }

    pub(super) fn binary(&mut self, op: Binary, dtype: DType, x: Value, y: Value) -> Value {
        if !dtype.is_float() {
            return self.binary_int(op, dtype, x, y);
        }
        let wide = dtype == DType::F64;
        let ty = register(dtype);
        let pick = |narrow, of_wide| if wide { of_wide } else { narrow };
        let z = match op {
            Binary::Add => self.b.ins().fadd(x, y),
            Binary::Sub => self.b.ins().fsub(x, y),
            Binary::Mul => self.b.ins().fmul(x, y),
            Binary::Div => self.b.ins().fdiv(x, y),
            Binary::MulMasked => {
                let zero = self.literal(dtype, 0);
                let masked = self.b.ins().fcmp(FloatCC::Equal, x, zero);
                let product = self.b.ins().fmul(x, y);
                self.b.ins().select(masked, zero, product)
            }
            Binary::Min => return self.extreme(FloatCC::LessThan, x, y),
            Binary::Max => return self.extreme(FloatCC::GreaterThan, x, y),
            Binary::Copysign => return self.b.ins().fcopysign(x, y),
            Binary::Mod => self.number(pick(Function::Mod32, Function::Mod64), &[x, y], ty),
            Binary::Pow => self.number(pick(Function::Pow32, Function::Pow64), &[x, y], ty),
            Binary::Atan2 => self.number(pick(Function::Atan2_32, Function::Atan2_64), &[x, y], ty),
            // Floats have no others: `verify`.
            _ => x,
        };
        self.rounded(dtype, z)
    }

    /// x if it compares so to y or y is no number, else y.
    fn extreme(&mut self, code: FloatCC, x: Value, y: Value) -> Value {
        let first = self.b.ins().fcmp(code, x, y);
        let alone = self.b.ins().fcmp(FloatCC::Unordered, y, y);
        let either = self.b.ins().bor(first, alone);
        self.b.ins().select(either, x, y)
    }

    fn binary_int(&mut self, op: Binary, dtype: DType, x: Value, y: Value) -> Value {
        let unsigned = dtype.is_unsigned();
        let ordered = |signed, of_unsigned| if unsigned { of_unsigned } else { signed };
        match op {
            Binary::Add => self.b.ins().iadd(x, y),
            Binary::Sub => self.b.ins().isub(x, y),
            Binary::Mul => self.b.ins().imul(x, y),
            Binary::And => self.b.ins().band(x, y),
            Binary::Or => self.b.ins().bor(x, y),
            Binary::Xor => self.b.ins().bxor(x, y),
            Binary::Shl => self.b.ins().ishl(x, y),
            Binary::Shr if unsigned => self.b.ins().ushr(x, y),
            Binary::Shr => self.b.ins().sshr(x, y),
            Binary::Min | Binary::Max => {
                let code = match op {
                    Binary::Min => ordered(IntCC::SignedLessThan, IntCC::UnsignedLessThan),
                    _ => ordered(IntCC::SignedGreaterThan, IntCC::UnsignedGreaterThan),
                };
                let first = self.b.ins().icmp(code, x, y);
                self.b.ins().select(first, x, y)
            }
            Binary::Div | Binary::Mod => self.divide(op == Binary::Mod, dtype, x, y),
            // Integers have no others: `verify`.
            _ => x,
        }
    }

    /// What the IR leaves open, a division by 0, gives all ones, as on a GPU; the least integer by -1 wraps. Neither may trap.
    fn divide(&mut self, rest: bool, dtype: DType, x: Value, y: Value) -> Value {
        let ty = register(dtype);
        if ty == I8 || ty == I16 {
            // Wide enough to hold the one quotient that wraps.
            let wide = if dtype.is_unsigned() { DType::U32 } else { DType::I32 };
            let (x, y) = (self.cast(dtype, wide, x), self.cast(dtype, wide, y));
            let z = self.divide(rest, wide, x, y);
            return self.b.ins().ireduce(ty, z);
        }
        let unsigned = dtype.is_unsigned();
        if let Some(known) = self.known(y)
            && known != 0
            && (unsigned || known != -1)
        {
            return self.quotient(rest, unsigned, x, y);
        }
        let (zero, one, ones) = (self.int(ty, 0), self.int(ty, 1), self.int(ty, -1));
        let by_zero = self.b.ins().icmp(IntCC::Equal, y, zero);
        let safe = self.b.ins().select(by_zero, one, y);
        if unsigned {
            let z = self.quotient(rest, true, x, safe);
            return self.b.ins().select(by_zero, ones, z);
        }
        let by_minus = self.b.ins().icmp(IntCC::Equal, y, ones);
        let safe = self.b.ins().select(by_minus, one, safe);
        let z = self.quotient(rest, false, x, safe);
        let negative = if rest { zero } else { self.b.ins().ineg(x) };
        let z = self.b.ins().select(by_minus, negative, z);
        self.b.ins().select(by_zero, ones, z)
    }

    fn quotient(&mut self, rest: bool, unsigned: bool, x: Value, y: Value) -> Value {
        match (rest, unsigned) {
            (false, false) => self.b.ins().sdiv(x, y),
            (false, true) => self.b.ins().udiv(x, y),
            (true, false) => self.b.ins().srem(x, y),
            (true, true) => self.b.ins().urem(x, y),
        }
    }

    /// The integer that a value is known to be.
    fn known(&self, value: Value) -> Option<i64> {
        use cranelift_codegen::ir::{InstructionData, Opcode, ValueDef};
        let ValueDef::Result(inst, _) = self.b.func.dfg.value_def(value) else { return None };
        match self.b.func.dfg.insts[inst] {
            InstructionData::UnaryImm { opcode: Opcode::Iconst, imm } => {
                let bits = 64 - self.b.func.dfg.value_type(value).bits();
                Some((imm.bits() << bits) >> bits)
            }
            _ => None,
        }
    }

    pub(super) fn compare(&mut self, op: Compare, dtype: DType, x: Value, y: Value) -> Value {
        if dtype.is_float() {
            self.b.ins().fcmp(float_code(op), x, y)
        } else {
            self.b.ins().icmp(int_code(op, dtype), x, y)
        }
    }

    pub(super) fn cast(&mut self, from: DType, to: DType, x: Value) -> Value {
        match (from.is_float(), to.is_float()) {
            _ if from == to => x,
            (true, true) => self.float_to_float(from, to, x),
            (true, false) => self.float_to_int(from, to, x),
            (false, true) => self.int_to_float(from, to, x),
            (false, false) => self.int_to_int(from, to, x),
        }
    }

    fn float_to_float(&mut self, from: DType, to: DType, x: Value) -> Value {
        match (from, to) {
            (DType::F64, DType::F16) => self.number(Function::RoundF16Wide, &[x], F32),
            (DType::F64, DType::BF16) => self.number(Function::RoundBF16Wide, &[x], F32),
            (DType::F64, _) => self.b.ins().fdemote(F32, x),
            (_, DType::F64) => self.b.ins().fpromote(F64, x),
            _ => self.rounded(to, x),
        }
    }

    fn float_to_int(&mut self, from: DType, to: DType, x: Value) -> Value {
        let ty = register(to);
        if to == DType::Bool {
            let zero = self.literal(from, 0);
            return self.b.ins().fcmp(FloatCC::NotEqual, x, zero);
        }
        if ty == I32 || ty == I64 {
            return match to.is_unsigned() {
                true => self.b.ins().fcvt_to_uint_sat(ty, x),
                false => self.b.ins().fcvt_to_sint_sat(ty, x),
            };
        }
        let (low, high) = match to {
            DType::U8 => (0, 255),
            DType::U16 => (0, 65535),
            DType::I8 => (-128, 127),
            _ => (-32768, 32767),
        };
        let whole = self.b.ins().fcvt_to_sint_sat(I32, x);
        let (low, high) = (self.int(I32, low), self.int(I32, high));
        let whole = self.binary_int(Binary::Max, DType::I32, whole, low);
        let whole = self.binary_int(Binary::Min, DType::I32, whole, high);
        self.b.ins().ireduce(ty, whole)
    }

    fn int_to_float(&mut self, from: DType, to: DType, x: Value) -> Value {
        let (x, ty) = match from {
            DType::I32 | DType::I64 | DType::U64 => (x, to),
            DType::I8 | DType::I16 => (self.b.ins().sextend(I32, x), to),
            DType::U32 => (self.b.ins().uextend(I64, x), to),
            _ => (self.b.ins().uextend(I32, x), to),
        };
        // To 16 bits by way of f64, which has room for what f32 would round.
        let wide = if register(ty) == F64 || matches!(to, DType::F16 | DType::BF16) { F64 } else { F32 };
        let y = match from {
            DType::U64 => self.b.ins().fcvt_from_uint(wide, x),
            _ => self.b.ins().fcvt_from_sint(wide, x),
        };
        match to {
            DType::F16 | DType::BF16 => self.float_to_float(DType::F64, to, y),
            _ => y,
        }
    }

    fn int_to_int(&mut self, from: DType, to: DType, x: Value) -> Value {
        let (old, new) = (register(from), register(to));
        if to == DType::Bool {
            let zero = self.int(old, 0);
            return self.b.ins().icmp(IntCC::NotEqual, x, zero);
        }
        match old.bits().cmp(&new.bits()) {
            std::cmp::Ordering::Equal => x,
            std::cmp::Ordering::Greater => self.b.ins().ireduce(new, x),
            std::cmp::Ordering::Less if from.is_unsigned() || from == DType::Bool => {
                self.b.ins().uextend(new, x)
            }
            std::cmp::Ordering::Less => self.b.ins().sextend(new, x),
        }
    }

    pub(super) fn bitcast(&mut self, from: DType, to: DType, x: Value) -> Value {
        let bits = self.stored(from, x);
        let bits = match self.b.func.dfg.value_type(bits) {
            F32 => self.b.ins().bitcast(I32, MemFlagsData::new(), bits),
            F64 => self.b.ins().bitcast(I64, MemFlagsData::new(), bits),
            _ => bits,
        };
        let bits = match to {
            DType::F32 => self.b.ins().bitcast(F32, MemFlagsData::new(), bits),
            DType::F64 => self.b.ins().bitcast(F64, MemFlagsData::new(), bits),
            _ => bits,
        };
        self.loaded(to, bits)
    }

    /// What memory holds of a value: 16-bit floats in an I16.
    pub(super) fn stored(&mut self, dtype: DType, x: Value) -> Value {
        match dtype {
            DType::F16 => {
                let bits = self.number(Function::ToF16, &[x], I32);
                self.b.ins().ireduce(I16, bits)
            }
            DType::BF16 => {
                let bits = self.b.ins().bitcast(I32, MemFlagsData::new(), x);
                let high = self.b.ins().ushr_imm_u(bits, 16);
                self.b.ins().ireduce(I16, high)
            }
            _ => x,
        }
    }

    /// A value from what memory holds.
    pub(super) fn loaded(&mut self, dtype: DType, x: Value) -> Value {
        match dtype {
            DType::F16 => {
                let bits = self.b.ins().uextend(I32, x);
                self.number(Function::FromF16, &[bits], F32)
            }
            DType::BF16 => {
                let bits = self.b.ins().uextend(I32, x);
                let high = self.b.ins().ishl_imm_u(bits, 16);
                self.b.ins().bitcast(F32, MemFlagsData::new(), high)
            }
            DType::Bool => {
                let zero = self.int(I8, 0);
                self.b.ins().icmp(IntCC::NotEqual, x, zero)
            }
            _ => x,
        }
    }

    pub(super) fn load(&mut self, dtype: DType, address: Value, offset: i32) -> Value {
        let ty = memory(dtype);
        let x = self.b.ins().load(ty, trusted(), address, offset);
        self.loaded(dtype, x)
    }

    pub(super) fn store(&mut self, dtype: DType, x: Value, address: Value, offset: i32) {
        let bits = self.stored(dtype, x);
        self.b.ins().store(trusted(), bits, address, offset);
    }

    /// Updates a cell; what it held.
    pub(super) fn atomic(&mut self, op: Atomic, dtype: DType, address: Value, x: Value) -> Value {
        let flags = trusted().with_aligned();
        let (ty, unsigned) = (register(dtype), dtype.is_unsigned());
        let rmw = match op {
            Atomic::Exchange => AtomicRmwOp::Xchg,
            Atomic::And => AtomicRmwOp::And,
            Atomic::Or => AtomicRmwOp::Or,
            Atomic::Xor => AtomicRmwOp::Xor,
            Atomic::Add => AtomicRmwOp::Add,
            Atomic::Min if unsigned => AtomicRmwOp::Umin,
            Atomic::Min => AtomicRmwOp::Smin,
            Atomic::Max if unsigned => AtomicRmwOp::Umax,
            Atomic::Max => AtomicRmwOp::Smax,
        };
        if !dtype.is_float() {
            return self.b.ins().atomic_rmw(ty, flags, rmw, address, x);
        }
        let narrow = matches!(dtype, DType::F16 | DType::BF16);
        let bits = if narrow { memory(dtype) } else { ty.as_int() };
        if op == Atomic::Exchange {
            let x = self.b.ins().bitcast(bits, MemFlagsData::new(), x);
            let old = self.b.ins().atomic_rmw(bits, flags, rmw, address, x);
            return self.b.ins().bitcast(ty, MemFlagsData::new(), old);
        }
        let binary = match op {
            Atomic::Min => Binary::Min,
            Atomic::Max => Binary::Max,
            _ => Binary::Add,
        };
        let (again, done) = (self.b.create_block(), self.b.create_block());
        let seen = self.b.append_block_param(again, bits);
        let first = self.b.ins().load(bits, flags, address, 0);
        self.b.ins().jump(again, &[BlockArg::Value(first)]);
        self.b.switch_to_block(again);
        let old = match narrow {
            true => self.loaded(dtype, seen),
            false => self.b.ins().bitcast(ty, MemFlagsData::new(), seen),
        };
        let new = self.binary(binary, dtype, old, x);
        let new = match narrow {
            true => self.stored(dtype, new),
            false => self.b.ins().bitcast(bits, MemFlagsData::new(), new),
        };
        let found = self.b.ins().atomic_cas(flags, address, seen, new);
        let same = self.b.ins().icmp(IntCC::Equal, found, seen);
        self.b.ins().brif(same, done, &[], again, &[BlockArg::Value(found)]);
        self.b.switch_to_block(done);
        old
    }

    /// Stores `new` in a cell that holds `expected`, bit by bit; what it held.
    pub(super) fn compare_exchange(
        &mut self,
        dtype: DType,
        address: Value,
        expected: Value,
        new: Value,
    ) -> Value {
        let flags = trusted().with_aligned();
        if !dtype.is_float() {
            return self.b.ins().atomic_cas(flags, address, expected, new);
        }
        let ty = register(dtype);
        let expected = self.b.ins().bitcast(ty.as_int(), MemFlagsData::new(), expected);
        let new = self.b.ins().bitcast(ty.as_int(), MemFlagsData::new(), new);
        let old = self.b.ins().atomic_cas(flags, address, expected, new);
        self.b.ins().bitcast(ty, MemFlagsData::new(), old)
    }
}

/// The type of a scalar in memory.
pub(super) fn memory(dtype: DType) -> Type {
    if matches!(dtype, DType::F16 | DType::BF16) { I16 } else { register(dtype) }
}

pub(super) fn float_code(op: Compare) -> FloatCC {
    match op {
        Compare::Eq => FloatCC::Equal,
        Compare::Ne => FloatCC::NotEqual,
        Compare::Lt => FloatCC::LessThan,
        Compare::Le => FloatCC::LessThanOrEqual,
        Compare::Gt => FloatCC::GreaterThan,
        Compare::Ge => FloatCC::GreaterThanOrEqual,
    }
}

pub(super) fn int_code(op: Compare, dtype: DType) -> IntCC {
    let code = match op {
        Compare::Eq => IntCC::Equal,
        Compare::Ne => IntCC::NotEqual,
        Compare::Lt => IntCC::SignedLessThan,
        Compare::Le => IntCC::SignedLessThanOrEqual,
        Compare::Gt => IntCC::SignedGreaterThan,
        Compare::Ge => IntCC::SignedGreaterThanOrEqual,
    };
    if dtype.is_unsigned() { code.unsigned() } else { code }
}

/// The function of one number that is called.
pub(super) fn function(op: Unary, wide: bool) -> Option<Function> {
    let (narrow, of_wide) = match op {
        Unary::Cbrt => (Function::Cbrt32, Function::Cbrt64),
        Unary::Exp => (Function::Exp32, Function::Exp64),
        Unary::Log => (Function::Log32, Function::Log64),
        Unary::Log2 => (Function::Log2_32, Function::Log2_64),
        Unary::Log10 => (Function::Log10_32, Function::Log10_64),
        Unary::Sin => (Function::Sin32, Function::Sin64),
        Unary::Cos => (Function::Cos32, Function::Cos64),
        Unary::Tan => (Function::Tan32, Function::Tan64),
        Unary::Asin => (Function::Asin32, Function::Asin64),
        Unary::Acos => (Function::Acos32, Function::Acos64),
        Unary::Atan => (Function::Atan32, Function::Atan64),
        Unary::Sinh => (Function::Sinh32, Function::Sinh64),
        Unary::Cosh => (Function::Cosh32, Function::Cosh64),
        Unary::Tanh => (Function::Tanh32, Function::Tanh64),
        Unary::Erf => (Function::Erf32, Function::Erf64),
        Unary::Erfc => (Function::Erfc32, Function::Erfc64),
        Unary::Erfinv => (Function::Erfinv32, Function::Erfinv64),
        _ => return None,
    };
    Some(if wide { of_wide } else { narrow })
}
