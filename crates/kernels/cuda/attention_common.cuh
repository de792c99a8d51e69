// What all attention kernels share: the description of the problem, masks, the softmax's arithmetic.
//
// The host defines T (the elements) and HEAD (16, 32, 64, 128 or 256: the head dimension, or the next of these above it;
// what is beyond `dim` is zero in shared memory and is never stored).
//
// Scores are kept in units of log 2, so that the exponentials are powers of two. A row that sees no key has the
// log-sum-exp -inf and zeros as its result and in its gradients; a NaN or +inf among the scores makes its row NaN.

// MASKED is 0 where the host knows that there is no mask and that the scale is positive; WHOLE is 1 where it knows that
// heads have HEAD elements and every row of every tensor starts at a multiple of 16 bytes; DROP is 1 with dropout.

typedef ComputeOf<T>::Type C;

#ifndef MASKED
#define MASKED 1
#endif
#ifndef WHOLE
#define WHOLE 0
#endif
#ifndef DROP
#define DROP 0
#endif

#define LOG2E 1.4426950408889634
#define LN2 0.6931471805599453

// Strides in elements of [batch, heads, sequence, dim], whose last axis is dense.
struct Strides {
    i64 batch;
    i64 head;
    i64 row;
};

// Every field has 8 bytes: the host writes them in this order.
struct Attention {
    const T *q;
    const T *k;
    const T *v;
    const T *o;         // backward: the forward result and its gradient, both as strided by `os`
    const T *g;
    const C *lse;
    const u8 *mask;
    T *out[3];          // forward: o; backward: dq, dk, dv
    C *out_lse;
    C *parts;           // scratch: decoding in splits; backward on tensor cores: see `attention_statistics`
    Strides qs, ks, vs, os;
    Strides outs[3];
    i64 mask_strides[4];
    i64 batch, heads, kv_heads, queries, keys, dim;
    i64 causal;         // query i sees the keys up to i + keys - queries
    i64 mask_kind;      // 0 none, 1 bool (true is seen), 2 of T, added to the score
    i64 aligned;        // every row of every tensor starts at a multiple of 16 bytes
    i64 splits, span;   // decoding: parts of the keys, and keys in a part
    i64 blocks;         // of the grid; there may be more, to fill its rows
    double scale;
    double left;        // dropout: what is left is multiplied by this,
    i64 threshold;      // what is dropped has 16 bits below this,
    i64 stream;
    const i64 *state;   // seed and step
};

// Whether `count` elements from `d` of a head on can be moved as one.
DEVICE bool together(const Attention &p, int d, int count) { return WHOLE || (p.aligned && d + count <= (int)p.dim); }

DEVICE i64 block_index() { return (i64)blockIdx.y * gridDim.x + blockIdx.x; }

// Division of what is not negative: 64 bits take five times as long as 32, and few launches need them.
DEVICE i64 quotient(i64 n, i64 by) {
    return ((u64)(n | by) >> 32) == 0 ? (i64)((u32)n / (u32)by) : n / by;
}
DEVICE i64 remainder(i64 n, i64 by) { return n - quotient(n, by) * by; }

DEVICE int least(int a, int b) { return a < b ? a : b; }
DEVICE int most(int a, int b) { return a > b ? a : b; }
// Ignores NaN in `b`: it comes back through the exponential.
template <typename N> DEVICE N larger(N a, N b) { return b > a ? b : a; }

DEVICE float power2(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}
DEVICE double power2(double x) { return exp2(x); }
DEVICE float logarithm2(float x) { return log2f(x); }
DEVICE double logarithm2(double x) { return log2(x); }

// Of a row's sum of powers of two relative to `top`.
DEVICE C log_sum(C top, C sum) { return sum == (C)0 ? (C)-INF_F : (top + logarithm2(sum)) * (C)LN2; }

// Query heads that share a head of keys, and the head of keys of a query head.
DEVICE i64 group_of(const Attention &p) { return p.heads == p.kv_heads ? 1 : quotient(p.heads, p.kv_heads); }
DEVICE i64 kv_head(const Attention &p, i64 h) { return p.heads == p.kv_heads ? h : quotient(h, group_of(p)); }

// How many keys a query sees as far as causality says; 0 for a query there is not.
DEVICE int visible(const Attention &p, int query) {
    if (query >= (int)p.queries) return 0;
    if (!p.causal) return (int)p.keys;
    return most(0, least((int)p.keys, query + 1 + (int)p.keys - (int)p.queries));
}

// Of all queries below `end`: the last sees the most.
DEVICE int visible_below(const Attention &p, int end) { return visible(p, least(end, (int)p.queries) - 1); }

// The first query that sees key `key`.
DEVICE int first_query(const Attention &p, int key) {
    return p.causal ? most(0, key - (int)p.keys + (int)p.queries) : 0;
}

// Where the rows of a head begin.
template <typename E> DEVICE E *head_of(E *x, const Strides &strides, i64 b, i64 h) {
    return x + b * strides.batch + h * strides.head;
}

// The tile of a head that a block works on, from row `first` on.
struct Place {
    i64 b, h;
    int first;
};

// Of all tiles of `rows` rows among `count`, those of one head after the other; with LAST_FIRST from the end of each.
template <bool LAST_FIRST> DEVICE Place place_of(i64 block, i64 heads, i64 count, int rows) {
    const int tiles = ((int)count + rows - 1) / rows;
    const i64 head = quotient(block, tiles), b = quotient(head, heads);
    const int tile = (int)(block - head * tiles);
    Place x = {b, head - b * heads, (LAST_FIRST ? tiles - 1 - tile : tile) * rows};
    return x;
}

// Of queries: the last see the most keys, so they come first.
DEVICE Place place_of_queries(const Attention &p, i64 block, int rows) {
    return place_of<true>(block, p.heads, p.queries, rows);
}

// Blocks of keys come before blocks of queries, as they have more to do: how many there are, and where one is.
DEVICE i64 blocks_of_keys(const Attention &p, int rows) {
    return p.batch * p.kv_heads * (((int)p.keys + rows - 1) / rows);
}
DEVICE Place place_of_keys(const Attention &p, i64 block, int rows) {
    return place_of<false>(block, p.kv_heads, p.keys, rows);
}

DEVICE i64 mask_at(const Attention &p, i64 b, i64 h) { return b * p.mask_strides[0] + h * p.mask_strides[1]; }

// The score of a query and a key that it sees as far as causality says, in units of log 2. `factor` is scale * log2 e.
DEVICE C score(const Attention &p, C dot, C factor, i64 mask, int i, int j) {
    C s = dot * factor;
    if (MASKED && p.mask_kind != 0) {
        i64 at = mask + i * p.mask_strides[2] + j * p.mask_strides[3];
        if (p.mask_kind == 1) {
            s = p.mask[at] != 0 ? s : (C)-INF_F;
        } else {
            s += convert<C>(((const T *)p.mask)[at]) * (C)LOG2E;
        }
    }
    return s;
}

// The weight of a score, from the row's log-sum-exp in units of log 2; above 1 by rounding only. NaN stays.
DEVICE C weight(C s, C lse) {
    C e = s - lse;
    return power2(e > (C)0 ? (C)0 : e);
}

// A saved log-sum-exp in units of log 2; +inf for a row that sees nothing, so that its weights are 0.
DEVICE C saved_lse(C x) { return x == (C)-INF_F ? (C)INF_F : x * (C)LOG2E; }

// Where the bits that dropout compares are drawn from for the weights of one head: `WeightDropout` of `bullet_ops::random`.
struct Coins {
    Counter counter;
    u64 first, row;     // its first block, and blocks of a query
    u32 threshold;
};

DEVICE Coins coins_of(const Attention &p, i64 b, i64 h) {
    Coins c = Coins();
    if (DROP) {
        c.counter.seed = (u64)p.state[0], c.counter.stream = (u64)p.stream, c.counter.step = (u64)p.state[1];
        c.row = (u64)(p.keys + 15) / 16 * 4;
        c.first = (u64)(b * p.heads + h) * ((u64)(p.queries + 15) / 16 * 8) * c.row;
        c.threshold = (u32)p.threshold;
    }
    return c;
}

DEVICE Words coins_at(const Coins &c, int i, int j) {
    return c.counter.block(c.first + (u64)(i / 16 * 8 + i % 8) * c.row + (u64)(j / 16 * 4 + j % 8 / 2));
}

// Whether the weight of query `i` and key `j` is kept.
DEVICE bool is_kept(const Coins &c, int i, int j) {
    if (!DROP) return true;
    const Words w = coins_at(c, i, j);
    const u32 upper = j & 8 ? w.at[1] : w.at[0], lower = j & 8 ? w.at[3] : w.at[2], word = i & 8 ? lower : upper;
    return (j & 1 ? word >> 16 : word & 0xffffu) >= c.threshold;
}

// Which of a lane's weights are kept, of 16 x 16 as two products of a tensor core left them: `row` and `row` + 8, columns
// `even` and `odd` and 8 behind them. Rows are queries and columns keys, or, TURNED, the other way round.
//
// With SHARED 0 all are of one block. Else two lanes, whose numbers differ in that bit, need halves of two blocks, by the
// parity of their key, which is that bit: each draws one of them, and they exchange halves.
template <bool TURNED, int SHARED>
DEVICE void find_kept(const Coins &c, bool (&kept)[2][4], int row, int even, int odd) {
    u32 bits[2][2] = {{0, 0}, {0, 0}};  // [column][row], of the keys or queries 8 behind in the upper half
    if (DROP) {
        const bool second = SHARED && (threadIdx.x & SHARED);
        const int col = second ? odd : even;
        const Words w = TURNED ? coins_at(c, col, row) : coins_at(c, row, col);
        const u32 a = w.at[0], x = TURNED ? w.at[2] : w.at[1], y = TURNED ? w.at[1] : w.at[2], z = w.at[3];
        // Halves of the four words, low and high: of row and of row + 8, each with column and column + 8.
        const u32 low[2] = {__byte_perm(a, x, 0x5410), __byte_perm(y, z, 0x5410)};
        const u32 high[2] = {__byte_perm(a, x, 0x7632), __byte_perm(y, z, 0x7632)};
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            if (SHARED) {
                const u32 mine = second ? high[half] : low[half];
                const u32 other = __shfl_xor_sync(FULL_MASK, second ? low[half] : high[half], SHARED);
                bits[0][half] = second ? other : mine;
                bits[1][half] = second ? mine : other;
            } else {
                bits[0][half] = low[half];
                bits[1][half] = high[half];
            }
        }
    }
#pragma unroll
    for (int n = 0; n < 2; ++n)
#pragma unroll
        for (int e = 0; e < 4; ++e) {
            const u32 pair = bits[e % 2][e / 2];
            kept[n][e] = !DROP || (n ? pair >> 16 : pair & 0xffffu) >= c.threshold;
        }
}

// What dropout leaves of the gradient of a weight, and what the result is multiplied by.
DEVICE C left_of(const Attention &p, C x, bool kept) { return !DROP ? x : kept ? x * (C)p.left : (C)0; }
DEVICE C left_factor(const Attention &p) { return DROP ? (C)p.left : (C)1; }

#if TIER >= 80
// What the kernels for tensor cores share besides: four lanes have a row of a product.
DEVICE float quad_sum(float x) {
    x += __shfl_xor_sync(FULL_MASK, x, 1);
    return x + __shfl_xor_sync(FULL_MASK, x, 2);
}
DEVICE float quad_larger(float x) {
    x = larger(x, __shfl_xor_sync(FULL_MASK, x, 1));
    return larger(x, __shfl_xor_sync(FULL_MASK, x, 2));
}
DEVICE void wait_for_copies() { asm volatile("cp.async.wait_all;" ::: "memory"); }
#endif
