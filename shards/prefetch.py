"""Fetching shards ahead of their need."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable

from symile_m3.shards.index import ShardInfo

_THREADS = 4


class Prefetcher:
    """Does things ahead of their need, in a few background threads that end when there is nothing to do.

    Args:
        action: done with each item. An error is left to whoever needs the item and meets it again.
        threads: how many at a time.
    """

    def __init__(self, action: Callable[[ShardInfo], object], threads: int = _THREADS) -> None:
        self._action = action
        self._threads = threads
        self._lock = threading.Lock()
        self._queue: deque[ShardInfo] = deque()
        self._known: set[str] = set()
        self._running = 0

    def submit(self, items: Iterable[ShardInfo]) -> None:
        """Add items, in this order; those waiting or being done are not added again."""
        with self._lock:
            for item in items:
                if item.name not in self._known:
                    self._known.add(item.name)
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
                    self._known.discard(item.name)
