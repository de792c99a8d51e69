// Matrix products with few rows (at most ROWS of a): every element of b is read once, which is all the time it takes.
// The host turns products with few columns around. No split of k over blocks: the k of one result stays in one block.

DEVICE void put_one(const Problem &p, const T *bias, T *c, T *pre, i64 row, i64 col, Acc v) {
    if (row >= p.m || col >= p.n) return;
    if (bias) v += convert<Acc>(bias[p.bias_by_row ? row : col]);
    Acc out[1] = {v};
    put<1>(p, c, pre, row, col, out);
}

#ifdef GROUP
// Consecutive k of b are neighbours, or nothing is (VEC = 1): GROUP lanes of a warp share COLS rows of b (columns of c),
// and go along k together, VEC elements at a time.
#define THREADS 128
KERNEL __launch_bounds__(THREADS)
    gemm(const T *a, const T *b, const T *bias, T *c, T *pre, Acc *, u32 *, Problem p) {
    begin_kernel();
    i64 batch = p.batch0 + blockIdx.z, at_a, at_b;
    lead_offsets(p, batch, at_a, at_b);
    int lane = threadIdx.x % GROUP;
    i64 col = ((i64)blockIdx.x * (THREADS / GROUP) + threadIdx.x / GROUP) * COLS;

    // Rows that do not exist repeat the last one, and are not written.
    const T *x[ROWS], *y[COLS];
#pragma unroll
    for (int r = 0; r < ROWS; ++r) x[r] = a + at_a + smaller(r, p.m - 1) * p.a_row;
#pragma unroll
    for (int j = 0; j < COLS; ++j) y[j] = b + at_b + smaller(col + j, p.n - 1) * p.b_row;

    Acc acc[ROWS * COLS];
#pragma unroll
    for (int i = 0; i < ROWS * COLS; ++i) acc[i] = (Acc)0;

    i64 k = lane * VEC;
// Unrolled, ptxas spills on Kepler to fit another block.
#if TIER >= 70
#pragma unroll 2
#else
#pragma unroll 1
#endif
    for (; k + VEC <= p.k; k += GROUP * VEC) {
        Vec<T, VEC> v[COLS];
#pragma unroll
        for (int j = 0; j < COLS; ++j) v[j] = *(const Vec<T, VEC> *)(y[j] + k * p.b_k);
#pragma unroll
        for (int r = 0; r < ROWS; ++r) {
            Vec<T, VEC> u = *(const Vec<T, VEC> *)(x[r] + k * p.a_k);
#pragma unroll
            for (int j = 0; j < COLS; ++j)
#pragma unroll
                for (int i = 0; i < VEC; ++i) acc[r * COLS + j] += convert<Acc>(u.at[i]) * convert<Acc>(v[j].at[i]);
        }
    }
    // At most one lane of the group has a part of a vector left.
    for (; k < p.k; ++k) {
#pragma unroll
        for (int i = 0; i < ROWS * COLS; ++i)
            acc[i] += convert<Acc>(x[i / COLS][k * p.a_k]) * convert<Acc>(y[i % COLS][k * p.b_k]);
    }

    c += batch * p.c_batch;
    if (pre) pre += batch * p.c_batch;
#pragma unroll
    for (int i = 0; i < ROWS * COLS; ++i) {
        Acc v = acc[i];
#pragma unroll
        for (int d = GROUP / 2; d > 0; d /= 2) v += __shfl_xor_sync(FULL_MASK, v, d);
        if (lane == i % GROUP) put_one(p, bias, c, pre, i / COLS, col + i % COLS, v);
    }
}
#else
// Consecutive rows of b are neighbours: LANES threads of VEC rows each, and DEEP threads share k.
#define LANES 8
#define DEEP 32
KERNEL __launch_bounds__(LANES *DEEP)
    gemm(const T *a, const T *b, const T *bias, T *c, T *pre, Acc *, u32 *, Problem p) {
    begin_kernel();
    __shared__ Acc sums[DEEP][LANES * VEC];
    i64 batch = p.batch0 + blockIdx.z, at_a, at_b;
    lead_offsets(p, batch, at_a, at_b);
    int lane = threadIdx.x % LANES, deep = threadIdx.x / LANES;
    i64 first = (i64)blockIdx.x * (LANES * VEC), col = first + lane * VEC;
    a += at_a;
    b += at_b + col * p.b_row;

    Acc acc[ROWS][VEC];
#pragma unroll
    for (int i = 0; i < ROWS * VEC; ++i) acc[i / VEC][i % VEC] = (Acc)0;

    bool whole = col + VEC <= p.n;
#pragma unroll 2
    for (i64 k = deep; k < p.k; k += DEEP) {
        Vec<T, VEC> v;
        if (whole) {
            v = *(const Vec<T, VEC> *)(b + k * p.b_k);
        } else {
#pragma unroll
            for (int i = 0; i < VEC; ++i) v.at[i] = col + i < p.n ? b[k * p.b_k + i * p.b_row] : convert<T>((Acc)0);
        }
#pragma unroll
        for (int r = 0; r < ROWS; ++r) {
            Acc u = convert<Acc>(a[smaller(r, p.m - 1) * p.a_row + k * p.a_k]);
#pragma unroll
            for (int i = 0; i < VEC; ++i) acc[r][i] += u * convert<Acc>(v.at[i]);
        }
    }

    c += batch * p.c_batch;
    if (pre) pre += batch * p.c_batch;
#pragma unroll
    for (int r = 0; r < ROWS; ++r) {
        __syncthreads();
#pragma unroll
        for (int i = 0; i < VEC; ++i) sums[deep][lane * VEC + i] = acc[r][i];
        __syncthreads();
        if (threadIdx.x < LANES * VEC) {
            Acc v = (Acc)0;
#pragma unroll 8
            for (int d = 0; d < DEEP; ++d) v += sums[d][threadIdx.x];
            put_one(p, bias, c, pre, r, first + threadIdx.x, v);
        }
    }
}
#endif
