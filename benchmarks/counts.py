"""Why CLIP is a little above 1/w where media recur: chance counts of the training samples, in a sum of pairwise scores.

    python benchmarks/counts.py                      builds the data, trains CLIP on them, measures
    python benchmarks/counts.py --keep runs/counts   the same, there; what is built and trained is kept and taken again

Class and language are drawn independently, yet in a finite training set some images come with some languages more
often than with others. Such counts say nothing of what a new query is about: where they choose among the classes that
a text names, from the text alone or from the clip alone, the class is right in 1/w. In a sum they are right more
often: the right image has the same count twice, for the language of its word and for the spoken one, and a wrong image
has two that have nothing to do with each other; of sums with one mean, the more variable are the highest more often.

Shown first of the counts alone, on fresh queries. Then CLIP's hits are told by the count of each query's own image and
language. Then the same with ten times the samples, so that the counts vary by less beside their mean, at as many steps.
Figures go to benchmarks/results/counts.json and .md, with the hardware and the date.
"""

from __future__ import annotations

import argparse
import datetime
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from _machine import hardware
from numpy.typing import NDArray

from symile_m3.accuracies import hits, stacked
from symile_m3.evaluate import evaluate
from symile_m3.evaluation_report import Measured
from symile_m3.features import open_dataset
from symile_m3.intervals import Resampling, runs_interval
from symile_m3.plan import Plan
from symile_m3.questions import Questions

RESULTS = Path(__file__).parent / "results"
BUILD = ["--split-by", "sample", "--seed", "1"]
QUERIES = 50_000
SAMPLES = (20_000, 200_000)
BINS = ((0, 0), (1, 1), (2, 2), (3, 6), (7, 11), (12, 16), (17, None))  # counts from, to


def counted(plan: Plan, samples: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """(images, languages) how often the training samples have an image with a language, and the class of each image."""
    rows = plan.rows("train", 0, samples)
    counts_IL = np.zeros((int(rows.image_rows.max()) + 1, len(plan.lexicon.languages)))
    np.add.at(counts_IL, (rows.image_rows, rows.language_ids), 1)
    class_of_I = np.full(len(counts_IL), -1)
    class_of_I[rows.image_rows] = rows.class_ids
    return counts_IL, class_of_I


def by_counts(counts_IL: NDArray[np.float64], class_of_I: NDArray[np.int64], words: int) -> dict[str, Any]:
    """Top-1 on fresh queries by log counts: of (image, word's language), of (image, spoken language), and by the sum.

    Counts of images, and in their place those of their classes.
    """
    random = np.random.default_rng(0)
    languages = counts_IL.shape[1]
    classes = np.unique(class_of_I[class_of_I >= 0])
    found: dict[str, Any] = {}
    counts_CL = np.stack([counts_IL[class_of_I == c].sum(axis=0) for c in classes])
    for of, logs, members in (
        ("images", np.log(counts_IL + 0.5), [np.flatnonzero(class_of_I == c) for c in classes]),
        ("classes", np.log(counts_CL + 0.5), [np.array([i]) for i in range(len(classes))]),
    ):
        right = np.zeros((QUERIES, 3), bool)
        for q in range(QUERIES):
            named = random.permutation(len(classes))[:words]
            language_of = random.permutation(languages)[:words]
            target = int(random.integers(words))
            candidates = np.concatenate([members[c] for c in named])
            word_of = np.repeat(np.arange(words), [len(members[c]) for c in named])
            text, clip = logs[candidates, language_of[word_of]], logs[candidates, language_of[target]]
            shuffle = random.permutation(len(candidates))  # so that of equals each is as likely
            right[q] = [word_of[shuffle][scores[shuffle].argmax()] == target for scores in (text, clip, text + clip)]
        found[of] = {
            name: {"top1": float(column.mean()), "ci95": runs_interval(column[None], Resampling())}
            for name, column in zip(("text", "clip", "sum"), right.T, strict=True)
        }
    return found


def by_own_count(data: Path, runs: Path, counts_IL: NDArray[np.float64]) -> dict[str, Any]:
    """Top-1 of each objective's queries by how often the training has the query's image with its language."""
    found: dict[str, Any] = {}

    def observe(questions: Questions, measured: Sequence[Measured]) -> None:
        numbers = [int(key.rsplit("-", 1)[1]) for key in questions.keys]
        rows = questions.dataset.plan.rows("test", 0, max(numbers) + 1)
        own_Q = counts_IL[rows.image_rows[numbers], rows.language_ids[numbers]]
        how = Resampling(groups_Q=questions.image_of_Q.numpy())
        for run in measured:
            right_SQ = hits(stacked([run.measures.ranks_Q]), 1)
            found[run.name] = {
                "all": {"top1": float(right_SQ.mean()), "ci95": runs_interval(right_SQ, how)},
                "bins": [],
            }
            for low, high in BINS:
                chosen = (own_Q >= low) & (own_Q <= (np.inf if high is None else high))
                if not chosen.any():
                    continue
                found[run.name]["bins"].append(
                    {
                        "from": low,
                        "to": high,
                        "n": int(chosen.sum()),
                        "top1": float(right_SQ[:, chosen].mean()),
                        "ci95": runs_interval(right_SQ[:, chosen], how.of(chosen)),
                    }
                )

    evaluate(data, runs, observe=observe)
    return found


def figure(cell: dict[str, Any]) -> str:
    low, high = cell["ci95"]
    return f"{cell['top1']:.3f} ({low:.3f} to {high:.3f})"


def measure(place: Path, samples: int) -> dict[str, Any]:
    """Build, train CLIP, and measure, in a directory of its own."""
    data, runs = place / "data", place / "runs"
    script = Path(sys.executable).with_name("symile-m3")
    for command in (
        ["build", *BUILD, "--train", samples, "--data", data],
        ["train", "--objective", "clip", "--data", data, "--runs", runs],
    ):
        subprocess.run([str(script), *map(str, command)], check=True, stdout=subprocess.DEVNULL)
    plan = open_dataset(data).plan
    counts_IL, class_of_I = counted(plan, samples)
    return {
        "samples": samples,
        "words": plan.config.words,
        "count_mean": float(counts_IL.mean()),
        "counts": by_counts(counts_IL, class_of_I, plan.config.words),
        "clip": by_own_count(data, runs, counts_IL)["clip"],
    }


def table(record: dict[str, Any]) -> str:
    """Markdown."""
    lines = [
        f"Top-1 by nothing but counts of the training samples, on {QUERIES:,} fresh queries; 1/w = "
        f"{1 / record['sizes'][0]['words']:g}.",
        "",
        "| training samples | counts of | from the text | from the clip | their sum |",
        "|---|---|---|---|---|",
    ]
    for size in record["sizes"]:
        for of, result in size["counts"].items():
            cells = [figure(result[name]) for name in ("text", "clip", "sum")]
            lines.append(f"| {size['samples']:,} | {of} and languages | {' | '.join(cells)} |")
    lines += [
        "",
        "CLIP on the test queries, and by how many training samples have the query's image with its language:",
        "",
        "| training samples | that count | queries | top-1 |",
        "|---|---|---|---|",
    ]
    for size in record["sizes"]:
        clip, samples = size["clip"], f"{size['samples']:,}"
        lines.append(f"| {samples} | all | {sum(part['n'] for part in clip['bins']):,} | {figure(clip['all'])} |")
        lines += [f"| {samples} | {_named(part)} | {part['n']} | {figure(part)} |" for part in clip["bins"]]
    return "\n".join([*lines, "", f"Measured on {record['hardware']}, {record['date']}."]) + "\n"


def _named(part: dict[str, Any]) -> str:
    if part["to"] is None:
        return f"{part['from']} or more"
    return str(part["from"]) if part["from"] == part["to"] else f"{part['from']} to {part['to']}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keep", type=Path, help="where data and runs are kept")
    words = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="symile-m3-counts-") as folder:
        place = words.keep or Path(folder)
        sizes = [measure(place / str(samples), samples) for samples in SAMPLES]
    record = {"hardware": hardware(), "date": datetime.date.today().isoformat(), "sizes": sizes}
    (RESULTS / "counts.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    (RESULTS / "counts.md").write_text(table(record), encoding="utf-8")
    print(table(record))


if __name__ == "__main__":
    main()
