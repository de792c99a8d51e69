"""`Trainer`: trains any module by any loss. `train`: the run that `bullet train` does.

There is one training step, Rust's. It calls the loss function for the forward pass, and does the rest: backward, accumulation,
clipping, loss scaling, the update. On a GPU the third step is captured into a graph and replayed from then on; Python is not
called any more then. So a loss function computes from its batch and the parameters alone, and reads no tensor (`item()`); one
that does is called at every step.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from ._core import Tensor, _nn, asarray
from .autograd import no_grad
from .model import Transformer
from .nn import Module, precision
from .optim import AdamW, Optimizer, Schedule

__all__ = ["Callback", "Progress", "Run", "Trainer", "train"]

Loss = Callable[..., Tensor]


class Callback:
    """Hooks into a run; each does nothing here. One that returns True ends the run after the step in progress."""

    def on_start(self, step: int, steps: int) -> bool | None:
        """Before the first step: steps done, and steps of the whole run."""

    def on_step(self, step: int, steps: int) -> bool | None:
        """After every step. Nothing was read from the device."""

    def on_log(self, logs: dict[str, Any]) -> bool | None:
        """At every logging step: "step", "loss", "lr", "grad_norm", "steps_per_second" or "tokens_per_second", ..."""

    def on_eval(self, metrics: dict[str, Any]) -> bool | None:
        """After an evaluation: "step" and "loss", at least."""

    def on_end(self, report: dict[str, Any]) -> None:
        """The run is over: "ending" says why."""


class Progress(Callback):
    """A bar on standard error: in a terminal and in a notebook, unless `show` says otherwise."""

    def __init__(self, show: bool | None = None):
        self.show = _is_watched() if show is None else show
        self._drawn, self._text, self._began, self._from = 0.0, "", 0.0, 0

    def on_start(self, step: int, steps: int) -> None:
        self._began, self._from = time.perf_counter(), step

    def on_step(self, step: int, steps: int) -> None:
        now = time.perf_counter()
        # Ten times a second is enough for eyes.
        if self.show and (now - self._drawn > 0.1 or step == steps):
            self._drawn = now
            left = (now - self._began) / max(step - self._from, 1) * (steps - step)
            filled = "=" * (26 * step // max(steps, 1))
            line = f"[{filled:<26}] {step}/{steps}  {self._text}  ETA {int(left) // 60}:{int(left) % 60:02}"
            print(f"\r{line:<79}", end="", file=sys.stderr, flush=True)

    def on_log(self, logs: dict[str, Any]) -> None:
        self._text = f"loss {logs['loss']:.4f}"

    def on_eval(self, metrics: dict[str, Any]) -> None:
        if self.show:
            line = f"step {metrics['step']}  evaluation loss {metrics['loss']:.4f}"
            print(f"\r{line:<79}", file=sys.stderr)

    def on_end(self, report: dict[str, Any]) -> None:
        if self.show:
            print(file=sys.stderr)


def _is_watched() -> bool:
    """Whether somebody looks at standard error: a terminal, or a notebook."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    return sys.stderr.isatty() or type(shell).__name__ == "ZMQInteractiveShell"


class Trainer:
    """Trains `model` on `data` by `loss(model, *batch)`, or by `model.loss(*batch)` if none is given.

        trainer = Trainer(model, lambda model, x, y: ((model(x) - y) ** 2).mean(), Batches(x, y, size=32), steps=500)
        trainer.fit()

    - `data`: an iterable of batches that is run through again and again, a function of the step, or what has a method
      `batch(step)`, as `Batches` and `TextBatches` do. A batch is a tensor or array, or a tuple of them; all have the shapes and
      dtypes of the first.
    - `precision`: "float32", or "bfloat16" or "float16", in which the layers then compute; parameters stay as they are. Under
      "float16" the loss is scaled, from `loss_scale` on.
    - `accumulation`: batches whose gradients are averaged in a step. `grad_clip`: the largest global norm of gradients.
    - `schedule`: the learning rate by the step; without one it is that of the optimizer.
    - `eval_data`: an iterable of batches, evaluated every `eval_interval` steps and at the end.
    - `checkpoint`: a file that is written every `save_interval` steps and at the end, also of a run that Ctrl-C ended.
    - `callbacks`: `Callback`s, or functions of step and steps that are called after each. `progress`: see `Progress`.

    Which parameters are trained, and the groups of the optimizer, are read when `fit` begins.
    """

    def __init__(
        self,
        model: Module,
        loss: Loss | None = None,
        data: Any = None,
        *,
        steps: int,
        optimizer: Optimizer | None = None,
        schedule: Schedule | None = None,
        precision: str = "float32",
        loss_scale: float = 65536.0,
        accumulation: int = 1,
        grad_clip: float | None = None,
        seed: int = 0,
        eval_data: Iterable[Any] | None = None,
        eval_interval: int = 0,
        log_interval: int = 10,
        checkpoint: str | os.PathLike[str] | None = None,
        save_interval: int = 0,
        callbacks: Sequence[Callback | Callable[[int, int], Any]] = (),
        progress: bool | None = None,
    ):
        if precision not in ("float32", "bfloat16", "float16"):
            raise ValueError(f"precision = {precision!r}: expected 'float32', 'bfloat16' or 'float16'")
        if data is None:
            raise ValueError("Trainer needs data: an iterable of batches, or a function of the step")
        if loss is None and not hasattr(model, "loss"):
            raise ValueError(f"{type(model).__name__} has no method loss(); give a function loss(model, *batch)")
        if not isinstance(steps, int) or steps < 0:
            raise ValueError(f"steps = {steps!r}: expected a whole number, 0 or more")
        if not isinstance(accumulation, int) or accumulation < 1:
            raise ValueError(f"accumulation = {accumulation!r}: expected a whole number of batches, 1 or more")
        if grad_clip is not None and not grad_clip > 0:
            raise ValueError(f"grad_clip = {grad_clip!r}: expected a norm above 0, or None")
        if optimizer is not None and not isinstance(optimizer, Optimizer):
            raise TypeError(f"optimizer is {optimizer!r}: expected one of bullet_core.optim, such as optim.AdamW(model)")
        self.model, self._loss, self.data = model, loss, data
        self.steps, self.schedule, self.seed = steps, schedule, seed
        self.optimizer = AdamW(model) if optimizer is None else optimizer
        self.precision = None if precision == "float32" else precision
        self.loss_scale = (loss_scale, 2000) if precision == "float16" and loss_scale else None
        self.accumulation, self.grad_clip = accumulation, grad_clip
        self.eval_data, self.eval_interval, self.log_interval = eval_data, eval_interval, log_interval
        self.checkpoint, self.save_interval = checkpoint, save_interval
        #: Told of steps, logs and evaluations; more may be added, functions too.
        self.callbacks: list[Callback | Callable[[int, int], Any]] = [Progress(progress), *callbacks]
        #: What was logged and evaluated, a dictionary each.
        self.history: list[dict[str, Any]] = []
        #: Steps done.
        self.step = 0
        self._source = _Source(data)
        self._scaler: list[tuple[str, Tensor]] = []
        #: Rust's training step, while there is a run.
        self._engine: Any = None
        self._captured: tuple[bool, str | None] = (False, None)
        self._lap = (0.0, 0)
        #: Steps done when the engine was made, with those that had changed the parameters; steps skipped so far.
        self._from, self._skipped = (0, 0), 0
        self._stop = self._broken = False
        self._interrupted: Callable[[], bool] = bool

    @property
    def captured(self) -> bool:
        """Whether steps are replayed from a graph of the GPU, in the run in progress or the last one."""
        return self._captured[0] if self._engine is None else self._engine.captured

    @property
    def not_captured(self) -> str | None:
        """Why steps are not captured, where that was tried."""
        return self._captured[1] if self._engine is None else self._engine.not_captured

    def stop(self) -> None:
        """Ends the run after the step in progress."""
        self._stop = True

    def loss(self, *batch: Tensor) -> Tensor:
        """The loss on a batch."""
        return self.model.loss(*batch) if self._loss is None else self._loss(self.model, *batch)

    def fit(self) -> dict[str, Any]:
        """Trains up to `steps` steps, and returns a report: "ending", "steps", "loss" and so on.

        Ctrl-C ends it after the step in progress, with a checkpoint if one is asked for, and is raised then.
        """
        self._stop, self._broken, training = False, False, self.model.training
        began = time.perf_counter()
        self.model.train()
        ending = "completed"
        try:
            with _interrupts() as interrupted:
                self._interrupted = interrupted
                self._notify("on_start", self.step, self.steps)
                with contextlib.suppress(_Interrupted):
                    while self.step < self.steps and not self._stop and not interrupted():
                        self._advance()
                if self.step < self.steps:
                    ending = "interrupted" if interrupted() else "stopped"
                self._settle()
                report = self._report(ending, time.perf_counter() - began)
                self._notify("on_end", report)
                if interrupted():
                    raise KeyboardInterrupt
        finally:
            self._interrupted = bool
            self._settle()
            self.model.train(training)
        return report

    def _advance(self) -> None:
        """One step and what is due after it."""
        rounds = range(self.step * self.accumulation, (self.step + 1) * self.accumulation)
        batches = [self._source.batch(i) for i in rounds]
        if self._engine is None:
            self._engine = self._make_engine(batches[0])
            self._lap = (time.perf_counter(), self.step)
            self._from = (self.step - self._skipped, self._engine.taken)
        if self.schedule is not None:
            self.optimizer.lr = self.schedule(self.step)
        self._engine.step(batches, self.optimizer._rate())
        self.step = self._engine.steps
        last = self.step == self.steps
        self._notify("on_step", self.step, self.steps)
        if last or self.step == 1 or (self.log_interval and self.step % self.log_interval == 0):
            self._log()
        if self.eval_data is not None and (last or (self.eval_interval and self.step % self.eval_interval == 0)):
            metrics = {"step": self.step, "loss": self.evaluate()}
            self.history.append({"step": self.step, "evaluation": metrics["loss"]})
            self._notify("on_eval", metrics)
        if self.checkpoint and self.save_interval and self.step % self.save_interval == 0 and not last:
            self.save(self.checkpoint)

    def _make_engine(self, batch: Sequence[Tensor]) -> Any:
        """Rust's training step, for batches like this one."""
        shapes = [(tuple(t.shape), t.dtype) for t in batch]
        members = self.optimizer._members()
        if not members:
            raise ValueError("the optimizer has no parameter that requires gradients")
        options: dict[str, Any] = dict(accumulation=self.accumulation, compute=self.precision, seed=self.seed)
        options |= dict(loss_scale=self.loss_scale, grad_clip=self.grad_clip)
        engine = _nn.TrainStep(
            lambda tensors: self.loss(*tensors),
            self.optimizer._for_step(),
            members,
            shapes,
            members[0][1].device,
            taken=self.optimizer.steps,
            **options,
        )
        engine.resume_at(self.step)
        if self._scaler:
            engine.load_scaler(self._scaler)
        return engine

    def _settle(self) -> None:
        """Brings what Python holds up to date with the steps that Rust took."""
        if self._engine is None:
            return
        self._take_over()
        self._captured = (self._engine.captured, self._engine.not_captured)
        self._engine = None
        if self.checkpoint and not self._broken:
            self.save(self.checkpoint)

    def _take_over(self) -> None:
        """Learns from the engine what the optimizer and the loss scale have come to."""
        self._scaler = self._engine.scaler_state()
        self.optimizer._catch_up(self._engine)

    def _log(self) -> None:
        loss, norm, scale, taken = self._engine.read()
        skipped = (self.step - self._from[0]) - (taken - self._from[1])
        # A loss scale overflows now and then by design; one that has come down to 1 has nowhere to go.
        overflow = skipped > self._skipped and (scale is None or scale <= 1)
        self._skipped = skipped
        if not math.isfinite(loss) or overflow:
            self._broken = True
            what = f"the loss is {loss}" if not math.isfinite(loss) else "a gradient is not finite"
            raise FloatingPointError(
                f"{what} at step {self.step}; lower the learning rate, clip gradients (grad_clip=1.0), or look at the data; an "
                "older checkpoint stays as it is"
            )
        now = time.perf_counter()
        (then, at), self._lap = self._lap, (now, self.step)
        speed = (self.step - at) / max(now - then, 1e-9)
        logs = {"step": self.step, "loss": loss, "lr": self.optimizer.lr, "grad_norm": norm, "steps_per_second": speed}
        if scale is not None:
            logs |= {"loss_scale": scale, "skipped": skipped}
        self.history.append(logs)
        self._notify("on_log", logs)

    def _notify(self, hook: str, *args: Any) -> None:
        for callback in list(self.callbacks):
            told = callback if isinstance(callback, Callback) else _Function(callback)
            if getattr(told, hook)(*args):
                self._stop = True

    def _report(self, ending: str, seconds: float) -> dict[str, Any]:
        losses = [logs["loss"] for logs in self.history if "loss" in logs]
        evaluations = [logs["evaluation"] for logs in self.history if "evaluation" in logs]
        report = {"ending": ending, "steps": self.step, "seconds": seconds, "loss": losses[-1] if losses else None}
        return report | {"evaluation": evaluations[-1] if evaluations else None}

    def evaluate(self, data: Iterable[Any] | None = None) -> float:
        """The mean loss over batches, without dropout; over `eval_data` if none are given."""
        data = self.eval_data if data is None else data
        if data is None:
            raise ValueError("evaluate() needs data, or a Trainer with eval_data")
        weighted = data.weighted() if hasattr(data, "weighted") else ((batch, None) for batch in data)
        training, total, count = self.model.training, 0.0, 0.0
        device = next(self.model.parameters()).device
        self.model.eval()
        try:
            with no_grad(), precision(self.precision):
                for batch, weight in weighted:
                    if self._interrupted():
                        raise _Interrupted
                    tensors = [t.to(device) for t in _tensors(batch)]
                    weight = weight or (tensors[0].shape or (1,))[0]
                    total, count = total + self.loss(*tensors).item() * weight, count + weight
        finally:
            self.model.train(training)
        if not count:
            raise ValueError("there are no batches to evaluate on")
        return total / count

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes model, optimizer and the place in the data: for `resume`, and of a Transformer for `load`, too."""
        if self._engine is not None:
            self._take_over()
        model: Any = self.model
        whole = isinstance(model, Transformer) and model._is_as_built()
        config = {"model": json.dumps(model.config), "tokenizer": model.tokenizer} if whole else {}
        tensors = [(f"model.{name}", tensor) for name, tensor in model.state_dict().items()]
        state = {"step": self.step, "seed": self.seed, "optimizer": type(self.optimizer).__name__}
        state |= {"groups": self.optimizer.state_dict()["groups"], "history": self.history}
        metadata = {"writer": "bullet_core", "trainer": json.dumps(state)}
        _nn.save(path, [*tensors, *self.optimizer._tensors().items(), *self._scaler], metadata=metadata, **config)

    def resume(self, path: str | os.PathLike[str]) -> Trainer:
        """Goes on from a checkpoint. With the same data and settings the run ends with the bits it would have had."""
        tensors, _, _, metadata = _nn.read(path, next(self.model.parameters()).device)
        if "trainer" not in metadata:
            raise ValueError(f"{os.fspath(path)!r} was not saved by a Trainer: it lacks the optimizer's state")
        state = json.loads(metadata["trainer"])
        if state["optimizer"] != type(self.optimizer).__name__ or state["seed"] != self.seed:
            raise ValueError(
                f"{os.fspath(path)!r} was trained by {state['optimizer']} with seed {state['seed']}, this is "
                f"{type(self.optimizer).__name__} with seed {self.seed}"
            )
        self.model.load_state_dict({n.removeprefix("model."): t for n, t in tensors if n.startswith("model.")})
        own = [(n, t) for n, t in tensors if n.startswith("optim.")]
        self._scaler = [(n, t) for n, t in own if n in ("optim.loss_scale", "optim.clean_steps")]
        taken = {n: t for n, t in own if n not in ("optim.loss_scale", "optim.clean_steps")}
        self.optimizer.load_state_dict({"tensors": taken, "groups": state["groups"]})
        self.step, self.history = state["step"], state["history"]
        self._engine, self._skipped = None, self.step - self.optimizer.steps
        return self


class _Interrupted(Exception):
    """Ctrl-C between two batches of an evaluation."""


class _Function(Callback):
    def __init__(self, function: Callable[[int, int], Any]):
        self._function = function

    def on_step(self, step: int, steps: int) -> bool | None:
        return self._function(step, steps)


class _Source:
    """Batches by their number, whatever they come from."""

    def __init__(self, data: Any):
        self._at = data.batch if hasattr(data, "batch") else data if callable(data) else None
        self._data, self._iterator, self._next = data, iter(()), 0

    def batch(self, number: int) -> list[Tensor]:
        """The batch of this number; of an iterable those before it are passed over."""
        if self._at is not None:
            return _tensors(self._at(number))
        if number < self._next:
            self._iterator, self._next = iter(()), 0
        while True:
            batch = self._take()
            self._next += 1
            if self._next > number:
                return _tensors(batch)

    def _take(self) -> Any:
        for attempt in range(2):
            with contextlib.suppress(StopIteration):
                return next(self._iterator)
            if attempt == 0:
                self._iterator = iter(self._data)
        raise ValueError(
            f"the data ended after {self._next} batches and cannot be run through again; give a list, or an object whose "
            "__iter__ begins anew"
        )


def _tensors(batch: Any) -> list[Tensor]:
    parts = batch if isinstance(batch, (tuple, list)) else (batch,)
    return [part if isinstance(part, Tensor) else asarray(part) for part in parts]


@contextlib.contextmanager
def _interrupts() -> Iterator[Callable[[], bool]]:
    """Ctrl-C sets a flag inside; the second one does what it does outside. Only the main thread hears of it."""
    hit = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield hit.is_set
        return
    before = signal.getsignal(signal.SIGINT)

    def note(*_: Any) -> None:
        hit.set()
        signal.signal(signal.SIGINT, before)

    if before is None or before is signal.SIG_IGN:
        yield hit.is_set
        return
    signal.signal(signal.SIGINT, note)
    try:
        yield hit.is_set
    finally:
        signal.signal(signal.SIGINT, before)


@dataclasses.dataclass
class Run:
    """What `train` achieved."""

    #: The model, with its tokenizer.
    model: Transformer
    #: "completed", "early_stopped" or "stopped".
    ending: str
    #: Steps done, those before a resume included.
    steps: int
    #: Training loss at the last logging step.
    loss: float | None
    #: The evaluation at the end, over the whole validation text: "loss", "perplexity", "bits_per_byte".
    evaluation: dict[str, Any] | None
    #: Lowest validation loss on the way, and its step.
    best: tuple[float, int] | None
    #: The run folder, its last checkpoint, and its best one.
    folder: str
    last: str
    best_path: str | None
    seconds: float
    tokens_per_second: float
    #: What was logged and evaluated, a dictionary each.
    history: list[dict[str, Any]]


def train(
    config: str | os.PathLike[str] | None = None,
    *,
    text: str | None = None,
    resume: str | os.PathLike[str] | None = None,
    overwrite: bool = False,
    device: Any = None,
    callbacks: Sequence[Callback | Callable[[int, int], Any]] = (),
    progress: bool | None = None,
    **settings: Any,
) -> Run:
    """Trains a language model on text: the run of `bullet train`, with its settings, folder and checkpoints.

        run = train(text=open("book.txt").read(), steps=500, name="book")
        print("".join(run.model.generate("It was")))

    `config` is a TOML file; `settings` override it, by their names there (`dim=64`, or `**{"train.seed": 1}`). A new run
    refuses to replace an older one of its name, unless `overwrite`; `resume` is a checkpoint to go on from. Ctrl-C ends the run
    after the step in progress, with a checkpoint, and is raised then.
    """
    hooks = [Progress(progress), *(c if isinstance(c, Callback) else _Function(c) for c in callbacks)]
    history: list[dict[str, Any]] = []
    started = False

    def hear(event: str, payload: str) -> bool:
        nonlocal started
        said = json.loads(payload)
        args = [said["step"], said["steps"]] if event == "step" else [said]
        if event == "warning":
            import warnings

            warnings.warn(said["message"], stacklevel=2)
            return False
        if event in ("log", "eval"):
            history.append(said if event == "log" else {"step": said["step"], "evaluation": said["loss"]})
        stop = False
        if event == "step" and not started:
            started = True
            for hook in hooks:
                stop |= bool(hook.on_start(args[0] - 1, args[1]))
        for hook in hooks:
            function = getattr(hook, f"on_{event}", None)
            stop |= bool(function and function(*args))
        return stop

    pairs = [(key, str(value).lower() if isinstance(value, bool) else str(value)) for key, value in settings.items()]
    report, core, tokenizer = _nn.train(
        pairs, config=config, text=text, resume=resume, overwrite=overwrite, device=device, callback=hear
    )
    said = json.loads(report)
    seconds = said.pop("elapsed")
    best = tuple(said.pop("best")) if said.get("best") else said.pop("best") and None
    return Run(Transformer._of(core, tokenizer), best=best, seconds=seconds, history=history, **said)
