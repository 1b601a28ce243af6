"""95% intervals by the bootstrap: of means over queries, over queries and runs, and of paired differences.

Queries that gave the same figures are resampled together: how often each kind of query occurs in a resample is
multinomial, so the intervals are those of resampling the queries one by one, at a fraction of the work.
Suffixes: Q queries, U distinct kinds of queries, R resamples, C columns, S runs.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from symile_m3.seeds import generator

_CELLS = 1 << 24  # counts that are held at a time
LEVELS = (0.025, 0.975)


def bootstrap_interval(hits: ArrayLike, resamples: int, seed: int) -> list[float]:
    """95% percentile interval of the mean over queries of yes-or-no outcomes, from resampling the queries."""
    random = generator(seed, "bootstrap")
    # The number of hits in a resample of independent yes-or-no outcomes is binomial.
    outcomes = np.asarray(hits)
    means = random.binomial(len(outcomes), np.mean(outcomes), size=resamples) / len(outcomes)
    return _interval(means)


def mean_interval(values: ArrayLike, resamples: int, seed: int) -> list[float]:
    """95% percentile interval of the mean over queries of any figures, (Q,), such as reciprocal ranks."""
    return _interval(resampled_means(np.asarray(values, np.float64)[:, None], resamples, seed)[:, 0])


def runs_interval(values_SQ: ArrayLike, resamples: int, seed: int) -> list[float]:
    """95% percentile interval of the mean over runs and queries, both resampled.

    Each resample draws S of the runs and, the same for all of them, Q of the queries. With one run it is the
    interval over the queries. With two or three runs it says little of how runs differ, and is rather too narrow.

    Args:
        values_SQ: (S, Q) figures of each run for the same queries.
    """
    values = np.asarray(values_SQ, np.float64)
    means_RS = resampled_means(values.T, resamples, seed)
    return _interval(_of_drawn_runs(means_RS, seed))


def paired_difference(first_SQ: ArrayLike, second_SQ: ArrayLike, resamples: int, seed: int) -> list[float]:
    """95% percentile interval of the difference of two means over the same queries, which are resampled together.

    Args:
        first_SQ, second_SQ: (S, Q) figures of two objectives; run s of one goes with run s of the other.

    Raises:
        ValueError: shapes that differ.
    """
    first, second = np.asarray(first_SQ, np.float64), np.asarray(second_SQ, np.float64)
    if first.shape != second.shape or first.ndim != 2:
        raise ValueError(f"pairs need two tables (S, Q) of one shape, not {first.shape} and {second.shape}")
    return runs_interval(first - second, resamples, seed)


def resampled_means(values_QC: NDArray[np.float64], resamples: int, seed: int) -> NDArray[np.float64]:
    """(R, C) means of each column over Q queries drawn with replacement, the same for all columns."""
    random = generator(seed, "bootstrap")
    kinds_UC, counts_U = np.unique(values_QC, axis=0, return_counts=True)
    queries = len(values_QC)
    shares_U = counts_U / queries
    step = max(1, _CELLS // len(kinds_UC))
    parts = [
        random.multinomial(queries, shares_U, size=min(step, resamples - start)) @ kinds_UC / queries
        for start in range(0, resamples, step)
    ]
    return np.concatenate(parts)


def _of_drawn_runs(means_RS: NDArray[np.float64], seed: int) -> NDArray[np.float64]:
    resamples, runs = means_RS.shape
    drawn_RS = generator(seed, "bootstrap-runs").integers(0, runs, size=(resamples, runs))
    means: NDArray[np.float64] = np.take_along_axis(means_RS, drawn_RS, axis=1).mean(axis=1)
    return means


def _interval(means_R: NDArray[np.float64]) -> list[float]:
    low, high = np.quantile(means_R, LEVELS)
    return [float(low), float(high)]
