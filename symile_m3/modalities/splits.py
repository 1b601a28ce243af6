"""The samples of each split of declared data: from tars, one set of tars split by key, or a directory of arrays."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from symile_m3.errors import UsageError
from symile_m3.modalities.arrays import ArraySource
from symile_m3.modalities.declaration import DataConfig, Declaration
from symile_m3.shards import SPLITS, ForeignReader, ShardError, Source


class Subset:
    """Some samples of a source, in its order; a `Source` for a `Loader`.

    Args:
        source: the samples.
        numbers: which of them, ascending.
    """

    def __init__(self, source: Source, numbers: npt.NDArray[np.int64]) -> None:
        self._source = source
        self._numbers = numbers
        ends = np.cumsum(source.shard_sizes)
        self._sizes: list[int] = np.diff(np.searchsorted(numbers, ends), prepend=0).tolist()
        digest = hashlib.blake2b(source.fingerprint.encode(), digest_size=16)
        digest.update(numbers.tobytes())
        self._fingerprint = digest.hexdigest()

    @property
    def fingerprint(self) -> str:
        """Of the source, and of which samples are taken."""
        return self._fingerprint

    @property
    def shard_sizes(self) -> Sequence[int]:
        """Number of these samples in each tar."""
        return self._sizes

    def __len__(self) -> int:
        return len(self._numbers)

    def key(self, i: int) -> str:
        """The key of sample `i`."""
        return self._source.key(int(self._numbers[i]))

    def shard(self, i: int) -> str:
        """The name of the tar that holds sample `i`."""
        return self._source.shard(int(self._numbers[i]))

    def read(self, i: int, fields: Sequence[str] | None = None) -> dict[str, bytes]:
        """The members of sample `i`."""
        return self._source.read(int(self._numbers[i]), fields)

    def prefetch(self, numbers: Sequence[int] | npt.NDArray[np.int64]) -> None:
        """Tell the source what comes next, where it wants to know."""
        tell: Any = getattr(self._source, "prefetch", None)
        if tell is not None:
            tell(self._numbers[np.asarray(numbers, np.int64)])


def split_by_key(source: Source, shares: Sequence[float]) -> dict[str, Source]:
    """Train, val and test by a hash of each key, so that samples of one key are in one split.

    Raises:
        UsageError: a split would be empty.
    """
    uniform_N = np.array([_uniform(source.key(i)) for i in range(len(source))])
    splits = np.searchsorted(np.cumsum(shares)[:-1], uniform_N, side="right")
    found: dict[str, Source] = {}
    for i, name in enumerate(SPLITS):
        numbers = np.flatnonzero(splits == i)
        if not len(numbers):
            raise UsageError(f"split {list(shares)}: none of {len(source)} samples is in {name}; give it more")
        found[name] = Subset(source, numbers)
    return found


def _uniform(key: str) -> float:
    digest = hashlib.blake2b(key.encode(), digest_size=8, person=b"symile-split")
    return int.from_bytes(digest.digest(), "little") / 2**64


def fields_of(declaration: Declaration) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The members that every sample must have, and those that one may lack."""
    needed: dict[str, None] = {}
    optional: dict[str, None] = {}
    for modality in declaration.config.modalities:
        (optional if modality.missing else needed).update(dict.fromkeys(modality.fields))
    if declaration.data.label:
        needed[declaration.data.label_field] = None
    return tuple(needed), tuple(field for field in optional if field not in needed)


def open_splits(declaration: Declaration, on_bad_sample: str = "stop") -> dict[str, Source]:
    """A source for each of train, val and test.

    Raises:
        ShardError: there are no tars, or samples lack what they must have.
        UsageError: a directory lacks arrays, or a split is empty.
    """
    data = declaration.data
    needed, optional = fields_of(declaration)
    if data.arrays:
        sources = ArraySource.splits(data.arrays, (*needed, *optional))
        return {name: sources[name] for name in SPLITS}
    damage: Literal["stop", "skip"] = "skip" if on_bad_sample == "skip" else "stop"

    def reader(tars: Sequence[str]) -> Source:
        try:
            return ForeignReader(list(tars), fields=needed, optional=optional, on_damage=damage)
        except ShardError as error:
            text, skips, _ = str(error).partition(' (on_missing="skip"')
            if not skips:
                raise
            raise ShardError(f"{text}; where samples may lack a modality, declare missing = true for it") from error

    if data.all:
        return split_by_key(reader(data.all), data.split)
    return {name: reader(getattr(data, name)) for name in SPLITS}


def fingerprint_of(sources: dict[str, Source], data: DataConfig) -> str:
    """Of the samples of all splits and their labels."""
    digest = hashlib.blake2b(data.label.encode(), digest_size=16)
    for name in SPLITS:
        digest.update(sources[name].fingerprint.encode())
    return digest.hexdigest()
