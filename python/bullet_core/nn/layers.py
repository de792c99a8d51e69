"""Layers without state of their own: linear, embedding, norms, dropout, convolution.

Each uses its parameters through `param` and its input through `cast`: in the dtype that the training step computes in.
"""

from __future__ import annotations

from typing import Any

from .._core import Tensor, _nn, embedding, layernorm, linear, rmsnorm
from . import init
from .module import Module

__all__ = ["Conv1d", "Dropout", "Embedding", "LayerNorm", "Linear", "RMSNorm"]

param, cast = _nn.param, _nn.cast


class Linear(Module):
    """`y = x W^T + b` over the last axis."""

    weight: Tensor
    bias: Tensor | None

    def __init__(self, inputs: int, outputs: int, bias: bool = True, *, fill: init.Fill | None = None):
        self.parameter("weight", (outputs, inputs), fill or init.fan_in(inputs))
        self.bias = self.parameter("bias", (outputs,), init.ZEROS) if bias else None

    def forward(self, x: Tensor, activation: str | None = None) -> Tensor:
        """(.., inputs) to (.., outputs), then `activation`: "relu", "gelu", "gelu_tanh" or "silu"."""
        return linear(cast(x), param(self.weight), param(self.bias), activation=activation)


class Embedding(Module):
    """A table of vectors, looked up by index."""

    weight: Tensor

    def __init__(self, rows: int, width: int, *, fill: init.Fill = init.GPT2):
        self.parameter("weight", (rows, width), fill)

    def forward(self, indices: Tensor) -> Tensor:
        """Integers (..) to vectors (.., width)."""
        if self.training:
            return embedding(param(self.weight), indices)
        # Rows are cast after they are picked: they are fewer than the table's.
        return cast(embedding(self.weight, indices))

    def rows(self, start: int, length: int) -> Tensor:
        """The rows from `start` on, as (length, width)."""
        if self.training:
            return param(self.weight)[start : start + length]
        return cast(self.weight[start : start + length])


class LayerNorm(Module):
    """Layer normalisation over the last axis (Ba et al. 2016)."""

    weight: Tensor
    bias: Tensor | None

    def __init__(self, width: int, bias: bool = True, *, eps: float = 1e-5):
        self.eps = eps
        self.parameter("weight", (width,), init.ONES)
        self.bias = self.parameter("bias", (width,), init.ZEROS) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        """(.., width) to the same."""
        return layernorm(cast(x), param(self.weight), param(self.bias), self.eps)

    def of_sum(self, x: Tensor, added: Tensor) -> tuple[Tensor, Tensor]:
        """The norm of `x + added`, and that sum, in one pass."""
        return _nn.add_layernorm(cast(x), cast(added), param(self.weight), param(self.bias), self.eps)


class RMSNorm(Module):
    """Root-mean-square normalisation over the last axis (Zhang and Sennrich 2019)."""

    weight: Tensor

    def __init__(self, width: int, *, eps: float = 1e-5):
        self.eps = eps
        self.parameter("weight", (width,), init.ONES)

    def forward(self, x: Tensor) -> Tensor:
        """(.., width) to the same."""
        return rmsnorm(cast(x), param(self.weight), self.eps)

    def of_sum(self, x: Tensor, added: Tensor) -> tuple[Tensor, Tensor]:
        """The norm of `x + added`, and that sum, in one pass."""
        return _nn.add_rmsnorm(cast(x), cast(added), param(self.weight), self.eps)


class Dropout(Module):
    """Elements dropped with probability `p` in training, the others scaled by `1 / (1 - p)`."""

    def __init__(self, p: float = 0.5):
        if not 0 <= p < 1:
            raise ValueError(f"dropout p = {p}: expected a probability of at least 0 and less than 1")
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        return _nn.dropout(x, self.p) if self.training else x

    def extra_repr(self) -> str:
        return f"p={self.p}"


class Conv1d(Module):
    """One-dimensional convolution of (batch, channels, length); `padding` is zeros at both ends."""

    weight: Tensor
    bias: Tensor | None

    def __init__(
        self,
        inputs: int,
        outputs: int,
        taps: int,
        *,
        stride: int = 1,
        padding: int = 0,
        dilation: int = 1,
        groups: int = 1,
        bias: bool = True,
        fill: init.Fill | None = None,
    ):
        if groups < 1 or inputs % groups or outputs % groups:
            raise ValueError(f"groups = {groups} must divide inputs = {inputs} and outputs = {outputs}")
        self.options: dict[str, Any] = dict(stride=stride, padding=padding, dilation=dilation, groups=groups)
        self.parameter("weight", (outputs, inputs // groups, taps), fill or init.fan_in(inputs // groups * taps))
        self.bias = self.parameter("bias", (outputs,), init.ZEROS) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        return _nn.conv1d(cast(x), param(self.weight), param(self.bias), **self.options)
