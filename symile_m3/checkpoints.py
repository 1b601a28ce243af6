"""Checkpoints: written whole or not at all, read without unpickling code."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import torch

from symile_m3.errors import TrainingError
from symile_m3.shards import write_bytes


def save_tensors(path: Path, state: dict[str, Any]) -> None:
    buffer = io.BytesIO()
    torch.save(state, buffer)
    write_bytes(path, buffer.getvalue())


def load_tensors(path: Path) -> dict[str, Any] | None:
    """A checkpoint, without unpickling code; None where there is none.

    Raises:
        TrainingError: it is damaged.
    """
    if not path.exists():
        return None
    try:
        state: dict[str, Any] = torch.load(path, weights_only=True)
    except Exception as error:  # torch raises many kinds for a damaged file
        raise TrainingError(f"{path}: unreadable ({type(error).__name__}); train again with --overwrite") from error
    return state
