"""Accuracy over the probability that something is missing, as a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from symile_m3.plots import EXACT, as_png, draw_legend, legend_label, looks, new_figure
from symile_m3.shards import write_bytes
from symile_m3.wording import objective_title

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Points = list[tuple[float, float, Sequence[float]]]
Panel = tuple[str, dict[str, Points], list[tuple[float, float]]]
"""Label, the points of each row, and the exact values."""


def draw_missing(path: Path, report: Mapping[str, Any]) -> None:
    """Top-1 with 95% intervals: over p hidden in the test, over p hidden in training, or both side by side.

    Args:
        path: of the PNG.
        report: of `evaluate`, with a curve of one kind or both.

    Raises:
        ValueError: it has none.
        ShardError: the file cannot be written.
    """
    panels = _panels(report)
    if not panels:
        raise ValueError("the report has no curve: evaluate several --missing-p, or runs trained with several")
    figure = new_figure(4.6 * len(panels), 3.4)
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    figure.set_figheight(3.4 + max(_draw(axis, panel) for axis, panel in zip(axes, panels, strict=True)))
    write_bytes(path, as_png(figure))


def missing_figures(report: Mapping[str, Any]) -> list[tuple[str, Figure]]:
    """The curves that a report has, each as a figure of its own, with what is on its axis."""
    figures = []
    for panel in _panels(report):
        figure = new_figure(4.6, 3.4)
        figure.set_figheight(3.4 + _draw(figure.subplots(), panel))
        figures.append((panel[0], figure))
    return figures


def _draw(axis: Axes, panel: Panel) -> float:
    """Draw a panel; by how many inches its figure should be higher for the names."""
    label, curves, exact = panel
    look = looks(curves)
    for name, points in curves.items():
        shares = [share for _, share, _ in points]
        below = [share - low for _, share, (low, _) in points]
        above = [high - share for _, share, (_, high) in points]
        axis.errorbar(
            [p for p, _, _ in points],
            shares,
            yerr=[[max(0.0, size) for size in below], [max(0.0, size) for size in above]],
            marker=look[name].marker,
            linestyle=look[name].dash,
            markersize=4,
            capsize=3,
            color=look[name].colour,
            label=legend_label(objective_title(name)),
        )
    if exact:
        axis.plot([p for p, _ in exact], [best for _, best in exact], "--", color=EXACT, label="best there can be")
    axis.set_xlabel(label)
    axis.set_ylabel("test top-1, all queries")
    axis.set_ylim(0, 1)
    axis.grid(alpha=0.3)
    axis.spines[["top", "right"]].set_visible(False)
    return draw_legend(axis)


def _panels(report: Mapping[str, Any]) -> list[Panel]:
    names = list(report["results"])
    panels: list[Panel] = []
    if "missing_curve" in report:
        records = sorted(report["missing_curve"], key=lambda record: float(record["p"]))
        curves: dict[str, Points] = {
            name: [(record["p"], record[name]["overall"], record[name]["ci95"]["overall"]) for record in records]
            for name in names
        }
        exact = [(record["p"], record["exact"]["overall"]) for record in records if "overall" in record["exact"]]
        panels.append(("p, audio and text hidden in the test", curves, exact))
    if "trained_missing_curve" in report:
        trained: dict[str, Points] = {
            name: [(record["p"], record["top1"], record["ci95"]) for record in records]
            for name, records in report["trained_missing_curve"].items()
        }
        panels.append(("p, each modality missing in training", trained, []))
    return panels
