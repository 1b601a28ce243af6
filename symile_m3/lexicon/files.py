"""Names as files have them, gaps and all: tab-separated tables, upstream's JSON, and corrections by hand.

Three forms are read, whatever the file is called:

    class_key   category    el      en          a table, as those shipped with the package; a cell may be empty,
    n01440764   animal      γλήνι   tench       and there may be a column `review`

    class_key   language    name                one name a line; the usual form of corrections
    n01440764   el          γλήνι

    {"tench": {"synset_id": "n01440764", "el": "γλήνι", "zh-CN": "丁鱥", "cls_id": 0}, ...}

The last is the form of the authors' translations and of their corrections. Without `synset_id`, the class is known by
the key itself. Codes of languages are read as `symile_m3.languages` reads them: `zh-CN` is `zh`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from symile_m3.errors import LexiconError, UsageError
from symile_m3.languages import find_language, full_tag
from symile_m3.lexicon.names import (
    REVIEW,
    Lexicon,
    builtin_lexicon,
    builtin_reviews,
    check_separator,
    table_rows,
)

_LINE = ["class_key", "language", "name"]
_NO_LANGUAGES = ("synset_id", "cls_id", "category", REVIEW)  # members of a class in JSON
_UPSTREAM_CODES = {"zh": "zh-CN"}
_SHOWN = 3  # gaps that a message names


@dataclass(frozen=True, kw_only=True, slots=True)
class NameTable:
    """Names of classes, of which some may be missing.

    Attributes:
        where: what messages call it, such as the file's name.
        names: class key -> language -> name; none is empty.
        categories: class key -> category, where it has one.
        reviews: class key -> why its names are as they are, where that is written down.
        failed: class key -> why it has no name in some language, where that is known; for messages.
    """

    where: str
    names: Mapping[str, Mapping[str, str]]
    categories: Mapping[str, str] = field(default_factory=dict)
    reviews: Mapping[str, str] = field(default_factory=dict)
    failed: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of_lexicon(cls, lexicon: Lexicon, where: str, reviews: Mapping[str, str] | None = None) -> NameTable:
        """The names of a lexicon."""
        return cls(
            where=where,
            names={
                key: dict(zip(lexicon.languages, row, strict=True))
                for key, row in zip(lexicon.class_keys, lexicon.names, strict=True)
            },
            categories=dict(zip(lexicon.class_keys, lexicon.categories, strict=True)),
            reviews={key: review for key, review in (reviews or {}).items() if key in lexicon.class_keys},
        )

    @property
    def languages(self) -> tuple[str, ...]:
        """The languages that any class has a name in, sorted."""
        return tuple(sorted({language for names in self.names.values() for language in names}))

    def corrected(self, by: NameTable, known: Iterable[str] = ()) -> NameTable:
        """With the names of another table in place of these, and added to these.

        Args:
            by: the corrections.
            known: class keys that may be corrected though this table lacks them, such as those of the images.

        Raises:
            LexiconError: a correction is of no class that is known.
        """
        strangers = sorted(set(by.names) - set(self.names) - set(known))
        if strangers:
            raise LexiconError(f"{by.where}: no such class in {self.where}: {_some(strangers)}; check the keys")
        merged = {key: dict(names) for key, names in self.names.items()}
        for key, names in by.names.items():
            mine = merged.setdefault(key, {})
            for language, name in names.items():
                same = [code for code in mine if full_tag(code) == full_tag(language)]
                mine[same[0] if same else language] = name
        return NameTable(
            where=self.where,
            names=merged,
            categories={**by.categories, **self.categories},
            reviews={**self.reviews, **by.reviews},
            failed=self.failed,
        )

    def select(self, class_keys: Iterable[str]) -> NameTable:
        """The names of these classes only."""
        keys = set(class_keys)
        return NameTable(
            where=self.where,
            names={key: row for key, row in self.names.items() if key in keys},
            categories={key: category for key, category in self.categories.items() if key in keys},
            reviews={key: review for key, review in self.reviews.items() if key in keys},
        )

    def in_languages(self, languages: Sequence[str]) -> dict[str, dict[str, str]]:
        """Class key -> language -> name, of these languages, under the codes asked for: `pt` finds `pt-BR`."""
        mine: dict[str, str] = {full_tag(code): code for code in self.languages}
        columns = {language: mine.get(full_tag(language), language) for language in languages}
        return {
            key: {language: names[column] for language, column in columns.items() if column in names}
            for key, names in self.names.items()
        }

    def lexicon(self, languages: Sequence[str], class_keys: Iterable[str], *, drop_unnamed: bool = False) -> Lexicon:
        """The names of these classes in these languages.

        Args:
            languages: language codes.
            class_keys: the classes.
            drop_unnamed: leave out the classes that lack a name, if any is left.

        Raises:
            LexiconError: a class has no name in one of the languages; the message counts such and names a few.
        """
        names, keys, codes = self.in_languages(languages), sorted(class_keys), sorted(languages)
        if not any(self.names.get(key) for key in keys):
            named = _some(sorted(key for key in self.names if self.names[key])) or "none"
            raise LexiconError(
                f"{self.where}: none of the {len(keys)} classes of the images has names; it has names for {named}, and "
                f"the images are of {_some(keys) or 'none'}"
            )
        absent = [code for code in codes if not any(code in names.get(key, ()) for key in keys)]
        if absent:
            has = ", ".join(self.languages)
            key, why = next(iter(self.failed.items()), ("", ""))
            failed = f" ({len(self.failed)} classes failed, such as {key}: {why})" if why else ""
            translator = "" if self.failed else ", have them translated (--names google)"
            raise LexiconError(
                f"{self.where}: no names in {', '.join(absent)}; it has names in {has}{failed}. Name the classes in a "
                f"file (--names file:names.json){translator}, or choose other --langs"
            )
        gaps = {key: lacking for key in keys if (lacking := [c for c in codes if c not in names.get(key, ())])}
        if gaps and (len(gaps) == len(keys) or not drop_unnamed):
            which = _some([f"{key} in {' and '.join(lacks)}{self._why(key)}" for key, lacks in gaps.items()])
            raise LexiconError(
                f"{self.where}: {len(gaps)} of {len(keys)} classes lack a name: {which}; add the names to the file or "
                "to --corrections FILE, or leave these classes out with --drop-unnamed"
            )
        keys = [key for key in keys if key not in gaps]
        return Lexicon(
            languages=tuple(codes),
            class_keys=tuple(keys),
            categories=tuple(self.categories.get(key, "") for key in keys),
            names=tuple(tuple(names[key][code] for code in codes) for key in keys),
        )

    def _why(self, key: str) -> str:
        return f" ({self.failed[key]})" if key in self.failed else ""

    def to_table(self, languages: Sequence[str]) -> str:
        """A tab-separated table of these languages, with a column `review` where there are reviews."""
        names, codes = self.in_languages(languages), sorted(languages)
        reviewed = [REVIEW] if self.reviews else []
        lines = ["\t".join(["class_key", "category", *codes, *reviewed])]
        for key in sorted(names):
            review = [self.reviews.get(key, "")] if reviewed else []
            lines.append(
                "\t".join([key, self.categories.get(key, ""), *(names[key].get(c, "") for c in codes), *review])
            )
        return "\n".join(lines) + "\n"

    def to_json(self, languages: Sequence[str]) -> str:
        """Upstream's JSON, in these languages; a class is called by its English name, or else by its key."""
        names, codes = self.in_languages(languages), sorted(languages)
        english = self.in_languages(["en"])
        taken: set[str] = set()
        record: dict[str, dict[str, Any]] = {}
        for position, key in enumerate(sorted(names)):
            called = english[key].get("en", key)
            called = key if called in taken else called
            taken.add(called)
            cells = {_UPSTREAM_CODES.get(code, code): names[key][code] for code in codes if code in names[key]}
            record[called] = {"synset_id": key, **cells, "cls_id": position}
        return json.dumps(record, ensure_ascii=False, indent=4) + "\n"


def builtin_names(table: str) -> NameTable:
    """A table shipped with the package.

    Raises:
        LexiconError: there is no such table.
    """
    return NameTable.of_lexicon(builtin_lexicon(table), f"the names of {table}", builtin_reviews(table))


def read_names(path: Path) -> NameTable:
    """The names in a file of any of the forms above.

    Raises:
        LexiconError: it cannot be read, is not UTF-8, or is malformed; the message says where.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise LexiconError(f"{path}: {error.strerror or error}; name a file of names") from error
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise LexiconError(
            f"{path}, line {line}: not UTF-8 (byte 0x{data[error.start]:02x}); save the file as UTF-8"
        ) from error
    return parse_names(text, str(path))


def parse_names(text: str, where: str) -> NameTable:
    """The names in a text of any of the forms above.

    Raises:
        LexiconError: it is malformed; the message says where.
    """
    if text.lstrip().startswith(("{", "[")):
        return _parse_json(text, where)
    lines = text.splitlines()
    if lines and lines[0].split("\t") == _LINE:
        return _parse_lines(lines, where)
    if lines and not lines[0].startswith("class_key\t"):
        raise LexiconError(
            f"{where}: neither JSON nor a table; the first line must be class_key, category and language codes, or "
            "class_key, language, name, tab-separated"
        )
    names: dict[str, dict[str, str]] = {}
    categories, reviews = {}, {}
    for number, row in table_rows(text, where):
        key = row["class_key"]
        cells = [(column, cell) for column, cell in row.items() if column not in ("class_key", "category", REVIEW)]
        names[key] = _cells(cells, f"{where}, line {number}")
        categories[key] = row["category"]
        if row.get(REVIEW, "").strip():
            reviews[key] = row[REVIEW].strip()
    return NameTable(where=where, names=names, categories=categories, reviews=reviews)


def _parse_lines(lines: Sequence[str], where: str) -> NameTable:
    names: dict[str, dict[str, str]] = {}
    for number, line in enumerate(lines[1:], 2):
        if not line.strip():
            continue
        at, cells = f"{where}, line {number}", line.split("\t")
        if len(cells) != len(_LINE) or not all(cell.strip() for cell in cells):
            raise LexiconError(f"{at}: class_key, language and name are needed, tab-separated; here is {line!r}")
        key, language, name = (cell.strip() for cell in cells)
        for code, cell in _cells([(language, name)], at).items():
            if code in names.setdefault(key, {}):
                raise LexiconError(f"{at}: class {key} has two names in {code}")
            names[key][code] = cell
    return NameTable(where=where, names=names)


def _parse_json(text: str, where: str) -> NameTable:
    try:
        record = json.loads(text, object_pairs_hook=lambda pairs: _distinct(pairs, where))
    except json.JSONDecodeError as error:
        raise LexiconError(
            f"{where}, line {error.lineno}, column {error.colno}: malformed JSON ({error.msg})"
        ) from error
    except RecursionError as error:
        raise LexiconError(f"{where}: malformed JSON (nested too deep)") from error
    if not isinstance(record, dict):
        raise LexiconError(f'{where}: a JSON object of classes is needed: {{"tench": {{"synset_id": ..., "el": ...}}}}')
    names: dict[str, dict[str, str]] = {}
    categories, reviews = {}, {}
    for called, members in record.items():
        at = f"{where}, class {called!r}"
        if not isinstance(members, dict):
            raise LexiconError(f'{at}: an object of names is needed, such as {{"el": ...}}; here is {members!r}')
        key = members.get("synset_id", called)
        if not isinstance(key, str) or not key.strip():
            raise LexiconError(f"{at}: synset_id {key!r} is no key")
        if key in names:
            raise LexiconError(f"{at}: class {key} is there twice")
        wrong = [code for code, name in members.items() if code not in _NO_LANGUAGES and not isinstance(name, str)]
        if wrong:
            raise LexiconError(f"{at}: the name in {wrong[0]} is {members[wrong[0]]!r}; a text is needed")
        names[key] = _cells([(code, name) for code, name in members.items() if code not in _NO_LANGUAGES], at)
        categories[key] = str(members.get("category", ""))
        if members.get(REVIEW):
            reviews[key] = str(members[REVIEW])
    return NameTable(where=where, names=names, categories=categories, reviews=reviews)


def _distinct(pairs: list[tuple[str, Any]], where: str) -> dict[str, Any]:
    """A JSON object, in which no member may be there twice; `json` itself would keep the last."""
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise LexiconError(f"{where}: {name!r} is there twice")
        found[name] = value
    return found


def _cells(cells: Iterable[tuple[str, str]], at: str) -> dict[str, str]:
    """Language -> name of one class, without the empty ones."""
    names: dict[str, str] = {}
    for code, cell in cells:
        try:
            language = find_language(code).code
        except UsageError as error:
            raise LexiconError(f"{at}: {error}") from error
        if language in names:
            raise LexiconError(f"{at}: two names in {language}")
        name = " ".join(cell.split())
        check_separator(name, f"{at}, {code}")
        if name:
            names[language] = name
    return names


def _some(items: Sequence[str]) -> str:
    """The first few, and how many more."""
    more = f" and {len(items) - _SHOWN} more" if len(items) > _SHOWN else ""
    return ", ".join(items[:_SHOWN]) + more
