"""Intervals against queries resampled one by one, and against scipy's bootstrap."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from symile_m3.intervals import mean_interval, paired_difference, resampled_means, runs_interval

QUERIES = 300


def reciprocal_ranks(seed: int = 0) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    return 1 / np.random.default_rng(seed).geometric(0.3, QUERIES)


def test_a_mean_has_the_interval_that_scipy_gives() -> None:
    values = reciprocal_ranks()
    expected = stats.bootstrap(
        (values,), np.mean, n_resamples=10_000, method="percentile", rng=np.random.default_rng(5)
    ).confidence_interval
    width = expected.high - expected.low
    assert mean_interval(values, 20_000, 0) == pytest.approx([expected.low, expected.high], abs=0.04 * width)


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
    found = paired_difference(first[None], second[None], 20_000, 0)
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
    found = runs_interval(values, 20_000, 0)
    assert found == pytest.approx(expected.tolist(), abs=0.006)
    of_queries = mean_interval(values.mean(axis=0), 20_000, 0)
    assert found[1] - found[0] > 1.5 * (of_queries[1] - of_queries[0])


def test_one_run_has_the_interval_over_its_queries() -> None:
    values = reciprocal_ranks()
    assert runs_interval(values[None], 500, 3) == mean_interval(values, 500, 3)


def test_resampled_means_have_the_moments_of_a_mean() -> None:
    values = np.stack([reciprocal_ranks(0), reciprocal_ranks(1)], axis=1)
    means = resampled_means(values, 20_000, 0)
    assert means.shape == (20_000, 2)
    assert means.mean(axis=0) == pytest.approx(values.mean(axis=0), rel=0.01)
    assert np.cov(means.T) == pytest.approx(np.cov(values.T, ddof=0) / QUERIES, rel=0.1, abs=3e-5)
    assert np.array_equal(means, resampled_means(values, 20_000, 0))


def test_pairs_must_be_of_one_shape() -> None:
    with pytest.raises(ValueError, match="of one shape"):
        paired_difference(np.zeros((1, 5)), np.zeros((1, 6)), 10, 0)
