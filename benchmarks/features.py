"""Half-precision features against full: the error of a feature, and the change of test top-1.

    python benchmarks/features.py                    builds the data of `symile-m3 build` first
    python benchmarks/features.py --data data/m3     a copy of a dataset that is there

Encodes the media once and keeps the features in full precision; rounding them gives what is kept in half. Trains each
objective on the half-precision features by the default recipe with fewer steps, and evaluates these weights with both:
backbones, weights and queries are the same, so that what changes is rounding alone. Beside it, how many queries find
the right image with one and not with the other. Works on a copy of the dataset, which it makes and removes; features in
full precision that lie there are used. The table is printed and written to benchmarks/results/features.md, with JSON
beside it.
"""

from __future__ import annotations

import argparse
import datetime
import json
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

import torch
from _machine import hardware

from symile_m3.assembly import load_best, new_model, new_tokeniser
from symile_m3.build import build
from symile_m3.checkpoints import BEST
from symile_m3.cli.progress import open_progress
from symile_m3.features import Dataset, Features, load_features, open_dataset
from symile_m3.languages import SETS
from symile_m3.measures import Asked, measure
from symile_m3.objectives import get_objective
from symile_m3.plan import PlanConfig
from symile_m3.processes import open_place
from symile_m3.questions import Questions
from symile_m3.recipe import PRESETS, TrainConfig
from symile_m3.train import new_run

RESULTS = Path(__file__).parent / "results"
BUILT = PlanConfig(languages=SETS[10], words=10, classes=250, train=20_000, val=2_000, test=2_000)
"""What `symile-m3 build` makes unless told otherwise."""


def right(dataset: Dataset, features: Features, name: str, config: TrainConfig, run: Path) -> torch.Tensor:
    """(Q,) whether each test query finds an image of its class, by the best weights of a run."""
    objective, tokeniser = get_objective(name, config.negatives), new_tokeniser(dataset, config)
    model = new_model(dataset, features, objective, config)
    load_best(model, run / BEST)
    questions = Questions.of_split(dataset, features, "test", tokeniser)
    return measure(model, objective, questions, tokeniser, Asked()).ranks_Q == 1


def error(exact: torch.Tensor, kept: torch.Tensor) -> float:
    """Relative error, root mean square."""
    return float((exact - kept.float()).norm() / exact.norm())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="a dataset, which is copied; without it one is built")
    parser.add_argument("--objective", action="append", help="default: symile and clip")
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--set", dest="settings", action="append", default=["dim=1024"], metavar="KEY=VALUE")
    options = parser.parse_args()

    names = options.objective or ["symile", "clip"]
    config = replace(PRESETS["default"], steps=options.steps, epochs=0.0, batch_size=options.batch_size)
    config = config.with_settings([*options.settings, "features.precision=half"])
    progress = open_progress()
    with tempfile.TemporaryDirectory() as folder:
        data, runs = Path(folder) / "data", Path(folder) / "runs"
        if options.data is None:
            build(data, BUILT, progress=progress)
        else:
            shutil.copytree(options.data, data, ignore=shutil.ignore_patterns("lock"))
        dataset = open_dataset(data)
        full = load_features(dataset, replace(config.features, precision="full"), progress)
        half = replace(full, image_NVF=full.image_NVF.half(), clip_NF=full.clip_NF.half())
        errors = {"image": error(full.image_NVF, half.image_NVF), "audio": error(full.clip_NF, half.clip_NF)}
        found = {}
        for name in names:
            (runs / name).mkdir(parents=True)
            objective = get_objective(name, config.negatives)
            new_run(dataset, half, objective, config, runs / name, open_place(config.precision)).train(progress)
            with_half, with_full = (right(dataset, of, name, config, runs / name) for of in (half, full))
            found[name] = {
                "top1_half": float(with_half.double().mean()),
                "top1_full": float(with_full.double().mean()),
                "only_half": int((with_half & ~with_full).sum()),
                "only_full": int((with_full & ~with_half).sum()),
            }
        plan, queries = dataset.plan, len(with_half)

    report = {
        "hardware": hardware(),
        "date": datetime.date.today().isoformat(),
        "torch": torch.__version__,
        "languages": len(plan.lexicon.languages),
        "classes": len(plan.lexicon),
        "samples": dict(plan.config.sizes),
        "dim": config.model.dim,
        "batch_size": config.batch_size,
        "steps": config.steps,
        "backbones": {"image": config.features.image, "audio": config.features.audio},
        "errors": errors,
        "queries": queries,
        "objectives": found,
    }
    rows = [
        f"| {name} | {of['top1_half']:.4f} | {of['top1_full']:.4f} | {of['top1_full'] - of['top1_half']:+.4f} | "
        f"{of['only_half']} | {of['only_full']} |"
        for name, of in found.items()
    ]
    text = "\n".join(
        [
            "# Features kept in half precision",
            "",
            f"`benchmarks/features.py`, {report['hardware']}, {report['date']}, torch {report['torch']}.",
            "",
            f"{report['languages']} languages, {report['classes']} classes, {plan.config.train:,} training samples;",
            f"{config.features.image} and {config.features.audio}; D {config.model.dim:,}, batches of "
            f"{config.batch_size}, {config.steps} steps, the default recipe otherwise,",
            f"one seed. Trained on half-precision features; the same weights retrieve for {queries:,} test queries "
            "with both kinds.",
            "",
            "| | top-1 with half | with full | change | right with half only | with full only |",
            "| --- | --- | --- | --- | --- | --- |",
            *rows,
            "",
            f"Relative error of a feature, root mean square: image {errors['image']:.1e}, audio {errors['audio']:.1e}.",
            "",
        ]
    )
    print(text)
    (RESULTS / "features.md").write_text(text, encoding="utf-8")
    (RESULTS / "features.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
