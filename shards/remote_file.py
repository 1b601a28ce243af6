"""One file of a file system of fsspec: how long it is, which version of it is there, and its bytes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import unquote

from symile_m3.shards.errors import ShardError
from symile_m3.shards.retry import http_status
from symile_m3.shards.urls import shown

_MAX_DEPTH = 32
_COPY = 1 << 20
_TAGS = (
    *("ETag", "etag", "Content-MD5", "content_md5", "md5Hash", "crc32c", "Digest"),  # of its content
    *("Last-Modified", "LastModified", "last_modified", "updated", "mtime", "created"),
)


def size_of(fs: Any, path: str) -> int | None:
    """Its length in bytes; None where the server does not say.

    Raises:
        FileNotFoundError: there is no such file.
    """
    fs.invalidate_cache()
    return version_of(fs.info(path), path)[0]


def version_of(info: Mapping[str, Any], path: str) -> tuple[int | None, str]:
    """The length of a file, and what tells it from another one that had its name before: a checksum or a date.

    The second is empty where the store says nothing of the kind.

    Args:
        info: as `fs.info` or a list gives it.
        path: for the error.

    Raises:
        FileNotFoundError: it is a directory.
    """
    if info.get("type") == "directory":
        raise FileNotFoundError(path)
    size = info.get("size")
    tag = next((f"{name} {info[name]}" for name in _TAGS if info.get(name)), "")
    return None if size is None else int(size), tag


def behind(error: BaseException) -> BaseException:
    """fsspec calls every failure of a HEAD request a missing file; what was it really?"""
    cause = error.__cause__
    if cause is None or not type(cause).__module__.startswith("aiohttp") or http_status(cause) in (404, 410):
        return error
    return cause


def stream(fs: Any, url: str, start: int, stop: int) -> Iterator[bytes]:
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


def ranged(fs: Any, url: str, start: int, stop: int) -> bytes | None:
    """The bytes from `start` to `stop` by one GET; None, at once, where the server sends only whole files."""
    headers = {"Accept-Encoding": "identity", "Range": f"bytes={start}-{stop - 1}"}
    with fs.open(url, "rb", block_size=0, size=stop, headers=headers) as file:
        if file.r.status != 206:
            return None
        parts: list[bytes] = []
        held = 0
        while held < stop - start:
            data = file.read(stop - start - held)
            if not data:
                raise EOFError(f"the connection ended at {start + held:,} of {stop:,} bytes")
            parts.append(data)
            held += len(data)
        return b"".join(parts)


def linked_files(fs: Any, url: str, ending: str, deep: bool, depth: int = 0) -> Iterator[str]:
    """The names, relative to `url`, of the files whose names end so that its page links to, and
    with `deep` the pages of folders below.

    Raises:
        FileNotFoundError: there is no such page.
        ShardError: folders lie deeper than 32.
    """
    if depth > _MAX_DEPTH:
        raise ShardError(f"{shown(url)}: folders more than {_MAX_DEPTH} deep (name the files one by one)")
    page, _, query = url.partition("?")
    start = page.rstrip("/") + "/"
    for link in sorted(fs.ls(f"{start}?{query}" if query else start, detail=False)):
        name = unquote(link.partition("?")[0].partition("#")[0])
        if not name.startswith(start) or name == start:
            continue
        name = name[len(start) :]
        if name.endswith("/"):
            if deep and name.count("/") == 1 and not name.startswith("."):
                inside = f"{start}{name}" + (f"?{query}" if query else "")
                for deeper in linked_files(fs, inside, ending, deep, depth + 1):
                    yield f"{name}{deeper}"
        elif "/" not in name and name.endswith(ending):
            yield name
