"""Samples of the synthetic process."""

from __future__ import annotations

import numpy as np
import pytest

from symile_m3.errors import UsageError
from symile_m3.synthetic import XorProcess


def test_the_last_vector_is_the_first_or_the_xor_of_all_bits_at_once() -> None:
    for modalities in (3, 4, 8):
        process = XorProcess(p=0.3, dim=6, modalities=modalities)
        vectors = process.samples(4000, 0, "train")
        assert vectors.shape == (modalities, 4000, 6)
        assert set(np.unique(vectors)) == {0, 1}
        copied = (vectors[-1] == vectors[0]).all(axis=1)
        xored = (vectors[-1] == np.bitwise_xor.reduce(vectors[:-1], axis=0)).all(axis=1)
        assert (copied | xored).all()
        assert xored.mean() == pytest.approx(0.3 + 0.7 / 64, abs=0.03)


def test_at_the_ends_of_p_there_is_no_choice() -> None:
    copied, xored = (XorProcess(p=p).samples(500, 1) for p in (0.0, 1.0))
    assert (copied[2] == copied[0]).all()
    assert (xored[2] == (xored[0] ^ xored[1])).all()
    assert (copied[:2] == xored[:2]).all()  # all p draw from the same numbers


def test_samples_are_a_function_of_their_stream() -> None:
    process = XorProcess(p=0.5)
    assert (process.samples(100, 0, "test") == process.samples(100, 0, "test")).all()
    assert (process.samples(100, 0, "test") != process.samples(100, 0, "train")).any()
    assert (process.samples(100, 0, "test") != process.samples(100, 1, "test")).any()


def test_candidates_are_numbered_by_their_bits() -> None:
    process = XorProcess(p=0.5, dim=4)
    candidates = process.candidates()
    assert candidates.shape == (16, 4)
    assert len(np.unique(candidates, axis=0)) == 16
    assert (process.numbers(candidates) == np.arange(16)).all()
    with pytest.raises(UsageError, match="at most 12 bits"):
        XorProcess(p=0.5, dim=13).candidates()
