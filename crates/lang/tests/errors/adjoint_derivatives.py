"""Derivatives of one's own that the adjoint cannot take."""

import warp as wp


@wp.func
def next(count: wp.array(dtype=int), places: wp.array(dtype=int), i: int):
    places[i] = wp.atomic_add(count, 0, 1)
    return places[i]


@wp.func_replay(next)
def replay_next(count: wp.array(dtype=int), places: wp.array(dtype=int), i: int):
    return places[i]


@wp.func
def scaled(x: float, table: wp.array(dtype=float)):
    return x * table[0]


@wp.func_grad(scaled)
def adj_scaled(x: float, table: wp.array(dtype=float), adj: float):
    wp.adjoint[x] += adj * table[0]


@wp.kernel
def replayed(x: wp.array(dtype=float), count: wp.array(dtype=int), places: wp.array(dtype=int)):
    i = wp.tid()
    at = next(count, places, i)
    x[at] = x[i] * float(places[0])


@wp.kernel
def table_changes(x: wp.array(dtype=float), table: wp.array(dtype=float)):
    i = wp.tid()
    x[i] = scaled(x[i], table)
    table[i] = 1.0
