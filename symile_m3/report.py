"""The report of runs: one HTML page with everything in it, and its plots as PNG beside it.

The figures are those of `evaluate`, from one evaluation; what the page shows beyond them is read off the same
retrievals. Suffixes: O objectives, S runs, Q queries.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from symile_m3.accuracies import hits, stacked
from symile_m3.confusion import confusion, shown_languages
from symile_m3.errors import UsageError
from symile_m3.evaluate import evaluate
from symile_m3.evaluation_report import Measured
from symile_m3.gallery import Gallery, draw_gallery
from symile_m3.plots import as_png
from symile_m3.progress import NoProgress, Progress
from symile_m3.questions import Questions
from symile_m3.report_page import report_page
from symile_m3.report_plots import all_plots
from symile_m3.shards import write_bytes, write_text
from symile_m3.wording import objective_title

MISSING_P = (0.0, 0.25, 0.5, 0.75)
"""The probabilities of the curve, where none are asked for."""


@dataclass(frozen=True, kw_only=True)
class Report:
    """A report that has been written.

    Attributes:
        page: the HTML file.
        plots: the PNG files.
        figures: all that the page shows, as `report --json` writes it.
    """

    page: Path
    plots: tuple[Path, ...]
    figures: dict[str, Any]


def make_report(
    data: Path | str,
    runs: Path | Sequence[Path],
    out: Path,
    *,
    missing_p: Sequence[float] = MISSING_P,
    gallery: int = 24,
    bootstrap: int = 1000,
    seed: int = 0,
    progress: Progress | None = None,
) -> Report:
    """Evaluate the runs on the test split of a dataset, and write the page and its plots.

    Args:
        data: directory or URL of the dataset.
        runs: directories of runs, as `evaluate` takes them.
        out: the page, if its name ends in .html; else the directory of `report.html`. The plots lie beside the page.
        missing_p: probabilities with which query modalities are hidden, for the curve; none for no curve.
        gallery: how many queries the page shows.
        bootstrap: resamples for the 95% intervals: of the test images, each with its queries, and of the runs.
        seed: of the bootstrap, of what is hidden, and of the draw of the queries shown.

    Raises:
        UsageError: an argument is out of range, or `out` cannot be written.
        NotBuiltError: there is no dataset, or no finished run.
        TrainingError: a run is of another dataset, or damaged, or two are of one recipe and seed.
        DamagedSampleError: a sample is damaged.
    """
    if gallery < 0:
        raise UsageError(f"--gallery {gallery}: a number of queries, or 0 for none")
    page = page_path(out)
    progress = progress or NoProgress()
    seen: list[tuple[Questions, Sequence[Measured]]] = []
    figures = evaluate(
        data,
        runs,
        missing_p=tuple(missing_p) or None,
        bootstrap=bootstrap,
        seed=seed,
        bound=True,
        progress=progress,
        observe=lambda questions, measured: seen.append((questions, measured)),
    )
    questions, measured = seen[0]
    main = {
        name: [run for run in measured if run.row == name and run.measures.retrieved_Q is not None]
        for name in figures["results"]
    }
    shown = {name: _shown(questions, runs_of) for name, runs_of in main.items()}
    spoken_Q, codes = questions.language_ids.numpy(), questions.dataset.plan.lexicon.languages
    figures["confusion"] = {name: confusion(shown_SQ, spoken_Q, codes) for name, shown_SQ in shown.items()}
    figures["runs"] = [_run(run, measured, progress) for run in measured]
    firsts = {name: runs_of[0] for name, runs_of in main.items()}
    drawn = draw_gallery(
        questions,
        list(firsts),
        stacked([run.measures.ranks_Q for run in firsts.values()]),
        _retrieved(list(firsts.values())),
        np.stack([shown[name][0] for name in firsts]),
        gallery,
        seed,
    )
    figures["gallery"] = _gallery_figures(drawn, firsts)
    plots = all_plots(figures)
    html = report_page(figures, questions.dataset.plan, drawn, plots)
    write_text(page, html)
    files = []
    for plot in plots:
        files.append(page.with_name(f"{page.stem}-{plot.name}.png"))
        write_bytes(files[-1], as_png(plot.figure))
    figures["page"], figures["plots"] = str(page), list(map(str, files))
    return Report(page=page, plots=tuple(files), figures=figures)


def page_path(out: Path) -> Path:
    """Where the page goes; nothing is made yet.

    Raises:
        UsageError: it cannot be written there.
    """
    page = out if out.suffix.lower() in (".html", ".htm") else out / "report.html"
    if page.is_dir():
        raise UsageError(f"--out {out}: {page} is a directory; name another file")
    place = page.parent
    while not place.exists() and place != place.parent:
        place = place.parent
    if not place.is_dir():
        raise UsageError(f"--out {out}: {place} is a file; name a directory, or a file that ends in .html")
    if not os.access(place, os.W_OK | os.X_OK):
        raise UsageError(f"--out {out}: {place} cannot be written; name another directory")
    return page


def _retrieved(runs: Sequence[Measured]) -> NDArray[np.int64]:
    """(S, Q) the candidate image of each query, in each run."""
    return stacked([run.measures.retrieved_Q for run in runs if run.measures.retrieved_Q is not None])


def _shown(questions: Questions, runs: Sequence[Measured]) -> NDArray[np.int64]:
    """(S, Q) the language of the word that the retrieved image shows."""
    return shown_languages(
        questions.answers["image"].labels_NW.numpy()[_retrieved(runs), 0],
        questions.language_ids.numpy(),
        questions.answers["text"].labels_NW.numpy(),
        len(questions.dataset.plan.lexicon.languages),
    )


def _run(run: Measured, all_runs: Sequence[Measured], progress: Progress) -> dict[str, Any]:
    """A run, its accuracy, and what it noted while it trained; no metrics where its file of them is gone or damaged."""
    return {
        "objective": run.name,
        "row": run.row,
        "directory": str(run.directory),
        "seed": run.config.seed,
        "missing_p": run.config.mean_missing_p,
        "label": _label(run, all_runs),
        "top1": float(hits(stacked([run.measures.ranks_Q]), 1).mean()),
        "metrics": _metrics(run.directory, progress),
    }


def _label(run: Measured, all_runs: Sequence[Measured]) -> str:
    """The name of the run's row, and what tells it from the others of it."""
    others = [other.config for other in all_runs if other.row == run.row]
    parts = [objective_title(run.row)]
    if len({config.mean_missing_p for config in others}) > 1:
        parts.append(f"p {run.config.mean_missing_p:g}")
    if len({config.seed for config in others}) > 1:
        parts.append(f"seed {run.config.seed}")
    return ", ".join(parts)


def _metrics(directory: Path, progress: Progress) -> list[dict[str, float | None]]:
    path = directory / "metrics.jsonl"
    try:
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
        return [{str(key): _finite(value) for key, value in line.items()} for line in lines]
    except (OSError, ValueError, AttributeError) as error:
        progress.say(f"{path}: unreadable ({error}); the report goes without the curves of this run")
        return []


def _finite(value: Any) -> float | None:
    """A number that JSON has."""
    return value if isinstance(value, int | float) and math.isfinite(value) else None


def _gallery_figures(drawn: Gallery, firsts: Mapping[str, Measured]) -> dict[str, Any]:
    return {
        "runs": {name: str(run.directory) for name, run in firsts.items()},
        "outcomes": [{"right": list(right), "queries": count} for right, count in drawn.outcomes.items()],
        "queries": [
            {
                "key": query.sample.key,
                "class_key": query.sample.record["class_key"],
                "lang": query.sample.record["lang"],
                **{
                    answer.objective: {
                        "class_key": answer.class_key,
                        "right": answer.right,
                        "rank": answer.rank,
                        "word_lang": answer.language,
                    }
                    for answer in query.answers
                },
            }
            for query in drawn.queries
        ],
    }
