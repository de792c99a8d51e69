"""Gradients through launches."""

import numpy as np
import pytest

import bullet_core as bc
import bullet_core.lang as wp

ON_CPU = pytest.mark.skipif(str(bc.zeros(1).device) != "cpu", reason="a GPU does not check indices and assertions")


@wp.kernel
def square(x: wp.array(dtype=float), y: wp.array(dtype=float)):
    i = wp.tid()
    y[i] = x[i] * x[i]


@wp.kernel
def total(x: wp.array(dtype=float), out: wp.array(dtype=float)):
    i = wp.tid()
    out[0] += x[i]


@wp.kernel
def scale_in_place(x: wp.array(dtype=float), s: wp.array(dtype=float)):
    i = wp.tid()
    x[i] = x[i] * s[0]


@wp.kernel
def iterate(x: wp.array(dtype=wp.float64), n: int, out: wp.array(dtype=wp.float64)):
    i = wp.tid()
    y = x[i]
    for k in range(n):
        if y > wp.float64(2.0):
            y = y * wp.float64(0.5)
        else:
            y = wp.sin(y) + y * y
    out[i] = y


def run(*launches):
    with wp.Tape() as tape:
        for kernel, dim, args in launches:
            wp.launch(kernel, dim, args)
    return tape


def test_gradients_flow_through_arrays_that_did_not_ask():
    x, y, loss = wp.array([1.0, 2.0, 3.0], dtype=float, requires_grad=True), wp.zeros(3), wp.zeros(1)
    tape = run((square, 3, [x, y]), (total, 3, [y, loss]))
    assert len(tape) == 2 and loss.list() == [14.0]
    tape.backward(loss)
    assert x.grad.list() == [2.0, 4.0, 6.0] and y.grad is None
    # Gradients add up, until they are set to 0.
    tape.backward(loss)
    assert x.grad.list() == [4.0, 8.0, 12.0]
    tape.zero()
    assert x.grad.list() == [0.0] * 3


def test_what_lies_between_has_the_gradient_of_what_it_holds_in_the_end():
    x = wp.array([1.0, 2.0], dtype=float, requires_grad=True)
    y, loss = wp.zeros(2, requires_grad=True), wp.zeros(1, requires_grad=True)
    run((square, 2, [x, y]), (square, 2, [y, y2 := wp.zeros(2, requires_grad=True)]), (total, 2, [y2, loss])).backward(loss)
    assert (loss.grad.list(), y2.grad.list(), y.grad.list(), x.grad.list()) == ([1.0], [1.0, 1.0], [2.0, 8.0], [4.0, 32.0])


def test_arrays_that_are_overwritten_are_kept():
    """x -> x s -> x s^2, in place, then the sum of squares."""
    x, s = wp.array([1.0, -2.0], dtype=float, requires_grad=True), wp.array([3.0], dtype=float, requires_grad=True)
    y, loss = wp.clone(x, requires_grad=False), wp.zeros(1)

    @wp.kernel
    def copied(a: wp.array(dtype=float), b: wp.array(dtype=float)):
        b[wp.tid()] = a[wp.tid()]

    tape = run(
        (copied, 2, [x, y]), (scale_in_place, 2, [y, s]), (scale_in_place, 2, [y, s]),
        (square, 2, [y, z := wp.zeros(2)]), (total, 2, [z, loss]),
    )  # fmt: skip
    # What a launch changes later, and nothing of the tape reads again, does no harm.
    with tape:
        wp.launch(copied, 1, [s, y])
    tape.backward(loss)
    assert loss.list() == [5 * 81.0]
    np.testing.assert_allclose(x.grad.numpy(), [2 * 81, -4 * 81])
    np.testing.assert_allclose(s.grad.numpy(), [4 * 27 * 5])


def test_what_is_changed_behind_the_tape_is_noticed():
    x, y, loss = wp.array([1.0, 2.0], dtype=float, requires_grad=True), wp.zeros(2), wp.zeros(1)
    tape = run((square, 2, [x, y]), (total, 2, [y, loss]))
    x.fill_(7.0)
    with pytest.raises(RuntimeError, match="`x` of `square` was changed after the launch"):
        tape.backward(loss)
    # Where only the shape is needed, it may change.
    y2, loss2 = wp.zeros(2, requires_grad=True), wp.zeros(1)
    tape = run((total, 2, [y2, loss2]))
    y2.fill_(3.0)
    tape.backward(loss2)
    assert y2.grad.list() == [1.0, 1.0]


@pytest.mark.parametrize(
    "change",
    [
        lambda y: y.fill_(5.0),
        lambda y: y.assign([1.0, 2.0]),
        lambda y: y.tensor.copy_(bc.ones(2)),
        lambda y: wp.launch(square, 2, [wp.ones(2), y], record_tape=False),
    ],
    ids=["fill_", "assign", "of the tensor", "off the tape"],
)
def test_what_is_changed_between_launches_is_noticed(change):
    """Also where no value is needed: the gradient does not flow on through what was overwritten."""
    x, y = wp.array([1.0, 2.0], dtype=float, requires_grad=True), wp.zeros(2)
    with wp.Tape(), pytest.raises(RuntimeError, match="`x` of `total` was changed since the last launch on the tape"):
        wp.launch(square, 2, [x, y])
        change(y)
        wp.launch(total, 2, [y, wp.zeros(1)])


@ON_CPU
def test_a_launch_that_fails_is_noticed():
    @wp.kernel
    def reach(y: wp.array(dtype=float)):
        i = wp.tid()
        y[2 * i] = 5.0

    x, y = wp.array([1.0, 2.0], dtype=float, requires_grad=True), wp.zeros(2)
    with wp.Tape():
        wp.launch(square, 2, [x, y])
        with pytest.raises(IndexError):
            wp.launch(reach, 2, [y])
        with pytest.raises(RuntimeError, match="was changed since"):
            wp.launch(total, 2, [y, wp.zeros(1)])


@ON_CPU
def test_arrays_of_numpy_are_copied_where_they_are_read_and_not_written():
    @wp.kernel
    def multiply(a: wp.array(dtype=float), b: wp.array(dtype=float), out: wp.array(dtype=float)):
        i = wp.tid()
        out[i] = a[i] * b[i]

    x, factors, out = wp.ones(2, requires_grad=True), np.array([2, 3], np.float32), wp.zeros(2)
    tape = run((multiply, 2, [x, factors, out]))
    factors *= 100
    tape.backward(grads={out: [1.0, 1.0]})
    assert x.grad.list() == [2.0, 3.0]
    with pytest.raises(RuntimeError, match="through which a tape cannot follow gradients"):
        run((square, 2, [x, np.zeros(2, np.float32)]))
    with pytest.raises(RuntimeError, match="shares memory"):
        run((multiply, 2, [x, x.numpy(), x]))


def test_slices_share_the_gradient():
    x = wp.array(np.arange(6.0), dtype=float, requires_grad=True)
    loss = wp.zeros(1)
    tape = run((square, 2, [x[1:3], y := wp.zeros(2)]), (total, 2, [y, loss]), (total, 3, [x[::2], loss]))
    tape.backward(loss)
    assert x.grad.list() == [1.0, 2.0, 5.0, 0.0, 1.0, 0.0]
    assert x[1:3].grad.list() == [2.0, 5.0]


def test_one_array_may_be_two_arguments():
    @wp.kernel
    def multiply(a: wp.array(dtype=float), b: wp.array(dtype=float), out: wp.array(dtype=float)):
        i = wp.tid()
        out[i] = a[i] * b[i]

    x = wp.array([2.0, 3.0], dtype=float, requires_grad=True)
    run((multiply, 2, [x, x, y := wp.zeros(2)]), (total, 2, [y, loss := wp.zeros(1)])).backward(loss)
    assert x.grad.list() == [4.0, 6.0]
    z = wp.array([2.0, 3.0], dtype=float, requires_grad=True)
    with pytest.raises(RuntimeError, match="`multiply` writes `out`, which shares memory with `a`"):
        run((multiply, 2, [z, z, z]))
    assert z.list() == [2.0, 3.0]


def test_vectors_and_seeds():
    @wp.kernel
    def turn(v: wp.array(dtype=wp.vec3), m: wp.array(dtype=wp.mat33), out: wp.array(dtype=wp.vec3)):
        i = wp.tid()
        out[i] = m[0] @ v[i]

    rng = np.random.default_rng(3)
    v, m, g = rng.normal(size=(4, 3)), rng.normal(size=(1, 3, 3)), rng.normal(size=(4, 3)).astype(np.float32)
    v = wp.array(v, dtype=wp.vec3, requires_grad=True)
    m = wp.array(m, dtype=wp.mat33, requires_grad=True)
    out = wp.zeros(4, dtype=wp.vec3)
    tape = run((turn, 4, [v, m, out]))
    tape.backward(grads={out: g})
    np.testing.assert_allclose(v.grad.numpy(), g @ m.numpy()[0], rtol=1e-5)
    np.testing.assert_allclose(m.grad.numpy()[0], np.einsum("ni,nj->ij", g, v.numpy()), rtol=1e-5)


@pytest.mark.parametrize("n", [0, 1, 7, 40])
def test_loops_against_finite_differences(n):
    start = np.linspace(-1.0, 3.1, 9)

    def value(x):
        out = wp.zeros(9, dtype=wp.float64)
        wp.launch(iterate, 9, [wp.array(x), n, out])
        return out.numpy().copy()

    x, out = wp.array(start, requires_grad=True), wp.zeros(9, dtype=wp.float64)
    run((iterate, 9, [x, n, out])).backward(grads={out: np.ones(9)})
    h = 1e-7
    expected = (value(start + h) - value(start - h)) / (2 * h)
    np.testing.assert_allclose(x.grad.numpy(), expected, rtol=1e-5 if n < 10 else 1e-3)


@wp.kernel
def long_loop(x: wp.array(dtype=wp.float64), out: wp.array(dtype=wp.float64)):
    i = wp.tid()
    y = x[i]
    for k in range(3000000):
        y = y + wp.float64(1e-6) * wp.cos(y)
    out[i] = y


def test_long_loops_are_cut_by_checkpoints():
    """The whole tape would be 24 MB a thread."""
    x, out = wp.array([0.3], dtype=wp.float64, requires_grad=True), wp.zeros(1, dtype=wp.float64)
    run((long_loop, 1, [x, out])).backward(out)
    # The flow of y' = cos(y): its derivative is cos(y) in the end by cos(y) at first.
    np.testing.assert_allclose(x.grad.numpy(), np.cos(out.numpy()) / np.cos(0.3), rtol=1e-4)


def test_a_training_loop_learns():
    """Fits a line by gradient descent: what a user of differentiable kernels does first."""

    @wp.kernel
    def residuals(x: wp.array(dtype=float), y: wp.array(dtype=float), w: wp.array(dtype=float), loss: wp.array(dtype=float)):
        i = wp.tid()
        r = w[0] * x[i] + w[1] - y[i]
        wp.atomic_add(loss, 0, r * r / float(x.shape[0]))

    data = np.linspace(-1, 1, 64).astype(np.float32)
    x, y = wp.array(data), wp.array(3 * data - 0.5)
    w = wp.zeros(2, requires_grad=True)
    for _ in range(100):
        loss = wp.zeros(1)
        tape = run((residuals, 64, [x, y, w, loss]))
        tape.backward(loss)
        with bc.no_grad():
            w.assign(w.numpy() - 0.3 * w.grad.numpy())
        tape.zero()
    np.testing.assert_allclose(w.numpy(), [3, -0.5], atol=1e-3)


@wp.struct
class Point:
    tag: int
    at: wp.vec2
    weight: float


@wp.kernel
def pull(p: wp.array(dtype=Point), out: wp.array(dtype=float)):
    i = wp.tid()
    p[i].at = p[i].at * p[i].weight
    wp.atomic_add(out, 0, wp.dot(p[i].at, p[i].at))


def test_arrays_of_structs_have_gradients_in_their_fields():
    data = np.zeros(3, Point.numpy_dtype())
    data["at"], data["weight"] = [[1, 2], [3, 4], [5, 6]], [1, 2, 3]
    p, loss = wp.array(data, dtype=Point, requires_grad=True), wp.zeros(1)
    before = wp.zeros(3, dtype=Point, requires_grad=True)
    before.assign(p)
    assert before.list() == p.list()

    @wp.kernel
    def copied(a: wp.array(dtype=Point), b: wp.array(dtype=Point)):
        b[wp.tid()] = a[wp.tid()]

    between = wp.zeros(3, dtype=Point)
    run((copied, 3, [p, between]), (pull, 3, [between, loss])).backward(loss)
    gradient = p.grad.numpy()
    at, weight = data["at"], data["weight"][:, None]
    np.testing.assert_allclose(gradient["at"], 2 * at * weight**2)
    np.testing.assert_allclose(gradient["weight"], (2 * weight * at**2).sum(axis=1))


@wp.func
def clipped(x: float):
    return wp.min(x, 1.0)


@wp.func_grad(clipped)
def clipped_gradient(x: float, result: float):
    wp.adjoint[x] += 2.0 * result


@wp.kernel
def uses_clipped(x: wp.array(dtype=float), y: wp.array(dtype=float)):
    i = wp.tid()
    y[i] = clipped(x[i]) + wp.grad(clipped)(x[i])


def test_gradients_of_ones_own():
    x, y = wp.array([0.5, 3.0], dtype=float, requires_grad=True), wp.zeros(2)
    run((uses_clipped, 2, [x, y])).backward(grads={y: [1.0, 10.0]})
    assert (y.list(), x.grad.list()) == ([2.5, 3.0], [2.0, 20.0])


def test_wrong_uses_are_refused():
    x = wp.ones(3, requires_grad=True)
    with pytest.raises(ValueError, match="the loss is an array of one number"):
        wp.Tape().backward(x)
    with pytest.raises(TypeError, match="the loss is an array"):
        wp.Tape().backward(1.0)
    with pytest.raises(ValueError, match="takes a loss"):
        wp.Tape().backward()
    with pytest.raises(ValueError, match="has a gradient like it"):
        wp.Tape().backward(grads={x: np.ones(2)})
    with wp.Tape(), pytest.raises(RuntimeError, match="tapes do not nest"), wp.Tape():
        pass

    @wp.kernel
    def largest(a: wp.array(dtype=float), out: wp.array(dtype=float)):
        wp.atomic_max(out, 0, a[wp.tid()])

    out = wp.zeros(1)
    with pytest.raises(wp.CompileError, match="atomic"):
        run((largest, 3, [x, out]))
    assert out.list() == [0.0]
    with wp.Tape() as tape:
        wp.launch(largest, 3, [x, out], record_tape=False)
    assert len(tape) == 0 and out.list() == [1.0]
