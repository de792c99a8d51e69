"""Numbers, loops and calls that mean less here than in Python."""

import warp as wp


@wp.func
def scaled(x: float, *, by: float = 2.0):
    return x * by


@wp.kernel
def literals(x: wp.array(dtype=float), n: int):
    i = wp.tid()
    a = 1 / 2 * x[i]
    b = 6 / 3 + n // 2
    c = 2 ** 100
    d = 99999999999
    e = 2 ** -1
    f = 1e39
    g = wp.int32(99999999999)
    h = wp.uint32(-1)
    k = 5 / 0
    m = 2 ** 500
    x[i] = 1e300 * x[i]


@wp.kernel
def loops(x: wp.array(dtype=float), n: int):
    i = wp.tid()
    for a, b in ((1, 2), (3, 4)):
        x[i] = float(a * b)
    for j, v in enumerate(x):
        x[i] = v
    for v in x:
        x[i] = v
    for v in (1, 2.5):
        x[i] = v
    t = (1, 2.5)[n]
    u = (1, 2)[2]


@wp.kernel
def calls(x: wp.array(dtype=float)):
    i = wp.tid()
    x[i] = scaled(1.0, 2.0) + scaled(1.0, by=3.0) + scaled(2.0)
    x[i] = scaled(1.0, of=3.0)


@wp.kernel
def by_name(x: wp.array(dtype=float), *, s: float):
    x[wp.tid()] = s
