"""A build to be killed from outside, or one with a shard that kills or fails: `crashing_build.py DIR WORKERS [SHARD]`.

Making the SHARD-th shard of the training split kills the process that does it.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from symile_m3 import shardjob
from symile_m3.build import build
from symile_m3.engines import WorkConfig
from symile_m3.plan import PlanConfig

CONFIG = PlanConfig(
    languages=("el", "en"),
    words=2,
    classes=6,
    train=240,
    val=24,
    test=24,
    clips=(24, 4, 4),
    shard_samples=6,
)
make = shardjob.build_shard


def kill(plan, split, i, media, layout):  # type: ignore[no-untyped-def]
    if (split, i) == ("train", int(sys.argv[3])):
        os.kill(os.getpid(), signal.SIGKILL)
    return make(plan, split, i, media, layout)


if len(sys.argv) > 3:
    shardjob.build_shard = kill
if __name__ == "__main__":
    build(Path(sys.argv[1]), CONFIG, work=WorkConfig(workers=int(sys.argv[2]), retry_wait_s=0.0))
