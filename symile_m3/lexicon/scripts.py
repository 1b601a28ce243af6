"""Scripts: which letters a language is written in."""

from __future__ import annotations

import unicodedata
from functools import cache

from symile_m3.languages import find_language

# How the Unicode names of a script's letters begin, where that is not its English name in CLDR.
_PREFIXES = {
    "Arab": ("ARABIC ",),
    "Beng": ("BENGALI ",),
    "Cans": ("CANADIAN SYLLABICS ",),
    "Hans": ("CJK ",),
    "Hant": ("CJK ", "BOPOMOFO "),
    "Jpan": ("HIRAGANA ", "KATAKANA ", "KATAKANA-HIRAGANA ", "CJK ", "IDEOGRAPHIC "),
    "Kore": ("HANGUL ", "CJK "),
    "Mtei": ("MEETEI MAYEK ",),
    "Nkoo": ("NKO ",),
    "Orya": ("ORIYA ",),
}


@cache
def _prefixes(script: str) -> tuple[str, ...]:
    from babel import Locale

    return _PREFIXES.get(script) or (f"{Locale.parse('en').scripts.get(script, script).upper()} ",)


def is_letter_of(character: str, script: str) -> bool:
    """Whether a letter belongs to a script, given by its ISO 15924 code; modifier letters belong to every one."""
    return unicodedata.name(character, "").startswith((*_prefixes(script), "MODIFIER LETTER "))


def letters(name: str) -> list[str]:
    """The letters of a name; marks, digits, spaces and punctuation are none."""
    return [character for character in name if unicodedata.category(character)[0] == "L"]


def foreign_letters(name: str, language: str) -> list[str]:
    """The letters of a name that are not of its language's script."""
    script = find_language(language).script
    return [letter for letter in letters(name) if not is_letter_of(letter, script)]


def in_its_script(name: str, language: str) -> bool:
    """Whether any letter of a name is of its language's script; T恤 is Chinese, T-shirt is not."""
    script = find_language(language).script
    return any(is_letter_of(letter, script) for letter in letters(name) if "MODIFIER" not in unicodedata.name(letter))
