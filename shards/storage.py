"""Where the files of a dataset lie: a directory, or any store that fsspec knows by URL.

    open_storage(Path("data/m3"))          a directory; fsspec is not even imported
    open_storage("s3://bucket/m3")         needs the package s3fs
    open_storage("https://host/m3")        for reading only

A store's own settings (endpoint, region, credentials) are given as its users know them: by the
environment (`AWS_ENDPOINT_URL`, `AWS_PROFILE`, ...) or by fsspec's configuration (`FSSPEC_S3_ENDPOINT_URL`,
`~/.config/fsspec/*.json`).
"""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any, Protocol, TypeVar
from urllib.parse import urlsplit

from symile_m3.shards.atomic import replacing, write_bytes
from symile_m3.shards.errors import ShardError
from symile_m3.shards.retry import Patience, RetryConfig, http_status, reason_of, retrying
from symile_m3.shards.urls import checked_protocol, local_path, shown, without_secrets

T = TypeVar("T")

_WHOLE_UPLOADS = {"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "adl", "oss", "oci", "ocilake", "tos", "hf"}
"""Stores in which an upload appears whole; in others a file is written under another name and renamed."""

_COPY = 1 << 20


class Storage(Protocol):
    """The files of one dataset by their names, which are relative and have `/` between their parts.

    Errors other than those named are ShardErrors of one line, with the place and the reason.
    """

    @property
    def root(self) -> str:
        """Where it is, for messages: without user, password and query."""

    def read_bytes(self, name: str) -> bytes:
        """The content of a file.

        Raises:
            FileNotFoundError: there is none.
        """

    def write_bytes(self, name: str, data: bytes) -> None:
        """Make `data` the content of a file; it appears whole or not at all, as far as the store allows."""

    def write_file(self, local: Path, name: str) -> None:
        """Make the content of a local file that of a file here; it appears whole or not at all, likewise."""

    def exists(self, name: str) -> bool:
        """Whether there is such a file."""

    def size(self, name: str) -> int:
        """The length of a file in bytes.

        Raises:
            FileNotFoundError: there is none.
        """

    def list(self, folder: str = "") -> list[str]:
        """The names of the files right in a folder, without it, sorted; none where there is no such folder."""

    def remove(self, name: str) -> None:
        """Remove a file if there is one."""


def open_storage(root: str | Path, *, retry: RetryConfig | None = None) -> Storage:
    """The storage at a path or URL. Nothing is read yet, and a store is reached on first use only.

    Raises:
        ShardError: the URL is of a kind that is refused or unknown, or a package for it is missing.
    """
    local = local_path(root)
    return RemoteStorage(str(root), retry=retry) if local is None else LocalStorage(local)


class LocalStorage:
    """A directory.

    Args:
        directory: it need not exist before something is written.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    @property
    def root(self) -> str:
        return str(self.directory)

    def read_bytes(self, name: str) -> bytes:
        return self._try(name, "read", lambda path: path.read_bytes())

    def write_bytes(self, name: str, data: bytes) -> None:
        write_bytes(self.directory / checked_name(name), data)

    def write_file(self, local: Path, name: str) -> None:
        try:
            with local.open("rb") as source, replacing(self.directory / checked_name(name)) as file:
                while part := source.read(_COPY):
                    file.write(part)
        except OSError as error:
            raise ShardError(f"{local}: cannot be read: {error.strerror}") from error

    def exists(self, name: str) -> bool:
        return self._try(name, "read", lambda path: path.is_file())

    def size(self, name: str) -> int:
        return self._try(name, "read", lambda path: path.stat().st_size)

    def list(self, folder: str = "") -> list[str]:
        try:
            return self._try(
                folder or ".", "read", lambda path: sorted(entry.name for entry in path.iterdir() if entry.is_file())
            )
        except FileNotFoundError:
            return []

    def remove(self, name: str) -> None:
        self._try(name, "removed", lambda path: path.unlink(missing_ok=True))

    def _try(self, name: str, verb: str, action: Callable[[Path], T]) -> T:
        path = self.directory / checked_name(name)
        try:
            return action(path)
        except FileNotFoundError:
            raise
        except OSError as error:
            raise ShardError(f"{path}: cannot be {verb}: {error.strerror}") from error


class RemoteStorage:
    """A place that fsspec reaches. It is picklable, and works in forked and spawned processes.

    Args:
        url: of the place.
        retry: how failures are tried again.

    Raises:
        ShardError: the kind of URL is refused or unknown, or a package for it is missing.
    """

    def __init__(self, url: str, *, retry: RetryConfig | None = None) -> None:
        self.url = url
        self.retry = retry or RetryConfig()
        self.protocol = checked_protocol(url)
        self._held: tuple[int, Any, str] | None = None
        self._answered = False

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_held": None}

    @property
    def root(self) -> str:
        return shown(self.url)

    @property
    def streams(self) -> bool:
        """Whether a file comes in one request from any position on; otherwise in one request a range."""
        return self.protocol in ("http", "https")

    def read_bytes(self, name: str) -> bytes:
        data: bytes = self._try(name, "read", lambda fs, path: fs.cat_file(path))
        return data

    def read_from(self, name: str, start: int, stop: int, chunk: int) -> Iterator[bytes]:
        """The bytes from `start` to `stop` of a file, as they come; nothing is tried again.

        Args:
            chunk: bytes to a request, and so in memory, at most.

        Raises:
            Exception: whatever the file system raises, EOFError where the file ends too early.
        """
        fs, path = self._place(name)
        if self.streams:
            yield from _stream(fs, path, start, stop)
            return
        while start < stop:
            end = min(stop, start + chunk)
            data = fs.cat_file(path, start=start, end=end)
            if len(data) != end - start:
                raise EOFError(f"{len(data):,} bytes came where {end - start:,} were asked for")
            yield data
            start = end

    def write_bytes(self, name: str, data: bytes) -> None:
        self._write(name, len(data), lambda fs, path: fs.pipe_file(path, data))

    def write_file(self, local: Path, name: str) -> None:
        try:
            size = local.stat().st_size
        except OSError as error:
            raise ShardError(f"{local}: cannot be read: {error.strerror}") from error
        self._write(name, size, lambda fs, path: fs.put_file(str(local), path))

    def exists(self, name: str) -> bool:
        try:
            self.size(name)
        except FileNotFoundError:
            return False
        return True

    def size(self, name: str) -> int:
        size = self._try(name, "read", _size)
        if size is None:
            raise ShardError(f"{self.root}/{name}: the server does not say how long it is")
        return size

    def list(self, folder: str = "") -> list[str]:
        def names(fs: Any, path: str) -> list[str]:
            fs.invalidate_cache()
            entries = fs.ls(path, detail=True)
            files = (entry["name"].rstrip("/") for entry in entries if entry["type"] == "file")
            return sorted({name.rpartition("/")[2].partition("?")[0] for name in files if name != path.rstrip("/")})

        try:
            return self._try(folder or ".", "listed", names)
        except FileNotFoundError:
            return []

    def remove(self, name: str) -> None:
        def remove(fs: Any, path: str) -> None:
            try:
                fs.rm_file(path)
            except FileNotFoundError:
                return

        self._refuse_read_only(name)
        self._try(name, "removed", remove)

    def _write(self, name: str, size: int, put: Callable[[Any, str], Any]) -> None:
        """Put the file under its name, or where an upload can be seen half done, under another one and rename."""

        def upload(fs: Any, path: str) -> None:
            if self.protocol in _WHOLE_UPLOADS:
                put(fs, path)
            else:
                fs.makedirs(path.rpartition("/")[0], exist_ok=True)
                temp = f"{path}.tmp-{secrets.token_hex(4)}"
                try:
                    put(fs, temp)
                    fs.mv(temp, path)
                except BaseException:
                    if fs.exists(temp):
                        fs.rm_file(temp)
                    raise
            there = _size(fs, path)
            if there != size:
                raise EOFError(f"{there} of {size:,} bytes arrived")

        self._refuse_read_only(name)
        try:
            self._try(name, "written", upload)
        except FileNotFoundError as error:
            reason = reason_of(error)
            raise ShardError(f"{self.root}/{name}: cannot be written: no such place ({reason})") from error

    def _refuse_read_only(self, name: str) -> None:
        if self.streams:
            raise ShardError(f"{self.root}/{name}: cannot be written over HTTP (name a directory or a store)")

    def _try(self, name: str, verb: str, action: Callable[[Any, str], T]) -> T:
        def attempt() -> T:
            fs, path = self._place(name)
            try:
                result = action(fs, path)
            except FileNotFoundError as error:
                raise _behind(error) from error
            self._answered = True
            return result

        try:
            return retrying(attempt, self.retry, f"{self.root}/{name}", known=self._answered, shown=self._shown)
        except FileNotFoundError:
            raise
        except ShardError:
            raise
        except Exception as error:
            raise self.failed(name, verb, error) from error

    def failed(self, name: str, verb: str, error: BaseException) -> ShardError:
        """What is said when something could not be read, written, ... for good."""
        reason = reason_of(_behind(error) if isinstance(error, FileNotFoundError) else error)
        return ShardError(f"{self.root}/{name}: cannot be {verb}: {self._shown(reason)}")

    def patience(self, name: str) -> Patience:
        """For whoever tries again what `read_from` could not read."""
        return Patience(self.retry, f"{self.root}/{name}", known=self._answered, shown=self._shown)

    def _shown(self, text: str) -> str:
        return without_secrets(text, self.url)

    def _place(self, name: str) -> tuple[Any, str]:
        """The file system, of this process's own, and the path of a file in it."""
        if self._held is None or self._held[0] != os.getpid():
            import fsspec  # type: ignore[import-untyped]

            base = self.url.partition("?")[0] if self.streams else self.url
            try:
                fs, path = fsspec.core.url_to_fs(base, **_settings(self.protocol))
            except ImportError as error:
                raise ShardError(f"{self.root}: {error} (pip install that package)") from error
            self._held = (os.getpid(), fs, str(path).rstrip("/"))
        _, fs, path = self._held
        name = checked_name(name)
        query = urlsplit(self.url).query if self.streams else ""
        return fs, (path if name == "." else f"{path}/{name}") + (f"?{query}" if query else "")


def _settings(protocol: str) -> dict[str, Any]:
    """What a file system is told that its user has not told it: not to try again by itself and say nothing."""
    from fsspec.config import conf  # type: ignore[import-untyped]

    if protocol in ("s3", "s3a") and "AWS_MAX_ATTEMPTS" not in os.environ and "config_kwargs" not in conf.get("s3", {}):
        return {"config_kwargs": {"retries": {"total_max_attempts": 1}}}
    return {}


def checked_name(name: str) -> str:
    """`name`, which must not lead out of the dataset.

    Raises:
        ShardError: it is absolute, or has a part `..`, or a character no file of a dataset has.
    """
    path = PurePosixPath(name)
    if not name or path.is_absolute() or ".." in path.parts or re.search(r"[\\?#\x00-\x1f]", name):
        raise ShardError(f"{name!r} cannot be a file of a dataset (use a relative path without '..')")
    return path.as_posix()


def _size(fs: Any, path: str) -> int | None:
    fs.invalidate_cache()
    info = fs.info(path)
    if info.get("type") == "directory":
        raise FileNotFoundError(path)
    size = info.get("size")
    return None if size is None else int(size)


def _behind(error: BaseException) -> BaseException:
    """fsspec calls every failure of a HEAD request a missing file; what was it really?"""
    cause = error.__cause__
    if cause is None or not type(cause).__module__.startswith("aiohttp") or http_status(cause) in (404, 410):
        return error
    return cause


def _stream(fs: Any, url: str, start: int, stop: int) -> Iterator[bytes]:
    """One GET from `start` on. A server that ignores ranges sends all again, and the beginning is passed over."""
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={start}-"} if start else {})
    with fs.open(url, "rb", block_size=0, size=stop, headers=headers) as file:
        at = start if file.r.status == 206 else 0
        while at < stop:
            data = file.read(_COPY)
            if not data:
                raise EOFError(f"the connection ended at {at:,} of {stop:,} bytes")
            at += len(data)
            if at > start:
                fresh = data[-(at - start) :] if at - len(data) < start else data
                yield fresh[: len(fresh) - max(0, at - stop)]
