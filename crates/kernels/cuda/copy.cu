// Copies that are more than an elementwise kernel: transposes, concatenation, borders, fills. map.cuh comes first.
//
// CAST 0: elements are words of WORD_BYTES bytes, whatever they mean.
// CAST 1: from type T to type O, by way of C; transposes only.

#if CAST
typedef T From;
typedef O To;
#define ELEMENT 8
DEVICE To moved(From x) { return Stored<To>::of(load<C>(x)); }
#else
#if WORD_BYTES == 1
typedef u8 Word;
#elif WORD_BYTES == 2
typedef u16 Word;
#elif WORD_BYTES == 4
typedef u32 Word;
#elif WORD_BYTES == 8
typedef u64 Word;
#else
typedef uint4 Word;
#endif
typedef Word From;
typedef Word To;
#define ELEMENT WORD_BYTES
DEVICE To moved(From x) { return x; }
#endif

#define BLOCK 256

// Every thread takes IN_FLIGHT elements at once, so that their loads overlap.
#define IN_FLIGHT 4

#if ELEMENT <= 8
// Short elements make larger tiles, so that a row of one is not less than a sector or two of memory.
#define TILE (sizeof(From) <= 2 ? 64 : 32)
// Makes the distance of rows an odd number of banks, so that columns are read without conflicts.
#define PADDING (sizeof(From) < 4 ? 4 / sizeof(From) : 1)

// dst[r, c] = src[r, c] for each of the others, where r runs densely through src and c through dst. Tiles pass through
// shared memory, so that both sides are touched a stretch at a time. Strides are in elements.
KERNEL __launch_bounds__(BLOCK) transpose(To *dst, const From *src, i64 rows, i64 cols, i64 dst_row, i64 dst_col,
                                          i64 src_row, i64 src_col, Layout dst_others, Layout src_others,
                                          i64 tiles) {
    begin_kernel();
    __shared__ From tile[TILE][TILE + PADDING];
    // A thread keeps its place in the dense direction, and takes every STEP-th line across.
    const int STEP = BLOCK / TILE, EACH = TILE / STEP;
    const int lane = threadIdx.x % TILE, line = threadIdx.x / TILE;
    const i64 across = (cols + TILE - 1) / TILE, down = (rows + TILE - 1) / TILE;
    for (i64 t = blockIdx.x; t < tiles; t += gridDim.x) {
        i64 band = t / across, other = band / down;
        i64 c0 = (t - band * across) * TILE, r0 = (band - other * down) * TILE;
        // Of this tile, less than TILE if it is the last.
        int width = (int)(cols - c0 < TILE ? cols - c0 : TILE), height = (int)(rows - r0 < TILE ? rows - r0 : TILE);
        const From *from = src + offset_of(src_others, other) + (r0 + lane) * src_row + (c0 + line) * src_col;
        From x[EACH];
#pragma unroll
        for (int i = 0; i < EACH; ++i) {
            if (lane < height && line + i * STEP < width) x[i] = *from;
            from += STEP * src_col;
        }
        // The tile before has been read by all.
        __syncthreads();
#pragma unroll
        for (int i = 0; i < EACH; ++i) tile[lane][line + i * STEP] = x[i];
        __syncthreads();
        To *to = dst + offset_of(dst_others, other) + (r0 + line) * dst_row + (c0 + lane) * dst_col;
#pragma unroll
        for (int i = 0; i < EACH; ++i) {
            if (lane < width && line + i * STEP < height) *to = moved(tile[line + i * STEP][lane]);
            to += STEP * dst_row;
        }
    }
}
#endif

#if !CAST
// Quotients are dear in 64 bits, and nearly always fit 32.
DEVICE i64 divide(i64 n, i64 d) {
    return (((u64)n | (u64)d) >> 32) == 0 ? (i64)((u32)n / (u32)d) : n / d;
}

// Rows of one of the tensors that are joined: `width` words, which begin at word `start` of a row of the result.
struct Part {
    const Word *src;
    i64 width;
    i64 start;
};
struct Parts {
    Part at[16];
};

// Part blockIdx.y into the rows, of `pitch` words, of dst.
KERNEL __launch_bounds__(BLOCK) concat(Word *dst, i64 rows, i64 pitch, Parts parts) {
    begin_kernel();
    const Part part = parts.at[blockIdx.y];
    const i64 words = rows * part.width, step = (i64)gridDim.x * BLOCK;
    for (i64 first = (i64)blockIdx.x * BLOCK + threadIdx.x; first < words; first += step * IN_FLIGHT) {
        Word x[IN_FLIGHT];
#pragma unroll
        for (int u = 0; u < IN_FLIGHT; ++u) {
            i64 n = first + u * step;
            if (n < words) x[u] = part.src[n];
        }
#pragma unroll
        for (int u = 0; u < IN_FLIGHT; ++u) {
            i64 n = first + u * step, row = divide(n, part.width);
            if (n < words) dst[row * pitch + part.start + n - row * part.width] = x[u];
        }
    }
}

// A word of the eight bytes of `pattern`, repeated.
DEVICE Word word_of(u64 pattern) {
#if WORD_BYTES == 16
    uint4 w;
    w.x = w.z = (u32)pattern;
    w.y = w.w = (u32)(pattern >> 32);
    return w;
#else
    return (Word)pattern;
#endif
}

// The axes of a bordered tensor, slowest first: their lengths in the result, where the operand begins and ends, its
// strides. In words.
struct Border {
    i32 rank;
    i32 unused;
    i64 len[8];
    i64 begin[8];
    i64 end[8];
    i64 strides[8];
};

// dst, which is contiguous and of `words` words, is src inside and the pattern outside.
KERNEL __launch_bounds__(BLOCK) pad(Word *dst, const Word *src, u64 pattern, i64 words, Border border) {
    begin_kernel();
    const Word value = word_of(pattern);
    const i64 step = (i64)gridDim.x * BLOCK;
    for (i64 first = (i64)blockIdx.x * BLOCK + threadIdx.x; first < words; first += step * IN_FLIGHT) {
        Word x[IN_FLIGHT];
#pragma unroll
        for (int u = 0; u < IN_FLIGHT; ++u) {
            i64 n = first + u * step, at = 0;
            bool inside = n < words;
            x[u] = value;
            for (int d = border.rank - 1; d >= 0; --d) {
                i64 q = d > 0 ? divide(n, border.len[d]) : 0, index = n - q * border.len[d];
                inside = inside && index >= border.begin[d] && index < border.end[d];
                at += (index - border.begin[d]) * border.strides[d];
                n = q;
            }
            if (inside) x[u] = src[at];
        }
#pragma unroll
        for (int u = 0; u < IN_FLIGHT; ++u) {
            i64 n = first + u * step;
            if (n < words) dst[n] = x[u];
        }
    }
}

// Every word of a layout becomes the pattern, and the `tail` bytes after the last: these only where it is contiguous,
// which is what rank 0 says.
KERNEL __launch_bounds__(BLOCK) fill(Word *dst, u64 pattern, i64 words, Layout layout, i32 tail) {
    begin_kernel();
    const Word value = word_of(pattern);
    const i64 step = (i64)gridDim.x * BLOCK, first = (i64)blockIdx.x * BLOCK + threadIdx.x;
    for (i64 n = first; n < words; n += step) dst[layout.rank == 0 ? n : offset_of(layout, n)] = value;
    if (first < tail) ((u8 *)(dst + words))[first] = (u8)(pattern >> first % 8 * 8);
}
#endif
