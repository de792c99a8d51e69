//! Mathematical functions: each written once for f32 and f64, as a reduction of the range and a polynomial.
//!
//! Short functions stand in the place where they are used ([`Stands`]); the others are functions of the module, of which each has one
//! copy.
//! f32 takes the [fits](bullet_ops::fits) of the CPU; f64's were fitted in the same way. Infinities, NaN, denormals and signs of
//! zero are as IEEE functions have them. `tests/ptx.rs` states the errors: few units in the last place.

use std::fmt::Write;

use super::asm::{Asm, Class, Operand, put};
use crate::ir::{Binary, Unary};

/// A mathematical function, of f64 or else of f32.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Function {
    Unary(Unary, bool),
    Binary(Binary, bool),
    /// What is left of a large angle: [`trig`](super::trig).
    Reduce,
}

/// Where the text of a function stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Stands {
    /// Wherever it is used: it is an instruction or a few.
    InPlace,
    /// There, too, if a kernel uses [`FEW`] such at most: a call costs some cycles and what a compiler sees.
    InPlaceIfFew,
    /// In a function of the module.
    Apart,
}

/// How many copies of functions of some tens of instructions a kernel may have.
pub(super) const FEW: usize = 4;

impl Function {
    pub(super) fn is_double(self) -> bool {
        match self {
            Function::Unary(_, double) | Function::Binary(_, double) => double,
            Function::Reduce => true,
        }
    }

    /// Where its text stands.
    pub(super) fn place(self) -> Stands {
        use Unary::{Ceil, Cos, Exp, Floor, Log, Log2, Log10, Rint, Round, Sin, Sqrt, Trunc};
        match self {
            Function::Unary(Sqrt | Floor | Ceil | Round | Rint | Trunc, _) => Stands::InPlace,
            Function::Unary(Exp | Log | Log2 | Log10 | Sin | Cos, false) => Stands::InPlaceIfFew,
            _ => Stands::Apart,
        }
    }

    /// Above that of what it calls.
    fn rank(self) -> u32 {
        match self {
            Function::Reduce => 0,
            Function::Unary(Unary::Erf | Unary::Erfc | Unary::Log, _) => 1,
            _ => 2,
        }
    }

    fn name(self) -> String {
        let bits = if self.is_double() { 64 } else { 32 };
        match self {
            Function::Unary(op, _) => format!("${}_{bits}", op.name()),
            Function::Binary(op, _) => format!("${}_{bits}", op.name()),
            Function::Reduce => "$reduce_64".into(),
        }
    }

    fn arguments(self) -> u32 {
        if matches!(self, Function::Binary(..)) { 2 } else { 1 }
    }

    /// Its definition; what it calls joins `calls`.
    fn define(self, calls: &mut Vec<Function>) -> String {
        let mut asm = Asm::new(true);
        let args: Vec<Operand> = (0..self.arguments()).map(Operand::Arg).collect();
        let mut math = Math::new(&mut asm, self.is_double());
        let y = math.body(self, &args);
        math.asm.set(Operand::Result, if self.is_double() { "mov.f64" } else { "mov.f32" }, &[y]);
        let ty = if self.is_double() { "b64" } else { "b32" };
        let list: Vec<String> = args.iter().map(|arg| format!(".reg .{ty} {arg}")).collect();
        let mut out = format!(".func (.reg .{ty} y) {}({})\n{{\n", self.name(), list.join(","));
        out += &asm.registers();
        out += &asm.text;
        out += "ret;\n}\n";
        calls.append(&mut asm.calls);
        out
    }
}

/// Writes the definitions of what is called, each behind those that it calls itself.
pub(super) fn write(out: &mut String, mut wanted: Vec<Function>) {
    let (mut done, mut texts) = (vec![], vec![]);
    while let Some(function) = wanted.pop() {
        if !done.contains(&function) {
            done.push(function);
            texts.push((function, function.define(&mut wanted)));
        }
    }
    texts.sort_by_key(|&(function, _)| (function.rank(), function));
    if done.contains(&Function::Reduce) {
        super::trig::table(out);
    }
    for (_, text) in texts {
        let _ = out.write_str(&text);
    }
}

/// Writes functions of one width.
pub(super) struct Math<'a> {
    pub(super) asm: &'a mut Asm,
    pub(super) double: bool,
}

impl Math<'_> {
    pub(super) fn new(asm: &mut Asm, double: bool) -> Math<'_> {
        Math { asm, double }
    }

    /// What a function gives here: in place, or by a call.
    pub(super) fn use_of(&mut self, function: Function, args: &[Operand]) -> Operand {
        let here = match function.place() {
            Stands::InPlace => true,
            Stands::InPlaceIfFew => self.asm.in_place,
            Stands::Apart => false,
        };
        if here {
            return self.body(function, args);
        }
        self.asm.calls.push(function);
        let y = self.asm.reg(self.class());
        let list: Vec<String> = args.iter().map(Operand::to_string).collect();
        put!(self.asm, "call.uni ({y}),{},({});", function.name(), list.join(","));
        y
    }

    fn body(&mut self, function: Function, args: &[Operand]) -> Operand {
        let x = args[0];
        match function {
            Function::Reduce => self.reduce_large(x),
            Function::Binary(Binary::Pow, _) => self.pow(x, args[1]),
            Function::Binary(Binary::Atan2, _) => self.atan2(x, args[1]),
            Function::Binary(..) => self.fmod(x, args[1]),
            Function::Unary(op, _) => match op {
                Unary::Sqrt => self.op("sqrt.rn", &[x]),
                Unary::Floor => self.rounded("rmi", x),
                Unary::Ceil => self.rounded("rpi", x),
                Unary::Trunc => self.rounded("rzi", x),
                Unary::Rint => self.rounded("rni", x),
                Unary::Round => self.round(x),
                Unary::Exp => self.exp(x),
                Unary::Log => self.log(x),
                Unary::Log2 => self.log2(x),
                Unary::Log10 => self.log10(x),
                Unary::Cbrt => self.cbrt(x),
                Unary::Sin => self.sin(x),
                Unary::Cos => self.cos(x),
                Unary::Tan => self.tan(x),
                Unary::Asin => self.asin(x),
                Unary::Acos => self.acos(x),
                Unary::Atan => self.atan(x),
                Unary::Sinh => self.sinh(x),
                Unary::Cosh => self.cosh(x),
                Unary::Tanh => self.tanh(x),
                Unary::Erf => self.erf(x),
                Unary::Erfc => self.erfc(x),
                Unary::Erfinv => self.erfinv(x),
                _ => x,
            },
        }
    }

    pub(super) fn class(&self) -> Class {
        if self.double { Class::Long } else { Class::Word }
    }

    pub(super) fn ty(&self) -> &'static str {
        if self.double { "f64" } else { "f32" }
    }

    /// One of two constants by width, f32's first.
    pub(super) fn of<T: Copy>(&self, both: [T; 2]) -> T {
        both[usize::from(self.double)]
    }

    pub(super) fn number(&self, x: f64) -> Operand {
        if self.double { Operand::double(x) } else { Operand::single(x as f32) }
    }

    pub(super) fn op(&mut self, name: &str, args: &[Operand]) -> Operand {
        self.asm.make(self.class(), &format!("{name}.{}", self.ty()), args)
    }

    pub(super) fn add(&mut self, a: Operand, b: Operand) -> Operand {
        self.op("add.rn", &[a, b])
    }

    pub(super) fn sub(&mut self, a: Operand, b: Operand) -> Operand {
        self.op("sub.rn", &[a, b])
    }

    pub(super) fn mul(&mut self, a: Operand, b: Operand) -> Operand {
        self.op("mul.rn", &[a, b])
    }

    pub(super) fn div(&mut self, a: Operand, b: Operand) -> Operand {
        self.op("div.rn", &[a, b])
    }

    pub(super) fn neg(&mut self, x: Operand) -> Operand {
        self.op("neg", &[x])
    }

    pub(super) fn abs(&mut self, x: Operand) -> Operand {
        self.op("abs", &[x])
    }

    /// a * b + c, rounded once.
    pub(super) fn fma(&mut self, a: Operand, b: Operand, c: Operand) -> Operand {
        self.op("fma.rn", &[a, b, c])
    }

    /// |x| with the sign of another number.
    pub(super) fn signed(&mut self, x: Operand, sign: Operand) -> Operand {
        self.op("copysign", &[sign, x])
    }

    pub(super) fn test(&mut self, op: &str, a: Operand, b: f64) -> Operand {
        let (ty, b) = (self.ty(), self.number(b));
        self.asm.test(&format!("{op}.{ty}"), a, b)
    }

    pub(super) fn compare(&mut self, op: &str, a: Operand, b: Operand) -> Operand {
        let ty = self.ty();
        self.asm.test(&format!("{op}.{ty}"), a, b)
    }

    /// a if true, else b.
    pub(super) fn select(&mut self, test: Operand, a: Operand, b: Operand) -> Operand {
        self.op("selp", &[a, b, test])
    }

    pub(super) fn int(&mut self, op: &str, args: &[Operand]) -> Operand {
        self.asm.make(Class::Word, op, args)
    }

    pub(super) fn rounded(&mut self, mode: &str, x: Operand) -> Operand {
        self.op(&format!("cvt.{mode}.{}", self.ty()), &[x])
    }

    /// `c[0] + c[1] x + ..` by Horner's rule.
    pub(super) fn poly(&mut self, x: Operand, c: &[f64]) -> Operand {
        let (last, rest) = c.split_last().map_or((0.0, c), |(&last, rest)| (last, rest));
        rest.iter().rev().fold(self.number(last), |p, &c| {
            let c = self.number(c);
            self.fma(p, x, c)
        })
    }

    /// The same by a fit for each width.
    pub(super) fn fit(&mut self, x: Operand, single: &[f32], double: &[f64]) -> Operand {
        if self.double {
            return self.poly(x, double);
        }
        let c: Vec<f64> = single.iter().map(|&c| c.into()).collect();
        self.poly(x, &c)
    }

    /// The bits that say sign, exponent and first digits.
    pub(super) fn high(&mut self, x: Operand) -> Operand {
        if self.double { self.asm.split(x)[1] } else { x }
    }

    /// A number of such bits, the others 0.
    pub(super) fn of_high(&mut self, high: Operand) -> Operand {
        if self.double { self.asm.join(Operand::Int(0), high) } else { high }
    }

    /// 2 to an integer that is an exponent.
    pub(super) fn power_of_two(&mut self, n: Operand) -> Operand {
        let (unit, one) = self.of([(1 << 23, 0x3f80_0000), (1 << 20, 0x3ff0_0000)]);
        let high = self.int("mad.lo.s32", &[n, Operand::Int(unit), Operand::Int(one)]);
        self.of_high(high)
    }

    /// The nearest whole number, halves away from 0.
    fn round(&mut self, x: Operand) -> Operand {
        let whole = self.rounded("rzi", x);
        let rest = self.sub(x, whole);
        let rest = self.abs(rest);
        let up = self.test("ge", rest, 0.5);
        let one = self.number(1.0);
        let (one, zero) = (self.signed(one, x), self.number(0.0));
        let step = self.select(up, one, zero);
        let y = self.add(whole, step);
        self.signed(y, x)
    }

    /// x, but at most `high` and at least `low`; NaN stays.
    pub(super) fn clamped(&mut self, x: Operand, low: f64, high: f64) -> Operand {
        let (over, high) = (self.test("gt", x, high), self.number(high));
        let x = self.select(over, high, x);
        let (under, low) = (self.test("lt", x, low), self.number(low));
        self.select(under, low, x)
    }

    /// What is left of a division that cuts towards 0: subtractions of b times powers of 2, each exact.
    fn fmod(&mut self, x: Operand, y: Operand) -> Operand {
        let moves = if self.double { "mov.f64" } else { "mov.f32" };
        let (a, b) = (self.abs(x), self.abs(y));
        let [rest, part] = [a, b].map(|x| self.asm.make(self.class(), moves, &[x]));
        let (finite, divisor) = (self.test("lt", a, f64::INFINITY), self.test("gt", b, 0.0));
        let good = self.asm.make(Class::Truth, "and.pred", &[finite, divisor]);
        let [up, grown, down, kept, end] = [(); 5].map(|()| self.asm.label());
        let nan = self.number(f64::NAN);
        self.asm.set(rest, &format!("selp.{}", self.ty()), &[rest, nan, good]);
        self.asm.branch(false, good, end);
        self.asm.place(up);
        let double = self.add(part, part);
        let over = self.compare("gt", double, rest);
        self.asm.branch(true, over, grown);
        self.asm.set(part, moves, &[double]);
        put!(self.asm, "bra {up};");
        self.asm.place(grown);
        self.asm.place(down);
        let less = self.compare("lt", rest, part);
        self.asm.branch(true, less, kept);
        self.asm.set(rest, &format!("sub.rn.{}", self.ty()), &[rest, part]);
        self.asm.place(kept);
        let last = self.compare("le", part, b);
        self.asm.branch(true, last, end);
        let half = self.number(0.5);
        self.asm.set(part, &format!("mul.rn.{}", self.ty()), &[part, half]);
        put!(self.asm, "bra {down};");
        self.asm.place(end);
        self.signed(rest, x)
    }
}
