//! The activations that a matrix product applies to its result, on rows that are still in cache.

use bullet_ops::{Activation, Compute, DType, expr};

use crate::cpu::simd::Target;

/// Applies `activation` to each element.
#[inline(always)]
pub(super) fn apply<S: Target, C: Compute>(activation: Activation, row: &mut [C]) {
    if C::DTYPE == DType::F32 {
        // SAFETY: `C` is f32.
        let row = unsafe { std::slice::from_raw_parts_mut(row.as_mut_ptr().cast::<f32>(), row.len()) };
        match activation {
            Activation::Identity => {}
            Activation::Relu => map(row, |x| if x < 0.0 { 0.0 } else { x }),
            Activation::Gelu => map(row, gelu::<S>),
            Activation::GeluTanh => map(row, gelu_tanh::<S>),
            Activation::Silu => map(row, |x| x * sigmoid::<S>(x)),
        }
    } else {
        let on = |f: fn(f64) -> f64, row: &mut [C]| map(row, |x| C::from_f64(f(x.to_f64())));
        match activation {
            Activation::Identity => {}
            Activation::Relu => on(|x| if x < 0.0 { 0.0 } else { x }, row),
            Activation::Gelu => on(|x| 0.5 * x * (1.0 + expr::erf(x * std::f64::consts::FRAC_1_SQRT_2)), row),
            Activation::GeluTanh => on(|x| 0.5 * x * (1.0 + tanh_argument(x).tanh()), row),
            Activation::Silu => on(|x| x / (1.0 + (-x).exp()), row),
        }
    }
}

#[inline(always)]
fn map<C: Copy>(row: &mut [C], f: impl Fn(C) -> C) {
    for x in row {
        *x = f(*x);
    }
}

fn tanh_argument(x: f64) -> f64 {
    (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x * x * x)
}

/// e^x, to 2 ulp; below -87.3 it is 0, above 88.7 infinity, and NaN stays NaN.
///
/// x = n ln 2 + r with |r| <= ln 2 / 2, and e^r by its Taylor series; 2^n goes into the exponent bits in two halves,
/// so that neither half over- or underflows.
#[inline(always)]
pub(crate) fn exp<S: Target>(x: f32) -> f32 {
    // Adding and subtracting 1.5 * 2^23 rounds to an integer, whose bits are then in the low mantissa.
    const ROUND: f32 = 12_582_912.0;
    // `max` and `min` would return the bound for NaN; comparisons keep it.
    let x = if x > 89.0 { 89.0 } else { x };
    let x = if x < -104.0 { -104.0 } else { x };
    let shifted = S::fma(x, std::f32::consts::LOG2_E, ROUND);
    let n = shifted - ROUND;
    // ln 2 in two parts, the first with trailing zeros, so that its product with n is exact.
    let r = S::fma(n, -0.693_359_375, x);
    let r = S::fma(n, 2.121_944_4e-4, r);
    let mut p = 1.0 / 5040.0;
    for c in [1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0] {
        p = S::fma(p, r, c);
    }
    let exponent = (shifted.to_bits() as i32).wrapping_sub(ROUND.to_bits() as i32);
    let half = exponent >> 1;
    let two_to = |e: i32| f32::from_bits((e.wrapping_add(127) as u32) << 23);
    p * two_to(half) * two_to(exponent.wrapping_sub(half))
}

#[inline(always)]
fn sigmoid<S: Target>(x: f32) -> f32 {
    1.0 / (1.0 + exp::<S>(-x))
}

/// 0.5 x (1 + tanh u) is x sigmoid(2 u).
#[inline(always)]
fn gelu_tanh<S: Target>(x: f32) -> f32 {
    const C: f32 = 1.595_769_1; // 2 sqrt(2 / pi)
    let u = C * S::fma(0.044_715 * x * x, x, x);
    x * sigmoid::<S>(u)
}

/// x Phi(x), where Phi(x) = erfc(-x / sqrt 2) / 2.
#[inline(always)]
fn gelu<S: Target>(x: f32) -> f32 {
    let z = x.abs() * std::f32::consts::FRAC_1_SQRT_2;
    let tail = 0.5 * erfc::<S>(z);
    x * if x < 0.0 { tail } else { 1.0 - tail }
}

/// erfc(x) for x >= 0: exp(-x q(x)), q the Chebyshev fit of -ln(erfc x) / x on [0, 4], within 7e-8 there. Beyond, q
/// keeps its last value and the result decays from 1e-8.
#[inline(always)]
fn erfc<S: Target>(x: f32) -> f32 {
    const Q: [f32; 11] = [
        1.128_379_2,
        0.636_619_2,
        0.102_775_834,
        -0.019_128_649,
        -0.000_247_182_96,
        0.001_813_417,
        -0.000_766_706_94,
        0.000_186_357_97,
        -2.839_03e-5,
        2.518_737_6e-6,
        -9.946_281e-8,
    ];
    let near = if x > 4.0 { 4.0 } else { x };
    let mut q = Q[10];
    for i in (0..10).rev() {
        q = S::fma(q, near, Q[i]);
    }
    exp::<S>(-x * q)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::simd::{Isa, SimdOp, dispatch_on};

    struct Apply<'a>(Activation, &'a mut [f32]);
    impl SimdOp for Apply<'_> {
        type Output = ();
        #[inline(always)]
        fn run<S: Target>(self) {
            apply::<S, f32>(self.0, self.1);
        }
    }

    struct Exp<'a>(&'a mut [f32]);
    impl SimdOp for Exp<'_> {
        type Output = ();
        #[inline(always)]
        fn run<S: Target>(self) {
            map(self.0, exp::<S>);
        }
    }

    struct Double<'a>(Activation, &'a mut [f64]);
    impl SimdOp for Double<'_> {
        type Output = ();
        #[inline(always)]
        fn run<S: Target>(self) {
            apply::<S, f64>(self.0, self.1);
        }
    }

    #[test]
    fn single_precision_agrees_with_double() {
        let x: Vec<f32> = (-3000..3000).map(|i| i as f32 * 0.004).chain([-1e4, 1e4, -0.0, 1e-30]).collect();
        for activation in
            [Activation::Identity, Activation::Relu, Activation::Gelu, Activation::GeluTanh, Activation::Silu]
        {
            let mut want: Vec<f64> = x.iter().map(|&x| f64::from(x)).collect();
            dispatch_on(Isa::Portable, Double(activation, &mut want));
            for isa in Isa::available() {
                let mut got = x.clone();
                dispatch_on(isa, Apply(activation, &mut got));
                for ((&x, &got), &want) in x.iter().zip(&got).zip(&want) {
                    let error = (f64::from(got) - want).abs();
                    assert!(
                        error <= 2e-7 * (1.0 + want.abs()),
                        "{activation:?}({x}) on {isa:?}: {got}, not {want}"
                    );
                }
            }
        }
    }

    #[test]
    fn exp_is_close_and_has_the_right_limits() {
        let x: Vec<f32> = (-8700..8870).map(|i| i as f32 * 0.01).collect();
        for isa in Isa::available() {
            let mut got = x.clone();
            dispatch_on(isa, Exp(&mut got));
            for (&x, &got) in x.iter().zip(&got) {
                let want = f64::from(x).exp();
                assert!(
                    (f64::from(got) - want).abs() <= 2.5e-7 * want,
                    "exp({x}) on {isa:?}: {got}, not {want}"
                );
            }
            let mut limits = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 0.0, -120.0, 89.5];
            dispatch_on(isa, Exp(&mut limits));
            assert!(limits[0].is_nan());
            assert_eq!(limits[1..], [f32::INFINITY, 0.0, 1.0, 0.0, f32::INFINITY]);
        }
    }
}
