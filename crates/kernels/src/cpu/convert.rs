//! Conversions of blocks of elements: storage types to compute types and back.
//!
//! [`Storage`] is what the row kernels are generic over: they widen a row of f16 or bf16 into f32 scratch, and read and
//! write f32 and f64 in place. Rounding is to nearest, ties to even; NaN stays NaN, quiet. f16 uses the F16C and AVX-512
//! instructions where the target has them, bit operations elsewhere.

use bullet_ops::{DType, Element, Float};
use half::{bf16, f16};

use super::math::Real;
use super::simd::{Isa, SimdOp, Target, dispatch, dispatch_on};

/// Runs `$body` with `$ty` standing for the Rust type of a dtype.
macro_rules! with_element {
    ($dtype:expr, $ty:ident => $body:expr) => {
        match $dtype {
            bullet_ops::DType::Bool => {
                type $ty = bool;
                $body
            }
            bullet_ops::DType::U8 => {
                type $ty = u8;
                $body
            }
            bullet_ops::DType::U16 => {
                type $ty = u16;
                $body
            }
            bullet_ops::DType::U32 => {
                type $ty = u32;
                $body
            }
            bullet_ops::DType::U64 => {
                type $ty = u64;
                $body
            }
            bullet_ops::DType::I8 => {
                type $ty = i8;
                $body
            }
            bullet_ops::DType::I16 => {
                type $ty = i16;
                $body
            }
            bullet_ops::DType::I32 => {
                type $ty = i32;
                $body
            }
            bullet_ops::DType::I64 => {
                type $ty = i64;
                $body
            }
            bullet_ops::DType::F16 => {
                type $ty = half::f16;
                $body
            }
            bullet_ops::DType::BF16 => {
                type $ty = half::bf16;
                $body
            }
            bullet_ops::DType::F32 => {
                type $ty = f32;
                $body
            }
            bullet_ops::DType::F64 => {
                type $ty = f64;
                $body
            }
        }
    };
}
pub(crate) use with_element;

/// A float that kernels load and store in blocks.
pub trait Storage: Float<Compute: Real> {
    /// Converts `src` to the compute type; `dst` is as long.
    fn widen<T: Target>(src: &[Self], dst: &mut [Self::Compute]);
    /// Rounds `src` to this type; `dst` is as long.
    fn narrow<T: Target>(src: &[Self::Compute], dst: &mut [Self]);
    /// The slice itself, if this is its own compute type.
    fn as_compute(src: &[Self]) -> Option<&[Self::Compute]>;
    /// The slice itself, if this is its own compute type.
    fn as_compute_mut(dst: &mut [Self]) -> Option<&mut [Self::Compute]>;

    /// `src` in the compute type: in place, or converted into `scratch` (at least as long).
    #[inline(always)]
    fn load<'a, T: Target>(src: &'a [Self], scratch: &'a mut [Self::Compute]) -> &'a [Self::Compute] {
        match Self::as_compute(src) {
            Some(same) => same,
            None => {
                let scratch = &mut scratch[..src.len()];
                Self::widen::<T>(src, scratch);
                scratch
            }
        }
    }

    /// How much scratch [`Storage::load`] needs for rows of `n`: none for compute types.
    fn scratch(n: usize) -> Vec<Self::Compute> {
        if Self::as_compute(&[]).is_some() { Vec::new() } else { vec![Self::of_zero(); n] }
    }

    /// 0 in the compute type.
    fn of_zero() -> Self::Compute {
        <Self::Compute as bullet_ops::Compute>::ZERO
    }
}

macro_rules! compute_storage {
    ($($ty:ty),*) => {$(
        impl Storage for $ty {
            #[inline(always)]
            fn widen<T: Target>(src: &[Self], dst: &mut [Self]) { dst.copy_from_slice(src) }
            #[inline(always)]
            fn narrow<T: Target>(src: &[Self], dst: &mut [Self]) { dst.copy_from_slice(src) }
            #[inline(always)]
            fn as_compute(src: &[Self]) -> Option<&[Self]> { Some(src) }
            #[inline(always)]
            fn as_compute_mut(dst: &mut [Self]) -> Option<&mut [Self]> { Some(dst) }
        }
    )*};
}
compute_storage!(f32, f64);

macro_rules! half_storage {
    ($($ty:ty: $up:expr, $down:expr);*) => {$(
        impl Storage for $ty {
            #[inline(always)]
            fn widen<T: Target>(src: &[Self], dst: &mut [f32]) { $up(src, dst) }
            #[inline(always)]
            fn narrow<T: Target>(src: &[f32], dst: &mut [Self]) { $down(src, dst) }
            #[inline(always)]
            fn as_compute(_: &[Self]) -> Option<&[f32]> { None }
            #[inline(always)]
            fn as_compute_mut(_: &mut [Self]) -> Option<&mut [f32]> { None }
        }
    )*};
}
half_storage!(f16: widen_f16::<T>, narrow_f16::<T>; bf16: widen_bf16, narrow_bf16);

/// f16 bits as f32: exact, with denormals. Multiplying by 2^112 rebiases the exponent of normals and denormals alike.
#[inline(always)]
pub fn f16_to_f32(h: u16) -> f32 {
    let magnitude = u32::from(h & 0x7fff) << 13;
    let scaled = f32::from_bits(magnitude) * f32::from_bits((254 - 15) << 23);
    let special = magnitude >= 0x7c00 << 13;
    let bits = if special { magnitude | 0x7f80_0000 } else { scaled.to_bits() };
    let quiet = if magnitude > 0x7c00 << 13 { 0x0040_0000 } else { 0 };
    f32::from_bits(bits | quiet | (u32::from(h & 0x8000) << 16))
}

/// Nearest f16, ties to even; overflow gives infinity.
#[inline(always)]
pub fn f32_to_f16(x: f32) -> u16 {
    let bits = x.to_bits();
    let magnitude = bits & 0x7fff_ffff;
    // Normal results: rebias and round by adding half a unit less one, plus the parity of the last kept bit.
    let odd = (magnitude >> 13) & 1;
    let normal = magnitude.wrapping_sub(112 << 23).wrapping_add(0xfff + odd) >> 13;
    // Denormal results (below 2^-14): adding 0.5 aligns the last place of f16 with that of f32, rounding on the way.
    let denormal = (f32::from_bits(magnitude) + 0.5).to_bits().wrapping_sub(0.5f32.to_bits());
    let finite = if magnitude < 113 << 23 { denormal } else { normal };
    // 65520 and above round to infinity.
    let finite = if magnitude >= 0x477f_f000 { 0x7c00 } else { finite };
    let nan = 0x7e00 | ((magnitude >> 13) & 0x3ff);
    let out = if magnitude > 0x7f80_0000 { nan } else { finite };
    (out | ((bits >> 16) & 0x8000)) as u16
}

/// Nearest bf16, ties to even; NaN is made quiet.
#[inline(always)]
pub fn f32_to_bf16(x: f32) -> u16 {
    let bits = x.to_bits();
    let rounded = bits.wrapping_add(0x7fff + ((bits >> 16) & 1)) >> 16;
    let nan = (bits >> 16) | 0x40;
    (if bits & 0x7fff_ffff > 0x7f80_0000 { nan } else { rounded }) as u16
}

#[inline(always)]
#[cfg_attr(not(target_arch = "x86_64"), expect(clippy::extra_unused_type_parameters, reason = "x86 asks it"))]
fn widen_f16<T: Target>(src: &[f16], dst: &mut [f32]) {
    assert_eq!(src.len(), dst.len());
    #[cfg(target_arch = "x86_64")]
    if T::FMA {
        // SAFETY: bodies are compiled for a target with FMA only where AVX2 and F16C were detected.
        return unsafe { x86::widen(src, dst) };
    }
    for (d, s) in dst.iter_mut().zip(src) {
        *d = f16_to_f32(s.to_bits());
    }
}

#[inline(always)]
#[cfg_attr(not(target_arch = "x86_64"), expect(clippy::extra_unused_type_parameters, reason = "x86 asks it"))]
fn narrow_f16<T: Target>(src: &[f32], dst: &mut [f16]) {
    assert_eq!(src.len(), dst.len());
    #[cfg(target_arch = "x86_64")]
    if T::FMA {
        // SAFETY: as in `widen_f16`.
        return unsafe { x86::narrow(src, dst) };
    }
    for (d, s) in dst.iter_mut().zip(src) {
        *d = f16::from_bits(f32_to_f16(*s));
    }
}

#[inline(always)]
fn widen_bf16(src: &[bf16], dst: &mut [f32]) {
    for (d, s) in dst.iter_mut().zip(src) {
        *d = f32::from_bits(u32::from(s.to_bits()) << 16);
    }
}

#[inline(always)]
fn narrow_bf16(src: &[f32], dst: &mut [bf16]) {
    for (d, s) in dst.iter_mut().zip(src) {
        *d = bf16::from_bits(f32_to_bf16(*s));
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use half::f16;

    /// 8 at a time; this is bound by memory, so that 16 at a time would gain nothing.
    ///
    /// # Safety
    /// The machine has F16C, and the slices are equally long.
    #[target_feature(enable = "avx,f16c")]
    pub(super) unsafe fn widen(src: &[f16], dst: &mut [f32]) {
        let whole = src.len() / 8 * 8;
        for i in (0..whole).step_by(8) {
            // SAFETY: i + 8 <= len of both.
            unsafe {
                let h = _mm_loadu_si128(src.as_ptr().add(i).cast());
                _mm256_storeu_ps(dst.as_mut_ptr().add(i), _mm256_cvtph_ps(h));
            }
        }
        for i in whole..src.len() {
            dst[i] = super::f16_to_f32(src[i].to_bits());
        }
    }

    /// As [`widen`], the other way.
    ///
    /// # Safety
    /// As for [`widen`].
    #[target_feature(enable = "avx,f16c")]
    pub(super) unsafe fn narrow(src: &[f32], dst: &mut [f16]) {
        let whole = src.len() / 8 * 8;
        for i in (0..whole).step_by(8) {
            // SAFETY: i + 8 <= len of both.
            unsafe {
                let x = _mm256_loadu_ps(src.as_ptr().add(i));
                let h = _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(x);
                _mm_storeu_si128(dst.as_mut_ptr().add(i).cast(), h);
            }
        }
        for i in whole..src.len() {
            dst[i] = f16::from_bits(super::f32_to_f16(src[i]));
        }
    }
}

/// The types a map computes in: what [`DType::compute`](bullet_ops::DType::compute) names.
pub trait Lane: Element {
    /// `n` elements of `S` at `src`, `stride` elements apart, into `dst`.
    ///
    /// # Safety
    /// The elements are readable.
    unsafe fn load<T: Target, S: BlockElement>(src: *const S, stride: isize, dst: &mut [Self]);
    /// `src` to elements of `D` at `dst`, `stride` elements apart.
    ///
    /// # Safety
    /// The elements are writable, and borrowed by nobody else.
    unsafe fn store<T: Target, D: BlockElement>(src: &[Self], dst: *mut D, stride: isize);
}

/// Elements with vectorised conversions to the compute types.
pub trait BlockElement: Element {
    /// To f32.
    fn to_f32s<T: Target>(src: &[Self], dst: &mut [f32]);
    /// From f32: nearest; integers truncate and wrap; bool is `!= 0`.
    fn of_f32s<T: Target>(src: &[f32], dst: &mut [Self]);
    /// To f32, one.
    fn to_f32(self) -> f32;
    /// From f32, one.
    fn of_f32(x: f32) -> Self;
}

macro_rules! plain_blocks {
    ($($ty:ty: $to:expr, $of:expr);* $(;)?) => {$(
        impl BlockElement for $ty {
            #[inline(always)]
            fn to_f32s<T: Target>(src: &[Self], dst: &mut [f32]) {
                for (d, s) in dst.iter_mut().zip(src) { *d = s.to_f32(); }
            }
            #[inline(always)]
            fn of_f32s<T: Target>(src: &[f32], dst: &mut [Self]) {
                for (d, s) in dst.iter_mut().zip(src) { *d = Self::of_f32(*s); }
            }
            #[inline(always)]
            fn to_f32(self) -> f32 { $to(self) }
            #[inline(always)]
            fn of_f32(x: f32) -> Self { $of(x) }
        }
    )*};
}
plain_blocks! {
    bool: |x| f32::from(x as u8), |x| x != 0.0;
    u8: |x| x as f32, |x| x as i64 as u8;
    u16: |x| x as f32, |x| x as i64 as u16;
    u32: |x| x as f32, |x| x as i64 as u32;
    u64: |x| x as f32, |x| u64::from_f64(f64::from(x));
    i8: |x| x as f32, |x| x as i64 as i8;
    i16: |x| x as f32, |x| x as i64 as i16;
    i32: |x| x as f32, |x| x as i64 as i32;
    i64: |x| x as f32, |x| x as i64;
    f32: |x| x, |x| x;
    f64: |x| x as f32, f64::from;
}

macro_rules! half_blocks {
    ($($ty:ty: $to:expr, $of:expr);* $(;)?) => {$(
        impl BlockElement for $ty {
            #[inline(always)]
            fn to_f32s<T: Target>(src: &[Self], dst: &mut [f32]) { <$ty as Storage>::widen::<T>(src, dst) }
            #[inline(always)]
            fn of_f32s<T: Target>(src: &[f32], dst: &mut [Self]) { <$ty as Storage>::narrow::<T>(src, dst) }
            #[inline(always)]
            fn to_f32(self) -> f32 { $to(self.to_bits()) }
            #[inline(always)]
            fn of_f32(x: f32) -> Self { <$ty>::from_bits($of(x)) }
        }
    )*};
}
half_blocks! {
    f16: f16_to_f32, f32_to_f16;
    bf16: |b: u16| f32::from_bits(u32::from(b) << 16), f32_to_bf16;
}

impl Lane for f32 {
    #[inline(always)]
    unsafe fn load<T: Target, S: BlockElement>(src: *const S, stride: isize, dst: &mut [f32]) {
        // SAFETY: by the caller's promise.
        unsafe {
            match stride {
                1 => S::to_f32s::<T>(std::slice::from_raw_parts(src, dst.len()), dst),
                _ => each_strided(src, stride, dst, S::to_f32),
            }
        }
    }

    #[inline(always)]
    unsafe fn store<T: Target, D: BlockElement>(src: &[f32], dst: *mut D, stride: isize) {
        // SAFETY: by the caller's promise.
        unsafe {
            match stride {
                1 => D::of_f32s::<T>(src, std::slice::from_raw_parts_mut(dst, src.len())),
                _ => (0..src.len()).for_each(|i| *dst.offset(i as isize * stride) = D::of_f32(src[i])),
            }
        }
    }
}

macro_rules! wide_lane {
    ($($ty:ty: $to:ident, $of:ident);*) => {$(
        impl Lane for $ty {
            #[inline(always)]
            unsafe fn load<T: Target, S: BlockElement>(src: *const S, stride: isize, dst: &mut [$ty]) {
                // SAFETY: by the caller's promise.
                unsafe { each_strided(src, stride, dst, S::$to) }
            }

            #[inline(always)]
            unsafe fn store<T: Target, D: BlockElement>(src: &[$ty], dst: *mut D, stride: isize) {
                for (i, &x) in src.iter().enumerate() {
                    // SAFETY: by the caller's promise.
                    unsafe { *dst.offset(i as isize * stride) = D::$of(x) }
                }
            }
        }
    )*};
}
wide_lane!(f64: to_f64, from_f64; i64: to_i64, from_i64; u64: to_u64, from_u64);

/// `dst[i] = f(src[i * stride])`, with the loops that vectorise for strides 0 and 1.
///
/// # Safety
/// The elements are readable.
#[inline(always)]
unsafe fn each_strided<S: Copy, D: Copy>(src: *const S, stride: isize, dst: &mut [D], f: impl Fn(S) -> D) {
    // SAFETY: by the caller's promise.
    unsafe {
        match stride {
            0 => dst.fill(f(*src)),
            1 => (0..dst.len()).for_each(|i| dst[i] = f(*src.add(i))),
            _ => (0..dst.len()).for_each(|i| dst[i] = f(*src.offset(i as isize * stride))),
        }
    }
}

/// Elements of `dtype` at `src`, `stride` elements apart, into `dst`. Compiled once for each compute type and
/// instruction set: kernels that take any dtype call this for a block, rather than hold ten conversions each.
///
/// # Safety
/// The elements are readable.
#[inline(never)]
pub unsafe fn load_block<L: Lane>(isa: Isa, dtype: DType, src: *const u8, stride: isize, dst: &mut [L]) {
    struct Load<'a, L>(DType, *const u8, isize, &'a mut [L]);
    impl<L: Lane> SimdOp for Load<'_, L> {
        type Output = ();
        #[inline(always)]
        fn run<T: Target>(self) {
            // SAFETY: by the promise to `load_block`.
            with_element!(self.0, S => unsafe { L::load::<T, S>(self.1.cast::<S>(), self.2, self.3) });
        }
    }
    dispatch_on(isa, Load(dtype, src, stride, dst));
}

/// `src` into elements of `dtype` at `dst`, `stride` elements apart; as [`load_block`].
///
/// # Safety
/// The elements are writable and borrowed by nobody else.
#[inline(never)]
pub unsafe fn store_block<L: Lane>(isa: Isa, src: &[L], dtype: DType, dst: *mut u8, stride: isize) {
    struct Store<'a, L>(&'a [L], DType, *mut u8, isize);
    impl<L: Lane> SimdOp for Store<'_, L> {
        type Output = ();
        #[inline(always)]
        fn run<T: Target>(self) {
            // SAFETY: by the promise to `store_block`.
            with_element!(self.1, D => unsafe { L::store::<T, D>(self.0, self.2.cast::<D>(), self.3) });
        }
    }
    dispatch_on(isa, Store(src, dtype, dst, stride));
}

/// Converts a contiguous slice; see [`Storage::widen`].
pub fn widen<S: Storage>(src: &[S], dst: &mut [S::Compute]) {
    struct Widen<'a, S: Storage>(&'a [S], &'a mut [S::Compute]);
    impl<S: Storage> SimdOp for Widen<'_, S> {
        type Output = ();
        #[inline(always)]
        fn run<T: Target>(self) {
            S::widen::<T>(self.0, self.1);
        }
    }
    assert_eq!(src.len(), dst.len());
    dispatch(Widen(src, dst));
}

/// Rounds a contiguous slice; see [`Storage::narrow`].
pub fn narrow<S: Storage>(src: &[S::Compute], dst: &mut [S]) {
    struct Narrow<'a, S: Storage>(&'a [S::Compute], &'a mut [S]);
    impl<S: Storage> SimdOp for Narrow<'_, S> {
        type Output = ();
        #[inline(always)]
        fn run<T: Target>(self) {
            S::narrow::<T>(self.0, self.1);
        }
    }
    assert_eq!(src.len(), dst.len());
    dispatch(Narrow(src, dst));
}
