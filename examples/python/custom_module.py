"""A module of one's own, trained on a function: its layers, its loss, and a plot in the terminal.

    python examples/python/custom_module.py [--quick]
"""

import argparse

import numpy as np

import bullet_core as bc
from bullet_core import nn, optim
from bullet_core.data import Batches


class Gated(nn.Module):
    """A linear layer whose outputs another one lets through, or not."""

    def __init__(self, inputs, outputs):
        self.value = nn.Linear(inputs, outputs)
        self.gate = nn.Linear(inputs, outputs)
        self.scale = nn.Parameter(np.ones(outputs, "float32"))

    def forward(self, x):
        return self.value(x) * bc.sigmoid(self.gate(x)) * self.scale


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few steps, to see that it runs")
    quick = parser.parse_args().quick

    nn.seed(0)
    x = np.linspace(-3, 3, 512, dtype="float32")[:, None]
    y = np.sin(2 * x) * np.exp(-x * x / 4)
    model = nn.Sequential(Gated(1, 64), bc.tanh, nn.Linear(64, 1))
    print(model)

    trainer = bc.Trainer(
        model,
        lambda model, x, y: ((model(x) - y) ** 2).mean(),
        Batches(x, y, size=64),
        optimizer=optim.AdamW(model, lr=1e-2, weight_decay=0.0),
        schedule=optim.cosine(1e-2, 100 if quick else 3000, warmup=20),
        steps=100 if quick else 3000,
        eval_data=[(x, y)],
    )
    report = trainer.fit()
    print(f"mean square error {report['evaluation']:.5f} after {report['steps']} steps in {report['seconds']:.1f} s")

    model.eval()
    with bc.no_grad():
        guess = model(bc.asarray(x)).numpy()
    for row in range(0, len(x), 24):
        line = [" "] * 61
        for value, mark in ((y[row, 0], "."), (guess[row, 0], "o")):
            line[int(np.clip(30 + 30 * value, 0, 60))] = mark
        print("".join(line))


if __name__ == "__main__":
    main()
