"""The root of the exception tree, and the errors of the on-disk format.

The root lives here because `symile_m3.shards` imports nothing of the rest of the package;
`symile_m3.errors` draws the whole tree.
"""

from __future__ import annotations

import errno
from pathlib import Path


class SymileM3Error(Exception):
    """Every error this package raises on purpose: one line saying what, where, and what to do."""


class ShardError(SymileM3Error):
    """A shard, its index or its directory is missing, malformed or not what its record says."""


def cannot_read(path: Path, error: OSError) -> ShardError:
    """What is said when the system does not give a file to read."""
    advice = " (give readers a smaller max_open, or raise `ulimit -n`)" if error.errno == errno.EMFILE else ""
    return ShardError(f"{path}: cannot be read: {error.strerror}{advice}")


class DamagedSampleError(ShardError):
    """One sample of a shard cannot be read.

    Attributes:
        shard: file name of the shard.
        key: key of the sample, or its position in the shard where the key itself is unreadable.
    """

    def __init__(self, shard: str, key: str, reason: str) -> None:
        super().__init__(f"{shard}: sample {key}: {reason} (build or fetch the shard anew, or skip bad samples)")
        self.shard = shard
        self.key = key
        self.reason = reason

    def __reduce__(self) -> tuple[type[DamagedSampleError], tuple[str, str, str]]:
        return type(self), (self.shard, self.key, self.reason)
