"""Optimizers against their formulas in NumPy, groups, state, and rules written in Python."""

import copy
import pickle

import numpy as np
import pytest

import bullet_core as bc
from bullet_core import nn, optim


def net(seed=0):
    nn.seed(seed)
    return nn.Sequential(nn.Linear(3, 8), bc.tanh, nn.Linear(8, 1))


X = np.random.default_rng(0).normal(size=(32, 3)).astype("float32")
Y = (X @ np.array([[1.0], [-2.0], [0.5]])).astype("float32")


def loss_of(model):
    return ((model(bc.asarray(X)) - bc.asarray(Y)) ** 2).mean()


def steps(model, opt, count):
    losses = []
    for _ in range(count):
        loss = loss_of(model)
        loss.backward()
        opt.step()
        opt.zero_grad()
        losses.append(loss.item())
    return losses


def adam(p, g, state, lr, betas=(0.9, 0.999), eps=1e-8, decay=0.0, decoupled=False):
    state.setdefault("m", 0.0), state.setdefault("v", 0.0), state.setdefault("t", 0)
    state["t"] += 1
    if decoupled:
        p = p * (1 - lr * decay)
    else:
        g = g + decay * p
    state["m"] = betas[0] * state["m"] + (1 - betas[0]) * g
    state["v"] = betas[1] * state["v"] + (1 - betas[1]) * g * g
    m, v = state["m"] / (1 - betas[0] ** state["t"]), state["v"] / (1 - betas[1] ** state["t"])
    return p - lr * m / (np.sqrt(v) + eps)


def sgd(p, g, state, lr, momentum=0.0, nesterov=False, decay=0.0):
    g = g + decay * p
    if momentum:
        state["b"] = g if "b" not in state else momentum * state["b"] + g
        g = g + momentum * state["b"] if nesterov else state["b"]
    return p - lr * g


@pytest.mark.parametrize(
    ("make", "rule"),
    [
        (lambda p: optim.SGD(p, 0.1), lambda *a: sgd(*a, 0.1)),
        (lambda p: optim.SGD(p, 0.1, momentum=0.9, weight_decay=0.1), lambda *a: sgd(*a, 0.1, 0.9, decay=0.1)),
        (lambda p: optim.SGD(p, 0.1, momentum=0.9, nesterov=True), lambda *a: sgd(*a, 0.1, 0.9, True)),
        (lambda p: optim.Adam(p, 0.1, weight_decay=0.1), lambda *a: adam(*a, 0.1, decay=0.1)),
        (lambda p: optim.AdamW(p, 0.1, betas=(0.8, 0.9)), lambda *a: adam(*a, 0.1, (0.8, 0.9), decay=0.01, decoupled=True)),
    ],
)
def test_updates_are_the_formulas(make, rule):
    rng = np.random.default_rng(3)
    values = [rng.normal(size=(4, 3)), rng.normal(size=(5,))]
    params = [nn.Parameter(v.astype("float64")) for v in values]
    opt, states = make(params), [{}, {}]
    for _ in range(6):
        grads = [rng.normal(size=v.shape) for v in values]
        for i, (param, grad) in enumerate(zip(params, grads, strict=True)):
            param.grad = bc.asarray(grad)
            values[i] = rule(values[i], grad, states[i])
        opt.step()
    for param, want in zip(params, values, strict=True):
        np.testing.assert_allclose(param.detach().numpy(), want, rtol=1e-5, atol=1e-6)
    assert opt.steps == 6


def test_groups_have_options_of_their_own():
    model = net()
    opt = optim.SGD(
        [{"params": model[0], "lr": 0.0}, {"params": model[2].named_parameters(), "weight_decay": 0.5}], lr=0.1
    )
    before = {name: value.copy() for name, value in model.state_dict().items()}
    loss_of(model).backward()
    opt.step()
    assert model[0].weight.tolist() == before["0.weight"].tolist()
    want = before["2.weight"].numpy() - 0.1 * (model[2].weight.grad.numpy() + 0.5 * before["2.weight"].numpy())
    np.testing.assert_allclose(model[2].weight.detach().numpy(), want, rtol=1e-5)
    opt.param_groups[0]["lr"] = 0.1
    opt.step()
    assert model[0].weight.tolist() != before["0.weight"].tolist()
    opt.lr = 0.2
    assert [group["lr"] for group in opt.param_groups] == pytest.approx([0.2, 0.2])


@pytest.mark.parametrize("kind", [optim.AdamW, optim.SGD])
def test_state_goes_on_bit_for_bit(kind, tmp_path):
    options = {"lr": 0.02, **({"momentum": 0.9} if kind is optim.SGD else {})}
    model = net()
    opt = kind(model, **options)
    steps(model, opt, 5)
    bc.save_tensors(tmp_path / "opt.bullet", opt.state_dict()["tensors"])
    weights = {name: value.copy() for name, value in model.state_dict().items()}
    wanted = steps(model, opt, 5)
    other = net(1)
    other.load_state_dict(weights)
    again = kind(other, **options)
    state = {"tensors": bc.load_tensors(tmp_path / "opt.bullet"), "groups": opt.state_dict()["groups"]}
    again.load_state_dict(state)
    assert again.steps == 5 and steps(other, again, 5) == wanted
    with pytest.raises(ValueError, match="other parameters"):
        kind(nn.Linear(2, 2), **options).load_state_dict(state)


def test_moving_freezing_and_schedules_reach_the_optimizer():
    model = net()
    opt = optim.AdamW(model, lr=0.02)
    first = steps(model, opt, 3)
    model.to("float64")
    later = [
        loss.item()
        for _ in range(20)
        for loss in [((model(bc.asarray(X).astype("float64")) - bc.asarray(Y).astype("float64")) ** 2).mean()]
        if (loss.backward(), opt.step(), opt.zero_grad())
    ]
    assert later[-1] < first[-1] and opt.steps == 23
    model = net()
    opt = optim.AdamW(model, lr=0.02)
    model[0].requires_grad_(False)
    frozen, moving = model[0].weight.copy(), model[2].weight.copy()
    steps(model, opt, 2)
    assert model[0].weight.tolist() == frozen.tolist() and model[2].weight.tolist() != moving.tolist()
    model[0].requires_grad_(True)
    steps(model, opt, 2)
    assert model[0].weight.tolist() != frozen.tolist()
    schedule = optim.cosine(1.0, 110, warmup=9, floor=0.1)
    assert schedule(0) == pytest.approx(0.1) and schedule(9) == 1.0 and schedule(200) == pytest.approx(0.1)
    assert optim.linear(1.0, 10)(5) == pytest.approx(0.5) and optim.steps(1.0, 5, gamma=0.5)(10) == 0.25
    assert optim.constant(0.3, warmup=2)(7) == 0.3


class Lion(optim.Optimizer):
    """Chen et al. 2023."""

    def __init__(self, params, lr=1e-3, betas=(0.9, 0.99)):
        super().__init__(params, lr, betas=betas)

    def update(self, param, grad, state, group):
        b1, b2 = group["betas"]
        mean = state.get("mean", bc.zeros(param.shape))
        param -= group["lr"] * bc.sign(mean * b1 + grad * (1 - b1))
        state["mean"] = mean * b2 + grad * (1 - b2)
        state["count"] = state.get("count", 0) + 1


def test_a_rule_of_ones_own_trains_and_is_saved():
    model = net()
    opt = Lion(model, lr=0.01)
    losses = steps(model, opt, 60)
    assert losses[-1] < losses[0] / 4 and opt.steps == 60
    state = opt.state_dict()
    assert "optim.mean.0.weight" in state["tensors"] and opt.state["0.weight"]["count"] == 60
    other = Lion(model, lr=0.01)
    other.load_state_dict(state)
    assert other.steps == 60 and other.state["2.bias"]["count"] == 60
    assert other.state["0.weight"]["mean"].tolist() == opt.state["0.weight"]["mean"].tolist()


def test_clipping():
    model = net()
    loss_of(model).backward()
    grads = np.concatenate([p.grad.numpy().ravel() for p in model.parameters()])
    norm = nn.clip_grad_norm(model, 0.1)
    np.testing.assert_allclose(norm.item(), np.linalg.norm(grads), rtol=1e-5)
    clipped = np.concatenate([p.grad.numpy().ravel() for p in model.parameters()])
    np.testing.assert_allclose(clipped, grads * 0.1 / np.linalg.norm(grads), rtol=1e-4)


def test_mistakes_are_told():
    model = net()
    with pytest.raises(ValueError, match="no parameter has a gradient"):
        optim.AdamW(model).step()
    with pytest.raises(ValueError, match="no parameter has a gradient"):
        Lion(model).step()
    with pytest.raises(ValueError, match="needs parameters"):
        optim.SGD([])
    with pytest.raises(TypeError, match="no leaf"):
        optim.SGD([model[0].weight * 2])
    with pytest.raises(ValueError, match="beta1"):
        optim.AdamW(model, betas=(1.0, 0.9))
    with pytest.raises(ValueError, match="two groups"):
        optim.SGD([{"params": model}, {"params": model}])
    with pytest.raises(NotImplementedError, match="update"):
        loss_of(model).backward()
        optim.Optimizer(model).step()
    with pytest.raises(ValueError, match="Nesterov"):
        optim.SGD(model, nesterov=True)
    with pytest.raises(ValueError, match="decay"):
        bc._core._nn._Schedule(1.0, decay="none")


@pytest.mark.parametrize("way", ["pickle", "deepcopy"])
@pytest.mark.parametrize("make", [optim.SGD, optim.AdamW, lambda m: optim.SGD(m, momentum=0.9), lambda m: Lion(m, lr=1e-2)])
def test_an_optimizer_and_its_model_are_copied_together(way, make):
    model = net()
    opt = make(model)
    steps(model, opt, 3)
    twin, its = pickle.loads(pickle.dumps((model, opt))) if way == "pickle" else copy.deepcopy((model, opt))
    assert its.steps == 3 and its.param_groups[0]["params"][0] is twin[0].weight
    assert steps(twin, its, 4) == steps(model, opt, 4)
    # They have nothing in common any more.
    steps(twin, its, 1)
    assert its.steps == 8 and opt.steps == 7


@pytest.mark.parametrize(
    "schedule",
    [
        optim.constant(0.1, warmup=2),
        optim.cosine(1e-3, 50, warmup=5, floor=1e-4),
        optim.linear(1e-3, 30),
        optim.steps(0.1, 7, gamma=0.5, floor=1e-3),
    ],
)
def test_schedules_are_copied(schedule):
    for twin in (pickle.loads(pickle.dumps(schedule)), copy.deepcopy(schedule), copy.copy(schedule)):
        assert repr(twin) == repr(schedule) and all(twin(i) == schedule(i) for i in range(60))
    with pytest.raises(ValueError, match="step = -1: expected a whole number of at least 0"):
        schedule(-1)
