"""Kernels as Python functions: compiled for CPU and GPU, and differentiated. Names and meaning are NVIDIA Warp's.

    >>> import bullet_core.lang as wp
    >>> @wp.kernel
    ... def scale(x: wp.array(dtype=float), s: float):
    ...     i = wp.tid()
    ...     x[i] = s * x[i]
    >>> x = wp.array([1.0, 2.0, 3.0], dtype=float)
    >>> wp.launch(scale, dim=len(x), inputs=[x, 2.0])
    >>> x.list()
    [2.0, 4.0, 6.0]

docs/kernel-language.md says what kernels can hold.
"""

from __future__ import annotations

import builtins
import math
from typing import Any

from bullet_core import _core

from . import _types as types
from . import config
from ._arrays import array, empty, empty_like, from_numpy, full, full_like, ones, ones_like, zeros, zeros_like
from ._builtins import NAMES as _NAMES
from ._builtins import Builtin as _Builtin
from ._copies import clone, copy
from ._host import INSTEAD as _INSTEAD
from ._host import (
    ScopedDevice,
    ScopedTimer,
    get_cuda_device_count,
    get_cuda_devices,
    get_device,
    get_devices,
    get_preferred_device,
    init,
    is_cpu_available,
    is_cuda_available,
    set_device,
    synchronize,
    synchronize_device,
)
from ._kernels import (
    Func,
    Kernel,
    Tape,
    constant,
    func,
    func_grad,
    func_replay,
    kernel,
    launch,
    overload,
    struct,
)
from ._types import Struct
from .config import DeterministicMode

CompileError = _core._lang.CompileError

globals().update({name: scalar for name, scalar in types.SCALARS.items() if name != "bool"})
globals().update(types.NAMED)
globals().update(types.OPEN)

pi = PI = math.pi
e = E = math.e
tau = TAU = math.tau
half_pi = HALF_PI = math.pi / 2
inf = INF = math.inf
nan = NAN = math.nan


class _ArrayOf:
    """The type of arrays of so many dimensions: `array2d(dtype=float)`, or `array2d[float]`."""

    def __init__(self, ndim: int):
        self._ndim = ndim

    def __call__(self, dtype: Any = float) -> types.ArrayType:
        return types.ArrayType(dtype, self._ndim)

    def __getitem__(self, dtype: Any) -> types.ArrayType:
        return types.ArrayType(dtype, self._ndim)

    def __repr__(self):
        return f"array{self._ndim}d"


array1d, array2d, array3d, array4d = map(_ArrayOf, (1, 2, 3, 4))


def __getattr__(name: str):
    if name not in _NAMES:
        hint = _INSTEAD.get(name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}" + (f": {hint}" if hint else ""))
    value = globals()[name] = _Builtin(name)
    return value


def __dir__():
    return sorted({*(name for name in globals() if not name.startswith("_")), *_NAMES})


#: All but what Python has by the same name, whose own kernels know, too.
__all__ = sorted({name for name in __dir__() if not hasattr(builtins, name)} - {"Any", "annotations", "builtins", "math"})
