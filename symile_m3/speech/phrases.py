"""Endless speakable phrases: dates, places, amounts and measures, as CLDR writes them in each language."""

from __future__ import annotations

import datetime
import functools
import hashlib
import re
import unicodedata
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from babel import Locale
from babel.dates import format_date
from babel.lists import format_list
from babel.numbers import format_currency, get_territory_currencies
from babel.units import format_unit

from symile_m3.errors import SourceError
from symile_m3.languages import LANGUAGES
from symile_m3.letters import cldr_locale, in_script, is_letter, script_of
from symile_m3.speech.forbidden import NameFilter
from symile_m3.speech.kana import date_in_kana, is_kana, number_in_kana

_TODAY = datetime.date(2024, 1, 1)  # which currencies are in use does not follow the clock
_FIRST_DAY, _DAYS = datetime.date(1950, 1, 1), 31_000
_UNITS = (
    *("length-kilometer", "length-meter", "length-centimeter", "speed-kilometer-per-hour"),
    *("mass-kilogram", "mass-gram", "mass-tonne", "volume-liter", "volume-cubic-meter", "area-square-meter"),
    *("temperature-celsius", "duration-day", "duration-hour", "duration-minute", "duration-second"),
)
_Length = Literal["long", "short"]
# Where CLDR's long form is missing these languages say the short one, which is a word: 公里, 분.
_SHORT_IS_A_WORD = frozenset({"ko", "zh"})
_NOT_COUNTRIES = frozenset({"EU", "EZ", "QO", "UN", "XA", "XB", "ZZ"})
_SEPARATORS = {"ar": "، ", "ja": "、", "th": " ", "zh": "，"}
_ALLOWED_MARKS = frozenset(" ,،、，'’-\u200c\u200d")  # the last two shape letters in Indic scripts
# espeak-ng 1.52 has no Chinese reading of these and speaks English instead.
_UNREAD = frozenset("匈")
_NO_MONTH = re.compile(r"\bM\d\d")  # how CLDR writes a month that has no name
_MAX_TRIES = 200  # a phrase; more means that the forbidden names leave nothing to say


@dataclass(frozen=True, kw_only=True, slots=True)
class Phrase:
    """One phrase.

    Attributes:
        id: such as `p00017`, its place in its language's stream.
        written: as people write it.
        spoken: as espeak-ng is given it: kana for Japanese, else as written.
    """

    id: str
    written: str
    spoken: str


def phrases(
    language: str,
    *,
    seed: int,
    count: int,
    forbidden: Iterable[str] = (),
    accept: Callable[[str], bool] = lambda _: True,
) -> list[Phrase]:
    """The first `count` phrases of a language's stream; no two have the same text.

    Args:
        language: its code.
        seed: of the stream.
        count: how many.
        forbidden: names that no phrase may contain; phrases that do are passed over.
        accept: whether a phrase can be spoken; those that cannot are passed over.

    Raises:
        SourceError: the forbidden names leave too little to say, or CLDR knows too little of the language.
    """
    if not _has_words(language, _places) and _NO_MONTH.search(
        format_date(_FIRST_DAY, "full", locale=cldr_locale(language))
    ):
        raise SourceError(
            f"language {language!r}: CLDR has too few names of months, countries, currencies and measures for phrases; "
            "give recordings: --speech recordings:DIR or common-voice:DIR"
        )
    names = NameFilter(language, forbidden)
    found: dict[str, Phrase] = {}
    position = since = 0
    while len(found) < count:
        phrase = phrase_at(language, seed=seed, position=position)
        position, since = position + 1, since + 1
        named = names.finds(phrase.written) or names.finds(phrase.spoken)
        if phrase.written not in found and not named and accept(phrase.spoken):
            found[phrase.written] = phrase
            since = 0
        if since >= _MAX_TRIES:
            raise SourceError(
                f"language {language!r} has only {len(found)} of {count} phrases that name no class: "
                "ask for fewer clips"
            )
    return list(found.values())


def phrase_at(language: str, *, seed: int, position: int) -> Phrase:
    """The phrase at one place of a language's stream: a pure function of the arguments."""
    key = hashlib.sha256(f"phrase/{seed}/{language}/{position}".encode()).digest()
    rng = np.random.Generator(np.random.Philox(key=np.frombuffer(key[:16], np.uint64)))
    kind = (_date, _places, _places, _amount_and_measure)[int(rng.integers(4))]
    if language not in LANGUAGES and not _has_words(language, kind):
        kind = _date
    written, spoken = kind(language, rng)
    return Phrase(id=f"p{position:05d}", written=written, spoken=spoken)


def _date(language: str, rng: np.random.Generator) -> tuple[str, str]:
    """A day with its weekday, without the abbreviated era or `year` that some languages write."""
    day = _FIRST_DAY + datetime.timedelta(days=int(rng.integers(_DAYS)))
    full = _plain_spaces(format_date(day, "full", locale=cldr_locale(language)))
    ordinals = language not in LANGUAGES  # `3. Januar`; the ten have none
    written = " ".join(word for word in full.split() if "." not in word or (ordinals and word[0].isdigit()))
    return written, date_in_kana(day) if language == "ja" else written


def _places(language: str, rng: np.random.Generator) -> tuple[str, str]:
    """Three countries or territories, as a list."""
    known = _territories(language)
    chosen = [known[int(index)] for index in rng.choice(len(known), 3, replace=False)]
    written = _plain_spaces(format_list(chosen, locale=cldr_locale(language)))
    return written, "、".join(chosen) if language == "ja" else written


def _amount_and_measure(language: str, rng: np.random.Generator) -> tuple[str, str]:
    """An amount of money and a measure; each alone is too short for a clip."""
    locale = cldr_locale(language)
    currencies, units = _currencies(language), _units(language)
    amount, measure = int(rng.integers(11, 10_000)), int(rng.integers(11, 1_000))
    currency = currencies[int(rng.integers(len(currencies)))]
    unit, length = units[int(rng.integers(len(units)))]
    parts = (
        _money(amount, currency, locale),
        _plain_spaces(format_unit(measure, unit, length=length, locale=locale)),
    )
    separator = _SEPARATORS.get(language, ", ")
    if language != "ja":
        return separator.join(parts), separator.join(parts)
    spoken = (
        part.replace(str(number), f" {number_in_kana(number)} ").strip()
        for part, number in zip(parts, (amount, measure), strict=True)
    )
    return separator.join(parts), separator.join(re.sub(" +", " ", part) for part in spoken)


def _has_words(language: str, kind: object) -> bool:
    """Whether CLDR knows enough for a kind of phrase in a language beyond the ten."""
    if kind is _places:
        return len(_territories(language)) >= 3
    return kind is _date or bool(_currencies(language) and _units(language))


@functools.cache
def _territories(language: str) -> tuple[str, ...]:
    """Names of countries and territories that can be read aloud."""
    locale = Locale.parse(cldr_locale(language))
    names = (
        locale.territories[code] for code in sorted(locale.territories) if len(code) == 2 and code not in _NOT_COUNTRIES
    )
    return tuple(dict.fromkeys(name for name in names if _readable(language, name)))


@functools.cache
def _currencies(language: str) -> tuple[str, ...]:
    """Codes of today's currencies whose name can be read aloud in full."""
    locale = cldr_locale(language)
    today = {
        currency
        for territory in map(str, Locale.parse(locale).territories)
        if len(territory) == 2
        for currency in _currencies_of(territory)
    }
    names = {currency: _without_number(_money(27, currency, locale)) for currency in today}
    return tuple(
        currency
        for currency in sorted(names)
        if currency not in names[currency] and _readable(language, names[currency])
    )


@functools.cache
def _units(language: str) -> tuple[tuple[str, _Length], ...]:
    """Units, each with the length of form whose name can be read aloud in full."""
    lengths: tuple[_Length, ...] = ("long", "short") if language in _SHORT_IS_A_WORD else ("long",)
    found = []
    for unit in _UNITS:
        for length in lengths:
            text = format_unit(27, unit, length=length, locale=cldr_locale(language))
            # Where CLDR has no name of a unit, Babel gives its key.
            if unit not in text and _readable(language, _without_number(text)):
                found.append((unit, length))
                break
    return tuple(found)


def _currencies_of(territory: str) -> list[str]:
    """Codes of the currencies in use in a territory."""
    return [str(code) for code in get_territory_currencies(territory, _TODAY)]


def _money(amount: int, currency: str, locale: str) -> str:
    """`4827 Thai baht`."""
    text = format_currency(
        amount, currency, locale=locale, format_type="name", currency_digits=False, group_separator=False
    )
    return _plain_spaces(text)


def _without_number(text: str) -> str:
    """What stands beside the number 27, as one text."""
    return " ".join(_plain_spaces(text).replace("27", " ").split())


def _readable(language: str, text: str) -> bool:
    """Whether a name has letters of its own script only, so that espeak-ng does not switch language."""
    if not text:
        return False
    if language == "ja":
        return is_kana(text)
    if language not in LANGUAGES:
        script = script_of(language)
        return all(
            character in _ALLOWED_MARKS
            or (in_script(character, script) if is_letter(character) else unicodedata.category(character)[0] in "LM")
            for character in text
        )
    return _UNREAD.isdisjoint(text) and all(
        character in _ALLOWED_MARKS
        or (unicodedata.category(character)[0] in "LM" and (language == "en") == _latin(character))
        for character in text
    )


def _latin(character: str) -> bool:
    return "a" <= character.lower() <= "z"


def _plain_spaces(text: str) -> str:
    """With ordinary spaces, and without direction marks."""
    text = "".join(" " if unicodedata.category(character) == "Zs" else character for character in text)
    return re.sub("[\u200e\u200f\u061c]", "", text).strip()
