"""Parameters and calls."""

import warp as wp


@wp.struct
class Pair:
    a: float
    b: wp.vec3


@wp.func
def scale(x: float, by: float = 2.0):
    return x * by


@wp.kernel
def k(a: wp.array(dtype=float), b, c: "float", d: wp.array(dtype=Pair), e: wp.float17):
    i = wp.tid()
    a[i] = scale(1.0, 2.0, 3.0)
    a[i] = scale()
    a[i] = scale(1)
    a[i] = scale(1.0, to=2.0)
    p = Pair(1.0)
    q = Pair()
    q.c = 1.0
    q.b = 1.0
    return a[i]
