//! Arithmetic, comparisons and conversions: each op of the IR in a few instructions.

use bullet_ops::DType;
use rustc_hash::FxHashSet;

use super::asm::{Class, Operand, arithmetic, bits, moves, put};
use super::math::{Function, Math};
use super::{Emitter, Key};
use crate::ir::{Binary, Block, Compare, Inst, Op, Unary, Value, eval};

/// Whether values are kept in more bits than they have.
fn is_narrow(dtype: DType) -> bool {
    matches!(dtype, DType::U8 | DType::U16 | DType::I8 | DType::I16)
}

fn is_half(dtype: DType) -> bool {
    matches!(dtype, DType::F16 | DType::BF16)
}

/// `u8` of U8.
fn exact(dtype: DType) -> &'static str {
    match dtype {
        DType::U8 => "u8",
        DType::U16 => "u16",
        DType::I8 => "s8",
        DType::I16 => "s16",
        _ => arithmetic(dtype),
    }
}

fn number(dtype: DType, n: i64) -> Operand {
    match dtype {
        DType::F64 => Operand::double(n as f64),
        _ if dtype.is_float() => Operand::single(n as f32),
        _ => Operand::Int(n),
    }
}

/// How `setp` calls a comparison. NaN is unequal to all.
fn comparison(op: Compare, dtype: DType) -> String {
    let name = if op == Compare::Ne && dtype.is_float() { "neu" } else { op.name() };
    format!("{name}.{}", arithmetic(dtype))
}

impl Emitter<'_> {
    /// A pure instruction.
    pub(super) fn pure(&mut self, inst: Inst) {
        let data = self.kernel.inst(inst);
        let result = data.results[0];
        let dtype = self.kernel.dtype(result);
        let from = data.args.first().map_or(dtype, |&arg| self.kernel.dtype(arg));
        let value = match data.op {
            Op::Tid(axis) => self.tid(axis),
            Op::Dim(axis) => self.length(data.args[0], axis),
            Op::Binary(Binary::Mul) if self.sums.remove(&result) => {
                let factors = [self.get(data.args[0]), self.get(data.args[1])];
                self.products.insert(result, factors);
                return;
            }
            Op::Binary(Binary::Add) if matches!(dtype, DType::F32 | DType::F64) => {
                self.sum(dtype, data.args[0], data.args[1])
            }
            op => {
                let args: Vec<Operand> = data.args.iter().map(|&arg| self.get(arg)).collect();
                match op {
                    Op::Unary(op) => self.unary(op, from, args[0]),
                    Op::Binary(op) => self.binary(op, dtype, args[0], args[1]),
                    Op::Compare(op) => self.compare(op, from, args[0], args[1]),
                    Op::Select => self.select(dtype, args[0], args[1], args[2]),
                    Op::Cast => self.cast(from, dtype, args[0]),
                    Op::Bitcast => self.bitcast(from, dtype, args[0]),
                    _ => args[0],
                }
            }
        };
        let value = if eval::rounds(data.op) { self.rounded(dtype, value) } else { value };
        self.values[result.index()] = Some(value);
    }

    /// A sum, with the product that one of its sides may be.
    fn sum(&mut self, dtype: DType, a: Value, b: Value) -> Operand {
        for (product, other) in [(a, b), (b, a)] {
            if let Some([x, y]) = self.products.remove(&product) {
                let other = self.get(other);
                return self.op("fma.rn", dtype, &[x, y, other]);
            }
        }
        let args = [self.get(a), self.get(b)];
        self.op("add", dtype, &args)
    }

    /// Finds the products of a block that become part of a sum in it.
    pub(super) fn find_sums(&mut self, block: Block) {
        let kernel = self.kernel;
        let mut products = FxHashSet::default();
        for &inst in &kernel.block(block).insts {
            let data = kernel.inst(inst);
            match data.op {
                Op::Binary(Binary::Mul) => {
                    let result = data.results[0];
                    let fits = matches!(kernel.dtype(result), DType::F32 | DType::F64);
                    products.extend((fits && self.uses[result.index()] == 1).then_some(result));
                }
                Op::Binary(Binary::Add) => {
                    self.sums.extend(data.args.iter().filter(|arg| products.contains(*arg)));
                }
                _ => {}
            }
        }
    }

    /// The instruction of this name for a dtype.
    pub(super) fn op(&mut self, name: &str, dtype: DType, args: &[Operand]) -> Operand {
        self.asm.make(Class::of(dtype), &format!("{name}.{}", arithmetic(dtype)), args)
    }

    fn unary(&mut self, op: Unary, dtype: DType, x: Operand) -> Operand {
        let choose = |this: &mut Self, test: &str, a: i64, b: i64| {
            let truth = this.asm.test(&format!("{test}.{}", arithmetic(dtype)), x, number(dtype, 0));
            this.op("selp", dtype, &[number(dtype, a), number(dtype, b), truth])
        };
        let value = match op {
            Unary::Abs | Unary::Neg if dtype.is_unsigned() => match op {
                Unary::Abs => x,
                _ => self.asm.make(
                    Class::of(dtype),
                    if bits(dtype) == "b64" { "neg.s64" } else { "neg.s32" },
                    &[x],
                ),
            },
            Unary::Neg | Unary::Abs => self.op(op.name(), dtype, &[x]),
            Unary::Not => self.op("not", dtype, &[x]),
            Unary::Invert => self.asm.make(Class::of(dtype), &format!("not.{}", bits(dtype)), &[x]),
            Unary::Sign if dtype.is_unsigned() => Operand::Int(1),
            Unary::Step if dtype.is_unsigned() => Operand::Int(0),
            Unary::Sign => choose(self, "lt", -1, 1),
            Unary::Step => choose(self, "lt", 1, 0),
            Unary::Nonzero => choose(self, "eq", 0, 1),
            Unary::IsNan => self.asm.test(&format!("nan.{}", arithmetic(dtype)), x, x),
            Unary::IsInf => self.test_bits("infinite", dtype, x),
            Unary::IsFinite => self.test_bits("finite", dtype, x),
            _ => self.function(Function::Unary(op, dtype == DType::F64), dtype, &[x]),
        };
        if matches!(op, Unary::Neg | Unary::Abs | Unary::Invert) { self.wrapped(dtype, value) } else { value }
    }

    fn test_bits(&mut self, what: &str, dtype: DType, x: Operand) -> Operand {
        let x = self.asm.in_reg(dtype, x);
        self.asm.make(Class::Truth, &format!("testp.{what}.{}", arithmetic(dtype)), &[x])
    }

    /// A mathematical function: in place, or called.
    fn function(&mut self, function: Function, dtype: DType, args: &[Operand]) -> Operand {
        let args: Vec<Operand> = args.iter().map(|&arg| self.asm.in_reg(dtype, arg)).collect();
        Math::new(&mut self.asm, function.is_double()).use_of(function, &args)
    }

    /// Back to the width of a narrow integer.
    fn wrapped(&mut self, dtype: DType, x: Operand) -> Operand {
        if !is_narrow(dtype) || matches!(x, Operand::Int(_)) {
            return x;
        }
        self.asm.make(Class::Word, &format!("cvt.{}.{}", arithmetic(dtype), exact(dtype)), &[x])
    }

    fn binary(&mut self, op: Binary, dtype: DType, a: Operand, b: Operand) -> Operand {
        let (float, double) = (dtype.is_float(), dtype == DType::F64);
        match op {
            Binary::Add | Binary::Sub => {
                let value = self.op(op.name(), dtype, &[a, b]);
                self.wrapped(dtype, value)
            }
            Binary::Mul => {
                let value = self.op(if float { "mul" } else { "mul.lo" }, dtype, &[a, b]);
                self.wrapped(dtype, value)
            }
            Binary::MulMasked => self.masked(dtype, a, b),
            Binary::Div => {
                let value = self.op(if float { "div.rn" } else { "div" }, dtype, &[a, b]);
                self.wrapped(dtype, value)
            }
            Binary::Mod if !float => self.op("rem", dtype, &[a, b]),
            Binary::Min | Binary::Max => self.op(op.name(), dtype, &[a, b]),
            // The instruction takes the sign first.
            Binary::Copysign => self.op("copysign", dtype, &[b, a]),
            Binary::Mod | Binary::Pow | Binary::Atan2 => {
                self.function(Function::Binary(op, double), dtype, &[a, b])
            }
            Binary::And | Binary::Or | Binary::Xor => {
                let ty = if dtype == DType::Bool { "pred" } else { bits(dtype) };
                self.asm.make(Class::of(dtype), &format!("{}.{ty}", op.name()), &[a, b])
            }
            Binary::Shl | Binary::Shr => {
                // Instructions count in 32 bits.
                let by = match b {
                    Operand::Reg(Class::Long, _) => self.asm.make(Class::Word, "cvt.u32.u64", &[b]),
                    _ => b,
                };
                let ty = if op == Binary::Shl { bits(dtype) } else { arithmetic(dtype) };
                let value = self.asm.make(Class::of(dtype), &format!("{}.{ty}", op.name()), &[a, by]);
                self.wrapped(dtype, value)
            }
        }
    }

    /// a * b, but 0 where a is 0. Adjoints multiply one `a` by several factors, and ask once whether it is 0.
    fn masked(&mut self, dtype: DType, a: Operand, b: Operand) -> Operand {
        let product = self.op("mul", dtype, &[a, b]);
        let zero = number(dtype, 0);
        let key = Key::IsZero(a);
        let is_zero = match self.known(&key) {
            Some(known) => known,
            None => {
                let test = self.asm.test(&format!("eq.{}", arithmetic(dtype)), a, zero);
                self.learn(key, test)
            }
        };
        self.op("selp", dtype, &[zero, product, is_zero])
    }

    fn compare(&mut self, op: Compare, dtype: DType, a: Operand, b: Operand) -> Operand {
        if dtype != DType::Bool {
            return self.asm.test(&comparison(op, dtype), a, b);
        }
        let differ = self.asm.make(Class::Truth, "xor.pred", &[a, b]);
        if op == Compare::Ne { differ } else { self.asm.make(Class::Truth, "not.pred", &[differ]) }
    }

    fn select(&mut self, dtype: DType, test: Operand, a: Operand, b: Operand) -> Operand {
        if dtype != DType::Bool {
            let ty = moves(dtype).trim_start_matches("mov.");
            return self.asm.make(Class::of(dtype), &format!("selp.{ty}"), &[a, b, test]);
        }
        let result = self.asm.make(Class::Truth, "mov.pred", &[b]);
        put!(self.asm, "@{test} mov.pred {result},{a};");
        result
    }

    /// Rounded to a 16-bit float, if it is to be one.
    pub(super) fn rounded(&mut self, dtype: DType, x: Operand) -> Operand {
        if !is_half(dtype) {
            return x;
        }
        let packed = self.packed(dtype, x);
        let value = self.unpacked(dtype, packed);
        self.packed.insert((dtype, value), packed);
        value
    }

    /// The 16 bits of a float as memory has them, of bf16 the low ones of 32.
    pub(super) fn packed(&mut self, dtype: DType, x: Operand) -> Operand {
        if let Some(&packed) = self.packed.get(&(dtype, x)) {
            return packed;
        }
        let x = self.asm.in_reg(dtype, x);
        if dtype == DType::F16 {
            return self.asm.make(Class::Half, "cvt.rn.f16.f32", &[x]);
        }
        if self.target.has_bfloat() {
            let half = self.asm.make(Class::Half, "cvt.rn.bf16.f32", &[x]);
            return self.asm.make(Class::Word, "cvt.u32.u16", &[half]);
        }
        let mut step = |op: &str, args: &[Operand]| self.asm.make(Class::Word, op, args);
        let odd = step("shr.u32", &[x, Operand::Int(16)]);
        let odd = step("and.b32", &[odd, Operand::Int(1)]);
        let up = step("add.u32", &[x, odd]);
        let up = step("add.u32", &[up, Operand::Int(0x7fff)]);
        let up = step("shr.u32", &[up, Operand::Int(16)]);
        let nan = self.asm.test("nan.f32", x, x);
        self.asm.make(Class::Word, "selp.b32", &[Operand::Int(0x7fff), up, nan])
    }

    /// The float of 16 bits.
    pub(super) fn unpacked(&mut self, dtype: DType, packed: Operand) -> Operand {
        if dtype == DType::F16 {
            return self.asm.make(Class::Word, "cvt.f32.f16", &[packed]);
        }
        self.asm.make(Class::Word, "shl.b32", &[packed, Operand::Int(16)])
    }

    fn cast(&mut self, from: DType, to: DType, x: Operand) -> Operand {
        if from == to {
            return x;
        }
        if to == DType::Bool {
            return self.asm.test(&comparison(Compare::Ne, from), x, number(from, 0));
        }
        if is_half(to) {
            let float = self.cast(from, DType::F32, x);
            return self.rounded(to, float);
        }
        if from == DType::Bool {
            return self.asm.make(
                Class::of(to),
                &format!("selp.{}", arithmetic(to)),
                &[number(to, 1), number(to, 0), x],
            );
        }
        let x = self.asm.in_reg(from, x);
        match (from.is_float(), to.is_float()) {
            (true, true) => match (from, to) {
                (DType::F64, _) => self.asm.make(Class::Word, "cvt.rn.f32.f64", &[x]),
                (_, DType::F64) => self.asm.make(Class::Long, "cvt.f64.f32", &[x]),
                _ => x,
            },
            (false, true) => {
                let op = format!("cvt.rn.{}.{}", arithmetic(to), arithmetic(from));
                self.asm.make(Class::of(to), &op, &[x])
            }
            (true, false) => self.truncated(from, to, x),
            (false, false) => {
                let wide = |dtype: DType| Class::of(dtype) == Class::Long;
                match (wide(from), wide(to)) {
                    (false, true) => {
                        let op = if from.is_unsigned() { "cvt.u64.u32" } else { "cvt.s64.s32" };
                        self.asm.make(Class::Long, op, &[x])
                    }
                    (true, false) => {
                        let low = self.asm.make(Class::Word, "cvt.u32.u64", &[x]);
                        self.wrapped(to, low)
                    }
                    _ => self.wrapped(to, x),
                }
            }
        }
    }

    /// A float cut to an integer: saturated, NaN is 0.
    fn truncated(&mut self, from: DType, to: DType, x: Operand) -> Operand {
        let target = if is_narrow(to) { DType::I32 } else { to };
        let op = format!("cvt.rzi.{}.{}", arithmetic(target), arithmetic(from));
        let mut value = self.asm.make(Class::of(target), &op, &[x]);
        // Of 32 bits on both sides the instruction gives 0 itself.
        if from == DType::F64 || Class::of(to) == Class::Long {
            let nan = self.asm.test(&format!("nan.{}", arithmetic(from)), x, x);
            value = self.op("selp", target, &[Operand::Int(0), value, nan]);
        }
        let (low, high) = match to {
            DType::U8 => (0, 255),
            DType::U16 => (0, 65535),
            DType::I8 => (-128, 127),
            DType::I16 => (-32768, 32767),
            _ => return value,
        };
        let value = self.op("min", DType::I32, &[value, Operand::Int(high)]);
        self.op("max", DType::I32, &[value, Operand::Int(low)])
    }

    /// The same bits; registers have no type, but 16-bit floats are kept as f32.
    fn bitcast(&mut self, from: DType, to: DType, x: Operand) -> Operand {
        if from.size() != 2 || is_half(from) == is_half(to) && from == to {
            let x = self.asm.in_reg(from, x);
            return match (from, to) {
                (DType::Bool, DType::Bool) => x,
                (DType::Bool, _) | (_, DType::Bool) => self.cast(from, to, x),
                _ => self.wrapped(to, x),
            };
        }
        let word = match from {
            DType::F16 => {
                let half = self.packed(from, x);
                self.asm.make(Class::Word, "cvt.u32.u16", &[half])
            }
            DType::BF16 => self.packed(from, x),
            _ => self.asm.in_reg(from, x),
        };
        match to {
            DType::F16 => {
                let half = self.asm.make(Class::Half, "cvt.u16.u32", &[word]);
                self.unpacked(to, half)
            }
            DType::BF16 => self.unpacked(to, word),
            _ => self.wrapped(to, word),
        }
    }
}
