"""Times the installed Python package on the first GPU; lines of JSON as bullet-bench-gpu prints them."""

import json
import time

import bullet_core as bc
from bullet_core import optim

DEVICE = "cuda:0"
#: The reference model of benches/README.md.
MODEL = {"dim": 128, "layers": 4, "heads": 4, "ff": 256, "max_seq": 64}
VOCABULARY, SEQUENCE = 3000, 64


def say(section, case, value, unit):
    """One figure."""
    print(json.dumps({"section": section, "case": case, "peer": "bullet_core", "value": value, "unit": unit}), flush=True)


def launch():
    """Time of the host for one launch of a tiny kernel, the median of seven runs that the GPU keeps up with."""
    x, y = bc.zeros(1024, device=DEVICE), bc.ones(1024, device=DEVICE)
    device, calls = bc.Device(DEVICE), 500

    def in_place():
        nonlocal x
        x += 1

    def added():
        x + y

    for case, run in (("host time a launch", in_place), ("host time of x + y", added)):
        times = []
        for _ in range(8):
            device.synchronize()
            start = time.perf_counter()
            for _ in range(calls):
                run()
            times.append((time.perf_counter() - start) / calls * 1e6)
        say("launch", case, sorted(times[1:])[3], "us")


def tokens(count):
    """As bullet-bench-gpu's."""
    return bc.array([((i * 2654435761) >> 7) % VOCABULARY for i in range(count)], dtype="int64")


def train():
    """The training step driven from Python: of 370 steps all but the first 20, which compile and capture."""
    warm, steps = 20, 370
    device = bc.Device(DEVICE)
    with bc.device(DEVICE):
        for batch in (16, 256):
            model = bc.Transformer(VOCABULARY, **MODEL)
            optimizer = optim.AdamW(model, 1e-3, weight_decay=0.01)
            ids = tokens(batch * SEQUENCE + 1)
            pair = ids[:-1].reshape(batch, SEQUENCE), ids[1:].reshape(batch, SEQUENCE)
            start = 0.0

            def began(step, _):
                nonlocal start
                if step == warm:
                    device.synchronize()
                    start = time.perf_counter()

            quiet = {"progress": False, "log_interval": 10**9, "callbacks": [began]}
            trainer = bc.Trainer(model, data=lambda _, pair=pair: pair, optimizer=optimizer, steps=steps, **quiet)
            trainer.fit()
            device.synchronize()
            say("train", f"micro B{batch} fp32", (time.perf_counter() - start) * 1e3 / (steps - warm), "ms/step")


if __name__ == "__main__":
    launch()
    train()
