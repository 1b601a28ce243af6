"""Intervals against queries, groups and runs resampled one by one, and against scipy's bootstrap."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import ArrayLike
from scipy import stats

from symile_m3.intervals import (
    Resampling,
    paired_difference,
    ratio_interval,
    resampled_means,
    runs_interval,
)

QUERIES = 300
MANY = Resampling(resamples=20_000)


def mean_interval(values: ArrayLike, how: Resampling) -> list[float]:
    """Of one run."""
    return runs_interval(np.asarray(values)[None], how)


def reciprocal_ranks(seed: int = 0) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    return 1 / np.random.default_rng(seed).geometric(0.3, QUERIES)


def test_a_mean_has_the_interval_that_scipy_gives() -> None:
    values = reciprocal_ranks()
    expected = stats.bootstrap(
        (values,), np.mean, n_resamples=10_000, method="percentile", rng=np.random.default_rng(5)
    ).confidence_interval
    width = expected.high - expected.low
    assert mean_interval(values, MANY) == pytest.approx([expected.low, expected.high], abs=0.04 * width)


def test_a_paired_difference_has_the_interval_that_scipy_gives() -> None:
    random = np.random.default_rng(1)
    shared = random.random(QUERIES)
    first, second = (shared < 0.7).astype(float), ((shared < 0.5) ^ (random.random(QUERIES) < 0.1)).astype(float)
    expected = stats.bootstrap(
        (first, second),
        lambda a, b, axis: np.mean(a, axis=axis) - np.mean(b, axis=axis),
        n_resamples=10_000,
        paired=True,
        method="percentile",
        rng=np.random.default_rng(5),
    ).confidence_interval
    found = paired_difference(first[None], second[None], MANY)
    assert found == pytest.approx([expected.low, expected.high], abs=1.01 / QUERIES)
    unpaired = 1.96 * ((first.var() + second.var()) / QUERIES) ** 0.5 * 2
    assert found[1] - found[0] < 0.9 * unpaired  # the queries are the same, and both find the easy ones


def test_several_runs_are_resampled_with_the_queries() -> None:
    """Against the plain way: draw runs, draw queries, take the mean; many times."""
    random = np.random.default_rng(2)
    values = (random.random((3, QUERIES)) < np.array([[0.4], [0.5], [0.6]])).astype(float)
    means = [
        values[np.ix_(random.integers(0, 3, 3), random.integers(0, QUERIES, QUERIES))].mean() for _ in range(10_000)
    ]
    expected = np.quantile(means, [0.025, 0.975])
    found = runs_interval(values, MANY)
    assert found == pytest.approx(expected.tolist(), abs=0.006)
    of_queries = mean_interval(values.mean(axis=0), MANY)
    assert found[1] - found[0] > 1.5 * (of_queries[1] - of_queries[0])


def test_resampled_means_have_the_moments_of_a_mean() -> None:
    values = np.stack([reciprocal_ranks(0), reciprocal_ranks(1)], axis=1)
    means = resampled_means(values, MANY)
    assert means.shape == (20_000, 2)
    assert means.mean(axis=0) == pytest.approx(values.mean(axis=0), rel=0.01)
    assert np.cov(means.T) == pytest.approx(np.cov(values.T, ddof=0) / QUERIES, rel=0.1, abs=3e-5)
    assert np.array_equal(means, resampled_means(values, MANY))


def test_pairs_must_be_of_one_shape() -> None:
    with pytest.raises(ValueError, match="of one shape"):
        paired_difference(np.zeros((1, 5)), np.zeros((1, 6)), Resampling(resamples=10))


def hits_of(right: int, n: int) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
    return np.arange(n) < right


@pytest.mark.parametrize(("right", "n"), [(1, 10), (30, 100), (50, 100), (99, 100), (640, 1000)])
def test_the_interval_holds_the_mean_and_is_drawn_from_the_seed(right: int, n: int) -> None:
    low, high = mean_interval(hits_of(right, n), Resampling())
    assert 0 <= low < right / n < high <= 1
    assert mean_interval(hits_of(right, n), Resampling()) == [low, high]
    assert mean_interval(hits_of(0, n), Resampling()) == [0.0, 0.0]
    assert mean_interval(hits_of(n, n), Resampling()) == [1.0, 1.0]


def test_the_interval_shrinks_with_the_root_of_the_queries() -> None:
    widths = []
    for n in (100, 400, 1600, 6400):
        low, high = mean_interval(hits_of(n * 3 // 10, n), Resampling(resamples=4000))
        widths.append(high - low)
        assert high - low == pytest.approx(2 * 1.96 * (0.3 * 0.7 / n) ** 0.5, rel=0.15)
    assert widths == sorted(widths, reverse=True)


@pytest.mark.parametrize(("right", "n"), [(37, 100), (6, 60)])
def test_the_interval_is_that_of_resampled_queries(right: int, n: int) -> None:
    hits = hits_of(right, n)
    rows = np.random.default_rng(1).integers(0, n, size=(20_000, n))
    expected = np.quantile(hits[rows].mean(axis=1), [0.025, 0.975])
    assert mean_interval(hits, MANY) == pytest.approx(expected.tolist(), abs=1.5 / n)


def grouped(
    seed: int = 4,
) -> tuple[np.ndarray[tuple[int, ...], np.dtype[np.float64]], np.ndarray[tuple[int], np.dtype[np.int64]]]:
    """Hits of queries of 60 images, two to eight of each, which are mostly right or wrong together."""
    random = np.random.default_rng(seed)
    groups = np.repeat(np.arange(60), random.integers(2, 9, 60))
    hits = (random.random(len(groups)) < random.choice([0.1, 0.9], 60)[groups]).astype(float)
    order = random.permutation(len(groups))
    return hits[order], groups[order]


def test_queries_of_a_group_are_drawn_together() -> None:
    """Against the plain way: draw groups, put their queries together, take the mean; many times."""
    hits, groups = grouped()
    members = [hits[groups == group] for group in range(60)]
    random = np.random.default_rng(5)
    means = [np.concatenate([members[g] for g in random.integers(0, 60, 60)]).mean() for _ in range(10_000)]
    expected = np.quantile(means, [0.025, 0.975])
    found = mean_interval(hits, Resampling(resamples=20_000, groups_Q=groups))
    width = expected[1] - expected[0]
    assert found == pytest.approx(expected.tolist(), abs=0.04 * width)
    one_by_one = mean_interval(hits, MANY)
    assert width > 1.5 * (one_by_one[1] - one_by_one[0])


def test_a_difference_of_two_that_fail_on_the_same_images_is_known_better_than_either() -> None:
    hits, groups = grouped()
    other = np.where(np.random.default_rng(6).random(len(hits)) < 0.05, 1 - hits, hits)
    how = Resampling(resamples=4000, groups_Q=groups)
    low, high = paired_difference(hits[None], other[None], how)
    alone = mean_interval(hits, how)
    assert high - low < 0.5 * (alone[1] - alone[0])


def test_groups_of_one_are_as_no_groups_and_some_queries_keep_theirs() -> None:
    hits, groups = grouped()
    alone = Resampling(resamples=500, groups_Q=np.arange(len(hits)))
    assert mean_interval(hits, alone) == mean_interval(hits, alone.one_by_one())
    chosen = groups < 30
    some = Resampling(resamples=500, groups_Q=groups).of(chosen)
    assert mean_interval(hits[chosen], some) == mean_interval(
        hits[chosen], Resampling(resamples=500, groups_Q=groups[chosen])
    )
    with pytest.raises(ValueError, match="groups for"):
        mean_interval(hits, some)


def test_a_ratio_is_of_the_same_queries() -> None:
    """Against the plain way: draw groups, put their queries together, divide the means; many times."""
    hits, groups = grouped()
    fewer = np.where(np.random.default_rng(7).random(len(hits)) < 0.1, 0, hits)
    random, ratios = np.random.default_rng(8), []
    for _ in range(10_000):
        rows = np.concatenate([np.flatnonzero(groups == group) for group in random.integers(0, 60, 60)])
        ratios.append(fewer[rows].mean() / hits[rows].mean())
    expected = np.quantile(ratios, [0.025, 0.975])
    found = ratio_interval(fewer[None], hits[None], Resampling(resamples=20_000, groups_Q=groups))
    assert found == pytest.approx(expected.tolist(), abs=0.04 * (expected[1] - expected[0]))
    two = np.stack([hits, hits])
    assert ratio_interval(two, hits[None], Resampling(resamples=100)) == [1, 1]
    with pytest.raises(ValueError, match="same queries"):
        ratio_interval(hits[None], hits[None, 1:], Resampling())
