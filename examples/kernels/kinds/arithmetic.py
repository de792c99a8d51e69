"""The kinds of kernels: arithmetic on each element."""

import bullet_core.lang as wp


@wp.kernel
def arithmetic(x: wp.array(dtype=float), y: wp.array(dtype=float), out: wp.array(dtype=float), a: float):
    i = wp.tid()
    out[i] = a * x[i] + y[i] / (1.0 + x[i] * x[i]) - 0.5
