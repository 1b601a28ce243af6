"""The text tower: words and their character n-grams, hashed to rows of one embedding table.

Suffixes: B batch, U distinct words of a batch, W words a text, D dimensions.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenisedTexts:
    """Texts as table rows: each distinct word once, and which words each text has.

    Attributes:
        row_ids: all rows of word 0, then of word 1, ...
        row_starts: (U,) where each word's rows begin.
        word_ids: all words of text 0, then of text 1, ...
        word_starts: (B,) where each text's words begin.
        word_counts: (B,) words a text.
    """

    row_ids: Tensor
    row_starts: Tensor
    word_ids: Tensor
    word_starts: Tensor
    word_counts: Tensor


class Tokeniser:
    """Splits texts at "_" and hashes each word, and each of its character n-grams, to a row.

    A word has two rows of its own, so that hardly any two words share both. Hashes are CRC-32: the same
    on every machine.
    """

    def __init__(self, rows: int, ngram: int) -> None:
        self.rows = rows
        self.ngram = ngram
        self._known: dict[str, list[int]] = {}

    def rows_of(self, word: str) -> list[int]:
        """The table rows whose sum stands for a word."""
        if word not in self._known:
            pieces = [f"1:{word}", f"2:{word}"]
            if self.ngram:
                padded = f"<{word}>"
                pieces += [f"n:{padded[i : i + self.ngram]}" for i in range(max(1, len(padded) - self.ngram + 1))]
            self._known[word] = [zlib.crc32(piece.encode()) % self.rows for piece in pieces]
        return self._known[word]

    def __call__(self, texts: Sequence[str]) -> TokenisedTexts:
        seen: dict[str, int] = {}
        word_ids: list[int] = []
        counts: list[int] = []
        for text in texts:
            words = text.split("_")
            counts.append(len(words))
            word_ids += [seen.setdefault(word, len(seen)) for word in words]
        rows = [self.rows_of(word) for word in seen]
        sizes = torch.tensor([len(ids) for ids in rows])
        word_counts = torch.tensor(counts)
        return TokenisedTexts(
            row_ids=torch.tensor([row for ids in rows for row in ids]),
            row_starts=sizes.cumsum(0) - sizes,
            word_ids=torch.tensor(word_ids),
            word_starts=word_counts.cumsum(0) - word_counts,
            word_counts=word_counts,
        )


class TextTower(nn.Module):
    """Sum of the word embeddings of a text, scaled by the root of their number, then LayerNorm.

    The order of the words says nothing (they are shuffled), so a bag loses nothing.
    """

    def __init__(self, rows: int, dim: int) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.randn(rows, dim) / math.sqrt(2))
        self.norm = nn.LayerNorm(dim)

    def forward(self, texts: TokenisedTexts) -> Tensor:
        """(B, D) representations."""
        words_UD = F.embedding_bag(texts.row_ids, self.table, texts.row_starts, mode="sum")
        sums_BD = F.embedding_bag(texts.word_ids, words_UD, texts.word_starts, mode="sum")
        rep_BD: Tensor = self.norm(sums_BD / texts.word_counts[:, None].sqrt())
        return rep_BD
