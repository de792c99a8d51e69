"""Rotations as angles, twists, and transforms as matrices."""

from typing import Any

import bullet_core.lang as wp


@wp.func
def _about(axis: int, angle: Any):
    """The rotation about an axis of the coordinates."""
    v = wp.types.vector(length=3, dtype=type(angle))()
    v[axis] = wp.sin(0.5 * angle)
    return wp.types.quaternion(dtype=type(angle))(v[0], v[1], v[2], wp.cos(0.5 * angle))


@wp.func
def quat_from_euler(e: wp.types.vector(length=3, dtype=wp.Float), i: int, j: int, k: int):
    """Rotations about the fixed axes i, j and k one after the other, by the angles that `e` has for them."""
    return _about(k, e[k]) * _about(j, e[j]) * _about(i, e[i])


@wp.func
def _hypotenuse(a: Any, b: Any):
    """sqrt(a^2 + b^2), with slope 0 where both are 0."""
    square = a * a + b * b
    if square > 0.0:
        return wp.sqrt(square)
    return square


@wp.func
def quat_to_euler(q: wp.types.quaternion(dtype=wp.Float), i: int, j: int, k: int):
    """Angles about the fixed axes i, j and k, each where its axis is; where i is k the third about the axis that is left.

    E. Bernardes and S. Viollet, Quaternion to Euler angles conversion: a direct, general and computationally efficient method
    (2022).
    """
    v = wp.types.vector(length=3, dtype=q.dtype)(q[0], q[1], q[2])
    last = k
    if i == k:
        last = 3 - i - j
    handed = q.dtype((i - j) * (j - last) * (last - i) / 2)
    a = q[3]
    b = v[i]
    c = v[j]
    d = v[last] * handed
    if i != k:
        a, b, c, d = a - c, b + d, c + a, d - b
    lower = _hypotenuse(a, b)
    upper = _hypotenuse(c, d)
    middle = 2.0 * wp.atan2(upper, lower)
    half_sum = wp.atan2(b, a)
    half_difference = wp.atan2(d, c)
    first = half_sum - half_difference
    third = half_sum + half_difference
    # Where the first and last axis coincide, only one angle about them is left.
    if upper <= 1.0e-6 * lower:
        first = q.dtype(0.0)
        third = 2.0 * half_sum
    elif lower <= 1.0e-6 * upper:
        first = q.dtype(0.0)
        third = 2.0 * half_difference
    if i != k:
        third = third * handed
        middle = middle - 0.5 * q.dtype(wp.pi)
    e = wp.types.vector(length=3, dtype=q.dtype)()
    e[i] = first
    e[j] = middle
    e[last] = third
    return e


@wp.func
def quat_to_rpy(q: wp.types.quaternion(dtype=wp.Float)):
    """Roll, pitch and yaw: the angles about x, y and z, one after the other."""
    x, y, z, w = q[0], q[1], q[2], q[3]
    roll = wp.atan2(2.0 * (w * x + y * z), 1.0 - 2.0 * (x * x + y * y))
    pitch = wp.asin(wp.clamp(2.0 * (w * y - z * x), -1.0, 1.0))
    yaw = wp.atan2(2.0 * (w * z + x * y), 1.0 - 2.0 * (y * y + z * z))
    return wp.types.vector(length=3, dtype=q.dtype)(roll, pitch, yaw)


@wp.func
def _along(axis: Any, q: Any):
    """How much of a rotation's vector is along an axis of length 1."""
    return axis[0] * q[0] + axis[1] * q[1] + axis[2] * q[2]


@wp.func
def quat_twist(axis: wp.types.vector(length=3, dtype=wp.Float), q: wp.types.quaternion(dtype=wp.Float)):
    """The part of a rotation that is about an axis of length 1."""
    v = axis * _along(axis, q)
    return wp.normalize(wp.types.quaternion(dtype=q.dtype)(v[0], v[1], v[2], q[3]))


@wp.func
def quat_twist_angle(axis: wp.types.vector(length=3, dtype=wp.Float), q: wp.types.quaternion(dtype=wp.Float)):
    """The angle of the twist about an axis of length 1, without its sign."""
    return 2.0 * wp.atan2(wp.abs(_along(axis, q)), q[3])


@wp.func
def quat_twist_angle_signed(axis: wp.types.vector(length=3, dtype=wp.Float), q: wp.types.quaternion(dtype=wp.Float)):
    """The angle of the twist about an axis of length 1."""
    return 2.0 * wp.atan2(_along(axis, q), q[3])


@wp.func
def _framed(r: Any, p: Any):
    """The 4x4 matrix of a 3x3 matrix and a position."""
    m = wp.types.matrix(shape=(4, 4), dtype=p.dtype)()
    for i in range(3):
        for j in range(3):
            m[i, j] = r[i, j]
        m[i, 3] = p[i]
    m[3, 3] = p.dtype(1.0)
    return m


@wp.func
def _turning(m: Any):
    """The upper left 3x3 of a 4x4 matrix."""
    r = wp.types.matrix(shape=(3, 3), dtype=m.dtype)()
    for i in range(3):
        for j in range(3):
            r[i, j] = m[i, j]
    return r


@wp.func
def _position(m: Any):
    return wp.types.vector(length=3, dtype=m.dtype)(m[0, 3], m[1, 3], m[2, 3])


@wp.func
def transform_from_matrix(mat: wp.types.matrix(shape=(4, 4), dtype=wp.Float)):
    """The transform of a matrix [[R, p], [0, 1]]."""
    return wp.types.transformation(dtype=mat.dtype)(_position(mat), wp.quat_from_matrix(_turning(mat)))


@wp.func
def transform_to_matrix(xform: wp.types.transformation(dtype=wp.Float)):
    """The matrix [[R, p], [0, 1]] of a transform."""
    return _framed(wp.quat_to_matrix(xform.q), xform.p)


@wp.func
def transform_compose(
    position: wp.types.vector(length=3, dtype=wp.Float),
    rotation: wp.types.quaternion(dtype=wp.Float),
    scale: wp.types.vector(length=3, dtype=wp.Float),
):
    """The 4x4 matrix that scales along the axes, rotates, and moves."""
    return _framed(wp.quat_to_matrix(rotation) * wp.diag(scale), position)


@wp.func
def transform_decompose(m: wp.types.matrix(shape=(4, 4), dtype=wp.Float)):
    """Position, rotation and scale of a matrix that `transform_compose` made."""
    r = _turning(m)
    scale = wp.types.vector(length=3, dtype=m.dtype)()
    for j in range(3):
        scale[j] = wp.length(wp.types.vector(length=3, dtype=m.dtype)(r[0, j], r[1, j], r[2, j]))
        if scale[j] != 0.0:
            for i in range(3):
                r[i, j] = r[i, j] / scale[j]
    return _position(m), wp.quat_from_matrix(r), scale
