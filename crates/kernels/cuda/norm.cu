// Layer normalisation (RMS 0) and root-mean-square normalisation (RMS 1) of rows, and their adjoints. Follows rows.cuh.
//
// A row is read once, into registers; the mean comes first, then the squares of what is left. Weights may be missing
// (null). With ADD 1 the row is a sum of two, x + r, stored to s and normalised as it is stored, since the adjoint reads
// that; the adjoint then adds the sum's own gradient r to dx.

// The sums over the threads of a row of two numbers, with one barrier. `slots` is shared memory, used once.
struct Two {
    C a, b;
};
DEVICE Two row_sums(Two x, Two *slots) {
    x.a = warp_row<Sum>(x.a);
    x.b = warp_row<Sum>(x.b);
#if LANES > WARP
    const int lane = threadIdx.x % WARP;
    if (lane == 0) slots[threadIdx.x / WARP] = x;
    __syncthreads();
    Two part;
    part.a = part.b = (C)0;
    if (lane < LANES / WARP) part = slots[lane];
    x.a = warp_all<Sum>(part.a);
    x.b = warp_all<Sum>(part.b);
#endif
    return x;
}

#if GRAD

struct Operands {
    const T *x;
    const C *mean, *rstd;
    const T *g, *w, *r;
};

// The elements of d = g w and h = (x - mean) rstd of a batch, 0 behind the row's end.
DEVICE void batch_of(C (&d)[ITEMS * VEC], C (&h)[ITEMS * VEC], const Operands &of, C mean, C rstd, Index packs,
                     Index base) {
    Pack px[ITEMS], pg[ITEMS], pw[ITEMS];
    load(px, of.x, packs, base);
    load(pg, of.g, packs, base);
    if (of.w) load(pw, of.w, packs, base);
    widen(d, pg, packs, base, (C)0);
#pragma unroll
    for (int i = 0; i < ITEMS; ++i) {
        bool there = base + i * LANES + row_lane() < packs;
#pragma unroll
        for (int v = 0; v < VEC; ++v) {
            h[i * VEC + v] = there ? (convert<C>(px[i].at[v]) - mean) * rstd : (C)0;
            if (of.w && there) d[i * VEC + v] *= convert<C>(pw[i].at[v]);
        }
    }
}

DEVICE void add_products(Two &sums, const C (&d)[ITEMS * VEC], const C (&h)[ITEMS * VEC]) {
    Two part;
    part.a = part.b = (C)0;
#pragma unroll
    for (int i = 0; i < ITEMS * VEC; ++i) {
        part.a += d[i];
        part.b += d[i] * h[i];
    }
    sums.a += part.a;
    sums.b += part.b;
}

DEVICE void write_slope(T *dx, C (&d)[ITEMS * VEC], const C (&h)[ITEMS * VEC], const Pack (&added)[ITEMS], C rstd,
                        Two means, Index packs, Index base) {
    Pack pack[ITEMS];
#pragma unroll
    for (int i = 0; i < ITEMS * VEC; ++i) d[i] = rstd * (d[i] - means.a - h[i] * means.b);
#if ADD
#pragma unroll
    for (int i = 0; i < ITEMS; ++i) {
        if (base + i * LANES + row_lane() >= packs) continue;
#pragma unroll
        for (int v = 0; v < VEC; ++v) d[i * VEC + v] += convert<C>(added[i].at[v]);
    }
#endif
    narrow(pack, d);
    store(dx, pack, packs, base);
}

// dx = rstd (d - mean(d) - h mean(d h)) of one row, without the first mean for the RMS norm. For all threads of the
// block: `there` says whether the row exists.
DEVICE void row_slope(Operands of, T *dx, i64 row, bool there, i64 width, Two *slots) {
    const Index packs = there ? width / VEC : 0;
    const C mean = there && !RMS ? of.mean[row] : (C)0, rstd = there ? of.rstd[row] : (C)0;
    of.x += row * width, of.g += row * width, dx += row * width;
    Pack added[ITEMS];
#if ADD
    of.r += row * width;
#endif
    C d[ITEMS * VEC], h[ITEMS * VEC];
    Two sums;
    sums.a = sums.b = (C)0;
#if !LONG
    const Index base = 0;
#if ADD
    load(added, of.r, packs, base);
#endif
    batch_of(d, h, of, mean, rstd, packs, base);
    add_products(sums, d, h);
#else
    for (Index base = 0; base < packs; base += LANES * ITEMS) {
        batch_of(d, h, of, mean, rstd, packs, base);
        add_products(sums, d, h);
    }
#endif
    sums = row_sums(sums, slots);
    sums.a = RMS ? (C)0 : quotient(sums.a, (C)width);
    sums.b = quotient(sums.b, (C)width);
#if LONG
    for (Index base = 0; base < packs; base += LANES * ITEMS)
#endif
    {
#if LONG
        batch_of(d, h, of, mean, rstd, packs, base);
#if ADD
        load(added, of.r, packs, base);
#endif
#endif
        write_slope(dx, d, h, added, rstd, sums, packs, base);
    }
}

// Adds a block's sums of columns, which the threads of its `tile` columns of packs hold a slice of rows each of, and
// writes them: to dw and db, or to `part` (2 x width) if there is one.
DEVICE void write_columns(C (&sw)[VEC], C (&sb)[VEC], int tile, i64 first, i64 width, T *dw, T *db, C *part) {
    __shared__ C cross[BOUND / WARP][2 * 64];
#pragma unroll
    for (int v = 0; v < VEC; ++v)
        for (int d = tile; d < WARP; d *= 2) {
            sw[v] += __shfl_xor_sync(FULL_MASK, sw[v], d);
            sb[v] += __shfl_xor_sync(FULL_MASK, sb[v], d);
        }
    const int lane = threadIdx.x % WARP, columns = tile * VEC;
    if (lane < tile) {
#pragma unroll
        for (int v = 0; v < VEC; ++v) {
            cross[threadIdx.x / WARP][lane * VEC + v] = sw[v];
            cross[threadIdx.x / WARP][64 + lane * VEC + v] = sb[v];
        }
    }
    __syncthreads();
    for (int i = threadIdx.x; i < 2 * columns; i += blockDim.x) {
        const int which = i / columns, at = i % columns;
        const i64 column = first * VEC + at;
        if (column >= width) continue;
        C sum = (C)0;
        for (int w = 0; w < (int)(blockDim.x / WARP); ++w) sum += cross[w][which * 64 + at];
        if (part) part[which * width + column] = sum;
        else if (which == 0) dw[column] = convert<T>(sum);
        else if (db) db[column] = convert<T>(sum);
    }
}

// dw = sum(g h) and db = sum(g) of the columns of packs `first ..`, over rows `start .. end`.
DEVICE void sum_columns(const Operands &of, int tile, i64 first, i64 start, i64 end, i64 width, T *dw, T *db, C *part) {
    const i64 column = first + threadIdx.x % tile;
    const int slices = blockDim.x / tile;
    C sw[VEC], sb[VEC];
#pragma unroll
    for (int v = 0; v < VEC; ++v) sw[v] = sb[v] = (C)0;
    if (column * VEC < width) {
#pragma unroll 4
        for (i64 row = start + threadIdx.x / tile; row < end; row += slices) {
            const Pack px = ((const Pack *)(of.x + row * width))[column];
            const Pack pg = ((const Pack *)(of.g + row * width))[column];
            const C mean = RMS ? (C)0 : of.mean[row], rstd = of.rstd[row];
#pragma unroll
            for (int v = 0; v < VEC; ++v) {
                const C g = convert<C>(pg.at[v]);
                sw[v] += g * ((convert<C>(px.at[v]) - mean) * rstd);
                sb[v] += g;
            }
        }
    }
    write_columns(sw, sb, tile, first, width, dw, db, part);
}

// Both adjoints in one launch. Rows come in ranges of `range` (a multiple of a block's rows); of each range's blocks the
// first `row_blocks` compute dx, the others a tile of `tile` columns of packs of dw and db each: they follow so soon that
// x and g are still in cache. With more than one range the sums of columns go to `parts`, [ranges][2][width].
KERNEL __launch_bounds__(BOUND, 1)
norm_grad(const T *__restrict__ x, const C *__restrict__ mean, const C *__restrict__ rstd, const T *__restrict__ g,
          const T *__restrict__ r, const T *__restrict__ w, T *__restrict__ dx, T *__restrict__ dw, T *__restrict__ db,
          C *__restrict__ parts, i64 rows, i64 width, i64 range, u32 row_blocks, u32 tiles, int tile) {
    begin_kernel();
    __shared__ Two slots[WARP];
    const u32 which = blockIdx.x / (row_blocks + tiles), block = blockIdx.x % (row_blocks + tiles);
    const i64 start = which * range, end = start + range < rows ? start + range : rows;
    Operands of;
    of.x = x, of.mean = mean, of.rstd = rstd, of.g = g, of.w = w, of.r = r;
    if (block < row_blocks) {
        const i64 row = start + (i64)block * (LANES > WARP ? 1 : blockDim.x / LANES) +
                        (LANES > WARP ? 0 : threadIdx.x / LANES);
        row_slope(of, dx, row, row < end, width, slots);
    } else {
        const i64 first = (i64)(block - row_blocks) * tile;
        sum_columns(of, tile, first, start, end, width, dw, db, parts ? parts + which * 2 * width : 0);
    }
}

// dw and db from the sums of `ranges` ranges of rows. Blocks of 32 columns by 8 slices of ranges.
KERNEL __launch_bounds__(256)
norm_grad_finish(const C *__restrict__ parts, T *__restrict__ dw, T *__restrict__ db, i64 ranges, i64 width) {
    begin_kernel();
    __shared__ C cross[8][WARP];
    const i64 column = (i64)blockIdx.x * WARP + threadIdx.x % WARP, total = db ? 2 * width : width;
    const int slice = threadIdx.x / WARP;
    C sum = (C)0;
    if (column < total) {
#pragma unroll 8
        for (i64 r = slice; r < ranges; r += 8) sum += parts[r * 2 * width + column];
    }
    cross[slice][threadIdx.x % WARP] = sum;
    __syncthreads();
    if (slice > 0 || column >= total) return;
    for (int s = 1; s < 8; ++s) sum += cross[s][threadIdx.x];
    if (column < width) dw[column] = convert<T>(sum);
    else db[column - width] = convert<T>(sum);
}

#else

// The packs of a batch, widened: of x, or of x + r. The sum goes to `s` if that is not null.
DEVICE void load_row(C (&c)[ITEMS * VEC], const T *x, const T *r, T *s, Index packs, Index base) {
    Pack px[ITEMS];
    load(px, x, packs, base);
#if ADD
    Pack pr[ITEMS];
    C other[ITEMS * VEC];
    load(pr, r, packs, base);
    widen(other, pr, packs, base, (C)0);
#endif
    widen(c, px, packs, base, (C)0);
#if ADD
#pragma unroll
    for (int i = 0; i < ITEMS * VEC; ++i) c[i] += other[i];
    narrow(px, c);
    if (s) store(s, px, packs, base);
    widen(c, px, packs, base, (C)0);
#endif
}

// Takes the mean from the elements of a batch and adds up the squares of what is left; nothing behind the row's end.
DEVICE C centre(C (&x)[ITEMS * VEC], C mean, Index packs, Index base) {
    C squares = (C)0;
#pragma unroll
    for (int i = 0; i < ITEMS; ++i) {
        bool there = base + i * LANES + row_lane() < packs;
#pragma unroll
        for (int v = 0; v < VEC; ++v) {
            C &at = x[i * VEC + v];
            at = there ? at - mean : (C)0;
            squares += at * at;
        }
    }
    return squares;
}

DEVICE void scale(T *y, C (&x)[ITEMS * VEC], C rstd, const Pack (&pw)[ITEMS], const Pack (&pb)[ITEMS], bool w, bool b,
                  Index packs, Index base) {
    Pack pack[ITEMS];
#pragma unroll
    for (int i = 0; i < ITEMS; ++i)
#pragma unroll
        for (int v = 0; v < VEC; ++v) {
            C &at = x[i * VEC + v];
            at *= rstd;
            if (w) at *= convert<C>(pw[i].at[v]);
            if (b) at += convert<C>(pb[i].at[v]);
        }
    narrow(pack, x);
    store(y, pack, packs, base);
}

DEVICE C rstd_of(C squares, i64 width, C eps) { return quotient((C)1, sqrt_of(quotient(squares, (C)width) + eps)); }

KERNEL __launch_bounds__(BOUND, 1)
normalise(const T *__restrict__ x, const T *__restrict__ r, const T *__restrict__ w, const T *__restrict__ b,
          T *__restrict__ y, T *__restrict__ s, C *__restrict__ mean, C *__restrict__ rstd, i64 rows, i64 width,
          double eps) {
    begin_kernel();
    __shared__ C slots[2][WARP];
    Pack pw[ITEMS], pb[ITEMS];
    C c[ITEMS * VEC];
    const Index packs = width / VEC;
#if !LONG && LANES <= WARP
    // Narrow rows: many a thread, with the weights kept.
    if (w) load(pw, w, packs, 0);
    if (b) load(pb, b, packs, 0);
    for (i64 base = first_row(); base < rows; base += row_step()) {
        const i64 row = base + row_in_step();
        const Index live = row < rows ? packs : 0;
#else
    {
        const i64 row = first_row() + row_in_step();
        const Index live = row < rows ? packs : 0;
#endif
        const T *from = x + row * width, *other = ADD ? r + row * width : 0;
        T *sum_to = ADD ? s + row * width : 0;
        C m = (C)0;
#if !LONG
        load_row(c, from, other, sum_to, live, 0);
        if (!RMS) {
            C sum = (C)0;
#pragma unroll
            for (int i = 0; i < ITEMS * VEC; ++i) sum += c[i];
            m = quotient(row_sum(sum, slots[0]), (C)width);
        }
        const C scale_by = rstd_of(row_sum(centre(c, m, live, 0), slots[1]), width, (C)eps);
#if LANES > WARP
        if (w) load(pw, w, packs, 0);
        if (b) load(pb, b, packs, 0);
#endif
        scale(y + row * width, c, scale_by, pw, pb, w != 0, b != 0, live, 0);
#else
        if (!RMS) {
            C sum = (C)0;
            for (Index at = 0; at < live; at += LANES * ITEMS) {
                load_row(c, from, other, 0, live, at);
                C part = (C)0;
#pragma unroll
                for (int i = 0; i < ITEMS * VEC; ++i) part += c[i];
                sum += part;
            }
            m = quotient(row_sum(sum, slots[0]), (C)width);
        }
        C squares = (C)0;
        for (Index at = 0; at < live; at += LANES * ITEMS) {
            load_row(c, from, other, 0, live, at);
            squares += centre(c, m, live, at);
        }
        const C scale_by = rstd_of(row_sum(squares, slots[1]), width, (C)eps);
        for (Index at = 0; at < live; at += LANES * ITEMS) {
            load_row(c, from, other, sum_to, live, at);
            if (w) load(pw, w, packs, at);
            if (b) load(pb, b, packs, at);
            centre(c, m, live, at);
            scale(y + row * width, c, scale_by, pw, pb, w != 0, b != 0, live, at);
        }
#endif
        if (row < rows && row_lane() == 0) {
            rstd[row] = scale_by;
            if (!RMS) mean[row] = m;
        }
    }
}

#endif
