"""A folder of the cache: large files that come and go, within a limit, shared by all processes of a machine."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import itertools
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from symile_m3.shards.download import PART
from symile_m3.shards.errors import ShardError
from symile_m3.shards.layout import DATA, META, DatasetLayout, cache_directory
from symile_m3.shards.retry import RetryConfig

MAX_BYTES = 20_000_000_000
_STALE_S = 30 * 86_400.0
_USED = ("index.json", "tars")  # whose time of change says when a folder was last used
_log = logging.getLogger("symile_m3.shards")


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


class CacheFolder:
    """Shards from one place in the cache. It is picklable, and may be used by many threads and processes.

    Which shards are removed first is told by their times of change, which are set whenever one is asked for.

    Args:
        config: see `CacheConfig`.
        name: of the folder.
        used: name of the file in `.symile` that its owner keeps there, one of `index.json` and `tars`.

    Attributes:
        config: the configuration.
        layout: the folder, laid out as a dataset.
        used: a file whose time of change says when the folder was last used.
    """

    def __init__(self, config: CacheConfig, name: str, used: str) -> None:
        self.config = config
        self.layout = DatasetLayout(config.directory / name)
        self.used = self.layout.meta / used

    def lease(self, name: str, filesize: int, fetch: Callable[[Path], None]) -> Lease:
        """A shard, fetched unless it is there. Of several that want it at once one fetches it, the others wait.

        Args:
            name: of the shard in this folder.
            filesize: in bytes.
            fetch: makes the shard at a path, going on with what is there of it.

        Raises:
            ShardError: it cannot be had; the cache cannot be written.
        """
        path = self.layout.shard(name)
        lease = _lease(path, filesize)
        if lease is not None:
            return lease
        with self.locked(name):
            lease = _lease(path, filesize)
            if lease is not None:
                return lease
            part = path.with_name(path.name + PART)
            self.make_room(filesize - (part.stat().st_size if part.exists() else 0))
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.unlink(missing_ok=True)  # of another length: cut off since it was checked
                fetch(part)
                file = part.open("rb")
                fcntl.flock(file, fcntl.LOCK_SH)
                part.rename(path)
            except OSError as error:
                raise _unusable(self.config.directory, error) from error
        return Lease(path, file)

    def recheck(self, name: str, sha256: str) -> None:
        """Remove a shard that is no longer what was fetched, so that it is fetched anew when next asked for.

        Args:
            name: of the shard in this folder.
            sha256: that it had, in hexadecimal.
        """
        path = self.layout.shard(name)
        with self.locked(name):
            try:
                with path.open("rb") as file:
                    if hashlib.file_digest(file, "sha256").hexdigest() == sha256:
                        return
            except FileNotFoundError:
                return
            except OSError:  # of a disk that fails
                pass
            _log.warning("%s: was altered in the cache; it is fetched again", path)
            with contextlib.suppress(OSError):
                path.unlink()

    def make_room(self, need: int = 0) -> None:
        """Remove shards, the one not asked for the longest first, until `need` bytes fit within the limit.

        Those in use by any process stay, and so the limit may be exceeded. With them go folders of datasets
        that hold no shards and have not been used for 30 days.
        """
        directory = self.config.directory
        with self.locked(None):
            self.touch()
            found = sorted(_entries(directory))
            total = sum(size for _, size, _ in found) + need
            for _, size, path in found:
                if total <= self.config.max_bytes:
                    break
                if self._remove(path):
                    total -= size
            now = time.time()
            for used in itertools.chain.from_iterable(directory.glob(f"*/{META}/{name}") for name in _USED):
                home = used.parent.parent
                with contextlib.suppress(FileNotFoundError):
                    if now - used.stat().st_mtime > _STALE_S and not list((home / DATA).glob("*")):
                        shutil.rmtree(home, ignore_errors=True)

    def touch(self) -> None:
        """Note that the folder is used."""
        with contextlib.suppress(OSError):
            os.utime(self.used)

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
    def locked(self, name: str | None) -> Iterator[None]:
        """Hold the lock of a file of this folder, or with None that of the whole cache."""
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


def drop_beyond(opened: dict[int, Any], size_of: Callable[[int], int], need: int, limit: int) -> None:
    """Let go of open shards, the first of them first, until `need` more bytes fit within the limit."""
    held = sum(size_of(s) for s in opened)
    while opened and held + need > limit:
        s = next(iter(opened))
        held -= size_of(s)
        del opened[s]


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
