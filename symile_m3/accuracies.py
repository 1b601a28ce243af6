"""From ranks to the figures of a report: accuracies with their 95% intervals, whole and by group.

Suffixes: S runs, Q queries.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from symile_m3.intervals import Resampling, paired_difference, runs_interval

PATTERNS = {  # name -> which of (audio, text) is missing
    "both": (False, False),
    "text_only": (True, False),
    "audio_only": (False, True),
    "none": (True, True),
}
Ranks = NDArray[np.int64]


def stacked(ranks: Sequence[Tensor]) -> Ranks:
    """(S, Q) ranks of several runs."""
    return np.stack([ranks_Q.cpu().numpy() for ranks_Q in ranks])


def hits(ranks_SQ: Ranks, k: int) -> NDArray[np.bool_]:
    """Whether a right candidate is among the k best."""
    found: NDArray[np.bool_] = (ranks_SQ > 0) & (ranks_SQ <= k)
    return found


def reciprocals(ranks_SQ: Ranks) -> NDArray[np.float64]:
    """1 / rank; 0 where no candidate is right."""
    found: NDArray[np.float64] = np.where(ranks_SQ > 0, 1 / np.maximum(ranks_SQ, 1), 0.0)
    return found


def accuracy(ranks_SQ: Ranks, how: Resampling) -> dict[str, Any]:
    """Top-1, top-5 and mean reciprocal rank, each with its interval."""
    top1, top5, reciprocal = hits(ranks_SQ, 1), hits(ranks_SQ, 5), reciprocals(ranks_SQ)
    return {
        "top1": float(top1.mean()),
        "ci95": runs_interval(top1, how),
        "top5": float(top5.mean()),
        "top5_ci95": runs_interval(top5, how),
        "mrr": float(reciprocal.mean()),
        "mrr_ci95": runs_interval(reciprocal, how),
    }


def by_group(
    ranks_SQ: Ranks, group_ids_Q: NDArray[np.int64], names: Sequence[str], how: Resampling
) -> dict[str, dict[str, Any]]:
    """Top-1 of the queries of each group that has any: its share, interval and number of queries."""
    top1 = hits(ranks_SQ, 1)
    found = {}
    for i, name in enumerate(names):
        chosen = group_ids_Q == i
        if chosen.any():
            found[name] = {
                "top1": float(top1[:, chosen].mean()),
                "ci95": runs_interval(top1[:, chosen], how.of(chosen)),
                "n": int(chosen.sum()),
            }
    return found


def by_pattern(ranks_SQ: Ranks, masks: Mapping[str, Tensor], how: Resampling) -> dict[str, Any]:
    """Top-1 overall and by what is left of the query; None for a pattern that no query has."""
    top1 = hits(ranks_SQ, 1)
    no_audio, no_text = masks["audio"].numpy(), masks["text"].numpy()
    report: dict[str, Any] = {"overall": float(top1.mean())}
    counts: dict[str, int] = {}
    intervals: dict[str, list[float] | None] = {"overall": runs_interval(top1, how)}
    for name, (audio, text) in PATTERNS.items():
        chosen = (no_audio == audio) & (no_text == text)
        counts[name] = int(chosen.sum())
        report[name] = float(top1[:, chosen].mean()) if counts[name] else None
        intervals[name] = runs_interval(top1[:, chosen], how.of(chosen)) if counts[name] else None
    return {**report, "n": counts, "ci95": intervals}


def difference(first_SQ: Ranks, second_SQ: Ranks, how: Resampling) -> dict[str, Any]:
    """By how much the first is right more often than the second, on the same queries."""
    first, second = hits(first_SQ, 1).astype(np.float64), hits(second_SQ, 1).astype(np.float64)
    return {
        "top1": float((first - second).mean()),
        "ci95": paired_difference(first, second, how),
        "n": first.shape[1],
        "runs": len(first),
    }
