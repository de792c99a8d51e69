"""Gradients: against known ones, and the rules of the tape."""

import threading

import numpy as np
import pytest

import bullet_core as bc


def leaf(values):
    t = bc.array(np.asarray(values, "float64"))
    t.requires_grad = True
    return t


def numeric(f, x, eps=1e-6):
    """The gradient of a scalar function by central differences."""
    grad = np.zeros_like(x)
    for i in np.ndindex(*x.shape):
        up, down = x.copy(), x.copy()
        up[i] += eps
        down[i] -= eps
        grad[i] = (f(bc.array(up)).item() - f(bc.array(down)).item()) / (2 * eps)
    return grad


@pytest.mark.parametrize(
    "f",
    [
        lambda x: (bc.softmax(x) * bc.softmax(x)).sum(),
        lambda x: bc.layernorm(x)[0].sum() + (bc.layernorm(x) * x).sum(),
        lambda x: (bc.gelu(x) + bc.gelu(x, approximate="tanh") * bc.silu(x)).mean(),
        lambda x: bc.log_softmax(x, 0).max(),
        lambda x: (x @ x.T).sum() + x[:, ::2].sum() - x[0, 1],
        lambda x: bc.cross_entropy(x, bc.array([1, 0, 2])),
        lambda x: bc.where(x > 0, x * 2, bc.exp(x)).sum(),
        lambda x: bc.concat([x, x * 3], axis=1).reshape(-1).mean() + bc.var(x),
        lambda x: bc.linear(x, bc.array(np.ones((2, 4))), activation="gelu").sum(),
        lambda x: (x**3 / (1 + x * x)).sum(),
    ],
)
def test_gradients_match_differences(f):
    values = np.random.default_rng(5).normal(size=(3, 4))
    x = leaf(values)
    f(x).backward()
    np.testing.assert_allclose(x.grad.numpy(), numeric(f, values), rtol=1e-5, atol=1e-7)


def test_gradients_add_up_and_can_be_dropped():
    x = leaf([1.0, 2.0])
    (x * x).sum().backward()
    (x * x).sum().backward()
    assert x.grad.tolist() == [4.0, 8.0]
    x.grad = None
    assert x.grad is None
    (x * 2).backward(bc.array(np.array([1.0, 10.0])))
    assert x.grad.tolist() == [2.0, 20.0]


def test_no_grad_as_block_and_decorator():
    x = leaf([1.0])
    with bc.no_grad():
        assert not (x * 2).requires_grad
        with bc.enable_grad():
            assert (x * 2).requires_grad

    @bc.no_grad()
    def double(x):
        return x * 2

    assert not double(x).requires_grad and (x * 2).requires_grad and not x.detach().requires_grad
    seen = []
    with bc.no_grad():
        thread = threading.Thread(target=lambda: seen.append(bc.is_grad_enabled()))
        thread.start()
        thread.join()
    assert seen == [True]


def test_mistakes_are_told():
    x = leaf([1.0, 2.0])
    with pytest.raises(RuntimeError, match="scalar"):
        (x * 2).backward()
    y = (x * x).sum()
    y.backward()
    with pytest.raises(RuntimeError, match="second time"):
        y.backward()
    with pytest.raises(RuntimeError, match="does not require"):
        bc.ones(1).backward()
    with pytest.raises(RuntimeError, match="floating-point"):
        bc.arange(3).requires_grad = True
    with pytest.raises(RuntimeError, match="in-place"):
        x += 1
    saved = leaf([3.0])
    z = saved * 1
    w = z * z
    z.detach().fill_(5)
    with pytest.raises(RuntimeError, match="overwritten"):
        w.backward()


def test_a_model_learns():
    """Logistic regression by hand: what a user writes first."""
    rng = np.random.default_rng(0)
    x = bc.array(rng.normal(size=(200, 3)))
    truth = bc.array(np.array([[1.0], [-2.0], [0.5]]))
    y = (x @ truth > 0).astype("float64")
    w = leaf(np.zeros((3, 1)))
    for _ in range(200):
        p = bc.sigmoid(x @ w)
        loss = -(y * bc.log(p + 1e-9) + (1 - y) * bc.log(1 - p + 1e-9)).mean()
        loss.backward()
        with bc.no_grad():
            w.detach().copy_(w.detach() - 2.0 * w.grad)
        w.grad = None
    assert loss.item() < 0.2
