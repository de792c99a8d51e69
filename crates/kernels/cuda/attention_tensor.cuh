// Attention of f16 and bf16 on tensor cores (mma.sync m16n8k16, sm_80 and later), for heads of up to 128 elements: what both
// passes share.
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
#ifndef STAGES
#define STAGES 1
#endif
// Whether a warp's left operands stay in registers.
#define HOLD (HEAD <= 64)

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

DEVICE void clear(float (&x)[COLUMNS][4]) {
#pragma unroll
    for (int n = 0; n < COLUMNS; ++n)
#pragma unroll
        for (int e = 0; e < 4; ++e) x[n][e] = 0.f;
}

#endif
