"""Reading single samples of a remote shard, without fetching the shard."""

from __future__ import annotations

from pathlib import Path

from symile_m3.shards.errors import ShardError
from symile_m3.shards.index import ShardIndex
from symile_m3.shards.shard_reader import ShardReader
from symile_m3.shards.storage import RemoteStorage


class NoRangesError(ShardError):
    """A server sends only whole files."""


class RangeReader(ShardReader):
    """A shard of which every sample read is one request, or a few where its members lie apart.

    Samples are checked as those of a shard on the disk are. It is for looking at a few samples: whoever reads
    many is served better by fetching the shard.

    Args:
        storage: of the dataset.
        name: of the tar in it.
        index: where its members lie.
        check: whether to compare each member read with its checksum.
    """

    def __init__(self, storage: RemoteStorage, name: str, index: ShardIndex, *, check: bool = True) -> None:
        super().__init__(Path(name), index, check=check)
        self._storage = storage

    def _open(self) -> RemoteBytes:
        self._file = RemoteBytes(self._storage, self.path.as_posix(), self.index.filesize)
        return self._file


class RemoteBytes:
    """The bytes of a remote file, by ranges."""

    def __init__(self, storage: RemoteStorage, name: str, filesize: int) -> None:
        self._storage = storage
        self._name = name
        self._filesize = filesize

    def read(self, at: int, size: int) -> bytes:
        """`size` bytes from `at` on, or fewer where the file ends before.

        Raises:
            NoRangesError: the server sends only whole files.
            ShardError: they cannot be had.
        """
        try:
            data = self._storage.read_range(self._name, at, min(at + size, self._filesize))
        except FileNotFoundError:
            raise ShardError(f"{self._storage.root}/{self._name}: no such file") from None
        if data is None:
            raise NoRangesError(f"{self._storage.root}/{self._name}: the server sends only whole files")
        return data
