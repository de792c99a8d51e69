"""Lines that are no Python, each for itself."""

import warp as wp


@wp.kernel
def k(a: wp.array(dtype=float)):
    i = = wp.tid()
    if i > 1
        a[i] = 0.0
    a[i] = 1.0 +
    a[i] = 1.0 $ 2.0
    for in range(3):
        pass
    a[i) = 1.0
