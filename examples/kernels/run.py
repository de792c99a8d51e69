"""Runs the kinds of kernels forward and backward, on the CPU and on a GPU if there is one, and checks them.

    python examples/kernels/run.py            # all, with times
    python examples/kernels/run.py --quick    # small arrays

Results are compared with NumPy in float64; gradients with finite differences of NumPy's results along a random direction;
the GPU's results and gradients with the CPU's. It prints a line for each kind and device, and exits with 1 if any is wrong.
"""

import argparse
import importlib.util
import pathlib
import sys
import time
from typing import Any, NamedTuple

import numpy as np

import bullet_core as bc
import bullet_core.lang as wp

FOLDER = pathlib.Path(__file__).resolve().parent / "kinds"
#: The most threads of the kind whose work is the square of them.
LOOP = 2000


def load(name):
    """The module of a kind."""
    spec = importlib.util.spec_from_file_location(f"kinds.{name}", FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Case(NamedTuple):
    """A launch: arguments by name, in the kernel's order, and what NumPy makes of the arrays that the kernel writes."""

    dim: Any
    args: dict[str, Any]
    writes: list[str]
    reference: Any
    #: The types of arrays whose elements are no numbers.
    types: dict[str, Any] = {}


def normal(rng, *shape):
    return rng.normal(size=shape).astype(np.float32)


def apart(x):
    """The middle of the 1/128 that a number is in: away from 0, 1 and the like, where slopes jump and logarithms end."""
    return (np.floor(x * 128) + np.float32(0.5)) / 128


def arithmetic(rng, n):
    args = {"x": normal(rng, n), "y": normal(rng, n), "out": np.zeros(n, np.float32), "a": 1.5}
    return Case(n, args, ["out"], lambda x, y, out, a: {"out": a * x + y / (1 + x * x) - 0.5})


def math(rng, n):
    def reference(x, out):
        positive = np.where(x > 0, x, 1)
        return {"out": np.sin(x) * np.exp(-x * x) + np.sqrt(np.abs(x)) + np.log(positive)}

    return Case(n, {"x": apart(normal(rng, n)), "out": np.zeros(n, np.float32)}, ["out"], reference)


def loop(rng, n):
    n = min(n, LOOP)

    def reference(x, steps, out):
        total, state = x.sum() * x, x.copy()
        for _ in range(steps):
            state = state + 0.1 * np.sin(state)
        rest, going = total.copy(), total > 1
        while going.any():
            rest = np.where(going, rest * 0.5, rest)
            going &= ~(rest * state < -4) & (rest > 1)
        return {"out": state + rest}

    # A sum near 0 keeps float32 and float64 on the same side of the loop's conditions.
    x = normal(rng, n) / n
    return Case(n, {"x": x, "steps": 20, "out": np.zeros(n, np.float32)}, ["out"], reference)


def conditional(rng, n):
    def reference(x, out, n):
        v = x[:n].copy()
        after = x[(np.arange(n) + 1) % n]
        middle = (v > 0) & (v <= 1) & (after > 0)
        v = np.where(v > 1, 2 - v * v, np.where(middle, -0.1 * v, v))
        out = out.copy()
        out[:n] = np.sqrt(np.where(v > 0, v, 0))
        return {"out": out}

    args = {"x": apart(normal(rng, n)), "out": np.zeros(n, np.float32), "n": n - n // 8}
    return Case(n, args, ["out"], reference)


def vector(rng, n):
    def reference(p, q, out):
        q = q / np.linalg.norm(q, axis=1, keepdims=True)
        u, w = q[:, :3], q[:, 3:]
        v = (2 * w * w - 1) * p + 2 * w * np.cross(u, p) + 2 * u * (u * p).sum(1, keepdims=True)
        v[:, 1] = v @ [1, 2, 3]
        return {"out": np.cross(v, p) + 0.5 * v}

    args = {"p": normal(rng, n, 3), "q": normal(rng, n, 4), "out": np.zeros((n, 3), np.float32)}
    return Case(n, args, ["out"], reference, {"p": wp.vec3, "q": wp.quat, "out": wp.vec3})


def matrix(rng, n):
    def reference(a, x, out):
        m = a @ a.transpose(0, 2, 1) + x[:, None, :]
        return {"out": np.einsum("nij,nj->ni", m, x) * np.linalg.det(m)[:, None]}

    args = {"a": normal(rng, n, 3, 3), "x": normal(rng, n, 3), "out": np.zeros((n, 3), np.float32)}
    return Case(n, args, ["out"], reference, {"a": wp.mat33, "x": wp.vec3, "out": wp.vec3})


def combined(rng, n):
    # With a step of 0 the velocities that come back hold the random numbers.
    zero, noise = np.zeros((n, 3), np.float32), np.zeros((n, 3), np.float32)
    arrays = [wp.from_numpy(zero, dtype=wp.vec3), wp.from_numpy(noise, dtype=wp.vec3)]
    wp.launch(load("combined").combined, n, [*arrays, np.zeros(1, np.float32), 7, 0.0])

    def reference(x, v, drag, seed, dt):
        v = v + noise
        for _ in range(4):
            force = [0, -9.81 * 1.5, 0] - drag[0] * np.linalg.norm(v, axis=1, keepdims=True) * v
            v = v + force * (dt / 1.5)
            x = x + v * dt
        return {"x": x, "v": v}

    args = {"x": normal(rng, n, 3), "v": normal(rng, n, 3), "drag": np.full(1, 0.3, np.float32), "seed": 7, "dt": 0.05}
    return Case(n, args, ["x", "v"], reference, {"x": wp.vec3, "v": wp.vec3})


def reduction(rng, n):
    rows = max(n // 64, 1)

    def reference(x, rows, total):
        sums = (x * x).sum(axis=1)
        return {"rows": np.sqrt(sums), "total": total + sums.sum()}

    args = {"x": normal(rng, rows, 64), "rows": np.zeros(rows, np.float32), "total": np.zeros(1, np.float32)}
    return Case(rows, args, ["rows", "total"], reference)


def scatter(rng, n):
    def reference(x, source, target, out):
        out = out.copy()
        np.add.at(out, target, x[source] ** 2)
        return {"out": out}

    places = lambda: rng.integers(0, n // 2, n).astype(np.int32)  # noqa: E731
    args = {"x": normal(rng, n), "source": places(), "target": places(), "out": normal(rng, n // 2)}
    return Case(n, args, ["out"], reference)


def stencil(rng, n):
    side = max(int(n**0.5), 2)

    def reference(u, out, k):
        padded = np.pad(u, 1, mode="edge")
        around = padded[:-2, 1:-1] + padded[2:, 1:-1] + padded[1:-1, :-2] + padded[1:-1, 2:]
        return {"out": u + k * (around - 4 * u)}

    args = {"u": normal(rng, side, side), "out": np.zeros((side, side), np.float32), "k": 0.2}
    return Case((side, side), args, ["out"], reference)


KINDS = [arithmetic, math, loop, conditional, vector, matrix, combined, reduction, scatter, stencil]


class Result(NamedTuple):
    outputs: dict[str, np.ndarray]
    gradients: dict[str, np.ndarray]
    forward: float
    both: float


def run(kernel, case, weights, device, repeat):
    """Outputs, gradients of their weighted sum, and the best times in seconds of launch, and of launch and way back."""

    def fresh():
        return {
            name: wp.array(x, dtype=case.types.get(name), device=device, requires_grad=x.dtype == np.float32)
            if isinstance(x, np.ndarray)
            else x
            for name, x in case.args.items()
        }

    def timed(f):
        wp.synchronize(device)
        start = time.perf_counter()
        f()
        wp.synchronize(device)
        return time.perf_counter() - start

    def both(arrays):
        with wp.Tape() as tape:
            wp.launch(kernel, case.dim, list(arrays.values()), device=device)
        tape.backward(grads={arrays[name]: bc.asarray(weights[name], device=device) for name in case.writes})

    first = fresh()
    # Arrays that the kernel overwrites are copied first, so that what came in has a gradient, too.
    starts = {name: first[name] for name in case.args if isinstance(case.args[name], np.ndarray)}
    between = {name: wp.clone(x, requires_grad=False) for name, x in starts.items()}
    with wp.Tape() as tape:
        for name in case.writes:
            wp.launch(copier(first[name].dtype, first[name].ndim), first[name].shape, [first[name], between[name]])
        arguments = {**first, **{name: between[name] for name in case.writes}}
        wp.launch(kernel, case.dim, list(arguments.values()), device=device)
    tape.backward(grads={between[name]: bc.asarray(weights[name], device=device) for name in case.writes})
    outputs = {name: between[name].numpy() for name in case.writes}
    gradients = {name: x.grad.numpy() for name, x in starts.items() if x.grad is not None}
    times = []
    for _ in range(repeat):
        arrays = fresh()
        times.append((timed(lambda: wp.launch(kernel, case.dim, list(arrays.values()), device=device)), timed(lambda: both(fresh()))))
    forward, backward = (min(column) for column in zip(*times))
    return Result(outputs, gradients, forward, backward)


COPIERS: dict = {}


def copier(dtype, ndim):
    """A kernel that copies arrays of this type."""
    if (dtype, ndim) not in COPIERS:
        if ndim == 1:

            @wp.kernel
            def copied(a: wp.array(dtype=dtype), b: wp.array(dtype=dtype)):
                b[wp.tid()] = a[wp.tid()]

        else:

            @wp.kernel
            def copied(a: wp.array2d(dtype=dtype), b: wp.array2d(dtype=dtype)):
                i, j = wp.tid()
                b[i, j] = a[i, j]

        COPIERS[dtype, ndim] = copied
    return COPIERS[dtype, ndim]


def check(case, result, weights, rng):
    """What is wrong with a result; nothing if it is right."""
    exact = {name: x.astype(np.float64) if getattr(x, "dtype", None) == np.float32 else x for name, x in case.args.items()}
    for name, expected in case.reference(**exact).items():
        scale = max(np.abs(expected).max(), 1)
        if not np.allclose(result.outputs[name], expected, rtol=2e-4, atol=2e-5 * scale):
            return f"{name} is wrong by {np.abs(result.outputs[name] - expected).max():.3g}"
    for name, gradient in result.gradients.items():
        if gradient.dtype != np.float32:
            continue
        along = rng.normal(size=gradient.shape)

        def loss(step):
            moved = case.reference(**{**exact, name: exact[name] + step * along})
            return sum((weights[out] * moved[out]).sum() for out in case.writes)

        h = 1e-6
        expected, found = (loss(h) - loss(-h)) / (2 * h), (gradient * along).sum(dtype=np.float64)
        if abs(found - expected) > 2e-3 * max(np.abs(gradient * along).sum() ** 0.5, abs(expected), 1):
            return f"the gradient of {name} along a direction is {found:.6g}, expected {expected:.6g}"
    return ""


def differs(a, b):
    """What two results do not agree about."""
    for kind in ("outputs", "gradients"):
        for name, x in getattr(a, kind).items():
            y = getattr(b, kind)[name]
            scale = max(np.abs(y).max(initial=0), 1)
            if not np.allclose(x, y, rtol=1e-3, atol=1e-4 * scale):
                return f"{kind} of {name} differ from the CPU's by {np.abs(x - y).max():.3g}"
    return ""


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="small arrays")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    n, repeat = (2_000, 1) if options.quick else (1 << 20, 5)
    devices = ["cpu"] + (["cuda:0"] if bc.cuda.is_available() else [])
    wrong = 0
    print(f"{'kind':<12} {'device':<7} {'forward ms':>11} {'and back ms':>12}")
    for kind in KINDS:
        rng = np.random.default_rng(options.seed)
        case = kind(rng, n)
        weights = {name: normal(rng, *case.args[name].shape) for name in case.writes}
        kernel = getattr(load(kind.__name__), kind.__name__)
        results = {}
        for device in devices:
            results[device] = result = run(kernel, case, weights, device, repeat)
            fault = check(case, result, weights, rng) or differs(result, results["cpu"])
            wrong += bool(fault)
            print(f"{kind.__name__:<12} {device:<7} {1e3 * result.forward:>11.3f} {1e3 * result.both:>12.3f}  {fault or 'right'}")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
