"""Functions of kernels on the host: one call, interpreted to what a kernel would compute."""

from __future__ import annotations

from typing import Any

import numpy as np

from bullet_core import _core

from ._types import ALIAS, SCALARS, Compound, Scalar, is_compound, of_description, scalar_of, spell

_lang = _core._lang

#: Numbers that Python has itself, and that take the type of what they meet.
_PLAIN = ("bool", "int32", "float32", "bfloat16")


def evaluate(name: str, args: tuple, keywords: dict[str, Any]) -> Any:
    """What `wp.name(*args, **keywords)` is in a kernel. Raises TypeError for what that does not take."""
    values: list[tuple] = []
    spelled = [_spelled(arg, values, name) for arg in args]
    spelled += [f"{key}={_spelled(arg, values, name)}" for key, arg in keywords.items()]
    return operate(f"wp.{name}({', '.join(spelled)})", values)


def product(a: Any, b: Any) -> Any:
    """What `a * b` is in a kernel."""
    values: list[tuple] = []
    return operate(f"{_spelled(a, values, '*')} * {_spelled(b, values, '*')}", values)


def operate(expression: str, values: list[tuple]) -> Any:
    """The value of an expression of kernels, where `a0`, `a1` .. are these values, as Rust takes them."""
    is_tuple, results = _lang.evaluate(expression, values)
    results = [_made(*result) for result in results]
    return tuple(results) if is_tuple else results[0]


def _spelled(arg: Any, values: list[tuple], name: str) -> str:
    """An argument in an expression: a number of the source, a type, or one of the values."""
    if isinstance(arg, Compound):
        values.append((arg.kind, list(arg.dims), arg.scalar.name, list(arg)))
    elif isinstance(arg, np.generic) and arg.dtype.name in SCALARS:
        values.append(("number", [], arg.dtype.name, [arg.item()]))
    elif isinstance(arg, (bool, int, float)):
        return (spell(arg) or "").replace(ALIAS, "wp")
    elif isinstance(arg, Scalar) or is_compound(arg) or arg in (float, int, bool):
        return (arg if hasattr(arg, "spelling") else scalar_of(arg)).spelling.replace(ALIAS, "wp")
    else:
        raise TypeError(f"wp.{name} on the host takes numbers, vectors, matrices, quaternions and transforms, got {type(arg).__name__}")
    return f"a{len(values) - 1}"


def _made(kind: str, dims: tuple[int, ...], dtype: str, numbers: list) -> Any:
    if kind != "number":
        return of_description((kind, dims, dtype))(*numbers)
    return numbers[0] if dtype in _PLAIN else SCALARS[dtype](numbers[0])
