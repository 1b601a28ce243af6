"""Turns among speakers, and the splits they belong to."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from symile_m3.plan import SPLITS
from symile_m3.speech.speakers import in_turn, split_speakers

SHARES = (480, 40, 60)


@given(st.lists(st.integers(0, 6), max_size=60), st.integers(0, 3))
def test_every_first_part_has_as_many_speakers_as_it_can(who: list[int], seed: int) -> None:
    order = in_turn(np.array(who, dtype=np.int64), seed)
    assert sorted(order.tolist()) == list(range(len(who)))
    sizes = Counter(who)
    for n in range(1, len(who) + 1):
        taken = Counter(who[i] for i in order[:n])
        for speaker, size in sizes.items():
            assert taken[speaker] >= min(size, max(taken.values()) - 1)


def test_the_seed_changes_who_comes_first() -> None:
    who = np.arange(50)
    assert in_turn(who, 0).tolist() == in_turn(who, 0).tolist() != in_turn(who, 1).tolist()


@given(
    st.dictionaries(
        st.sampled_from(["de", "en", "fr"]),
        st.lists(st.integers(1, 200), min_size=3, max_size=80),
        min_size=1,
    ),
    st.integers(0, 3),
)
def test_every_split_has_a_speaker_in_every_language(sizes: dict[str, list[int]], seed: int) -> None:
    counts = {code: {f"{code}{i}": n for i, n in enumerate(of_code)} for code, of_code in sizes.items()}
    splits = split_speakers(counts, SHARES, seed)
    assert {code: set(of_code) for code, of_code in splits.items()} == {code: set(s) for code, s in counts.items()}
    assert all(set(of_code.values()) == set(SPLITS) for of_code in splits.values())


def test_splits_have_recordings_in_proportion() -> None:
    counts = {"en": {str(i): 1 + i % 7 for i in range(300)}}
    splits = split_speakers(counts, SHARES, 0)["en"]
    got = Counter[str]()
    for speaker, split in splits.items():
        got[split] += counts["en"][speaker]
    total = sum(got.values())
    for split, share in zip(SPLITS, SHARES, strict=True):
        assert got[split] / total == pytest.approx(share / sum(SHARES), abs=0.01)


def test_one_who_speaks_most_is_for_training() -> None:
    assert split_speakers({"en": {"a": 100, "b": 5, "c": 2}}, SHARES, 0)["en"]["a"] == "train"


def test_who_speaks_two_languages_is_in_one_split() -> None:
    both = {f"both{i}": 3 for i in range(40)}
    counts = {"en": {**both, **{f"en{i}": 2 for i in range(60)}}, "el": {**both, "el0": 9}}
    splits = split_speakers(counts, SHARES, 0)
    assert all(splits["en"][speaker] == splits["el"][speaker] for speaker in both)
    assert {splits["en"][speaker] for speaker in both} == set(SPLITS)
