"""Is a shard what was written? And if not, which sample is it?"""

from __future__ import annotations

import hashlib
import mmap
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from symile_m3.shards.decode import decode_member
from symile_m3.shards.errors import ShardError
from symile_m3.shards.index import ShardIndex, ShardInfo
from symile_m3.shards.layout import sidecar_path
from symile_m3.shards.tar import BLOCK, padded, parse_header

_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class Problem:
    """Something wrong with a shard; as text one line.

    Attributes:
        shard: file name of the tar.
        key: key of the sample concerned; None where it is the shard as a whole, or cannot be known.
        message: what is wrong.
        kind: a word for what it is, to count by; empty where no one counts.
    """

    shard: str
    key: str | None
    message: str
    kind: str = ""

    def __str__(self) -> str:
        sample = "" if self.key is None else f"sample {self.key}: "
        return f"{self.shard}: {sample}{self.message}"


def verify_shard(
    path: Path, info: ShardInfo, *, decode: Sequence[str] = ("json", "txt"), sidecar: Path | None = None
) -> list[Problem]:
    """Compare a tar with what is known of it, and look into every sample.

    Checked are the length and SHA-256 of the file, the number of samples, that the tar consists of the
    members the sidecar lists and of nothing else, the checksum of each member, and that members decode.
    Every byte of the file is covered, and a change is put down to its sample unless it lies behind the last
    one. Without a sidecar the offsets are scanned from the tar; an altered byte inside a member is then
    known only from the file's SHA-256, which names no sample.

    Args:
        path: the tar.
        info: its entry in the dataset's index.
        decode: members to decode, of those there are; add `jpg` and `flac` for a thorough check.
        sidecar: the tar's member offsets, by default at `sidecar_path(path)`.

    Returns:
        The problems found, in the order of the file; none for a whole shard.
    """
    name = path.name
    problems: list[Problem] = []
    try:
        filesize = path.stat().st_size
        if filesize == 0:
            return [Problem(name, None, "the file is empty")]
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as view:
            if filesize != info.filesize:
                problems.append(Problem(name, None, f"{filesize:,} bytes long where {info.filesize:,} are expected"))
            elif _sha256(view) != info.sha256:
                problems.append(Problem(name, None, "the SHA-256 is not the one recorded when it was written"))
            sidecar = sidecar_path(path) if sidecar is None else sidecar
            try:
                index = ShardIndex.load(sidecar, name) if sidecar.exists() else ShardIndex.scan(path)
            except ShardError as error:
                return [*problems, Problem(name, None, str(error))]
            if len(index) != info.nsamples:
                message = f"{len(index)} samples where {info.nsamples} are expected"
                problems.append(Problem(name, None, message))
            problems.extend(_walk(view, index, decode))
    except OSError as error:
        problems.append(Problem(name, None, f"cannot be read: {error.strerror}"))
    return problems


def _sha256(view: mmap.mmap) -> str:
    digest = hashlib.sha256()
    for at in range(0, len(view), _CHUNK):
        digest.update(view[at : at + _CHUNK])
    return digest.hexdigest()


def _walk(view: mmap.mmap, index: ShardIndex, decode: Sequence[str]) -> Iterator[Problem]:
    """What is wrong with each sample, at most one problem a member."""
    end = 0
    for i in range(len(index)):
        key = index.key(i)
        for m, member in enumerate(index.members):
            at, size = int(index.offsets[i, m]), int(index.sizes[i, m])
            if at < 0:
                continue
            if at + padded(size) > len(view):
                rest = len(index) - i - 1
                yield Problem(index.shard, key, f"{member}: cut off, and with it the {rest} samples behind it")
                return
            if at - BLOCK != end:
                yield Problem(index.shard, key, f"{member}: {at - BLOCK - end} bytes before it are not indexed")
            end = at + padded(size)
            fault = _member_fault(view, index, i, m, decode)
            if fault is not None:
                yield Problem(index.shard, key, f"{member}: {fault}")
    tail = view[end:]
    if len(tail) < 2 * BLOCK or tail.count(0) != len(tail):
        yield Problem(index.shard, None, "the blocks of zeros that end a tar are missing or altered")


def _member_fault(view: mmap.mmap, index: ShardIndex, i: int, m: int, decode: Sequence[str]) -> str | None:
    member, at, size = index.members[m], int(index.offsets[i, m]), int(index.sizes[i, m])
    try:
        header = parse_header(view[at - BLOCK : at])
    except ValueError as error:
        return str(error)
    if header is None or (header.name, header.size) != (f"{index.key(i)}.{member}", size):
        return "its header names something else"
    data = view[at : at + size]
    if index.crc32 is not None and zlib.crc32(data) != index.crc32[i, m]:
        return "bytes were altered"
    if any(view[at + size : at + padded(size)]):
        return "the filling behind it was altered"
    if member in decode:
        try:
            decode_member(member, data)
        except ValueError as error:
            return str(error)
    return None
