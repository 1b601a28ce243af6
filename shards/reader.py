"""Reading samples by position: one shard, or all shards of a split as one sequence."""

from __future__ import annotations

import bisect
import itertools
import mmap
import os
import threading
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from symile_m3.shards.errors import DamagedSampleError, ShardError
from symile_m3.shards.index import DatasetIndex, ShardIndex, ShardInfo
from symile_m3.shards.layout import DatasetLayout
from symile_m3.shards.tar import BLOCK, parse_header

MAX_OPEN = 256
"""Shards open at a time, by default; each takes a file descriptor and its index, about 100 bytes a sample."""


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


class ShardReader:
    """Random access to the samples of one tar, through a memory map that is made on first use.

    The reader can be pickled and goes on working in forked and spawned processes; the map stays behind.

    Args:
        path: the tar.
        index: where its members lie; by default from the sidecar, or by scanning.
        check: whether to compare each member read with its checksum (over 1 GB/s).

    Raises:
        ShardError: the tar or its index is missing, or the tar is not as long as the index says.
    """

    def __init__(self, path: Path, index: ShardIndex | None = None, *, check: bool = True) -> None:
        self.path = path
        self.index = ShardIndex.open(path) if index is None else index
        self.check = check
        self._columns = {member: m for m, member in enumerate(self.index.members)}
        self._view: mmap.mmap | None = None

    def __len__(self) -> int:
        return len(self.index)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_view": None}

    def key(self, i: int) -> str:
        """The key of sample `i`."""
        return self.index.key(i)

    def read(self, i: int, fields: Sequence[str] | None = None) -> dict[str, bytes]:
        """The members of sample `i` as they lie in the tar.

        Args:
            i: position in the shard, 0 .. len-1.
            fields: which members; by default all.

        Raises:
            IndexError: there is no such sample.
            ShardError: the shard has no such member, or the tar is not as long as its index says.
            DamagedSampleError: the tar does not hold there what the index says, or its bytes were altered.
        """
        if not 0 <= i < len(self.index):
            raise IndexError(f"{self.path.name}: sample {i} of {len(self.index)}")
        index = self.index
        view = self._open() if self._view is None else self._view
        crc32 = index.crc32 if self.check else None
        members: dict[str, bytes] = {}
        for member in index.members if fields is None else fields:
            m = self._columns.get(member)
            if m is None:
                raise ShardError(f"{self.path.name}: has no member {member!r} (it has {', '.join(index.members)})")
            at, size = int(index.offsets[i, m]), int(index.sizes[i, m])
            if not members:
                self._check_header(view, i, member, at, size)
            data = view[at : at + size]
            if crc32 is not None and zlib.crc32(data) != crc32[i, m]:
                raise DamagedSampleError(self.path.name, self.key(i), f"the bytes of its {member} were altered")
            members[member] = data
        return members

    def close(self) -> None:
        """Let go of the map; the next read makes it anew."""
        if self._view is not None:
            self._view.close()
            self._view = None

    def _open(self) -> mmap.mmap:
        try:
            with self.path.open("rb") as file:
                filesize = os.fstat(file.fileno()).st_size
                if filesize != self.index.filesize:
                    raise _wrong_size(self.path.name, filesize, self.index.filesize)
                self._view = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except OSError as error:
            raise ShardError(f"{self.path}: cannot be read: {error.strerror}") from error
        return self._view

    def _check_header(self, view: mmap.mmap, i: int, member: str, at: int, size: int) -> None:
        name = f"{self.key(i)}.{member}"
        try:
            header = parse_header(view[at - BLOCK : at])
        except ValueError as error:
            raise DamagedSampleError(self.path.name, self.key(i), f"{member}: {error}") from None
        if header is None or header.name != name or header.size != size:
            found = "nothing" if header is None else f"{header.name}, {header.size:,} bytes"
            raise DamagedSampleError(
                self.path.name,
                self.key(i),
                f"the tar holds {found} where {name}, {size:,} bytes, is expected",
            )


class DatasetReader:
    """The samples of one split of a dataset as one sequence, in the order of its shards.

    Only so many shards are open at a time; the one unused for longest makes room. The reader is picklable,
    opens its shards anew in every process, and may be used by several threads.

    Args:
        root: directory of the dataset, with `data/` and `.symile/`.
        split: train, val or test.
        check: whether to compare each member read with its checksum.
        max_open: shards open at a time.

    Attributes:
        layout: the dataset's directory.
        split: the split.
        shards: what is known of its shards.

    Raises:
        ShardError: there is no dataset, it has no such split, or a shard is missing or of the wrong size.
    """

    def __init__(self, root: Path, split: str, *, check: bool = True, max_open: int = MAX_OPEN) -> None:
        if max_open < 1:
            raise ValueError(f"max_open must be at least 1, not {max_open}")
        self.layout = DatasetLayout(Path(root))
        self.split = split
        index = DatasetIndex.load(self.layout.index)
        self.shards: tuple[ShardInfo, ...] = tuple(index.of_split(split))
        if not self.shards:
            raise ShardError(f"{self.layout.index}: lists no shards of the split {split!r}")
        self._fingerprint = index.fingerprint
        self._check = check
        self._max_open = max_open
        self._ends = list(itertools.accumulate(shard.nsamples for shard in self.shards))
        for shard in self.shards:
            path = self.layout.shard(shard.name)
            try:
                filesize = path.stat().st_size
            except OSError as error:
                raise ShardError(f"{path}: cannot be read: {error.strerror}") from error
            if filesize != shard.filesize:
                raise _wrong_size(shard.name, filesize, shard.filesize)
        self._renew()

    def __len__(self) -> int:
        return self._ends[-1]

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name not in ("_open", "_lock", "_pid")}

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
        return self._reader(s).key(j)

    def read(self, i: int, fields: Sequence[str] | None = None) -> dict[str, bytes]:
        """The members of sample `i`, as `ShardReader.read` gives them.

        Raises:
            IndexError: there is no such sample.
            ShardError: its shard cannot be read or has no such member.
            DamagedSampleError: the sample is damaged.
        """
        s, j = self._locate(i)
        return self._reader(s).read(j, fields)

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
                info = self.shards[s]
                path = self.layout.shard(info.name)
                index = ShardIndex.open(path, self.layout.sidecar(info.name))
                if len(index) != info.nsamples:
                    raise ShardError(
                        f"{info.name}: holds {len(index)} samples, {self.layout.index.name} says "
                        f"{info.nsamples} (delete it and run the same build again)"
                    )
                reader = ShardReader(path, index, check=self._check)
            self._open[s] = reader
            while len(self._open) > self._max_open:
                # dropped, not closed: another thread may be reading from it
                del self._open[next(iter(self._open))]
            return reader

    def _renew(self) -> None:
        self._open: dict[int, ShardReader] = {}
        self._lock = threading.Lock()
        self._pid = os.getpid()


def _wrong_size(shard: str, found: int, expected: int) -> ShardError:
    return ShardError(
        f"{shard}: is {found:,} bytes long where {expected:,} are expected: cut off or replaced "
        "(delete it and run the same build again)"
    )
