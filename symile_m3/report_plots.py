"""The plots of a report: training curves, accuracies with intervals, accuracy over p, confusion by language."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from symile_m3.languages import language_name
from symile_m3.missing_plot import missing_figures
from symile_m3.plots import DASHES, EXACT, legend_columns, legend_label, looks, new_figure
from symile_m3.wording import ceilings_of, listed, objective_title

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CURVES = {
    "loss": "training loss (nats)",
    "val_top1": "validation top-1",
    "bound_nats": "training: ln(B - 1) - loss (nats)",
}
"""What of a run's metrics is drawn. `bound_nats`, of what was trained on, is no bound; `eval --bound` measures one."""
_BAR_IN = 0.2  # inches
_PANELS = 3  # beside each other


@dataclass(frozen=True, kw_only=True)
class Plot:
    """A plot of a report.

    Attributes:
        name: usable in file names and ids.
        title: of it.
        label: what it shows in words.
        figure: the plot.
    """

    name: str
    title: str
    label: str
    figure: Figure


def all_plots(report: Mapping[str, Any]) -> list[Plot]:
    """Every plot that a report has figures for."""
    plots = [*curve_plots(report["runs"]), accuracy_plot(report)]
    for i, (label, figure) in enumerate(missing_figures(report)):
        words = f"Test top-1 by {label}: a line for each of {_names(report)}, with 95% intervals."
        plots.append(Plot(name=f"missing-{i + 1}", title=f"Top-1 by {label}", label=words, figure=figure))
    return [*plots, confusion_plot(report)]


def curve_plots(runs: Sequence[Mapping[str, Any]]) -> list[Plot]:
    """A plot for each of `CURVES` that any run has, with a line a run; each run of an objective is dashed its way.

    Runs of different recipes also have different markers.
    """
    from matplotlib.ticker import MaxNLocator

    plots = []
    look = looks(dict.fromkeys(run["row"] for run in runs))
    for key, label in CURVES.items():
        having = [run for run in runs if any(_number(record.get(key)) for record in run["metrics"])]
        if not having:
            continue
        figure = new_figure(4.6, 3.2)
        axis = figure.subplots()
        seen: dict[str, int] = {}
        for run in having:
            records = [record for record in run["metrics"] if _number(record.get(key)) and _number(record.get("step"))]
            nth = seen[run["objective"]] = seen.get(run["objective"], -1) + 1
            axis.plot(
                [record["step"] for record in records],
                [record[key] for record in records],
                marker=look[run["row"]].marker,
                markersize=3,
                linestyle=DASHES[nth % len(DASHES)],
                color=look[run["row"]].colour,
                label=legend_label(run["label"]),
            )
        if key == "val_top1":
            axis.set_ylim(0, 1)
        axis.set_xlabel("step")
        axis.set_ylabel(label)
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        axis.grid(alpha=0.3)
        axis.spines[["top", "right"]].set_visible(False)
        columns, lines = _legend([run["label"] for run in having])
        if len(having) > 2 or columns == 1:
            figure.set_figheight(3.2 + 0.2 * lines)
            figure.legend(loc="outside upper center", ncols=columns, frameon=False)
        else:
            axis.legend(frameon=False)
        last = "; ".join(f"{run['label']} {_last(run, key):.3g}" for run in having)
        words = f"{label[0].upper()}{label[1:]} over the steps of training. At the last step: {last}."
        plots.append(
            Plot(name=f"curve-{key.replace('_', '-')}", title=label[0].upper() + label[1:], label=words, figure=figure)
        )
    return plots


def accuracy_plot(report: Mapping[str, Any]) -> Plot:
    """A bar for each row with its 95% interval: all queries, then by spoken language; lines for what is known."""
    results, bounds = report["results"], report["bounds"]
    codes = list(dict.fromkeys(code for result in results.values() for code in result["by_language"]))
    groups = [None, *codes]
    look = looks(results)
    columns, lines = _legend([*map(objective_title, results), *["text alone, exact", "image ceiling, measured"]])
    height = len(groups) * (_BAR_IN * len(results) + 0.12) + 0.7 + 0.2 * lines
    figure = new_figure(4.6, height)
    axis = figure.subplots()
    thick = 0.84 / len(results)
    for n, (name, result) in enumerate(results.items()):
        places, shares, spans = [], [], []
        for i, code in enumerate(groups):
            if code is None or code in result["by_language"]:
                places.append(i - 0.42 + thick * (n + 0.5))
                shares.append(result["top1"] if code is None else result["by_language"][code])
                spans.append(result["ci95"] if code is None else result["by_language_ci95"][code])
        errors = [
            [max(0.0, share - low) for share, (low, _) in zip(shares, spans, strict=True)],
            [max(0.0, high - share) for share, (_, high) in zip(shares, spans, strict=True)],
        ]
        colour, hatch, label = look[name].colour, look[name].hatch, legend_label(objective_title(name))
        if hatch:
            axis.barh(places, shares, height=thick * 0.9, facecolor="none", edgecolor=colour, hatch=hatch, label=label)
        else:
            axis.barh(places, shares, height=thick * 0.9, color=colour, label=label)
        axis.errorbar(
            shares, places, xerr=errors, fmt="none", ecolor="#000000", elinewidth=1, capsize=2.5, label="_nolegend_"
        )
    if bounds.get("text_only") is not None:
        axis.axvline(bounds["text_only"], linestyle="--", color=EXACT, linewidth=1.2, label="text alone, exact")
    for nth, (_, value) in enumerate(ceilings_of(report, "image_ceiling")):
        label = "_nolegend_" if nth else "image ceiling, measured"
        axis.axvline(value, linestyle=":", color=EXACT, linewidth=1.2, label=label)
    axis.set_yticks(range(len(groups)), ["all queries", *(language_name(code) for code in codes)])
    axis.set_ylim(len(groups) - 0.4, -0.6)
    axis.set_xlim(0, 1)
    axis.grid(axis="x", alpha=0.3)
    axis.set_axisbelow(True)
    axis.set_xlabel("test top-1 with its 95% interval")
    axis.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside upper center", ncols=columns, frameon=False)
    words = "; ".join(f"{objective_title(name)} {result['top1']:.3f}" for name, result in results.items())
    return Plot(
        name="accuracy",
        title="Top-1 with 95% intervals, by spoken language",
        label=f"Test top-1 of all queries: {words}; below it a bar for each spoken language.",
        figure=figure,
    )


def confusion_plot(report: Mapping[str, Any]) -> Plot:
    """For each row, spoken language by language of the word that the retrieved image shows."""
    tables = report["confusion"]
    most = max(len(table["languages"]) for table in tables.values())
    side = max(2.2, 0.34 * most)
    across = min(len(tables), _PANELS)
    down = math.ceil(len(tables) / across)
    figure = new_figure(side * across + 1.2, (side + 0.6) * down)
    grid = figure.subplots(down, across, squeeze=False)
    axes = list(grid.flat)[: len(tables)]
    for unused in list(grid.flat)[len(tables) :]:
        unused.remove()
    for axis, (name, table) in zip(axes, tables.items(), strict=True):
        shares = list(table["rows"].values())
        mesh = axis.imshow(shares, vmin=0, vmax=1, cmap="Blues", aspect="auto")
        axis.set_xticks(range(len(table["languages"])), table["languages"], rotation=90)
        axis.set_yticks(range(len(shares)), list(table["rows"]))
        axis.set_title(textwrap.fill(objective_title(name), int(10 * side), break_on_hyphens=False))
        for y, row in enumerate(shares):
            for x, share in enumerate(row):
                axis.text(
                    x,
                    y,
                    f"{share:.2f}".removeprefix("0"),
                    ha="center",
                    va="center",
                    fontsize=6.5,
                    color="#ffffff" if share > 0.55 else "#262626",
                )
    for row in grid:
        row[0].set_ylabel("spoken language")
    figure.supxlabel("language of the word that the image shows", fontsize="medium")
    figure.colorbar(mesh, ax=list(axes), label="share of the queries of a row")
    words = "; ".join(
        f"{objective_title(name)}: {table['target']:.3f} the target word" for name, table in tables.items()
    )
    return Plot(
        name="confusion",
        title="Which word the retrieved image shows",
        label=f"Shares by spoken language and language of the word shown. {words}.",
        figure=figure,
    )


def _legend(names: Sequence[str]) -> tuple[int, int]:
    """The columns of a legend of these names, and its lines."""
    columns = legend_columns(names)
    lines = sum(legend_label(name).count("\n") + 1 for name in names) if columns == 1 else math.ceil(len(names) / 2)
    return columns, lines


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and value == value


def _last(run: Mapping[str, Any], key: str) -> float:
    return float(next(record[key] for record in reversed(run["metrics"]) if _number(record.get(key))))


def _names(report: Mapping[str, Any]) -> str:
    return listed([objective_title(name) for name in report["results"]])
