"""Whether operations are recorded for `backward`."""

import functools

from ._core import is_grad_enabled, set_grad_enabled

__all__ = ["enable_grad", "is_grad_enabled", "no_grad"]


class _Recording:
    """Sets recording inside a `with` block, or inside a function that it decorates, for this thread."""

    enabled = True

    def __init__(self):
        self._before = []

    def __enter__(self):
        self._before.append(set_grad_enabled(self.enabled))
        return self

    def __exit__(self, *_):
        set_grad_enabled(self._before.pop())

    def __call__(self, function):
        @functools.wraps(function)
        def wrapped(*args, **kwargs):
            with type(self)():
                return function(*args, **kwargs)

        return wrapped


class no_grad(_Recording):
    """Nothing is recorded: results require no gradients, and nothing is kept for `backward`."""

    enabled = False


class enable_grad(_Recording):
    """Records, inside a `no_grad` block too."""

    enabled = True
