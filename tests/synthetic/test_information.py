"""Exact information and best accuracies of the synthetic process, against enumeration of all its outcomes."""

from __future__ import annotations

import itertools
import math
import time
from collections import defaultdict
from collections.abc import Iterator

import pytest

from symile_m3.errors import UsageError
from symile_m3.synthetic import Information, XorProcess, best_accuracy, best_from_one, best_with_missing

PROCESSES = [
    XorProcess(p=p, dim=dim, modalities=modalities)
    for p in (0.0, 0.1, 0.37, 0.5, 0.8, 1.0)
    for dim, modalities in ((1, 3), (2, 3), (3, 3), (1, 4), (2, 4), (1, 5))
]


def outcomes(process: XorProcess) -> Iterator[tuple[tuple[int, ...], float]]:
    """Every sample, vectors as numbers, and its probability; one a value of i."""
    n = 2**process.dim
    for free in itertools.product(range(n), repeat=process.modalities - 1):
        parity = 0
        for vector in free:
            parity ^= vector
        yield (*free, parity), process.p / n ** (process.modalities - 1)
        yield (*free, free[0]), (1 - process.p) / n ** (process.modalities - 1)


def entropy(process: XorProcess, vectors: tuple[int, ...]) -> float:
    """H of some of the vectors, in nats."""
    shares: dict[tuple[int, ...], float] = defaultdict(float)
    for sample, probability in outcomes(process):
        shares[tuple(sample[vector] for vector in vectors)] += probability
    return -sum(share * math.log(share) for share in shares.values() if share > 0)


@pytest.mark.parametrize("process", PROCESSES, ids=str)
def test_information_is_that_of_all_outcomes(process: XorProcess) -> None:
    a, c = (0,), (process.modalities - 1,)
    b = tuple(range(1, process.modalities - 1))

    def h(*parts: tuple[int, ...]) -> float:
        return entropy(process, sum(parts, ()))

    found = Information.of(process)
    assert found.first_last == pytest.approx(h(a) + h(c) - h(a, c), abs=1e-12)
    assert found.between_last == pytest.approx(h(b) + h(c) - h(b, c), abs=1e-12)
    assert found.first_between_given_last == pytest.approx(h(a, c) + h(b, c) - h(a, b, c) - h(c), abs=1e-12)
    assert found.between_last_given_first == pytest.approx(h(a, b) + h(a, c) - h(a, b, c) - h(a), abs=1e-12)
    single = sum(h((vector,)) for vector in range(process.modalities))
    assert found.total_correlation == pytest.approx(single - h(a, b, c), abs=1e-12)


@pytest.mark.parametrize("process", PROCESSES, ids=str)
def test_best_accuracies_are_those_of_all_outcomes(process: XorProcess) -> None:
    for target, name in enumerate(process.names):
        others = [other for other in range(process.modalities) if other != target]
        by_count: dict[int, list[float]] = defaultdict(list)
        for count in range(len(others) + 1):
            for given in itertools.combinations(others, count):
                joint: dict[tuple[int, ...], dict[int, float]] = defaultdict(lambda: defaultdict(float))
                for sample, probability in outcomes(process):
                    joint[tuple(sample[vector] for vector in given)][sample[target]] += probability
                best = sum(max(shares.values()) for shares in joint.values())
                letters = "".join(process.names[vector] for vector in given)
                assert best_accuracy(process, name, letters) == pytest.approx(best, abs=1e-12)
                by_count[len(others) - count].append(best)
        for missing, found in by_count.items():
            expected = sum(found) / len(found)
            assert best_with_missing(process, name, missing) == pytest.approx(expected, abs=1e-12)
        assert best_from_one(process, name) == pytest.approx(max(by_count[len(others) - 1]), abs=1e-12)


def test_information_at_the_ends() -> None:
    copied, xored = Information.of(XorProcess(p=0.0)), Information.of(XorProcess(p=1.0))
    full = 5 * math.log(2)
    assert (copied.first_last, copied.between_last_given_first) == pytest.approx((full, 0.0))
    assert (xored.first_last, xored.between_last_given_first) == pytest.approx((0.0, full), abs=1e-12)
    assert copied.total_correlation == xored.total_correlation == pytest.approx(full)


def test_information_of_any_number_of_bits_takes_milliseconds() -> None:
    began = time.process_time()
    found = [Information.of(XorProcess(p=step / 10, dim=dim)) for dim in (5, 64, 5000) for step in range(11)]
    assert time.process_time() - began < 0.1
    assert all(math.isfinite(one.total_correlation) and one.first_last >= 0 for one in found)
    assert found[-1].total_correlation == pytest.approx(5000 * math.log(2))


def test_processes_out_of_range_are_refused() -> None:
    for wrong in ({"p": 1.1}, {"p": float("nan")}, {"p": 0.5, "dim": 0}, {"p": 0.5, "modalities": 2}):
        with pytest.raises(UsageError):
            XorProcess(**wrong)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="vectors are a, b, c"):
        best_accuracy(XorProcess(p=1.0), "d", "ab")
