"""The kinds of kernels: mathematical functions of each element."""

import bullet_core.lang as wp


@wp.kernel
def math(x: wp.array(dtype=float), out: wp.array(dtype=float)):
    i = wp.tid()
    v = x[i]
    out[i] = wp.sin(v) * wp.exp(-v * v) + wp.sqrt(wp.abs(v)) + wp.where(v > 0.0, wp.log(v), 0.0)
