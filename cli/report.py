"""`symile-m3 report`: a page of what runs reach."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from symile_m3.cli.build import DATA
from symile_m3.cli.eval import Probabilities, probabilities
from symile_m3.cli.options import RUNS, BootstrapOption, DatasetOption, JsonOption, SeedOption, SeveralRunsOption

NONE = Probabilities()


def probabilities_or_none(text: str) -> Probabilities:
    """As those of `eval`, or the word none."""
    return NONE if text == "none" else probabilities(text)


def report(
    data: DatasetOption = DATA,
    runs: SeveralRunsOption = None,
    missing_p: Annotated[
        Probabilities | None,
        typer.Option(
            "--missing-p",
            metavar="P[,P...]",
            parser=probabilities_or_none,
            show_default="0,0.25,0.5,0.75",
            help="Probabilities with which audio and text of each query are hidden, for the curve; none for no curve.",
        ),
    ] = None,
    bootstrap: BootstrapOption = 1000,
    gallery: Annotated[
        int,
        typer.Option("--gallery", metavar="N", min=0, help="Queries to show, each about 100 kB; 0 for none."),
    ] = 24,
    seed: SeedOption = 0,
    out: Annotated[
        Path,
        typer.Option(
            "--out",
            metavar="PATH",
            help="Directory for report.html and its plots, or a file that ends in .html, with its plots beside it.",
            rich_help_panel="Output",
        ),
    ] = Path("report"),
    json_to: JsonOption = None,
) -> None:
    """Write a page of what runs reach: training curves, accuracies, which word is retrieved, and hits and misses.

    The page is one file that needs nothing else and no network; its plots also lie beside it as PNG. The figures
    are those that eval prints for the same runs.
    """
    from symile_m3.cli.output import show, size
    from symile_m3.cli.progress import open_progress
    from symile_m3.cli.tables import accuracy_table, recipe_tables
    from symile_m3.report import MISSING_P, make_report

    made = make_report(
        data,
        runs or [RUNS],
        out,
        missing_p=MISSING_P if missing_p is None else missing_p,
        gallery=gallery,
        bootstrap=bootstrap,
        seed=seed,
        progress=open_progress(),
    )
    shown = len(made.figures["gallery"]["queries"])
    line = f"{made.page}: {shown} queries, {size(made.page.stat().st_size)}; {len(made.plots)} plots beside it"
    show([accuracy_table(made.figures), *recipe_tables(made.figures), line], made.figures, json_to)
