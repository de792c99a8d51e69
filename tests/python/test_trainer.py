"""The trainer: against the run of Rust, its hooks, checkpoints and Ctrl-C."""

import gc
import pathlib
import subprocess
import sys
import threading
import time
import weakref

import numpy as np
import pytest

import bullet_core as bc
from bullet_core import nn, optim
from bullet_core.data import Batches, TextBatches, tiny_shakespeare

RNG = np.random.default_rng(0)
X = RNG.normal(size=(256, 3)).astype("float32")
Y = np.sin(X @ np.array([[1.0], [-2.0], [0.5]])).astype("float32")
TEXT = tiny_shakespeare()[:30000]
SIZES = {"dim": 32, "layers": 2, "heads": 4, "ff": 64, "bias": True, "dropout": 0.1}


def net(seed=0):
    nn.seed(seed)
    return nn.Sequential(nn.Linear(3, 32), bc.tanh, nn.Dropout(0.05), nn.Linear(32, 1))


def squares(model, x, y):
    return ((model(x) - y) ** 2).mean()


def regression(steps=40, model=None, **options):
    model = model or net()
    options = {"optimizer": optim.AdamW(model, lr=1e-2), "data": Batches(X, Y, size=32)} | options
    return bc.Trainer(model, squares, steps=steps, **options)


def losses(history):
    return [logs["loss"] for logs in history if "loss" in logs]


@pytest.mark.parametrize(
    ("precision", "options"),
    [
        ("float32", {}),
        ("float32", {"accumulation": 2, "grad_clip": 0.5}),
        ("bfloat16", {"positions": "rope", "norm": "rms", "feed_forward": "swiglu", "bias": False}),
        ("float16", {"tied": True}),
    ],
)
def test_a_model_of_python_trains_as_rusts(tmp_path, precision, options):
    train = {k: v for k, v in options.items() if k in ("accumulation", "grad_clip")}
    model = {k: v for k, v in options.items() if k not in train}
    short = {"float32": "f32", "bfloat16": "bf16", "float16": "f16"}[precision]
    settings = SIZES | model | {"grad_clip": 0.0} | train | {"seq": 16, "batch_size": 4, "steps": 8, "warmup": 3, "lr": 1e-2}
    settings |= {"train.seed": 5, "tokenizer.kind": "char", "precision": short, "runs": tmp_path, "train.device": "cpu"}
    settings |= {"log_interval": 1, "eval_interval": 0, "schedule": "cosine", "min_lr": 1e-3, "weight_decay": 0.1}
    settings |= {"beta2": 0.99, "decay_min_rank": 2}
    run = bc.train(text=TEXT, **settings)

    tokenizer = run.model.tokenizer
    sizes = SIZES | {("tie_embeddings" if k == "tied" else k): v for k, v in model.items()}
    twin = bc.Transformer(tokenizer, max_seq=16, seed=5, **sizes)
    matrices, vectors = ([(n, p) for n, p in twin.named_parameters() if (p.ndim >= 2) == m] for m in (True, False))
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}]
    trainer = bc.Trainer(
        twin,
        data=TextBatches(TEXT, tokenizer, batch=4, sequence=16, seed=5),
        optimizer=optim.AdamW(groups, betas=(0.9, 0.99)),
        schedule=optim.cosine(1e-2, 8, warmup=3, floor=1e-3),
        steps=8,
        precision=precision,
        seed=5,
        log_interval=1,
        **train,
    )
    trainer.fit()
    assert losses(trainer.history) == losses(run.history)
    for (name, here), (_, there) in zip(twin.named_parameters(), run.model.named_parameters(), strict=True):
        assert here.tolist() == there.tolist(), name


def test_regression_with_float_inputs_learns():
    model = net()
    trainer = regression(200, model, eval_data=Batches(X, Y, size=64), eval_interval=100)
    first = trainer.evaluate()
    report = trainer.fit()
    assert report["ending"] == "completed" and report["steps"] == 200
    assert report["evaluation"] < first / 5 and report["evaluation"] == trainer.evaluate()
    assert [h["step"] for h in trainer.history if "evaluation" in h] == [100, 200]
    assert trainer.optimizer.steps == 200 and model.training


def test_a_plain_loop_is_the_trainer():
    plain, data = net(), Batches(X, Y, size=32)
    plain[2].p = 0.0
    opt, seen = optim.AdamW(plain, lr=1e-2), []
    for step in range(20):
        loss = squares(plain, *data.batch(step))
        loss.backward()
        nn.clip_grad_norm(plain, 0.7)
        opt.step()
        opt.zero_grad()
        seen.append(loss.item())
    model = net()
    model[2].p = 0.0
    trainer = regression(20, model, grad_clip=0.7, log_interval=1)
    trainer.fit()
    np.testing.assert_allclose(losses(trainer.history), seen, rtol=1e-5)


def test_classification_and_other_shapes():
    model = nn.Sequential(nn.Linear(3, 16), bc.relu, nn.Linear(16, 2))
    labels = (X[:, 0] > 0).astype("int64")
    trainer = bc.Trainer(
        model,
        lambda m, x, y: bc.cross_entropy(m(x), y),
        [(X[i : i + 64], labels[i : i + 64]) for i in range(0, 256, 64)],
        steps=60,
        optimizer=optim.SGD(model, 0.5, momentum=0.9),
    )
    assert trainer.fit()["loss"] < 0.2
    one = nn.Linear(3, 3)
    assert bc.Trainer(one, lambda m, x: bc.square(m(x)).mean(), lambda step: X[:8], steps=2).fit()["steps"] == 2


@pytest.mark.parametrize("kind", ["adamw", "own"])
def test_a_checkpoint_goes_on_bit_for_bit(tmp_path, kind):
    class Sign(optim.Optimizer):
        def update(self, param, grad, state, group):
            state["mean"] = state.get("mean", bc.zeros(param.shape)) * 0.9 + grad * 0.1
            param -= group["lr"] * bc.sign(state["mean"])

    def trainer(steps, **options):
        model = net()
        optimizer = optim.AdamW(model, lr=1e-2) if kind == "adamw" else Sign(model, lr=1e-2)
        return regression(steps, model, optimizer=optimizer, log_interval=5, precision="float16", **options)

    path = tmp_path / "run.bullet"
    whole = trainer(30)
    whole.fit()
    trainer(17, checkpoint=path).fit()
    again = trainer(30).resume(path)
    assert again.step == 17
    again.fit()
    assert losses(again.history)[-2:] == losses(whole.history)[-2:]
    assert again.optimizer.steps == whole.optimizer.steps == 30 - again.history[-1]["skipped"]
    for a, b in zip(whole.model.parameters(), again.model.parameters(), strict=True):
        assert a.tolist() == b.tolist()
    # In the middle of a run, too, and by fitting twice.
    middle = trainer(30, checkpoint=path, save_interval=20)
    middle.callbacks.append(type("Stop", (bc.Callback,), {"on_step": lambda self, step, steps: step == 23})())
    assert middle.fit()["ending"] == "stopped"
    middle.fit()
    assert losses(middle.history)[-1] == losses(whole.history)[-1]
    with pytest.raises(ValueError, match="was not saved by a Trainer"):
        net().save(path)
        trainer(3).resume(path)


def test_hooks_and_stopping():
    seen = []

    class Watch(bc.Callback):
        def on_start(self, step, steps):
            seen.append(("start", step, steps))

        def on_log(self, logs):
            seen.append(("log", logs["step"]))
            return logs["step"] == 20

        def on_end(self, report):
            seen.append(("end", report["ending"], report["steps"]))

    trainer = regression(50, callbacks=[Watch(), lambda step, steps: seen.append(step) if step < 3 else None])
    assert trainer.fit()["ending"] == "stopped"
    assert seen == [("start", 0, 50), 1, ("log", 1), 2, ("log", 10), ("log", 20), ("end", "stopped", 20)]
    assert trainer.fit()["steps"] == 50

    class Broken(bc.Callback):
        def on_log(self, logs):
            raise LookupError("mine")

    with pytest.raises(LookupError, match="mine"):
        regression(5, callbacks=[Broken()]).fit()


def test_exceptions_of_a_loss_come_out_as_they_are_and_leave_all_whole():
    class Mine(Exception):
        pass

    def loss(model, x, y):
        if loss.broken:
            raise Mine("by me")
        return squares(model, x, y)

    loss.broken = False
    model = net()
    trainer = bc.Trainer(model, loss, Batches(X, Y, size=32), steps=10, optimizer=optim.AdamW(model, lr=1e-2))
    trainer.callbacks.append(type("Break", (bc.Callback,), {"on_step": lambda self, *a: setattr(loss, "broken", a[0] == 4)})())
    with pytest.raises(Mine, match="by me"):
        trainer.fit()
    assert trainer.step == 4 and trainer.optimizer.steps == 4 and all(p.grad is None for p in model.parameters())
    loss.broken = False
    assert trainer.fit()["steps"] == 10
    for wrong, words in (
        (lambda m, x, y: m(x), "expected one number"),
        (lambda m, x, y: 3.0, "expected a Tensor"),
        (lambda m, x, y: bc.ones(()), "requires? grad"),
    ):
        with pytest.raises((ValueError, TypeError, RuntimeError), match=words):
            bc.Trainer(net(), wrong, Batches(X, Y, size=32), steps=1).fit()
    with pytest.raises(ValueError, match="shapes and dtypes of the first"):
        bc.Trainer(net(), squares, [(X[:8], Y[:8]), (X[:7], Y[:7])], steps=3).fit()
    with pytest.raises(ValueError, match="cannot be run through again"):
        bc.Trainer(net(), squares, iter([(X[:8], Y[:8])]), steps=3).fit()
    with pytest.raises(ValueError, match="precision"):
        bc.Trainer(net(), squares, [], steps=1, precision="int8")
    with pytest.raises(ValueError, match="has no method loss"):
        bc.Trainer(net(), data=[], steps=1)


def test_broken_numbers_end_the_run_and_spare_the_checkpoint(tmp_path):
    path = tmp_path / "run.bullet"
    regression(10, checkpoint=path).fit()
    kept = path.read_bytes()
    for precision in ("float32", "float16"):
        model = net()
        options = {"steps": 500, "checkpoint": path, "precision": precision}
        wild = bc.Trainer(model, lambda m, x, y: squares(m, x, y) * float("inf"), Batches(X, Y, size=32), **options)
        with pytest.raises(FloatingPointError, match="lower the learning rate"):
            wild.fit()
    assert path.read_bytes() == kept


def test_half_precision_learns_and_scales():
    for precision in ("bfloat16", "float16"):
        model = net()
        trainer = regression(150, model, precision=precision)
        trainer.fit()
        assert losses(trainer.history)[-1] < losses(trainer.history)[0] / 2
        assert model[0].weight.dtype == bc.float32
        assert ("loss_scale" in trainer.history[-1]) == (precision == "float16")


def test_trainers_are_collected():
    class Holder:
        pass

    def make():
        holder = Holder()
        loss = lambda m, x, y: squares(m, x, y) + 0 * (holder is None)  # noqa: E731
        holder.trainer = bc.Trainer(net(), loss, Batches(X, Y, size=32), steps=2)
        holder.trainer.fit()
        return weakref.ref(holder)

    gone = make()
    gc.collect()
    assert gone() is None


INTERRUPTED = """
import sys, threading, os, signal, time
import numpy as np, bullet_core as bc
from bullet_core import nn
model = nn.Linear(4, 4)
def loss(m, x):
    time.sleep(0.02)
    return (m(x) * m(x)).mean()
trainer = bc.Trainer(model, loss, lambda step: np.ones((2, 4), "float32"), steps=10**6, checkpoint=sys.argv[1], seed=3)
threading.Timer(0.5, lambda: (times.append(time.perf_counter()), os.kill(os.getpid(), signal.SIGINT))).start()
times = []
try:
    trainer.fit()
except KeyboardInterrupt:
    late = time.perf_counter() - times[0]
    assert late < 0.25, late
    assert trainer.step == trainer.optimizer.steps > 0
    again = bc.Trainer(model, loss, lambda step: np.ones((2, 4), "float32"), steps=10**6, seed=3).resume(sys.argv[1])
    assert again.step == trainer.step
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    print("kept", trainer.step)
"""

RUN_INTERRUPTED = """
import sys, threading, os, signal, time
import bullet_core as bc
times = []
threading.Timer(1.0, lambda: (times.append(time.perf_counter()), os.kill(os.getpid(), signal.SIGINT))).start()
try:
    sizes = {"dim": 16, "layers": 1, "heads": 2, "ff": 16, "seq": 8, "batch_size": 2, "train.device": "cpu"}
    bc.train(text="to be or not to be " * 200, steps=10**6, runs=sys.argv[1], eval_interval=0, name="x", **sizes)
except KeyboardInterrupt:
    late = time.perf_counter() - times[0]
    assert late < 0.4, late
    print("kept", bc.load(sys.argv[1] + "/x/last.bullet").max_seq)
"""


@pytest.mark.parametrize("script", [INTERRUPTED, RUN_INTERRUPTED])
def test_ctrl_c_ends_after_the_step_and_keeps_everything(tmp_path, script):
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "run")], capture_output=True, text=True, timeout=120, cwd=tmp_path
    )
    assert done.stdout.startswith("kept"), done.stderr
    assert done.stderr == ""


def test_a_run_of_bullet_train(tmp_path):
    events = []

    class Watch(bc.Callback):
        def on_start(self, step, steps):
            events.append("start")

        def on_eval(self, metrics):
            events.append(metrics["loss"])

        def on_end(self, report):
            events.append(report["ending"])

    settings = SIZES | {"seq": 16, "batch_size": 4, "tokenizer.kind": "char", "runs": str(tmp_path), "train.device": "cpu"}
    run = bc.train(text=TEXT, steps=6, eval_interval=3, log_interval=2, callbacks=[Watch()], **settings)
    assert run.ending == "completed" and run.steps == 6 and run.loss == losses(run.history)[-1]
    assert events[0] == "start" and events[-1] == "completed" and run.evaluation["exact"]
    assert pathlib.Path(run.last).exists()
    assert bc.load(run.last).text("a", 5, temperature=0) == run.model.text("a", 5, temperature=0)
    with pytest.raises(FileExistsError, match="holds a run already"):
        bc.train(text=TEXT, steps=6, **settings)
    more = bc.train(text=TEXT, resume=run.last, steps=8)
    assert more.steps == 8
    with pytest.raises(ValueError, match="did you mean"):
        bc.train(text=TEXT, stepz=6, **settings)
    with pytest.raises(ValueError, match="too short"):
        bc.train(text="a", overwrite=True, steps=6, **settings)
    stopped = bc.train(text=TEXT, steps=50, overwrite=True, callbacks=[lambda step, steps: step == 4], **settings)
    assert stopped.ending == "stopped" and stopped.steps == 4

    def broken(step, steps):
        raise LookupError("mine")

    with pytest.raises(LookupError, match="mine"):
        bc.train(text=TEXT, steps=50, overwrite=True, callbacks=[broken], **settings)


def test_progress_is_quiet_unless_asked_for(capsys):
    regression(3).fit()
    assert capsys.readouterr().err == ""
    regression(3, progress=True).fit()
    shown = capsys.readouterr().err
    assert "3/3" in shown and "loss" in shown


def test_a_trainer_may_be_asked_while_it_trains():
    asked = []
    model = net()

    def loss(model, x, y):
        with pytest.raises(RuntimeError, match="while it computes its loss"):
            _ = trainer.captured
        return squares(model, x, y)

    trainer = bc.Trainer(model, loss, Batches(X, Y, size=32), steps=200)
    other = threading.Thread(target=lambda: [asked.append(trainer.captured) for _ in range(50) if time.sleep(0.001) is None])
    other.start()
    trainer.fit()
    other.join(30)
    assert asked == [False] * 50


def test_threads_train_models_of_their_own():
    results = {}
    models = [net() for _ in range(3)]
    trainers = [regression(20, model) for model in models]
    threads = [threading.Thread(target=lambda t=t, i=i: results.__setitem__(i, t.fit()["loss"])) for i, t in enumerate(trainers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(results.values())) == 1 and len(results) == 3


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"grad_clip": -1.0}, "grad_clip"),
        ({"grad_clip": float("nan")}, "grad_clip"),
        ({"grad_clip": 0.0}, "grad_clip"),
        ({"accumulation": 0}, "accumulation"),
        ({"steps": 2.5}, "steps"),
        ({"steps": -1}, "steps"),
        ({"optimizer": "adam"}, "optimizer"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, message):
    with pytest.raises((ValueError, TypeError), match=message):
        bc.Trainer(nn.Linear(1, 1), lambda model, x: model(x).mean(), [(np.ones((1, 1), "float32"),)], **{"steps": 1} | settings)


def test_callbacks_that_come_later_are_heard():
    seen, heard = [], []

    class Late(bc.Callback):
        def on_start(self, step, steps):
            trainer.callbacks.append(lambda step, steps: seen.append(step))

        def on_log(self, logs):
            heard.append(logs["step"])

    trainer = regression(4, log_interval=2)
    trainer.callbacks.append(Late())
    trainer.callbacks.append(lambda step, steps: step == 3)
    assert trainer.fit()["ending"] == "stopped"
    assert seen == [1, 2, 3] and heard == [1, 2]


def test_a_loss_that_calls_backward_is_told():
    def loss(model, x, y):
        value = squares(model, x, y)
        value.backward()
        return value

    model = net()
    with pytest.raises(RuntimeError, match="return the loss"):
        bc.Trainer(model, loss, Batches(X, Y, size=32), steps=1).fit()
    # Outside of it everything is as before.
    squares(model, bc.asarray(X), bc.asarray(Y)).backward()
    assert model[0].weight.grad is not None


def test_sizes_of_batches_that_no_memory_has_are_told():
    tokenizer = bc.Tokenizer.train(TEXT, "char")
    for batch, sequence, exception in ((10**12, 16, MemoryError), (2**62, 16, ValueError), (-1, 16, ValueError), (2.5, 16, TypeError)):
        with pytest.raises(exception, match="batch"):
            TextBatches(TEXT, tokenizer, batch=batch, sequence=sequence).batch(0)
    with pytest.raises(ValueError, match="too short"):
        TextBatches(TEXT, tokenizer, batch=2, sequence=10**12).batch(0)
