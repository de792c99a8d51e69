// Dropout and fills by counter, as the CPU's: element 4 b + i is made of word i of block b, whatever the launch. Specialised
// by the element type T.

typedef ComputeOf<T>::Type C;

// Elements 4 b .. 4 b + 4 of n; `aligned` if they may be moved as one.
DEVICE Vec<T, 4> load4(const T *x, u64 b, u64 n, bool aligned) {
    if (aligned && 4 * b + 4 <= n) {
        // Four f64 are two words of 16 bytes.
        Vec<T, 4> y;
        if (sizeof(T) == 8) {
            const Vec<T, 2> *from = (const Vec<T, 2> *)(x + 4 * b);
            Vec<T, 2> lo = from[0], hi = from[1];
            y.at[0] = lo.at[0], y.at[1] = lo.at[1], y.at[2] = hi.at[0], y.at[3] = hi.at[1];
        } else {
            y = *(const Vec<T, 4> *)(x + 4 * b);
        }
        return y;
    }
    Vec<T, 4> y = Vec<T, 4>();
#pragma unroll
    for (int i = 0; i < 4; ++i) {
        if (4 * b + i < n) y.at[i] = x[4 * b + i];
    }
    return y;
}

DEVICE void store4(T *y, const Vec<T, 4> &x, u64 b, u64 n, bool aligned) {
    if (aligned && 4 * b + 4 <= n) {
        if (sizeof(T) == 8) {
            Vec<T, 2> *to = (Vec<T, 2> *)(y + 4 * b);
            Vec<T, 2> lo = {{x.at[0], x.at[1]}}, hi = {{x.at[2], x.at[3]}};
            to[0] = lo, to[1] = hi;
        } else {
            *(Vec<T, 4> *)(y + 4 * b) = x;
        }
        return;
    }
#pragma unroll
    for (int i = 0; i < 4; ++i) {
        if (4 * b + i < n) y[4 * b + i] = x.at[i];
    }
}

// y = x * scale where a word is not below `threshold` (2^32 p), else 0. `state` is the seed and the step. Works in place.
KERNEL dropout(const T *x, const i64 *state, T *y, u64 n, u64 threshold, u64 stream, double scale, u32 aligned) {
    begin_kernel();
    Counter counter = {(u64)state[0], stream, (u64)state[1]};
    C factor = (C)scale;
    u64 step = (u64)gridDim.x * blockDim.x, blocks = (n + 3) / 4;
    for (u64 b = (u64)blockIdx.x * blockDim.x + threadIdx.x; b < blocks; b += step) {
        Vec<T, 4> v = load4(x, b, n, aligned);
        Words w = counter.block(b);
#pragma unroll
        for (int i = 0; i < 4; ++i) v.at[i] = convert<T>(w.at[i] < threshold ? (C)0 : convert<C>(v.at[i]) * factor);
        store4(y, v, b, n, aligned);
    }
}

// The nearest T. By f32 rounded to odd, so that rounding twice is rounding once.
template <typename R> struct Nearest {
    static DEVICE R of(double x) {
        float near_zero = __double2float_rz(x);
        u32 bits = __float_as_uint(near_zero);
        return convert<R>(__uint_as_float((double)near_zero == x ? bits : bits | 1u));
    }
};
template <> struct Nearest<float> { static DEVICE float of(double x) { return (float)x; } };
template <> struct Nearest<double> { static DEVICE double of(double x) { return x; } };

// The middle of the cell of 2^32 that the word names, in 0..1.
DEVICE double middle(u32 word) { return ((double)word + 0.5) * (1. / 4294967296.); }

// low + (high - low) u, kept below `high` where rounding would reach it. No products are fused, as the CPU fuses none.
KERNEL uniform(T *y, u64 n, u64 seed, u64 stream, u64 at_step, double low, double high, u32 aligned) {
    begin_kernel();
    Counter counter = {seed, stream, at_step};
    double width = high - low;
    u64 step = (u64)gridDim.x * blockDim.x, blocks = (n + 3) / 4;
    for (u64 b = (u64)blockIdx.x * blockDim.x + threadIdx.x; b < blocks; b += step) {
        Words w = counter.block(b);
        Vec<T, 4> v;
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            v.at[i] = Nearest<T>::of(__dadd_rn(low, __dmul_rn(width, middle(w.at[i]))));
            if ((double)convert<C>(v.at[i]) >= high && high > low) v.at[i] = Nearest<T>::of(low);
        }
        store4(y, v, b, n, aligned);
    }
}

// Box and Muller's transform, in f64; equal to the CPU's within the last places of its logarithm, sine and cosine.
KERNEL normal(T *y, u64 n, u64 seed, u64 stream, u64 at_step, double mean, double deviation, u32 aligned) {
    begin_kernel();
    Counter counter = {seed, stream, at_step};
    u64 step = (u64)gridDim.x * blockDim.x, blocks = (n + 3) / 4;
    for (u64 b = (u64)blockIdx.x * blockDim.x + threadIdx.x; b < blocks; b += step) {
        Words w = counter.block(b);
        Vec<T, 4> v;
#pragma unroll
        for (int i = 0; i < 4; i += 2) {
            double radius = __dmul_rn(sqrt(-2. * log(middle(w.at[i]))), deviation), sine, cosine;
            // The angle is 2 pi times the word's place: taken in half turns there is no range to reduce.
            sincospi(2. * middle(w.at[i + 1]), &sine, &cosine);
            v.at[i] = Nearest<T>::of(__dadd_rn(mean, __dmul_rn(radius, cosine)));
            v.at[i + 1] = Nearest<T>::of(__dadd_rn(mean, __dmul_rn(radius, sine)));
        }
        store4(y, v, b, n, aligned);
    }
}
