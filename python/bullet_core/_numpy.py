"""What NumPy calls otherwise than the array API, and small functions that are made of a few others.

Nothing is imported of this before it is first used: `bullet_core.concatenate` finds it here. With a GPU's tensors they stay there.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ._core import (
    Tensor,
    abs,
    acos,
    acosh,
    asarray,
    asin,
    asinh,
    atan,
    atan2,
    atanh,
    bitwise_invert,
    bitwise_left_shift,
    bitwise_right_shift,
    broadcast_arrays,
    clip,
    concat,
    divide,
    expand_dims,
    eye,
    finfo,
    isfinite,
    matmul,
    moveaxis,
    permute_dims,
    pow,
    remainder,
    round,
    sort,
    stack,
    tensordot,
    unique_all,
    where,
    zeros,
)

__all__ = [
    "absolute",
    "allclose",
    "amax",
    "amin",
    "arccos",
    "arccosh",
    "arcsin",
    "arcsinh",
    "arctan",
    "arctan2",
    "arctanh",
    "argwhere",
    "array_equal",
    "atleast_1d",
    "atleast_2d",
    "concatenate",
    "copy",
    "cumprod",
    "cumsum",
    "diag",
    "dot",
    "flatnonzero",
    "hstack",
    "identity",
    "inner",
    "invert",
    "isclose",
    "isin",
    "left_shift",
    "median",
    "mod",
    "nan_to_num",
    "ndim",
    "outer",
    "power",
    "ravel",
    "right_shift",
    "rint",
    "shape",
    "size",
    "split",
    "swapaxes",
    "trace",
    "transpose",
    "true_divide",
    "unique",
    "vdot",
    "vstack",
]

absolute = abs
arccos, arccosh, arcsin, arcsinh, arctan, arctan2, arctanh = acos, acosh, asin, asinh, atan, atan2, atanh
concatenate = concat
invert, left_shift, right_shift = bitwise_invert, bitwise_left_shift, bitwise_right_shift
mod, power, true_divide = remainder, pow, divide
rint = round

def amax(x: Tensor, axis: Any = None, *, keepdims: bool = False) -> Tensor:
    """Largest element over axes."""
    return x.max(axis, keepdims=keepdims)


def amin(x: Tensor, axis: Any = None, *, keepdims: bool = False) -> Tensor:
    """Smallest element over axes."""
    return x.min(axis, keepdims=keepdims)


def transpose(x: Tensor, axes: Sequence[int] | None = None) -> Tensor:
    """A view with the axes in this order; in reverse order without `axes`."""
    return x.T if axes is None else permute_dims(x, tuple(axes))


def swapaxes(x: Tensor, axis1: int, axis2: int) -> Tensor:
    """A view with two axes exchanged."""
    return x.swapaxes(axis1, axis2)


def ravel(x: Tensor) -> Tensor:
    """The elements along one axis: a view where that is possible."""
    return x.reshape(-1)


def copy(x: Tensor) -> Tensor:
    """A copy of its own memory."""
    return x.copy()


def ndim(x: Tensor) -> int:
    """Number of axes."""
    return x.ndim


def shape(x: Tensor) -> tuple[int, ...]:
    """Lengths of the axes."""
    return x.shape


def size(x: Tensor, axis: int | None = None) -> int:
    """Number of elements, or the length of an axis."""
    return x.size if axis is None else x.shape[axis]


def atleast_1d(x: Tensor) -> Tensor:
    """The tensor, with an axis if it has none."""
    return x if x.ndim else x.reshape(1)


def atleast_2d(x: Tensor) -> Tensor:
    """The tensor, with leading axes if it has less than two."""
    return x if x.ndim > 1 else x.reshape(1, -1)


def vstack(arrays: Sequence[Tensor]) -> Tensor:
    """Tensors one below the other; vectors are rows."""
    return concat([atleast_2d(x) for x in arrays], axis=0)


def hstack(arrays: Sequence[Tensor]) -> Tensor:
    """Tensors side by side: along the second axis, vectors along their only one."""
    parts = [atleast_1d(x) for x in arrays]
    return concat(parts, axis=0 if parts and parts[0].ndim == 1 else 1)


def split(x: Tensor, parts: int | Sequence[int], axis: int = 0) -> list[Tensor]:
    """Views of equal parts along an axis, as many as said, or cut before these indices."""
    length = x.shape[axis]
    if isinstance(parts, int):
        if parts < 1 or length % parts:
            raise ValueError(f"split: an axis of length {length} cannot be cut into {parts} equal parts")
        cuts = [length // parts * i for i in range(1, parts)]
    else:
        cuts = list(parts)
    before = (slice(None),) * (axis % x.ndim)
    return [x[(*before, slice(a, b))] for a, b in zip([0, *cuts], [*cuts, length], strict=True)]


def dot(x1: Tensor, x2: Tensor) -> Tensor:
    """The matrix product; of vectors the sum of products, of numbers their product. More than two axes: see `matmul`."""
    return x1 * x2 if x1.ndim == 0 or x2.ndim == 0 else matmul(x1, x2)


def vdot(x1: Tensor, x2: Tensor) -> Tensor:
    """Sum of products of all elements."""
    return ravel(x1) @ ravel(x2)


def inner(x1: Tensor, x2: Tensor) -> Tensor:
    """Sum of products along both last axes."""
    return x1 * x2 if x1.ndim == 0 or x2.ndim == 0 else tensordot(x1, x2, axes=((-1,), (-1,)))


def outer(x1: Tensor, x2: Tensor) -> Tensor:
    """Products of every element of the first with every one of the second."""
    return x1.reshape(-1, 1) * x2.reshape(1, -1)


def diag(x: Tensor, k: int = 0) -> Tensor:
    """A diagonal of a matrix, or a matrix with a vector on it."""
    if x.ndim == 1:
        n = x.size + (k if k > 0 else -k)
        matrix = zeros((n, n), dtype=x.dtype, device=x.device)
        places = asarray(list(range(x.size)), device=x.device)
        matrix[places - min(k, 0), places + max(k, 0)] = x
        return matrix
    if x.ndim != 2:
        raise ValueError(f"diag: expected a vector or a matrix, got shape {x.shape}")
    rows, columns = x.shape
    count = max(min(rows + min(k, 0), columns - max(k, 0)), 0)
    places = asarray(list(range(count)), dtype="int64", device=x.device)
    return x[places - min(k, 0), places + max(k, 0)]


def trace(x: Tensor, offset: int = 0) -> Tensor:
    """Sum of a diagonal of a matrix."""
    if x.ndim != 2:
        raise ValueError(f"trace: expected a matrix, got shape {x.shape}")
    return diag(x, offset).sum()


def identity(n: int, dtype: Any = None) -> Tensor:
    """Ones on the diagonal of a square matrix, zeros elsewhere."""
    return eye(n, dtype=dtype)


def cumsum(x: Tensor, axis: int | None = None, dtype: Any = None) -> Tensor:
    """Running sums along an axis; along the flattened tensor without `axis`."""
    return x.cumsum(axis, dtype)


def cumprod(x: Tensor, axis: int | None = None, dtype: Any = None) -> Tensor:
    """Running products along an axis; along the flattened tensor without `axis`."""
    return x.cumprod(axis, dtype)


def unique(x: Tensor, return_index: bool = False, return_inverse: bool = False, return_counts: bool = False) -> Any:
    """The distinct elements in ascending order, and what else is asked for, as a tuple then."""
    found = unique_all(x)
    asked = ((return_index, found.indices), (return_inverse, found.inverse_indices), (return_counts, found.counts))
    more = tuple(tensor for wanted, tensor in asked if wanted)
    return (found.values, *more) if more else found.values


def flatnonzero(x: Tensor) -> Tensor:
    """The indices of the elements of the flattened tensor that are not zero."""
    return ravel(x).nonzero()[0]


def argwhere(x: Tensor) -> Tensor:
    """The indices of the elements that are not zero, a row each."""
    return stack(atleast_1d(x).nonzero(), axis=1)[:, : x.ndim]


def isclose(x1: Tensor, x2: Any, rtol: float = 1e-5, atol: float = 1e-8, equal_nan: bool = False) -> Tensor:
    """Whether `|x1 - x2| <= atol + rtol |x2|`, or both are the same infinity; NaN equals NaN if `equal_nan`."""
    a, b = broadcast_arrays(asarray(x1), asarray(x2, device=asarray(x1).device))
    a, b = (t.astype("float64") if t.dtype.kind != "f" else t for t in (a, b))
    near = abs(a - b) <= atol + rtol * abs(b)
    same = where(isfinite(a) & isfinite(b), near, a == b)
    return same | ((a != a) & (b != b)) if equal_nan else same


def allclose(x1: Tensor, x2: Any, rtol: float = 1e-5, atol: float = 1e-8, equal_nan: bool = False) -> bool:
    """Whether all elements are close: see `isclose`."""
    return bool(isclose(x1, x2, rtol, atol, equal_nan).all())


def array_equal(x1: Any, x2: Any) -> bool:
    """Whether both have one shape and equal elements."""
    a, b = asarray(x1), asarray(x2)
    return a.shape == b.shape and bool((a == b.to(a.device)).all())


def isin(x: Tensor, values: Any) -> Tensor:
    """Whether each element is one of these."""
    among = asarray(values, device=x.device).reshape(-1)
    return (x[..., None] == among).any(axis=-1)


def nan_to_num(x: Tensor, nan: float = 0.0) -> Tensor:
    """NaN replaced by a number; infinities by the largest ones of the dtype."""
    if x.dtype.kind != "f":
        return x.copy()
    limits = finfo(x.dtype)
    return clip(where(x != x, nan, x), limits.min, limits.max)


def median(x: Tensor, axis: int | None = None, keepdims: bool = False) -> Tensor:
    """The middle of the elements in order along an axis, or the mean of both middles; NaN if any is."""
    if x.dtype.kind != "f":
        x = x.astype("float64")
    ordered = sort(ravel(x)) if axis is None else moveaxis(sort(x, axis=axis), axis, -1)
    n = ordered.shape[-1]
    if n == 0:
        raise ValueError("median: there are no elements along the axis")
    middle = (ordered[..., (n - 1) // 2] + ordered[..., n // 2]) / 2
    last = ordered[..., -1]  # where NaN is
    middle = where(last != last, last, middle)
    if not keepdims:
        return middle
    return middle.reshape((1,) * x.ndim) if axis is None else expand_dims(middle, axis)
