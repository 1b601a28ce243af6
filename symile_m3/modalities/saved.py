"""What the directory of a run on declared modalities says of it: its recipe, and where its samples were."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path

from symile_m3.errors import TrainingError, UsageError
from symile_m3.modalities.declaration import DataConfig, DeclaredConfig, ModalityConfig, filled
from symile_m3.recipe import ADDED_TO_DECLARED

DATA = "data.json"
"""In the directory of a run: where its samples were, which is no part of its recipe."""
CONFIG = "config.json"


def is_declared_run(directory: Path) -> bool:
    """Whether a run, or a folder it was exported to, is of declared modalities."""
    try:
        return "modalities" in json.loads((directory / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False


def read_declared(directory: Path) -> tuple[DeclaredConfig, str]:
    """The recipe of a run, and the fingerprint of its samples.

    Raises:
        TrainingError: config.json is unreadable.
    """
    path = directory / CONFIG
    try:
        record = {**ADDED_TO_DECLARED, **json.loads(path.read_text(encoding="utf-8"))}
        fingerprint = str(record.pop("fingerprint"))
        modalities = tuple(filled(ModalityConfig, one, str(path)) for one in record.pop("modalities"))
        known = {item.name for item in fields(DeclaredConfig)} - {"modalities"}
        table = {name: record[name] for name in known}
        config = filled(DeclaredConfig, {**table, "modalities": modalities}, str(path))
    except (OSError, ValueError, KeyError, TypeError, UsageError) as error:
        raise TrainingError(f"{path}: unreadable ({error}); train again with --overwrite") from error
    return config, fingerprint


def saved_data(directory: Path) -> DataConfig:
    """Where the samples of a run were.

    Raises:
        TrainingError: data.json does not say.
    """
    path = directory / DATA
    try:
        return filled(DataConfig, json.loads(path.read_text(encoding="utf-8")), str(path))
    except (OSError, ValueError, UsageError) as error:
        raise TrainingError(
            f"{path}: does not say where the samples are ({error}); give the declaration with --modalities"
        ) from error
