"""Files that appear whole or not at all.

A file is written under a temporary name in its own directory, flushed to the disk, and renamed. Whoever
opens the final name sees the old content or the new, never a part, whatever is killed when.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from symile_m3.shards.errors import ShardError

_HOST = re.sub(r"[^A-Za-z0-9_]", "_", socket.gethostname())[:32]
_TEMP = re.compile(r".+\.tmp-(?P<host>[A-Za-z0-9_]*)-(?P<pid>\d+)-[0-9a-f]{8}")
_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_NO_RIGHT = {errno.EROFS, errno.EACCES, errno.EPERM}


class AtomicFile:
    """A binary file open for writing, not yet under its final name.

    Attributes:
        path: the final name.
        nbytes: how much has been written.
    """

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self.path = path
        self.nbytes = 0
        self._file = file

    def write(self, data: bytes) -> None:
        """Append `data`.

        Raises:
            ShardError: the disk does not take it.
        """
        try:
            self._file.write(data)
        except OSError as error:
            raise _refused(self.path, error) from error
        self.nbytes += len(data)


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[AtomicFile]:
    """Write the file `path` anew: it takes its name, and the place of an older one, when the block ends.

    If the block raises, the temporary file is removed and an older `path` stays as it was. Missing parent
    directories are made.

    Raises:
        ShardError: the file cannot be written; one line with its name and the reason.
    """
    temp = path.with_name(f"{path.name}.tmp-{_HOST}-{os.getpid()}-{secrets.token_hex(4)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        raw = temp.open("xb", buffering=1 << 20)
    except OSError as error:
        raise _refused(path, error) from error
    try:
        yield AtomicFile(path, raw)
        try:
            raw.flush()
            os.fsync(raw.fileno())
            raw.close()
            temp.replace(path)
            _sync_directory(path.parent)
        except OSError as error:
            raise _refused(path, error) from error
    except BaseException:
        with contextlib.suppress(OSError):  # closing flushes what the full disk has just refused
            raw.close()
        with contextlib.suppress(OSError):
            temp.unlink(missing_ok=True)
        raise


def write_bytes(path: Path, data: bytes) -> None:
    """Make `data` the content of the file, whole or not at all.

    Raises:
        ShardError: the file cannot be written.
    """
    with replacing(path) as file:
        file.write(data)


def write_text(path: Path, text: str) -> None:
    """Make `text`, in UTF-8, the content of the file, whole or not at all.

    Raises:
        ShardError: the file cannot be written.
    """
    write_bytes(path, text.encode())


def sweep(directory: Path, *, foreign_age_s: float = 86_400.0) -> list[Path]:
    """Remove the temporary files that killed writers left in a directory.

    What a live process of this machine is still writing stays. Whether a process of another machine lives
    cannot be known, so its files go once they have not changed for `foreign_age_s` seconds.

    Returns:
        The files removed, sorted. A directory that does not exist has none.
    """
    removed = []
    now = time.time()
    for path in sorted(directory.iterdir()) if directory.is_dir() else []:
        match = _TEMP.fullmatch(path.name)
        if match is None:
            continue
        with contextlib.suppress(FileNotFoundError):
            if match["host"] == _HOST:
                stale = not alive(int(match["pid"]))
            else:
                stale = now - path.stat().st_mtime > foreign_age_s
            if stale:
                path.unlink()
                removed.append(path)
    return removed


def alive(pid: int) -> bool:
    """Whether there is a process of this number on this machine."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _sync_directory(directory: Path) -> None:
    fd = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(fd)
    except OSError as error:
        if error.errno != errno.EINVAL:  # some network file systems know no fsync of a directory
            raise
    finally:
        os.close(fd)


def _refused(path: Path, error: OSError) -> ShardError:
    advice = ""
    if error.errno in _NO_ROOM:
        advice = " (make room and run the same command again)"
    elif error.errno in _NO_RIGHT:
        advice = " (choose a directory that can be written)"
    return ShardError(f"{path}: cannot be written: {error.strerror or error}{advice}")
