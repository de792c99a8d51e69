// The forward pass of attention on tensor cores; see attention_tensor.cuh.
#if TIER >= 80

#ifndef FOLD
#define FOLD 1
#endif
// Blocks that a multiprocessor must have registers for, as measured on an H200.
#define RESIDENT (HEAD <= 32 ? (MASKED ? 4 : 6) : HEAD <= 64 ? (MASKED ? 3 : 4) : 2)
#define SHORT_RESIDENT (MASKED ? 4 : HEAD <= 32 ? 8 : 5)

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
        T *to = head_of(p.out[0], p.outs[0], b, h);
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

KERNEL __launch_bounds__(THREADS, RESIDENT) attention_forward(const Attention p) {
    begin_kernel();
    extern __shared__ Vec<u32, 4> memory[];
    T *rows = (T *)memory, *tiles_at = rows + FOLD * TILE;
    const i64 block = block_index();
    if (block >= p.blocks) return;
    const int queries = (int)p.queries, keys = (int)p.keys;
    const Place place = place_of_queries(p, block, FOLD * ROWS);
    const i64 b = place.b, h = place.h, kv = kv_head(p, h);
    const int first = place.first;
    const T *k = head_of(p.k, p.ks, b, kv), *v = head_of(p.v, p.vs, b, kv);
    const int end = visible_below(p, first + FOLD * ROWS);
    load_tile<FOLD * ROWS>(p, rows, head_of(p.q, p.qs, b, h), p.qs.row, first, queries);
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
KERNEL __launch_bounds__(THREADS, SHORT_RESIDENT) attention_forward_short(const Attention p) {
    begin_kernel();
    extern __shared__ Vec<u32, 4> memory[];
    T *rows = (T *)memory, *cols = rows + TILE, *values = cols + TILE;
    const i64 h = blockIdx.x, b = blockIdx.y, kv = kv_head(p, h);
    load_tile<ROWS>(p, rows, head_of(p.q, p.qs, b, h), p.qs.row, 0, (int)p.queries);
    load_tile<ROWS>(p, cols, head_of(p.k, p.ks, b, kv), p.ks.row, 0, (int)p.keys);
    load_tile<ROWS>(p, values, head_of(p.v, p.vs, b, kv), p.vs.row, 0, (int)p.keys);
    Queries q;
    q.begin(p, rows, b, h, 0, threadIdx.x / WARP);
    wait_for_copies();
    __syncthreads();
    q.hold();
    q.add_all(p, cols, values);
    q.store(p);
}
#endif

#endif
