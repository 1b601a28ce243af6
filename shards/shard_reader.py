"""Reading the samples of one shard by position."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from isal.isal_zlib import crc32

from symile_m3.shards.errors import DamagedSampleError, ShardError, cannot_read
from symile_m3.shards.index import ShardIndex
from symile_m3.shards.tar import BLOCK, parse_header, usual_header

MAX_MEMBER_BYTES = 1 << 28
"""Length of a member that is read, at most, by default: 256 MiB."""

_SPAN = 1 << 17  # members that lie within so many bytes are read at once


class ShardReader:
    """Random access to the samples of one tar, through a file that is opened on first use.

    Reads copy what they need and map nothing, so memory does not grow with what has been read, and a tar cut
    off or a disk that fails under the reader is an error with its name, where a memory map would end the
    process. The reader can be pickled and goes on working in forked and spawned processes; the open file
    stays behind.

    Args:
        path: the tar.
        index: where its members lie; by default from the sidecar, or by scanning.
        check: whether to compare each member read with its checksum (over 1 GB/s).
        max_member_bytes: a longer member is damage, and is not read.

    Raises:
        ShardError: the tar or its index is missing, or the tar is not as long as the index says.
    """

    def __init__(
        self,
        path: Path,
        index: ShardIndex | None = None,
        *,
        check: bool = True,
        max_member_bytes: int = MAX_MEMBER_BYTES,
    ) -> None:
        self.path = path
        self.index = ShardIndex.open(path) if index is None else index
        self.check = check
        self.max_member_bytes = max_member_bytes
        self._columns = {member: m for m, member in enumerate(self.index.members)}
        self._file: _Bytes | None = None
        self._spans: dict[tuple[str, ...], _Spans] = {}

    def __len__(self) -> int:
        return len(self.index)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_file": None, "_spans": {}}

    def key(self, i: int) -> str:
        """The key of sample `i`."""
        return self.index.key(i)

    def read(self, i: int, fields: Sequence[str] | None = None) -> dict[str, bytes]:
        """The members of sample `i` as they lie in the tar.

        Args:
            i: position in the shard, 0 .. len-1.
            fields: which members; by default all it has.

        Raises:
            IndexError: there is no such sample.
            ShardError: the shard has no such member, or the tar is not as long as its index says.
            DamagedSampleError: the sample lacks a member that others have, a member is longer than allowed,
                the tar does not hold there what the index says, or its bytes were altered.
        """
        index = self.index
        if not 0 <= i < len(index):
            raise IndexError(f"{index.shard}: sample {i} of {len(index)}")
        wanted = index.members if fields is None else tuple(fields)
        spans = self._spans.get(wanted)
        if spans is None:
            spans = self._spans[wanted] = _Spans.of(index, wanted, self.max_member_bytes)
        start, span, header_crc32, *places = spans.rows[i].tolist()
        if not span:
            return self._read_apart(i, fields)
        file = self._open() if self._file is None else self._file
        # One read for all; a file cut off gives less, and then says where.
        block = file.read(start, span)
        if len(block) != span:
            return self._read_apart(i, fields)
        if crc32(block[:BLOCK]) != header_crc32:
            self._check_header(block[:BLOCK], i, spans.first)
        members: dict[str, bytes] = {}
        checked = self.check and index.crc32 is not None
        for member, begin, end, wanted_crc32 in zip(wanted, places[::3], places[1::3], places[2::3], strict=True):
            data = members[member] = block[begin:end]
            if checked and crc32(data) != wanted_crc32:
                raise self._altered(i, member)
        return members

    def _read_apart(self, i: int, fields: Sequence[str] | None) -> dict[str, bytes]:
        """The members of a sample one by one: where they lie far apart, or something is wrong with it."""
        index = self.index
        offsets, sizes = index.offsets[i].tolist(), index.sizes[i].tolist()
        if fields is None:
            fields = [member for member, at in zip(index.members, offsets, strict=True) if at >= 0]
        columns = [self._column(i, member, offsets, sizes) for member in fields]
        if not columns:
            return {}
        file = self._open() if self._file is None else self._file
        first = min(columns, key=offsets.__getitem__)
        self._check_header(file.read(offsets[first] - BLOCK, BLOCK), i, first)
        members: dict[str, bytes] = {}
        for member, m in zip(fields, columns, strict=True):
            at, size = offsets[m], sizes[m]
            data = members[member] = file.read(at, size)
            if len(data) != size:
                raise ShardError(f"{index.shard}: ends before byte {at + size:,}: cut off while it is read")
            if self.check and index.crc32 is not None and crc32(data) != index.crc32[i, m]:
                raise self._altered(i, member)
        return members

    def _altered(self, i: int, member: str) -> DamagedSampleError:
        return DamagedSampleError(self.index.shard, self.key(i), f"the bytes of its {member} were altered")

    def close(self) -> None:
        """Let go of the file; the next read opens it anew."""
        self._file = None

    def _open(self) -> _Bytes:
        try:
            file = _File(self.path)
            filesize = os.fstat(file.fd).st_size
        except OSError as error:
            raise cannot_read(self.path, error) from error
        if filesize != self.index.filesize:
            raise wrong_size(self.index.shard, filesize, self.index.filesize)
        self._file = file
        return file

    def _column(self, i: int, member: str, offsets: list[int], sizes: list[int]) -> int:
        index, m = self.index, self._columns.get(member)
        if m is None:
            raise ShardError(f"{index.shard}: has no member {member!r} (it has {', '.join(index.members)})")
        if offsets[m] < 0:
            raise DamagedSampleError(index.shard, self.key(i), f"it has no {member}")
        if sizes[m] > self.max_member_bytes:
            reason = f"{member}: {sizes[m]:,} bytes are more than the {self.max_member_bytes:,} allowed"
            raise DamagedSampleError(index.shard, self.key(i), reason)
        return m

    def _check_header(self, block: bytes, i: int, m: int) -> None:
        index, member, size = self.index, self.index.members[m], int(self.index.sizes[i, m])
        if index.header_crc32 is not None:
            if crc32(block) != index.header_crc32[i, m]:
                reason = f"{member}: its header in the tar is not the one indexed (altered or replaced)"
                raise DamagedSampleError(index.shard, self.key(i), reason)
            return
        name = bytes(index.keys[i]) + f".{member}".encode()
        if len(name) <= 100 and block == usual_header(name, size):
            return
        try:
            header = parse_header(block)
        except ValueError as error:
            raise DamagedSampleError(index.shard, self.key(i), f"{member}: {error}") from None
        if header is None or header.name != f"{self.key(i)}.{member}" or header.size != size:
            found = "nothing" if header is None else f"{header.name}, {header.size:,} bytes"
            raise DamagedSampleError(
                index.shard,
                self.key(i),
                f"the tar holds {found} where {self.key(i)}.{member}, {size:,} bytes, is expected",
            )


@dataclass(frozen=True, slots=True)
class _Spans:
    """Where the same members of every sample of a shard lie, worked out for all of them at once.

    Attributes:
        rows: one a sample: first byte and length of what is read (0 where the members are read apart), CRC-32 of
            the header it begins with, then begin and end in what is read, and CRC-32, of each member asked for.
        first: column of the member whose header comes first.
    """

    rows: npt.NDArray[np.int64]
    first: int

    @classmethod
    def of(cls, index: ShardIndex, fields: Sequence[str], max_member_bytes: int) -> _Spans:
        columns = [index.members.index(member) for member in fields if member in index.members]
        rows = np.zeros((len(index), 3 + 3 * len(fields)), np.int64)
        if not fields or len(columns) < len(fields):
            return cls(rows, 0)
        first = min(columns)  # in our tars they lie in this order
        begins, sizes = index.offsets[:, columns], index.sizes[:, columns]
        start = index.offsets[:, first] - BLOCK
        span = (begins + sizes).max(axis=1) - start
        plain = (begins.min(axis=1) == index.offsets[:, first]) & (begins.min(axis=1) >= 0)
        plain &= (span <= _SPAN) & (sizes.max(axis=1) <= max_member_bytes)
        if index.header_crc32 is not None:
            headers = index.header_crc32[:, first].tolist()
        else:
            suffix, keys = f".{index.members[first]}".encode(), index.keys.tolist()
            headers = [
                crc32(usual_header(key + suffix, size))
                for key, size in zip(keys, index.sizes[:, first].tolist(), strict=True)
            ]
        rows[:, 0], rows[:, 1], rows[:, 2] = start, np.where(plain, span, 0), headers
        rows[:, 3::3] = begins - start[:, None]
        rows[:, 4::3] = begins - start[:, None] + sizes
        if index.crc32 is not None:
            rows[:, 5::3] = index.crc32[:, columns]
        return cls(rows, first)


class _Bytes(Protocol):
    def read(self, at: int, size: int) -> bytes: ...


class _File:
    """A file descriptor that is closed when the last who reads from it lets go of it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.fd = -1
        self.fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def read(self, at: int, size: int) -> bytes:
        """`size` bytes from `at` on, or fewer where the file ends before."""
        try:
            return os.pread(self.fd, size, at)
        except OSError as error:
            raise cannot_read(self.path, error) from error

    def __del__(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)


def wrong_size(shard: str, found: int, expected: int) -> ShardError:
    """The error of a tar that is not as long as its index or list says."""
    return ShardError(
        f"{shard}: is {found:,} bytes long where {expected:,} are expected: cut off or replaced "
        "(delete it and run the same build again)"
    )
