// Stable sorts of rows, and places in sorted vectors.
//
// Elements are compared as unsigned keys, which put NaN last and make 0 and -0 equal. `tiles` sorts rows of up to TILE
// elements, as many as fit into a block at once, or the tiles of longer ones: a bitonic network in shared memory over keys
// and places, which are unique, so that equals keep their order. `merge` brings neighbouring runs together, a tile of its
// result a block; of equals those of the first run come first.
//
// The host defines T (element) and WIDE: 1 if it has eight bytes.

#define THREADS 256
#define ITEMS 4
#define TILE (THREADS * ITEMS)
#define NOWHERE 0xffffffffu

#if WIDE
typedef u64 K;
#else
typedef u32 K;
#endif
#define LARGEST (~(K)0)

DEVICE K key_of(boolean x) { return x.bits; }
DEVICE K key_of(u8 x) { return x; }
DEVICE K key_of(u16 x) { return x; }
DEVICE K key_of(i8 x) { return (K)(x + 128); }
DEVICE K key_of(i16 x) { return (K)(x + 32768); }
#if WIDE
DEVICE K key_of(u64 x) { return x; }
DEVICE K key_of(i64 x) { return (K)x ^ 0x8000000000000000ULL; }
DEVICE K key_of(double x) {
    const u64 bits = (u64)__double_as_longlong(x), sign = 0x8000000000000000ULL;
    return x != x ? LARGEST : x == 0.0 ? sign : bits & sign ? ~bits : bits | sign;
}
#else
DEVICE K key_of(u32 x) { return x; }
DEVICE K key_of(i32 x) { return (K)x ^ 0x80000000u; }
DEVICE K key_of(float x) {
    const u32 bits = __float_as_uint(x), sign = 0x80000000u;
    return x != x ? LARGEST : x == 0.0f ? sign : bits & sign ? ~bits : bits | sign;
}
// Widening keeps the order.
DEVICE K key_of(f16 x) { return key_of(to_f32(x)); }
DEVICE K key_of(bf16 x) { return key_of(to_f32(x)); }
#endif

template <typename N> DEVICE bool is_nan(N) { return false; }
DEVICE bool is_nan(float x) { return x != x; }
DEVICE bool is_nan(double x) { return x != x; }
DEVICE bool is_nan(f16 x) { return is_nan(to_f32(x)); }
DEVICE bool is_nan(bf16 x) { return is_nan(to_f32(x)); }

DEVICE K ordered(T x, bool descending) { return descending && !is_nan(x) ? ~key_of(x) : key_of(x); }

// Element `at` of a row of the result: the element that was at `place`, or key and place for the next pass.
DEVICE void put(const T *x, T *y, i64 *index, K *keys, u32 *places, i64 row, i64 at, K key, u32 place) {
    if (y) {
        y[row + at] = x[row + place];
        index[row + at] = place;
    } else {
        keys[row + at] = key;
        places[row + at] = place;
    }
}

// Sorts `segment` elements, a power of two up to TILE, of each of `per_row` segments of rows of `n`: into y and index, or
// (y is null) into keys and places. A block has TILE / segment of them.
KERNEL __launch_bounds__(THREADS, 1)
tiles(const T *__restrict__ x, T *__restrict__ y, i64 *__restrict__ index, K *__restrict__ keys,
      u32 *__restrict__ places, i64 rows, i64 n, i64 segment, i64 per_row, i64 descending) {
    begin_kernel();
    __shared__ K key[TILE];
    __shared__ u32 place[TILE];
    const u32 length = (u32)segment;
    const i64 first = (i64)blockIdx.x * (TILE / length);
    i64 starts[ITEMS], at[ITEMS];
#pragma unroll
    for (int i = 0; i < ITEMS; ++i) {
        const u32 slot = threadIdx.x + i * THREADS;
        const i64 of = first + slot / length, row = of / per_row;
        at[i] = (of - row * per_row) * length + slot % length;
        // What is beyond the row, or the rows, comes last.
        const bool there = row < rows && at[i] < n;
        starts[i] = there ? row * n : -1;
        key[slot] = there ? ordered(x[row * n + at[i]], descending != 0) : LARGEST;
        place[slot] = there ? (u32)at[i] : NOWHERE;
    }
    __syncthreads();
    for (u32 size = 2; size <= length; size *= 2) {
        for (u32 step = size / 2; step > 0; step /= 2) {
            for (u32 pair = threadIdx.x; pair < TILE / 2; pair += THREADS) {
                const u32 low = 2 * pair - (pair & (step - 1)), high = low + step;
                // Runs alternate, but for the last, which is the whole segment.
                const bool up = (low & (length - 1) & size) == 0;
                const K a = key[low], b = key[high];
                const u32 pa = place[low], pb = place[high];
                const bool apart = a > b || (a == b && pa > pb);
                if (apart == up) {
                    key[low] = b;
                    key[high] = a;
                    place[low] = pb;
                    place[high] = pa;
                }
            }
            __syncthreads();
        }
    }
#pragma unroll
    for (int i = 0; i < ITEMS; ++i) {
        const u32 slot = threadIdx.x + i * THREADS;
        if (starts[i] >= 0) put(x, y, index, keys, places, starts[i], at[i], key[slot], place[slot]);
    }
}

// How many of the first `d` elements of the merged runs are from `a` (of `na`), the rest from `b` (of `nb`).
template <typename I> DEVICE I split_at(const K *a, I na, const K *b, I nb, I d) {
    I low = d > nb ? d - nb : 0, high = d < na ? d : na;
    while (low < high) {
        const I middle = low + (high - low) / 2;
        if (a[middle] <= b[d - 1 - middle]) low = middle + 1;
        else high = middle;
    }
    return low;
}

// Merges runs of `run` elements, a multiple of TILE, pairwise: from keys and places into y and index, or (y is null) into
// next_keys and next_places. A block makes a tile of `per_row` of a row of `n`.
KERNEL __launch_bounds__(THREADS, 1)
merge(const T *__restrict__ x, T *__restrict__ y, i64 *__restrict__ index, const K *__restrict__ keys,
      const u32 *__restrict__ places, K *__restrict__ next_keys, u32 *__restrict__ next_places, i64 n, i64 run,
      i64 per_row) {
    begin_kernel();
    __shared__ K key[TILE];
    __shared__ u32 place[TILE];
    __shared__ i64 cut[2];
    const i64 of = blockIdx.x, row = of / per_row, out = (of - row * per_row) * TILE, base = row * n;
    // The runs: a from `start`, b from `middle` to `end`.
    const i64 start = out / (2 * run) * (2 * run);
    const i64 middle = start + run < n ? start + run : n, end = start + 2 * run < n ? start + 2 * run : n;
    const i64 d0 = out - start, d1 = d0 + TILE < end - start ? d0 + TILE : end - start;
    if (threadIdx.x % WARP == 0 && threadIdx.x < 2 * WARP) {
        const i64 d = threadIdx.x == 0 ? d0 : d1;
        cut[threadIdx.x / WARP] =
            split_at<i64>(keys + base + start, middle - start, keys + base + middle, end - middle, d);
    }
    __syncthreads();
    const i64 a0 = cut[0], b0 = d0 - a0;
    const int na = (int)(cut[1] - a0), all = (int)(d1 - d0), nb = all - na;
    for (int i = threadIdx.x; i < all; i += THREADS) {
        const i64 from = base + (i < na ? start + a0 + i : middle + b0 + (i - na));
        key[i] = keys[from];
        place[i] = places[from];
    }
    __syncthreads();
    const int first = threadIdx.x * ITEMS;
    if (first >= all) return;
    int a = split_at<int>(key, na, key + na, nb, first), b = first - a;
    for (int i = 0; i < ITEMS && first + i < all; ++i) {
        const bool from_a = a < na && (b >= nb || key[a] <= key[na + b]);
        const int at = from_a ? a++ : na + b++;
        put(x, y, index, next_keys, next_places, base, out + first + i, key[at], place[at]);
    }
}

// How many of the `n` elements of `sorted` are below each of `count` values, or (`right`) not above it.
KERNEL __launch_bounds__(THREADS, 1)
search(const T *__restrict__ sorted, const T *__restrict__ values, i64 *__restrict__ index, i64 n, i64 count, i64 right) {
    begin_kernel();
    for (i64 i = (i64)blockIdx.x * THREADS + threadIdx.x; i < count; i += (i64)gridDim.x * THREADS) {
        const K key = key_of(values[i]);
        i64 low = 0, high = n;
        while (low < high) {
            const i64 middle = low + (high - low) / 2;
            const K there = key_of(sorted[middle]);
            if (there < key || (right && there == key)) low = middle + 1;
            else high = middle;
        }
        index[i] = low;
    }
}
