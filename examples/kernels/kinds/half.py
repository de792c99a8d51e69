"""16-bit floats: vectors, a loop, atomic sums, conversions."""

import bullet_core.lang as wp

vec3b = wp.types.vector(length=3, dtype=wp.bfloat16)


@wp.kernel
def half(x: wp.array(dtype=wp.vec3h), w: wp.array(dtype=vec3b), s: wp.float16, total: wp.array(dtype=wp.float16),
         out: wp.array(dtype=wp.bfloat16)):
    i = wp.tid()
    v = x[i]
    u = w[i]
    size = wp.dot(v, v) * s
    p = size
    for k in range(20):
        p = wp.sin(p) + size / (wp.float16(1.5) + p * p)
    wp.atomic_add(total, 0, p)
    total[0] += wp.float16(float(u[1])) * wp.max(v[0], v[1])
    out[i] = wp.dot(u, u) * wp.bfloat16(wp.sqrt(wp.float16(2.0) + size * size)) + wp.bfloat16(float(v[2]))
