//! Functions of several numbers at once, for threads side by side: of f32 by the vector mathematics of bullet-kernels, else one by one.

use bullet_kernels::cpu::math;
use bullet_kernels::cpu::simd::{Isa, Portable, Target, isa};
#[cfg(target_arch = "x86_64")]
use bullet_kernels::cpu::simd::{Avx2, Avx512};

use crate::abi::{Function, LANES};

type Numbers32 = [f32; LANES];
type Numbers64 = [f64; LANES];

/// Functions that a loop over lanes computes in vectors; each is compiled for every instruction set.
macro_rules! vectors {
    ($($name:ident: $($body:ident)::+;)*) => {$(
        mod $name {
            use super::*;

            #[inline(always)]
            unsafe fn run<T: Target>(out: *mut Numbers32, x: *const Numbers32) {
                // SAFETY: compiled code gives places of so many numbers.
                let x = unsafe { x.read() };
                // SAFETY: as above.
                unsafe { out.write($($body)::+::<T>(x)) };
            }

            unsafe extern "C" fn portable(out: *mut Numbers32, x: *const Numbers32) {
                // SAFETY: the caller's promise.
                unsafe { run::<Portable>(out, x) }
            }

            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma,f16c")]
            unsafe extern "C" fn avx2(out: *mut Numbers32, x: *const Numbers32) {
                // SAFETY: the caller's promise.
                unsafe { run::<Avx2>(out, x) }
            }

            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx512f,avx512bw,avx512cd,avx512dq,avx512vl,avx2,fma,f16c,bmi1,bmi2")]
            unsafe extern "C" fn avx512(out: *mut Numbers32, x: *const Numbers32) {
                // SAFETY: the caller's promise.
                unsafe { run::<Avx512>(out, x) }
            }

            pub(super) fn address() -> usize {
                match isa() {
                    #[cfg(target_arch = "x86_64")]
                    Isa::Avx512 => avx512 as *const () as usize,
                    #[cfg(target_arch = "x86_64")]
                    Isa::Avx2 => avx2 as *const () as usize,
                    _ => portable as *const () as usize,
                }
            }
        }
    )*};
}

macro_rules! bodies {
    ($($name:ident = $f:ident;)*) => {
        mod bodies {
            use super::*;
            $(
                #[inline(always)]
                pub(super) fn $name<T: Target>(x: Numbers32) -> Numbers32 {
                    let mut y = [0.0; LANES];
                    for i in 0..LANES {
                        y[i] = math::$f::<T>(x[i]);
                    }
                    y
                }
            )*
        }
    };
}

bodies! {
    exp = exp; log = log; log2 = log2; asin = asin; acos = acos; atan = atan; sinh = sinh; cosh = cosh; tanh = tanh; erf = erf;
    near_sin = sin; near_cos = cos; near_tan = tan;
}

/// Angles beyond what vectors compute go one by one.
#[inline(always)]
fn with_far(x: Numbers32, mut y: Numbers32, far: fn(f32) -> f32) -> Numbers32 {
    let mut all = true;
    for i in 0..LANES {
        all &= x[i].abs() <= math::TRIG_LIMIT;
    }
    if !all {
        for i in 0..LANES {
            if x[i].abs() > math::TRIG_LIMIT {
                y[i] = far(x[i]);
            }
        }
    }
    y
}

#[inline(always)]
fn any_sin<T: Target>(x: Numbers32) -> Numbers32 {
    with_far(x, bodies::near_sin::<T>(x), f32::sin)
}

#[inline(always)]
fn any_cos<T: Target>(x: Numbers32) -> Numbers32 {
    with_far(x, bodies::near_cos::<T>(x), f32::cos)
}

#[inline(always)]
fn any_tan<T: Target>(x: Numbers32) -> Numbers32 {
    with_far(x, bodies::near_tan::<T>(x), f32::tan)
}

vectors! {
    exp: bodies::exp;
    log: bodies::log;
    log2: bodies::log2;
    asin: bodies::asin;
    acos: bodies::acos;
    atan: bodies::atan;
    sinh: bodies::sinh;
    cosh: bodies::cosh;
    tanh: bodies::tanh;
    erf: bodies::erf;
    sin: any_sin;
    cos: any_cos;
    tan: any_tan;
}

/// Functions of one or two numbers, one by one.
macro_rules! singles {
    ($($name:ident: $ty:ty, $($x:ident),+ => $body:expr;)*) => {$(
        unsafe extern "C" fn $name(out: *mut $ty, $($x: *const $ty),+) {
            // SAFETY: compiled code gives places of so many numbers.
            let ($($x,)+) = unsafe { ($($x.read(),)+) };
            // SAFETY: as above.
            let out = unsafe { &mut *out };
            for i in 0..LANES {
                let ($($x,)+) = ($($x[i],)+);
                out[i] = $body;
            }
        }
    )*};
}

singles! {
    cbrt32: Numbers32, x => x.cbrt();
    log10_32: Numbers32, x => x.log10();
    mod32: Numbers32, x, y => x % y;
    pow32: Numbers32, x, y => x.powf(y);
    atan2_32: Numbers32, x, y => x.atan2(y);
    cbrt64: Numbers64, x => x.cbrt();
    exp64: Numbers64, x => x.exp();
    log64: Numbers64, x => x.ln();
    log2_64: Numbers64, x => x.log2();
    log10_64: Numbers64, x => x.log10();
    sin64: Numbers64, x => x.sin();
    cos64: Numbers64, x => x.cos();
    tan64: Numbers64, x => x.tan();
    asin64: Numbers64, x => x.asin();
    acos64: Numbers64, x => x.acos();
    atan64: Numbers64, x => x.atan();
    sinh64: Numbers64, x => x.sinh();
    cosh64: Numbers64, x => x.cosh();
    tanh64: Numbers64, x => x.tanh();
    erf64: Numbers64, x => bullet_ops::scalar::erf(x);
    mod64: Numbers64, x, y => x % y;
    pow64: Numbers64, x, y => x.powf(y);
    atan2_64: Numbers64, x, y => x.atan2(y);
}

/// The address of a function of several numbers; 0 of what is no function of numbers.
pub(crate) fn address(function: Function) -> usize {
    match function {
        Function::Exp32 => exp::address(),
        Function::Log32 => log::address(),
        Function::Log2_32 => log2::address(),
        Function::Sin32 => sin::address(),
        Function::Cos32 => cos::address(),
        Function::Tan32 => tan::address(),
        Function::Asin32 => asin::address(),
        Function::Acos32 => acos::address(),
        Function::Atan32 => atan::address(),
        Function::Sinh32 => sinh::address(),
        Function::Cosh32 => cosh::address(),
        Function::Tanh32 => tanh::address(),
        Function::Erf32 => erf::address(),
        Function::Cbrt32 => cbrt32 as *const () as usize,
        Function::Log10_32 => log10_32 as *const () as usize,
        Function::Mod32 => mod32 as *const () as usize,
        Function::Pow32 => pow32 as *const () as usize,
        Function::Atan2_32 => atan2_32 as *const () as usize,
        Function::Cbrt64 => cbrt64 as *const () as usize,
        Function::Exp64 => exp64 as *const () as usize,
        Function::Log64 => log64 as *const () as usize,
        Function::Log2_64 => log2_64 as *const () as usize,
        Function::Log10_64 => log10_64 as *const () as usize,
        Function::Sin64 => sin64 as *const () as usize,
        Function::Cos64 => cos64 as *const () as usize,
        Function::Tan64 => tan64 as *const () as usize,
        Function::Asin64 => asin64 as *const () as usize,
        Function::Acos64 => acos64 as *const () as usize,
        Function::Atan64 => atan64 as *const () as usize,
        Function::Sinh64 => sinh64 as *const () as usize,
        Function::Cosh64 => cosh64 as *const () as usize,
        Function::Tanh64 => tanh64 as *const () as usize,
        Function::Erf64 => erf64 as *const () as usize,
        Function::Mod64 => mod64 as *const () as usize,
        Function::Pow64 => pow64 as *const () as usize,
        Function::Atan2_64 => atan2_64 as *const () as usize,
        Function::Fault
        | Function::Grow
        | Function::Print
        | Function::RoundF16
        | Function::RoundBF16
        | Function::RoundF16Wide
        | Function::RoundBF16Wide
        | Function::FromF16
        | Function::ToF16 => 0,
    }
}
