//! The activations that a matrix product applies to its result, on rows that are still in cache.

use bullet_ops::{Activation, Compute, DType};

use crate::cpu::math::Real;
use crate::cpu::simd::Target;

/// Applies `activation` to each element.
#[inline(always)]
pub(super) fn apply<S: Target, C: Compute>(activation: Activation, row: &mut [C]) {
    // `C` is f32 or f64; the casts are of a type to itself.
    let (data, len) = (row.as_mut_ptr(), row.len());
    if C::DTYPE == DType::F32 {
        // SAFETY: `C` is f32.
        apply_real::<S, f32>(activation, unsafe { std::slice::from_raw_parts_mut(data.cast(), len) });
    } else {
        // SAFETY: `C` is f64.
        apply_real::<S, f64>(activation, unsafe { std::slice::from_raw_parts_mut(data.cast(), len) });
    }
}

#[inline(always)]
fn apply_real<S: Target, C: Real>(activation: Activation, row: &mut [C]) {
    match activation {
        Activation::Identity => {}
        // Written so that NaN passes.
        Activation::Relu => map(row, |x| if x < C::ZERO { C::ZERO } else { x }),
        Activation::Gelu => map(row, |x| {
            let half = C::of(0.5) * x;
            half + half * (x * C::of(std::f64::consts::FRAC_1_SQRT_2)).erf::<S>()
        }),
        // 0.5 x (1 + tanh u) is x sigmoid(2 u).
        Activation::GeluTanh => map(row, |x| {
            let cubic = S::fma(C::of(0.044715) * x * x, x, x);
            x * sigmoid::<S, C>(C::of(2.0 * 0.797_884_560_802_865_4) * cubic)
        }),
        Activation::Silu => map(row, |x| x * sigmoid::<S, C>(x)),
    }
}

#[inline(always)]
fn sigmoid<S: Target, C: Real>(x: C) -> C {
    C::ONE / (C::ONE + (-x).exp::<S>())
}

#[inline(always)]
fn map<C: Copy>(row: &mut [C], f: impl Fn(C) -> C) {
    for x in row {
        *x = f(*x);
    }
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
}
