"""A function with a gradient of its own, one that is replayed on the way back, and a derivative that a kernel asks for."""

import bullet_core.lang as wp


@wp.func
def root(x: float):
    return wp.sqrt(wp.abs(x))


@wp.func_grad(root)
def adj_root(x: float, adj: float):
    y = wp.sqrt(wp.abs(x))
    if y > 0.0:
        wp.adjoint[x] += 0.5 * wp.sign(x) / y * adj


@wp.func
def place(count: wp.array(dtype=int), places: wp.array(dtype=int), i: int):
    at = wp.atomic_add(count, 0, 1)
    places[i] = at % len(places)
    return at % len(places)


@wp.func_replay(place)
def replay_place(count: wp.array(dtype=int), places: wp.array(dtype=int), i: int):
    return places[i]


@wp.func
def energy(x: float, k: float):
    return 0.5 * k * x * x


@wp.kernel
def derivatives(x: wp.array(dtype=float), count: wp.array(dtype=int), out: wp.array(dtype=float)):
    i = wp.tid()
    force, stiffness = wp.grad(energy)(x[i], 3.0)
    out[i] = root(x[i]) * force + stiffness + wp.erfc(x[i]) * wp.erfinv(0.5 * wp.sin(x[i]))


@wp.kernel
def compacted(x: wp.array(dtype=float), count: wp.array(dtype=int), places: wp.array(dtype=int),
              out: wp.array(dtype=float)):
    i = wp.tid()
    at = place(count, places, i)
    wp.atomic_add(out, at, x[i] * x[i])
