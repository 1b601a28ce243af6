"""The plan: what samples are, whatever range they are asked for in."""

from __future__ import annotations

import dataclasses
import gc
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import symile_m3.plan_json
from symile_m3.draws import draw_texts, draws_per_text
from symile_m3.errors import NotBuiltError, PlanError, UsageError
from symile_m3.languages import SETS
from symile_m3.lexicon import Lexicon
from symile_m3.media import Medium, Recipe
from symile_m3.plan import Plan, PlanConfig, Rows, load_plan, save_plan

SPLITS = ("train", "val", "test")


def config(**changes: Any) -> PlanConfig:
    values: dict[str, Any] = {
        **{"languages": ("el", "en", "ja"), "words": 3, "classes": 6},
        **{"train": 50, "val": 20, "test": 20, "shard_samples": 16},
    }
    return PlanConfig(**{**values, **changes})


def media(groups: tuple[str, ...], counts: dict[str, int]) -> tuple[Medium, ...]:
    return tuple(
        Medium(
            id=f"{group}{split}{i}",
            recipe=Recipe(name=f"{group}-{split}-{i}", group=group, split=split, source="test", licence="CC0-1.0"),
        )
        for group in groups
        for split, count in counts.items()
        for i in range(count)
    )


def plan(**changes: Any) -> Plan:
    chosen = config(**changes)
    keys = tuple(f"k{i:03d}" for i in range(chosen.classes))
    return Plan(
        config=chosen,
        lexicon=Lexicon(
            languages=chosen.languages,
            class_keys=keys,
            categories=("thing",) * len(keys),
            names=tuple(tuple(f"{key} in {language}" for language in chosen.languages) for key in keys),
        ),
        images=media(keys, {"train": 3, "val": 1, "test": 1}),
        clips=media(chosen.languages, {"train": 5, "val": 2, "test": 3}),
    )


def columns(rows: Rows) -> dict[str, NDArray[np.int64]]:
    return {item.name: getattr(rows, item.name) for item in dataclasses.fields(rows)}


def chi_square(values: NDArray[np.int64], count: int) -> float:
    """Standard deviations by which the chi-square statistic of a uniform draw lies off its mean."""
    observed = np.bincount(values, minlength=count)
    expected = len(values) / count
    return float((((observed - expected) ** 2 / expected).sum() - (count - 1)) / np.sqrt(2 * (count - 1)))


@st.composite
def configs(draw: st.DrawFn, text: str = "disjoint") -> PlanConfig:
    languages = tuple(sorted(draw(st.sets(st.sampled_from(SETS[10]), min_size=2))))
    most = len(languages) if text == "disjoint" else 14
    words = draw(st.integers(1, most))
    return config(
        languages=languages,
        words=words,
        classes=draw(st.integers(max(2, words if text == "disjoint" else 2), 40)),
        text=text,
        seed=draw(st.integers(0, 2**64)),
        split_by=draw(st.sampled_from(("media", "sample"))),
    )


@given(configs())
@settings(max_examples=60, deadline=None)
def test_disjoint_texts(chosen: PlanConfig) -> None:
    made = plan(**dataclasses.asdict(chosen))
    for split in SPLITS:
        rows = made.rows(split, 0, chosen.sizes[split])
        n, w = len(rows.class_ids), chosen.words
        assert rows.word_class_ids.shape == rows.word_language_ids.shape == (n, w)
        for ids, bound in (
            (rows.word_class_ids, chosen.classes),
            (rows.word_language_ids, len(chosen.languages)),
        ):
            assert ids.min() >= 0
            assert ids.max() < bound
            assert (np.diff(np.sort(ids, axis=1), axis=1) > 0).all()  # all different in each text
        spoken = rows.word_language_ids == rows.language_ids[:, None]
        assert (spoken.sum(axis=1) == 1).all()
        assert (spoken.argmax(axis=1) == rows.targets).all()
        assert (rows.word_class_ids[np.arange(n), rows.targets] == rows.class_ids).all()


@given(configs(text="overlap"))
@settings(max_examples=40, deadline=None)
def test_overlap_texts(chosen: PlanConfig) -> None:
    rows = plan(**dataclasses.asdict(chosen)).rows("train", 0, chosen.train)
    spoken = rows.word_language_ids == rows.language_ids[:, None]
    assert (spoken.sum(axis=1) == 1).all()
    assert (spoken.argmax(axis=1) == rows.targets).all()
    assert (rows.word_class_ids[np.arange(chosen.train), rows.targets] == rows.class_ids).all()


@given(configs(), st.sampled_from(SPLITS), st.data())
@settings(max_examples=60, deadline=None)
def test_a_sample_is_the_same_in_whichever_range(chosen: PlanConfig, split: str, data: st.DataObject) -> None:
    size = chosen.sizes[split]
    start = data.draw(st.integers(0, size))
    stop = data.draw(st.integers(start, size))
    made = plan(**dataclasses.asdict(chosen))
    whole = columns(made.rows(split, 0, size))
    for name, part in columns(made.rows(split, start, stop)).items():
        np.testing.assert_array_equal(part, whole[name][start:stop])


@given(configs(), st.sampled_from(SPLITS))
@settings(max_examples=40, deadline=None)
def test_media_are_of_the_class_the_language_and_the_split(chosen: PlanConfig, split: str) -> None:
    made = plan(**dataclasses.asdict(chosen))
    rows = made.rows(split, 0, chosen.sizes[split])
    for media_of, row_ids, group_ids, groups in (
        (made.images, rows.image_rows, rows.class_ids, made.lexicon.class_keys),
        (made.clips, rows.clip_rows, rows.language_ids, made.lexicon.languages),
    ):
        for row, group in zip(row_ids, group_ids, strict=True):
            recipe = media_of[row].recipe
            assert recipe.group == groups[group]
            assert chosen.split_by == "sample" or recipe.split == split


@pytest.mark.parametrize("words", [3, 5])
def test_every_draw_is_uniform(words: int) -> None:
    n, classes, languages = 60_000, 12, SETS[5]
    made = plan(languages=languages, words=words, classes=classes, train=n)
    rows = made.rows("train", 0, n)
    w, draws = words, {"class": rows.class_ids * len(languages) + rows.language_ids}
    assert abs(chi_square(draws["class"], classes * len(languages))) < 4  # and so they are independent
    assert abs(chi_square(rows.targets, w)) < 4
    images = np.array([int(medium.id[-1]) for medium in made.images])[rows.image_rows]
    assert abs(chi_square(images, 3)) < 4
    others = ~(np.arange(w) == rows.targets[:, None])
    for ids, own, bound in (
        (rows.word_class_ids, rows.class_ids, classes),
        (rows.word_language_ids, rows.language_ids, len(languages)),
    ):
        offsets = (ids - own[:, None])[others].reshape(n, w - 1) % bound - 1
        for place in range(w - 1):
            assert abs(chi_square(offsets[:, place], bound - 1)) < 4
    # class and language of a distractor are independent
    pair = (rows.word_class_ids - rows.class_ids[:, None])[others] % classes - 1
    pair = pair * (len(languages) - 1) + (rows.word_language_ids - rows.language_ids[:, None])[others] % 5 - 1
    first = pair.reshape(n, w - 1)[:, 0]
    assert abs(chi_square(first, (classes - 1) * (len(languages) - 1))) < 4


def test_neighbouring_samples_splits_and_seeds_share_nothing() -> None:
    made = plan(classes=40, train=2000, val=2000)
    train, val = (made.rows(split, 0, 2000).class_ids for split in ("train", "val"))
    other = plan(classes=40, train=2000, seed=1).rows("train", 0, 2000).class_ids
    for one, two in ((train, val), (train, other), (train[:-1], train[1:])):
        assert abs((one == two).mean() - 1 / 40) < 0.015


def test_draw_texts_takes_any_raw_draws() -> None:
    raw = np.zeros((2, draws_per_text(3)), np.uint64)
    raw[1] = np.iinfo(np.uint64).max
    classes, languages, targets = draw_texts(
        raw,
        np.array([0, 3]),
        np.array([0, 2]),
        words=3,
        classes=4,
        languages=3,
        overlap=False,
    )
    assert classes.tolist() == [[0, 1, 2], [3, 2, 1]]
    assert languages.tolist() == [[0, 1, 2], [2, 1, 0]]
    assert targets.tolist() == [0, 0]


def test_a_range_out_of_the_split_is_refused() -> None:
    for start, stop in ((-1, 3), (3, 2), (0, 51)):
        with pytest.raises(ValueError, match="which has 50"):
            plan().rows("train", start, stop)


def test_shards_part_the_split() -> None:
    made = plan()
    assert made.shard_count("train") == 4
    ranges = [made.shard_range("train", i) for i in range(4)]
    assert ranges == [(0, 16), (16, 32), (32, 48), (48, 50)]


def test_a_split_without_media_is_named() -> None:
    made = dataclasses.replace(plan(), images=media(plan().lexicon.class_keys, {"train": 2, "test": 1}))
    with pytest.raises(PlanError, match="no image or clip of k000 for val"):
        made.rows("val", 0, 5)


def test_the_fingerprint_covers_whatever_shapes_the_bytes() -> None:
    made = plan()
    assert len(made.fingerprint) == 32
    assert plan().fingerprint == made.fingerprint
    others = [
        plan(**{name: value})
        for name, value in {
            **{"words": 2, "classes": 7, "train": 51, "val": 21, "test": 21, "split_by": "sample"},
            **{"text": "overlap", "seed": 1, "shard_samples": 17, "clips": (1, 1, 1), "images": "x"},
            **{"speech": "x", "names": "x", "languages": ("el", "en", "zh")},
        }.items()
    ]
    medium = made.clips[0]
    changed = [
        dataclasses.replace(medium, id="other"),
        *(
            dataclasses.replace(medium, recipe=dataclasses.replace(medium.recipe, **{name: value}))
            for name, value in {"source": "x", "licence": "x", "attributes": {"voice": "x"}}.items()
        ),
    ]
    others += [dataclasses.replace(made, clips=(one, *made.clips[1:])) for one in changed]
    names = (("renamed", *made.lexicon.names[0][1:]), *made.lexicon.names[1:])
    others.append(dataclasses.replace(made, lexicon=dataclasses.replace(made.lexicon, names=names)))
    fingerprints = {other.fingerprint for other in others}
    assert len(fingerprints) == len(others)
    assert made.fingerprint not in fingerprints


def test_a_plan_is_saved_and_loaded(tmp_path: Path) -> None:
    made = plan()
    save_plan(made, tmp_path / "plan.json")
    loaded = load_plan(tmp_path / "plan.json")
    assert loaded == made
    assert loaded.fingerprint == made.fingerprint
    for split in SPLITS:
        for name, column in columns(loaded.rows(split, 0, 20)).items():
            np.testing.assert_array_equal(column, columns(made.rows(split, 0, 20))[name])


@pytest.mark.parametrize("part", [1, 7, 1000])
def test_the_text_of_a_plan_is_plain_json_with_sorted_keys(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: int
) -> None:
    """However many media are written at a time; the fingerprint is that of the text without it."""
    monkeypatch.setattr(symile_m3.plan_json, "_MEDIA_A_PART", part)
    made = plan()
    save_plan(made, tmp_path / "plan.json")
    text = json.dumps(made.to_json(), sort_keys=True, ensure_ascii=False)
    assert made.fingerprint == hashlib.sha256(text.encode()).hexdigest()[:32]
    record = {**made.to_json(), "fingerprint": made.fingerprint}
    assert (tmp_path / "plan.json").read_text("utf-8") == json.dumps(record, sort_keys=True, ensure_ascii=False)
    none = dataclasses.replace(made, images=(), clips=(), _groups={})
    text = json.dumps(none.to_json(), sort_keys=True, ensure_ascii=False)
    assert b"".join(none.json_parts()).decode() == text


def test_strings_that_recur_are_kept_once(tmp_path: Path) -> None:
    save_plan(plan(), tmp_path / "plan.json")
    assert gc.isenabled()
    loaded = load_plan(tmp_path / "plan.json")
    assert gc.isenabled()
    for media in (loaded.images, loaded.clips):
        for name in ("group", "split", "source", "licence"):
            texts = [getattr(medium.recipe, name) for medium in media]
            assert len({id(text) for text in texts}) == len(set(texts)) < len(texts)


def alter(record: dict[str, Any], how: str) -> Any:
    if how == "a name":
        record["lexicon"]["names"][0][0] = "other"
    elif how == "a clip":
        record["clips"][3]["id"] = "0" * 16
    elif how == "the seed":
        record["config"]["seed"] = 9
    elif how == "no fingerprint":
        del record["fingerprint"]
    elif how == "no clips":
        del record["config"]["clips"]
    elif how == "another option":
        record["config"]["sizes"] = 3
    elif how == "a bad option":
        record["config"]["train"] = -3
    elif how == "null":
        record["images"] = None
    elif how == "version":
        record["version"] = 99
    elif how == "a clip without a name":
        del record["clips"][3]["name"]
    elif how == "attributes null":
        record["images"][0]["attributes"] = None
    elif how == "a clip among attributes":
        record["clips"][3]["attributes"] = {"x": record["clips"][4]}
    elif how == "a clip for a lexicon":
        record["lexicon"] = record["clips"][4]
    elif how == "a clip for all":
        return record["clips"][4]
    else:
        return [record]
    return record


@pytest.mark.parametrize(
    ("how", "message"),
    [
        *((how, "altered since it was written") for how in ("a name", "a clip", "the seed", "no fingerprint")),
        *((how, "not a plan") for how in ("no clips", "another option", "a bad option", "null", "list")),
        *((how, "not a plan") for how in ("a clip without a name", "attributes null", "a clip among attributes")),
        *((how, "not a plan") for how in ("a clip for a lexicon", "a clip for all")),
        ("version", "format 99"),
    ],
)
def test_an_altered_plan_is_refused(tmp_path: Path, how: str, message: str) -> None:
    path = tmp_path / "plan.json"
    save_plan(plan(), path)
    path.write_text(json.dumps(alter(json.loads(path.read_text()), how)))
    with pytest.raises(PlanError, match=message) as caught:
        load_plan(path)
    assert "\n" not in str(caught.value)


def test_a_missing_or_unreadable_plan_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotBuiltError, match="run `symile-m3 build` first"):
        load_plan(tmp_path / ".symile" / "plan.json")
    (tmp_path / "plan.json").write_bytes(b"\xff{")
    with pytest.raises(PlanError, match="unreadable"):
        load_plan(tmp_path / "plan.json")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"languages": ("en",)}, "at least two"),
        ({"words": 0}, "--words 0"),
        ({"words": 4}, "--words 4: more words than the 3 languages"),
        ({"classes": 1}, "--classes 1"),
        ({"classes": 2}, "--classes 2: at least 3"),
        ({"split_by": "class"}, "--split-by class"),
        ({"text": "both"}, "--text both"),
        ({"val": 0}, "--val 0"),
        ({"shard_samples": 0}, "--shard-samples 0: give a number from 1 to 1,000,000"),
        ({"shard_samples": 1_000_001}, "--shard-samples 1000001"),
        ({"seed": -1}, "--seed -1"),
        ({"clips": (5, 0, 5)}, "each split needs at least one"),
    ],
)
def test_bad_configurations_are_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        config(**changes)


def test_differences_are_put_into_words() -> None:
    assert config().differences(config()) == []
    assert config(classes=7).differences(config()) == ["classes 6 (asked: 7)"]
