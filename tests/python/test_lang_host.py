"""Functions of kernels on the host, and types that leave something open."""

from typing import Any

import numpy as np
import pytest

import bullet_core.lang as wp


def test_vectors_and_numbers():
    assert wp.dot(wp.vec3(1, 2, 3), wp.vec3(4, 5, 6)) == 32.0
    assert wp.normalize(wp.vec2(3.0, 4.0)) == wp.vec2(0.6, 0.8)
    assert wp.cross(wp.vec3d(1, 0, 0), wp.vec3d(0, 1, 0)) == wp.vec3d(0, 0, 1)
    assert wp.max(2, 3) == 3
    assert wp.clamp(2.5, 0.0, 1.0) == 1.0
    assert wp.isnan(float("nan")) is True
    assert wp.max(-float("inf"), 2.0) == 2.0
    assert wp.sin(0.5) == float(np.float32(np.sin(0.5)))
    root = wp.sqrt(np.float64(2.0))
    assert root == np.sqrt(2.0) and root.dtype == np.float64
    large = wp.max(np.uint64(2**63 + 1), np.uint64(5))
    assert large == 2**63 + 1 and large.dtype == np.uint64


def test_rotations_and_transforms():
    turn = wp.quat_from_axis_angle(wp.vec3(0.0, 1.0, 0.0), wp.pi / 2.0)
    np.testing.assert_allclose(wp.quat_rotate(turn, wp.vec3(1.0, 0.0, 0.0)), (0.0, 0.0, -1.0), atol=1e-6)
    np.testing.assert_allclose(turn * turn, (0.0, 1.0, 0.0, 0.0), atol=1e-6)
    frame = wp.transform(wp.vec3(1.0, 2.0, 3.0), turn)
    np.testing.assert_allclose(wp.transform_point(frame, wp.vec3(1.0, 0.0, 0.0)), (1.0, 2.0, 2.0), atol=1e-6)
    back = frame * wp.transform_inverse(frame)
    np.testing.assert_allclose(back, wp.transform_identity(), atol=1e-6)
    np.testing.assert_allclose(wp.transform_from_matrix(wp.transform_to_matrix(frame)), frame, atol=1e-6)
    assert wp.mat22(1, 2, 3, 4) * wp.vec2(1, 1) == wp.vec2(3, 7)
    assert wp.identity(n=2, dtype=wp.float64) == wp.mat22d(1, 0, 0, 1)


def test_decompositions_are_numpys():
    a = np.random.default_rng(0).normal(size=(3, 3))
    u, sigma, v = wp.svd3(wp.mat33d(*a.ravel()))
    np.testing.assert_allclose(np.abs(sigma), np.linalg.svd(a)[1], rtol=1e-13)
    np.testing.assert_allclose(u.numpy() * sigma.numpy() @ v.numpy().T, a, atol=1e-14)
    q, d = wp.eig3(wp.mat33d(*(a + a.T).ravel()))
    np.testing.assert_allclose(sorted(d), np.linalg.eigvalsh(a + a.T), atol=1e-13)
    np.testing.assert_allclose(q.numpy() * d.numpy() @ q.numpy().T, a + a.T, atol=1e-13)
    q, r = wp.qr3(wp.mat33(*a.ravel()))
    np.testing.assert_allclose(q.numpy() @ r.numpy(), a, atol=1e-6)


def test_random_states_are_numbers():
    state = wp.rand_init(42, 7)
    assert state.dtype == np.uint32

    @wp.kernel
    def draw(out: wp.array(dtype=float)):
        state = wp.rand_init(42, 7)
        out[0] = wp.randf(state)

    out = wp.zeros(1, dtype=float)
    wp.launch(draw, dim=1, inputs=[out])
    assert out.list() == [wp.randf(state)]


@wp.func
def bent(v: wp.types.vector(length=Any, dtype=wp.Float), limit: wp.Float = 0.1):
    return wp.min(wp.length(v), limit) * v[0]


def test_functions_of_ones_own():
    assert bent(wp.vec2(3.0, 4.0), 2.0) == 6.0
    assert bent(wp.vec4d(0.5, 0, 0, 0)) == pytest.approx(0.05)


def test_what_cannot_be_is_an_error():
    assert not hasattr(wp.vec3(1, 2, 3), "w") and getattr(wp.vec2(), "z", None) is None
    for call, message in [
        (lambda: wp.normalize(1.0), "`normalize` does not take a float"),
        (lambda: wp.normalize(), "`normalize` needs arguments"),
        (lambda: wp.dot(wp.vec3(), wp.vec2()), "`dot` does not take vec3 of float32, vec2 of float32"),
        (lambda: wp.svd3(wp.mat22()), "expected a 3x3 matrix of floats, found mat22 of float32"),
        (lambda: wp.length([1.0, 2.0]), "takes numbers, vectors, matrices, quaternions and transforms, got list"),
        (lambda: wp.tid(), "is called in kernels"),
        (lambda: wp.atomic_add(1, 2, 3), "is called in kernels"),
        (lambda: wp.vec3() * wp.vec2(), "cannot be applied to vec3 of float32 and vec2 of float32"),
        (lambda: wp.Float(1.0), "stands for several types"),
        (lambda: wp.vec3i(1, 2, 3) * 2.5, "not converted unasked"),
        (lambda: wp.vec3() + wp.vec3d(), "not converted unasked"),
        (lambda: wp.types.matrix((2, 2), int)() @ wp.vec2(), "not converted unasked"),
    ]:
        with pytest.raises(TypeError, match=message.replace("(", r"\(")):
            call()
    with pytest.raises(ArithmeticError):
        wp.floordiv(1, 0)


def test_open_types_in_kernels():
    @wp.kernel
    def run(x: wp.array(dtype=wp.vec3d), y: wp.array(dtype=wp.float64), z: wp.array(dtype=wp.vec2), w: wp.array(dtype=float)):
        i = wp.tid()
        y[i] = bent(x[i])
        w[i] = bent(z[i], 5.0)

    x = wp.array([[3.0, 0, 4]], dtype=wp.vec3d)
    z = wp.array([[3.0, 4]], dtype=wp.vec2)
    y, w = wp.zeros(1, dtype=wp.float64), wp.zeros(1, dtype=float)
    wp.launch(run, dim=1, inputs=[x, y, z, w])
    # A number of the source has the digits of what stands beside it.
    assert y.list() == [0.1 * 3.0]
    assert w.list() == [15.0]


def test_open_types_of_kernels_are_those_of_their_arguments():
    @wp.kernel
    def scale(x: wp.array(dtype=Any), by: wp.Scalar):
        i = wp.tid()
        x[i] = x[i] * by

    x = wp.array([1.0, 2.0], dtype=float)
    wp.launch(scale, dim=2, inputs=[x, 3.0])
    assert x.list() == [3.0, 6.0]
    n = wp.array([1, 2], dtype=int)
    wp.launch(scale, dim=2, inputs=[n, 3])
    assert n.list() == [3, 6]
    with pytest.raises(TypeError, match="parameter `by` of kernel `scale` is a Scalar, got vec3f"):
        wp.launch(scale, dim=2, inputs=[n, wp.vec3()])


@wp.kernel
def polar(a: wp.array(dtype=wp.mat33d), r: wp.array(dtype=wp.mat33d)):
    i = wp.tid()
    u, _s, v = wp.svd3(a[i])
    r[i] = u * wp.transpose(v)


def test_a_decomposition_has_gradients():
    rng = np.random.default_rng(1)
    data, seed = rng.normal(size=(4, 3, 3)), rng.normal(size=(4, 3, 3))
    a = wp.array(data, dtype=wp.mat33d, requires_grad=True)
    r = wp.zeros(4, dtype=wp.mat33d, requires_grad=True)
    with wp.Tape() as tape:
        wp.launch(polar, dim=4, inputs=[a, r])
    tape.backward(grads={r: wp.array(seed, dtype=wp.mat33d)})

    def loss(x):
        out = wp.zeros(4, dtype=wp.mat33d)
        wp.launch(polar, dim=4, inputs=[wp.array(x, dtype=wp.mat33d), out])
        return (out.numpy() * seed).sum()

    h, found = 1e-5, a.grad.numpy()
    for at in np.ndindex(data.shape):
        moved = np.zeros_like(data)
        moved[at] = h
        assert found[at] == pytest.approx((loss(data + moved) - loss(data - moved)) / (2 * h), rel=1e-5, abs=1e-7)
