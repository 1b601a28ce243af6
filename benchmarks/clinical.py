"""The clinical preset on arrays with a planted three-way dependence: Symile, CLIP, chance, and with the plant removed.

    python benchmarks/clinical.py                     both; some 15 minutes on two cores
    python benchmarks/clinical.py --only planted      one of them: planted, removed
    python benchmarks/clinical.py --table             the table of what has been measured

The arrays have the published shapes (X-ray 3x320x320, ECG 1x5000x12, 50 percentiles and 50 indicators), see
`symile_m3.planted`, and go through the preset's own reading, training and retrieval among ten. In place of ResNet-50
and ResNet-18, which want an accelerator, stand the small strided nets `conv-image` and `conv-signal`, D 512 in place of
8192, and fewer steps; the perceptron is the preset's. Figures go to benchmarks/results/clinical.json with the hardware
and the date, the table to benchmarks/results/clinical.md.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import json
import os
import tempfile
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from _machine import hardware

from symile_m3.modalities.clinical import clinical
from symile_m3.modalities.declaration import Declaration
from symile_m3.modalities.evaluation import evaluate_declared
from symile_m3.modalities.training import train_declared
from symile_m3.planted import PlantedConfig, write_planted

RESULTS = Path(__file__).parent / "results"
PARTS = {"planted": True, "removed": False}
ARRAYS = PlantedConfig(values=8, train=1500, val=150, test=400, dtype="float16")
TOWERS = {"cxr": "conv-image", "ecg": "conv-signal", "labs": "mlp"}
RECIPE = {"dim": 512, "steps": 200, "epochs": 0.0, "batch_size": 64, "lr": 2e-3, "schedule": "one-cycle"}
RECIPE |= {"evaluations": 2, "beta2": 0.98}


def declaration(arrays: Path) -> Declaration:
    """The preset with smaller towers and a smaller recipe."""
    preset = clinical(arrays)
    modalities = tuple(replace(one, tower=TOWERS[one.name]) for one in preset.config.modalities)
    recipe: dict[str, Any] = {**RECIPE, "modalities": modalities}
    return replace(preset, config=replace(preset.config, **recipe))


def measure(part: str) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        arrays = write_planted(Path(folder) / "arrays", replace(ARRAYS, planted=PARTS[part]))
        since = time.perf_counter()
        runs = train_declared(declaration(arrays), Path(folder) / "runs")
        print(part, *runs, sep="\n", flush=True)
        report = evaluate_declared(Path(folder) / "runs", retrieve=["cxr", "cxr=ecg", "cxr=labs", "ecg", "labs"])
        return {
            "date": datetime.date.today().isoformat(),
            "hardware": hardware(torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"),
            "threads": torch.get_num_threads(),
            "load": round(os.getloadavg()[2], 1),
            "packages": {name: importlib.metadata.version(name) for name in ("torch", "torchvision")},
            "arrays": asdict(replace(ARRAYS, planted=PARTS[part])),
            "ceiling": ARRAYS.ceiling,
            "towers": TOWERS,
            "recipe": RECIPE,
            "seconds": round(time.perf_counter() - since),
            "questions": report["questions"],
        }


def table(found: dict[str, Any]) -> str:
    first = next(iter(found.values()))
    arrays, recipe = first["arrays"], first["recipe"]
    lines = [
        f"### {first['hardware']}, {first['threads']} threads",
        "",
        f"{first['date']}, torch {first['packages']['torch']}. Arrays as published: X-ray "
        f"{'x'.join(map(str, arrays['image']))}, ECG {'x'.join(map(str, arrays['signal']))}, 50 percentiles and 50 "
        f"indicators; {arrays['train']:,} training and {arrays['test']} test samples, {arrays['values']} values. "
        f"Towers {', '.join(first['towers'].values())} in place of ResNet-50, ResNet-18 and the perceptron; "
        f"D {recipe['dim']}, {recipe['steps']} steps of {recipe['batch_size']}. One right candidate among ten: chance "
        f"0.1; as some of the others show the same value, a perfect model reaches {first['ceiling']:.3f}. One run "
        "an objective; 95% intervals over the test samples.",
        "",
        "| | retrieved | Symile | CLIP |",
        "| --- | --- | --- | --- |",
    ]
    for part, result in found.items():
        for question in result["questions"]:
            cells = []
            for name in ("symile", "clip"):
                one = question["results"][name]
                cells.append(f"{one['top1']:.3f} ({one['ci95'][0]:.3f} to {one['ci95'][1]:.3f})")
            what = f"{question['retrieve']} from {' and '.join(question['from'])}"
            lines.append(f"| {'plant removed' if part == 'removed' else part} | {what} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=PARTS, help="one of the two")
    parser.add_argument("--table", action="store_true", help="only write the table")
    words = parser.parse_args()
    path = RESULTS / "clinical.json"
    if not words.table:
        for part in [words.only] if words.only else PARTS:
            result = measure(part)
            known = json.loads(path.read_text()) if path.exists() else {}
            known[part] = result
            path.write_text(json.dumps({name: known[name] for name in PARTS if name in known}, indent=1) + "\n")
    text = table(json.loads(path.read_text()))
    path.with_suffix(".md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
