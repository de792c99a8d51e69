"""The kinds of kernels: gather by index, scatter by atomics."""

import bullet_core.lang as wp


@wp.kernel
def scatter(
    x: wp.array(dtype=float), source: wp.array(dtype=int), target: wp.array(dtype=int), out: wp.array(dtype=float)
):
    i = wp.tid()
    v = x[source[i]]
    out[target[i]] += v * v
