"""One file of a remote dataset to the disk: in pieces, resumed, tried again, and checked."""

from __future__ import annotations

import errno
import hashlib
import os
from io import FileIO
from pathlib import Path
from typing import Any

from symile_m3.shards.errors import ShardError
from symile_m3.shards.storage import RemoteStorage

_LEAST_CHUNK = 1 << 16
_COPY = 1 << 20
PART = ".part"
_WHOLE_TRIES = 2
_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def download(
    storage: RemoteStorage, name: str, to: Path, *, filesize: int, sha256: str | None, chunk_bytes: int
) -> str:
    """Make `to` the content of a remote file, going on with what is there of it from an earlier, broken-off try.

    A failure that may pass is tried again as the storage's RetryConfig says, from the byte where it stopped;
    the count of failures begins anew whenever bytes have come. If the whole has the wrong SHA-256 it is
    fetched once more from the beginning. `to` must be this process's alone.

    Args:
        storage: where the file lies.
        name: of the file in it.
        to: on the disk; it holds what has come so far whenever this ends without success.
        filesize: in bytes.
        sha256: of the whole, in hexadecimal; None where it is not known.
        chunk_bytes: to a request, where the store gives ranges; less after a failure.

    Returns:
        The SHA-256 of what has come, in hexadecimal.

    Raises:
        ShardError: the file is missing, cannot be had, or is not what its record says; the disk is full.
    """
    tries = 0
    while tries < _WHOLE_TRIES:
        digest, held = _digest_of(to, filesize)
        tries += held == 0  # what an earlier process left may be anything, and is not held against the store
        with _opened(to, held) as file:
            _fetch(storage, name, file, digest, held, filesize, chunk_bytes)
        found = str(digest.hexdigest())
        if sha256 is None or found == sha256:
            return found
        to.unlink()
    shard = to.name.removesuffix(PART)
    raise ShardError(
        f"{shard}: {storage.root}/{name} does not have the SHA-256 recorded in index.json, "
        f"{_WHOLE_TRIES} times over (altered or replaced: build it again there)"
    )


def _fetch(
    storage: RemoteStorage, name: str, file: FileIO, digest: Any, held: int, filesize: int, chunk_bytes: int
) -> None:
    """Append the bytes from `held` on to the file and to the digest."""
    patience = storage.patience(name)
    while held < filesize:
        try:
            for data in storage.read_from(name, held, filesize, chunk_bytes):
                _write(file, data)
                digest.update(data)
                held += len(data)
                patience.progressed()
        except ShardError:
            raise
        except Exception as error:  # a file system may raise anything
            if not patience.wait(error):
                raise storage.failed(name, f"read beyond {held:,} of {filesize:,} bytes", error) from error
            chunk_bytes = max(_LEAST_CHUNK, chunk_bytes // 2)
    try:
        os.fsync(file.fileno())
    except OSError as error:
        raise _refused(Path(file.name), error) from error


def _write(file: FileIO, data: bytes) -> None:
    left = memoryview(data)
    try:
        while left:
            left = left[file.write(left) :]
    except OSError as error:
        raise _refused(Path(file.name), error) from error


def _opened(path: Path, held: int) -> FileIO:
    try:
        file = FileIO(path, "r+" if held else "w")
        file.seek(held)
        file.truncate()
    except OSError as error:
        raise _refused(path, error) from error
    return file


def _digest_of(path: Path, filesize: int) -> tuple[Any, int]:
    """The SHA-256 of what is there so far, and its length; a file that is too long counts for nothing."""
    digest, held = hashlib.sha256(), 0
    try:
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_size > filesize:
                return digest, 0
            while part := file.read(_COPY):
                digest.update(part)
                held += len(part)
    except FileNotFoundError:
        return digest, 0
    except OSError as error:
        raise _refused(path, error) from error
    return digest, held


def _refused(path: Path, error: OSError) -> ShardError:
    advice = " (make room, or give the cache less of it: see CacheConfig)" if error.errno in _NO_ROOM else ""
    return ShardError(f"{path}: cannot be written: {error.strerror or error}{advice}")
