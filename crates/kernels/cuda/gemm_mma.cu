// Matrix products on tensor cores by mma.sync: f16 (tier 75 and up), bf16 and tf32 (tier 80 and up), summed in f32.
//
// A block computes a tile of BM x BN in steps of BK, a warp WM x WN of it. Shared memory holds STAGES steps of both
// operands as they lie in memory: [row][k] if consecutive k are neighbours (A_K, B_K = 1), else [k][row]. Lines are cut into
// chunks of 16 bytes, swizzled by an XOR with the line, so that ldmatrix reads without bank conflicts. A_VEC (B_VEC)
// elements are loaded at once; with 1, any strides will do. SPLIT: k is cut into shares of different blocks.
// T = float means tf32: operands are rounded to 10 bits of mantissa.

#if TIER >= 75
#define THREADS ((BM / WM) * (BN / WN) * WARP)
static constexpr bool TF32 = Same<T, float>::value;
static constexpr int MI = WM / 16, NI = WN / 8;
// One mma takes 32 bytes of k of each row.
static constexpr int STEPS = BK * (int)sizeof(T) / 32;
static_assert(STEPS % 2 == 0 && WM % 16 == 0 && WN % 16 == 0, "fragments alternate between two sets");

// <instructions>
DEVICE void load_matrices(u32 (&r)[4], const void *from) {
    u32 at = (u32)__cvta_generic_to_shared(from);
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(at) : "memory");
}
DEVICE void load_transposed(u32 (&r)[4], const void *from) {
    u32 at = (u32)__cvta_generic_to_shared(from);
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(at) : "memory");
}
#define MMA(SHAPE, TYPES) \
    asm volatile("mma.sync.aligned." SHAPE ".row.col.f32." TYPES ".f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};" \
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3]) \
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]))
#define MMA_HALF(A0, A1, B0) \
    asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5}, {%6}, {%0,%1,%2,%3};" \
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3]) : "r"(A0), "r"(A1), "r"(B0))
DEVICE void multiply(f16, float *c, const u32 (&a)[4], const u32 *b) {
#if TIER >= 80
    MMA("m16n8k16", "f16.f16");
#else
    MMA_HALF(a[0], a[1], b[0]);
    MMA_HALF(a[2], a[3], b[1]);
#endif
}
#if TIER >= 80
DEVICE void multiply(bf16, float *c, const u32 (&a)[4], const u32 *b) { MMA("m16n8k16", "bf16.bf16"); }
DEVICE void multiply(float, float *c, const u32 (&a)[4], const u32 *b) { MMA("m16n8k8", "tf32.tf32"); }
DEVICE u32 round_tf32(u32 x) {
    u32 y;
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(y) : "f"(__uint_as_float(x)));
    return y;
}
#else
DEVICE u32 round_tf32(u32 x) { return x; }
#endif
// </instructions>

// A tile of ROWS rows by BK in shared memory: how it is loaded, and how fragments are read from it.
template <int ROWS, int KMAJOR, int VEC> struct Operand {
    static constexpr int LINE = KMAJOR ? BK : ROWS;
    static constexpr int LINES = KMAJOR ? ROWS : BK;
    static constexpr int LINE_BYTES = LINE * (int)sizeof(T);
    static constexpr int CHUNKS = LINE_BYTES / 16;
    static constexpr int BYTES = LINES * LINE_BYTES;
    static constexpr int PER_LINE = LINE / VEC;
    static constexpr int TOTAL = LINES * PER_LINE;
    static constexpr int ITEMS = TOTAL < THREADS ? 1 : TOTAL / THREADS;
    // A thread's items lie in one column, so many lines apart.
    static constexpr int APART = THREADS / PER_LINE;
    static_assert(THREADS >= PER_LINE, "the threads take whole lines");
#if TIER >= 80
    static constexpr bool COPIES = VEC * sizeof(T) >= 4;
#else
    static constexpr bool COPIES = false;
#endif

    static constexpr int COPY = VEC * sizeof(T) >= 4 ? VEC * (int)sizeof(T) : 4;

    const T *from;
    i64 row_stride, k_stride;
    int line0, x0, rows, place;
    Vec<T, VEC> held[ITEMS];

    // Which chunks of a line change places. Eight lines of one chunk lie in different banks; for tf32 lines of k, which
    // are read word by word, four lines of eight words.
    static DEVICE int swizzle(int line) {
        if (TF32 && !KMAJOR) return CHUNKS >= 8 ? (line & 3) << 1 : line & (CHUNKS - 1) & 3;
        return CHUNKS >= 8 ? line & 7 : CHUNKS == 4 ? line >> 1 & 3 : CHUNKS == 2 ? line >> 2 & 1 : 0;
    }
    static DEVICE int byte_of(int line, int x) {
        int at = x * (int)sizeof(T);
        return line * LINE_BYTES + (((at >> 4) ^ swizzle(line)) << 4) + (at & 15);
    }

    // `x` is the element of row 0 and the first k; `count` rows of the tile exist.
    DEVICE Operand(const T *x, i64 by_row, i64 by_k, i64 count) {
        row_stride = !KMAJOR && VEC > 1 ? 1 : by_row;
        k_stride = KMAJOR && VEC > 1 ? 1 : by_k;
        line0 = threadIdx.x / PER_LINE;
        x0 = threadIdx.x % PER_LINE * VEC;
        rows = (int)smaller(count, ROWS);
        place = byte_of(line0, x0);
        from = x + (KMAJOR ? line0 : x0) * row_stride + (KMAJOR ? x0 : line0) * k_stride;
    }

    // Where item `i` lies in a tile. Most steps between items leave the swizzle as it is.
    DEVICE int place_of(int i) const {
        const bool same = APART % 8 == 0 || (TF32 && !KMAJOR && APART % 4 == 0);
        return same ? place + i * APART * LINE_BYTES : byte_of(line0 + i * APART, x0);
    }

    // Starts to load the next tile, of which `left` k exist.
    DEVICE void fetch(char *tile, int left) {
        if (TOTAL >= THREADS || threadIdx.x < TOTAL) {
            const i64 step = (KMAJOR ? row_stride : k_stride) * APART;
            const T *x = from;
            if (COPIES && VEC > 1 && rows == ROWS && left >= BK) {
                // Bounds would cost more instructions than the products do.
#pragma unroll
                for (int i = 0; i < ITEMS; ++i, x += step) copy_async<COPY>(tile + place_of(i), x);
            } else {
                fetch_part(tile, left, x, step);
            }
        }
        from += BK * k_stride;
    }

    // The same for what may lie over an edge.
    DEVICE void fetch_part(char *tile, int left, const T *x, i64 step) {
#pragma unroll
        for (int i = 0; i < ITEMS; ++i, x += step) {
            int have = line0 + i * APART < (KMAJOR ? rows : left) ? (KMAJOR ? left : rows) - x0 : 0;
            if (COPIES) {
                have = have < 0 ? 0 : have > VEC ? VEC : have;
                copy_async<COPY>(tile + place_of(i), have ? x : from, have * (int)sizeof(T));
            } else if (VEC > 1 && have >= VEC) {
                held[i] = *(const Vec<T, VEC> *)x;
            } else {
#pragma unroll
                for (int v = 0; v < VEC; ++v) held[i].at[v] = v < have ? x[v] : convert<T>(0.f);
            }
        }
    }

    // Puts what `fetch` holds in registers into the tile.
    DEVICE void store(char *tile) {
        if (TOTAL < THREADS && threadIdx.x >= TOTAL) return;
#pragma unroll
        for (int i = 0; i < (COPIES ? 0 : ITEMS); ++i) {
            *(Vec<T, VEC> *)(tile + place_of(i)) = held[i];
        }
    }

    // One word of a tf32 tile that is not K-major.
    static DEVICE u32 word(const char *tile, int k, int row) { return *(const u32 *)(tile + byte_of(k, row)); }

    // Rows `row` to `row + 15` at product `s` of the step, as the left operand of an mma: (rows 0-7, first half of k),
    // (8-15, first), (0-7, second), (8-15, second).
    static DEVICE void left_operand(u32 (&r)[4], const char *tile, int row, int s) {
        int lane = threadIdx.x % WARP;
        if (KMAJOR) {
            load_matrices(r, tile + byte_of(row + lane % 16, (2 * s + lane / 16) * (16 / (int)sizeof(T))));
        } else if (!TF32) {
            load_transposed(r, tile + byte_of(16 * s + lane % 8 + lane / 16 * 8, row + lane / 8 % 2 * 8));
        } else {
            int k = 8 * s + lane % 4, at = row + lane / 4;
            r[0] = word(tile, k, at);
            r[1] = word(tile, k, at + 8);
            r[2] = word(tile, k + 4, at);
            r[3] = word(tile, k + 4, at + 8);
        }
        round(r);
    }

    // Rows `row` to `row + 15` as two right operands: (0-7, first), (0-7, second), (8-15, first), (8-15, second).
    static DEVICE void right_operand(u32 (&r)[4], const char *tile, int row, int s) {
        int lane = threadIdx.x % WARP;
        if (KMAJOR) {
            int line = row + lane % 8 + lane / 16 * 8;
            load_matrices(r, tile + byte_of(line, (2 * s + lane / 8 % 2) * (16 / (int)sizeof(T))));
        } else if (!TF32) {
            load_transposed(r, tile + byte_of(16 * s + lane % 16, row + lane / 16 * 8));
        } else {
            int k = 8 * s + lane % 4, at = row + lane / 4;
            r[0] = word(tile, k, at);
            r[1] = word(tile, k + 4, at);
            r[2] = word(tile, k, at + 8);
            r[3] = word(tile, k + 4, at + 8);
        }
        round(r);
    }

    // Here and not before use: measured, a fifth faster for warps of 64 x 64.
    static DEVICE void round(u32 (&r)[4]) {
        if (TF32) {
#pragma unroll
            for (int i = 0; i < 4; ++i) r[i] = round_tf32(r[i]);
        }
    }
};

typedef Operand<BM, A_K, A_VEC> OperandA;
typedef Operand<BN, B_K, B_VEC> OperandB;

struct Fragments {
    u32 a[MI][4];
    u32 b[NI / 2][4];

    DEVICE void load(const char *stage, int row, int col, int s) {
#pragma unroll
        for (int i = 0; i < MI; ++i) OperandA::left_operand(a[i], stage, row + 16 * i, s);
#pragma unroll
        for (int j = 0; j < NI / 2; ++j) OperandB::right_operand(b[j], stage + OperandA::BYTES, col + 16 * j, s);
    }
};

// Results go to memory by way of shared memory, GROUP x 16 rows of a warp at a time. Fragments lie scattered: stored from
// registers they would be half sectors, and the code of bias, activation and bounds, once for each of them, would be more
// than instruction caches hold.
static constexpr int STAGE = OperandA::BYTES + OperandB::BYTES;
static constexpr int SLICE = THREADS / WARP * 16 * WN * (int)sizeof(float);
static constexpr int GROUP = MI * SLICE <= STAGES * STAGE ? MI : MI / 2 * SLICE <= STAGES * STAGE ? MI / 2 : 1;
static_assert(GROUP > 0 && GROUP * SLICE <= STAGES * STAGE, "the stages have room for results");

// One warp's part of them: rows of WN, chunks of 16 bytes swizzled against bank conflicts.
struct Slab {
    static constexpr int ROWS = GROUP * 16;
    static constexpr int WIDTH = 16 / (int)sizeof(T);
    float *at;

    static DEVICE int index(int row, int x) {
        int swizzle = WN >= 32 ? (row & 3) << 1 : (row >> 1 & 1) << 1;
        return row * WN + (((x >> 2) ^ swizzle) << 2) + (x & 3);
    }

    DEVICE void take(const Acc *acc) {
        int lane = threadIdx.x % WARP;
#pragma unroll
        for (int i = 0; i < GROUP; ++i)
#pragma unroll
            for (int j = 0; j < NI; ++j) {
                const Acc *v = acc + (i * NI + j) * 4;
                int row = i * 16 + lane / 4, x = j * 8 + lane % 4 * 2;
                *(Vec<float, 2> *)(at + index(row, x)) = Vec<float, 2>{{v[0], v[1]}};
                *(Vec<float, 2> *)(at + index(row + 8, x)) = Vec<float, 2>{{v[2], v[3]}};
            }
    }

    // Writes the slab, whose first element is that of `row` and `col`.
    DEVICE void put(const Problem &p, const T *bias, T *c, T *pre, i64 row, i64 col) const {
        if (p.vector >= WIDTH) {
            put_vectors(p, bias, c, pre, row, col);
        } else {
            put_elements(p, bias, c, pre, row, col);
        }
    }

    DEVICE void put_vectors(const Problem &p, const T *bias, T *c, T *pre, i64 row, i64 col) const {
        const int LANES = WN / WIDTH, STEP = WARP / LANES;
        int r = threadIdx.x % WARP / LANES, x = threadIdx.x % LANES * WIDTH;
        col += x;
        int rows = (int)smaller(p.m - row, ROWS);
        if (col >= p.n) return;
        Acc add[WIDTH];
#pragma unroll
        for (int i = 0; i < WIDTH; ++i) add[i] = bias_at(p, bias, col + i);
        i64 to = (row + r) * p.c_row + col;
#pragma unroll ACT ? 1 : 2
        for (; r < rows; r += STEP, to += STEP * p.c_row) {
            Acc v[WIDTH];
#pragma unroll
            for (int i = 0; i < WIDTH; i += 4) {
                Vec<float, 4> chunk = *(const Vec<float, 4> *)(at + index(r, x + i));
#pragma unroll
                for (int e = 0; e < 4; ++e) v[i + e] = chunk.at[e] + add[i + e];
            }
            Vec<T, WIDTH> y;
            if (pre) {
#pragma unroll
                for (int i = 0; i < WIDTH; ++i) y.at[i] = convert<T>(v[i]);
                *(Vec<T, WIDTH> *)(pre + to) = y;
            }
#pragma unroll
            for (int i = 0; i < WIDTH; ++i) y.at[i] = convert<T>(activate(v[i]));
            *(Vec<T, WIDTH> *)(c + to) = y;
        }
    }

    DEVICE void put_elements(const Problem &p, const T *bias, T *c, T *pre, i64 row, i64 col) const {
#pragma unroll 1
        for (int e = threadIdx.x % WARP; e < ROWS * WN; e += WARP) {
            int r = e / WN, x = e % WN;
            if (row + r >= p.m || col + x >= p.n) continue;
            Acc v = at[index(r, x)] + bias_at(p, bias, col + x);
            i64 to = (row + r) * p.c_row + col + x;
            if (pre) pre[to] = convert<T>(v);
            c[to] = convert<T>(activate(v));
        }
    }
};

#define BOUNDS __launch_bounds__(THREADS, WM *WN > 1024 ? 1 : TIER >= 80 ? 3 : 2)

// The block of tile `tile` that takes `share` of its k.
DEVICE void product(const T *a, const T *b, const T *bias, T *c, T *pre, Acc *partial, u32 *counters, const Problem &p,
                    i32 tile, i32 share, i64 batch) {
    extern __shared__ __align__(128) char stages[];

    i32 tm, tn;
    tile_of(p, tile, tm, tn);
    i64 m0 = (i64)tm * BM, n0 = (i64)tn * BN, at_a, at_b;
    lead_offsets(p, batch, at_a, at_b);
    i64 k = SPLIT ? share * p.k_split : 0, k_end = SPLIT ? smaller(p.k, k + p.k_split) : p.k;
    OperandA load_a(a + at_a + m0 * p.a_row + k * p.a_k, p.a_row, p.a_k, p.m - m0);
    OperandB load_b(b + at_b + n0 * p.b_row + k * p.b_k, p.b_row, p.b_k, p.n - n0);

    const int WARPS_N = BN / WN;
    int warp = threadIdx.x / WARP;
    int row = warp / WARPS_N * WM, col = warp % WARPS_N * WN;

    Acc acc[MI * NI * 4];
#pragma unroll
    for (int i = 0; i < MI * NI * 4; ++i) acc[i] = 0.f;

    // `k_next` is where the next step to load begins. A group is committed for every step, present or not, so that
    // waiting counts steps.
    i64 k_next = k;
#pragma unroll 1
    for (int s = 0; s < STAGES - 1; ++s, k_next += BK) {
        if (k_next < k_end) {
            int left = (int)smaller(k_end - k_next, BK);
            char *to = stages + s * STAGE;
            load_a.fetch(to, left);
            load_b.fetch(to + OperandA::BYTES, left);
            load_a.store(to);
            load_b.store(to + OperandA::BYTES);
        }
        copy_commit();
    }
    copy_wait<STAGES - 2>();
    __syncthreads();

    Fragments parts[2];
    int reading = 0, writing = STAGES - 1;
    if (k < k_end) parts[0].load(stages, row, col, 0);
    for (; k < k_end; k += BK, k_next += BK) {
        bool more = k_next < k_end;
        char *to = stages + writing * STAGE;
#pragma unroll
        for (int s = 0; s < STEPS; ++s) {
            if (s == STEPS - 1) {
                // The stage written to was last read before the barrier of the step before.
                if (more) {
                    load_a.store(to);
                    load_b.store(to + OperandA::BYTES);
                }
                copy_wait<STAGES - 2>();
                __syncthreads();
                writing = reading;
                reading = reading + 1 == STAGES ? 0 : reading + 1;
                // After the last step this reads a stage of an earlier one, for nothing.
                parts[(s + 1) & 1].load(stages + reading * STAGE, row, col, 0);
            } else {
                parts[(s + 1) & 1].load(stages + reading * STAGE, row, col, s + 1);
            }
            if (s == 0) {
                if (more) {
                    int left = (int)smaller(k_end - k_next, BK);
                    load_a.fetch(to, left);
                    load_b.fetch(to + OperandA::BYTES, left);
                }
                copy_commit();
            }
#pragma unroll
            for (int i = 0; i < MI; ++i)
#pragma unroll
                for (int j = 0; j < NI; ++j)
                    multiply(T(), acc + (i * NI + j) * 4, parts[s & 1].a[i], parts[s & 1].b[j / 2] + j % 2 * 2);
        }
    }
    copy_wait<0>();

    if (SPLIT) {
        i64 slot = batch * ((i64)p.tiles_m * p.tiles_n) + tile;
        if (!combine<MI * NI * 4, THREADS>(acc, partial, counters, p, slot, share)) return;
    }
    c += batch * p.c_batch;
    if (pre) pre += batch * p.c_batch;
    // All warps have read their last fragments, and no copy is under way.
    __syncthreads();
    Slab slab = {(float *)stages + warp * (Slab::ROWS * WN)};
#pragma unroll
    for (int i = 0; i < MI; i += GROUP) {
        slab.take(acc + i * NI * 4);
        __syncwarp();
        slab.put(p, bias, c, pre, m0 + row + i * 16, n0 + col);
        __syncwarp();
    }
}
#endif
