"""The indexes of tars that came without one: made once, kept, and made anew when the tar changes."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from symile_m3.shards.cache_folder import CacheConfig, Lease
from symile_m3.shards.errors import ShardError
from symile_m3.shards.index import ShardIndex
from symile_m3.shards.layout import cache_directory, sidecar_path
from symile_m3.shards.remote_tars import RemoteTar, TarCache
from symile_m3.shards.scan import Findings, scan_tar
from symile_m3.shards.urls import plain_name
from symile_m3.shards.verify import Problem

_SCAN_VERSION = 1


def default_index_dir() -> Path:
    """Where indexes go that cannot lie beside their tars: `symile-m3/indexes` in the user's cache directory."""
    return cache_directory() / "indexes"


def open_foreign(path: Path, index_dir: Path | None = None) -> tuple[ShardIndex, Findings]:
    """The index of any tar, and what is odd about the tar.

    An index is taken from `sidecar_path(path)` or from the cache directory where it was made for a tar of this
    path, length and time of change, or written with the tar by `write_shard`. Otherwise the tar is scanned, and
    the index kept at the first of the two places that can be written; where neither can, it is not kept.
    Processes may do so at the same time: an index is replaced as a whole.

    Args:
        path: the tar.
        index_dir: the only directory to look for the index and to keep it in.

    Raises:
        ShardError: the tar cannot be read, or is no such tar; see `scan_tar`.
    """
    try:
        stat = path.stat()
    except OSError as error:
        raise ShardError(f"{path}: cannot be read: {error.strerror}") from error

    def made_for(place: Path) -> dict[str, Any]:
        tar = os.path.relpath(path, place.parent) if index_dir is None else str(path.absolute())
        return {"scan": _SCAN_VERSION, "path": tar, "mtime_ns": stat.st_mtime_ns}

    free: list[Path] = []
    for place, beside in _places(path, index_dir):
        index, missing = None, False
        try:
            index = ShardIndex.load(place, path.name)
        except ShardError as error:  # one that is missing or damaged is made anew
            missing = isinstance(error.__cause__, FileNotFoundError)
        if index is not None and index.filesize == stat.st_size:
            findings = _remembered(index, made_for(place))
            if findings is not None:
                return index, findings
            if beside and index.crc32 is not None:
                return index, Findings(shard=path.name)
        if missing or not beside or (index is not None and index.crc32 is None):
            free.append(place)  # one made by `write_shard` is evidence, and not overwritten
    index, findings = scan_tar(path)
    for place in free:
        with contextlib.suppress(ShardError):
            _save(index, findings, made_for(place), place)
            break
    return index, findings


def open_remote(tar: RemoteTar, config: CacheConfig, index_dir: Path | None = None) -> tuple[ShardIndex, Findings]:
    """The index of any tar behind a URL, and what is odd about the tar.

    It is taken from the cache where one was made for a tar of this URL, length and tag; then nothing is fetched.
    Otherwise the tar is fetched into the cache and scanned, and the index kept.

    Args:
        tar: the tar.
        config: of the cache.
        index_dir: a directory to look for the index and to keep it in, in place of the cache.

    Returns:
        The index, whose notes have the `sha256` that the tar had where it was fetched for this, and the findings.

    Raises:
        ShardError: the tar cannot be had, or is no such tar; see `scan_tar`.
    """
    cache = TarCache(tar.storage, config)
    place = _remote_place(tar, cache, index_dir)
    made_for = {"scan": _SCAN_VERSION, "url": tar.url, "tag": tar.tag}
    with contextlib.suppress(ShardError):  # one that is missing or damaged is made anew
        index = ShardIndex.load(place, tar.name)
        findings = _remembered(index, made_for)
        if findings is not None and index.filesize == tar.size:
            return index, findings
    lease, sha256 = cache.tar(tar)
    try:
        index, findings = scan_tar(lease.path, tar.url)
    finally:
        lease.close()
    made_for |= {} if sha256 is None else {"sha256": sha256}
    with contextlib.suppress(ShardError):
        _save(index, findings, made_for, place)
    return replace(index, notes=made_for), findings


def lease_remote(tar: RemoteTar, index: ShardIndex, config: CacheConfig, index_dir: Path | None = None) -> Lease:
    """A tar behind a URL of which `open_remote` has given the index; fetched unless it is in the cache.

    Raises:
        ShardError: it cannot be had, or is another one by now.
    """
    cache = TarCache(tar.storage, config)
    try:
        return cache.tar(tar, index.notes.get("sha256"))[0]
    except ShardError:
        if not tar.tag:  # nothing but its bytes tells whether it is the one indexed
            with contextlib.suppress(OSError):
                _remote_place(tar, cache, index_dir).unlink()
        raise


def _remote_place(tar: RemoteTar, cache: TarCache, index_dir: Path | None) -> Path:
    return (cache.layout.meta if index_dir is None else index_dir) / f"{tar.stem}.idx.npz"


def _save(index: ShardIndex, findings: Findings, made_for: Mapping[str, Any], place: Path) -> None:
    """Keep an index that has samples, with what was found."""
    if len(index):
        found = {"counts": dict(findings.counts), "problems": [_plain(p) for p in findings.problems]}
        replace(index, notes={**made_for, **found}).save(place)


def _places(path: Path, index_dir: Path | None) -> Iterator[tuple[Path, bool]]:
    digest = hashlib.sha256(os.fsencode(path.absolute())).hexdigest()[:24]
    name = f"{plain_name(path.stem, 80)}-{digest}.idx.npz"
    if index_dir is None:
        yield sidecar_path(path), True
        with contextlib.suppress(RuntimeError):  # there is no home directory
            yield default_index_dir() / name, False
    else:
        yield index_dir / name, False


def _plain(problem: Problem) -> list[str | None]:
    return [problem.key, problem.message, problem.kind]


def _remembered(index: ShardIndex, made_for: Mapping[str, Any]) -> Findings | None:
    """What was odd about the tar when it was scanned; None where the index was made for something else."""
    notes = index.notes
    if any(notes.get(name) != value for name, value in made_for.items()):
        return None
    try:
        problems = [Problem(index.shard, key, str(message), str(kind)) for key, message, kind in notes["problems"]]
        counts = Counter({str(kind): int(count) for kind, count in notes["counts"].items()})
    except (KeyError, TypeError, ValueError, AttributeError):
        return None
    return Findings(shard=index.shard, problems=problems, counts=counts)
