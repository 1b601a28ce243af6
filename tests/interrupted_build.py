"""A build that kills itself: `interrupted_build.py DIR WORKERS PHASE COUNT`.

In phase `media` the process is killed when COUNT media have been made, in phase `shards` when COUNT media
have been written to shards; with several workers the first worker to get there kills the main process.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from symile_m3.build import build
from symile_m3.mediastore import MediaStore
from symile_m3.plan import PlanConfig
from symile_m3.speech import EspeakPool

CONFIG = PlanConfig(
    languages=("el", "en"),
    words=2,
    classes=8,
    train=48,
    val=16,
    test=16,
    clips=(80, 8, 8),
    shard_samples=16,
)


def kill_after(function: Callable[..., Any], count: int) -> Callable[..., Any]:
    calls = 0

    def counted(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls > count:
            os.kill(main, signal.SIGKILL)
        return function(*args, **kwargs)

    return counted


root, workers, phase, count = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3], int(sys.argv[4])
main = os.getpid() if __name__ == "__main__" else os.getppid()
if __name__ != "__main__" or workers == 1:  # a worker imports this file under another name
    if phase == "media":
        EspeakPool.make = kill_after(EspeakPool.make, count)  # type: ignore[method-assign]
    else:
        MediaStore.read = kill_after(MediaStore.read, count)  # type: ignore[method-assign]
if __name__ == "__main__":
    build(root, CONFIG, workers=workers)
