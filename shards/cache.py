"""Shards of a remote dataset, kept on the local disk within a limit and shared by all processes of a machine.

    ~/.cache/symile-m3/shards/
        m3-0c1f8a52b9e4-5d3b.../            one folder for each dataset, by its URL and its index.json
            data/train-00000-of-00016.tar       shards, each checked against its SHA-256 before it has this name
            data/train-00001-of-00016.tar.part  one on its way
            .symile/index.json, *.idx.npz       small files, and features made of the media
        locks/

A dataset's folder is laid out as the dataset, so what reads a local dataset reads this one. A dataset that
is built anew at the same URL has another index.json, hence another folder.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from symile_m3.shards.atomic import write_bytes
from symile_m3.shards.download import PART, download
from symile_m3.shards.errors import ShardError
from symile_m3.shards.index import DatasetIndex, ShardInfo
from symile_m3.shards.layout import DATA, META, DatasetLayout, cache_directory
from symile_m3.shards.retry import RetryConfig
from symile_m3.shards.storage import RemoteStorage
from symile_m3.shards.urls import local_path, url_name

MAX_BYTES = 20_000_000_000
_STALE_S = 30 * 86_400.0
_SHA256 = re.compile(r"[0-9a-f]{64}")


def _default_directory() -> Path:
    return cache_directory() / "shards"


def _default_max_bytes() -> int:
    text = os.environ.get("SYMILE_M3_CACHE_GB", "")
    try:
        size = float(text or MAX_BYTES / 1e9) * 1e9
        if 1 <= size < 1e18:
            return int(size)
    except ValueError:
        pass
    raise ShardError(f"SYMILE_M3_CACHE_GB={text}: not a size (give a number of gigabytes, such as 20)")


@dataclass(frozen=True, kw_only=True, slots=True)
class CacheConfig:
    """Where shards of remote datasets are kept, and how they are fetched.

    A limit below what one window of the order takes (see `epoch_order`: 65,536 samples, some 3 GB) makes
    the same shards come again and again.

    Attributes:
        directory: of the cache; by default `symile-m3/shards` under `$XDG_CACHE_HOME`, or `~/.cache`.
        max_bytes: that shards take there at most, those being read and those on their way excepted; by
            default `$SYMILE_M3_CACHE_GB` gigabytes, or 20.
        chunk_bytes: fetched in one request, where the store gives ranges.
        retry: how failures are tried again.

    Raises:
        ValueError: a value is out of range.
    """

    directory: Path = field(default_factory=_default_directory)
    max_bytes: int = field(default_factory=_default_max_bytes)
    chunk_bytes: int = 8 << 20
    retry: RetryConfig = field(default_factory=RetryConfig)

    def __post_init__(self) -> None:
        for name in ("max_bytes", "chunk_bytes"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")


class Lease:
    """A shard in the cache that stays there until the lease is closed, or the process ends.

    Attributes:
        path: of the tar.
    """

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self.path = path
        self._file = file  # holds a shared lock

    def close(self) -> None:
        """Let the shard go. It may be removed from now on; who has it open or mapped can go on reading."""
        self._file.close()


class ShardCache:
    """One remote dataset in the cache. It is picklable, and may be used by many threads and processes.

    Which shards are removed first is told by their times of change, which are set whenever one is asked for.

    Args:
        url: of the dataset.
        config: see `CacheConfig`.

    Attributes:
        config: the configuration.
        layout: the dataset's folder in the cache. Its index.json is there; of the rest what has been asked for.
        index: the dataset's shards.

    Raises:
        ShardError: the URL is refused, there is no dataset, or the cache cannot be written.
    """

    def __init__(self, url: str, config: CacheConfig | None = None) -> None:
        self.config = config or CacheConfig()
        self.storage = storage = RemoteStorage(url, retry=self.config.retry)
        place = f"{storage.root}/{META}/index.json"
        try:
            content = storage.read_bytes(f"{META}/index.json")
        except FileNotFoundError:
            raise ShardError(f"{place}: no dataset there (build one first)") from None
        self.index = DatasetIndex.parse(content, place)
        for info in self.index.shards:
            if not _SHA256.fullmatch(info.sha256) or info.name in ("", ".", ".."):
                raise ShardError(f"{place}: the entry of {info.name!r} has no proper name or SHA-256")
        version = hashlib.sha256(content).hexdigest()[:12]
        self.layout = DatasetLayout(self.config.directory / f"{url_name(url)}-{version}")
        self._touch()
        if not self.layout.index.exists():
            write_bytes(self.layout.index, content)

    def shard(self, info: ShardInfo) -> Lease:
        """A shard, fetched unless it is there. Of several that want it at once one fetches it, the others wait.

        Raises:
            ShardError: it cannot be had, or is not what `info` says; the cache cannot be written.
        """
        path = self.layout.shard(info.name)
        lease = _lease(path, info.filesize)
        if lease is not None:
            return lease
        with self._locked(info.name):
            lease = _lease(path, info.filesize)
            if lease is not None:
                return lease
            part = path.with_name(path.name + PART)
            self.make_room(info.filesize - (part.stat().st_size if part.exists() else 0))
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.unlink(missing_ok=True)  # of another length: cut off since it was checked
                download(
                    self.storage,
                    f"{DATA}/{info.name}",
                    part,
                    filesize=info.filesize,
                    sha256=info.sha256,
                    chunk_bytes=self.config.chunk_bytes,
                )
                file = part.open("rb")
                fcntl.flock(file, fcntl.LOCK_SH)
                part.rename(path)
            except OSError as error:
                raise _unusable(self.config.directory, error) from error
        return Lease(path, file)

    def fetch(self, info: ShardInfo) -> None:
        """Have a shard in the cache, as `shard` does, for later."""
        self.shard(info).close()

    def has(self, info: ShardInfo) -> bool:
        """Whether a shard is in the cache."""
        return self.layout.shard(info.name).exists()

    def file(self, name: str) -> Path | None:
        """Another file of the dataset, such as `.symile/plan.json`, fetched unless it is there; None if none is.

        Raises:
            ShardError: it cannot be had, or the cache cannot be written.
        """
        path = self.layout.root / name
        if not path.exists():
            with self._locked(name):
                if not path.exists():
                    try:
                        content = self.storage.read_bytes(name)
                    except FileNotFoundError:
                        return None
                    write_bytes(path, content)
        return path

    def make_room(self, need: int = 0) -> None:
        """Remove shards, the one not asked for the longest first, until `need` bytes fit within the limit.

        Those in use by any process stay, and so the limit may be exceeded. With them go folders of datasets
        that hold no shards and have not been used for 30 days.
        """
        directory = self.config.directory
        with self._locked(None):
            self._touch()
            found = sorted(_entries(directory))
            total = sum(size for _, size, _ in found) + need
            for _, size, path in found:
                if total <= self.config.max_bytes:
                    break
                if self._remove(path):
                    total -= size
            now = time.time()
            for index in directory.glob(f"*/{META}/index.json"):
                home = index.parent.parent
                with contextlib.suppress(FileNotFoundError):
                    if now - index.stat().st_mtime > _STALE_S and not list((home / DATA).glob("*")):
                        shutil.rmtree(home, ignore_errors=True)

    def _touch(self) -> None:
        with contextlib.suppress(OSError):
            os.utime(self.layout.index)

    def _remove(self, path: Path) -> bool:
        """Remove a shard that nobody has leased, or a part that nobody is fetching."""
        with contextlib.suppress(FileNotFoundError):
            if path.name.endswith(PART):
                home, name = path.parent.parent, path.name.removesuffix(PART)
                opened = self._lock_path(f"{home.name}/{name}").open("a+b")
            else:
                opened = path.open("r+b")
            with opened as file:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    return False
                path.unlink()
                return True
        return False

    def _lock_path(self, key: str) -> Path:
        """One of 4096 files, so that they need not be removed; two shards that share one wait for each other."""
        return self.config.directory / "locks" / hashlib.sha256(key.encode()).hexdigest()[:3]

    @contextlib.contextmanager
    def _locked(self, name: str | None) -> Iterator[None]:
        """Hold the lock of a file of this dataset, or with None that of the whole cache."""
        lock = self._lock_path(f"{self.layout.root.name}/{name}") if name else self.config.directory / "locks" / "all"
        try:
            lock.parent.mkdir(parents=True, exist_ok=True)
            file = lock.open("a+b")
        except OSError as error:
            raise _unusable(self.config.directory, error) from error
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX)
            except OSError as error:
                raise _unusable(self.config.directory, error) from error
            yield


def open_layout(
    root: Path | str | ShardCache, config: CacheConfig | None = None
) -> tuple[ShardCache | None, DatasetLayout]:
    """The cache, None for a local dataset, and the folder in which a dataset's files are or will be.

    Raises:
        ShardError: `root` is a URL at which there is no dataset.
    """
    if isinstance(root, ShardCache):
        return root, root.layout
    local = local_path(root)
    if local is not None:
        return None, DatasetLayout(local)
    cache = ShardCache(str(root), config)
    return cache, cache.layout


def _lease(path: Path, filesize: int) -> Lease | None:
    """A lease of the shard if it is there, whole and not just being removed."""
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _unusable(path, error) from error
    try:
        fcntl.flock(file, fcntl.LOCK_SH)
        found = os.fstat(file.fileno())
        if found.st_nlink and found.st_size == filesize:
            with contextlib.suppress(PermissionError):  # another user's file
                now = time.time_ns()  # finer than what the file system takes by itself
                os.utime(file.fileno(), ns=(now, now))
            return Lease(path, file)
    except OSError as error:
        file.close()
        raise _unusable(path, error) from error
    file.close()
    return None


def _entries(directory: Path) -> Iterator[tuple[float, int, Path]]:
    """(time last asked for, bytes, path) of every shard and part in the cache."""
    for path in directory.glob(f"*/{DATA}/*"):
        with contextlib.suppress(FileNotFoundError):
            found = path.stat()
            yield found.st_mtime, found.st_size, path


def _unusable(place: Path, error: OSError) -> ShardError:
    return ShardError(
        f"{place}: the cache cannot be used: {error.strerror or error} "
        "(set XDG_CACHE_HOME to a directory on a local disk with room)"
    )
