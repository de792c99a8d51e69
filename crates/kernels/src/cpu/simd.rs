//! Instruction sets, chosen at run time.
//!
//! A kernel is written once, in plain Rust over short arrays (`[f32; 16]`) that LLVM turns into vector registers, as
//! the `run` of a [`SimdOp`]. [`dispatch`] compiles it for each [`Isa`] and calls the one this machine has.
//! Rust never contracts `a * b + c` to a fused multiply-add, and `mul_add` without the instruction is a slow library
//! call; so the body takes a [`Target`] and writes `T::fma(a, b, c)`, which is whichever is fast there.
//! `BULLET_ISA=avx2` forces a lower one, so that every path can be tested on one machine.

use std::sync::OnceLock;

/// The instruction sets that kernels are compiled for, lowest first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Isa {
    /// What the target always has: SSE2 on x86-64, NEON on aarch64.
    Portable,
    /// x86-64 with SSE4.2.
    Sse42,
    /// x86-64 with AVX2, FMA and F16C.
    Avx2,
    /// x86-64 with AVX-512 F, BW, CD, DQ and VL.
    Avx512,
}

impl Isa {
    /// Every one that this machine can run, lowest first.
    pub fn available() -> Vec<Isa> {
        [Isa::Portable, Isa::Sse42, Isa::Avx2, Isa::Avx512].into_iter().filter(|i| i.is_supported()).collect()
    }

    /// The name that `BULLET_ISA` takes.
    pub const fn name(self) -> &'static str {
        match self {
            Isa::Portable if cfg!(target_arch = "aarch64") => "neon",
            Isa::Portable => "portable",
            Isa::Sse42 => "sse4.2",
            Isa::Avx2 => "avx2",
            Isa::Avx512 => "avx512",
        }
    }

    #[cfg(target_arch = "x86_64")]
    pub(crate) fn is_supported(self) -> bool {
        match self {
            Isa::Portable => true,
            Isa::Sse42 => is_x86_feature_detected!("sse4.2"),
            Isa::Avx2 => {
                is_x86_feature_detected!("avx2")
                    && is_x86_feature_detected!("fma")
                    && is_x86_feature_detected!("f16c")
            }
            Isa::Avx512 => {
                Isa::Avx2.is_supported()
                    && is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512cd")
                    && is_x86_feature_detected!("avx512dq")
                    && is_x86_feature_detected!("avx512vl")
            }
        }
    }

    #[cfg(not(target_arch = "x86_64"))]
    pub(crate) fn is_supported(self) -> bool {
        self == Isa::Portable
    }
}

/// The instruction set that kernels use: the highest available, or the one `BULLET_ISA` names if it is available.
pub fn isa() -> Isa {
    static ISA: OnceLock<Isa> = OnceLock::new();
    *ISA.get_or_init(|| {
        let asked = std::env::var("BULLET_ISA").ok();
        asked.and_then(|name| Isa::available().into_iter().find(|i| i.name() == name)).unwrap_or(highest())
    })
}

/// The highest instruction set that this machine has.
#[inline]
pub(crate) fn highest() -> Isa {
    static HIGHEST: OnceLock<Isa> = OnceLock::new();
    *HIGHEST.get_or_init(|| *Isa::available().last().expect("portable is always available"))
}

/// Whether `BULLET_ISA` is unset or names what this machine has; [`isa`] takes the highest for anything else.
///
/// # Errors
/// The value, and what would do.
pub fn check_environment() -> bullet_ops::Result<()> {
    let names: Vec<&str> = Isa::available().into_iter().map(Isa::name).collect();
    match std::env::var("BULLET_ISA") {
        Ok(name) if !names.contains(&name.as_str()) => Err(bullet_ops::Error::argument(format!(
            "BULLET_ISA = '{name}' is not an instruction set of this machine: one of {}",
            names.join(", ")
        ))),
        _ => Ok(()),
    }
}

/// What a kernel body may know of the instruction set it is being compiled for.
pub trait Target: Copy {
    /// Whether it has fused multiply-add.
    const FMA: bool;
    /// Number of f32 in a vector register, for loops that block by it.
    const F32_LANES: usize;

    /// `a * b + c`, fused where the hardware does that.
    #[inline(always)]
    fn fma<C: FusedMulAdd>(a: C, b: C, c: C) -> C {
        if Self::FMA { a.fused(b, c) } else { a.unfused(b, c) }
    }
}

/// The two ways to write `self * b + c`.
pub trait FusedMulAdd: Copy {
    /// With one rounding.
    fn fused(self, b: Self, c: Self) -> Self;
    /// With two.
    fn unfused(self, b: Self, c: Self) -> Self;
}

macro_rules! fused_mul_add {
    ($($ty:ty),*) => {$(
        impl FusedMulAdd for $ty {
            #[inline(always)]
            fn fused(self, b: Self, c: Self) -> Self { self.mul_add(b, c) }
            #[inline(always)]
            fn unfused(self, b: Self, c: Self) -> Self { self * b + c }
        }
    )*};
}
fused_mul_add!(f32, f64);

macro_rules! targets {
    ($($(#[$doc:meta])* $name:ident: fma $fma:expr, lanes $lanes:expr;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy)]
        pub struct $name;
        impl Target for $name {
            const FMA: bool = $fma;
            const F32_LANES: usize = $lanes;
        }
    )*};
}
targets! {
    /// [`Isa::Portable`].
    Portable: fma cfg!(target_arch = "aarch64"), lanes 4;
    /// [`Isa::Sse42`].
    Sse42: fma false, lanes 4;
    /// [`Isa::Avx2`].
    Avx2: fma true, lanes 8;
    /// [`Isa::Avx512`].
    Avx512: fma true, lanes 16;
}

/// A kernel body that is compiled once for each instruction set.
pub trait SimdOp {
    /// What it returns.
    type Output;
    /// The body; write `#[inline(always)]` on it and on all it calls, so that it takes on the caller's features.
    fn run<T: Target>(self) -> Self::Output;
}

/// Runs `op` with the instruction set of [`isa`].
#[inline]
pub fn dispatch<O: SimdOp>(op: O) -> O::Output {
    dispatch_on(isa(), op)
}

/// Runs `op` with `isa`, or with the portable code where this machine hasn't got it.
pub fn dispatch_on<O: SimdOp>(isa: Isa, op: O) -> O::Output {
    #[cfg(target_arch = "x86_64")]
    {
        match isa {
            // SAFETY: `highest` was detected, and each set includes those below it.
            Isa::Avx512 if isa <= highest() => return unsafe { avx512(op) },
            // SAFETY: as above.
            Isa::Avx2 if isa <= highest() => return unsafe { avx2(op) },
            // SAFETY: as above.
            Isa::Sse42 if isa <= highest() => return unsafe { sse42(op) },
            Isa::Avx512 | Isa::Avx2 | Isa::Sse42 | Isa::Portable => {}
        }
    }
    let _ = isa;
    op.run::<Portable>()
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512cd,avx512dq,avx512vl,avx2,fma,f16c,bmi1,bmi2")]
fn avx512<O: SimdOp>(op: O) -> O::Output {
    op.run::<Avx512>()
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,f16c")]
fn avx2<O: SimdOp>(op: O) -> O::Output {
    op.run::<Avx2>()
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "sse4.2")]
fn sse42<O: SimdOp>(op: O) -> O::Output {
    op.run::<Sse42>()
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Dot<'a>(&'a [f32], &'a [f32]);
    impl SimdOp for Dot<'_> {
        type Output = f32;
        #[inline(always)]
        fn run<T: Target>(self) -> f32 {
            self.0.iter().zip(self.1).fold(0.0, |sum, (&a, &b)| T::fma(a, b, sum))
        }
    }

    #[test]
    fn every_available_isa_runs() {
        let x: Vec<f32> = (0..33).map(|i| i as f32).collect();
        for isa in Isa::available() {
            assert_eq!(dispatch_on(isa, Dot(&x, &x)), 11440.0, "{}", isa.name());
        }
    }
}
