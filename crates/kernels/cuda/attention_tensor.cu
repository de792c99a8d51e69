// Attention of f16 and bf16 on tensor cores (mma.sync m16n8k16, sm_80 and later), for heads of up to 128 elements.
//
// A block of four warps owns 64 rows (queries for the result and dq, keys for dk and dv), or FOLD times as many, a warp a
// quarter of them, and walks over the others in tiles of 64, so that every result has one writer and sums have one order.
// With STAGES 2 a tile is on its way while the one before is worked on. What a product leaves in registers (weights,
// gradients of scores) is laid out as the next product's left operand wants it, so no score ever goes to memory; the
// operands come from shared memory by ldmatrix, transposed on the way where needed. Rows are padded by 16 bytes, so that
// eight of them lie in different banks.
//
// A weight or gradient of a score is split into its rounded value and what rounding took away, and both are multiplied
// (SPLIT): these products are then nearly as exact as in f32, as on the other paths. Without it results miss the ops'
// tolerances by factors of 2 to 20 and take 3 to 14% less time, as other things than products hold these kernels.
#if TIER >= 80

#define ROWS 64
#define THREADS 128
#define PITCH (HEAD + 8)
#define TILE (ROWS * PITCH)
#define STEPS (HEAD / 16)
#define COLUMNS (HEAD / 8)
#ifndef SPLIT
#define SPLIT 1
#endif
#ifndef FOLD
#define FOLD 1
#endif
#ifndef STAGES
#define STAGES 1
#endif
// Whether a warp's left operands stay in registers.
#define HOLD (HEAD <= 64)
// Blocks that a multiprocessor must have registers for, as measured on an H200: forward, backward, and in one go.
#ifndef FORWARD_RESIDENT
#define FORWARD_RESIDENT (HEAD <= 32 ? (MASKED ? 4 : 6) : HEAD <= 64 ? 3 : 2)
#endif
#ifndef SHORT_FORWARD_RESIDENT
#define SHORT_FORWARD_RESIDENT (HEAD <= 32 ? 8 : 5)
#endif
#ifndef BACKWARD_RESIDENT
#define BACKWARD_RESIDENT (HEAD <= 32 ? 4 : HEAD <= 64 ? 3 : 2)
#endif
#define SHORT_RESIDENT (HEAD <= 32 ? 4 : 2)

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

// COUNT rows of a head on their way into shared memory, zeros below `limit` and beyond `dim`; `wait_for_copies` and a
// barrier must follow.
template <int COUNT> DEVICE void load_tile(const Attention &p, T *to, const T *from, i64 stride, int first, int limit) {
    const int EACH = THREADS / COLUMNS, d = threadIdx.x % COLUMNS * 8, dim = (int)p.dim;
    const int own = threadIdx.x / COLUMNS, left = limit - first - own;
    const T *row = from + (first + own) * stride + d;
    const i64 step = EACH * stride;
    T *place = to + own * PITCH + d;
    if (together(p, d, 8)) {
#pragma unroll
        for (int r = 0; r < COUNT; r += EACH) {
            u32 shared = (u32)__cvta_generic_to_shared(place + r * PITCH);
            asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared), "l"(r < left ? row : from),
                         "r"(r < left ? 16 : 0) : "memory");
            row += step;
        }
        return;
    }
#pragma unroll 1
    for (int r = 0; r < COUNT; r += EACH) {
        Vec<T, 8> x;
#pragma unroll
        for (int e = 0; e < 8; ++e) {
            x.at[e].bits = 0;
            if (r < left && d + e < dim) x.at[e] = row[e];
        }
        *(Vec<T, 8> *)(place + r * PITCH) = x;
        row += step;
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
            if (together(p, d, 8)) {
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
// `unit` takes scores and maxima to units of log 2.
DEVICE void online_softmax(float (&s)[8][4], float (&top)[2], float (&sum)[2], float (&out)[COLUMNS][4], float unit) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
        float best = top[half];
#pragma unroll
        for (int n = 0; n < 8; ++n) best = larger(larger(best, s[n][2 * half]), s[n][2 * half + 1]);
        best = quad_larger(best);
        const float base = best == -INF_F ? 0.f : best * unit, fix = power2(top[half] * unit - base);
        top[half] = best;
        sum[half] *= fix;
#pragma unroll
        for (int n = 0; n < 8; ++n)
#pragma unroll
            for (int e = 2 * half; e < 2 * half + 2; ++e) {
                s[n][e] = power2(fmaf(s[n][e], unit, -base));
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

// out += weights times 16 rows of a tile, for all rows of a warp
DEVICE void accumulate_all(float (&out)[FOLD][COLUMNS][4], const float (&s)[FOLD][8][4], int n, const T *tile) {
    u32 a[FOLD][4], rest[FOLD][4];
#pragma unroll
    for (int m = 0; m < FOLD; ++m) left_operand(s[m][n], s[m][n + 1], a[m], rest[m]);
#pragma unroll
    for (int step = 0; step < STEPS; ++step) {
        u32 b[4];
        right_values(b, tile, n * 8, step);
#pragma unroll
        for (int m = 0; m < FOLD; ++m) {
            Product<T>::add(out[m][2 * step], a[m], b[0], b[1]);
            Product<T>::add(out[m][2 * step + 1], a[m], b[2], b[3]);
            if (SPLIT) {
                Product<T>::add(out[m][2 * step], rest[m], b[0], b[1]);
                Product<T>::add(out[m][2 * step + 1], rest[m], b[2], b[3]);
            }
        }
    }
}

// Scores of COUNT groups of 8 keys from `at` on that a row does not see become -inf; with MASKED also scaled and masked. Where
// every row of the warp sees every key, it is needed only with MASKED.
template <int COUNT> DEVICE void hide(const Attention &p, float (*s)[4], int row, int at, i64 mask) {
    const int lane = threadIdx.x % WARP, seen[2] = {visible(p, row), visible(p, row + 8)};
    const float factor = (float)(p.scale * LOG2E);
#pragma unroll
    for (int n = 0; n < COUNT; ++n)
#pragma unroll
        for (int e = 0; e < 4; ++e) {
            const int j = at + n * 8 + lane % 4 * 2 + e % 2;
            if (MASKED)
                s[n][e] = j < seen[e / 2] ? score(p, s[n][e], factor, mask, row + e / 2 * 8, j) : -INF_F;
            else
                s[n][e] = j < seen[e / 2] ? s[n][e] : -INF_F;
        }
}

DEVICE void clear(float (&x)[COLUMNS][4]) {
#pragma unroll
    for (int n = 0; n < COLUMNS; ++n)
#pragma unroll
        for (int e = 0; e < 4; ++e) x[n][e] = 0.f;
}
// What a warp works on in the forward pass: its queries (`own` of those in shared memory at `rows`) of one head.
struct Queries {
    i64 b, h, mask;
    T *rows;
    int own, row;       // in the tile; a lane's first one, of all
    int end, all_see;   // keys that some query of the warp sees, and that all do
    Coins coins;
    float top[FOLD][2], sum[FOLD][2], out[FOLD][COLUMNS][4];
#if HOLD
    u32 held[STEPS][FOLD][4];
#endif

    DEVICE void begin(const Attention &p, T *tile, i64 batch, i64 head, int first, int warp) {
        b = batch, h = head, mask = mask_at(p, b, h), rows = tile, own = warp * 16 * FOLD;
        const int from = first + own, keys = (int)p.keys, queries = (int)p.queries;
        row = from + threadIdx.x % WARP / 4;
        end = from < queries ? visible_below(p, from + 16 * FOLD) : 0;
        all_see = p.causal ? from + 1 + keys - queries : keys;
        coins = coins_of(p, b, h);
#pragma unroll
        for (int m = 0; m < FOLD; ++m) {
            top[m][0] = top[m][1] = -INF_F;
            sum[m][0] = sum[m][1] = 0.f;
            clear(out[m]);
        }
    }

    // The queries have arrived.
    DEVICE void hold() {
#if HOLD
#pragma unroll
        for (int step = 0; step < STEPS; ++step)
#pragma unroll
            for (int m = 0; m < FOLD; ++m) left_rows(held[step][m], rows, own + m * 16, step);
#endif
    }

    // Adds a tile of 64 keys and values, the first of them `at`.
    DEVICE void add(const Attention &p, const T *keys, const T *values, int at) {
        float s[FOLD][8][4];
#pragma unroll
        for (int m = 0; m < FOLD; ++m)
#pragma unroll
            for (int n = 0; n < 8; ++n)
#pragma unroll
                for (int e = 0; e < 4; ++e) s[m][n][e] = 0.f;
#pragma unroll
        for (int step = 0; step < STEPS; ++step) {
#if HOLD
            const u32(&a)[FOLD][4] = held[step];
#else
            u32 a[FOLD][4];
#pragma unroll
            for (int m = 0; m < FOLD; ++m) left_rows(a[m], rows, own + m * 16, step);
#endif
#pragma unroll
            for (int n = 0; n < 8; n += 2)
                if (at + n * 8 < end) {
                    u32 x[4];
                    right_rows(x, keys, n * 8, step);
#pragma unroll
                    for (int m = 0; m < FOLD; ++m) {
                        Product<T>::add(s[m][n], a[m], x[0], x[1]);
                        Product<T>::add(s[m][n + 1], a[m], x[2], x[3]);
                    }
                }
        }
#pragma unroll
        for (int m = 0; m < FOLD; ++m) {
            if (MASKED || at + ROWS > all_see) hide<8>(p, s[m], row + m * 16, at, mask);
            online_softmax(s[m], top[m], sum[m], out[m], unit(p));
        }
#pragma unroll
        for (int n = 0; n < 8; n += 2)
            if (at + n * 8 < end) {
#pragma unroll
                for (int m = 0; m < FOLD; ++m) drop(s[m][n], s[m][n + 1], row + m * 16, at + n * 8);
                accumulate_all(out, s, n, values);
            }
    }

#if HOLD
    // As `add`, of all keys there are: nothing is scaled again, and what causality hides is skipped 16 keys at a time.
    DEVICE void add_all(const Attention &p, const T *keys, const T *values) {
        float s[FOLD][8][4], base[2];
#pragma unroll
        for (int n = 0; n < 8; n += 2)
            if (n * 8 < end) {
#pragma unroll
                for (int e = 0; e < 4; ++e) s[0][n][e] = s[0][n + 1][e] = 0.f;
#pragma unroll
                for (int step = 0; step < STEPS; ++step) {
                    u32 x[4];
                    right_rows(x, keys, n * 8, step);
                    Product<T>::add(s[0][n], held[step][0], x[0], x[1]);
                    Product<T>::add(s[0][n + 1], held[step][0], x[2], x[3]);
                }
                if (MASKED || n * 8 + 16 > all_see) hide<2>(p, s[0] + n, row, n * 8, mask);
#pragma unroll
                for (int e = 0; e < 4; ++e) top[0][e / 2] = larger(larger(top[0][e / 2], s[0][n][e]), s[0][n + 1][e]);
            }
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            top[0][half] = quad_larger(top[0][half]);
            base[half] = top[0][half] == -INF_F ? 0.f : top[0][half] * unit(p);
        }
#pragma unroll
        for (int n = 0; n < 8; n += 2)
            if (n * 8 < end) {
#pragma unroll
                for (int m = n; m < n + 2; ++m)
#pragma unroll
                    for (int e = 0; e < 4; ++e) {
                        s[0][m][e] = power2(fmaf(s[0][m][e], unit(p), -base[e / 2]));
                        sum[0][e / 2] += s[0][m][e];
                    }
                drop(s[0][n], s[0][n + 1], row, n * 8);
                accumulate_all(out, s, n, values);
            }
    }
#endif

    // Dropout of weights of 16 keys from `at` on.
    DEVICE void drop(float (&x)[4], float (&y)[4], int query, int at) {
        if (!DROP) return;
        bool kept[2][4];
        const int col = at + threadIdx.x % 4 * 2;
        find_kept<false, 0>(coins, kept, query, col, col + 1);
#pragma unroll
        for (int e = 0; e < 4; ++e) {
            x[e] = kept[0][e] ? x[e] : 0.f;
            y[e] = kept[1][e] ? y[e] : 0.f;
        }
    }

    static DEVICE float unit(const Attention &p) { return MASKED ? 1.f : (float)(p.scale * LOG2E); }

    // The results, divided by the sums, by way of where the queries were, and their log-sum-exps.
    DEVICE void store(const Attention &p) {
        const int lane = threadIdx.x % WARP, queries = (int)p.queries;
        T *to = p.out[0] + b * p.outs[0].batch + h * p.outs[0].head;
#pragma unroll
        for (int m = 0; m < FOLD; ++m) {
            float inverse[2];
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                const float total = quad_sum(sum[m][half]);
                const int i = row + m * 16 + half * 8;
                inverse[half] = total == 0.f ? 0.f : left_factor(p) / total;
                if (lane % 4 == 0 && i < queries)
                    p.out_lse[(b * p.heads + h) * p.queries + i] = log_sum(top[m][half] * unit(p), total);
            }
            store_rows(p, rows + (own + m * 16) * PITCH, out[m], inverse[0], inverse[1], to, p.outs[0].row,
                       row - lane / 4 + m * 16, queries);
        }
    }
};

extern "C" __global__ void __launch_bounds__(THREADS, FORWARD_RESIDENT) attention_forward(const Attention p) {
    extern __shared__ Vec<u32, 4> memory[];
    T *rows = (T *)memory, *tiles_at = rows + FOLD * TILE;
    const i64 block = block_index();
    if (block >= p.blocks) return;
    const int queries = (int)p.queries, keys = (int)p.keys, tiles = (queries + FOLD * ROWS - 1) / (FOLD * ROWS);
    // The last tiles see the most keys: they come first.
    const int first = (tiles - 1 - (int)remainder(block, tiles)) * FOLD * ROWS;
    const i64 head = quotient(block, tiles);
    const i64 b = quotient(head, p.heads), h = remainder(head, p.heads), kv = kv_head(p, h);
    const T *k = p.k + b * p.ks.batch + kv * p.ks.head, *v = p.v + b * p.vs.batch + kv * p.vs.head;
    const int end = visible_below(p, first + FOLD * ROWS);
    load_tile<FOLD * ROWS>(p, rows, p.q + b * p.qs.batch + h * p.qs.head, p.qs.row, first, queries);
    load_tile<ROWS>(p, tiles_at, k, p.ks.row, 0, keys);
    load_tile<ROWS>(p, tiles_at + TILE, v, p.vs.row, 0, keys);
    Queries q;
    q.begin(p, rows, b, h, first, threadIdx.x / WARP);
    for (int at = 0; at < end; at += ROWS) {
        const T *cols = tiles_at + (STAGES == 2 ? at / ROWS % 2 * 2 * TILE : 0);
        if (STAGES == 1 && at > 0) {
            __syncthreads();
            load_tile<ROWS>(p, tiles_at, k, p.ks.row, at, keys);
            load_tile<ROWS>(p, tiles_at + TILE, v, p.vs.row, at, keys);
        }
        wait_for_copies();
        __syncthreads();
        if (STAGES == 2 && at + ROWS < end) {
            T *next = tiles_at + (at / ROWS + 1) % 2 * 2 * TILE;
            load_tile<ROWS>(p, next, k, p.ks.row, at + ROWS, keys);
            load_tile<ROWS>(p, next + TILE, v, p.vs.row, at + ROWS, keys);
        }
        if (at == 0) q.hold();
        if (at < q.end) q.add(p, cols, cols + TILE, at);
    }
    // Where no tile was needed, the queries may still be on their way to where the results go.
    wait_for_copies();
    __syncthreads();
    q.store(p);
}

#if HEAD <= 64
// The result of a head with at most 64 queries and keys: a block for each, and one pass of the softmax.
extern "C" __global__ void __launch_bounds__(THREADS, SHORT_FORWARD_RESIDENT) attention_forward_short(const Attention p) {
    extern __shared__ Vec<u32, 4> memory[];
    T *rows = (T *)memory, *cols = rows + TILE, *values = cols + TILE;
    const i64 h = blockIdx.x, b = blockIdx.y, kv = kv_head(p, h);
    load_tile<ROWS>(p, rows, p.q + b * p.qs.batch + h * p.qs.head, p.qs.row, 0, (int)p.queries);
    load_tile<ROWS>(p, cols, p.k + b * p.ks.batch + kv * p.ks.head, p.ks.row, 0, (int)p.keys);
    load_tile<ROWS>(p, values, p.v + b * p.vs.batch + kv * p.vs.head, p.vs.row, 0, (int)p.keys);
    Queries q;
    q.begin(p, rows, b, h, 0, threadIdx.x / WARP);
    wait_for_copies();
    __syncthreads();
    q.hold();
    q.add_all(p, cols, values);
    q.store(p);
}
#endif

// Shared memory of the backward kernel: queries, gradients of the result, keys, values; of the queries the log-sum-exp (as
// `saved_lse`) and rowsum(dO o O).
struct Tiles {
    T *q, *g, *k, *v;
    float *lse, *mean;
};

// rowsum(dO o O) of a query; two lanes a row, which both get it.
DEVICE float weighted_mean(const Attention &p, i64 at, int half, bool there) {
    const int dim = (int)p.dim;
    float sum = 0.f;
    if (there) {
#pragma unroll
        for (int s = 0; s < STEPS; ++s) {
            const int d = (2 * s + half) * 8;
            if (together(p, d, 8)) {
                const Vec<T, 8> x = *(const Vec<T, 8> *)(p.o + at + d), y = *(const Vec<T, 8> *)(p.g + at + d);
#pragma unroll
                for (int e = 0; e < 8; ++e) sum += to_f32(x.at[e]) * to_f32(y.at[e]);
            } else {
                for (int e = d; e < d + 8 && e < dim; ++e) sum += to_f32(p.o[at + e]) * to_f32(p.g[at + e]);
            }
        }
    }
    return sum + __shfl_xor_sync(FULL_MASK, sum, 1);
}

// The statistics of 64 queries of a head, from the operands.
DEVICE void find_statistics(const Attention &p, const Tiles &t, i64 b, i64 h, int first) {
    const int r = threadIdx.x / 2, half = threadIdx.x % 2, i = first + r;
    const bool there = i < (int)p.queries;
    const float mean = weighted_mean(p, b * p.os.batch + h * p.os.head + i * p.os.row, half, there);
    if (half == 0) {
        t.mean[r] = mean;
        t.lse[r] = there ? saved_lse(p.lse[(b * p.heads + h) * p.queries + i]) : INF_F;
    }
}

// The statistics of all queries into `parts`, which the blocks of the backward kernel then share: first the log-sum-exps,
// then the sums.
extern "C" __global__ void __launch_bounds__(THREADS) attention_statistics(const Attention p) {
    const i64 all = p.batch * p.heads * p.queries;
    const i64 at = block_index() * (THREADS / 2) + threadIdx.x / 2;
    const bool there = at < all;
    const i64 i = remainder(at, p.queries), head = quotient(at, p.queries);
    const i64 b = quotient(head, p.heads), h = remainder(head, p.heads);
    const float mean = weighted_mean(p, b * p.os.batch + h * p.os.head + i * p.os.row, threadIdx.x % 2, there);
    if (there && threadIdx.x % 2 == 0) {
        p.parts[at] = saved_lse(p.lse[at]);
        p.parts[all + at] = mean;
    }
}

// The statistics of 64 queries of a head from `parts`, on their way into shared memory; what is beyond the queries is not
// written, and nothing reads it.
DEVICE void copy_statistics(const Attention &p, const Tiles &t, i64 b, i64 h, int first) {
    const i64 all = p.batch * p.heads * p.queries;
    const int r = threadIdx.x % ROWS, which = threadIdx.x / ROWS;
    if (first + r < (int)p.queries) {
        const float *from = p.parts + which * all + (b * p.heads + h) * p.queries + first + r;
        const u32 shared = (u32)__cvta_generic_to_shared((which ? t.mean : t.lse) + r);
        asm volatile("cp.async.ca.shared.global [%0], [%1], 4;" ::"r"(shared), "l"(from) : "memory");
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
DEVICE void add_key_gradient(const Attention &p, const Tiles &t, const Left &left, i64 mask, const Coins &coins, int i0,
                             int j0, float (&dk)[COLUMNS][4], float (&dv)[COLUMNS][4]) {
    const int lane = threadIdx.x % WARP;
    const float factor = (float)(p.scale * LOG2E);
#pragma unroll 1
    for (int c = 0; c < ROWS; c += 16) {
        if (i0 + c >= (int)p.queries || visible_below(p, i0 + c + 16) <= j0) continue;
        float s[2][4], d[2][4];
        two_products(left, t.q, t.g, c, s, d);
        const bool all_see = !MASKED && i0 + c + 16 <= (int)p.queries && j0 + 16 <= visible(p, i0 + c);
        const int query = i0 + c + lane % 4 * 2;
        bool kept[2][4];
        find_kept<true, 4>(coins, kept, j0 + lane / 4, query, query + 1);
#pragma unroll
        for (int n = 0; n < 2; ++n)
#pragma unroll
            for (int e = 0; e < 4; ++e) {
                const int col = c + n * 8 + lane % 4 * 2 + e % 2, i = i0 + col, j = j0 + lane / 4 + e / 2 * 8;
                const float lse = t.lse[col];
                const bool seen = all_see || (j < visible(p, i) && lse != INF_F);
                s[n][e] = seen ? weight(score(p, s[n][e], factor, mask, i, j), lse) : 0.f;
                d[n][e] = seen ? s[n][e] * (left_of(p, d[n][e], kept[n][e]) - t.mean[col]) : 0.f;
                s[n][e] = kept[n][e] ? s[n][e] : 0.f;
            }
        accumulate(dv, s[0], s[1], t.g, c);
        accumulate(dk, d[0], d[1], t.q, c);
    }
}

// Adds to dq of a warp's 16 queries (`own` of those in shared memory, from `i0`) what the 64 keys there (from `j0`) give.
DEVICE void add_query_gradient(const Attention &p, const Tiles &t, const Left &left, i64 mask, const Coins &coins, int own,
                               int i0, int j0, float (&dq)[COLUMNS][4]) {
    const int lane = threadIdx.x % WARP, row = lane / 4;
    const float factor = (float)(p.scale * LOG2E);
    const float lse[2] = {t.lse[own + row], t.lse[own + row + 8]}, mean[2] = {t.mean[own + row], t.mean[own + row + 8]};
    const int end = i0 < (int)p.queries ? visible_below(p, i0 + 16) : 0;
    // What all queries of the warp see; those there are not have no result.
    const int least_seen = visible(p, i0);
    const int seen[2] = {lse[0] == INF_F ? 0 : visible(p, i0 + row), lse[1] == INF_F ? 0 : visible(p, i0 + row + 8)};
#pragma unroll 1
    for (int c = 0; c < ROWS && j0 + c < end; c += 16) {
        float s[2][4], d[2][4];
        two_products(left, t.k, t.v, c, s, d);
        const bool all_see = !MASKED && j0 + c + 16 <= least_seen;
        const int key = j0 + c + lane % 4 * 2;
        bool kept[2][4];
        find_kept<false, 0>(coins, kept, i0 + row, key, key + 1);
#pragma unroll
        for (int n = 0; n < 2; ++n)
#pragma unroll
            for (int e = 0; e < 4; ++e) {
                const int half = e / 2, i = i0 + row + half * 8, j = j0 + c + n * 8 + lane % 4 * 2 + e % 2;
                const float w = weight(score(p, s[n][e], factor, mask, i, j), lse[half]);
                d[n][e] = all_see || j < seen[half] ? w * (left_of(p, d[n][e], kept[n][e]) - mean[half]) : 0.f;
            }
        accumulate(dq, d[0], d[1], t.k, c);
    }
}

DEVICE void load_queries(const Attention &p, const Tiles &t, i64 b, i64 h, int first) {
    load_tile<ROWS>(p, t.q, p.q + b * p.qs.batch + h * p.qs.head, p.qs.row, first, (int)p.queries);
    load_tile<ROWS>(p, t.g, p.g + b * p.os.batch + h * p.os.head, p.os.row, first, (int)p.queries);
}
DEVICE void load_keys(const Attention &p, const Tiles &t, i64 b, i64 kv, int first) {
    load_tile<ROWS>(p, t.k, p.k + b * p.ks.batch + kv * p.ks.head, p.ks.row, first, (int)p.keys);
    load_tile<ROWS>(p, t.v, p.v + b * p.vs.batch + kv * p.vs.head, p.vs.row, first, (int)p.keys);
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
    const float left = left_factor(p);
    store_rows(p, stage, dv, left, left, p.out[2] + b * p.outs[2].batch + kv * p.outs[2].head, p.outs[2].row, first,
               (int)p.keys);
}

// Tiles of queries and of keys in shared memory; with STAGES 2, the ones that are walked over have two places.
DEVICE Tiles tiles_of(void *memory, bool walks_queries, int stage) {
    T *m = (T *)memory;
    float *f = (float *)(m + (2 + 2 * STAGES) * TILE) + stage * 2 * ROWS;
    T *own = m, *other = m + (2 + 2 * stage) * TILE, *q = walks_queries ? other : own, *k = walks_queries ? own : other;
    if (!walks_queries) f -= stage * 2 * ROWS;
    Tiles t = {q, q + TILE, k, k + TILE, f, f + ROWS};
    return t;
}

// dk and dv of 64 keys, summed over the query heads that share them.
DEVICE void key_gradient(const Attention &p, void *memory, i64 b, i64 kv, int first) {
    const i64 group = group_of(p);
    const int own = threadIdx.x / WARP * 16, queries = (int)p.queries, from = first_query(p, first) / ROWS * ROWS;
    // Tiles of queries, of all heads one after the other.
    const int each = queries > from ? (queries - from + ROWS - 1) / ROWS : 0, steps = (int)group * each;
    const Tiles mine = tiles_of(memory, true, 0);
    float dk[COLUMNS][4], dv[COLUMNS][4];
    Left left;
    clear(dk);
    clear(dv);
    load_keys(p, mine, b, kv, first);
    if (steps > 0) {
        load_queries(p, mine, b, kv * group, from);
        copy_statistics(p, mine, b, kv * group, from);
    }
    for (int step = 0; step < steps; ++step) {
        const i64 h = kv * group + step / each;
        const int at = from + step % each * ROWS;
        const Tiles t = tiles_of(memory, true, STAGES == 2 ? step % 2 : 0);
        if (STAGES == 1 && step > 0) {
            __syncthreads();
            load_queries(p, t, b, h, at);
            copy_statistics(p, t, b, h, at);
        }
        wait_for_copies();
        __syncthreads();
        if (step == 0) left.load(t.k, t.v, own);
        if (STAGES == 2 && step + 1 < steps) {
            const Tiles next = tiles_of(memory, true, (step + 1) % 2);
            const i64 next_h = kv * group + (step + 1) / each;
            const int next_at = from + (step + 1) % each * ROWS;
            load_queries(p, next, b, next_h, next_at);
            copy_statistics(p, next, b, next_h, next_at);
        }
        add_key_gradient(p, t, left, mask_at(p, b, h), coins_of(p, b, h), at, first + own, dk, dv);
    }
    // Without a step, the keys may still be on their way. Other warps may read these 16 rows no more.
    wait_for_copies();
    __syncthreads();
    store_keys(p, mine.k + own * PITCH, b, kv, first + own, dk, dv);
}

// dq of 64 queries of one head.
DEVICE void query_gradient(const Attention &p, void *memory, i64 b, i64 h, int first) {
    const int own = threadIdx.x / WARP * 16, end = visible_below(p, first + ROWS);
    const i64 kv = kv_head(p, h);
    const Tiles mine = tiles_of(memory, false, 0);
    float dq[COLUMNS][4];
    Left left;
    clear(dq);
    load_queries(p, mine, b, h, first);
    copy_statistics(p, mine, b, h, first);
    if (end > 0) load_keys(p, mine, b, kv, 0);
    for (int at = 0; at < end; at += ROWS) {
        const Tiles t = tiles_of(memory, false, STAGES == 2 ? at / ROWS % 2 : 0);
        if (STAGES == 1 && at > 0) {
            __syncthreads();
            load_keys(p, t, b, kv, at);
        }
        wait_for_copies();
        __syncthreads();
        if (at == 0) left.load(t.q, t.g, own);
        if (STAGES == 2 && at + ROWS < end)
            load_keys(p, tiles_of(memory, false, (at / ROWS + 1) % 2), b, kv, at + ROWS);
        add_query_gradient(p, t, left, mask_at(p, b, h), coins_of(p, b, h), own, first + own, at, dq);
    }
    wait_for_copies();
    __syncthreads();
    store_queries(p, mine.q + own * PITCH, b, h, first + own, dq);
}

// Blocks of keys (they have more to do) come before blocks of queries.
extern "C" __global__ void __launch_bounds__(THREADS, BACKWARD_RESIDENT) attention_backward(const Attention p) {
    extern __shared__ Vec<u32, 4> memory[];
    i64 block = block_index();
    if (block >= p.blocks) return;
    const i64 key_tiles = ((int)p.keys + ROWS - 1) / ROWS, query_tiles = ((int)p.queries + ROWS - 1) / ROWS;
    const i64 of_keys = p.batch * p.kv_heads * key_tiles;
    if (block < of_keys) {
        i64 head = quotient(block, key_tiles);
        const int tile = (int)remainder(block, key_tiles);
        key_gradient(p, memory, quotient(head, p.kv_heads), remainder(head, p.kv_heads), tile * ROWS);
    } else {
        block -= of_keys;
        i64 head = quotient(block, query_tiles), tile = query_tiles - 1 - remainder(block, query_tiles);
        query_gradient(p, memory, quotient(head, p.heads), remainder(head, p.heads), (int)tile * ROWS);
    }
}

#if HEAD <= 64
// All gradients of a head with at most 64 queries and keys of its own: everything is read once.
extern "C" __global__ void __launch_bounds__(THREADS, SHORT_RESIDENT) attention_backward_short(const Attention p) {
    extern __shared__ Vec<u32, 4> memory[];
    const Tiles t = tiles_of(memory, true, 0);
    const i64 block = block_index();
    if (block >= p.blocks) return;
    const i64 b = quotient(block, p.heads), h = remainder(block, p.heads), mask = mask_at(p, b, h);
    const Coins coins = coins_of(p, b, h);
    const int own = threadIdx.x / WARP * 16;
    float dq[COLUMNS][4], dk[COLUMNS][4], dv[COLUMNS][4];
    clear(dq);
    clear(dk);
    clear(dv);
    load_queries(p, t, b, h, 0);
    load_keys(p, t, b, h, 0);
    find_statistics(p, t, b, h, 0);
    wait_for_copies();
    __syncthreads();
    {
        Left left;
        left.load(t.k, t.v, own);
        add_key_gradient(p, t, left, mask, coins, 0, own, dk, dv);
        left.load(t.q, t.g, own);
        add_query_gradient(p, t, left, mask, coins, own, own, 0, dq);
    }
    __syncthreads();
    store_keys(p, t.k + own * PITCH, b, h, own, dk, dv);
    store_queries(p, t.q + own * PITCH, b, h, own, dq);
}
#endif

#endif
