// Sums of the columns of many matrices in one launch. Follows last_block.cuh.
//
// A block of 256 threads sums a tile of ACROSS packs of VEC columns: neighbours read neighbouring packs, THREADS / ACROSS
// rows at a time. Rows are split over blocks besides; the last block of a tile to finish adds their sums in order.
//
// The host defines T, VEC and ACROSS (8, or 32).

typedef ComputeOf<T>::Type C;
typedef Vec<T, VEC> Pack;
#define THREADS 256
#define MANY 64
#define SLICES (THREADS / ACROSS)
#define COLUMNS (ACROSS * VEC)
// Rows, and partial sums, that a thread has in flight; fewer before Volta, for registers.
#define FLIGHT (TIER >= 70 ? 4 : 2)
#define PARTS_FLIGHT (TIER >= 70 ? 8 : 2)

// Matrix i has the tiles first[i] .. first[i + 1].
struct Table {
    u64 g[MANY], sums[MANY];
    i64 rows[MANY], width[MANY];
    u32 first[MANY];
};

// The sums over a block's threads of the columns of the tile; column c of it in thread c < COLUMNS.
DEVICE C block_columns(C (&s)[VEC], C (*cross)[COLUMNS]) {
#pragma unroll
    for (int v = 0; v < VEC; ++v)
#pragma unroll
        for (int d = ACROSS; d < WARP; d *= 2) s[v] += __shfl_xor_sync(FULL_MASK, s[v], d);
    const int lane = threadIdx.x % WARP;
    if (lane < ACROSS) {
#pragma unroll
        for (int v = 0; v < VEC; ++v) cross[threadIdx.x / WARP][lane * VEC + v] = s[v];
    }
    __syncthreads();
    C sum = (C)0;
    if (threadIdx.x < COLUMNS)
        for (int w = 0; w < THREADS / WARP; ++w) sum += cross[w][threadIdx.x];
    return sum;
}

// blockIdx.x is a tile, blockIdx.y a range of rows. `parts` is scratch memory, [gridDim.y][gridDim.x][COLUMNS].
KERNEL __launch_bounds__(THREADS)
bias_grad(Table t, u32 count, C *parts) {
    begin_kernel();
    __shared__ C cross[THREADS / WARP][COLUMNS], slots[THREADS];
    u32 i = 0;
    for (u32 hi = count; hi - i > 1;) {
        const u32 mid = (i + hi) / 2;
        if (t.first[mid] <= blockIdx.x) i = mid;
        else hi = mid;
    }
    const i64 rows = t.rows[i], width = t.width[i], tile = blockIdx.x - t.first[i];
    const i64 range = (rows + gridDim.y - 1) / gridDim.y, start = blockIdx.y * range;
    const i64 end = start + range < rows ? start + range : rows;
    const i64 pack = tile * ACROSS + threadIdx.x % ACROSS;
    C s[VEC];
#pragma unroll
    for (int v = 0; v < VEC; ++v) s[v] = (C)0;
    if (pack * VEC < width) {
        const T *from = (const T *)t.g[i] + pack * VEC;
        for (i64 row = start + threadIdx.x / ACROSS; row < end; row += FLIGHT * SLICES) {
            Pack x[FLIGHT];
#pragma unroll
            for (int k = 0; k < FLIGHT; ++k)
                if (row + k * SLICES < end) x[k] = *(const Pack *)(from + (row + k * SLICES) * width);
#pragma unroll
            for (int v = 0; v < VEC; ++v) {
                // Those in flight first: the error grows with the number of batches.
                C batch = (C)0;
#pragma unroll
                for (int k = 0; k < FLIGHT; ++k) batch += row + k * SLICES < end ? convert<C>(x[k].at[v]) : (C)0;
                s[v] += batch;
            }
        }
    }
    C sum = block_columns(s, cross);
    const int column = threadIdx.x;
    if (gridDim.y > 1) {
        const u64 all = (u64)gridDim.x * COLUMNS;
        C *own = parts + blockIdx.x * (u64)COLUMNS;
        if (column < COLUMNS) own[blockIdx.y * all + column] = sum;
        if (!last_to_arrive(blockIdx.x, gridDim.y)) return;
        sum = (C)0;
        const int at = column % COLUMNS;
#pragma unroll PARTS_FLIGHT
        for (u32 part = column / COLUMNS; part < gridDim.y; part += THREADS / COLUMNS)
            sum += fresh(own + part * all + at);
        slots[threadIdx.x] = sum;
        __syncthreads();
        if (column < COLUMNS)
            for (int k = 1; k < THREADS / COLUMNS; ++k) sum += slots[k * COLUMNS + column];
    }
    if (column < COLUMNS && tile * COLUMNS + column < width)
        ((T *)t.sums[i])[tile * COLUMNS + column] = convert<T>(sum);
}
