"""Tensors with NumPy's habits, gradients, and a GPU where there is one.

    >>> import bullet_core as bc
    >>> x = bc.array([1.0, 2.0, 3.0])
    >>> x.requires_grad = True
    >>> (x * x).sum().backward()
    >>> x.grad
    Tensor([2., 4., 6.], dtype=float32)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import _core, cuda
from ._core import *  # noqa: F403  # The extension names what it gives away.
from ._core import Device, __array_namespace_info__, set_default_device
from ._core import Tensor as Tensor
from ._core import __version__ as __version__
from ._core import dtype as dtype
from .autograd import enable_grad as enable_grad
from .autograd import no_grad as no_grad

if TYPE_CHECKING:
    from . import autograd as autograd
    from . import data as data
    from . import lang as lang
    from . import model as model
    from . import nn as nn
    from . import optim as optim
    from . import trainer as trainer
    from ._numpy import *  # noqa: F403
    from .model import Tokenizer as Tokenizer
    from .model import Transformer as Transformer
    from .model import generate as generate
    from .model import load as load
    from .model import load_tensors as load_tensors
    from .model import save_tensors as save_tensors
    from .nn import Module as Module
    from .nn import Parameter as Parameter
    from .trainer import Callback as Callback
    from .trainer import Trainer as Trainer
    from .trainer import train as train

__array_api_version__ = "2024.12"

pi, e, inf, nan, newaxis = 3.141592653589793, 2.718281828459045, float("inf"), float("nan"), None

#: Names of other modules, which are imported at their first use.
_LAZY = {
    **dict.fromkeys(["data", "lang", "model", "nn", "optim", "trainer"]),
    **dict.fromkeys(["Module", "Parameter"], "nn"),
    **dict.fromkeys(["Tokenizer", "Transformer", "generate", "load", "load_tensors", "save_tensors"], "model"),
    **dict.fromkeys(["Callback", "Trainer", "train"], "trainer"),
}

#: Names that NumPy has and the array API has not.
_NUMPY = [
    "absolute", "allclose", "amax", "amin", "arccos", "arccosh", "arcsin", "arcsinh", "arctan", "arctan2", "arctanh",
    "argwhere", "array_equal", "atleast_1d", "atleast_2d", "concatenate", "copy", "cumprod", "cumsum", "diag", "dot",
    "flatnonzero", "hstack", "identity", "inner", "invert", "isclose", "isin", "left_shift", "median", "mod",
    "nan_to_num", "ndim", "outer", "power", "ravel", "right_shift", "rint", "shape", "size", "split", "swapaxes",
    "trace", "transpose", "true_divide", "unique", "vdot", "vstack",
]  # fmt: skip

__all__ = [
    *_LAZY,
    *(name for name in dir(_core) if not name.startswith("_")),
    "__array_api_version__",
    "__array_namespace_info__",
    "cuda",
    "device",
    "e",
    "enable_grad",
    "inf",
    "nan",
    "newaxis",
    "no_grad",
    "pi",
]


class device:
    """Makes new tensors on a device inside a `with` block: `with bullet_core.device("cuda:0"): ...`."""

    def __init__(self, name: Device | str):
        self._device = Device(name)
        self._before: list[Device] = []

    def __enter__(self) -> Device:
        self._before.append(set_default_device(self._device))
        return self._device

    def __exit__(self, *_: object) -> None:
        set_default_device(self._before.pop())


def _find(name: str) -> Any:
    """What is imported at its first use."""
    home = "_numpy" if name in _NUMPY else _LAZY.get(name, "")
    if home == "":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    module = importlib.import_module(f".{home or name}", __name__)
    value = globals()[name] = getattr(module, name) if home else module
    return value


if not TYPE_CHECKING:  # Which names there are, type checkers know from above.
    __getattr__ = _find


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY, *_NUMPY})
