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

import math
from typing import Any

from bullet_core import _core

from . import _types as types
from . import config
from ._arrays import array, clone, copy, empty, empty_like, from_numpy, full, ones, ones_like, zeros, zeros_like
from ._builtins import NAMES as _NAMES
from ._builtins import Builtin
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
    synchronize,
)
from ._types import Struct
from .config import DeterministicMode

CompileError = _core._lang.CompileError

globals().update({name: scalar for name, scalar in types.SCALARS.items() if name != "bool"})
globals().update(types.NAMED)

pi = PI = math.pi
e = E = math.e
tau = TAU = math.tau
half_pi = HALF_PI = math.pi / 2
inf = INF = math.inf
nan = NAN = math.nan


def array1d(dtype: Any = float):
    """The type of arrays of one dimension."""
    return types.ArrayType(dtype, 1)


def array2d(dtype: Any = float):
    """The type of arrays of two dimensions."""
    return types.ArrayType(dtype, 2)


def array3d(dtype: Any = float):
    """The type of arrays of three dimensions."""
    return types.ArrayType(dtype, 3)


def array4d(dtype: Any = float):
    """The type of arrays of four dimensions."""
    return types.ArrayType(dtype, 4)


def init() -> None:
    """Does nothing: there is nothing to prepare. It is here for programs that were written for Warp."""


def __getattr__(name: str):
    if name not in _NAMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = Builtin(name)
    return value


def __dir__():
    return sorted({*(name for name in globals() if not name.startswith("_")), *_NAMES})


__all__ = [
    *("CompileError", "DeterministicMode", "Func", "Kernel", "Struct", "Tape"),
    *("array", "array1d", "array2d", "array3d", "array4d", "clone", "config", "constant", "copy", "empty", "empty_like"),
    *("from_numpy", "full", "func", "func_grad", "func_replay", "init", "kernel", "launch", "ones", "ones_like", "overload", "struct", "synchronize", "types"),
    *("zeros", "zeros_like"),
]
