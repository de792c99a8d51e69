//! Sine, cosine, tangent and their inverses.
//!
//! An angle is reduced by pi / 2 in three parts, of which the products are exact enough while the multiple fits its type; larger
//! ones go through the bits of 2 / pi that matter for them.

use std::fmt::Write;

use bullet_ops::fits;

use super::asm::{Class, Operand, Place};
use super::math::{Function, Math};

/// pi / 2 in parts, of f32 and of f64.
const PIO2: [[f64; 3]; 2] = [
    [1.570_796_251_296_997, 7.549_789_415_861_596e-8, 5.390_302_529_957_765e-15],
    [std::f64::consts::FRAC_PI_2, 6.123_233_995_736_766e-17, -1.497_384_904_859_169_7e-33],
];
/// The largest angles that are reduced by them.
const LARGE: [f64; 2] = [105_615.0, 1_073_741_824.0];

/// As [`fits::SIN`] and [`fits::COS`], for f64.
const SIN: [f64; 7] = [
    -0.166_666_666_666_666_66,
    0.008_333_333_333_333_331,
    -0.000_198_412_698_412_650_17,
    2.755_731_921_930_192e-6,
    -2.505_210_621_952_189_5e-8,
    1.605_852_957_226_787_7e-10,
    -7.586_576_588_171_073e-13,
];
const COS: [f64; 7] = [
    0.041_666_666_666_666_664,
    -0.001_388_888_888_888_888_7,
    2.480_158_730_158_462e-5,
    -2.755_731_922_138_211_4e-7,
    2.087_675_578_389_404e-9,
    -1.147_045_974_967_560_5e-11,
    4.745_804_889_760_674e-14,
];
/// As [`fits::ATAN`] and [`fits::ASIN`], for f64.
const ATAN: [f64; 13] = [
    -0.333_333_333_333_333_3,
    0.199_999_999_999_999_93,
    -0.142_857_142_857_115_15,
    0.111_111_111_107_544_06,
    -0.090_909_090_669_906_6,
    0.076_923_067_353_214_76,
    -0.066_666_420_049_965_45,
    0.058_819_250_338_777_32,
    -0.052_580_394_289_794_816,
    0.047_193_814_578_951_37,
    -0.041_043_814_178_076_43,
    0.030_634_433_239_014_52,
    -0.013_916_943_217_800_841,
];
const ASIN: [f64; 14] = [
    0.166_666_666_666_666_66,
    0.075_000_000_000_001_18,
    0.044_642_857_142_551_895,
    0.030_381_944_475_532_34,
    0.022_372_157_443_507_22,
    0.017_352_816_540_325_496,
    0.013_963_780_012_203_57,
    0.011_566_459_612_121_669,
    0.009_621_842_970_100_282,
    0.009_319_560_794_767_446,
    0.003_044_879_909_455_677_3,
    0.019_554_513_336_123_378,
    -0.019_241_671_746_743_04,
    0.029_612_011_264_955_12,
];

/// The first bits of 2 / pi, behind 64 zeros.
const TWO_OVER_PI: [u64; 19] = [
    0,
    0xa2f9_836e_4e44_1529,
    0xfc27_57d1_f534_ddc0,
    0xdb62_9599_3c43_9041,
    0xfe51_63ab_debb_c561,
    0xb724_6e3a_424d_d2e0,
    0x0649_2eea_09d1_921c,
    0xfe1d_eb1c_b129_a73e,
    0xe882_35f5_2ebb_4484,
    0xe99c_7026_b45f_7e41,
    0x3991_d639_8353_39f4,
    0x9c84_5f8b_bdf9_283b,
    0x1ff8_97ff_de05_980f,
    0xef2f_118b_5a0a_6d1f,
    0x6d36_7ecf_27cb_09b7,
    0x4f46_3f66_9e5f_ea2d,
    0x7527_bac7_ebe5_f17b,
    0x3d07_39f7_8a52_92ea,
    0x6bfb_5fb1_1f8d_5d08,
];

/// The name of these bits in a module.
const TABLE: Operand = Operand::Name("two_over_pi", 0);

/// Writes them.
pub(super) fn table(out: &mut String) {
    let words: Vec<String> = TWO_OVER_PI.iter().map(|word| format!("{word:#x}")).collect();
    let _ = writeln!(out, ".const .align 8 .b64 {TABLE}[{}]={{{}}};", words.len(), words.join(","));
}

impl Math<'_> {
    /// What an angle is behind the next multiple of pi / 2, and that multiple's number.
    fn reduce(&mut self, x: Operand) -> (Operand, Operand) {
        let (ty, class) = (self.ty(), self.class());
        let scale = self.number(std::f64::consts::FRAC_2_PI);
        let quadrant = self.mul(x, scale);
        let quadrant = self.asm.make(Class::Word, &format!("cvt.rni.s32.{ty}"), &[quadrant]);
        let n = self.asm.make(class, &format!("cvt.rn.{ty}.s32"), &[quadrant]);
        let rest = self.of(PIO2).into_iter().fold(x, |rest, part| {
            let part = self.number(-part);
            self.fma(n, part, rest)
        });
        let size = self.abs(x);
        let large = self.test("gt", size, self.of(LARGE));
        let near = self.asm.label();
        self.asm.branch(false, large, near);
        let wide = if self.double { x } else { self.asm.make(Class::Long, "cvt.f64.f32", &[x]) };
        let angle = Math::new(self.asm, true).use_of(Function::Reduce, &[wide]);
        let [low, high] = self.asm.split(angle);
        let number = self.int("bfe.u32", &[high, Operand::Int(20), Operand::Int(11)]);
        let number = self.int("sub.s32", &[number, Operand::Int(1023 - 128)]);
        let number = self.int("shr.s32", &[number, Operand::Int(8)]);
        self.asm.set(quadrant, "and.b32", &[number, Operand::Int(3)]);
        let high = self.int("mad.lo.s32", &[quadrant, Operand::Int(-(1 << 28)), high]);
        let angle = self.asm.join(low, high);
        self.asm.set(rest, if self.double { "mov.f64" } else { "cvt.rn.f32.f64" }, &[angle]);
        self.asm.place(near);
        (rest, quadrant)
    }

    /// Of an angle of f64 beyond 2^16: what it is behind the next multiple of pi / 2, times `2^(256 n)` for that multiple's number n
    /// up to 3: a function has one result. No such rest is below 2^-64.
    ///
    /// The angle is `m 2^e` with a whole m. Bits of 2 / pi that make multiples of 4 with `2^e` do not count, and of the others the
    /// first 192 are enough; the two highest bits of that product are the number, the others the rest in fractions of pi / 2.
    pub(super) fn reduce_large(&mut self, x: Operand) -> Operand {
        let long = |this: &mut Self, op: &str, args: &[Operand]| this.asm.make(Class::Long, op, args);
        let int = Operand::Int;
        let [_, high] = self.asm.split(x);
        let e = self.int("bfe.u32", &[high, int(20), int(11)]);
        let m = long(self, "and.b64", &[x, int((1 << 52) - 1)]);
        let m = long(self, "or.b64", &[m, int(1 << 52)]);
        // The first bit that counts, in a table of 64 zeros and then 2 / pi; infinities have no such.
        let bit = self.int("sub.s32", &[e, int(1075 + 2 - 64)]);
        let bit = self.int("min.s32", &[bit, int(64 * (TWO_OVER_PI.len() as i64 - 4) + 63)]);
        let bit = self.int("max.s32", &[bit, int(0)]);
        let word = self.int("shr.u32", &[bit, int(6)]);
        let shift = self.int("and.b32", &[bit, int(63)]);
        let other = self.int("sub.s32", &[int(64), shift]);
        let base = long(self, "mov.u64", &[TABLE]);
        let place = long(self, "mad.wide.u32", &[word, int(8), base]);
        let words = [0, 8, 16, 24]
            .map(|offset| self.asm.load(Class::Long, "ld.const.b64", Place { base: place, offset }));
        let [w2, w1, w0] = [0, 1, 2].map(|i| {
            let left = long(self, "shl.b64", &[words[i], shift]);
            let right = long(self, "shr.u64", &[words[i + 1], other]);
            long(self, "or.b64", &[left, right])
        });
        let carry = long(self, "mul.hi.u64", &[m, w0]);
        let low = long(self, "mul.lo.u64", &[m, w1]);
        let p1 = long(self, "add.u64", &[low, carry]);
        let over = self.asm.test("lt.u64", p1, low);
        let carry = long(self, "selp.b64", &[int(1), int(0), over]);
        let carry = long(self, "mad.hi.u64", &[m, w1, carry]);
        let p2 = long(self, "mad.lo.u64", &[m, w2, carry]);
        let number = long(self, "shr.u64", &[p2, int(62)]);
        let number = self.int("cvt.u32.u64", &[number]);
        let above = long(self, "shl.b64", &[p2, int(2)]);
        let below = long(self, "shr.u64", &[p1, int(62)]);
        let first = long(self, "or.b64", &[above, below]);
        let second = long(self, "shl.b64", &[p1, int(2)]);
        self.nearest(x, number, first, second)
    }

    /// The fraction `first second` of pi / 2 as an angle up to half of that on either side, with the number in its exponent.
    fn nearest(&mut self, x: Operand, number: Operand, first: Operand, second: Operand) -> Operand {
        let long = |this: &mut Self, op: &str, args: &[Operand]| this.asm.make(Class::Long, op, args);
        let int = Operand::Int;
        let mask = long(self, "shr.s64", &[first, int(63)]);
        let up = self.asm.test("lt.s64", first, int(0));
        let step = self.int("selp.b32", &[int(1), int(0), up]);
        let number = self.int("add.s32", &[number, step]);
        let first = long(self, "xor.b64", &[first, mask]);
        let second = long(self, "xor.b64", &[second, mask]);
        let zeros = self.int("clz.b64", &[first]);
        let others = self.int("sub.s32", &[int(64), zeros]);
        let left = long(self, "shl.b64", &[first, zeros]);
        let right = long(self, "shr.u64", &[second, others]);
        let digits = long(self, "or.b64", &[left, right]);
        let size = long(self, "cvt.rn.f64.u64", &[digits]);
        let scale = self.int("add.s32", &[zeros, int(64)]);
        let scale = self.int("mad.lo.s32", &[scale, int(-(1 << 20)), int(0x3ff0_0000)]);
        let scale = self.asm.join(int(0), scale);
        let unit = self.number(std::f64::consts::FRAC_PI_2);
        let angle = self.mul(size, unit);
        let angle = self.mul(angle, scale);
        let minus = self.neg(angle);
        let angle = self.select(up, minus, angle);
        // Of the negative both are the negatives.
        let negative = self.test("lt", x, 0.0);
        let minus = self.neg(angle);
        let angle = self.select(negative, minus, angle);
        let less = self.int("neg.s32", &[number]);
        let number = self.int("selp.b32", &[less, number, negative]);
        let finite = self.asm.make(Class::Truth, "testp.finite.f64", &[x]);
        let [low, high] = self.asm.split(angle);
        let number = self.int("and.b32", &[number, int(3)]);
        let high = self.int("mad.lo.s32", &[number, int(1 << 28), high]);
        let angle = self.asm.join(low, high);
        let nan = self.number(f64::NAN);
        self.select(finite, angle, nan)
    }

    /// Sine and cosine of a reduced angle.
    fn both(&mut self, r: Operand) -> (Operand, Operand) {
        let z = self.mul(r, r);
        let p = self.fit(z, &fits::SIN, &SIN);
        let cube = self.mul(z, r);
        let sine = self.fma(cube, p, r);
        let p = self.fit(z, &fits::COS, &COS);
        let (half, one) = (self.number(-0.5), self.number(1.0));
        let square = self.mul(z, z);
        let near = self.fma(z, half, one);
        // What that rounding lost.
        let lost = self.sub(one, near);
        let lost = self.fma(z, half, lost);
        let p = self.fma(square, p, lost);
        (sine, self.add(near, p))
    }

    /// The first in even quadrants, else the second; negative where bit 1 of `sign` is set.
    fn in_quadrant(&mut self, quadrant: Operand, sign: Operand, even: Operand, odd: Operand) -> Operand {
        let bit = self.int("and.b32", &[quadrant, Operand::Int(1)]);
        let is_odd = self.asm.test("ne.u32", bit, Operand::Int(0));
        let y = self.select(is_odd, odd, even);
        let bit = self.int("and.b32", &[sign, Operand::Int(2)]);
        let is_negative = self.asm.test("ne.u32", bit, Operand::Int(0));
        let minus = self.neg(y);
        self.select(is_negative, minus, y)
    }

    pub(super) fn sin(&mut self, x: Operand) -> Operand {
        let (rest, quadrant) = self.reduce(x);
        let (sine, cosine) = self.both(rest);
        let y = self.in_quadrant(quadrant, quadrant, sine, cosine);
        self.or_zero(x, y)
    }

    pub(super) fn cos(&mut self, x: Operand) -> Operand {
        let (rest, quadrant) = self.reduce(x);
        let (sine, cosine) = self.both(rest);
        let next = self.int("add.s32", &[quadrant, Operand::Int(1)]);
        self.in_quadrant(quadrant, next, cosine, sine)
    }

    pub(super) fn tan(&mut self, x: Operand) -> Operand {
        let (rest, quadrant) = self.reduce(x);
        let (sine, cosine) = self.both(rest);
        let minus = self.neg(cosine);
        let zero = Operand::Int(0);
        let over = self.in_quadrant(quadrant, zero, sine, minus);
        let under = self.in_quadrant(quadrant, zero, cosine, sine);
        let y = self.div(over, under);
        self.or_zero(x, y)
    }

    /// y, but x itself if that is 0, of either sign.
    fn or_zero(&mut self, x: Operand, y: Operand) -> Operand {
        let zero = self.test("eq", x, 0.0);
        self.select(zero, x, y)
    }

    /// pi / 2 in two parts.
    fn right_angle(&self) -> [Operand; 2] {
        let parts = self
            .of([[std::f32::consts::FRAC_PI_2.into(), -4.371_139_000_186_241e-8], [PIO2[1][0], PIO2[1][1]]]);
        parts.map(|part| self.number(part))
    }

    /// Of a number from 0 on; of it, of the negative of its inverse or of its distance from 1 by its sum with 1, whichever is below
    /// tan(pi / 8).
    fn atan_positive(&mut self, a: Operand) -> Operand {
        let (far, mid) = (self.test("gt", a, 2.414_213_5), self.test("gt", a, 0.414_213_57));
        let (one, minus) = (self.number(1.0), self.number(-1.0));
        let (less, more) = (self.sub(a, one), self.add(a, one));
        let over = self.select(mid, less, a);
        let over = self.select(far, minus, over);
        let under = self.select(mid, more, one);
        let under = self.select(far, a, under);
        let t = self.div(over, under);
        let z = self.mul(t, t);
        let q = self.fit(z, &fits::ATAN, &ATAN);
        let cube = self.mul(z, t);
        let y = self.fma(cube, q, t);
        let (half, zero) = (self.number(0.5), self.number(0.0));
        let part = self.select(mid, half, zero);
        let part = self.select(far, one, part);
        let [high, low] = self.right_angle();
        let y = self.fma(part, low, y);
        self.fma(part, high, y)
    }

    pub(super) fn atan(&mut self, x: Operand) -> Operand {
        let a = self.abs(x);
        let y = self.atan_positive(a);
        self.signed(y, x)
    }

    /// The angle of the point (x, y).
    pub(super) fn atan2(&mut self, y: Operand, x: Operand) -> Operand {
        let (a, b) = (self.abs(y), self.abs(x));
        let steep = self.compare("gt", a, b);
        let (over, under) = (self.select(steep, b, a), self.select(steep, a, b));
        let t = self.div(over, under);
        // 0 by 0 and infinity by infinity.
        let (one, zero) = (self.number(1.0), self.number(0.0));
        let origin = self.test("eq", a, 0.0);
        let ratio = self.select(origin, zero, one);
        let same = self.compare("eq", a, b);
        let t = self.select(same, ratio, t);
        let angle = self.atan_positive(t);
        let [high, low] = self.right_angle();
        let less = self.sub(angle, low);
        let other = self.sub(high, less);
        let angle = self.select(steep, other, angle);
        // Twice as much is pi.
        let two = self.number(2.0);
        let (high, low) = (self.mul(high, two), self.mul(low, two));
        let less = self.sub(angle, low);
        let other = self.sub(high, less);
        let sign = self.signed(one, x);
        let left = self.test("lt", sign, 0.0);
        let angle = self.select(left, other, angle);
        self.signed(angle, y)
    }

    /// Of |x|: below a half the inverse sine itself, else that of `sqrt((1 - |x|) / 2)`, of which the other is pi / 2 less twice.
    fn asin_parts(&mut self, x: Operand) -> (Operand, Operand) {
        let a = self.abs(x);
        let far = self.test("gt", a, 0.5);
        let (half, one) = (self.number(0.5), self.number(1.0));
        let rest = self.sub(one, a);
        let rest = self.mul(half, rest);
        let square = self.mul(a, a);
        let z = self.select(far, rest, square);
        let root = self.op("sqrt.rn", &[z]);
        let t = self.select(far, root, a);
        let q = self.fit(z, &fits::ASIN, &ASIN);
        let cube = self.mul(z, t);
        (far, self.fma(cube, q, t))
    }

    pub(super) fn asin(&mut self, x: Operand) -> Operand {
        let (far, y) = self.asin_parts(x);
        let (two, [high, low]) = (self.number(2.0), self.right_angle());
        let less = self.mul(two, y);
        let less = self.sub(less, low);
        let other = self.sub(high, less);
        let y = self.select(far, other, y);
        self.signed(y, x)
    }

    pub(super) fn acos(&mut self, x: Operand) -> Operand {
        let (far, y) = self.asin_parts(x);
        let (two, [high, low]) = (self.number(2.0), self.right_angle());
        let signed = self.signed(y, x);
        let less = self.sub(signed, low);
        let near = self.sub(high, less);
        let less = self.sub(y, low);
        let less = self.sub(high, less);
        let negative = self.mul(two, less);
        let positive = self.mul(two, y);
        let right = self.test("gt", x, 0.0);
        let wide = self.select(right, positive, negative);
        self.select(far, wide, near)
    }
}
