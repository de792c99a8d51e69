// What the sources of matrix products share: the problem, activations, results, deterministic split over k.
// c[m, n] = activation(a[m, k] b[k, n] + bias[n]), a and b with any strides; both are "rows by k" here: a has m rows, b n.
//
// T is the element type, ACT the activation (0 none, 1 relu, 2 gelu, 3 gelu_tanh, 4 silu).

// What products are summed in. Integers of up to 32 bits wrap as in i64 cut down afterwards, so u32 does for them.
template <typename E> struct AccOf { typedef u32 Type; };
template <> struct AccOf<f16> { typedef float Type; };
template <> struct AccOf<bf16> { typedef float Type; };
template <> struct AccOf<float> { typedef float Type; };
template <> struct AccOf<double> { typedef double Type; };
template <> struct AccOf<i64> { typedef u64 Type; };
template <> struct AccOf<boolean> { typedef u64 Type; };
typedef AccOf<T>::Type Acc;

template <typename A, typename B> struct Same { static constexpr bool value = false; };
template <typename A> struct Same<A, A> { static constexpr bool value = true; };

// Host side: `Problem::push` in gemm/launch.rs. Strides are in elements.
struct Problem {
    i64 m, n, k;
    i64 a_row, a_k, b_row, b_k;
    i64 c_row, c_col, c_batch;
    i64 k_split;          // k that one of the `splits` takes; a multiple of BK
    i64 batch0;           // the batch of blockIdx.z = 0
    i32 tiles_m, tiles_n;
    i32 splits;
    i32 vector;           // elements of a result row that may be stored as one vector: 1, 2, 4 or 8
    i32 bias_by_row;      // the bias goes with rows of c: the product was turned around
    i32 lead_rank;        // leading axes; they broadcast through strides of 0
    i64 lead[6], lead_a[6], lead_b[6];
};

DEVICE i64 smaller(i64 a, i64 b) { return a < b ? a : b; }

DEVICE void lead_offsets(const Problem &p, i64 batch, i64 &a, i64 &b) {
    a = 0;
    b = 0;
    for (int d = p.lead_rank - 1; d >= 0; --d) {
        i64 q = batch / p.lead[d], r = batch - q * p.lead[d];
        a += r * p.lead_a[d];
        b += r * p.lead_b[d];
        batch = q;
    }
}

// Tiles in groups of 8 rows of tiles, so that blocks that run together share operands in the second-level cache.
DEVICE void tile_of(const Problem &p, i32 index, i32 &tm, i32 &tn) {
    const i32 high = 8;
    i32 in_group = high * p.tiles_n, group = index / in_group;
    i32 first = group * high, rows = p.tiles_m - first < high ? p.tiles_m - first : high;
    i32 rest = index - group * in_group;
    tm = first + rest % rows;
    tn = rest / rows;
}

template <typename C> DEVICE C activate(C x) { return x; }
#if ACT == 1
DEVICE float activate(float x) { return x < 0.f ? 0.f : x; }
DEVICE double activate(double x) { return x < 0. ? 0. : x; }
#elif ACT == 2
DEVICE float activate(float x) { return 0.5f * x * (1.f + erff(x * 0.707106781186547524f)); }
DEVICE double activate(double x) { return 0.5 * x * (1. + erf(x * 0.707106781186547524)); }
#elif ACT == 3
DEVICE float activate(float x) {
    return 0.5f * x * (1.f + tanhf(0.797884560802865356f * (x + 0.044715f * x * x * x)));
}
DEVICE double activate(double x) {
    return 0.5 * x * (1. + tanh(0.797884560802865356 * (x + 0.044715 * x * x * x)));
}
#elif ACT == 4
DEVICE float activate(float x) { return x * (1.f / (1.f + expf(-x))); }
DEVICE double activate(double x) { return x * (1. / (1. + exp(-x))); }
#endif

template <int N> DEVICE void put_values(const Problem &p, T *to, i64 col, const Acc (&v)[N]) {
    Vec<T, N> y;
#pragma unroll
    for (int i = 0; i < N; ++i) y.at[i] = convert<T>(v[i]);
    if (N > 1 && p.vector >= N && col + N <= p.n) {
        *(Vec<T, N> *)to = y;
        return;
    }
#pragma unroll
    for (int i = 0; i < N; ++i) {
        if (col + i < p.n) to[i * p.c_col] = y.at[i];
    }
}

// Writes N results of one row, before (`pre`, if it is wanted) and after the activation. The bias is in them.
template <int N> DEVICE void put(const Problem &p, T *c, T *pre, i64 row, i64 col, const Acc (&v)[N]) {
    if (row >= p.m) return;
    i64 at = row * p.c_row + col * p.c_col;
    if (pre) put_values<N>(p, pre + at, col, v);
    Acc y[N];
#pragma unroll
    for (int i = 0; i < N; ++i) y[i] = activate(v[i]);
    put_values<N>(p, c + at, col, y);
}

DEVICE Acc bias_at(const Problem &p, const T *bias, i64 col) {
    return bias && col < p.n ? convert<Acc>(bias[col]) : (Acc)0;
}

// What another block wrote: past the first-level cache.
DEVICE float load_l2(const float *x) { return __ldcg(x); }
DEVICE double load_l2(const double *x) { return __ldcg(x); }
DEVICE u32 load_l2(const u32 *x) { return __ldcg(x); }
DEVICE u64 load_l2(const u64 *x) { return __ldcg(x); }

// Adds up the shares of the blocks of one tile. Each block leaves its own; the one that comes last adds all of them, in
// their order, so that the sum does not depend on which was last. True for that block. Counters are 0 before and after.
template <int E, int THREADS>
DEVICE bool combine(Acc (&acc)[E], Acc *partial, u32 *counters, const Problem &p, i64 slot, i32 share) {
    __shared__ u32 last;
    Acc *all = partial + slot * p.splits * (i64)(E * THREADS) + threadIdx.x;
    Acc *mine = all + share * (i64)(E * THREADS);
#pragma unroll
    for (int e = 0; e < E; ++e) mine[e * THREADS] = acc[e];
    __threadfence();
    __syncthreads();
    if (threadIdx.x == 0) {
        last = atomicAdd(&counters[slot], 1u) == (u32)p.splits - 1u;
        if (last) counters[slot] = 0u;
    }
    __syncthreads();
    if (!last) return false;
    __threadfence();
#pragma unroll
    for (int e = 0; e < E; ++e) acc[e] = (Acc)0;
    // Several shares are under way at once: one by one, each would take the whole latency of the cache.
    const int WAYS = E <= 8 ? 4 : E <= 32 ? 2 : 1;
    int s = 0;
    for (; s + WAYS <= p.splits; s += WAYS, all += WAYS * E * THREADS) {
        Acc got[WAYS * E];
#pragma unroll
        for (int e = 0; e < WAYS * E; ++e) got[e] = load_l2(all + e * THREADS);
#pragma unroll
        for (int e = 0; e < WAYS * E; ++e) acc[e % E] += got[e];
    }
    for (; s < p.splits; ++s, all += E * THREADS) {
#pragma unroll
        for (int e = 0; e < E; ++e) acc[e] += load_l2(all + e * THREADS);
    }
    return true;
}

// Asynchronous copies to shared memory. `valid` bytes are copied, the rest of BYTES is set to 0.
// <instructions>
#if TIER >= 80
template <int BYTES> DEVICE void copy_async(void *to, const void *from, int valid) {
    u32 at = (u32)__cvta_generic_to_shared(to);
    if (BYTES == 16) {
        asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(at), "l"(from), "r"(valid) : "memory");
    } else {
        asm volatile("cp.async.ca.shared.global [%0], [%1], %3, %2;" ::"r"(at), "l"(from), "r"(valid), "n"(BYTES)
                     : "memory");
    }
}
// All BYTES.
template <int BYTES> DEVICE void copy_async(void *to, const void *from) {
    u32 at = (u32)__cvta_generic_to_shared(to);
    if (BYTES == 16) {
        asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(at), "l"(from) : "memory");
    } else {
        asm volatile("cp.async.ca.shared.global [%0], [%1], %2;" ::"r"(at), "l"(from), "n"(BYTES) : "memory");
    }
}
DEVICE void copy_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int PENDING> DEVICE void copy_wait() { asm volatile("cp.async.wait_group %0;" ::"n"(PENDING) : "memory"); }
#else
template <int BYTES> DEVICE void copy_async(void *, const void *, int) {}
template <int BYTES> DEVICE void copy_async(void *, const void *) {}
DEVICE void copy_commit() {}
template <int PENDING> DEVICE void copy_wait() {}
#endif
// </instructions>
