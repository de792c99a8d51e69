//! Exponentials, logarithms, powers, the cube root, and hyperbolic functions.

use bullet_ops::fits;

use super::asm::{Class, Operand};
use super::math::Math;

/// 1.5 times 2 to the number of digits: adding it rounds a small number to an integer, which then stands in the low bits.
const ROUND: [f64; 2] = [12_582_912.0, 6_755_399_441_055_744.0];
/// ln 2 in two parts; the first has trailing zeros, so that its product with an exponent is exact.
const LN2: [[f64; 2]; 2] =
    [[0.693_359_375, -0.000_212_194_440_054_690_57], [0.693_147_180_369_123_8, 1.908_214_929_270_587_7e-10]];
/// log2 e in two parts, of f32.
const LOG2_E: [f64; 2] = [1.442_695_021_629_333_5, 1.925_962_991_126_617_5e-8];

/// As [`fits::EXPM1`], for f64.
const EXPM1: [f64; 11] = [
    0.5,
    0.166_666_666_666_666_7,
    0.041_666_666_666_666_67,
    0.008_333_333_333_326_084,
    0.001_388_888_888_888_371_1,
    0.000_198_412_698_750_022_8,
    2.480_158_732_567_746e-5,
    2.755_725_517_000_089e-6,
    2.755_727_347_871_858e-7,
    2.510_531_272_962_210_3e-8,
    2.091_475_532_589_32e-9,
];
/// `(log(1 + f) / s - 2) / s^2` of `s^2`, where s is `f / (2 + f)`.
const LOG: [f64; 8] = [
    0.666_666_666_666_666_6,
    0.400_000_000_000_008_85,
    0.285_714_285_707_997_84,
    0.222_222_223_925_810_45,
    0.181_817_955_475_211_37,
    0.153_862_447_376_216_68,
    0.132_686_383_692_668_25,
    0.130_880_348_509_295_53,
];
/// What is left of that behind the cube.
const POW: [f64; 8] = [
    0.4,
    0.285_714_285_714_293_7,
    0.222_222_222_216_527_65,
    0.181_818_183_360_998_45,
    0.153_845_948_870_071_8,
    0.133_348_087_988_123_4,
    0.117_061_264_645_633_98,
    0.117_243_270_608_467_47,
];
/// The same of fewer digits.
const POW_SINGLE: [f64; 3] = [0.400_000_150_969_565_15, 0.285_622_192_416_766_2, 0.230_490_028_044_481];

/// A number as a whole multiple of ln 2 and a rest.
struct Reduced {
    /// What is left.
    rest: Operand,
    /// n, as an integer.
    n: Operand,
    /// The bits of which n is the low part.
    raw: Operand,
}

impl Math<'_> {
    /// `x = n ln 2 + rest` with |rest| <= ln 2 / 2, for x of a size whose exponential is a number.
    fn reduce_exp(&mut self, x: Operand) -> Reduced {
        let round = self.number(self.of(ROUND));
        let scale = self.number(std::f64::consts::LOG2_E);
        let raw = self.fma(x, scale, round);
        let n = self.sub(raw, round);
        let [high, low] = self.of(LN2).map(|part| self.number(-part));
        let rest = self.fma(n, high, x);
        let rest = self.fma(n, low, rest);
        let raw = if self.double { self.asm.split(raw)[0] } else { raw };
        let n = if self.double { raw } else { self.int("sub.s32", &[raw, Operand::Int(0x4b40_0000)]) };
        Reduced { rest, n, raw }
    }

    /// `e^r - 1` for |r| <= ln 2 / 2.
    fn expm1_small(&mut self, r: Operand) -> Operand {
        let q = self.fit(r, &fits::EXPM1, &EXPM1);
        let square = self.mul(r, r);
        self.fma(square, q, r)
    }

    /// y times 2^n, in two steps: 2^n may be no number where the product is.
    fn scaled(&mut self, y: Operand, n: Operand) -> Operand {
        let half = self.int("shr.s32", &[n, Operand::Int(1)]);
        let rest = self.int("sub.s32", &[n, half]);
        let (half, rest) = (self.power_of_two(half), self.power_of_two(rest));
        let y = self.mul(y, half);
        self.mul(y, rest)
    }

    pub(super) fn exp(&mut self, x: Operand) -> Operand {
        self.exp_sum(x, None)
    }

    /// `e^(x + tail)`, where the tail is small, and finite.
    pub(super) fn exp_sum(&mut self, x: Operand, tail: Option<Operand>) -> Operand {
        let (low, high) = self.of([(-104.0, 89.0), (-746.0, 710.0)]);
        if self.double {
            let x = self.clamped(x, low, high);
            let Reduced { mut rest, n, .. } = self.reduce_exp(x);
            if let Some(tail) = tail {
                rest = self.add(rest, tail);
            }
            let small = self.expm1_small(rest);
            let one = self.number(1.0);
            let y = self.add(one, small);
            return self.scaled(y, n);
        }
        // The hardware has 2^f; of what lies outside it makes 0 or infinity, and NaN stays.
        let (low, high) = (self.number(low), self.number(high));
        let near = self.op("min", &[x, high]);
        let near = self.op("max", &[near, low]);
        let round = self.number(ROUND[0]);
        let [scale, scale_low] = LOG2_E.map(|part| self.number(part));
        let raw = self.fma(near, scale, round);
        let n = self.int("sub.s32", &[raw, Operand::Int(0x4b40_0000)]);
        let less = self.sub(round, raw);
        let f = self.fma(x, scale, less);
        let mut f = self.fma(x, scale_low, f);
        if let Some(tail) = tail {
            f = self.fma(tail, scale, f);
        }
        let y = self.op("ex2.approx.ftz", &[f]);
        self.scaled(y, n)
    }

    /// `e^x - 1` for |x| up to 20, or 40 of f64.
    fn expm1_near(&mut self, x: Operand) -> Operand {
        let Reduced { rest, raw, n } = self.reduce_exp(x);
        let small = self.expm1_small(rest);
        // The low bits of `raw` are those of n.
        let scale = self.power_of_two(if self.double { n } else { raw });
        let one = self.number(1.0);
        let less = self.sub(scale, one);
        self.fma(scale, small, less)
    }

    pub(super) fn tanh(&mut self, x: Operand) -> Operand {
        let (a, two) = (self.abs(x), self.number(2.0));
        let y = self.mul(two, a);
        let most = self.of([20.0, 44.0]);
        let (over, most) = (self.test("gt", y, most), self.number(most));
        let y = self.select(over, most, y);
        let e = self.expm1_near(y);
        let under = self.add(e, two);
        let y = self.div(e, under);
        self.signed(y, x)
    }

    /// `e^(|x| / 2)` and whether |x| is so large that 1 is nothing beside `e^|x|`.
    fn root_exp(&mut self, a: Operand) -> (Operand, Operand, Operand) {
        let half = self.number(0.5);
        let near = self.mul(half, a);
        let root = self.exp_sum(near, None);
        let (large, halved) = (self.test("gt", a, self.of([20.0, 40.0])), self.mul(half, root));
        let far = self.mul(halved, root);
        (root, large, far)
    }

    pub(super) fn sinh(&mut self, x: Operand) -> Operand {
        let a = self.abs(x);
        let (_, large, far) = self.root_exp(a);
        let most = self.of([20.0, 40.0]);
        let near = self.clamped(a, 0.0, most);
        let e = self.expm1_near(near);
        let (one, half) = (self.number(1.0), self.number(0.5));
        let under = self.add(e, one);
        let part = self.div(e, under);
        let sum = self.add(e, part);
        let near = self.mul(half, sum);
        let y = self.select(large, far, near);
        self.signed(y, x)
    }

    pub(super) fn cosh(&mut self, x: Operand) -> Operand {
        let a = self.abs(x);
        let (_, large, far) = self.root_exp(a);
        let e = self.exp_sum(a, None);
        let half = self.number(0.5);
        let part = self.div(half, e);
        let near = self.fma(half, e, part);
        self.select(large, far, near)
    }

    /// `x = 2^e (1 + f)` with `1 + f` between the roots of 1/2 and 2, of positive finite numbers: (e, f).
    fn log_parts(&mut self, x: Operand) -> (Operand, Operand) {
        let (least, up, digits) =
            self.of([(f64::from(f32::MIN_POSITIVE), 23.0, 23), (f64::MIN_POSITIVE, 54.0, 20)]);
        let (root, mask) = self.of([(0x3f35_04f3, 0x007f_ffff), (0x3fe6_a09e, 0x000f_ffff)]);
        let denormal = self.test("lt", x, least);
        let factor = self.number(f64::exp2(up));
        let large = self.mul(x, factor);
        let x = self.select(denormal, large, x);
        let (low, high) = match self.double {
            true => {
                let [low, high] = self.asm.split(x);
                (Some(low), high)
            }
            false => (None, x),
        };
        let bits = self.int("sub.s32", &[high, Operand::Int(root)]);
        let e = self.int("shr.s32", &[bits, Operand::Int(digits)]);
        let e = self.asm.make(self.class(), &format!("cvt.rn.{}.s32", self.ty()), &[e]);
        let (up, zero) = (self.number(up), self.number(0.0));
        let less = self.select(denormal, up, zero);
        let e = self.sub(e, less);
        let part = self.int("and.b32", &[bits, Operand::Int(mask)]);
        let part = self.int("add.s32", &[part, Operand::Int(root)]);
        let m = low.map_or(part, |low| self.asm.join(low, part));
        let one = self.number(1.0);
        (e, self.sub(m, one))
    }

    /// `log(1 + f) - f`.
    fn log_tail(&mut self, f: Operand) -> Operand {
        let half = self.number(-0.5);
        let square = self.mul(f, f);
        let negative = self.mul(half, square);
        if !self.double {
            let q = self.fit(f, &fits::LOG1P, &[]);
            let cube = self.mul(square, f);
            return self.fma(cube, q, negative);
        }
        let two = self.number(2.0);
        let under = self.add(two, f);
        let s = self.div(f, under);
        let z = self.mul(s, s);
        let r = self.poly(z, &LOG);
        let r = self.mul(z, r);
        let r = self.sub(r, negative);
        self.fma(s, r, negative)
    }

    /// y, the logarithm of a positive finite `x`; of other numbers what it is of these.
    fn log_limits(&mut self, x: Operand, y: Operand) -> Operand {
        let infinite = self.test("eq", x, f64::INFINITY);
        let y = self.select(infinite, x, y);
        let (zero, least) = (self.test("eq", x, 0.0), self.number(f64::NEG_INFINITY));
        let y = self.select(zero, least, y);
        // Below 0 and NaN.
        let (good, nan) = (self.test("ge", x, 0.0), self.number(f64::NAN));
        self.select(good, y, nan)
    }

    pub(super) fn log(&mut self, x: Operand) -> Operand {
        let (e, f) = self.log_parts(x);
        let tail = self.log_tail(f);
        let [high, low] = self.of(LN2).map(|part| self.number(part));
        let sum = self.fma(e, low, tail);
        let sum = self.add(f, sum);
        let y = self.fma(e, high, sum);
        self.log_limits(x, y)
    }

    pub(super) fn log2(&mut self, x: Operand) -> Operand {
        let (e, f) = self.log_parts(x);
        let tail = self.log_tail(f);
        let scale = self.number(std::f64::consts::LOG2_E);
        let sum = self.add(f, tail);
        let y = self.fma(sum, scale, e);
        self.log_limits(x, y)
    }

    pub(super) fn log10(&mut self, x: Operand) -> Operand {
        let y = self.log(x);
        let scale = self.number(std::f64::consts::LOG10_E);
        self.mul(y, scale)
    }

    pub(super) fn cbrt(&mut self, x: Operand) -> Operand {
        let a = self.abs(x);
        let (least, up) = self.of([(f64::from(f32::MIN_POSITIVE), 24), (f64::MIN_POSITIVE, 54)]);
        let small = self.test("lt", a, least);
        let factor = self.number(f64::exp2(up.into()));
        let large = self.mul(a, factor);
        let near = self.select(small, large, a);
        // A third of the exponent, and then Newton's steps, each of which doubles the digits.
        let third = self.high(near);
        let third = self.int("div.u32", &[third, Operand::Int(3)]);
        let first = self.int("add.u32", &[third, Operand::Int(self.of([0x2a51_19f2, 0x2a9f_7893]))]);
        let mut y = self.of_high(first);
        let part = self.number(1.0 / 3.0);
        for _ in 0..self.of([3, 5]) {
            let square = self.mul(y, y);
            let other = self.div(near, square);
            let less = self.sub(other, y);
            y = self.fma(less, part, y);
        }
        let (down, one) = (self.number(f64::exp2(-f64::from(up) / 3.0)), self.number(1.0));
        let scale = self.select(small, down, one);
        let y = self.mul(y, scale);
        let y = self.signed(y, x);
        let (positive, finite) = (self.test("gt", a, 0.0), self.test("lt", a, f64::INFINITY));
        let good = self.asm.make(Class::Truth, "and.pred", &[positive, finite]);
        self.select(good, y, x)
    }

    /// The logarithm of a positive finite number, as a sum.
    fn log_sum(&mut self, x: Operand) -> (Operand, Operand) {
        let (e, f) = self.log_parts(x);
        let two = self.number(2.0);
        let under = self.add(two, f);
        let cut = self.sub(under, two);
        let cut = self.sub(f, cut);
        let s = self.div(f, under);
        let negative = self.neg(s);
        let rest = self.fma(negative, under, f);
        let rest = self.fma(negative, cut, rest);
        let s_low = self.div(rest, under);
        let z = self.mul(s, s);
        let less = self.neg(z);
        let z_low = self.fma(s, s, less);
        let cube = self.mul(s, z);
        let less = self.neg(cube);
        let cube_low = self.fma(s, z, less);
        let cube_low = self.fma(s, z_low, cube_low);
        // 2 s + 2/3 s^3 + s^5 q
        let factor = self.of([f64::from(2.0f32 / 3.0), 2.0 / 3.0]);
        let factor_low = self.of([2.0 / 3.0 - f64::from(2.0f32 / 3.0), 3.700_743_415_417_188e-17]);
        let (factor, factor_low) = (self.number(factor), self.number(factor_low));
        let b = self.mul(cube, factor);
        let less = self.neg(b);
        let b_low = self.fma(cube, factor, less);
        let b_low = self.fma(cube, factor_low, b_low);
        let b_low = self.fma(cube_low, factor, b_low);
        let q = if self.double { self.poly(z, &POW) } else { self.poly(z, &POW_SINGLE) };
        let fifth = self.mul(cube, z);
        let mut low = self.fma(fifth, q, b_low);
        low = self.fma(two, s_low, low);
        let [ln2, ln2_low] = self.of(LN2).map(|part| self.number(part));
        low = self.fma(e, ln2_low, low);
        let mut high = self.mul(e, ln2);
        let a = self.mul(two, s);
        for part in [a, b] {
            let sum = self.add(high, part);
            let lost = self.sub(sum, high);
            let lost = self.sub(part, lost);
            low = self.add(low, lost);
            high = sum;
        }
        let sum = self.add(high, low);
        let lost = self.sub(sum, high);
        (sum, self.sub(low, lost))
    }

    pub(super) fn pow(&mut self, x: Operand, y: Operand) -> Operand {
        let a = self.abs(x);
        let (high, low) = self.log_sum(a);
        let (zero, infinite) = (self.test("eq", a, 0.0), self.test("eq", a, f64::INFINITY));
        let (least, most) = (self.number(f64::NEG_INFINITY), self.number(f64::INFINITY));
        let high = self.select(zero, least, high);
        let high = self.select(infinite, most, high);
        let high = self.add_nan(high, a);
        // y times it, as a sum; of what is out of range only the sign counts.
        let product = self.mul(high, y);
        let less = self.neg(product);
        let tail = self.fma(high, y, less);
        let tail = self.fma(low, y, tail);
        let (size, nothing) = (self.abs(product), self.number(0.0));
        let near = self.test("lt", size, self.of([200.0, 2000.0]));
        let tail = self.select(near, tail, nothing);
        let power = self.exp_sum(product, Some(tail));
        let (one, is_one) = (self.number(1.0), self.test("eq", a, 1.0));
        let power = self.select(is_one, one, power);
        // Of a negative x: the sign by whether y is odd, and no number unless y is whole.
        let (whole, half) = (self.rounded("rni", y), self.number(0.5));
        let halved = self.mul(y, half);
        let even = self.rounded("rni", halved);
        let (is_whole, is_odd) = (self.compare("eq", whole, y), self.compare("neu", even, halved));
        let sign = self.signed(one, x);
        let negative = self.test("lt", sign, 0.0);
        let odd = self.asm.make(Class::Truth, "and.pred", &[is_whole, is_odd]);
        let odd = self.asm.make(Class::Truth, "and.pred", &[odd, negative]);
        let less = self.neg(power);
        let power = self.select(odd, less, power);
        let below = self.test("lt", x, 0.0);
        let nan = self.number(f64::NAN);
        let whole = self.asm.make(Class::Truth, "or.pred", &[is_whole, infinite]);
        let wrong = self.select(whole, power, nan);
        let power = self.select(below, wrong, power);
        // 1 to anything, and anything to 0.
        let (unit, none) = (self.test("eq", x, 1.0), self.test("eq", y, 0.0));
        let sure = self.asm.make(Class::Truth, "or.pred", &[unit, none]);
        self.select(sure, one, power)
    }

    /// x, or NaN if another number is.
    fn add_nan(&mut self, x: Operand, other: Operand) -> Operand {
        let number = self.compare("num", other, other);
        let nan = self.number(f64::NAN);
        self.select(number, x, nan)
    }
}
