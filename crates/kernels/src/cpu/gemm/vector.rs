//! Vector registers by name, for the loops that must keep their accumulators in registers.
//!
//! The plain arrays of [`simd`](crate::cpu::simd) serve elementwise loops. A register tile of a matrix product needs
//! certainty that two dozen accumulators are never spilled, so here each instruction set has a register type behind
//! one trait, and [`vectorize`] compiles a body for each.

use std::marker::PhantomData;

use bullet_ops::{Compute, Float};

use crate::cpu::simd::Isa;

/// A vector register of `C`.
///
/// # Safety
/// The methods may only run on a machine with the register's instruction set: inside [`vectorize`].
pub(crate) trait Vector<C: Compute>: Copy {
    /// Elements in a register.
    const LANES: usize;
    /// Registers that a tile of accumulators may take, two loads and a broadcast left aside.
    const ACCUMULATORS: usize;

    /// `x` in every lane.
    unsafe fn splat(x: C) -> Self;
    /// [`LANES`](Vector::LANES) elements from `p`, of any alignment.
    unsafe fn load(p: *const C) -> Self;
    /// Stores to `p`, of any alignment.
    unsafe fn store(self, p: *mut C);
    /// `self * b + c`, fused where the hardware does that.
    unsafe fn fma(self, b: Self, c: Self) -> Self;
    /// Lane-wise sum.
    unsafe fn add(self, b: Self) -> Self;

    /// Loads [`LANES`](Vector::LANES) stored elements and widens them.
    #[inline(always)]
    unsafe fn widen<T: Float<Compute = C>>(p: *const T) -> Self {
        let mut lanes = [C::ZERO; 16];
        for (i, lane) in lanes.iter_mut().enumerate().take(Self::LANES) {
            // SAFETY: the caller's promise that LANES elements are readable.
            *lane = unsafe { *p.add(i) }.up();
        }
        // SAFETY: 16 elements are at least LANES.
        unsafe { Self::load(lanes.as_ptr()) }
    }

    /// The sum of all lanes, in pairs.
    #[inline(always)]
    unsafe fn sum(self) -> C {
        let mut lanes = [C::ZERO; 16];
        // SAFETY: 16 elements are at least LANES.
        unsafe { self.store(lanes.as_mut_ptr()) };
        let mut width = Self::LANES;
        while width > 1 {
            width /= 2;
            for i in 0..width {
                lanes[i] += lanes[i + width];
            }
        }
        lanes[0]
    }
}

/// A body that is compiled for each register type.
pub(crate) trait VectorOp<C: Compute> {
    /// What it returns.
    type Output;
    /// The body; `#[inline(always)]`, as all it calls.
    ///
    /// # Safety
    /// Runs only where `V`'s instruction set is available.
    unsafe fn run<V: Vector<C>>(self) -> Self::Output;
}

/// Runs `op` with the registers of `isa`, or with arrays where this machine hasn't got it.
pub(crate) fn vectorize<C: Compute, O: VectorOp<C>>(isa: Isa, op: O) -> O::Output {
    #[cfg(target_arch = "x86_64")]
    match isa {
        // SAFETY: `highest` was detected, and each set includes those below it.
        Isa::Avx512 if isa <= crate::cpu::simd::highest() => return unsafe { avx512(op) },
        // SAFETY: as above.
        Isa::Avx2 if isa <= crate::cpu::simd::highest() => return unsafe { avx2(op) },
        Isa::Avx512 | Isa::Avx2 | Isa::Sse42 | Isa::Portable => {}
    }
    let _ = isa;
    // SAFETY: arrays need no instruction set.
    unsafe { op.run::<Lanes<C>>() }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512cd,avx512dq,avx512vl,avx2,fma,f16c,bmi1,bmi2")]
fn avx512<C: Compute, O: VectorOp<C>>(op: O) -> O::Output {
    // SAFETY: this function has the features.
    unsafe { op.run::<Zmm<C>>() }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,f16c")]
fn avx2<C: Compute, O: VectorOp<C>>(op: O) -> O::Output {
    // SAFETY: this function has the features.
    unsafe { op.run::<Ymm<C>>() }
}

/// 16 bytes as an array, which LLVM keeps in one 128-bit register.
#[derive(Clone, Copy)]
#[repr(align(16))]
pub(crate) struct Lanes<C>([C; 4], PhantomData<C>);

impl<C: Compute> Lanes<C> {
    #[inline(always)]
    fn map(f: impl Fn(usize) -> C) -> Self {
        let mut out = [C::ZERO; 4];
        for (i, x) in out.iter_mut().enumerate() {
            *x = f(i);
        }
        Lanes(out, PhantomData)
    }
}

impl<C: Compute> Vector<C> for Lanes<C> {
    const LANES: usize = 4;
    const ACCUMULATORS: usize = if cfg!(target_arch = "aarch64") { 24 } else { 8 };

    #[inline(always)]
    unsafe fn splat(x: C) -> Self {
        Lanes::map(|_| x)
    }
    #[inline(always)]
    unsafe fn load(p: *const C) -> Self {
        // SAFETY: the caller's promise that LANES elements are readable.
        Lanes::map(|i| unsafe { *p.add(i) })
    }
    #[inline(always)]
    unsafe fn store(self, p: *mut C) {
        for (i, x) in self.0.into_iter().enumerate() {
            // SAFETY: the caller's promise that LANES elements are writable.
            unsafe { *p.add(i) = x };
        }
    }
    #[inline(always)]
    unsafe fn fma(self, b: Self, c: Self) -> Self {
        Lanes::map(|i| self.0[i] * b.0[i] + c.0[i])
    }
    #[inline(always)]
    unsafe fn add(self, b: Self) -> Self {
        Lanes::map(|i| self.0[i] + b.0[i])
    }
}

#[cfg(target_arch = "x86_64")]
pub(crate) use x86::{Ymm, Zmm};

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use bullet_ops::DType;

    use super::*;

    /// Gives a register type its [`Vector`]: the f32 and the f64 instruction of each operation.
    macro_rules! register {
        ($(#[$doc:meta])* $name:ident($single:ty, $double:ty), $bytes:literal bytes, $acc:literal accumulators,
         $pd_to_ps:ident, $ps_to_pd:ident, $set_ps:ident, $set_pd:ident, $load_ps:ident, $load_pd:ident,
         $store_ps:ident, $store_pd:ident, $fma_ps:ident, $fma_pd:ident, $add_ps:ident, $add_pd:ident,
         |$f16:ident| $widen_f16:expr, |$bf16:ident| $widen_bf16:expr) => {
            $(#[$doc])*
            #[derive(Clone, Copy)]
            pub(crate) struct $name<C>($single, PhantomData<C>);

            // SAFETY (every block): `vectorize` checked the instruction set; pointers are the caller's promise; the
            // casts between C and f32 or f64 are of a type to itself.
            #[allow(clippy::undocumented_unsafe_blocks)]
            impl<C: Compute> $name<C> {
                const DOUBLE: bool = matches!(C::DTYPE, DType::F64);
                #[inline(always)]
                fn s(x: $single) -> Self {
                    $name(x, PhantomData)
                }
                #[inline(always)]
                fn d(x: $double) -> Self {
                    $name(unsafe { $pd_to_ps(x) }, PhantomData)
                }
                #[inline(always)]
                fn pd(self) -> $double {
                    unsafe { $ps_to_pd(self.0) }
                }
            }

            #[allow(clippy::undocumented_unsafe_blocks)]
            impl<C: Compute> Vector<C> for $name<C> {
                const LANES: usize = $bytes / size_of::<C>();
                const ACCUMULATORS: usize = $acc;

                #[inline(always)]
                unsafe fn splat(x: C) -> Self {
                    unsafe {
                        if Self::DOUBLE {
                            Self::d($set_pd(*(&raw const x).cast::<f64>()))
                        } else {
                            Self::s($set_ps(*(&raw const x).cast::<f32>()))
                        }
                    }
                }
                #[inline(always)]
                unsafe fn load(p: *const C) -> Self {
                    unsafe {
                        if Self::DOUBLE { Self::d($load_pd(p.cast())) } else { Self::s($load_ps(p.cast())) }
                    }
                }
                #[inline(always)]
                unsafe fn store(self, p: *mut C) {
                    unsafe {
                        if Self::DOUBLE { $store_pd(p.cast(), self.pd()) } else { $store_ps(p.cast(), self.0) }
                    }
                }
                #[inline(always)]
                unsafe fn fma(self, b: Self, c: Self) -> Self {
                    unsafe {
                        if Self::DOUBLE {
                            Self::d($fma_pd(self.pd(), b.pd(), c.pd()))
                        } else {
                            Self::s($fma_ps(self.0, b.0, c.0))
                        }
                    }
                }
                #[inline(always)]
                unsafe fn add(self, b: Self) -> Self {
                    unsafe {
                        if Self::DOUBLE { Self::d($add_pd(self.pd(), b.pd())) } else { Self::s($add_ps(self.0, b.0)) }
                    }
                }
                #[inline(always)]
                unsafe fn widen<T: Float<Compute = C>>(p: *const T) -> Self {
                    unsafe {
                        match T::DTYPE {
                            DType::F16 => {
                                let $f16 = p;
                                Self::s($widen_f16)
                            }
                            DType::BF16 => {
                                let $bf16 = p;
                                Self::s($widen_bf16)
                            }
                            _ => Self::load(p.cast()),
                        }
                    }
                }
            }
        };
    }

    register! {
        /// AVX-512.
        Zmm(__m512, __m512d), 64 bytes, 24 accumulators, _mm512_castpd_ps, _mm512_castps_pd, _mm512_set1_ps,
        _mm512_set1_pd, _mm512_loadu_ps, _mm512_loadu_pd, _mm512_storeu_ps, _mm512_storeu_pd, _mm512_fmadd_ps,
        _mm512_fmadd_pd, _mm512_add_ps, _mm512_add_pd,
        |p| _mm512_cvtph_ps(_mm256_loadu_si256(p.cast())),
        |p| _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(_mm256_loadu_si256(p.cast()))))
    }
    register! {
        /// AVX2 with FMA and F16C.
        Ymm(__m256, __m256d), 32 bytes, 12 accumulators, _mm256_castpd_ps, _mm256_castps_pd, _mm256_set1_ps,
        _mm256_set1_pd, _mm256_loadu_ps, _mm256_loadu_pd, _mm256_storeu_ps, _mm256_storeu_pd, _mm256_fmadd_ps,
        _mm256_fmadd_pd, _mm256_add_ps, _mm256_add_pd,
        |p| _mm256_cvtph_ps(_mm_loadu_si128(p.cast())),
        |p| _mm256_castsi256_ps(_mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(_mm_loadu_si128(p.cast()))))
    }
}
