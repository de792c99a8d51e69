"""The kinds of kernels: small matrices."""

import bullet_core.lang as wp


@wp.kernel
def matrix(a: wp.array(dtype=wp.mat33), x: wp.array(dtype=wp.vec3), out: wp.array(dtype=wp.vec3)):
    i = wp.tid()
    m = a[i] @ wp.transpose(a[i]) + wp.matrix_from_rows(x[i], x[i], x[i])
    out[i] = m @ x[i] * wp.determinant(m)
