"""Writes the data every worker of the benchmark starts from: initial weights and token batches of the reference model.

    python make_data.py [OUTPUT.safetensors]        (default: micro.safetensors beside this file)

The file is the same on every machine (NumPy's PCG64 stream is fixed), so losses can be compared to the last digits.
Weights are stored `[in, out]`: a layer computes `x @ w + b`. Tokens are `[batches, rows, context + 1]`: inputs are
all but the last column, targets all but the first.

The order of the draws below is part of the file's format: reordering them changes every weight and the reference
losses in run.py.
"""

import json
import pathlib
import struct
import sys

import numpy as np

WIDTH, LAYERS, HIDDEN, CONTEXT, VOCABULARY = 128, 4, 256, 64, 3000
ROWS, BATCHES = 16, 8
SEED = 1234
WEIGHT_STD = 0.02
# Projections that write to the residual stream start smaller, as in GPT-2.
RESIDUAL_STD = WEIGHT_STD / np.sqrt(2 * LAYERS)
# The share of tokens that follow the chain; the rest are uniform noise that no model can learn.
CHAIN_SHARE = 0.9
DTYPE_NAMES = {"float32": "F32", "int32": "I32"}


def weights(rng):
    """The initial parameters by name, in the order that the file stores them."""

    def normal(*shape, std=WEIGHT_STD):
        return (rng.standard_normal(shape) * std).astype(np.float32)

    def zeros(size):
        return np.zeros(size, np.float32)

    def ones(size):
        return np.ones(size, np.float32)

    named = {"tok": normal(VOCABULARY, WIDTH), "pos": normal(CONTEXT, WIDTH)}
    for layer in range(LAYERS):
        named |= {
            f"h{layer}.ln1.w": ones(WIDTH),
            f"h{layer}.ln1.b": zeros(WIDTH),
            f"h{layer}.qkv.w": normal(WIDTH, 3 * WIDTH),
            f"h{layer}.qkv.b": zeros(3 * WIDTH),
            f"h{layer}.proj.w": normal(WIDTH, WIDTH, std=RESIDUAL_STD),
            f"h{layer}.proj.b": zeros(WIDTH),
            f"h{layer}.ln2.w": ones(WIDTH),
            f"h{layer}.ln2.b": zeros(WIDTH),
            f"h{layer}.fc1.w": normal(WIDTH, HIDDEN),
            f"h{layer}.fc1.b": zeros(HIDDEN),
            f"h{layer}.fc2.w": normal(HIDDEN, WIDTH, std=RESIDUAL_STD),
            f"h{layer}.fc2.b": zeros(WIDTH),
        }
    return named | {"lnf.w": ones(WIDTH), "lnf.b": zeros(WIDTH), "head.w": normal(WIDTH, VOCABULARY)}


def tokens(rng):
    """Token batches from a noisy affine Markov chain: structure enough for the loss to fall within a few steps."""
    out = np.zeros((BATCHES, ROWS, CONTEXT + 1), np.int32)
    for row in out.reshape(-1, CONTEXT + 1):
        token = int(rng.integers(VOCABULARY))
        for position in range(CONTEXT + 1):
            row[position] = token
            follows = rng.random() < CHAIN_SHARE
            token = (7 * token + 13) % VOCABULARY if follows else int(rng.integers(VOCABULARY))
    return out


def write_safetensors(path, named):
    """Writes arrays as safetensors: header length, JSON header padded to 8 bytes, then the data back to back."""
    header, offset = {}, 0
    for name, array in named.items():
        end = offset + array.nbytes
        header[name] = {
            "dtype": DTYPE_NAMES[str(array.dtype)],
            "shape": list(array.shape),
            "data_offsets": [offset, end],
        }
        offset = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for array in named.values():
            file.write(array.tobytes())


def main():
    """Writes the file named on the command line."""
    default = pathlib.Path(__file__).with_name("micro.safetensors")
    path = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else default
    rng = np.random.default_rng(SEED)
    named = weights(rng)
    parameters = sum(array.size for array in named.values())
    write_safetensors(path, named | {"tokens": tokens(rng)})
    print(f"{path.name}: {parameters:,} parameters, {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
