"""Functions with a backward of one's own, and `gradcheck`."""

import gc
import weakref

import numpy as np
import pytest

import bullet_core as bc
from bullet_core.autograd import Function, GradcheckError, gradcheck


def leaf(values):
    return bc.Tensor(np.asarray(values, "float64"), requires_grad=True)


class Square(Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x * x

    @staticmethod
    def backward(ctx, grad):
        (x,) = ctx.saved_tensors
        return 2 * x * grad


class Both(Function):
    """Product and sum, with a factor that is no tensor."""

    @staticmethod
    def forward(ctx, x, y, factor):
        ctx.save_for_backward(x, y)
        ctx.factor = factor
        return x * y * factor, x + y

    @staticmethod
    def backward(ctx, by_product, by_sum):
        x, y = ctx.saved_tensors
        assert ctx.needs_input_grad == (True, False, False)
        return by_product * y * ctx.factor + by_sum, None, None


def test_a_function_of_ones_own_is_one_step_of_the_tape():
    x = leaf([1.0, -2.0, 3.0])
    (Square.apply(x * 2) * bc.array([1.0, 10.0, 100.0], dtype="float64")).sum().backward()
    assert x.grad.tolist() == [8.0, -160.0, 2400.0]
    x.grad = None
    y = bc.array([2.0, 3.0, 4.0], dtype="float64")
    product, total = Both.apply(x, y, 5.0)
    assert product.requires_grad and total.requires_grad
    total.sum().backward()
    assert x.grad.tolist() == [1.0, 1.0, 1.0]
    assert gradcheck(lambda x: Both.apply(x, y, 5.0), x)


def test_nothing_is_recorded_where_nothing_is_asked_for():
    assert not Square.apply(bc.ones(3)).requires_grad
    with bc.no_grad():
        assert not Square.apply(leaf([1.0])).requires_grad


def test_results_that_are_not_floating_point_stay_off_the_tape():
    class WithIndex(Function):
        @staticmethod
        def forward(ctx, x):
            return x * 1, bc.arange(3)

        @staticmethod
        def backward(ctx, grad, _):
            return grad

    value, index = WithIndex.apply(leaf([1.0]))
    assert value.requires_grad and not index.requires_grad


def function_giving(gradient):
    class Wrong(Function):
        @staticmethod
        def forward(ctx, x):
            return x * 1

        @staticmethod
        def backward(ctx, grad):
            return gradient(grad)

    return Wrong


@pytest.mark.parametrize(
    ("gradient", "exception", "message"),
    [
        (lambda g: (g, g), ValueError, "2 gradients, expected one for each of the 1"),
        (lambda g: g[:1], RuntimeError, r"shape \(1,\) for input 0"),
        (lambda g: g.to("float32"), RuntimeError, "a f32 gradient"),
        (lambda g: 3.0, TypeError, "expected a Tensor or None"),
        (lambda g: 1 / 0, ZeroDivisionError, "division by zero"),
        (lambda g: {}["missing"], KeyError, "missing"),
    ],
)
def test_what_backward_gives_is_checked_and_its_exceptions_come_out(gradient, exception, message):
    x = leaf([1.0, 2.0])
    with pytest.raises(exception, match=message):
        function_giving(gradient).apply(x).sum().backward()
    # The next one is not told of it.
    (x * 2).sum().backward()


def test_no_gradient_is_zero():
    x = leaf([1.0, 2.0])
    (function_giving(lambda g: None).apply(x) + x * 3).sum().backward()
    assert x.grad.tolist() == [3.0, 3.0]


def test_saved_tensors_that_were_overwritten_are_an_error():
    x = leaf([1.0, 2.0])
    inner = x * 2
    y = Square.apply(inner)
    inner.detach().fill_(0)
    with pytest.raises(RuntimeError, match="overwritten"):
        y.sum().backward()
    with pytest.raises(TypeError, match="save_for_backward takes tensors"):
        bc.autograd.Context(()).save_for_backward(3)


def test_backward_is_called_once_and_frees_what_was_saved():
    x = leaf([1.0])
    y = Square.apply(x)
    y.backward()
    with pytest.raises(RuntimeError, match="second time"):
        y.backward()
    kept = weakref.ref(leaf([0.0]))
    assert kept() is None
    gc.collect()


def test_gradcheck_finds_what_is_wrong():
    x, y = leaf(np.random.default_rng(0).normal(size=(2, 3))), leaf([[1.0], [2.0]])
    assert gradcheck(lambda x, y: (bc.tanh(x) * y, bc.exp(x).sum()), (x, y))
    wrong = function_giving(lambda g: g * 2)
    with pytest.raises(GradcheckError, match="element 0 of result 0 by element 0 of input 0 is 2, but differences say 1"):
        gradcheck(wrong.apply, x)
    assert not gradcheck(wrong.apply, x, raise_exception=False)
    with pytest.raises(ValueError, match="float64"):
        gradcheck(Square.apply, bc.Tensor([1.0], requires_grad=True))
    with pytest.raises(ValueError, match="no input requires"):
        gradcheck(Square.apply, bc.ones(2))
