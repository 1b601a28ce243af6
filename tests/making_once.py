"""What takes long, made by one test process for all of them."""

from __future__ import annotations

import fcntl
from collections.abc import Callable
from pathlib import Path

MadeOnce = Callable[[str, Callable[[Path], None]], Path]


def make_once(shared: Path, name: str, make: Callable[[Path], None]) -> Path:
    """A directory of that name in one that all test processes share; who comes first fills it, and others wait."""
    root = shared / f"once-{name}"
    with (shared / f"once-{name}.lock").open("a+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if lock.seek(0, 2) == 0:  # what failed is tried again by the next, and fails there too
            root.mkdir(exist_ok=True)
            make(root)
            lock.write("made")
    return root
