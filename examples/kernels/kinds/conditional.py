"""The kinds of kernels: branches, early return, and a choice whose other side has an infinite derivative."""

import bullet_core.lang as wp


@wp.func
def leaky(x: float, slope: float):
    if x > 0.0:
        return x
    return slope * x


@wp.kernel
def conditional(x: wp.array(dtype=float), out: wp.array(dtype=float), n: int):
    i = wp.tid()
    if i >= n:
        return
    v = x[i]
    if v > 1.0:
        v = 2.0 - v * v
    elif v > 0.0 and x[(i + 1) % n] > 0.0:
        v = leaky(-v, 0.1)
    out[i] = wp.where(v > 0.0, wp.sqrt(v), 0.0)
