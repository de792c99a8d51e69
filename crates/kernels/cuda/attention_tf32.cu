// Attention of f32 on tensor cores (mma.sync m16n8k8 of tf32, sm_80 and later), for heads of 32, 64 or, forward, 128
// elements. PASSES is 1 for operands rounded to tf32, 3 for operands split in two tf32 numbers each, whose product lacks
// only what the two smaller parts would give: almost as exact as f32.
//
// A warp owns 16 rows (queries for the result and dq, keys for dk and dv), which it keeps in registers, a block of four
// warps 64 (blocks of fewer warps are slower even where there are few); it walks over the others in tiles of 64. Every
// result has one writer, and sums have one order. What a product leaves in registers is the next one's left operand
// without any exchange between lanes, because the order in which an inner dimension is summed is free:
// - of an inner dimension, slots t and t + 4 of a group of 8 are its elements 2t and 2t + 1, which one load fetches;
// - columns 2t and 2t + 1 of a group of 8 scores are rows t and (t + 2) % 4 + 4 of the tile (`slot`), so that neither
//   the loads of those rows along the head nor those across it meet in a bank, at a pitch of 8 more than a multiple of 32;
// - column g of the result's group c of 8, among 32 elements of the head, is element 4g + c: 16 bytes fetch four columns
//   of a right operand, and a lane's results are 32 bytes in a row.
#if TIER >= 80

#define COLS 64
#define WARPS 4
#define THREADS (WARPS * WARP)
#define ROWS (WARPS * 16)
#define PITCH (HEAD + 8)
#define TILE (COLS * PITCH)
#define STEPS (HEAD / 8)
// Rows of a tile that are loaded, and whose scores are computed, together or not at all.
#define BAND 32
// Groups of 8 columns whose scores the backward kernel has in registers at once.
#define CHUNK (HEAD * PASSES <= 32 ? 4 : 2)

DEVICE u32 tf32(float x) {
    u32 y;
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(y) : "f"(x));
    return y;
}
// What rounding took away; nothing where it is not a number.
DEVICE u32 rest(float x, u32 rounded) {
    return tf32(fabsf(x) < INF_F ? x - __uint_as_float(rounded) : 0.f);
}
DEVICE void product(float (&c)[4], const u32 (&a)[4], u32 b0, u32 b1) {
    asm("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
// c[n] += a b[n] for W right operands; products that wait for one another are W apart.
template <int W> DEVICE void add(float (*c)[4], const float (&x)[4], const float (&y0)[W], const float (&y1)[W]) {
    const u32 a[4] = {tf32(x[0]), tf32(x[1]), tf32(x[2]), tf32(x[3])};
    u32 b0[W], b1[W];
#pragma unroll
    for (int n = 0; n < W; ++n) {
        b0[n] = tf32(y0[n]);
        b1[n] = tf32(y1[n]);
    }
    if (PASSES == 3) {
        const u32 less[4] = {rest(x[0], a[0]), rest(x[1], a[1]), rest(x[2], a[2]), rest(x[3], a[3])};
#pragma unroll
        for (int n = 0; n < W; ++n) product(c[n], less, b0[n], b1[n]);
#pragma unroll
        for (int n = 0; n < W; ++n) product(c[n], a, rest(y0[n], b0[n]), rest(y1[n], b1[n]));
    }
#pragma unroll
    for (int n = 0; n < W; ++n) product(c[n], a, b0[n], b1[n]);
}

// The row of a tile, among 8, that column `c` of a group of scores belongs to.
DEVICE int slot(int c) { return c % 2 == 0 ? c / 2 : (c / 2 + 2) % 4 + 4; }

// 16 rows from `first` on as left operands; zeros below `limit` and beyond `dim`.
DEVICE void own_rows(const Attention &p, float (&a)[STEPS][4], const float *from, i64 stride, int first, int limit) {
    const int lane = threadIdx.x % WARP, row = first + lane / 4, dim = (int)p.dim;
    const bool there[2] = {row < limit, row + 8 < limit};
    const float *at[2] = {from + row * stride + lane % 4 * 2, from + (row + 8) * stride + lane % 4 * 2};
    if (WHOLE || (p.aligned && dim == HEAD)) {
#pragma unroll
        for (int s = 0; s < STEPS; ++s)
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                Vec<float, 2> x = {{0.f, 0.f}};
                if (there[half]) x = *(const Vec<float, 2> *)(at[half] + s * 8);
                a[s][half] = x.at[0];
                a[s][2 + half] = x.at[1];
            }
    } else {
#pragma unroll
        for (int s = 0; s < STEPS; ++s)
#pragma unroll
            for (int e = 0; e < 4; ++e) {
                const int d = s * 8 + e / 2;
                a[s][e] = there[e % 2] && d + lane % 4 * 2 < dim ? at[e % 2][d] : 0.f;
            }
    }
}

// Rows `begin` to `end` (multiples of BAND) of a tile, which is at row `first` of memory, on their way into shared memory;
// zeros below `limit` and beyond `dim`. `wait_for_copies` and a barrier must follow.
DEVICE void load_tile(const Attention &p, float *to, const float *from, i64 stride, int first, int limit, int begin,
                      int end) {
    const int EACH = HEAD / 4, STEP = THREADS / EACH, d = threadIdx.x % EACH * 4, dim = (int)p.dim;
    const float *row = from + (first + begin + threadIdx.x / EACH) * stride + d;
    float *at = to + (begin + threadIdx.x / EACH) * PITCH + d;
    const i64 jump = STEP * stride;
    int left = limit - first - begin - (int)threadIdx.x / EACH;
    if (together(p, d, 4)) {
        for (int band = begin; band < end; band += BAND)
#pragma unroll
            for (int r = 0; r < BAND; r += STEP) {
                const u32 shared = (u32)__cvta_generic_to_shared(at);
                asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared), "l"(left > 0 ? row : from),
                             "r"(left > 0 ? 16 : 0) : "memory");
                row += jump;
                at += STEP * PITCH;
                left -= STEP;
            }
        return;
    }
#pragma unroll 1
    for (int r = begin; r < end; r += STEP) {
#pragma unroll
        for (int e = 0; e < 4; ++e) at[e] = left > 0 && d + e < dim ? row[e] : 0.f;
        row += jump;
        at += STEP * PITCH;
        left -= STEP;
    }
}

// c = left rows times W groups of 8 rows of a tile from `row` on
template <int W> DEVICE void along(float (*c)[4], const float (&a)[STEPS][4], const float *tile, int row) {
    const int lane = threadIdx.x % WARP;
    const float *at = tile + (row + slot(lane / 4)) * PITCH + lane % 4 * 2;
#pragma unroll
    for (int n = 0; n < W; ++n)
#pragma unroll
        for (int e = 0; e < 4; ++e) c[n][e] = 0.f;
#pragma unroll
    for (int s = 0; s < STEPS; ++s) {
        float b0[W], b1[W];
#pragma unroll
        for (int n = 0; n < W; ++n) {
            const Vec<float, 2> b = *(const Vec<float, 2> *)(at + n * 8 * PITCH + s * 8);
            b0[n] = b.at[0];
            b1[n] = b.at[1];
        }
        add<W>(c, a[s], b0, b1);
    }
}

// out += weights (16 rows x 8 columns, as a product left them) times the 8 rows of a tile from `row` on
DEVICE void across(float (&out)[STEPS][4], const float (&w)[4], const float *tile, int row) {
    const int lane = threadIdx.x % WARP, t = lane % 4;
    const float a[4] = {w[0], w[2], w[1], w[3]};
    const float *at = tile + (row + t) * PITCH + lane / 4 * 4, *other = at + ((t + 2) % 4 + 4 - t) * PITCH;
#pragma unroll
    for (int d = 0; d < HEAD; d += 32) {
        const Vec<float, 4> x = *(const Vec<float, 4> *)(at + d), y = *(const Vec<float, 4> *)(other + d);
        add<4>(out + d / 8, a, x.at, y.at);
    }
}

// A warp's 16 rows of results to rows `first` on below `limit`.
DEVICE void store_rows(const Attention &p, const float (&x)[STEPS][4], float upper, float lower, float *to, i64 stride,
                       int first, int limit) {
    const int lane = threadIdx.x % WARP, dim = (int)p.dim;
    const bool whole = WHOLE || (p.aligned && dim == HEAD);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
        const int row = first + lane / 4 + half * 8;
        const float by = half ? lower : upper;
        float *at = to + row * stride + lane % 4 * 8;
        if (row < limit && whole) {
#pragma unroll
            for (int d = 0; d < HEAD; d += 32)
#pragma unroll
                for (int odd = 0; odd < 2; ++odd) {
                    Vec<float, 4> y;
#pragma unroll
                    for (int c = 0; c < 4; ++c) y.at[c] = x[d / 8 + c][half * 2 + odd] * by;
                    *(Vec<float, 4> *)(at + d + odd * 4) = y;
                }
        } else if (row < limit) {
#pragma unroll
            for (int s = 0; s < STEPS; ++s)
#pragma unroll
                for (int odd = 0; odd < 2; ++odd) {
                    const int d = s / 4 * 32 + odd * 4 + s % 4;
                    if (d + lane % 4 * 8 < dim) at[d] = x[s][half * 2 + odd] * by;
                }
        }
    }
}

DEVICE void clear(float (&x)[STEPS][4]) {
#pragma unroll
    for (int n = 0; n < STEPS; ++n)
#pragma unroll
        for (int e = 0; e < 4; ++e) x[n][e] = 0.f;
}
DEVICE int round_up(int n) { return (n + BAND - 1) / BAND * BAND; }

// The softmax of a tile of scores with those before it: `s` becomes weights relative to the new maxima of the two rows.
DEVICE void online_softmax(float (&s)[COLS / 8][4], float (&top)[2], float (&sum)[2], float (&out)[STEPS][4]) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
        float best = top[half];
#pragma unroll
        for (int n = 0; n < COLS / 8; ++n) best = larger(larger(best, s[n][2 * half]), s[n][2 * half + 1]);
        best = quad_larger(best);
        const float base = best == -INF_F ? 0.f : best, fix = power2(top[half] - base);
        top[half] = best;
        sum[half] *= fix;
#pragma unroll
        for (int n = 0; n < COLS / 8; ++n)
#pragma unroll
            for (int e = 2 * half; e < 2 * half + 2; ++e) {
                s[n][e] = power2(s[n][e] - base);
                sum[half] += s[n][e];
            }
#pragma unroll
        for (int n = 0; n < STEPS; ++n) {
            out[n][2 * half] *= fix;
            out[n][2 * half + 1] *= fix;
        }
    }
}

// Which of a lane's weights in two groups of 8 columns from `col` on are kept; see `find_kept`.
template <bool TURNED> DEVICE void find_kept(const Coins &coins, bool (&kept)[2][4], int row, int col) {
    const int c = threadIdx.x % 4 * 2;
    // Both columns have the parity of the lane, both rows that of its eights.
    find_kept<TURNED, TURNED ? 4 : 1>(coins, kept, row, col + slot(c), col + slot(c + 1));
}

// Dropout of the weights of two groups of 8 keys from `at` on.
DEVICE void drop(const Coins &coins, float (*s)[4], int query, int at) {
    bool kept[2][4];
    find_kept<false>(coins, kept, query, at);
#pragma unroll
    for (int n = 0; n < 2; ++n)
#pragma unroll
        for (int e = 0; e < 4; ++e) s[n][e] = kept[n][e] ? s[n][e] : 0.f;
}

KERNEL __launch_bounds__(THREADS) attention_forward(const Attention p) {
    begin_kernel();
    extern __shared__ Vec<u32, 4> memory[];
    float *cols = (float *)memory, *values = cols + TILE;
    const i64 block = block_index();
    if (block >= p.blocks) return;
    const int queries = (int)p.queries, keys = (int)p.keys;
    const Place place = place_of_queries(p, block, ROWS);
    const i64 b = place.b, h = place.h, kv = kv_head(p, h);
    const int first = place.first;
    const T *k = head_of(p.k, p.ks, b, kv), *v = head_of(p.v, p.vs, b, kv);
    const int lane = threadIdx.x % WARP, own = first + threadIdx.x / WARP * 16, row = own + lane / 4;
    const float factor = (float)(p.scale * LOG2E);
    const i64 mask = mask_at(p, b, h);
    const int end = visible_below(p, first + ROWS), seen[2] = {visible(p, row), visible(p, row + 8)};
    const int warp_end = own < queries ? visible_below(p, own + 16) : 0;
    float q[STEPS][4], top[2] = {-INF_F, -INF_F}, sum[2] = {0.f, 0.f}, out[STEPS][4];
    clear(out);
    const Coins coins = coins_of(p, b, h);
    for (int at = 0; at < end; at += COLS) {
        const int rows = least(round_up(end - at), COLS);
        if (at > 0) __syncthreads();
        load_tile(p, cols, k, p.ks.row, at, keys, 0, rows);
        load_tile(p, values, v, p.vs.row, at, keys, 0, rows);
        if (at == 0) own_rows(p, q, head_of(p.q, p.qs, b, h), p.qs.row, own, queries);
        wait_for_copies();
        __syncthreads();
        float s[COLS / 8][4];
#pragma unroll
        for (int band = 0; band < COLS; band += BAND) {
            if (at + band < warp_end) along<BAND / 8>(s + band / 8, q, cols, band);
#pragma unroll
            for (int n = band / 8; n < (band + BAND) / 8; ++n)
#pragma unroll
                for (int e = 0; e < 4; ++e) {
                    const int j = at + n * 8 + slot(lane % 4 * 2 + e % 2);
                    s[n][e] = j < seen[e / 2] ? score(p, s[n][e], factor, mask, row + e / 2 * 8, j) : -INF_F;
                }
        }
        online_softmax(s, top, sum, out);
#pragma unroll
        for (int band = 0; band < COLS; band += BAND)
            if (at + band < warp_end) {
                if (DROP)
#pragma unroll
                    for (int n = band; n < band + BAND; n += 16) drop(coins, s + n / 8, row, at + n);
#pragma unroll
                for (int n = band; n < band + BAND; n += 8) across(out, s[n / 8], values, n);
            }
    }
    float inverse[2];
#pragma unroll
    for (int half = 0; half < 2; ++half) {
        const float total = quad_sum(sum[half]);
        const int i = row + half * 8;
        inverse[half] = total == 0.f ? 0.f : left_factor(p) / total;
        if (lane % 4 == 0 && i < queries) p.out_lse[(b * p.heads + h) * p.queries + i] = log_sum(top[half], total);
    }
    store_rows(p, out, inverse[0], inverse[1], head_of(p.out[0], p.outs[0], b, h), p.outs[0].row, own,
               queries);
}

#if HEAD <= 64
// dk and dv of the block's keys, summed over the query heads that share them. In shared memory are tiles of queries and
// gradients of the result, and of the queries the log-sum-exp (as `saved_lse`) and rowsum(dO o O).
struct Tiles {
    float *a, *b, *lse, *mean;
};

// The statistics of the rows `begin` to `end` of a tile of queries from `first` on; eight lanes a row.
DEVICE void load_statistics(const Attention &p, const Tiles &t, i64 b, i64 h, int first, int begin, int end) {
    const int lane = threadIdx.x % 8, dim = (int)p.dim;
    const i64 head = b * p.os.batch + h * p.os.head;
#pragma unroll 4
    for (int r = begin + threadIdx.x / 8; r < end; r += THREADS / 8) {
        const int i = first + r;
        const i64 at = head + i * p.os.row;
        float sum = 0.f;
#pragma unroll
        for (int d = lane * 4; d < HEAD; d += 32) {
            if (i < (int)p.queries && together(p, d, 4)) {
                const Vec<float, 4> x = *(const Vec<float, 4> *)(p.o + at + d), y = *(const Vec<float, 4> *)(p.g + at + d);
#pragma unroll
                for (int e = 0; e < 4; ++e) sum += x.at[e] * y.at[e];
            } else if (i < (int)p.queries) {
                for (int e = d; e < d + 4 && e < dim; ++e) sum += p.o[at + e] * p.g[at + e];
            }
        }
        // Rows are a multiple of BAND and warps take 4 at once, so that all lanes of a warp are here.
#pragma unroll
        for (int d = 4; d > 0; d /= 2) sum += __shfl_xor_sync(FULL_MASK, sum, d);
        if (lane == 0) {
            t.mean[r] = sum;
            t.lse[r] = i < (int)p.queries ? saved_lse(p.lse[(b * p.heads + h) * p.queries + i]) : INF_F;
        }
    }
}

DEVICE void key_gradient(const Attention &p, const Tiles &t, const Place &place) {
    const i64 b = place.b, kv = place.h;
    const int first = place.first;
    const i64 group = group_of(p);
    const int queries = (int)p.queries, keys = (int)p.keys, lane = threadIdx.x % WARP;
    const int own = first + threadIdx.x / WARP * 16, from = first_query(p, first), warp_from = first_query(p, own);
    const float factor = (float)(p.scale * LOG2E);
    float k[STEPS][4], v[STEPS][4], dk[STEPS][4], dv[STEPS][4];
    clear(dk);
    clear(dv);
    own_rows(p, k, head_of(p.k, p.ks, b, kv), p.ks.row, own, keys);
    own_rows(p, v, head_of(p.v, p.vs, b, kv), p.vs.row, own, keys);
    for (i64 h = kv * group; h < (kv + 1) * group; ++h)
        for (int at = from / COLS * COLS; at < queries; at += COLS) {
            const int begin = most(0, from - at) / BAND * BAND, end = least(COLS, round_up(queries - at));
            const i64 mask = mask_at(p, b, h);
            const Coins coins = coins_of(p, b, h);
            __syncthreads();
            load_tile(p, t.a, head_of(p.q, p.qs, b, h), p.qs.row, at, queries, begin, end);
            load_tile(p, t.b, head_of(p.g, p.os, b, h), p.os.row, at, queries, begin, end);
            load_statistics(p, t, b, h, at, begin, end);
            wait_for_copies();
            __syncthreads();
#pragma unroll 1
            for (int c = most(begin, most(0, warp_from - at) / (8 * CHUNK) * (8 * CHUNK)); c < end; c += 8 * CHUNK) {
                float s[CHUNK][4], d[CHUNK][4];
                along<CHUNK>(s, k, t.a, c);
                along<CHUNK>(d, v, t.b, c);
                const bool all_see = !MASKED && at + c + 8 * CHUNK <= queries && own + 16 <= visible(p, at + c);
                bool kept[CHUNK / 2][2][4];
#pragma unroll
                for (int n = 0; n < CHUNK; n += 2)
                    find_kept<true>(coins, kept[n / 2], own + lane / 4, at + c + n * 8);
#pragma unroll
                for (int n = 0; n < CHUNK; ++n)
#pragma unroll
                    for (int e = 0; e < 4; ++e) {
                        const int col = c + n * 8 + slot(lane % 4 * 2 + e % 2), i = at + col, j = own + lane / 4 + e / 2 * 8;
                        const float lse = t.lse[col];
                        const bool seen = all_see || (lse != INF_F && j < visible(p, i));
                        s[n][e] = seen ? weight(score(p, s[n][e], factor, mask, i, j), lse) : 0.f;
                        const bool stays = kept[n / 2][n % 2][e];
                        d[n][e] = seen ? s[n][e] * (left_of(p, d[n][e], stays) - t.mean[col]) : 0.f;
                        s[n][e] = stays ? s[n][e] : 0.f;
                    }
#pragma unroll
                for (int n = 0; n < CHUNK; ++n) {
                    across(dv, s[n], t.b, c + n * 8);
                    across(dk, d[n], t.a, c + n * 8);
                }
            }
        }
    const float scale = (float)p.scale, left = left_factor(p);
    store_rows(p, dk, scale, scale, head_of(p.out[1], p.outs[1], b, kv), p.outs[1].row, own, keys);
    store_rows(p, dv, left, left, head_of(p.out[2], p.outs[2], b, kv), p.outs[2].row, own, keys);
}

// dq of the block's queries of one head; in shared memory are tiles of keys and values.
DEVICE void query_gradient(const Attention &p, const Tiles &t, const Place &place) {
    const i64 b = place.b, h = place.h;
    const int first = place.first;
    const i64 kv = kv_head(p, h), result = b * p.os.batch + h * p.os.head, mask = mask_at(p, b, h);
    const Coins coins = coins_of(p, b, h);
    const int queries = (int)p.queries, keys = (int)p.keys, lane = threadIdx.x % WARP;
    const int own = first + threadIdx.x / WARP * 16, row = own + lane / 4, end = visible_below(p, first + ROWS);
    const int warp_end = own < queries ? visible_below(p, own + 16) : 0;
    const float factor = (float)(p.scale * LOG2E);
    float q[STEPS][4], g[STEPS][4], dq[STEPS][4], lse[2], mean[2] = {0.f, 0.f};
    int seen[2];
    clear(dq);
    // The first tile travels while the block's own rows do.
    if (end > 0) {
        load_tile(p, t.a, head_of(p.k, p.ks, b, kv), p.ks.row, 0, keys, 0, least(COLS, round_up(end)));
        load_tile(p, t.b, head_of(p.v, p.vs, b, kv), p.vs.row, 0, keys, 0, least(COLS, round_up(end)));
    }
    own_rows(p, g, p.o + result, p.os.row, own, queries);
    own_rows(p, q, p.g + result, p.os.row, own, queries);
#pragma unroll
    for (int s = 0; s < STEPS; ++s)
#pragma unroll
        for (int e = 0; e < 4; ++e) {
            mean[e % 2] += g[s][e] * q[s][e];
            g[s][e] = q[s][e];
        }
    own_rows(p, q, head_of(p.q, p.qs, b, h), p.qs.row, own, queries);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
        const int i = row + half * 8;
        mean[half] = quad_sum(mean[half]);
        lse[half] = i < queries ? saved_lse(p.lse[(b * p.heads + h) * p.queries + i]) : INF_F;
        seen[half] = lse[half] == INF_F ? 0 : visible(p, i);
    }
    for (int at = 0; at < end; at += COLS) {
        if (at > 0) {
            const int rows = least(COLS, round_up(end - at));
            __syncthreads();
            load_tile(p, t.a, head_of(p.k, p.ks, b, kv), p.ks.row, at, keys, 0, rows);
            load_tile(p, t.b, head_of(p.v, p.vs, b, kv), p.vs.row, at, keys, 0, rows);
        }
        wait_for_copies();
        __syncthreads();
#pragma unroll 1
        for (int c = 0; c < COLS && at + c < warp_end; c += 8 * CHUNK) {
            float s[CHUNK][4], d[CHUNK][4];
            along<CHUNK>(s, q, t.a, c);
            along<CHUNK>(d, g, t.b, c);
            bool kept[CHUNK / 2][2][4];
#pragma unroll
            for (int n = 0; n < CHUNK; n += 2) find_kept<false>(coins, kept[n / 2], row, at + c + n * 8);
#pragma unroll
            for (int n = 0; n < CHUNK; ++n)
#pragma unroll
                for (int e = 0; e < 4; ++e) {
                    const int half = e / 2, i = row + half * 8, j = at + c + n * 8 + slot(lane % 4 * 2 + e % 2);
                    // Beyond what is seen there may be no mask to read.
                    const float w = j < seen[half] ? weight(score(p, s[n][e], factor, mask, i, j), lse[half]) : 0.f;
                    d[n][e] = j < seen[half] ? w * (left_of(p, d[n][e], kept[n / 2][n % 2][e]) - mean[half]) : 0.f;
                }
#pragma unroll
            for (int n = 0; n < CHUNK; ++n) across(dq, d[n], t.a, c + n * 8);
        }
    }
    const float scale = (float)p.scale;
    store_rows(p, dq, scale, scale, head_of(p.out[0], p.outs[0], b, h), p.outs[0].row, own, queries);
}

KERNEL __launch_bounds__(THREADS) attention_backward(const Attention p) {
    begin_kernel();
    extern __shared__ Vec<u32, 4> memory[];
    float *m = (float *)memory;
    const Tiles t = {m, m + TILE, m + 2 * TILE, m + 2 * TILE + COLS};
    const i64 block = block_index(), of_keys = blocks_of_keys(p, ROWS);
    if (block >= p.blocks) return;
    if (block < of_keys) key_gradient(p, t, place_of_keys(p, block, ROWS));
    else query_gradient(p, t, place_of_queries(p, block - of_keys, ROWS));
}
#endif

#endif
