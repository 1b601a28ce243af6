"""Reading WebDataset tars that anyone wrote, here or behind URLs, with no index and no list."""

from __future__ import annotations

import bisect
import hashlib
import itertools
import json
import os
import threading
import weakref
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from symile_m3.shards.cache_folder import CacheConfig, Lease, drop_beyond
from symile_m3.shards.errors import ShardError
from symile_m3.shards.foreign_index import lease_remote
from symile_m3.shards.foreign_scan import TarScan, columns_of, digest_of, scan_tars
from symile_m3.shards.layout import MEMBERS
from symile_m3.shards.prefetch import Prefetcher, shards_ahead
from symile_m3.shards.reader import MAX_OPEN
from symile_m3.shards.remote_tars import RemoteTar, TarCache
from symile_m3.shards.scan import DAMAGE
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


_OF_THE_PROCESS = ("_open", "_lock", "_pid", "_ahead", "_rechecked")


class ForeignReader:
    """The samples of any WebDataset tars as one sequence, in the order of the tars; a `Source` for a `Loader`.

    When made, it reads the headers of each tar that has no index yet (some 100,000 samples a second) and
    keeps the index; see `open_foreign`. What is odd about the tars is then known: see `problems`. As there are
    no checksums of members, altered bytes are noticed only where they no longer decode; that a tar was
    replaced or its headers altered is noticed always. The reader is picklable, opens its tars anew in every
    process, and may be used by several threads.

    Tars behind URLs come through the cache (see `CacheConfig`), as the shards of a remote dataset do. All of them
    are fetched once, to be indexed; the indexes stay in the cache, so that the next reader fetches a tar only when
    its samples are read, or where its length or what its store says of its version has changed. Samples, order and
    fingerprint are those of the same tars in a directory.

    Args:
        tars: a directory, a path, a pattern with `*` or `{000..012}`, a URL of any of these, or a list; see
            `list_tars`.
        fields: what every sample must have.
        optional: what a sample may have; reading one gives what is there.
        aliases: the suffixes, in small letters, under which a field is looked for; for fields not
            named their own name.
        on_missing: `stop` raises where a sample lacks a field; `skip` leaves it out.
        on_damage: `stop` raises where a tar is cut off, a header is damaged or a key occurs twice;
            `skip` goes on with what is whole.
        index_dir: where indexes are kept; by default beside the tars or, where that cannot be written,
            in `default_index_dir()`; those of remote tars by default in the cache.
        workers: processes that scan; one scans here, and fetches four remote tars at a time. More are spawned, so
            that a script must guard its entry with `if __name__ == "__main__"`.
        progress: called with (tars done, tars) after each.
        max_open: tars open at a time.
        max_member_bytes: a longer member is damage of its sample, found when it is read.
        cache: of remote tars.

    Attributes:
        paths: the tars; of remote ones, URLs without user, password and query.
        problems: what is odd, at most a hundred of a kind in a tar, each with the tar, the key where
            it is known, and a kind: `missing`, `duplicate`, `interleaved`, `cut off`, `damaged header`,
            `trailing`, `no end`, `link or device`, `sparse file`, `unsafe name`, `no sample`, `unknown entry`.
        counts: how often each kind was found.

    Raises:
        ShardError: a tar cannot be read or fetched, none has a sample with all fields, or something is missing or
            damaged and is not to be skipped.
        ValueError: an argument is out of range.
    """

    _ahead: Prefetcher[RemoteTar] | None

    def __init__(
        self,
        tars: str | Path | Sequence[str | Path],
        *,
        fields: Sequence[str] = MEMBERS,
        optional: Sequence[str] = (),
        aliases: Mapping[str, Sequence[str]] = ALIASES,
        on_missing: Literal["stop", "skip"] = "stop",
        on_damage: Literal["stop", "skip"] = "stop",
        index_dir: Path | None = None,
        workers: int = 1,
        progress: Callable[[int, int], None] | None = None,
        max_open: int = MAX_OPEN,
        max_member_bytes: int = MAX_MEMBER_BYTES,
        cache: CacheConfig | None = None,
    ) -> None:
        for name, number in (("workers", workers), ("max_open", max_open), ("max_member_bytes", max_member_bytes)):
            if number < 1:
                raise ValueError(f"{name} must be at least 1, not {number}")
        for name, choice in (("on_missing", on_missing), ("on_damage", on_damage)):
            if choice not in ("stop", "skip"):
                raise ValueError(f"{name} must be stop or skip, not {choice!r}")
        every = (*fields, *optional)
        if isinstance(fields, str) or isinstance(optional, str) or not every or len(set(every)) != len(every):
            asked = f"{fields!r} and {optional!r}" if optional else f"{fields!r}"
            raise ValueError(f"fields must be different members, at least one, not {asked}")
        self._tars = tuple(list_tars(tars, retry=None if cache is None else cache.retry))
        self.paths = tuple(tar.url if isinstance(tar, RemoteTar) else tar for tar in self._tars)
        wanted, asked_for = (
            tuple((name, tuple(aliases.get(name, (name,)))) for name in names) for names in (fields, optional)
        )
        if cache is None and any(isinstance(tar, RemoteTar) for tar in self._tars):
            cache = CacheConfig()
        self._optional = asked_for
        self._scan = TarScan(wanted, index_dir, cache)
        self._max_open = max_open
        self._max_member_bytes = max_member_bytes
        self.problems: list[Problem] = []
        self.counts: Counter[str] = Counter()
        digest = hashlib.blake2b(
            json.dumps([on_missing, wanted, *([asked_for] if asked_for else [])]).encode(), digest_size=16
        )
        self._sizes: list[int] = []
        self._digests: list[bytes] = []
        for done, summary in enumerate(scan_tars(self._scan, self._tars, workers), start=1):
            self.problems += summary.findings.problems
            self.counts += summary.findings.counts
            self._sizes.append(summary.size)
            self._digests.append(summary.digest)
            digest.update(f"{len(summary.name)} {summary.name}".encode() + summary.digest)
            if progress is not None:
                progress(done, len(self._tars))
        self._fingerprint = digest.hexdigest()
        self._ends = list(itertools.accumulate(self._sizes))
        if on_damage == "stop":
            self._refuse(DAMAGE, "on_damage")
        if on_missing == "stop":
            self._refuse({"missing"}, "on_missing")
        if not len(self):
            first = f", first {self.problems[0]}" if self.problems else ""
            names = ", ".join(fields or optional)
            raise ShardError(f"{self.paths[0]}: no sample in {len(self.paths)} tars has all of {names}{first}")
        self._renew()

    def __len__(self) -> int:
        return self._ends[-1]

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name not in _OF_THE_PROCESS}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._renew()

    @property
    def fields(self) -> tuple[str, ...]:
        """What every sample has, and behind it what one may have."""
        return tuple(name for name, _ in (*self._scan.wanted, *self._optional))

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
        return self._tars[self._locate(i)[0]].name

    def key(self, i: int) -> str:
        """The key of sample `i`; tars often use the same keys."""
        s, j = self._locate(i)
        tar = self._tar(s)
        return tar.reader.key(int(tar.rows[j]))

    def read(self, i: int, fields: Sequence[str] | None = None) -> dict[str, bytes]:
        """The fields of sample `i` as they lie in the tar, by default all that were asked for; without those that are
        optional and not there.

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
                raise ShardError(f"{self._tars[s].name}: {name!r} is not among the fields asked for: {', '.join(own)}")
        tar = self._tar(s)
        try:
            return tar.read(j, fields, own)
        except ShardError:
            again = self._anew(s, tar)
            if again is None:
                raise
        return again.read(j, fields, own)

    def prefetch(self, numbers: Sequence[int] | npt.NDArray[np.int64]) -> None:
        """Fetch the remote tars of these samples in the background, in this order, as far as the cache has room;
        see `shards_ahead`."""
        if not len(numbers) or not any(isinstance(tar, RemoteTar) for tar in self._tars):
            return
        if self._pid != os.getpid():
            self._renew()
        config = self._scan.config

        def is_there(s: int) -> bool:
            tar = self._tars[s]
            return s in self._open or not isinstance(tar, RemoteTar) or TarCache(tar.storage, config).has(tar)

        wanted = [
            tar
            for s in shards_ahead(numbers, self._ends, self._bytes, is_there, config.max_bytes)
            if isinstance(tar := self._tars[s], RemoteTar)
        ]
        if wanted:
            with self._lock:  # a loader asks from two threads
                if self._ahead is None:
                    self._ahead = Prefetcher(lambda tar: TarCache(tar.storage, config).fetch(tar))
            self._ahead.submit(wanted)

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
                tar = self._opened(s)
            self._open[s] = tar
            while len(self._open) > self._max_open:
                # dropped, not closed: another thread may be reading from it
                del self._open[next(iter(self._open))]
            return tar

    def _opened(self, s: int) -> _Tar:
        tar, scan = self._tars[s], self._scan
        index, _ = scan.index(tar)
        if digest_of(index) != self._digests[s]:
            raise ShardError(f"{self.paths[s]}: has changed since it was first read (begin anew)")
        lease: Lease | None = None
        path = tar if isinstance(tar, Path) else Path()
        if isinstance(tar, RemoteTar):
            drop_beyond(self._open, self._bytes, tar.size, scan.config.max_bytes // 2)
            lease = lease_remote(tar, index, scan.config, scan.index_dir)
            path = lease.path
        columns = columns_of(index, (*scan.wanted, *self._optional))
        rows = np.flatnonzero((columns[:, : len(scan.wanted)] >= 0).all(axis=1))
        reader = ShardReader(path, index, max_member_bytes=self._max_member_bytes)
        if lease is not None:
            weakref.finalize(reader, lease.close)  # not before: readers open their tar when first read
        return _Tar(reader, rows, columns[rows])

    def _anew(self, s: int, failed: _Tar) -> _Tar | None:
        """A remote tar whose copy in the cache may have been altered since it came; fetched again if it was.
        None where that has been tried before in this process, or cannot be known."""
        tar, sha256 = self._tars[s], failed.reader.index.notes.get("sha256")
        if not isinstance(tar, RemoteTar) or not isinstance(sha256, str):
            return None
        with self._lock:
            if self._open.get(s) is failed:
                if s in self._rechecked:
                    return None
                self._rechecked.add(s)
                TarCache(tar.storage, self._scan.config).recheck(f"{tar.stem}.tar", sha256)
                del self._open[s]
        return self._tar(s)

    def _bytes(self, s: int) -> int:
        tar = self._tars[s]
        return tar.size if isinstance(tar, RemoteTar) else 0

    def _renew(self) -> None:
        self._open: dict[int, _Tar] = {}
        self._lock = threading.Lock()
        self._pid = os.getpid()
        self._ahead = None
        self._rechecked: set[int] = set()


class _Tar(NamedTuple):
    """An open tar; `rows` are its K samples with all they must have, `columns` where each of the F fields is, -1 for
    one that is not there, shape (K, F)."""

    reader: ShardReader
    rows: npt.NDArray[np.int64]
    columns: npt.NDArray[np.int8]

    def read(self, j: int, fields: Sequence[str], own: tuple[str, ...]) -> dict[str, bytes]:
        """Fields of sample `j` of those with all of `own`."""
        columns = {name: int(self.columns[j, own.index(name)]) for name in fields}
        names = {name: self.reader.index.members[m] for name, m in columns.items() if m >= 0}  # -1: not there
        members = self.reader.read(int(self.rows[j]), list(names.values())) if names else {}
        return {name: members[member] for name, member in names.items()}
