"""A comparison as a picture: dots with intervals by dataset, or curves over what varies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from symile_m3.comparison.datasets import LANGS, SETTINGS
from symile_m3.plots import COLOURS, EXACT, as_png, new_figure
from symile_m3.shards import write_bytes
from symile_m3.wording import objective_title

_SPAN = 8.0  # from the smallest to the largest value, beyond which an axis is logarithmic


def draw_comparison(path: Path, report: Mapping[str, Any]) -> None:
    """Test top-1 with 95% intervals beside 1/w; without `over` by dataset, otherwise one panel a set of languages.

    Args:
        path: of the PNG.
        report: of `compare`.

    Raises:
        ValueError: no run has finished.
        ShardError: the file cannot be written.
    """
    points = [point for point in report["points"] if point["results"]]
    if not points:
        raise ValueError("no run has finished, so there is nothing to draw")
    names = [name for name in report["question"]["objectives"] if any(name in point["results"] for point in points)]
    over = report["question"]["over"]
    if over is None:
        figure = new_figure(max(5.0, 1.6 + 0.32 * len(names) * len(points)), 3.6)
        _groups(figure.subplots(), points, names)
        axes = figure.axes
    else:
        panels = _panels(points, over["key"])
        figure = new_figure(5.0 * len(panels), 3.6)
        axes = list(figure.subplots(1, len(panels), squeeze=False)[0])
        for axis, (title, members) in zip(axes, panels.items(), strict=True):
            _curves(axis, members, names, over["key"])
            axis.set_title(title if len(panels) > 1 else "")
    for axis in axes:
        axis.set_ylim(0, 1)
        axis.grid(alpha=0.3, axis="y")
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylabel("test top-1")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right center", frameon=False)
    write_bytes(path, as_png(figure))


def _groups(axis: Any, points: Sequence[Mapping[str, Any]], names: Sequence[str]) -> None:
    """A group of dots for each dataset or retrieval, with 1/w, or chance, as a line across the group."""
    width = 0.8 / len(names)
    for j, name in enumerate(names):
        at = [i + (j - (len(names) - 1) / 2) * width for i, point in enumerate(points) if name in point["results"]]
        _dots(axis, at, [point["results"][name] for point in points if name in point["results"]], name, "none")
    for i, point in enumerate(points):
        chance = point["bounds"].get("chance")
        exact = point["bounds"].get("text_only") if chance is None else chance
        if exact is not None:
            label = None if i else "1/w" if chance is None else "chance"
            axis.hlines(exact, i - 0.45, i + 0.45, colors=EXACT, linestyles="--", label=label)
    axis.set_xticks(range(len(points)), [_label(point) for point in points])


def _curves(axis: Any, points: Sequence[Mapping[str, Any]], names: Sequence[str], key: str) -> None:
    """A curve for each objective over the values, as numbers where they are numbers."""
    numbers = _numbers([point["value"] for point in points])
    if numbers is not None:
        points = sorted(points, key=lambda point: float(point["value"]))
        numbers.sort()
    xs = numbers or [float(i) for i in range(len(points))]
    for name in names:
        at = [x for x, point in zip(xs, points, strict=True) if name in point["results"]]
        _dots(axis, at, [point["results"][name] for point in points if name in point["results"]], name, "-")
    exact = [(x, point["bounds"].get("text_only")) for x, point in zip(xs, points, strict=True)]
    known = sorted((x, value) for x, value in exact if value is not None)
    axis.plot([x for x, _ in known], [value for _, value in known], "--", color=EXACT, label="1/w")
    if numbers is None:
        axis.set_xticks(xs, [point["value"] for point in points])
    elif is_wide(numbers):
        axis.set_xscale("log")
        axis.set_xticks(numbers, [point["value"] for point in points])
        axis.minorticks_off()
    axis.set_xlabel(key)


def _dots(axis: Any, at: Sequence[float], results: Sequence[Mapping[str, Any]], name: str, line: str) -> None:
    shares = [result["top1"] for result in results]
    below = [max(0.0, result["top1"] - result["ci95"][0]) for result in results]
    above = [max(0.0, result["ci95"][1] - result["top1"]) for result in results]
    axis.errorbar(
        at,
        shares,
        yerr=[below, above],
        marker="o",
        markersize=4,
        capsize=2,
        linestyle=line,
        color=COLOURS.get(name),
        label=objective_title(name),
    )


def _panels(points: Sequence[Mapping[str, Any]], key: str) -> dict[str, list[Mapping[str, Any]]]:
    """The points that make one curve: of one dataset, or of one number of languages where datasets vary."""
    panels: dict[str, list[Mapping[str, Any]]] = {}
    for point in points:
        title = point["name"] if key not in SETTINGS else f"{point['dataset']['languages']} languages"
        title = "" if key == LANGS else title
        panels.setdefault(title, []).append(point)
    return panels


def _label(point: Mapping[str, Any]) -> str:
    if "retrieve" in point["dataset"]:
        return f"{point['dataset']['retrieve']}\nfrom " + ",\n".join(point["dataset"]["from"])
    return f"{point['name']}\n{point['dataset']['languages']} languages"


def _numbers(values: Sequence[str]) -> list[float] | None:
    try:
        return [float(value) for value in values]
    except ValueError:
        return None


def is_wide(values: Sequence[float]) -> bool:
    """Whether values span so much that a logarithmic axis shows them better."""
    return min(values) > 0 and max(values) >= _SPAN * min(values)
