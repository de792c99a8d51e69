"""The kinds of kernels: a stencil on a grid, with a boundary."""

import bullet_core.lang as wp


@wp.func
def at(u: wp.array2d(dtype=float), i: int, j: int):
    return u[wp.clamp(i, 0, u.shape[0] - 1), wp.clamp(j, 0, u.shape[1] - 1)]


@wp.kernel
def stencil(u: wp.array2d(dtype=float), out: wp.array2d(dtype=float), k: float):
    i, j = wp.tid()
    laplacian = at(u, i - 1, j) + at(u, i + 1, j) + at(u, i, j - 1) + at(u, i, j + 1) - 4.0 * u[i, j]
    out[i, j] = u[i, j] + k * laplacian
