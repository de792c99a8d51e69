"""Batches: of arrays, and of text as `bullet train` draws them. A batch is a function of seed and step, so that a run that
resumes sees what it would have seen."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ._core import Tensor, _nn, asarray

__all__ = ["Batches", "TextBatches", "tiny_shakespeare"]

tiny_shakespeare = _nn.tiny_shakespeare


class Batches:
    """Rows of arrays of one length, `size` at a time, in another order every epoch; the rest of an epoch is left out.

    `batch(step)` is the batch of a step; iterating goes over one epoch.
    """

    def __init__(self, *arrays: Any, size: int, shuffle: bool = True, seed: int = 0):
        import numpy as np

        self._arrays = [array.numpy() if isinstance(array, Tensor) else np.asarray(array) for array in arrays]
        lengths = {len(array) for array in self._arrays}
        if len(lengths) != 1:
            raise ValueError(f"the arrays have {sorted(lengths)} rows; expected one length")
        self.rows, self.size, self.shuffle, self.seed = lengths.pop(), size, shuffle, seed
        if not 0 < size <= self.rows:
            raise ValueError(f"size = {size}: expected 1 to {self.rows}, the number of rows")
        self._order: tuple[int, Any] = (-1, None)

    def __len__(self) -> int:
        return self.rows // self.size

    def batch(self, step: int) -> tuple[Tensor, ...]:
        """The batch of a step, counted from 0."""
        import numpy as np

        epoch, at = divmod(step, len(self))
        if self._order[0] != epoch:
            order = np.arange(self.rows)
            if self.shuffle:
                order = np.random.Generator(np.random.PCG64((self.seed, epoch))).permutation(self.rows)
            self._order = (epoch, order)
        rows = self._order[1][at * self.size : (at + 1) * self.size]
        return tuple(asarray(array[rows]) for array in self._arrays)

    def __iter__(self) -> Iterator[tuple[Tensor, ...]]:
        return (self.batch(step) for step in range(len(self)))


class TextBatches:
    """Random windows of a text's tokens: inputs, and targets one token later, each (batch, sequence).

    Those of a seed are the ones that `bullet train` draws. `validation` is a share of the text, from its end, that is kept
    out, and is `self.validation` then.
    """

    def __init__(
        self,
        text: str,
        tokenizer: _nn.Tokenizer,
        *,
        batch: int,
        sequence: int,
        seed: int = 0,
        validation: float = 0.1,
    ):
        train, rest = _nn.TokenData.of_text(text, tokenizer, validation)
        self._data, self._of = train, (batch, sequence, seed)
        self.validation = _Validation(rest, batch, sequence) if len(rest) > 1 else None

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        """The windows of a step."""
        return self._data.windows(step, *self._of, False)

    def __len__(self) -> int:
        """Tokens."""
        return len(self._data)


class _Validation:
    """Every token of the rest of a text but the first, once as a target."""

    def __init__(self, data: Any, batch: int, sequence: int):
        self._data, self._of = data, (batch, sequence)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        return (batch for batch, _ in self.weighted())

    def weighted(self) -> Iterator[tuple[tuple[Tensor, Tensor], int]]:
        """Each batch with how many of its targets count."""
        return iter(self._data.all_windows(*self._of))
