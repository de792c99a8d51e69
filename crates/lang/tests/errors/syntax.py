"""What is no Python."""

import warp as wp


@wp.kernel
def k(a: wp.array(dtype=float)):
    i = wp.tid(
    a[i] = 1.0


@wp.kernel
def l(a: wp.array(dtype=float)):
    i = = wp.tid()
    if i > 1
        a[i] = 0.0
    a[i] = 1.0 +
