"""Where the first values of parameters come from.

A fill is what `Module.parameter` takes: a name and a scale. `seed` makes what follows it repeatable.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator

from .._core import Tensor, _nn

__all__ = ["GPT2", "ONES", "ZEROS", "Fill", "fan_in", "normal", "residual", "seed", "uniform"]

Fill = tuple[str, float]

ZEROS: Fill = ("zeros", 0.0)
ONES: Fill = ("ones", 0.0)
#: GPT-2's weights: normal, standard deviation 0.02 (Radford et al. 2019).
GPT2: Fill = ("normal", 0.02)


def normal(std: float) -> Fill:
    """Normal around 0."""
    return ("normal", std)


def uniform(bound: float) -> Fill:
    """Uniform over -bound..bound."""
    return ("uniform", bound)


def fan_in(inputs: int) -> Fill:
    """Uniform over +-1 / sqrt(inputs): what PyTorch gives linear, convolutional and recurrent layers."""
    return uniform(1 / math.sqrt(max(inputs, 1)))


def residual(layers: int) -> Fill:
    """GPT-2's projections onto the residual stream of a model of so many blocks."""
    return normal(0.02 / math.sqrt(2 * max(layers, 1)))


class _State:
    seed = 0
    count = 0
    blank = False


def seed(value: int) -> None:
    """Parameters made from now on, and what dropout draws outside of a `Trainer`, are a function of this number."""
    _State.seed, _State.count = value, 0
    _nn.seed_dropout(value)


def draw(shape: tuple[int, ...], fill: Fill) -> Tensor:
    """A new parameter; no two calls after one `seed` give the same values."""
    if _State.blank:
        return _nn.init("", shape, "zeros")
    _State.count += 1
    return _nn.init(f"#{_State.count}", shape, *fill, seed=_State.seed)


@contextlib.contextmanager
def blank() -> Iterator[None]:
    """Parameters made inside are zeros: for who overwrites them."""
    before, _State.blank = _State.blank, True
    try:
        yield
    finally:
        _State.blank = before
