// Optimizer steps over many tensors at once. Tables of tensors come by value in the kernel's parameters, so that a captured
// launch keeps them; what changes from step to step (count, learning rate, gradient scale, whether to skip) is read from
// device memory. Arithmetic is in f32, for an f64 parameter in f64, from factors derived in f64. WIDE is 1 for code that
// takes f64 parameters too, which costs registers.

#define THREADS 256
// Tensors of one launch: their tables fit the 4 KiB that parameters may take.
#define SLOTS 80
#define GRADS 224
// Elements that a block updates at a time; and of which it sums the squares.
#define PIECE (4 * THREADS)
#define SUMMED (16 * THREADS)
// Bits of a kind: dtypes of parameter, gradient and shadow (2 each), and whether four elements may be moved as one.
#define ALIGNED 64u
enum { F16, BF16, F32, F64 };

// Four elements from number `at` of n, converted; zeros beyond the end.
template <typename C, typename T> DEVICE Vec<C, 4> load_as(const void *from, u32 at, u32 n, bool whole) {
    Vec<C, 4> y;
    const T *x = (const T *)from + at;
    if (whole && sizeof(T) <= 4) {
        Vec<T, 4> v = *(const Vec<T, 4> *)x;
#pragma unroll
        for (int i = 0; i < 4; ++i) y.at[i] = convert<C>(v.at[i]);
    } else if (whole) {
        Vec<T, 2> lo = ((const Vec<T, 2> *)x)[0], hi = ((const Vec<T, 2> *)x)[1];
        y.at[0] = convert<C>(lo.at[0]), y.at[1] = convert<C>(lo.at[1]);
        y.at[2] = convert<C>(hi.at[0]), y.at[3] = convert<C>(hi.at[1]);
    } else {
#pragma unroll
        for (int i = 0; i < 4; ++i) y.at[i] = at + i < n ? convert<C>(x[i]) : (C)0;
    }
    return y;
}

template <typename C> DEVICE Vec<C, 4> load4(u32 dtype, const void *from, u32 at, u32 n, bool whole) {
    switch (dtype) {
        case F16: return load_as<C, f16>(from, at, n, whole);
        case BF16: return load_as<C, bf16>(from, at, n, whole);
        case F32: return load_as<C, float>(from, at, n, whole);
        default: return load_as<C, double>(from, at, n, whole);
    }
}

template <typename C, typename T> DEVICE void store_as(void *to, const Vec<C, 4> &x, u32 at, u32 n, bool whole) {
    T *y = (T *)to + at;
    if (whole && sizeof(T) <= 4) {
        Vec<T, 4> v;
#pragma unroll
        for (int i = 0; i < 4; ++i) v.at[i] = convert<T>(x.at[i]);
        *(Vec<T, 4> *)y = v;
    } else if (whole) {
        Vec<T, 2> lo = {{convert<T>(x.at[0]), convert<T>(x.at[1])}}, hi = {{convert<T>(x.at[2]), convert<T>(x.at[3])}};
        ((Vec<T, 2> *)y)[0] = lo, ((Vec<T, 2> *)y)[1] = hi;
    } else {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            if (at + i < n) y[i] = convert<T>(x.at[i]);
        }
    }
}

template <typename C> DEVICE void store4(u32 dtype, void *to, const Vec<C, 4> &x, u32 at, u32 n, bool whole) {
    switch (dtype) {
        case F16: store_as<C, f16>(to, x, at, n, whole); break;
        case BF16: store_as<C, bf16>(to, x, at, n, whole); break;
        case F32: store_as<C, float>(to, x, at, n, whole); break;
        default: store_as<C, double>(to, x, at, n, whole);
    }
}

// Parameters with what belongs to them. Piece p belongs to the last slot i with first[i] <= p.
struct Slots {
    u64 param[SLOTS], grad[SLOTS], moment[SLOTS], second[SLOTS], shadow[SLOTS];
    u32 len[SLOTS], first[SLOTS];
    u8 kind[SLOTS];
};

template <typename Table> DEVICE u32 slot_of(const Table &table, u32 count, u32 piece) {
    u32 lo = 0, hi = count;
    while (hi - lo > 1) {
        u32 mid = (lo + hi) / 2;
        if (table.first[mid] <= piece) lo = mid;
        else hi = mid;
    }
    return lo;
}

// What changes from step to step. `done` counts the blocks that have read it.
struct State {
    i64 *step;
    const float *lr, *grad_scale;
    const u8 *skip;
    u32 *done;
};

DEVICE float fused(float a, float b, float c) { return fmaf(a, b, c); }
DEVICE double fused(double a, double b, double c) { return fma(a, b, c); }
DEVICE float root_of(float x) { return sqrtf(x); }
DEVICE double root_of(double x) { return sqrt(x); }

// b^n by squaring: within n's bits of rounding, and no library code.
DEVICE double power(double b, i64 n) {
    double y = 1;
    for (; n > 0; n >>= 1, b *= b) {
        if (n & 1) y *= b;
    }
    return y;
}

// A rule is the factors of one step and what they do to an element. They are derived in f64 by one thread of a block.
struct AdamHyper { double beta1, beta2, eps, weight_decay; i64 decoupled; };

template <typename C> struct Adam {
    typedef AdamHyper Hyper;
    enum { MOMENTS = 2 };
    C grad_scale, coupled, shrink, beta1, rest1, beta2, rest2, rate, root_scale, eps;

    DEVICE void derive(const AdamHyper &h, i64 step, double lr, double scale) {
        grad_scale = (C)scale;
        coupled = (C)(h.decoupled ? 0 : h.weight_decay);
        shrink = (C)(h.decoupled ? 1 - lr * h.weight_decay : 1);
        beta1 = (C)h.beta1, rest1 = (C)(1 - h.beta1), beta2 = (C)h.beta2, rest2 = (C)(1 - h.beta2);
        rate = (C)(-lr / (1 - power(h.beta1, step)));
        root_scale = (C)(1 / sqrt(1 - power(h.beta2, step)));
        eps = (C)h.eps;
    }
    DEVICE void apply(C &p, C g, C &m, C &v) const {
        C grad = fused(p, coupled, g * grad_scale);
        m = fused(m, beta1, grad * rest1);
        v = fused(v, beta2, grad * grad * rest2);
        C root = fused(root_of(v), root_scale, eps);
        p = fused(rate, m / root, p * shrink);
    }
};

struct SgdHyper { double momentum, weight_decay; i64 nesterov; };

template <typename C> struct Momentum {
    typedef SgdHyper Hyper;
    enum { MOMENTS = 1 };
    C grad_scale, decay, rate, momentum, ahead, of_grad;

    DEVICE void derive(const SgdHyper &h, i64, double lr, double scale) {
        grad_scale = (C)scale, decay = (C)h.weight_decay, rate = (C)-lr, momentum = (C)h.momentum;
        ahead = (C)(h.nesterov ? h.momentum : 1), of_grad = (C)(h.nesterov ? 1 : 0);
    }
    DEVICE void apply(C &p, C g, C &m, C &) const {
        C grad = fused(p, decay, g * grad_scale);
        m = fused(m, momentum, grad);
        p = fused(rate, fused(m, ahead, grad * of_grad), p);
    }
};

template <typename C> struct Plain {
    typedef SgdHyper Hyper;
    enum { MOMENTS = 0 };
    C grad_scale, decay, rate;

    DEVICE void derive(const SgdHyper &h, i64, double lr, double scale) {
        grad_scale = (C)scale, decay = (C)h.weight_decay, rate = (C)-lr;
    }
    DEVICE void apply(C &p, C g, C &, C &) const { p = fused(rate, fused(p, decay, g * grad_scale), p); }
};

// Four elements of a slot, on the way.
template <typename C> struct Held { Vec<C, 4> p, g, m, v; };

template <int MOMENTS, typename C>
DEVICE Held<C> load_held(const Slots &t, u32 i, u32 kind, u32 at, u32 n, bool whole) {
    Held<C> x;
    x.p = load4<C>(kind & 3, (const void *)t.param[i], at, n, whole);
    x.g = load4<C>(kind >> 2 & 3, (const void *)t.grad[i], at, n, whole);
    if (MOMENTS > 0) x.m = load_as<C, C>((const void *)t.moment[i], at, n, whole);
    if (MOMENTS > 1) x.v = load_as<C, C>((const void *)t.second[i], at, n, whole);
    return x;
}

template <typename C, typename Rule>
DEVICE void update(const Rule &rule, Held<C> &x, const Slots &t, u32 i, u32 kind, u32 at, u32 n, bool whole) {
#pragma unroll
    for (int e = 0; e < 4; ++e) rule.apply(x.p.at[e], x.g.at[e], x.m.at[e], x.v.at[e]);
    store4<C>(kind & 3, (void *)t.param[i], x.p, at, n, whole);
    if (Rule::MOMENTS > 0) store_as<C, C>((void *)t.moment[i], x.m, at, n, whole);
    if (Rule::MOMENTS > 1) store_as<C, C>((void *)t.second[i], x.v, at, n, whole);
    if (t.shadow[i]) store4<C>(kind >> 4 & 3, (void *)t.shadow[i], x.p, at, n, whole);
}

// One piece of slot `i`, whose elements are on the way while `rule()` waits for the state; null to leave all as it is.
template <typename C, typename Rule, typename Ready>
DEVICE bool update_piece(const Slots &t, u32 i, u32 piece, Ready rule) {
    u32 kind = t.kind[i], n = t.len[i], at = (piece - t.first[i]) * PIECE + threadIdx.x * 4;
    bool there = at < n, whole = (kind & ALIGNED) && at + 4 <= n;
    Held<C> x;
    if (there) x = load_held<Rule::MOMENTS, C>(t, i, kind, at, n, whole);
    const Rule *ready = rule();
    if (ready && there) update<C>(*ready, x, t, i, kind, at, n, whole);
    return ready != 0;
}

// All pieces of the table, by a grid that may be smaller. Each block reads the state once; the one that is last to have
// read it counts the step, if `last_launch`, so that every block of every launch sees the count of before.
template <template <typename> class Rule>
DEVICE void step_all(const Slots &t, const State &state, const typename Rule<float>::Hyper &hyper, u32 slots, u32 pieces,
                     bool last_launch) {
    __shared__ Rule<float> narrow;
#if WIDE
    __shared__ Rule<double> wide;
#endif
    __shared__ u32 skip;
    bool first = true;
    auto wait = [&]() {
        if (!first) return !skip;
        if (threadIdx.x == 0) {
            skip = *state.skip;
            i64 step = *state.step + 1;
            double lr = (double)*state.lr, scale = (double)*state.grad_scale;
            narrow.derive(hyper, step, lr, scale);
#if WIDE
            wide.derive(hyper, step, lr, scale);
#endif
        }
        __syncthreads();
        first = false;
        return !skip;
    };
    bool on = true;
    for (u32 piece = blockIdx.x; on && piece < pieces; piece += gridDim.x) {
        u32 i = slot_of(t, slots, piece);
#if WIDE
        if ((t.kind[i] & 3) == F64) {
            on = update_piece<double, Rule<double>>(t, i, piece, [&] { return wait() ? &wide : (Rule<double> *)0; });
            continue;
        }
#endif
        on = update_piece<float, Rule<float>>(t, i, piece, [&] { return wait() ? &narrow : (Rule<float> *)0; });
    }
    if (threadIdx.x == 0 && last_launch) {
        bool skipped = *state.skip;
        __threadfence();
        // Back at 0 after the last block, for the next launch.
        if (atomicInc(state.done, gridDim.x - 1) == gridDim.x - 1 && !skipped) *state.step += 1;
    }
}

KERNEL adam(Slots t, State state, AdamHyper hyper, u32 slots, u32 pieces, u32 last_launch) {
    begin_kernel();
    step_all<Adam>(t, state, hyper, slots, pieces, last_launch);
}

KERNEL sgd(Slots t, State state, SgdHyper hyper, u32 slots, u32 pieces, u32 last_launch) {
    begin_kernel();
    step_all<Plain>(t, state, hyper, slots, pieces, last_launch);
}

KERNEL sgd_momentum(Slots t, State state, SgdHyper hyper, u32 slots, u32 pieces, u32 last_launch) {
    begin_kernel();
    step_all<Momentum>(t, state, hyper, slots, pieces, last_launch);
}

struct Grads {
    u64 grad[GRADS];
    u32 len[GRADS], first[GRADS];
    u8 kind[GRADS];
};

// Where the norm and what follows of it goes. No clipping if max_norm is negative, no loss scale if it is null.
struct ScaleOut {
    float *norm, *factor;
    u8 *non_finite;
    const float *loss_scale;
    double max_norm;
    u32 *done;
};

struct Partial { double sum; u64 bad; };

// The sum over the block, in a fixed order; in thread 0.
DEVICE Partial block_partial(double sum, u32 bad) {
    __shared__ double sums[THREADS / WARP];
    sum = block_all<Sum>(sum, sums);
    return Partial{sum, (u64)__syncthreads_or(bad)};
}

DEVICE void finish(const ScaleOut &out, Partial all) {
    double scale = out.loss_scale ? (double)*out.loss_scale : 1;
    double norm = sqrt(all.sum) / scale;
    // As PyTorch's clip_grad_norm_; of a norm that is NaN the factor is 1, as the CPU has it.
    double clip = out.max_norm < 0 ? 1 : fmin(out.max_norm / (norm + 1e-6), 1.);
    *out.norm = (float)norm;
    *out.factor = (float)(clip / scale);
    *out.non_finite = all.bad != 0;
}

// Sum of squares of all gradients in f64 and whether all are finite, and by the block that is last of the last launch what
// follows from them. `partials` has a place for each block of all launches; this one's begin at `base`.
KERNEL gradient_scale(Grads t, ScaleOut out, Partial *partials, u32 base, u32 grads, u32 pieces, u32 last_launch) {
    begin_kernel();
    double sum = 0;
    u32 bad = 0;
    for (u32 piece = blockIdx.x; piece < pieces; piece += gridDim.x) {
        u32 i = slot_of(t, grads, piece);
        u32 kind = t.kind[i], n = t.len[i], at = (piece - t.first[i]) * SUMMED + threadIdx.x * 4;
        bool wide = (kind & 3) == F64;
        Vec<float, 4> x[4];
#pragma unroll
        for (int q = 0; q < 4; ++q) {
            u32 e = at + q * PIECE;
            x[q] = Vec<float, 4>();
            if (!wide && e < n) x[q] = load4<float>(kind & 3, (const void *)t.grad[i], e, n, (kind & ALIGNED) && e + 4 <= n);
        }
#pragma unroll
        for (int q = 0; q < 4; ++q) {
            u32 e = at + q * PIECE;
#pragma unroll
            for (int k = 0; k < 4; ++k) {
                double v = x[q].at[k];
                if (wide && e + k < n) v = ((const double *)t.grad[i])[e + k];
                sum = fma(v, v, sum);
                bad |= !(fabs(v) <= 1.7976931348623157e308);
            }
        }
    }
    __shared__ bool last;
    Partial mine = block_partial(sum, bad);
    if (threadIdx.x == 0) {
        partials[base + blockIdx.x] = mine;
        __threadfence();
        last = last_launch && atomicInc(out.done, gridDim.x - 1) == gridDim.x - 1;
    }
    __syncthreads();
    if (!last) return;
    __threadfence();
    sum = 0, bad = 0;
    for (u32 b = threadIdx.x; b < base + gridDim.x; b += THREADS) {
        // Not from the first-level cache: other blocks wrote them.
        sum += *(volatile double *)&partials[b].sum;
        bad |= *(volatile u64 *)&partials[b].bad != 0;
    }
    Partial all = block_partial(sum, bad);
    if (threadIdx.x == 0) finish(out, all);
}

// Back after a step whose gradients were not finite, but not below 1; up after enough clean ones, but not beyond 2^24, from
// which a scale could never be backed off in time.
KERNEL loss_scale(float *scale, i64 *clean, const u8 *non_finite, float growth, float backoff, i64 interval) {
    begin_kernel();
    if (threadIdx.x != 0 || blockIdx.x != 0) return;
    i64 count = *non_finite ? 0 : *clean + 1;
    if (*non_finite) {
        *scale = fmaxf(*scale * backoff, 1.f);
    } else if (count >= interval) {
        count = 0;
        *scale = fminf(*scale * growth, 16777216.f);
    }
    *clean = count;
}
