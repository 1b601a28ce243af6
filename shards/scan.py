"""Reading the headers of any tar: where each member lies, and what is odd about the tar.

Headers come from anywhere, so nothing in them is trusted: no size leads backwards or behind the end, extended
headers are short, names are only names (no file is ever written), and what is not a regular file is passed over.
"""

from __future__ import annotations

import os
import re
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from symile_m3.shards.errors import ShardError
from symile_m3.shards.index import ShardIndex
from symile_m3.shards.tar import BLOCK, padded, parse_header
from symile_m3.shards.verify import Problem

DAMAGE = frozenset({"cut off", "damaged header", "duplicate"})
"""Kinds of problems for which samples are lost; the others are passed over without loss."""

_NAMED = 100  # problems of one kind in one tar that are named; more are only counted
_MAX_NAME = 1_000
_MAX_EXTENDED = 1 << 16
_MAX_MEMBERS = 64
_AHEAD = 1 << 13  # read at once; headers of short members lie close together

_CONTROL = re.compile(r"[\x00-\x1f\x7f\x80-\x9f\u2028\u2029]")
_USUAL = re.compile(r"([\w-]{1,255})\.(\w{1,32})")
_META = re.compile(r"__[^/]*__(/|$)")
_COMPRESSED = {b"\x1f\x8b": "gzip", b"BZ": "bzip2", b"\xfd7zXZ\0": "xz", b"\x28\xb5\x2f\xfd": "zstd"}
_NO_FILE = {b"1": "hard link", b"2": "symbolic link", b"3": "device", b"4": "device", b"6": "named pipe"}


class Entry(NamedTuple):
    """A regular file of a tar.

    Attributes:
        name: its path.
        at: where its first byte lies.
        size: its length in bytes.
        crc32: checksum of the block before it.
    """

    name: str
    at: int
    size: int
    crc32: int


@dataclass(kw_only=True)
class Findings:
    """What is odd about a tar.

    Attributes:
        shard: file name of the tar.
        problems: what was found; of each kind only the first hundred.
        counts: how often each kind was found.
    """

    shard: str
    problems: list[Problem] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)

    def add(self, kind: str, key: str | None, message: str) -> None:
        """Note a problem."""
        self.counts[kind] += 1
        if self.counts[kind] <= _NAMED:
            self.problems.append(Problem(self.shard, None if key is None else _shown(key), message, kind))


def scan_tar(path: Path, called: str | None = None) -> tuple[ShardIndex, Findings]:
    """Make the index of any tar from its headers; the members themselves are not read.

    A sample is the files whose names agree up to the first dot of the last part of the path (`a/b/0001.seg.png`
    has the key `a/b/0001` and the member `seg.png`); members are written small. Samples may have different
    members, and a sample whose members lie apart is put together. Where a key occurs again with a member it
    already has, the first sample stands. Where a tar is cut off or a header damaged, what lies before stands.

    Args:
        path: the tar.
        called: its path or URL for the index and for messages; by default `path`.

    Returns:
        The index, which may hold no samples, and what was odd.

    Raises:
        ShardError: the file cannot be read, is compressed, or its names are not those of a WebDataset tar.
    """
    called = str(path) if called is None else called
    findings = Findings(shard=called.rpartition("/")[2])
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            filesize = os.fstat(fd).st_size
            start = os.pread(fd, 6, 0)
            for magic, name in _COMPRESSED.items():
                if start.startswith(magic):
                    raise ShardError(
                        f"{called}: is compressed with {name} (unpack it: members are read by their place)"
                    )
            return _index(called, _entries(fd, filesize, findings), filesize, findings), findings
        finally:
            os.close(fd)
    except OSError as error:
        raise ShardError(f"{called}: cannot be read: {error.strerror}") from error


def _index(called: str, entries: Iterator[Entry], filesize: int, findings: Findings) -> ShardIndex:
    rows: dict[str, int] = {}
    columns: dict[str, int] = {}
    places: list[dict[int, Entry]] = []  # of each sample, by column
    run_key: str | None = None
    run: dict[int, Entry] = {}

    def end_run() -> None:
        """A run is the members of one key that follow each other, none twice."""
        if run_key is None:
            return
        row = rows.setdefault(run_key, len(places))
        if row == len(places):
            places.append(run)
        elif run.keys() & places[row].keys():
            findings.add("duplicate", run_key, "occurs again; the first sample of this key stands")
        else:
            findings.add("interleaved", run_key, "its members lie apart; they are read together")
            places[row].update(run)

    for entry in entries:
        name = _split(entry.name, findings)
        if name is None:
            continue
        key, member = name
        column = columns.setdefault(member, len(columns))
        if column >= _MAX_MEMBERS:
            raise ShardError(
                f"{called}: more than {_MAX_MEMBERS} different suffixes, such as {', '.join(list(columns)[-3:])} "
                "(a key must end at the first dot of the file name)"
            )
        if key != run_key or column in run:
            end_run()
            run_key, run = key, {}
        run[column] = entry
    end_run()
    shape = (len(places), len(columns))
    offsets, sizes = np.full(shape, -1, np.int64), np.zeros(shape, np.int64)
    crc32 = np.zeros(shape, np.uint32)
    flat = [(row, column, entry) for row, sample in enumerate(places) for column, entry in sample.items()]
    if flat:
        at = ([row for row, _, _ in flat], [column for _, column, _ in flat])
        offsets[at] = [entry.at for _, _, entry in flat]
        sizes[at] = [entry.size for _, _, entry in flat]
        crc32[at] = [entry.crc32 for _, _, entry in flat]
    return ShardIndex(
        shard=findings.shard,
        filesize=filesize,
        members=tuple(columns),
        keys=np.array([key.encode() for key in rows], np.bytes_),
        offsets=offsets,
        sizes=sizes,
        header_crc32=crc32,
    )


def _split(name: str, findings: Findings) -> tuple[str, str] | None:
    """Key and member of a file, or None for one that is not part of a sample."""
    if usual := _USUAL.fullmatch(name):
        return usual[1], usual[2].lower()
    while name.startswith("./"):
        name = name[2:]
    folder, slash, base = name.rpartition("/")
    stem, _, member = base.partition(".")
    if name.startswith("/") or ".." in folder.split("/") or _CONTROL.search(name):
        findings.add("unsafe name", None, f"{_shown(name)}: passed over (absolute, with .., or control characters)")
    elif len(name) > _MAX_NAME:
        findings.add("unsafe name", None, f"{_shown(name[:60])}...: passed over (longer than {_MAX_NAME} characters)")
    elif not stem or not member or _META.match(name):
        findings.add("no sample", None, f"{name}: passed over (not named key.suffix)")
    else:
        return f"{folder}{slash}{stem}", member.lower()
    return None


def _entries(fd: int, filesize: int, findings: Findings) -> Iterator[Entry]:
    """The regular files of a tar, up to its end or the first damage."""
    at, ahead, start = 0, b"", 0
    long_name: str | None = None
    sparse = False
    while True:
        if not start <= at <= start + len(ahead) - BLOCK:
            start, ahead = at, os.pread(fd, _AHEAD, at)
        block = ahead[at - start : at - start + BLOCK]
        try:
            header = parse_header(block) if block else None
        except ValueError as error:
            problem = "cut off" if len(block) < BLOCK else "damaged header"
            findings.add(problem, None, f"at byte {at:,}: {error}; the {filesize - at:,} bytes from there are not read")
            return
        if header is None:
            _check_end(fd, at, filesize, findings)
            return
        begin, kind = at + BLOCK, header.kind
        plain = kind == b"0" and long_name is None and not sparse and header.name[-1:] != "/"
        if plain and begin + header.size <= filesize:  # nearly all are
            yield Entry(header.name, begin, header.size, zlib.crc32(block))
            at = begin + padded(header.size)
            continue
        if kind == b"S":
            begin = _behind_sparse_map(fd, block, begin)
        name = _shown(header.name) if long_name is None else long_name
        has_data = kind not in _NO_FILE and kind != b"5"
        end = begin + (padded(header.size) if has_data else 0)
        if begin + (header.size if has_data else 0) > filesize:
            findings.add("cut off", None, f"{_shown(name)}: its {header.size:,} bytes reach behind the end of the file")
            return
        at = end
        if kind in (b"x", b"X", b"g", b"L", b"K"):
            try:
                if header.size > _MAX_EXTENDED:
                    raise ValueError(f"an extended header of {header.size:,} bytes")
                data = os.pread(fd, header.size, begin)
                if kind == b"L":
                    long_name = data.split(b"\0", 1)[0].decode(errors="backslashreplace")
                elif kind != b"K":
                    path, is_sparse = _pax(data)
                    if kind == b"g" and path is not None:
                        raise ValueError("a name for all files in an extended header")
                    long_name, sparse = long_name if path is None else path, sparse or is_sparse
            except ValueError as error:
                findings.add("damaged header", None, f"at byte {begin - BLOCK:,}: {error}; what follows is not read")
                return
            continue
        if kind in _NO_FILE:
            findings.add("link or device", None, f"{_shown(name)}: passed over ({_NO_FILE[kind]})")
        elif kind == b"S" or sparse:
            findings.add("sparse file", None, f"{_shown(name)}: passed over (sparse files are not supported)")
        elif kind in (b"0", b"7"):
            raw = header.name if long_name is None else long_name
            if not raw.endswith("/"):  # how the oldest tars mark a directory
                yield Entry(raw, begin, header.size, zlib.crc32(block))
        elif kind != b"5":
            findings.add("unknown entry", None, f"{_shown(name)}: passed over (type {kind!r})")
        long_name, sparse = None, False


def _pax(data: bytes) -> tuple[str | None, bool]:
    """The name in an extended header, if it has one, and whether the file is sparse.

    Raises:
        ValueError: it is not an extended header, or has a size of its own (a file of 8 GiB or more).
    """
    path, sparse, at = None, False, 0
    while at < len(data) and data[at : at + 1] != b"\0":
        digits, _, _ = data[at : at + 20].partition(b" ")
        if not digits.isdigit() or not at + len(digits) + 3 <= at + int(digits) <= len(data):
            raise ValueError("not an extended header")
        record = data[at + len(digits) + 1 : at + int(digits)]
        name, equals, value = record[:-1].partition(b"=")
        if not equals or record[-1:] != b"\n":
            raise ValueError("not an extended header")
        if name == b"size":
            raise ValueError("files of 8 GiB and more are not supported")
        if name == b"path":
            path = value.decode(errors="backslashreplace")
        sparse = sparse or name.startswith(b"GNU.sparse.")
        at += int(digits)
    return path, sparse


def _behind_sparse_map(fd: int, block: bytes, at: int) -> int:
    """Where the data of an old GNU sparse file begin: its map may go on in further blocks."""
    more = block[482]
    while more:
        block = os.pread(fd, BLOCK, at)
        at += BLOCK
        more = block[504] if len(block) == BLOCK else 0
    return at


def _check_end(fd: int, at: int, filesize: int, findings: Findings) -> None:
    """Behind the last file there should be at least two blocks of zeros, and nothing but zeros."""
    if filesize - at < 2 * BLOCK:
        findings.add("no end", None, "the blocks of zeros that end a tar are missing: it may be cut off")
        return
    while chunk := os.pread(fd, 1 << 20, at):
        if chunk.count(0) != len(chunk):
            place = at + len(chunk) - len(chunk.lstrip(b"\0"))
            findings.add("trailing", None, f"{filesize - place:,} bytes behind the end of the tar are not read")
            return
        at += len(chunk)


def _shown(name: str) -> str:
    return _CONTROL.sub("?", name)
