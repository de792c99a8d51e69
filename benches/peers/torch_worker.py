"""PyTorch as a peer.

python torch_worker.py DATA.safetensors [--compile] [--bf16]      (--bf16: autocast, weights stay fp32)

The number of threads is BENCH_THREADS.
"""

import argparse
import os
import time

import protocol
import torch
from torch import nn
from torch.nn import functional as F


class Block(nn.Module):
    """One pre-norm transformer block."""

    def __init__(self, width, hidden):
        super().__init__()
        self.ln1 = nn.LayerNorm(width, eps=protocol.NORM_EPSILON)
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        self.ln2 = nn.LayerNorm(width, eps=protocol.NORM_EPSILON)
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)

    def heads(self, x):
        """Queries, keys and values of `x`, each `[batch, heads, time, width / heads]`."""
        batch, length, width = x.shape
        split = self.qkv(self.ln1(x)).view(batch, length, 3, protocol.HEADS, width // protocol.HEADS)
        return split.permute(2, 0, 3, 1, 4)

    def finish(self, x, mixed):
        """The block after attention: projection, MLP and both residual sums."""
        x = x + self.proj(mixed.transpose(1, 2).reshape(x.shape))
        return x + self.fc2(F.gelu(self.fc1(self.ln2(x)), approximate="tanh"))

    def forward(self, x):
        """The block over whole sequences."""
        q, k, v = self.heads(x)
        return self.finish(x, F.scaled_dot_product_attention(q, k, v, is_causal=True))

    def decode(self, x, cache, position):
        """The block for one token at `position`; `cache` is `[2, batch, heads, context, width / heads]`."""
        q, k, v = self.heads(x)
        cache[0, :, :, position : position + 1] = k
        cache[1, :, :, position : position + 1] = v
        keys, values = cache[:, :, :, : position + 1]
        return self.finish(x, F.scaled_dot_product_attention(q, keys, values))


class Model(nn.Module):
    """The reference model: learned positions, an untied head without bias."""

    def __init__(self, weights):
        super().__init__()
        vocabulary, width = weights["tok"].shape
        hidden = weights["h0.fc1.w"].shape[1]
        layers = sum(name.endswith(".qkv.w") for name in weights)
        self.tok = nn.Embedding(vocabulary, width)
        self.pos = nn.Embedding(len(weights["pos"]), width)
        self.h = nn.ModuleList(Block(width, hidden) for _ in range(layers))
        self.lnf = nn.LayerNorm(width, eps=protocol.NORM_EPSILON)
        self.head = nn.Linear(width, vocabulary, bias=False)
        self.set_weights(weights)

    @torch.no_grad()
    def set_weights(self, weights):
        """Copies the data file's weights; nn.Linear stores `[out, in]`, the file `[in, out]`."""
        modules = dict(self.named_modules())
        for name, array in weights.items():
            value = torch.from_numpy(array)
            module_name, _, field = name.rpartition(".")
            if not module_name:  # `tok` and `pos`
                modules[name].weight.copy_(value)
            elif field == "b":
                modules[self.module_path(module_name)].bias.copy_(value)
            else:
                module = modules[self.module_path(module_name)]
                module.weight.copy_(value.T if isinstance(module, nn.Linear) else value)

    @staticmethod
    def module_path(name):
        """`h0.qkv` in the file is `h.0.qkv` here."""
        return f"h.{name[1:]}" if name[0] == "h" and name[1].isdigit() else name

    def forward(self, tokens):
        """Logits `[batch, time, vocabulary]`."""
        x = self.tok(tokens) + self.pos.weight[: tokens.shape[1]]
        for block in self.h:
            x = block(x)
        return self.head(self.lnf(x))


def greedy_tokens_per_second(model, first_token, runs=20):
    """Greedy generation at batch 1 with a KV cache: one token of prompt, then as many as the context holds.
    The median of `runs` after one warm-up."""
    context, width = model.pos.weight.shape
    shape = (2, 1, protocol.HEADS, context, width // protocol.HEADS)

    @torch.inference_mode()
    def generate():
        caches = [torch.zeros(shape) for _ in model.h]
        token = first_token
        for position in range(context - 1):
            x = (model.tok.weight[token] + model.pos.weight[position]).view(1, 1, width)
            for block, cache in zip(model.h, caches):
                x = block.decode(x, cache, position)
            token = int(model.head(model.lnf(x)).argmax())

    generate()
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        generate()
        times.append(time.perf_counter() - start)
    return (context - 1) / sorted(times)[runs // 2]


def main():
    """Parses the command line and serves."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--bf16", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(int(os.environ.get("BENCH_THREADS", os.cpu_count())))
    weights, tokens = protocol.load(args.data)
    model = Model(weights)
    optimizer = torch.optim.AdamW(
        model.parameters(),
        lr=protocol.LEARNING_RATE,
        betas=(protocol.BETA1, protocol.BETA2),
        eps=protocol.EPSILON,
        weight_decay=protocol.WEIGHT_DECAY,
        fused=True,
    )
    batches = [torch.from_numpy(batch).long() for batch in tokens]
    pairs = [(batch[:, :-1].contiguous(), batch[:, 1:].contiguous()) for batch in batches]

    def loss_of(inputs, targets):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=args.bf16):
            logits = model(inputs)
        return F.cross_entropy(logits.float().view(-1, logits.shape[-1]), targets.view(-1))

    loss_function = torch.compile(loss_of) if args.compile else loss_of

    def step(i):
        optimizer.zero_grad(set_to_none=True)
        loss = loss_function(*pairs[i % len(pairs)])
        loss.backward()
        optimizer.step()
        return loss.item()

    mode = ("compile" if args.compile else "eager") + ("-bf16" if args.bf16 else "")
    first_token = int(tokens[0, 0, 0])
    protocol.serve(
        f"torch-{torch.__version__}-{mode}", step, lambda: greedy_tokens_per_second(model, first_token)
    )


if __name__ == "__main__":
    main()
