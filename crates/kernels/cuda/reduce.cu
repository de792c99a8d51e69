// Reductions of strided operands over any axes, in one launch. Follows last_block.cuh.
//
// A block of 256 threads has OUTS = 256 / LANES columns of threads: LANES threads bring together the elements of an output
// (COLUMNS 0: neighbours read neighbouring elements of the reduced axes, in packs of VEC), or of VEC neighbouring outputs
// (COLUMNS 1: neighbours read neighbouring outputs). Few outputs of many elements are split over blocks besides; the last
// block of an output's to finish brings their states together.
//
// The host defines T (operand), A (type of the arithmetic), R (result), KIND, VEC, ITEMS (packs a thread has in flight),
// LANES (a power of two up to 256; with COLUMNS 1 it is 1, or 8 at least), COLUMNS, and FLAT: 1 if one stride leads
// through all elements of an output.

#define SUM 0
#define MEAN 1
#define MAX 2
#define MIN 3
#define VAR 4
#define ARGMAX 5
#define ARGMIN 6
#define PROD 7
#define ALL 8
#define ANY 9

#define THREADS 256
#define OUTS (THREADS / LANES)
#if COLUMNS
#define STATES VEC
#define DEPTH ITEMS
#else
#define STATES 1
#define DEPTH (ITEMS * VEC)
#endif
typedef Vec<T, VEC> Pack;

DEVICE bool is_nan(float x) { return x != x; }
DEVICE bool is_nan(double x) { return x != x; }
DEVICE bool is_nan(i64) { return false; }
DEVICE bool is_nan(u64) { return false; }
template <typename N> struct Extremes {
    static DEVICE N low() { return -(N)INF_F; }
    static DEVICE N high() { return (N)INF_F; }
};
template <> struct Extremes<i64> {
    static DEVICE i64 low() { return (i64)0x8000000000000000ULL; }
    static DEVICE i64 high() { return 0x7fffffffffffffffLL; }
};
template <> struct Extremes<u64> {
    static DEVICE u64 low() { return 0; }
    static DEVICE u64 high() { return 0xffffffffffffffffULL; }
};
#define NOWHERE 0x7fffffffffffffffLL

// What a thread knows of the elements it has seen: `start` of none, `add` a batch of which the first `count` are there
// (at places `at`, `at + step`, ..), `join` what two threads know, `result` what is asked for.
#if KIND == VAR
struct State {
    A n, mean, squares;
};
DEVICE State start() {
    State s;
    s.n = s.mean = s.squares = (A)0;
    return s;
}
// Chan, Golub and LeVeque 1979: means and sums of squared deviations of two sets.
DEVICE State join(State a, State b) {
    State s;
    s.n = a.n + b.n;
    const A share = s.n > (A)0 ? b.n / s.n : (A)0, apart = b.mean - a.mean;
    s.mean = a.mean + apart * share;
    s.squares = a.squares + b.squares + apart * apart * a.n * share;
    return s;
}
DEVICE State across(State s, int d) {
    s.n = __shfl_xor_sync(FULL_MASK, s.n, d);
    s.mean = __shfl_xor_sync(FULL_MASK, s.mean, d);
    s.squares = __shfl_xor_sync(FULL_MASK, s.squares, d);
    return s;
}
DEVICE void add(State &s, const A (&x)[DEPTH], const bool (&there)[DEPTH], i64, i64, i64) {
    State batch = start();
#pragma unroll
    for (int i = 0; i < DEPTH; ++i) {
        batch.mean += there[i] ? x[i] : (A)0;
        batch.n += there[i] ? (A)1 : (A)0;
    }
    if (batch.n == (A)0) return;
    batch.mean /= batch.n;
#pragma unroll
    for (int i = 0; i < DEPTH; ++i) {
        const A apart = there[i] ? x[i] - batch.mean : (A)0;
        batch.squares += apart * apart;
    }
    s = join(s, batch);
}
DEVICE R result(State s, i64, double freedom) { return convert<R>((A)((double)s.squares / freedom)); }

#elif KIND == ARGMAX || KIND == ARGMIN
struct State {
    A value;
    i64 place;
};
DEVICE State start() {
    State s;
    s.value = KIND == ARGMAX ? Extremes<A>::low() : Extremes<A>::high();
    s.place = NOWHERE;
    return s;
}
// NaN is more extreme than any number; of equals none beats the other.
DEVICE bool beats(A a, A b) { return !is_nan(b) && (is_nan(a) || (KIND == ARGMAX ? a > b : a < b)); }
DEVICE State join(State a, State b) {
    return beats(b.value, a.value) || (!beats(a.value, b.value) && b.place < a.place) ? b : a;
}
DEVICE State across(State s, int d) {
    s.value = __shfl_xor_sync(FULL_MASK, s.value, d);
    s.place = __shfl_xor_sync(FULL_MASK, s.place, d);
    return s;
}
DEVICE void add(State &s, const A (&x)[DEPTH], const bool (&there)[DEPTH], i64 at, i64 pack_step, i64 step) {
#pragma unroll
    for (int i = 0; i < DEPTH; ++i) {
        State one;
        one.value = x[i];
        one.place = COLUMNS ? at + i * pack_step : at + i / VEC * pack_step + i % VEC * step;
        if (there[i]) s = join(s, one);
    }
}
DEVICE R result(State s, i64, double) { return convert<R>(s.place); }

#else
struct State {
    A value;
};
DEVICE State start() {
    State s;
    // -0, so that a sum of negative zeros stays one.
    s.value = KIND == PROD || KIND == ALL ? (A)1 : KIND == ANY ? (A)0 : KIND == MAX ? Extremes<A>::low() : KIND == MIN ? Extremes<A>::high() : (A)-0.0;
    return s;
}
DEVICE A both(A a, A b) {
    if (KIND == MAX) return is_nan(a) || a > b ? a : b;
    if (KIND == MIN) return is_nan(a) || a < b ? a : b;
    if (KIND == PROD) return a * b;
    if (KIND == ALL) return a != (A)0 && b != (A)0 ? (A)1 : (A)0;
    if (KIND == ANY) return a != (A)0 || b != (A)0 ? (A)1 : (A)0;
    return a + b;
}
DEVICE State join(State a, State b) {
    a.value = both(a.value, b.value);
    return a;
}
DEVICE State across(State s, int d) {
    s.value = __shfl_xor_sync(FULL_MASK, s.value, d);
    return s;
}
DEVICE void add(State &s, const A (&x)[DEPTH], const bool (&there)[DEPTH], i64, i64, i64) {
    // The batch first, by itself: the error grows with the number of batches.
    A batch = start().value;
#pragma unroll
    for (int i = 0; i < DEPTH; ++i) batch = both(batch, there[i] ? x[i] : start().value);
    s.value = both(s.value, batch);
}
DEVICE R result(State s, i64 n, double) {
    return KIND == MEAN ? convert<R>((A)((double)s.value / (double)n)) : convert<R>(s.value);
}
#endif

// Where row-major element `i` lies; in 32 bits where that will do, as division is slow.
DEVICE i64 place_of(const Layout &l, i64 i) {
    if (l.rank == 1) return i * l.strides[0];
    if (i > 0x7fffffff) return offset_of(l, i);
    i64 at = 0;
    u32 rest = (u32)i;
    for (int d = l.rank - 1; d > 0; --d) {
        // An axis as long as that is crossed once.
        if (l.shape[d] > 0x7fffffff) return at + rest * l.strides[d];
        const u32 q = rest / (u32)l.shape[d];
        at += (i64)(rest - q * (u32)l.shape[d]) * l.strides[d];
        rest = q;
    }
    return at + rest * l.strides[0];
}

// Where element `i` of an output lies from its first.
DEVICE i64 step_of(const Layout &reduced, i64 i) { return FLAT ? i * reduced.strides[0] : place_of(reduced, i); }

// Brings together what the LANES threads of each output know; the first of them gets it.
DEVICE void join_block(State (&s)[STATES], State *slots) {
#if LANES > 1
#pragma unroll
    for (int v = 0; v < STATES; ++v) {
#if COLUMNS
#pragma unroll
        for (int d = OUTS; d < WARP; d *= 2) s[v] = join(s[v], across(s[v], d));
#else
#pragma unroll
        for (int d = (LANES < WARP ? LANES : WARP) / 2; d > 0; d /= 2) s[v] = join(s[v], across(s[v], d));
#endif
    }
#if COLUMNS || LANES > WARP
    // Warps that share an output, and the first of these.
    const int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
    const int warps = COLUMNS ? THREADS / WARP : LANES / WARP, first = warp / warps * warps;
    __syncthreads();
    if (lane < (COLUMNS ? OUTS : 1)) {
#pragma unroll
        for (int v = 0; v < STATES; ++v) slots[(warp * (COLUMNS ? OUTS : 1) + lane) * STATES + v] = s[v];
    }
    __syncthreads();
    if (COLUMNS) {
        if ((int)threadIdx.x < OUTS) {
#pragma unroll
            for (int v = 0; v < STATES; ++v)
                for (int w = 1; w < warps; ++w) s[v] = join(s[v], slots[(w * OUTS + threadIdx.x) * STATES + v]);
        }
    } else if (lane == 0 && warp == first) {
        for (int w = 1; w < warps; ++w) s[0] = join(s[0], slots[warp + w]);
    }
#endif
#endif
}

// y[outputs] of x: `kept` says where each output's elements begin, `reduced` where they lie from there, both in packs
// along the axis that packs are along; `n` elements (packs) an output. blockIdx.x is a tile of outputs, blockIdx.y one
// of gridDim.y ranges of `range` elements (packs). `states` is scratch memory for gridDim.y states an output.
KERNEL __launch_bounds__(THREADS, 1)
reduce(const T *__restrict__ x, R *__restrict__ y, Layout kept, Layout reduced, i64 outputs, i64 n, i64 range,
       i64 elements, double freedom, State *states) {
    begin_kernel();
#if LANES > 1 && (COLUMNS || LANES > WARP)
    __shared__ State slots[COLUMNS ? THREADS / WARP * OUTS * STATES : THREADS / WARP];
#else
    State *slots = 0;
#endif
    const int out_lane = COLUMNS ? threadIdx.x % OUTS : threadIdx.x / LANES;
    const int lane = COLUMNS ? threadIdx.x / OUTS : threadIdx.x % LANES;
    // The output, or the first of a pack of them; `outputs` counts these.
    const i64 out = (i64)blockIdx.x * OUTS + out_lane;
    const i64 first = (i64)blockIdx.y * range, end = first + range < n ? first + range : n;
    State s[STATES];
#pragma unroll
    for (int v = 0; v < STATES; ++v) s[v] = start();
    if (out < outputs) {
        const T *from = x + place_of(kept, out);
#if KIND == VAR
        // Deviations are taken from the output's first element, the same in all threads: far from zero a mean of the
        // elements themselves would be rounded to more than they differ by.
        A pivot[STATES];
#pragma unroll
        for (int v = 0; v < STATES; ++v) pivot[v] = n > 0 ? convert<A>(from[v]) : (A)0;
#define RELATIVE(value, v) ((value) - pivot[v])
#else
#define RELATIVE(value, v) (value)
#endif
        for (i64 at = first + lane; at < end; at += LANES * ITEMS) {
            Pack packs[ITEMS];
#pragma unroll
            for (int i = 0; i < ITEMS; ++i)
                if (at + i * LANES < end) packs[i] = *(const Pack *)(from + step_of(reduced, at + i * LANES));
            A c[DEPTH];
            bool there[DEPTH];
#if COLUMNS
#pragma unroll
            for (int v = 0; v < STATES; ++v) {
#pragma unroll
                for (int i = 0; i < ITEMS; ++i) {
                    there[i] = at + i * LANES < end;
                    c[i] = there[i] ? RELATIVE(convert<A>(packs[i].at[v]), v) : (A)0;
                }
                add(s[v], c, there, at, LANES, 1);
            }
#else
#pragma unroll
            for (int i = 0; i < DEPTH; ++i) {
                there[i] = at + i / VEC * LANES < end;
                c[i] = there[i] ? RELATIVE(convert<A>(packs[i / VEC].at[i % VEC]), 0) : (A)0;
            }
            add(s[0], c, there, at * VEC, LANES * VEC, 1);
#endif
        }
    }
    join_block(s, slots);
    const bool owns = out < outputs && lane == 0;
    if (gridDim.y > 1) {
        const i64 all = outputs * STATES;
        if (owns) {
#pragma unroll
            for (int v = 0; v < STATES; ++v) states[blockIdx.y * all + out * STATES + v] = s[v];
        }
        if (!last_to_arrive(blockIdx.x, gridDim.y)) return;
#pragma unroll
        for (int v = 0; v < STATES; ++v) {
            s[v] = start();
            if (out < outputs)
                for (int part = lane; part < (int)gridDim.y; part += LANES)
                    s[v] = join(s[v], fresh(states + part * all + out * STATES + v));
        }
        join_block(s, slots);
    }
    if (owns) {
#pragma unroll
        for (int v = 0; v < STATES; ++v) y[out * STATES + v] = result(s[v], elements, freedom);
    }
}
