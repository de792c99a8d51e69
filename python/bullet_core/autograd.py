"""Gradients: whether operations are recorded, functions with a backward of one's own, and a check of gradients.

    >>> import bullet_core as bc
    >>> class Square(bc.autograd.Function):
    ...     @staticmethod
    ...     def forward(ctx, x):
    ...         ctx.save_for_backward(x)
    ...         return x * x
    ...     @staticmethod
    ...     def backward(ctx, grad):
    ...         (x,) = ctx.saved_tensors
    ...         return 2 * x * grad
    >>> x = bc.Tensor([3.0], requires_grad=True)
    >>> Square.apply(x).sum().backward()
    >>> x.grad
    Tensor([6.], dtype=float32)
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Self, TypeVar

from . import _core
from ._core import Tensor, is_grad_enabled, set_grad_enabled

__all__ = ["Function", "GradcheckError", "enable_grad", "gradcheck", "is_grad_enabled", "no_grad", "set_grad_enabled"]


_Called = TypeVar("_Called", bound=Callable[..., Any])


class _Recording:
    """Sets recording inside a `with` block, or inside a function that it decorates, for this thread."""

    enabled = True

    def __init__(self) -> None:
        self._before: list[bool] = []

    def __enter__(self) -> Self:
        self._before.append(set_grad_enabled(self.enabled))
        return self

    def __exit__(self, *_: object) -> None:
        set_grad_enabled(self._before.pop())

    def __call__(self, function: _Called) -> _Called:
        @functools.wraps(function)
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            with type(self)():
                return function(*args, **kwargs)

        return wrapped  # type: ignore[return-value]


class no_grad(_Recording):
    """Nothing is recorded: results require no gradients, and nothing is kept for `backward`."""

    enabled = False


class enable_grad(_Recording):
    """Records, inside a `no_grad` block too."""

    enabled = True


class Context:
    """What `forward` leaves for `backward`: tensors by `save_for_backward`, all else as attributes.

    A result that is kept as an attribute keeps itself alive for ever; save it.
    """

    def __init__(self, needs_input_grad: tuple[bool, ...]):
        #: For each argument of `apply`, whether its gradient is wanted.
        self.needs_input_grad = needs_input_grad
        self._saved: tuple[Tensor, ...] = ()

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any: ...  # What `forward` keeps.

        def __setattr__(self, name: str, value: Any) -> None: ...

    def save_for_backward(self, *tensors: Tensor) -> None:
        """Keeps inputs, outputs or other tensors; it is an error of `backward` if one is overwritten before that."""
        for tensor in tensors:
            if not isinstance(tensor, Tensor):
                raise TypeError(f"save_for_backward takes tensors, got {type(tensor)}; keep others as attributes of ctx")
        self._saved = tensors

    @property
    def saved_tensors(self) -> tuple[Tensor, ...]:
        """What `save_for_backward` kept."""
        return self._saved


class Function:
    """A function with a backward of its own: subclass it with two static methods, and call `apply`.

    `forward(ctx, *args)` gets the arguments of `apply` and gives a tensor, or a tuple of them; nothing in it is recorded.
    `backward(ctx, *grads)` gets the gradient of each result and gives that of each argument, None for those that are no
    tensors or need none. It is called once.
    """

    @staticmethod
    def forward(ctx: Context, *args: Any) -> Any:
        """The results."""
        raise NotImplementedError("a Function needs a static method forward(ctx, *args)")

    @staticmethod
    def backward(ctx: Context, *grads: Any) -> Any:
        """The gradient of each argument."""
        raise NotImplementedError("a Function needs a static method backward(ctx, *grads)")

    @classmethod
    def apply(cls, *args: Any) -> Any:
        """Calls `forward`, and records `backward` if an argument requires gradients."""
        ctx = Context(tuple(isinstance(arg, Tensor) and arg.requires_grad for arg in args))
        with no_grad():
            results = cls.forward(ctx, *args)
        several = isinstance(results, tuple)
        outputs = list(results) if several else [results]
        for output in outputs:
            if not isinstance(output, Tensor):
                raise TypeError(f"{cls.__name__}.forward gave {type(output)}, expected a Tensor or a tuple of them")
        places = [i for i, arg in enumerate(args) if isinstance(arg, Tensor)]
        shapes = [output.shape for output in outputs]
        kinds = [(output.dtype, output.device) for output in outputs]

        def backward(grads: list[Tensor | None], saved: list[Tensor]) -> list[Tensor | None]:
            ctx._saved = tuple(saved)
            filled = [
                _core.zeros(shape, dtype=dtype, device=device) if grad is None else grad
                for grad, shape, (dtype, device) in zip(grads, shapes, kinds, strict=True)
            ]
            given = cls.backward(ctx, *filled)
            ctx._saved = ()
            given = given if isinstance(given, tuple) else (given,)
            if len(given) != len(args):
                raise ValueError(
                    f"{cls.__name__}.backward gave {len(given)} gradients, expected one for each of the {len(args)} "
                    f"arguments of apply (None for those that need none)"
                )
            return [given[i] for i in places]

        saved, ctx._saved = ctx._saved, ()
        outputs = _core._custom([args[i] for i in places], outputs, list(saved), backward)
        return tuple(outputs) if several else outputs[0]


class GradcheckError(RuntimeError):
    """A gradient that is not what differences say."""


def gradcheck(
    function: Callable[..., Any],
    inputs: Tensor | Sequence[Any],
    *,
    eps: float = 1e-6,
    atol: float = 1e-5,
    rtol: float = 1e-3,
    raise_exception: bool = True,
) -> bool:
    """Compares the gradients of `function` with central differences.

    `inputs` are the tensors it is called with (or one); those of float64 that require gradients are checked, element by
    element, against `(f(x + eps) - f(x - eps)) / 2 eps`, for every element of every floating-point result. `function` gives
    a tensor or a tuple of them, and the same for equal inputs.

    Returns True, or raises `GradcheckError` (returns False without `raise_exception`) that names the first element that
    differs by more than `atol + rtol * |difference|`.
    """
    inputs = (inputs,) if isinstance(inputs, Tensor) else tuple(inputs)
    checked = [i for i, x in enumerate(inputs) if isinstance(x, Tensor) and x.requires_grad]
    if not checked:
        raise ValueError("no input requires gradients; make one with Tensor(..., dtype='float64', requires_grad=True)")
    for i in checked:
        if inputs[i].dtype != _core.float64:
            raise ValueError(f"input {i} is {inputs[i].dtype}; differences need float64: use x.to('float64')")
    try:
        for i in checked:
            _check_input(function, inputs, i, eps, atol, rtol)
    except GradcheckError:
        if raise_exception:
            raise
        return False
    return True


def _results(function: Callable[..., Any], inputs: Sequence[Any]) -> list[Tensor]:
    """The floating-point results of `function`."""
    results = function(*inputs)
    results = results if isinstance(results, tuple) else (results,)
    kept = [r for r in results if r.dtype in (_core.float64, _core.float32)]
    if not kept:
        raise ValueError("the function gives no floating-point tensor: nothing can be differentiated")
    return kept


def _check_input(
    function: Callable[..., Any], inputs: Sequence[Any], i: int, eps: float, atol: float, rtol: float
) -> None:
    """Checks all derivatives by one input."""
    values = inputs[i].detach().numpy().copy()
    differences = []
    for at in range(values.size):
        both = []
        for step in (eps, -eps):
            moved = values.copy()
            moved.reshape(-1)[at] += step
            changed = [*inputs[:i], Tensor(moved), *inputs[i + 1 :]]
            with no_grad():
                both.append([r.numpy().reshape(-1).copy() for r in _results(function, changed)])
        differences.append([(up - down) / (2 * eps) for up, down in zip(*both, strict=True)])
    with enable_grad():
        sizes = [r.size for r in _results(function, inputs)]
    for which, size in enumerate(sizes):
        for element in range(size):
            found = _gradient(function, inputs, i, which, element)
            for at in range(values.size):
                want = differences[at][which][element]
                if not abs(found[at] - want) <= atol + rtol * abs(want):
                    raise GradcheckError(
                        f"the derivative of element {element} of result {which} by element {at} of input {i} is "
                        f"{found[at]:.6g}, but differences say {want:.6g} (allowed: {atol:g} + {rtol:g} of that)"
                    )


def _gradient(function: Callable[..., Any], inputs: Sequence[Any], i: int, which: int, element: int) -> list[float]:
    """The gradient of one element of one result by input `i`, flat, of a fresh run."""
    leaf = inputs[i].detach().copy()
    leaf.requires_grad = True
    with enable_grad():
        result = _results(function, [*inputs[:i], leaf, *inputs[i + 1 :]])[which]
    if not result.requires_grad:
        return [0.0] * leaf.size
    seed = _core.zeros(result.shape, dtype=result.dtype, device=result.device)
    seed.reshape(-1)[element] = 1.0
    result.backward(seed)
    return [0.0] * leaf.size if leaf.grad is None else leaf.grad.to("cpu").reshape(-1).tolist()
