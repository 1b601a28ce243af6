"""What an objective gains from the clip when it has the text: the measurement behind docs/RESULTS.md's 1/w line.

    python benchmarks/conditional.py --out runs/comparison    the runs that benchmarks/comparison.py has left there

On leak-free data the class is independent of the spoken language, and text alone allows 1/w: whatever lies above it is
I(class; language | text), which no pair of modalities holds. Every objective of the comparison retrieves the image of
every test query once from audio and text and once from the text alone; the difference is of the same queries and runs,
with its interval. Figures go to benchmarks/results/conditional.json and .md, with the hardware and the date.
"""

from __future__ import annotations

import argparse
import datetime
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from _machine import hardware

from symile_m3.accuracies import hits, stacked
from symile_m3.evaluate import evaluate
from symile_m3.evaluation_report import Measured
from symile_m3.intervals import Resampling, paired_difference, runs_interval
from symile_m3.questions import Questions

RESULTS = Path(__file__).parent / "results"
BOTH, TEXT = ("image", ("audio", "text")), ("image", ("text",))


def gains(data: Path, directories: Sequence[Path]) -> dict[str, Any]:
    """Of each objective's runs: top-1 from both, from the text alone, and the difference."""
    found: dict[str, Any] = {}

    def observe(questions: Questions, measured: Sequence[Measured]) -> None:
        how = Resampling(groups_Q=questions.image_of_Q.numpy())
        for name in dict.fromkeys(run.name for run in measured):
            tables = [
                hits(stacked([run.measures.directions[asked] for run in measured if run.name == name]), 1)
                for asked in (BOTH, TEXT)
            ]
            both_SQ, text_SQ = (table.astype(np.float64) for table in tables)
            found[name] = {
                "both": float(both_SQ.mean()),
                "both_ci95": runs_interval(both_SQ, how),
                "text": float(text_SQ.mean()),
                "text_ci95": runs_interval(text_SQ, how),
                "gain": float((both_SQ - text_SQ).mean()),
                "gain_ci95": paired_difference(both_SQ, text_SQ, how),
                "runs": len(both_SQ),
            }

    report = evaluate(data, directories, directions=True, observe=observe)
    exact = {given: cell["best"] for given, cell in report["directions"]["image"]["from"].items()}
    return {
        "dataset": report["dataset"],
        "exact": exact,
        "fill": report["directions"]["fill"],
        "results": found,
    }


def table(record: dict[str, Any]) -> str:
    """Markdown."""
    lines = []
    for name, part in record["datasets"].items():
        exact = part["exact"]
        lines += [
            f"{name}: exact {exact['audio+text']:.3f} from both, {exact['text']:.3f} from the text.",
            "",
            "| objective | audio and text | text alone | gained from the clip |",
            "|---|---|---|---|",
        ]
        for objective, result in part["results"].items():
            cells = [
                f"{result[key]:.3f} ({low:.3f} to {high:.3f})"
                for key in ("both", "text")
                for low, high in [result[f"{key}_ci95"]]
            ]
            low, high = result["gain_ci95"]
            lines.append(
                f"| {objective} | {cells[0]} | {cells[1]} | {result['gain']:+.3f} ({low:+.3f} to {high:+.3f}) |"
            )
        lines.append("")
    return "\n".join([*lines, f"Measured on {record['hardware']}, {record['date']}."]) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/comparison"), help="that of benchmarks/comparison.py")
    words = parser.parse_args()
    comparison = json.loads((RESULTS / "comparison.json").read_text(encoding="utf-8"))["objectives"]["report"]
    datasets: dict[str, Any] = {}
    for point in comparison["points"]:
        # runs/comparison/runs/langs10-<plan>/symile-<recipe>/seed-0/symile: the last five parts are the same anywhere
        runs = [Path(run["directory"]) for result in point["results"].values() for run in result["runs"]]
        directories = [words.out.joinpath(*run.parent.parts[-4:]) for run in runs]
        datasets[point["name"]] = gains(words.out / "data" / point["name"], directories)
        print(f"{point['name']} done", flush=True)
    record = {"hardware": hardware(), "date": datetime.date.today().isoformat(), "datasets": datasets}
    (RESULTS / "conditional.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    (RESULTS / "conditional.md").write_text(table(record), encoding="utf-8")
    print(table(record))


if __name__ == "__main__":
    main()
