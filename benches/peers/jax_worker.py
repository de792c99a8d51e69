"""JAX as a peer: the whole training step is one jitted function with donated buffers.

python jax_worker.py DATA.safetensors      (threads: run.py limits the CPUs of the process; XLA has no own setting)
"""

import os
import sys

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import jax.numpy as jnp
import protocol


def layer_norm(x, params, name):
    """Layer norm over the last axis."""
    centred = x - x.mean(-1, keepdims=True)
    variance = (centred**2).mean(-1, keepdims=True)
    return centred * jax.lax.rsqrt(variance + protocol.NORM_EPSILON) * params[name + ".w"] + params[name + ".b"]


def linear(x, params, name):
    """`x @ w + b`."""
    return x @ params[name + ".w"] + params[name + ".b"]


def attention(x, params, block):
    """Causal self-attention of `x` `[batch, time, width]`."""
    batch, length, width = x.shape
    size = width // protocol.HEADS
    split = linear(x, params, block + ".qkv").reshape(batch, length, 3, protocol.HEADS, size)
    q, k, v = split.transpose(2, 0, 3, 1, 4)
    scores = jnp.einsum("bhtd,bhsd->bhts", q, k) / jnp.sqrt(jnp.float32(size))
    visible = jnp.tril(jnp.ones((length, length), bool))
    shares = jax.nn.softmax(jnp.where(visible, scores, -jnp.inf), axis=-1)
    mixed = jnp.einsum("bhts,bhsd->bhtd", shares, v).transpose(0, 2, 1, 3)
    return linear(mixed.reshape(batch, length, width), params, block + ".proj")


def loss_of(params, inputs, targets):
    """Mean cross-entropy of one batch."""
    x = params["tok"][inputs] + params["pos"]
    for layer in range(sum(name.endswith(".qkv.w") for name in params)):
        block = f"h{layer}"
        x = x + attention(layer_norm(x, params, block + ".ln1"), params, block)
        hidden = linear(layer_norm(x, params, block + ".ln2"), params, block + ".fc1")
        x = x + linear(jax.nn.gelu(hidden, approximate=True), params, block + ".fc2")
    logits = layer_norm(x, params, "lnf") @ params["head.w"]
    log_probabilities = jax.nn.log_softmax(logits)
    return -jnp.take_along_axis(log_probabilities, targets[..., None], axis=-1).mean()


def train_step(params, first, second, count, inputs, targets):
    """One AdamW step; `first` and `second` are the moments, `count` the steps done."""
    loss, grads = jax.value_and_grad(loss_of)(params, inputs, targets)
    count = count + 1
    b1, b2 = protocol.BETA1, protocol.BETA2
    first = jax.tree.map(lambda m, g: b1 * m + (1 - b1) * g, first, grads)
    second = jax.tree.map(lambda v, g: b2 * v + (1 - b2) * g * g, second, grads)

    def update(p, m, v):
        direction = (m / (1 - b1**count)) / (jnp.sqrt(v / (1 - b2**count)) + protocol.EPSILON)
        return p * (1 - protocol.LEARNING_RATE * protocol.WEIGHT_DECAY) - protocol.LEARNING_RATE * direction

    return jax.tree.map(update, params, first, second), first, second, count, loss


def main():
    """Reads the data and serves."""
    weights, tokens = protocol.load(sys.argv[1])
    params = {name: jnp.asarray(array) for name, array in weights.items()}
    state = (params, jax.tree.map(jnp.zeros_like, params), jax.tree.map(jnp.zeros_like, params), jnp.float32(0))
    batches = [(jnp.asarray(batch[:, :-1]), jnp.asarray(batch[:, 1:])) for batch in tokens]
    compiled = jax.jit(train_step, donate_argnums=(0, 1, 2, 3))

    def step(i):
        nonlocal state
        *state, loss = compiled(*state, *batches[i % len(batches)])
        return float(loss)

    protocol.serve(f"jax-{jax.__version__}", step)


if __name__ == "__main__":
    main()
