"""The kinds of kernels: vectors and quaternions."""

import bullet_core.lang as wp


@wp.kernel
def vector(p: wp.array(dtype=wp.vec3), q: wp.array(dtype=wp.quat), out: wp.array(dtype=wp.vec3)):
    i = wp.tid()
    v = wp.quat_rotate(wp.normalize(q[i]), p[i])
    v.y = wp.dot(v, wp.vec3(1.0, 2.0, 3.0))
    out[i] = wp.cross(v, p[i]) + 0.5 * v
