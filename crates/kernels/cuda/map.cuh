// What generated elementwise kernels and copies build on: element conversions equal to the CPU's, arithmetic of the
// scalar primitives, groups of elements that move as one, and the axes that strided operands are walked over together.

// A float whose rounding to 16 bits is the nearest to x itself: x towards zero, with the last bit set if anything was
// cut off (rounding to odd; Boldo and Melquiond 2008).
DEVICE float to_odd(double x) {
    float cut = __double2float_rz(x);
    return (double)cut == x ? cut : __int_as_float(__float_as_int(cut) | 1);
}

// A stored element as a number of the compute type C: i64, u64, float or double.
template <typename C, typename T> DEVICE C load(T x) { return convert<C>(x); }
template <typename C> DEVICE C load(f16 x) { return convert<C>(to_f32(x)); }
template <typename C> DEVICE C load(bf16 x) { return convert<C>(to_f32(x)); }

// A number of a compute type as a stored element. Integers wrap to their width; floats become i64 first, towards zero.
template <typename T> struct Stored {
    static DEVICE T of(i64 x) { return (T)x; }
    static DEVICE T of(u64 x) { return (T)x; }
    static DEVICE T of(float x) { return (T)convert<i64>(x); }
    static DEVICE T of(double x) { return (T)convert<i64>(x); }
};
template <> struct Stored<u64> {
    template <typename C> static DEVICE u64 of(C x) { return convert<u64>(x); }
};
template <> struct Stored<boolean> {
    template <typename C> static DEVICE boolean of(C x) { return truth(x); }
};
template <> struct Stored<float> {
    static DEVICE float of(i64 x) { return (float)x; }
    static DEVICE float of(u64 x) { return (float)x; }
    static DEVICE float of(float x) { return x; }
    static DEVICE float of(double x) { return (float)x; }
};
template <> struct Stored<double> {
    template <typename C> static DEVICE double of(C x) { return (double)x; }
};
template <> struct Stored<f16> {
    static DEVICE f16 of(i64 x) { return to_f16(to_odd((double)x)); }
    static DEVICE f16 of(u64 x) { return to_f16(to_odd((double)x)); }
    static DEVICE f16 of(float x) { return to_f16(x); }
    static DEVICE f16 of(double x) { return to_f16(to_odd(x)); }
};
template <> struct Stored<bf16> {
    static DEVICE bf16 of(i64 x) { return to_bf16(to_odd((double)x)); }
    static DEVICE bf16 of(u64 x) { return to_bf16(to_odd((double)x)); }
    static DEVICE bf16 of(float x) { return to_bf16(x); }
    static DEVICE bf16 of(double x) { return to_bf16(to_odd(x)); }
};

// Integer primitives: they wrap, and division by 0 gives 0.
DEVICE i64 add(i64 a, i64 b) { return (i64)((u64)a + (u64)b); }
DEVICE i64 subtract(i64 a, i64 b) { return (i64)((u64)a - (u64)b); }
DEVICE i64 multiply(i64 a, i64 b) { return (i64)((u64)a * (u64)b); }
DEVICE i64 negative(i64 a) { return (i64)(0ULL - (u64)a); }
DEVICE i64 absolute(i64 a) { return a < 0 ? negative(a) : a; }
DEVICE i64 quotient(i64 a, i64 b) { return b == 0 ? 0 : b == -1 ? negative(a) : a / b; }
DEVICE u64 power(u64 base, u64 b) {
    u64 result = 1;
    for (; b > 0; b >>= 1) {
        if (b & 1) result *= base;
        base *= base;
    }
    return result;
}
DEVICE i64 power(i64 a, i64 b) { return b < 0 ? 0 : (i64)power((u64)a, (u64)b); }
DEVICE u64 add(u64 a, u64 b) { return a + b; }
DEVICE u64 subtract(u64 a, u64 b) { return a - b; }
DEVICE u64 multiply(u64 a, u64 b) { return a * b; }
DEVICE u64 negative(u64 a) { return 0ULL - a; }
DEVICE u64 absolute(u64 a) { return a; }
DEVICE u64 quotient(u64 a, u64 b) { return b == 0 ? 0 : a / b; }
// Python's quotient and remainder: the first rounds down, the second has the divisor's sign.
DEVICE i64 floor_divide(i64 a, i64 b) {
    i64 q = quotient(a, b);
    return b != 0 && (a < 0) != (b < 0) && subtract(a, multiply(q, b)) != 0 ? q - 1 : q;
}
DEVICE i64 modulo(i64 a, i64 b) {
    if (b == 0 || b == -1) return 0;
    i64 rest = a % b;
    return rest != 0 && (rest < 0) != (b < 0) ? rest + b : rest;
}
DEVICE u64 floor_divide(u64 a, u64 b) { return quotient(a, b); }
DEVICE u64 modulo(u64 a, u64 b) { return b == 0 ? 0 : a % b; }
DEVICE float rest_of(float a, float b) { return fmodf(a, b); }
DEVICE double rest_of(double a, double b) { return fmod(a, b); }
DEVICE float floor_of(float x) { return floorf(x); }
DEVICE double floor_of(double x) { return floor(x); }
DEVICE float signed_zero(float x) { return copysignf(0.f, x); }
DEVICE double signed_zero(double x) { return copysign(0., x); }
template <typename C> DEVICE C floor_divide(C a, C b) {
    if (b == (C)0) return a / b;
    C rest = rest_of(a, b);
    C q = (a - rest) / b;
    if (rest != (C)0 && (b < (C)0) != (rest < (C)0)) q -= (C)1;
    if (q == (C)0) return signed_zero(a / b);
    // A whole number but for the rounding of the division.
    C below = floor_of(q);
    return q - below > (C)0.5 ? below + (C)1 : below;
}
template <typename C> DEVICE C modulo(C a, C b) {
    C rest = rest_of(a, b);
    if (rest == (C)0) return signed_zero(b);
    return (b < (C)0) != (rest < (C)0) ? rest + b : rest;
}
// Counts that are negative or no less than the width give what shifts tend to.
DEVICE i64 shift_left(i64 a, i64 count) { return (u64)count < 64 ? (i64)((u64)a << count) : 0; }
DEVICE i64 shift_right(i64 a, i64 count) { return a >> ((u64)count < 64 ? count : 63); }
DEVICE u64 shift_left(u64 a, u64 count) { return count < 64 ? a << count : 0; }
DEVICE u64 shift_right(u64 a, u64 count) { return count < 64 ? a >> count : 0; }
// Squares are by far the commonest powers; the exponent is mostly one number for all elements.
DEVICE float power(float a, float b) { return b == 2.f ? a * a : powf(a, b); }
DEVICE double power(double a, double b) { return b == 2. ? a * a : pow(a, b); }

// NaN if either is: the comparison is false for it, which keeps one in b.
template <typename C> DEVICE C larger(C a, C b) { return a != a || a > b ? a : b; }
template <typename C> DEVICE C smaller(C a, C b) { return a != a || a < b ? a : b; }

// A word of this many bytes: what one load or store instruction moves.
template <int BYTES> struct WordOf;
template <> struct WordOf<1> { typedef u8 Type; };
template <> struct WordOf<2> { typedef u16 Type; };
template <> struct WordOf<4> { typedef u32 Type; };
template <> struct WordOf<8> { typedef uint2 Type; };
template <> struct WordOf<16> { typedef uint4 Type; };

// N elements that are loaded and stored as one word; their address is a multiple of its size.
template <typename T, int N> union Pack {
    typedef typename WordOf<sizeof(T) * N>::Type Word;
    Word word;
    T at[N];
    DEVICE void load(const T *from) { word = *(const Word *)from; }
    DEVICE void store(T *to) const { *(Word *)to = word; }
};

// The R axes that K operands are walked over together, slowest first; strides are in elements of each operand, a point
// is a group of elements along the last axis. Division by a length is a multiplication: for n below 2^31,
// n / len = (n * magic / 2^32 + n) >> shift (Granlund and Montgomery 1994).
template <int K, int R> struct Space {
    i64 strides[K][R];
    i64 len[R];
    u32 magic[R];
    u32 shift[R];
};

// Where each operand's elements of point n lie. WIDE is for spaces of 2^31 points and more.
template <bool WIDE, int K, int R> DEVICE void locate(const Space<K, R> &space, i64 n, i64 (&at)[K]) {
#pragma unroll
    for (int k = 0; k < K; ++k) at[k] = 0;
#pragma unroll
    for (int d = R - 1; d >= 0; --d) {
        i64 q = 0;
        if (d > 0) q = WIDE ? n / space.len[d] : (i64)((__umulhi((u32)n, space.magic[d]) + (u32)n) >> space.shift[d]);
        i64 index = d > 0 ? n - q * space.len[d] : n;
#pragma unroll
        for (int k = 0; k < K; ++k) at[k] += index * space.strides[k][d];
        n = q;
    }
}
