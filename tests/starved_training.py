"""Training whose memory is cut off after its first step: `starved_training.py DATA RUNS`, or a declaration for DATA.

To be run by `starved`, so that what is freed is given back.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from symile_m3.errors import TrainingError
from symile_m3.features import FeatureConfig
from symile_m3.modalities.declaration import read_declaration
from symile_m3.modalities.training import train_declared
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


def starved(data: Path, runs: Path) -> str:
    """What such training says, in a process of its own."""
    done = subprocess.run(
        [sys.executable, __file__, str(data), str(runs)],
        capture_output=True,
        text=True,
        timeout=240,
        env={**os.environ, "OMP_NUM_THREADS": "1", "MALLOC_MMAP_THRESHOLD_": "65536"},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


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
    data, runs = map(Path, sys.argv[1:])
    try:
        if data.suffix == ".toml":
            train_declared(read_declaration(data), runs, objectives=["symile"], progress=Starving())
        else:
            train(data, runs, objectives=["symile"], config=CONFIG, progress=Starving())
    except TrainingError as error:
        print(error)
