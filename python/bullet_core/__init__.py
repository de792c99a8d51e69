"""Tensors with NumPy's habits, gradients, and a GPU where there is one.

    >>> import bullet_core as bc
    >>> x = bc.array([1.0, 2.0, 3.0])
    >>> x.requires_grad = True
    >>> (x * x).sum().backward()
    >>> x.grad
    Tensor([2., 4., 6.], dtype=float32)
"""

from typing import TYPE_CHECKING

from . import _core, cuda
from ._core import *  # noqa: F403  # The extension names what it gives away.
from ._core import Device, Tensor, __array_namespace_info__, __version__, dtype, set_default_device
from .autograd import enable_grad, no_grad

if TYPE_CHECKING:
    from . import data, model, nn, optim, trainer
    from .model import Tokenizer, Transformer, generate, load, load_tensors, save_tensors
    from .nn import Module, Parameter
    from .trainer import Callback, Trainer, train

__array_api_version__ = "2024.12"

pi, e, inf, nan, newaxis = 3.141592653589793, 2.718281828459045, float("inf"), float("nan"), None

#: Names of other modules, which are imported at their first use.
_LAZY = {
    **dict.fromkeys(["data", "lang", "model", "nn", "optim", "trainer"]),
    **dict.fromkeys(["Module", "Parameter"], "nn"),
    **dict.fromkeys(["Tokenizer", "Transformer", "generate", "load", "load_tensors", "save_tensors"], "model"),
    **dict.fromkeys(["Callback", "Trainer", "train"], "trainer"),
}

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

    def __init__(self, name):
        self._device = Device(name)
        self._before = []

    def __enter__(self):
        self._before.append(set_default_device(self._device))
        return self._device

    def __exit__(self, *_):
        set_default_device(self._before.pop())


def __getattr__(name):
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    module = importlib.import_module(f".{_LAZY[name] or name}", __name__)
    value = globals()[name] = getattr(module, name) if _LAZY[name] else module
    return value


def __dir__():
    return sorted({*globals(), *_LAZY})
