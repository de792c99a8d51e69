// What is left of a product whose sums a library has made: bias, the value before the activation, activation.
// `sums` has `rows` rows of `n`; VEC elements, neighbours in a row, are done at once.

KERNEL __launch_bounds__(256) finish(const Acc *sums, const T *bias, T *y, T *pre, i64 rows, i64 n) {
    begin_kernel();
    const i64 per_row = n / VEC, total = rows * per_row;
    // A division of 64 bits takes as long as all the rest.
    const bool small = total < 0x7fffffff;
    i64 i = blockIdx.x * 256ll + threadIdx.x;
    const i64 step = gridDim.x * 256ll;
    for (; i < total; i += step) {
        i64 col = (small ? (i64)((u32)i % (u32)per_row) : i % per_row) * VEC;
        Vec<Acc, VEC> v = *(const Vec<Acc, VEC> *)(sums + i * VEC);
        if (bias) {
            Vec<T, VEC> add = *(const Vec<T, VEC> *)(bias + col);
#pragma unroll
            for (int e = 0; e < VEC; ++e) v.at[e] += convert<Acc>(add.at[e]);
        }
        Vec<T, VEC> out;
        if (pre) {
#pragma unroll
            for (int e = 0; e < VEC; ++e) out.at[e] = convert<T>(v.at[e]);
            *(Vec<T, VEC> *)(pre + i * VEC) = out;
        }
#pragma unroll
        for (int e = 0; e < VEC; ++e) out.at[e] = convert<T>(activate(v.at[e]));
        *(Vec<T, VEC> *)(y + i * VEC) = out;
    }
}
