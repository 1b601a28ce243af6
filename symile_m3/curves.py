"""Training curves as a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from symile_m3.plots import as_png, new_figure
from symile_m3.shards import write_bytes


def draw_curves(path: Path, title: str, metrics: Sequence[Mapping[str, float]], *, modalities: int = 3) -> None:
    """Loss, validation retrieval and, where it was noted, ln(candidates) - loss, over the steps.

    Args:
        modalities: M; an anchor has B - M + 2 candidates, see `symile_m3.objectives.total_correlation_bound`.
    """
    panels = [("loss", "training loss (nats)"), ("val_top1", "validation top-1")]
    if metrics and "bound_nats" in metrics[0]:
        candidates = f"B - {modalities - 2}" if modalities > 2 else "B"
        panels.append(("bound_nats", f"training: ln({candidates}) - loss (nats)"))
    width_in = 4.2 * len(panels)
    figure = new_figure(width_in, 3.2, fitted=False)  # which takes half as long, and these are drawn for every run
    figure.subplots_adjust(left=0.75 / width_in, right=1 - 0.15 / width_in, bottom=0.16, top=0.89, wspace=0.28)
    steps = [record["step"] for record in metrics]
    for axis, (name, label) in zip(figure.subplots(1, len(panels)), panels, strict=True):
        axis.plot(steps, [record[name] for record in metrics], marker="o", markersize=3)
        axis.set_xlabel("step")
        axis.set_ylabel(label)
        axis.grid(alpha=0.3)
        axis.spines[["top", "right"]].set_visible(False)
        if name == "val_top1":
            axis.set_ylim(0, 1)
    figure.suptitle(title)
    write_bytes(path, as_png(figure))
