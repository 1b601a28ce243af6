from __future__ import annotations

import pytest

from symile_m3.errors import UsageError
from symile_m3.languages import LANGUAGES, SETS, parse_languages


def test_the_sets_of_the_paper() -> None:
    ten = ("ar", "el", "en", "hi", "ja", "ko", "te", "th", "uk", "zh")
    assert parse_languages("10") == tuple(LANGUAGES) == ten
    assert parse_languages("5") == ("el", "en", "hi", "ja", "uk")
    assert parse_languages(" 2 ") == ("el", "en")
    assert set(SETS) == {2, 5, 10}


def test_codes_are_sorted() -> None:
    assert parse_languages("zh, en,ar") == ("ar", "en", "zh")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("7", "no such set"),
        ("en,xx", "unknown language 'xx'"),
        ("en,en", "named twice"),
        ("en", "at least two"),
        ("", "at least two"),
    ],
)
def test_bad_ones_are_named(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse_languages(text)


def test_every_language_has_a_name_a_script_and_a_voice() -> None:
    for code, language in LANGUAGES.items():
        assert language.code == code
        assert all((language.name, language.script, language.espeak, language.babel))
