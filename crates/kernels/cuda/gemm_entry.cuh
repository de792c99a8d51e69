// The kernels around `product`, which the source before defines with the BOUNDS of its blocks: one product a launch, or
// (PRODUCTS) up to so many.

#ifdef PRODUCTS
// Products dw = g^T x of one launch, ordered by `first`. Host side: gemm/group.rs.
struct Group {
    const T *g[PRODUCTS], *x[PRODUCTS];
    T *dw[PRODUCTS];
    i64 k[PRODUCTS], k_split[PRODUCTS];
    i64 partial[PRODUCTS];   // where its partial sums begin
    i32 m[PRODUCTS], n[PRODUCTS];
    i32 first[PRODUCTS];     // its first block
    i32 counter[PRODUCTS];   // its first counter
    i32 splits[PRODUCTS], vector[PRODUCTS];
};

// The product that this block is of, with its part of it.
DEVICE void product_of_group(const Group &group, i32 count, Acc *partial, u32 *counters) {
    i32 i = 0;
    for (i32 end = count; end - i > 1;) {
        i32 middle = (i + end) / 2;
        if (group.first[middle] <= (i32)blockIdx.x) i = middle;
        else end = middle;
    }
    Problem p;
    p.m = group.m[i], p.n = group.n[i], p.k = group.k[i];
    p.a_row = p.b_row = 1, p.a_k = p.m, p.b_k = p.n;
    p.c_row = p.n, p.c_col = 1, p.c_batch = 0;
    p.k_split = group.k_split[i], p.splits = group.splits[i], p.vector = group.vector[i];
    p.tiles_m = (group.m[i] + BM - 1) / BM, p.tiles_n = (group.n[i] + BN - 1) / BN;
    p.batch0 = 0, p.bias_by_row = 0, p.lead_rank = 0;
    i32 tiles = p.tiles_m * p.tiles_n, block = (i32)blockIdx.x - group.first[i];
    product(group.g[i], group.x[i], nullptr, group.dw[i], nullptr, partial + group.partial[i],
            counters + group.counter[i], p, block % tiles, block / tiles, 0);
}

KERNEL BOUNDS gemm_group(Group group, i32 count, Acc *partial, u32 *counters) {
    begin_kernel();
    product_of_group(group, count, partial, counters);
}
#else
KERNEL BOUNDS gemm(const T *a, const T *b, const T *bias, T *c, T *pre, Acc *partial, u32 *counters, Problem p) {
    begin_kernel();
    product(a, b, bias, c, pre, partial, counters, p, blockIdx.x, blockIdx.y, p.batch0 + blockIdx.z);
}
#endif
