from __future__ import annotations

import pytest

from symile_m3.errors import UsageError
from symile_m3.languages import LANGUAGES, SETS, find_language, full_tag, language_label, parse_codes, parse_languages


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
        ("pt,pt-BR", "named twice, pt-BR as pt"),
        ("en,zh,zh-CN", "named twice"),
        ("en,french", r"unknown language 'french'; did you mean fr \(French\)\?"),
        ("en,Portugese", r"did you mean pt \(Portuguese\)\?"),
        ("en,fr-ZZ", r"unknown language 'fr-ZZ'; did you mean fr"),
        ("en,und", "unknown language 'und'; give codes such as ar, "),
        ("en,tlh", "unknown language 'tlh'; give codes such as"),
        ("en,x-klingon", "unknown language 'x-klingon'"),
        ("en,../fr", "unknown language"),
    ],
)
def test_bad_ones_are_named(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse_languages(text)


def test_any_language_of_cldr_will_do() -> None:
    assert parse_languages("fr,ru,ro") == ("fr", "ro", "ru")
    assert parse_languages("sw,pt_br,SR-latn") == ("pt-BR", "sr-Latn", "sw")
    assert parse_codes("fr") == ("fr",)
    portuguese = find_language("pt-BR")
    assert (portuguese.name, portuguese.script, portuguese.espeak) == ("Portuguese (Brazil)", "Latn", "pt-BR")
    assert (find_language("ru").script, find_language("ru").babel) == ("Cyrl", "ru")
    assert (find_language("ur").script, find_language("sr-Latn").script) == ("Arab", "Latn")
    assert find_language("ckb").espeak == ""  # espeak-ng has no voice
    assert language_label("fr") == "fr  French"
    assert language_label("tlh") == "tlh"


def test_what_says_no_more_than_one_of_ours_is_that_one() -> None:
    for code, ours in (("zh-CN", "zh"), ("zh-Hans", "zh"), ("en-US", "en"), ("EL", "el"), ("uk-UA", "uk")):
        assert find_language(code) is LANGUAGES[ours]
    assert find_language("en-GB").code == "en-GB"
    assert find_language("zh-TW").script == "Hant"
    assert find_language("iw").code == "he"  # replaced long ago
    assert full_tag("pt") == full_tag("pt-BR") == "pt-Latn-BR" != full_tag("pt-PT")


def test_every_language_of_cldr_is_described() -> None:
    from babel.localedata import locale_identifiers

    codes = [code for code in locale_identifiers() if "_" not in code]
    assert len(codes) > 250
    for code in codes:
        language = find_language(code)
        assert len(language.script) == 4
        assert language.name


def test_every_language_has_a_name_a_script_and_a_voice() -> None:
    for code, language in LANGUAGES.items():
        assert language.code == code
        assert all((language.name, language.script, language.espeak, language.babel))
