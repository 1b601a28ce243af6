"""Words and languages as HTML: coloured by language, and each in its own direction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from html import escape
from typing import Any

from symile_m3.pages.palette import Swatch, palette


def direction(code: str) -> str:
    """The `dir` of text in a language: ltr or rtl, or auto where the language is not known."""
    locale = _locale(code)
    return str(locale.text_direction) if locale else "auto"


@cache
def _locale(code: str) -> Any:
    from babel import Locale, UnknownLocaleError

    try:
        return Locale.parse(code, sep="-")
    except (UnknownLocaleError, ValueError):
        return None


def language_colours(count: int) -> str:
    """The colours of the languages, as classes `l0`, `l1`, ... that set `--hue` and `--tint`."""
    return _colours("l", palette(count))


def heat_colours(swatches: Sequence[Swatch]) -> str:
    """The colours of shares, as classes `h0`, `h1`, ... that set `--hue` and `--tint`."""
    return _colours("h", swatches)


def _colours(prefix: str, swatches: Sequence[Swatch]) -> str:
    light = [f".{prefix}{i}{{--hue:{s.light_ink};--tint:{s.light_ground}}}" for i, s in enumerate(swatches)]
    dark = [f".{prefix}{i}{{--hue:{s.dark_ink};--tint:{s.dark_ground}}}" for i, s in enumerate(swatches)]
    return "\n".join([*light, "@media (prefers-color-scheme: dark){", *dark, "}\n"])


def text_in(content: str, code: str) -> str:
    """Text in a language, kept apart from the direction of what is around it."""
    return f'<bdi lang="{escape(code)}" dir="{direction(code)}">{escape(content)}</bdi>'


def listed(*parts: str) -> str:
    """Parts that are there, with a dot between them."""
    return " · ".join(f"<bdi>{escape(part)}</bdi>" for part in parts if part)


def badge(code: str, styles: Mapping[str, str]) -> str:
    """The code of a language in its colour."""
    return f'<span class="badge {styles.get(code, "")}">{escape(code)}</span>'


def words_line(record: Mapping[str, Any], styles: Mapping[str, str]) -> str:
    """The words in their order, with the separator of the text between them, each with its language."""
    words = []
    for i, (word, code) in enumerate(zip(record["words"], record["word_langs"], strict=True)):
        target = i == record["target"]
        joint = "" if i == len(record["words"]) - 1 else '<span class="joint">_</span>'
        words.append(
            f'<span class="unit"><span class="word {"target " if target else ""}{styles.get(str(code), "")}">'
            f"{text_in(str(word), str(code))}"
            f'<span class="tag">{escape(str(code))}{"<b>target</b>" if target else ""}</span></span>{joint}</span>'
        )
    return "".join(words)
