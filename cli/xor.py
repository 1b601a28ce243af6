"""`symile-m3 xor`: the synthetic experiment of the paper, with everything that is exactly known beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from symile_m3.cli.eval import Probabilities, probabilities
from symile_m3.cli.options import JsonOption, SeedOption, WorkersOption, output_path, probability

if TYPE_CHECKING:
    from rich.console import RenderableType

_PROCESS, _RUNS = "Process", "Runs"


def xor(
    p: Annotated[
        Probabilities | None,
        typer.Option(
            "--p",
            metavar="P[,P...]",
            parser=probabilities,
            show_default="0,0.1,...,1; with more than three vectors 1",
            help="Probability that the last vector is the xor of all others, and not the first again.",
            rich_help_panel=_PROCESS,
        ),
    ] = None,
    dim: Annotated[
        int | None,
        typer.Option(
            "--dim",
            metavar="D",
            min=1,
            show_default="5; with more than three vectors 1",
            help="Bits of a vector; there are 2^D candidates.",
            rich_help_panel=_PROCESS,
        ),
    ] = None,
    modalities: Annotated[
        int,
        typer.Option(
            "--modalities",
            metavar="M",
            min=3,
            help="Vectors of a sample: a, b, c, ...; 8 is the paper's parity of eight.",
            rich_help_panel=_PROCESS,
        ),
    ] = 3,
    predict: Annotated[
        str,
        typer.Option(
            "--predict",
            metavar="LETTER",
            help="The vector to retrieve from all others. With b, as in the paper, no other vector alone says anything "
            "at any p; a and c say much of each other as long as p is small.",
            rich_help_panel=_PROCESS,
        ),
    ] = "b",
    missing_p: Annotated[
        float,
        typer.Option(
            "--missing-p",
            metavar="P",
            parser=probability,
            help="Probability that a vector is missing, in training and in a second test.",
            rich_help_panel=_PROCESS,
        ),
    ] = 0.0,
    objective: Annotated[
        list[str] | None,
        typer.Option(
            "--objective",
            metavar="NAME",
            show_default="symile and clip",
            help="Objective to train; may be repeated.",
            rich_help_panel=_RUNS,
        ),
    ] = None,
    seeds: Annotated[
        int, typer.Option("--seeds", metavar="N", min=1, help="Runs of each objective.", rich_help_panel=_RUNS)
    ] = 5,
    steps: Annotated[
        int | None,
        typer.Option("--steps", min=1, show_default="200", help="Steps of training.", rich_help_panel=_RUNS),
    ] = None,
    seed: SeedOption = 0,
    workers: WorkersOption = None,
    plot_to: Annotated[
        Path | None,
        typer.Option(
            "--plot",
            metavar="PATH",
            parser=output_path,
            help="Draw accuracy and information over p, or for one p the accuracies, as PNG.",
            rich_help_panel="Output",
        ),
    ] = None,
    json_to: JsonOption = None,
) -> None:
    """Train on vectors of bits of which only all together say what each is, and retrieve one from the others.

    a and b are random bits; c is a xor b with probability p, else a, one draw for all bits of a sample. Beside the
    accuracies stand the exact information and the best accuracies there can be: from all other vectors, and from what
    the pairs of vectors say, which is all that CLIP learns from.
    """
    from symile_m3.synthetic import PAPER_P

    paper = modalities == 3
    values = tuple(p) if p is not None else PAPER_P if paper else (1.0,)

    from symile_m3.cli.output import show
    from symile_m3.cli.progress import open_progress
    from symile_m3.synthetic.plot import draw_sweep
    from symile_m3.synthetic.sweep import SweepConfig, run_sweep

    given = {"steps": steps, "objectives": None if objective is None else tuple(dict.fromkeys(objective))}
    config = SweepConfig(
        p=values,
        dim=dim if dim is not None else 5 if paper else 1,
        modalities=modalities,
        predicted=predict,
        seeds=seeds,
        seed=seed,
        missing_p=missing_p,
        **{name: value for name, value in given.items() if value is not None},  # type: ignore[arg-type]
    )
    report = run_sweep(config, workers=workers, progress=open_progress())
    parts = xor_tables(report)
    if plot_to is not None:
        draw_sweep(plot_to, report)
        report["plot"] = str(plot_to)
        parts.append(f"Plot: {plot_to}")
    show(parts, report, json_to)


def xor_tables(report: Mapping[str, Any]) -> list[RenderableType]:
    """The tables of `xor`: accuracies, information, and where vectors were missing what was left."""
    from symile_m3.cli.tables import beside

    names = list(report["points"][0]["results"])
    parts: list[RenderableType] = [*(_accuracies(report, some) for some in beside(names, 2)), _information(report)]
    for point in report["points"]:
        if any("hidden" in result for result in point["results"].values()):
            parts += [_hidden(report, point, some) for some in beside(names, 2)]
    return parts


def _accuracies(report: Mapping[str, Any], names: Sequence[str]) -> RenderableType:
    from symile_m3.cli.tables import figures, objective_title, share, span

    config, process = report["config"], report["process"]

    def count(number: int, unit: str) -> str:
        return f"{number:,} {unit}{'' if number == 1 else 's'}"

    rows = []
    for point in report["points"]:
        cells = [f"{point['p']:g}"]
        for name in names:
            result = point["results"][name]
            cells += [share(result["top1"]), span(result["ci95"])]
        rows.append([*cells, share(point["best"]["all"]), share(point["best"]["pairs"])])
    header = ["p", *(label for name in names for label in (objective_title(name), "95% interval"))]
    given = " and ".join(report["given"]) if len(report["given"]) == 2 else f"the {len(report['given'])} others"
    counts = (count(process["dim"], "bit"), count(config["seeds"], "seed"), count(config["steps"], "step"))
    return figures(
        f"Top-1 of {report['predicted']} from {given} among {round(1 / report['chance']):,}: {', '.join(counts)}",
        [*header, "best from all", "from pairs"],
        rows,
    )


def _information(report: Mapping[str, Any]) -> RenderableType:
    from symile_m3.cli.tables import figures
    from symile_m3.synthetic.information import FORMULAS

    between = "" if report["process"]["modalities"] == 3 else "; a the first vector, c the last, b all between"
    return figures(
        f"Exact information in nats{between}",
        ["p", *(formula for _, formula in FORMULAS)],
        [
            [f"{point['p']:g}", *(f"{point['information'][field]:.4f}" for field, _ in FORMULAS)]
            for point in report["points"]
        ],
    )


def _hidden(report: Mapping[str, Any], point: Mapping[str, Any], names: Sequence[str]) -> RenderableType:
    from symile_m3.cli.tables import figures, objective_title, share, span

    first = point["results"][names[0]]["hidden"]
    rows = [
        [
            str(group["missing"]),
            f"{group['n']:,}",
            *(share(point["results"][name]["hidden"]["by_missing"][i]["top1"]) for name in names),
            share(group["best"]),
        ]
        for i, group in enumerate(first["by_missing"])
    ]
    total = [share(point["results"][name]["hidden"]["top1"]) for name in names]
    best = sum(group["n"] * group["best"] for group in first["by_missing"]) / first["n"]
    rows.append(["any", f"{first['n']:,}", *total, share(best)])
    intervals = [span(point["results"][name]["hidden"]["ci95"]) for name in names]
    rows.append(["", "95% interval", *intervals, ""])
    return figures(
        f"p = {point['p']:g}: queries that lack vectors, each with probability {report['config']['missing_p']:g}",
        ["missing", "queries", *(objective_title(name) for name in names), "best there can be"],
        rows,
    )
