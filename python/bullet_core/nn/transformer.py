"""Attention, the feed-forward part, and the block they make; parameters are named as in Rust's modules."""

from __future__ import annotations

from .._core import Tensor, _nn, silu
from . import init
from .layers import LayerNorm, Linear, RMSNorm
from .module import Module

__all__ = ["MLP", "Attention", "TransformerBlock"]

_ACTIVATIONS = ("gelu", "gelu_tanh", "relu", "silu")


class Attention(Module):
    """Multi-head attention (Vaswani et al. 2017): one product for queries, keys and values, attention, a projection.

    `kv_heads` heads of keys and values are shared by the query heads (Ainslie et al. 2023); `rope` is the base of a rotary
    embedding of queries and keys, or None.
    """

    def __init__(
        self,
        dim: int,
        heads: int,
        *,
        kv_heads: int | None = None,
        causal: bool = True,
        rope: float | None = None,
        bias: bool = True,
        dropout: float = 0.0,
        out: init.Fill = init.GPT2,
    ):
        kv_heads = kv_heads or heads
        if heads < 1 or dim % heads or heads % kv_heads:
            raise ValueError(f"heads = {heads} must divide dim = {dim}, and kv_heads = {kv_heads} must divide heads")
        self.heads, self.kv_heads, self.width = heads, kv_heads, dim // heads
        self.causal, self.rope, self.dropout = causal, rope, dropout
        self.qkv = Linear(dim, (heads + 2 * kv_heads) * self.width, bias, fill=init.GPT2)
        self.proj = Linear(dim, dim, bias, fill=out)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """(batch, sequence, dim) to the same; `mask` broadcasts to (batch, heads, sequence, sequence)."""
        batch, length, dim = x.shape
        heads, kv_heads = self.heads, self.kv_heads
        qkv = self.qkv(x)
        if self.rope is not None:
            split = qkv.reshape(batch, length, heads + 2 * kv_heads, self.width)
            qkv = _nn.rope(split, base=self.rope, heads=heads + kv_heads).reshape(qkv.shape)
        if mask is None:
            p = self.dropout if self.training else 0.0
            y = _nn.attention_packed(qkv, heads, kv_heads, causal=self.causal, dropout=p)
        else:
            split = qkv.reshape(batch, length, heads + 2 * kv_heads, self.width).transpose(1, 2)
            q, k, v = _nn.split(split, [heads, kv_heads, kv_heads], 1)
            y = _nn.attention(q, k, v, mask=mask, causal=self.causal).transpose(1, 2)
        return self.proj(y.reshape(batch, length, dim))


class MLP(Module):
    """Two linear layers with an activation between them, or SwiGLU (Shazeer 2020)."""

    def __init__(self, dim: int, ff: int, kind: str = "gelu", bias: bool = True, *, out: init.Fill = init.GPT2):
        if kind not in (*_ACTIVATIONS, "swiglu"):
            raise ValueError(f"kind = {kind!r}: expected 'swiglu' or one of {', '.join(map(repr, _ACTIVATIONS))}")
        self.kind = kind
        self.fc1 = Linear(dim, 2 * ff if kind == "swiglu" else ff, bias, fill=init.GPT2)
        self.fc2 = Linear(ff, dim, bias, fill=out)

    def forward(self, x: Tensor) -> Tensor:
        if self.kind != "swiglu":
            return self.fc2(self.fc1(x, self.kind))
        x = self.fc1(x)
        gate, value = _nn.split(x, [x.shape[-1] // 2] * 2)
        return self.fc2(silu(gate) * value)


class TransformerBlock(Module):
    """Attention, then feed-forward, each normalised before and added to its input (pre-norm: Xiong et al. 2020)."""

    def __init__(
        self,
        dim: int,
        heads: int,
        ff: int,
        *,
        kv_heads: int | None = None,
        causal: bool = True,
        rope: float | None = None,
        feed_forward: str = "gelu",
        norm: str = "layer",
        norm_eps: float = 1e-5,
        bias: bool = True,
        dropout: float = 0.0,
        out: init.Fill = init.GPT2,
    ):
        self.dropout = dropout
        self.ln1 = make_norm(norm, dim, bias, norm_eps)
        self.attn = Attention(
            dim, heads, kv_heads=kv_heads, causal=causal, rope=rope, bias=bias, dropout=dropout, out=out
        )
        self.ln2 = make_norm(norm, dim, bias, norm_eps)
        self.mlp = MLP(dim, ff, feed_forward, bias, out=out)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, sequence, dim) to the same."""
        x, added = self.stream(x, None)
        return x + added

    def stream(self, x: Tensor, added: Tensor | None) -> tuple[Tensor, Tensor]:
        """As `forward` of `x + added`, without doing the last sum: the norm that comes next does both at once."""
        normed, x = norm_of(self.ln1, x, added)
        normed, x = norm_of(self.ln2, x, self.drop(self.attn(normed)))
        return x, self.drop(self.mlp(normed))

    def drop(self, x: Tensor) -> Tensor:
        """Dropout of what a part adds."""
        return _nn.dropout(x, self.dropout) if self.training else x


def make_norm(kind: str, width: int, bias: bool, eps: float) -> LayerNorm | RMSNorm:
    """The norm called "layer" or "rms"."""
    if kind == "layer":
        return LayerNorm(width, bias, eps=eps)
    if kind == "rms":
        return RMSNorm(width, eps=eps)
    raise ValueError(f"norm = {kind!r}: expected 'layer' or 'rms'")


def norm_of(norm: LayerNorm | RMSNorm, x: Tensor, added: Tensor | None) -> tuple[Tensor, Tensor]:
    """The norm of `x + added`, and that sum."""
    return (norm(x), x) if added is None else norm.of_sum(x, added)
