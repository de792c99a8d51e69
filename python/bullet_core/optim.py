"""Optimizers: SGD, Adam and AdamW of Rust, one call a step, and a base for rules of one's own; learning-rate schedules."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ._core import Tensor, _nn, array
from .autograd import no_grad
from .nn import Module, clip_grad_norm

__all__ = [
    "SGD",
    "Adam",
    "AdamW",
    "Optimizer",
    "Schedule",
    "clip_grad_norm",
    "constant",
    "cosine",
    "linear",
    "steps",
]

Schedule = Callable[[int], float]
_Schedule = _nn._Schedule
Parameters = Module | Iterable[Tensor] | Iterable[tuple[str, Tensor]] | Iterable[dict[str, Any]]


class Optimizer:
    """An update rule and the parameters that it updates: a subclass says what `update` does.

        class SignSGD(Optimizer):
            def update(self, param, grad, state, group):
                param -= group["lr"] * bc.sign(grad)

    `parameters` is a module, or tensors, or pairs of name and tensor, or groups: dictionaries with "params" and what is to
    differ from the defaults of the others. `state` is a dictionary of a parameter's own, to keep tensors and numbers in.
    """

    def __init__(self, parameters: Parameters, lr: float = 1e-3, *, weight_decay: float = 0.0, **defaults: Any):
        if not lr >= 0:
            raise ValueError(f"lr = {lr}: expected a number of at least 0")
        self.defaults = dict(lr=lr, weight_decay=weight_decay, **defaults)
        self.param_groups = _groups(parameters, self.defaults)
        self.state: dict[str, dict[str, Any]] = {}
        self._steps = 0

    def update(self, param: Tensor, grad: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
        """Overwrites `param` by what `grad` says; nothing is recorded meanwhile."""
        raise NotImplementedError(f"{type(self).__name__} has no update(param, grad, state, group)")

    @property
    def lr(self) -> float:
        """The learning rate of the first group; setting it changes all in proportion."""
        return self.param_groups[0]["lr"]

    @lr.setter
    def lr(self, lr: float) -> None:
        before = self.lr
        for group in self.param_groups:
            group["lr"] = lr * (group["lr"] / before if before else 1.0)

    @property
    def steps(self) -> int:
        """Steps that were taken."""
        return self._steps

    def zero_grad(self) -> None:
        """Drops every gradient."""
        for group in self.param_groups:
            for param in group["params"]:
                param.grad = None

    def step(self) -> None:
        """Updates the parameters with the gradients that backward left; those without one stay as they are."""
        found = [(name, p, group) for name, p, group in self._all() if p.grad is not None]
        if not found:
            raise ValueError(
                "optimizer: no parameter has a gradient; run the forward pass and call backward on the loss first"
            )
        with no_grad():
            for name, param, group in found:
                self.update(param, param.grad, self.state.setdefault(name, {}), group)
        self._steps += 1

    def _all(self) -> Iterable[tuple[str, Tensor, dict[str, Any]]]:
        for group in self.param_groups:
            for name, param in zip(group["names"], group["params"], strict=True):
                yield name, param, group

    def _rate(self) -> float:
        """The largest learning rate: the engine knows the others as shares of it."""
        return max(group["lr"] for group in self.param_groups)

    def _members(self) -> list[tuple[str, Tensor, float, float]]:
        """What the engine knows of the parameters that are trained: name, leaf, factor on the rate, weight decay."""
        rate = self._rate()
        return [
            (name, p, group["lr"] / rate if rate else 1.0, group["weight_decay"])
            for name, p, group in self._all()
            if p.requires_grad
        ]

    def _for_step(self) -> Any:
        """What the training step updates by: here, a function of name, parameter, gradient and learning rate."""
        groups = {name: group for name, _, group in self._all()}

        def update(name: str, param: Tensor, grad: Tensor, lr: float) -> None:
            self.update(param, grad, self.state.setdefault(name, {}), groups[name] | {"lr": lr})

        return update

    def _catch_up(self, engine: Any) -> None:
        """Learns how many steps a training step took."""
        self._steps = engine.taken

    def state_dict(self) -> dict[str, Any]:
        """What is needed to go on: "tensors" by name, which share memory, and the options of each group."""
        options = [{k: v for k, v in group.items() if k != "params"} for group in self.param_groups]
        return {"tensors": self._tensors(), "groups": options}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on from what `state_dict` gave."""
        groups = state["groups"]
        if [g["names"] for g in groups] != [g["names"] for g in self.param_groups]:
            raise ValueError("the optimizer state is of other parameters or groups; make the optimizer as it was then")
        self._load_tensors(state["tensors"])
        for group, saved in zip(self.param_groups, groups, strict=True):
            group.update(saved)

    def _tensors(self) -> dict[str, Tensor]:
        tensors = {"optim.step": array(self._steps, dtype="int64")}
        for name, state in self.state.items():
            for key, value in state.items():
                tensors[f"optim.{key}.{name}"] = value if isinstance(value, Tensor) else array(value)
        return tensors

    def _load_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        known, self.state = {name: p for name, p, _ in self._all()}, {}
        for full, value in tensors.items():
            _, key, name = (full + "..").split(".", 2)
            name = name.removesuffix("..")
            if full == "optim.step":
                self._steps = int(value.item())
            elif name in known:
                # A tensor without axes was a number, unless the parameter is one.
                number = value.ndim == 0 and known[name].ndim > 0
                self.state.setdefault(name, {})[key] = value.item() if number else value.copy()

    def __repr__(self) -> str:
        count = sum(len(group["params"]) for group in self.param_groups)
        options = ", ".join(f"{key}={value}" for key, value in self.defaults.items())
        return f"{type(self).__name__}({count} parameters, {options})"


def _groups(parameters: Parameters, defaults: dict[str, Any]) -> list[dict[str, Any]]:
    """Groups with "params", their "names", and all options."""
    given = list(parameters.named_parameters()) if isinstance(parameters, Module) else list(parameters)
    if isinstance(parameters, Tensor) or not given:
        raise ValueError("an optimizer needs parameters: a module, or a list of tensors that require gradients")
    dicts: list[Any] = given if all(isinstance(one, dict) for one in given) else [{"params": given}]
    groups, seen = [], 0
    for one in dicts:
        members = one["params"]
        pairs = list(members.named_parameters()) if isinstance(members, Module) else list(members)
        group = defaults | {k: v for k, v in one.items() if k != "params"} | {"params": [], "names": []}
        for member in pairs:
            name, tensor = member if isinstance(member, tuple) else (str(seen), member)
            seen += 1
            if not (isinstance(tensor, Tensor) and (_nn.is_leaf(tensor) or not tensor.requires_grad)):
                raise TypeError(f"parameter {name} is no leaf of the tape; optimize Parameters, not what is computed from them")
            group["params"].append(tensor)
            group["names"].append(name)
        groups.append(group)
    ids = [_nn.leaf_id(param) or id(param) for group in groups for param in group["params"]]
    if len(set(ids)) != len(ids):
        raise ValueError("a parameter is in two groups, or twice in one")
    names = [name for group in groups for name in group["names"]]
    if len(set(names)) != len(names):
        # Parts of a model have parameters of one name: the number of the group tells them apart.
        for i, group in enumerate(groups):
            group["names"] = [f"{i}.{name}" for name in group["names"]]
    return groups


class _Fused(Optimizer):
    """A rule of Rust's: one call for all parameters of a group, with all state on the device."""

    kind: str

    def __init__(self, parameters: Parameters, lr: float, **options: Any):
        super().__init__(parameters, lr, **options)
        self._core: Any = None
        self._key: Any = None
        self._sync()

    def _hyper(self) -> tuple[float, float, float, bool]:
        raise NotImplementedError

    def _sync(self) -> None:
        """Makes the Rust optimizer, or lets it know of parameters and options that changed."""
        members = self._members()
        key = [(name, _nn.leaf_id(p), scale, decay) for name, p, scale, decay in members]
        if self._core is None:
            self._core = _nn.FusedOptimizer(self.kind, *self._hyper(), members)
        elif key != self._key:
            self._core.regroup(members)
        self._key = key

    def step(self) -> None:
        self._sync()
        self._core.step(self._rate())

    @property
    def steps(self) -> int:
        return self._core.steps

    def _for_step(self) -> Any:
        self._sync()
        return self._core

    def _catch_up(self, engine: Any) -> None:
        engine.catch_up(self._core)

    def _tensors(self) -> dict[str, Tensor]:
        self._sync()
        return dict(self._core.state())

    def _load_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        self._sync()
        self._core.load(list(tensors.items()))

    def __getstate__(self) -> dict[str, Any]:
        # Its tensors stand for the Rust optimizer.
        kept = {name: value for name, value in self.__dict__.items() if name not in ("_core", "_key")}
        return kept | {"_state": self._tensors()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        tensors = state.pop("_state")
        self.__dict__.update(state, _core=None, _key=None)
        self._load_tensors(tensors)


class SGD(_Fused):
    """Stochastic gradient descent, as PyTorch's; the first step takes the gradient as the velocity."""

    kind = "sgd"

    def __init__(
        self,
        parameters: Parameters,
        lr: float = 1e-2,
        *,
        momentum: float = 0.0,
        nesterov: bool = False,
        weight_decay: float = 0.0,
    ):
        super().__init__(parameters, lr, momentum=momentum, nesterov=nesterov, weight_decay=weight_decay)

    def _hyper(self) -> tuple[float, float, float, bool]:
        return self.defaults["momentum"], 0.0, 0.0, self.defaults["nesterov"]


class Adam(_Fused):
    """Adam (Kingma and Ba 2015); weight decay adds to the gradient."""

    kind = "adam"

    def __init__(
        self,
        parameters: Parameters,
        lr: float = 1e-3,
        *,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ):
        super().__init__(parameters, lr, betas=tuple(betas), eps=eps, weight_decay=weight_decay)

    def _hyper(self) -> tuple[float, float, float, bool]:
        return *self.defaults["betas"], self.defaults["eps"], False


class AdamW(Adam):
    """Adam with weight decay that scales the parameter instead (Loshchilov and Hutter 2019)."""

    kind = "adamw"

    def __init__(
        self,
        parameters: Parameters,
        lr: float = 1e-3,
        *,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.01,
    ):
        super().__init__(parameters, lr, betas=betas, eps=eps, weight_decay=weight_decay)


def constant(lr: float, *, warmup: int = 0) -> Schedule:
    """Always `lr`, after a linear warm-up."""
    return _Schedule(lr, warmup=warmup)


def cosine(lr: float, end: int, *, warmup: int = 0, floor: float = 0.0) -> Schedule:
    """Half a cosine from `lr`, at the end of warm-up, to `floor`, at step `end`; then it stays (as nanoGPT has it)."""
    return _Schedule(lr, warmup=warmup, decay="cosine", end=end, floor=floor)


def linear(lr: float, end: int, *, warmup: int = 0, floor: float = 0.0) -> Schedule:
    """A line from `lr` to `floor`, at step `end`."""
    return _Schedule(lr, warmup=warmup, decay="linear", end=end, floor=floor)


def steps(lr: float, every: int, *, gamma: float = 0.1, warmup: int = 0, floor: float = 0.0) -> Schedule:
    """`lr` times `gamma` for every `every` steps after warm-up, down to `floor`."""
    return _Schedule(lr, warmup=warmup, decay="step", every=every, gamma=gamma, floor=floor)
