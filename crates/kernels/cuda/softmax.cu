// Softmax of rows (LOG 0), its logarithm (LOG 1), and the adjoints of both. Follows rows.cuh.
//
// A row is read once, into registers: the largest element and the sum are found for each warp, and only they cross it.
// A row of nothing but -inf gives NaN, and so does one with NaN or +inf.

#if GRAD

// dx = y (g - sum(g y)), or g - e^y sum(g).
DEVICE C term_of(C y, C g) { return LOG ? g : y * g; }
DEVICE C slope_of(C y, C g, C sum) { return LOG ? g - exp_of(y) * sum : y * (g - sum); }

KERNEL __launch_bounds__(BOUND, 1)
softmax_grad(const T *__restrict__ y, const T *__restrict__ g, T *__restrict__ dx, i64 rows, i64 width) {
    begin_kernel();
    __shared__ C slots[WARP];
    const i64 row = first_row() + row_in_step();
    const Index packs = row < rows ? width / VEC : 0;
    y += row * width, g += row * width, dx += row * width;
    Pack py[ITEMS], pg[ITEMS];
    C cy[ITEMS * VEC], cg[ITEMS * VEC];
    C sum = (C)0;
#if !LONG
    load(py, y, packs, 0);
    load(pg, g, packs, 0);
    widen(cy, py, packs, 0, (C)0);
    widen(cg, pg, packs, 0, (C)0);
#pragma unroll
    for (int i = 0; i < ITEMS * VEC; ++i) sum += term_of(cy[i], cg[i]);
    sum = row_sum(sum, slots);
#pragma unroll
    for (int i = 0; i < ITEMS * VEC; ++i) cg[i] = slope_of(cy[i], cg[i], sum);
    narrow(pg, cg);
    store(dx, pg, packs, 0);
#else
    for (Index base = 0; base < packs; base += LANES * ITEMS) {
        load(py, y, packs, base);
        load(pg, g, packs, base);
        widen(cy, py, packs, base, (C)0);
        widen(cg, pg, packs, base, (C)0);
        C part = (C)0;
#pragma unroll
        for (int i = 0; i < ITEMS * VEC; ++i) part += term_of(cy[i], cg[i]);
        sum += part;
    }
    sum = row_sum(sum, slots);
    for (Index base = 0; base < packs; base += LANES * ITEMS) {
        load(py, y, packs, base);
        load(pg, g, packs, base);
        widen(cy, py, packs, base, (C)0);
        widen(cg, pg, packs, base, (C)0);
#pragma unroll
        for (int i = 0; i < ITEMS * VEC; ++i) cg[i] = slope_of(cy[i], cg[i], sum);
        narrow(pg, cg);
        store(dx, pg, packs, base);
    }
#endif
}

#else

// Blocks a multiprocessor: as many as keep 1536 threads there, where a held row leaves the registers for it.
#define RESIDENT (LONG || VEC == 1 || sizeof(C) == 8 || LANES > 512 ? 1 : LANES > 64 ? 1536 / BOUND : 6)

KERNEL __launch_bounds__(BOUND, RESIDENT)
softmax(const T *__restrict__ x, T *__restrict__ y, i64 rows, i64 width) {
    begin_kernel();
    __shared__ SumExp slots[WARP];
    const i64 row = first_row() + row_in_step();
    const Index packs = row < rows ? width / VEC : 0;
    x += row * width, y += row * width;
    Pack pack[ITEMS];
    C c[ITEMS * VEC];
#if !LONG
    load(pack, x, packs, 0);
    widen(c, pack, packs, 0, (C)MIN_F);
    const SumExp of_warp = warp_sum_exp(c, !LOG);
    const SumExp all = row_sum_exp(of_warp, slots);
#if LOG
    const C log_sum = log_of(all.sum);
#pragma unroll
    for (int i = 0; i < ITEMS * VEC; ++i) c[i] = c[i] - all.max - log_sum;
#else
    // What a warp's largest element lacks to the row's.
    const C scale = LANES > WARP ? quotient(exp_of(of_warp.max - shift_of(all.max)), all.sum) : quotient((C)1, all.sum);
#pragma unroll
    for (int i = 0; i < ITEMS * VEC; ++i) c[i] *= scale;
#endif
    narrow(pack, c);
    store(y, pack, packs, 0);
#else
    SumExp run;
    run.max = (C)MIN_F;
    run.sum = (C)0;
    for (Index base = 0; base < packs; base += LANES * ITEMS) {
        load(pack, x, packs, base);
        widen(c, pack, packs, base, (C)MIN_F);
        add_sum_exp(run, c);
    }
    const SumExp all = row_sum_exp(join_sum_exp(run), slots);
    const C scale = quotient((C)1, all.sum), log_sum = log_of(all.sum);
    for (Index base = 0; base < packs; base += LANES * ITEMS) {
        load(pack, x, packs, base);
        widen(c, pack, packs, base, (C)MIN_F);
#pragma unroll
        for (int i = 0; i < ITEMS * VEC; ++i)
            c[i] = LOG ? c[i] - all.max - log_sum : exp_of(c[i] - shift_of(all.max)) * scale;
        narrow(pack, c);
        store(y, pack, packs, base);
    }
#endif
}

#endif
