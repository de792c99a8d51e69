// Cross-entropy of logits against class indices, the softmax fused in, and its adjoint. Follows rows.cuh and
// last_block.cuh. One launch each: logits are read once, no probability is kept.
//
// With smoothing s the target distribution is 1 - s at the target plus s / c everywhere.

// Whether a target is a class; reported by the row's first thread if not.
DEVICE bool is_class(i64 target, i64 classes, Fault *fault) {
    if (target >= 0 && target < classes) return true;
    if (row_lane() == 0) report(fault, FAULT_INDEX, target, classes);
    return false;
}

#if GRAD

// dlogits = (softmax - target distribution) g / count, 0 in ignored rows. `keep` is 1 - s, `spread` s / c.
KERNEL __launch_bounds__(BOUND, 1)
cross_entropy_grad(const T *__restrict__ logits, const i64 *__restrict__ target, const C *__restrict__ lse,
                   const C *__restrict__ count, const C *__restrict__ g, T *__restrict__ d, Fault *fault, i64 rows,
                   i64 classes, i64 ignore, double keep, double spread) {
    begin_kernel();
    const i64 row = first_row() + row_in_step();
    if (row >= rows) return;
    const i64 t = target[row];
    const C scale = quotient(*g, *count), uniform = (C)spread * scale, log_sum = lse[row];
    const bool counts = t != ignore;
    const bool hits = counts && is_class(t, classes, fault);
    const i64 hit_pack = hits ? t / VEC : -1;
    const int hit_at = hits ? (int)(t % VEC) : 0;
    const Index packs = classes / VEC;
    logits += row * classes, d += row * classes;
    Pack pack[ITEMS];
    C c[ITEMS * VEC];
#if !LONG
    const Index base = 0;
#else
    for (Index base = 0; base < packs; base += LANES * ITEMS)
#endif
    {
        load(pack, logits, counts ? packs : 0, base);
        widen(c, pack, counts ? packs : 0, base, (C)0);
#pragma unroll
        for (int i = 0; i < ITEMS; ++i) {
            const bool hit = base + i * LANES + row_lane() == hit_pack;
#pragma unroll
            for (int v = 0; v < VEC; ++v) {
                C &x = c[i * VEC + v];
                x = counts ? exp_of(x - log_sum) * scale - uniform : (C)0;
                if (hit && v == hit_at) x -= (C)keep * scale;
            }
        }
        narrow(pack, c);
        store(d, pack, packs, base);
    }
}

#else

// What a block's rows add up to.
struct Part {
    double loss;
    i64 count;
};

DEVICE Part block_part(Part part, double *losses, i64 *counts) {
    part.loss = block_all<Sum>(part.loss, losses);
    part.count = block_all<Sum>(part.count, counts);
    return part;
}

// The log of the sum of e^x of the row, in two terms, and the sum of x if `smooth`.
struct RowSums {
    C max, log_sum, sum;
};

DEVICE C sum_of(const C (&c)[ITEMS * VEC]) {
    C sum = (C)0;
#pragma unroll
    for (int i = 0; i < ITEMS * VEC; ++i) sum += c[i];
    return sum;
}

DEVICE RowSums row_sums(const T *row, Index packs, bool smooth, SumExp *pairs, C *slots) {
    Pack pack[ITEMS];
    C c[ITEMS * VEC];
    C sum = (C)0;
#if !LONG
    load(pack, row, packs, 0);
    if (smooth) {
        widen(c, pack, packs, 0, (C)0);
        sum = sum_of(c);
    }
    widen(c, pack, packs, 0, (C)MIN_F);
    const SumExp of_warp = warp_sum_exp(c, false);
#else
    SumExp run;
    run.max = (C)MIN_F;
    run.sum = (C)0;
    for (Index base = 0; base < packs; base += LANES * ITEMS) {
        load(pack, row, packs, base);
        if (smooth) {
            widen(c, pack, packs, base, (C)0);
            sum += sum_of(c);
        }
        widen(c, pack, packs, base, (C)MIN_F);
        add_sum_exp(run, c);
    }
    const SumExp of_warp = join_sum_exp(run);
#endif
    const SumExp all = row_sum_exp(of_warp, pairs);
    RowSums sums;
    sums.max = all.max;
    sums.log_sum = log_of(all.sum);
    sums.sum = smooth ? row_sum(sum, slots) : (C)0;
    return sums;
}

// loss is the mean over the rows that count, NaN if none does; lse[row] the log of the sum of e^logits, 0 in ignored
// rows. `parts` is scratch memory for a Part a block.
KERNEL __launch_bounds__(BOUND, 1)
cross_entropy(const T *__restrict__ logits, const i64 *__restrict__ target, C *loss, C *__restrict__ lse, C *count,
              Part *parts, Fault *fault, i64 rows, i64 classes, i64 ignore, double smoothing) {
    begin_kernel();
    __shared__ SumExp pairs[WARP];
    __shared__ C slots[WARP];
    __shared__ double losses[WARP];
    __shared__ i64 counts[WARP];
    Part part;
    part.loss = 0;
    part.count = 0;
    for (i64 base = first_row(); base < rows; base += row_step()) {
        const i64 row = base + row_in_step();
        const i64 t = row < rows ? target[row] : ignore;
        const bool counted = row < rows && t != ignore;
        const T *x = logits + row * classes;
        C at_target = (C)NAN_F;
        if (counted && is_class(t, classes, fault) && row_lane() == 0) at_target = convert<C>(x[t]);
        // Ignored rows are read too: their loads need not wait for the target.
        const RowSums of = row_sums(x, row < rows ? classes / VEC : 0, smoothing != 0, pairs, slots);
        if (row < rows && row_lane() == 0) lse[row] = counted ? of.max + of.log_sum : (C)0;
        if (counted && row_lane() == 0) {
            // Differences from the largest are taken before log_sum is added: nearly exact for likely targets.
            double own = (double)of.log_sum + (double)(of.max - at_target);
            if (smoothing != 0) {
                double uniform = (double)of.log_sum + ((double)of.max - (double)of.sum / (double)classes);
                own = (1 - smoothing) * own + smoothing * uniform;
            }
            part.loss += own;
            part.count += 1;
        }
#if LANES > WARP
        // The slots are free for the next row.
        __syncthreads();
#endif
    }
    part = block_part(part, losses, counts);
    if (gridDim.x > 1) {
        if (threadIdx.x == 0) parts[blockIdx.x] = part;
        if (!last_to_arrive(0, gridDim.x)) return;
        part.loss = 0;
        part.count = 0;
        for (u32 i = threadIdx.x; i < gridDim.x; i += blockDim.x) {
            Part other = fresh(parts + i);
            part.loss += other.loss;
            part.count += other.count;
        }
        part = block_part(part, losses, counts);
    }
    if (threadIdx.x == 0) {
        *loss = (C)(part.loss / (double)part.count);
        *count = (C)part.count;
    }
}

#endif
