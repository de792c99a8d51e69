//! Values of [`LANES`] threads side by side, in vectors of 128 bits.
//!
//! A varying value is a list of vectors: of F32X4 for floats to 32 bits, F64X2, I64X2, and of I32X4 for all other integers, extended as
//! their type says. A bool is a mask: all ones or 0 in 32 bits. What has no vector instruction is done lane by lane, in a loop over
//! copies on the stack.

use bullet_lang::ir::{Binary, Compare, Unary};
use bullet_ops::DType;
use cranelift_codegen::ir::condcodes::{FloatCC, IntCC};
use cranelift_codegen::ir::types::{F32, F32X4, F64, F64X2, I32, I32X4, I64, I64X2};
use cranelift_codegen::ir::{BlockArg, InstBuilder, MemFlagsData, StackSlot, Type, Value};

use super::Emitter;
use super::scalar::{float_code, function, int_code, register, trusted};
pub(super) use crate::abi::LANES;
use crate::abi::{Function, Slot};

/// The bits of a mask of all lanes.
pub(super) const ALL: i64 = (1 << LANES) - 1;

/// The lanes of a value.
pub(super) type Parts = Vec<Value>;

/// The vector type of a scalar's lanes.
pub(super) fn vector(dtype: DType) -> Type {
    match dtype {
        DType::F64 => F64X2,
        DType::I64 | DType::U64 => I64X2,
        DType::F16 | DType::BF16 | DType::F32 => F32X4,
        _ => I32X4,
    }
}

/// How many vectors a value is.
pub(super) fn count(dtype: DType) -> usize {
    LANES / vector(dtype).lane_count() as usize
}

/// Bytes of a lane.
fn width(dtype: DType) -> i32 {
    vector(dtype).lane_bits() as i32 / 8
}

fn is_narrow(dtype: DType) -> bool {
    matches!(dtype, DType::U8 | DType::I8 | DType::U16 | DType::I16)
}

impl Emitter<'_> {
    /// One scalar in all lanes.
    pub(super) fn splat(&mut self, dtype: DType, x: Value) -> Parts {
        let wide = match dtype {
            DType::Bool => {
                let wide = self.ops.b.ins().uextend(I32, x);
                self.ops.b.ins().ineg(wide)
            }
            _ if is_narrow(dtype) && dtype.is_unsigned() => self.ops.b.ins().uextend(I32, x),
            _ if is_narrow(dtype) => self.ops.b.ins().sextend(I32, x),
            _ => x,
        };
        let one = self.ops.b.ins().splat(vector(dtype), wide);
        vec![one; count(dtype)]
    }

    fn each(&mut self, x: &[Value], mut f: impl FnMut(&mut Self, Value) -> Value) -> Parts {
        x.iter().map(|&x| f(self, x)).collect()
    }

    fn pairs(
        &mut self,
        x: &[Value],
        y: &[Value],
        mut f: impl FnMut(&mut Self, Value, Value) -> Value,
    ) -> Parts {
        x.iter().zip(y).map(|(&x, &y)| f(self, x, y)).collect()
    }

    fn as_type(&mut self, ty: Type, x: Value) -> Value {
        if self.ops.b.func.dfg.value_type(x) == ty {
            return x;
        }
        let flags = MemFlagsData::new().with_endianness(cranelift_codegen::ir::Endianness::Little);
        self.ops.b.ins().bitcast(ty, flags, x)
    }

    /// A mask for lanes of a dtype: of 64 bits, if those are.
    fn mask_for(&mut self, dtype: DType, mask: &[Value]) -> Parts {
        if vector(dtype).lane_bits() == 32 {
            return mask.to_vec();
        }
        let mut out = vec![];
        for &part in mask {
            out.push(self.ops.b.ins().swiden_low(part));
            out.push(self.ops.b.ins().swiden_high(part));
        }
        out
    }

    /// A mask of 32 bits from one of 64.
    fn narrowed(&mut self, mask: &[Value]) -> Parts {
        let low_halves: Vec<u8> = (0..4u8).flat_map(|i| (0..4).map(move |byte| 8 * i + byte)).collect();
        let pairs: Vec<(Value, Value)> = mask.chunks(2).map(|pair| (pair[0], pair[1])).collect();
        let mut out = vec![];
        for (a, b) in pairs {
            let (a, b) = (
                self.as_type(cranelift_codegen::ir::types::I8X16, a),
                self.as_type(cranelift_codegen::ir::types::I8X16, b),
            );
            let order = self.ops.b.func.dfg.immediates.push(low_halves[..].into());
            let both = self.ops.b.ins().shuffle(a, b, order);
            out.push(self.as_type(I32X4, both));
        }
        out
    }

    /// x where the mask is set, else y.
    pub(super) fn blend(&mut self, dtype: DType, mask: &[Value], x: &[Value], y: &[Value]) -> Parts {
        let mask = self.mask_for(dtype, mask);
        let (ty, ints) = (vector(dtype), vector(dtype).as_int());
        (0..mask.len())
            .map(|i| {
                if x[i] == y[i] {
                    return x[i];
                }
                let (x, y) = (self.as_type(ints, x[i]), self.as_type(ints, y[i]));
                let z = self.ops.b.ins().blendv(mask[i], x, y);
                self.as_type(ty, z)
            })
            .collect()
    }

    /// One bit a lane.
    pub(super) fn bits(&mut self, mask: &[Value]) -> Value {
        let mut bits = self.ops.int(I32, 0);
        for (i, &part) in mask.iter().enumerate() {
            let four = self.ops.b.ins().vhigh_bits(I32, part);
            let four = if i == 0 { four } else { self.ops.b.ins().ishl_imm_u(four, 4 * i as i64) };
            bits = if i == 0 { four } else { self.ops.b.ins().bor(bits, four) };
        }
        bits
    }

    /// The lanes of a value on the stack, in order.
    pub(super) fn spill(&mut self, x: &[Value]) -> StackSlot {
        let slot = self.borrow_slot();
        for (i, &part) in x.iter().enumerate() {
            self.ops.b.ins().stack_store(I64, part, slot, 16 * i as i32);
        }
        slot
    }

    /// The lanes of a value from the stack, where they were put one by one: a wide load would wait until all stores have left the
    /// core.
    pub(super) fn collect(&mut self, dtype: DType, slot: StackSlot) -> Parts {
        let ty = vector(dtype);
        let (lanes, lane) = (ty.lane_count() as i32, ty.lane_type());
        (0..count(dtype) as i32)
            .map(|part| {
                let mut load =
                    |i: i32| self.ops.b.ins().stack_load(I64, lane, slot, 16 * part + i * width(dtype));
                let scalars: Vec<Value> = (0..lanes).map(&mut load).collect();
                self.gathered(ty, &scalars)
            })
            .collect()
    }

    /// A vector of these.
    pub(super) fn gathered(&mut self, ty: Type, scalars: &[Value]) -> Value {
        let first = self.ops.b.ins().scalar_to_vector(ty, scalars[0]);
        (1..scalars.len()).fold(first, |x, i| self.ops.b.ins().insertlane(x, scalars[i], i as u8))
    }

    /// The lanes of a value from the stack, where they were put together.
    pub(super) fn reload(&mut self, dtype: DType, slot: StackSlot) -> Parts {
        let ty = vector(dtype);
        (0..count(dtype)).map(|i| self.ops.b.ins().stack_load(I64, ty, slot, 16 * i as i32)).collect()
    }

    /// One lane from the stack.
    pub(super) fn lane(&mut self, dtype: DType, slot: StackSlot, lane: Value) -> Value {
        let address = self.lane_address(dtype, slot, lane);
        let wide = self.ops.b.ins().load(vector(dtype).lane_type(), trusted(), address, 0);
        match dtype {
            DType::Bool => self.ops.b.ins().icmp_imm_s(IntCC::NotEqual, wide, 0),
            _ if is_narrow(dtype) => self.ops.b.ins().ireduce(register(dtype), wide),
            _ => wide,
        }
    }

    /// Puts one lane on the stack.
    pub(super) fn put_lane(&mut self, dtype: DType, slot: StackSlot, lane: Value, x: Value) {
        let wide = match dtype {
            DType::Bool => {
                let wide = self.ops.b.ins().uextend(I32, x);
                self.ops.b.ins().ineg(wide)
            }
            _ if is_narrow(dtype) => {
                self.ops.cast(dtype, if dtype.is_unsigned() { DType::U32 } else { DType::I32 }, x)
            }
            _ => x,
        };
        let address = self.lane_address(dtype, slot, lane);
        self.ops.b.ins().store(trusted(), wide, address, 0);
    }

    fn lane_address(&mut self, dtype: DType, slot: StackSlot, lane: Value) -> Value {
        let start = self.ops.b.ins().stack_addr(I64, slot, 0);
        let offset = self.ops.b.ins().imul_imm_s(lane, i64::from(width(dtype)));
        self.ops.b.ins().iadd(start, offset)
    }

    /// Runs code for each lane whose bit is set, in order; for all without bits.
    pub(super) fn for_lanes(&mut self, bits: Option<Value>, body: impl FnOnce(&mut Self, Value)) {
        let (head, next, exit) =
            (self.ops.b.create_block(), self.ops.b.create_block(), self.ops.b.create_block());
        let lane = self.ops.b.append_block_param(head, I64);
        let zero = self.ops.b.ins().iconst(I64, 0);
        self.ops.b.ins().jump(head, &[BlockArg::Value(zero)]);
        self.ops.b.switch_to_block(head);
        if let Some(bits) = bits {
            let run = self.ops.b.create_block();
            let shifted = self.ops.b.ins().ushr(bits, lane);
            let set = self.ops.b.ins().band_imm_u(shifted, 1);
            self.ops.b.ins().brif(set, run, &[], next, &[]);
            self.ops.b.switch_to_block(run);
        }
        body(self, lane);
        self.ops.b.ins().jump(next, &[]);
        self.ops.b.switch_to_block(next);
        let up = self.ops.b.ins().iadd_imm_s(lane, 1);
        let more = self.ops.b.ins().icmp_imm_s(IntCC::SignedLessThan, up, LANES as i64);
        self.ops.b.ins().brif(more, head, &[BlockArg::Value(up)], exit, &[]);
        self.ops.b.switch_to_block(exit);
    }

    /// An operation of scalars, lane by lane.
    fn lane_by_lane(
        &mut self,
        args: &[(DType, Parts)],
        to: DType,
        f: impl FnOnce(&mut Self, &[Value]) -> Value,
    ) -> Parts {
        let slots: Vec<StackSlot> = args.iter().map(|(_, parts)| self.spill(parts)).collect();
        let out = self.borrow_slot();
        self.for_lanes(None, |this, lane| {
            let scalars: Vec<Value> =
                args.iter().zip(&slots).map(|((dtype, _), &slot)| this.lane(*dtype, slot, lane)).collect();
            let result = f(this, &scalars);
            this.put_lane(to, out, lane, result);
        });
        self.collect(to, out)
    }

    /// A function of the table that takes all lanes at once.
    fn of_lanes(&mut self, function: Slot, dtype: DType, args: &[&[Value]]) -> Parts {
        let out = self.borrow_slot();
        let mut all = vec![self.ops.b.ins().stack_addr(I64, out, 0)];
        all.extend(args.iter().copied().flatten());
        self.ops.call(function, &all, None);
        self.reload(dtype, out)
    }

    /// Cuts lanes of 32 bits to a narrow integer.
    fn wrapped(&mut self, dtype: DType, x: Parts) -> Parts {
        if !is_narrow(dtype) {
            return x;
        }
        let by = 32 - 8 * dtype.size() as i64;
        let by = self.ops.int(I32, by);
        self.each(&x, |this, x| {
            let high = this.ops.b.ins().ishl(x, by);
            if dtype.is_unsigned() {
                this.ops.b.ins().ushr(high, by)
            } else {
                this.ops.b.ins().sshr(high, by)
            }
        })
    }

    fn rounded(&mut self, dtype: DType, x: Parts) -> Parts {
        match dtype {
            DType::F16 | DType::BF16 => {
                self.lane_by_lane(&[(DType::F32, x)], DType::F32, |this, x| this.ops.rounded(dtype, x[0]))
            }
            _ => x,
        }
    }

    fn constant_lanes(&mut self, dtype: DType, value: f64) -> Value {
        let x = match register(dtype) {
            F64 => self.ops.b.ins().f64const(value),
            F32 => self.ops.b.ins().f32const(value as f32),
            I64 => self.ops.b.ins().iconst(I64, value as i64),
            _ => self.ops.int(I32, value as i64),
        };
        self.ops.b.ins().splat(vector(dtype), x)
    }

    /// A mask from a comparison's result.
    fn mask_of(&mut self, dtype: DType, x: Parts) -> Parts {
        if vector(dtype).lane_bits() == 64 { self.narrowed(&x) } else { x }
    }

    /// A choice of two constants by a comparison with 0.
    fn choose(&mut self, dtype: DType, x: &[Value], op: Compare, yes: f64, no: f64) -> Parts {
        let zero = self.constant_lanes(dtype, 0.0);
        let zeros = vec![zero; x.len()];
        let mask = self.wide_compare(op, dtype, x, &zeros);
        let (yes, no) = (self.constant_lanes(dtype, yes), self.constant_lanes(dtype, no));
        self.blend(dtype, &mask, &vec![yes; x.len()], &vec![no; x.len()])
    }

    pub(super) fn wide_unary(&mut self, op: Unary, dtype: DType, x: &[Value]) -> Parts {
        if !dtype.is_float() {
            return self.wide_unary_int(op, dtype, x);
        }
        let wide = dtype == DType::F64;
        let y = match op {
            Unary::IsNan => {
                let mask = self.each(x, |this, x| this.ops.b.ins().fcmp(FloatCC::Unordered, x, x));
                return self.mask_of(dtype, mask);
            }
            Unary::IsInf | Unary::IsFinite => {
                let infinity = self.constant_lanes(dtype, f64::INFINITY);
                let code = if op == Unary::IsInf { FloatCC::Equal } else { FloatCC::LessThan };
                let mask = self.each(x, |this, x| {
                    let size = this.ops.b.ins().fabs(x);
                    this.ops.b.ins().fcmp(code, size, infinity)
                });
                return self.mask_of(dtype, mask);
            }
            Unary::Neg => return self.each(x, |this, x| this.ops.b.ins().fneg(x)),
            Unary::Abs => return self.each(x, |this, x| this.ops.b.ins().fabs(x)),
            Unary::Sign => return self.choose(dtype, x, Compare::Lt, -1.0, 1.0),
            Unary::Step => return self.choose(dtype, x, Compare::Lt, 1.0, 0.0),
            Unary::Nonzero => return self.choose(dtype, x, Compare::Eq, 0.0, 1.0),
            Unary::Sqrt => self.each(x, |this, x| this.ops.b.ins().sqrt(x)),
            Unary::Floor => self.each(x, |this, x| this.ops.b.ins().floor(x)),
            Unary::Ceil => self.each(x, |this, x| this.ops.b.ins().ceil(x)),
            Unary::Rint => self.each(x, |this, x| this.ops.b.ins().nearest(x)),
            Unary::Trunc => self.each(x, |this, x| this.ops.b.ins().trunc(x)),
            Unary::Round => {
                let half = if wide { 0.5f64.next_down() } else { 0.5f32.next_down().into() };
                let half = vec![self.constant_lanes(dtype, half); x.len()];
                let half = self.copysign(dtype, &half, x);
                self.pairs(x, &half, |this, x, half| {
                    let moved = this.ops.b.ins().fadd(x, half);
                    this.ops.b.ins().trunc(moved)
                })
            }
            _ => match function(op, wide) {
                Some(function) => self.of_lanes(function.of_lanes(), dtype, &[x]),
                None => x.to_vec(),
            },
        };
        self.rounded(dtype, y)
    }

    fn copysign(&mut self, dtype: DType, x: &[Value], sign: &[Value]) -> Parts {
        let (ty, ints) = (vector(dtype), vector(dtype).as_int());
        let minus = self.constant_lanes(dtype, -0.0);
        let minus = self.as_type(ints, minus);
        self.pairs(x, sign, |this, x, sign| {
            let (x, sign) = (this.as_type(ints, x), this.as_type(ints, sign));
            let sign = this.ops.b.ins().band(sign, minus);
            let size = this.ops.b.ins().band_not(x, minus);
            let both = this.ops.b.ins().bor(size, sign);
            this.as_type(ty, both)
        })
    }

    fn wide_unary_int(&mut self, op: Unary, dtype: DType, x: &[Value]) -> Parts {
        let unsigned = dtype.is_unsigned();
        let y = match op {
            Unary::Not | Unary::Invert => self.each(x, |this, x| this.ops.b.ins().bnot(x)),
            Unary::Neg => self.each(x, |this, x| this.ops.b.ins().ineg(x)),
            Unary::Abs if unsigned => return x.to_vec(),
            Unary::Sign if unsigned => return vec![self.constant_lanes(dtype, 1.0); x.len()],
            Unary::Step if unsigned => return vec![self.constant_lanes(dtype, 0.0); x.len()],
            Unary::Sign => return self.choose(dtype, x, Compare::Lt, -1.0, 1.0),
            Unary::Step => return self.choose(dtype, x, Compare::Lt, 1.0, 0.0),
            Unary::Nonzero => return self.choose(dtype, x, Compare::Eq, 0.0, 1.0),
            _ => self.each(x, |this, x| this.ops.b.ins().iabs(x)),
        };
        self.wrapped(dtype, y)
    }

    pub(super) fn wide_binary(&mut self, op: Binary, dtype: DType, x: &[Value], y: &[Value]) -> Parts {
        if !dtype.is_float() {
            return self.wide_binary_int(op, dtype, x, y);
        }
        let wide = dtype == DType::F64;
        let pick = |narrow: Function, of_wide: Function| if wide { of_wide } else { narrow }.of_lanes();
        let z = match op {
            Binary::Add => self.pairs(x, y, |this, x, y| this.ops.b.ins().fadd(x, y)),
            Binary::Sub => self.pairs(x, y, |this, x, y| this.ops.b.ins().fsub(x, y)),
            Binary::Mul => self.pairs(x, y, |this, x, y| this.ops.b.ins().fmul(x, y)),
            Binary::Div => self.pairs(x, y, |this, x, y| this.ops.b.ins().fdiv(x, y)),
            Binary::MulMasked => {
                let zero = vec![self.constant_lanes(dtype, 0.0); x.len()];
                let masked = self.wide_compare(Compare::Eq, dtype, x, &zero);
                let product = self.pairs(x, y, |this, x, y| this.ops.b.ins().fmul(x, y));
                self.blend(dtype, &masked, &zero, &product)
            }
            Binary::Min | Binary::Max => {
                let op = if op == Binary::Min { Compare::Lt } else { Compare::Gt };
                let first = self.wide_compare(op, dtype, x, y);
                let alone = self.wide_unary(Unary::IsNan, dtype, y);
                let either = self.pairs(&first, &alone, |this, x, y| this.ops.b.ins().bor(x, y));
                return self.blend(dtype, &either, x, y);
            }
            Binary::Copysign => return self.copysign(dtype, x, y),
            Binary::Mod => self.of_lanes(pick(Function::Mod32, Function::Mod64), dtype, &[x, y]),
            Binary::Pow => self.of_lanes(pick(Function::Pow32, Function::Pow64), dtype, &[x, y]),
            Binary::Atan2 => self.of_lanes(pick(Function::Atan2_32, Function::Atan2_64), dtype, &[x, y]),
            // Floats have no others: `verify`.
            _ => x.to_vec(),
        };
        self.rounded(dtype, z)
    }

    fn wide_binary_int(&mut self, op: Binary, dtype: DType, x: &[Value], y: &[Value]) -> Parts {
        let z = match op {
            Binary::Add => self.pairs(x, y, |this, x, y| this.ops.b.ins().iadd(x, y)),
            Binary::Sub => self.pairs(x, y, |this, x, y| this.ops.b.ins().isub(x, y)),
            Binary::Mul => self.pairs(x, y, |this, x, y| this.ops.b.ins().imul(x, y)),
            Binary::And => self.pairs(x, y, |this, x, y| this.ops.b.ins().band(x, y)),
            Binary::Or => self.pairs(x, y, |this, x, y| this.ops.b.ins().bor(x, y)),
            Binary::Xor => self.pairs(x, y, |this, x, y| this.ops.b.ins().bxor(x, y)),
            Binary::Min | Binary::Max => {
                let op = if op == Binary::Min { Compare::Lt } else { Compare::Gt };
                let first = self.wide_compare(op, dtype, x, y);
                return self.blend(dtype, &first, x, y);
            }
            Binary::Shl | Binary::Shr if self.shifts_in_vectors(op, dtype, y) => {
                let by = self.ops.b.ins().extractlane(y[0], 0);
                self.each(x, |this, x| match (op, dtype.is_unsigned()) {
                    (Binary::Shl, _) => this.ops.b.ins().ishl(x, by),
                    (_, true) => this.ops.b.ins().ushr(x, by),
                    (_, false) => this.ops.b.ins().sshr(x, by),
                })
            }
            _ => {
                let args = [(dtype, x.to_vec()), (dtype, y.to_vec())];
                return self
                    .lane_by_lane(&args, dtype, |this, args| this.ops.binary(op, dtype, args[0], args[1]));
            }
        };
        self.wrapped(dtype, z)
    }

    /// Whether there is an instruction for it: by one number for all lanes, which a splat gives.
    fn shifts_in_vectors(&self, op: Binary, dtype: DType, by: &[Value]) -> bool {
        use cranelift_codegen::ir::{Opcode, ValueDef};
        let dfg = &self.ops.b.func.dfg;
        let is_splat = |x: Value| match dfg.value_def(x) {
            ValueDef::Result(inst, _) => dfg.insts[inst].opcode() == Opcode::Splat,
            _ => false,
        };
        let signed_wide = op == Binary::Shr && dtype == DType::I64;
        !is_narrow(dtype) && !signed_wide && by.iter().all(|&x| x == by[0] && is_splat(x))
    }

    pub(super) fn wide_compare(&mut self, op: Compare, dtype: DType, x: &[Value], y: &[Value]) -> Parts {
        if dtype.is_float() {
            let mask = self.pairs(x, y, |this, x, y| this.ops.b.ins().fcmp(float_code(op), x, y));
            return self.mask_of(dtype, mask);
        }
        if dtype == DType::Bool {
            let unequal = self.pairs(x, y, |this, x, y| this.ops.b.ins().bxor(x, y));
            return match op {
                Compare::Eq => self.each(&unequal, |this, x| this.ops.b.ins().bnot(x)),
                _ => unequal,
            };
        }
        // Narrow ones are extended, so that signed order is theirs, too.
        let signed = if is_narrow(dtype) { DType::I32 } else { dtype };
        let (mut x, mut y) = (x.to_vec(), y.to_vec());
        let mut code = int_code(op, signed);
        if signed == DType::U64 && !matches!(op, Compare::Eq | Compare::Ne) {
            let bias = self.ops.b.ins().iconst(I64, i64::MIN);
            let bias = self.ops.b.ins().splat(I64X2, bias);
            x = self.each(&x, |this, x| this.ops.b.ins().bxor(x, bias));
            y = self.each(&y, |this, y| this.ops.b.ins().bxor(y, bias));
            code = int_code(op, DType::I64);
        }
        let mask = self.pairs(&x, &y, |this, x, y| this.ops.b.ins().icmp(code, x, y));
        self.mask_of(dtype, mask)
    }

    pub(super) fn wide_cast(&mut self, from: DType, to: DType, x: &[Value]) -> Parts {
        let is_i32 = |dtype: DType| vector(dtype) == I32X4 && dtype != DType::Bool && dtype != DType::U32;
        match (from, to) {
            _ if from == to => x.to_vec(),
            (_, DType::Bool) => {
                let zero = vec![self.constant_lanes(from, 0.0); x.len()];
                self.wide_compare(Compare::Ne, from, x, &zero)
            }
            (_, DType::F32) if is_i32(from) => {
                self.each(x, |this, x| this.ops.b.ins().fcvt_from_sint(F32X4, x))
            }
            (DType::F32, DType::I32) => self.each(x, |this, x| this.ops.b.ins().fcvt_to_sint_sat(I32X4, x)),
            (DType::Bool, _) if vector(to) == I32X4 => self.each(x, |this, x| this.ops.b.ins().ineg(x)),
            (DType::Bool, DType::F32) => {
                let (one, zero) = (self.constant_lanes(to, 1.0), self.constant_lanes(to, 0.0));
                self.blend(to, x, &vec![one; x.len()], &vec![zero; x.len()])
            }
            _ if from != DType::Bool && vector(from) == I32X4 && vector(to) == I32X4 => {
                self.wrapped(to, x.to_vec())
            }
            _ if vector(to) == I64X2 && is_i32(from) => {
                let mut out = vec![];
                for &part in x {
                    out.push(self.ops.b.ins().swiden_low(part));
                    out.push(self.ops.b.ins().swiden_high(part));
                }
                out
            }
            _ => self.lane_by_lane(&[(from, x.to_vec())], to, |this, x| this.ops.cast(from, to, x[0])),
        }
    }

    pub(super) fn wide_bitcast(&mut self, from: DType, to: DType, x: &[Value]) -> Parts {
        if from.size() >= 4 {
            return self.each(x, |this, x| this.as_type(vector(to), x));
        }
        self.lane_by_lane(&[(from, x.to_vec())], to, |this, x| this.ops.bitcast(from, to, x[0]))
    }
}
