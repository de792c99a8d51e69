// What the families of row ops share: LANES threads hold a row in registers, as ITEMS packs of VEC elements each.
//
// The host defines T; VEC (the row's width and every address are multiples of it); ITEMS; LANES: a power of two up to 32,
// so that a warp has one row or several, or the whole block; and LONG: 1 where a row does not fit into registers. Then
// the kernel goes over it in batches of ITEMS packs a thread, more than once.

typedef ComputeOf<T>::Type C;
typedef Vec<T, VEC> Pack;

#define MIN_F (-INF_F)
// Threads of a block at most. Launch bounds that ask for one block a multiprocessor keep sm_35's compiler from spilling.
#if LANES > WARP
#define BOUND LANES
#define WARP_LANES WARP
#else
#define BOUND 256
#define WARP_LANES LANES
#endif
#if LONG
typedef i64 Index;
#else
typedef int Index;
#endif

DEVICE float exp_of(float x) { return expf(x); }
DEVICE double exp_of(double x) { return exp(x); }
DEVICE float log_of(float x) { return logf(x); }
DEVICE double log_of(double x) { return log(x); }
// Within 2 ulp, and without a call that would cost registers.
DEVICE float quotient(float a, float b) {
    float q;
    asm("div.full.f32 %0, %1, %2;" : "=f"(q) : "f"(a), "f"(b));
    return q;
}
DEVICE double quotient(double a, double b) { return a / b; }
DEVICE float sqrt_of(float x) { return sqrtf(x); }
DEVICE double sqrt_of(double x) { return sqrt(x); }

// Reduces over the threads of a row that are in one warp; each of them gets the result.
template <typename Op> DEVICE C warp_row(C x) {
#pragma unroll
    for (int d = WARP_LANES / 2; d > 0; d /= 2) x = Op::of(x, __shfl_xor_sync(FULL_MASK, x, d));
    return x;
}

// Sums over the threads of a row. `slots` is shared memory for a C a warp, used once between two barriers.
DEVICE C row_sum(C x, C *slots) {
    x = warp_row<Sum>(x);
#if LANES > WARP
    const int lane = threadIdx.x % WARP;
    if (lane == 0) slots[threadIdx.x / WARP] = x;
    __syncthreads();
    x = warp_all<Sum>(lane < LANES / WARP ? slots[lane] : (C)0);
#endif
    return x;
}

// Sum of e^(x - max) with the largest x beside it. Nothing is (-inf, 0).
struct SumExp {
    C max, sum;
};

// What to subtract before e^x: the largest element, or 0 where that is -inf, so that e^-inf comes out as 0.
DEVICE C shift_of(C max) { return max == (C)MIN_F ? (C)0 : max; }

// Brings the pairs of the warps of a row together; each thread gives its warp's and gets the row's.
DEVICE SumExp row_sum_exp(SumExp of_warp, SumExp *slots) {
#if LANES > WARP
    const int lane = threadIdx.x % WARP;
    if (lane == 0) slots[threadIdx.x / WARP] = of_warp;
    __syncthreads();
    SumExp part;
    part.max = (C)MIN_F;
    part.sum = (C)0;
    if (lane < LANES / WARP) part = slots[lane];
    SumExp all;
    all.max = warp_all<Max>(part.max);
    all.sum = warp_all<Sum>(part.sum * exp_of(part.max - shift_of(all.max)));
    return all;
#else
    return of_warp;
#endif
}

// The row of this thread (which may lie behind the last one), and its place among the row's threads.
#if LANES > WARP
DEVICE i64 first_row() { return blockIdx.x; }
DEVICE i64 row_step() { return gridDim.x; }
DEVICE int row_in_step() { return 0; }
DEVICE int row_lane() { return threadIdx.x; }
#else
// Rows are counted from the warp's first, so that all threads of a warp take as many steps.
DEVICE i64 first_row() { return (i64)blockIdx.x * (blockDim.x / LANES) + threadIdx.x / WARP * (WARP / LANES); }
DEVICE i64 row_step() { return (i64)gridDim.x * (blockDim.x / LANES); }
DEVICE int row_in_step() { return threadIdx.x % WARP / LANES; }
DEVICE int row_lane() { return threadIdx.x % LANES; }
#endif

// The packs `base + lane`, `base + LANES + lane`, .. of a row of `packs`; what lies behind its end is left alone.
DEVICE void load(Pack (&to)[ITEMS], const T *row, Index packs, Index base) {
    const Pack *from = (const Pack *)row;
#pragma unroll
    for (int i = 0; i < ITEMS; ++i) {
        Index at = base + i * LANES + row_lane();
        if (at < packs) to[i] = from[at];
    }
}

// Stores the packs that `load` with the same arguments loaded.
DEVICE void store(T *row, const Pack (&of)[ITEMS], Index packs, Index base) {
    Pack *to = (Pack *)row;
#pragma unroll
    for (int i = 0; i < ITEMS; ++i) {
        Index at = base + i * LANES + row_lane();
        if (at < packs) to[at] = of[i];
    }
}

// The elements of loaded packs as numbers, `fill` behind the row's end.
DEVICE void widen(C (&x)[ITEMS * VEC], const Pack (&of)[ITEMS], Index packs, Index base, C fill) {
#pragma unroll
    for (int i = 0; i < ITEMS; ++i) {
        bool there = base + i * LANES + row_lane() < packs;
#pragma unroll
        for (int v = 0; v < VEC; ++v) x[i * VEC + v] = there ? convert<C>(of[i].at[v]) : fill;
    }
}

DEVICE void narrow(Pack (&to)[ITEMS], const C (&x)[ITEMS * VEC]) {
#pragma unroll
    for (int i = 0; i < ITEMS; ++i)
#pragma unroll
        for (int v = 0; v < VEC; ++v) to[i].at[v] = convert<T>(x[i * VEC + v]);
}

// The largest and the sum of e^(x - it), over the threads of a row in a warp, of one batch; `x` becomes e^(x - max) if
// `keep`. -inf adds nothing.
DEVICE SumExp warp_sum_exp(C (&x)[ITEMS * VEC], bool keep) {
    C max = x[0];
#pragma unroll
    for (int i = 1; i < ITEMS * VEC; ++i) max = Max::of(max, x[i]);
    SumExp all;
    all.max = warp_row<Max>(max);
    C shift = shift_of(all.max), sum = (C)0;
#pragma unroll
    for (int i = 0; i < ITEMS * VEC; ++i) {
        C e = exp_of(x[i] - shift);
        sum += e;
        if (keep) x[i] = e;
    }
    all.sum = warp_row<Sum>(sum);
    return all;
}

// Adds a batch to a thread's own running pair.
DEVICE void add_sum_exp(SumExp &run, const C (&x)[ITEMS * VEC]) {
    C max = x[0];
#pragma unroll
    for (int i = 1; i < ITEMS * VEC; ++i) max = Max::of(max, x[i]);
    max = Max::of(run.max, max);
    C shift = shift_of(max), sum = (C)0;
#pragma unroll
    for (int i = 0; i < ITEMS * VEC; ++i) sum += exp_of(x[i] - shift);
    run.sum = run.sum * exp_of(run.max - shift) + sum;
    run.max = max;
}

// Brings threads' running pairs together, over the threads of a row in a warp.
DEVICE SumExp join_sum_exp(SumExp run) {
    SumExp all;
    all.max = warp_row<Max>(run.max);
    all.sum = warp_row<Sum>(run.sum * exp_of(run.max - shift_of(all.max)));
    return all;
}
