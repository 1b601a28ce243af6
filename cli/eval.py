"""`symile-m3 eval`: retrieval on the test samples, beside what is exactly possible."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from symile_m3.cli.build import DATA
from symile_m3.cli.declared import evaluate_declaration, evaluates_declared
from symile_m3.cli.options import (
    RUNS,
    BadSampleOption,
    BootstrapOption,
    DatasetOption,
    JsonOption,
    SeedOption,
    SeveralRunsOption,
    output_path,
    probability,
)


class Probabilities(tuple[float, ...]):
    """One probability or several, as given with commas between."""

    __slots__ = ()


def probabilities(text: str) -> Probabilities:
    """Numbers from 0 to 1 with commas between them, each once."""
    found = Probabilities(probability(part) for part in text.split(","))
    if len(set(found)) < len(found):
        raise typer.BadParameter(f"{text} has a probability twice; give each once")
    return found


def candidate_count(text: str) -> int:
    """A number of candidates, or `all`, which is 0."""
    if text != "all" and not text.isdecimal():
        raise typer.BadParameter(f"{text}: give a number, or all", param_hint="--candidates")
    return 0 if text == "all" else int(text)


def evaluate(
    data: DatasetOption = DATA,
    runs: SeveralRunsOption = None,
    modalities: Annotated[
        Path | None,
        typer.Option(
            "--modalities",
            metavar="FILE",
            show_default="that of the runs",
            help="Evaluate on the samples that this TOML file names, with runs of its modalities.",
        ),
    ] = None,
    missing_p: Annotated[
        Probabilities | None,
        typer.Option(
            "--missing-p",
            metavar="P[,P...]",
            parser=probabilities,
            show_default="none missing",
            help="Also hide audio and text of each query with this probability, and report by what is left; "
            "several give a curve and its plot.",
        ),
    ] = None,
    bootstrap: BootstrapOption = 1000,
    directions: Annotated[
        bool,
        typer.Option(
            "--directions",
            help="Also retrieve image, audio and text, each from the other two and from each alone.",
            rich_help_panel="More tables",
        ),
    ] = False,
    by_class: Annotated[
        bool, typer.Option("--by-class", help="Also the accuracy of each class.", rich_help_panel="More tables")
    ] = False,
    gap: Annotated[
        bool,
        typer.Option(
            "--gap",
            help="Also the distances between the modalities, and what they do to the accuracy.",
            rich_help_panel="More tables",
        ),
    ] = False,
    bound: Annotated[
        bool,
        typer.Option(
            "--bound",
            help="Also the lower bound of the total correlation, beside its exact value.",
            rich_help_panel="More tables",
        ),
    ] = False,
    retrieve: Annotated[
        list[str] | None,
        typer.Option(
            "--retrieve",
            metavar="NAME[=NAME,...]",
            show_default="each from all others and from each alone",
            help="Of declared modalities: which is retrieved, and from which others; may be repeated.",
            rich_help_panel="Declared modalities",
        ),
    ] = None,
    candidates: Annotated[
        str | None,
        typer.Option(
            "--candidates",
            metavar="N|all",
            show_default="as declared",
            help="Of declared modalities: how many candidates a query has, drawn by the seed.",
            rich_help_panel="Declared modalities",
        ),
    ] = None,
    plot_to: Annotated[
        Path | None,
        typer.Option(
            "--plot",
            metavar="PATH",
            parser=output_path,
            show_default="missing.png in the first directory of runs",
            help="Where the plot of a curve over p goes, as PNG.",
            rich_help_panel="Output",
        ),
    ] = None,
    on_bad_sample: BadSampleOption = "stop",
    seed: SeedOption = 0,
    json_to: JsonOption = None,
) -> None:
    """Retrieve the image from audio and text for every test sample, and print the table.

    A retrieval is right when the image has the class of the query. Beside the accuracies stand the exact
    values that text alone and audio alone can reach, and the measured ceilings of the towers. Models compute on the
    GPU where there is one.
    """
    from symile_m3.cli.eval_tables import more_tables
    from symile_m3.cli.output import show
    from symile_m3.cli.tables import evaluation_tables
    from symile_m3.missing_plot import draw_missing

    runs = runs or [RUNS]
    if evaluates_declared(modalities, runs):
        more = {"--directions": directions, "--by-class": by_class, "--gap": gap, "--bound": bound, "--plot": plot_to}
        for option, asked in more.items():
            if asked:
                raise typer.BadParameter("only for runs on triples; leave it out", param_hint=option)
        if missing_p is not None and len(missing_p) > 1:
            raise typer.BadParameter("one probability for declared modalities", param_hint="--missing-p")
        tables, figures = evaluate_declaration(
            modalities,
            data,
            runs,
            retrieve=retrieve or [],
            candidates=None if candidates is None else candidate_count(candidates),
            missing_p=missing_p[0] if missing_p else 0.0,
            bootstrap=bootstrap,
            seed=seed,
            on_bad_sample=on_bad_sample,
        )
        show(tables, figures, json_to)
        return
    if retrieve or candidates is not None:
        raise typer.BadParameter(
            f"only for runs on declared modalities, which {runs[0]} does not hold",
            param_hint="--retrieve" if retrieve else "--candidates",
        )
    report = run_evaluation(
        data,
        runs,
        missing_p=None if missing_p is None else missing_p[0] if len(missing_p) == 1 else missing_p,
        bootstrap=bootstrap,
        seed=seed,
        directions=directions,
        by_class=by_class,
        gap=gap,
        bound=bound,
        on_bad_sample=on_bad_sample,
    )
    parts = [*evaluation_tables(report), *more_tables(report)]
    if "missing_curve" in report or "trained_missing_curve" in report:
        plot = plot_to or runs[0] / "missing.png"
        draw_missing(plot, report)
        report["plot"] = str(plot)
        parts.append(f"Plot: {plot}")
    elif plot_to is not None:
        raise typer.BadParameter(
            "there is no curve to plot: give several probabilities to --missing-p, or runs trained with several",
            param_hint="--plot",
        )
    show(parts, report, json_to)


def run_evaluation(
    data: Path | str, runs: Path | Sequence[Path], *, missing_p: float | Sequence[float] | None = None, **options: Any
) -> dict[str, Any]:
    """Evaluate with progress on standard error; options as those of `symile_m3.evaluate.evaluate`."""
    from symile_m3.cli.progress import open_progress
    from symile_m3.evaluate import evaluate as evaluate_runs

    return evaluate_runs(data, runs, missing_p=missing_p, progress=open_progress(), **options)
