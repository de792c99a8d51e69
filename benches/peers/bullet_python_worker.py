"""Bullet driven from Python: what the Python package costs beside Rust's own worker.

python bullet_python_worker.py DATA.safetensors [--loop]

The model is made of the package's Python modules. The training step is the `Trainer`'s, or with --loop a loop as PyTorch's
users write it: loss, backward, step, zero_grad. It needs the package in this Python (`pip install .`).
"""

import argparse
import time

import protocol

import bullet_core as bc
from bullet_core import optim

#: Names of the data file's parts, and those of the package.
PARTS = {"lnf": "ln_f", "ln1": "ln1", "ln2": "ln2", "qkv": "attn.qkv", "proj": "attn.proj", "fc1": "mlp.fc1", "fc2": "mlp.fc2"}


def model_of(weights):
    """The reference model; a linear layer here stores `[out, in]`, the file `[in, out]`."""
    vocabulary, width = weights["tok"].shape
    layers = sum(name.endswith(".qkv.w") for name in weights)
    sizes = {"dim": width, "layers": layers, "heads": protocol.HEADS, "max_seq": len(weights["pos"])}
    model = bc.Transformer(vocabulary, ff=weights["h0.fc1.w"].shape[1], norm_eps=protocol.NORM_EPSILON, **sizes)
    state = {"tok_embedding.weight": weights["tok"], "pos_embedding.weight": weights["pos"]}
    for name, array in weights.items():
        *block, part, field = name.split(".") if "." in name else ("", "", "")
        if part:
            place = f"blocks.{block[0][1:]}.{PARTS[part]}" if block else PARTS.get(part, part)
            value = array.T.copy() if array.ndim == 2 else array
            state[f"{place}.{'weight' if field == 'w' else 'bias'}"] = value
    model.load_state_dict(state)
    return model


def greedy_tokens_per_second(model, first_token, runs=20):
    """Greedy generation at batch 1: one token of prompt, then as many as the context holds; the median of `runs`."""
    times = []
    for _ in range(runs + 1):
        start = time.perf_counter()
        count = len(list(model.generate([first_token], model.max_seq - 1, temperature=0)))
        times.append((time.perf_counter() - start) / count)
    return 1 / sorted(times[1:])[runs // 2]


def main():
    """Parses the command line and serves."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data")
    parser.add_argument("--loop", action="store_true")
    args = parser.parse_args()
    weights, tokens = protocol.load(args.data)
    model = model_of(weights)
    betas = (protocol.BETA1, protocol.BETA2)
    decay = protocol.WEIGHT_DECAY
    optimizer = optim.AdamW(model, protocol.LEARNING_RATE, betas=betas, eps=protocol.EPSILON, weight_decay=decay)
    pairs = [tuple(bc.array(part, dtype="int64") for part in (batch[:, :-1], batch[:, 1:])) for batch in tokens]

    def loop_step(i):
        optimizer.zero_grad()
        loss = model.loss(*pairs[i % len(pairs)])
        loss.backward()
        optimizer.step()
        return loss.item()

    trainer = bc.Trainer(
        model, data=lambda step: pairs[step % len(pairs)], optimizer=optimizer, steps=1, log_interval=1, progress=False
    )

    def trainer_step(i):
        # What `fit` does for each step; the protocol decides when.
        trainer._advance()
        return trainer.history[-1]["loss"]

    mode, step = ("loop", loop_step) if args.loop else ("trainer", trainer_step)
    first_token = int(tokens[0, 0, 0])
    protocol.serve(f"bullet_core-{bc.__version__}-{mode}", step, lambda: greedy_tokens_per_second(model, first_token))


if __name__ == "__main__":
    main()
