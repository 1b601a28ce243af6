"""The files of a dataset in a directory; see `storage`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from symile_m3.shards.atomic import replacing, write_bytes
from symile_m3.shards.errors import ShardError
from symile_m3.shards.urls import checked_name

T = TypeVar("T")

_COPY = 1 << 20


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
