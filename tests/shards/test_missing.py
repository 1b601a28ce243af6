from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from symile_m3.shards import missing_mask

KEYS = [f"{i:06d}" for i in range(20_000)]


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_frequency(p: float) -> None:
    error = (p * (1 - p) / len(KEYS)) ** 0.5
    for modality in ("image", "audio", "text"):
        assert abs(missing_mask(KEYS, modality, p, 0).mean() - p) < 4 * error


def test_none_missing_at_zero() -> None:
    assert not missing_mask(KEYS, "image", 0.0, 0).any()


@given(p=st.floats(0, 1, exclude_max=True), q=st.floats(0, 1, exclude_max=True), seed=st.integers(0, 2**64 - 1))
def test_masks_are_nested(p: float, q: float, seed: int) -> None:
    low, high = (missing_mask(KEYS[:500], "audio", x, seed) for x in sorted((p, q)))
    assert not (low & ~high).any()


def test_modalities_and_seeds_are_independent() -> None:
    masks = [missing_mask(KEYS, m, 0.5, seed) for m in ("image", "audio", "text") for seed in (0, 1)]
    for i, mask in enumerate(masks):
        for other in masks[:i]:
            assert abs(np.corrcoef(mask, other)[0, 1]) < 0.03


def test_a_sample_does_not_depend_on_its_neighbours_and_values_are_fixed() -> None:
    mask = missing_mask(KEYS[:24], "image", 0.5, 7)
    assert [bool(missing_mask([key], "image", 0.5, 7)[0]) for key in KEYS[:24]] == mask.tolist()
    assert "".join("01"[int(x)] for x in mask) == "010111100011110101110011"
    assert missing_mask([], "image", 0.5, 7).shape == (0,)


@pytest.mark.parametrize("p", [-0.1, 1.0, float("nan")])
def test_p_out_of_range(p: float) -> None:
    with pytest.raises(ValueError, match="p must be"):
        missing_mask(KEYS, "image", p, 0)
