"""The synthetic experiment over p, objectives and seeds, in parallel processes, as one report."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from symile_m3.errors import UsageError
from symile_m3.intervals import Resampling, runs_interval
from symile_m3.parallel import available_cpus, run_parallel
from symile_m3.progress import NoProgress, Progress
from symile_m3.synthetic.experiment import ExperimentConfig, ExperimentResult, check_experiment, run_experiment
from symile_m3.synthetic.information import Information, best_accuracy, best_from_one, best_with_missing
from symile_m3.synthetic.process import PAPER_P, XorProcess
from symile_m3.wording import listed

_RESAMPLES = 1000


@dataclass(frozen=True, kw_only=True, slots=True)
class SweepConfig:
    """What a sweep runs.

    Attributes:
        p: the values of p.
        dim: bits of a vector.
        modalities: vectors of a sample.
        predicted: the letter of the vector that is retrieved.
        objectives: names.
        seeds: runs of each objective at each p.
        seed: of everything random; run s of it has seed `seed` + s.
        steps: of training.
        missing_p, batch: see `ExperimentConfig`.
    """

    p: tuple[float, ...] = PAPER_P
    dim: int = 5
    modalities: int = 3
    predicted: str = "b"
    objectives: tuple[str, ...] = ("symile", "clip")
    seeds: int = 5
    seed: int = 0
    steps: int = ExperimentConfig(objective="symile").steps
    missing_p: float = 0.0
    batch: int = ExperimentConfig(objective="symile").batch

    def __post_init__(self) -> None:
        if not self.p or not self.objectives or self.seeds < 1:
            raise UsageError("at least one p, one objective and one seed are needed")
        for process in self.processes():
            for run in self.runs():
                check_experiment(process, run)

    def processes(self) -> list[XorProcess]:
        """One for each p."""
        return [XorProcess(p=p, dim=self.dim, modalities=self.modalities) for p in self.p]

    def runs(self) -> list[ExperimentConfig]:
        """Those of one p: every seed of each objective."""
        return [
            ExperimentConfig(
                objective=objective,
                predicted=self.predicted,
                seed=self.seed + run,
                test_seed=self.seed,
                steps=self.steps,
                missing_p=self.missing_p,
                batch=self.batch,
            )
            for objective in self.objectives
            for run in range(self.seeds)
        ]


def run_sweep(config: SweepConfig, *, workers: int | None = None, progress: Progress | None = None) -> dict[str, Any]:
    """Train and test every objective at every p with every seed; the report, ready for JSON.

    The report does not depend on the number of workers, but for its seconds.

    Args:
        workers: processes; by default one a CPU.

    Raises:
        SymileM3Error: a run failed, or a worker process died.
    """
    start = time.perf_counter()
    tasks = [(process, run) for process in config.processes() for run in config.runs()]
    found: dict[tuple[float, str], dict[int, ExperimentResult]] = {}
    label = "Training " + listed(config.objectives)
    with (progress or NoProgress()).task(label, len(tasks), "runs") as task:
        for result in run_parallel(_run, tasks, workers or available_cpus()):
            found.setdefault((result.process.p, result.config.objective), {})[result.config.seed] = result
            task.advance(note=f"p = {result.process.p:g}")
    names = config.processes()[0].names
    return {
        "process": {"dim": config.dim, "modalities": config.modalities},
        "predicted": config.predicted,
        "given": names.replace(config.predicted, ""),
        "config": _shared(config),
        "chance": 2.0**-config.dim,
        "points": [_point(config, process, found) for process in config.processes()],
        "seconds": round(time.perf_counter() - start, 1),
    }


def _shared(config: SweepConfig) -> dict[str, Any]:
    """The settings that all runs share."""
    settings = {**asdict(config.runs()[0]), "seeds": config.seeds}
    return {name: value for name, value in settings.items() if name not in ("objective", "predicted", "test_seed")}


def _run(task: tuple[XorProcess, ExperimentConfig]) -> ExperimentResult:
    return run_experiment(*task)


def _point(
    config: SweepConfig, process: XorProcess, found: dict[tuple[float, str], dict[int, ExperimentResult]]
) -> dict[str, Any]:
    """What is known and what was found at one p."""
    given = process.names.replace(config.predicted, "")
    results = {}
    for objective in config.objectives:
        by_seed = found[process.p, objective]
        results[objective] = _summary(config, process, [by_seed[seed] for seed in sorted(by_seed)])
    return {
        "p": process.p,
        "information": asdict(Information.of(process)),
        "best": {
            "all": best_accuracy(process, config.predicted, given),
            "pairs": best_from_one(process, config.predicted),
        },
        "results": results,
    }


def _summary(config: SweepConfig, process: XorProcess, runs: Sequence[ExperimentResult]) -> dict[str, Any]:
    """The runs of one objective at one p."""
    summary = _accuracy([run.hits_Q for run in runs], config.seed)
    summary["loss_nats"] = float(np.mean([run.loss_nats for run in runs]))
    hidden = [run.hidden_hits_Q for run in runs if run.hidden_hits_Q is not None]
    missing_Q = runs[0].missing_Q
    if hidden and missing_Q is not None:  # the same queries lack the same vectors in every run
        counts = [int(count) for count in np.unique(missing_Q)]
        summary["hidden"] = {
            **_accuracy(hidden, config.seed),
            "by_missing": [
                {
                    "missing": count,
                    "n": int((missing_Q == count).sum()),
                    "top1": float(np.mean([hits_Q[missing_Q == count] for hits_Q in hidden])),
                    "best": best_with_missing(process, config.predicted, count),
                }
                for count in counts
            ],
        }
    return summary


def _accuracy(hits: Sequence[Any], seed: int) -> dict[str, Any]:
    """Mean over the runs, its 95% interval over runs and queries, and each run's share."""
    hits_SQ = np.stack(hits)
    return {
        "top1": float(hits_SQ.mean()),
        "ci95": runs_interval(hits_SQ, Resampling(resamples=_RESAMPLES, seed=seed)),
        "runs": [float(share) for share in hits_SQ.mean(axis=1)],
        "n": int(hits_SQ.shape[1]),
    }
