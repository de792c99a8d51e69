"""Arrays with too many or too few indices, and components that are not there."""

import warp as wp


@wp.kernel
def k(a: wp.array2d(dtype=float), v: wp.array(dtype=wp.vec3)):
    i, j = wp.tid()
    a[i] = 1.0
    a[i, j, i] = 1.0
    v[i] = 0.0
    p = v[i]
    p[3] = 1.0
    q = p[0, 1]
    a[i, j] = p
    x, y = p
    t = wp.tid()
