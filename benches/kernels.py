"""Kernels in Python on the CPU, beside NVIDIA Warp: the same source, the same arrays, one process each, in turns.

    python benches/kernels.py --ours PYTHON --warp PYTHON [--rounds 5] [--json FILE]

Each PYTHON is an interpreter that has the package: `bullet_core`, or warp-lang (requirements-peers.txt). The best of all rounds is
printed; a round is a fresh process. Warp's kernel cache is emptied for what is timed cold.
"""

import argparse
import datetime
import json
import os
import pathlib
import platform
import subprocess
import sys
import tempfile

WORKER = """
import sys, time, json
start = time.perf_counter()
import numpy as np
numpy_done = time.perf_counter()
front, cold = sys.argv[1], sys.argv[2] == "cold"
if front == "warp":
    import warp as wp
    wp.config.quiet = True
    if cold:
        wp.init()
        wp.clear_kernel_cache()
else:
    import bullet_core.lang as wp
sys.path.insert(0, sys.argv[3])
began = time.perf_counter()
import bench_kernels as k
x, out = wp.array(np.ones(1, np.float32)), wp.zeros(1, dtype=float)
device = {"device": "cpu"}
wp.launch(k.loop100, dim=1, inputs=[x, out], **device)
first = time.perf_counter()
result = {"first_launch_ms": 1e3 * (first - numpy_done), "compile_ms": 1e3 * (first - began)}

def best(f, number, repeat=5):
    f()
    times = []
    for _ in range(repeat):
        start = time.perf_counter()
        for _ in range(number):
            f()
        times.append((time.perf_counter() - start) / number)
    return min(times)

if not cold:
    arguments = [x, out]
    result["launch_us"] = 1e6 * best(lambda: wp.launch(k.square, dim=1, inputs=arguments, **device), 5000)
    a, b = wp.array(np.ones(1, np.float32), requires_grad=True), wp.zeros(1, dtype=float, requires_grad=True)
    pair, one = [a, b], np.ones(1, np.float32)
    seed = wp.array(one)

    def both():
        with wp.Tape() as tape:
            wp.launch(k.square, dim=1, inputs=pair, **device)
        tape.backward(grads={b: seed}) if front == "warp" else tape.backward(b)

    result["forward_backward_us"] = 1e6 * best(both, 1000)
    n = 1 << 20
    data = np.random.default_rng(0).normal(size=(2, n)).astype(np.float32)
    x, y = (wp.array(row, requires_grad=True) for row in data)
    out = wp.zeros(n, dtype=float, requires_grad=True)
    result["math_ms"] = 1e3 * best(lambda: wp.launch(k.math, dim=n, inputs=[x, out], **device), 5)
    result["loop100_ms"] = 1e3 * best(lambda: wp.launch(k.loop100, dim=n, inputs=[x, out], **device), 2)
    result["loop_linear_ms"] = 1e3 * best(lambda: wp.launch(k.loop_linear, dim=n, inputs=[x, out], **device), 2)
    result["arithmetic_ms"] = 1e3 * best(lambda: wp.launch(k.arithmetic, dim=n, inputs=[x, y, out, 1.5], **device), 5)
    tape = wp.Tape()
    with tape:
        wp.launch(k.arithmetic, dim=n, inputs=[x, y, out, 1.5], **device)
    grads = {out: wp.array(np.ones(n, np.float32))}
    result["arithmetic_adjoint_ms"] = 1e3 * best(lambda: tape.backward(grads=grads), 5)
    total = wp.zeros(1, dtype=float)
    result["total_ms"] = 1e3 * best(lambda: wp.launch(k.total, dim=n, inputs=[x, total], **device), 5)
    weights = wp.array(np.array([0.5, 0.1], np.float32), requires_grad=True)
    tape = wp.Tape()
    with tape:
        wp.launch(k.neuron, dim=n, inputs=[x, weights, out], **device)
    result["neuron_adjoint_ms"] = 1e3 * best(lambda: tape.backward(grads=grads), 5)
print(json.dumps(result))
"""

KERNELS = '''
import {front} as wp


@wp.kernel
def square(x: wp.array(dtype=float), out: wp.array(dtype=float)):
    i = wp.tid()
    out[i] = x[i] * x[i]


@wp.kernel
def loop100(x: wp.array(dtype=float), out: wp.array(dtype=float)):
    i = wp.tid()
    state = x[i]
    for k in range(100):
        state = state + 0.1 * wp.sin(state)
    out[i] = state


@wp.kernel
def loop_linear(x: wp.array(dtype=float), out: wp.array(dtype=float)):
    i = wp.tid()
    state = x[i]
    for k in range(100):
        state = state * 0.99 + 0.01 * float(k)
    out[i] = state


@wp.kernel
def total(x: wp.array(dtype=float), out: wp.array(dtype=float)):
    i = wp.tid()
    wp.atomic_add(out, 0, x[i] * x[i])


@wp.kernel
def neuron(x: wp.array(dtype=float), weights: wp.array(dtype=float), out: wp.array(dtype=float)):
    i = wp.tid()
    out[i] = wp.tanh(weights[0] * x[i] + weights[1])
'''

WORDS = {
    "first_launch_ms": "fresh process: import to first launch done, behind NumPy",
    "cold_compile_ms": "first launch, nothing cached: ours compiles the kernel, Warp its module of seven",
    "launch_us": "launch, n = 1",
    "forward_backward_us": "forward and backward by the tape, n = 1",
    "math_ms": "2^20 threads: math",
    "loop100_ms": "2^20 threads: 100 steps with a sine",
    "loop_linear_ms": "2^20 threads: 100 steps of a product and a sum",
    "arithmetic_ms": "2^20 threads: arithmetic",
    "arithmetic_adjoint_ms": "2^20 threads: adjoint of arithmetic",
    "total_ms": "2^20 threads: a sum of all by atomics",
    "neuron_adjoint_ms": "2^20 threads: adjoint of a kernel with two weights that all read",
}


def run(python, front, cold):
    """One process; what it measured."""
    with tempfile.TemporaryDirectory() as folder:
        kinds = pathlib.Path(__file__).resolve().parents[1] / "examples" / "kernels" / "kinds"
        text = KERNELS.format(front="warp" if front == "warp" else "bullet_core.lang")
        for kind in ("math", "arithmetic"):
            text += (kinds / f"{kind}.py").read_text().split("as wp\n", 1)[1]
        pathlib.Path(folder, "bench_kernels.py").write_text(text)
        environment = dict(os.environ)
        if cold:
            environment["BULLET_CACHE_DIR"] = str(pathlib.Path(folder, "cache"))
        command = [python, "-c", WORKER, front, "cold" if cold else "warm", folder]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
        if done.returncode:
            sys.exit(f"{' '.join(command[:1])} {front}: {done.stderr}")
        return json.loads(done.stdout.splitlines()[-1])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ours", required=True)
    parser.add_argument("--warp")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json")
    options = parser.parse_args()
    fronts = {"bullet": options.ours} | ({"warp": options.warp} if options.warp else {})
    best = {front: {} for front in fronts}
    for _ in range(options.rounds):
        for front, python in fronts.items():
            cold, warm = run(python, front, True), run(python, front, False)
            for key, value in {**warm, "cold_compile_ms": cold["compile_ms"]}.items():
                best[front][key] = min(value, best[front].get(key, value))
    print(f"{'':<78}" + "".join(f"{front:>10}" for front in fronts))
    for key, words in WORDS.items():
        print(f"{words:<78}" + "".join(f"{best[front][key]:>10.2f}" for front in fronts))
    if options.json:
        commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False).stdout.strip()
        cpu = next((line.split(":")[1].strip() for line in open("/proc/cpuinfo") if "model name" in line), platform.processor())
        record = {"commit": commit, "date": str(datetime.date.today()), "device": cpu, "threads": os.cpu_count(), "best": best}
        pathlib.Path(options.json).write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
