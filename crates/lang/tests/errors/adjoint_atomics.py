"""Kernels that compile, but have no exact adjoint."""

import warp as wp


@wp.kernel
def reads_what_it_sums(a: wp.array(dtype=float), out: wp.array(dtype=float)):
    i = wp.tid()
    wp.atomic_add(a, 0, a[i])
    out[i] = 1.0


@wp.kernel
def uses_the_old_value(count: wp.array(dtype=int), x: wp.array(dtype=float), out: wp.array(dtype=float)):
    i = wp.tid()
    slot = wp.atomic_add(count, 0, 1)
    out[slot] = x[i]


@wp.kernel
def takes_the_largest(x: wp.array(dtype=float), out: wp.array(dtype=float)):
    i = wp.tid()
    wp.atomic_max(out, 0, x[i])
