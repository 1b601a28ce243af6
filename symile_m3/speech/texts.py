"""What synthesised clips say: sentences divided over the splits, phrases that are all different.

The same for every synthesiser: no text is in two splits, none names a class, and sentences are divided
alike in all languages.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from symile_m3.errors import SourceError
from symile_m3.speech.forbidden import NameFilter
from symile_m3.speech.phrases import phrases
from symile_m3.speech.sentences import SHIPPED, Sentence, load_sentences

T = TypeVar("T")

SPLITS = ("train", "val", "test")
KINDS = ("sentence", "phrase", "sentence", "phrase", "sentence")
"""In turn: 60% sentences."""

_SENTENCES_OF = {"val": 0.125, "test": 0.125}  # shares of the sentences; the rest are for training


@dataclass(frozen=True, kw_only=True, slots=True)
class Text:
    """What a clip says.

    Attributes:
        id: of the sentence or phrase.
        kind: `sentence` or `phrase`.
        written: as people write it.
        spoken: as espeak-ng is given it: kana for Japanese, else as written.
    """

    id: str
    kind: str
    written: str
    spoken: str


def draws(seed: int, *key: object) -> np.random.Generator:
    """A counter-based generator of its own for each key."""
    digest = hashlib.sha256("/".join(map(str, (seed, *key))).encode()).digest()
    return np.random.Generator(np.random.Philox(key=np.frombuffer(digest[:16], np.uint64)))


def deck(cards: Sequence[T], seed: int, *key: object) -> Iterator[T]:
    """Cards without end: all of them shuffled, then again, so that each comes up equally often."""
    for turn in itertools.count():
        for index in draws(seed, *key, turn).permutation(len(cards)):
            yield cards[int(index)]


def sentences_by_split(seed: int, table: Path | None = None) -> dict[str, list[Sentence]]:
    """The sentences of each split, the same for every language.

    Args:
        seed: of the division.
        table: in the form of the shipped `sentences.tsv`, to use in its place.

    Raises:
        SourceError: the table cannot be read, or has too few sentences for three splits.
    """
    table = table or SHIPPED
    known = load_sentences(table)
    order = [known[int(index)] for index in draws(seed, "split").permutation(len(known))]
    n_val, n_test = (max(1, round(len(known) * _SENTENCES_OF[split])) for split in ("val", "test"))
    if len(known) < n_val + n_test + 1:
        raise SourceError(f"{table}: {len(known)} sentences are too few for three splits")
    return {"val": order[:n_val], "test": order[n_val : n_val + n_test], "train": order[n_val + n_test :]}


def allowed_sentences(language: str, split: str, members: Iterable[Sentence], names: NameFilter) -> list[Text]:
    """Those sentences of a split that name no class.

    Raises:
        SourceError: every one does.
    """
    allowed = [
        Text(id=s.id, kind="sentence", written=s.written[language], spoken=s.spoken[language])
        for s in members
        if not names.finds(s.written[language]) and not names.finds(s.spoken[language])
    ]
    if not allowed:
        raise SourceError(f"{split}: every sentence in {language!r} names a class")
    return allowed


def phrases_by_split(
    language: str,
    seed: int,
    needed: Mapping[str, int],
    forbidden: frozenset[str],
    accept: Callable[[str], bool] = lambda _: True,
) -> dict[str, list[Text]]:
    """So many phrases for each split, all different; none names a class, and `accept` takes what is spoken.

    Raises:
        SourceError: the forbidden names leave too little to say, or CLDR has no such language.
    """
    stream = iter(
        [
            Text(id=p.id, kind="phrase", written=p.written, spoken=p.spoken)
            for p in phrases(language, seed=seed, count=sum(needed.values()), forbidden=forbidden, accept=accept)
        ]
    )
    return {split: list(itertools.islice(stream, needed[split])) for split in SPLITS}
