"""What the Python workers share: the reference model's sizes, the data file and the worker protocol (../README.md)."""

import json
import pathlib
import struct
import sys
import time

import numpy as np

HEADS = 4
LEARNING_RATE, BETA1, BETA2, EPSILON = 1e-3, 0.9, 0.999, 1e-8
WEIGHT_DECAY = 0.01  # on every parameter, biases and norms too
NORM_EPSILON = 1e-5
DTYPES = {"F32": np.float32, "I32": np.int32}


def load(path):
    """The weights by name and the tokens `[batches, rows, context + 1]` of a file written by make_data.py."""
    data = pathlib.Path(path).read_bytes()
    (header_bytes,) = struct.unpack_from("<Q", data)
    start = 8 + header_bytes
    arrays = {}
    for name, entry in json.loads(data[8:start]).items():
        begin, end = entry["data_offsets"]
        flat = np.frombuffer(data[start + begin : start + end], DTYPES[entry["dtype"]])
        arrays[name] = flat.reshape(entry["shape"]).copy()
    return arrays, arrays.pop("tokens")


def reply(**fields):
    """Prints one answer."""
    print(json.dumps(fields), flush=True)


def serve(name, step, generate=None):
    """Runs the protocol: `step(i)` trains on batch i and returns its loss once the work is done; `generate()` returns
    tokens per second."""
    start = time.perf_counter()
    loss = step(0)
    reply(ready=name, first_loss=loss, first_ms=(time.perf_counter() - start) * 1e3)
    done = 1
    for line in sys.stdin:
        if line.strip() == "gen":
            reply(**({"gen_tok_s": generate()} if generate else {}))
            continue
        times = []
        for _ in range(int(line)):
            start = time.perf_counter()
            loss = step(done)
            times.append((time.perf_counter() - start) * 1e3)
            done += 1
        reply(name=name, ms=times, loss=loss, i=done)
