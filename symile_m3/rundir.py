"""The directory of a run: its recipe, what it came to, and everything needed to repeat it.

config.json     the recipe and the fingerprint of the dataset
run.json        id, and of each time it was begun or gone on with: command, versions, machine, git state, options
summary.json    once finished, and with it what the model needs to be used elsewhere (see `symile_m3.portable`)
"""

from __future__ import annotations

import contextlib
import fcntl
import importlib.metadata
import json
import platform
import secrets
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from symile_m3._version import __version__
from symile_m3.checkpoints import FILES, check_age, remove_checkpoints
from symile_m3.errors import TrainingError, UsageError
from symile_m3.features import FeatureConfig
from symile_m3.model import ModelConfig
from symile_m3.portable import BESIDE, MODEL
from symile_m3.processes import Place
from symile_m3.recipe import ADDED, ADDED_TO_DECLARED, LoopConfig, RunOptions, TrainConfig
from symile_m3.runlog import STEPS
from symile_m3.shards import write_text
from symile_m3.shards.urls import is_url, shown

_PACKAGES = ("torch", "numpy", "lightning-fabric", "safetensors", "torchvision", "open_clip_torch", "transformers")
_FILES = (
    "config.json",
    "run.json",
    "summary.json",
    "metrics.jsonl",
    "metrics.csv",
    "curves.png",
    STEPS,
    MODEL,
    *BESIDE,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class RunSummary:
    """What a finished run came to.

    Attributes:
        objective: its name.
        directory: where its files are.
        steps: taken.
        best_step, best_top1: the best validation retrieval, and when.
        seconds: of training, features excluded.
        outside: share of these in anything but the model's forward, backward and step.
    """

    objective: str
    directory: str
    steps: int
    best_step: int
    best_top1: float
    seconds: float
    outside: float = 0.0


def read_summary(directory: Path) -> RunSummary:
    """What the run in the directory came to.

    Raises:
        TrainingError: the file is unreadable.
    """
    path = directory / "summary.json"
    try:
        return RunSummary(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise TrainingError(f"{path}: unreadable ({error}); delete it and train again") from error


def read_config(directory: Path) -> tuple[TrainConfig, str, dict[str, str]]:
    """The recipe of a run, the fingerprint of its dataset, and those of the weights that its towers began with.

    Raises:
        TrainingError: config.json is unreadable.
    """
    path = directory / "config.json"
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(record, dict):
            raise ValueError("no table of settings")
        record = {**ADDED, **record}
        fingerprint = str(record.pop("fingerprint"))
        weights = dict(record.pop("weights", {}))
        record["features"] = FeatureConfig(**record["features"])
        record["model"] = ModelConfig(**record["model"])
        config = TrainConfig(**{field.name: record[field.name] for field in fields(TrainConfig)})
    except (OSError, ValueError, KeyError, TypeError, UsageError) as error:
        raise TrainingError(f"{path}: unreadable ({error}); train again with --overwrite") from error
    return config, fingerprint, weights


def check_run(
    directory: Path, fingerprint: str, config: LoopConfig, weights: Mapping[str, str], *, overwrite: bool
) -> bool:
    """Make sure that what is in the directory, if anything, is a run of this recipe; write its config.

    A run of another recipe that was interrupted before it saved anything makes room for this one.

    Args:
        fingerprint: of the dataset.
        weights: modality -> fingerprint of the weights its tower begins with, where they come from elsewhere.

    Returns:
        Whether such a run was there.

    Raises:
        TrainingError: it is another, and has saved something or is being trained.
    """
    path = directory / "config.json"
    if overwrite:
        _remove_run(directory)
    check_age(directory)
    record = {"fingerprint": fingerprint, **asdict(config), **({"weights": dict(weights)} if weights else {})}
    record = json.loads(json.dumps(record))
    if not path.exists():
        write_text(path, json.dumps(record, indent=2) + "\n")
        return False
    saved = any((directory / name).exists() for name in (*FILES, "summary.json"))
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(found, dict):
            raise ValueError("no table of settings")
        found = {**ADDED_TO_DECLARED, **found}  # only what is asked for is compared
    except ValueError as error:
        if saved:
            raise TrainingError(f"{path}: unreadable ({error}); train again with --overwrite") from error
        found = {}
    differences = [
        f"{what} {before} (asked: {asked})"
        for name in record
        for what, before, asked in _differences(name, found.get(name), record[name])
    ]
    if differences and not saved:
        if _is_held(path):
            raise TrainingError(
                f"{directory}: another process trains a run of another recipe there; wait for it, or name another "
                "directory with --runs"
            )
        _remove_run(directory)
        write_text(path, json.dumps(record, indent=2) + "\n")
        return True
    if differences:
        what = "; ".join(differences).replace("fingerprint", "dataset")
        raise TrainingError(
            f"{directory} holds a run of another recipe: {what}. "
            "Name another directory with --runs, or give --overwrite to train in its place"
        )
    return False


def _remove_run(directory: Path) -> None:
    remove_checkpoints(directory)
    for name in _FILES:
        (directory / name).unlink(missing_ok=True)
    for name in ("tensorboard", "wandb"):
        shutil.rmtree(directory / name, ignore_errors=True)


@contextlib.contextmanager
def held(directory: Path) -> Iterator[None]:
    """While it lasts, no other process gives up the run in the directory for one of another recipe."""
    with (directory / "config.json").open("rb") as file:
        with contextlib.suppress(OSError):  # a file system that knows no locks
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        yield


def _is_held(path: Path) -> bool:
    with path.open("r+b") as file:  # on NFS an exclusive lock is for files that may be written
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:
            return False
    return False


def _differences(name: str, found: Any, asked: Any) -> list[tuple[str, Any, Any]]:
    """What differs, where both values are; of tables, and lists of the same named tables, the settings of each."""
    if found == asked:
        return []
    if isinstance(found, dict) and isinstance(asked, dict) and found.keys() == asked.keys():
        return [one for key in asked for one in _differences(f"{name}.{key}", found[key], asked[key])]
    lists = [of if isinstance(of, list) and of and isinstance(of[0], dict) else [] for of in (found, asked)]
    names = [[table.get("name") for table in tables] for tables in lists]
    if not names[0] or names[0] != names[1]:
        return [(name, found, asked)]
    return [
        (f"{name}.{one['name']}.{key}", one.get(key), value)
        for one, other in zip(*lists, strict=True)
        for key, value in other.items()
        if one.get(key) != value
    ]


def note_session(directory: Path, data: Path | str, features: str, place: Place, options: RunOptions, step: int) -> str:
    """Note that a run is begun, or gone on with, and under what circumstances.

    Args:
        features: fingerprint of the features it trains on.
        step: that it goes on behind.

    Returns:
        The id of the run.
    """
    path = directory / "run.json"
    try:
        record = dict(json.loads(path.read_text(encoding="utf-8")))
        sessions, run_id = list(record["sessions"]), str(record["id"])
    except (OSError, ValueError, KeyError, TypeError):  # notes: a run does not end for want of them
        sessions, run_id = [], secrets.token_hex(8)
    sessions.append(
        {
            "started": datetime.now(UTC).isoformat(timespec="seconds"),
            "step": step,
            "command": [_public(word) for word in sys.argv],
            "data": _public(str(data)),
            "features": features,
            "options": asdict(options),
            "processes": place.world,
            "device": torch.cuda.get_device_name(place.device) if place.device.type == "cuda" else platform.machine(),
            "threads": torch.get_num_threads(),
            "platform": platform.platform(),
            "versions": {"symile-m3": __version__, "python": platform.python_version(), **_versions()},
            "git": _git_state(),
        }
    )
    write_text(path, json.dumps({"id": run_id, "sessions": sessions}, indent=2) + "\n")
    return run_id


def _public(word: str) -> str:
    """A word of the command line without what a URL may hold of secrets."""
    option, equals, value = word.partition("=") if word.startswith("-") else ("", "", word)
    return option + equals + (shown(value) if is_url(value) else value)


def _versions() -> Mapping[str, str]:
    versions = {}
    for name in _PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def _git_state() -> dict[str, Any] | None:
    """Commit of the working directory, and whether anything in it differs; None where it is in no repository."""

    def git(*words: str) -> str:
        done = subprocess.run(["git", *words], capture_output=True, text=True, check=True, timeout=10)
        return done.stdout.strip()

    try:
        return {"commit": git("rev-parse", "HEAD"), "changed": bool(git("status", "--porcelain"))}
    except (OSError, subprocess.SubprocessError):
        return None
