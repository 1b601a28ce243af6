"""The sentences: everyday ones, in every language, that name no class of any image dataset.

`sentences.tsv` has one row a sentence and one column a language, and `ja_kana`, the Japanese sentence
in kana with spaces between words: espeak-ng reads no kanji.
"""

from __future__ import annotations

import csv
import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from symile_m3.errors import SourceError
from symile_m3.languages import LANGUAGES

SHIPPED = Path(__file__).with_name("sentences.tsv")
_KANA = "ja_kana"


@dataclass(frozen=True, kw_only=True, slots=True)
class Sentence:
    """One sentence in every language.

    Attributes:
        id: such as `s001`.
        written: language -> the sentence as people write it.
        spoken: language -> the sentence as espeak-ng is given it: kana for Japanese, else as written.
    """

    id: str
    written: Mapping[str, str]
    spoken: Mapping[str, str]


@functools.cache
def load_sentences(path: Path = SHIPPED) -> tuple[Sentence, ...]:
    """The sentences of a table, in its order.

    Raises:
        SourceError: the table is missing, lacks a column, repeats an id, or has an empty cell.
    """
    columns = ["id", *LANGUAGES, _KANA]
    sentences: dict[str, Sentence] = {}
    try:
        with path.open(encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
            missing = sorted(set(columns) - set(reader.fieldnames or ()))
            if missing:
                raise SourceError(f"{path}: no column {', '.join(missing)}")
            for row in reader:
                for column in columns:
                    if not (row[column] or "").strip():
                        raise SourceError(f"{path}, line {reader.line_num}: column {column} is empty")
                if row["id"] in sentences:
                    raise SourceError(f"{path}, line {reader.line_num}: id {row['id']} is there twice")
                written = {code: row[code].strip() for code in LANGUAGES}
                sentences[row["id"]] = Sentence(
                    id=row["id"], written=written, spoken={**written, "ja": row[_KANA].strip()}
                )
    except OSError as error:
        raise SourceError(f"no sentences to speak: {error}") from error
    return tuple(sentences.values())
