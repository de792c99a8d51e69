"""Loops."""

import warp as wp


@wp.kernel
def k(a: wp.array(dtype=float), n: int):
    i = wp.tid()
    s = 0
    for j in range(n):
        s = s * 0.5
    t = 1
    for j in range(n):
        t = a[j]
    for j in range(0, n, 0):
        a[j] = 1.0
    for j in range(0.5):
        a[j] = 1.0
    for j in range(n, a[0]):
        a[j] = 1.0
    u = 1 if n > 1 else 2.0
    v = 1.0 if n > 1 else n
