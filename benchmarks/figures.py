"""The figures of the README: build, train and evaluate each setting through the console script.

    python benchmarks/figures.py                      every setting, one after the other
    python benchmarks/figures.py langs10 langs2       some of them
    python benchmarks/figures.py --table              the table of what has been measured

A setting's figures go to benchmarks/results/figures/<setting>.json, with the hardware, the date, the seconds
and the peak memory of each command; the table is benchmarks/results/figures.md. Symile's peer, pairwise CLIP,
is trained in the same run with the same order, budget and seed. The datasets are drawn with a seed on which no default
was chosen. Needs about ten minutes a setting on two cores.
"""

from __future__ import annotations

import argparse
import datetime
import json
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from _machine import hardware

RESULTS = Path(__file__).parent / "results"
UNSEEN = ["--seed", "1"]  # the defaults were chosen on datasets of seed 0, the recipe by their test samples
# name -> what is special about it: arguments of build, of train, of eval
SETTINGS: dict[str, tuple[list[str], list[str], list[str]]] = {
    "langs10": ([], [], ["--missing-p", "0.5"]),
    "langs5": (["--langs", "5"], [], ["--missing-p", "0.5"]),
    "langs2": (["--langs", "2"], [], ["--missing-p", "0.5"]),
    "langs10-by-sample": (["--split-by", "sample"], [], ["--missing-p", "0.5"]),
    # One triple in eight is complete, so there are four times as many; Symile alone, to compare with langs2.
    "langs2-missing": (
        ["--langs", "2", "--train", "80000"],
        ["--missing-p", "0.5", "--objective", "symile"],
        ["--missing-p", "0.5"],
    ),
}


def run(arguments: list[str]) -> float:
    """Run a command of the console script; its seconds."""
    script = Path(sys.executable).with_name("symile-m3")
    start = time.perf_counter()
    subprocess.run([str(script), *arguments], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def measure(name: str) -> dict[str, Any]:
    """Build, train and evaluate one setting in a temporary directory."""
    build, train, evaluate = SETTINGS[name]
    build = [*build, *UNSEEN]
    folder = Path(tempfile.mkdtemp(prefix=f"symile-m3-{name}-"))
    try:
        data, runs, report = folder / "data", folder / "runs", folder / "report.json"
        seconds = {
            "build": run(["build", *build, "--data", str(data)]),
            "train": run(["train", *train, "--data", str(data), "--runs", str(runs)]),
            "eval": run(["eval", *evaluate, "--data", str(data), "--runs", str(runs), "--json", str(report)]),
        }
        return {
            "setting": name,
            "commands": {"build": build, "train": train, "eval": evaluate},
            "hardware": hardware(),
            "date": datetime.date.today().isoformat(),
            "seconds": {command: round(value, 1) for command, value in seconds.items()},
            # Of the largest process: the figure is the maximum over children, workers included.
            "peak_memory_gb": round(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1e6, 2),
            "dataset_gb": round(sum(path.stat().st_size for path in data.rglob("*") if path.is_file()) / 1e9, 2),
            "report": json.loads(report.read_text(encoding="utf-8")),
        }
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def table() -> str:
    """Every measured setting as a Markdown table."""
    lines = [
        "| setting | Symile top-1 (95%) | CLIP top-1 (95%) | 1/w | image ceiling | "
        "language ceiling | build + train + eval | memory | disk |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    where = set()
    for name in SETTINGS:
        path = RESULTS / "figures" / f"{name}.json"
        if not path.exists():
            continue
        record = json.loads(path.read_text(encoding="utf-8"))
        bounds, seconds = record["report"]["bounds"], record["seconds"]
        cells = [name]
        for objective in ("symile", "clip"):
            result = record["report"]["results"].get(objective)
            if result is None:
                cells.append("")
                continue
            low, high = result["ci95"]
            cells.append(f"**{result['top1']:.3f}** ({low:.3f} to {high:.3f})")
        cells += [
            f"{bounds['text_only']:.3f}",
            f"{bounds['image_ceiling']:.3f}",
            f"{bounds['language_ceiling']:.3f}",
            f"{seconds['build']:.0f} + {seconds['train']:.0f} + {seconds['eval']:.0f} s",
            f"{record['peak_memory_gb']:.1f} GB",
            f"{record['dataset_gb']:.2f} GB",
        ]
        lines.append("| " + " | ".join(cells) + " |")
        where.add(f"{record['hardware']}, {record['date']}")
    lines += ["", *(f"Measured on {place}." for place in sorted(where)), "", *missing_table()]
    return "\n".join(lines) + "\n"


def missing_table() -> list[str]:
    """Symile's accuracy by what was left of the queries, for each measured setting."""
    patterns = ("overall", "both", "text_only", "audio_only", "none")
    lines = [
        "Symile with each query modality hidden with probability 0.5, by what is left of the query:",
        "",
        "| setting | trained with missing | overall | audio and text | text only | audio only | nothing |",
        "|---|---|---|---|---|---|---|",
    ]
    for name in SETTINGS:
        path = RESULTS / "figures" / f"{name}.json"
        if path.exists():
            report = json.loads(path.read_text(encoding="utf-8"))["report"]
            trained = report["results"]["symile"]["trained_with_missing_p"]
            values = [f"{report['missing']['symile'][pattern]:.3f}" for pattern in patterns]
            lines.append("| " + " | ".join([name, f"p = {trained:g}", *values]) + " |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("settings", nargs="*", choices=[*SETTINGS, []], help="which to measure; by default all")
    parser.add_argument("--table", action="store_true", help="measure nothing")
    arguments = parser.parse_args()
    (RESULTS / "figures").mkdir(parents=True, exist_ok=True)
    for name in [] if arguments.table else arguments.settings or list(SETTINGS):
        record = measure(name)
        (RESULTS / "figures" / f"{name}.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    text = table()
    (RESULTS / "figures.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
