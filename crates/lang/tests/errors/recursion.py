"""Functions that call themselves, and that return on some ways only."""

import warp as wp


@wp.func
def even(n: int):
    return odd(n - 1)


@wp.func
def odd(n: int):
    return even(n - 1)


@wp.func
def some(n: int):
    if n > 1:
        return 1.0


@wp.func
def mixed(n: int):
    if n > 1:
        return 1.0
    return 1


@wp.kernel
def k(a: wp.array(dtype=float)):
    i = wp.tid()
    a[i] = float(even(i))
    a[i] = some(i)
    a[i] = mixed(i)
