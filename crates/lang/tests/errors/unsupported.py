"""What kernels cannot have."""

import warp as wp


@wp.kernel
def k(a: wp.array(dtype=float)):
    i = wp.tid()
    with a:
        x = 1
    y = [v for v in a]
    z = lambda u: u
    a[0:2] = 1.0
    try:
        pass
    except ValueError:
        pass
    for u in a:
        pass
    w = f"{i}"
    a[i] is None
    while i > 0:
        pass
    else:
        pass
