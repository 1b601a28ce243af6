"""What a run writes down while it trains: metrics of its evaluations, and each step where that is asked for."""

from __future__ import annotations

import csv
import importlib.util
import io
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from symile_m3.errors import MissingDependencyError
from symile_m3.shards import write_text

LOGS = ("csv", "tensorboard", "wandb")
STEPS = "steps.csv"
_COLUMNS = ("step", "loss", "lr", "grad_norm")


class Log(Protocol):
    """One place that figures go to as they come."""

    def write(self, step: int, figures: Mapping[str, float]) -> None:
        """Figures of the step with this number, the first being 1."""
        ...

    def close(self) -> None:
        """Nothing more comes."""
        ...


def check_logs(names: Sequence[str]) -> None:
    """Make sure that what the logs need is installed.

    Raises:
        MissingDependencyError: it is not.
    """
    for name in names:
        if name != "csv" and importlib.util.find_spec(name) is None:
            raise MissingDependencyError(
                f'--log-to {name}: the Python package {name} is not installed; pip install "symile-m3[{name}]"'
            )


def open_logs(names: Sequence[str], directory: Path, *, run_id: str, config: Mapping[str, Any], step: int) -> list[Log]:
    """The logs of a run, which goes on behind `step`.

    Args:
        names: of `LOGS`.
        directory: of the run.
        run_id: what W&B knows it by.
        config: shown by W&B.
    """
    opened: list[Log] = []
    for name in dict.fromkeys(names):
        if name == "csv":
            opened.append(StepTable(directory / STEPS, step))
        elif name == "tensorboard":
            opened.append(TensorBoard(directory / "tensorboard", step))
        else:
            opened.append(WeightsAndBiases(directory, run_id, config))
    return opened


class StepTable:
    """A CSV file with a row a step; rows behind the step that a run goes on from are left out."""

    def __init__(self, path: Path, step: int) -> None:
        kept: list[list[str]] = []
        if step and path.exists():
            with path.open(encoding="utf-8", newline="") as file:
                kept = [row for row in list(csv.reader(file))[1:] if len(row) == len(_COLUMNS) and int(row[0]) <= step]
        write_text(path, _csv([_COLUMNS, *kept]))
        self._file = path.open("a", encoding="utf-8", newline="", buffering=1)

    def write(self, step: int, figures: Mapping[str, float]) -> None:
        if "lr" in figures:  # not those of an evaluation, which have a table of their own
            self._file.write(_csv([[step, *(figures.get(name, "") for name in _COLUMNS[1:])]]))

    def close(self) -> None:
        self._file.close()


class TensorBoard:
    """Event files that `tensorboard --logdir` shows."""

    def __init__(self, directory: Path, step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer: Any = SummaryWriter(str(directory), purge_step=step + 1)

    def write(self, step: int, figures: Mapping[str, float]) -> None:
        for name, value in figures.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        self._writer.close()


class WeightsAndBiases:
    """A run on Weights & Biases; `WANDB_MODE=offline` keeps it in the run's directory."""

    def __init__(self, directory: Path, run_id: str, config: Mapping[str, Any]) -> None:
        import wandb

        self._run: Any = wandb.init(
            project="symile-m3",
            name=f"{directory.parent.name}-{directory.name}",
            id=run_id,
            resume="allow",
            dir=str(directory),
            config=dict(config),
        )

    def write(self, step: int, figures: Mapping[str, float]) -> None:
        self._run.log(dict(figures), step=step)

    def close(self) -> None:
        self._run.finish(quiet=True)


def write_metrics(directory: Path, metrics: Sequence[Mapping[str, float]]) -> None:
    """The metrics of all evaluations, as JSON lines and as CSV.

    `bound_nats` is ln(candidates) - loss of what was trained on, which may lie above the total correlation: the name
    has stayed, as runs of before have it. On samples not trained on, `eval --bound` gives a lower bound.
    """
    write_text(directory / "metrics.jsonl", "".join(json.dumps(record) + "\n" for record in metrics))
    if metrics:
        header = list(metrics[0])
        rows = [[record.get(name, math.nan) for name in header] for record in metrics]
        write_text(directory / "metrics.csv", _csv([header, *rows]))


def _csv(rows: Sequence[Sequence[object]]) -> str:
    table = io.StringIO()
    csv.writer(table, lineterminator="\n").writerows(rows)
    return table.getvalue()
