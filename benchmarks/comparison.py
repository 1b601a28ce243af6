"""The comparisons of docs/RESULTS.md: objectives, negatives, and accuracy against one thing at a time.

    python benchmarks/comparison.py                    all of them, at the budget of the page: many hours on a CPU
    python benchmarks/comparison.py --only objectives  some of them: names as --list shows them
    python benchmarks/comparison.py --steps 300 --seeds 2 --tune 4 --dim 512 --batch-size 256
    python benchmarks/comparison.py --list             the commands

Each is a command of symile-m3, run as a user would; interrupted, the same command goes on where it stopped. Data and
runs are kept in --out. Figures go to benchmarks/results/comparison.json with the hardware and the date, tables to
benchmarks/results/comparison.md, and plots to benchmarks/results/comparison-NAME.png; what is not run keeps the
figures that it had.
"""

from __future__ import annotations

import argparse
import datetime
import json
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

from _machine import hardware

RESULTS = Path(__file__).parent / "results"
TITLES = {
    "objectives": "Objectives by number of languages",
    "faces": "Symile with the negatives `faces`, as the objectives above",
    "negatives": "Symile's negatives: time to an accuracy",
    "steps": "Accuracy against steps",
    "batch": "Accuracy against the batch size",
    "dim": "Accuracy against D",
    "classes": "Accuracy against K, the number of classes",
    "languages": "Accuracy against the number of languages",
    "samples": "Accuracy against training samples",
    "missing": "Accuracy against p missing in training",
}


def commands(words: argparse.Namespace) -> dict[str, list[str]]:
    """The words behind `symile-m3 compare` of each comparison, at this budget."""
    from symile_m3.objectives import OBJECTIVES

    names = words.objectives.split(",") if words.objectives else list(OBJECTIVES)
    scaled = [name for name in words.scaled.split(",") if name in names]
    jobs = ["--jobs", str(words.jobs)] if words.jobs else []
    budget = ["--seeds", str(words.seeds), "--steps", str(words.steps), "--set", f"dim={words.dim}"]
    budget += ["--set", f"batch_size={words.batch_size}"]
    work = [*jobs, "--threads", str(words.threads), "--out", str(words.out)]
    tune = ["--tune", str(words.tune)] if words.tune else []

    def of(objectives: list[str]) -> list[str]:
        return [word for name in objectives for word in ("--objective", name)]

    def over(key: str, values: list[object]) -> list[str]:
        return ["--over", f"{key}={','.join(map(str, values))}", *of(scaled), *budget, *tune, *work]

    steps = [max(1, words.steps * part // 8) for part in (1, 2, 4, 8, 16)]
    return {
        "objectives": ["--langs", words.langs, *of(names), *budget, *tune, *work],
        "faces": ["--langs", words.langs, *of(["symile"]), "--set", "negatives=faces", *budget, *tune, *work],
        "negatives": [
            *("--over", "negatives=n,n:8,faces,n2", *of(["symile"]), *budget, "--set", "evaluations=40"),
            *("--reach", "0.5", "--jobs", "1", "--threads", str(words.threads), "--out", str(words.out)),
        ],
        "steps": over("steps", list(steps)),
        "batch": over("batch_size", [64, 128, 256, 512]),
        "dim": over("dim", [128, 512, 1024, 2048]),
        "classes": over("classes", [50, 100, 250, 500]),
        "languages": over("langs", [2, 5, 10]),
        "samples": over("train", [2500, 5000, 10000, 20000, 40000]),
        "missing": over("missing_p", [0, 0.25, 0.5, 0.65]),
    }


def run(name: str, words: list[str]) -> dict[str, Any]:
    """Run one comparison to its end; its report.

    Raises:
        SystemExit: it failed.
    """
    figures, tables = RESULTS / f"comparison-{name}.json.tmp", RESULTS / f"comparison-{name}.md.tmp"
    plot = RESULTS / f"comparison-{name}.png"
    outputs = ["--json", str(figures), "--markdown", str(tables), "--plot", str(plot)]
    print(f"{name}: {shlex.join(['symile-m3', 'compare', *words])}", flush=True)
    done = subprocess.run([sys.executable, "-m", "symile_m3.cli", "compare", *words, *outputs], check=False)
    if done.returncode and not figures.exists():
        raise SystemExit(done.returncode)
    report: dict[str, Any] = json.loads(figures.read_text())
    found = {
        "date": datetime.date.today().isoformat(),
        "hardware": hardware(_gpu()),
        "command": shlex.join(["symile-m3", "compare", *words]),
        "tables": tables.read_text(),
        "report": report,
    }
    report.pop("plot", None)
    figures.unlink()
    tables.unlink()
    if done.returncode:
        print(f"{name}: some runs failed; they are in the table", flush=True)
    return found


def _gpu() -> str:
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"


def page(found: dict[str, Any]) -> str:
    """All comparisons that have been run, as Markdown."""
    parts = []
    for name, title in TITLES.items():
        if name in found:
            one = found[name]
            parts += [f"### {title}", "", f"{one['date']}, {one['hardware']}.", "", f"    {one['command']}", ""]
            parts += [f"![{title}](comparison-{name}.png)", "", one["tables"]]
    return "\n".join(parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(TITLES), help="names with commas between")
    parser.add_argument("--objectives", default="", help="of the first table; all by default")
    parser.add_argument("--scaled", default="symile,clip", help="objectives of the others")
    parser.add_argument("--langs", default="2,5,10")
    parser.add_argument("--steps", type=int, default=1200)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--tune", type=int, default=8, help="trials an objective")
    parser.add_argument("--dim", type=int, default=2048)
    parser.add_argument("--batch-size", type=int, default=512)
    parser.add_argument("--jobs", type=int, default=0, help="runs at a time; one a CPU by default")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("runs/comparison"))
    parser.add_argument("--list", action="store_true", help="only show the commands")
    words = parser.parse_args()
    chosen = commands(words)
    unknown = [name for name in words.only.split(",") if name not in chosen]
    if unknown:
        parser.error(f"--only {unknown[0]}: unknown; known: {', '.join(chosen)}")
    path = RESULTS / "comparison.json"
    found: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    for name in words.only.split(","):
        if words.list:
            print(f"{name}: {shlex.join(['symile-m3', 'compare', *chosen[name]])}")
            continue
        found[name] = run(name, chosen[name])
        path.write_text(json.dumps(found, indent=1) + "\n")
        path.with_suffix(".md").write_text(page(found))
    if not words.list:
        print(page(found))


if __name__ == "__main__":
    main()
