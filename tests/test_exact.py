"""The exact values against the process itself, enumerated."""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import pytest

from symile_m3.exact import RETRIEVED, ExactRetrieval, ExactValues
from symile_m3.lexicon import Lexicon
from symile_m3.plan import Plan, PlanConfig


def plan(classes: int, languages: int, words: int, text: str = "disjoint") -> Plan:
    codes = tuple(f"l{i}" for i in range(languages))
    keys = tuple(f"c{i}" for i in range(classes))
    return Plan(
        config=PlanConfig(languages=codes, words=words, classes=classes, train=1, val=1, test=1, text=text),
        lexicon=Lexicon(
            languages=codes,
            class_keys=keys,
            categories=("",) * classes,
            names=tuple(tuple(f"{key}{code}" for code in codes) for key in keys),
        ),
        images=(),
        clips=(),
    )


def outcomes(classes: int, languages: int, words: int) -> Iterator[tuple[int, int, frozenset[tuple[int, int]]]]:
    """Every equally likely (class, language, text); the order of the words says nothing, so a text is a set."""
    for c, lang in itertools.product(range(classes), range(languages)):
        other_classes = [k for k in range(classes) if k != c]
        other_languages = [code for code in range(languages) if code != lang]
        for chosen in itertools.permutations(other_languages, words - 1):
            for named in itertools.permutations(other_classes, words - 1):
                yield c, lang, frozenset([(c, lang), *zip(named, chosen, strict=True)])


def entropy(values: Iterator[Any]) -> float:
    counts: dict[Any, int] = defaultdict(int)
    for value in values:
        counts[value] += 1
    total = sum(counts.values())
    return -sum(n / total * math.log(n / total) for n in counts.values())


@pytest.mark.parametrize(("classes", "languages", "words"), [(4, 3, 2), (4, 3, 3), (5, 2, 2), (3, 4, 1)])
def test_values_are_those_of_the_enumerated_process(classes: int, languages: int, words: int) -> None:
    every = list(outcomes(classes, languages, words))
    h = {
        names: entropy(tuple(row["clt".index(name)] for name in names) for row in every)
        for names in ("c", "l", "t", "cl", "ct", "lt", "clt")
    }
    values = ExactValues.of_plan(plan(classes, languages, words))
    assert values.class_language == pytest.approx(h["c"] + h["l"] - h["cl"])
    assert values.text_class == pytest.approx(h["t"] + h["c"] - h["ct"])
    assert values.text_language == pytest.approx(h["t"] + h["l"] - h["lt"])
    assert values.class_language_given_text == pytest.approx(h["ct"] + h["lt"] - h["clt"] - h["t"])
    assert values.total_correlation == pytest.approx(h["c"] + h["l"] + h["t"] - h["clt"])


@pytest.mark.parametrize(("classes", "languages", "words"), [(4, 3, 2), (4, 3, 3), (3, 4, 1)])
def test_best_accuracies_are_those_of_the_best_guess(classes: int, languages: int, words: int) -> None:
    every = list(outcomes(classes, languages, words))

    def best(of: int, given: tuple[int, ...]) -> float:
        counts: dict[Any, dict[int, int]] = defaultdict(lambda: defaultdict(int))
        for row in every:
            counts[tuple(row[i] for i in given)][row[of]] += 1  # type: ignore[index]
        return sum(max(by_value.values()) for by_value in counts.values()) / len(every)

    values = ExactValues.of_plan(plan(classes, languages, words))
    assert values.class_from_text == pytest.approx(best(0, (2,)))
    assert values.class_from_speech == pytest.approx(best(0, (1,)))
    assert values.class_from_both == pytest.approx(best(0, (1, 2)))
    assert values.language_from_text == pytest.approx(best(1, (2,)))


def test_what_an_overlap_text_says_is_not_known() -> None:
    values = ExactValues.of_plan(plan(4, 3, 5, "overlap"))
    known = {name: getattr(values, name) for name in values.__slots__ if getattr(values, name) is not None}
    assert known == {"class_language": 0.0, "class_from_speech": 1 / 4, "class_from_both": 1.0}


@pytest.mark.parametrize(("classes", "languages", "words"), [(4, 3, 2), (4, 3, 3), (3, 4, 1)])
def test_best_retrieval_is_that_of_the_enumerated_process(classes: int, languages: int, words: int) -> None:
    """Whoever retrieves a medium chooses what it is of; every choice is tried for everything that may be given."""
    every = list(outcomes(classes, languages, words))
    texts = sorted({text for _, _, text in every}, key=sorted)
    choices: dict[str, list[Any]] = {"image": list(range(classes)), "audio": list(range(languages)), "text": texts}

    def right(retrieved: str, choice: Any, row: tuple[int, int, frozenset[tuple[int, int]]]) -> bool:
        if retrieved == "text":
            return (row[0], row[1]) in choice
        return bool(choice == row[["image", "audio"].index(retrieved)])

    places = {"image": 0, "audio": 1, "text": 2}
    for retrieved, both in RETRIEVED.items():
        values = ExactRetrieval.of_plan(plan(classes, languages, words), retrieved)
        assert list(values.best) == ["+".join(both), *sorted(both, key=list(values.best).index)]
        for given, best in values.best.items():
            by_given: dict[Any, list[Any]] = defaultdict(list)
            for row in every:
                by_given[tuple(row[places[name]] for name in given.split("+"))].append(row)
            total = sum(
                max(sum(right(retrieved, choice, row) for row in rows) for choice in choices[retrieved])
                for rows in by_given.values()
            )
            assert best == pytest.approx(total / len(every))
        drawn = [row[["image", "audio", "text"].index(retrieved)] for row in every]
        hits = sum(right(retrieved, choice, row) for choice in drawn for row in every)
        assert values.chance == pytest.approx(hits / len(drawn) / len(every))


@pytest.mark.parametrize("words", [1, 2, 4])
def test_chance_of_an_overlap_text_is_that_of_the_enumerated_process(words: int) -> None:
    classes, languages = 3, 3
    hits = total = 0
    for c, lang in itertools.product(range(classes), range(languages)):
        others = [(k, code) for k in range(classes) for code in range(languages) if code != lang]
        for distractors in itertools.product(others, repeat=words - 1):
            total += 1
            hits += (1, 2) in {(c, lang), *distractors}
    values = ExactRetrieval.of_plan(plan(classes, languages, words, "overlap"), "text")
    assert values.chance == pytest.approx(hits / total)
    assert values.best == {"image+audio": 1.0, "image": None, "audio": None}


def test_only_the_three_modalities_can_be_retrieved() -> None:
    with pytest.raises(ValueError, match="one of image, audio, text"):
        ExactRetrieval.of_plan(plan(4, 3, 2), "video")
