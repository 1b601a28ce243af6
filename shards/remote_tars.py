"""Tars of others behind URLs: which ones, and their folder of the cache.

~/.cache/symile-m3/shards/
    photos-93ab07e1c2d4-tars/       one folder for each URL of a folder
        data/x-000-5d3b....tar          a tar, by its name and what its store says of its version
        .symile/x-000-5d3b....idx.npz   where its members lie; it stays when the tar makes room
        .symile/tars                    when the folder was last used
"""

from __future__ import annotations

import fnmatch
import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from symile_m3.shards.atomic import write_bytes
from symile_m3.shards.cache_folder import CacheConfig, CacheFolder, Lease
from symile_m3.shards.download import download
from symile_m3.shards.errors import ShardError
from symile_m3.shards.retry import RetryConfig
from symile_m3.shards.storage import RemoteStorage
from symile_m3.shards.urls import checked_protocol, plain_name, shown, url_name

_REQUESTS = 16  # at a time, where many small ones are to be made
_GIVE = "give the URL of a tar, of a folder that can be listed, or a pattern such as"


@dataclass(frozen=True, slots=True)
class RemoteTar:
    """A tar behind a URL.

    Attributes:
        storage: its folder.
        url: for messages: without user, password and query.
        size: in bytes.
        tag: what tells it from another tar of this URL and size: a checksum or a date, or nothing.
    """

    storage: RemoteStorage = field(compare=False, repr=False)
    url: str
    size: int
    tag: str

    @property
    def name(self) -> str:
        """Its file name."""
        return self.url.rpartition("/")[2]

    @property
    def stem(self) -> str:
        """A file name for what the cache holds of this version of it, without a suffix."""
        version = hashlib.sha256(f"{self.url} {self.size} {self.tag}".encode()).hexdigest()[:24]
        return f"{plain_name(self.name.removesuffix('.tar'), 80)}-{version}"


class TarCache(CacheFolder):
    """The tars of one folder behind a URL, in the cache.

    Args:
        storage: the folder.
        config: see `CacheConfig`.

    Raises:
        ShardError: the cache cannot be written.
    """

    def __init__(self, storage: RemoteStorage, config: CacheConfig) -> None:
        super().__init__(config, f"{url_name(storage.url)}-tars", "tars")
        self.storage = storage
        if self.used.exists():
            self.touch()
        else:
            write_bytes(self.used, f"{storage.root}\n".encode())

    def tar(self, tar: RemoteTar, sha256: str | None = None) -> tuple[Lease, str | None]:
        """A tar, fetched unless it is there; and its SHA-256 where it was fetched now.

        Args:
            sha256: that it must have if it is fetched now, in hexadecimal; None where it is not known.

        Raises:
            ShardError: it cannot be had, or is another one by now; the cache cannot be written.
        """
        found: str | None = None

        def fetch(part: Path) -> None:
            nonlocal found
            name, chunk_bytes = tar.name, self.config.chunk_bytes
            try:
                found = download(self.storage, name, part, filesize=tar.size, sha256=None, chunk_bytes=chunk_bytes)
                if self.storage.version(name) == (tar.size, tar.tag) and sha256 in (None, found):
                    return
            except FileNotFoundError:
                pass
            part.unlink()
            raise ShardError(f"{tar.url}: has changed since it was first read (begin anew)")

        lease = self.lease(f"{tar.stem}.tar", tar.size, fetch)
        return lease, found

    def fetch(self, tar: RemoteTar) -> None:
        """Have a tar in the cache for later."""
        self.tar(tar)[0].close()

    def has(self, tar: RemoteTar) -> bool:
        """Whether a tar is in the cache."""
        return self.layout.shard(f"{tar.stem}.tar").exists()


def remote_tars(url: str, patterns: Sequence[str], retry: RetryConfig) -> list[RemoteTar]:
    """The tars that a URL means.

    Args:
        url: as it was given, for messages.
        patterns: what it means with its braces resolved: URLs of tars, of tars with `*` in the last part, or
            of folders, whose tars are all `*.tar` in them and below, but for hidden folders, sorted.
        retry: how failures are tried again.

    Raises:
        ShardError: a URL is refused or cannot be reached, or nothing is there.
    """
    checked_protocol(url)
    storages: dict[str, RemoteStorage] = {}
    names: list[tuple[RemoteStorage, str]] = []

    def storage_of(folder: str) -> RemoteStorage:
        if folder not in storages:
            storages[folder] = RemoteStorage(folder, retry=retry)
        return storages[folder]

    for pattern in patterns:
        folder, name = _parted(pattern)
        if "*" in folder:
            raise ShardError(f"{shown(url)}: in a URL, * can stand in the last part only ({_GIVE} {_example(folder)})")
        if name.endswith(".tar") and "*" not in name:
            names.append((storage_of(folder), name))
            continue
        whole = folder if "*" in name else pattern
        found = _listed(storage_of(whole), deep="*" not in name)
        if "*" in name:
            found = [one for one in found if fnmatch.fnmatchcase(one, name)]
        if not found:
            what = "no such tars" if "*" in name else "holds no tars"
            raise ShardError(f"{shown(pattern)}: {what} ({_GIVE} {_example(whole)})")
        for one in found:
            inside, _, last = one.rpartition("/")
            names.append((storage_of(_joined(whole, inside)), last))

    def look(one: tuple[RemoteStorage, str]) -> RemoteTar:
        storage, name = one
        place = f"{storage.root}/{name}"
        try:
            size, tag = storage.version(name)
        except FileNotFoundError:
            raise ShardError(f"{place}: no such file ({_GIVE} {_example(storage.url)})") from None
        return RemoteTar(storage, place, size, tag)

    with ThreadPoolExecutor(_REQUESTS) as pool:
        return list(pool.map(look, names))


def _listed(storage: RemoteStorage, deep: bool) -> list[str]:
    try:
        return storage.below(".tar", deep=deep)
    except FileNotFoundError:
        reason = "no such folder, or no list of its files is to be had"
    except ShardError as error:
        reason = str(error).removeprefix(f"{storage.root}/.: ")
    raise ShardError(f"{storage.root}: {reason} ({_GIVE} {_example(storage.url)})")


def _parted(url: str) -> tuple[str, str]:
    """The URL of the folder, with the query that is to go with every request, and the last part of the path."""
    parts = urlsplit(url)
    folder, _, name = parts.path.rstrip("/").rpartition("/")
    if not parts.path.strip("/"):  # a bucket, or a host
        return url, ""
    return urlunsplit(parts._replace(path=folder)), name


def _joined(url: str, inside: str) -> str:
    parts = urlsplit(url)
    return urlunsplit(parts._replace(path=f"{parts.path.rstrip('/')}/{inside}")) if inside else url


def _example(url: str) -> str:
    return f"{shown(url)}/x-{{000..012}}.tar"
