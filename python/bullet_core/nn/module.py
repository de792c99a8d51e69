"""`Module`: what owns parameters, and the names, gradients and state that follow from walking them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Self

from .._core import Tensor, _nn, array, asarray
from . import init

__all__ = ["Module", "ModuleList", "Parameter", "Sequential"]


def Parameter(data: Any, *, dtype: Any = None, device: Any = None) -> Tensor:
    """A leaf of the tape with these values: what a `Module` trains. A tensor lends its memory, anything else is copied."""
    leaf = data.detach() if isinstance(data, Tensor) else array(data)
    for place in (dtype, device):
        leaf = leaf if place is None else leaf.to(place)
    leaf.requires_grad = True
    return leaf


def _refuse_hidden(owner: str, name: str, value: Any) -> None:
    """What is to be trained, saved and moved must be found: parameters and modules inside lists and dictionaries are not."""
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else ()
    for part in parts:
        if isinstance(part, Module) or (isinstance(part, Tensor) and _nn.is_leaf(part)):
            raise TypeError(
                f"{owner}.{name} is a {type(value).__name__} with a {type(part).__name__} in it, which would not be trained or "
                f"saved; assign each part as an attribute, or modules alone as a list"
            )



class Module:
    """A part of a model: some parameters, and parts of its own.

    Assigning a `Parameter`, a `Module` or a list of modules to an attribute makes it part of this one:

        class Gate(Module):
            def __init__(self, width):
                self.project = Linear(width, width)
                self.scale = Parameter([1.0])

            def forward(self, x):
                return x * sigmoid(self.project(x)) * self.scale
    """

    training: bool
    _parameters: dict[str, None]
    _children: dict[str, None]
    _fills: dict[str, tuple[tuple[int, ...], init.Fill]]

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any: ...  # What `__init__` of a subclass sets.

    def __new__(cls, *_args: Any, **_kwargs: Any) -> Self:
        self = super().__new__(cls)
        # Before any `__init__`, so that a module works without calling that of its base.
        for name, value in (("training", True), ("_parameters", {}), ("_children", {}), ("_fills", {})):
            object.__setattr__(self, name, value)
        return self

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the module computes."""
        raise NotImplementedError(f"{type(self).__name__} has no forward(); define what it computes")

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.forward(*args, **kwargs)

    def __setattr__(self, name: str, value: Any) -> None:
        if isinstance(value, (list, tuple)) and value and all(isinstance(part, Module) for part in value):
            value = ModuleList(value)
        _refuse_hidden(type(self).__name__, name, value)
        if isinstance(value, Module):
            if any(part is self for part in value.modules()):
                raise ValueError(
                    f"{type(self).__name__}.{name} would make the module a part of itself; to know its owner, a part can keep "
                    f"a weakref.ref of it"
                )
            self._parameters.pop(name, None)
            self._children[name] = None
        elif isinstance(value, Tensor) and _nn.is_leaf(value):
            self._children.pop(name, None)
            self._parameters[name] = None
        elif name in self._parameters and value is not None:
            raise TypeError(f"{name} is a parameter of {type(self).__name__}; assign a Parameter, or None to remove it")
        else:
            self._parameters.pop(name, None)
            self._children.pop(name, None)
        object.__setattr__(self, name, value)

    def __delattr__(self, name: str) -> None:
        self._parameters.pop(name, None)
        self._children.pop(name, None)
        object.__delattr__(self, name)

    def parameter(self, name: str, shape: tuple[int, ...], fill: init.Fill) -> Tensor:
        """Makes a parameter of this module, whose first values `reset_parameters` can draw again."""
        self._fills[name] = (shape, fill)
        setattr(self, name, init.draw(shape, fill))
        return getattr(self, name)

    def named_children(self) -> Iterator[tuple[str, Module]]:
        """The modules that are attributes of this one, in the order in which they were assigned."""
        return ((name, getattr(self, name)) for name in self._children)

    def named_modules(self, path: str = "") -> Iterator[tuple[str, Module]]:
        """This module and all below it, each before those below it."""
        yield path, self
        for name, child in self.named_children():
            yield from child.named_modules(f"{path}.{name}" if path else name)

    def modules(self) -> Iterator[Module]:
        """As `named_modules`, without names."""
        return (module for _, module in self.named_modules())

    def _all_parameters(self) -> Iterator[tuple[str, Tensor]]:
        """With their names, those that several modules share under each."""
        for path, module in self.named_modules():
            for name in module._parameters:
                yield f"{path}.{name}" if path else name, getattr(module, name)

    def named_parameters(self) -> Iterator[tuple[str, Tensor]]:
        """Every parameter once, its own first; one that is shared has the name it was met by first."""
        seen: set[object] = set()
        for name, tensor in self._all_parameters():
            # A frozen one is no leaf, and known by its object.
            key = _nn.leaf_id(tensor) or (id(tensor),)
            if key not in seen:
                seen.add(key)
                yield name, tensor

    def parameters(self) -> Iterator[Tensor]:
        """As `named_parameters`, without names."""
        return (tensor for _, tensor in self.named_parameters())

    def num_parameters(self) -> int:
        """Number of scalars in all parameters."""
        return sum(tensor.size for tensor in self.parameters())

    def train(self, mode: bool = True) -> Self:
        """Says that the modules are trained: dropout is active."""
        for module in self.modules():
            object.__setattr__(module, "training", mode)
        return self

    def eval(self) -> Self:
        """Says that the modules are used, not trained."""
        return self.train(False)

    def zero_grad(self) -> None:
        """Drops every gradient."""
        for _, tensor in self._all_parameters():
            tensor.grad = None

    def requires_grad_(self, requires_grad: bool = True) -> Self:
        """Whether the parameters are trained; `model.encoder.requires_grad_(False)` freezes a part."""
        for tensor in self.parameters():
            tensor.requires_grad = requires_grad
        return self

    def to(self, *places: Any) -> Self:
        """Moves the parameters to a device, or converts them to a dtype, or both. They stay the same objects."""
        for tensor in list(self.parameters()):
            moved = tensor.detach().to(*places)
            moved.requires_grad = tensor.requires_grad
            _nn.replace(tensor, moved)
        return self

    def reset_parameters(self, seed: int) -> Self:
        """Draws the first values again, each from `seed` and its name alone: those of the modules of Rust."""
        first = dict(self.named_parameters())
        for path, module in self.named_modules():
            for name, (shape, fill) in module._fills.items():
                tensor = first.get(f"{path}.{name}" if path else name)
                if tensor is not None and tensor.shape == shape:
                    drawn = _nn.init(f"{path}.{name}" if path else name, shape, *fill, seed=seed, dtype=tensor.dtype)
                    _nn.assign(tensor, drawn)
        return self

    def state_dict(self) -> dict[str, Tensor]:
        """The parameters by name, sharing memory with the module; one that is shared stands there once."""
        return {name: tensor.detach() for name, tensor in self.named_parameters()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Overwrites every parameter with the one of its name, and none if any does not fit.

        The second name of a shared parameter may be absent; if it is there, it must hold the same values.
        """
        found = {name: value if isinstance(value, Tensor) else asarray(value) for name, value in state.items()}
        first = dict(self.named_parameters())
        wrong = []
        for name, tensor in first.items():
            if name not in found:
                wrong.append(f"{name}: missing; expected {_describe(tensor)}")
            elif (found[name].shape, found[name].dtype) != (tensor.shape, tensor.dtype):
                wrong.append(f"{name}: found {_describe(found[name])}, expected {_describe(tensor)}")
        aliases = {name for name, _ in self._all_parameters()} - set(first)
        for name in sorted(aliases & set(found)):
            alias = dict(self._all_parameters())[name]
            original = next(n for n, t in first.items() if _nn.is_same(t, alias))
            if original in found and found[name].tolist() != found[original].tolist():
                wrong.append(f"{name}: this model ties it to {original}, but the two tensors differ")
        for name in sorted(set(found) - set(first) - aliases):
            wrong.append(f"{name}: unexpected {_describe(found[name])}; this model has no parameter of that name")
        if wrong:
            count = f"{len(wrong)} problem{'s' if len(wrong) > 1 else ''}"
            lines = "\n  ".join(wrong)
            raise ValueError(f"the state does not fit the model ({count}):\n  {lines}")
        for name, tensor in first.items():
            _nn.assign(tensor, found[name])

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the parameters: to a safetensors file if the name ends so, else to a `.bullet` file."""
        _nn.save(path, [(f"model.{name}", tensor) for name, tensor in self.state_dict().items()])

    def load(self, path: str | os.PathLike[str]) -> Self:
        """Overwrites the parameters with those of a file that `save` wrote."""
        self.load_state_dict(read_state(path))
        return self

    def apply(self, function: Callable[[Module], Any]) -> Self:
        """Calls a function with every module."""
        for module in list(self.modules()):
            function(module)
        return self

    def extra_repr(self) -> str:
        """What stands in the brackets of `repr`."""
        return ", ".join(f"{name}={tuple(getattr(self, name).shape)}" for name in self._parameters)

    def __repr__(self) -> str:
        lines = [self.extra_repr()] if self.extra_repr() else []
        lines += [f"{name}: {child!r}" for name, child in self.named_children()]
        if not self._children:
            return f"{type(self).__name__}({', '.join(lines)})"
        body = "\n".join(lines).replace("\n", "\n  ")
        return f"{type(self).__name__}(\n  {body}\n)"


def read_state(path: str | os.PathLike[str], device: Any = None) -> dict[str, Tensor]:
    """The parameters of a model in a file, by name."""
    tensors = _nn.read(path, device)[0]
    return {name.removeprefix("model."): tensor for name, tensor in tensors if not name.startswith("optim.")}


def _describe(tensor: Tensor) -> str:
    return f"{tensor.dtype} {tuple(tensor.shape)}"


class ModuleList(Module):
    """Modules in a list; their names are `0`, `1` and so on."""

    def __init__(self, modules: Iterable[Module] = ()):
        self.extend(modules)

    def append(self, module: Module) -> Self:
        """Adds one at the end."""
        if not isinstance(module, Module):
            raise TypeError(f"expected a Module, got {type(module).__name__}")
        setattr(self, str(len(self)), module)
        return self

    def extend(self, modules: Iterable[Module]) -> Self:
        """Adds several at the end."""
        for module in modules:
            self.append(module)
        return self

    def __len__(self) -> int:
        return len(self._children)

    def __iter__(self) -> Iterator[Module]:
        return (module for _, module in self.named_children())

    def _name(self, index: int) -> str:
        at = index + len(self) if index < 0 else index
        if not 0 <= at < len(self):
            raise IndexError(f"index {index} is out of bounds for {len(self)} modules")
        return str(at)

    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return type(self)(list(self)[index])
        return getattr(self, self._name(index))

    def __setitem__(self, index: int, module: Module) -> None:
        setattr(self, self._name(index), module)


class Sequential(ModuleList):
    """Modules, and functions of one tensor, that are applied one after the other."""

    def __init__(self, *parts: Module | Callable[[Tensor], Tensor] | Iterable[Module]):
        if len(parts) == 1 and isinstance(parts[0], (list, tuple)):
            parts = tuple(parts[0])
        super().__init__(part if isinstance(part, Module) else Function(part) for part in parts)  # type: ignore[arg-type]

    def forward(self, x: Any) -> Any:
        for part in self:
            x = part(x)
        return x


class Function(Module):
    """A function as a module, without parameters."""

    def __init__(self, function: Callable[..., Any]):
        if not callable(function):
            raise TypeError(f"expected a Module or a function, got {type(function).__name__}")
        self.function = function

    def forward(self, *args: Any) -> Any:
        return self.function(*args)

    def extra_repr(self) -> str:
        return getattr(self.function, "__name__", repr(self.function))
