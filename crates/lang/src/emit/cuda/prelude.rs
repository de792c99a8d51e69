//! What stands in front of the kernels: only what they use.

use std::collections::BTreeSet;
use std::fmt::Write;

use bullet_ops::DType;

use super::{Layout, faults, half, records, warp};

/// What kernels use.
#[derive(Default)]
pub(super) struct Needs {
    pub(super) arrays: BTreeSet<u8>,
    /// Reads and writes of 2 and of 4 scalars at once.
    pub(super) at_once: BTreeSet<usize>,
    pub(super) tape: bool,
    pub(super) records: bool,
    pub(super) faults: bool,
    pub(super) masked: bool,
    /// 16-bit floats, and atomics of them.
    pub(super) halves: BTreeSet<DType>,
    pub(super) narrow_atomics: bool,
    pub(super) warp_sums: bool,
    /// Atomics that CUDA has not on every architecture.
    pub(super) add_double: bool,
    pub(super) float_extremes: bool,
}

const MASKED: &str = "
// a * b, but 0 where a is 0: a gradient that was masked stays 0 behind an infinite derivative.
template <class T>
__device__ __forceinline__ T mul_masked(T a, T b) {
    return a == T(0) ? T(0) : a * b;
}
";

const TAPE: &str = "
// What a thread keeps for its way back: word w is at words[w * stride]. What does not fit is counted only.
struct Tape {
    unsigned* words;
    long long stride;
    unsigned size, top;

    __device__ __forceinline__ void push(unsigned x) {
        if (top < size) words[top * stride] = x;
        ++top;
    }
    __device__ __forceinline__ void push(int x) { push((unsigned)x); }
    __device__ __forceinline__ void push(bool x) { push(x ? 1u : 0u); }
    __device__ __forceinline__ void push(float x) { push(__float_as_uint(x)); }
    __device__ __forceinline__ void push(unsigned long long x) {
        push((unsigned)x);
        push((unsigned)(x >> 32));
    }
    __device__ __forceinline__ void push(long long x) { push((unsigned long long)x); }
    __device__ __forceinline__ void push(double x) { push((unsigned long long)__double_as_longlong(x)); }

    __device__ __forceinline__ unsigned pop() { return words[--top * stride]; }
    __device__ __forceinline__ void pop(unsigned& x) { x = pop(); }
    __device__ __forceinline__ void pop(int& x) { x = (int)pop(); }
    __device__ __forceinline__ void pop(bool& x) { x = pop() != 0; }
    __device__ __forceinline__ void pop(float& x) { x = __uint_as_float(pop()); }
    __device__ __forceinline__ void pop(unsigned long long& x) {
        const unsigned high = pop();
        x = (unsigned long long)high << 32 | pop();
    }
    __device__ __forceinline__ void pop(long long& x) {
        unsigned long long bits;
        pop(bits);
        x = (long long)bits;
    }
    __device__ __forceinline__ void pop(double& x) {
        unsigned long long bits;
        pop(bits);
        x = __longlong_as_double((long long)bits);
    }
};
";

const ADD_DOUBLE: &str = "
__device__ __forceinline__ double atomic_add(double* cell, double x) {
#if __CUDA_ARCH__ >= 600
    return atomicAdd(cell, x);
#else
    unsigned long long* bits = (unsigned long long*)cell;
    unsigned long long seen = *bits, old;
    do {
        old = seen;
        seen = atomicCAS(bits, old, (unsigned long long)__double_as_longlong(x + __longlong_as_double((long long)old)));
    } while (seen != old);
    return __longlong_as_double((long long)old);
#endif
}
";

const EXTREMES: &str = "
__device__ __forceinline__ float bits_to(unsigned x, float) { return __uint_as_float(x); }
__device__ __forceinline__ double bits_to(unsigned long long x, double) { return __longlong_as_double((long long)x); }
__device__ __forceinline__ unsigned to_bits(float x) { return __float_as_uint(x); }
__device__ __forceinline__ unsigned long long to_bits(double x) { return (unsigned long long)__double_as_longlong(x); }

// CUDA has no atomic minimum and maximum of floats.
template <class T, class Bits>
__device__ T atomic_extreme(T* cell, T x, Bits* bits, bool smaller) {
    Bits seen = *bits, old;
    T value;
    do {
        old = seen;
        value = bits_to(old, x);
        seen = atomicCAS(bits, old, to_bits(smaller ? fmin(value, x) : fmax(value, x)));
    } while (seen != old);
    return value;
}
__device__ __forceinline__ float atomic_min(float* c, float x) { return atomic_extreme(c, x, (unsigned*)c, true); }
__device__ __forceinline__ float atomic_max(float* c, float x) { return atomic_extreme(c, x, (unsigned*)c, false); }
__device__ __forceinline__ double atomic_min(double* c, double x) {
    return atomic_extreme(c, x, (unsigned long long*)c, true);
}
__device__ __forceinline__ double atomic_max(double* c, double x) {
    return atomic_extreme(c, x, (unsigned long long*)c, false);
}
";

/// Writes what is needed.
pub(super) fn write(out: &mut String, needs: &Needs, layout: Layout) {
    let has = |dtype| needs.halves.contains(&dtype);
    for (needed, text) in [
        (has(DType::F16), half::HALF),
        (has(DType::BF16), half::BFLOAT),
        (needs.narrow_atomics, half::ATOMICS),
    ] {
        if needed {
            out.push_str(text);
        }
    }
    for &ndim in &needs.arrays {
        array(out, ndim, layout);
    }
    for &width in &needs.at_once {
        several(out, width);
    }
    for (needed, text) in [
        (needs.masked, MASKED),
        (needs.tape, TAPE),
        (needs.faults, faults::FAULTS),
        (needs.records, records::RECORDS),
        (needs.add_double, ADD_DOUBLE),
        (needs.float_extremes, EXTREMES),
        (needs.warp_sums, warp::SUMS),
    ] {
        if needed {
            out.push_str(text);
        }
    }
}

/// Reads and writes of so many scalars at once.
fn several(out: &mut String, width: usize) {
    let names = ["x", "y", "z", "w"][..width].join(", ");
    let params: Vec<String> = ["x", "y", "z", "w"][..width].iter().map(|name| format!("T {name}")).collect();
    let _ = write!(
        out,
        "
// {width} scalars that are read or written at once.
template <class T>
struct alignas({width} * sizeof(T)) Scalars{width} {{
    T {names};
}};
template <class T>
__device__ __forceinline__ Scalars{width}<T> read{width}(const T* from) {{ return *(const Scalars{width}<T>*)from; }}
template <class T>
__device__ __forceinline__ void write{width}(T* to, {params}) {{ *(Scalars{width}<T>*)to = {{{names}}}; }}
",
        params = params.join(", ")
    );
}

/// The struct of arrays with so many dimensions.
fn array(out: &mut String, ndim: u8, layout: Layout) {
    let letters: Vec<&str> = ["i", "j", "k", "l"][..ndim.into()].to_vec();
    let params: Vec<String> = letters.iter().map(|letter| format!("int {letter}")).collect();
    let offset = match layout {
        Layout::Strided => {
            let terms = letters.iter().enumerate().map(|(axis, letter)| format!("{letter} * stride[{axis}]"));
            terms.collect::<Vec<_>>().join(" + ")
        }
        Layout::Contiguous if ndim == 1 => "i".into(),
        Layout::Contiguous => {
            let mut text = "i".to_string();
            for (axis, letter) in letters.iter().enumerate().skip(1) {
                if axis > 1 {
                    text = format!("({text})");
                }
                text = format!("{text} * shape[{axis}] + {letter}");
            }
            text
        }
    };
    let scale = if layout == Layout::Contiguous && ndim > 1 { format!("({offset})") } else { offset.clone() };
    let lanes = match layout {
        Layout::Contiguous if ndim == 1 => "i * pitch".to_string(),
        Layout::Contiguous => format!("{scale} * pitch"),
        Layout::Strided => offset.clone(),
    };
    let strides =
        if layout == Layout::Strided { format!("\n    long long stride[{ndim}];") } else { String::new() };
    let _ = write!(
        out,
        "
template <class T>
struct Array{ndim} {{
    T* data;
    int shape[{ndim}];{strides}
    // A scalar element, and the first scalar of one of several, or of those so many scalars apart.
    __device__ __forceinline__ T& operator()({params}) const {{ return data[{offset}]; }}
    __device__ __forceinline__ T* at({params}, int pitch) const {{ return data + {lanes}; }}
}};
",
        params = params.join(", ")
    );
}
