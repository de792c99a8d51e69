"""Types are not converted unasked."""

import warp as wp


@wp.kernel
def k(a: wp.array(dtype=float), n: int, d: wp.float64):
    i = wp.tid()
    x = a[i] * n
    y = a[i] + d
    z = n / 2.0
    a[i] = n
    a[n * 1.0] = 0.0
    w = n**2
    b = wp.sin(n)
    c = wp.min(a[i], n)
    if a:
        pass
