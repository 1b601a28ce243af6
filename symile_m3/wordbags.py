"""Texts as bags of words, and how alike the samples of a batch are by the words that they share.

Suffixes: B rows of this process, N rows of all processes, W words of the longest text, V distinct words.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import torch
import torch.distributed as dist
from torch import Tensor

from symile_m3.objectives.distributed import Ranks
from symile_m3.seeds import philox_key

_NONE = -1
_AT_A_TIME = 4096  # distinct words that are counted at once


@lru_cache(maxsize=1 << 16)
def _number(word: str) -> int:
    return philox_key("word", word) % 2**63


def word_numbers(texts: Sequence[Sequence[str]]) -> Tensor:
    """(B, W) a number for each word of each text, -1 behind the last; a word has the same one on every machine."""
    numbers_BW = torch.full((len(texts), max(map(len, texts), default=0)), _NONE, dtype=torch.int64)
    for row, words in enumerate(texts):
        numbers_BW[row, : len(words)] = torch.tensor([_number(word) for word in words], dtype=torch.int64)
    return numbers_BW


def text_similarity(words_BW: Tensor, group: dist.ProcessGroup | None = None) -> Tensor:
    """How alike the texts of this process's samples are to those of all: the cosine of their bags of words.

    A bag says how often each word is in a text, in no order. A text without a word is like no other. Each is like
    itself.

    Args:
        words_BW: as `word_numbers` makes them; W may differ from process to process.
        group: processes that hold the rest of the batch, each B rows.

    Returns:
        (B, N) from 0 to 1; float32.
    """
    ranks = Ranks(group)
    longest = torch.tensor(words_BW.shape[1], device=words_BW.device)
    if ranks.world > 1:
        dist.all_reduce(longest, dist.ReduceOp.MAX, group=group)
    padding = (0, int(longest) - words_BW.shape[1])
    words_NW = ranks.gather_rows(torch.nn.functional.pad(words_BW, padding, value=_NONE))
    start, stop = ranks.own(len(words_BW))
    distinct, column_NW = torch.unique(words_NW, return_inverse=True)
    dots_BN = torch.zeros(len(words_BW), len(words_NW), device=words_BW.device)
    squares_N = torch.zeros(len(words_NW), device=words_BW.device)
    for first in range(0, len(distinct), _AT_A_TIME):
        last = min(len(distinct), first + _AT_A_TIME)
        counted_NW = (column_NW >= first) & (column_NW < last) & (words_NW != _NONE)
        counts_NV = torch.zeros(len(words_NW), last - first, device=words_BW.device)
        counts_NV.scatter_add_(1, (column_NW - first).clamp(0, last - first - 1), counted_NW.float())
        dots_BN += counts_NV[start:stop] @ counts_NV.T
        squares_N += counts_NV.square().sum(dim=1)
    squares_N.clamp_(min=1)  # of an empty bag too
    similarity_BN = dots_BN / (squares_N[start:stop, None] * squares_N).sqrt()
    similarity_BN[:, start:stop].fill_diagonal_(1.0)
    return similarity_BN
