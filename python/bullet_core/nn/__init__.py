"""Modules: parts of models, in readable Python over the ops of tensors.

    >>> from bullet_core import nn
    >>> model = nn.Sequential(nn.Linear(2, 16), bc.tanh, nn.Linear(16, 1))
    >>> model.num_parameters()
    65

Their parameters have the names and first values of Rust's modules (`Module.reset_parameters`), and their files are the same.
Inside a `Trainer` they compute in the precision that it was given.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from typing import Any

from .._core import Tensor, _nn
from . import init
from .init import seed
from .layers import Conv1d, Dropout, Embedding, LayerNorm, Linear, RMSNorm
from .module import Module, ModuleList, Parameter, Sequential
from .rnn import GRU, LSTM
from .transformer import MLP, Attention, TransformerBlock

__all__ = [
    "GRU",
    "LSTM",
    "MLP",
    "Attention",
    "Conv1d",
    "Dropout",
    "Embedding",
    "LayerNorm",
    "Linear",
    "Module",
    "ModuleList",
    "Parameter",
    "RMSNorm",
    "Sequential",
    "Transformer",
    "TransformerBlock",
    "attention",
    "clip_grad_norm",
    "conv1d",
    "dropout",
    "init",
    "precision",
    "rope",
    "seed",
    "split",
]

attention, conv1d, rope, split = _nn.attention, _nn.conv1d, _nn.rope, _nn.split


def dropout(x: Tensor, p: float = 0.5, training: bool = True) -> Tensor:
    """Elements dropped with probability `p`, the others scaled by `1 / (1 - p)`; `x` itself if not `training`."""
    return _nn.dropout(x, p) if training else x


def clip_grad_norm(parameters: Module | Iterable[Tensor], max_norm: float) -> Tensor:
    """Scales gradients in place so that their global norm is at most `max_norm`; returns the norm before."""
    tensors = parameters.parameters() if isinstance(parameters, Module) else parameters
    return _nn.clip_grad_norm(list(tensors), max_norm)


@contextlib.contextmanager
def precision(dtype: Any) -> Iterator[None]:
    """Layers compute in this dtype inside the block, whatever that of their parameters; None: in that of the parameters."""
    before = _nn.set_compute_dtype(dtype)
    try:
        yield
    finally:
        _nn.set_compute_dtype(before)


def __getattr__(name: str) -> Any:
    if name == "Transformer":
        from ..model import Transformer

        return Transformer
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
