"""Which script a language is written in, and whether a text is written in it."""

from __future__ import annotations

import unicodedata

from symile_m3.errors import SourceError, UsageError
from symile_m3.languages import Language, find_language

# The first words of the Unicode names of a script's letters, by its ISO 15924 code.
_LETTERS: dict[str, tuple[str, ...]] = {
    "Arab": ("ARABIC",),
    "Armn": ("ARMENIAN",),
    "Beng": ("BENGALI",),
    "Cyrl": ("CYRILLIC",),
    "Deva": ("DEVANAGARI",),
    "Ethi": ("ETHIOPIC",),
    "Geor": ("GEORGIAN",),
    "Grek": ("GREEK",),
    "Gujr": ("GUJARATI",),
    "Guru": ("GURMUKHI",),
    "Hans": ("CJK",),
    "Hant": ("CJK",),
    "Hebr": ("HEBREW",),
    "Jpan": ("CJK", "HIRAGANA", "KATAKANA", "HALFWIDTH"),
    "Khmr": ("KHMER",),
    "Knda": ("KANNADA",),
    "Kore": ("HANGUL", "CJK"),
    "Laoo": ("LAO",),
    "Latn": ("LATIN", "FEMININE", "MASCULINE"),
    "Mlym": ("MALAYALAM",),
    "Mtei": ("MEETEI",),
    "Mymr": ("MYANMAR",),
    "Orya": ("ORIYA",),
    "Sinh": ("SINHALA",),
    "Taml": ("TAMIL",),
    "Telu": ("TELUGU",),
    "Thaa": ("THAANA",),
    "Thai": ("THAI",),
}


def cldr_locale(language: str) -> str:
    """What Babel calls a language: `zh`, `pt_PT`.

    Raises:
        SourceError: CLDR has no such language.
    """
    return _described(language).babel


def script_of(language: str) -> str:
    """ISO 15924 code of the script a language is written in, as CLDR has it.

    Raises:
        SourceError: CLDR has no such language.
    """
    return _described(language).script


def _described(language: str) -> Language:
    try:
        return find_language(language)
    except UsageError as error:
        raise SourceError(f"Unicode CLDR, as Babel carries it, has no such language: {error}") from error


def foreign_letters(name: str, language: str) -> list[str]:
    """The letters of a name that are not of its language's script.

    Raises:
        SourceError: CLDR has no such language.
    """
    script = script_of(language)
    return [character for character in name if is_letter(character) and not in_script(character, script)]


def in_its_script(name: str, language: str) -> bool:
    """Whether any letter of a name is of its language's script; T恤 is Chinese, T-shirt is not.

    Raises:
        SourceError: CLDR has no such language.
    """
    script = script_of(language)
    return any(is_letter(character) and in_script(character, script) for character in name)


def is_letter(character: str) -> bool:
    """Whether it is a letter that belongs to a script; marks, digits and modifiers belong to many."""
    return unicodedata.category(character) in ("Lo", "Ll", "Lu", "Lt")


def in_script(character: str, script: str) -> bool:
    """Whether a letter is of the script; of a script that is not known here, any letter but a Latin one."""
    word = unicodedata.name(character, "").partition(" ")[0].partition("-")[0]
    if script not in _LETTERS:
        return word != "LATIN"
    return word in _LETTERS[script]
