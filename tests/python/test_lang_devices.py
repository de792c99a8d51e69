"""Kernels on every device there is, beside NumPy and beside the CPU: what a GPU's code has of its own."""

import inspect
import os
import subprocess
import sys

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


@wp.kernel
def roots(x: wp.array(dtype=float), out: wp.array(dtype=float)):
    i = wp.tid()
    assert x[i] >= 0.0, "100 % of them must not be negative"
    out[i] = wp.sqrt(x[i])


@wp.kernel
def choose(x: wp.array(dtype=wp.vec3), at: wp.array(dtype=int), out: wp.array(dtype=float)):
    i = wp.tid()
    v = x[i]
    out[i] = v[at[i]]


@wp.kernel
def gather(x: wp.array2d(dtype=float), at: wp.array(dtype=int), out: wp.array(dtype=float)):
    i, j = wp.tid()
    wp.atomic_add(out, i, x[i, at[j]])


def debugged(kernel):
    """The same kernel, whose indices a GPU checks, too."""
    return wp.kernel(kernel._function, module_options={"mode": "debug"})


def line_of(kernel, text):
    """Where a line of a kernel is, as errors say it."""
    lines, first = inspect.getsourcelines(kernel._function)
    return f"{__file__}:{first + next(i for i, line in enumerate(lines) if text in line)}:"


def expect_fault(error, device, run, read, *parts):
    """Where a fault is found: at the launch on a CPU, by who reads on a GPU."""
    with pytest.raises(error) as caught:
        run()
        read()
    for part in parts:
        assert part in str(caught.value), caught.value
    wp.synchronize(device)


@on_each_device
def test_a_failed_assertion_is_an_error_and_the_device_goes_on(device):
    x, out = wp.array(np.arange(1000, dtype=np.float32), device=device), wp.zeros(1000, device=device)
    bad = wp.array(np.where(np.arange(1000) == 700, -1, 4).astype(np.float32), device=device)
    parts = ("`roots`, thread (700,): 100 % of them must not be negative", line_of(roots, "assert"), "assert x[i] >= 0.0")
    for read in (out.numpy, lambda: wp.synchronize(device), lambda: bc.ones(3, device=device).tolist()):
        expect_fault(AssertionError, device, lambda: wp.launch(roots, 1000, [bad, out], device=device), read, *parts)
        wp.launch(roots, 1000, [x, out], device=device)
        np.testing.assert_allclose(out.numpy(), np.sqrt(np.arange(1000)), rtol=1e-6)
    if device != "cpu":
        # Threads go on that have nothing wrong.
        wp.launch(roots, 1000, [bad, wp.zeros(1000, device=device)], device=device)
        out.fill_(7.0)
        wp.launch(roots, 1000, [bad, out], device=device)
        with pytest.raises(AssertionError):
            out.numpy()
        assert (np.delete(out.numpy(), 700) == 2).all() and out.numpy()[700] == 7


@on_each_device
def test_components_out_of_range_are_an_error_and_the_device_goes_on(device):
    x, out = wp.array(np.ones((300, 3), np.float32), dtype=wp.vec3, device=device), wp.zeros(300, device=device)
    for wrong in (3, -4, 2**31 - 1):
        at = np.full(300, -1)
        at[299] = wrong
        parts = (f"`choose`, thread (299,): index {wrong} is outside of 3 components", line_of(choose, "v[at[i]]"))
        at = wp.array(at, dtype=int, device=device)
        expect_fault(IndexError, device, lambda at=at: wp.launch(choose, 300, [x, at, out], device=device), out.numpy, *parts)
    wp.launch(choose, 300, [x, wp.zeros(300, dtype=int, device=device), out], device=device)
    assert out.numpy().sum() == 300


@on_each_device
@pytest.mark.parametrize("deterministic", [False, True])
def test_indices_are_checked_in_debug_mode(device, deterministic):
    checked = debugged(gather)
    x = wp.array(np.arange(20, dtype=np.float32).reshape(4, 5), device=device)
    out = wp.zeros(3, device=device)

    def run(dim, at):
        at = wp.array(np.array(at), dtype=int, device=device)
        wp.launch(checked, dim, [x, at, out], device=device, deterministic=deterministic)

    line = line_of(gather, "atomic_add")
    for wrong in (5, -1, 2**31 - 1, -(2**31)):
        parts = (f"index {wrong} of `x` is outside 0 to 5 in dimension 1 of its shape (4, 5)", "`gather`, thread (0, 2)", line)
        expect_fault(IndexError, device, lambda wrong=wrong: run((1, 3), [0, 1, wrong]), out.numpy, *parts)
    expect_fault(IndexError, device, lambda: run((4, 1), [0]), out.numpy, "index 3 of `out` is outside 0 to 3 in dimension 0 of its shape (3,)", "thread (3, 0)")
    expect_fault(IndexError, device, lambda: run((3, 1), [9]), out.numpy, "index 9 of `x`")
    out.zero_()
    run((3, 3), [0, 4, 4])
    np.testing.assert_array_equal(out.numpy(), [8, 23, 38])


@on_each_device
def test_the_first_of_several_faults_is_told(device):
    x, out = wp.array(np.full(100, -1, np.float32), device=device), wp.zeros(100, device=device)
    with pytest.raises(AssertionError):
        wp.launch(roots, 100, [x, out], device=device)
        wp.launch(debugged(gather), (1, 1), [wp.zeros((1, 1), device=device), wp.array([3], dtype=int, device=device), out], device=device)
        out.numpy()
    out.numpy()


@on_each_device
def test_the_way_back_tells_what_went_wrong_before(device):
    at, out = wp.array([0, 1, 3], dtype=int, device=device), wp.zeros(3, device=device)
    x = wp.array(np.ones((3, 3), np.float32), dtype=wp.vec3, device=device, requires_grad=True)
    with wp.Tape() as tape:
        with pytest.raises(IndexError, match="index 3 is outside of 3 components"):
            wp.launch(choose, 3, [x, at, out], device=device)
            tape.backward(grads={out: np.ones(3, np.float32)})
        wp.synchronize(device)
    with wp.Tape() as tape:
        wp.launch(choose, 3, [x, wp.array([0, 1, -1], dtype=int, device=device), out], device=device)
    tape.backward(grads={out: np.ones(3, np.float32)})
    np.testing.assert_array_equal(x.grad.numpy(), np.eye(3))


@on_each_device
@pytest.mark.parametrize("deterministic", [False, True])
def test_a_fault_on_the_way_back(device, deterministic):
    @wp.kernel(module_options={"mode": "debug"})
    def walk(x: wp.array(dtype=float), steps: wp.array(dtype=int), out: wp.array(dtype=float)):
        i = wp.tid()
        state = x[0]
        for k in range(steps[i]):
            state = state * x[k] + wp.sin(state)
        out[i] = state

    x, out = wp.array(np.full(4, 0.5, np.float32), device=device, requires_grad=True), wp.zeros(2, device=device)
    steps = wp.array([1, 4], dtype=int, device=device)

    def back():
        with wp.Tape() as tape:
            wp.launch(walk, 2, [x, steps, out], device=device, deterministic=deterministic)
        tape.backward(grads={out: np.ones(2, np.float32)})
        gradient = x.grad.numpy().copy()
        tape.zero()
        return gradient

    before = back()
    steps.assign(np.array([1, 5], np.int32))
    with wp.Tape() as tape:
        with pytest.raises(IndexError, match="kernel `walk`, thread \\(1,\\): index 4 of `x`"):
            wp.launch(walk, 2, [x, steps, out], device=device, deterministic=deterministic)
            out.numpy()
    if device != "cpu":
        # Who does not care is told by the adjoint, which goes the same way.
        tape.backward(grads={out: np.ones(2, np.float32)})
        with pytest.raises(IndexError, match="kernel `walk_adjoint`, thread \\(1,\\): index 4 of `(adj_)?x`"):
            x.grad.numpy()
        tape.zero()
    steps.assign(np.array([1, 4], np.int32))
    np.testing.assert_allclose(back(), before, rtol=1e-5)


def test_modes():
    with pytest.raises(ValueError, match="'release' or 'debug', got 'fast'"):
        wp.kernel(roots._function, module_options={"mode": "fast"})
    x, before = wp.ones(3), wp.config.mode
    try:
        wp.config.mode = "slow"
        with pytest.raises(ValueError, match="BULLET_KERNEL_MODE"):
            wp.launch(roots, 3, [x, x])
        wp.config.mode = "debug"
        wp.launch(roots, 3, [x, x])
    finally:
        wp.config.mode = before
    assert x.list() == [1, 1, 1]
    asked = "import bullet_core.lang as wp; print(wp.config.mode)"
    for mode in ("debug", ""):
        said = subprocess.run([sys.executable, "-c", asked], env={**os.environ, "BULLET_KERNEL_MODE": mode}, capture_output=True, text=True, check=True)
        assert said.stdout.strip() == (mode or "release")
