// What decode.cu stands on: sizes, arguments, loads, and how the blocks exchange what they computed.

#define ALONE 0
#define GRID 1
#define CLUSTER 2
#if SYNC == CLUSTER && TIER < 90
#error "clusters need tier 90"
#endif

// Fewer before Volta, for registers.
#define THREADS (TIER >= 70 ? 512 : 256)
#define WARPS (THREADS / WARP)
// 16-byte loads of weights that a thread has in flight.
#define DEPTH (TIER >= 70 && sizeof(T) == 4 ? 12 : 8)
#define HEAD_DIM (DIM / HEADS)
#define QKV ((HEADS + 2 * KV_HEADS) * HEAD_DIM)
// Positions that a warp takes at a time in attention, each by 8 lanes.
#define TILE 4
#define UP4(n) (((n) + 3) / 4 * 4)

struct Layer {
    const T *norm1, *norm1_bias, *qkv, *qkv_bias, *proj, *proj_bias;
    const T *norm2, *norm2_bias, *fc1, *fc1_bias, *fc2, *fc2_bias;
    // (2 KV_HEADS, CAPACITY, HEAD_DIM): keys, then values.
    T *cache;
};
#define LAYER_WORDS 13

struct Args {
    const Layer *layers;
    const T *tokens, *positions, *norm, *norm_bias, *head, *head_bias;
    // Cosines, then sines, of HEAD_DIM / 2 angles, a row a position.
    const float *turns;
    // GRID: a copy of the exchanged part of shared memory, and the arrival counter, 0 at the launch.
    float *exchange;
    u32 *arrived;
    // SAMPLE: room for VOCAB of each, and a number in [0, 1) for each token.
    float *logits;
    double *weights;
    const double *uniforms;
    // Tokens made, status, token and kind of a bad logit; then the tokens.
    u32 *out;
    double temperature, top_p;
    i32 top_k;
    float eps;
    u32 token;
    i32 past, count, unused;
};

// Offsets in shared memory, in floats. What ends before EXCHANGED is written by all blocks.
enum {
    AT_CANDIDATES = 0,
    AT_CHOICE = UP4(2 * BLOCKS),
    AT_X = AT_CHOICE + 4,
    AT_QKV = AT_X + UP4(DIM),
    AT_ATTENDED = AT_QKV + UP4(QKV),
    AT_HIDDEN = AT_ATTENDED + UP4(SPLITS * HEADS * (HEAD_DIM + 2)),
    EXCHANGED = AT_HIDDEN + UP4(FF),
    AT_V = EXCHANGED,
    AT_TURN = AT_V + UP4(DIM),
    AT_PARTS = AT_TURN + UP4(HEAD_DIM),
    AT_SLOTS = AT_PARTS + UP4(WARPS * (HEAD_DIM + 2)),
    AT_COUNTERS = AT_SLOTS + 2 * WARP,
    AT_LAYERS = AT_COUNTERS + 8
};

extern __shared__ uint4 shared_memory[];
DEVICE float *shared_at(int offset) { return (float *)shared_memory + offset; }

// ---- Loads

template <int BYTES> struct Bits;
template <> struct Bits<2> { typedef unsigned short Type; };
template <> struct Bits<4> { typedef unsigned int Type; };
template <> struct Bits<8> { typedef uint2 Type; };
template <> struct Bits<16> { typedef uint4 Type; };

// Memory that nobody writes while the kernel runs.
template <typename P> DEVICE P load_constant(const P *at) {
    typedef typename Bits<sizeof(P)>::Type B;
    union { B bits; P value; } u;
    u.bits = __ldg((const B *)at);
    return u.value;
}
// Memory that other blocks write.
template <typename P> DEVICE P load_shared_with_blocks(const P *at) {
    typedef typename Bits<sizeof(P)>::Type B;
    union { B bits; P value; } u;
    u.bits = __ldcg((const B *)at);
    return u.value;
}
// The same value, which the compiler cannot use earlier than here: it would convert what is held over a barrier to floats
// before, for which there are no registers.
template <typename P> DEVICE P pinned(const P &p) {
    union { P value; u32 words[(sizeof(P) + 3) / 4]; } u;
    u.value = p;
    if (sizeof(P) >= 4) {
#pragma unroll
        for (int i = 0; i < (int)sizeof(P) / 4; ++i) asm volatile("" : "+r"(u.words[i]));
    }
    return u.value;
}
DEVICE float constant(const T *at) { return convert<float>(load_constant(at)); }
// An op's result as the next op gets it: rounded to the dtype of activations.
DEVICE float stored(float x) { return convert<float>(convert<T>(x)); }

// N values of shared memory, aligned to as many, or to 4.
template <int N> DEVICE void read_shared(const float *at, float (&x)[N]) {
    typedef Vec<float, (N < 4 ? N : 4)> V;
#pragma unroll
    for (int i = 0; i < N; i += N < 4 ? N : 4) {
        V v = *(const V *)(at + i);
#pragma unroll
        for (int j = 0; j < (N < 4 ? N : 4); ++j) x[i + j] = v.at[j];
    }
}

// ---- Exchange

#if SYNC == CLUSTER
// The address, in the shared memory of a block of the cluster, of what is at `offset` floats there.
DEVICE u32 remote(int offset, int rank) {
    u32 address;
    asm("mapa.shared::cluster.u32 %0, %1, %2;"
        : "=r"(address) : "r"((u32)__cvta_generic_to_shared(shared_at(offset))), "r"(rank));
    return address;
}
// Stores to another block, and tells its arrival counter so.
DEVICE void store_and_tell(int offset, float x, int counter, int rank) {
    asm volatile("st.async.weak.shared::cluster.mbarrier::complete_tx::bytes.b32 [%0], %1, [%2];"
                 ::"r"(remote(offset, rank)), "r"(__float_as_uint(x)), "r"(remote(counter, rank)) : "memory");
}
DEVICE void store_remote(int offset, u64 x, int rank) {
    asm volatile("st.shared::cluster.u64 [%0], %1;" ::"r"(remote(offset, rank)), "l"(x) : "memory");
}
DEVICE void counter_init(int counter) {
    u32 at = (u32)__cvta_generic_to_shared(shared_at(counter));
    asm volatile("mbarrier.init.shared::cta.b64 [%0], 1;\n\tfence.mbarrier_init.release.cluster;" ::"r"(at) : "memory");
}
DEVICE void counter_expect(int counter, u32 bytes) {
    u32 at = (u32)__cvta_generic_to_shared(shared_at(counter));
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(at), "r"(bytes) : "memory");
}
DEVICE bool counter_done(int counter, u32 parity) {
    u32 at = (u32)__cvta_generic_to_shared(shared_at(counter)), done;
    asm volatile("{\n\t.reg .pred p;\n\t"
                 "mbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2;\n\tselp.u32 %0, 1, 0, p;\n\t}"
                 : "=r"(done) : "r"(at), "r"(parity) : "memory");
    return done;
}
DEVICE void cluster_arrive() {
    __syncwarp();
    asm volatile("barrier.cluster.arrive.release.aligned;" ::: "memory");
}
DEVICE void cluster_wait() {
    __syncwarp();
    asm volatile("barrier.cluster.wait.acquire.aligned;" ::: "memory");
}
#endif

// Blocks that a published value is stored to.
#define COPIES (SYNC == CLUSTER ? BLOCKS : 1)
#define COUNTERS 4

// A barrier over all threads of all blocks, in two halves. What was published before `arrive` can be read after `wait`
// (and `settle`). There are two kinds.
//
// The full one orders all memory, and is passed once a token: the cache of keys and values relies on it.
//
// The other one orders published floats only. In a cluster it is no meeting: a block waits until as many bytes as it
// expects have come into its shared memory, and so may run ahead of others. That is safe because:
// - A block that publishes in a phase has seen all results of the phase before, so every block has then sent those. Two
//   blocks are at most one phase apart in what they send, and a counter is used again four phases later.
// - No warp waits at a counter that has gone round: of three phases that follow each other, one begins with normalise(),
//   where the whole block meets. For the same reason no warp still reads a vector when the next layer's is published:
//   between its use and that there is a normalise(), after which all blocks have sent.
struct Barrier {
    u32 goal, phase;

    DEVICE void init() {
        goal = phase = 0;
#if SYNC == CLUSTER
        if (threadIdx.x == 0)
            for (int i = 0; i < COUNTERS; ++i) counter_init(AT_COUNTERS + 2 * i);
#endif
    }
#if SYNC == CLUSTER
    DEVICE int counter() const { return AT_COUNTERS + phase % COUNTERS * 2; }
#endif
    DEVICE void arrive(const Args &args, u32 floats) {
#if SYNC == CLUSTER
        if (threadIdx.x == 0) counter_expect(counter(), floats * 4);
#else
        arrive_fully(args);
#endif
    }
    DEVICE void wait(const Args &args) {
#if SYNC == CLUSTER
        while (!counter_done(counter(), phase / COUNTERS % 2)) {}
        ++phase;
        __syncwarp();
#else
        wait_fully(args);
#endif
    }
    DEVICE void arrive_fully(const Args &args) {
#if SYNC == CLUSTER
        cluster_arrive();
#elif SYNC == GRID
        goal += BLOCKS;
        __syncthreads();
        if (threadIdx.x == 0) {
            __threadfence();
            atomicAdd(args.arrived, 1u);
        }
#endif
    }
    DEVICE void wait_fully(const Args &args) {
#if SYNC == CLUSTER
        cluster_wait();
#elif SYNC == GRID
        if (threadIdx.x == 0) {
            while ((i32)(*(volatile u32 *)args.arrived - goal) < 0) {}
            __threadfence();
        }
        __syncthreads();
#else
        __syncthreads();
#endif
    }
};

// Publishes x at an offset of shared memory: to copy `copy` of COPIES.
DEVICE void store(const Args &args, const Barrier &barrier, int at, float x, int copy) {
#if SYNC == CLUSTER
    store_and_tell(at, x, barrier.counter(), copy);
#elif SYNC == GRID
    __stcg(args.exchange + at, x);
#else
    *shared_at(at) = x;
#endif
}
// Publishes a value that `lanes` lanes hold, of which this is number `part`.
DEVICE void publish(const Args &args, const Barrier &barrier, int at, float x, int part, int lanes) {
    for (int copy = part; copy < COPIES; copy += lanes) store(args, barrier, at, x, copy);
}
// The same for a whole warp and the full barrier.
DEVICE void publish_fully(const Args &args, int at, u64 x) {
    for (int copy = threadIdx.x % WARP; copy < COPIES; copy += WARP) {
#if SYNC == CLUSTER
        store_remote(at, x, copy);
#elif SYNC == GRID
        __stcg((u64 *)(args.exchange + at), x);
#else
        *(u64 *)shared_at(at) = x;
#endif
    }
}
// What publish_fully() put there, after the barrier.
DEVICE u64 published(const Args &args, int at) {
#if SYNC == GRID
    return __ldcg((const u64 *)(args.exchange + at));
#else
    return *(const u64 *)shared_at(at);
#endif
}

// Makes `n` published floats readable in shared memory, after the barrier.
DEVICE void settle(const Args &args, int at, int n) {
#if SYNC == GRID
    for (int i = threadIdx.x; i < n; i += THREADS) *shared_at(at + i) = __ldcg(args.exchange + at + i);
    __syncthreads();
#endif
}
