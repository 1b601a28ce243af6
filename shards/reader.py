"""Reading the samples of a split as one sequence, in the order of its shards."""

from __future__ import annotations

import bisect
import itertools
import os
import threading
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from symile_m3.shards.cache import ShardCache, open_layout
from symile_m3.shards.cache_folder import CacheConfig, Lease, drop_beyond
from symile_m3.shards.errors import ShardError, cannot_read
from symile_m3.shards.index import DatasetIndex, ShardIndex, ShardInfo
from symile_m3.shards.layout import DATA
from symile_m3.shards.prefetch import Prefetcher, shards_ahead
from symile_m3.shards.range_reader import NoRangesError, RangeReader
from symile_m3.shards.shard_reader import ShardReader, wrong_size

MAX_OPEN = 128
"""Shards open at a time, by default: two windows of an order. Each takes a file descriptor, two where it came
through the cache, and its index, about 100 bytes a sample. Many systems allow a process 1,024 descriptors."""


_OF_THE_PROCESS = ("_open", "_lock", "_pid", "_ahead", "_rechecked")


class Source(Protocol):
    """What a loader reads from: numbered samples that lie in shards, with a fingerprint of what they are.

    It must be picklable to be read by worker processes.
    """

    @property
    def fingerprint(self) -> str: ...

    @property
    def shard_sizes(self) -> Sequence[int]: ...

    def __len__(self) -> int: ...

    def key(self, i: int) -> str: ...

    def shard(self, i: int) -> str: ...

    def read(self, i: int, fields: Sequence[str] | None = None) -> dict[str, bytes]: ...


class DatasetReader:
    """The samples of one split of a dataset as one sequence, in the order of its shards.

    Only so many shards are open at a time; the one unused for longest makes room. The reader is picklable,
    opens its shards anew in every process, and may be used by several threads.

    Args:
        root: directory of the dataset, with `data/` and `.symile/`, or its URL. Shards of a remote dataset
            come through the cache, one by one as they are read; at most half of the cache is kept open.
        split: train, val or test.
        check: whether to compare each member read with its checksum.
        max_open: shards open at a time.
        cache: of a remote dataset; what it is by default says `CacheConfig`.
        whole: whether shards of a remote dataset are fetched whole. Otherwise samples of a shard that is not in
            the cache are asked for one by one, as far as the server gives parts of files: for a look at a few.

    Attributes:
        layout: the dataset's directory; of a remote one, its folder in the cache.
        split: the split.
        shards: what is known of its shards.

    Raises:
        ShardError: there is no dataset, it has no such split, or a shard is missing or of the wrong size;
            of a remote dataset, that is known when the shard is first read.
    """

    _ahead: Prefetcher[ShardInfo] | None

    def __init__(
        self,
        root: Path | str | ShardCache,
        split: str,
        *,
        check: bool = True,
        max_open: int = MAX_OPEN,
        cache: CacheConfig | None = None,
        whole: bool = True,
    ) -> None:
        if max_open < 1:
            raise ValueError(f"max_open must be at least 1, not {max_open}")
        self.split = split
        self._cache, self.layout = open_layout(root, cache)
        index = DatasetIndex.load(self.layout.index) if self._cache is None else self._cache.index
        self.shards: tuple[ShardInfo, ...] = tuple(index.of_split(split))
        if not self.shards:
            raise ShardError(f"{self.layout.index}: lists no shards of the split {split!r}")
        self._fingerprint = index.fingerprint
        self._check = check
        self._whole = whole
        self._max_open = max_open
        self._ends = list(itertools.accumulate(shard.nsamples for shard in self.shards))
        for shard in self.shards if self._cache is None else ():
            path = self.layout.shard(shard.name)
            try:
                filesize = path.stat().st_size
            except OSError as error:
                raise cannot_read(path, error) from error
            if filesize != shard.filesize:
                raise wrong_size(shard.name, filesize, shard.filesize)
        self._renew()

    def __len__(self) -> int:
        return self._ends[-1]

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name not in _OF_THE_PROCESS}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._renew()

    @property
    def fingerprint(self) -> str:
        """Fingerprint of the plan the dataset was built from."""
        return self._fingerprint

    @property
    def shard_sizes(self) -> list[int]:
        """Number of samples in each shard."""
        return [shard.nsamples for shard in self.shards]

    def shard(self, i: int) -> str:
        """File name of the shard that holds sample `i`."""
        return self.shards[self._locate(i)[0]].name

    def key(self, i: int) -> str:
        """The key of sample `i`."""
        s, j = self._locate(i)
        reader = self._open.get(s)  # most often it has just been read from
        return (self._reader(s) if reader is None else reader).key(j)

    def read(self, i: int, fields: Sequence[str] | None = None) -> dict[str, bytes]:
        """The members of sample `i`, as `ShardReader.read` gives them.

        Raises:
            IndexError: there is no such sample.
            ShardError: its shard cannot be read or has no such member.
            DamagedSampleError: the sample is damaged.
        """
        s, j = self._locate(i)
        reader = self._reader(s)
        try:
            return reader.read(j, fields)
        except NoRangesError:
            self._whole = True
            with self._lock:
                if self._open.get(s) is reader:
                    del self._open[s]
            again = self._reader(s)
        except ShardError:
            if self._cache is None or not set(fields or ()) <= set(reader.index.members):
                raise
            found = self._anew(self._cache, s, reader)
            if found is None:
                raise
            again = found
        return again.read(j, fields)

    def prefetch(self, numbers: Sequence[int] | npt.NDArray[np.int64]) -> None:
        """Fetch the shards of these samples in the background, in this order, as far as the cache has room; see
        `shards_ahead`. Does nothing for a local dataset."""
        if self._cache is None or not len(numbers):
            return
        if self._pid != os.getpid():
            self._renew()
        shards, cache = self.shards, self._cache
        wanted = shards_ahead(
            numbers,
            self._ends,
            lambda s: shards[s].filesize,
            lambda s: s in self._open or cache.has(shards[s]),
            cache.config.max_bytes,
        )
        if wanted:
            with self._lock:  # a loader asks from two threads
                if self._ahead is None:
                    self._ahead = Prefetcher(cache.fetch)
            self._ahead.submit(shards[s] for s in wanted)

    def close(self) -> None:
        """Let go of all open shards; they open anew when read again."""
        self._renew()

    def _locate(self, i: int) -> tuple[int, int]:
        if not 0 <= i < len(self):
            raise IndexError(f"sample {i} of {len(self)}")
        s = bisect.bisect_right(self._ends, i)
        return s, i - self._ends[s] + self.shards[s].nsamples

    def _reader(self, s: int) -> ShardReader:
        if self._pid != os.getpid():  # after a fork: another thread may have held the lock just then
            self._renew()
        with self._lock:
            reader = self._open.pop(s, None)
            if reader is None:
                reader = self._opened(self.shards[s])
            self._open[s] = reader
            while len(self._open) > self._max_open:
                # dropped, not closed: another thread may be reading from it
                del self._open[next(iter(self._open))]
            return reader

    def _anew(self, cache: ShardCache, s: int, failed: ShardReader) -> ShardReader | None:
        """A reader of a shard whose copy in the cache may have been altered since it was checked; fetched again
        if it was. None where that has been tried before in this process."""
        with self._lock:
            if self._open.get(s) is failed:
                if s in self._rechecked:
                    return None
                self._rechecked.add(s)
                cache.recheck(self.shards[s].name, self.shards[s].sha256)
                del self._open[s]
        return self._reader(s)

    def _opened(self, info: ShardInfo) -> ShardReader:
        if not self._whole and self._cache is not None and not self._cache.has(info):
            part = self._ranged(self._cache, info)
            if part is not None:
                return part
        lease = None if self._cache is None else self._leased(self._cache, info)
        path = self.layout.shard(info.name)
        index = self._index(path, info)
        if len(index) != info.nsamples:
            raise ShardError(
                f"{info.name}: holds {len(index)} samples, {self.layout.index.name} says "
                f"{info.nsamples} (delete it and run the same build again)"
            )
        reader = ShardReader(path, index, check=self._check)
        if lease is not None:
            weakref.finalize(reader, lease.close)  # not before: readers open their tar when first read
        return reader

    def _ranged(self, cache: ShardCache, info: ShardInfo) -> RangeReader | None:
        """A reader of single samples; None where the dataset has no index of the shard that fits."""
        place = cache.file(cache.layout.sidecar(info.name).relative_to(cache.layout.root).as_posix())
        if place is None:
            return None
        try:
            index = ShardIndex.load(place, info.name)
        except ShardError:
            return None
        if (len(index), index.filesize) != (info.nsamples, info.filesize):
            return None
        return RangeReader(cache.storage, f"{DATA}/{info.name}", index, check=self._check)

    def _index(self, path: Path, info: ShardInfo) -> ShardIndex:
        sidecar = self.layout.sidecar(info.name)
        if self._cache is not None:
            name = sidecar.relative_to(self.layout.root).as_posix()
            self._cache.file(name)
            try:
                return ShardIndex.open(path, sidecar)
            except ShardError:  # altered in the cache, perhaps
                sidecar.unlink(missing_ok=True)
                self._cache.file(name)
        return ShardIndex.open(path, sidecar)

    def _leased(self, cache: ShardCache, info: ShardInfo) -> Lease:
        drop_beyond(self._open, lambda s: self.shards[s].filesize, info.filesize, cache.config.max_bytes // 2)
        return cache.shard(info)

    def _renew(self) -> None:
        self._open: dict[int, ShardReader] = {}
        self._lock = threading.Lock()
        self._pid = os.getpid()
        self._ahead = None
        self._rechecked: set[int] = set()
