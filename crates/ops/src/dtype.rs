//! Element types: [`DType`], the [`Element`] trait that ties one to a Rust type, and NumPy's promotion rules.
//!
//! This is the only dtype enum of the workspace; every other layer names these.
//!
//! **Computing.** Kernels compute in four types, [`DType::compute`]: i64 for bools and all integers that it holds, u64 for
//! u64, f32 and f64. u64 meets no signed integer there, as promotion makes the two f64 (NumPy's rule); so each of the
//! integer types is exact of all that it is asked. Sums of integers wrap, which is the same bits in either.

use std::fmt;

use half::{bf16, f16};

use crate::error::{Error, Result};

/// The type of a tensor's elements.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum DType {
    /// One byte an element, 0 or 1.
    Bool,
    /// Unsigned 8-bit integer.
    U8,
    /// Unsigned 16-bit integer.
    U16,
    /// Unsigned 32-bit integer.
    U32,
    /// Unsigned 64-bit integer.
    U64,
    /// Signed 8-bit integer.
    I8,
    /// Signed 16-bit integer.
    I16,
    /// Signed 32-bit integer.
    I32,
    /// Signed 64-bit integer.
    I64,
    /// IEEE 754 half precision: storage only, arithmetic is done in [`DType::F32`].
    F16,
    /// bfloat16: storage only, arithmetic is done in [`DType::F32`].
    BF16,
    /// IEEE 754 single precision.
    F32,
    /// IEEE 754 double precision.
    F64,
}

/// What kind of number a dtype holds; promotion goes up this order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Kind {
    /// `bool`.
    Bool,
    /// Signed and unsigned integers.
    Int,
    /// Floating point.
    Float,
}

impl DType {
    /// Every dtype, in declaration order.
    pub const ALL: [DType; 13] = [
        DType::Bool,
        DType::U8,
        DType::U16,
        DType::U32,
        DType::U64,
        DType::I8,
        DType::I16,
        DType::I32,
        DType::I64,
        DType::F16,
        DType::BF16,
        DType::F32,
        DType::F64,
    ];

    /// The floating-point dtypes.
    pub const FLOATS: [DType; 4] = [DType::F16, DType::BF16, DType::F32, DType::F64];

    /// Bytes an element.
    pub const fn size(self) -> usize {
        match self {
            DType::Bool | DType::U8 | DType::I8 => 1,
            DType::U16 | DType::I16 | DType::F16 | DType::BF16 => 2,
            DType::U32 | DType::I32 | DType::F32 => 4,
            DType::U64 | DType::I64 | DType::F64 => 8,
        }
    }

    /// The first byte of `elements` that no element of this dtype has, and its place: a bool is 0 or 1, numbers have any
    /// bytes.
    pub fn invalid_byte(self, elements: &[u8]) -> Option<(usize, u8)> {
        if self != DType::Bool {
            return None;
        }
        elements.iter().position(|&b| b > 1).map(|i| (i, elements[i]))
    }

    /// The short name, as files and messages spell it: `f32`, `i64`, `bool`.
    pub const fn name(self) -> &'static str {
        match self {
            DType::Bool => "bool",
            DType::U8 => "u8",
            DType::U16 => "u16",
            DType::U32 => "u32",
            DType::U64 => "u64",
            DType::I8 => "i8",
            DType::I16 => "i16",
            DType::I32 => "i32",
            DType::I64 => "i64",
            DType::F16 => "f16",
            DType::BF16 => "bf16",
            DType::F32 => "f32",
            DType::F64 => "f64",
        }
    }

    /// The dtype of this [`name`](DType::name), NumPy name (`float32`) or safetensors name (`F32`).
    pub fn parse(name: &str) -> Result<DType> {
        Ok(match name {
            "bool" | "BOOL" => DType::Bool,
            "u8" | "uint8" | "U8" => DType::U8,
            "u16" | "uint16" | "U16" => DType::U16,
            "u32" | "uint32" | "U32" => DType::U32,
            "u64" | "uint64" | "U64" => DType::U64,
            "i8" | "int8" | "I8" => DType::I8,
            "i16" | "int16" | "I16" => DType::I16,
            "i32" | "int32" | "I32" => DType::I32,
            "i64" | "int64" | "I64" => DType::I64,
            "f16" | "float16" | "F16" => DType::F16,
            "bf16" | "bfloat16" | "BF16" => DType::BF16,
            "f32" | "float32" | "F32" => DType::F32,
            "f64" | "float64" | "F64" => DType::F64,
            _ => {
                return Err(Error::dtype(format!(
                    "data type '{name}' not understood; expected one of bool, u8, u16, u32, u64, i8, i16, i32, i64, \
                     f16, bf16, f32, f64"
                )));
            }
        })
    }

    /// Bool, integer or float.
    pub const fn kind(self) -> Kind {
        match self {
            DType::Bool => Kind::Bool,
            DType::U8 | DType::U16 | DType::U32 | DType::U64 => Kind::Int,
            DType::I8 | DType::I16 | DType::I32 | DType::I64 => Kind::Int,
            DType::F16 | DType::BF16 | DType::F32 | DType::F64 => Kind::Float,
        }
    }

    /// Whether this is one of [`DType::FLOATS`].
    pub const fn is_float(self) -> bool {
        matches!(self.kind(), Kind::Float)
    }

    /// Whether it is an integer without sign.
    pub const fn is_unsigned(self) -> bool {
        matches!(self, DType::U8 | DType::U16 | DType::U32 | DType::U64)
    }

    /// The signed integer of an unsigned one's width: what wraps is the same bits in both. Any other dtype is itself.
    pub const fn as_signed(self) -> DType {
        match self {
            DType::U8 => DType::I8,
            DType::U16 => DType::I16,
            DType::U32 => DType::I32,
            DType::U64 => DType::I64,
            other => other,
        }
    }

    /// The type arithmetic on this dtype is done in: u64 for itself, i64 for bools and other integers, f32 up to 32-bit
    /// floats, f64.
    pub const fn compute(self) -> DType {
        match self {
            DType::U64 => DType::U64,
            DType::Bool | DType::U8 | DType::U16 | DType::U32 => DType::I64,
            DType::I8 | DType::I16 | DType::I32 | DType::I64 => DType::I64,
            DType::F16 | DType::BF16 | DType::F32 => DType::F32,
            DType::F64 => DType::F64,
        }
    }

    /// The smallest dtype that holds both, by NumPy's rules (`u8` with `i8` is `i16`, `u64` with `i8` is `f64`, `i32` with
    /// `f32` is `f64`, `f16` with `bf16` is `f32`).
    pub fn promote(self, other: DType) -> DType {
        use DType::*;
        if self == other {
            return self;
        }
        let (lo, hi) =
            if (self.kind(), self) <= (other.kind(), other) { (self, other) } else { (other, self) };
        match (lo, hi) {
            (Bool, hi) => hi,
            // The unsigned of two integers stands first: a signed one must have a bit more.
            (U8, I8) => I16,
            (U8 | U16, I8 | I16) => {
                if lo == U8 {
                    hi
                } else {
                    I32
                }
            }
            (U32, I8 | I16 | I32) => I64,
            (U64, I8 | I16 | I32 | I64) => F64,
            (F16, BF16) => F32,
            (lo, hi) if lo.kind() == hi.kind() => hi,
            // Integers with a float: the smallest float that holds the integer exactly, as NumPy does.
            (U8 | I8, hi) => hi,
            (U16 | I16, F16 | BF16) => F32,
            (U16 | I16, hi) => hi,
            (_, _) => F64,
        }
    }

    /// What sums and products of this dtype return: itself if it is a float, else i64, or u64 if it is unsigned, as in
    /// NumPy.
    pub const fn to_sum(self) -> DType {
        match self {
            DType::Bool | DType::I8 | DType::I16 | DType::I32 | DType::I64 => DType::I64,
            DType::U8 | DType::U16 | DType::U32 | DType::U64 => DType::U64,
            DType::F16 | DType::BF16 | DType::F32 | DType::F64 => self,
        }
    }

    /// What true division and the transcendental functions of this dtype return: itself if it is a float, else f64
    /// (f16 for 8-bit and f32 for 16-bit integers), as in NumPy.
    pub const fn to_float(self) -> DType {
        match self {
            DType::Bool | DType::U8 | DType::I8 => DType::F16,
            DType::U16 | DType::I16 => DType::F32,
            DType::U32 | DType::U64 | DType::I32 | DType::I64 => DType::F64,
            DType::F16 | DType::BF16 | DType::F32 | DType::F64 => self,
        }
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A Rust type that is the element of a tensor.
///
/// # Safety
/// `DTYPE.size() == size_of::<Self>()`, and every bit pattern that the engine writes for `DTYPE` is a valid `Self`
/// (for `bool` that is 0 and 1 only).
pub unsafe trait Element: Copy + Send + Sync + PartialEq + fmt::Debug + Default + 'static {
    /// The dtype whose elements these are.
    const DTYPE: DType;
    /// Nearest value of this type (integers: truncated toward zero and, from i64, wrapped to the width, u64 saturating
    /// above; bool: non-zero).
    fn from_f64(x: f64) -> Self;
    /// Exact, but for i64 and u64 beyond 2^53.
    fn to_f64(self) -> f64;
    /// Wrapped to the width; bool: non-zero; floats: nearest.
    fn from_i64(x: i64) -> Self;
    /// Floats: truncated toward zero; saturating; NaN is 0. Integers: wrapped.
    fn to_i64(self) -> i64;
    /// Wrapped to the width; bool: non-zero; floats: nearest.
    fn from_u64(x: u64) -> Self;
    /// As [`Element::from_f64`] has it of floats; of signed integers wrapped.
    fn to_u64(self) -> u64;
}

/// A floating-point [`Element`], with the type its arithmetic is done in.
pub trait Float: Element {
    /// f32 for f16, bf16 and f32; f64 for f64.
    type Compute: Compute;
    /// Widens; exact.
    fn up(self) -> Self::Compute;
    /// Rounds to nearest, ties to even.
    fn down(x: Self::Compute) -> Self;
}

/// The two types that kernels compute in: f32 and f64.
pub trait Compute:
    Float<Compute = Self>
    + PartialOrd
    + std::ops::Add<Output = Self>
    + std::ops::Sub<Output = Self>
    + std::ops::Mul<Output = Self>
    + std::ops::Div<Output = Self>
    + std::ops::Neg<Output = Self>
    + std::ops::AddAssign
    + std::ops::SubAssign
    + std::ops::MulAssign
{
    /// 0.
    const ZERO: Self;
    /// 1.
    const ONE: Self;
    /// Negative infinity.
    const NEG_INFINITY: Self;
}

macro_rules! int_element {
    ($of:expr; $($ty:ty => $dtype:ident),*) => {$(
        // SAFETY: the sizes are equal, and every bit pattern is a valid integer.
        unsafe impl Element for $ty {
            const DTYPE: DType = DType::$dtype;
            #[inline(always)]
            fn from_f64(x: f64) -> Self { $of(x) as $ty }
            #[inline(always)]
            fn to_f64(self) -> f64 { self as f64 }
            #[inline(always)]
            fn from_i64(x: i64) -> Self { x as $ty }
            #[inline(always)]
            fn to_i64(self) -> i64 { self as i64 }
            #[inline(always)]
            fn from_u64(x: u64) -> Self { x as $ty }
            #[inline(always)]
            fn to_u64(self) -> u64 { self as u64 }
        }
    )*};
}
int_element! {
    |x| x as i64; u8 => U8, u16 => U16, u32 => U32, i8 => I8, i16 => I16, i32 => I32, i64 => I64
}
int_element!(u64_from; u64 => U64);

/// Truncated towards zero. Negative numbers wrap, as those of narrower integers do, and as C has it on most machines.
#[inline(always)]
fn u64_from(x: f64) -> u64 {
    if x < 0.0 { x as i64 as u64 } else { x as u64 }
}

// SAFETY: one byte, and kernels store only 0 and 1 into bool tensors.
unsafe impl Element for bool {
    const DTYPE: DType = DType::Bool;
    #[inline(always)]
    fn from_f64(x: f64) -> Self {
        x != 0.0
    }
    #[inline(always)]
    fn to_f64(self) -> f64 {
        self as u8 as f64
    }
    #[inline(always)]
    fn from_i64(x: i64) -> Self {
        x != 0
    }
    #[inline(always)]
    fn to_i64(self) -> i64 {
        self as i64
    }
    #[inline(always)]
    fn from_u64(x: u64) -> Self {
        x != 0
    }
    #[inline(always)]
    fn to_u64(self) -> u64 {
        self as u64
    }
}

/// `x` in f32, rounded to odd (the `half` crate's own conversion from f64 drops low bits before it rounds): rounding that to 16 bits gives what is nearest to `x` itself, where rounding to nearest
/// twice would not (Boldo and Melquiond 2008).
fn to_odd(x: f64) -> f32 {
    let near = x as f32;
    let (bits, back) = (near.to_bits(), f64::from(near));
    if back == x || near.is_nan() || bits & 1 == 1 {
        return near;
    }
    // `near` is even and not exact, so its neighbour on the other side of `x` is odd.
    f32::from_bits(if back.abs() > x.abs() { bits - 1 } else { bits + 1 })
}

macro_rules! float_element {
    ($($ty:ty, $compute:ty => $dtype:ident, $from:expr, $to:expr, $down:expr, $up:expr, $int:ident $of_int:expr);* $(;)?) => {$(
        // SAFETY: the sizes are equal, and every bit pattern is a valid float.
        unsafe impl Element for $ty {
            const DTYPE: DType = DType::$dtype;
            #[inline(always)]
            fn from_f64(x: f64) -> Self { $from(x) }
            #[inline(always)]
            fn to_f64(self) -> f64 { $to(self) }
            #[inline(always)]
            fn from_i64(x: i64) -> Self { $of_int(x as $int) }
            #[inline(always)]
            fn to_i64(self) -> i64 { $to(self) as i64 }
            #[inline(always)]
            fn from_u64(x: u64) -> Self { $of_int(x as $int) }
            #[inline(always)]
            fn to_u64(self) -> u64 { u64_from($to(self)) }
        }
        impl Float for $ty {
            type Compute = $compute;
            #[inline(always)]
            fn up(self) -> $compute { $up(self) }
            #[inline(always)]
            fn down(x: $compute) -> Self { $down(x) }
        }
    )*};
}
float_element! {
    f16, f32 => F16, |x| f16::from_f32(to_odd(x)), f16::to_f64, f16::from_f32, f16::to_f32, f64 Self::from_f64;
    bf16, f32 => BF16, |x| bf16::from_f32(to_odd(x)), bf16::to_f64, bf16::from_f32, bf16::to_f32, f64 Self::from_f64;
    f32, f32 => F32, |x| x as f32, f64::from, |x| x, |x| x, f32 |x| x;
    f64, f64 => F64, |x| x, |x| x, |x| x, |x| x, f64 |x| x;
}

macro_rules! compute {
    ($($ty:ident),*) => {$(
        impl Compute for $ty {
            const ZERO: Self = 0.0;
            const ONE: Self = 1.0;
            const NEG_INFINITY: Self = $ty::NEG_INFINITY;
        }
    )*};
}
compute!(f32, f64);

#[cfg(test)]
mod tests {
    use super::DType::*;
    use super::*;

    #[test]
    fn promotion_is_numpys() {
        for (a, b, want) in [
            (Bool, I8, I8),
            (U8, I8, I16),
            (U8, I64, I64),
            (U8, I16, I16),
            (U16, I8, I32),
            (U16, I16, I32),
            (U16, I32, I32),
            (U32, I32, I64),
            (U32, I64, I64),
            (U64, I8, F64),
            (U64, I64, F64),
            (U64, U16, U64),
            (Bool, U64, U64),
            (U16, F16, F32),
            (U16, F32, F32),
            (U32, F32, F64),
            (U64, F16, F64),
            (I32, F32, F64),
            (I16, F32, F32),
            (I16, F16, F32),
            (U8, F16, F16),
            (I64, F16, F64),
            (F16, BF16, F32),
            (F32, F64, F64),
        ] {
            assert_eq!(a.promote(b), want, "{a} with {b}");
            assert_eq!(b.promote(a), want, "{b} with {a}");
        }
    }

    #[test]
    fn promotion_is_commutative_and_idempotent() {
        for a in DType::ALL {
            assert_eq!(a.promote(a), a);
            for b in DType::ALL {
                assert_eq!(a.promote(b), b.promote(a));
            }
        }
    }

    #[test]
    fn names_parse_back() {
        for d in DType::ALL {
            assert_eq!(DType::parse(d.name()).unwrap(), d);
        }
        assert!(DType::parse("f8").is_err());
    }

    #[test]
    fn sixteen_bits_are_rounded_once() {
        // Just above and below the middle of two neighbours, and it: ties go to even.
        let middle = 1.0 + 2f64.powi(-8);
        for (x, want) in [(middle, 1.0), (middle + 1e-12, 1.0 + 2f64.powi(-7)), (middle - 1e-12, 1.0)] {
            assert_eq!(<bf16 as Element>::from_f64(x).to_f64(), want, "{x}");
            assert_eq!(<bf16 as Element>::from_f64(-x).to_f64(), -want, "{x}");
        }
        let middle = 1.0 + 2f64.powi(-11);
        for (x, want) in [(middle, 1.0), (middle + 1e-13, 1.0 + 2f64.powi(-10)), (middle - 1e-13, 1.0)] {
            assert_eq!(<f16 as Element>::from_f64(x).to_f64(), want, "{x}");
        }
        assert_eq!(<f16 as Element>::from_f64(65519.999).to_f64(), 65504.0);
        assert_eq!(<f16 as Element>::from_f64(65520.0).to_f64(), f64::INFINITY);
        assert_eq!(<bf16 as Element>::from_f64(1e300).to_f64(), f64::INFINITY);
        assert_eq!(<f16 as Element>::from_f64(1e-300).to_f64(), 0.0);
        assert_eq!(<f16 as Element>::from_f64(2f64.powi(-25)).to_f64(), 0.0);
        assert_eq!(<f16 as Element>::from_f64(2f64.powi(-25) * 1.0001).to_f64(), 2f64.powi(-24));
        assert!(<f16 as Element>::from_f64(f64::NAN).is_nan());
    }

    #[test]
    fn conversions_wrap_and_round() {
        assert_eq!(u8::from_i64(257), 1);
        assert_eq!(i8::from_f64(-1.9), -1);
        assert_eq!(
            [-1.9, 1.9, 1e19, 1e30, f64::NAN].map(u64::from_f64),
            [u64::MAX, 1, 10_000_000_000_000_000_000, u64::MAX, 0]
        );
        // A tie in f64 that is none in u64: rounded once.
        assert_eq!(f32::from_u64((1 << 63) + (1 << 39) + 1), 9_223_373_136_366_403_584.0);
        assert_eq!((f32::from_i64(-1), f64::from_u64(u64::MAX)), (-1.0, 18_446_744_073_709_551_616.0));
        assert!(bool::from_f64(0.5));
        assert_eq!(f16::from_f64(1.0 + 1e-4).to_f64(), 1.0);
    }
}
