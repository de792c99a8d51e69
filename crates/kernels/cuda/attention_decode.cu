// Attention of few queries over many keys (generation with a key-value cache), for every type and GPU.
//
// A block has one query of one head and a span of its keys. A key is read by G lanes, 16 bytes each at a time, so a block
// works on GROUPS keys at once, each group with an online softmax of its own; the groups are merged in a fixed order in
// shared memory. With several spans a query (so that few heads fill the device) a second kernel merges these.

#define THREADS 128
#define VL (16 / (int)sizeof(T))
#define G (HEAD / VL < WARP ? HEAD / VL : WARP)
#define PARTS (HEAD / VL / G)
#define GROUPS (THREADS / G)
// Keys that a group has in flight; of f64, as many as sm_35 has registers for.
#define U (PARTS > 1 || sizeof(T) == 8 ? 2 : 4)

// A row's elements of this lane: vector `part` begins at (part * G + lane) * VL; zeros beyond `dim`.
DEVICE void load_row(const Attention &p, Vec<T, VL> (&x)[PARTS], const T *row) {
#pragma unroll
    for (int part = 0; part < PARTS; ++part) {
        int d = (part * G + (int)threadIdx.x % G) * VL, dim = (int)p.dim;
        if (p.aligned && d + VL <= dim) {
            x[part] = *(const Vec<T, VL> *)(row + d);
        } else {
#pragma unroll
            for (int e = 0; e < VL; ++e) x[part].at[e] = d + e < dim ? row[d + e] : convert<T>((C)0);
        }
    }
}

DEVICE void zero_row(Vec<T, VL> (&x)[PARTS]) {
#pragma unroll
    for (int part = 0; part < PARTS; ++part)
#pragma unroll
        for (int e = 0; e < VL; ++e) x[part].at[e] = convert<T>((C)0);
}

// Merges `n` partial results, each its maximum and sum at `sums[2 i]` and HEAD elements at `rows[i * pitch]`, into
// element `d`; returns the sum relative to `top`.
DEVICE C merge(int n, const C *sums, i64 sums_pitch, const C *rows, i64 pitch, int d, C &top, C &out) {
    top = (C)-INF_F;
    for (int i = 0; i < n; ++i) top = larger(top, sums[i * sums_pitch]);
    const C base = top == (C)-INF_F ? (C)0 : top;
    C total = (C)0;
    out = (C)0;
    for (int i = 0; i < n; ++i) {
        const C fix = power2(sums[i * sums_pitch] - base);
        total += fix * sums[i * sums_pitch + 1];
        out += fix * rows[i * pitch + d];
    }
    return total;
}

DEVICE void finish(const Attention &p, i64 row, int d, C top, C total, C out) {
    const i64 head = quotient(row, p.queries), i = row - head * p.queries;
    const i64 b = quotient(head, p.heads), h = remainder(head, p.heads);
    if (d < (int)p.dim) {
        T *to = p.out[0] + b * p.outs[0].batch + h * p.outs[0].head + i * p.outs[0].row;
        to[d] = convert<T>(total == (C)0 ? (C)0 : out / total);
    }
    if (d == 0) p.out_lse[row] = log_sum(top, total);
}

KERNEL __launch_bounds__(THREADS) attention_decode(const Attention p) {
    begin_kernel();
    __shared__ alignas(16) C rows[GROUPS * HEAD];
    __shared__ C sums[GROUPS * 2];
    const i64 block = block_index();
    if (block >= p.blocks) return;
    const i64 row = quotient(block, p.splits), head = quotient(row, p.queries);
    const i64 b = quotient(head, p.heads), h = remainder(head, p.heads);
    const i64 kv = kv_head(p, h), mask = mask_at(p, b, h);
    const int i = (int)(row - head * p.queries), start = (int)((block - row * p.splits) * p.span);
    const int end = least(visible(p, i), start + (int)p.span), group = threadIdx.x / G;
    const T *k = p.k + b * p.ks.batch + kv * p.ks.head, *v = p.v + b * p.vs.batch + kv * p.vs.head;
    const C factor = (C)(p.scale * LOG2E);
    Vec<T, VL> q[PARTS];
    load_row(p, q, p.q + b * p.qs.batch + h * p.qs.head + i * p.qs.row);
    C top = (C)-INF_F, sum = (C)0, out[PARTS][VL];
#pragma unroll
    for (int part = 0; part < PARTS; ++part)
#pragma unroll
        for (int e = 0; e < VL; ++e) out[part][e] = (C)0;
    for (int at = start; at < end; at += GROUPS * U) {
        Vec<T, VL> x[U][PARTS], y[U][PARTS];
#pragma unroll
        for (int u = 0; u < U; ++u) {
            const int j = at + u * GROUPS + group;
            if (j < end) {
                load_row(p, x[u], k + j * p.ks.row);
                load_row(p, y[u], v + j * p.vs.row);
            } else {
                zero_row(x[u]);
                zero_row(y[u]);
            }
        }
        C s[U], best = top;
#pragma unroll
        for (int u = 0; u < U; ++u) {
            const int j = at + u * GROUPS + group;
            s[u] = (C)0;
#pragma unroll
            for (int part = 0; part < PARTS; ++part)
#pragma unroll
                for (int e = 0; e < VL; ++e) s[u] += convert<C>(q[part].at[e]) * convert<C>(x[u][part].at[e]);
#pragma unroll
            for (int d = G / 2; d > 0; d /= 2) s[u] += __shfl_xor_sync(FULL_MASK, s[u], d);
            s[u] = j < end ? score(p, s[u], factor, mask, i, j) : (C)-INF_F;
            best = larger(best, s[u]);
        }
        const C base = best == (C)-INF_F ? (C)0 : best, fix = power2(top - base);
        top = best;
        sum *= fix;
#pragma unroll
        for (int part = 0; part < PARTS; ++part)
#pragma unroll
            for (int e = 0; e < VL; ++e) out[part][e] *= fix;
#pragma unroll
        for (int u = 0; u < U; ++u) {
            const C w = power2(s[u] - base);
            sum += w;
#pragma unroll
            for (int part = 0; part < PARTS; ++part)
#pragma unroll
                for (int e = 0; e < VL; ++e) out[part][e] += w * convert<C>(y[u][part].at[e]);
        }
    }
#pragma unroll
    for (int part = 0; part < PARTS; ++part)
#pragma unroll
        for (int e = 0; e < VL; ++e) rows[group * HEAD + (part * G + threadIdx.x % G) * VL + e] = out[part][e];
    if (threadIdx.x % G == 0) {
        sums[2 * group] = top;
        sums[2 * group + 1] = sum;
    }
    __syncthreads();
    C *to = p.parts + block * (HEAD + 2);
    for (int d = threadIdx.x; d < HEAD; d += THREADS) {
        C all, value;
        const C total = merge(GROUPS, sums, 2, rows, HEAD, d, all, value);
        if (p.splits == 1) {
            finish(p, row, d, all, total, value);
        } else {
            to[2 + d] = value;
            if (d == 0) {
                to[0] = all;
                to[1] = total;
            }
        }
    }
}

// One query of one head a block, an element of it a thread.
KERNEL __launch_bounds__(THREADS) attention_combine(const Attention p) {
    begin_kernel();
    const i64 row = block_index();
    if (row * p.splits >= p.blocks) return;
    const C *from = p.parts + row * p.splits * (HEAD + 2);
    for (int d = threadIdx.x; d < HEAD; d += THREADS) {
        C all, value;
        const C total = merge((int)p.splits, from, HEAD + 2, from + 2, HEAD + 2, d, all, value);
        finish(p, row, d, all, total, value);
    }
}
