"""The kinds of kernels: loops, of which one is linear in what it carries, one is not, and one ends by a condition."""

import bullet_core.lang as wp


@wp.kernel
def loop(x: wp.array(dtype=float), steps: int, out: wp.array(dtype=float)):
    i = wp.tid()
    total = float(0.0)
    for k in range(x.shape[0]):
        total += x[k] * x[i]
    state = x[i]
    for k in range(steps):
        state = state + 0.1 * wp.sin(state)
    rest = total
    while rest > 1.0:
        rest = rest * 0.5
        if rest * state < -4.0:
            break
    out[i] = state + rest
