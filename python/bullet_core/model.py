"""`Transformer`: the language model, in Python to be read and changed, and in Rust where that is faster.

The parameters of the Python modules are those of a Rust model that is held beside them. Generation runs there, with cached
keys and values, and on a GPU in one launch for many tokens. A model whose parts were replaced by other ones generates by its
`forward`, as any function from tokens to logits does (`generate`).
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Self

from ._core import Tensor, _nn, array, cross_entropy
from .autograd import no_grad
from .nn import Embedding, Linear, Module, TransformerBlock, dropout, init
from .nn.transformer import make_norm, norm_of

__all__ = ["Tokenizer", "Transformer", "generate", "load", "load_tensors", "save_tensors"]

if TYPE_CHECKING:

    class Tokenizer:
        """Text to token ids and back: a vocabulary of characters, or byte-level byte-pair encoding."""

        kind: str
        vocab_size: int

        def __init__(self, json: str) -> None: ...
        @staticmethod
        def train(text: str, kind: str = "char", *, vocab_size: int = 512) -> Tokenizer: ...
        def encode(self, text: str) -> list[int]: ...
        def decode(self, ids: Sequence[int]) -> str: ...
        def to_json(self) -> str: ...
        def __len__(self) -> int: ...

else:
    Tokenizer = _nn.Tokenizer

Prompt = str | Sequence[int]
Stop = str | int | Sequence[str] | Sequence[int] | None


class Transformer(Module):
    """A decoder-only transformer, normalised before each part: GPT-2 (Radford et al. 2019), or LLaMA (Touvron et al. 2023)
    with `positions="rope", norm="rms", feed_forward="swiglu", bias=False`.

    `vocab` is the number of token ids, or a tokenizer, which the model then keeps. `ff` is 4 * dim if not given.
    """

    def __init__(
        self,
        vocab: int | Tokenizer,
        *,
        dim: int = 128,
        layers: int = 4,
        heads: int = 4,
        kv_heads: int = 0,
        ff: int | None = None,
        max_seq: int = 256,
        positions: str = "learned",
        rope_base: float = 10_000.0,
        norm: str = "layer",
        norm_eps: float = 1e-5,
        feed_forward: str = "gelu_tanh",
        bias: bool = True,
        head_bias: bool = False,
        tie_embeddings: bool = False,
        dropout: float = 0.0,
        seed: int = 0,
        dtype: Any = None,
        device: Any = None,
        tokenizer: Tokenizer | None = None,
    ):
        if isinstance(vocab, Tokenizer):
            tokenizer = vocab
        count = vocab.vocab_size if isinstance(vocab, Tokenizer) else vocab
        sizes = dict(vocab=count, dim=dim, layers=layers, heads=heads, kv_heads=kv_heads, max_seq=max_seq)
        config = dict(sizes, ff=4 * dim if ff is None else ff, positions=positions, rope_base=rope_base)
        config |= dict(norm=norm, norm_eps=norm_eps, feed_forward=feed_forward, bias=bias, head_bias=head_bias)
        config |= dict(tie_embeddings=tie_embeddings, dropout=dropout)
        self._adopt(_nn.TransformerCore(json.dumps(config), seed, dtype=dtype, device=device), tokenizer)

    @classmethod
    def _of(cls, core: Any, tokenizer: Tokenizer | None) -> Self:
        """The model of a Rust model."""
        self = cls.__new__(cls)
        self._adopt(core, tokenizer)
        return self

    def _adopt(self, core: Any, tokenizer: Tokenizer | None) -> None:
        """Builds the modules, and makes the Rust model's parameters theirs."""
        self.tokenizer = tokenizer
        self.config: dict[str, Any] = json.loads(core.config())
        with init.blank():
            self._build(self.config)
        self._core = core
        own = dict(self.named_parameters())
        for name, leaf in core.named_parameters():
            _nn.replace(own[name], leaf)
        self._named = [name for name, _ in self.named_parameters()]
        self._built = [(name, type(module)) for name, module in self.named_modules()]

    def _build(self, config: dict[str, Any]) -> None:
        dim, bias, eps = config["dim"], config["bias"], config["norm_eps"]
        rope = config["rope_base"] if config["positions"] == "rope" else None
        self.tok_embedding = Embedding(config["vocab"], dim)
        self.pos_embedding = Embedding(config["max_seq"], dim) if config["positions"] == "learned" else None
        block = dict(kv_heads=config["kv_heads"] or None, rope=rope, feed_forward=config["feed_forward"], bias=bias)
        block |= dict(norm=config["norm"], norm_eps=eps, dropout=config["dropout"], out=init.residual(config["layers"]))
        self.blocks = [TransformerBlock(dim, config["heads"], config["ff"], **block) for _ in range(config["layers"])]
        self.ln_f = make_norm(config["norm"], dim, bias, eps)
        self.head = Linear(dim, config["vocab"], config["head_bias"], fill=init.GPT2)
        if config["tie_embeddings"]:
            self.head.weight = self.tok_embedding.weight

    @property
    def vocab(self) -> int:
        """Number of token ids."""
        return self.config["vocab"]

    @property
    def max_seq(self) -> int:
        """Longest sequence."""
        return self.config["max_seq"]

    def forward(self, tokens: Tensor) -> Tensor:
        """Token ids (batch, sequence) to logits (batch, sequence, vocab)."""
        if tokens.ndim != 2 or not 0 < tokens.shape[1] <= self.max_seq:
            raise ValueError(
                f"token ids must have shape (batch, sequence) with 1 to {self.max_seq} tokens (max_seq), got {tokens.shape}"
            )
        x, added = self.tok_embedding(tokens), None
        if self.pos_embedding is not None:
            x = x + self.pos_embedding.rows(0, tokens.shape[1])
        x = dropout(x, self.config["dropout"], self.training)
        for block in self.blocks:
            x, added = block.stream(x, added)
        return self.head(norm_of(self.ln_f, x, added)[0])

    def loss(self, tokens: Tensor, targets: Tensor) -> Tensor:
        """Mean cross-entropy in nats of `targets` (batch, sequence); those of -100 count for nothing."""
        return cross_entropy(self(tokens), targets)

    def to(self, *places: Any) -> Self:
        super().to(*places)
        self._renew()
        return self

    def _renew(self) -> None:
        """Makes a Rust model of what the modules hold, and its parameters theirs."""
        some = next(self.parameters())
        core = _nn.TransformerCore(json.dumps(self.config), 0, dtype=some.dtype, device=some.device)
        if self._is_as_built():
            own = dict(self.named_parameters())
            core.follow(list(own.items()))
            for name, leaf in core.named_parameters():
                tracked = own[name].requires_grad
                _nn.replace(own[name], leaf if tracked else leaf.detach())
        self._core = core

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_core"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._renew()

    def _is_as_built(self) -> bool:
        """Whether the Rust model computes what `forward` does: no part was replaced by one of another kind."""
        same = self._built == [(name, type(module)) for name, module in self.named_modules()]
        return (
            same
            and type(self).forward is Transformer.forward
            and self._named == [name for name, _ in self.named_parameters()]
        )

    def generate(
        self,
        prompt: Prompt = "\n",
        max_tokens: int | None = 256,
        *,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        seed: int = 0,
        stop: Stop = None,
    ) -> Iterator[Any]:
        """Yields what follows `prompt` as it comes: pieces of text for a text, token ids for a sequence of them.

        At temperature 0 the likeliest token is taken; `stop` is text, or tokens, at which it ends, and which are not
        yielded. `max_tokens=None` has no end.
        """
        options: dict[str, Any] = dict(temperature=temperature, top_k=top_k, top_p=top_p, seed=seed)
        if not self._is_as_built():
            return generate(self, prompt, max_tokens, tokenizer=self.tokenizer, max_seq=self.max_seq, stop=stop, **options)
        self._core.follow(list(self.named_parameters()))
        ids, tokenizer = _encode(prompt, self.tokenizer)
        pieces = self._core.generate(ids, tokenizer=tokenizer, max_tokens=max_tokens, **options)
        return _until(pieces, stop)

    def text(self, prompt: str = "\n", max_tokens: int = 256, **options: Any) -> str:
        """What `generate` yields, in one piece, behind the prompt."""
        return prompt + "".join(self.generate(prompt, max_tokens, **options))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes configuration, tokenizer and parameters: for `load`, `bullet generate` and the like."""
        if not self._is_as_built():
            return super().save(path)
        tensors = [(f"model.{name}", tensor) for name, tensor in self.state_dict().items()]
        _nn.save(path, tensors, model=json.dumps(self.config), tokenizer=self.tokenizer)
        return None

    def extra_repr(self) -> str:
        return ""


def load(path: str | os.PathLike[str], *, device: Any = None) -> Transformer:
    """The model in a `.bullet` or safetensors file, with its tokenizer, in the dtype it was saved in."""
    tensors, config, tokenizer, _ = _nn.read(path, device)
    if config == "null":
        raise ValueError(
            f"{os.fspath(path)!r} does not say what model its tensors are; read them with load_tensors(), or load() of the "
            "module that saved them"
        )
    state = {name.removeprefix("model."): t for name, t in tensors if name.startswith("model.")}
    if not state:
        raise ValueError(f"{os.fspath(path)!r} has no model tensors")
    dtype = next(iter(state.values())).dtype
    model = Transformer._of(_nn.TransformerCore(config, 0, dtype=dtype, device=device), tokenizer)
    model.load_state_dict(state)
    return model.eval()


def load_tensors(path: str | os.PathLike[str], *, device: Any = None) -> dict[str, Tensor]:
    """All tensors of a `.bullet` or safetensors file, by name."""
    return dict(_nn.read(path, device)[0])


def save_tensors(
    path: str | os.PathLike[str], tensors: dict[str, Tensor], *, metadata: dict[str, str] | None = None
) -> None:
    """Writes tensors: to a safetensors file if the name ends so, else to a `.bullet` file."""
    _nn.save(path, list(tensors.items()), metadata=metadata or {})


def generate(
    model: Callable[[Tensor], Tensor],
    prompt: Prompt,
    max_tokens: int | None = 256,
    *,
    tokenizer: Tokenizer | None = None,
    max_seq: int | None = None,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    seed: int = 0,
    stop: Stop = None,
) -> Iterator[Any]:
    """As `Transformer.generate`, of any function from token ids (1, n) to logits (1, n, vocab).

    It is called for the whole text again for each token, or for the last `max_seq` tokens of it.
    """
    ids, decoder = _encode(prompt, tokenizer)
    options: dict[str, Any] = dict(temperature=temperature, top_k=top_k, top_p=top_p, seed=seed)
    return _until(_tokens(model, ids, decoder, max_tokens, max_seq, options), stop)


def _tokens(
    model: Any, ids: list[int], tokenizer: Tokenizer | None, max_tokens: int | None, max_seq: int | None, options: Any
) -> Iterator[Any]:
    ids, step = list(ids), 0
    pending: list[int] = []
    device = next((p.device for p in model.parameters()), None) if isinstance(model, Module) else None
    while max_tokens is None or step < max_tokens:
        window = ids[-max_seq:] if max_seq else ids
        training = isinstance(model, Module) and model.training
        if training:
            model.eval()
        try:
            with no_grad():
                logits = model(array([window], dtype="int64", device=device))
        finally:
            if training:
                model.train()
        token = _nn.sample(logits[0, -1], step, **options)
        ids.append(token)
        step += 1
        if tokenizer is None:
            yield token
            continue
        pending.append(token)
        text = tokenizer.decode(pending)
        # The bytes of a character may come in several tokens.
        if not text.endswith("\ufffd") or len(pending) >= 4:
            pending = []
            yield text
    if pending and tokenizer is not None:
        yield tokenizer.decode(pending)


def _encode(prompt: Prompt, tokenizer: Tokenizer | None) -> tuple[list[int], Tokenizer | None]:
    """The token ids of a prompt, and the tokenizer if text is asked for."""
    if not isinstance(prompt, str):
        return [int(token) for token in prompt], None
    if tokenizer is None:
        raise ValueError("a prompt of text needs a tokenizer, and the model has none; give token ids, or set its tokenizer")
    return tokenizer.encode(prompt), tokenizer


def _until(pieces: Iterable[Any], stop: Stop) -> Iterator[Any]:
    """Ends before `stop`; holds back what may become the beginning of it."""
    stops: list[Any] = [] if stop is None else [stop] if isinstance(stop, (str, int)) else list(stop)
    held = ""
    for piece in pieces:
        if not isinstance(piece, str):
            if piece in stops:
                return
            yield piece
            continue
        held += piece
        found = [at for at in (held.find(s) for s in stops) if at >= 0]
        if found:
            if held[: min(found)]:
                yield held[: min(found)]
            return
        longest = max((n for s in stops for n in range(1, len(s)) if held.endswith(s[:n])), default=0)
        if len(held) > longest:
            yield held[: len(held) - longest]
            held = held[len(held) - longest :]
    if held:
        yield held
