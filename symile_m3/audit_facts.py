"""What `verify` keeps of the samples it has read: little, however many they are.

Of images, clips, sentences and voices it keeps where each occurs first in each split: memory by distinct values.
For the probes it keeps a row a sample, in as few bytes as classes and languages need: 34 for ten words of 250 classes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from symile_m3.plan import SPLITS, Plan
from symile_m3.shards import ShardInfo

SHOWN = 20


class Lines:
    """Lines of which the first `SHOWN` are kept, and all are counted."""

    def __init__(self, lines: Iterable[str] = ()) -> None:
        self.kept: list[str] = []
        self.count = 0
        self.extend(lines)

    def append(self, line: str) -> None:
        """One more line."""
        if self.count < SHOWN:
            self.kept.append(line)
        self.count += 1

    def extend(self, lines: Iterable[str]) -> None:
        """More lines."""
        for line in lines:
            self.append(line)

    def merge(self, other: Lines) -> None:
        """All lines of another list, those included that it has only counted."""
        self.kept += other.kept[: max(0, SHOWN - self.count)]
        self.count += other.count

    def shown(self) -> tuple[str, ...]:
        """The lines kept, and how many more there are."""
        more = self.count - len(self.kept)
        return (*self.kept, f"... and {more:,} more problems") if more else tuple(self.kept)


def sample_type(plan: Plan) -> np.dtype[np.void]:
    """A sample as the probes take it.

    class_id, language_id: as its json has them. word_class_ids, word_language_ids: (W,) of the words of its
    text. clip_id: of its bytes. position: in its shard.
    """
    class_id, language_id = (
        np.min_scalar_type(count - 1) for count in (len(plan.lexicon), len(plan.lexicon.languages))
    )
    words = (plan.config.words,)
    return np.dtype(
        [
            ("class_id", class_id),
            ("language_id", language_id),
            ("word_class_ids", class_id, words),
            ("word_language_ids", language_id, words),
            ("clip_id", np.uint64),
            ("position", np.uint32),
        ]
    )


@dataclass(kw_only=True, slots=True)
class Facts:
    """What the readable samples of one shard are.

    Attributes:
        firsts: what (image, clip, sentence, voice) -> value -> position and key of its first sample.
        samples: those that the probes can use, of `sample_type`; None where they are not asked for.
        read: how many there are.
    """

    firsts: dict[str, dict[str, tuple[int, str]]] = field(default_factory=dict)
    samples: NDArray[np.void] | None = None
    read: int = 0


class FactList:
    """`Facts` of a shard, as they are found sample by sample.

    Args:
        plan: of the dataset.
        firsts: whether to note where values occur first.
        samples: whether to keep rows for the probes.
    """

    def __init__(self, plan: Plan, *, firsts: bool, samples: bool) -> None:
        self._type = sample_type(plan)
        self._classes, self._words = len(plan.lexicon), plan.config.words
        self._language_ids = {language: i for i, language in enumerate(plan.lexicon.languages)}
        self._firsts: dict[str, dict[str, tuple[int, str]]] | None = {} if firsts else None
        self._samples: list[tuple[Any, ...]] | None = [] if samples else None
        self._read = 0

    def add(
        self,
        position: int,
        key: str,
        record: Mapping[str, Any],
        words: Sequence[tuple[int, int]],
        image_id: str,
        clip_id: str,
    ) -> None:
        """A sample.

        Args:
            position, key: where it is.
            record: its json; nothing is taken for granted of it.
            words: (class id, language id) of the words of its text that are names.
            image_id, clip_id: of its bytes.
        """
        self._read += 1
        class_id, language = record.get("class_id"), record.get("lang")
        if self._firsts is not None:
            clip = record.get("clip_attributes")
            clip = clip if isinstance(clip, dict) else {}
            values = {"image": image_id, "clip": clip_id}
            if "sentence" in clip:
                values["sentence"] = f"{language}/{clip['sentence']}"  # phrases are numbered language by language
            if "voice" in clip:
                values["voice"] = str(clip["voice"])
            for what, value in values.items():
                self._firsts.setdefault(what, {}).setdefault(value, (position, key))
        if (
            self._samples is not None
            and isinstance(class_id, int)
            and 0 <= class_id < self._classes
            and isinstance(language, str)
            and language in self._language_ids
            and len(words) == self._words
        ):
            columns = tuple(zip(*words, strict=True))
            self._samples.append((class_id, self._language_ids[language], *columns, int(clip_id, 16), position))

    def facts(self) -> Facts:
        """What has been added."""
        samples = None if self._samples is None else np.array(self._samples, self._type)
        return Facts(firsts=self._firsts or {}, samples=samples, read=self._read)


class _Place(NamedTuple):
    """A sample, by the number of its shard and its position there, so that places compare; and its key."""

    shard: int
    position: int
    key: str


class FirstPlaces:
    """Where each value of one kind, such as each clip, occurs first in each split."""

    def __init__(self) -> None:
        self._places: dict[str, list[_Place | None]] = {}

    def __len__(self) -> int:
        return len(self._places)

    def add(self, split: str, shard: int, firsts: Mapping[str, tuple[int, str]]) -> None:
        """What was found in a shard, by its number; shards come in any order."""
        column = SPLITS.index(split)
        for value, (position, key) in firsts.items():
            places = self._places.setdefault(value, [None] * len(SPLITS))
            place, before = _Place(shard, position, key), places[column]
            if before is None or place < before:
                places[column] = place

    def leaks(self) -> Iterator[tuple[str, _Place, _Place]]:
        """Values that are in two splits, each with its first sample in the first two of them, in their order."""
        found = []
        for value, places in self._places.items():
            there = [(column, place) for column, place in enumerate(places) if place is not None]
            if len(there) > 1:
                found.append((there[1], there[0], value))
        for (_, second), (_, first), value in sorted(found):
            yield value, first, second


@dataclass(frozen=True, kw_only=True, slots=True)
class Samples:
    """The samples of a split that the probes can use, in the order of its shards.

    Attributes:
        rows: (N,) of `sample_type`.
        shards: their names.
        ends: (number of shards,) rows up to the end of each.
    """

    rows: NDArray[np.void]
    shards: tuple[str, ...]
    ends: NDArray[np.int64]

    def place(self, n: int) -> tuple[str, int]:
        """The shard and the position of a row."""
        return self.shards[int(np.searchsorted(self.ends, n, side="right"))], int(self.rows["position"][n])


class SampleTable:
    """The rows of a split while they come in, shard by shard in any order: one array, filled where they belong.

    Args:
        plan: of the dataset.
        shards: of the split. One has room for as many samples as the index and the plan allow; what a shard
            holds beyond that is wrong anyway.
    """

    def __init__(self, plan: Plan, shards: Sequence[ShardInfo]) -> None:
        room = [min(info.nsamples, plan.config.shard_samples) for info in shards]
        ends = np.cumsum(room).tolist()
        self._places = {info.name: (end - n, n) for info, end, n in zip(shards, ends, room, strict=True)}
        self._rows = np.empty(sum(room), sample_type(plan))  # takes memory where it is written
        self._counts: dict[str, int] = dict.fromkeys(self._places, 0)

    def add(self, shard: str, samples: NDArray[np.void]) -> None:
        """The rows of a shard."""
        start, room = self._places[shard]
        samples = samples[:room]
        self._rows[start : start + len(samples)] = samples
        self._counts[shard] = len(samples)

    def samples(self) -> Samples:
        """All rows, without gaps; the table is of no use afterwards."""
        at = 0
        for shard, (start, _) in self._places.items():
            n = self._counts[shard]
            if at != start:
                self._rows[at : at + n] = self._rows[start : start + n]
            at += n
        ends = np.cumsum(list(self._counts.values()), dtype=np.int64)
        return Samples(rows=self._rows[:at], shards=tuple(self._places), ends=ends)
