"""The languages: their codes, names, scripts, and the voice that speaks each.

The ten of the paper, and its subsets of five and two (Saporta et al. 2024, section 5.1), are written down here. What
there is to know of any other is taken from Unicode CLDR, through Babel, when it is asked for.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from symile_m3.errors import MissingDependencyError, UsageError


@dataclass(frozen=True, kw_only=True, slots=True)
class Language:
    """One language.

    Attributes:
        code: BCP-47 style code, as used in lexicons, shards and on the command line.
        name: its English name.
        script: ISO 15924 code of the script its names are written in.
        espeak: identifier of its espeak-ng voice; empty where espeak-ng has none.
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
    """The language codes that `text` names: a set's size (`10`, `5`, `2`) or codes (`en,fr,pt-BR`), sorted.

    Raises:
        UsageError: a size that is no set, an unknown or repeated code, or fewer than two languages.
    """
    text = text.strip()
    if text.isdecimal():
        if int(text) not in SETS:
            raise UsageError(f"--langs {text}: no such set; give 10, 5, 2, or codes such as {', '.join(LANGUAGES)}")
        return SETS[int(text)]
    codes = parse_codes(text)
    if len(codes) < 2:
        raise UsageError(f"--langs {text}: at least two languages are needed")
    return codes


def parse_codes(text: str) -> tuple[str, ...]:
    """The codes of languages in `text`, separated by commas, as we write them, sorted; there may be none.

    Raises:
        UsageError: an unknown code, or one language twice.
    """
    found: dict[str, str] = {}
    for code in (part.strip() for part in text.split(",") if part.strip()):
        try:
            known = find_language(code).code
        except UsageError as error:
            raise UsageError(f"--langs {text}: {error}") from error
        if full_tag(known) in found:
            raise UsageError(f"--langs {text}: a language is named twice, {known} as {found[full_tag(known)]}")
        found[full_tag(known)] = known
    return tuple(sorted(found.values()))


@cache
def find_language(code: str) -> Language:
    """The language of a code: one of `LANGUAGES`, or any other that CLDR describes (`fr`, `pt-BR`, `sr-Latn`).

    The case of the letters does not matter, nor `_` for `-`; codes that CLDR has replaced, such as `iw`, stand for
    their successors, and those that say no more than one of `LANGUAGES`, such as `zh-CN`, for that one.

    Raises:
        UsageError: CLDR does not describe it; the message names near ones.
    """
    if code in LANGUAGES:
        return LANGUAGES[code]
    from babel import Locale, UnknownLocaleError

    parts = _canonical(code)
    try:
        locale = Locale.parse("_".join(parts), sep="_") if parts else None
    except (UnknownLocaleError, ValueError):
        locale = None
    # Babel gives another language or territory in place of those that it does not know.
    if locale is None or locale.language != parts[0] or not {*parts[1:]} <= {locale.script, locale.territory}:
        raise UsageError(f"unknown language {code!r}{_near(code)}")
    known = "-".join(parts)
    for ours in LANGUAGES.values():
        if full_tag(ours.code) == full_tag(known):
            return ours
    return Language(
        code=known,
        name=Locale.parse("_".join(parts)).get_display_name("en") or known,
        script=full_tag(known).split("-")[1],
        espeak=_espeak_voice(known),
        babel="_".join(parts),
    )


def language_name(code: str) -> str:
    """Its English name; the code itself where it is of no known language."""
    try:
        return find_language(code).name
    except UsageError:
        return code


def language_label(code: str) -> str:
    """Code and English name, `el  Greek`; the code alone where it is of no known language."""
    name = language_name(code)
    return code if name == code else f"{code}  {name}"


@cache
def full_tag(code: str) -> str:
    """Language, script and territory, those that a code leaves out being the likely ones: `pt` -> `pt-Latn-BR`.

    Two codes of one language have the same full tag. A code that is not a language's is returned as it is.
    """
    from babel.core import get_global

    parts = _canonical(code)
    if not parts:
        return code
    language = parts[0]
    script = next((part for part in parts[1:] if len(part) == 4), "")
    territory = next((part for part in parts[1:] if len(part) != 4), "")
    likely = get_global("likely_subtags")
    for known in (f"{language}_{territory}", f"{language}_{script}", language):
        if known in likely:
            _, likely_script, likely_territory = likely[known].split("_")[:3]
            return f"{language}-{script or likely_script}-{territory or likely_territory}"
    return "-".join(parts)


def _canonical(code: str) -> list[str]:
    """Language, then script and territory if they are there, each as CLDR writes it; empty if it is no code."""
    from babel.core import get_global

    language, *rest = code.strip().replace("_", "-").split("-")
    if not (2 <= len(language) <= 3 and language.isascii() and language.isalpha()) or len(rest) > 2:
        return []
    language = language.lower()
    return [
        str(get_global("language_aliases").get(language, language)),
        *(part.title() if len(part) == 4 else part.upper() for part in rest),
    ]


def _near(code: str) -> str:
    """`; did you mean fr (French)?`, or how codes look."""
    names = _english_names()
    by_name = {name.lower(): known for known, name in names.items()}
    base = code.replace("_", "-").partition("-")[0].lower()
    near: Sequence[str] = [by_name.get(base, base)] if base in names or base in by_name else []
    if not near and len(base) > 3:  # of two or three letters, nearly all codes are near
        near = [by_name[word] for word in difflib.get_close_matches(base, by_name, n=2, cutoff=0.7)]
    if not near:
        return f"; give codes such as {', '.join(LANGUAGES)}, fr or pt-BR"
    return "; did you mean " + " or ".join(f"{known} ({names[known]})" for known in near) + "?"


@cache
def _english_names() -> dict[str, str]:
    """Code -> English name, of the languages that CLDR describes, without their varieties."""
    from babel import Locale
    from babel.localedata import locale_identifiers

    known = {identifier for identifier in locale_identifiers() if "_" not in identifier}
    names = Locale.parse("en").languages
    return {code: names[code] for code in sorted(known) if code in names}


def _espeak_voice(code: str) -> str:
    """The espeak-ng voice of a language; empty where there is none, or no espeak-ng."""
    from symile_m3.speech.engine import language_voices

    try:
        voices = language_voices()
    except MissingDependencyError:
        return ""
    return voices.get(code.lower()) or voices.get(code.lower().partition("-")[0], "")
