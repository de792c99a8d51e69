// The next token from logits, one block a row: a function of settings, logits, seed and position alone, which are read on
// the device, so that generation needs no host read.
//
// Probabilities are fixed-point numbers: the likeliest token weighs 2^bits, and sums are exact, whatever their order. So
// results are the same in every run, and differ from a sequential sum in f64 only where the random number falls within
// some 2^-bits of the border between two tokens. Of equal logits the lower token id comes first.

#define MOST_WARPS 32
// A logit is NaN or +inf (value: the token), or all are -inf (value: -1).
#define FAULT_LOGIT 2u

struct Settings {
    double temperature;
    // What the likeliest token weighs.
    double unit;
    // Only this many tokens; all if 0.
    u32 top_k;
    // Whether the position grows by one.
    u32 advance;
    // Only as many of the likeliest as together weigh this share; 1 is no limit.
    double top_p;
};

// Bits of the logit that are ordered as total order has it.
DEVICE u32 ordered(float x) {
    u32 bits = __float_as_uint(x);
    return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}
DEVICE float unordered(u32 key) { return __uint_as_float(key & 0x80000000u ? key & 0x7fffffffu : ~key); }

struct Largest {
    static DEVICE u64 of(u64 a, u64 b) { return a > b ? a : b; }
};

// The likeliest token with its logit; all threads get it. Reports logits that make no sense: then `sane` is false.
struct Best { u32 token; float logit; bool sane; };

DEVICE Best likeliest(const T *__restrict__ logits, u32 v, Fault *fault) {
    __shared__ u64 slots[MOST_WARPS];
    u64 best = 0, bad = 0;
    for (u32 t = threadIdx.x; t < v; t += blockDim.x) {
        float x = convert<float>(logits[t]);
        // The lower token is the larger number. Adding 0 makes -0 and 0 equal.
        if (x != x || x == INF_F) bad = Largest::of(bad, ~t);
        else best = Largest::of(best, (u64)ordered(x + 0.f) << 32 | ~t);
    }
    best = block_all<Largest>(best, slots);
    bad = block_all<Largest>(bad, slots);
    Best y = {~(u32)best, unordered((u32)(best >> 32)), true};
    if (bad || best == 0 || y.logit == -INF_F) {
        y.sane = false;
        if (best == 0) y.token = 0;
        if (threadIdx.x == 0) report(fault, FAULT_LOGIT, bad ? (i64)(u32)~(u32)bad : -1, v);
    }
    return y;
}

struct Weights {
    double max, temperature, unit;

    DEVICE u64 of(float logit) const {
        double w = exp(__ddiv_rn((double)logit - max, temperature));
        return (u64)__fma_rn(w, unit, 0.5);
    }
};

// A number in 0..total, by Philox4x32-10 keyed by the seed and counted by the position.
DEVICE u64 draw(const i64 *state, u64 total) {
    u64 seed = (u64)state[0], step = (u64)state[1];
    // The stream of sampling: "samp".
    u32 c0 = 0, c1 = 0x73616d70u, c2 = (u32)step, c3 = (u32)(step >> 32), k0 = (u32)seed, k1 = (u32)(seed >> 32);
#pragma unroll
    for (int round = 0; round < 10; ++round) {
        if (round > 0) k0 += 0x9E3779B9u, k1 += 0xBB67AE85u;
        u32 low0 = c0 * 0xD2511F53u, high0 = __umulhi(c0, 0xD2511F53u);
        u32 low1 = c2 * 0xCD9E8D57u, high1 = __umulhi(c2, 0xCD9E8D57u);
        c0 = high1 ^ c1 ^ k0, c1 = low1, c2 = high0 ^ c3 ^ k1, c3 = low0;
    }
    u64 uniform = ((u64)c1 << 32 | c0) >> 11 << 11;
    return __umul64hi(uniform, total);
}

DEVICE u64 warp_inclusive(u64 x) {
    u32 lane = threadIdx.x % WARP;
#pragma unroll
    for (int d = 1; d < WARP; d *= 2) {
        u64 below = __shfl_up_sync(FULL_MASK, x, d);
        if (lane >= d) x += below;
    }
    return x;
}

// Sum over all tokens of `weight(token)`, and over each warp's part of them, which `locate` needs.
template <typename F> DEVICE u64 sum_parts(u32 v, F weight, u64 *parts) {
    u32 warps = blockDim.x / WARP, warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
    u32 part = (v + blockDim.x - 1) / blockDim.x * WARP, begin = warp * part, end = min(begin + part, v);
    u64 sum = 0;
    for (u32 t = begin + lane; t < end; t += WARP) sum += weight(t);
    sum = warp_all<Sum>(sum);
    __syncthreads();
    if (lane == 0) parts[warp] = sum;
    __syncthreads();
    u64 all = 0;
    for (u32 w = 0; w < warps; ++w) all += parts[w];
    return all;
}

// Writes the first token whose weight, with those of all before it, exceeds `target`, which is below the sum.
template <typename F> DEVICE void locate(u32 v, F weight, const u64 *parts, u64 target, i64 *token) {
    u32 warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
    u32 part = (v + blockDim.x - 1) / blockDim.x * WARP, begin = warp * part, end = min(begin + part, v);
    u64 before = 0;
    for (u32 w = 0; w < warp; ++w) before += parts[w];
    if (target < before || target >= before + parts[warp]) return;
    for (u32 t = begin + lane; t - lane < end; t += WARP) {
        u64 sum = before + warp_inclusive(t < end ? weight(t) : 0);
        u32 beyond = __ballot_sync(FULL_MASK, sum > target);
        if (beyond) {
            if (lane == __ffs(beyond) - 1) *token = t;
            return;
        }
        before = __shfl_sync(FULL_MASK, sum, WARP - 1);
    }
}

DEVICE void end(i64 *state, const Settings &s) {
    // After all threads have read the state.
    __syncthreads();
    if (s.advance && threadIdx.x == 0) state[1] += 1;
}

// Always the likeliest token.
KERNEL greedy(const T *logits, i64 *state, i64 *tokens, u32 v, Settings s, Fault *fault) {
    begin_kernel();
    Best best = likeliest(logits + (u64)blockIdx.x * v, v, fault);
    if (threadIdx.x == 0) tokens[blockIdx.x] = best.token;
    end(state + 2 * (u64)blockIdx.x, s);
}

// By the model's own distribution.
KERNEL sample_all(const T *logits, i64 *state, i64 *tokens, u32 v, Settings s, Fault *fault) {
    begin_kernel();
    __shared__ u64 parts[MOST_WARPS];
    logits += (u64)blockIdx.x * v, state += 2 * (u64)blockIdx.x, tokens += blockIdx.x;
    Best best = likeliest(logits, v, fault);
    if (!best.sane) {
        if (threadIdx.x == 0) *tokens = best.token;
        return end(state, s);
    }
    Weights weights = {best.logit, s.temperature, s.unit};
    auto weight = [&](u32 t) { return weights.of(convert<float>(logits[t])); };
    u64 total = sum_parts(v, weight, parts);
    locate(v, weight, parts, draw(state, total), tokens);
    end(state, s);
}

// The weight that the likeliest tokens must reach together: some token's at least.
DEVICE u64 share(double p, u64 total) {
    u64 least = (u64)ceil(p * (double)total);
    return least < 1 ? 1 : least > total ? total : least;
}

// Positions of a thread in `sample_sorted`.
#define HELD 4

// By the likeliest of up to 4096 tokens: sorted by Batcher's bitonic network in dynamic shared memory of n u64, n being the
// power of two from v on that is at least the block and at most HELD blocks.
KERNEL sample_sorted(const T *logits, i64 *state, i64 *tokens, u32 v, Settings s, u32 n, Fault *fault) {
    begin_kernel();
    extern __shared__ __align__(16) u64 keys[];
    __shared__ u64 warp_sums[MOST_WARPS], kept;
    logits += (u64)blockIdx.x * v, state += 2 * (u64)blockIdx.x, tokens += blockIdx.x;
    Best best = likeliest(logits, v, fault);
    if (!best.sane) {
        if (threadIdx.x == 0) *tokens = best.token;
        return end(state, s);
    }
    for (u32 t = threadIdx.x; t < n; t += blockDim.x) {
        keys[t] = t < v ? (u64)ordered(convert<float>(logits[t])) << 32 | (u32)~t : 0;
    }
    for (u32 size = 2; size <= n; size *= 2) {
        for (u32 gap = size / 2; gap > 0; gap /= 2) {
            __syncthreads();
            for (u32 pair = threadIdx.x; pair < n / 2; pair += blockDim.x) {
                u32 i = 2 * pair - (pair & (gap - 1)), j = i + gap;
                u64 a = keys[i], b = keys[j];
                bool down = (i & size) == 0;
                if (down ? a < b : a > b) keys[i] = b, keys[j] = a;
            }
        }
    }
    __syncthreads();
    Weights weights = {best.logit, s.temperature, s.unit};
    u32 each = n / blockDim.x, first = threadIdx.x * each, limit = s.top_k && s.top_k < v ? s.top_k : v;
    u64 mass[HELD], mine = 0;
#pragma unroll
    for (int i = 0; i < HELD; ++i) {
        mass[i] = i < each && first + i < limit ? weights.of(unordered((u32)(keys[first + i] >> 32))) : 0;
        mine += mass[i];
    }
    u64 inclusive = warp_inclusive(mine);
    if (threadIdx.x % WARP == WARP - 1) warp_sums[threadIdx.x / WARP] = inclusive;
    __syncthreads();
    u64 before = inclusive - mine, total = 0;
    for (u32 w = 0; w < blockDim.x / WARP; ++w) {
        before += w < threadIdx.x / WARP ? warp_sums[w] : 0;
        total += warp_sums[w];
    }
    if (threadIdx.x == 0) kept = total;
    __syncthreads();
    if (s.top_p < 1) {
        u64 least = share(s.top_p, total), sum = before;
#pragma unroll
        for (int i = 0; i < HELD; ++i) {
            if (sum < least && sum + mass[i] >= least) kept = sum + mass[i];
            sum += mass[i];
        }
        __syncthreads();
    }
    u64 target = draw(state, kept), sum = before;
#pragma unroll
    for (int i = 0; i < HELD; ++i) {
        if (sum <= target && target < sum + mass[i]) *tokens = (u32)~(u32)keys[first + i];
        sum += mass[i];
    }
    end(state, s);
}

#define DIGITS 16

// Where in descending order a sum first exceeds a target: the key there, and how many tokens and how much weight are above.
struct Place { u32 key; u64 count, mass; };

struct Histogram { u64 count[MOST_WARPS][DIGITS], mass[MOST_WARPS][DIGITS]; Place place; };

// Adds up the tokens whose key begins as `prefix` does, by the digit that follows.
DEVICE void count_digits(const T *__restrict__ logits, const u64 *masses, u32 v, u32 prefix, u32 shift, Histogram &h) {
    u32 count[DIGITS] = {};
    u64 mass[DIGITS] = {};
    for (u32 t = threadIdx.x; t < v; t += blockDim.x) {
        u32 key = ordered(convert<float>(logits[t]));
        // Shifting by 32 is no shift: two steps.
        if (key >> shift >> 4 != prefix) continue;
        u32 digit = key >> shift & (DIGITS - 1);
        u64 m = masses[t];
#pragma unroll
        for (int d = 0; d < DIGITS; ++d) {
            count[d] += digit == d;
            mass[d] += digit == d ? m : 0;
        }
    }
#pragma unroll
    for (int d = 0; d < DIGITS; ++d) {
        u64 c = warp_all<Sum>((u64)count[d]), m = warp_all<Sum>(mass[d]);
        if (threadIdx.x % WARP == 0) h.count[threadIdx.x / WARP][d] = c, h.mass[threadIdx.x / WARP][d] = m;
    }
}

// The place where the tokens (`by_count`) or their weight first exceed `target`, which is below their sum.
DEVICE Place find_place(const T *__restrict__ logits, const u64 *masses, u32 v, u64 target, bool by_count, Histogram &h) {
    Place at = {0, 0, 0};
    for (int shift = 28; shift >= 0; shift -= 4) {
        __syncthreads();
        count_digits(logits, masses, v, at.key, shift, h);
        __syncthreads();
        if (threadIdx.x < DIGITS) {
            u64 c = 0, m = 0;
#pragma unroll 4
            for (u32 w = 0; w < blockDim.x / WARP; ++w) c += h.count[w][threadIdx.x], m += h.mass[w][threadIdx.x];
            h.count[0][threadIdx.x] = c, h.mass[0][threadIdx.x] = m;
        }
        __syncthreads();
        if (threadIdx.x == 0) {
            for (int d = DIGITS - 1; d >= 0; --d) {
                u64 c = h.count[0][d], m = h.mass[0][d];
                if (by_count ? at.count + c > target : at.mass + m > target) {
                    at.key = at.key << 4 | d;
                    break;
                }
                at.count += c, at.mass += m;
            }
            h.place = at;
        }
        __syncthreads();
        at = h.place;
    }
    return at;
}

// By the likeliest of any number of tokens: radix selection on the logits instead of a sort. `scratch` has v u64 a row.
KERNEL __launch_bounds__(256) sample_select(const T *logits, i64 *state, i64 *tokens, u32 v, Settings s, u64 *scratch, Fault *fault) {
    begin_kernel();
    __shared__ u64 parts[MOST_WARPS];
    __shared__ Histogram histogram;
    u64 *masses = scratch + (u64)blockIdx.x * v;
    logits += (u64)blockIdx.x * v, state += 2 * (u64)blockIdx.x, tokens += blockIdx.x;
    Best best = likeliest(logits, v, fault);
    if (!best.sane) {
        if (threadIdx.x == 0) *tokens = best.token;
        return end(state, s);
    }
    Weights weights = {best.logit, s.temperature, s.unit};
    u64 total = sum_parts(v, [&](u32 t) {
        return masses[t] = weights.of(convert<float>(logits[t]));
    }, parts);
    __syncthreads();
    if (s.top_k && s.top_k < v) {
        Place at = find_place(logits, masses, v, s.top_k - 1, true, histogram);
        total = at.mass + (s.top_k - at.count) * weights.of(unordered(at.key));
    }
    if (s.top_p < 1) {
        u64 least = share(s.top_p, total);
        Place at = find_place(logits, masses, v, least - 1, false, histogram);
        u64 weight = weights.of(unordered(at.key));
        total = at.mass + ((least - 1 - at.mass) / weight + 1) * weight;
    }
    u64 target = draw(state, total);
    Place at = find_place(logits, masses, v, target, false, histogram);
    auto equal = [&](u32 t) { return (u64)(ordered(convert<float>(logits[t])) == at.key); };
    sum_parts(v, equal, parts);
    locate(v, equal, parts, (target - at.mass) / weights.of(unordered(at.key)), tokens);
    end(state, s);
}
