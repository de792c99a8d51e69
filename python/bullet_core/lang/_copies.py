"""Copies of arrays. While a `Tape` is open a copy of floats is a launch on it, so that gradients flow through it."""

from __future__ import annotations

from typing import Any

from ._arrays import array, empty
from ._builtins import Builtin
from ._host import refuse
from ._kernels import kernel, launch, open_tape
from ._types import ArrayType, Scalar, Struct

tid = Builtin("tid")


@kernel
def _copy1(source: ArrayType(Any, 1), target: ArrayType(Any, 1)):
    i = tid()
    target[i] = source[i]


@kernel
def _copy2(source: ArrayType(Any, 2), target: ArrayType(Any, 2)):
    i, j = tid()
    target[i, j] = source[i, j]


@kernel
def _copy3(source: ArrayType(Any, 3), target: ArrayType(Any, 3)):
    i, j, k = tid()
    target[i, j, k] = source[i, j, k]


@kernel
def _copy4(source: ArrayType(Any, 4), target: ArrayType(Any, 4)):
    i, j, k, m = tid()
    target[i, j, k, m] = source[i, j, k, m]


_KERNELS = {1: _copy1, 2: _copy2, 3: _copy3, 4: _copy4}


def copy(dest: array, src: array, dest_offset: int = 0, src_offset: int = 0, count: int = 0, stream: None = None) -> None:
    """Overwrites one array with another of the same shape, from any device. A `Tape` that is open remembers it.

    Args:
        dest, src: where to and where from.
        dest_offset, src_offset: the first elements, counted as if each array had one dimension.
        count: how many elements from there; 0 for all of `src`.
        stream: Warp's; there is none here.
    """
    refuse("copy", stream=stream)
    for given in (dest, src):
        if not isinstance(given, array):
            raise TypeError(f"copy takes two arrays, got {type(given)}")
    if dest_offset or src_offset or count:
        count = count or src.size - src_offset
        dest, src = (_part(*part, count) for part in ((dest, dest_offset), (src, src_offset)))
    if not _record(dest, src):
        dest._overwrite(src)


def clone(src: array, device: Any = None, requires_grad: bool | None = None, pinned: bool = False) -> array:
    """A copy with memory of its own. A `Tape` that is open remembers it."""
    refuse("clone", pinned=pinned)
    requires_grad = src.requires_grad if requires_grad is None else requires_grad
    if not _is_followed(src):
        return array(src, device=device, requires_grad=requires_grad)
    made = empty(src.shape, src.dtype, src.device if device is None else device, requires_grad)
    _record(made, src)
    return made


def _part(of: array, first: int, count: int) -> array:
    if not of.tensor.is_contiguous():
        raise ValueError("a copy with offsets takes arrays without gaps; copy into a .contiguous() one, or slice the arrays")
    if first < 0 or count < 0 or first + count > of.size:
        raise ValueError(f"{count} elements from {first} are outside of an array of {of.size}")
    return of.flatten()[first : first + count]


def _is_followed(of: array) -> bool:
    """Whether gradients may flow from an array, or to it, now."""
    tape = open_tape()
    floats = isinstance(of.dtype, Struct) or (of.dtype if isinstance(of.dtype, Scalar) else of.dtype.scalar).name.startswith(("float", "bfloat"))
    return tape is not None and floats and (of.requires_grad or tape.follows(of))


def _record(dest: array, src: array) -> bool:
    """Whether it was copied by a launch on the tape."""
    if not (_is_followed(src) or _is_followed(dest)) or dest.shape != src.shape:
        return False
    if dest.dtype != src.dtype or dest.device != src.device:
        refuse_unrecorded(src)
        return False
    launch(_KERNELS[src.ndim], src.shape, [src, dest])
    return True


def refuse_unrecorded(src: array) -> None:
    """Raises an error if gradients flow from an array whose copy no tape can remember."""
    if _is_followed(src):
        raise RuntimeError(
            "gradients flow through this array, but not through a copy to another device or dtype; use numpy() to look at it, "
            "or copy it before the tape begins"
        )
