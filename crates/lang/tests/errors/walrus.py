"""Assignments in expressions, and what `import *` brings."""

import warp as wp
from warp import *


@wp.kernel
def walrus(x: wp.array(dtype=float)):
    i = wp.tid()
    if (n := 3) > i:
        x[i] = float(n)
    x[i] = 123456789012345678901234567890
