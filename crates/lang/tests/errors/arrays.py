"""Mistakes with arrays of structs, arrays of the kernel's own and parts of arrays."""

import warp as wp


@wp.struct
class Cell:
    mass: float
    data: wp.array(dtype=float)


@wp.struct
class Plain:
    mass: float
    count: int


@wp.kernel
def held(a: wp.array(dtype=Cell)):
    pass


@wp.kernel
def k(a: wp.array(dtype=Plain), b: wp.array2d(dtype=float), n: int):
    i = wp.tid()
    a[i].weight = 1.0
    a[i].mass = n
    a[i] += a[i]
    a[i] = 1.0
    t = wp.zeros(shape=(2, 3), dtype=float)
    t[0, 3] = 1.0
    t[1] = 2.0
    u = wp.zeros(shape=(n,), dtype=float)
    w = wp.zeros(shape=2, kind=float)
    b[i, ::n] = 1.0
    v = wp.vec3(1.0, 2.0, 3.0)
    v[0:2] = wp.vec3(1.0, 2.0, 3.0)
    c = b[i]
    while n > 0:
        c = b
    x = wp.atomic_add(a, i, a[i])
