"""The text tower: words, and hashed character n-grams of unknown ones, as rows of one embedding table.

Suffixes: B batch, E entries of all bags, R rows of the table, D dimensions.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenisedTexts:
    """Texts as rows of the table.

    Attributes:
        row_ids: (E,) all rows of text 0, then of text 1, ...
        starts: (B,) where each text's rows begin.
        word_counts: (B,) words a text.
    """

    row_ids: Tensor
    starts: Tensor
    word_counts: Tensor

    def __len__(self) -> int:
        """B."""
        return len(self.starts)


class Tokeniser:
    """Splits texts at "_" and says which rows of the table stand for each word.

    A word of the vocabulary has a row of its own; a word outside it is the sum of its hashed character
    n-grams. With `share_ngrams` the words of the vocabulary have their n-grams beside their own row, so that
    related words share what they learn. Hashes are CRC-32: the same on every machine.

    Args:
        vocabulary: the words known beforehand; duplicates count once.
        buckets: rows that n-grams are hashed to.
        ngram: characters an n-gram.
        share_ngrams: whether known words have n-grams too.
    """

    def __init__(self, vocabulary: Iterable[str], *, buckets: int, ngram: int = 3, share_ngrams: bool = False) -> None:
        self._own = {word: row for row, word in enumerate(dict.fromkeys(vocabulary))}
        self._buckets = buckets
        self._ngram = ngram
        self._share_ngrams = share_ngrams
        self._known: dict[str, list[int]] = {}

    @property
    def rows(self) -> int:
        """Rows the table needs."""
        return len(self._own) + self._buckets

    def rows_of(self, word: str) -> list[int]:
        """The table rows whose sum stands for a word."""
        if word not in self._known:
            rows = [self._own[word]] if word in self._own else []
            if self._share_ngrams or not rows:
                padded = f"<{word}>"
                starts = range(max(1, len(padded) - self._ngram + 1))
                grams = (padded[start : start + self._ngram] for start in starts)
                rows += [len(self._own) + zlib.crc32(gram.encode()) % self._buckets for gram in grams]
            self._known[word] = rows
        return self._known[word]

    def __call__(self, texts: Sequence[str]) -> TokenisedTexts:
        """The rows of each text."""
        words = [text.split("_") for text in texts]
        rows = [[row for word in text for row in self.rows_of(word)] for text in words]
        sizes = torch.tensor([len(text) for text in rows])
        return TokenisedTexts(
            row_ids=torch.tensor([row for text in rows for row in text]),
            starts=sizes.cumsum(0) - sizes,
            word_counts=torch.tensor([len(text) for text in words]),
        )


class BagSum(torch.autograd.Function):
    """Sums of table rows, one bag a text; `embedding_bag` with a backward pass of the same speed.

    The gradient of a row is the sum of the gradients of the texts it is in: a bag of sums again, over the
    transposed lists. PyTorch's own backward for CPUs takes four times as long (docs/LAB.md).
    """

    @staticmethod
    def forward(ctx: Any, table_RD: Tensor, row_ids_E: Tensor, starts_B: Tensor) -> Tensor:
        """(B, D) sums."""
        ctx.save_for_backward(row_ids_E, starts_B)
        ctx.rows = len(table_RD)
        return F.embedding_bag(row_ids_E, table_RD, starts_B, mode="sum")

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        """Gradient of the table, (R, D)."""
        row_ids_E, starts_B = ctx.saved_tensors
        sizes_B = torch.diff(starts_B, append=starts_B.new_tensor([len(row_ids_E)]))
        text_ids_E = torch.repeat_interleave(torch.arange(len(starts_B), device=starts_B.device), sizes_B)
        by_row_E = torch.argsort(row_ids_E, stable=True)
        counts_R = torch.bincount(row_ids_E, minlength=ctx.rows)
        starts_R = counts_R.cumsum(0) - counts_R
        return F.embedding_bag(text_ids_E[by_row_E], grads[0].contiguous(), starts_R, mode="sum"), None, None


class TextTower(nn.Module):
    """Sum of the word embeddings of a text, divided by the root of their number, then LayerNorm.

    The order of the words says nothing (they are shuffled), so a bag loses nothing.

    Args:
        rows: R.
        dim: D.
        learns_missing: whether a missing text has an embedding of its own, as if it were a text of one word.
    """

    def __init__(self, rows: int, dim: int, *, learns_missing: bool = False) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.randn(rows, dim))
        self.norm = nn.LayerNorm(dim)
        self.learns_missing = learns_missing
        if learns_missing:
            self.missing_D = nn.Parameter(torch.randn(dim))

    def forward(self, texts: TokenisedTexts, missing: Tensor | None = None) -> Tensor:
        """(B, D) representations."""
        sums_BD: Tensor = BagSum.apply(self.table, texts.row_ids, texts.starts)
        means_BD = sums_BD / texts.word_counts[:, None].sqrt()
        if missing is not None:
            means_BD = torch.where(missing[:, None], self.missing_D, means_BD)
        rep_BD: Tensor = self.norm(means_BD)
        return rep_BD
