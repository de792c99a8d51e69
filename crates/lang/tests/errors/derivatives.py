"""Mistakes with derivatives of one's own."""

import warp as wp


@wp.func
def f(x: float):
    return x * x


@wp.func_grad(f)
def adj_f(x: float, adj: float):
    wp.adjoint[y] += adj
    return adj


@wp.func
def g(a: wp.array(dtype=float), i: int):
    return a[i]


@wp.func_replay(g)
def replay_g(a: wp.array(dtype=float), i: int):
    return i


@wp.kernel
def k(a: wp.array(dtype=float), n: int):
    i = wp.tid()
    a[i] = f(a[i])
    a[i] = g(a, i)
    a[i] = wp.grad(g)(a, i)
    a[i] = wp.grad(f)(a[i], 2.0)
    a[i] = wp.grad(wp.rand_init)(n)
    wp.adjoint[n] += 1.0
