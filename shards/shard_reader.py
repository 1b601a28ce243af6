"""Reading the samples of one shard by position."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from isal import isal_zlib

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
        self._suffixes = [f".{member}".encode() for member in self.index.members]
        self._file: _File | None = None

    def __len__(self) -> int:
        return len(self.index)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_file": None}

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
        offsets, sizes = index.offsets[i].tolist(), index.sizes[i].tolist()
        if fields is None:
            fields = [member for member, at in zip(index.members, offsets, strict=True) if at >= 0]
        columns = [self._column(i, member, offsets, sizes) for member in fields]
        if not columns:
            return {}
        first, last = min(columns), max(columns)  # in our tars they lie in this order
        start = offsets[first] - BLOCK
        span = offsets[last] + sizes[last] - start
        file = self._open() if self._file is None else self._file
        # one read where the members lie together; a file cut off gives less
        together = file.read(start, span) if BLOCK <= span <= _SPAN else b""
        block = together[:BLOCK] if together else file.read(start, BLOCK)
        self._check_header(block, i, first, sizes[first])
        crc32 = index.crc32[i].tolist() if self.check and index.crc32 is not None else None
        members: dict[str, bytes] = {}
        for member, m in zip(fields, columns, strict=True):
            at, size = offsets[m], sizes[m]
            begin = at - start
            if begin >= BLOCK and begin + size <= len(together):
                data = together[begin : begin + size]
            else:
                data = file.read(at, size)
                if len(data) != size:
                    raise ShardError(f"{index.shard}: ends before byte {at + size:,}: cut off while it is read")
            if crc32 is not None and isal_zlib.crc32(data) != crc32[m]:
                raise DamagedSampleError(index.shard, self.key(i), f"the bytes of its {member} were altered")
            members[member] = data
        return members

    def close(self) -> None:
        """Let go of the file; the next read opens it anew."""
        self._file = None

    def _open(self) -> _File:
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

    def _check_header(self, block: bytes, i: int, m: int, size: int) -> None:
        index, member = self.index, self.index.members[m]
        if index.header_crc32 is not None:
            if isal_zlib.crc32(block) != index.header_crc32[i, m]:
                reason = f"{member}: its header in the tar is not the one indexed (altered or replaced)"
                raise DamagedSampleError(index.shard, self.key(i), reason)
            return
        name = bytes(index.keys[i]) + self._suffixes[m]
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
