// What every device source starts with: types, conversions, reductions, strided indexing. Includes nothing, so that any
// NVRTC from 11.8 on compiles it without a toolkit, for sm_35 and up.
//
// The host defines TIER (35, 70, 75, 80 or 90): the most modern code path allowed. It may be lower than the
// architecture compiled for. Code for newer hardware stands under `#if TIER >= 80`.

typedef unsigned char u8;
typedef signed char i8;
typedef short i16;
typedef unsigned short u16;
typedef int i32;
typedef unsigned int u32;
typedef long long i64;
typedef unsigned long long u64;

#define DEVICE __device__ __forceinline__
#define KERNEL extern "C" __global__ void
#define WARP 32
#define FULL_MASK 0xffffffffu
#define INF_F __int_as_float(0x7f800000)
#define NAN_F __int_as_float(0x7fc00000)

// The first statement of every kernel, before it touches device memory. On Hopper launches overlap: the next kernel starts
// while the last blocks of this one end, and waits here until all that was written can be seen, which hides a part of what
// starting a kernel costs. (Letting it start earlier, with griddepcontrol.launch_dependents, was a third slower: its
// blocks crowd on those multiprocessors that are free first.) Elsewhere the hardware keeps kernels apart by itself.
DEVICE void begin_kernel() {
#if TIER >= 90
    asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

// Half precision is storage; arithmetic is done in f32. The conversions exist from sm_35 on (f16) or are bit operations.
struct alignas(2) f16 { u16 bits; };
struct alignas(2) bf16 { u16 bits; };

DEVICE float to_f32(f16 x) {
    float y;
    asm("cvt.f32.f16 %0, %1;" : "=f"(y) : "h"(x.bits));
    return y;
}
DEVICE f16 to_f16(float x) {
    f16 y;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(y.bits) : "f"(x));
    return y;
}
DEVICE float to_f32(bf16 x) { return __uint_as_float((u32)x.bits << 16); }
// Rounds to nearest, ties to even; NaN stays NaN.
DEVICE bf16 to_bf16(float x) {
    bf16 y;
    u32 bits = __float_as_uint(x);
    y.bits = x != x ? (u16)0x7fff : (u16)((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
    return y;
}

// The type that arithmetic on T is done in: f32 for f16, bf16 and f32, f64 for f64, u64 for u64, i64 for bool and other
// integers.
template <typename T> struct ComputeOf { typedef i64 Type; };
template <> struct ComputeOf<u64> { typedef u64 Type; };
template <> struct ComputeOf<f16> { typedef float Type; };
template <> struct ComputeOf<bf16> { typedef float Type; };
template <> struct ComputeOf<float> { typedef float Type; };
template <> struct ComputeOf<double> { typedef double Type; };

// An element as a number of type C, and back. Floats become integers as Rust's `as` does: towards zero, saturating, NaN
// to 0. A bool is an own type, so that conversion to it tests for zero.
struct boolean { u8 bits; };

template <typename C, typename T> struct Convert { static DEVICE C from(T x) { return (C)x; } };
template <typename C> struct Convert<C, f16> { static DEVICE C from(f16 x) { return (C)to_f32(x); } };
template <typename C> struct Convert<C, bf16> { static DEVICE C from(bf16 x) { return (C)to_f32(x); } };
template <typename C> struct Convert<C, boolean> { static DEVICE C from(boolean x) { return (C)x.bits; } };
template <> struct Convert<f16, f16> { static DEVICE f16 from(f16 x) { return x; } };
template <> struct Convert<bf16, bf16> { static DEVICE bf16 from(bf16 x) { return x; } };
template <> struct Convert<boolean, boolean> { static DEVICE boolean from(boolean x) { return x; } };
template <typename T> struct Convert<f16, T> { static DEVICE f16 from(T x) { return to_f16((float)x); } };
template <typename T> struct Convert<bf16, T> { static DEVICE bf16 from(T x) { return to_bf16((float)x); } };
template <typename T> struct Convert<boolean, T> {
    static DEVICE boolean from(T x) { boolean b; b.bits = x != (T)0; return b; }
};
#define BY_F32(TO, FROM, MAKE, VALUE) \
    template <> struct Convert<TO, FROM> { static DEVICE TO from(FROM x) { return MAKE(VALUE); } };
BY_F32(f16, bf16, to_f16, to_f32(x))
BY_F32(bf16, f16, to_bf16, to_f32(x))
BY_F32(f16, boolean, to_f16, (float)x.bits)
BY_F32(bf16, boolean, to_bf16, (float)x.bits)
template <typename T> DEVICE boolean truth(T x) { boolean b; b.bits = x != (T)0; return b; }
BY_F32(boolean, f16, truth, to_f32(x))
BY_F32(boolean, bf16, truth, to_f32(x))
template <> struct Convert<i64, float> {
    static DEVICE i64 from(float x) {
        return x != x ? 0 : x >= 9223372036854775808.f ? 0x7fffffffffffffffLL
             : x < -9223372036854775808.f ? (i64)0x8000000000000000ULL : (i64)x;
    }
};
template <> struct Convert<i64, double> {
    static DEVICE i64 from(double x) {
        return x != x ? 0 : x >= 9223372036854775808. ? 0x7fffffffffffffffLL
             : x < -9223372036854775808. ? (i64)0x8000000000000000ULL : (i64)x;
    }
};
// Negative numbers wrap by way of i64.
template <> struct Convert<u64, double> {
    static DEVICE u64 from(double x) {
        return x >= 18446744073709551616. ? 0xffffffffffffffffULL
             : x >= 9223372036854775808. ? (u64)x : (u64)Convert<i64, double>::from(x);
    }
};
template <> struct Convert<u64, float> {
    static DEVICE u64 from(float x) { return Convert<u64, double>::from((double)x); }
};
#define SATURATING(I, LO, HI) \
    template <> struct Convert<I, float> { \
        static DEVICE I from(float x) { return x != x ? 0 : x >= (float)HI ? (I)HI : x <= (float)LO ? (I)LO : (I)x; } \
    }; \
    template <> struct Convert<I, double> { \
        static DEVICE I from(double x) { return x != x ? 0 : x >= (double)HI ? (I)HI : x <= (double)LO ? (I)LO : (I)x; } \
    };
SATURATING(u8, 0, 255)
SATURATING(u16, 0, 65535)
SATURATING(u32, 0, 4294967295)
SATURATING(i8, -128, 127)
SATURATING(i16, -32768, 32767)
SATURATING(i32, (-2147483647 - 1), 2147483647)

template <typename C, typename T> DEVICE C convert(T x) { return Convert<C, T>::from(x); }

// N elements that move as one; N * sizeof(T) is at most 16.
template <typename T, int N> struct alignas(sizeof(T) * N) Vec { T at[N]; };

// Row-major description of a strided operand; strides in elements. Passed by value.
struct Layout {
    i32 rank;
    i32 unused;
    i64 shape[8];
    i64 strides[8];
};

// Where row-major element `i` of a layout lies.
DEVICE i64 offset_of(const Layout &l, i64 i) {
    i64 at = 0;
    for (int d = l.rank - 1; d > 0; --d) {
        i64 q = i / l.shape[d];
        at += (i - q * l.shape[d]) * l.strides[d];
        i = q;
    }
    return l.rank > 0 ? at + i * l.strides[0] : 0;
}

// Operators of reductions: `id()` is neutral.
struct Sum {
    template <typename C> static DEVICE C id() { return (C)0; }
    template <typename C> static DEVICE C of(C a, C b) { return a + b; }
};
// NaN if either is NaN, as NumPy's.
struct Max {
    template <typename C> static DEVICE C of(C a, C b) { return a != a || a > b ? a : b; }
};

template <typename Op, typename C> DEVICE C warp_all(C x) {
#pragma unroll
    for (int d = WARP / 2; d > 0; d /= 2) x = Op::of(x, __shfl_xor_sync(FULL_MASK, x, d));
    return x;
}

// Reduces over the block; every thread gets the result. `slots` is shared memory for one C a warp (32 at most); safe to
// call again with the same slots. All threads of the block take part; blockDim.x is a multiple of 32.
template <typename Op, typename C> DEVICE C block_all(C x, C *slots) {
    x = warp_all<Op>(x);
    int warps = blockDim.x / WARP;
    if (warps == 1) return x;
    __syncthreads();
    if (threadIdx.x % WARP == 0) slots[threadIdx.x / WARP] = x;
    __syncthreads();
    x = slots[0];
    for (int w = 1; w < warps; ++w) x = Op::of(x, slots[w]);
    return x;
}

// The first failure that a kernel finds in its operands' values; the host reads it when it next waits. `code` is 0 for
// none. Kernels report and go on without touching memory out of bounds.
struct Fault {
    u32 code;
    u32 unused;
    i64 value;
    i64 bound;
};
#define FAULT_INDEX 1u

DEVICE void report(Fault *fault, u32 code, i64 value, i64 bound) {
    if (atomicCAS(&fault->code, 0u, code) == 0u) {
        fault->value = value;
        fault->bound = bound;
    }
}

// An index that may count from the end, checked: -1 after a report if it is out of range.
DEVICE i64 checked_index(i64 index, i64 bound, Fault *fault) {
    i64 at = index < 0 ? index + bound : index;
    if (at >= 0 && at < bound) return at;
    report(fault, FAULT_INDEX, index, bound);
    return -1;
}
