"""Names that nothing has."""

import warp as wp


@wp.kernel
def k(values: wp.array(dtype=float), n: int):
    i = wp.tid()
    values[i] = valeus[i]
    x = unknown
    y = helper(1.0)
    z = wp.frobnicate(1.0)
    values.foo = 1.0
    w = wp.vec3(1.0, 2.0, 3.0).q
