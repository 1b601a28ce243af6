"""Training whose memory is cut off after its first step: `starved_training.py DATA RUNS`.

To be run with MALLOC_MMAP_THRESHOLD_=65536, so that what is freed is given back.
"""

from __future__ import annotations

import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from symile_m3.errors import TrainingError
from symile_m3.features import FeatureConfig
from symile_m3.model import ModelConfig
from symile_m3.progress import NoProgress
from symile_m3.recipe import TrainConfig
from symile_m3.train import train

CONFIG = TrainConfig(
    features=FeatureConfig(image_views=2, audio_steps=4),
    model=ModelConfig(dim=1 << 15, image_hidden=8, audio_hidden=4, text_buckets=16),
    steps=3,
    batch_size=64,
    evaluations=1,
)


class Starving(NoProgress):
    """Leaves the process no more memory than it has, once it has taken a step."""

    @contextmanager
    def task(self, label: str, total: int, unit: str, done: int = 0) -> Iterator[Any]:
        class Counting:
            steps = 0

            def advance(self, count: int = 1, note: str = "") -> None:
                self.steps += count
                if label == "symile" and self.steps == 1 and count:
                    status = Path("/proc/self/status").read_text(encoding="ascii")
                    size = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmSize"))
                    resource.setrlimit(resource.RLIMIT_AS, (size * 1024 + (1 << 20), resource.RLIM_INFINITY))

        yield Counting()


if __name__ == "__main__":
    try:
        train(sys.argv[1], Path(sys.argv[2]), objectives=["symile"], config=CONFIG, progress=Starving())
    except TrainingError as error:
        print(error)
