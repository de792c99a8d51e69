"""Arrays of a thread's own, filled, updated and read by known and unknown indices; parts of arrays."""

import bullet_core.lang as wp


@wp.func
def total(row: wp.array(dtype=float)):
    sum = float(0.0)
    for k in range(row.shape[0]):
        sum += row[k] * row[k]
    return sum


@wp.kernel
def local(x: wp.array2d(dtype=float), place: wp.array(dtype=int), out: wp.array(dtype=float)):
    i = wp.tid()
    table = wp.zeros(shape=(3, 4), dtype=float)
    for k in range(x.shape[1]):
        table[k % 3, place[k] % 4] += wp.sin(x[i, k])
        table[0, 0] = table[k % 3, 1] * x[i, k]
    out[i] = total(table[1]) + total(x[i, 1:4]) + table[0, 0]
