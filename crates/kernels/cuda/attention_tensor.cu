// Attention of f16 and bf16 on tensor cores (mma.sync m16n8k16, sm_80 and later), for heads of up to 128 elements.
//
// A block of four warps owns 64 rows (queries for the result and dq, keys for dk and dv), a warp 16 of them, and walks over
// the others in tiles of 64, so that every result has one writer and sums have one order. What a product leaves in
// registers (weights, gradients of scores) is laid out as the next product's left operand wants it, so no score ever goes
// to memory; the operands come from shared memory by ldmatrix, transposed on the way where needed. Rows are padded by 16
// bytes, so that eight of them lie in different banks.
//
// A weight or gradient of a score is split into its rounded value and what rounding took away, and both are multiplied
// (SPLIT): these products are then nearly as exact as in f32, as on the other paths, for a half more work.
#if TIER >= 80

#define ROWS 64
#define WARPS 4
#define THREADS 128
#define PITCH (HEAD + 8)
#define TILE (ROWS * PITCH)
#define STEPS (HEAD / 16)
#define COLUMNS (HEAD / 8)
#ifndef SPLIT
#define SPLIT 1
#endif
// Whether a warp's left operands stay in registers.
#define HOLD (HEAD <= 64)
// Blocks that a multiprocessor must have registers for.
#define RESIDENT (HEAD <= 32 ? 4 : 2)

// c += a b: a is 16 x 16 (rows of lane / 4 and 8 below, columns of 2 (lane % 4) and 8 right), b 16 x 8, c 16 x 8.
template <typename E> struct Product;
#define PRODUCT(E, NAME) \
    template <> struct Product<E> { \
        static DEVICE void add(float (&c)[4], const u32 (&a)[4], u32 b0, u32 b1) { \
            asm("mma.sync.aligned.m16n8k16.row.col.f32." NAME "." NAME ".f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, " \
                "{%0,%1,%2,%3};" \
                : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3]) \
                : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1)); \
        } \
        /* The first in the low half. */ \
        static DEVICE u32 pack(float x, float y) { \
            u32 z; \
            asm("cvt.rn." NAME "x2.f32 %0, %1, %2;" : "=r"(z) : "f"(y), "f"(x)); \
            return z; \
        } \
    };
PRODUCT(f16, "f16")
PRODUCT(bf16, "bf16")

DEVICE float half_of(u32 packed, int which) {
    T x;
    x.bits = (u16)(which ? packed >> 16 : packed & 0xffffu);
    return to_f32(x);
}

// Two products' results as the left operand of the next one: 16 rows x 16 columns, and what rounding them left over.
DEVICE void left_operand(const float (&x)[4], const float (&y)[4], u32 (&a)[4], u32 (&rest)[4]) {
    a[0] = Product<T>::pack(x[0], x[1]);
    a[1] = Product<T>::pack(x[2], x[3]);
    a[2] = Product<T>::pack(y[0], y[1]);
    a[3] = Product<T>::pack(y[2], y[3]);
    if (SPLIT) {
        rest[0] = Product<T>::pack(x[0] - half_of(a[0], 0), x[1] - half_of(a[0], 1));
        rest[1] = Product<T>::pack(x[2] - half_of(a[1], 0), x[3] - half_of(a[1], 1));
        rest[2] = Product<T>::pack(y[0] - half_of(a[2], 0), y[1] - half_of(a[2], 1));
        rest[3] = Product<T>::pack(y[2] - half_of(a[3], 0), y[3] - half_of(a[3], 1));
    }
}

// Four 8 x 8 matrices, whose rows begin where lanes 8 m to 8 m + 7 say for matrix m.
DEVICE void load_matrices(u32 (&x)[4], const T *row) {
    u32 at = (u32)__cvta_generic_to_shared(row);
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(x[0]), "=r"(x[1]), "=r"(x[2]), "=r"(x[3]) : "r"(at) : "memory");
}
DEVICE void load_transposed(u32 (&x)[4], const T *row) {
    u32 at = (u32)__cvta_generic_to_shared(row);
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(x[0]), "=r"(x[1]), "=r"(x[2]), "=r"(x[3]) : "r"(at) : "memory");
}

// The three ways in which 16 rows and the 16 columns of step `s` of a tile are read:
// as a left operand, 16 rows by 16 of the head;
DEVICE void left_rows(u32 (&a)[4], const T *tile, int row, int s) {
    int lane = threadIdx.x % WARP;
    load_matrices(a, tile + (row + lane % 16) * PITCH + s * 16 + lane / 16 * 8);
}
// as two right operands (rows 0 to 7: b[0], b[1]; rows 8 to 15: b[2], b[3]), 16 of the head by 8 rows each;
DEVICE void right_rows(u32 (&b)[4], const T *tile, int row, int s) {
    int lane = threadIdx.x % WARP;
    load_matrices(b, tile + (row + lane % 8 + lane / 16 * 8) * PITCH + s * 16 + lane / 8 % 2 * 8);
}
// as two right operands (elements 0 to 7 and 8 to 15 of the step), 16 rows by 8 of the head each.
DEVICE void right_values(u32 (&b)[4], const T *tile, int row, int s) {
    int lane = threadIdx.x % WARP;
    load_transposed(b, tile + (row + lane % 16) * PITCH + s * 16 + lane / 16 * 8);
}

DEVICE void wait_for_copies() { asm volatile("cp.async.wait_all;" ::: "memory"); }

// 64 rows of a head on their way into shared memory, zeros below `limit` and beyond `dim`; `wait_for_copies` and a barrier
// must follow.
DEVICE void load_tile(const Attention &p, T *to, const T *from, i64 stride, int first, int limit) {
#pragma unroll
    for (int step = 0; step < ROWS * COLUMNS / THREADS; ++step) {
        int at = step * THREADS + threadIdx.x, r = at / COLUMNS, d = at % COLUMNS * 8, dim = (int)p.dim;
        T *place = to + r * PITCH + d;
        const T *row = from + (first + r) * stride;
        if (first + r < limit && p.aligned && d + 8 <= dim) {
            u32 shared = (u32)__cvta_generic_to_shared(place);
            asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(shared), "l"(row + d) : "memory");
        } else {
            Vec<T, 8> x;
#pragma unroll
            for (int e = 0; e < 8; ++e) {
                x.at[e].bits = 0;
                if (first + r < limit && d + e < dim) x.at[e] = row[d + e];
            }
            *(Vec<T, 8> *)place = x;
        }
    }
}

// A warp's 16 rows of results, by way of its own 16 rows of shared memory at `stage`, to rows `first` on below `limit`.
DEVICE void store_rows(const Attention &p, T *stage, const float (&x)[COLUMNS][4], float upper, float lower, T *to,
                       i64 stride, int first, int limit) {
    const int lane = threadIdx.x % WARP;
    T *at = stage + lane / 4 * PITCH + lane % 4 * 2;
    __syncwarp();
#pragma unroll
    for (int n = 0; n < COLUMNS; ++n) {
        *(u32 *)(at + n * 8) = Product<T>::pack(x[n][0] * upper, x[n][1] * upper);
        *(u32 *)(at + 8 * PITCH + n * 8) = Product<T>::pack(x[n][2] * lower, x[n][3] * lower);
    }
    __syncwarp();
#pragma unroll
    for (int step = 0; step < 16 * COLUMNS / WARP; ++step) {
        int i = step * WARP + lane, r = i / COLUMNS, d = i % COLUMNS * 8;
        if (first + r < limit) {
            T *row = to + (first + r) * stride;
            const T *from = stage + r * PITCH + d;
            if (p.aligned && d + 8 <= (int)p.dim) {
                *(Vec<T, 8> *)(row + d) = *(const Vec<T, 8> *)from;
            } else {
#pragma unroll
                for (int e = 0; e < 8; ++e)
                    if (d + e < (int)p.dim) row[d + e] = from[e];
            }
        }
    }
    __syncwarp();
}

DEVICE float quad_sum(float x) {
    x += __shfl_xor_sync(FULL_MASK, x, 1);
    return x + __shfl_xor_sync(FULL_MASK, x, 2);
}
DEVICE float quad_larger(float x) {
    x = larger(x, __shfl_xor_sync(FULL_MASK, x, 1));
    return larger(x, __shfl_xor_sync(FULL_MASK, x, 2));
}

// The softmax of a tile of scores with those before it: `s` becomes weights relative to the new maxima of the two rows.
DEVICE void online_softmax(float (&s)[8][4], float (&top)[2], float (&sum)[2], float (&out)[COLUMNS][4]) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
        float best = top[half];
#pragma unroll
        for (int n = 0; n < 8; ++n) best = larger(larger(best, s[n][2 * half]), s[n][2 * half + 1]);
        best = quad_larger(best);
        const float base = best == -INF_F ? 0.f : best, fix = power2(top[half] - base);
        top[half] = best;
        sum[half] *= fix;
#pragma unroll
        for (int n = 0; n < 8; ++n)
#pragma unroll
            for (int e = 2 * half; e < 2 * half + 2; ++e) {
                s[n][e] = power2(s[n][e] - base);
                sum[half] += s[n][e];
            }
#pragma unroll
        for (int n = 0; n < COLUMNS; ++n) {
            out[n][2 * half] *= fix;
            out[n][2 * half + 1] *= fix;
        }
    }
}

// out += weights (16 rows x 16 columns, given as two products' results) times 16 rows of a tile
DEVICE void accumulate(float (&out)[COLUMNS][4], const float (&x)[4], const float (&y)[4], const T *tile, int row) {
    u32 a[4], rest[4];
    left_operand(x, y, a, rest);
#pragma unroll
    for (int s = 0; s < STEPS; ++s) {
        u32 b[4];
        right_values(b, tile, row, s);
        Product<T>::add(out[2 * s], a, b[0], b[1]);
        Product<T>::add(out[2 * s + 1], a, b[2], b[3]);
        if (SPLIT) {
            Product<T>::add(out[2 * s], rest, b[0], b[1]);
            Product<T>::add(out[2 * s + 1], rest, b[2], b[3]);
        }
    }
}

extern "C" __global__ void __launch_bounds__(THREADS, RESIDENT) attention_forward(const Attention p) {
    extern __shared__ Vec<u32, 4> memory[];
    T *rows = (T *)memory, *cols = rows + TILE, *values = cols + TILE;
    const i64 block = block_index();
    if (block >= p.blocks) return;
    const int queries = (int)p.queries, keys = (int)p.keys, tiles = (queries + ROWS - 1) / ROWS;
    // The last tiles see the most keys: they come first.
    const int first = (tiles - 1 - (int)(block % tiles)) * ROWS;
    const i64 b = block / tiles / p.heads, h = block / tiles % p.heads, kv = h / (p.heads / p.kv_heads);
    const T *k = p.k + b * p.ks.batch + kv * p.ks.head, *v = p.v + b * p.vs.batch + kv * p.vs.head;
    const int lane = threadIdx.x % WARP, own = threadIdx.x / WARP * 16, row = first + own + lane / 4;
    const float factor = (float)(p.scale * LOG2E);
    const i64 mask = mask_at(p, b, h);
    const int end = visible_below(p, first + ROWS), seen[2] = {visible(p, row), visible(p, row + 8)};
    const int warp_end = first + own < queries ? visible_below(p, first + own + 16) : 0;
    load_tile(p, rows, p.q + b * p.qs.batch + h * p.qs.head, p.qs.row, first, queries);
    u32 q[STEPS][4];
    float top[2] = {-INF_F, -INF_F}, sum[2] = {0.f, 0.f}, out[COLUMNS][4];
#pragma unroll
    for (int n = 0; n < COLUMNS; ++n)
#pragma unroll
        for (int e = 0; e < 4; ++e) out[n][e] = 0.f;
    for (int at = 0; at < end; at += ROWS) {
        if (at > 0) __syncthreads();
        load_tile(p, cols, k, p.ks.row, at, keys);
        load_tile(p, values, v, p.vs.row, at, keys);
        wait_for_copies();
        __syncthreads();
        if (at == 0) {
#pragma unroll
            for (int s = 0; s < STEPS; ++s) left_rows(q[s], rows, own, s);
        }
        float s[8][4];
#pragma unroll
        for (int n = 0; n < 8; n += 2) {
#pragma unroll
            for (int e = 0; e < 4; ++e) s[n][e] = s[n + 1][e] = 0.f;
            if (at + n * 8 < warp_end) {
#pragma unroll
                for (int step = 0; step < STEPS; ++step) {
                    u32 x[4];
                    right_rows(x, cols, n * 8, step);
                    Product<T>::add(s[n], q[step], x[0], x[1]);
                    Product<T>::add(s[n + 1], q[step], x[2], x[3]);
                }
            }
        }
#pragma unroll
        for (int n = 0; n < 8; ++n)
#pragma unroll
            for (int e = 0; e < 4; ++e) {
                const int j = at + n * 8 + lane % 4 * 2 + e % 2;
                s[n][e] = j < seen[e / 2] ? score(p, s[n][e], factor, mask, row + e / 2 * 8, j) : -INF_F;
            }
        online_softmax(s, top, sum, out);
#pragma unroll
        for (int n = 0; n < 8; n += 2)
            if (at + n * 8 < warp_end) accumulate(out, s[n], s[n + 1], values, n * 8);
    }
    // Where no tile was needed, the queries may still be on their way to where the results go.
    wait_for_copies();
    __syncthreads();
    float inverse[2];
#pragma unroll
    for (int half = 0; half < 2; ++half) {
        const float total = quad_sum(sum[half]);
        const int i = row + half * 8;
        inverse[half] = total == 0.f ? 0.f : 1.f / total;
        if (lane % 4 == 0 && i < queries) p.out_lse[(b * p.heads + h) * p.queries + i] = log_sum(top[half], total);
    }
    store_rows(p, rows + own * PITCH, out, inverse[0], inverse[1], p.out[0] + b * p.outs[0].batch + h * p.outs[0].head,
               p.outs[0].row, first + own, queries);
}

// Shared memory of the backward kernel: queries, gradients of the result, keys, values; of the queries the log-sum-exp (as
// `saved_lse`) and rowsum(dO o O).
struct Tiles {
    T *q, *g, *k, *v;
    float *lse, *mean;
};

// The statistics of 64 queries; two lanes a row.
DEVICE void load_statistics(const Attention &p, const Tiles &t, i64 b, i64 h, int first) {
    const int r = threadIdx.x / 2, half = threadIdx.x % 2, i = first + r, dim = (int)p.dim;
    float sum = 0.f;
    if (i < (int)p.queries) {
        const i64 at = b * p.os.batch + h * p.os.head + i * p.os.row;
#pragma unroll
        for (int s = 0; s < STEPS; ++s) {
            const int d = (2 * s + half) * 8;
            if (p.aligned && d + 8 <= dim) {
                const Vec<T, 8> x = *(const Vec<T, 8> *)(p.o + at + d), y = *(const Vec<T, 8> *)(p.g + at + d);
#pragma unroll
                for (int e = 0; e < 8; ++e) sum += to_f32(x.at[e]) * to_f32(y.at[e]);
            } else {
                for (int e = d; e < d + 8 && e < dim; ++e) sum += to_f32(p.o[at + e]) * to_f32(p.g[at + e]);
            }
        }
    }
    sum += __shfl_xor_sync(FULL_MASK, sum, 1);
    if (half == 0) {
        t.mean[r] = sum;
        t.lse[r] = i < (int)p.queries ? saved_lse(p.lse[(b * p.heads + h) * p.queries + i]) : INF_F;
    }
}

// The left operands of a warp: its 16 rows of two tiles.
struct Left {
    const T *tile_a, *tile_b;
    int row;
#if HOLD
    u32 a[STEPS][4], b[STEPS][4];
#endif
    DEVICE void load(const T *a_from, const T *b_from, int own) {
        tile_a = a_from;
        tile_b = b_from;
        row = own;
#if HOLD
#pragma unroll
        for (int s = 0; s < STEPS; ++s) {
            left_rows(a[s], tile_a, row, s);
            left_rows(b[s], tile_b, row, s);
        }
#endif
    }
};

// Products of a warp's rows with 16 rows of the other two tiles.
DEVICE void two_products(const Left &left, const T *right_a, const T *right_b, int row, float (&s)[2][4],
                         float (&d)[2][4]) {
#pragma unroll
    for (int e = 0; e < 4; ++e) s[0][e] = s[1][e] = d[0][e] = d[1][e] = 0.f;
#pragma unroll
    for (int step = 0; step < STEPS; ++step) {
        u32 x[4];
#if HOLD
        const u32(&a)[4] = left.a[step], (&b)[4] = left.b[step];
#else
        u32 a[4], b[4];
        left_rows(a, left.tile_a, left.row, step);
        left_rows(b, left.tile_b, left.row, step);
#endif
        right_rows(x, right_a, row, step);
        Product<T>::add(s[0], a, x[0], x[1]);
        Product<T>::add(s[1], a, x[2], x[3]);
        right_rows(x, right_b, row, step);
        Product<T>::add(d[0], b, x[0], x[1]);
        Product<T>::add(d[1], b, x[2], x[3]);
    }
}

// Adds to dk and dv of a warp's 16 keys (from `j0`) what the 64 queries in shared memory (from `i0`) give.
DEVICE void add_key_gradient(const Attention &p, const Tiles &t, const Left &left, i64 mask, int i0, int j0,
                             float (&dk)[COLUMNS][4], float (&dv)[COLUMNS][4]) {
    const int lane = threadIdx.x % WARP;
    const float factor = (float)(p.scale * LOG2E);
#pragma unroll 1
    for (int c = 0; c < ROWS; c += 16) {
        if (i0 + c >= (int)p.queries || visible_below(p, i0 + c + 16) <= j0) continue;
        float s[2][4], d[2][4];
        two_products(left, t.q, t.g, c, s, d);
#pragma unroll
        for (int n = 0; n < 2; ++n)
#pragma unroll
            for (int e = 0; e < 4; ++e) {
                const int col = c + n * 8 + lane % 4 * 2 + e % 2, i = i0 + col, j = j0 + lane / 4 + e / 2 * 8;
                const float lse = t.lse[col];
                const bool seen = lse != INF_F && j < visible(p, i);
                s[n][e] = seen ? weight(score(p, s[n][e], factor, mask, i, j), lse) : 0.f;
                d[n][e] = seen ? s[n][e] * (d[n][e] - t.mean[col]) : 0.f;
            }
        accumulate(dv, s[0], s[1], t.g, c);
        accumulate(dk, d[0], d[1], t.q, c);
    }
}

// Adds to dq of a warp's 16 queries (`own` of those in shared memory, from `i0`) what the 64 keys there (from `j0`) give.
DEVICE void add_query_gradient(const Attention &p, const Tiles &t, const Left &left, i64 mask, int own, int i0, int j0,
                               float (&dq)[COLUMNS][4]) {
    const int lane = threadIdx.x % WARP, row = lane / 4;
    const float factor = (float)(p.scale * LOG2E);
    const float lse[2] = {t.lse[own + row], t.lse[own + row + 8]}, mean[2] = {t.mean[own + row], t.mean[own + row + 8]};
    const int end = i0 < (int)p.queries ? visible_below(p, i0 + 16) : 0;
    const int seen[2] = {lse[0] == INF_F ? 0 : visible(p, i0 + row), lse[1] == INF_F ? 0 : visible(p, i0 + row + 8)};
#pragma unroll 1
    for (int c = 0; c < ROWS && j0 + c < end; c += 16) {
        float s[2][4], d[2][4];
        two_products(left, t.k, t.v, c, s, d);
#pragma unroll
        for (int n = 0; n < 2; ++n)
#pragma unroll
            for (int e = 0; e < 4; ++e) {
                const int half = e / 2, i = i0 + row + half * 8, j = j0 + c + n * 8 + lane % 4 * 2 + e % 2;
                d[n][e] = j < seen[half] ? weight(score(p, s[n][e], factor, mask, i, j), lse[half]) *
                                               (d[n][e] - mean[half])
                                         : 0.f;
            }
        accumulate(dq, d[0], d[1], t.k, c);
    }
}

DEVICE void clear(float (&x)[COLUMNS][4]) {
#pragma unroll
    for (int n = 0; n < COLUMNS; ++n)
#pragma unroll
        for (int e = 0; e < 4; ++e) x[n][e] = 0.f;
}

DEVICE void load_queries(const Attention &p, const Tiles &t, i64 b, i64 h, int first) {
    load_tile(p, t.q, p.q + b * p.qs.batch + h * p.qs.head, p.qs.row, first, (int)p.queries);
    load_tile(p, t.g, p.g + b * p.os.batch + h * p.os.head, p.os.row, first, (int)p.queries);
}
DEVICE void load_keys(const Attention &p, const Tiles &t, i64 b, i64 kv, int first) {
    load_tile(p, t.k, p.k + b * p.ks.batch + kv * p.ks.head, p.ks.row, first, (int)p.keys);
    load_tile(p, t.v, p.v + b * p.vs.batch + kv * p.vs.head, p.vs.row, first, (int)p.keys);
}
DEVICE void store_queries(const Attention &p, T *stage, i64 b, i64 h, int first, const float (&dq)[COLUMNS][4]) {
    const float scale = (float)p.scale;
    store_rows(p, stage, dq, scale, scale, p.out[0] + b * p.outs[0].batch + h * p.outs[0].head, p.outs[0].row, first,
               (int)p.queries);
}
DEVICE void store_keys(const Attention &p, T *stage, i64 b, i64 kv, int first, const float (&dk)[COLUMNS][4],
                       const float (&dv)[COLUMNS][4]) {
    const float scale = (float)p.scale;
    store_rows(p, stage, dk, scale, scale, p.out[1] + b * p.outs[1].batch + kv * p.outs[1].head, p.outs[1].row, first,
               (int)p.keys);
    store_rows(p, stage, dv, 1.f, 1.f, p.out[2] + b * p.outs[2].batch + kv * p.outs[2].head, p.outs[2].row, first,
               (int)p.keys);
}

DEVICE Tiles tiles_of(void *memory) {
    T *m = (T *)memory;
    float *f = (float *)(m + 4 * TILE);
    Tiles t = {m, m + TILE, m + 2 * TILE, m + 3 * TILE, f, f + ROWS};
    return t;
}

// dk and dv of 64 keys, summed over the query heads that share them.
DEVICE void key_gradient(const Attention &p, const Tiles &t, i64 b, i64 kv, int first) {
    const i64 group = p.heads / p.kv_heads;
    const int own = threadIdx.x / WARP * 16, queries = (int)p.queries;
    float dk[COLUMNS][4], dv[COLUMNS][4];
    Left left;
    clear(dk);
    clear(dv);
    load_keys(p, t, b, kv, first);
    wait_for_copies();
    __syncthreads();
    left.load(t.k, t.v, own);
    for (i64 h = kv * group; h < (kv + 1) * group; ++h)
        for (int at = first_query(p, first) / ROWS * ROWS; at < queries; at += ROWS) {
            __syncthreads();
            load_queries(p, t, b, h, at);
            load_statistics(p, t, b, h, at);
            wait_for_copies();
            __syncthreads();
            add_key_gradient(p, t, left, mask_at(p, b, h), at, first + own, dk, dv);
        }
    // Only this warp reads these 16 rows.
    store_keys(p, t.k + own * PITCH, b, kv, first + own, dk, dv);
}

// dq of 64 queries of one head.
DEVICE void query_gradient(const Attention &p, const Tiles &t, i64 b, i64 h, int first) {
    const int own = threadIdx.x / WARP * 16, end = visible_below(p, first + ROWS);
    float dq[COLUMNS][4];
    Left left;
    clear(dq);
    load_queries(p, t, b, h, first);
    load_statistics(p, t, b, h, first);
    wait_for_copies();
    __syncthreads();
    left.load(t.q, t.g, own);
    for (int at = 0; at < end; at += ROWS) {
        if (at > 0) __syncthreads();
        load_keys(p, t, b, h / (p.heads / p.kv_heads), at);
        wait_for_copies();
        __syncthreads();
        add_query_gradient(p, t, left, mask_at(p, b, h), own, first + own, at, dq);
    }
    store_queries(p, t.q + own * PITCH, b, h, first + own, dq);
}

// Blocks of keys (they have more to do) come before blocks of queries.
extern "C" __global__ void __launch_bounds__(THREADS, RESIDENT) attention_backward(const Attention p) {
    extern __shared__ Vec<u32, 4> memory[];
    const Tiles t = tiles_of(memory);
    i64 block = block_index();
    if (block >= p.blocks) return;
    const i64 key_tiles = ((int)p.keys + ROWS - 1) / ROWS, query_tiles = ((int)p.queries + ROWS - 1) / ROWS;
    const i64 of_keys = p.batch * p.kv_heads * key_tiles;
    if (block < of_keys) {
        i64 head = block / key_tiles;
        key_gradient(p, t, head / p.kv_heads, head % p.kv_heads, (int)(block % key_tiles) * ROWS);
    } else {
        block -= of_keys;
        i64 head = block / query_tiles, tile = query_tiles - 1 - block % query_tiles;
        query_gradient(p, t, head / p.heads, head % p.heads, (int)tile * ROWS);
    }
}

#if HEAD <= 64
// All gradients of a head with at most 64 queries and keys of its own: everything is read once.
extern "C" __global__ void __launch_bounds__(THREADS, RESIDENT) attention_backward_short(const Attention p) {
    extern __shared__ Vec<u32, 4> memory[];
    const Tiles t = tiles_of(memory);
    const i64 block = block_index();
    if (block >= p.blocks) return;
    const i64 b = block / p.heads, h = block % p.heads, mask = mask_at(p, b, h);
    const int own = threadIdx.x / WARP * 16;
    float dq[COLUMNS][4], dk[COLUMNS][4], dv[COLUMNS][4];
    clear(dq);
    clear(dk);
    clear(dv);
    load_queries(p, t, b, h, 0);
    load_keys(p, t, b, h, 0);
    load_statistics(p, t, b, h, 0);
    wait_for_copies();
    __syncthreads();
    {
        Left left;
        left.load(t.k, t.v, own);
        add_key_gradient(p, t, left, mask, 0, own, dk, dv);
        left.load(t.q, t.g, own);
        add_query_gradient(p, t, left, mask, own, own, 0, dq);
    }
    __syncthreads();
    store_keys(p, t.k + own * PITCH, b, h, own, dk, dv);
    store_queries(p, t.q + own * PITCH, b, h, own, dq);
}
#endif

#endif
