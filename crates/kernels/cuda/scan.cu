// Scans: running sums (KIND 0) and products (KIND 1) of rows, the second half of the adjoint of products (KIND 2), and the
// places of elements that are not zero (KIND 3).
//
// LANES threads share a row: in a step each takes ITEMS neighbouring elements in order, and gets what the threads before it
// came to. Few long rows are split over gridDim.y blocks besides: `totals` writes what each part comes to, then each block
// of `scan` begins with the parts before it. Neither depends on timing. Where the axis is not the last and there are rows
// enough, each thread has a row to itself (`columns`), so that neighbours read neighbours.
//
// The host defines T (operand), A (type of the arithmetic), R (result), KIND, and LANES: 8, 32 or 256.

#define SUM 0
#define PROD 1
#define CHAIN 2
#define NONZERO 3

#define THREADS 256
#define ITEMS (sizeof(A) * (KIND == CHAIN ? 2 : 1) > 4 ? 4 : 8)

// What elements in a row come to: of KIND 2 the function s -> a s + b.
struct State {
#if KIND == CHAIN
    A a;
#endif
    A b;
};

DEVICE State start() {
    State s;
#if KIND == CHAIN
    s.a = (A)1;
    s.b = (A)0;
#else
    // -0, so that a sum of negative zeros stays one.
    s.b = KIND == PROD ? (A)1 : (A)-0.0;
#endif
    return s;
}

// First `s`, then `t`.
DEVICE State join(State s, State t) {
#if KIND == CHAIN
    t.b = t.a * s.b + t.b;
    t.a = t.a * s.a;
#elif KIND == PROD
    t.b = s.b * t.b;
#else
    t.b = s.b + t.b;
#endif
    return t;
}

DEVICE State from_lane(State s, int lane, int width) {
#if KIND == CHAIN
    s.a = __shfl_sync(FULL_MASK, s.a, lane, width);
#endif
    s.b = __shfl_sync(FULL_MASK, s.b, lane, width);
    return s;
}

DEVICE State from_below(State s, int distance, int width) {
#if KIND == CHAIN
    s.a = __shfl_up_sync(FULL_MASK, s.a, distance, width);
#endif
    s.b = __shfl_up_sync(FULL_MASK, s.b, distance, width);
    return s;
}

// What the threads of a row before this one come to; `total` is what all of them do. For whole blocks.
DEVICE State before_me(State s, State &total, State *slots) {
    const int width = LANES < WARP ? LANES : WARP, lane = threadIdx.x % width;
#pragma unroll
    for (int d = 1; d < width; d *= 2) {
        const State below = from_below(s, d, width);
        if (lane >= d) s = join(below, s);
    }
    State before = from_below(s, 1, width);
    if (lane == 0) before = start();
    total = from_lane(s, width - 1, width);
#if LANES > WARP
    const int warp = threadIdx.x / WARP;
    // The slots may still be read from the step before.
    __syncthreads();
    if (lane == 0) slots[warp] = total;
    __syncthreads();
    State warps = start();
    total = start();
#pragma unroll
    for (int w = 0; w < LANES / WARP; ++w) {
        if (w == warp) warps = total;
        total = join(total, slots[w]);
    }
    before = join(warps, before);
#endif
    return before;
}

// Rows of `n` elements, `inner` apart; rows that differ in the last axes are neighbours.
struct Rows {
    i64 rows, n, inner, reverse, exclusive;
};

// Where element `k` in the order of the scan lies.
DEVICE i64 place(const Rows &of, i64 row, i64 k) {
    if (of.reverse) k = of.n - 1 - k;
    if (of.inner == 1) return row * of.n + k;
    const i64 outer = row / of.inner;
    return (outer * of.n + k) * of.inner + (row - outer * of.inner);
}

// Of KIND 2 `x` are the factors and `g` the terms: s[k] = x[k - 1] s[k - 1] + g[k].
DEVICE State load(const Rows &of, const T *x, const T *g, i64 row, i64 k) {
    State s;
    const i64 at = place(of, row, k);
#if KIND == CHAIN
    s.a = k > 0 ? convert<A>(x[place(of, row, k - 1)]) : (A)0;
    s.b = convert<A>(g[at]);
#elif KIND == NONZERO
    s.b = convert<boolean>(x[at]).bits;
#else
    s.b = convert<A>(x[at]);
#endif
    return s;
}

// Of KIND 2 `more` holds the factor of each result, of KIND 3 it gets the count.
DEVICE void store(const Rows &of, R *y, A *more, i64 row, i64 k, State without, State with) {
#if KIND == NONZERO
    if (with.b != without.b) y[without.b] = k;
    if (k == of.n - 1) *more = with.b;
#else
    const i64 at = place(of, row, k);
#if KIND == CHAIN
    y[at] = convert<R>(more[at] * with.b);
#elif KIND == SUM
    // The sum of nothing is 0, not -0.
    y[at] = convert<R>(of.exclusive ? without.b + (A)0 : with.b);
#else
    y[at] = convert<R>(of.exclusive ? without.b : with.b);
#endif
#endif
}

// Elements `first..end` of a row, from `carry` on; returns what they come to with it.
template <bool STORE>
DEVICE State run(const Rows &of, const T *x, const T *g, R *y, A *more, i64 row, i64 first, i64 end, State carry,
                 State *slots) {
    const int lane = threadIdx.x % LANES;
    for (i64 at = first; at < end; at += LANES * ITEMS) {
        State s[ITEMS];
        const i64 mine = at + lane * (int)ITEMS;
#pragma unroll
        for (int i = 0; i < (int)ITEMS; ++i)
            s[i] = row < of.rows && mine + i < end ? load(of, x, g, row, mine + i) : start();
#pragma unroll
        for (int i = 1; i < (int)ITEMS; ++i) s[i] = join(s[i - 1], s[i]);
        State total;
        const State before = join(carry, before_me(s[ITEMS - 1], total, slots));
        if (STORE) {
            State without = before;
#pragma unroll
            for (int i = 0; i < (int)ITEMS; ++i) {
                const State with = join(before, s[i]);
                if (row < of.rows && mine + i < end) store(of, y, more, row, mine + i, without, with);
                without = with;
            }
        }
        carry = join(carry, total);
    }
    return carry;
}

// y of x (and g): blockIdx.x is a group of THREADS / LANES rows, blockIdx.y one of gridDim.y parts of `range` elements,
// of which `parts` says what each comes to.
KERNEL __launch_bounds__(THREADS, 1)
scan(const T *__restrict__ x, const T *__restrict__ g, R *__restrict__ y, A *more, Rows of, i64 range,
     const State *__restrict__ parts) {
    begin_kernel();
    __shared__ State slots[THREADS / WARP];
    const i64 row = (i64)blockIdx.x * (THREADS / LANES) + threadIdx.x / LANES;
    State carry = start();
#if LANES == THREADS
    if (gridDim.y > 1) {
        // No more parts than threads.
        const bool earlier = threadIdx.x < blockIdx.y;
        before_me(earlier ? parts[row * gridDim.y + threadIdx.x] : start(), carry, slots);
    }
#endif
    const i64 first = (i64)blockIdx.y * range, end = first + range < of.n ? first + range : of.n;
    run<true>(of, x, g, y, more, row, first, end, carry, slots);
}

// What each part of a row comes to. The grid is that of `scan`, with LANES = THREADS.
KERNEL __launch_bounds__(THREADS, 1)
totals(const T *__restrict__ x, const T *__restrict__ g, Rows of, i64 range, State *__restrict__ parts) {
    begin_kernel();
    __shared__ State slots[THREADS / WARP];
    const i64 row = (i64)blockIdx.x * (THREADS / LANES) + threadIdx.x / LANES;
    const i64 first = (i64)blockIdx.y * range, end = first + range < of.n ? first + range : of.n;
    const State all = run<false>(of, x, g, 0, 0, row, first, end, start(), slots);
    if (threadIdx.x % LANES == 0 && row < of.rows) parts[row * gridDim.y + blockIdx.y] = all;
}

// As `scan`, a thread a row.
KERNEL __launch_bounds__(THREADS, 1)
columns(const T *__restrict__ x, const T *__restrict__ g, R *__restrict__ y, A *more, Rows of) {
    begin_kernel();
    const i64 row = (i64)blockIdx.x * THREADS + threadIdx.x;
    if (row >= of.rows) return;
    State without = start();
#pragma unroll 4
    for (i64 k = 0; k < of.n; ++k) {
        const State with = join(without, load(of, x, g, row, k));
        store(of, y, more, row, k, without, with);
        without = with;
    }
}
