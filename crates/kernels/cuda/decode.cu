// Text generation: a whole decoder-only transformer, token after token, in one launch. No block ends before the last token
// is chosen, so that neither a launch nor the host stands between two tokens.
//
// The blocks share the rows of every matrix: row r belongs to block r % BLOCKS. What one block computes all need next, so
// each phase ends by publishing its results and a barrier over all blocks:
//   queries, keys, values | attention | projection, residual | hidden | residual | .. | logits, best token
// Norms and embeddings are cheap: every block computes them for itself.
//
// SYNC says how blocks meet:
//   ALONE    one block; shared memory and __syncthreads
//   GRID     all blocks resident (a cooperative launch); results through device memory, an arrival counter
//   CLUSTER  one cluster (sm_90); results are stored into the shared memory of every block, which counts what has come
// Weights do not depend on the barrier, so their loads for the next phase are issued between arriving and waiting.
//
// Memory that other blocks write is read past the first-level cache (__ldcg), which is not coherent.
//
// Defines: T; SYNC, BLOCKS; DIM, LAYERS, HEADS, KV_HEADS, FF, VOCAB, CAPACITY; RMS, ROPE, GATED, ACT (0 gelu, 1 gelu_tanh,
// 2 relu, 3 silu); SPLITS: parts that the positions of a head are cut into; PACK: most elements of one load of a weight,
// for the alignment of the tensors; SAMPLE: 0 for the likeliest token always.

// ---- Matrix times vector

// This block's rows of a ROWS x K matrix times a vector in shared memory. LANES lanes share a row, so that a block has
// GROUPS rows at a time; a batch of rows is held in registers before it is used. V elements make one load.
template <int ROWS, int K, int V, int DEEP> struct Product {
    typedef Vec<T, V> Pack;
    static const int EACH = (ROWS + BLOCKS - 1) / BLOCKS;
    static const int LANES = EACH * 32 <= THREADS ? 32 : EACH * 16 <= THREADS ? 16 : 8;
    static const int GROUPS = THREADS / LANES;
    static const int PASSES = (EACH + GROUPS - 1) / GROUPS;
    static const int STEPS = (K + LANES * V - 1) / (LANES * V);
    static const int HELD = STEPS < DEEP ? STEPS : DEEP;
    static const int FIT = DEEP / HELD;
    static const int MANY = FIT < PASSES ? FIT : PASSES;
    static const int BATCHES = (PASSES + MANY - 1) / MANY;
    static const bool EVEN = K % (LANES * V) == 0;

    Pack held[MANY][HELD];
    float shift[MANY];

    static DEVICE int part() { return threadIdx.x % LANES; }
    // The m-th row of a batch; ROWS or more if there is none.
    static DEVICE int row(int batch, int m) {
        int group = threadIdx.x % WARP / LANES * WARPS + threadIdx.x / WARP;
        return ((batch * MANY + m) * GROUPS + group) * BLOCKS + blockIdx.x;
    }
    static DEVICE int column(int step) { return (step * LANES + part()) * V; }
    static DEVICE Pack pack(const T *weight, int row, int step) {
        Pack p;
#pragma unroll
        for (int j = 0; j < V; ++j) p.at[j] = convert<T>(0.f);
        if (row < ROWS && (EVEN || column(step) < K))
            p = load_constant((const Pack *)(weight + (size_t)row * K + column(step)));
        return p;
    }

    DEVICE void load(const T *weight, const T *bias, int batch) {
#pragma unroll
        for (int m = 0; m < MANY; ++m) {
            int r = row(batch, m);
#pragma unroll
            for (int s = 0; s < HELD; ++s) held[m][s] = pack(weight, r, s);
            shift[m] = bias && r < ROWS ? constant(bias + r) : 0.f;
        }
    }

    static DEVICE void accumulate(const Pack &p, const float *v, int step, float (&sum)[V]) {
        if (!EVEN && column(step) >= K) return;
        float x[V];
        read_shared<V>(v + column(step), x);
#pragma unroll
        for (int j = 0; j < V; ++j) sum[j] = fmaf(convert<float>(p.at[j]), x[j], sum[j]);
    }

    // Products of the batch that is held, with the bias: in all lanes of a row's group.
    DEVICE void dot(const T *weight, const float *v, int batch, float (&y)[MANY]) const {
#pragma unroll
        for (int m = 0; m < MANY; ++m) {
            float sum[V];
#pragma unroll
            for (int j = 0; j < V; ++j) sum[j] = 0.f;
#pragma unroll
            for (int s = 0; s < HELD; ++s) accumulate(pinned(held[m][s]), v, s, sum);
            if (STEPS > HELD) {
                int r = row(batch, m);
#pragma unroll 4
                for (int s = HELD; s < STEPS; ++s) accumulate(pack(weight, r, s), v, s, sum);
            }
            y[m] = sum[0];
#pragma unroll
            for (int j = 1; j < V; ++j) y[m] += sum[j];
        }
        // All rows of the batch at each step of the reduction: their shuffles overlap.
#pragma unroll
        for (int d = LANES / 2; d > 0; d /= 2) {
#pragma unroll
            for (int m = 0; m < MANY; ++m) y[m] += __shfl_xor_sync(FULL_MASK, y[m], d);
        }
#pragma unroll
        for (int m = 0; m < MANY; ++m) y[m] += shift[m];
    }
};

// Elements of one load: a power of two that divides the row, and what the tensors' alignment allows.
#define PACK_OF(K) ((K) % 8 == 0 && PACK >= 8 ? 8 : (K) % 4 == 0 && PACK >= 4 ? 4 : (K) % 2 == 0 && PACK >= 2 ? 2 : 1)
typedef Product<QKV, DIM, PACK_OF(DIM), DEPTH> Qkv;
typedef Product<DIM, DIM, PACK_OF(DIM), DEPTH> Proj;
typedef Product<FF, DIM, PACK_OF(DIM), GATED ? DEPTH / 2 : DEPTH> Fc1;
typedef Product<DIM, FF, PACK_OF(FF), DEPTH> Fc2;
typedef Product<VOCAB, DIM, PACK_OF(DIM), DEPTH> Head;

// ---- Norms

// Scale and shift of a norm, loaded ahead: element threadIdx.x + j THREADS.
struct Scale {
    static const int N = (DIM + THREADS - 1) / THREADS;
    float w[N], b[N];
    DEVICE void load(const T *weight, const T *bias) {
#pragma unroll
        for (int j = 0; j < N; ++j) {
            int i = threadIdx.x + j * THREADS;
            w[j] = i < DIM ? constant(weight + i) : 0.f;
            b[j] = i < DIM && bias ? constant(bias + i) : 0.f;
        }
    }
};

DEVICE float sum_of_block(float x) { return block_all<Sum>(x, shared_at(AT_SLOTS)); }

// The sum over x of (x - mean)^power. Every warp adds up all of a short vector itself, which saves two barriers.
template <int POWER> DEVICE float moment(const float *x, float mean) {
    const bool whole = DIM <= 1024;
    float sum = 0.f;
#pragma unroll 8
    for (int i = whole ? threadIdx.x % WARP : threadIdx.x; i < DIM; i += whole ? WARP : THREADS) {
        float d = x[i] - mean;
        sum += POWER == 1 ? d : d * d;
    }
    return whole ? warp_all<Sum>(sum) : sum_of_block(sum);
}

// x normalised, in v.
DEVICE void normalise(const Args &args, const Scale &scale) {
    const float *x = shared_at(AT_X);
    float *v = shared_at(AT_V);
    float mean = RMS ? 0.f : moment<1>(x, 0.f) / DIM;
    float rstd = 1.f / sqrtf(moment<2>(x, mean) / DIM + args.eps);
#pragma unroll
    for (int j = 0; j < Scale::N; ++j) {
        int i = threadIdx.x + j * THREADS;
        if (i < DIM) v[i] = stored(fmaf((x[i] - mean) * rstd, scale.w[j], scale.b[j]));
    }
    __syncthreads();
}

// ---- Phases

// The token's vector in x, and the angles of its position.
DEVICE void embed(const Args &args, u32 token, int past) {
    float *x = shared_at(AT_X), *turn = shared_at(AT_TURN);
    for (int i = threadIdx.x; i < DIM; i += THREADS) {
        float e = constant(args.tokens + (size_t)token * DIM + i);
        x[i] = args.positions ? stored(e + constant(args.positions + (size_t)past * DIM + i)) : e;
    }
    if (ROPE)
        for (int i = threadIdx.x; i < HEAD_DIM; i += THREADS)
            turn[i] = __ldg(args.turns + (size_t)past * HEAD_DIM + i);
    __syncthreads();
}

// Queries and keys turned by the position's angles, in this block's copy.
DEVICE void rotate() {
    const int half = HEAD_DIM / 2;
    float *qkv = shared_at(AT_QKV);
    const float *turn = shared_at(AT_TURN);
    for (int i = threadIdx.x; i < (HEADS + KV_HEADS) * half; i += THREADS) {
        float *at = qkv + i / half * HEAD_DIM + i % half;
        float a = at[0], b = at[half], c = turn[i % half], s = turn[half + i % half];
        at[0] = stored(a * c - b * s);
        at[half] = stored(b * c + a * s);
    }
    __syncthreads();
}

// A running softmax-weighted sum: largest score, sum of weights, weighted values (lane + 32 i).
struct Mix {
    static const int N = (HEAD_DIM + WARP - 1) / WARP;
    float max, sum, o[N];
};
// What a weight relative to one maximum is relative to another, which is at least as large.
DEVICE float rescale(float from, float to) { return from == -INF_F ? 0.f : expf(from - to); }

#define KEY_PACK (HEAD_DIM % 4 == 0 && PACK >= 4 ? 4 : HEAD_DIM % 2 == 0 && PACK >= 2 ? 2 : 1)

// q . key of the cached position `at` over the dims of this lane's eighth.
DEVICE float score(const float *q, const T *key, int part) {
    float s = 0.f;
#pragma unroll 4
    for (int d = part * KEY_PACK; d < HEAD_DIM; d += 8 * KEY_PACK) {
        Vec<T, KEY_PACK> k = load_shared_with_blocks((const Vec<T, KEY_PACK> *)(key + d));
#pragma unroll
        for (int j = 0; j < KEY_PACK; ++j) s = fmaf(q[d + j], convert<float>(k.at[j]), s);
    }
    return s;
}

// This warp's share of one head's positions. Position `past` is the new one, whose key and value are not in the cache yet.
DEVICE Mix mix(const float *q, const float *new_key, const float *new_value, const T *keys, const T *values, int past,
               int split) {
    const float scale = 1.f / sqrtf((float)HEAD_DIM);
    int lane = threadIdx.x % WARP, part = lane % 8;
    Mix mix;
    mix.max = -INF_F;
    mix.sum = 0.f;
#pragma unroll
    for (int i = 0; i < Mix::N; ++i) mix.o[i] = 0.f;
    for (int tile = threadIdx.x / WARP * SPLITS + split; tile * TILE <= past; tile += WARPS * SPLITS) {
        // Values first: they are on the way while the scores are computed.
        float v[TILE][Mix::N];
#pragma unroll
        for (int j = 0; j < TILE; ++j) {
#pragma unroll
            for (int i = 0; i < Mix::N; ++i) {
                int at = tile * TILE + j, d = lane + i * WARP;
                v[j][i] = at > past || d >= HEAD_DIM ? 0.f
                        : at == past ? new_value[d]
                        : convert<float>(load_shared_with_blocks(values + (size_t)at * HEAD_DIM + d));
            }
        }
        int at = tile * TILE + lane / 8;
        float s = 0.f;
        if (at < past) {
            s = score(q, keys + (size_t)at * HEAD_DIM, part);
        } else if (at == past) {
            for (int d = part; d < HEAD_DIM; d += 8) s = fmaf(q[d], new_key[d], s);
        }
        __syncwarp();
#pragma unroll
        for (int d = 4; d > 0; d /= 2) s += __shfl_xor_sync(FULL_MASK, s, d);
        s = at <= past ? s * scale : -INF_F;
        float max = mix.max, p = s;
        p = Max::of(p, __shfl_xor_sync(FULL_MASK, p, 8));
        p = Max::of(p, __shfl_xor_sync(FULL_MASK, p, 16));
        max = Max::of(max, p);
        p = rescale(s, max);
        float keep = rescale(mix.max, max), sum = p;
        sum += __shfl_xor_sync(FULL_MASK, sum, 8);
        sum += __shfl_xor_sync(FULL_MASK, sum, 16);
        mix.sum = fmaf(mix.sum, keep, sum);
        mix.max = max;
#pragma unroll
        for (int i = 0; i < Mix::N; ++i) mix.o[i] *= keep;
#pragma unroll
        for (int j = 0; j < TILE; ++j) {
            float weight = __shfl_sync(FULL_MASK, p, j * 8);
            if (tile * TILE + j <= past) {
#pragma unroll
                for (int i = 0; i < Mix::N; ++i) mix.o[i] = fmaf(weight, v[j][i], mix.o[i]);
            }
        }
    }
    return mix;
}

// Element d of several mixes together, `stride` floats apart, each as (sums.., max, sum of weights); divided by the sum of
// weights if `whole`. HEAD_DIM and HEAD_DIM + 1 stand for the maximum and the sum.
DEVICE float combined(const float *parts, int n, int stride, int d, bool whole) {
    float max = -INF_F, sum = 0.f, o = 0.f;
    for (int i = 0; i < n; ++i) max = Max::of(max, parts[i * stride + HEAD_DIM]);
    if (d == HEAD_DIM) return max;
    for (int i = 0; i < n; ++i) {
        float f = rescale(parts[i * stride + HEAD_DIM], max);
        sum = fmaf(f, parts[i * stride + HEAD_DIM + 1], sum);
        if (d < HEAD_DIM) o = fmaf(f, parts[i * stride + d], o);
    }
    return d > HEAD_DIM ? sum : whole ? stored(o / sum) : o;
}

// What attention publishes of a part.
#define ATTENDED_ITEMS (SPLITS == 1 ? HEAD_DIM : HEAD_DIM + 2)
#define ATTENDED (HEADS * SPLITS * ATTENDED_ITEMS)

// Attention of the new token, and its key and value into the cache. Of SPLITS parts of each head, block b has number b,
// b + BLOCKS, .. The result is published as combined() takes it, or the head's output if there is one part.
DEVICE void attend(const Args &args, const Barrier &barrier, T *cache, int past) {
    const float *qkv = shared_at(AT_QKV);
    float *parts = shared_at(AT_PARTS);
    int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    for (int task = blockIdx.x; task < HEADS * SPLITS; task += BLOCKS) {
        int head = task / SPLITS, split = task % SPLITS, group = head / (HEADS / KV_HEADS);
        const float *key = qkv + (HEADS + group) * HEAD_DIM, *value = key + KV_HEADS * HEAD_DIM;
        T *keys = cache + (size_t)group * CAPACITY * HEAD_DIM;
        T *values = keys + (size_t)KV_HEADS * CAPACITY * HEAD_DIM;
        Mix m = mix(qkv + head * HEAD_DIM, key, value, keys, values, past, split);
        float *own = parts + warp * (HEAD_DIM + 2);
#pragma unroll
        for (int i = 0; i < Mix::N; ++i)
            if (lane + i * WARP < HEAD_DIM) own[lane + i * WARP] = m.o[i];
        if (lane == 0) {
            own[HEAD_DIM] = m.max;
            own[HEAD_DIM + 1] = m.sum;
        }
        __syncthreads();
        for (int i = threadIdx.x; i < ATTENDED_ITEMS * COPIES; i += THREADS) {
            int item = i % ATTENDED_ITEMS;
            float x = combined(parts, WARPS, HEAD_DIM + 2, item, SPLITS == 1);
            store(args, barrier, AT_ATTENDED + task * ATTENDED_ITEMS + item, x, i / ATTENDED_ITEMS);
        }
        if (split == 0 && head % (HEADS / KV_HEADS) == 0) {
            for (int d = threadIdx.x; d < HEAD_DIM; d += THREADS) {
                keys[(size_t)past * HEAD_DIM + d] = convert<T>(key[d]);
                values[(size_t)past * HEAD_DIM + d] = convert<T>(value[d]);
            }
        }
        // Before the next task overwrites the parts.
        if (HEADS * SPLITS > BLOCKS) __syncthreads();
    }
}

// The attention's output as a vector in shared memory.
DEVICE const float *attended() {
    const float *from = shared_at(AT_ATTENDED);
    if (SPLITS == 1) return from;
    float *v = shared_at(AT_V);
    for (int i = threadIdx.x; i < DIM; i += THREADS) {
        const float *head = from + i / HEAD_DIM * SPLITS * (HEAD_DIM + 2);
        v[i] = combined(head, SPLITS, HEAD_DIM + 2, i % HEAD_DIM, true);
    }
    __syncthreads();
    return v;
}

DEVICE float activate(float x) {
#if ACT == 0
    return 0.5f * x + 0.5f * x * erff(x * 0.70710678118654752f);
#elif ACT == 1
    float cubic = fmaf(0.044715f * x * x, x, x);
    return x / (1.f + expf(-2.f * 0.7978845608028654f * cubic));
#elif ACT == 2
    return x < 0.f ? 0.f : x;
#else
    return x / (1.f + expf(-x));
#endif
}

DEVICE void queries_keys_values(const Args &args, const Barrier &barrier, const Layer &w, Qkv &product) {
    for (int b = 0; b < Qkv::BATCHES; ++b) {
        if (b > 0) product.load(w.qkv, w.qkv_bias, b);
        float y[Qkv::MANY];
        product.dot(w.qkv, shared_at(AT_V), b, y);
#pragma unroll
        for (int m = 0; m < Qkv::MANY; ++m) {
            int row = Qkv::row(b, m);
            if (row < QKV) publish(args, barrier, AT_QKV + row, stored(y[m]), Qkv::part(), Qkv::LANES);
        }
    }
}

// x += product(input): x[row] is used by the row's owner only, until the barrier.
template <typename P>
DEVICE void residual(const Args &args, const Barrier &barrier, const T *weight, const T *bias, const float *input,
                     P &product) {
    const float *x = shared_at(AT_X);
    for (int b = 0; b < P::BATCHES; ++b) {
        if (b > 0) product.load(weight, bias, b);
        float y[P::MANY];
        product.dot(weight, input, b, y);
#pragma unroll
        for (int m = 0; m < P::MANY; ++m)
            if (P::row(b, m) < DIM) y[m] = stored(x[P::row(b, m)] + stored(y[m]));
        // All lanes of a row's group have read x.
        __syncwarp();
#pragma unroll
        for (int m = 0; m < P::MANY; ++m)
            if (P::row(b, m) < DIM) publish(args, barrier, AT_X + P::row(b, m), y[m], P::part(), P::LANES);
    }
}

// The first layer of the feed-forward part, with the rows of its second half where it is gated.
struct Inner {
    Fc1 fc1;
#if GATED
    Fc1 value;
#endif
    DEVICE void load(const Layer &w, int batch) {
        fc1.load(w.fc1, w.fc1_bias, batch);
#if GATED
        value.load(w.fc1 + (size_t)FF * DIM, w.fc1_bias ? w.fc1_bias + FF : nullptr, batch);
#endif
    }
};

DEVICE void hidden(const Args &args, const Barrier &barrier, const Layer &w, Inner &inner) {
    const float *v = shared_at(AT_V);
    for (int b = 0; b < Fc1::BATCHES; ++b) {
        if (b > 0) inner.load(w, b);
        float y[Fc1::MANY];
        inner.fc1.dot(w.fc1, v, b, y);
#if GATED
        float value[Fc1::MANY];
        inner.value.dot(w.fc1 + (size_t)FF * DIM, v, b, value);
#endif
#pragma unroll
        for (int m = 0; m < Fc1::MANY; ++m) {
            int row = Fc1::row(b, m);
#if GATED
            float h = stored(stored(activate(stored(y[m]))) * stored(value[m]));
#else
            float h = stored(activate(y[m]));
#endif
            if (row < FF) publish(args, barrier, AT_HIDDEN + row, h, Fc1::part(), Fc1::LANES);
        }
    }
}

// ---- The choice of a token

// A float as an integer of the same order, in which -0 is below +0.
DEVICE u32 ordered(float x) {
    u32 bits = __float_as_uint(x);
    return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

// The largest of these is the token to take: the largest logit, and of equals the first. NaN and +inf come before all,
// the first of them before the others, with bit 0 set for NaN.
#define BAD 0xffffffffu
DEVICE u64 candidate(float logit, u32 token) {
    bool nan = logit != logit;
    if (nan || logit == INF_F) return (u64)BAD << 32 | (~token & 0x7fffffffu) << 1 | (nan ? 1u : 0u);
    // -0 equals 0.
    return (u64)ordered(logit + 0.f) << 32 | (u32)~token;
}

DEVICE u64 warp_max(u64 x) {
#pragma unroll
    for (int d = WARP / 2; d > 0; d /= 2) {
        u64 y = __shfl_xor_sync(FULL_MASK, x, d);
        if (y > x) x = y;
    }
    return x;
}

// Publishes this block's best token; under SAMPLE, stores all logits.
DEVICE void predict(const Args &args, Head &product) {
    u64 best = 0;
    for (int b = 0; b < Head::BATCHES; ++b) {
        if (b > 0) product.load(args.head, args.head_bias, b);
        float y[Head::MANY];
        product.dot(args.head, shared_at(AT_V), b, y);
#pragma unroll
        for (int m = 0; m < Head::MANY; ++m) {
            int row = Head::row(b, m);
            if (row >= VOCAB) continue;
            float logit = stored(y[m]);
            u64 c = candidate(logit, row);
            if (c > best) best = c;
            if (SAMPLE && Head::part() == 0) __stcg(args.logits + row, logit);
        }
    }
    __syncwarp();
    best = warp_max(best);
    u64 *slots = (u64 *)shared_at(AT_SLOTS);
    __syncthreads();
    if (threadIdx.x % WARP == 0) slots[threadIdx.x / WARP] = best;
    __syncthreads();
    if (threadIdx.x < WARP) {
        best = warp_max(threadIdx.x < WARPS ? slots[threadIdx.x] : 0);
        publish_fully(args, AT_CANDIDATES + 2 * blockIdx.x, best);
    }
}

// The best token of all blocks, after the barrier.
DEVICE u64 best_of_all(const Args &args) {
    u64 best = 0;
    for (int b = threadIdx.x % WARP; b < BLOCKS; b += WARP) {
        u64 c = published(args, AT_CANDIDATES + 2 * b);
        if (c > best) best = c;
    }
    __syncwarp();
    return warp_max(best);
}

#if SAMPLE
// Sampling is one block's work. Tokens have an order, as integers of which the largest comes first: by id, or by logit
// and then id. Every limit is then a search for the largest integer from which on enough tokens, or enough probability,
// have come; bit by bit, each a sum over the vocabulary.
struct Tally {
    static const int EACH = (VOCAB + THREADS - 1) / THREADS;
    // As many as registers hold; the rest comes from memory.
    static const int KEPT = EACH < 8 ? EACH : 8;
    float logit[KEPT];
    double weight[KEPT];

    static DEVICE int id_bits() { return VOCAB <= 1 ? 1 : 32 - __clz(VOCAB - 1); }
    static DEVICE u64 rank(float logit, int token, bool by_logit) {
        u64 id = VOCAB - 1 - token;
        return by_logit ? (u64)ordered(logit) << id_bits() | id : id;
    }

    DEVICE void load(const Args &args, float max) {
#pragma unroll
        for (int i = 0; i < KEPT; ++i) {
            int token = threadIdx.x + i * THREADS;
            logit[i] = token < VOCAB ? __ldcg(args.logits + token) : 0.f;
            weight[i] = likelihood(args, logit[i], max);
        }
        for (int token = threadIdx.x + KEPT * THREADS; token < VOCAB; token += THREADS)
            args.weights[token] = likelihood(args, __ldcg(args.logits + token), max);
    }

    static DEVICE double likelihood(const Args &args, float logit, float max) {
        return exp(((double)logit - (double)max) / args.temperature);
    }

    // Whether a token counts: from `from` on in the order, and not below `floor` by logit.
    static DEVICE double share(float l, double w, int token, u64 from, u64 floor, bool by_logit, bool count) {
        bool in = token < VOCAB && rank(l, token, by_logit) >= from && rank(l, token, true) >= floor;
        return in ? count ? 1. : w : 0.;
    }

    // Number of tokens, or their probability, from `from` on; the same in all threads.
    DEVICE double total(const Args &args, u64 from, u64 floor, bool by_logit, bool count) const {
        double sum = 0.;
#pragma unroll
        for (int i = 0; i < KEPT; ++i)
            sum += share(logit[i], weight[i], threadIdx.x + i * THREADS, from, floor, by_logit, count);
        for (int i = KEPT; i < EACH; ++i) {
            int token = threadIdx.x + i * THREADS;
            // A thread's own weights, which it wrote itself; logits are of other blocks.
            if (token < VOCAB)
                sum += share(__ldcg(args.logits + token), args.weights[token], token, from, floor, by_logit, count);
        }
        return block_all<Sum>(sum, (double *)shared_at(AT_SLOTS));
    }

    // The largest integer from which on there is `goal`, or more than that if `beyond`.
    DEVICE u64 search(const Args &args, double goal, bool beyond, u64 floor, bool by_logit, bool count) const {
        u64 found = 0;
        for (int bit = id_bits() + (by_logit ? 31 : -1); bit >= 0; --bit) {
            u64 next = found | 1ull << bit;
            double sum = total(args, next, floor, by_logit, count);
            if (beyond ? sum > goal : sum >= goal) found = next;
        }
        return found;
    }
};

DEVICE u32 sample(const Args &args, float max, double uniform) {
    Tally tally;
    tally.load(args, max);
    bool limited = args.top_k > 0 && args.top_k < VOCAB, nucleus = args.top_p < 1.;
    u64 floor = 0;
    if (limited) floor = tally.search(args, args.top_k, false, 0, true, true);
    if (nucleus) {
        double mass = tally.total(args, 0, floor, true, false);
        u64 least = tally.search(args, args.top_p * mass, false, floor, true, false);
        if (least > floor) floor = least;
    }
    bool by_logit = limited || nucleus;
    double mass = tally.total(args, 0, floor, by_logit, false);
    u64 drawn = tally.search(args, uniform * mass, true, floor, by_logit, false);
    return VOCAB - 1 - (u32)(drawn & ((1ull << Tally::id_bits()) - 1));
}
#endif

// ---- The kernel

#define STATUS_GOOD 0u
#define STATUS_NOT_FINITE 1u
#define STATUS_NONE 2u

// All blocks come to the same answer.
DEVICE u32 status_of(u64 best) {
    u32 logit = (u32)(best >> 32);
    return logit == BAD ? STATUS_NOT_FINITE : logit <= ordered(-INF_F) ? STATUS_NONE : STATUS_GOOD;
}

DEVICE void finish(const Args &args, int made, u64 best) {
    if (blockIdx.x != 0 || threadIdx.x != 0) return;
    args.out[0] = made;
    args.out[1] = made < args.count ? status_of(best) : STATUS_GOOD;
    args.out[2] = ~((u32)best >> 1) & 0x7fffffffu;
    args.out[3] = (u32)best & 1u;
}

// Loads what a layer begins with.
DEVICE void begin(const Layer &w, Qkv &qkv, Scale &scale) {
    scale.load(w.norm1, w.norm1_bias);
    qkv.load(w.qkv, w.qkv_bias, 0);
}

// One token through all layers: x in every block. `qkv` and `scale` hold the first layer's weights, loaded ahead; at the
// end `head` and `scale` those of the output.
DEVICE void pass(const Args &args, const Layer *layers, int past, Barrier &barrier, Qkv &qkv, Scale &scale, Head &head) {
    for (int layer = 0;; ++layer) {
        const Layer &w = layers[layer];
        normalise(args, scale);
        queries_keys_values(args, barrier, w, qkv);
        barrier.arrive(args, QKV);
        Proj proj;
        proj.load(w.proj, w.proj_bias, 0);
        barrier.wait(args);
        settle(args, AT_QKV, QKV);
        if (ROPE) rotate();
        attend(args, barrier, w.cache, past);
        barrier.arrive(args, ATTENDED);
        scale.load(w.norm2, w.norm2_bias);
        barrier.wait(args);
        settle(args, AT_ATTENDED, ATTENDED);
        residual(args, barrier, w.proj, w.proj_bias, attended(), proj);
        barrier.arrive(args, DIM);
        Inner inner;
        inner.load(w, 0);
        barrier.wait(args);
        settle(args, AT_X, DIM);
        normalise(args, scale);
        hidden(args, barrier, w, inner);
        barrier.arrive(args, FF);
        Fc2 fc2;
        fc2.load(w.fc2, w.fc2_bias, 0);
        barrier.wait(args);
        settle(args, AT_HIDDEN, FF);
        residual(args, barrier, w.fc2, w.fc2_bias, shared_at(AT_HIDDEN), fc2);
        barrier.arrive(args, DIM);
        if (layer + 1 == LAYERS) break;
        begin(layers[layer + 1], qkv, scale);
        barrier.wait(args);
        settle(args, AT_X, DIM);
    }
    scale.load(args.norm, args.norm_bias);
    head.load(args.head, args.head_bias, 0);
    barrier.wait(args);
    settle(args, AT_X, DIM);
}

KERNEL __launch_bounds__(THREADS, 1) decode(const Args args) {
    begin_kernel();
    u64 *table = (u64 *)shared_at(AT_LAYERS);
    for (int i = threadIdx.x; i < LAYERS * LAYER_WORDS; i += THREADS) table[i] = __ldg((const u64 *)args.layers + i);
    const Layer *layers = (const Layer *)table;
    Barrier barrier;
    barrier.init();
    // Nobody stores into the memory of a block that has not begun.
    barrier.arrive_fully(args);
    barrier.wait_fully(args);
    Qkv qkv;
    Scale scale;
    begin(layers[0], qkv, scale);
    u32 token = args.token;
    u64 best = 0;
    int made = 0;
    while (made < args.count) {
        embed(args, token, args.past + made);
        Head head;
        pass(args, layers, args.past + made, barrier, qkv, scale, head);
        normalise(args, scale);
        predict(args, head);
        barrier.arrive_fully(args);
#if !SAMPLE
        begin(layers[0], qkv, scale);
#endif
        barrier.wait_fully(args);
        best = best_of_all(args);
        if (status_of(best) != STATUS_GOOD) break;
        token = ~(u32)best;
#if SAMPLE
        if (blockIdx.x == 0) {
            u64 drawn = sample(args, __ldcg(args.logits + token), args.uniforms[made]);
            if (threadIdx.x < WARP) publish_fully(args, AT_CHOICE, drawn);
        }
        barrier.arrive_fully(args);
        begin(layers[0], qkv, scale);
        barrier.wait_fully(args);
        token = (u32)published(args, AT_CHOICE);
#endif
        if (blockIdx.x == 0 && threadIdx.x == 0) args.out[4 + made] = token;
        ++made;
    }
    finish(args, made, best);
}
