"""Whether a text names one of the names that no clip may speak: those of the classes."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from symile_m3.languages import find_language

# Scripts written without spaces, or with particles joined to the noun: a name is looked for anywhere in the text.
_JOINED = frozenset({"Jpan", "Kore", "Thai", "Hans", "Hant", "Khmr", "Laoo", "Mymr", "Tibt"})
# Of a name this long, a word that starts with it is an inflected form.
_STEM_LETTERS = 4
# Where no inflected form replaces the last letter of the name, as in золото, золота; what is not known may.
_LAST_LETTER_STAYS = frozenset({"ar", "en", "hi", "te"})
_ARABIC_PREFIXES = ("وال", "بال", "كال", "فال", "لل", "ال", "و", "ب", "ل", "ف", "ك")


@dataclass(frozen=True, kw_only=True, slots=True)
class _Name:
    """One name, ready to be compared: the forms of each word, and what the last one may start with."""

    parts: tuple[frozenset[str], ...]
    stems: tuple[str, ...]


class NameFilter:
    """Finds forbidden names in texts of one language.

    Case and compatibility forms do not matter. In Japanese, Korean, Thai, Chinese and the like a name is found
    anywhere in the text; one of a single character only where it stands alone, else the 月 of every
    date would name the moon. In the other languages words are compared: an English name may be in the
    plural, the last word of another name of four letters or more may carry an ending (in place of
    its last letter, too, if four remain; not so in Arabic, Hindi and Telugu), and an Arabic word may carry an
    article or a conjunction. It rather forbids too much than too little.
    """

    def __init__(self, language: str, names: Iterable[str]) -> None:
        self._language = language
        self._joined = find_language(language).script in _JOINED
        split = [words for name in sorted(names) if (words := _words(name))]
        joined = ["".join(words) for words in split]
        self._alone = frozenset(name for name in joined if len(name) == 1)
        self._anywhere = re.compile("|".join(re.escape(name) for name in joined if len(name) > 1) or "(?!)")
        # All names of one word are one, which any of them matches; longer ones are found by their first word.
        single = [self._prepared(words) for words in split if len(words) == 1]
        self._single = _Name(
            parts=(frozenset().union(*(name.parts[0] for name in single)),),
            stems=tuple(sorted({stem for name in single for stem in name.stems})),
        )
        self._longer: dict[str, list[_Name]] = {}
        for name in (self._prepared(words) for words in split if len(words) > 1):
            for form in sorted(name.parts[0]):
                self._longer.setdefault(form, []).append(name)

    def finds(self, text: str) -> bool:
        """Whether `text` contains one of the names."""
        words = _words(text)
        if self._joined:
            return not self._alone.isdisjoint(words) or bool(self._anywhere.search("".join(words)))
        forms = [self._forms(word) for word in words]
        return any(
            self._starts_here(name, forms[start : start + len(name.parts)])
            for start, here in enumerate(forms)
            for name in (self._single, *(name for form in here for name in self._longer.get(form, ())))
        )

    def _prepared(self, words: Sequence[str]) -> _Name:
        """A name's words with all their forms."""
        parts = [self._forms(word) for word in words]
        stems: tuple[str, ...] = ()
        if self._language == "en":
            parts[-1] |= {words[-1] + ending for ending in ("s", "es")}
        else:
            cut = None if self._language in _LAST_LETTER_STAYS else -1
            stems = tuple(
                sorted(
                    word[:cut] if len(word) > _STEM_LETTERS else word
                    for word in parts[-1]
                    if len(word) >= _STEM_LETTERS
                )
            )
        return _Name(parts=tuple(parts), stems=stems)

    @staticmethod
    def _starts_here(name: _Name, forms: Sequence[frozenset[str]]) -> bool:
        """Whether these words of a text are the name."""
        if len(forms) < len(name.parts):
            return False
        if any(part.isdisjoint(form) for part, form in zip(name.parts[:-1], forms[:-1], strict=True)):
            return False
        return not name.parts[-1].isdisjoint(forms[-1]) or any(form.startswith(name.stems) for form in forms[-1])

    def _forms(self, word: str) -> frozenset[str]:
        """The word, and in Arabic the word without what may be joined to its front."""
        if self._language != "ar":
            return frozenset({word})
        return frozenset({word, *(word.removeprefix(prefix) for prefix in _ARABIC_PREFIXES)} - {""})


def _words(text: str) -> list[str]:
    """Runs of letters, marks and digits, in one form."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    folded = folded.replace("’", "ʼ").replace("'", "ʼ")  # spellings of one Ukrainian letter
    return "".join(
        character if unicodedata.category(character)[0] in "LMN" else " "
        for character in folded
        if unicodedata.category(character) != "Cf"
    ).split()
