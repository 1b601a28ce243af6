"""Scripts of languages, and phrases in languages beyond the ten."""

from __future__ import annotations

import unicodedata

import pytest
from gtts.lang import tts_langs

from symile_m3.errors import SourceError
from symile_m3.languages import LANGUAGES
from symile_m3.letters import cldr_locale, in_script, is_letter, script_of
from symile_m3.speech.phrases import phrases

OURS = {"iw": "he", "jw": "jv", "tl": "fil"}
SPOKEN = sorted(OURS.get(code, code) for code in tts_langs() if code not in ("zh-CN", "zh"))


@pytest.mark.parametrize(
    ("language", "script"),
    [
        ("fr", "Latn"),
        ("sr", "Cyrl"),
        ("zh", "Hans"),
        ("zh-TW", "Hant"),
        ("he", "Hebr"),
        ("ja", "Jpan"),
        ("sr-Latn", "Latn"),
    ],
)
def test_the_script_of_a_language(language: str, script: str) -> None:
    assert script_of(language) == script


def test_a_language_that_cldr_does_not_know_is_named() -> None:
    with pytest.raises(SourceError, match="language 'qqx'"):
        cldr_locale("qqx")
    with pytest.raises(SourceError, match="language 'qqx'"):
        script_of("qqx")


@pytest.mark.parametrize(
    ("text", "script"),
    [
        ("Île d’été ß ł ı", "Latn"),
        ("Ґанок", "Cyrl"),
        ("ἀλφα", "Grek"),
        ("鯉のぼりタワーｶﾅ", "Jpan"),
        ("한국", "Kore"),
        ("ไก่", "Thai"),
        ("ជ្រូក", "Khmr"),
        ("ვაშლი", "Geor"),
    ],
)
def test_letters_are_of_their_script_and_of_no_other(text: str, script: str) -> None:
    letters = [character for character in text if is_letter(character)]
    assert len(letters) > 1
    assert all(in_script(character, script) for character in letters)
    other = "Latn" if script != "Latn" else "Cyrl"
    assert not any(in_script(character, other) for character in letters)


def test_a_script_that_is_not_known_here_is_any_but_latin() -> None:
    assert in_script("ⴰ", "Tfng")
    assert not in_script("a", "Tfng")


@pytest.mark.parametrize("language", SPOKEN)
def test_phrases_in_every_language_that_gtts_speaks(language: str) -> None:
    said = [phrase.written for phrase in phrases(language, seed=1, count=40)]
    assert len(set(said)) == 40
    letters = [character for text in said for character in text if is_letter(character)]
    assert sum(in_script(character, script_of(language)) for character in letters) >= 0.98 * len(letters)
    keys = ("duration-", "length-", "mass-", "volume-", "speed-", "area-", "temperature-")
    assert not any(key in text for text in said for key in keys)
    assert all(
        unicodedata.category(character)[0] != "C" or character in "\u200c\u200d" for text in said for character in text
    )


def test_days_keep_their_ordinals_beyond_the_ten() -> None:
    dates = [phrase.written for phrase in phrases("de", seed=0, count=60) if "tag, " in phrase.written]
    assert dates
    assert all(text.split()[1].rstrip(".").isdigit() for text in dates)
    assert "de" not in LANGUAGES
