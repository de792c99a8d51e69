"""What may be read before it is assigned."""

import warp as wp


@wp.kernel
def k(a: wp.array(dtype=float), n: int):
    i = wp.tid()
    for j in range(n):
        last = a[j]
    if n > 3:
        x = 1.0
    a[i] = last + x
    while n > 4:
        y = 2.0
        break
    a[i] = y
    a[j] = z
    z = 1.0
