"""Accuracy over the probability that something is missing, as a picture."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from symile_m3.shards import write_bytes

_COLOURS = {"symile": "#1f6fb4", "clip": "#c8641e"}
_NAMES = {"symile": "Symile", "clip": "CLIP"}


def draw_missing(path: Path, report: Mapping[str, Any]) -> None:
    """Top-1 with 95% intervals: over p hidden in the test, over p hidden in training, or both side by side.

    Args:
        path: of the PNG.
        report: of `evaluate`, with a curve of one kind or both.

    Raises:
        ValueError: it has none.
        ShardError: the file cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    panels = _panels(report)
    if not panels:
        raise ValueError("the report has no curve: evaluate several --missing-p, or runs trained with several")
    figure = Figure(figsize=(4.6 * len(panels), 3.4), layout="constrained")
    FigureCanvasAgg(figure)
    for axis, (label, curves, exact) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        for name, points in curves.items():
            shares = [share for _, share, _ in points]
            below = [share - low for _, share, (low, _) in points]
            above = [high - share for _, share, (_, high) in points]
            axis.errorbar(
                [p for p, _, _ in points],
                shares,
                yerr=[[max(0.0, size) for size in below], [max(0.0, size) for size in above]],
                marker="o",
                markersize=4,
                capsize=3,
                color=_COLOURS.get(name),
                label=_NAMES.get(name, name),
            )
        if exact:
            axis.plot(
                [p for p, _ in exact], [best for _, best in exact], "--", color="#666666", label="best there can be"
            )
        axis.set_xlabel(label)
        axis.set_ylabel("test top-1, all queries")
        axis.set_ylim(0, 1)
        axis.grid(alpha=0.3)
        axis.spines[["top", "right"]].set_visible(False)
        axis.legend(frameon=False)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120)
    write_bytes(path, buffer.getvalue())


Points = list[tuple[float, float, Sequence[float]]]


def _panels(report: Mapping[str, Any]) -> list[tuple[str, dict[str, Points], list[tuple[float, float]]]]:
    """Label, the points of each objective, and the exact values."""
    names = list(report["results"])
    panels: list[tuple[str, dict[str, Points], list[tuple[float, float]]]] = []
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
