//! The error function, its complement and its inverse.
//!
//! The forms, with fits of our own: M. M. Shepherd and J. G. Laframboise, Chebyshev approximation of (1 + 2x) exp(x^2) erfc x (1981);
//! M. Giles, Approximating the erfinv function (2012).

use bullet_ops::fits;

use super::asm::Operand;
use super::math::{Function, Math};
use crate::ir::Unary;

/// As [`fits::ERF`], for f64.
const ERF: [f64; 13] = [
    std::f64::consts::FRAC_2_SQRT_PI,
    -0.376_126_389_031_837_5,
    0.112_837_916_709_548_79,
    -0.026_866_170_645_076_792,
    0.005_223_977_624_818_014_5,
    -0.000_854_832_698_083_379,
    0.000_120_553_311_116_427_1,
    -1.492_559_526_683_118_2e-5,
    1.646_100_048_412_136_8e-6,
    -1.635_031_270_105_469_5e-7,
    1.465_977_527_404_743_6e-8,
    -1.137_284_885_679_167e-9,
    5.957_176_147_748_911e-11,
];
/// `e^(x^2) erfc(x) (1 + 2 x)` of `(x - k) / (x + k)` from 0.47 on: k is 2 for f32, 3 for f64.
const ERFC_SINGLE: [f64; 10] = [
    1.276_978_387_36,
    -0.092_763_766_856_8,
    -0.166_031_049_483,
    0.164_048_835_166,
    -0.054_208_084_703_6,
    -0.008_006_908_446_62,
    0.008_644_995_732_6,
    0.001_153_009_413_23,
    -0.001_245_918_798_15,
    -0.000_236_570_593_482,
];
const ERFC: [f64; 23] = [
    1.253_008_058_269_729_6,
    -0.135_621_106_124_581_17,
    -0.047_562_294_353_450_67,
    0.129_645_158_702_760_8,
    -0.119_273_663_415_313_17,
    0.068_308_027_343_996_32,
    -0.023_770_514_918_510_125,
    0.002_529_391_815_328_109,
    0.001_888_690_356_246_632_8,
    -0.000_779_832_260_755_026_8,
    -0.000_105_159_761_050_402_55,
    0.000_125_099_258_680_431_12,
    4.949_190_217_498_123_5e-6,
    -2.010_009_857_317_982e-5,
    -7.301_711_965_496_612e-7,
    3.470_909_943_325_795_4e-6,
    3.530_739_246_686_317e-7,
    -6.135_300_406_618_359e-7,
    -1.350_297_765_186_799e-7,
    9.780_721_955_719_423e-8,
    3.493_497_687_967_841e-8,
    -1.029_641_082_633_368e-8,
    -4.615_845_069_532_553e-9,
];
/// `erfinv(x) / x` of `w - 2.5` below 5, where w is `-log(1 - x^2)`; of `sqrt(w) - 3` above, for f32; of `sqrt(w) - 4`, for the first
/// digits of f64.
const INVERSE_NEAR: [f64; 10] = [
    1.501_409_36,
    0.246_640_279,
    -0.004_177_392_88,
    -0.001_252_726_39,
    0.000_218_349_386,
    -4.972_419_69e-6,
    -3.463_985_27e-6,
    4.681_313_48e-7,
    2.333_596_72e-8,
    -8.931_925_97e-9,
];
const INVERSE_FAR: [[f64; 10]; 2] = [
    [
        2.832_976_81,
        1.001_674_88,
        0.009_444_721_51,
        -0.007_635_962_58,
        0.005_691_407_95,
        -0.003_603_516_97,
        0.001_474_130_78,
        -4.503_477_01e-5,
        -0.000_301_109_982,
        0.000_107_486_614,
    ],
    [
        3.839_783_64,
        1.009_492_99,
        0.001_265_086_84,
        -0.000_875_546_631,
        0.000_306_618_954,
        -9.587_532_62e-5,
        6.286_135_96e-5,
        -5.231_050_37e-5,
        2.243_222_17e-5,
        -3.554_590_94e-6,
    ],
];

impl Math<'_> {
    /// Whether |x| is small enough for a polynomial, and that.
    fn erf_near(&mut self, a: Operand) -> (Operand, Operand) {
        let near = self.test("lt", a, 0.5);
        let z = self.mul(a, a);
        let p = self.fit(z, &fits::ERF, &ERF);
        (near, self.mul(a, p))
    }

    /// `erfc(a)` from 0.47 on.
    fn erfc_far(&mut self, a: Operand) -> Operand {
        // Beyond, all is 0; NaN stays.
        let most = self.of([11.0, 28.0]);
        let (over, most) = (self.test("gt", a, most), self.number(most));
        let a = self.select(over, most, a);
        let k = self.number(self.of([2.0, 3.0]));
        let (less, more) = (self.sub(a, k), self.add(a, k));
        let u = self.div(less, more);
        let p = if self.double { self.poly(u, &ERFC) } else { self.poly(u, &ERFC_SINGLE) };
        let (two, one) = (self.number(2.0), self.number(1.0));
        let under = self.fma(two, a, one);
        let p = self.div(p, under);
        let minus = self.neg(a);
        let square = self.mul(minus, a);
        let rest = self.neg(square);
        let rest = self.fma(minus, a, rest);
        let e = self.exp_sum(square, Some(rest));
        self.mul(e, p)
    }

    pub(super) fn erf(&mut self, x: Operand) -> Operand {
        let a = self.abs(x);
        let (is_near, near) = self.erf_near(a);
        let far = self.erfc_far(a);
        let one = self.number(1.0);
        let far = self.sub(one, far);
        let y = self.select(is_near, near, far);
        self.signed(y, x)
    }

    pub(super) fn erfc(&mut self, x: Operand) -> Operand {
        let a = self.abs(x);
        let (is_near, near) = self.erf_near(a);
        let near = self.signed(near, x);
        let (one, two) = (self.number(1.0), self.number(2.0));
        let near = self.sub(one, near);
        let far = self.erfc_far(a);
        let negative = self.test("lt", x, 0.0);
        let other = self.sub(two, far);
        let far = self.select(negative, other, far);
        self.select(is_near, near, far)
    }

    pub(super) fn erfinv(&mut self, x: Operand) -> Operand {
        let a = self.abs(x);
        let one = self.number(1.0);
        let (less, more) = (self.sub(one, a), self.add(one, a));
        let product = self.mul(less, more);
        let log = self.use_of(Function::Unary(Unary::Log, self.double), &[product]);
        let w = self.neg(log);
        let middle = self.number(-2.5);
        let t = self.add(w, middle);
        let near = self.poly(t, &INVERSE_NEAR);
        let root = self.op("sqrt.rn", &[w]);
        let middle = self.number(self.of([-3.0, -4.0]));
        let t = self.add(root, middle);
        let far = self.poly(t, &self.of([&INVERSE_FAR[0], &INVERSE_FAR[1]])[..]);
        let is_near = self.test("lt", w, 5.0);
        let p = self.select(is_near, near, far);
        let mut y = self.mul(p, a);
        if self.double {
            y = self.refined(a, less, y);
            y = self.refined(a, less, y);
        }
        let (end, infinite) = (self.test("eq", a, 1.0), self.number(f64::INFINITY));
        let y = self.select(end, infinite, y);
        self.signed(y, x)
    }

    /// A step of Newton's from y to the number whose error function is a, which is 1 - `rest`.
    fn refined(&mut self, a: Operand, rest: Operand, y: Operand) -> Operand {
        let erf = self.use_of(Function::Unary(Unary::Erf, true), &[y]);
        let erfc = self.use_of(Function::Unary(Unary::Erfc, true), &[y]);
        let (near, far) = (self.sub(erf, a), self.sub(rest, erfc));
        let low = self.test("lt", a, 0.5);
        let wrong = self.select(low, near, far);
        let minus = self.neg(y);
        let square = self.mul(minus, y);
        let slope = self.exp_sum(square, None);
        let factor = self.number(std::f64::consts::FRAC_2_SQRT_PI);
        let slope = self.mul(slope, factor);
        let step = self.div(wrong, slope);
        self.sub(y, step)
    }
}
