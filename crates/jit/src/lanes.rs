//! Functions of several numbers at once, for threads side by side: of f32 by the vector mathematics of bullet-kernels, else one by one.
//!
//! Operands come in registers of 128 bits: a wide load of what two narrower stores just wrote would wait for both to leave the core,
//! and everything behind it, too. Results go to memory in one store, which narrower loads can take from.

// Cranelift passes vectors as C does on this system, and there is no Rust name for C's own types of them.
#![allow(improper_ctypes_definitions)]

use std::arch::x86_64::{__m128, __m128d};

use bullet_kernels::cpu::math;
use bullet_kernels::cpu::simd::{Avx2, Avx512, Isa, Portable, Target, isa};

use crate::abi::{Function, LANES};

type Numbers32 = [f32; LANES];
type Numbers64 = [f64; LANES];

/// Numbers from registers.
#[inline(always)]
fn numbers32(x: [__m128; LANES / 4]) -> Numbers32 {
    // SAFETY: as many floats, of which every bit pattern is one.
    unsafe { std::mem::transmute(x) }
}

/// Numbers from registers.
#[inline(always)]
fn numbers64(x: [__m128d; LANES / 2]) -> Numbers64 {
    // SAFETY: as above.
    unsafe { std::mem::transmute(x) }
}

/// Functions that a loop over lanes computes in vectors, and those of one number that give the same; each is compiled for every
/// instruction set.
macro_rules! vectors {
    ($($name:ident: $($body:ident)::+, $($one:ident)::+;)*) => {$(
        mod $name {
            use super::*;

            #[inline(always)]
            unsafe fn run<T: Target>(out: *mut Numbers32, x: Numbers32) {
                // SAFETY: compiled code gives a place for so many numbers.
                unsafe { out.write($($body)::+::<T>(x)) };
            }

            unsafe extern "C" fn portable(out: *mut Numbers32, a: __m128, b: __m128) {
                // SAFETY: the caller's promise.
                unsafe { run::<Portable>(out, numbers32([a, b])) }
            }

            #[target_feature(enable = "avx2,fma,f16c")]
            unsafe extern "C" fn avx2(out: *mut Numbers32, a: __m128, b: __m128) {
                // SAFETY: the caller's promise.
                unsafe { run::<Avx2>(out, numbers32([a, b])) }
            }

            #[target_feature(enable = "avx512f,avx512bw,avx512cd,avx512dq,avx512vl,avx2,fma,f16c,bmi1,bmi2")]
            unsafe extern "C" fn avx512(out: *mut Numbers32, a: __m128, b: __m128) {
                // SAFETY: the caller's promise.
                unsafe { run::<Avx512>(out, numbers32([a, b])) }
            }

            extern "C" fn portable_one(x: f32) -> f32 {
                $($one)::+::<Portable>(x)
            }

            #[target_feature(enable = "avx2,fma,f16c")]
            unsafe extern "C" fn avx2_one(x: f32) -> f32 {
                $($one)::+::<Avx2>(x)
            }

            /// Of all lanes, and of one number, with the same result.
            pub(super) fn addresses() -> [usize; 2] {
                match isa() {
                    Isa::Avx512 => [avx512 as *const () as usize, avx2_one as *const () as usize],
                    Isa::Avx2 => [avx2 as *const () as usize, avx2_one as *const () as usize],
                    _ => [portable as *const () as usize, portable_one as *const () as usize],
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

/// As [`bodies`], in a loop of twice as many, which LLVM keeps as a loop and makes one of vectors; the shorter one it takes apart
/// into scalars, where there are many choices.
macro_rules! long_bodies {
    ($($name:ident = $f:ident;)*) => {
        mod long {
            use super::*;
            $(
                #[inline(always)]
                pub(super) fn $name<T: Target>(x: Numbers32) -> Numbers32 {
                    let mut wide = [1.0; 2 * LANES];
                    wide[..LANES].copy_from_slice(&x);
                    let mut y = [0.0; 2 * LANES];
                    for i in 0..2 * LANES {
                        y[i] = math::$f::<T>(wide[i]);
                    }
                    std::array::from_fn(|i| y[i])
                }
            )*
        }
    };
}

long_bodies! {
    log = log; log2 = log2; acos = acos; atan = atan;
}

bodies! {
    exp = exp; asin = asin; sinh = sinh; cosh = cosh; tanh = tanh; erf = erf;
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

#[inline(always)]
fn one_sin<T: Target>(x: f32) -> f32 {
    if x.abs() > math::TRIG_LIMIT { x.sin() } else { math::sin::<T>(x) }
}

#[inline(always)]
fn one_cos<T: Target>(x: f32) -> f32 {
    if x.abs() > math::TRIG_LIMIT { x.cos() } else { math::cos::<T>(x) }
}

#[inline(always)]
fn one_tan<T: Target>(x: f32) -> f32 {
    if x.abs() > math::TRIG_LIMIT { x.tan() } else { math::tan::<T>(x) }
}

vectors! {
    exp: bodies::exp, math::exp;
    log: long::log, math::log;
    log2: long::log2, math::log2;
    asin: bodies::asin, math::asin;
    acos: long::acos, math::acos;
    atan: long::atan, math::atan;
    sinh: bodies::sinh, math::sinh;
    cosh: bodies::cosh, math::cosh;
    tanh: bodies::tanh, math::tanh;
    erf: bodies::erf, math::erf;
    sin: any_sin, one_sin;
    cos: any_cos, one_cos;
    tan: any_tan, one_tan;
}

/// Functions of one or two numbers, one by one.
macro_rules! singles {
    ($signature:tt $($name:ident => $body:expr;)*) => {
        $(single! { $signature $name $body })*
    };
}

macro_rules! single {
    ([$numbers:ident, $of:ident($($x:ident: $($part:ident)+),+): $register:ty] $name:ident $body:expr) => {
        unsafe extern "C" fn $name(out: *mut $numbers, $($($part: $register),+),+) {
            $(let $x = $of([$($part),+]);)+
            // SAFETY: compiled code gives a place for so many numbers.
            let out = unsafe { &mut *out };
            for i in 0..LANES {
                let ($($x,)+) = ($($x[i],)+);
                out[i] = $body;
            }
        }
    };
}

singles! {
    [Numbers32, numbers32(x: a b): __m128]
    cbrt32 => x.cbrt();
    log10_32 => x.log10();
    erfc32 => bullet_ops::scalar::erfc(x.into()) as f32;
    erfinv32 => bullet_ops::scalar::erfinv(x.into()) as f32;
}

singles! {
    [Numbers32, numbers32(x: a b, y: c d): __m128]
    mod32 => x % y;
    pow32 => x.powf(y);
    atan2_32 => x.atan2(y);
}

singles! {
    [Numbers64, numbers64(x: a b c d): __m128d]
    cbrt64 => x.cbrt();
    exp64 => x.exp();
    log64 => x.ln();
    log2_64 => x.log2();
    log10_64 => x.log10();
    sin64 => x.sin();
    cos64 => x.cos();
    tan64 => x.tan();
    asin64 => x.asin();
    acos64 => x.acos();
    atan64 => x.atan();
    sinh64 => x.sinh();
    cosh64 => x.cosh();
    tanh64 => x.tanh();
    erf64 => bullet_ops::scalar::erf(x);
    erfc64 => bullet_ops::scalar::erfc(x);
    erfinv64 => bullet_ops::scalar::erfinv(x);
}

singles! {
    [Numbers64, numbers64(x: a b c d, y: e f g h): __m128d]
    mod64 => x % y;
    pow64 => x.powf(y);
    atan2_64 => x.atan2(y);
}

/// The addresses of a function that is computed in vectors: of all lanes, and of one number.
fn vectors(function: Function) -> Option<[usize; 2]> {
    Some(match function {
        Function::Exp32 => exp::addresses(),
        Function::Log32 => log::addresses(),
        Function::Log2_32 => log2::addresses(),
        Function::Sin32 => sin::addresses(),
        Function::Cos32 => cos::addresses(),
        Function::Tan32 => tan::addresses(),
        Function::Asin32 => asin::addresses(),
        Function::Acos32 => acos::addresses(),
        Function::Atan32 => atan::addresses(),
        Function::Sinh32 => sinh::addresses(),
        Function::Cosh32 => cosh::addresses(),
        Function::Tanh32 => tanh::addresses(),
        Function::Erf32 => erf::addresses(),
        _ => return None,
    })
}

/// The address of a function of one number that gives what lanes give, if it is not the standard library's.
pub(crate) fn single(function: Function) -> Option<usize> {
    vectors(function).map(|[_, one]| one)
}

/// The address of a function of several numbers; 0 of what is no function of numbers.
pub(crate) fn address(function: Function) -> usize {
    if let Some([all, _]) = vectors(function) {
        return all;
    }
    match function {
        Function::Cbrt32 => cbrt32 as *const () as usize,
        Function::Log10_32 => log10_32 as *const () as usize,
        Function::Erfc32 => erfc32 as *const () as usize,
        Function::Erfinv32 => erfinv32 as *const () as usize,
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
        Function::Erfc64 => erfc64 as *const () as usize,
        Function::Erfinv64 => erfinv64 as *const () as usize,
        Function::Mod64 => mod64 as *const () as usize,
        Function::Pow64 => pow64 as *const () as usize,
        Function::Atan2_64 => atan2_64 as *const () as usize,
        Function::Fault
        | Function::Exp32
        | Function::Log32
        | Function::Log2_32
        | Function::Sin32
        | Function::Cos32
        | Function::Tan32
        | Function::Asin32
        | Function::Acos32
        | Function::Atan32
        | Function::Sinh32
        | Function::Cosh32
        | Function::Tanh32
        | Function::Erf32
        | Function::Grow
        | Function::Print
        | Function::Records
        | Function::Ask
        | Function::RoundF16
        | Function::RoundBF16
        | Function::RoundF16Wide
        | Function::RoundBF16Wide
        | Function::FromF16
        | Function::ToF16 => 0,
    }
}
