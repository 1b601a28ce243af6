"""What may be wrong with names: missing, clashing, in another script, left in English."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from symile_m3.languages import find_language, full_tag
from symile_m3.letters import foreign_letters, in_its_script
from symile_m3.lexicon.files import NameTable
from symile_m3.lexicon.names import Clash, find_clashes, normalise


@dataclass(frozen=True, kw_only=True, slots=True)
class Misfit:
    """One name that may be wrong.

    Attributes:
        class_key: of what it is the name.
        language: its code.
        name: as it stands.
    """

    class_key: str
    language: str
    name: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Findings:
    """What a check of names has found; the first three must be mended, the others may be meant so.

    Attributes:
        missing: (class_key, language) pairs without a name.
        clashes: names that stand for two classes or for two languages.
        script: names without a letter of their language's script, which no review explains.
        mixed: names with some letters of another script, which no review explains, such as T恤.
        english: names that are spelt as the English one, in languages written in its script.
    """

    missing: tuple[tuple[str, str], ...]
    clashes: tuple[Clash, ...]
    script: tuple[Misfit, ...]
    mixed: tuple[Misfit, ...]
    english: tuple[Misfit, ...]

    @property
    def fit(self) -> bool:
        """Whether nothing must be mended."""
        return not (self.missing or self.clashes or self.script)


def check_names(table: NameTable, languages: Sequence[str]) -> Findings:
    """Check all names of a table in these languages.

    A name is taken to be explained where the review of its class says something of its language: `ja: ...`.
    """
    names, codes = table.in_languages(languages), sorted(languages)
    english = table.in_languages(["en"])
    script, mixed, same = [], [], []
    for key in sorted(names):
        explained = {part.partition(":")[0].strip() for part in table.reviews.get(key, "").split(";")}
        for code in (code for code in codes if code in names[key] and code not in explained):
            misfit = Misfit(class_key=key, language=code, name=names[key][code])
            if not in_its_script(misfit.name, code):
                script.append(misfit)
            elif foreign_letters(misfit.name, code):
                mixed.append(misfit)
            elif is_english(misfit.name, english[key].get("en", ""), code):
                same.append(misfit)
    return Findings(
        missing=tuple((key, code) for key in sorted(names) for code in codes if code not in names[key]),
        clashes=tuple(find_clashes((key, code, name) for key in sorted(names) for code, name in names[key].items())),
        script=tuple(script),
        mixed=tuple(mixed),
        english=tuple(same),
    )


def is_english(name: str, english: str, language: str) -> bool:
    """Whether a name in another language is spelt as the English one."""
    other = full_tag(language).split("-")[0] != "en" and find_language(language).script == "Latn"
    return other and bool(english) and normalise(name) == normalise(english)
