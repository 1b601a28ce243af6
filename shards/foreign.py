"""Reading WebDataset tars that anyone wrote, with no index and no list."""

from __future__ import annotations

import bisect
import hashlib
import itertools
import json
import multiprocessing
import os
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from symile_m3.shards.errors import ShardError
from symile_m3.shards.foreign_index import open_foreign
from symile_m3.shards.index import ShardIndex
from symile_m3.shards.layout import MEMBERS
from symile_m3.shards.reader import MAX_OPEN
from symile_m3.shards.scan import DAMAGE, Findings
from symile_m3.shards.shard_reader import MAX_MEMBER_BYTES, ShardReader
from symile_m3.shards.tar_list import list_tars
from symile_m3.shards.verify import Problem

ALIASES: Mapping[str, tuple[str, ...]] = {
    "jpg": ("jpg", "jpeg", "png", "webp"),
    "flac": ("flac", "wav", "ogg", "opus", "mp3"),
    "txt": ("txt", "text"),
}
"""The suffixes under which a field is looked for, the first that a sample has being taken; a field not
named here has its own name for a suffix."""


class ForeignReader:
    """The samples of any WebDataset tars as one sequence, in the order of the tars; a `Source` for a `Loader`.

    When made, it reads the headers of each tar that has no index yet (some 100,000 samples a second) and
    keeps the index; see `open_foreign`. What is odd about the tars is then known: see `problems`. As there are
    no checksums of members, altered bytes are noticed only where they no longer decode; that a tar was
    replaced or its headers altered is noticed always. The reader is picklable, opens its tars anew in every
    process, and may be used by several threads.

    Args:
        tars: a directory, a path, a pattern with `*` or `{000..012}`, or a list of these; see `list_tars`.
        fields: what every sample must have.
        aliases: the suffixes, in small letters, under which a field is looked for; for fields not
            named their own name.
        on_missing: `stop` raises where a sample lacks a field; `skip` leaves it out.
        on_damage: `stop` raises where a tar is cut off, a header is damaged or a key occurs twice;
            `skip` goes on with what is whole.
        index_dir: where indexes are kept; by default beside the tars or, where that cannot be written,
            in `default_index_dir()`.
        workers: processes that scan; with more than one they are spawned, so that a script must guard its
            entry with `if __name__ == "__main__"`.
        progress: called with (tars done, tars) after each.
        max_open: tars open at a time.
        max_member_bytes: a longer member is damage of its sample, found when it is read.

    Attributes:
        paths: the tars.
        problems: what is odd, at most a hundred of a kind in a tar, each with the tar, the key where
            it is known, and a kind: `missing`, `duplicate`, `interleaved`, `cut off`, `damaged header`,
            `trailing`, `no end`, `link or device`, `sparse file`, `unsafe name`, `no sample`, `unknown entry`.
        counts: how often each kind was found.

    Raises:
        ShardError: a tar cannot be read, none has a sample with all fields, or something is missing or
            damaged and is not to be skipped.
        ValueError: an argument is out of range.
    """

    def __init__(
        self,
        tars: str | Path | Sequence[str | Path],
        *,
        fields: Sequence[str] = MEMBERS,
        aliases: Mapping[str, Sequence[str]] = ALIASES,
        on_missing: Literal["stop", "skip"] = "stop",
        on_damage: Literal["stop", "skip"] = "stop",
        index_dir: Path | None = None,
        workers: int = 1,
        progress: Callable[[int, int], None] | None = None,
        max_open: int = MAX_OPEN,
        max_member_bytes: int = MAX_MEMBER_BYTES,
    ) -> None:
        for name, number in (("workers", workers), ("max_open", max_open), ("max_member_bytes", max_member_bytes)):
            if number < 1:
                raise ValueError(f"{name} must be at least 1, not {number}")
        for name, choice in (("on_missing", on_missing), ("on_damage", on_damage)):
            if choice not in ("stop", "skip"):
                raise ValueError(f"{name} must be stop or skip, not {choice!r}")
        if isinstance(fields, str) or not fields or len(set(fields)) != len(fields):
            raise ValueError(f"fields must be different members, at least one, not {fields!r}")
        self.paths = tuple(list_tars(tars))
        wanted = tuple((name, tuple(aliases.get(name, (name,)))) for name in fields)
        self._scan = _Scan(wanted, index_dir)
        self._max_open = max_open
        self._max_member_bytes = max_member_bytes
        self.problems: list[Problem] = []
        self.counts: Counter[str] = Counter()
        digest = hashlib.blake2b(json.dumps([on_missing, wanted]).encode(), digest_size=16)
        self._sizes: list[int] = []
        self._digests: list[bytes] = []
        for done, summary in enumerate(_map(self._scan, self.paths, workers), start=1):
            self.problems += summary.findings.problems
            self.counts += summary.findings.counts
            self._sizes.append(summary.size)
            self._digests.append(summary.digest)
            digest.update(f"{len(summary.name)} {summary.name}".encode() + summary.digest)
            if progress is not None:
                progress(done, len(self.paths))
        self._fingerprint = digest.hexdigest()
        self._ends = list(itertools.accumulate(self._sizes))
        if on_damage == "stop":
            self._refuse(DAMAGE, "on_damage")
        if on_missing == "stop":
            self._refuse({"missing"}, "on_missing")
        if not len(self):
            first = f", first {self.problems[0]}" if self.problems else ""
            names = ", ".join(fields)
            raise ShardError(f"{self.paths[0]}: no sample in {len(self.paths)} tars has all of {names}{first}")
        self._renew()

    def __len__(self) -> int:
        return self._ends[-1]

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name not in ("_open", "_lock", "_pid")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._renew()

    @property
    def fields(self) -> tuple[str, ...]:
        """What every sample has."""
        return tuple(name for name, _ in self._scan.wanted)

    @property
    def fingerprint(self) -> str:
        """Of the names of the tars and of all keys and places of members in them, not of their bytes."""
        return self._fingerprint

    @property
    def shard_sizes(self) -> list[int]:
        """Number of samples in each tar, without those left out."""
        return list(self._sizes)

    def shard(self, i: int) -> str:
        """File name of the tar that holds sample `i`."""
        return self.paths[self._locate(i)[0]].name

    def key(self, i: int) -> str:
        """The key of sample `i`; tars often use the same keys."""
        s, j = self._locate(i)
        tar = self._tar(s)
        return tar.reader.key(int(tar.rows[j]))

    def read(self, i: int, fields: Sequence[str] | None = None) -> dict[str, bytes]:
        """The fields of sample `i` as they lie in the tar, by default all that were asked for.

        Raises:
            IndexError: there is no such sample.
            ShardError: its tar cannot be read or has changed, or the field was not asked for.
            DamagedSampleError: the sample is damaged.
        """
        s, j = self._locate(i)
        own = self.fields
        fields = own if fields is None else fields
        for name in fields:
            if name not in own:
                raise ShardError(f"{self.paths[s].name}: {name!r} is not among the fields asked for: {', '.join(own)}")
        tar = self._tar(s)
        names = [tar.reader.index.members[tar.columns[j, own.index(name)]] for name in fields]
        members = tar.reader.read(int(tar.rows[j]), names)
        return {name: members[member] for name, member in zip(fields, names, strict=True)}

    def close(self) -> None:
        """Let go of all open tars; they open anew when read again."""
        self._renew()

    def _refuse(self, kinds: set[str] | frozenset[str], argument: str) -> None:
        count = sum(self.counts[kind] for kind in kinds)
        if count:
            first = next(problem for problem in self.problems if problem.kind in kinds)
            more = f" (and {count - 1} more)" if count > 1 else ""
            raise ShardError(f'{first}{more} ({argument}="skip" goes on without)')

    def _locate(self, i: int) -> tuple[int, int]:
        if not 0 <= i < len(self):
            raise IndexError(f"sample {i} of {len(self)}")
        s = bisect.bisect_right(self._ends, i)
        return s, i - self._ends[s] + self._sizes[s]

    def _tar(self, s: int) -> _Tar:
        if self._pid != os.getpid():  # after a fork: another thread may have held the lock just then
            self._renew()
        with self._lock:
            tar = self._open.pop(s, None)
            if tar is None:
                path = self.paths[s]
                index, _ = open_foreign(path, self._scan.index_dir)
                if _digest(index) != self._digests[s]:
                    raise ShardError(f"{path}: has changed since it was first read (begin anew)")
                columns = _columns(index, self._scan.wanted)
                rows = np.flatnonzero((columns >= 0).all(axis=1))
                tar = _Tar(ShardReader(path, index, max_member_bytes=self._max_member_bytes), rows, columns[rows])
            self._open[s] = tar
            while len(self._open) > self._max_open:
                # dropped, not closed: another thread may be reading from it
                del self._open[next(iter(self._open))]
            return tar

    def _renew(self) -> None:
        self._open: dict[int, _Tar] = {}
        self._lock = threading.Lock()
        self._pid = os.getpid()


class _Tar(NamedTuple):
    """An open tar; `rows` are its K samples with all F fields, `columns` where each field is, shape (K, F)."""

    reader: ShardReader
    rows: npt.NDArray[np.int64]
    columns: npt.NDArray[np.int8]


class _Summary(NamedTuple):
    name: str
    size: int
    digest: bytes
    findings: Findings


@dataclass(frozen=True, slots=True)
class _Scan:
    """What is known of a tar after its headers have been read; picklable.

    Attributes:
        wanted: each field with its suffixes.
        index_dir: where indexes are kept.
    """

    wanted: tuple[tuple[str, tuple[str, ...]], ...]
    index_dir: Path | None

    def __call__(self, path: Path) -> _Summary:
        index, findings = open_foreign(path, self.index_dir)
        columns = _columns(index, self.wanted)
        whole = (columns >= 0).all(axis=1)
        for row in np.flatnonzero(~whole).tolist():
            lacking = [name for (name, _), m in zip(self.wanted, columns[row].tolist(), strict=True) if m < 0]
            findings.add("missing", index.key(row), f"has no {' and no '.join(lacking)}")
        return _Summary(path.name, int(whole.sum()), _digest(index), findings)


def _map(scan: _Scan, paths: Sequence[Path], workers: int) -> Iterator[_Summary]:
    workers = min(workers, len(paths))
    if workers == 1:
        yield from map(scan, paths)
        return
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        try:
            yield from pool.map(scan, paths)
        except BrokenProcessPool:
            raise ShardError(
                "a process that scanned tars died (guard the entry of the script with "
                'if __name__ == "__main__", or use workers=1)'
            ) from None
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _columns(index: ShardIndex, wanted: Sequence[tuple[str, Sequence[str]]]) -> npt.NDArray[np.int8]:
    """In which column of the index each of the F fields of each of the N samples is, -1 for none, shape (N, F)."""
    columns = np.full((len(index), len(wanted)), -1, np.int8)
    for f, (_, suffixes) in enumerate(wanted):
        for suffix in reversed(suffixes):
            if suffix in index.members:
                m = index.members.index(suffix)
                columns[index.offsets[:, m] >= 0, f] = m
    return columns


def _digest(index: ShardIndex) -> bytes:
    digest = hashlib.blake2b(f"{index.filesize} {' '.join(index.members)}".encode(), digest_size=16)
    for array in (index.keys, index.offsets, index.sizes):
        digest.update(f"{array.dtype.str} {array.shape}".encode())
        digest.update(array.tobytes())
    return digest.digest()
