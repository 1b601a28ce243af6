"""Writing a shard: the same samples give the same bytes, and the file appears whole or not at all."""

from __future__ import annotations

import hashlib
import re
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from symile_m3.shards.atomic import replacing
from symile_m3.shards.errors import ShardError
from symile_m3.shards.index import ShardIndex, ShardInfo
from symile_m3.shards.layout import MEMBERS, sidecar_path, split_of
from symile_m3.shards.tar import BLOCK, RECORD, make_header, padded

_BAD_IN_KEY = re.compile(r"[./\\\x00-\x20\x7f]")
_MEMBER = re.compile(r"[a-z0-9_]+")


@dataclass(frozen=True, slots=True)
class RawSample:
    """A sample as it lies in a tar.

    Attributes:
        key: name of the sample, unique in its shard; without dots, slashes, blanks and control characters.
        members: the bytes of each member by its name (`jpg`, `flac`, `txt`, `json`).
    """

    key: str
    members: Mapping[str, bytes]


def write_shard(path: Path, samples: Iterable[RawSample], *, sidecar: Path | None = None) -> ShardInfo:
    """Write samples, in the order given, to a WebDataset tar and its member offsets to a sidecar.

    The bytes depend on the samples alone: headers carry no time, no owner and one mode, and members stand
    in the order of `MEMBERS`, others behind them by name. Sizes and checksums are taken while writing.

    Args:
        path: the tar to write; its directory is made if need be.
        samples: at least one; all with the same members. They are consumed one at a time.
        sidecar: where the offsets go; by default `sidecar_path(path)`.

    Raises:
        ShardError: a sample breaks a rule above, or the disk does not take the file. In either case
            nothing is left behind, and an older shard of that name stays.
    """
    digest = hashlib.sha256()
    names: tuple[str, ...] = ()
    keys: dict[str, None] = {}
    offsets: list[list[int]] = []
    sizes: list[list[int]] = []
    checksums: list[list[int]] = []
    with replacing(path) as file:
        for sample in samples:
            _check_key(path.name, sample.key, keys)
            if not keys:
                names = _order_members(path.name, sample)
            elif sample.members.keys() != set(names):
                raise ShardError(
                    f"{path.name}: sample {sample.key} has the members {', '.join(sorted(sample.members))}, "
                    f"the ones before it have {', '.join(sorted(names))} (give every sample the same members)"
                )
            keys[sample.key] = None
            row: list[int] = []
            parts: list[bytes] = []
            at = file.nbytes
            for name in names:
                data = sample.members[name]
                try:
                    header = make_header(f"{sample.key}.{name}", len(data))
                except ValueError as error:
                    raise ShardError(f"{path.name}: sample {sample.key}: {name}: {error}") from None
                row.append(at + BLOCK)
                at += BLOCK + padded(len(data))
                parts += (header, data, bytes(-len(data) % BLOCK))
            whole = b"".join(parts)
            digest.update(whole)
            file.write(whole)
            offsets.append(row)
            sizes.append([len(sample.members[name]) for name in names])
            checksums.append([zlib.crc32(sample.members[name]) for name in names])
        if not keys:
            raise ShardError(f"{path.name}: there are no samples to write (give a shard at least one)")
        end = bytes(2 * BLOCK + -(file.nbytes + 2 * BLOCK) % RECORD)
        digest.update(end)
        file.write(end)
        # The sidecar first: a tar that is there always has the checksums of its members.
        ShardIndex(
            shard=path.name,
            filesize=file.nbytes,
            members=names,
            keys=np.array([key.encode() for key in keys], np.bytes_),
            offsets=np.array(offsets, np.int64),
            sizes=np.array(sizes, np.int64),
            crc32=np.array(checksums, np.uint32),
        ).save(sidecar_path(path) if sidecar is None else sidecar)
    return ShardInfo(
        name=path.name,
        split=split_of(path.name),
        nsamples=len(keys),
        filesize=file.nbytes,
        sha256=digest.hexdigest(),
    )


def _check_key(shard: str, key: str, before: Mapping[str, None]) -> None:
    """A key must survive every reader: a dot would move into the suffix, a slash makes a folder, and a
    leading `__` marks what WebDataset readers skip."""
    if not key or key.startswith("__") or _BAD_IN_KEY.search(key):
        raise ShardError(
            f"{shard}: {key!r} cannot be a key (use no dots, slashes, blanks or control characters, "
            "and do not begin with two underscores)"
        )
    if key in before:
        raise ShardError(f"{shard}: two samples have the key {key} (give each its own)")


def _order_members(shard: str, sample: RawSample) -> tuple[str, ...]:
    for name in sample.members:
        if not _MEMBER.fullmatch(name):
            raise ShardError(f"{shard}: {name!r} cannot be a member (use small letters, digits and underscores)")
    if not sample.members:
        raise ShardError(f"{shard}: sample {sample.key} has no members")
    known = [name for name in MEMBERS if name in sample.members]
    return (*known, *sorted(sample.members.keys() - set(known)))
