"""Indexes: the list of a dataset's shards, and where every member of one shard lies."""

from __future__ import annotations

import contextlib
import io
import json
import mmap
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt

from symile_m3.shards.atomic import write_bytes, write_text
from symile_m3.shards.errors import ShardError, cannot_read
from symile_m3.shards.layout import DATA, sidecar_path
from symile_m3.shards.tar import BLOCK, padded, parse_header

_KIND = "wids-shard-index-v1"
_SIDECAR_VERSION = 1
_REBUILD = "delete it and run the same build again"


@dataclass(frozen=True, kw_only=True, slots=True)
class ShardInfo:
    """What is known of a shard without opening it.

    Attributes:
        name: file name of the tar.
        split: train, val or test; None where the name does not say.
        nsamples: number of samples.
        filesize: length of the tar in bytes.
        sha256: of the whole tar, in hexadecimal.
    """

    name: str
    split: str | None
    nsamples: int
    filesize: int
    sha256: str

    def to_json(self) -> dict[str, Any]:
        """As an entry of `shardlist`; the url is relative to the index file."""
        return {
            "url": f"../{DATA}/{self.name}",
            "nsamples": self.nsamples,
            "filesize": self.filesize,
            "sha256": self.sha256,
            "split": self.split,
        }

    @classmethod
    def from_json(cls, entry: Mapping[str, Any]) -> ShardInfo:
        """From an entry of `shardlist`.

        Raises:
            ValueError: it lacks something, or points outside the dataset's data folder.
        """
        try:
            url, nsamples, filesize = entry["url"], entry["nsamples"], entry["filesize"]
            sha256, split = entry["sha256"], entry["split"]
        except (KeyError, TypeError) as error:
            raise ValueError(f"a shard entry lacks {error}") from None
        if not isinstance(url, str) or PurePosixPath(url).parent.as_posix() != f"../{DATA}":
            raise ValueError(f"shard url {url!r} does not lie in ../{DATA}/")
        if not (type(nsamples) is int and nsamples > 0 and type(filesize) is int and filesize > 0):
            raise ValueError(f"{url}: nsamples and filesize must be positive integers")
        if not isinstance(sha256, str) or not (split is None or isinstance(split, str)):
            raise ValueError(f"{url}: sha256 and split must be strings")
        name = PurePosixPath(url).name
        if name == ".." or any(ord(char) < 0x20 for char in name):
            raise ValueError(f"shard url {url!r} names no file")
        return cls(name=name, split=split, nsamples=nsamples, filesize=filesize, sha256=sha256)


@dataclass(frozen=True, kw_only=True)
class DatasetIndex:
    """The shards of a dataset; on disk a wids shard index (version 1), which other tools read too.

    Attributes:
        name: name of the dataset.
        fingerprint: of the plan the shards were made from.
        shards: in the order in which their samples are numbered.
    """

    name: str
    fingerprint: str
    shards: Sequence[ShardInfo] = field(default_factory=tuple)

    def of_split(self, split: str) -> list[ShardInfo]:
        """The shards of one split."""
        return [shard for shard in self.shards if shard.split == split]

    def save(self, path: Path) -> None:
        """Write `index.json`.

        Raises:
            ShardError: it cannot be written.
        """
        content = {
            "__kind__": _KIND,
            "wids_version": 1,
            "name": self.name,
            "fingerprint": self.fingerprint,
            "shardlist": [shard.to_json() for shard in self.shards],
        }
        write_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")

    @classmethod
    def load(cls, path: Path) -> DatasetIndex:
        """Read `index.json`.

        Raises:
            ShardError: it does not exist, or is not such an index.
        """
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            raise ShardError(f"{path}: no dataset here (build one first)") from None
        except OSError as error:
            raise cannot_read(path, error) from error
        return cls.parse(data, path)

    @classmethod
    def parse(cls, data: bytes, path: Path | str) -> DatasetIndex:
        """From the content of `index.json`; `path`, or its URL, is for messages.

        Raises:
            ShardError: it is not such an index.
        """
        try:
            content = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise ShardError(f"{path}: not a shard index: {error} ({_REBUILD})") from error
        try:
            if not isinstance(content, dict) or content.get("wids_version") != 1:
                raise ValueError("wids_version is not 1")
            name, fingerprint, entries = content["name"], content["fingerprint"], content["shardlist"]
            if not (isinstance(name, str) and isinstance(fingerprint, str) and isinstance(entries, list)):
                raise ValueError("name and fingerprint must be strings, shardlist a list")
            shards = tuple(ShardInfo.from_json(entry) for entry in entries)
        except KeyError as error:
            raise ShardError(f"{path}: not a shard index: {error} is missing ({_REBUILD})") from None
        except ValueError as error:
            raise ShardError(f"{path}: not a shard index: {error} ({_REBUILD})") from None
        return cls(name=name, fingerprint=fingerprint, shards=shards)


@dataclass(frozen=True, kw_only=True, eq=False)
class ShardIndex:
    """Where each member of each sample of one tar lies.

    Attributes:
        shard: file name of the tar.
        filesize: length in bytes of the tar this was made for.
        members: names of the members, M of them.
        keys: keys of the samples in UTF-8, shape (N,).
        offsets: position of each member's first byte, behind its header, shape (N, M); -1 where a sample
            lacks a member, as in the tars of others.
        sizes: length of each member in bytes, shape (N, M); 0 where it is lacking.
        crc32: checksum of each member's bytes, shape (N, M); None where it was never known (after `scan`).
        header_crc32: checksum of the block before each member, shape (N, M), for tars whose headers say other
            names than `key.member`; None for ours.
        notes: what else a sidecar remembers, as plain JSON values.
    """

    shard: str
    filesize: int
    members: tuple[str, ...]
    keys: npt.NDArray[np.bytes_]
    offsets: npt.NDArray[np.int64]
    sizes: npt.NDArray[np.int64]
    crc32: npt.NDArray[np.uint32] | None = None
    header_crc32: npt.NDArray[np.uint32] | None = None
    notes: Mapping[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.keys)

    def key(self, i: int) -> str:
        """The key of sample `i`."""
        return bytes(self.keys[i]).decode(errors="backslashreplace")

    @classmethod
    def scan(cls, tar: Path) -> ShardIndex:
        """Make the index of a tar from its headers; the members themselves are not read.

        Raises:
            ShardError: the tar is missing, cut off, damaged, or its samples do not all have the same members.
        """
        keys: list[bytes] = []
        rows: list[dict[str, tuple[int, int]]] = []
        try:
            with tar.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as view:
                filesize, at = len(view), 0
                while (header := parse_header(view[at : at + BLOCK])) is not None:
                    at += BLOCK
                    end = at + padded(header.size)
                    if end > filesize:
                        raise ValueError(f"{header.name} is cut off")
                    if header.kind == b"0":
                        key, member = _split_name(header.name)
                        if not keys or keys[-1] != key:
                            keys.append(key)
                            rows.append({})
                        if member in rows[-1]:
                            raise ValueError(f"{header.name} occurs twice")
                        rows[-1][member] = (at, header.size)
                    elif header.kind == b"x":
                        _check_pax(view[at : at + header.size])
                    elif header.kind != b"5":
                        raise ValueError(f"{header.name}: entries of type {header.kind!r} are not supported")
                    at = end
        except OSError as error:
            raise cannot_read(tar, error) from error
        except ValueError as error:
            raise ShardError(f"{tar.name}: not a whole WebDataset tar: {error} ({_REBUILD})") from None
        if not rows:
            raise ShardError(f"{tar.name}: holds no samples ({_REBUILD})")
        members = tuple(rows[0])
        for key, row in zip(keys, rows, strict=True):
            if row.keys() != rows[0].keys():
                raise ShardError(
                    f"{tar.name}: sample {key.decode()} has the members {', '.join(row)}, "
                    f"the first sample has {', '.join(members)} ({_REBUILD})"
                )
        places = np.array([[row[member] for member in members] for row in rows], np.int64)
        return cls(
            shard=tar.name,
            filesize=filesize,
            members=members,
            keys=np.array(keys, np.bytes_),
            offsets=places[:, :, 0],
            sizes=places[:, :, 1],
        )

    @classmethod
    def open(cls, tar: Path, sidecar: Path | None = None) -> ShardIndex:
        """The index of a tar: from its sidecar, or by scanning where there is none; then the sidecar is made.

        Raises:
            ShardError: the tar is missing or damaged, or the sidecar is damaged or for a tar of another size.
        """
        sidecar = sidecar_path(tar) if sidecar is None else sidecar
        try:
            filesize = tar.stat().st_size
        except OSError as error:
            raise cannot_read(tar, error) from error
        if not sidecar.exists():
            index = cls.scan(tar)
            with contextlib.suppress(ShardError):  # a dataset on a read-only disk is still readable
                index.save(sidecar)
            return index
        index = cls.load(sidecar, tar.name)
        if index.filesize != filesize:
            raise ShardError(
                f"{tar.name}: is {filesize:,} bytes long, its index {sidecar.name} was made for "
                f"{index.filesize:,}: cut off or replaced ({_REBUILD})"
            )
        return index

    def save(self, path: Path) -> None:
        """Write the sidecar.

        Raises:
            ShardError: it cannot be written.
        """
        arrays: dict[str, npt.NDArray[Any]] = {
            "version": np.array(_SIDECAR_VERSION),
            "filesize": np.array(self.filesize),
            "members": np.array([member.encode() for member in self.members], np.bytes_),
            "keys": self.keys,
            "offsets": self.offsets,
            "sizes": self.sizes,
        }
        if self.crc32 is not None:
            arrays["crc32"] = self.crc32
        if self.header_crc32 is not None:
            arrays["header_crc32"] = self.header_crc32
        if self.notes:
            arrays["notes"] = np.frombuffer(json.dumps(self.notes).encode(), np.uint8)
        buffer = io.BytesIO()
        np.savez(buffer, allow_pickle=False, **arrays)
        write_bytes(path, buffer.getvalue())

    @classmethod
    def load(cls, path: Path, shard: str) -> ShardIndex:
        """Read the sidecar of the tar named `shard`.

        Raises:
            ShardError: it cannot be read or contradicts itself.
        """
        try:
            stored = path.read_bytes()
        except OSError as error:
            raise cannot_read(path, error) from error
        try:
            with np.load(io.BytesIO(stored), allow_pickle=False) as content:
                if any(entry.compress_type != zipfile.ZIP_STORED for entry in content.zip.infolist()):
                    raise ValueError("it is compressed")  # so that no small file becomes large arrays
                arrays = {name: content[name] for name in content.files}
            index = cls(
                shard=shard,
                filesize=int(arrays["filesize"]),
                members=tuple(bytes(member).decode() for member in arrays["members"]),
                keys=arrays["keys"],
                offsets=arrays["offsets"],
                sizes=arrays["sizes"],
                crc32=arrays.get("crc32"),
                header_crc32=arrays.get("header_crc32"),
                notes=json.loads(arrays["notes"].tobytes()) if "notes" in arrays else {},
            )
            if int(arrays["version"]) != _SIDECAR_VERSION:
                raise ValueError(f"version {arrays['version']} is unknown")
            index._check()
        except (
            OSError,
            ValueError,
            TypeError,
            KeyError,
            EOFError,
            AttributeError,
            NotImplementedError,
            MemoryError,
            RecursionError,
            zipfile.BadZipFile,
            zlib.error,
        ) as error:
            raise ShardError(
                f"{path}: not the index of {shard}: {error} (delete it: it is made anew from the tar)"
            ) from error
        return index

    def _check(self) -> None:
        shape = (len(self.keys), len(self.members))
        if self.keys.ndim != 1 or self.keys.dtype.kind != "S" or 0 in shape:
            raise ValueError("no keys or no members")
        if len(set(self.members)) != len(self.members):
            raise ValueError("a member occurs twice")
        for array, dtype in (
            (self.offsets, np.int64),
            (self.sizes, np.int64),
            (self.crc32, np.uint32),
            (self.header_crc32, np.uint32),
        ):
            if array is not None and (array.shape != shape or array.dtype != dtype):
                raise ValueError("an array has the wrong shape or type")
        there = self.offsets != -1
        # compared without a sum, which could overflow
        if ((self.offsets < BLOCK) | (self.sizes < 0) | (self.sizes > self.filesize - self.offsets))[there].any():
            raise ValueError("a member lies outside the tar")
        if not there.any(axis=1).all() or self.sizes[~there].any():
            raise ValueError("a sample has no member, or a missing member a size")
        if not isinstance(self.notes, dict):
            raise ValueError("notes are not an object")


def _check_pax(records: bytes) -> None:
    """Extended headers may say when and by whom, as Python's tars do, but not what and how long."""
    if b" path=" in records or b" size=" in records:
        raise ValueError("names or sizes in extended headers are not supported")


def _split_name(name: str) -> tuple[bytes, str]:
    """`dir/key.seg.png` -> `dir/key`, `seg.png`: the key ends at the first dot of the file name."""
    folder, slash, base = name.rpartition("/")
    stem, dot, member = base.partition(".")
    if not stem or not dot or not member:
        raise ValueError(f"{name} is not named key.member")
    return f"{folder}{slash}{stem}".encode("utf-8", "surrogateescape"), member
