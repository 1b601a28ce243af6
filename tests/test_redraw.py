"""Redrawn texts: the process of the plan, as a pure function of (seed, epoch, key)."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from symile_m3.lexicon import Lexicon
from symile_m3.plan import Plan, PlanConfig
from symile_m3.redraw import raw_draws, redraw_texts

LANGUAGES = ("ar", "el", "en", "ja", "uk")


def plan(words: int, classes: int, languages: int, text: str = "disjoint") -> Plan:
    """A plan whose names say their class and language; nothing is drawn from its media."""
    chosen = LANGUAGES[:languages]
    keys = tuple(f"k{i}" for i in range(classes))
    config = PlanConfig(
        languages=chosen, words=words, classes=classes, train=1, val=1, test=1, text=text, shard_samples=1
    )
    lexicon = Lexicon(
        languages=chosen,
        class_keys=keys,
        categories=("thing",) * classes,
        names=tuple(tuple(f"{i}-{language}" for language in chosen) for i in range(classes)),
    )
    return Plan(config=config, lexicon=lexicon, images=(), clips=())


def samples(count: int, of: Plan, seed: int = 0) -> tuple[list[str], NDArray[np.int64], NDArray[np.int64]]:
    random = np.random.default_rng(seed)
    return (
        [f"train-{i:08d}" for i in range(count)],
        random.integers(0, len(of.lexicon), count),
        random.integers(0, len(of.lexicon.languages), count),
    )


def parsed(text: str) -> list[tuple[int, str]]:
    """The (class, language) of each word."""
    return [(int(word.split("-")[0]), word.split("-")[1]) for word in text.split("_")]


def chi_square(counts: NDArray[np.int64]) -> float:
    expected = counts.sum() / counts.size
    return float(((counts - expected) ** 2 / expected).sum())


@settings(deadline=None, max_examples=60)
@given(data=st.data(), seed=st.integers(0, 2**40), epoch=st.integers(0, 1000))
def test_texts_follow_the_process_of_the_plan(data: Any, seed: int, epoch: int) -> None:
    languages = data.draw(st.integers(2, 5))
    words = data.draw(st.integers(1, languages))
    of = plan(words, data.draw(st.integers(max(2, words), 9)), languages)
    keys, class_ids, language_ids = samples(20, of, seed % 2**32)
    for text, class_id, language_id in zip(
        redraw_texts(of, keys, class_ids, language_ids, seed=seed, epoch=epoch), class_ids, language_ids, strict=True
    ):
        found = parsed(text)
        assert len(found) == words
        assert len({class_ for class_, _ in found}) == len({language for _, language in found}) == words
        assert [class_ for class_, language in found if language == LANGUAGES[language_id]] == [class_id]


def test_overlapping_texts_have_one_word_of_the_spoken_language() -> None:
    of = plan(4, 6, 3, text="overlap")
    keys, class_ids, language_ids = samples(200, of)
    texts = [parsed(text) for text in redraw_texts(of, keys, class_ids, language_ids, seed=0, epoch=0)]
    for text, class_id, language_id in zip(texts, class_ids, language_ids, strict=True):
        assert [class_ for class_, language in text if language == LANGUAGES[language_id]] == [class_id]
    assert any(len({class_ for class_, _ in text}) < 4 for text in texts)


def test_a_text_depends_on_nothing_but_seed_epoch_and_key() -> None:
    of = plan(3, 30, 5)
    keys, class_ids, language_ids = samples(50, of)

    def texts(rows: NDArray[np.int64], seed: int = 1, epoch: int = 2) -> dict[str, str]:
        chosen = [keys[row] for row in rows]
        drawn = redraw_texts(of, chosen, class_ids[rows], language_ids[rows], seed=seed, epoch=epoch)
        return dict(zip(chosen, drawn, strict=True))

    whole = texts(np.arange(50))
    assert texts(np.arange(50)) == whole
    assert texts(np.random.default_rng(0).permutation(50)) == whole
    for start in range(0, 50, 7):
        part = texts(np.arange(start, min(start + 7, 50)))
        assert part == {key: whole[key] for key in part}
    for other in (texts(np.arange(50), epoch=3), texts(np.arange(50), seed=2)):
        assert sum(other[key] == whole[key] for key in keys) <= 2  # one in 2,000 is the same by chance
    # Samples of the same class and language have texts of their own.
    same = redraw_texts(of, keys, np.full(50, 4), np.full(50, 1), seed=1, epoch=2)
    assert len(set(same)) > 40


def test_seed_epoch_and_key_are_kept_apart() -> None:
    rows = [
        raw_draws([key], 4, seed=seed, epoch=epoch)[0].tolist()
        for seed, epoch, key in [(1, 11, "1"), (11, 1, "1"), (1, 1, "11"), (1, 1, "1"), (1, 11, "")]
    ]
    assert len({tuple(row) for row in rows}) == 5
    assert len({value for row in rows for value in row}) == 20


def test_draws_are_splitmix64_from_a_hash() -> None:
    """The numbers of one machine and version are those of every other."""
    digest = hashlib.blake2b(b"3\x1f4\x1ftrain-00000000", digest_size=8).digest()
    start = int.from_bytes(digest, "little")
    expected = []
    for i in range(1, 6):
        x = (start + i * 0x9E3779B97F4A7C15) % 2**64
        x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9 % 2**64
        x = (x ^ x >> 27) * 0x94D049BB133111EB % 2**64
        expected.append(x ^ x >> 31)
    assert raw_draws(["train-00000000"], 5, seed=3, epoch=4).tolist() == [expected]
    assert raw_draws(["train-00000000"], 2, seed=0, epoch=0).tolist() == [[4055253124933867061, 13745858100063977870]]


@pytest.mark.parametrize("epoch", [0, 7])
def test_distractors_and_places_are_uniform(epoch: int) -> None:
    """With a fixed seed the statistic is one number; the limits are the 99.99% quantiles of chi-square."""
    of = plan(3, 5, 4)
    count = 6000
    keys = [f"train-{i:08d}" for i in range(count)]
    class_ids, language_ids = np.full(count, 2), np.full(count, 1)
    texts = [parsed(text) for text in redraw_texts(of, keys, class_ids, language_ids, seed=5, epoch=epoch)]
    pairs = np.zeros((5, 4), dtype=np.int64)
    places = np.zeros(3, dtype=np.int64)
    together = np.zeros((5, 5), dtype=np.int64)
    for text in texts:
        distractors = [word for word in text if word[1] != LANGUAGES[1]]
        for class_, language in distractors:
            pairs[class_, LANGUAGES.index(language)] += 1
        together[distractors[0][0], distractors[1][0]] += 1
        places[[language for _, language in text].index(LANGUAGES[1])] += 1
    assert pairs[2].sum() == pairs[:, 1].sum() == 0
    assert chi_square(np.delete(np.delete(pairs, 2, axis=0), 1, axis=1)) < 37.4  # 11 degrees of freedom
    assert chi_square(places) < 18.4  # 2 degrees of freedom
    others = np.delete(np.delete(together, 2, axis=0), 2, axis=1)
    assert chi_square(others[~np.eye(4, dtype=bool)]) < 37.4  # all ordered pairs of classes
