// One-dimensional convolution and its adjoints, as matrix products whose operands are found where they lie (no im2col).
//
// Of each group: MODE 0, y[co][n t] = w[co][ci tap] x[ci tap][n t]; MODE 1, dx[ci][n l] = w[ci][co tap] g[co tap][n l];
// MODE 2, dw[co][ci tap] = g[co][n t] x[n t][ci tap]. A block has BM x BN results and walks over the terms BK at a time, from
// shared memory; a thread has RM x RN of them. The terms of MODE 2 are many and its results few: they are divided among
// `splits` blocks, and a second kernel adds their sums in order.
//
// The host defines T, MODE and ROWS, about how many rows (channels of a group) there are: 64, 16 or 4.

typedef ComputeOf<T>::Type C;
#define THREADS 256
#define BM ROWS
#define BN (ROWS == 64 ? 64 : ROWS == 16 ? 128 : 256)
#define BK 16
#define RM (ROWS == 16 ? 2 : 4)
#define RN (BM * BN / THREADS / RM)
#define COLUMN_THREADS (BN / RN)

struct Conv {
    const T *w;             // or the gradient of y, in MODE 2
    const T *x;             // or the gradient of y, in MODE 1
    const T *bias;          // MODE 0; or null
    T *y;
    C *parts;               // MODE 2 with splits
    i64 batch, ci, co, groups;  // channels are a group's
    i64 length, out_length, taps, stride, padding, dilation;
    i64 rows, columns, terms;   // of a group's product
    i64 splits, span;           // MODE 2: terms of a split, a multiple of BK
    i64 row_tiles, column_tiles, blocks;
};

// Where tap `tap` of output `t` reads; -1 in the padding.
DEVICE i64 source(const Conv &p, i64 t, i64 tap) {
    const i64 l = t * p.stride + tap * p.dilation - p.padding;
    return l >= 0 && l < p.length ? l : -1;
}

// The left operand in row m: of MODE 0 and 1 at term k, of MODE 2 at output t of sequence n.
DEVICE C left(const Conv &p, i64 group, i64 m, i64 k, i64 n, i64 t) {
    if (m >= p.rows) return (C)0;
    if (MODE == 0) return convert<C>(p.w[(group * p.co + m) * p.terms + k]);
    if (MODE == 1) {
        const i64 o = (i32)k / (i32)p.taps, tap = k - o * p.taps;
        return convert<C>(p.w[((group * p.co + o) * p.ci + m) * p.taps + tap]);
    }
    return convert<C>(p.w[((n * p.groups + group) * p.co + m) * p.out_length + t]);
}

// The right operand: `channel` and `tap` say the term (in MODE 2 the column), n and `at` the column (the term).
DEVICE C right(const Conv &p, i64 group, i64 channel, i64 tap, i64 n, i64 at) {
    if (MODE == 1) {
        const i64 q = at + p.padding - tap * p.dilation;
        if (q < 0) return (C)0;
        const i64 t = p.stride == 1 ? q : q / p.stride;
        if (t >= p.out_length || t * p.stride != q) return (C)0;
        return convert<C>(p.x[((n * p.groups + group) * p.co + channel) * p.out_length + t]);
    }
    const i64 l = source(p, at, tap);
    return l < 0 ? (C)0 : convert<C>(p.x[((n * p.groups + group) * p.ci + channel) * p.length + l]);
}

KERNEL __launch_bounds__(THREADS) conv(const Conv p) {
    begin_kernel();
    __shared__ alignas(16) C a[BK][BM + 1];
    __shared__ alignas(16) C b[BK][BN + 1];
    i64 block = (i64)blockIdx.y * gridDim.x + blockIdx.x;
    if (block >= p.blocks) return;
    const i64 column0 = block % p.column_tiles * BN;
    block /= p.column_tiles;
    const i64 row0 = block % p.row_tiles * BM;
    block /= p.row_tiles;
    const i64 group = block % p.groups, split = block / p.groups;
    const i64 begin = split * p.span, end = begin + p.span < p.terms ? begin + p.span : p.terms;
    // Threads load so that neighbours read neighbours: terms of the left operand, and columns of the right one in MODE 0
    // and 1, whose place in the sequences a thread keeps; terms in MODE 2.
    const int k_own = threadIdx.x % BK, c_own = MODE == 2 ? threadIdx.x / BK : threadIdx.x % BN;
    const i64 across = MODE == 0 ? p.out_length : MODE == 1 ? p.length : p.out_length;
    const i64 place = MODE == 2 ? begin + k_own : column0 + c_own;
    i64 n = across > 0 ? place / across : 0, at = across > 0 ? place % across : 0;
    C sum[RM][RN];
#pragma unroll
    for (int i = 0; i < RM; ++i)
#pragma unroll
        for (int j = 0; j < RN; ++j) sum[i][j] = (C)0;
    const int column = threadIdx.x % COLUMN_THREADS, row = threadIdx.x / COLUMN_THREADS * RM;
    for (i64 k0 = begin; k0 < end; k0 += BK) {
        __syncthreads();
#pragma unroll
        for (int m = threadIdx.x / BK; m < BM; m += THREADS / BK)
            a[k_own][m] = k0 + k_own < end ? left(p, group, row0 + m, k0 + k_own, n, at) : (C)0;
        if (MODE == 2) {
            for (int c = c_own; c < BN; c += THREADS / BK) {
                const i64 col = column0 + c, channel = (i32)col / (i32)p.taps;
                const bool there = k0 + k_own < end && col < p.columns;
                b[k_own][c] = there ? right(p, group, channel, col - channel * p.taps, n, at) : (C)0;
            }
            for (at += BK; at >= across; at -= across) ++n;
        } else {
#pragma unroll 4
            for (int k = threadIdx.x / BN; k < BK; k += THREADS / BN) {
                const i64 term = k0 + k, channel = (i32)term / (i32)p.taps;
                const bool there = term < end && column0 + c_own < p.columns;
                b[k][c_own] = there ? right(p, group, channel, term - channel * p.taps, n, at) : (C)0;
            }
        }
        __syncthreads();
#pragma unroll
        for (int k = 0; k < BK; ++k) {
            C x[RM], y[RN];
#pragma unroll
            for (int i = 0; i < RM; ++i) x[i] = a[k][row + i];
#pragma unroll
            for (int j = 0; j < RN; ++j) y[j] = b[k][column + j * COLUMN_THREADS];
#pragma unroll
            for (int i = 0; i < RM; ++i)
#pragma unroll
                for (int j = 0; j < RN; ++j) sum[i][j] += x[i] * y[j];
        }
    }
#pragma unroll
    for (int j = 0; j < RN; ++j) {
        const i64 c = column0 + column + j * COLUMN_THREADS;
        if (c >= p.columns) continue;
#pragma unroll
        for (int i = 0; i < RM; ++i) {
            const i64 m = row0 + row + i;
            if (m >= p.rows) continue;
            if (MODE == 2) {
                const i64 place = (group * p.co + m) * p.columns + c;
                if (p.splits > 1) {
                    p.parts[split * p.groups * p.co * p.columns + place] = sum[i][j];
                } else {
                    p.y[place] = convert<T>(sum[i][j]);
                }
            } else {
                const i64 seq = c / across, channel = group * p.rows + m;
                const C bias = MODE == 0 && p.bias ? convert<C>(p.bias[channel]) : (C)0;
                p.y[(seq * p.groups * p.rows + channel) * across + c % across] = convert<T>(sum[i][j] + bias);
            }
        }
    }
}

#if MODE == 2
// Adds the splits' sums, in order; a result a thread.
KERNEL __launch_bounds__(THREADS) conv_combine(const Conv p) {
    begin_kernel();
    const i64 all = p.groups * p.co * p.columns;
    for (i64 i = (i64)blockIdx.x * THREADS + threadIdx.x; i < all; i += (i64)gridDim.x * THREADS) {
        C sum = (C)0;
        for (i64 s = 0; s < p.splits; ++s) sum += p.parts[s * all + i];
        p.y[i] = convert<T>(sum);
    }
}
#endif
