"""Norms and velocities."""

from typing import Any

import bullet_core.lang as wp


@wp.func
def norm_l1(v: wp.types.vector(length=Any, dtype=wp.Float)):
    """The sum of absolute components."""
    total = v.dtype(0.0)
    for i in range(len(v)):
        total += wp.abs(v[i])
    return total


@wp.func
def norm_l2(v: wp.types.vector(length=Any, dtype=wp.Float)):
    """The length."""
    return wp.length(v)


@wp.func
def norm_huber(v: wp.types.vector(length=Any, dtype=wp.Float), delta: wp.Float = 1.0):
    """Half the square of the length to `delta`, and linear from there on."""
    square = wp.dot(v, v)
    limit = v.dtype(delta)
    if square <= limit * limit:
        return 0.5 * square
    return limit * (wp.sqrt(square) - 0.5 * limit)


@wp.func
def norm_pseudo_huber(v: wp.types.vector(length=Any, dtype=wp.Float), delta: wp.Float = 1.0):
    """`delta` of a smooth Huber norm: delta * sqrt(1 + |v|^2 / delta^2)."""
    limit = v.dtype(delta)
    return limit * wp.sqrt(1.0 + wp.dot(v, v) / (limit * limit))


@wp.func
def smooth_normalize(v: wp.types.vector(length=Any, dtype=wp.Float), delta: wp.Float = 1.0):
    """The vector divided by its pseudo-Huber norm: smooth at 0, too."""
    return v / norm_pseudo_huber(v, delta)


@wp.func
def velocity_at_point(qd: wp.types.vector(length=6, dtype=wp.Float), r: wp.types.vector(length=3, dtype=wp.Float)):
    """The velocity at a point `r` of a body with the twist `qd`, angular before linear."""
    return wp.spatial_bottom(qd) + wp.cross(wp.spatial_top(qd), r)


@wp.func
def transform_twist(t: wp.types.transformation(dtype=wp.Float), x: wp.types.vector(length=6, dtype=wp.Float)):
    """A twist in the frame that `t` leads to: it turns, and the angular part moves the linear one."""
    w = wp.quat_rotate(t.q, wp.spatial_top(x))
    v = wp.quat_rotate(t.q, wp.spatial_bottom(x)) + wp.cross(t.p, w)
    return wp.types.vector(length=6, dtype=x.dtype)(w, v)


@wp.func
def transform_wrench(t: wp.types.transformation(dtype=wp.Float), x: wp.types.vector(length=6, dtype=wp.Float)):
    """A wrench in the frame that `t` leads to: it turns, and the force adds to the torque."""
    f = wp.quat_rotate(t.q, wp.spatial_bottom(x))
    torque = wp.quat_rotate(t.q, wp.spatial_top(x)) + wp.cross(t.p, f)
    return wp.types.vector(length=6, dtype=x.dtype)(torque, f)


@wp.func
def spatial_adjoint(r: wp.types.matrix(shape=(3, 3), dtype=wp.Float), s: wp.types.matrix(shape=(3, 3), dtype=wp.Float)):
    """The matrix of blocks [[r, 0], [s, r]]."""
    out = wp.types.matrix(shape=(6, 6), dtype=r.dtype)()
    for i in range(3):
        for j in range(3):
            out[i, j] = r[i, j]
            out[i + 3, j + 3] = r[i, j]
            out[i + 3, j] = s[i, j]
    return out
