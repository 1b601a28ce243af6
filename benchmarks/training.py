"""Training at the defaults: the share of time in anything but the model, and what precision, parts and compiling cost.

    python benchmarks/training.py --data DIR    on a dataset of `symile-m3 build --langs 10`; about ten minutes
    python benchmarks/training.py               builds one first
    python benchmarks/training.py --table       the table of what has been measured

A run of 60 steps with one evaluation, twice as often as by default, texts redrawn, against as many updates of the
same model by batches that are in memory already, with nothing else going on in the process: what the run takes beyond
these is in anything but forward, backward and step. The two take turns; processor time is that of all threads, and
what the loader's thread does beside the model counts in full. The features are random numbers of the
shapes of the real ones, which makes no difference to the time. Figures go to benchmarks/results/training.json with
the hardware and the date, the table to benchmarks/results/training.md.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import json
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
from symile_m3.objectives import OBJECTIVES, get_objective
from symile_m3.processes import Place, open_place
from symile_m3.progress import NoProgress
from symile_m3.recipe import RunOptions, TrainConfig
from symile_m3.run import Run
from symile_m3.towers.audio import ConvNet
from symile_m3.towers.image import FEATURES
from symile_m3.train import new_run

RESULTS = Path(__file__).parent / "results"
CONFIG = TrainConfig(steps=60, evaluations=1)
ROUNDS = 2
STEPS = 8  # of a variant
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
        image_NVF=torch.randn(images, CONFIG.features.image_views, FEATURES, generator=draw).half(),
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

    def whole(self, name: str) -> tuple[float, float, dict[str, float]]:
        """Seconds of a run, those of processors, and its own account of them."""
        with tempfile.TemporaryDirectory() as folder:
            run = self.run(name, folder, open_place())
            since, cpu = time.perf_counter(), time.process_time()
            run.train(NoProgress())
            return time.perf_counter() - since, time.process_time() - cpu, run.spent

    def updates(
        self, name: str, precision: str = "32", options: RunOptions | None = None, steps: int = CONFIG.steps
    ) -> tuple[float, float]:
        """Seconds of so many updates with batches that are there already, and those of processors."""
        with tempfile.TemporaryDirectory() as folder:
            run = self.run(name, folder, open_place(precision), options)
            batches: list[Batch] = list(islice(iter(run.loader), KEPT))
            for batch in batches[:2]:  # compiles, and takes memory
                run._take_step(batch)
            run.spent.clear()
            cpu = time.process_time()
            for batch in islice(cycle(batches), steps):
                run._take_step(batch)
            return run.spent["model"], time.process_time() - cpu


def measure(data: Path) -> dict[str, Any]:
    bench = Bench(data)
    bench.updates("symile", steps=5)
    shares: dict[str, Any] = {}
    for name in OBJECTIVES:
        rounds = []
        for _ in range(ROUNDS):
            alone, alone_cpu = bench.updates(name)
            seconds, cpu, spent = bench.whole(name)
            times = {"alone_s": alone, "run_s": seconds, "alone_cpu_s": alone_cpu, "run_cpu_s": cpu}
            rounds.append(
                times | {"outside": 1 - alone / seconds, "outside_cpu": 1 - alone_cpu / cpu, "spent_s": spent}
            )
            print(name, {kind: round(value, 2) for kind, value in times.items()}, flush=True)
        shares[name] = rounds
    variants: dict[str, list[float]] = {variant: [] for variant in VARIANTS}
    for _ in range(ROUNDS):
        for variant, (precision, options) in VARIANTS.items():
            variants[variant].append(bench.updates("symile", precision, options, steps=STEPS)[1] / STEPS)
            print(f"{variant}: {variants[variant][-1] * 1000:.0f} ms of processors a step", flush=True)
    return {
        "date": datetime.date.today().isoformat(),
        "hardware": hardware(torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"),
        "threads": torch.get_num_threads(),
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
        f"one evaluation, texts redrawn, features cached; {ROUNDS} rounds.",
        "",
        "| | run, s | model alone, s | outside the model | run, CPU s | model alone, CPU s | outside the model, of CPU "
        "time | at most |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, rounds in found["shares"].items():
        cells = [name]
        for unit in ("", "_cpu"):
            run_s, alone_s = (median(each[f"{kind}{unit}_s"] for each in rounds) for kind in ("run", "alone"))
            outside = sorted(each[f"outside{unit}"] for each in rounds)
            share = f"**{median(outside):.1%}** ({outside[0]:.1%} to {outside[-1]:.1%})"
            cells += [f"{run_s:.1f}", f"{alone_s:.1f}", share]
        lines.append(f"| {' | '.join(cells)} | {MOST:.0%} |")
    lines += ["", "By the run's own clock, where waiting and the model share the cores:", ""]
    kinds = list(found["shares"]["symile"][0]["spent_s"])
    lines += [f"| share of time | {' | '.join(kinds)} |", "| --- |" + " --- |" * len(kinds)]
    for name, rounds in found["shares"].items():
        shares = [
            median(each["spent_s"].get(kind, 0.0) / sum(each["spent_s"].values()) for each in rounds) for kind in kinds
        ]
        lines.append(f"| {name} | {' | '.join(f'{share:.1%}' for share in shares)} |")
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
