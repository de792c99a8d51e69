"""Decorators, launches and the tape."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import bullet_core as bc
from bullet_core import _core

from . import config
from ._arrays import array
from ._gather import Gatherer, evaluated
from ._host import refuse
from ._types import OpenType, Struct, is_open, key_of, name_of, type_of

_lang = _core._lang
_recording = threading.local()
_NOT_GUARANTEED = config.DeterministicMode.NOT_GUARANTEED


class Kernel:
    """A kernel: what one thread of a grid does. `launch` runs it; it is compiled at its first launch."""

    def __init__(self, function: Callable, enable_backward: bool = True, deterministic: config.DeterministicMode | bool | None = None, mode: str | None = None):
        functools.update_wrapper(self, function)
        self._function = function
        self._enable_backward = enable_backward
        self._deterministic = deterministic
        self._mode = mode
        self._compiled: Any = None
        # Of generic types: what was compiled, by the types.
        self._instances: dict[Any, Any] | None = {} if _is_generic(function) else None

    @property
    def key(self) -> str:
        """Its name."""
        return self._function.__name__

    @property
    def compiled(self):
        """The compiled kernel; compiles it if that was not done."""
        if self._instances is not None:
            raise TypeError(f"kernel {self.key} has parameters of any type; it is compiled for those of a launch")
        if self._compiled is None:
            self._compiled = self._compile({})
        return self._compiled

    def _compile(self, types: dict[str, Any]):
        gatherer = Gatherer()
        gatherer.add("kernel", self._function, types=types)
        return _lang.compile(gatherer.definitions)[0]

    def _instance(self, types: list[Any]):
        """The kernel for these types of its parameters, one for each."""
        names = list(self._function.__code__.co_varnames[: self._function.__code__.co_argcount])
        if len(types) != len(names):
            raise TypeError(f"kernel `{self.key}` takes {len(names)} arguments ({', '.join(names)}), got {len(types)}")
        own = evaluated(self._function)
        chosen = {name: given for name, given in zip(names, types) if is_open(own.get(name, Any))}
        key = tuple(map(key_of, chosen.values()))
        if key not in self._instances:
            for name, given in chosen.items():
                if isinstance(own.get(name), OpenType) and not own[name].takes(given):
                    raise TypeError(f"parameter `{name}` of kernel `{self.key}` is a {own[name]}, got {name_of(given)}")
            self._instances[key] = self._compile(chosen)
        return self._instances[key]

    def __reduce__(self):
        # By its name, as functions are.
        return self._function.__qualname__

    def __call__(self, *_args, **_kwargs):
        raise TypeError(f"kernel {self.key} is run over a grid: launch({self.key}, dim=.., inputs=[..])")

    def __repr__(self):
        return f"<kernel {self.key}>"


class Func:
    """A function that kernels and other such functions call. On the host it is the Python function that it was."""

    def __init__(self, function: Callable, others: Sequence[Callable] = ()):
        functools.update_wrapper(self, function)
        self._overloads = [*others, function]
        # By the overload: its gradient and its replay function, if it has its own.
        self._derivatives: dict[Callable, dict[str, Callable]] = {}

    def __reduce__(self):
        # By its name, as functions are.
        return self.__qualname__

    def __call__(self, *args, **kwargs):
        return self._overloads[-1](*args, **kwargs)

    def __repr__(self):
        return f"<function {self.__name__} of kernels>"


def kernel(
    function: Callable | None = None,
    *,
    enable_backward: bool | None = None,
    deterministic: config.DeterministicMode | bool | None = None,
    module: Any = None,
    module_options: Mapping[str, Any] | None = None,
    grid_stride: bool | None = None,
    **options: Any,
):
    """Decorator: makes a kernel of a function. Its parameters have types; it returns nothing.

    Args:
        function: the function.
        enable_backward: False for a kernel that has no gradient: a launch of it that gradients flow through is an error.
        deterministic: that of `launch`, for launches that do not say it.
        module, grid_stride: say how Warp compiles, and mean nothing here.
        module_options: `enable_backward`, `deterministic` and `mode` may be there, the last as `config.mode` says of all kernels.
    """
    given = dict(module_options or {})
    enable_backward = given.pop("enable_backward", True) if enable_backward is None else enable_backward
    deterministic = given.pop("deterministic", None) if deterministic is None else deterministic
    mode = given.pop("mode", None)
    given.pop("deterministic_max_records", None)
    refuse("kernel", module_options=given, **options)
    if mode is not None:
        _is_debug(mode)
    if function is None:
        return functools.partial(kernel, enable_backward=enable_backward, deterministic=deterministic, module_options={"mode": mode})
    if not hasattr(function, "__code__"):
        raise TypeError(f"@kernel takes a function, got {type(function)}")
    return Kernel(function, bool(enable_backward), deterministic, mode)


def func(function: Callable | None = None):
    """Decorator: makes a function that kernels can call. A second one of the same name in the same place is an overload."""
    if function is None:
        return func
    if not hasattr(function, "__code__"):
        raise TypeError(f"@func takes a function, got {type(function)}")
    known = function.__globals__.get(function.__name__)
    same_place = isinstance(known, Func) and "<locals>" not in function.__qualname__ and known.__module__ == function.__module__
    if not same_place:
        return Func(function)
    made = Func(function, [f for f in known._overloads if _differs(f, function)])
    made._derivatives = dict(known._derivatives)
    return made


def _differs(known: Callable, function: Callable) -> bool:
    """Whether a function is an overload of the other, and not a newer version, as of a notebook cell that ran again."""
    return repr(known.__annotations__) != repr(function.__annotations__)


def _derivative(kind: str, of: Func):
    def keep(function: Callable):
        if not isinstance(of, Func):
            raise TypeError(f"func_{kind} takes a @func, got {type(of)}")
        of._derivatives.setdefault(of._overloads[-1], {})[kind] = function
        return function

    return keep


def func_grad(of: Func):
    """Decorator: makes a function the gradient of another, in place of what the compiler would derive. It takes the other's
    arguments, then the gradients of its results, and adds to `wp.adjoint[argument]`."""
    return _derivative("gradient", of)


def func_replay(of: Func):
    """Decorator: makes a function what the way back computes anew in place of another."""
    return _derivative("replay", of)


def overload(kernel: Kernel | Callable, types: Sequence[Any] | None = None):
    """Compiles a kernel of generic types for these types of its parameters now, not at its first launch.

    `overload(kernel, [array(dtype=float), int])`, or as the decorator of a function of the kernel's name, with types and without
    a body.
    """
    if isinstance(kernel, Kernel):
        if types is None:
            raise TypeError("overload takes a kernel and a list of types")
        if kernel._instances is None:
            raise TypeError(f"kernel {kernel.key} has no parameters of any type")
        kernel._instance(list(types))
        return kernel
    known = kernel.__globals__.get(kernel.__name__)
    if not isinstance(known, Kernel):
        raise TypeError(f"@overload is for a @kernel of the same name before it; {kernel.__name__} is none")
    code = kernel.__code__
    return overload(known, [kernel.__annotations__[name] for name in code.co_varnames[: code.co_argcount]])


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
    adj_inputs: Sequence[Any] = (),
    adj_outputs: Sequence[Any] = (),
    device: Any = None,
    stream: None = None,
    adjoint: bool = False,
    record_tape: bool = True,
    record_cmd: bool = False,
    max_blocks: int = 0,
    block_dim: int | None = None,
    deterministic: config.DeterministicMode | bool | None = None,
) -> None:
    """Runs a kernel for every place of a grid.

    Args:
        kernel: made by `@kernel`.
        dim: the lengths of the grid's one to four dimensions.
        inputs: the first arguments.
        outputs: those behind them. Which a kernel writes, it says itself; the two lists are for the reader.
        device: where it runs; without it where its first array lies. All arrays are there.
        record_tape: whether a `Tape` that is open remembers it.
        block_dim: threads of a block on a GPU, up to 1024; without it 256.
        deterministic: whether it leaves the same bits at every run and for any number of CPU threads, also where threads add to
            one element, and so does its way back on a tape. Without it what the kernel says, or `config.deterministic`.
        adj_inputs, adj_outputs, stream, adjoint, record_cmd, max_blocks: Warp's, which are not there; an error says what is.

    On a GPU it returns before the work is done. What a thread does wrong is raised by who waits for it then.
    """
    if not isinstance(kernel, Kernel):
        raise TypeError(f"launch takes a @kernel, got {type(kernel)}")
    if stream is not None or adjoint or record_cmd or max_blocks or adj_inputs or adj_outputs:
        refuse("launch", stream=stream, adjoint=adjoint, adj_inputs=adj_inputs, adj_outputs=adj_outputs, record_cmd=record_cmd, max_blocks=max_blocks)
    if dim.__class__ is list:
        dim = tuple(dim)
    if not (isinstance(inputs, (list, tuple)) and isinstance(outputs, (list, tuple))):
        raise TypeError(f"launch takes inputs and outputs as lists of arguments, got {type(inputs)} and {type(outputs)}")
    tape = getattr(_recording, "tape", None) if record_tape else None
    if deterministic is None:
        deterministic = config.deterministic if kernel._deterministic is None else kernel._deterministic
    exact = deterministic is not _NOT_GUARANTEED and _is_exact(deterministic)
    block = block_dim if block_dim is not None and block_dim > 0 else 0
    if kernel._instances is not None:
        given = [*inputs, *outputs]
        own = evaluated(kernel._function)
        names = kernel._function.__code__.co_varnames
        compiled = kernel._instance([type_of(x, own.get(name, Any)) for x, name in zip(given, names)])
    else:
        compiled = kernel._compiled or kernel.compiled
    mode = kernel._mode or config.mode
    debug = mode != "release" and _is_debug(mode)
    compiled.launch(dim, inputs, outputs, device, tape, block, kernel._enable_backward, exact, debug)


def _is_exact(deterministic: Any) -> bool:
    """Whether a mode promises the same bits."""
    if not isinstance(deterministic, (bool, config.DeterministicMode)):
        raise TypeError(f"deterministic is a DeterministicMode or a bool, got {deterministic!r}")
    return bool(deterministic)


def _is_debug(mode: Any) -> bool:
    """Whether launches check indices of arrays on a GPU."""
    if mode not in ("release", "debug"):
        raise ValueError(f"the mode of kernels (wp.config.mode, BULLET_KERNEL_MODE) is 'release' or 'debug', got {mode!r}")
    return mode == "debug"


def open_tape():
    """Rust's side of the tape that is open in this thread, or None."""
    return getattr(_recording, "tape", None)


def _is_generic(function: Callable) -> bool:
    return any(is_open(annotation) for name, annotation in evaluated(function).items() if name != "return")


class Gradients:
    """Gradients by their arrays."""

    def __getitem__(self, of: array) -> array:
        if of.grad is None:
            raise KeyError("this array has no gradient yet, or was made without requires_grad=True")
        return of.grad

    def __contains__(self, of: array) -> bool:
        return of.grad is not None

    def get(self, of: array, default: Any = None) -> Any:
        """The gradient of an array, or `default` if it has none."""
        return of.grad if of in self else default


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

    @property
    def gradients(self) -> Gradients:
        """The gradient of each array that has one: `tape.gradients[a]` is `a.grad`."""
        return Gradients()

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
