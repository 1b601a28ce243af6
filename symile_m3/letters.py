"""Which script a language is written in, and whether a text is written in it."""

from __future__ import annotations

import functools
import unicodedata

from babel import Locale
from babel.core import UnknownLocaleError, get_global

from symile_m3.errors import SourceError
from symile_m3.languages import LANGUAGES

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


@functools.cache
def cldr_locale(language: str) -> str:
    """What Babel calls a language: `zh`, `pt_PT`.

    Raises:
        SourceError: CLDR has no such language.
    """
    if language in LANGUAGES:
        return LANGUAGES[language].babel
    try:
        return str(Locale.parse(language, sep="-"))
    except (UnknownLocaleError, ValueError) as error:
        raise SourceError(f"language {language!r}: Unicode CLDR, as Babel carries it, has no such language") from error


@functools.cache
def script_of(language: str) -> str:
    """ISO 15924 code of the script a language is written in, as CLDR has it.

    Raises:
        SourceError: CLDR does not say.
    """
    if language in LANGUAGES:
        return LANGUAGES[language].script
    parts = language.split("-")
    for part in parts[1:]:
        if len(part) == 4 and part.isalpha():
            return part.title()
    likely = get_global("likely_subtags")
    full = likely.get("_".join(parts)) or likely.get(parts[0])
    if full is None:
        raise SourceError(f"language {language!r}: Unicode CLDR does not say in which script it is written")
    return str(full).split("_")[1]


def is_letter(character: str) -> bool:
    """Whether it is a letter that belongs to a script; marks, digits and modifiers belong to many."""
    return unicodedata.category(character) in ("Lo", "Ll", "Lu", "Lt")


def in_script(character: str, script: str) -> bool:
    """Whether a letter is of the script; of a script that is not known here, any letter but a Latin one."""
    word = unicodedata.name(character, "").partition(" ")[0].partition("-")[0]
    if script not in _LETTERS:
        return word != "LATIN"
    return word in _LETTERS[script]
