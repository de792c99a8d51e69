// The backward pass of attention on tensor cores; see attention_tensor.cuh.
#if TIER >= 80

// Blocks that a multiprocessor must have registers for, as measured on an H200: in general, and for all gradients in one go.
#define RESIDENT (HEAD <= 32 ? 4 : HEAD <= 64 ? (MASKED || DROP ? 3 : 4) : 2)
#define SHORT_RESIDENT (HEAD <= 32 ? 4 : 2)

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
KERNEL __launch_bounds__(THREADS) attention_statistics(const Attention p) {
    begin_kernel();
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
                const bool sees = all_see || j < seen[half];
                // Beyond what is seen there may be no mask to read.
                const float w = sees ? weight(score(p, s[n][e], factor, mask, i, j), lse[half]) : 0.f;
                d[n][e] = sees ? w * (left_of(p, d[n][e], kept[n][e]) - mean[half]) : 0.f;
            }
        accumulate(dq, d[0], d[1], t.k, c);
    }
}

DEVICE void load_queries(const Attention &p, const Tiles &t, i64 b, i64 h, int first) {
    load_tile<ROWS>(p, t.q, head_of(p.q, p.qs, b, h), p.qs.row, first, (int)p.queries);
    load_tile<ROWS>(p, t.g, head_of(p.g, p.os, b, h), p.os.row, first, (int)p.queries);
}
DEVICE void load_keys(const Attention &p, const Tiles &t, i64 b, i64 kv, int first) {
    load_tile<ROWS>(p, t.k, head_of(p.k, p.ks, b, kv), p.ks.row, first, (int)p.keys);
    load_tile<ROWS>(p, t.v, head_of(p.v, p.vs, b, kv), p.vs.row, first, (int)p.keys);
}
DEVICE void store_queries(const Attention &p, T *stage, i64 b, i64 h, int first, const float (&dq)[COLUMNS][4]) {
    const float scale = (float)p.scale;
    store_rows(p, stage, dq, scale, scale, head_of(p.out[0], p.outs[0], b, h), p.outs[0].row, first,
               (int)p.queries);
}
DEVICE void store_keys(const Attention &p, T *stage, i64 b, i64 kv, int first, const float (&dk)[COLUMNS][4],
                       const float (&dv)[COLUMNS][4]) {
    const float scale = (float)p.scale;
    store_rows(p, stage, dk, scale, scale, head_of(p.out[1], p.outs[1], b, kv), p.outs[1].row, first,
               (int)p.keys);
    const float left = left_factor(p);
    store_rows(p, stage, dv, left, left, head_of(p.out[2], p.outs[2], b, kv), p.outs[2].row, first,
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
DEVICE void key_gradient(const Attention &p, void *memory, const Place &place) {
    const i64 b = place.b, kv = place.h;
    const int first = place.first;
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
DEVICE void query_gradient(const Attention &p, void *memory, const Place &place) {
    const i64 b = place.b, h = place.h;
    const int first = place.first;
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

KERNEL __launch_bounds__(THREADS, RESIDENT) attention_backward(const Attention p) {
    begin_kernel();
    extern __shared__ Vec<u32, 4> memory[];
    const i64 block = block_index(), of_keys = blocks_of_keys(p, ROWS);
    if (block >= p.blocks) return;
    if (block < of_keys) key_gradient(p, memory, place_of_keys(p, block, ROWS));
    else query_gradient(p, memory, place_of_queries(p, block - of_keys, ROWS));
}

#if HEAD <= 64
// All gradients of a head with at most 64 queries and keys of its own: everything is read once.
KERNEL __launch_bounds__(THREADS, SHORT_RESIDENT) attention_backward_short(const Attention p) {
    begin_kernel();
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
