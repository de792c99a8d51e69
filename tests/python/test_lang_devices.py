"""Kernels on every device there is, beside NumPy and beside the CPU: what a GPU's code has of its own."""

import numpy as np
import pytest

import bullet_core as bc
import bullet_core.lang as wp

DEVICES = ["cpu"] + (["cuda:0"] if bc.cuda.is_available() else [])
on_each_device = pytest.mark.parametrize("device", DEVICES)


@wp.struct
class Body:
    position: wp.vec3
    id: wp.int16
    mass: wp.float64


@wp.struct
class World:
    body: Body
    force: wp.array(dtype=wp.vec3)
    steps: wp.int64


@wp.kernel
def fall(world: World, m: wp.mat22, q: wp.quat, out: wp.array(dtype=wp.vec3), at: wp.array2d(dtype=wp.vec2)):
    i, j = wp.tid()
    out[i] = world.body.position * float(world.body.mass) + world.force[i] * float(world.steps + wp.int64(world.body.id))
    at[i, j] = m @ wp.vec2(float(i), float(j)) + wp.vec2(q.w, q.x)


@on_each_device
def test_structs_vectors_and_matrices_as_arguments(device):
    force = np.arange(6, dtype=np.float32).reshape(2, 3)
    body = Body(position=wp.vec3(1.0, 2.0, 3.0), id=-4, mass=2.5)
    world = World(body=body, force=wp.array(force, dtype=wp.vec3, device=device), steps=14)
    out, at = wp.zeros(2, dtype=wp.vec3, device=device), wp.zeros((2, 3), dtype=wp.vec2, device=device)
    wp.launch(fall, (2, 3), [world, wp.mat22(1.0, 2.0, 3.0, 4.0), wp.quat(7.0, 0.0, 0.0, 0.5)], [out, at], device=device)
    np.testing.assert_allclose(out.numpy(), np.array([2.5, 5, 7.5]) + 10 * force)
    expected = [[[2 * j + i + 0.5, 4 * j + 3 * i + 7] for j in range(3)] for i in range(2)]
    np.testing.assert_allclose(at.numpy(), expected)


@wp.kernel
def move(bodies: wp.array(dtype=Body), dt: float):
    i = wp.tid()
    bodies[i].position = bodies[i].position * float(bodies[i].mass) + wp.vec3(dt, 0.0, float(bodies[i].id))
    bodies[i].id = wp.int16(int(bodies[i].id) + 1)


@on_each_device
def test_arrays_of_structs(device):
    data = np.zeros(300, Body.numpy_dtype())
    data["position"], data["id"], data["mass"] = np.arange(900).reshape(300, 3), np.arange(300) - 150, 0.5
    bodies = wp.array(data, dtype=Body, device=device)
    wp.launch(move, 300, [bodies, 2.0], device=device)
    expected = 0.5 * data["position"]
    expected[:, 0] += 2
    expected[:, 2] += data["id"]
    moved = bodies.numpy()
    np.testing.assert_array_equal(moved["position"], expected)
    np.testing.assert_array_equal(moved["id"], data["id"] + 1)
    np.testing.assert_array_equal(moved["mass"], data["mass"])


@wp.kernel
def add_where(a: wp.array3d(dtype=wp.int16), b: wp.array3d(dtype=wp.int16)):
    i, j, k = wp.tid()
    b[i, j, k] += a[i, j, k]


@on_each_device
def test_strides(device):
    a = np.random.default_rng(1).integers(-99, 99, (4, 5, 6)).astype(np.int16)
    b = np.zeros((6, 5, 4), np.int16)
    a_there, b_there = bc.asarray(a, device=device), bc.asarray(b.copy(), device=device)
    wp.launch(add_where, (2, 5, 3), [a_there[::2, ::-1, ::2], b_there[1:3, :, :3]], device=device)
    b[1:3, :, :3] = a[::2, ::-1, ::2]
    np.testing.assert_array_equal(np.asarray(b_there.to("cpu")), b)


@wp.kernel
def sums(x: wp.array(dtype=wp.float16), y: wp.array(dtype=wp.bfloat16), out: wp.array(dtype=wp.float16)):
    i = wp.tid()
    last = wp.zeros(shape=4, dtype=float)
    for k in range(8):
        last[k % 4] = last[k % 4] + float(x[i]) * float(k)
    out[i] = wp.float16(last[i % 4]) + wp.float16(y[i])


@on_each_device
def test_halves_and_arrays_of_a_thread(device):
    x, y = np.linspace(-2, 2, 64).astype(np.float16), np.arange(64, dtype=np.float32) / 4
    out = wp.zeros(64, dtype=wp.float16, device=device)
    wp.launch(sums, 64, [wp.array(x, device=device), wp.array(y, dtype=wp.bfloat16, device=device), out], device=device)
    k = np.arange(64) % 4
    expected = (x.astype(np.float32) * (2 * k + 4)).astype(np.float16) + y.astype(np.float16)
    np.testing.assert_array_equal(out.numpy(), expected)


@wp.kernel
def draw(seed: int, out: wp.array2d(dtype=float)):
    i = wp.tid()
    state = wp.rand_init(seed, i)
    out[i, 0] = wp.randf(state)
    out[i, 1] = wp.randn(state)
    out[i, 2] = float(wp.randi(state, 0, 1000))


def test_random_numbers_are_the_same_everywhere():
    drawn = []
    for device in DEVICES:
        out = wp.zeros((1000, 3), dtype=float, device=device)
        wp.launch(draw, 1000, [7, out], device=device)
        drawn.append(out.numpy())
    uniform, normal, whole = drawn[0].T
    assert 0 <= uniform.min() and uniform.max() < 1 and abs(uniform.mean() - 0.5) < 0.05
    assert abs(normal.mean()) < 0.15 and abs(normal.std() - 1) < 0.1
    for other in drawn[1:]:
        np.testing.assert_array_equal(other[:, [0, 2]], drawn[0][:, [0, 2]])
        np.testing.assert_allclose(other[:, 1], normal, rtol=1e-4, atol=1e-5)


@wp.kernel
def count(x: wp.array(dtype=int), low: wp.array(dtype=int), high: wp.array(dtype=int), bits: wp.array(dtype=wp.uint32), locks: wp.array(dtype=int)):
    i = wp.tid()
    wp.atomic_min(low, 0, x[i])
    wp.atomic_max(high, 0, x[i])
    wp.atomic_or(bits, 0, wp.uint32(1) << wp.uint32(x[i] % 32))
    if wp.atomic_cas(locks, x[i], 0, 1) == 0:
        wp.atomic_add(locks, 1000, 1)


@on_each_device
def test_atomics_of_integers(device):
    x = np.random.default_rng(2).integers(5, 990, 5000).astype(np.int32)
    low, high = (wp.array(np.array([n], np.int32), device=device) for n in (10**6, -(10**6)))
    bits, locks = wp.zeros(1, dtype=wp.uint32, device=device), wp.zeros(1001, dtype=int, device=device)
    wp.launch(count, 5000, [wp.array(x, device=device), low, high, bits, locks], device=device)
    assert (low.list(), high.list()) == ([x.min()], [x.max()])
    assert bits.list() == [np.bitwise_or.reduce(1 << (x.astype(np.int64) % 32))]
    assert locks.list()[1000] == len(np.unique(x))


@wp.kernel
def march(x: wp.array(dtype=wp.float64), steps: int, out: wp.array(dtype=wp.float64)):
    i = wp.tid()
    state = x[i]
    k = int(0)
    while k < steps + i % 3:
        state = state + wp.float64(0.01) * wp.sin(state * state)
        k += 1
    out[i] = state


@on_each_device
@pytest.mark.parametrize("steps", [0, 3, 500])
def test_gradients_of_loops_of_any_length(device, steps):
    start = np.linspace(-1.5, 1.5, 300)
    expected, state = np.ones(300), start.copy()
    for k in range(steps + 2):
        going = k < steps + np.arange(300) % 3
        slope = 1 + 0.01 * np.cos(state * state) * 2 * state
        expected, state = np.where(going, expected * slope, expected), np.where(going, state + 0.01 * np.sin(state * state), state)
    x, out = wp.array(start, device=device, requires_grad=True), wp.zeros(300, dtype=wp.float64, device=device)
    with wp.Tape() as tape:
        wp.launch(march, 300, [x, steps, out], device=device)
    tape.backward(grads={out: wp.ones(300, dtype=wp.float64, device=device)})
    np.testing.assert_allclose(out.numpy(), state, rtol=1e-12)
    np.testing.assert_allclose(x.grad.numpy(), expected, rtol=1e-11)


@on_each_device
def test_long_loops_take_little_memory(device):
    @wp.kernel
    def far(x: wp.array(dtype=wp.float64), out: wp.array(dtype=wp.float64)):
        i = wp.tid()
        state = x[i]
        for k in range(100000):
            state = state + wp.float64(1e-5) * wp.sin(state)
        out[i] = state

    x, out = wp.array(np.array([0.5, 1.0]), device=device, requires_grad=True), wp.zeros(2, dtype=wp.float64, device=device)
    with wp.Tape() as tape:
        wp.launch(far, 2, [x, out], device=device)
    tape.backward(grads={out: wp.ones(2, dtype=wp.float64, device=device)})
    h, moved = 1e-6, []
    for sign in (1, -1):
        there = wp.zeros(2, dtype=wp.float64, device=device)
        wp.launch(far, 2, [wp.array(np.array([0.5, 1.0]) + sign * h, device=device), there], device=device)
        moved.append(there.numpy().copy())
    np.testing.assert_allclose(x.grad.numpy(), (moved[0] - moved[1]) / (2 * h), rtol=1e-7)


@wp.kernel
def say(x: wp.array(dtype=float)):
    i = wp.tid()
    if i == 2:
        wp.printf("element %d is %f\n", i, x[i])


@on_each_device
def test_kernels_print(device, capfd):
    wp.launch(say, 3, [wp.array(np.array([1, 2, 2.5], np.float32), device=device)], device=device)
    wp.synchronize(device)
    assert "element 2 is 2.5" in capfd.readouterr().out
