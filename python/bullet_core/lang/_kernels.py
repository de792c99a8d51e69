"""Decorators, launches and the tape."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import bullet_core as bc
from bullet_core import _core

from ._arrays import array
from ._gather import Gatherer
from ._types import Struct

_lang = _core._lang
_recording = threading.local()


class Kernel:
    """A kernel: what one thread of a grid does. `launch` runs it; it is compiled at its first launch."""

    def __init__(self, function: Callable):
        functools.update_wrapper(self, function)
        self._function = function
        self._compiled: Any = None

    @property
    def key(self) -> str:
        """Its name."""
        return self._function.__name__

    @property
    def compiled(self):
        """The compiled kernel; compiles it if that was not done."""
        if self._compiled is None:
            gatherer = Gatherer()
            gatherer.add("kernel", self._function)
            self._compiled = _lang.compile(gatherer.definitions)[0]
        return self._compiled

    def __call__(self, *_args, **_kwargs):
        raise TypeError(f"kernel {self.key} is run over a grid: launch({self.key}, dim=.., inputs=[..])")

    def __repr__(self):
        return f"<kernel {self.key}>"


class Func:
    """A function that kernels and other such functions call. On the host it is the Python function that it was."""

    def __init__(self, function: Callable, others: Sequence[Callable] = ()):
        functools.update_wrapper(self, function)
        self._overloads = [*others, function]

    def __call__(self, *args, **kwargs):
        return self._overloads[-1](*args, **kwargs)

    def __repr__(self):
        return f"<function {self.__name__} of kernels>"


def kernel(function: Callable | None = None):
    """Decorator: makes a kernel of a function. Its parameters have types; it returns nothing."""
    if function is None:
        return kernel
    if not hasattr(function, "__code__"):
        raise TypeError(f"@kernel takes a function, got {type(function)}")
    return Kernel(function)


def func(function: Callable | None = None):
    """Decorator: makes a function that kernels can call. A second one of the same name in the same place is an overload."""
    if function is None:
        return func
    if not hasattr(function, "__code__"):
        raise TypeError(f"@func takes a function, got {type(function)}")
    known = function.__globals__.get(function.__name__)
    same_place = isinstance(known, Func) and "<locals>" not in function.__qualname__ and known.__module__ == function.__module__
    others = [f for f in known._overloads if _differs(f, function)] if same_place else []
    return Func(function, others)


def _differs(known: Callable, function: Callable) -> bool:
    """Whether a function is an overload of the other, and not a newer version, as of a notebook cell that ran again."""
    return repr(known.__annotations__) != repr(function.__annotations__)


def struct(cls: type) -> Struct:
    """Decorator: makes a struct of a class with annotated fields."""
    if not isinstance(cls, type):
        raise TypeError(f"@struct takes a class, got {type(cls)}")
    return Struct(cls)


def launch(
    kernel: Kernel,
    dim: int | Sequence[int],
    inputs: Sequence[Any] = (),
    outputs: Sequence[Any] = (),
    *,
    device: Any = None,
    record_tape: bool = True,
) -> None:
    """Runs a kernel for every place of a grid.

    Args:
        kernel: made by `@kernel`.
        dim: the lengths of the grid's one to four dimensions.
        inputs: the first arguments.
        outputs: those behind them. Which a kernel writes, it says itself; the two lists are for the reader.
        device: where it runs; without it where its first array lies. All arrays are there.
        record_tape: whether a `Tape` that is open remembers it.

    On a GPU it returns before the work is done.
    """
    if not isinstance(kernel, Kernel):
        raise TypeError(f"launch takes a @kernel, got {type(kernel)}")
    if dim.__class__ is list:
        dim = tuple(dim)
    tape = getattr(_recording, "tape", None) if record_tape else None
    (kernel._compiled or kernel.compiled).launch(dim, inputs, outputs, device, tape)


class Tape:
    """Remembers launches, and goes back through their adjoints.

        >>> with Tape() as tape:
        ...     launch(square, dim=n, inputs=[x, loss])
        >>> tape.backward(loss)
        >>> x.grad

    Gradients flow from the arrays that were made with `requires_grad=True` through every array of floats that a launch writes.
    """

    def __init__(self):
        self._tape = _lang.Tape()
        self._outer = []

    def __enter__(self) -> Tape:
        if getattr(_recording, "tape", None) is not None:
            raise RuntimeError("another Tape is open in this thread; tapes do not nest")
        _recording.tape = self._tape
        return self

    def __exit__(self, *_):
        _recording.tape = None

    def __len__(self) -> int:
        return len(self._tape)

    def backward(self, loss: array | None = None, grads: Mapping[array, Any] | None = None) -> None:
        """Adds the gradients of a loss of one element to the arrays that asked for theirs.

        Args:
            loss: an array of one number; its own gradient is 1.
            grads: instead of it or with it, arrays and the gradient of each.
        """
        seeds = []
        if loss is not None:
            if not isinstance(loss, array):
                raise TypeError(f"the loss is an array of one number, got {type(loss)}")
            if loss.tensor.size != 1:
                raise ValueError(f"the loss is an array of one number, got one of shape {tuple(loss.tensor.shape)}; give grads={{array: gradient}}")
            seeds.append((loss, bc.ones_like(loss.tensor)))
        for target, gradient in (grads or {}).items():
            given = gradient.tensor if isinstance(gradient, array) else bc.asarray(gradient, dtype=target.tensor.dtype, device=target.device)
            if tuple(given.shape) != tuple(target.tensor.shape):
                raise ValueError(f"an array of shape {tuple(target.tensor.shape)} has a gradient like it, got {tuple(given.shape)}")
            seeds.append((target, given))
        if not seeds:
            raise ValueError("backward takes a loss, or grads={array: gradient}")
        self._tape.backward(seeds)

    def zero(self) -> None:
        """Sets the gradients to 0 of all arrays it knows."""
        self._tape.zero()

    def reset(self) -> None:
        """Forgets its launches, and sets the gradients to 0."""
        self._tape.zero()
        self._tape.reset()


def constant(value):
    """A value that kernels take as a constant: itself. Numbers and vectors of the module need no mark."""
    return value


def synchronize(device: Any = None) -> None:
    """Waits until a device has done its work."""
    (bc.Device(device) if device is not None else bc.default_device()).synchronize()
