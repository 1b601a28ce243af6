"""Training at the defaults: the share of time in anything but the model; and what precision, parts and compiling cost.

    python benchmarks/training.py --data DIR    on a dataset of `symile-m3 build --langs 10`; about ten minutes
    python benchmarks/training.py               builds one first
    python benchmarks/training.py --table       the table of what has been measured

A run of 120 steps with one evaluation, which is as often as by default, texts redrawn, by its own clock; and the time
that the loader needs for as many batches with nothing else going on. In a run most of that passes beside the model,
in a thread; the second share counts it in full, as if none did. The features are random numbers of the
shapes of the real ones, which makes no difference to the time. Figures go to benchmarks/results/training.json with
the hardware and the date, the table to benchmarks/results/training.md.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import json
import os
import subprocess
import sys
import tempfile
import time
from itertools import cycle, islice
from pathlib import Path
from statistics import median
from typing import Any

import torch
from _machine import hardware

from symile_m3.batches import Batch
from symile_m3.features import Dataset, Features, open_dataset
from symile_m3.objectives import get_objective
from symile_m3.processes import Place, open_place
from symile_m3.progress import NoProgress
from symile_m3.recipe import RunOptions, TrainConfig
from symile_m3.run import Run
from symile_m3.towers.audio import ConvNet
from symile_m3.train import new_run

RESULTS = Path(__file__).parent / "results"
CONFIG = TrainConfig(steps=120, evaluations=1)
IMAGE_FEATURES = 1280  # of EfficientNet-Lite0
OBJECTIVES = ("symile", "clip")
ROUNDS = 2
STEPS = 8  # of a variant
LOADER = "loader alone"
WAITING = "waiting for samples"
KEPT = 8  # batches in memory
MOST = 0.10  # share of time outside the model
VARIANTS = {
    "as it is": ("32", RunOptions()),
    "bf16": ("bf16", RunOptions()),
    "4 parts": ("32", RunOptions(micro_batch=CONFIG.batch_size // 4)),
    "compiled": ("32", RunOptions(compile=True)),
}


def random_features(dataset: Dataset) -> Features:
    """Of the shapes that the default towers give."""
    draw = torch.Generator().manual_seed(0)
    images, clips = len(dataset.images.row_of), len(dataset.clips.row_of)
    return Features(
        image_NVF=torch.randn(images, CONFIG.features.image_views, IMAGE_FEATURES, generator=draw).half(),
        clip_NF=torch.randn(clips, ConvNet().features, generator=draw).half(),
        clip_mask_NT=None,
    )


class Bench:
    """The dataset, and runs on it."""

    def __init__(self, data: Path) -> None:
        self.dataset = open_dataset(data)
        self.features = random_features(self.dataset)

    def run(self, name: str, folder: str, place: Place, options: RunOptions | None = None) -> Run:
        objective = get_objective(name)
        return new_run(self.dataset, self.features, objective, CONFIG, Path(folder), place, options=options)

    def account(self, name: str) -> dict[str, float]:
        """Seconds of a run by kind, and of its loader alone."""
        with tempfile.TemporaryDirectory() as folder:
            run = self.run(name, folder, open_place())
            run.train(NoProgress())
            run.loader.set_epoch(0)
            since = time.perf_counter()
            batches = 0
            while batches < CONFIG.steps:
                batches += sum(1 for _ in islice(iter(run.loader), CONFIG.steps - batches))
            return run.spent | {LOADER: time.perf_counter() - since}

    def updates(self, name: str, precision: str = "32", options: RunOptions | None = None, steps: int = STEPS) -> float:
        """Processor seconds of so many updates with batches that are there already."""
        with tempfile.TemporaryDirectory() as folder:
            run = self.run(name, folder, open_place(precision), options)
            batches: list[Batch] = list(islice(iter(run.loader), KEPT))
            for batch in batches[:2]:  # compiles, and takes memory
                run._take_step(batch)
            cpu = time.process_time()
            for batch in islice(cycle(batches), steps):
                run._take_step(batch)
            return time.process_time() - cpu


def measure(data: Path) -> dict[str, Any]:
    bench = Bench(data)
    bench.updates("symile", steps=5)
    shares: dict[str, Any] = {}
    for name in OBJECTIVES:
        shares[name] = []
        for _ in range(ROUNDS):
            shares[name].append(bench.account(name))
            print(name, {kind: round(seconds, 2) for kind, seconds in shares[name][-1].items()}, flush=True)
    variants: dict[str, list[float]] = {variant: [] for variant in VARIANTS}
    for _ in range(ROUNDS):
        for variant, (precision, options) in VARIANTS.items():
            variants[variant].append(bench.updates("symile", precision, options) / STEPS)
            print(f"{variant}: {variants[variant][-1] * 1000:.0f} ms of processors a step", flush=True)
    return {
        "date": datetime.date.today().isoformat(),
        "hardware": hardware(torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"),
        "threads": torch.get_num_threads(),
        "load": round(os.getloadavg()[2], 1),  # of the last 15 minutes, this included
        "packages": {name: importlib.metadata.version(name) for name in ("torch", "lightning-fabric")},
        "batch_size": CONFIG.batch_size,
        "dim": CONFIG.model.dim,
        "shares": shares,
        "step_s": variants,
    }


def table(found: dict[str, Any]) -> str:
    packages = ", ".join(f"{name} {version}" for name, version in found["packages"].items())
    lines = [
        f"### {found['hardware']}, {found['threads']} threads",
        "",
        f"{found['date']}, {packages}. Batches of {found['batch_size']}, D {found['dim']}, {CONFIG.steps} steps with "
        f"one evaluation, texts redrawn, features cached; {ROUNDS} rounds. "
        f"Load of the machine, this included: {found['load']}.",
        "",
        "| | outside the model | as if nothing of the loader's work passed beside it | at most |",
        "| --- | --- | --- | --- |",
    ]
    for name, rounds in found["shares"].items():
        beside, after = [], []
        for spent in rounds:
            others = sum(spent[kind] for kind in spent if kind not in ("model", WAITING, LOADER))
            beside.append((others + spent[WAITING]) / (others + spent[WAITING] + spent["model"]))
            after.append((others + spent[LOADER]) / (others + spent[LOADER] + spent["model"]))
        cells = [f"**{median(each):.1%}** ({min(each):.1%} to {max(each):.1%})" for each in (beside, after)]
        lines.append(f"| {name} | {' | '.join(cells)} | {MOST:.0%} |")
    kinds = list(found["shares"]["symile"][0])
    lines += ["", f"| ms a step | {' | '.join(kinds)} |", "| --- |" + " --- |" * len(kinds)]
    for name, rounds in found["shares"].items():
        times = [median(spent[kind] for spent in rounds) / CONFIG.steps * 1000 for kind in kinds]
        lines.append(f"| {name} | {' | '.join(f'{ms:.1f}' for ms in times)} |")
    plain = found["step_s"]["as it is"]
    lines += ["", "| an update of Symile | CPU ms | times as long | rounds |", "| --- | --- | --- | --- |"]
    for variant, seconds in found["step_s"].items():
        ratios = sorted(one / other for one, other in zip(seconds, plain, strict=True))
        lines.append(
            f"| {variant} | {median(seconds) * 1000:.0f} | {median(ratios):.2f} | {ratios[0]:.2f} to {ratios[-1]:.2f} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="a dataset of `symile-m3 build --langs 10`")
    parser.add_argument("--table", action="store_true", help="only write the table")
    words = parser.parse_args()
    path = RESULTS / "training.json"
    if not words.table:
        with tempfile.TemporaryDirectory() as folder:
            data = words.data or Path(folder) / "data"
            if words.data is None:
                build = [sys.executable, "-m", "symile_m3.cli", "build", "--langs", "10", "--data", str(data)]
                subprocess.run(build, check=True)
            path.write_text(json.dumps(measure(data), indent=1) + "\n")
    text = table(json.loads(path.read_text()))
    path.with_suffix(".md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
