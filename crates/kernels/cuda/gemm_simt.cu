// Matrix products by scalar arithmetic: every type, every tier.
//
// A block computes a tile of BM x BN in steps of BK, a thread TM x TN of it. Both operands lie in shared memory as
// [k][row], in the type of the sum, two steps deep. A_K (B_K) is 1 if consecutive k are neighbours in the memory of a
// (b), 0 if consecutive rows are; A_VEC (B_VEC) elements are loaded at once. With 1 element, any strides will do.
// SPLIT: k is cut into shares of different blocks (blockIdx.y).

#define THREADS ((BM / TM) * (BN / TN))

#if TIER >= 80
static constexpr bool ASYNC = Same<T, Acc>::value;
#else
static constexpr bool ASYNC = false;
#endif

// Loads tiles of ROWS rows by BK. All sizes are powers of two, so that an item's place is the sum of its thread's place
// and a constant.
template <int ROWS, int KMAJOR, int VEC> struct Loader {
    static constexpr int PITCH = ROWS + 16 / (int)sizeof(Acc);
    static constexpr int PER_LINE = (KMAJOR ? BK : ROWS) / VEC;
    static constexpr int LINES = KMAJOR ? ROWS : BK;
    static constexpr int TOTAL = LINES * PER_LINE;
    static constexpr int ITEMS = TOTAL < THREADS ? 1 : TOTAL / THREADS;
    // Vectors along k that neighbouring threads take before they go to the next row: 8 elements, so that a warp stores to
    // different banks.
    static constexpr int WIDE = KMAJOR ? (VEC >= 8 ? 1 : 8 / VEC < PER_LINE ? 8 / VEC : PER_LINE) : PER_LINE;
    // One element at a time is transposed on the way; along rows vectors stay vectors.
    static constexpr bool COPIES = ASYNC && (!KMAJOR || VEC == 1);

    const T *from;
    i64 row_stride, k_stride;
    int row0, k0, rows;
    Vec<T, VEC> held[ITEMS];

    static DEVICE int vector_of(int i) { return (i % WIDE) + WIDE * (i / (WIDE * LINES)); }
    static DEVICE int line_of(int i) { return i / WIDE % LINES; }
    static DEVICE int row_of(int i) { return KMAJOR ? line_of(i) : vector_of(i) * VEC; }
    static DEVICE int k_of(int i) { return KMAJOR ? vector_of(i) * VEC : line_of(i); }

    // `x` is the element of row 0 and the first k; `count` rows of the tile exist.
    DEVICE Loader(const T *x, i64 by_row, i64 by_k, i64 count) {
        row_stride = by_row;
        k_stride = by_k;
        row0 = row_of(threadIdx.x);
        k0 = k_of(threadIdx.x);
        rows = (int)smaller(count, ROWS);
        if (TOTAL < THREADS && threadIdx.x >= TOTAL) rows = 0;
        from = x + row0 * by_row + k0 * by_k;
    }

    // Starts to load the next tile, of which `left` k exist.
    DEVICE void fetch(Acc *tile, int left) {
        if (rows == ROWS && left >= BK) {
            fetch_whole(tile);
        } else if (TOTAL >= THREADS || threadIdx.x < TOTAL) {
#pragma unroll
            for (int i = 0; i < ITEMS; ++i) {
                const int dr = row_of(i * THREADS), dk = k_of(i * THREADS);
                const T *x = from + dr * row_stride + dk * k_stride;
                int row = row0 + dr, k = k0 + dk;
                int have = KMAJOR ? (row < rows ? left - k : 0) : (k < left ? rows - row : 0);
                if (COPIES) {
                    have = have < 0 ? 0 : have > VEC ? VEC : have;
                    copy_async<VEC * sizeof(T)>(tile + k * PITCH + row, have ? x : from_any(), have * (int)sizeof(T));
                } else if (VEC > 1 && have >= VEC) {
                    held[i] = *(const Vec<T, VEC> *)x;
                } else {
                    i64 step = VEC == 1 ? 0 : KMAJOR ? k_stride : row_stride;
#pragma unroll
                    for (int v = 0; v < VEC; ++v) held[i].at[v] = v < have ? x[v * step] : zero();
                }
            }
        }
        from += BK * k_stride;
    }

    // A tile without edges: bounds take more instructions than the loads do.
    DEVICE void fetch_whole(Acc *tile) {
        Acc *to = tile + k0 * PITCH + row0;
#pragma unroll
        for (int i = 0; i < ITEMS; ++i) {
            const int dr = row_of(i * THREADS), dk = k_of(i * THREADS);
            const T *x = from + dr * row_stride + dk * k_stride;
            if (COPIES) {
                copy_async<VEC * sizeof(T)>(to + dk * PITCH + dr, x);
            } else {
                held[i] = *(const Vec<T, VEC> *)x;
            }
        }
    }

    // Puts what `fetch` holds in registers into the tile.
    DEVICE void store(Acc *tile) {
        if (TOTAL < THREADS && threadIdx.x >= TOTAL) return;
#pragma unroll
        for (int i = 0; i < (COPIES ? 0 : ITEMS); ++i) {
            Acc *to = tile + (k0 + k_of(i * THREADS)) * PITCH + row0 + row_of(i * THREADS);
            if (KMAJOR) {
#pragma unroll
                for (int v = 0; v < VEC; ++v) to[v * PITCH] = convert<Acc>(held[i].at[v]);
            } else {
                const int WORD = VEC < 16 / (int)sizeof(Acc) ? VEC : 16 / (int)sizeof(Acc);
#pragma unroll
                for (int v = 0; v < VEC; v += WORD) {
                    Vec<Acc, WORD> word;
#pragma unroll
                    for (int w = 0; w < WORD; ++w) word.at[w] = convert<Acc>(held[i].at[v + w]);
                    *(Vec<Acc, WORD> *)(to + v) = word;
                }
            }
        }
    }

    // An address for copies of nothing: never read, but it has to be global memory.
    DEVICE const T *from_any() const { return from; }
    static DEVICE T zero() { return convert<T>((Acc)0); }
};

static constexpr int MOST = 16 / (int)sizeof(Acc);
static constexpr int VM = TM < MOST ? TM : MOST;
static constexpr int VN = TN < MOST ? TN : MOST;

template <int N, int V, int LANES> DEVICE void fragment(Acc (&to)[N], const Acc *line) {
#pragma unroll
    for (int i = 0; i < N; i += V) {
        Vec<Acc, V> v = *(const Vec<Acc, V> *)(line + i * LANES);
#pragma unroll
        for (int j = 0; j < V; ++j) to[i + j] = v.at[j];
    }
}

// Kepler compiles to more registers, and would spill to fit two blocks.
#define BOUNDS __launch_bounds__(THREADS, TM *TN == 64 && TIER >= 70 ? 2 : 1)

// The block of tile `tile` that takes `share` of its k.
DEVICE void product(const T *a, const T *b, const T *bias, T *c, T *pre, Acc *partial, u32 *counters, const Problem &p,
                    i32 tile, i32 share, i64 batch) {
    typedef Loader<BM, A_K, A_VEC> LoadA;
    typedef Loader<BN, B_K, B_VEC> LoadB;
    __shared__ __align__(16) Acc tiles_a[2][BK * LoadA::PITCH];
    __shared__ __align__(16) Acc tiles_b[2][BK * LoadB::PITCH];

    i32 tm, tn;
    tile_of(p, tile, tm, tn);
    i64 m0 = (i64)tm * BM, n0 = (i64)tn * BN, at_a, at_b;
    lead_offsets(p, batch, at_a, at_b);
    i64 k = SPLIT ? share * p.k_split : 0, k_end = SPLIT ? smaller(p.k, k + p.k_split) : p.k;
    LoadA load_a(a + at_a + m0 * p.a_row + k * p.a_k, p.a_row, p.a_k, p.m - m0);
    LoadB load_b(b + at_b + n0 * p.b_row + k * p.b_k, p.b_row, p.b_k, p.n - n0);

    // Lanes of a warp in 4 rows and 8 columns, two rows interleaved, so that a quarter of a warp reads few words.
    int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
    const int WARPS_N = BN / (8 * TN);
    int row = warp / WARPS_N * (4 * TM) + (lane / 16 * 2 + lane % 2) * VM;
    int col = warp % WARPS_N * (8 * TN) + lane / 2 % 8 * VN;

    Acc acc[TM * TN];
#pragma unroll
    for (int i = 0; i < TM * TN; ++i) acc[i] = (Acc)0;

    if (k < k_end) {
        int left = (int)smaller(k_end - k, BK);
        load_a.fetch(tiles_a[0], left);
        load_b.fetch(tiles_b[0], left);
        copy_commit();
        load_a.store(tiles_a[0]);
        load_b.store(tiles_b[0]);
        copy_wait<0>();
        __syncthreads();
    }
    for (int now = 0; k < k_end; k += BK, now ^= 1) {
        int left = (int)smaller(k_end - k - BK, BK);
        if (left > 0) {
            load_a.fetch(tiles_a[now ^ 1], left);
            load_b.fetch(tiles_b[now ^ 1], left);
            copy_commit();
        }
        Acc x[2][TM], y[2][TN];
        const Acc *ta = tiles_a[now] + row, *tb = tiles_b[now] + col;
        fragment<TM, VM, 4>(x[0], ta);
        fragment<TN, VN, 8>(y[0], tb);
#pragma unroll
        for (int s = 0; s < BK; ++s) {
            if (s + 1 < BK) {
                fragment<TM, VM, 4>(x[(s + 1) & 1], ta + (s + 1) * LoadA::PITCH);
                fragment<TN, VN, 8>(y[(s + 1) & 1], tb + (s + 1) * LoadB::PITCH);
            }
#pragma unroll
            for (int i = 0; i < TM; ++i)
#pragma unroll
                for (int j = 0; j < TN; ++j) acc[i * TN + j] += x[s & 1][i] * y[s & 1][j];
        }
        // The other tile was last read before the barrier of the step before.
        if (left > 0) {
            load_a.store(tiles_a[now ^ 1]);
            load_b.store(tiles_b[now ^ 1]);
            copy_wait<0>();
        }
        __syncthreads();
    }

    if (SPLIT) {
        i64 slot = batch * ((i64)p.tiles_m * p.tiles_n) + tile;
        if (!combine<TM * TN, THREADS>(acc, partial, counters, p, slot, share)) return;
    }
    c += batch * p.c_batch;
    if (pre) pre += batch * p.c_batch;
#pragma unroll
    for (int j = 0; j < TN; j += VN) {
        i64 to_col = n0 + col + j * 8;
        Acc add[VN];
#pragma unroll
        for (int v = 0; v < VN; ++v) add[v] = bias_at(p, bias, to_col + v);
#pragma unroll
        for (int i = 0; i < TM; ++i) {
            Acc out[VN];
#pragma unroll
            for (int v = 0; v < VN; ++v) out[v] = acc[i * TN + j + v] + add[v];
            put<VN>(p, c, pre, m0 + row + i / VM * (4 * VM) + i % VM, to_col, out);
        }
    }
}
