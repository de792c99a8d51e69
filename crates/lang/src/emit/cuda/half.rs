//! 16-bit floats without CUDA's headers: storage types, their conversions and atomics, for every architecture.
//!
//! A value of such a type is a `float` in the generated text, rounded behind each operation that may have more digits;
//! only memory and parameters hold the 16 bits.

use std::collections::BTreeSet;
use std::fmt::Write;

use bullet_ops::DType;

/// The f16.
pub(super) const HALF: &str = "
// float16: 16 bits of storage. Values are floats, rounded behind each operation.
struct Half {
    unsigned short bits;
    Half() = default;
    __device__ __forceinline__ explicit Half(float x) { asm(\"cvt.rn.f16.f32 %0, %1;\" : \"=h\"(bits) : \"f\"(x)); }
    __device__ __forceinline__ operator float() const {
        float x;
        asm(\"cvt.f32.f16 %0, %1;\" : \"=f\"(x) : \"h\"(bits));
        return x;
    }
    static __device__ __forceinline__ float of(unsigned short bits) {
        Half x;
        x.bits = bits;
        return x;
    }
};
__device__ __forceinline__ float round_half(float x) { return Half(x); }
";

/// The bf16.
pub(super) const BFLOAT: &str = "
// bfloat16: 16 bits of storage. Values are floats, rounded behind each operation, to nearest even.
struct Bfloat {
    unsigned short bits;
    Bfloat() = default;
    __device__ __forceinline__ explicit Bfloat(float x) {
        const unsigned wide = __float_as_uint(x);
        bits = x != x ? 0x7fff : (unsigned short)((wide + 0x7fffu + (wide >> 16 & 1u)) >> 16);
    }
    __device__ __forceinline__ operator float() const { return __uint_as_float((unsigned)bits << 16); }
    static __device__ __forceinline__ float of(unsigned short bits) {
        Bfloat x;
        x.bits = bits;
        return x;
    }
};
__device__ __forceinline__ float round_bfloat(float x) { return Bfloat(x); }
";

/// Sums and extremes of either.
pub(super) const ATOMICS: &str = "
// Atomic updates of 16 bits, by way of the 32 around them, which no allocation cuts.
template <class T, class Update>
__device__ float atomic_narrow(T* cell, Update update) {
    unsigned* word = (unsigned*)((unsigned long long)cell & ~3ull);
    const unsigned shift = (unsigned long long)cell & 2 ? 16 : 0;
    unsigned seen = *(volatile unsigned*)word, old;
    do {
        old = seen;
        const T next(update(T::of((unsigned short)(old >> shift))));
        seen = atomicCAS(word, old, (old & ~(0xffffu << shift)) | (unsigned)next.bits << shift);
    } while (seen != old);
    return T::of((unsigned short)(old >> shift));
}
struct NarrowAdd {
    float x;
    __device__ __forceinline__ float operator()(float cell) const { return cell + x; }
};
struct NarrowMin {
    float x;
    __device__ __forceinline__ float operator()(float cell) const { return fminf(cell, x); }
};
struct NarrowMax {
    float x;
    __device__ __forceinline__ float operator()(float cell) const { return fmaxf(cell, x); }
};
";

/// What a program of its own needs beside, to fill and read such arrays on the host.
const HOST: &str = r#"
#include <cmath>

// The number that the bits of a float with so many bits of mantissa and such a bias are, and the bits of a number from 0.25.
static double unpack(unsigned short bits, int digits, int bias) {
    const int exponent = (bits & 0x7fff) >> digits, mantissa = bits & ((1 << digits) - 1);
    const double size = exponent ? ldexp(mantissa + (1 << digits), exponent - bias - digits)
                                 : ldexp(mantissa, 1 - bias - digits);
    return bits & 0x8000 ? -size : size;
}
static unsigned short pack(double x, int digits, int bias) {
    const int exponent = (int)floor(log2(x));
    const double mantissa = nearbyint(ldexp(x, digits - exponent));
    return (unsigned short)(((exponent + bias) << digits) + (int)mantissa - (1 << digits));
}
"#;

/// The conversions on the host of the 16-bit floats that a kernel's parameters are made of.
pub(super) fn host(out: &mut String, dtypes: &BTreeSet<DType>) {
    let mut first = true;
    for &dtype in dtypes.iter().filter(|&&dtype| is_half(dtype)) {
        if std::mem::take(&mut first) {
            out.push_str(HOST);
        }
        let (name, layout) = (storage(dtype), if dtype == DType::F16 { "10, 15" } else { "7, 127" });
        let _ = write!(
            out,
            "template <> {name} made<{name}>(double x) {{\n    {name} y;\n    y.bits = pack(x, {layout});\n    return y;\n}}\n\
             template <> double read<{name}>({name} x) {{ return unpack(x.bits, {layout}); }}\n"
        );
    }
}

/// The type that memory and parameters have.
pub(super) fn storage(dtype: DType) -> &'static str {
    match dtype {
        DType::F16 => "Half",
        DType::BF16 => "Bfloat",
        _ => super::type_name(dtype),
    }
}

/// Whether it is a 16-bit float.
pub(super) fn is_half(dtype: DType) -> bool {
    matches!(dtype, DType::F16 | DType::BF16)
}

/// A value as it is stored; what is rounded on the way is not rounded before.
pub(super) fn stored(dtype: DType, text: &str) -> String {
    if !is_half(dtype) {
        return text.into();
    }
    let rounds = if dtype == DType::F16 { "round_half(" } else { "round_bfloat(" };
    let inner = text.strip_prefix(rounds).and_then(|rest| rest.strip_suffix(')'));
    let is_whole = |inner: &str| {
        let mut depth = 0;
        inner.bytes().all(|byte| {
            depth += i32::from(byte == b'(') - i32::from(byte == b')');
            depth >= 0
        })
    };
    format!("{}({})", storage(dtype), inner.filter(|inner| is_whole(inner)).unwrap_or(text))
}
