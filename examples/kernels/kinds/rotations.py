"""Rotations: interpolated, of angles and of matrices; spatial vectors; vectors and matrices made by name."""

import bullet_core.lang as wp


@wp.kernel
def rotations(x: wp.array(dtype=wp.vec3), m: wp.array(dtype=wp.spatial_vector), out: wp.array(dtype=wp.quat),
              force: wp.array(dtype=wp.spatial_vector)):
    i = wp.tid()
    v = x[i]
    a = wp.quat_rpy(v[0], v[1], v[2])
    b = wp.quat_from_matrix(wp.quat_to_matrix(wp.normalize(a)) + 0.01 * wp.identity(n=3, dtype=float))
    q = wp.quat_slerp(b, wp.quat_from_axis_angle(v, 0.3), 0.4)
    axis, angle = wp.quat_to_axis_angle(q)
    out[i] = wp.quat(angle * axis, 0.5)
    w = m[i]
    w[0:3] = wp.vector(v[2], v[0], v[1]) * angle
    force[i] = wp.spatial_cross(w, m[i]) + wp.spatial_cross_dual(m[i], w) * wp.spatial_dot(w, w)
