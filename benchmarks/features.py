"""Half-precision features against full: the error of a feature, and the change of test top-1.

Encodes a dataset twice with the same backbones, trains Symile on both with one seed, and evaluates both; then it
evaluates the run on half-precision features once more with full ones, which shows rounding alone. Works on a copy of
the dataset that the script makes and removes; without --data, on one of 2 languages and 40 classes.

    python benchmarks/features.py --data data/m3 --steps 500
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

from _machine import hardware

from symile_m3.build import build
from symile_m3.cli.progress import open_progress
from symile_m3.evaluate import evaluate
from symile_m3.features import load_features, open_dataset
from symile_m3.plan import PlanConfig
from symile_m3.recipe import PRESETS
from symile_m3.train import train


def top1(data: Path, runs: Path) -> tuple[float, int]:
    """Test top-1 of the Symile run, and the number of queries."""
    result = evaluate(data, runs, progress=open_progress())["results"]["symile"]
    return result["top1"], result["n"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--preset", default="quickstart")
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--batch-size", type=int, default=512)
    parser.add_argument("--set", dest="settings", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()

    half = replace(PRESETS[options.preset], steps=options.steps, epochs=0.0, batch_size=options.batch_size)
    half = half.with_settings(options.settings)
    full = replace(half, features=replace(half.features, precision="full"))
    with tempfile.TemporaryDirectory() as folder:
        data, runs = Path(folder) / "data", Path(folder) / "runs"
        if options.data is None:
            build(data, PlanConfig(languages=("el", "en"), words=2, classes=40, train=3000, val=200, test=2000))
        else:
            shutil.copytree(options.data, data, ignore=shutil.ignore_patterns("features", "lock"))
        progress = open_progress()
        dataset = open_dataset(data)
        exact, kept = (load_features(dataset, config.features, progress) for config in (full, half))
        errors = {}
        for kind, one, other in (
            ("image", exact.image_NVF, kept.image_NVF.float()),
            ("audio", exact.clip_NF, kept.clip_NF.float()),
        ):
            errors[kind] = float((one - other).norm() / one.norm())
        for name, config in (("half", half), ("full", full)):
            train(data, runs / name, objectives=["symile"], config=config, progress=progress)
        figures = {name: top1(data, runs / name)[0] for name in ("half", "full")}
        path = runs / "half" / "symile" / "config.json"
        record = json.loads(path.read_text())
        record["features"]["precision"] = "full"
        path.write_text(json.dumps(record))
        figures["half, evaluated with full"], queries = top1(data, runs / "half")
    print(f"relative error of a feature (root mean square): image {errors['image']:.1e}, audio {errors['audio']:.1e}")
    for name, value in figures.items():
        print(f"test top-1, {name}: {value:.4f} of {queries} queries")
    report = {"hardware": hardware(), "errors": errors, "top1": figures, "queries": queries, "steps": options.steps}
    if options.json:
        options.json.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
