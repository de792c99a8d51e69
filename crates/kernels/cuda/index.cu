// Rows and elements picked by index, and their adjoints, on contiguous tensors. Indices are of integer type I and count
// from the end if negative; one out of range is reported, reads as zeros and adds nothing.
//
// Moves (select, gather) are specialised by BYTES, the size of the word they move. Sums (add_rows, add_lines) are
// specialised by the element type T and, where whole rows are added, by V, the elements of a lane. Every sum starts from
// what it is added to and goes in the order of the indices, each by one owner, so that results are the same bits in every
// run, and the CPU's.

#define NONE 0xffffffffu

#ifdef BYTES

template <int N> struct WordOf { typedef Vec<u64, 2> Type; };
template <> struct WordOf<1> { typedef u8 Type; };
template <> struct WordOf<2> { typedef u16 Type; };
template <> struct WordOf<4> { typedef u32 Type; };
template <> struct WordOf<8> { typedef u64 Type; };
typedef WordOf<BYTES>::Type W;

// Words of a thread that are in flight together.
#define EACH 4

// y[o, k, :] = x[o, index[k], :] of x[outer, len, inner], inner in words; N holds every word's number.
template <typename N>
DEVICE void select_words(const W *__restrict__ x, const I *__restrict__ index, W *__restrict__ y, N total, N inner, N m,
                         i64 len, Fault *fault) {
    N step = (N)gridDim.x * blockDim.x;
    for (N base = (N)blockIdx.x * blockDim.x + threadIdx.x; base < total; base += EACH * step) {
        i64 raw[EACH], from[EACH];
        W word[EACH];
#pragma unroll
        for (int u = 0; u < EACH; ++u) {
            N at = base + u * step;
            N row = at / inner;
            raw[u] = at < total ? (i64)index[row % m] : 0;
            from[u] = (i64)(row / m) * len * (i64)inner + (i64)(at - row * inner);
        }
#pragma unroll
        for (int u = 0; u < EACH; ++u) {
            i64 v = raw[u] < 0 ? raw[u] + len : raw[u];
            word[u] = W();
            if (base + u * step < total && v >= 0 && v < len) word[u] = x[from[u] + v * (i64)inner];
        }
#pragma unroll
        for (int u = 0; u < EACH; ++u) {
            if (base + u * step >= total) continue;
            y[base + u * step] = word[u];
            if (raw[u] >= len || raw[u] < -len) report(fault, FAULT_INDEX, raw[u], len);
        }
    }
}

KERNEL select(const W *x, const I *index, W *y, u64 total, u64 inner, u64 m, i64 len, Fault *fault) {
    begin_kernel();
    select_words<u32>(x, index, y, (u32)total, (u32)inner, (u32)m, len, fault);
}

KERNEL select_far(const W *x, const I *index, W *y, u64 total, u64 inner, u64 m, i64 len, Fault *fault) {
    begin_kernel();
    select_words<u64>(x, index, y, total, inner, m, len, fault);
}

// Where element `i` of the index has its place in x, but for the axis, whose stride in `at` is 0.
template <typename N> DEVICE i64 place_of(const Layout &at, N i) {
    i64 place = 0;
    for (int d = at.rank - 1; d > 0; --d) {
        N length = (N)at.shape[d], q = i / length;
        place += (i64)(i - q * length) * at.strides[d];
        i = q;
    }
    return place + (i64)i * at.strides[0];
}

template <typename N>
DEVICE void gather_words(const W *__restrict__ x, const I *__restrict__ index, W *__restrict__ y, const Layout &at, N total,
                         i64 stride, i64 len, Fault *fault) {
    N step = (N)gridDim.x * blockDim.x;
    for (N i = (N)blockIdx.x * blockDim.x + threadIdx.x; i < total; i += step) {
        i64 v = checked_index((i64)index[i], len, fault);
        y[i] = v < 0 ? W() : x[place_of<N>(at, i) + v * stride];
    }
}

// y[.., j, ..] = x[.., index[.., j, ..], ..]: `at` has the index's shape and x's strides.
KERNEL gather(const W *x, const I *index, W *y, Layout at, u64 total, i64 stride, i64 len, Fault *fault) {
    begin_kernel();
    gather_words<u32>(x, index, y, at, (u32)total, stride, len, fault);
}

KERNEL gather_far(const W *x, const I *index, W *y, Layout at, u64 total, i64 stride, i64 len, Fault *fault) {
    begin_kernel();
    gather_words<u64>(x, index, y, at, total, stride, len, fault);
}

#else

typedef ComputeOf<T>::Type C;

DEVICE float plus(float a, float b) { return a + b; }
DEVICE double plus(double a, double b) { return a + b; }
// Wraps; of bools any non-zero sum is true.
DEVICE i64 plus(i64 a, i64 b) { return (i64)((u64)a + (u64)b); }

#define THREADS 256
#define WARPS (THREADS / WARP)
// Indices that are looked through at once; a thread holds SEEN of them.
#define CHUNK 4096
#define SEEN (CHUNK / THREADS)
// Source rows that are loaded at once; a warp loads EACH of them.
#define BATCH 64
#define EACH (BATCH / WARPS)
// A list entry is the row's place within the block's range, then the index's place within the chunk.
#define PLACE_BITS 12

extern __shared__ __align__(16) unsigned char dynamic_shared[];

#ifdef V

typedef Vec<T, V> Lane;

// Fills `list` with the indices of the chunk that point to rows `row0 .. row0 + mine`, in order; returns how many. Each
// warp looks through a part of its own, so that two barriers are enough.
DEVICE u32 find(const I *__restrict__ index, u32 n, i64 row0, u32 mine, i64 len, Fault *fault, u32 *list, u32 *counts) {
    u32 warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
    u32 part = (n + THREADS - 1) / THREADS * WARP, first = warp * part;
    u32 local[SEEN], count = 0;
#pragma unroll
    for (int half = 0; half < SEEN; half += SEEN / 2) {
        i64 raw[SEEN / 2];
#pragma unroll
        for (int q = 0; q < SEEN / 2; ++q) {
            u32 k = (half + q) * WARP + lane, t = first + k;
            raw[q] = k < part && t < n ? (i64)index[t] : row0;
        }
#pragma unroll
        for (int q = 0; q < SEEN / 2; ++q) {
            u32 k = (half + q) * WARP + lane, t = first + k;
            bool there = k < part && t < n;
            i64 v = raw[q] < 0 ? raw[q] + len : raw[q];
            if (fault && there && (u64)v >= (u64)len) report(fault, FAULT_INDEX, raw[q], len);
            u64 off = (u64)(v - row0);
            local[half + q] = there && v >= 0 && off < mine ? (u32)off : NONE;
            count += __popc(__ballot_sync(FULL_MASK, local[half + q] != NONE));
        }
    }
    if (lane == 0) counts[warp] = count;
    __syncthreads();
    u32 at = 0, total = 0;
#pragma unroll
    for (int w = 0; w < WARPS; ++w) {
        at += w < warp ? counts[w] : 0;
        total += counts[w];
    }
#pragma unroll
    for (int q = 0; q < SEEN; ++q) {
        u32 hits = __ballot_sync(FULL_MASK, local[q] != NONE);
        u32 before = __popc(hits & ((1u << lane) - 1));
        if (local[q] != NONE) list[at + before] = local[q] << PLACE_BITS | (first + q * WARP + lane);
        at += __popc(hits);
    }
    __syncthreads();
    return total;
}

// The sums of the rows that a warp owns: rows `row % WARPS == warp` of the block's range, a column for each lane. The one
// that was added to last is in registers.
struct Sums {
    C *at;
    u32 *hit;
    u32 lane, now;
    C sum[V];

    DEVICE C *cell(u32 row) { return at + row * V * WARP + lane; }
    DEVICE void put_back() {
        if (now == NONE) return;
#pragma unroll
        for (int v = 0; v < V; ++v) cell(now)[v * WARP] = sum[v];
        if (lane == 0) hit[now] = 1;
    }
    DEVICE void add(u32 row, const Lane &x) {
        if (row != now) {
            put_back();
            now = row;
#pragma unroll
            for (int v = 0; v < V; ++v) sum[v] = cell(row)[v * WARP];
        }
#pragma unroll
        for (int v = 0; v < V; ++v) sum[v] = plus(sum[v], convert<C>(x.at[v]));
    }
};

// Loads the warp's share of batch `b`.
DEVICE void load_batch(Lane *ahead, const T *__restrict__ from, i64 inner, bool in, const u32 *list, u32 b, u32 n) {
    u32 warp = threadIdx.x / WARP;
#pragma unroll
    for (int u = 0; u < EACH; ++u) {
        u32 e = b * BATCH + u * WARPS + warp;
        ahead[u] = Lane();
        if (e < n && in) {
            i64 k = list[e] & ((1u << PLACE_BITS) - 1);
            ahead[u] = *(const Lane *)(from + k * inner);
        }
    }
}

// Adds the listed source rows: all warps load a batch, the next one being in flight, then each adds what its rows get.
DEVICE void add_listed(Sums &sums, const T *__restrict__ from, i64 inner, bool in, const u32 *list, u32 n, Lane (*stage)[WARP]) {
    u32 warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
    Lane ahead[EACH];
    load_batch(ahead, from, inner, in, list, 0, n);
    for (u32 b = 0; b * BATCH < n; ++b) {
#pragma unroll
        for (int u = 0; u < EACH; ++u) stage[u * WARPS + warp][lane] = ahead[u];
        __syncthreads();
        load_batch(ahead, from, inner, in, list, b + 1, n);
        u32 count = min(n - b * BATCH, (u32)BATCH);
        for (u32 e = 0; e < count; e += 4) {
            u32 row[4];
            Lane x[4];
#pragma unroll
            for (int u = 0; u < 4; ++u) {
                row[u] = e + u < count ? list[b * BATCH + e + u] >> PLACE_BITS : NONE;
                x[u] = stage[e + u][lane];
            }
#pragma unroll
            for (int u = 0; u < 4; ++u) {
                if (row[u] != NONE && row[u] % WARPS == warp) sums.add(row[u], x[u]);
            }
        }
        __syncthreads();
    }
}

// y[o, v, :] = x[o, v, :] + the sum of s[o, k, :] over all k with index[k] == v, of x[outer, len, inner]. Without x, 0
// stands for it where there is no such k. A block owns `rows` rows and WARP * V columns; dynamic shared memory holds
// `rows` sums of them and as many u32.
KERNEL add_rows(const T *x, const I *index, const T *s, T *y, i64 m, i64 len, i64 inner, u64 slices, u64 pieces, u32 rows,
                Fault *fault) {
    begin_kernel();
    __shared__ u32 list[CHUNK];
    __shared__ Lane stage[BATCH][WARP];
    __shared__ u32 counts[WARPS];
    u32 warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
    i64 row0 = (i64)blockIdx.x * rows;
    u32 mine = (u32)min((i64)rows, len - row0);
    C *at = (C *)dynamic_shared;
    u32 *hit = (u32 *)(at + (u64)rows * V * WARP);
    for (u64 piece = blockIdx.y; piece < pieces; piece += gridDim.y) {
        i64 o = piece / slices, column = ((i64)(piece % slices) * WARP + lane) * V;
        bool in = column < inner;
        i64 home = (o * len + row0) * inner + column;
        Sums sums;
        sums.at = at, sums.hit = hit, sums.lane = lane, sums.now = NONE;
        for (u32 row = warp; row < mine; row += WARPS) {
            Lane start = Lane();
            if (x && in) start = *(const Lane *)(x + home + row * inner);
#pragma unroll
            // -0 is what adding to changes nothing.
            for (int v = 0; v < V; ++v) sums.cell(row)[v * WARP] = x ? convert<C>(start.at[v]) : (C)-0.0f;
            if (lane == 0) hit[row] = 0;
        }
        Fault *tell = blockIdx.x == 0 && piece == 0 ? fault : (Fault *)0;
        for (i64 base = 0; base < m; base += CHUNK) {
            u32 n = (u32)min((i64)CHUNK, m - base);
            u32 found = find(index + base, n, row0, mine, len, tell, list, counts);
            add_listed(sums, s + (o * m + base) * inner + column, inner, in, list, found, stage);
        }
        sums.put_back();
        __syncwarp();
        for (u32 row = warp; row < mine; row += WARPS) {
            Lane out = Lane();
#pragma unroll
            for (int v = 0; v < V; ++v) {
                if (x || hit[row]) out.at[v] = convert<T>(sums.cell(row)[v * WARP]);
            }
            if (in) *(Lane *)(y + home + row * inner) = out;
        }
        __syncwarp();
    }
}

#else

// Sums of a tile of WARP lines, with a column of padding, and where the lines begin in x.
#define PITCH (WARP + 1)

// Calls f(row, line) for all of a tile, neighbours in memory by neighbouring threads.
template <typename F> DEVICE void for_tile(u32 mine, i64 stride, F f) {
    for (u32 e = threadIdx.x; e < mine * WARP; e += THREADS) {
        if (stride == 1) f(e % mine, e / mine);
        else f(e / WARP, e % WARP);
    }
}

// The indices of one line, of which this thread adds those that point to rows `row % WARPS == warp` of the range.
DEVICE void add_line(C *sums, const I *__restrict__ index, const T *__restrict__ s, i64 m, i64 index_stride, i64 s_stride,
                     i64 row0, u32 mine, i64 len, Fault *fault) {
    u32 warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
    for (i64 j = 0; j < m; j += 8) {
        i64 raw[8];
        u32 local[8];
        T x[8];
#pragma unroll
        for (int u = 0; u < 8; ++u) raw[u] = j + u < m ? (i64)index[(j + u) * index_stride] : 0;
#pragma unroll
        for (int u = 0; u < 8; ++u) {
            i64 v = raw[u] < 0 ? raw[u] + len : raw[u];
            if (fault && j + u < m && (u64)v >= (u64)len) report(fault, FAULT_INDEX, raw[u], len);
            u64 off = (u64)(v - row0);
            local[u] = j + u < m && v >= 0 && off < mine && off % WARPS == warp ? (u32)off : NONE;
            if (local[u] != NONE) x[u] = s[(j + u) * s_stride];
        }
#pragma unroll
        for (int u = 0; u < 8; ++u) {
            if (local[u] == NONE) continue;
            C *cell = sums + local[u] * PITCH + lane;
            *cell = plus(*cell, convert<C>(x[u]));
        }
    }
}

// y = x, and y[line, index[line, j]] += s[line, j]: a line is all elements that differ along the axis only, of length
// `len` in x and m in index and s. `in_x`, `in_s` and `in_index` say where line number i begins. A block owns WARP lines
// and `rows` places on them; dynamic shared memory holds PITCH * rows sums.
KERNEL add_lines(const T *x, const I *index, const T *s, T *y, Layout in_x, Layout in_s, Layout in_index, u64 lines, i64 m,
                 i64 len, i64 x_stride, i64 s_stride, i64 index_stride, u32 rows, Fault *fault) {
    begin_kernel();
    __shared__ i64 begin[WARP];
    C *sums = (C *)dynamic_shared;
    u32 warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
    for (u64 tile = blockIdx.x; tile * WARP < lines; tile += gridDim.x) {
        u64 line = tile * WARP + lane;
        if (warp == 0) begin[lane] = line < lines ? offset_of(in_x, (i64)line) : -1;
        i64 in_s_at = line < lines ? offset_of(in_s, (i64)line) : 0;
        i64 in_index_at = line < lines ? offset_of(in_index, (i64)line) : 0;
        for (i64 row0 = (i64)blockIdx.y * rows; row0 < len; row0 += (i64)gridDim.y * rows) {
            u32 mine = (u32)min((i64)rows, len - row0);
            __syncthreads();
            for_tile(mine, x_stride, [&](u32 row, u32 l) {
                if (begin[l] >= 0) sums[row * PITCH + l] = convert<C>(x[begin[l] + (row0 + row) * x_stride]);
            });
            __syncthreads();
            Fault *tell = row0 == 0 && warp == 0 ? fault : (Fault *)0;
            if (line < lines) {
                add_line(sums, index + in_index_at, s + in_s_at, m, index_stride, s_stride, row0, mine, len, tell);
            }
            __syncthreads();
            for_tile(mine, x_stride, [&](u32 row, u32 l) {
                if (begin[l] >= 0) y[begin[l] + (row0 + row) * x_stride] = convert<T>(sums[row * PITCH + l]);
            });
        }
        // Before the next tile's beginnings overwrite these.
        __syncthreads();
    }
}

#endif
#endif
