"""Reading the headers of many tars, here or behind URLs, in processes or threads."""

from __future__ import annotations

import hashlib
import multiprocessing
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from symile_m3.shards.cache_folder import CacheConfig
from symile_m3.shards.errors import ShardError
from symile_m3.shards.foreign_index import open_foreign, open_remote
from symile_m3.shards.index import ShardIndex
from symile_m3.shards.remote_tars import RemoteTar
from symile_m3.shards.scan import Findings

_FETCHING = 4  # remote tars at a time


class Summary(NamedTuple):
    """A tar once its headers have been read: its name, samples with all fields, a digest, and what is odd."""

    name: str
    size: int
    digest: bytes
    findings: Findings


@dataclass(frozen=True, slots=True)
class TarScan:
    """Reads the headers of a tar where it has no index yet; picklable.

    Attributes:
        wanted: each field with its suffixes.
        index_dir: where indexes are kept.
        cache: of remote tars.
    """

    wanted: tuple[tuple[str, tuple[str, ...]], ...]
    index_dir: Path | None
    cache: CacheConfig | None

    @property
    def config(self) -> CacheConfig:
        """Of the cache."""
        return self.cache or CacheConfig()

    def index(self, tar: Path | RemoteTar) -> tuple[ShardIndex, Findings]:
        """The index of a tar and what is odd about it."""
        if isinstance(tar, RemoteTar):
            return open_remote(tar, self.config, self.index_dir)
        return open_foreign(tar, self.index_dir)

    def __call__(self, tar: Path | RemoteTar) -> Summary:
        index, findings = self.index(tar)
        columns = columns_of(index, self.wanted)
        whole = (columns >= 0).all(axis=1)
        for row in np.flatnonzero(~whole).tolist():
            lacking = [name for (name, _), m in zip(self.wanted, columns[row].tolist(), strict=True) if m < 0]
            findings.add("missing", index.key(row), f"has no {' and no '.join(lacking)}")
        return Summary(tar.name, int(whole.sum()), digest_of(index), findings)


def scan_tars(scan: TarScan, tars: Sequence[Path | RemoteTar], workers: int) -> Iterator[Summary]:
    """Summaries of tars in their order, with so many processes; one fetches remote tars in several threads."""
    workers = min(workers, len(tars))
    largest = max((tar.size for tar in tars if isinstance(tar, RemoteTar)), default=0)
    if workers == 1 and not largest:
        yield from map(scan, tars)
        return
    if workers == 1:
        fetching = max(1, min(_FETCHING, scan.config.max_bytes // 2 // largest))
        with ThreadPoolExecutor(fetching) as threads:
            try:
                yield from threads.map(scan, tars)
            except BaseException:
                threads.shutdown(wait=False, cancel_futures=True)
                raise
        return
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        try:
            yield from pool.map(scan, tars)
        except BrokenProcessPool:
            raise ShardError(
                "a process that scanned tars died (guard the entry of the script with "
                'if __name__ == "__main__", or use workers=1)'
            ) from None
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def columns_of(index: ShardIndex, wanted: Sequence[tuple[str, Sequence[str]]]) -> npt.NDArray[np.int8]:
    """In which column of the index each of the F fields of each of the N samples is, -1 for none, shape (N, F)."""
    columns = np.full((len(index), len(wanted)), -1, np.int8)
    for f, (_, suffixes) in enumerate(wanted):
        for suffix in reversed(suffixes):
            if suffix in index.members:
                m = index.members.index(suffix)
                columns[index.offsets[:, m] >= 0, f] = m
    return columns


def digest_of(index: ShardIndex) -> bytes:
    """Of all keys, and of the places and lengths of all members."""
    digest = hashlib.blake2b(f"{index.filesize} {' '.join(index.members)}".encode(), digest_size=16)
    for array in (index.keys, index.offsets, index.sizes):
        digest.update(f"{array.dtype.str} {array.shape}".encode())
        digest.update(array.tobytes())
    return digest.digest()
