// Attention in plain arithmetic, for every type and GPU: softmax(scale Q K^T + mask) V, and its adjoint.
//
// Nothing of the size queries x keys is in memory (Dao et al. 2022). A block owns BR rows and walks over the others in
// tiles of BC columns: queries over keys for the forward pass and dq, keys over queries for dk and dv. So every result has
// one writer, and sums have one order. Eight lanes share R rows: of a tile of scores each has every eighth column, of an
// accumulator every eighth vector of the head.

#define ROW_BYTES (HEAD * (int)sizeof(C))
// As much as fits 48 KiB with four tiles (KEEP), or with two that are loaded again where they are needed.
#define BR (ROW_BYTES <= 256 ? 32 : ROW_BYTES <= 1024 ? 16 : 8)
#define BC BR
#define KEEP (ROW_BYTES <= 512)
#define R (ROW_BYTES <= 1024 ? 2 : 1)
#define LANES 8
#define THREADS (BR / R * LANES)
#define N (BC / LANES)
#define VW (16 / (int)sizeof(C))
#define PITCH (HEAD + VW)
#define WEIGHT_PITCH (BC + VW)
#define PER_LANE (HEAD / LANES)
#define OW (PER_LANE < VW ? PER_LANE : VW)
#define TILE (BR * PITCH)

// `rows` rows of a head into shared memory, zeros below `limit` and beyond `dim`.
DEVICE void load_tile(const Attention &p, C *to, const T *from, i64 stride, int first, int limit) {
    const int VL = 16 / sizeof(T), EACH = HEAD / VL;
    for (int at = threadIdx.x; at < BR * EACH; at += THREADS) {
        int r = at / EACH, d = at % EACH * VL, dim = (int)p.dim;
        Vec<T, VL> x;
        C y[VL];
#pragma unroll
        for (int e = 0; e < VL; ++e) y[e] = (C)0;
        if (first + r < limit) {
            const T *row = from + (first + r) * stride;
            if (p.aligned && d + VL <= dim) {
                x = *(const Vec<T, VL> *)(row + d);
#pragma unroll
                for (int e = 0; e < VL; ++e) y[e] = convert<C>(x.at[e]);
            } else {
#pragma unroll
                for (int e = 0; e < VL; ++e)
                    if (d + e < dim) y[e] = convert<C>(row[d + e]);
            }
        }
#pragma unroll
        for (int e = 0; e < VL; e += VW) {
            Vec<C, VW> part;
#pragma unroll
            for (int u = 0; u < VW; ++u) part.at[u] = y[e + u];
            *(Vec<C, VW> *)(to + r * PITCH + d + e) = part;
        }
    }
}

// out[r][n] = this thread's row r . column lane + 8 n
DEVICE void dots(C (&out)[R][N], const C *rows, const C *cols) {
    const C *a = rows + threadIdx.x / LANES * R * PITCH, *b = cols + threadIdx.x % LANES * PITCH;
#pragma unroll
    for (int r = 0; r < R; ++r)
#pragma unroll
        for (int n = 0; n < N; ++n) out[r][n] = (C)0;
#pragma unroll 4
    for (int d = 0; d < HEAD; d += VW) {
        Vec<C, VW> x[R], y[N];
#pragma unroll
        for (int r = 0; r < R; ++r) x[r] = *(const Vec<C, VW> *)(a + r * PITCH + d);
#pragma unroll
        for (int n = 0; n < N; ++n) y[n] = *(const Vec<C, VW> *)(b + n * LANES * PITCH + d);
#pragma unroll
        for (int u = 0; u < VW; ++u)
#pragma unroll
            for (int r = 0; r < R; ++r)
#pragma unroll
                for (int n = 0; n < N; ++n) out[r][n] += x[r].at[u] * y[n].at[u];
    }
}

// Puts a thread's weights where the other lanes of its rows read them.
DEVICE void put_weights(C *weights, const C (&w)[R][N]) {
    C *to = weights + threadIdx.x / LANES * R * WEIGHT_PITCH + threadIdx.x % LANES;
#pragma unroll
    for (int r = 0; r < R; ++r)
#pragma unroll
        for (int n = 0; n < N; ++n) to[r * WEIGHT_PITCH + n * LANES] = w[r][n];
}

// sum[r][..] += weights of row r times the columns' vectors
DEVICE void accumulate(C (&sum)[R][PER_LANE], const C *weights, const C *values) {
    const C *w = weights + threadIdx.x / LANES * R * WEIGHT_PITCH, *v = values + threadIdx.x % LANES * OW;
#pragma unroll 2
    for (int c = 0; c < BC; c += VW) {
        Vec<C, VW> x[R];
#pragma unroll
        for (int r = 0; r < R; ++r) x[r] = *(const Vec<C, VW> *)(w + r * WEIGHT_PITCH + c);
#pragma unroll
        for (int u = 0; u < VW; ++u)
#pragma unroll
            for (int d = 0; d < PER_LANE; d += OW) {
                Vec<C, OW> y = *(const Vec<C, OW> *)(v + (c + u) * PITCH + d * LANES);
#pragma unroll
                for (int r = 0; r < R; ++r)
#pragma unroll
                    for (int e = 0; e < OW; ++e) sum[r][d + e] += x[r].at[u] * y.at[e];
            }
    }
}

// A row of an accumulator, times `factor`, to memory.
DEVICE void store_row(const Attention &p, T *row, const C (&sum)[PER_LANE], C factor) {
#pragma unroll
    for (int d = 0; d < PER_LANE; d += OW) {
        int at = d * LANES + threadIdx.x % LANES * OW;
        Vec<T, OW> y;
#pragma unroll
        for (int e = 0; e < OW; ++e) y.at[e] = convert<T>(sum[d + e] * factor);
        if (p.aligned && at + OW <= (int)p.dim) {
            *(Vec<T, OW> *)(row + at) = y;
        } else {
#pragma unroll
            for (int e = 0; e < OW; ++e)
                if (at + e < (int)p.dim) row[at + e] = y.at[e];
        }
    }
}

template <typename Op> DEVICE C lanes_all(C x) {
#pragma unroll
    for (int d = LANES / 2; d > 0; d /= 2) x = Op::of(x, __shfl_xor_sync(FULL_MASK, x, d));
    return x;
}

struct Larger {
    static DEVICE C of(C a, C b) { return larger(a, b); }
};

KERNEL __launch_bounds__(THREADS) attention_forward(const Attention p) {
    begin_kernel();
    __shared__ alignas(16) C rows[TILE];
    __shared__ alignas(16) C cols[TILE];
    __shared__ alignas(16) C values[KEEP ? TILE : VW];
    __shared__ alignas(16) C weights[BR * WEIGHT_PITCH];
    i64 block = block_index();
    if (block >= p.blocks) return;
    const Place place = place_of_queries(p, block, BR);
    const i64 b = place.b, h = place.h, kv = kv_head(p, h);
    const int first = place.first;
    const T *k = head_of(p.k, p.ks, b, kv), *v = head_of(p.v, p.vs, b, kv);
    const int keys = (int)p.keys, lane = threadIdx.x % LANES, row = threadIdx.x / LANES * R;
    const C factor = (C)(p.scale * LOG2E);
    const i64 mask = mask_at(p, b, h);
    load_tile(p, rows, head_of(p.q, p.qs, b, h), p.qs.row, first, (int)p.queries);
    C top[R], sum[R], out[R][PER_LANE];
#pragma unroll
    for (int r = 0; r < R; ++r) {
        top[r] = (C)-INF_F;
        sum[r] = (C)0;
#pragma unroll
        for (int d = 0; d < PER_LANE; ++d) out[r][d] = (C)0;
    }
    const int end = visible_below(p, first + BR);
    const Coins coins = coins_of(p, b, h);
    for (int at = 0; at < end; at += BC) {
        __syncthreads();
        load_tile(p, cols, k, p.ks.row, at, keys);
        if (KEEP) load_tile(p, values, v, p.vs.row, at, keys);
        __syncthreads();
        C s[R][N];
        dots(s, rows, cols);
#pragma unroll
        for (int r = 0; r < R; ++r) {
            const int i = first + row + r, seen = visible(p, i);
            C best = top[r];
#pragma unroll
            for (int n = 0; n < N; ++n) {
                const int j = at + lane + n * LANES;
                s[r][n] = j < seen ? score(p, s[r][n], factor, mask, i, j) : (C)-INF_F;
                best = larger(best, s[r][n]);
            }
            best = lanes_all<Larger>(best);
            const C base = best == (C)-INF_F ? (C)0 : best, fix = power2(top[r] - base);
            top[r] = best;
            sum[r] *= fix;
#pragma unroll
            for (int n = 0; n < N; ++n) {
                s[r][n] = power2(s[r][n] - base);
                sum[r] += s[r][n];
                if (DROP) s[r][n] = is_kept(coins, i, at + lane + n * LANES) ? s[r][n] : (C)0;
            }
#pragma unroll
            for (int d = 0; d < PER_LANE; ++d) out[r][d] *= fix;
        }
        put_weights(weights, s);
        if (KEEP) {
            __syncwarp();
            accumulate(out, weights, values);
        } else {
            __syncthreads();
            load_tile(p, cols, v, p.vs.row, at, keys);
            __syncthreads();
            accumulate(out, weights, cols);
        }
    }
#pragma unroll
    for (int r = 0; r < R; ++r) {
        const int i = first + row + r;
        const C total = lanes_all<Sum>(sum[r]);
        if (i < (int)p.queries) {
            T *to = head_of(p.out[0], p.outs[0], b, h) + i * p.outs[0].row;
            store_row(p, to, out[r], total == (C)0 ? (C)0 : left_factor(p) / total);
            if (lane == 0) p.out_lse[(b * p.heads + h) * p.queries + i] = log_sum(top[r], total);
        }
    }
}

// Where the tensors of one query head and its keys begin.
struct Heads {
    const T *q, *k, *v, *o, *g;
    const C *lse;
    i64 mask;
    Coins coins;
};

DEVICE Heads heads_of(const Attention &p, i64 b, i64 h) {
    i64 kv = kv_head(p, h), at = b * p.os.batch + h * p.os.head;
    Heads x = {head_of(p.q, p.qs, b, h), head_of(p.k, p.ks, b, kv),
               head_of(p.v, p.vs, b, kv), p.o + at, p.g + at, p.lse + (b * p.heads + h) * p.queries,
               mask_at(p, b, h), coins_of(p, b, h)};
    return x;
}

// rowsum(dO o O) of query i; 0 if there is none. All lanes of a row call it.
DEVICE C weighted_mean(const Attention &p, const Heads &x, int i) {
    C sum = (C)0;
    if (i < (int)p.queries)
        for (int d = threadIdx.x % LANES; d < (int)p.dim; d += LANES)
            sum += convert<C>(x.g[i * p.os.row + d]) * convert<C>(x.o[i * p.os.row + d]);
    return lanes_all<Sum>(sum);
}

// Shared memory of the backward kernel. Without KEEP, the pairs (a, b) of rows and of columns share their memory.
struct Tiles {
    C *row_a, *row_b, *col_a, *col_b, *weights, *lse, *mean;
};

// Rows of two tensors: queries and gradients of the result, or keys and values.
struct Operands {
    const T *a, *b;
    i64 a_row, b_row;
    int count;
};

DEVICE Operands queries_of(const Attention &p, const Heads &x) {
    Operands y = {x.q, x.g, p.qs.row, p.os.row, (int)p.queries};
    return y;
}
DEVICE Operands keys_of(const Attention &p, const Heads &x) {
    Operands y = {x.k, x.v, p.ks.row, p.vs.row, (int)p.keys};
    return y;
}

DEVICE void load_rows(const Attention &p, const Tiles &t, const Operands &x, int first) {
    if (!KEEP) return;
    load_tile(p, t.row_a, x.a, x.a_row, first, x.count);
    load_tile(p, t.row_b, x.b, x.b_row, first, x.count);
}

// s = a . a and d = b . b of the block's rows and the columns from `at` on. All have left the last tile.
DEVICE void products(const Attention &p, const Tiles &t, const Operands &rows, int first, const Operands &cols, int at,
                     C (&s)[R][N], C (&d)[R][N]) {
    if (!KEEP) load_tile(p, t.row_a, rows.a, rows.a_row, first, rows.count);
    load_tile(p, t.col_a, cols.a, cols.a_row, at, cols.count);
    if (KEEP) load_tile(p, t.col_b, cols.b, cols.b_row, at, cols.count);
    __syncthreads();
    dots(s, t.row_a, t.col_a);
    if (!KEEP) {
        __syncthreads();
        load_tile(p, t.row_b, rows.b, rows.b_row, first, rows.count);
        load_tile(p, t.col_b, cols.b, cols.b_row, at, cols.count);
        __syncthreads();
    }
    dots(d, t.row_b, t.col_b);
}

// Adds a of the columns, weighted by `w`.
DEVICE void accumulate_a(const Attention &p, const Tiles &t, const Operands &cols, int at, C (&sum)[R][PER_LANE],
                         const C (&w)[R][N]) {
    put_weights(t.weights, w);
    if (KEEP) {
        __syncwarp();
    } else {
        __syncthreads();
        load_tile(p, t.col_a, cols.a, cols.a_row, at, cols.count);
        __syncthreads();
    }
    accumulate(sum, t.weights, t.col_a);
}

// dq of BR queries of one head.
DEVICE void query_gradient(const Attention &p, const Tiles &t, const Place &place) {
    const i64 b = place.b, h = place.h;
    const int first = place.first;
    const Heads x = heads_of(p, b, h);
    const int queries = (int)p.queries, lane = threadIdx.x % LANES, row = threadIdx.x / LANES * R;
    const C factor = (C)(p.scale * LOG2E);
    C lse[R], mean[R], dq[R][PER_LANE];
#pragma unroll
    for (int r = 0; r < R; ++r) {
        const int i = first + row + r;
        lse[r] = i < queries ? saved_lse(x.lse[i]) : (C)INF_F;
        mean[r] = weighted_mean(p, x, i);
#pragma unroll
        for (int d = 0; d < PER_LANE; ++d) dq[r][d] = (C)0;
    }
    const Operands rows = queries_of(p, x), cols = keys_of(p, x);
    load_rows(p, t, rows, first);
    const int end = visible_below(p, first + BR);
    for (int at = 0; at < end; at += BC) {
        C s[R][N], ds[R][N];
        __syncthreads();
        products(p, t, rows, first, cols, at, s, ds);
#pragma unroll
        for (int r = 0; r < R; ++r) {
            const int i = first + row + r, seen = lse[r] == (C)INF_F ? 0 : visible(p, i);
#pragma unroll
            for (int n = 0; n < N; ++n) {
                const int j = at + lane + n * LANES;
                // Beyond what is seen there may be no mask to read.
                const C w = j < seen ? weight(score(p, s[r][n], factor, x.mask, i, j), lse[r]) : (C)0;
                ds[r][n] = j < seen ? w * (left_of(p, ds[r][n], is_kept(x.coins, i, j)) - mean[r]) : (C)0;
            }
        }
        accumulate_a(p, t, cols, at, dq, ds);
    }
#pragma unroll
    for (int r = 0; r < R; ++r) {
        const int i = first + row + r;
        T *to = head_of(p.out[0], p.outs[0], b, h) + i * p.outs[0].row;
        if (i < queries) store_row(p, to, dq[r], (C)p.scale);
    }
}

// Adds to dk and dv of BR keys what the queries of one head give.
DEVICE void keys_of_head(const Attention &p, const Tiles &t, const Heads &x, int first, C (&dk)[R][PER_LANE],
                         C (&dv)[R][PER_LANE]) {
    const Operands rows = keys_of(p, x), cols = queries_of(p, x);
    const int queries = (int)p.queries, lane = threadIdx.x % LANES, row = threadIdx.x / LANES * R;
    const C factor = (C)(p.scale * LOG2E);
    for (int at = first_query(p, first) / BC * BC; at < queries; at += BC) {
        C s[R][N], ds[R][N];
        __syncthreads();
        for (int c = threadIdx.x / LANES; c < BC; c += THREADS / LANES) {
            const C mean = weighted_mean(p, x, at + c);
            if (lane == 0) {
                t.mean[c] = mean;
                t.lse[c] = at + c < queries ? saved_lse(x.lse[at + c]) : (C)INF_F;
            }
        }
        products(p, t, rows, first, cols, at, s, ds);
#pragma unroll
        for (int r = 0; r < R; ++r) {
            const int j = first + row + r;
#pragma unroll
            for (int n = 0; n < N; ++n) {
                const int c = lane + n * LANES, i = at + c;
                const C lse = t.lse[c];
                const bool seen = lse != (C)INF_F && j < visible(p, i);
                s[r][n] = seen ? weight(score(p, s[r][n], factor, x.mask, i, j), lse) : (C)0;
                const bool kept = is_kept(x.coins, i, j);
                ds[r][n] = seen ? s[r][n] * (left_of(p, ds[r][n], kept) - t.mean[c]) : (C)0;
                s[r][n] = kept ? s[r][n] : (C)0;
            }
        }
        put_weights(t.weights, s);
        __syncwarp();
        accumulate(dv, t.weights, t.col_b);
        __syncwarp();
        accumulate_a(p, t, cols, at, dk, ds);
    }
}

// dk and dv of BR keys, summed over the query heads that share them.
DEVICE void key_gradient(const Attention &p, const Tiles &t, const Place &place) {
    const i64 b = place.b, kv = place.h;
    const int first = place.first;
    const i64 group = group_of(p);
    C dk[R][PER_LANE], dv[R][PER_LANE];
#pragma unroll
    for (int r = 0; r < R; ++r)
#pragma unroll
        for (int d = 0; d < PER_LANE; ++d) dk[r][d] = dv[r][d] = (C)0;
    load_rows(p, t, keys_of(p, heads_of(p, b, kv * group)), first);
    for (i64 h = kv * group; h < (kv + 1) * group; ++h) keys_of_head(p, t, heads_of(p, b, h), first, dk, dv);
#pragma unroll
    for (int r = 0; r < R; ++r) {
        const int j = first + threadIdx.x / LANES * R + r;
        if (j < (int)p.keys) {
            store_row(p, head_of(p.out[1], p.outs[1], b, kv) + j * p.outs[1].row, dk[r], (C)p.scale);
            store_row(p, head_of(p.out[2], p.outs[2], b, kv) + j * p.outs[2].row, dv[r], left_factor(p));
        }
    }
}

KERNEL __launch_bounds__(THREADS) attention_backward(const Attention p) {
    begin_kernel();
    __shared__ alignas(16) C memory[(KEEP ? 4 : 2) * TILE + BR * WEIGHT_PITCH + 2 * BC];
    Tiles t = {memory, memory + (KEEP ? 2 * TILE : 0), memory + TILE, memory + (KEEP ? 3 * TILE : TILE)};
    t.weights = memory + (KEEP ? 4 : 2) * TILE;
    t.lse = t.weights + BR * WEIGHT_PITCH;
    t.mean = t.lse + BC;
    const i64 block = block_index(), of_keys = blocks_of_keys(p, BR);
    if (block >= p.blocks) return;
    if (block < of_keys) key_gradient(p, t, place_of_keys(p, block, BR));
    else query_gradient(p, t, place_of_queries(p, block - of_keys, BR));
}
