"""Accuracy and information over p, as a picture."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from symile_m3.plots import COLOURS, EXACT, as_png, draw_legend, new_figure
from symile_m3.shards import write_bytes
from symile_m3.synthetic.information import FORMULAS
from symile_m3.wording import objective_title

_STYLES = ("-", "-", "-", (0, (2, 3)), ":")  # I(a;b|c) and I(b;c|a) lie upon each other


def draw_sweep(path: Path, report: Mapping[str, Any]) -> None:
    """Top-1 with 95% intervals beside what is possible, and the exact information, both over p.

    Args:
        path: of the PNG.
        report: of `run_sweep`, with at least two values of p.

    Raises:
        ValueError: there is one value only.
        ShardError: the file cannot be written.
    """
    points = sorted(report["points"], key=lambda point: float(point["p"]))
    if len(points) < 2:
        raise ValueError("one value of p makes no curve")
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
    write_bytes(path, as_png(figure))
