"""95% intervals by the bootstrap: of means over queries, over queries and runs, and of paired differences.

Queries of one image are right or wrong together more often than others, so they are drawn together: what is resampled
are groups of queries (Field & Welsh 2007, the cluster bootstrap). Where no groups are given each query is its own.
Groups that gave the same figures are counted, and how often each kind occurs in a resample is multinomial: the same
intervals as of drawing the groups one by one, at a fraction of the work.
Suffixes: Q queries, G groups, U distinct kinds of groups, R resamples, C columns, S runs.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from symile_m3.seeds import generator

_CELLS = 1 << 24  # counts that are held at a time
LEVELS = (0.025, 0.975)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Resampling:
    """What is drawn for an interval.

    Attributes:
        resamples: how often.
        seed: of the draws.
        groups_Q: (Q,) integers; queries with the same one are drawn together. None draws the queries one by one.
    """

    resamples: int = 1000
    seed: int = 0
    groups_Q: NDArray[np.int64] | None = None

    def of(self, chosen_Q: NDArray[np.bool_]) -> Resampling:
        """The same for some of the queries."""
        return self if self.groups_Q is None else replace(self, groups_Q=self.groups_Q[chosen_Q])

    def one_by_one(self) -> Resampling:
        """The same without groups."""
        return replace(self, groups_Q=None)


def runs_interval(values_SQ: ArrayLike, how: Resampling) -> list[float]:
    """95% percentile interval of the mean over runs and queries, both resampled.

    Each resample draws S of the runs and, the same for all of them, as many groups of queries as there are. With one
    run it is the interval over the queries. With two or three runs it says little of how runs differ, and is rather
    too narrow.

    Args:
        values_SQ: (S, Q) figures of each run for the same queries.
    """
    values = np.asarray(values_SQ, np.float64)
    return _interval(_of_drawn_runs(resampled_means(values.T, how), how.seed))


def paired_difference(first_SQ: ArrayLike, second_SQ: ArrayLike, how: Resampling) -> list[float]:
    """95% percentile interval of the difference of two means over the same queries, which are resampled together.

    Args:
        first_SQ, second_SQ: (S, Q) figures of two objectives; run s of one goes with run s of the other.

    Raises:
        ValueError: shapes that differ.
    """
    first, second = np.asarray(first_SQ, np.float64), np.asarray(second_SQ, np.float64)
    if first.shape != second.shape or first.ndim != 2:
        raise ValueError(f"pairs need two tables (S, Q) of one shape, not {first.shape} and {second.shape}")
    return runs_interval(first - second, how)


def ratio_interval(above_SQ: ArrayLike, below_SQ: ArrayLike, how: Resampling) -> list[float]:
    """95% percentile interval of the ratio of two means over the same queries, which are resampled together.

    Draws in which the mean below is nothing have no ratio, and do not count.

    Args:
        above_SQ, below_SQ: (S, Q) figures; the numbers of runs may differ.

    Raises:
        ValueError: they are not of the same queries.
    """
    above, below = np.asarray(above_SQ, np.float64), np.asarray(below_SQ, np.float64)
    if above.ndim != 2 or below.ndim != 2 or above.shape[1] != below.shape[1]:
        raise ValueError(f"a ratio needs tables (S, Q) of the same queries, not {above.shape} and {below.shape}")
    means_RC = resampled_means(np.concatenate([above, below]).T, how)
    above_R, below_R = (_of_drawn_runs(part, how.seed) for part in np.split(means_RC, [len(above)], axis=1))
    some_R = below_R > 0
    return _interval(above_R[some_R] / below_R[some_R]) if some_R.any() else [0.0, 0.0]


def resampled_means(values_QC: NDArray[np.float64], how: Resampling) -> NDArray[np.float64]:
    """(R, C) means of each column over the queries of groups drawn with replacement, the same for all columns.

    Raises:
        ValueError: not one group a query.
    """
    sums_GC, sizes_G = _by_group(values_QC, how.groups_Q)
    groups = len(sizes_G)
    kinds_UC, counts_U = np.unique(np.column_stack([sums_GC, sizes_G]), axis=0, return_counts=True)
    random = generator(how.seed, "bootstrap")
    shares_U = counts_U / groups
    step = max(1, _CELLS // len(kinds_UC))
    totals_RC = np.concatenate(
        [
            random.multinomial(groups, shares_U, size=min(step, how.resamples - start)) @ kinds_UC
            for start in range(0, how.resamples, step)
        ]
    )
    means_RC: NDArray[np.float64] = totals_RC[:, :-1] / totals_RC[:, -1:]
    return means_RC


def _by_group(
    values_QC: NDArray[np.float64], groups_Q: NDArray[np.int64] | None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Sums of the values, and numbers of queries, of each group that has any."""
    if groups_Q is None:
        return values_QC, np.ones(len(values_QC))
    if len(groups_Q) != len(values_QC):
        raise ValueError(f"{len(groups_Q)} groups for {len(values_QC)} queries")
    found, group_of_Q = np.unique(groups_Q, return_inverse=True)
    sums_GC = np.zeros((len(found), values_QC.shape[1]))
    np.add.at(sums_GC, group_of_Q, values_QC)
    return sums_GC, np.bincount(group_of_Q).astype(np.float64)


def _of_drawn_runs(means_RS: NDArray[np.float64], seed: int) -> NDArray[np.float64]:
    resamples, runs = means_RS.shape
    drawn_RS = generator(seed, "bootstrap-runs").integers(0, runs, size=(resamples, runs))
    means: NDArray[np.float64] = np.take_along_axis(means_RS, drawn_RS, axis=1).mean(axis=1)
    return means


def _interval(means_R: NDArray[np.float64]) -> list[float]:
    low, high = np.quantile(means_R, LEVELS)
    return [float(low), float(high)]
