// Rotary position embedding: pairs of a head's elements turned by position * base^(-2 i / dim).
//
// Angles are products in f64, as on the CPU: in f32 they would be wrong by a radian at position 10 million. Unless f64 is
// computed in, the angle is then brought into one turn (exactly, as multiples of pi), and sine and cosine are taken in f32.
//
// The host defines T and N, the pairs of a thread, which moves N elements as one. A thread keeps its sines and cosines for
// all the heads of its slice.

typedef ComputeOf<T>::Type C;
#define THREADS 128
#define MOST_FREQUENCIES 128

struct Rope {
    const T *x;
    T *y;
    i64 rows, seq, heads, dim;      // rows is batch * seq
    i64 batch_stride, row_stride, head_stride; // of x; y is contiguous
    i64 offset, turned, interleaved, inverse;
    i64 slices, blocks;
    double base;
    double frequencies[MOST_FREQUENCIES]; // base^(-2 i / dim), if there are no more
};

DEVICE void sine_cosine(double angle, float &s, float &c) {
    double half_turns = angle * 0.31830988618379067154;
    sincospif((float)(half_turns - 2. * rint(0.5 * half_turns)), &s, &c);
}
DEVICE void sine_cosine(double angle, double &s, double &c) { sincos(angle, &s, &c); }

KERNEL __launch_bounds__(THREADS) rope(const Rope p) {
    begin_kernel();
    const i64 half = p.dim / 2, groups = half / N, blocks_of_slice = p.blocks / p.slices;
    const i64 block = (i64)blockIdx.y * gridDim.x + blockIdx.x;
    if (block >= p.blocks) return;
    const i64 slice = block / blocks_of_slice, item = block % blocks_of_slice * THREADS + threadIdx.x;
    const i64 row = item / groups, pair = item % groups * N;
    if (row >= p.rows) return;
    const i64 b = row / p.seq, s = row % p.seq;
    C sine[N], cosine[N];
#pragma unroll
    for (int e = 0; e < N; ++e) {
        const i64 i = pair + e;
        const double frequency = half <= MOST_FREQUENCIES ? p.frequencies[i] : pow(p.base, -2. * (double)i / (double)p.dim);
        sine_cosine((double)(p.offset + s) * frequency, sine[e], cosine[e]);
        if (p.inverse) sine[e] = -sine[e];
    }
    const i64 each = (p.heads + p.slices - 1) / p.slices, first = slice * each;
    const i64 end = first + each < p.heads ? first + each : p.heads;
    // Where the two vectors of N elements are.
    const i64 at = p.interleaved ? 2 * pair : pair, far = p.interleaved ? at + N : at + half;
#pragma unroll 2
    for (i64 h = first; h < end; ++h) {
        const T *x = p.x + b * p.batch_stride + s * p.row_stride + h * p.head_stride;
        T *y = p.y + (row * p.heads + h) * p.dim;
        Vec<T, N> u = *(const Vec<T, N> *)(x + at), v = *(const Vec<T, N> *)(x + far);
        if (h < p.turned) {
            C from[2 * N], to[2 * N];
#pragma unroll
            for (int e = 0; e < N; ++e) {
                from[e] = convert<C>(u.at[e]);
                from[N + e] = convert<C>(v.at[e]);
            }
#pragma unroll
            for (int e = 0; e < N; ++e) {
                const C a = p.interleaved ? from[2 * e] : from[e], d = p.interleaved ? from[2 * e + 1] : from[N + e];
                const C turned_a = a * cosine[e] - d * sine[e], turned_d = a * sine[e] + d * cosine[e];
                to[e] = turned_a;
                to[N + e] = turned_d;
            }
#pragma unroll
            for (int e = 0; e < N; ++e) {
                // Interleaved: element e of the two vectors together is of pair e / 2, first or second.
                u.at[e] = convert<T>(p.interleaved ? to[e / 2 + e % 2 * N] : to[e]);
                v.at[e] = convert<T>(p.interleaved ? to[(N + e) / 2 + (N + e) % 2 * N] : to[N + e]);
            }
        }
        *(Vec<T, N> *)(y + at) = u;
        *(Vec<T, N> *)(y + far) = v;
    }
}
