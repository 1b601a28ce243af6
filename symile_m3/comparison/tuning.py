"""Tuning: rates and initial scale of every objective, from the same trials, judged on the validation samples alone."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import torch

from symile_m3.comparison.jobs import Ended
from symile_m3.comparison.worker import Job
from symile_m3.errors import UsageError
from symile_m3.modalities.declaration import DeclaredConfig
from symile_m3.recipe import TrainConfig, naming
from symile_m3.shards import write_text

C = TypeVar("C", TrainConfig, DeclaredConfig)

TUNE_SEED = 1_000_003
LARGEST, EACH = "largest", "each"
RATE_FACTORS = (1 / 10, 3.0)
SCALE_OFFSETS = (-2.0, 2.0)


@dataclass(frozen=True, kw_only=True, slots=True)
class TuneConfig:
    """How much is tried for each objective, the same for all.

    Attributes:
        trials: short runs an objective; 0 takes the recipe as it is.
        steps: of a trial; 0 for a quarter of the recipe's.
        on: "largest" (the dataset with most languages, then classes, then training samples, for all of them) or "each".
        seed: of the points and of the trials; no run that is reported has it.
    """

    trials: int = 0
    steps: int = 0
    on: str = LARGEST
    seed: int = TUNE_SEED

    def __post_init__(self) -> None:
        if self.trials < 0 or self.steps < 0:
            raise UsageError(f"--tune {self.trials} --tune-steps {self.steps}: neither is negative")
        if self.on not in (LARGEST, EACH):
            raise UsageError(f"--tune-on {self.on}: give {LARGEST} or {EACH}")


@dataclass(frozen=True, kw_only=True, slots=True)
class TrialPoint:
    """What a trial tries.

    Attributes:
        rate_factor: of all learning rates of the recipe.
        log_scale_offset: added to the logarithm of the objective's scale at the beginning.
    """

    rate_factor: float = 1.0
    log_scale_offset: float = 0.0

    def applied(self, config: C) -> C:
        """The recipe at this point."""
        factor = self.rate_factor
        if isinstance(config, DeclaredConfig):
            return replace(
                config, lr=config.lr * factor, log_scale_offset=config.log_scale_offset + self.log_scale_offset
            )
        offset = config.model.log_scale_offset + self.log_scale_offset
        return replace(
            config,
            lr=config.lr * factor,
            image_lr=config.image_lr * factor,
            net_lr=config.net_lr * factor,
            model=replace(config.model, log_scale_offset=offset),
        )


def trial_points(trials: int, seed: int) -> list[TrialPoint]:
    """The recipe as it is, and points spread evenly over factors (in the logarithm) and offsets; Sobol's sequence."""
    if trials < 2:
        return [TrialPoint()] * trials
    low, high = (math.log(factor) for factor in RATE_FACTORS)
    sobol: Any = torch.quasirandom.SobolEngine  # untyped
    drawn = sobol(2, scramble=True, seed=seed).draw(trials - 1).tolist()
    return [
        TrialPoint(),
        *(
            TrialPoint(
                rate_factor=float(f"{math.exp(low + (high - low) * across):.3g}"),
                log_scale_offset=round(SCALE_OFFSETS[0] + (SCALE_OFFSETS[1] - SCALE_OFFSETS[0]) * up, 2),
            )
            for across, up in drawn
        ),
    ]


def trial_recipes(recipe: C, tune: TuneConfig) -> list[tuple[TrialPoint, C]]:
    """The recipe of each trial: a whole schedule in fewer steps.

    Args:
        recipe: with steps and not epochs.
    """
    steps = tune.steps or max(1, recipe.steps // 4)
    return [
        (point, replace(point.applied(recipe), steps=steps, seed=tune.seed))
        for point in trial_points(tune.trials, tune.seed)
    ]


@dataclass(frozen=True, kw_only=True, slots=True)
class Tuned:
    """What came out for an objective.

    Attributes:
        point: the chosen one.
        trials: each point with its best validation top-1 (None where training failed) and why it failed.
        steps: of each trial.
        missing: the trial that the machine failed, by which no choice would be fair; empty where none was.
    """

    point: TrialPoint
    trials: tuple[Mapping[str, Any], ...]
    steps: int
    missing: str = ""

    def record(self) -> dict[str, Any]:
        """As JSON."""
        return {"chosen": asdict(self.point), "steps": self.steps, "trials": [dict(trial) for trial in self.trials]}


def choose(points: Sequence[TrialPoint], ended: Sequence[Ended]) -> Tuned:
    """The point with the best validation top-1, of equals the first; a trial whose training fails scores nothing.

    Not so one that the machine failed: it is `missing`.
    """
    trials: list[dict[str, Any]] = []
    for point, end in zip(points, ended, strict=True):
        score = None if end.summary is None else end.summary.best_top1
        trials.append({**asdict(point), "val_top1": score, **({"error": end.error} if end.error else {})})
    scores = [-1.0 if trial["val_top1"] is None else float(trial["val_top1"]) for trial in trials]
    killed = [f"{end.job.name}: {end.error}" for end in ended if end.killed]
    missing = killed[0] if killed else "" if max(scores) >= 0 else f"all failed: {ended[0].error}"
    return Tuned(
        point=points[scores.index(max(scores))],
        trials=tuple(trials),
        steps=ended[0].job.config.steps,
        missing=missing,
    )


def remembered(path: Path) -> Tuned | None:
    """What an earlier tuning came to; None where there is none, or it cannot be read."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        return Tuned(point=TrialPoint(**record["chosen"]), trials=tuple(record["trials"]), steps=int(record["steps"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def remember(path: Path, tuned: Tuned) -> None:
    """Write down what came out, and every trial.

    Raises:
        ShardError: the file cannot be written.
    """
    write_text(path, json.dumps(tuned.record(), indent=2) + "\n")


def trials_key(jobs: Sequence[Job]) -> str:
    """What names the trials of these recipes."""
    text = json.dumps([naming(job.config) for job in jobs], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:10]
