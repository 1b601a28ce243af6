"""`symile-m3 eval`: retrieval on the test samples, beside what is exactly possible."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from symile_m3.cli.build import DATA
from symile_m3.cli.options import DatasetOption, JsonOption, RunsOption, SeedOption, probability
from symile_m3.cli.train import RUNS


def evaluate(
    data: DatasetOption = DATA,
    runs: RunsOption = RUNS,
    missing_p: Annotated[
        float | None,
        typer.Option(
            "--missing-p",
            metavar="P",
            parser=probability,
            show_default="none missing",
            help="Also hide audio and text of each query with this probability, and report by what is left.",
        ),
    ] = None,
    bootstrap: Annotated[
        int,
        typer.Option("--bootstrap", metavar="N", min=1, help="Resamples of the queries for the intervals."),
    ] = 1000,
    seed: SeedOption = 0,
    json_to: JsonOption = None,
) -> None:
    """Retrieve the image from audio and text for every test sample, and print the table.

    A retrieval is right when the image has the class of the query. Beside the accuracies stand the exact
    values that text alone and audio alone can reach, and the measured ceilings of the towers.
    """
    from symile_m3.cli.output import show
    from symile_m3.cli.tables import evaluation_tables

    report = run_evaluation(data, runs, missing_p=missing_p, bootstrap=bootstrap, seed=seed)
    show(evaluation_tables(report), report, json_to)


def run_evaluation(
    data: Path | str, runs: Path, *, missing_p: float | None = None, bootstrap: int = 1000, seed: int = 0
) -> dict[str, Any]:
    """Evaluate with progress on standard error."""
    from symile_m3.cli.progress import open_progress
    from symile_m3.evaluate import evaluate as evaluate_runs

    return evaluate_runs(data, runs, missing_p=missing_p, bootstrap=bootstrap, seed=seed, progress=open_progress())
