"""Queries that each have candidates of their own, as in the clinical experiment: the right one among ten.

Suffixes: Q queries, K candidates of a query, N samples, D dimensions.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from symile_m3.errors import UsageError
from symile_m3.objectives.scores import Scores
from symile_m3.seeds import generator

_CELLS = 1 << 24  # scores that are held at a time


def draw_candidates(
    keys: Sequence[str], label_ids_N: Tensor, queries_Q: Tensor, allowed_N: Tensor, size: int, seed: int
) -> Tensor:
    """For each query its own row and others of other labels, drawn by seed and key, (Q, K).

    Args:
        keys: of all samples.
        label_ids_N: (N,) labels; samples with that of the query are never drawn.
        queries_Q: (Q,) rows of the queries.
        allowed_N: (N,) which samples can be candidates.
        size: K.

    Raises:
        UsageError: there are too few others.
    """
    labels = label_ids_N.numpy()
    pool = np.flatnonzero(allowed_N.numpy())
    rows = []
    for query in queries_Q.tolist():
        others = pool[labels[pool] != labels[query]]
        if len(others) < size - 1:
            raise UsageError(
                f"{size} candidates: sample {keys[query]} has only {len(others)} others with another label; "
                "ask for fewer, or for all"
            )
        drawn = generator(seed, "candidates", keys[query]).choice(others, size - 1, replace=False)
        rows.append([query, *drawn.tolist()])
    return torch.tensor(rows, dtype=torch.long).reshape(-1, size)


def ranks_among(scores: Scores, query_reps: Sequence[Tensor], candidates_ND: Tensor, lists_QK: Tensor) -> Tensor:
    """The rank of each query's first candidate among its own, (Q,) from 1.

    It is one more than the number of others whose score is not lower, so that equal scores earn nothing.

    Args:
        scores: such as `symile_scores`.
        query_reps: (Q, D) of each modality of the query.
        candidates_ND: (N, D) of the retrieved modality.
        lists_QK: rows of candidates, the right one first; -1 where a query has fewer.
    """
    found = []
    rows = max(1, _CELLS // max(1, len(candidates_ND)))
    for start in range(0, len(lists_QK), rows):
        lists = lists_QK[start : start + rows]
        scores_QN = scores([rep[start : start + rows] for rep in query_reps], candidates_ND)
        scores_QK = scores_QN.gather(1, lists.clamp_min(0))
        lower_QK = (scores_QK < scores_QK[:, :1]) | (lists < 0)
        found.append((~lower_QK[:, 1:]).sum(dim=1) + 1)
    return torch.cat(found) if found else torch.zeros(0, dtype=torch.long)
