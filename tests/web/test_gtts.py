"""The gTTS clip pool: its recipes, and the clips they become, by the real client against a server."""

from __future__ import annotations

import io
import pickle
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from google_server import GoogleServer

from symile_m3.errors import ServiceError, SourceError, UsageError
from symile_m3.languages import SETS
from symile_m3.media import Recipe, SpeechOptions, content_id
from symile_m3.speech import open_clip_pool
from symile_m3.speech.gtts import GttsPool, least_duration_s
from symile_m3.web import Answers, Manners, Service

QUICK = Manners(rate=500, timeout_s=60, patience_s=60, first_pause_s=0.01)
LANGUAGES = [*SETS[10], "fr", "he", "de", "sw"]


def pool(directory: Path, **changes: object) -> GttsPool:
    service = Service(name="gtts", title="gTTS", version="1", answers=Answers(directory=directory), manners=QUICK)
    return GttsPool(service=service, **changes)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def recipes(tmp_path_factory: pytest.TempPathFactory) -> list[Recipe]:
    return pool(tmp_path_factory.mktemp("web")).recipes(LANGUAGES)


def test_recipes_ask_for_nothing(google: GoogleServer, tmp_path: Path) -> None:
    assert len(pool(tmp_path, train=30, val=5, test=5).recipes(["el", "fr"])) == 80
    assert google.asked == []


def test_a_code_with_the_region_that_is_meant_anyway_is_spoken(tmp_path: Path) -> None:
    made = pool(tmp_path, train=3, val=1, test=1).recipes(["pt-BR"])
    assert {(one.attributes["engine_language"], one.attributes["accent"]) for one in made} == {("pt", "com.br")}
    with pytest.raises(SourceError, match="gtts does not speak en-GB; it speaks af, am"):
        pool(tmp_path).recipes(["en-GB"])


def test_counts_and_names(recipes: list[Recipe]) -> None:
    counts = Counter((recipe.group, recipe.split) for recipe in recipes)
    assert set(counts) == {(language, split) for language in LANGUAGES for split in ("train", "val", "test")}
    assert set(counts.values()) == {480, 40, 60}
    assert len({recipe.name for recipe in recipes}) == len(recipes)
    assert {(recipe.source, recipe.synthetic) for recipe in recipes} == {("gtts", True)}
    assert all("unclear" in recipe.licence for recipe in recipes)


def test_no_text_is_spoken_twice_and_none_is_in_two_splits(recipes: list[Recipe]) -> None:
    said = Counter((recipe.group, recipe.attributes["text"]) for recipe in recipes)
    assert set(said.values()) == {1}
    splits: dict[str, set[str]] = {}
    for recipe in recipes:
        if recipe.attributes["sentence"].startswith("s"):
            splits.setdefault(recipe.attributes["sentence"], set()).add(recipe.split)
    assert all(len(of) == 1 for of in splits.values())
    kinds = Counter((recipe.group, recipe.attributes["sentence"][0]) for recipe in recipes)
    assert {kinds[language, "s"] for language in SETS[10]} == {96}
    assert {kinds[language, "s"] for language in ("fr", "he", "de", "sw")} == {0}


def test_accents_are_the_languages_own_and_divided_where_there_are_enough(recipes: list[Recipe]) -> None:
    accents: dict[tuple[str, str], set[str]] = {}
    for recipe in recipes:
        accents.setdefault((recipe.group, recipe.split), set()).add(recipe.attributes["accent"])
    assert accents["en", "train"] == {"com", "co.uk", "com.au", "co.in", "ca"}
    assert accents["en", "val"] | accents["en", "test"] == {"ie", "co.za", "com.ng"}
    assert all(accents[language, "train"] == {"com"} for language in LANGUAGES if language not in ("en", "fr"))
    codes = {recipe.group: recipe.attributes["engine_language"] for recipe in recipes}
    assert codes == {**{language: language for language in LANGUAGES}, "zh": "zh-CN", "he": "iw"}


def test_japanese_is_asked_for_as_it_is_written(recipes: list[Recipe]) -> None:
    written = [recipe.attributes["text"] for recipe in recipes if recipe.group == "ja"]
    assert sum(any("\u4e00" <= character <= "\u9fff" for character in text) for text in written) > 100


def test_no_clip_names_a_class(tmp_path: Path) -> None:
    small = pool(tmp_path, forbidden={"fr": frozenset({"euro", "mètre", "lundi"})})
    texts = [recipe.attributes["text"] for recipe in small.recipes(["fr"])]
    assert len(texts) == 580
    assert not any(word in text.casefold().split() for text in texts for word in ("euro", "euros", "lundi", "mètres"))


def test_a_clip_is_16_khz_mono_flac_and_asked_for_once(google: GoogleServer, tmp_path: Path) -> None:
    small = pool(tmp_path, train=6, val=1, test=1)
    made = small.recipes(["en", "ja", "he"])
    clips = [small.make(recipe) for recipe in made]
    for clip in clips:
        with soundfile.SoundFile(io.BytesIO(clip)) as file:
            assert (file.samplerate, file.channels, file.format, file.subtype) == (16_000, 1, "FLAC", "PCM_16")
            samples = file.read(dtype="float64")
        assert 1 <= len(samples) / 16_000 <= 3
        assert np.sqrt((samples**2).mean()) > 0.05
    assert len({content_id(clip) for clip in clips}) == len(clips)
    assert len(google.asked) == len(clips)
    again = pickle.loads(pickle.dumps(pool(tmp_path, train=6, val=1, test=1)))
    assert [again.make(recipe) for recipe in made] == clips
    assert len(google.asked) == len(clips)
    assert {(asked.question.language, asked.question.accent) for asked in google.asked} == {
        (recipe.attributes["engine_language"], recipe.attributes["accent"]) for recipe in made
    }


def test_a_long_text_is_asked_for_in_parts_and_not_beyond_what_is_heard(google: GoogleServer, tmp_path: Path) -> None:
    small = pool(tmp_path, train=1, val=1, test=1)
    recipe = small.recipes(["en"])[0]
    text = "hi, " + "there " * 12 + "you " * 20
    small.make(replace(recipe, attributes={**recipe.attributes, "text": text}))
    # The third part would begin after four seconds.
    assert [asked.question.text for asked in google.asked] == ["hi", ("there " * 12 + "you " * 7).strip()]


@pytest.mark.parametrize("fault", ["truncated", "empty", "html", "silence"])
def test_half_an_answer_is_not_kept_and_is_asked_for_again(fault: str, google: GoogleServer, tmp_path: Path) -> None:
    google.fault = lambda number, question: fault if number <= 2 else ""
    small = pool(tmp_path, train=1, val=1, test=1)
    recipe = small.recipes(["el"])[0]
    clip = small.make(recipe)
    assert len(google.asked) == 3
    assert small.make(recipe) == clip
    google.fault = lambda number, question: ""
    assert pool(tmp_path / "other", train=1, val=1, test=1).make(recipe) == clip


def test_a_clip_that_cannot_be_had_is_named(google: GoogleServer, tmp_path: Path) -> None:
    google.fault = lambda number, question: "truncated"
    small = pool(tmp_path, train=1, val=1, test=1)
    with pytest.raises(
        SourceError, match=r"^clip el-train-00000: gTTS: an MP3 cut off .*, asked 7 times; everything else .*again$"
    ):
        small.make(small.recipes(["el"])[0])


def test_a_service_that_is_given_up_is_not_blamed_on_a_clip(google: GoogleServer, tmp_path: Path) -> None:
    google.fault = lambda number, question: "429 Retry-After: 7200"
    small = pool(tmp_path, train=1, val=1, test=1)
    with pytest.raises(ServiceError, match=r"^gTTS asks to wait for 7200 s \(HTTP 429 Too Many Requests\); everything"):
        small.make(small.recipes(["el"])[0])
    assert len(google.asked) == 1


def test_nobody_speaks_faster_than_the_least_duration() -> None:
    assert least_duration_s("") == 0.2
    assert least_duration_s("We can talk about it later.") == pytest.approx(21 / 40)
    assert least_duration_s("这件事我们以后再谈。") == pytest.approx(36 / 40)


def test_the_spec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("SYMILE_M3_WEB_RATE", "7")
    options = SpeechOptions(seed=3, clips=(5, 2, 1), forbidden={"en": frozenset({"goat"})})
    for spec in ("gtts", "gtts:"):
        opened = open_clip_pool(spec, options)
        assert isinstance(opened, GttsPool)
        assert (opened.train, opened.val, opened.test, opened.seed) == (5, 2, 1, 3)
        assert opened.forbidden == options.forbidden
        assert opened.service.manners.rate == 7
        assert opened.service.answers.directory == tmp_path / "symile-m3" / "web"
        assert opened.service.version.startswith("gTTS 2.")
    with pytest.raises(UsageError, match="gtts takes nothing after its name"):
        open_clip_pool("gtts:co.uk")
    with pytest.raises(UsageError, match="val must be at least 1, not 0"):
        GttsPool(val=0)


def test_languages_that_are_not_spoken_are_named(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="gtts does not speak eo, xx; it speaks af, am, "):
        pool(tmp_path).recipes(["en", "eo", "xx"])
