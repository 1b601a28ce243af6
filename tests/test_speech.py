"""The espeak clip pool: its recipes, and the clips they become."""

from __future__ import annotations

import io
import multiprocessing
import pickle
import re
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import soundfile

from symile_m3.errors import SourceError, UsageError
from symile_m3.languages import LANGUAGES, SETS, find_language
from symile_m3.media import Recipe, SpeechOptions, content_id
from symile_m3.speech import EspeakPool, open_clip_pool
from symile_m3.speech.clip import LEVEL_DBFS, MAX_DURATION_S, PEAK_CEILING_DBFS
from symile_m3.speech.engine import phonemes
from symile_m3.speech.kana import is_kana
from symile_m3.speech.voices import VOICES

TEN = SETS[10]
SPLITS = ("train", "val", "test")


@pytest.fixture(scope="module")
def recipes() -> list[Recipe]:
    return EspeakPool().recipes(TEN)


def ids(pool: EspeakPool, recipes: list[Recipe]) -> list[str]:
    return [content_id(pool.make(recipe)) for recipe in recipes]


def test_counts_and_names(recipes: list[Recipe]) -> None:
    counts = Counter((recipe.group, recipe.split) for recipe in recipes)
    assert counts == {(language, split): n for language in TEN for split, n in zip(SPLITS, (480, 40, 60), strict=True)}
    assert len({recipe.name for recipe in recipes}) == len(recipes)
    assert recipes[0].name == "ar-train-00000"


def test_a_language_without_sentences_makes_all_say_phrases() -> None:
    pool = EspeakPool(train=10, val=4, test=6)
    found = pool.recipes(["en", "fr", "ru"])
    assert Counter(recipe.group for recipe in found) == {"en": 20, "fr": 20, "ru": 20}
    assert {recipe.attributes["sentence"][0] for recipe in found} == {"p"}
    assert {recipe.licence for recipe in found} == {"Unicode-3.0"}
    assert len({recipe.attributes["text"] for recipe in found if recipe.group == "fr"}) == 20
    assert len({content_id(pool.make(recipe)) for recipe in found[::6]}) == 10
    assert {recipe.attributes["sentence"][0] for recipe in pool.recipes(["el", "en"])} == {"p", "s"}


@pytest.mark.parametrize("train", [12, pytest.param(120, marks=pytest.mark.slow)])
@pytest.mark.parametrize("language", ["fr", "ru", "ro", "sw", "vi", "ne", "pt-BR"])
def test_phrases_are_read_in_their_language_beyond_the_ten(language: str, train: int) -> None:
    for recipe in EspeakPool(train=train, val=3, test=5).recipes([language]):
        sounds = phonemes(recipe.attributes["spoken"], voice=find_language(language).espeak)
        assert "(" not in sounds, recipe.attributes["spoken"]  # espeak-ng marks a change of language so: (en)


def test_a_language_that_espeak_has_no_voice_for_is_refused() -> None:
    with pytest.raises(UsageError, match=r"no voice for ckb \(Central Kurdish\); leave it out, or give recordings"):
        EspeakPool().recipes(["en", "ckb"])


def test_splits_share_no_voice_and_no_text(recipes: list[Recipe]) -> None:
    for key in ("voice", "sentence", "text", "spoken"):
        splits_of: dict[str, set[str]] = {}
        for recipe in recipes:
            # Voices and sentence ids are divided alike in all languages; phrase ids belong to one language.
            value = recipe.attributes[key]
            shared = key == "voice" or value.startswith("s0")
            splits_of.setdefault(value if shared else f"{recipe.group}/{value}", set()).add(recipe.split)
        assert [value for value, splits in splits_of.items() if len(splits) > 1] == []


def test_voices_are_installed_and_each_is_in_one_split() -> None:
    from symile_m3.speech.engine import variants

    names = [voice.variant for voice in VOICES]
    assert len(set(names)) == len(names)
    assert set(names) - set(variants()) == {""}
    assert {(voice.split, voice.sex) for voice in VOICES} == {(s, x) for s in SPLITS for x in ("female", "male")}


def test_every_voice_speaks_every_language_in_training(recipes: list[Recipe]) -> None:
    for language in TEN:
        used = Counter(r.attributes["voice"] for r in recipes if r.group == language and r.split == "train")
        women = {voice.variant for voice in VOICES if (voice.split, voice.sex) == ("train", "female")}
        assert len(used) == sum(voice.split == "train" for voice in VOICES)
        assert sum(used[voice] for voice in women) == 240
        assert max(used[voice] for voice in women) - min(used[voice] for voice in women) <= 1


def test_prosody_does_not_tell_the_language(recipes: list[Recipe]) -> None:
    for key, low, high in (("rate_wpm", 120, 160), ("pitch", 30, 70)):
        for language in TEN:
            values = [int(r.attributes[key]) for r in recipes if r.group == language and r.split == "train"]
            assert low <= min(values) <= low + 2
            assert high - 2 <= max(values) <= high
            assert abs(np.mean(values) - (low + high) / 2) < 3  # four standard errors


def test_recipes_are_distinct_and_the_same_again(recipes: list[Recipe]) -> None:
    what = [tuple(sorted({**r.attributes, "language": r.group}.items())) for r in recipes]
    assert len(set(what)) == len(what)
    assert EspeakPool().recipes(["th"]) == [recipe for recipe in recipes if recipe.group == "th"]
    other = EspeakPool(seed=1).recipes(["th"])
    assert {r.attributes["text"] for r in other} != {r.attributes["text"] for r in recipes if r.group == "th"}


def test_kinds_and_licences(recipes: list[Recipe]) -> None:
    kinds = Counter((recipe.attributes["sentence"][0], recipe.licence) for recipe in recipes)
    assert kinds == {("s", "MIT"): 3480, ("p", "Unicode-3.0"): 2320}


def test_japanese_is_spoken_from_kana(recipes: list[Recipe]) -> None:
    for recipe in recipes:
        if recipe.group == "ja":
            spoken = recipe.attributes["spoken"]
            assert is_kana(spoken.translate(str.maketrans("", "", "、。？！?!,."))), spoken
        else:
            assert recipe.attributes["spoken"] == recipe.attributes["text"]


def test_written_japanese_is_kept(recipes: list[Recipe]) -> None:
    written = [recipe.attributes["text"] for recipe in recipes if recipe.group == "ja"]
    assert sum(any("\u4e00" <= character <= "\u9fff" for character in text) for text in written) > 100


@pytest.mark.parametrize("language", TEN)
def test_clips_are_sound(language: str, recipes: list[Recipe]) -> None:
    pool = EspeakPool()
    of_language = [recipe for recipe in recipes if recipe.group == language]
    for recipe in of_language[::20]:
        with soundfile.SoundFile(io.BytesIO(pool.make(recipe))) as file:
            assert (file.samplerate, file.channels, file.format, file.subtype) == (
                16_000,
                1,
                "FLAC",
                "PCM_16",
            )
            samples = file.read(dtype="float64")
        assert 1.0 <= len(samples) / 16_000 <= MAX_DURATION_S
        level = 20 * np.log10(np.sqrt((samples**2).mean()))
        peak = 20 * np.log10(np.abs(samples).max())
        assert peak <= PEAK_CEILING_DBFS + 0.01
        assert level == pytest.approx(LEVEL_DBFS, abs=0.05) or (
            level < LEVEL_DBFS and peak == pytest.approx(PEAK_CEILING_DBFS, abs=0.05)
        )


def test_clips_do_not_depend_on_order(recipes: list[Recipe]) -> None:
    pool = EspeakPool()
    some = recipes[::211]
    assert ids(pool, some) == ids(pool, some[::-1])[::-1]


def test_clips_are_the_same_in_another_process(recipes: list[Recipe]) -> None:
    pool = EspeakPool()
    some = recipes[7::350]
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as executor:
        there = executor.submit(ids, pool, some[::-1]).result()
    assert there[::-1] == ids(pool, some)


def test_the_pool_can_be_pickled() -> None:
    pool = EspeakPool(train=5, seed=3, forbidden={"en": frozenset({"goat"})})
    assert pickle.loads(pickle.dumps(pool)) == pool


@pytest.mark.parametrize(("spoken", "why"), [("...", "silent"), ("No.", "lasts 0.")])
def test_a_clip_that_cannot_be_made_is_named(spoken: str, why: str, recipes: list[Recipe]) -> None:
    recipe = next(recipe for recipe in recipes if recipe.group == "en")
    bad = Recipe(
        name="en-x",
        group="en",
        split="train",
        source="espeak",
        licence="MIT",
        attributes={**recipe.attributes, "spoken": spoken, "text": spoken},
    )
    with pytest.raises(SourceError, match=why) as caught:
        EspeakPool().make(bad)
    assert all(part in str(caught.value) for part in ("en-x", "'en'", repr(spoken)))


def test_forbidden_names_are_not_spoken(recipes: list[Recipe]) -> None:
    def words(text: str) -> list[str]:
        return re.findall(r"\w+", text.lower())

    sentence = next(r for r in recipes if r.group == "en" and r.attributes["sentence"].startswith("s"))
    word = max(words(sentence.attributes["text"]), key=len)
    pool = EspeakPool(forbidden={"en": frozenset({word, "Monday"}), "zh": frozenset({"星期一"})})
    before = [r.attributes["text"] for r in recipes if r.group == "en"]
    after = [r.attributes["text"] for r in pool.recipes(["en"])]
    for name in (word, "monday"):
        assert any(name in words(text) for text in before)
        assert not any(name in words(text) for text in after)
    assert any("星期一" in r.attributes["text"] for r in recipes if r.group == "zh")
    assert not any("星期一" in r.attributes["text"] for r in pool.recipes(["zh"]))
    assert pool.recipes(["el"]) == [r for r in recipes if r.group == "el"]


def test_nothing_left_to_say_is_an_error() -> None:
    everything = frozenset(chr(letter) for letter in range(ord("あ"), ord("ん")))
    two = frozenset(f"{a}{b}" for a in everything for b in everything)
    with pytest.raises(SourceError, match="'ja'"):
        EspeakPool(forbidden={"ja": two}).recipes(["ja"])


@pytest.mark.parametrize("split", SPLITS)
def test_counts_must_be_positive(split: str) -> None:
    with pytest.raises(UsageError, match=f"{split} must be at least 1"):
        EspeakPool(**{split: 0})


def test_open_clip_pool() -> None:
    forbidden = {"en": frozenset({"goat"})}
    assert open_clip_pool("espeak", SpeechOptions(seed=4, forbidden=forbidden)) == EspeakPool(
        seed=4, forbidden=forbidden
    )
    assert open_clip_pool("espeak").suffix == "flac"
    with pytest.raises(UsageError, match=r"--speech parrot: .*known: espeak, "):
        open_clip_pool("parrot")


def test_unknown_language() -> None:
    with pytest.raises(UsageError, match="'tlh'"):
        EspeakPool().recipes(["en", "tlh"])


def test_a_table_of_ones_own(tmp_path: Path) -> None:
    columns = ["id", *LANGUAGES, "ja_kana"]
    rows = [[f"x{row}", *(f"{row} {column}" for column in columns[1:])] for row in range(8)]
    path = tmp_path / "mine.tsv"
    path.write_text("\n".join("\t".join(row) for row in [columns, *rows]) + "\n", encoding="utf-8")
    made = EspeakPool(sentences=path).recipes(["ja"])
    sentences = [r for r in made if r.attributes["sentence"].startswith("x")]
    assert {r.attributes["sentence"] for r in sentences} == {f"x{row}" for row in range(8)}
    assert all(r.attributes["spoken"] == f"{r.attributes['sentence'][1:]} ja_kana" for r in sentences)
    path = tmp_path / "few.tsv"
    path.write_text("\n".join("\t".join(row) for row in [columns, *rows[:2]]) + "\n", encoding="utf-8")
    with pytest.raises(SourceError, match="too few"):
        EspeakPool(sentences=path).recipes(["ja"])
