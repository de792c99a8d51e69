//! The derivative of each pure operation, as instructions.
//!
//! At kinks: `abs` at 0 has slope 1; `min` and `max` of equals give to the second; `sign`, `step`, `nonzero`, rounding and
//! casts to integers have slope 0; `x % y` has slope 1 in x and `-trunc(x / y)` in y; `atan2(0, 0)` has slope 0;
//! `pow(0, y)` has slope 0 in y.

use bullet_ops::DType;

use super::reverse::Reverse;
use crate::ir::{Binary, Compare, Op, Unary, Value, Values};

impl Reverse<'_> {
    /// Gives the operands of a pure operation what its result was given.
    pub(super) fn rule(&mut self, op: Op, args: &Values, result: Value, g: Value) {
        match op {
            Op::Unary(op) => self.unary(op, args[0], result, g),
            Op::Binary(op) => self.binary(op, args[0], args[1], result, g),
            Op::Select => {
                let test = self.obtain(args[0]);
                self.choose(test, args[1], args[2], g);
            }
            Op::Cast if self.is_active(args[0]) => {
                let dtype = self.f.dtype(args[0]);
                let cast = self.b.cast(dtype, g);
                self.give_like(args[0], g, cast);
            }
            _ => {}
        }
    }

    /// A number of the type of a gradient.
    fn number(&mut self, like: Value, value: f64) -> Value {
        let dtype: DType = self.b.kernel.dtype(like);
        self.b.float(dtype, value)
    }

    /// Gives a gradient that is made of another, and masked if that is.
    fn give_like(&mut self, to: Value, from: Value, gradient: Value) {
        if self.is_masked(from) {
            self.mask(gradient);
        }
        self.give(to, gradient);
    }

    /// Gives `g * derivative`, which is 0 where `g` was masked.
    fn give_scaled(&mut self, to: Value, g: Value, derivative: Value) {
        let is_finite =
            self.b.kernel.as_const(derivative).and_then(|known| known.as_float()).is_some_and(f64::is_finite);
        let op = if self.is_masked(g) && !is_finite { Binary::MulMasked } else { Binary::Mul };
        let product = self.b.binary(op, g, derivative);
        self.give_like(to, g, product);
    }

    /// Gives to one of two.
    fn choose(&mut self, test: Value, a: Value, b: Value, g: Value) {
        let zero = self.number(g, 0.0);
        if self.is_active(a) {
            let chosen = self.b.select(test, g, zero);
            self.mask(chosen);
            self.give(a, chosen);
        }
        if self.is_active(b) {
            let chosen = self.b.select(test, zero, g);
            self.mask(chosen);
            self.give(b, chosen);
        }
    }

    fn negated(&mut self, to: Value, g: Value) {
        if self.is_active(to) {
            let negative = self.b.neg(g);
            self.give_like(to, g, negative);
        }
    }

    fn unary(&mut self, op: Unary, x: Value, result: Value, g: Value) {
        if !self.is_active(x) {
            return;
        }
        match op {
            Unary::Neg => return self.negated(x, g),
            Unary::Abs => {
                let value = self.obtain(x);
                let zero = self.number(g, 0.0);
                let below = self.b.compare(Compare::Lt, value, zero);
                let negative = self.b.neg(g);
                let chosen = self.b.select(below, negative, g);
                return self.give_like(x, g, chosen);
            }
            _ => {}
        }
        if let Some(derivative) = self.derivative(op, x, result, g) {
            self.give_scaled(x, g, derivative);
        }
    }

    /// The derivative of a smooth function; `None` where it is 0.
    fn derivative(&mut self, op: Unary, x: Value, result: Value, g: Value) -> Option<Value> {
        let one = self.number(g, 1.0);
        let ln = |base: f64| 1.0 / base.ln();
        Some(match op {
            Unary::Sqrt => {
                // The same number as 0.5 / y, by a quotient that is often there and cheaper: that of a root is never out of range.
                let (y, half) = (self.obtain(result), self.number(g, 0.5));
                let inverse = self.b.div(one, y);
                self.b.mul(half, inverse)
            }
            Unary::Cbrt => {
                let (y, three) = (self.obtain(result), self.number(g, 3.0));
                let square = self.b.mul(y, y);
                let scaled = self.b.mul(three, square);
                self.b.div(one, scaled)
            }
            Unary::Exp => self.obtain(result),
            Unary::Log => {
                let x = self.obtain(x);
                self.b.div(one, x)
            }
            Unary::Log2 | Unary::Log10 => {
                let scale = self.number(g, if op == Unary::Log2 { ln(2.0) } else { ln(10.0) });
                let x = self.obtain(x);
                self.b.div(scale, x)
            }
            Unary::Sin => {
                let x = self.obtain(x);
                self.b.unary(Unary::Cos, x)
            }
            Unary::Cos => {
                let x = self.obtain(x);
                let sin = self.b.unary(Unary::Sin, x);
                self.b.neg(sin)
            }
            Unary::Tan => {
                let y = self.obtain(result);
                let square = self.b.mul(y, y);
                self.b.add(one, square)
            }
            Unary::Asin | Unary::Acos => {
                let x = self.obtain(x);
                let (below, above) = (self.b.sub(one, x), self.b.add(one, x));
                let product = self.b.mul(below, above);
                let root = self.b.unary(Unary::Sqrt, product);
                let signed = if op == Unary::Asin { one } else { self.number(g, -1.0) };
                self.b.div(signed, root)
            }
            Unary::Atan => {
                let x = self.obtain(x);
                let square = self.b.mul(x, x);
                let sum = self.b.add(one, square);
                self.b.div(one, sum)
            }
            Unary::Sinh | Unary::Cosh => {
                let x = self.obtain(x);
                self.b.unary(if op == Unary::Sinh { Unary::Cosh } else { Unary::Sinh }, x)
            }
            Unary::Tanh => {
                let y = self.obtain(result);
                let (below, above) = (self.b.sub(one, y), self.b.add(one, y));
                self.b.mul(below, above)
            }
            Unary::Erf | Unary::Erfc => {
                let x = self.obtain(x);
                let square = self.b.mul(x, x);
                let negative = self.b.neg(square);
                let bell = self.b.unary(Unary::Exp, negative);
                let sign = if op == Unary::Erf { 1.0 } else { -1.0 };
                let scale = self.number(g, sign * std::f64::consts::FRAC_2_SQRT_PI);
                self.b.mul(scale, bell)
            }
            Unary::Erfinv => {
                let y = self.obtain(result);
                let square = self.b.mul(y, y);
                let bell = self.b.unary(Unary::Exp, square);
                let scale = self.number(g, 1.0 / std::f64::consts::FRAC_2_SQRT_PI);
                self.b.mul(scale, bell)
            }
            Unary::Sign
            | Unary::Step
            | Unary::Nonzero
            | Unary::Floor
            | Unary::Ceil
            | Unary::Round
            | Unary::Rint
            | Unary::Trunc
            | Unary::Neg
            | Unary::Abs
            | Unary::Not
            | Unary::Invert
            | Unary::IsNan
            | Unary::IsInf
            | Unary::IsFinite => return None,
        })
    }

    fn binary(&mut self, op: Binary, a: Value, b: Value, result: Value, g: Value) {
        match op {
            Binary::Add => {
                self.give(a, g);
                self.give(b, g);
            }
            Binary::Sub => {
                self.give(a, g);
                self.negated(b, g);
            }
            Binary::Mul if a == b => {
                if self.is_active(a) {
                    let (x, twice) = (self.obtain(a), self.b.add(g, g));
                    if self.is_masked(g) {
                        self.mask(twice);
                    }
                    self.give_scaled(a, twice, x);
                }
            }
            Binary::Mul | Binary::MulMasked => {
                for (to, other) in [(a, b), (b, a)] {
                    if self.is_active(to) {
                        let other = self.obtain(other);
                        self.give_scaled(to, g, other);
                    }
                }
            }
            Binary::Div => self.quotient(a, b, result, g),
            Binary::Mod => {
                self.give(a, g);
                if self.is_active(b) {
                    let (x, y) = (self.obtain(a), self.obtain(b));
                    let quotient = self.b.div(x, y);
                    let whole = self.b.unary(Unary::Trunc, quotient);
                    let negative = self.b.neg(whole);
                    self.give_scaled(b, g, negative);
                }
            }
            Binary::Pow => self.power(a, b, result, g),
            Binary::Min | Binary::Max => {
                // fmin and fmax give the operand that is a number.
                let (x, y) = (self.obtain(a), self.obtain(b));
                let compare = if op == Binary::Min { Compare::Lt } else { Compare::Gt };
                let beats = self.b.compare(compare, x, y);
                let alone = self.b.unary(Unary::IsNan, y);
                let first = self.b.binary(Binary::Or, beats, alone);
                self.choose(first, a, b, g);
            }
            Binary::Atan2 => self.angle(a, b, g),
            Binary::Copysign => {
                if self.is_active(a) {
                    let (x, y) = (self.obtain(a), self.obtain(b));
                    let one = self.number(g, 1.0);
                    let (left, right) =
                        (self.b.binary(Binary::Copysign, one, x), self.b.binary(Binary::Copysign, one, y));
                    let sign = self.b.mul(left, right);
                    self.give_scaled(a, g, sign);
                }
            }
            Binary::And | Binary::Or | Binary::Xor | Binary::Shl | Binary::Shr => {}
        }
    }

    fn quotient(&mut self, a: Value, b: Value, result: Value, g: Value) {
        let y = self.obtain(b);
        if self.is_active(a) {
            if self.is_masked(g) {
                let one = self.number(g, 1.0);
                let inverse = self.b.div(one, y);
                self.give_scaled(a, g, inverse);
            } else {
                let part = self.b.div(g, y);
                self.give(a, part);
            }
        }
        if self.is_active(b) {
            let quotient = self.obtain(result);
            let is_inverse = self.f.as_const(a).is_some_and(|known| known.is(1));
            let ratio = if is_inverse { self.b.mul(quotient, quotient) } else { self.b.div(quotient, y) };
            let negative = self.b.neg(ratio);
            self.give_scaled(b, g, negative);
        }
    }

    fn power(&mut self, a: Value, b: Value, result: Value, g: Value) {
        let (x, y) = (self.obtain(a), self.obtain(b));
        if self.is_active(a) {
            let one = self.number(g, 1.0);
            let less = self.b.sub(y, one);
            let power = self.b.binary(Binary::Pow, x, less);
            // x^0 is 1 everywhere, at 0 too.
            let known = self.b.kernel.as_const(y).is_some();
            let derivative = self.b.binary(if known { Binary::Mul } else { Binary::MulMasked }, y, power);
            self.give_scaled(a, g, derivative);
        }
        if self.is_active(b) {
            let zero = self.number(g, 0.0);
            let log = self.b.unary(Unary::Log, x);
            let value = self.obtain(result);
            let product = self.b.mul(log, value);
            let at_zero = self.b.compare(Compare::Eq, x, zero);
            let derivative = self.b.select(at_zero, zero, product);
            self.give_scaled(b, g, derivative);
        }
    }

    fn angle(&mut self, a: Value, b: Value, g: Value) {
        let (y, x) = (self.obtain(a), self.obtain(b));
        let (zero, one) = (self.number(g, 0.0), self.number(g, 1.0));
        let (yy, xx) = (self.b.mul(y, y), self.b.mul(x, x));
        let square = self.b.add(yy, xx);
        let inverse = self.b.div(one, square);
        let is_origin = self.b.compare(Compare::Eq, square, zero);
        let inverse = self.b.select(is_origin, zero, inverse);
        if self.is_active(a) {
            let derivative = self.b.mul(x, inverse);
            self.give_scaled(a, g, derivative);
        }
        if self.is_active(b) {
            let part = self.b.mul(y, inverse);
            let derivative = self.b.neg(part);
            self.give_scaled(b, g, derivative);
        }
    }
}
