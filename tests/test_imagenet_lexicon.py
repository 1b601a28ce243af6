"""The table of ImageNet's classes in ten languages."""

from __future__ import annotations

import re
from importlib import resources
from importlib.util import find_spec
from pathlib import Path

import pytest

from symile_m3.languages import SETS
from symile_m3.letters import foreign_letters, in_its_script
from symile_m3.lexicon import builtin_lexicon, builtin_names, builtin_reviews, check_names, normalise
from symile_m3.lexicon.translate import english_names

# Names with letters of another script, as people write them.
FOREIGN = {
    ("n02977058", "ja"): "ATM",  # 銀行ATM
    ("n02988304", "el"): "CD",  # συσκευή CD
    ("n02988304", "ja"): "CD",  # CDプレーヤー
    ("n02988304", "zh"): "CD",  # CD机
    ("n03584254", "zh"): "iPod",  # 苹果iPod
    ("n03595614", "ja"): "T",  # Tシャツ
    ("n03595614", "zh"): "T",  # T恤
    ("n03777568", "ja"): "T",  # T型フォード
    ("n03777568", "ko"): "T",  # 포드 모델 T
    ("n03777568", "zh"): "T",  # 福特T型车
}
SENSES = {  # synset -> English name: the sense of the gloss, where the word has another
    "n02012849": "crane",
    "n03126707": "construction crane",
    "n01847000": "drake",
    "n01580077": "jay",
    "n02113186": "Cardigan Welsh corgi",
    "n02963159": "cardigan",
    "n04355933": "burning glass",
    "n04356056": "sunglasses",
}


@pytest.fixture(scope="module")
def names() -> dict[str, dict[str, str]]:
    return {key: dict(row) for key, row in builtin_names("imagenet").names.items()}


def test_every_class_has_a_name_in_every_language(names: dict[str, dict[str, str]]) -> None:
    lexicon = builtin_lexicon("imagenet")
    assert lexicon.languages == SETS[10]
    assert len(lexicon) == 1000
    assert all(name and name == " ".join(name.split()) for row in lexicon.names for name in row)
    assert not [name for row in lexicon.names for name in row if re.search(r"[_/()\[\],;|]|\d{2}", name)]


def test_its_keys_are_the_synsets_of_imagenet() -> None:
    timm = find_spec("timm")  # not imported, for it imports torch
    assert timm is not None
    assert timm.origin is not None
    file = Path(timm.origin).parent / "data" / "_info" / "imagenet_synsets.txt"
    synsets = file.read_text(encoding="utf-8").split()
    assert len(synsets) == 1000
    assert builtin_lexicon("imagenet").class_keys == tuple(sorted(synsets))


def test_no_two_of_its_ten_thousand_names_are_the_same() -> None:
    lexicon = builtin_lexicon("imagenet")
    assert lexicon.clashes() == []
    assert len({normalise(name) for row in lexicon.names for name in row}) == 10_000


def test_every_name_is_in_its_script_or_on_the_list(names: dict[str, dict[str, str]]) -> None:
    assert [name for row in names.values() for code, name in row.items() if not in_its_script(name, code)] == []
    found = {
        (key, code): "".join(letters)
        for key, row in names.items()
        for code, name in row.items()
        if (letters := foreign_letters(name, code))
    }
    assert {pair: letters for pair, letters in found.items() if FOREIGN.get(pair) != letters} == {}
    reviews = builtin_reviews("imagenet")
    assert [pair for pair in found if f"{pair[1]}: " not in reviews.get(pair[0], "")] == []  # each says why


def test_the_check_finds_nothing() -> None:
    found = check_names(builtin_names("imagenet"), SETS[10])
    assert found.fit
    assert (found.mixed, found.english) == ((), ())


def test_names_mean_the_thing_of_their_synset(names: dict[str, dict[str, str]]) -> None:
    assert {key: names[key]["en"] for key in SENSES} == SENSES
    for one, other in (("n02012849", "n03126707"), ("n02963159", "n02113186"), ("n04355933", "n04356056")):
        assert not set(names[one].values()) & set(names[other].values())


def test_categories_are_those_of_the_emoji_where_they_mean_the_same() -> None:
    lexicon = builtin_lexicon("imagenet")
    counts = {category: lexicon.categories.count(category) for category in set(lexicon.categories)}
    assert counts["animal-dog"] == 118
    assert 30 <= len(counts) <= 60
    shared = counts.keys() & set(builtin_lexicon("emoji").categories)
    assert {"animal-bird", "animal-mammal", "food-fruit", "clothing", "tool", "transport-ground"} <= shared
    assert min(counts.values()) >= 3
    by_key = dict(zip(lexicon.class_keys, lexicon.categories, strict=True))
    assert by_key["n02113186"] == "animal-dog"
    assert by_key["n07753592"] == "food-fruit"
    assert by_key["n03126707"] == "tool"


def test_reviews_are_of_languages_that_it_has() -> None:
    reviews = builtin_reviews("imagenet")
    assert len(reviews) > 200
    assert set(reviews) <= set(builtin_lexicon("imagenet").class_keys)
    assert [review for review in reviews.values() if review[:4] not in {f"{code}: " for code in SETS[10]}] == []
    assert builtin_reviews("emoji") == {}


def test_ambiguous_english_names_go_to_translators_with_their_sense() -> None:
    asked = english_names({}, builtin_names("imagenet"))
    assert len(asked) == 1000
    assert asked["n02012849"] == "crane (bird)"
    assert asked["n03126707"] == "construction crane"
    assert asked["n02099601"] == "golden retriever"
    lines = resources.files("symile_m3.lexicon").joinpath("hints.tsv").read_text(encoding="utf-8").splitlines()
    keys = [line.split("\t")[0] for line in lines[1:]]
    assert keys == sorted(set(keys))
    assert set(keys) <= {*builtin_lexicon("imagenet").class_keys, *builtin_lexicon("emoji").class_keys}
