"""Fetching shards ahead of their need."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Generic, TypeVar

import numpy as np
import numpy.typing as npt

T = TypeVar("T", bound=Hashable)

_THREADS = 4


class Prefetcher(Generic[T]):
    """Does things ahead of their need, in a few background threads that end when there is nothing to do.

    Args:
        action: done with each item. An error is left to whoever needs the item and meets it again.
        threads: how many at a time.
    """

    def __init__(self, action: Callable[[T], object], threads: int = _THREADS) -> None:
        self._action = action
        self._threads = threads
        self._lock = threading.Lock()
        self._queue: deque[T] = deque()
        self._known: set[T] = set()
        self._running = 0

    def submit(self, items: Iterable[T]) -> None:
        """Add items, in this order; those waiting or being done are not added again."""
        with self._lock:
            for item in items:
                if item not in self._known:
                    self._known.add(item)
                    self._queue.append(item)
            start = min(self._threads - self._running, len(self._queue))
            self._running += start
        for _ in range(start):
            threading.Thread(target=self._run, name="symile-m3-fetch", daemon=True).start()

    def _run(self) -> None:
        while True:
            with self._lock:
                if not self._queue:
                    self._running -= 1
                    return
                item = self._queue.popleft()
            try:
                self._action(item)
            except Exception:  # of whatever kind: a thread that ended here would leave its place taken
                pass
            finally:
                with self._lock:
                    self._known.discard(item)


def shards_ahead(
    numbers: Sequence[int] | npt.NDArray[np.int64],
    ends: Sequence[int],
    size_of: Callable[[int], int],
    is_there: Callable[[int], bool],
    limit: int,
) -> list[int]:
    """The shards to fetch ahead for these samples, in this order, as far as the cache has room.

    At most a quarter of the cache is asked for at a time, and nothing once the shards of the samples before
    take half of it, so that what comes later does not drive out what is needed first.

    Args:
        numbers: of the samples, in the order in which they will be read.
        ends: number of samples up to the end of each shard.
        size_of: bytes of a shard.
        is_there: whether a shard need not be fetched.
        limit: bytes that the cache may hold.
    """
    found, first = np.unique(np.searchsorted(ends, np.asarray(numbers), side="right"), return_index=True)
    asked = needed = 0  # bytes: of shards to fetch, and of all shards up to here
    wanted: list[int] = []
    for s in found[np.argsort(first)].tolist():
        size = size_of(s)
        needed += size
        if needed > max(size, limit // 2):
            break
        if not is_there(s):
            asked += size
            if wanted and asked > limit // 4:
                break
            wanted.append(s)
    return wanted
