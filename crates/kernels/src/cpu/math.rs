//! Transcendental functions of f32 that LLVM vectorises: branch-free scalars, to be called in a loop over a slice.
//!
//! Each is a range reduction and a polynomial, fitted for this module by Remez exchange; no tables, no calls, no
//! branches, so that a loop of one becomes a loop over vector registers in every [`SimdOp`](super::simd::SimdOp).
//! Errors are a few units in the last place over the whole range (the tests state them), with infinities, NaN and
//! denormals as IEEE functions have them. [`Real`] gives f32 and f64 the same names; f64 is the standard library's.

use bullet_ops::{Compute, fits, scalar};

use super::simd::{FusedMulAdd, Target};

/// 1.5 * 2^23: adding it rounds a small f32 to an integer, which then stands in the low bits.
const ROUND: f32 = 12_582_912.0;
/// ln 2 in two parts; the first has 9 trailing zero bits, so that its product with an exponent is exact.
const LN2_HI: f32 = 0.693_359_4;
const LN2_LO: f32 = -2.121_944_4e-4;
/// Beyond this, [`sin`] and [`cos`] lose accuracy: the caller takes the standard library's.
pub const TRIG_LIMIT: f32 = 1_048_576.0;

/// `c[0] + c[1] x + ..` by Horner's rule.
#[inline(always)]
fn poly<T: Target, const N: usize>(x: f32, c: [f32; N]) -> f32 {
    let mut p = c[N - 1];
    for i in (0..N - 1).rev() {
        p = T::fma(p, x, c[i]);
    }
    p
}

/// `x = n ln 2 + r` with |r| <= ln 2 / 2; gives (r, bits whose low part is n). |x| must be below 2^21.
#[inline(always)]
fn reduce_exp<T: Target>(x: f32) -> (f32, u32) {
    let t = T::fma(x, std::f32::consts::LOG2_E, ROUND);
    let n = t - ROUND;
    let r = T::fma(n, -LN2_LO, T::fma(n, -LN2_HI, x));
    (r, t.to_bits())
}

/// `e^r - 1` for |r| <= ln 2 / 2.
#[inline(always)]
fn expm1_small<T: Target>(r: f32) -> f32 {
    let q = poly::<T, _>(r, fits::EXPM1);
    T::fma(r * r, q, r)
}

/// `e^x`.
#[inline(always)]
pub fn exp<T: Target>(x: f32) -> f32 {
    // Written so that NaN passes both.
    let x = if x > 89.0 { 89.0 } else { x };
    let x = if x < -104.0 { -104.0 } else { x };
    let (r, bits) = reduce_exp::<T>(x);
    let n = bits.wrapping_sub(ROUND.to_bits()) as i32;
    // 2^n in two factors: n reaches from -150, where results are denormal, to 128, where they are infinite.
    let half = n >> 1;
    let scale = |k: i32| f32::from_bits((k.wrapping_add(127) as u32) << 23);
    (1.0 + expm1_small::<T>(r)) * scale(half) * scale(n.wrapping_sub(half))
}

/// `e^x` for `x <= 0` (or NaN); results below 2^-125 are flushed to 0. For softmaxes.
#[inline(always)]
pub fn exp_nonpositive<T: Target>(x: f32) -> f32 {
    let clamped = if x < -86.5 { -86.5 } else { x };
    let (r, bits) = reduce_exp::<T>(clamped);
    // 2^n, normal here; multiplied in rather than added to the exponent, so that NaN stays NaN.
    let scale = f32::from_bits((bits << 23).wrapping_add(0x3f80_0000));
    let y = T::fma(scale, expm1_small::<T>(r), scale);
    if x < -86.5 { 0.0 } else { y }
}

/// `x = 2^e (1 + f)` with `1 + f` in sqrt(1/2)..sqrt(2), and `log(1 + f) - f`, of positive finite numbers.
#[inline(always)]
fn log_parts<T: Target>(x: f32) -> (f32, f32, f32) {
    let denormal = x < f32::MIN_POSITIVE;
    let scaled = if denormal { x * 8_388_608.0 } else { x };
    let bits = scaled.to_bits().wrapping_sub(0x3f35_04f3);
    let e = (bits as i32 >> 23) as f32 - if denormal { 23.0 } else { 0.0 };
    let f = f32::from_bits((bits & 0x007f_ffff) + 0x3f35_04f3) - 1.0;
    let q = poly::<T, _>(f, fits::LOG1P);
    let z = f * f;
    (e, f, T::fma(z * f, q, -0.5 * z))
}

/// `y`, the logarithm of a positive finite `x`, of other numbers what it is of these.
#[inline(always)]
fn log_limits(x: f32, y: f32) -> f32 {
    let y = if x == f32::INFINITY { x } else { y };
    let y = if x == 0.0 { f32::NEG_INFINITY } else { y };
    // Below 0 and NaN.
    if x >= 0.0 { y } else { f32::NAN }
}

/// Natural logarithm; -inf at 0, NaN below.
#[inline(always)]
pub fn log<T: Target>(x: f32) -> f32 {
    let (e, f, tail) = log_parts::<T>(x);
    log_limits(x, T::fma(e, LN2_HI, f + T::fma(e, LN2_LO, tail)))
}

/// Logarithm to base 2; exact of powers of 2.
#[inline(always)]
pub fn log2<T: Target>(x: f32) -> f32 {
    let (e, f, tail) = log_parts::<T>(x);
    log_limits(x, T::fma(f + tail, std::f32::consts::LOG2_E, e))
}

/// `log(1 + x)`: the logarithm of the rounded sum, less what the rounding added.
#[inline(always)]
pub fn log1p<T: Target>(x: f32) -> f32 {
    let sum = 1.0 + x;
    let y = log::<T>(sum) - ((sum - 1.0) - x) / sum;
    let y = if x == f32::INFINITY { x } else { y };
    let y = if x == -1.0 { f32::NEG_INFINITY } else { y };
    // Keeps the sign of zero.
    if x == 0.0 { x } else { y }
}

/// `e^x - 1`.
#[inline(always)]
pub fn expm1<T: Target>(x: f32) -> f32 {
    // Written so that NaN passes both.
    let near = if x > 20.0 { 20.0 } else { x };
    let near = if near < -20.0 { -20.0 } else { near };
    let (r, bits) = reduce_exp::<T>(near);
    let scale = f32::from_bits((bits << 23).wrapping_add(0x3f80_0000));
    let y = T::fma(scale, expm1_small::<T>(r), scale - 1.0);
    // Here 1 is far below the last place.
    let y = if x > 20.0 { exp::<T>(x) } else { y };
    if x == 0.0 { x } else { y }
}

/// Hyperbolic sine.
#[inline(always)]
pub fn sinh<T: Target>(x: f32) -> f32 {
    let a = x.abs();
    let e = expm1::<T>(a);
    // In two factors, as e^|x| may be infinite where half of it is not.
    let root = exp::<T>(0.5 * a);
    let y = if a > 20.0 { (0.5 * root) * root } else { 0.5 * (e + e / (e + 1.0)) };
    y.copysign(x)
}

/// Hyperbolic cosine.
#[inline(always)]
pub fn cosh<T: Target>(x: f32) -> f32 {
    let a = x.abs();
    let (e, root) = (exp::<T>(a), exp::<T>(0.5 * a));
    if a > 20.0 { (0.5 * root) * root } else { 0.5 * e + 0.5 / e }
}

/// From here on the squares of [`asinh`] and [`acosh`] add nothing to a sum with 1, and might overflow.
const LARGE: f32 = 1e8;

/// Inverse hyperbolic sine.
#[inline(always)]
pub fn asinh<T: Target>(x: f32) -> f32 {
    let a = x.abs();
    let near = a + a * a / (1.0 + (a * a + 1.0).sqrt());
    let y = log1p::<T>(if a > LARGE { a } else { near });
    (if a > LARGE { y + std::f32::consts::LN_2 } else { y }).copysign(x)
}

/// Inverse hyperbolic cosine; NaN below 1.
#[inline(always)]
pub fn acosh<T: Target>(x: f32) -> f32 {
    let t = x - 1.0;
    let near = t + (t * (t + 2.0)).sqrt();
    let y = log1p::<T>(if x > LARGE { x } else { near });
    let y = if x > LARGE { y + std::f32::consts::LN_2 } else { y };
    if x >= 1.0 { y } else { f32::NAN }
}

/// Inverse hyperbolic tangent; NaN beyond 1.
#[inline(always)]
pub fn atanh<T: Target>(x: f32) -> f32 {
    let a = x.abs();
    (0.5 * log1p::<T>(2.0 * a / (1.0 - a))).copysign(x)
}

/// pi / 2 in two parts.
const PIO2_HI: f32 = std::f32::consts::FRAC_PI_2;
const PIO2_LO: f32 = -4.371_139e-8;

/// Inverse tangent, of a number or of the negative of its inverse or of its distance from 1 by its sum with 1: whichever
/// is below tan(pi / 8).
#[inline(always)]
pub fn atan<T: Target>(x: f32) -> f32 {
    let a = x.abs();
    let (far, mid) = (a > 2.414_213_5, a > 0.414_213_57);
    let over = if far {
        -1.0
    } else if mid {
        a - 1.0
    } else {
        a
    };
    let under = if far {
        a
    } else if mid {
        a + 1.0
    } else {
        1.0
    };
    let t = over / under;
    let z = t * t;
    let q = poly::<T, _>(z, fits::ATAN);
    let y = T::fma(z * t, q, t);
    let part = if far {
        1.0
    } else if mid {
        0.5
    } else {
        0.0
    };
    T::fma(part, PIO2_HI, T::fma(part, PIO2_LO, y)).copysign(x)
}

/// Inverse sine of |x|: below a half of itself, else what it is of `sqrt((1 - |x|) / 2)`, of which the other is pi / 2
/// less twice.
#[inline(always)]
fn asin_parts<T: Target>(x: f32) -> (bool, f32) {
    let a = x.abs();
    let far = a > 0.5;
    let z = if far { 0.5 * (1.0 - a) } else { a * a };
    let t = if far { z.sqrt() } else { a };
    let q = poly::<T, _>(z, fits::ASIN);
    (far, T::fma(z * t, q, t))
}

/// Inverse sine; NaN beyond 1.
#[inline(always)]
pub fn asin<T: Target>(x: f32) -> f32 {
    let (far, y) = asin_parts::<T>(x);
    (if far { PIO2_HI - (2.0 * y - PIO2_LO) } else { y }).copysign(x)
}

/// Inverse cosine; NaN beyond 1.
#[inline(always)]
pub fn acos<T: Target>(x: f32) -> f32 {
    let (far, y) = asin_parts::<T>(x);
    let near = PIO2_HI - (y.copysign(x) - PIO2_LO);
    let negative = 2.0 * (PIO2_HI - (y - PIO2_LO));
    if !far {
        near
    } else if x > 0.0 {
        2.0 * y
    } else {
        negative
    }
}

/// `sqrt(x^2 + y^2)`; infinite if either is. The squares fit f64.
#[inline(always)]
pub fn hypot(x: f32, y: f32) -> f32 {
    let (a, b) = (f64::from(x), f64::from(y));
    let root = (a * a + b * b).sqrt() as f32;
    if x.abs() == f32::INFINITY || y.abs() == f32::INFINITY { f32::INFINITY } else { root }
}

/// Hyperbolic tangent, as `E / (E + 2)` with `E = e^(2|x|) - 1`.
#[inline(always)]
pub fn tanh<T: Target>(x: f32) -> f32 {
    let y = 2.0 * x.abs();
    let y = if y > 20.0 { 20.0 } else { y };
    let (r, bits) = reduce_exp::<T>(y);
    let scale = f32::from_bits((bits << 23).wrapping_add(0x3f80_0000));
    let e = T::fma(scale, expm1_small::<T>(r), scale - 1.0);
    (e / (e + 2.0)).copysign(x)
}

/// `1 / (1 + e^-x)`.
#[inline(always)]
pub fn sigmoid<T: Target>(x: f32) -> f32 {
    1.0 / (1.0 + exp::<T>(-x))
}

/// Error function: a polynomial below 1, `1 - e^p(|x|)` above.
#[inline(always)]
pub fn erf<T: Target>(x: f32) -> f32 {
    let a = x.abs();
    let z = x * x;
    let small = x * poly::<T, _>(z, fits::ERF);
    let b = if a > 4.0 { 4.0 } else { a };
    let log_erfc = poly::<T, 7>(
        b,
        [
            -0.000_353_730_7,
            -1.127_04,
            -0.638_225_73,
            -0.103_037_3,
            0.021_805_285,
            -0.002_939_598_4,
            0.000_185_573_08,
        ],
    );
    let large = (1.0 - exp_nonpositive::<T>(log_erfc)).copysign(x);
    // NaN fails the comparison and comes through `large`.
    if a < 1.0 { small } else { large }
}

/// Sine and cosine of the reduced angle, and the quadrant: for |x| <= [`TRIG_LIMIT`].
#[inline(always)]
fn reduce_trig<T: Target>(x: f32) -> (f32, f32, u32) {
    // In f64, with pi/2 in two parts of which the first has 20 trailing zeros: exact enough that results near 0 keep
    // their relative accuracy.
    const ROUND64: f64 = 6_755_399_441_055_744.0;
    const PIO2_HI: f64 = 1.570_796_326_734_125_6;
    const PIO2_LO: f64 = 6.077_100_506_506_192e-11;
    let wide = f64::from(x);
    let t = wide * std::f64::consts::FRAC_2_PI + ROUND64;
    let n = t - ROUND64;
    let r = ((wide - n * PIO2_HI) - n * PIO2_LO) as f32;
    let z = r * r;
    let s = T::fma(z * r, poly::<T, _>(z, fits::SIN), r);
    let c = poly::<T, _>(z, fits::COS);
    let c = T::fma(z * z, c, T::fma(z, -0.5, 1.0));
    (s, c, t.to_bits() as u32)
}

/// `if quadrant is odd { b } else { a }`, negated where bit 1 of `sign` is set.
#[inline(always)]
fn quadrant(a: f32, b: f32, q: u32, sign: u32) -> f32 {
    let v = if q & 1 == 0 { a } else { b };
    f32::from_bits(v.to_bits() ^ ((sign & 2) << 30))
}

/// Sine, for |x| up to [`TRIG_LIMIT`].
#[inline(always)]
pub fn sin<T: Target>(x: f32) -> f32 {
    let (s, c, q) = reduce_trig::<T>(x);
    let y = quadrant(s, c, q, q);
    // Keeps the sign of zero.
    if x == 0.0 { x } else { y }
}

/// Tangent, for |x| up to [`TRIG_LIMIT`].
#[inline(always)]
pub fn tan<T: Target>(x: f32) -> f32 {
    let (s, c, q) = reduce_trig::<T>(x);
    let y = if q & 1 == 0 { s / c } else { -c / s };
    if x == 0.0 { x } else { y }
}

/// Cosine, for |x| up to [`TRIG_LIMIT`].
#[inline(always)]
pub fn cos<T: Target>(x: f32) -> f32 {
    let (s, c, q) = reduce_trig::<T>(x);
    quadrant(c, s, q, q.wrapping_add(1))
}

/// f32 and f64 under one set of names, for kernels generic over the compute type.
pub trait Real: Compute + FusedMulAdd {
    /// Largest finite magnitude whose sine and cosine [`Real::sin`] gives; infinite where there is no limit.
    const TRIG_LIMIT: Self;
    /// Exact for small numbers; rounds.
    fn of(x: f64) -> Self;
    /// Widens.
    fn wide(self) -> f64;
    /// `|x|`.
    fn abs(self) -> Self;
    /// Square root.
    fn sqrt(self) -> Self;
    /// Largest integer not above.
    fn floor(self) -> Self;
    /// Smallest integer not below.
    fn ceil(self) -> Self;
    /// Nearest integer, ties to even.
    fn round(self) -> Self;
    /// Power, of the standard library.
    fn pow(self, exponent: Self) -> Self;
    /// `e^x`.
    fn exp<T: Target>(self) -> Self;
    /// `e^x` for x <= 0; may flush denormal results to 0.
    fn exp_nonpositive<T: Target>(self) -> Self;
    /// Natural logarithm.
    fn log<T: Target>(self) -> Self;
    /// Sine up to [`Real::TRIG_LIMIT`].
    fn sin<T: Target>(self) -> Self;
    /// Cosine up to [`Real::TRIG_LIMIT`].
    fn cos<T: Target>(self) -> Self;
    /// Sine of any number.
    fn sin_any(self) -> Self;
    /// Cosine of any number.
    fn cos_any(self) -> Self;
    /// Tangent of any number.
    fn tan_any(self) -> Self;
    /// Without the fraction.
    fn trunc(self) -> Self;
    /// Logarithm to base 10, of the standard library.
    fn log10(self) -> Self;
    /// Angle of the point (`x`, self), of the standard library.
    fn atan2(self, x: Self) -> Self;
    /// `sqrt(self^2 + other^2)`.
    fn hypot(self, other: Self) -> Self;
    /// This with the sign of `other`.
    fn copysign(self, other: Self) -> Self;
    /// Tangent up to [`Real::TRIG_LIMIT`].
    fn tan<T: Target>(self) -> Self;
    /// Inverse sine.
    fn asin<T: Target>(self) -> Self;
    /// Inverse cosine.
    fn acos<T: Target>(self) -> Self;
    /// Inverse tangent.
    fn atan<T: Target>(self) -> Self;
    /// Hyperbolic sine.
    fn sinh<T: Target>(self) -> Self;
    /// Hyperbolic cosine.
    fn cosh<T: Target>(self) -> Self;
    /// Inverse hyperbolic sine.
    fn asinh<T: Target>(self) -> Self;
    /// Inverse hyperbolic cosine.
    fn acosh<T: Target>(self) -> Self;
    /// Inverse hyperbolic tangent.
    fn atanh<T: Target>(self) -> Self;
    /// `e^x - 1`.
    fn expm1<T: Target>(self) -> Self;
    /// `log(1 + x)`.
    fn log1p<T: Target>(self) -> Self;
    /// Logarithm to base 2.
    fn log2<T: Target>(self) -> Self;
    /// Hyperbolic tangent.
    fn tanh<T: Target>(self) -> Self;
    /// Error function.
    fn erf<T: Target>(self) -> Self;
    /// The larger, where neither is NaN.
    #[inline(always)]
    fn larger(self, other: Self) -> Self {
        if self > other { self } else { other }
    }
}

macro_rules! real {
    ($ty:ident: trig $limit:expr, hypot $hypot:expr; $($name:ident = $f:expr),* $(,)?) => {
        impl Real for $ty {
            const TRIG_LIMIT: Self = $limit;
            #[inline(always)]
            fn of(x: f64) -> Self { x as $ty }
            #[inline(always)]
            fn wide(self) -> f64 { self as f64 }
            #[inline(always)]
            fn abs(self) -> Self { $ty::abs(self) }
            #[inline(always)]
            fn sqrt(self) -> Self { $ty::sqrt(self) }
            #[inline(always)]
            fn floor(self) -> Self { $ty::floor(self) }
            #[inline(always)]
            fn ceil(self) -> Self { $ty::ceil(self) }
            #[inline(always)]
            fn round(self) -> Self { $ty::round_ties_even(self) }
            #[inline(always)]
            fn pow(self, exponent: Self) -> Self { $ty::powf(self, exponent) }
            #[inline(always)]
            fn sin_any(self) -> Self { $ty::sin(self) }
            #[inline(always)]
            fn cos_any(self) -> Self { $ty::cos(self) }
            #[inline(always)]
            fn tan_any(self) -> Self { $ty::tan(self) }
            #[inline(always)]
            fn trunc(self) -> Self { $ty::trunc(self) }
            #[inline(always)]
            fn log10(self) -> Self { $ty::log10(self) }
            #[inline(always)]
            fn atan2(self, x: Self) -> Self { $ty::atan2(self, x) }
            #[inline(always)]
            fn hypot(self, other: Self) -> Self { $hypot(self, other) }
            #[inline(always)]
            fn copysign(self, other: Self) -> Self { $ty::copysign(self, other) }
            $(#[inline(always)]
            fn $name<T: Target>(self) -> Self { $f(self) })*
        }
    };
}
real!(f32: trig TRIG_LIMIT, hypot hypot; exp = exp::<T>, exp_nonpositive = exp_nonpositive::<T>, log = log::<T>,
    sin = sin::<T>, cos = cos::<T>, tanh = tanh::<T>, erf = erf::<T>, tan = tan::<T>, asin = asin::<T>, acos = acos::<T>,
    atan = atan::<T>, sinh = sinh::<T>, cosh = cosh::<T>, asinh = asinh::<T>, acosh = acosh::<T>, atanh = atanh::<T>,
    expm1 = expm1::<T>, log1p = log1p::<T>, log2 = log2::<T>);
real!(f64: trig f64::INFINITY, hypot f64::hypot; exp = f64::exp, exp_nonpositive = f64::exp, log = f64::ln, sin = f64::sin,
    cos = f64::cos, tanh = f64::tanh, erf = scalar::erf, tan = f64::tan, asin = f64::asin, acos = f64::acos,
    atan = f64::atan, sinh = f64::sinh, cosh = f64::cosh, asinh = scalar::asinh, acosh = scalar::acosh,
    atanh = scalar::atanh, expm1 = f64::exp_m1, log1p = f64::ln_1p, log2 = f64::log2);
