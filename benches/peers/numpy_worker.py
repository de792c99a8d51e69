"""NumPy as a peer: the reference model with its backward pass written out, as one does without a framework.

python numpy_worker.py DATA.safetensors

The number of threads of its matrix products is what OPENBLAS_NUM_THREADS or MKL_NUM_THREADS say.
"""

import argparse

import numpy as np
import protocol

GELU = np.float32(np.sqrt(2 / np.pi))
CUBIC = np.float32(0.044715)


def linear(x, w, b=None):
    """`x w + b`, and what turns the gradient of that into those of x, w and b."""
    y = x @ w if b is None else x @ w + b

    def back(dy):
        rows = dy.reshape(-1, dy.shape[-1])
        return dy @ w.T, x.reshape(-1, x.shape[-1]).T @ rows, rows.sum(0)

    return y, back


def layer_norm(x, w, b):
    """The normalised x times w plus b."""
    centred = x - x.mean(-1, keepdims=True)
    scale = 1 / np.sqrt((centred * centred).mean(-1, keepdims=True) + np.float32(protocol.NORM_EPSILON))
    normed = centred * scale

    def back(dy):
        dn = dy * w
        dx = scale * (dn - dn.mean(-1, keepdims=True) - normed * (dn * normed).mean(-1, keepdims=True))
        return dx, (dy * normed).sum((0, 1)), dy.sum((0, 1))

    return normed * w + b, back


def gelu(x):
    """GPT-2's approximation by tanh."""
    t = np.tanh(GELU * (x + CUBIC * x * x * x))

    def back(dy):
        return dy * (0.5 * (1 + t) + 0.5 * x * (1 - t * t) * GELU * (1 + 3 * CUBIC * x * x))

    return 0.5 * x * (1 + t), back


def attention(qkv, mask):
    """Causal attention of packed queries, keys and values."""
    batch, length, packed = qkv.shape
    width = packed // 3 // protocol.HEADS
    split = qkv.reshape(batch, length, 3, protocol.HEADS, width).transpose(2, 0, 3, 1, 4)
    q, k, v = (np.ascontiguousarray(part) for part in split)
    root = np.float32(1 / np.sqrt(width))
    scores = q @ k.swapaxes(2, 3) * root + mask
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)

    def merge(x):
        return x.transpose(0, 2, 1, 3).reshape(batch, length, -1)

    def back(dy):
        dy = dy.reshape(batch, length, protocol.HEADS, width).transpose(0, 2, 1, 3)
        dw = dy @ v.swapaxes(2, 3)
        ds = weights * (dw - (dw * weights).sum(-1, keepdims=True)) * root
        return np.concatenate([merge(ds @ k), merge(ds.swapaxes(2, 3) @ q), merge(weights.swapaxes(2, 3) @ dy)], -1)

    return merge(weights @ v), back


class Model:
    """The reference model and its AdamW."""

    def __init__(self, weights):
        self.p = weights
        self.layers = sum(name.endswith(".qkv.w") for name in weights)
        self.moments = {name: (np.zeros_like(w), np.zeros_like(w)) for name, w in weights.items()}
        context = len(weights["pos"])
        self.mask = np.triu(np.full((context, context), -np.inf, np.float32), 1)
        self.steps = 0

    def part(self, name, function, x):
        """Applies a function with the parameters of a name; keeps how to go back."""
        y, back = function(x, *(self.p[f"{name}.{f}"] for f in "wb" if f"{name}.{f}" in self.p))
        self.trail.append((name, back))
        return y

    def back(self, dy):
        """Takes one step back along the trail; notes the gradients of parameters."""
        name, back = self.trail.pop()
        if name is None:
            return back(dy)
        dx, *grads = back(dy)
        self.grads |= {f"{name}.{f}": g for f, g in zip("wb", grads, strict=False) if f"{name}.{f}" in self.p}
        return dx

    def free(self, pair):
        """As `part`, for a function without parameters, already applied."""
        self.trail.append((None, pair[1]))
        return pair[0]

    def loss_and_gradients(self, inputs, targets):
        """The mean cross-entropy; leaves the gradients in `self.grads`."""
        self.trail, self.grads = [], {}
        x = self.p["tok"][inputs] + self.p["pos"][: inputs.shape[1]]
        for i in range(self.layers):
            y = self.part(f"h{i}.qkv", linear, self.part(f"h{i}.ln1", layer_norm, x))
            x = x + self.part(f"h{i}.proj", linear, self.free(attention(y, self.mask)))
            y = self.free(gelu(self.part(f"h{i}.fc1", linear, self.part(f"h{i}.ln2", layer_norm, x))))
            x = x + self.part(f"h{i}.fc2", linear, y)
        logits = self.part("head", linear, self.part("lnf", layer_norm, x))
        logits -= logits.max(-1, keepdims=True)
        picked = np.take_along_axis(logits, targets[..., None], -1)
        chances = np.exp(logits)
        total = chances.sum(-1, keepdims=True)
        loss = float((np.log(total) - picked).mean())
        chances /= total
        np.put_along_axis(chances, targets[..., None], np.take_along_axis(chances, targets[..., None], -1) - 1, -1)
        dx = self.back(self.back(chances / np.float32(targets.size)))
        for _ in range(self.layers):
            dx = dx + self.back(self.back(self.back(self.back(dx))))
            dx = dx + self.back(self.back(self.back(self.back(dx))))
        self.grads["pos"] = dx.sum(0)
        self.grads["tok"] = np.zeros_like(self.p["tok"])
        np.add.at(self.grads["tok"], inputs, dx)
        return loss

    def update(self):
        """AdamW, in place."""
        self.steps += 1
        rate, b1, b2 = np.float32(protocol.LEARNING_RATE), np.float32(protocol.BETA1), np.float32(protocol.BETA2)
        c1, c2 = np.float32(1 - protocol.BETA1**self.steps), np.float32(1 - protocol.BETA2**self.steps)
        for name, weight in self.p.items():
            grad, (mean, square) = self.grads[name], self.moments[name]
            weight *= 1 - rate * np.float32(protocol.WEIGHT_DECAY)
            mean *= b1
            mean += (1 - b1) * grad
            square *= b2
            square += (1 - b2) * grad * grad
            weight -= rate / c1 * mean / (np.sqrt(square / c2) + np.float32(protocol.EPSILON))


def main():
    """Parses the command line and serves."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data")
    weights, tokens = protocol.load(parser.parse_args().data)
    model = Model(weights)
    pairs = [(batch[:, :-1].astype(np.int64), batch[:, 1:].astype(np.int64)) for batch in tokens]

    def step(i):
        loss = model.loss_and_gradients(*pairs[i % len(pairs)])
        model.update()
        return loss

    protocol.serve(f"numpy-{np.__version__}", step)


if __name__ == "__main__":
    main()
