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
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol, TypeVar
from urllib.parse import urlsplit

from symile_m3.shards.errors import ShardError
from symile_m3.shards.local_storage import LocalStorage
from symile_m3.shards.remote_file import behind, linked_files, ranged, size_of, stream, version_of
from symile_m3.shards.retry import Patience, RetryConfig, no_retries, reason_of, retrying
from symile_m3.shards.urls import checked_name, checked_protocol, local_path, shown, without_secrets

T = TypeVar("T")

_CREATING = {"s3", "s3a", "gs", "gcs"}
"""Stores that can be asked to create a file only where there is none."""
_WHOLE_UPLOADS = {"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "adl", "oss", "oci", "ocilake", "tos", "hf"}
"""Stores in which an upload appears whole; in others a file is written under another name and renamed."""


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
            yield from stream(fs, path, start, stop)
            return
        while start < stop:
            end = min(stop, start + chunk)
            data = fs.cat_file(path, start=start, end=end)
            if len(data) != end - start:
                raise EOFError(f"{len(data):,} bytes came where {end - start:,} were asked for")
            yield data
            start = end

    def read_range(self, name: str, start: int, stop: int) -> bytes | None:
        """The bytes from `start` to `stop` of a file, tried again as all else; None where only whole files come.

        Raises:
            FileNotFoundError: there is no such file.
            ShardError: they cannot be had.
        """

        def read(fs: Any, path: str) -> bytes | None:
            data = ranged(fs, path, start, stop) if self.streams else fs.cat_file(path, start=start, end=stop)
            if data is not None and len(data) != stop - start:
                raise EOFError(f"{len(data):,} bytes came where {stop - start:,} were asked for")
            return None if data is None else bytes(data)

        return self._try(name, f"read at byte {start:,}", read)

    def write_bytes(self, name: str, data: bytes) -> None:
        self._write(name, len(data), lambda fs, path: fs.pipe_file(path, data))

    @property
    def creates(self) -> bool:
        """Whether of several that create one file at the same time only one succeeds, always."""
        return self.protocol in _CREATING

    def create_bytes(self, name: str, data: bytes) -> bool:
        """Make a file of this content where there is none of its name; whether that was so. See `creates`.

        Raises:
            ShardError: the store cannot be read or written.
        """

        def create(fs: Any, path: str) -> bool:
            try:
                fs.pipe_file(path, data, mode="create")
            except FileExistsError:
                return bool(fs.cat_file(path) == data)  # made by a request whose answer was lost
            return True

        self._refuse_read_only(name)
        if self.creates:
            try:
                return self._try(name, "written", create)
            except (FileNotFoundError, ShardError):  # a store of the kind that does not know this request
                pass
        if self.exists(name):
            return False
        self.write_bytes(name, data)
        return True

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
        return self.version(name)[0]

    def version(self, name: str) -> tuple[int, str]:
        """The length of a file in bytes, and what its store says to tell it from another one of its name.

        Raises:
            FileNotFoundError: there is none.
        """

        def look(fs: Any, path: str) -> tuple[int | None, str]:
            fs.invalidate_cache()
            return version_of(fs.info(path), path)

        size, tag = self._try(name, "read", look)
        if size is None:
            raise ShardError(f"{self.root}/{name}: the server does not say how long it is")
        return size, tag

    def below(self, ending: str, *, deep: bool = True) -> list[str]:
        """The names of all files here whose names end so, sorted part by part; hidden ones are left out.

        Over HTTP these are the files to which the page of the folder links.

        Args:
            ending: of the names.
            deep: whether to look into folders below too, hidden ones excepted.

        Raises:
            FileNotFoundError: there is no such folder, or no list of it is to be had.
            ShardError: the store fails, or folders lie deeper than 32.
        """

        def find(fs: Any, path: str) -> list[str]:
            fs.invalidate_cache()
            if self.streams:
                return list(linked_files(fs, path, ending, deep))
            if deep:
                found = fs.find(path)
            else:
                found = [entry["name"] for entry in fs.ls(path, detail=True) if entry["type"] == "file"]
            return [name.removeprefix(path).lstrip("/") for name in found if name.startswith(f"{path}/")]

        names = {name for name in self._try(".", "listed", find) if name.endswith(ending)}
        parts = sorted(name.split("/") for name in names)
        return ["/".join(one) for one in parts if not any(part.startswith(".") for part in one)]

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
            there = size_of(fs, path)
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
                raise behind(error) from error
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
        reason = reason_of(behind(error) if isinstance(error, FileNotFoundError) else error)
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
                fs, path = fsspec.core.url_to_fs(base, **no_retries(self.protocol))
            except ImportError as error:
                raise ShardError(f"{self.root}: {error} (pip install that package)") from error
            self._held = (os.getpid(), fs, str(path).rstrip("/"))
        _, fs, path = self._held
        name = checked_name(name)
        query = urlsplit(self.url).query if self.streams else ""
        return fs, (path if name == "." else f"{path}/{name}") + (f"?{query}" if query else "")
