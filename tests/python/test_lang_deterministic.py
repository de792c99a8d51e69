"""Deterministic launches: the same bits at every run, for any number of threads of the CPU, on every device there is."""

import hashlib
import os
import subprocess
import sys

import numpy as np
import pytest

import bullet_core as bc
import bullet_core.lang as wp

DEVICES = ["cpu", *(["cuda:0"] if bc.cuda.is_available() else [])]
SIZES = [1, 1000, 1 << 20]
each_device = pytest.mark.parametrize("device", DEVICES)
each_size = pytest.mark.parametrize("n", SIZES)


def of_dtype(dtype):
    """Kernels of one type of floats: all threads to one element, and by index."""

    @wp.kernel(deterministic=True)
    def total(x: wp.array(dtype=dtype), out: wp.array(dtype=dtype)):
        i = wp.tid()
        y = x[i]
        # No thread takes as long as its neighbour.
        for _k in range((i * 7919) % 23):
            y = y * dtype(0.5) + x[i] * dtype(0.5)
        wp.atomic_add(out, 0, y)

    @wp.kernel(deterministic=True)
    def scatter(x: wp.array(dtype=dtype), places: wp.array(dtype=int), out: wp.array(dtype=dtype)):
        i = wp.tid()
        out[places[i]] += x[i]

    return total, scatter


FLOATS = {name: of_dtype(getattr(wp, name)) for name in ("float16", "float32", "float64")}


@wp.kernel
def gather(x: wp.array(dtype=wp.float32), places: wp.array(dtype=int), out: wp.array(dtype=wp.float32)):
    i = wp.tid()
    out[i] = x[places[i]] * x[places[i]]


@wp.kernel
def stencil(x: wp.array(dtype=wp.float32), k: wp.array(dtype=wp.float32), out: wp.array(dtype=wp.float32)):
    """All threads read the weights."""
    i = wp.tid()
    n = x.shape[0]
    out[i] = k[0] * x[wp.max(i - 1, 0)] + k[1] * x[i] * x[i] + k[0] * x[wp.min(i + 1, n - 1)]


@wp.kernel
def walk(steps: wp.array(dtype=int), x: wp.array(dtype=wp.float32), few: wp.array(dtype=wp.vec2), sums: wp.array(dtype=wp.float64)):
    """How often a thread adds depends on the arguments; two arrays, one of vectors."""
    i = wp.tid()
    y = x[i]
    k = int(0)
    while k < steps[i]:
        y = y * 0.75 + 0.125
        wp.atomic_add(few, (i + k) % few.shape[0], wp.vec2(y, x[i]))
        k += 1
    wp.atomic_sub(sums, 0, wp.float64(y))


@wp.struct
class Cell:
    mass: float
    momentum: wp.vec3


@wp.kernel(deterministic=True)
def deposit(mass: wp.array(dtype=float), velocity: wp.array(dtype=wp.vec3), cells: wp.array(dtype=Cell)):
    i = wp.tid()
    c = i % cells.shape[0]
    cells[c].mass += mass[i]
    cells[c].momentum += mass[i] * velocity[i]


@wp.kernel
def compact(x: wp.array(dtype=float), count: wp.array(dtype=int), out: wp.array(dtype=float)):
    i = wp.tid()
    if x[i] > 0.0:
        out[wp.atomic_add(count, 0, 1)] = x[i]


def numbers(n, dtype="float32", seed=0):
    return np.random.default_rng(seed).uniform(-1, 1, n).astype(dtype)


def places(n, count, seed=1):
    return np.random.default_rng(seed).integers(0, count, n).astype("int32")


def same_bits(run, times=20):
    """What a function gives, which must be the same every time."""
    first = [np.ascontiguousarray(x) for x in run()]
    for _ in range(times - 1):
        for a, b in zip(first, run()):
            assert a.tobytes() == np.ascontiguousarray(b).tobytes()
    return first


@each_device
@each_size
@pytest.mark.parametrize("name", FLOATS)
def test_sums_of_all_threads(device, n, name):
    x = numbers(n, name)

    def run():
        out = wp.zeros(1, dtype=getattr(wp, name), device=device)
        wp.launch(FLOATS[name][0], n, [wp.array(x, dtype=getattr(wp, name), device=device), out])
        return [out.numpy()]

    (found,) = same_bits(run)
    # What each adds is x again, rounded; a sum of float16 in order soon stops to grow.
    rtol = {"float16": 1e-2, "float32": 1e-5, "float64": 1e-13}[name]
    if name != "float16" or n <= 1000 or device != "cpu":
        np.testing.assert_allclose(found, [x.astype("float64").sum()], rtol=0, atol=rtol * max(1.0, np.sqrt(n)) * 4)


@each_device
@each_size
@pytest.mark.parametrize("name", FLOATS)
def test_sums_by_index(device, n, name):
    x, count = numbers(n, name), max(1, n // 7)
    index = places(n, count)

    def run():
        out = wp.array(np.full(count, 0.5, name), dtype=getattr(wp, name), device=device)
        wp.launch(FLOATS[name][1], n, [wp.array(x, dtype=getattr(wp, name), device=device), wp.array(index, device=device), out])
        return [out.numpy()]

    (found,) = same_bits(run)
    expected = np.full(count, 0.5)
    np.add.at(expected, index, x.astype("float64"))
    np.testing.assert_allclose(found, expected, rtol=0, atol={"float16": 2e-2, "float32": 1e-5, "float64": 1e-13}[name])
    if device == "cpu":
        # One thread after the other.
        in_order = np.full(count, 0.5, name)
        np.add.at(in_order, index, x)
        assert in_order.tobytes() == found.tobytes()


def gradients(kernel, n, arrays, weights, device):
    """Of the arrays that ask for one."""
    args = [wp.array(x, device=device, requires_grad=x.dtype.kind == "f") for x in arrays]
    out = wp.zeros(n, device=device)
    with wp.Tape() as tape:
        wp.launch(kernel, n, [*args, out], deterministic=True)
    tape.backward(grads={out: wp.array(weights, device=device)})
    return [x.grad.numpy() for x in args if x.requires_grad]


@each_device
@each_size
def test_the_way_back_of_a_gather(device, n):
    x, index, weights = numbers(max(1, n // 5)), places(n, max(1, n // 5)), numbers(n, seed=2)
    (found,) = same_bits(lambda: gradients(gather, n, [x, index], weights, device))
    expected = np.zeros(len(x))
    np.add.at(expected, index, 2.0 * x[index].astype("float64") * weights)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


@each_device
@each_size
def test_the_way_back_of_a_stencil(device, n):
    x, k, weights = numbers(n), np.array([0.25, -0.5], "float32"), numbers(n, seed=2)
    to_x, to_k = same_bits(lambda: gradients(stencil, n, [x, k], weights, device))
    wide, w = x.astype("float64"), weights.astype("float64")
    left, right = np.maximum(np.arange(n) - 1, 0), np.minimum(np.arange(n) + 1, n - 1)
    expected = 2.0 * k[1] * wide * w
    np.add.at(expected, left, k[0] * w)
    np.add.at(expected, right, k[0] * w)
    np.testing.assert_allclose(to_x, expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(to_k, [(w * (wide[left] + wide[right])).sum(), (w * wide * wide).sum()], rtol=1e-4, atol=1e-6 * n + 1e-5)


@each_device
@pytest.mark.parametrize("n", [1, 1000, 300_000])
def test_as_many_sums_as_the_arguments_say(device, n):
    """On a GPU they are counted first, and of the largest grid there is more than one slice."""
    x, steps = numbers(n), places(n, 12)

    def run():
        few, sums = wp.zeros(11, dtype=wp.vec2, device=device), wp.ones(1, dtype=wp.float64, device=device)
        args = [wp.array(steps, device=device), wp.array(x, device=device), few, sums]
        wp.launch(walk, n, args, deterministic=True)
        return [few.numpy(), sums.numpy()]

    few, sums = same_bits(run)
    expected, y = np.zeros((11, 2)), x.astype("float64")
    for k in range(12):
        goes = steps > k
        y = np.where(goes, y * 0.75 + 0.125, y)
        np.add.at(expected, (np.arange(n)[goes] + k) % 11, np.stack([y, x], 1)[goes])
    np.testing.assert_allclose(few, expected, rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(sums, [1.0 - y.sum()], rtol=1e-6, atol=1e-2)


@each_device
def test_fields_of_structs(device):
    n, count = 100_000, 13
    mass, velocity = numbers(n), numbers((n, 3), seed=3)

    def run():
        cells = wp.zeros(count, dtype=Cell, device=device)
        wp.launch(deposit, n, [wp.array(mass, device=device), wp.array(velocity, dtype=wp.vec3, device=device), cells])
        return [cells.numpy()["mass"], cells.numpy()["momentum"]]

    found = same_bits(run, 5)
    cells = np.arange(n) % count
    for got, terms in zip(found, [mass, mass[:, None] * velocity]):
        expected = np.zeros((count, *terms.shape[1:]))
        np.add.at(expected, cells, terms.astype("float64"))
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-3)


@each_device
def test_arrays_that_share_memory(device):
    """The gradients of two arguments that are views of one array lie in one memory."""
    n = 50_000
    base, index, weights = numbers(n), places(n, n - 1), numbers(n, seed=2)

    @wp.kernel
    def both(a: wp.array(dtype=float), b: wp.array(dtype=float), at: wp.array(dtype=int), out: wp.array(dtype=float)):
        i = wp.tid()
        out[i] = a[at[i]] * b[at[i]]

    def run():
        x, out = wp.array(base, device=device, requires_grad=True), wp.zeros(n, device=device)
        with wp.Tape() as tape:
            wp.launch(both, n, [x[1:], x[:-1], wp.array(index, device=device), out], deterministic=True)
        tape.backward(grads={out: wp.array(weights, device=device)})
        return [x.grad.numpy()]

    (found,) = same_bits(run, 5)
    expected, wide = np.zeros(n), base.astype("float64")
    np.add.at(expected, index + 1, wide[index] * weights)
    np.add.at(expected, index, wide[index + 1] * weights)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_kernels_that_see_the_order_run_in_order_on_the_cpu():
    n = 100_000
    x = numbers(n)
    for _ in range(5):
        count, out = wp.zeros(1, dtype=int, device="cpu"), wp.zeros(n, device="cpu")
        wp.launch(compact, n, [wp.array(x, device="cpu"), count, out], deterministic=True)
        assert count.list() == [(x > 0).sum()]
        np.testing.assert_array_equal(out.numpy()[: count.list()[0]], x[x > 0])


@pytest.mark.skipif(len(DEVICES) == 1, reason="no GPU")
def test_kernels_that_see_the_order_are_refused_on_a_gpu():
    arrays = [wp.array(numbers(10), device="cuda:0"), wp.zeros(1, dtype=int, device="cuda:0"), wp.zeros(10, device="cuda:0")]
    with pytest.raises(RuntimeError, match="(?s)deterministic launch of `compact` cannot run on a GPU.*the old value .* of `count`.*is used"):
        wp.launch(compact, 10, arrays, deterministic=True)
    wp.launch(compact, 10, arrays)


def test_who_says_that_a_launch_is_deterministic(monkeypatch):
    """The launch, or else the kernel, or else the configuration: seen by the order of what `compact` writes."""
    n = 1 << 18
    x = numbers(n)

    def in_order(kernel, **how):
        count, out = wp.zeros(1, dtype=int, device="cpu"), wp.zeros(n, device="cpu")
        wp.launch(kernel, n, [wp.array(x, device="cpu"), count, out], **how)
        return np.array_equal(out.numpy()[: count.list()[0]], x[x > 0])

    assert in_order(compact, deterministic=wp.DeterministicMode.RUN_TO_RUN)
    monkeypatch.setattr(wp.config, "deterministic", wp.DeterministicMode.GPU_TO_GPU)
    assert in_order(compact)
    monkeypatch.setattr(wp.config, "deterministic", wp.DeterministicMode.NOT_GUARANTEED)
    assert in_order(wp.kernel(compact._function, deterministic=True))
    for wrong in ["yes", 1, None.__class__]:
        with pytest.raises(TypeError, match="deterministic is a DeterministicMode or a bool"):
            wp.launch(compact, n, [], deterministic=wrong)


ANY_THREADS = """
import sys
sys.path.insert(0, sys.argv[1])
import test_lang_deterministic as t
print(t.digest())
"""


def digest():
    """Of what all of these kernels leave on the CPU."""
    n, hashed = 200_000, hashlib.sha256()
    x, index, weights = numbers(n), places(n, n // 9), numbers(n, seed=2)
    for name, (total, scatter) in FLOATS.items():
        dtype = getattr(wp, name)
        out, by_index = wp.zeros(1, dtype=dtype, device="cpu"), wp.zeros(n // 9, dtype=dtype, device="cpu")
        given = wp.array(x.astype(name), dtype=dtype, device="cpu")
        wp.launch(total, n, [given, out])
        wp.launch(scatter, n, [given, wp.array(index, device="cpu"), by_index])
        hashed.update(out.numpy().tobytes() + by_index.numpy().tobytes())
    few, sums = wp.zeros(11, dtype=wp.vec2, device="cpu"), wp.zeros(1, dtype=wp.float64, device="cpu")
    wp.launch(walk, n, [wp.array(places(n, 12), device="cpu"), wp.array(x, device="cpu"), few, sums], deterministic=True)
    hashed.update(few.numpy().tobytes() + sums.numpy().tobytes())
    for found in gradients(stencil, n, [x, np.array([0.25, -0.5], "float32")], weights, "cpu"):
        hashed.update(found.tobytes())
    return hashed.hexdigest()


def test_the_number_of_cpu_threads_does_not_matter():
    def run(threads):
        environment = {**os.environ, "BULLET_THREADS": str(threads)}
        command = [sys.executable, "-c", ANY_THREADS, os.path.dirname(os.path.abspath(__file__))]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert len({run(1), run(2), run(5), digest() + "\n"}) == 1
