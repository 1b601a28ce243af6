"""A build to be killed from outside: `uploading_build.py DIR|URL`."""

from __future__ import annotations

import sys

from symile_m3.build import build
from symile_m3.engines import WorkConfig
from symile_m3.plan import PlanConfig

CONFIG = PlanConfig(
    languages=("el", "en"), words=2, classes=4, train=48, val=4, test=4, clips=(12, 2, 2), shard_samples=2
)
SHARDS = 28

if __name__ == "__main__":
    build(sys.argv[1], CONFIG, work=WorkConfig(workers=1))
