"""The languages: their codes, names, scripts, and the voice that speaks each.

The ten of the paper, and its subsets of five and two (Saporta et al. 2024, section 5.1).
"""

from __future__ import annotations

from dataclasses import dataclass

from symile_m3.errors import UsageError


@dataclass(frozen=True, kw_only=True, slots=True)
class Language:
    """One language.

    Attributes:
        code: BCP-47 style code, as used in lexicons, shards and on the command line.
        name: its English name.
        script: ISO 15924 code of the script its names are written in.
        espeak: identifier of its espeak-ng voice.
        babel: its CLDR locale, as Babel spells it.
    """

    code: str
    name: str
    script: str
    espeak: str
    babel: str


LANGUAGES: dict[str, Language] = {
    language.code: language
    for language in (
        Language(code="ar", name="Arabic", script="Arab", espeak="ar", babel="ar"),
        Language(code="el", name="Greek", script="Grek", espeak="el", babel="el"),
        Language(code="en", name="English", script="Latn", espeak="en-us", babel="en"),
        Language(code="hi", name="Hindi", script="Deva", espeak="hi", babel="hi"),
        Language(code="ja", name="Japanese", script="Jpan", espeak="ja", babel="ja"),
        Language(code="ko", name="Korean", script="Kore", espeak="ko", babel="ko"),
        Language(code="te", name="Telugu", script="Telu", espeak="te", babel="te"),
        Language(code="th", name="Thai", script="Thai", espeak="th", babel="th"),
        Language(code="uk", name="Ukrainian", script="Cyrl", espeak="uk", babel="uk"),
        Language(code="zh", name="Chinese", script="Hans", espeak="cmn", babel="zh"),
    )
}

SETS: dict[int, tuple[str, ...]] = {
    10: ("ar", "el", "en", "hi", "ja", "ko", "te", "th", "uk", "zh"),
    5: ("el", "en", "hi", "ja", "uk"),
    2: ("el", "en"),
}


def parse_languages(text: str) -> tuple[str, ...]:
    """The language codes that `text` names: a set's size (`10`, `5`, `2`) or codes (`en,fr`), sorted.

    Raises:
        UsageError: a size that is no set, an unknown or repeated code, or fewer than two languages.
    """
    known = ", ".join(LANGUAGES)
    text = text.strip()
    if text.isdecimal():
        if int(text) not in SETS:
            raise UsageError(f"--langs {text}: no such set; give 10, 5, 2, or codes out of {known}")
        return SETS[int(text)]
    codes = [code.strip() for code in text.split(",") if code.strip()]
    for code in codes:
        if code not in LANGUAGES:
            raise UsageError(f"--langs {text}: unknown language {code!r}; known: {known}")
    if len(set(codes)) != len(codes):
        raise UsageError(f"--langs {text}: a language is named twice")
    if len(codes) < 2:
        raise UsageError(f"--langs {text}: at least two languages are needed")
    return tuple(sorted(codes))
