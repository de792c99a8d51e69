"""The kinds of kernels: sums over rows, and one over everything by atomics."""

import bullet_core.lang as wp


@wp.kernel
def reduction(x: wp.array2d(dtype=float), rows: wp.array(dtype=float), total: wp.array(dtype=float)):
    i = wp.tid()
    s = float(0.0)
    for k in range(x.shape[1]):
        s += x[i, k] * x[i, k]
    rows[i] = wp.sqrt(s)
    wp.atomic_add(total, 0, s)
