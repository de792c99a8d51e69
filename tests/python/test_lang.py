"""Kernels written in Python: what the names in them mean, and what a launch takes."""

import math
import threading
from typing import Any

import numpy as np
import pytest

import bullet_core as bc
import bullet_core.lang as wp

ON_CPU = pytest.mark.skipif(str(bc.zeros(1).device) != "cpu", reason="NumPy's arrays are launched on the CPU")
from bullet_core.lang import vec2

COUNT = 3
OFFSET = np.float64(0.5)
GRAVITY = wp.vec3(0.0, -9.81, 0.0)
vec5 = wp.types.vector(length=5, dtype=wp.float64)


class settings:
    scale = 2.0

    class inner:
        shift = 100


@wp.func
def spring(x: float, k: float):
    return -k * x


@wp.func
def twice(x: int):
    return 2 * x


@wp.func
def twice(x: float):  # noqa: F811  # An overload.
    return 2.0 * x + 0.25


@wp.kernel
def uses_names(x: wp.array(dtype=float), y: wp.array(dtype=wp.float64), n: int):
    i = wp.tid()
    x[i] = spring(x[i], settings.scale) + float(COUNT + n) + math.pi + float(settings.inner.shift)
    y[i] = OFFSET + wp.float64(math.floor(1.5)) + wp.static(float(len("four")) * 0.25)


def test_names_mean_what_python_says():
    x, y = np.array([1, 2, 3], np.float32), np.zeros(3)
    wp.launch(uses_names, dim=3, inputs=[x, y, 4])
    np.testing.assert_allclose(x, -2 * np.array([1, 2, 3]) + 7 + math.pi + 100, rtol=1e-6)
    np.testing.assert_array_equal(y, 2.5)


@wp.kernel
def calls_overloads(x: wp.array(dtype=float), n: wp.array(dtype=int)):
    i = wp.tid()
    x[i] = twice(x[i])
    n[i] = twice(n[i])


def test_functions_of_one_name_are_overloads():
    x, n = wp.ones(2), wp.array([3, 4], dtype=int)
    wp.launch(calls_overloads, 2, [x], [n])
    assert (x.list(), n.list()) == ([2.25, 2.25], [6, 8])


def make_kernel(function, power, dtype):
    @wp.kernel
    def apply(x: wp.array(dtype=dtype)):
        i = wp.tid()
        y = x[i]
        for _ in range(power - 1):
            y = function(y, x[i])
        x[i] = y

    return apply


def test_closures_have_their_own_kernels():
    @wp.func
    def product(a: float, b: float):
        return a * b

    @wp.func
    def total(a: wp.float64, b: wp.float64):
        return a + b

    x, y = wp.array([2.0, 3.0], dtype=float), wp.array([2.0, 3.0], dtype=wp.float64)
    wp.launch(make_kernel(product, 3, float), 2, [x])
    wp.launch(make_kernel(total, 4, wp.float64), 2, [y])
    assert (x.list(), y.list()) == ([8.0, 27.0], [8.0, 12.0])


@wp.kernel
def uses_what_comes_later(x: wp.array(dtype=float)):
    x[wp.tid()] = LATER * later(1.0)


@wp.func
def later(x: float):
    return x + LATER


LATER = 3.0


def test_names_are_looked_up_at_the_first_launch():
    x = wp.zeros(1)
    wp.launch(uses_what_comes_later, 1, [x])
    assert x.list() == [12.0]


@wp.struct
class Body:
    """A particle."""

    position: wp.vec3
    mass: float
    force: wp.array(dtype=wp.vec3)


@wp.struct
class World:
    body: Body
    steps: wp.int64


@wp.kernel
def fall(world: World, m: wp.mat22, q: wp.quat, out: wp.array(dtype=wp.vec3), v5: vec5, at: wp.array2d(dtype=vec2)):
    i, j = wp.tid()
    out[i] = world.body.position + GRAVITY * world.body.mass + world.body.force[i] * float(world.steps)
    at[i, j] = m @ vec2(float(i), float(j)) + vec2(float(v5[4]), q.w)


@ON_CPU
def test_arguments_may_be_structs_vectors_and_matrices():
    body = Body(mass=2.0, force=wp.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]], dtype=wp.vec3))
    body.position = wp.vec3(1.0, 1.0, 1.0)
    world = World(body=body, steps=10)
    out, at = wp.zeros(2, dtype=wp.vec3), np.zeros((2, 3, 2), np.float32)
    wp.launch(fall, (2, 3), [world, wp.mat22(1.0, 2.0, 3.0, 4.0), (0, 0, 0, 0.5)], [out, np.arange(5.0), at])
    np.testing.assert_allclose(out.numpy(), [[11, 1 - 19.62 + 20, 31], [41, 51 - 19.62, 61]], rtol=1e-6)
    assert out.list()[1][2] == 61.0 and isinstance(out.list()[0], wp.vec3)
    expected = [[[2 * j + i + 4, 4 * j + 3 * i + 0.5] for j in range(3)] for i in range(2)]
    np.testing.assert_allclose(at, expected)
    # A nested list is a matrix, too.
    wp.launch(fall, [2, 3], [world, [[1, 2], [3, 4]], [0, 0, 0, 0.5]], [out, [0.0, 1.0, 2.0, 3.0, 4.0], at])
    np.testing.assert_allclose(at, expected)


@wp.kernel
def copy_all(a: wp.array3d(dtype=wp.uint8), b: wp.array3d(dtype=wp.uint8)):
    i, j, k = wp.tid()
    b[i, j, k] = a[i, j, k]


@ON_CPU
def test_arrays_may_have_any_strides():
    a = np.random.default_rng(1).integers(0, 255, (4, 5, 6)).astype(np.uint8)
    b = np.zeros((6, 5, 4), np.uint8)
    wp.launch(copy_all, (2, 5, 3), [a[::2, ::-1, ::2], b[1:3, :, :3]])
    np.testing.assert_array_equal(b[1:3, :, :3], a[::2, ::-1, ::2])
    assert b[0].max() == b[3:].max() == b[..., 3].max() == 0
    t = bc.zeros((4, 5, 6), dtype=bc.uint8)
    wp.launch(copy_all, (4, 5, 6), [bc.asarray(a), t])
    np.testing.assert_array_equal(t.numpy(), a)


@wp.kernel
def add_index(x: wp.array(dtype=float)):
    i = wp.tid()
    x[i] += float(i)


def test_a_grid_may_have_more_dimensions_than_the_kernel_asks_for():
    x = wp.zeros(24)
    wp.launch(add_index, (2, 3, 4), [x])
    assert x.list() == list(range(24))
    wp.launch(add_index, (2, 0), [x])
    wp.launch(add_index, (2**31 - 1, 2**31 - 1, 0), [x])
    wp.launch(add_index, np.int64(1), [x])
    assert x.list() == list(range(24))


@wp.struct
class Particle:
    id: wp.uint8
    position: wp.vec3
    mass: wp.float64
    body: wp.mat22


@wp.kernel
def move(p: wp.array(dtype=Particle), t: float):
    i = wp.tid()
    p[i].position += p[i].position * t
    if p[i].id == wp.uint8(1):
        q = Particle()
        q.mass = p[i].mass + wp.float64(1.0)
        p[i] = q


def test_arrays_may_hold_structs():
    dtype = Particle.numpy_dtype()
    assert dtype.itemsize == 40 and dtype.fields["position"][1] == 4
    data = np.zeros(5, dtype)
    data["id"], data["position"], data["mass"] = np.arange(5), np.arange(15).reshape(5, 3), 2.5
    expected = data.copy()
    expected["position"] *= 3
    expected[1] = (0, (0, 0, 0), 3.5, ((0, 0), (0, 0)))
    for made in (data.copy(), wp.array(data, dtype=Particle), np.repeat(data, 2)[::2]):
        wp.launch(move, 5, [made, 2.0])
        np.testing.assert_array_equal(np.asarray(made), expected)
    a = wp.array([Particle(mass=1.0), Particle(id=3, position=wp.vec3(1.0, 2.0, 3.0))], dtype=Particle)
    assert a[1].position == wp.vec3(1.0, 2.0, 3.0) and a.list()[0].mass == 1.0 and a[1:].shape == (1,)
    a.fill_(Particle(id=2))
    assert a[0] == a[1] == Particle(id=2) and wp.zeros(2, dtype=Particle)[1] == Particle()
    for wrong in (np.zeros(5, np.float32), wp.zeros(5), np.zeros(5, [("id", "u1"), ("position", "3f4")])):
        with pytest.raises((TypeError, ValueError), match="Particle|record"):
            wp.launch(move, 5, [wrong, 2.0])
    with pytest.raises(TypeError, match="takes a list of them"):
        wp.array([1.0, 2.0], dtype=Particle)


@wp.kernel
def add_any(a: wp.array(dtype=Any), b: Any, out: wp.array(dtype=Any)):
    i = wp.tid()
    out[i] = a[i] + b


@ON_CPU
def test_kernels_of_generic_types():
    for a, b, expected in [
        (np.arange(3), np.int64(2), [2, 3, 4]),
        (np.arange(3, dtype=np.float32), 0.5, [0.5, 1.5, 2.5]),
        (bc.ones((3, 2)), wp.vec2(1.0, 2.0), [[2, 3]] * 3),
        (wp.ones(3, dtype=wp.mat22d), wp.mat22d(1.0), [[[2, 2], [2, 2]]] * 3),
    ]:
        out = np.zeros_like(np.asarray(a))
        wp.launch(add_any, 3, [a, b, out])
        np.testing.assert_array_equal(out, expected)
    with pytest.raises(wp.CompileError, match="cannot be applied"):
        wp.launch(add_any, 3, [np.zeros(3), 1, np.zeros(3)])
    with pytest.raises(TypeError, match="takes 3 arguments"):
        wp.launch(add_any, 3, [np.zeros(3)])
    with pytest.raises(TypeError, match="is none that kernels know"):
        wp.launch(add_any, 3, [np.zeros(3), "b", np.zeros(3)])
    wp.overload(add_any, [wp.array(dtype=wp.int8), wp.int8, wp.array(dtype=wp.int8)])
    with pytest.raises(TypeError, match="no parameters of any type"):
        wp.overload(add_index, [wp.array(dtype=float)])


@wp.kernel
def add_text(a: "wp.array(dtype=Any)", b: "Any", out: "wp.array(dtype=Any, ndim=1)"):
    i = wp.tid()
    out[i] = a[i] + b


def test_annotations_may_be_text():
    out = np.zeros(3)
    wp.launch(add_text, 3, [np.ones(3), np.float64(2), out])
    assert out.tolist() == [3, 3, 3]


@wp.kernel
def uses_own_array(x: wp.array(dtype=float), out: wp.array(dtype=float)):
    i = wp.tid()
    window = wp.zeros(shape=4, dtype=float)
    for k in range(4):
        window[k] = x[i] * float(k)
    out[i] = window[i % 4]


@wp.kernel
def in_half(x: wp.array(dtype=wp.float16), y: wp.array(dtype=wp.bfloat16)):
    i = wp.tid()
    x[i] = x[i] * x[i] + wp.float16(0.1)
    y[i] = wp.bfloat16(x[i])


@ON_CPU
def test_arrays_of_a_thread_and_halves():
    x, out = np.arange(1, 9, dtype=np.float32), np.zeros(8, np.float32)
    wp.launch(uses_own_array, 8, [x, out])
    np.testing.assert_array_equal(out, x * (np.arange(8) % 4))
    x, y = np.array([1.0, 2.5], np.float16), bc.zeros(2, dtype=bc.bfloat16)
    expected = x * x + np.float16(0.1)
    wp.launch(in_half, 2, [x, y])
    np.testing.assert_array_equal(x, expected)
    assert y.to(bc.float32).tolist() == bc.asarray(expected).to(bc.bfloat16).to(bc.float32).tolist()


def test_versions_of_tensors_grow():
    t = bc.zeros(3)
    x = bc.ones(3)
    x.requires_grad = True
    y = (x * t).sum()
    wp.launch(add_index, 3, [t])
    with pytest.raises(RuntimeError, match="modified|overwritten|changed"):
        y.backward()


DTYPES = ["bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float32", "float64"]


@pytest.mark.parametrize("name", DTYPES)
def test_scalars_of_every_type(name):
    dtype = getattr(wp, name) if name != "bool" else bool

    @wp.kernel
    def put(x: wp.array(dtype=dtype), value: dtype):
        x[wp.tid()] = value

    info = np.iinfo(name) if "int" in name else None
    values = [info.min, info.max, 1] if info else [True, False] if name == "bool" else [-1.5, 1e30, math.inf, 3]
    for value in values:
        x = np.zeros(2, name)
        wp.launch(put, 2, [x, value])
        np.testing.assert_array_equal(x, np.full(2, value, name))
        if name != "bool":
            wp.launch(put, 1, [x, np.dtype(name).type(1)])
            assert x[0] == 1 and x[1] == np.dtype(name).type(value)
    if info:
        with pytest.raises(OverflowError, match="argument `value` of kernel `put`: .* is out of bounds"):
            wp.launch(put, 2, [np.zeros(2, name), info.max + 1])
        with pytest.raises(TypeError, match="expected an integer"):
            wp.launch(put, 2, [np.zeros(2, name), 1.5])


def test_threads_may_launch_at_once():
    arrays = [wp.zeros(1000) for _ in range(8)]

    def work(x):
        for _ in range(50):
            wp.launch(add_index, 1000, [x])

    threads = [threading.Thread(target=work, args=(x,)) for x in arrays]
    shared = wp.zeros(1000)
    threads += [threading.Thread(target=work, args=(shared,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for x in arrays:
        np.testing.assert_array_equal(x.numpy(), 50 * np.arange(1000, dtype=np.float32))
    np.testing.assert_array_equal(shared.numpy(), 200 * np.arange(1000, dtype=np.float32))


def call_with(builtin, values):
    a, b, c = values

    @wp.kernel
    def none(x: wp.array(dtype=float)):
        builtin()

    @wp.kernel
    def one(x: wp.array(dtype=float)):
        builtin(a)

    @wp.kernel
    def two(x: wp.array(dtype=float)):
        builtin(a, b)

    @wp.kernel
    def three(x: wp.array(dtype=float)):
        builtin(a, b, c)

    @wp.kernel
    def of_state(x: wp.array(dtype=float)):
        state = wp.rand_init(7)
        builtin(state)

    @wp.kernel
    def of_array(x: wp.array(dtype=float)):
        builtin(x, 0, x[0])

    return [none, one, two, three, of_state, of_array]


KINDS = [1.0, wp.vec3(1.0), wp.mat22(1.0), wp.mat33(1.0), wp.quat(1.0), wp.transform(1.0), wp.spatial_vector(1.0)]
VALUES = [(a, a, a) for a in KINDS] + [(a, b, c) for a in KINDS for b in KINDS for c in (b, 1.0) if a is not b or c == 1.0]


def test_builtins_that_are_named_are_known_to_the_compiler():
    """Each gives another error than that of a function that kernels do not know."""
    from bullet_core.lang._builtins import NAMES

    for name in sorted(NAMES - {"static", "tid", "print", "printf", "len", "grad", "adjoint", "vector", "matrix", "identity", "quat_rpy", "spatial_vector"}):
        builtin = getattr(wp, name)

        texts = []
        for values in VALUES:
            for kernel in call_with(builtin, values):
                try:
                    wp.launch(kernel, 0, [wp.zeros(1)])
                    texts.append("")
                except wp.CompileError as error:
                    texts.append(str(error))
            if any("no function that kernels know" not in text for text in texts):
                break
        assert any("no function that kernels know" not in text for text in texts), name
        try:
            builtin(1.0)
        except TypeError as error:
            assert "no function that kernels know" not in str(error), name


class TestArrays:
    def test_elements_may_be_vectors(self):
        a = wp.array([[1, 2, 3], [4, 5, 6]], dtype=wp.vec3)
        assert (a.shape, a.ndim, a.size, len(a), a.dtype) == ((2,), 1, 2, 2, wp.vec3)
        assert a[1] == wp.vec3(4.0, 5.0, 6.0) and wp.array([[1, 2], [3, 4]])[1, 0] == 3
        assert a[1:].list() == [wp.vec3(4.0, 5.0, 6.0)]
        np.testing.assert_array_equal(np.asarray(a), [[1, 2, 3], [4, 5, 6]])
        with pytest.raises(ValueError, match="takes data of shape"):
            wp.array([[1.0, 2.0]], dtype=wp.vec3)

    @ON_CPU
    def test_memory_is_shared_or_not(self):
        data = np.zeros(3, np.float32)
        shared, own = wp.from_numpy(data), wp.array(data)
        shared.fill_(1)
        assert data.tolist() == [1, 1, 1] and own.list() == [0, 0, 0]
        own.assign(shared)
        own[1:2].fill_(5.0)
        assert own.list() == [1, 5, 1]
        other = wp.clone(own)
        other.zero_()
        assert own.list() == [1, 5, 1] and own.reshape(3, 1).flatten().list() == [1, 5, 1]

    def test_makers(self):
        assert wp.full((2, 2), wp.vec2(1.0, 2.0)).list() == [wp.vec2(1.0, 2.0)] * 4
        assert wp.full(2, 7).dtype is wp.int32
        like = wp.ones_like(wp.zeros((2, 3), dtype=wp.mat22d))
        assert like.shape == (2, 3) and like.dtype is wp.mat22d and like.tensor.dtype == bc.float64
        assert wp.empty(3, dtype=int).tensor.dtype == bc.int32

    def test_wrong_arrays_are_refused(self):
        with pytest.raises(ValueError, match="1 to 4 dimensions"):
            wp.zeros((1, 1, 1, 1, 1))
        with pytest.raises(TypeError, match="no type of numbers"):
            wp.zeros(3, dtype=str)
        with pytest.raises(TypeError, match="only arrays of floats can require gradients"):
            wp.zeros(3, dtype=int, requires_grad=True)
        with pytest.raises(IndexError, match="too many indices"):
            wp.zeros(3, dtype=wp.vec3)[0, 0]
        with pytest.raises(TypeError, match="indexed by integers and slices"):
            wp.zeros(3)[[0, 1]]


class TestValues:
    def test_vectors(self):
        a, b = wp.vec3(1.0, 2.0, 3.0), wp.vec3(1)
        assert a + b == wp.vec3(2.0, 3.0, 4.0) and a - b == wp.vec3(0.0, 1.0, 2.0)
        assert 2 * a == a * 2 == wp.vec3(2.0, 4.0, 6.0) and -a / 2 == wp.vec3(-0.5, -1.0, -1.5)
        assert (a.x, a[2], list(a), len(a)) == (1.0, 3.0, [1.0, 2.0, 3.0], 3)
        assert repr(a) == "vec3f(1.0, 2.0, 3.0)" and a != b and wp.vec3d is not wp.vec3
        assert wp.vec3(0.1).x == np.float32(0.1) and wp.vec3d(0.1).x == 0.1

    def test_matrices(self):
        m = wp.mat22([[1, 2], [3, 4]])
        assert m @ wp.vec2(1.0, 1.0) == wp.vec2(3.0, 7.0) and m[1, 0] == 3.0 and m[0] == wp.vec2(1.0, 2.0)
        assert m @ m == wp.mat22(7.0, 10.0, 15.0, 22.0)
        t = wp.transform(wp.vec3(1.0, 2.0, 3.0), wp.quat(0.0, 0.0, 0.0, 1.0))
        assert t.p == wp.vec3(1.0, 2.0, 3.0) and t.q == wp.quat(0.0, 0.0, 0.0, 1.0)

    def test_pickle(self):
        import pickle

        for value in [wp.vec3(1.0, 2.0, 3.0), wp.mat22(1.0, 2.0, 3.0, 4.0), wp.quatd(0.0, 0.0, 0.0, 1.0)]:
            assert pickle.loads(pickle.dumps(value)) == value
        for value in [add_index, spring, Body, Particle(id=3)]:
            assert pickle.loads(pickle.dumps(value)) == value
        a = pickle.loads(pickle.dumps(wp.array([[1.0, 2.0]], dtype=wp.vec2, requires_grad=True)))
        assert a.list() == [wp.vec2(1.0, 2.0)] and a.requires_grad

    def test_wrong_values_are_refused(self):
        with pytest.raises(ValueError, match="vec3f takes 3 numbers, got 2"):
            wp.vec3(1.0, 2.0)
        with pytest.raises(TypeError, match="has no field"):
            Body(weight=1.0)
        with pytest.raises(AttributeError, match="has no field 'weight'"):
            Body().weight = 1.0
