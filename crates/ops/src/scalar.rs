//! Scalar functions that expressions name, and that the standard library lacks or gives too few digits of.
//!
//! They are the oracle's, and what the CPU computes with where nothing vectorised stands for them, so that both agree on
//! special values: these are NumPy's.

/// Division as Python has it: the quotient is rounded down, so that the remainder has the divisor's sign.
pub trait Division: Copy {
    /// The largest whole number not above `self / divisor`. Of integers: 0 by 0, and it wraps. Of floats: as
    /// `self / divisor` by 0; it is worked out from the exact remainder, so that no rounding crosses a whole number.
    fn floor_divide(self, divisor: Self) -> Self;
    /// What [`Division::floor_divide`] leaves, with the divisor's sign. By 0: of integers 0, of floats NaN.
    fn remainder(self, divisor: Self) -> Self;
}

/// Integers that wrap.
pub trait Integer: Division {
    /// `self * 2^count`; 0 for a count that is negative or no less than the width.
    fn shift_left(self, count: Self) -> Self;
    /// `self / 2^count`, rounded down; for a count that is negative or no less than the width what all shifts tend to.
    fn shift_right(self, count: Self) -> Self;
    /// `self` to the power of `exponent`; to a negative one it is 0.
    fn power(self, exponent: Self) -> Self;
}

/// Floating-point numbers.
pub trait Fraction: Division {
    /// The next number of this type in the direction of `to`; `to` if they are equal, NaN if either is.
    fn next_after(self, to: Self) -> Self;
}

macro_rules! fraction {
    ($($ty:ident),*) => {$(
        impl Division for $ty {
            #[inline]
            fn floor_divide(self, divisor: $ty) -> $ty {
                if divisor == 0.0 {
                    return self / divisor;
                }
                let rest = self % divisor;
                let mut quotient = (self - rest) / divisor;
                if rest != 0.0 && (divisor < 0.0) != (rest < 0.0) {
                    quotient -= 1.0;
                }
                if quotient == 0.0 {
                    return (0.0 as $ty).copysign(self / divisor);
                }
                // A whole number but for the rounding of the division.
                let floor = quotient.floor();
                if quotient - floor > 0.5 { floor + 1.0 } else { floor }
            }

            #[inline]
            fn remainder(self, divisor: $ty) -> $ty {
                let rest = self % divisor;
                if rest == 0.0 {
                    (0.0 as $ty).copysign(divisor)
                } else if (divisor < 0.0) != (rest < 0.0) {
                    rest + divisor
                } else {
                    rest
                }
            }
        }

        impl Fraction for $ty {
            #[inline]
            fn next_after(self, to: $ty) -> $ty {
                if self == to {
                    to
                } else if self < to {
                    // Up from -0 as from 0.
                    self.next_up()
                } else if self > to {
                    self.next_down()
                } else {
                    $ty::NAN
                }
            }
        }
    )*};
}
fraction!(f32, f64);

impl Division for i64 {
    #[inline]
    fn floor_divide(self, divisor: i64) -> i64 {
        if divisor == 0 {
            return 0;
        }
        let quotient = self.wrapping_div(divisor);
        let rest = self.wrapping_rem(divisor);
        quotient - i64::from(rest != 0 && (rest < 0) != (divisor < 0))
    }

    #[inline]
    fn remainder(self, divisor: i64) -> i64 {
        if divisor == 0 {
            return 0;
        }
        let rest = self.wrapping_rem(divisor);
        if rest != 0 && (rest < 0) != (divisor < 0) { rest + divisor } else { rest }
    }
}

impl Integer for i64 {
    #[inline]
    fn shift_left(self, count: i64) -> i64 {
        if (0..64).contains(&count) { self << count } else { 0 }
    }

    #[inline]
    fn shift_right(self, count: i64) -> i64 {
        self >> if (0..64).contains(&count) { count } else { 63 }
    }

    #[inline]
    fn power(self, exponent: i64) -> i64 {
        if exponent < 0 { 0 } else { (self as u64).power(exponent as u64) as i64 }
    }
}

impl Division for u64 {
    #[inline]
    fn floor_divide(self, divisor: u64) -> u64 {
        self.checked_div(divisor).unwrap_or(0)
    }

    #[inline]
    fn remainder(self, divisor: u64) -> u64 {
        self.checked_rem(divisor).unwrap_or(0)
    }
}

impl Integer for u64 {
    #[inline]
    fn shift_left(self, count: u64) -> u64 {
        if count < 64 { self << count } else { 0 }
    }

    #[inline]
    fn shift_right(self, count: u64) -> u64 {
        if count < 64 { self >> count } else { 0 }
    }

    #[inline]
    fn power(self, exponent: u64) -> u64 {
        let (mut base, mut left, mut result) = (self, exponent, 1u64);
        while left > 0 {
            if left & 1 == 1 {
                result = result.wrapping_mul(base);
            }
            base = base.wrapping_mul(base);
            left >>= 1;
        }
        result
    }
}

/// From here on the squares of inverse hyperbolic functions add nothing to a sum with 1, and might overflow.
const LARGE: f64 = 268_435_456.0;

/// Inverse hyperbolic sine: the standard library's overflows above half of the range.
pub fn asinh(x: f64) -> f64 {
    let a = x.abs();
    let y = if a > LARGE {
        a.ln() + std::f64::consts::LN_2
    } else {
        (a + a * a / (1.0 + (a * a + 1.0).sqrt())).ln_1p()
    };
    y.copysign(x)
}

/// Inverse hyperbolic cosine: the standard library's loses digits near 1. NaN below 1.
pub fn acosh(x: f64) -> f64 {
    let t = x - 1.0;
    if x > LARGE {
        x.ln() + std::f64::consts::LN_2
    } else if x < 1.0 {
        f64::NAN
    } else {
        (t + (t * (t + 2.0)).sqrt()).ln_1p()
    }
}

/// Inverse hyperbolic tangent; infinite at 1 and -1, NaN beyond.
pub fn atanh(x: f64) -> f64 {
    let a = x.abs();
    (0.5 * (2.0 * a / (1.0 - a)).ln_1p()).copysign(x)
}

/// The error function to a few ulps of f64. Near 0, `2/sqrt(pi) e^(-x^2) * sum of 2^n x^(2n+1) / (1 * 3 * .. * (2n + 1))`,
/// whose terms all have one sign, so that nothing cancels; beyond, the continued fraction of erfc (Abramowitz and Stegun
/// 7.1.6 and 7.1.14).
pub fn erf(x: f64) -> f64 {
    let a = x.abs();
    if a.is_nan() || a < 1.5 {
        let (mut term, mut sum, mut n) = (x, x, 0.0);
        while term.abs() > 1e-17 * sum.abs() && n < 100.0 {
            n += 1.0;
            term *= 2.0 * x * x / (2.0 * n + 1.0);
            sum += term;
        }
        return sum * (-x * x).exp() * std::f64::consts::FRAC_2_SQRT_PI;
    }
    if a > 6.0 {
        return x.signum();
    }
    x.signum() * (1.0 - erfc_tail(a))
}

/// The complementary error function of 1.5 and above, by its continued fraction.
fn erfc_tail(a: f64) -> f64 {
    let fraction = (1..=150).rev().fold(a, |f, k| a + 0.5 * f64::from(k) / f);
    (-a * a).exp() / (fraction * std::f64::consts::PI.sqrt())
}

/// The complementary error function, with its digits where it is small, too.
pub fn erfc(x: f64) -> f64 {
    match x.abs() {
        a if a.is_nan() || a < 1.5 => 1.0 - erf(x),
        a if x > 0.0 => erfc_tail(a),
        a => 2.0 - erfc_tail(a),
    }
}

/// The inverse of [`erf`], infinite at 1 and -1, NaN beyond: Halley's steps from S. Winitzki's approximation.
pub fn erfinv(y: f64) -> f64 {
    let a = y.abs();
    if a == 0.0 || a.is_nan() || a >= 1.0 {
        return match a {
            1.0 => f64::INFINITY.copysign(y),
            a if a > 1.0 => f64::NAN,
            _ => y,
        };
    }
    let log = ((1.0 - a) * (1.0 + a)).ln();
    let half = 2.0 / (std::f64::consts::PI * 0.147) + 0.5 * log;
    // Near 0 the difference cancels: there it is about sqrt(pi) / 2 y.
    let start = if a < 0.1 {
        a / std::f64::consts::FRAC_2_SQRT_PI
    } else {
        ((half * half - log / 0.147).sqrt() - half).sqrt()
    };
    let mut x = start;
    for _ in 0..4 {
        // Near 1 the digits are in what is left to 1.
        let miss = if a < 0.5 { erf(x) - a } else { (1.0 - a) - erfc(x) };
        let step = miss / (std::f64::consts::FRAC_2_SQRT_PI * (-x * x).exp());
        x -= step / (1.0 + x * step);
    }
    x.copysign(y)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn erf_matches_published_values() {
        // Abramowitz and Stegun, table 7.1, and symmetry.
        for (x, want) in [(0.5, 0.5204998778130465), (1.0, 0.8427007929497149), (2.0, 0.9953222650189527)] {
            assert!((erf(x) - want).abs() < 1e-15);
            assert!((erf(-x) + want).abs() < 1e-15);
        }
        assert!((erf(3.0) - 0.9999779095030014).abs() < 1e-15);
        assert!((erf(2.4999999) - erf(2.5000001)).abs() < 1e-9);
        // Of wider arithmetic.
        for (x, want) in
            [(0.5, 0.4795001221869535), (3.0, 2.209_049_699_858_544e-5), (10.0, 2.088_487_583_762_545e-45)]
        {
            assert!((erfc(x) / want - 1.0).abs() < 1e-13, "{x}: {}", erfc(x));
        }
        assert!((erfc(-3.0) - 1.9999779095030015).abs() < 1e-15);
        for x in [1e-9, 0.01, 0.3, 0.7, 1.2, 2.5, 4.0] {
            assert!((erfinv(erf(x)) / x - 1.0).abs() < 1e-13 / erfc(x), "{x}: {}", erfinv(erf(x)));
            assert_eq!(erfinv(-erf(x)), -erfinv(erf(x)));
        }
        assert!(erfinv(1.0).is_infinite() && erfinv(1.5).is_nan() && erfinv(0.0) == 0.0);
        assert_eq!(erf(0.0), 0.0);
        assert!(erf(f64::NAN).is_nan());
    }

    #[test]
    fn quotients_round_down_and_remainders_have_the_divisors_sign() {
        for (a, b, quotient, rest) in
            [(7i64, 2i64, 3, 1), (-7, 2, -4, 1), (7, -2, -4, -1), (-7, -2, 3, -1), (6, -3, -2, 0)]
        {
            assert_eq!((a.floor_divide(b), a.remainder(b)), (quotient, rest), "{a} by {b}");
            let (x, y) = (a as f64, b as f64);
            assert_eq!((x.floor_divide(y), x.remainder(y)), (quotient as f64, rest as f64), "{x} by {y}");
        }
        assert_eq!((5i64.floor_divide(0), 5i64.remainder(0)), (0, 0));
        assert_eq!((i64::MIN.floor_divide(-1), i64::MIN.remainder(-1)), (i64::MIN, 0));
        assert_eq!((u64::MAX.floor_divide(10), u64::MAX.remainder(10)), (1_844_674_407_370_955_161, 5));
        // 1 / 0.1 is 10 in f64, but the number 0.1 is a little more than a tenth.
        assert_eq!((1.0.floor_divide(0.1), 1.0.remainder(0.1)), (9.0, 0.099_999_999_999_999_95));
    }

    #[test]
    fn shifts_beyond_the_width_are_their_limits() {
        assert_eq!([0, 63, 64, -1].map(|n| 3i64.shift_left(n)), [3, i64::MIN, 0, 0]);
        assert_eq!([0, 1, 64, -1].map(|n| (-3i64).shift_right(n)), [-3, -2, -1, -1]);
        assert_eq!([1, 63, 64].map(|n| u64::MAX.shift_right(n)), [u64::MAX / 2, 1, 0]);
    }

    #[test]
    fn inverse_hyperbolic_functions_keep_their_digits() {
        // mpmath, 40 digits.
        assert!((acosh(1.0 + 2f64.powi(-40)) / 1.348_699_152_348_506_8e-6 - 1.0).abs() < 4e-16);
        assert!((asinh(1e-10) / 1e-10 - 1.0).abs() < 4e-16);
        assert!((atanh(1e-10) / 1e-10 - 1.0).abs() < 4e-16);
        for x in [f64::MAX, 1e300] {
            assert!((asinh(x) - (x.ln() + std::f64::consts::LN_2)).abs() < 1e-12);
            assert_eq!(asinh(-x), -acosh(x));
        }
        assert!(acosh(0.5).is_nan() && acosh(-5.0).is_nan() && atanh(1.5).is_nan());
        assert_eq!((atanh(-1.0), acosh(1.0)), (f64::NEG_INFINITY, 0.0));
    }
}
