"""Accuracy and information over p as a picture; of a single p, a bar for each objective."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from symile_m3.plots import COLOURS, EXACT, as_png, draw_legend, new_figure
from symile_m3.shards import write_bytes
from symile_m3.synthetic.information import FORMULAS
from symile_m3.wording import objective_title

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_STYLES = ("-", "-", "-", (0, (2, 3)), ":")  # I(a;b|c) and I(b;c|a) lie upon each other


def draw_sweep(path: Path, report: Mapping[str, Any]) -> None:
    """What `sweep_figure` draws, as a PNG.

    Raises:
        ShardError: the file cannot be written.
    """
    write_bytes(path, as_png(sweep_figure(report)))


def sweep_figure(report: Mapping[str, Any]) -> Figure:
    """Top-1 with 95% intervals beside what is possible; over several p also the exact information.

    Args:
        report: of `run_sweep`.
    """
    points = sorted(report["points"], key=lambda point: float(point["p"]))
    return _curves(report, points) if len(points) > 1 else _bars(report, points[0])


def _bars(report: Mapping[str, Any], point: Mapping[str, Any]) -> Figure:
    """A bar for each objective, with lines for the best accuracies there can be and for chance."""
    results: Mapping[str, Any] = point["results"]
    figure = new_figure(6.0, 1.4 + 0.35 * len(results))
    axis = figure.subplots()
    for row, (name, found) in enumerate(results.items()):
        low, high = found["ci95"]
        errors = [[max(0.0, found["top1"] - low)], [max(0.0, high - found["top1"])]]
        axis.barh(row, found["top1"], height=0.7, xerr=errors, capsize=3, color=COLOURS.get(name))
    lines: dict[float, list[str]] = {}  # what is at the same place has one line
    for label, share in (
        ("best from all", point["best"]["all"]),
        ("best from pairs", point["best"]["pairs"]),
        ("chance", report["chance"]),
    ):
        lines.setdefault(share, []).append(label)
    for (share, labels), dashes in zip(lines.items(), ("--", ":", "-."), strict=False):
        axis.axvline(share, linestyle=dashes, color=EXACT, label=", ".join(labels))
    axis.set_yticks(range(len(results)), [objective_title(name) for name in results])
    axis.set_ylim(len(results) - 0.5, -0.5)
    axis.set_xlim(0, 1.02)
    axis.set_xlabel(f"test top-1 of {report['predicted']} among {round(1 / report['chance']):,}, p = {point['p']:g}")
    axis.grid(axis="x", alpha=0.3)
    axis.set_axisbelow(True)
    axis.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside upper center", ncols=len(lines), frameon=False)
    return figure


def _curves(report: Mapping[str, Any], points: Sequence[Mapping[str, Any]]) -> Figure:
    """Accuracy and information, both over p."""
    p = [point["p"] for point in points]
    figure = new_figure(9.2, 3.6)
    accuracy, information = figure.subplots(1, 2)
    for name in points[0]["results"]:
        found = [point["results"][name] for point in points]
        accuracy.errorbar(
            p,
            [one["top1"] for one in found],
            yerr=[
                [max(0.0, one["top1"] - one["ci95"][0]) for one in found],
                [max(0.0, one["ci95"][1] - one["top1"]) for one in found],
            ],
            marker="o",
            markersize=4,
            capsize=3,
            color=COLOURS.get(name),
            label=objective_title(name),
        )
    for key, label, dashes in (("all", "best from all", "--"), ("pairs", "best from pairs", ":")):
        accuracy.plot(p, [point["best"][key] for point in points], dashes, color=EXACT, label=label)
    accuracy.set_ylabel(f"test top-1 of {report['predicted']} among {round(1 / report['chance']):,}")
    accuracy.set_ylim(0, 1.02)
    for (field, label), style in zip(FORMULAS, _STYLES, strict=True):
        information.plot(p, [point["information"][field] for point in points], linestyle=style, label=label)
    information.set_ylabel("nats")
    for axis in (accuracy, information):
        axis.set_xlabel("p")
        axis.grid(alpha=0.3)
        axis.spines[["top", "right"]].set_visible(False)
        draw_legend(axis)
    return figure
