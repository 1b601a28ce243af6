"""What the runs of one objective at one point came to: accuracy, whether it passes 1/w, cost, time to an accuracy."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean, median
from typing import Any

from symile_m3.comparison.tuning import TrialPoint
from symile_m3.comparison.worker import Job
from symile_m3.errors import TrainingError
from symile_m3.recipe import TrainConfig
from symile_m3.rundir import RunSummary

Metrics = Sequence[Mapping[str, float]]


def objective_figures(
    result: Mapping[str, Any],
    text_only: float | None,
    runs: Sequence[tuple[Job, RunSummary]],
    *,
    reach: float,
    point: TrialPoint,
) -> dict[str, Any]:
    """The record of an objective in a report.

    Args:
        result: of the evaluation.
        text_only: the best accuracy from the text alone, 1/w; None where it is not known.
        runs: the finished ones.
        reach: a top-1 to which the time is told.
        point: what the tuning chose.

    Raises:
        TrainingError: the metrics of a run are unreadable.
    """
    curves = [read_metrics(job.run) for job, _ in runs]
    config = runs[0][0].config
    reached = [found for found in (time_to(curve, reach) for curve in curves) if found is not None]
    return {
        **result,
        "passes_text_only": None if text_only is None else result["ci95"][0] > text_only,
        "best_val": mean(summary.best_top1 for _, summary in runs),
        "steps": config.steps,
        "seconds_a_step": median(summary.seconds / max(1, summary.steps) for _, summary in runs),
        "samples_per_s": median(record["samples_per_s"] for curve in curves for record in curve),
        "lr": config.lr,
        **({"image_lr": config.image_lr} if isinstance(config, TrainConfig) else {}),
        "rate_factor": point.rate_factor,
        "log_scale_offset": (config.model if isinstance(config, TrainConfig) else config).log_scale_offset,
        "log_scale_at_end": mean(curve[-1]["log_scale"] for curve in curves),
        "reach": {
            "val_top1": reach,
            "runs": len(reached),
            "of": len(runs),
            "steps": mean(steps for steps, _ in reached) if reached else None,
            "seconds": mean(seconds for _, seconds in reached) if reached else None,
        },
        "curves": [
            {"seed": job.config.seed, **{name: [record[name] for record in curve] for name in _CURVE}}
            for (job, _), curve in zip(runs, curves, strict=True)
        ],
    }


_CURVE = ("step", "seconds", "loss", "val_top1")


def read_metrics(run: Path) -> Metrics:
    """The records of a run's evaluations, one or more.

    Raises:
        TrainingError: they are unreadable.
    """
    path = run / "metrics.jsonl"
    try:
        records = [dict(json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()]
        if not records or any(name not in record for name in _CURVE for record in records):
            raise ValueError("figures are missing")
    except (OSError, ValueError, TypeError) as error:
        raise TrainingError(f"{path}: unreadable ({error}); delete {run} and run the same command again") from error
    return records


def time_to(metrics: Metrics, top1: float) -> tuple[float, float] | None:
    """Steps and seconds after which the validation top-1 was reached, in a straight line between two evaluations;
    None where it never was."""
    before = {"step": 0.0, "seconds": 0.0, "val_top1": 0.0}
    for record in metrics:
        if record["val_top1"] >= top1:
            share = (top1 - before["val_top1"]) / (record["val_top1"] - before["val_top1"])
            steps, seconds = (before[name] + share * (record[name] - before[name]) for name in ("step", "seconds"))
            return steps, seconds
        before = dict(record)
    return None
