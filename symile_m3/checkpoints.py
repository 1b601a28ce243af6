"""Checkpoints: weights as safetensors, and beside the last ones what a resumed run needs; nothing is unpickled.

    best.safetensors        the weights with the best validation retrieval
    last.safetensors        the weights of the last save
    last.state              optimiser, loader and counters of that save, and the digest of its weights

Each file is written whole or not at all. The weights of a save wait under another name until its state is there,
so that whatever is killed when, the state on disk has its weights beside it.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from symile_m3.errors import TrainingError
from symile_m3.shards import write_bytes

BEST = "best.safetensors"
LAST = "last.safetensors"
STATE = "last.state"
FILES = (BEST, LAST, STATE, "last.next.safetensors")
_NEXT = FILES[3]
_OLD = ("best.pt", "last.pt")
_ABOUT = "symile_m3"  # the one entry of the metadata: several have no order, and the bytes would differ


def save_weights(path: Path, weights: Mapping[str, Tensor], about: Mapping[str, Any]) -> str:
    """Write tensors by name, with plain facts about them in the file's metadata.

    Returns:
        The digest of the file.
    """
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}
    content = safetensors.torch.save(tensors, {_ABOUT: json.dumps(about)})
    write_bytes(path, content)
    return _digest(content)


def load_weights(path: Path) -> dict[str, Tensor]:
    """Tensors by name, on the CPU.

    Raises:
        TrainingError: there are none, or the file is damaged.
    """
    return _parsed(path, _read(path))


def about_weights(path: Path) -> dict[str, Any]:
    """The facts that weights were saved with.

    Raises:
        TrainingError: there are none, or the file is damaged.
    """
    try:
        with safetensors.safe_open(path, "pt") as file:
            return dict(json.loads((file.metadata() or {})[_ABOUT]))
    except (OSError, ValueError, KeyError, TypeError, safetensors.SafetensorError) as error:
        raise _unreadable(path, error) from error


def save_last(directory: Path, weights: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
    """Write what a run goes on from."""
    digest = save_weights(directory / _NEXT, weights, {"step": state["step"]})
    buffer = io.BytesIO()
    torch.save({**state, "weights": digest}, buffer)
    write_bytes(directory / STATE, buffer.getvalue())
    (directory / _NEXT).replace(directory / LAST)


def load_last(directory: Path) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """Weights and state of the last save, on the CPU; None where nothing was saved.

    Raises:
        TrainingError: they are damaged, or do not belong together.
    """
    path = directory / STATE
    if not path.exists():
        return None
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        digest = state.pop("weights")
    except Exception as error:  # torch raises many kinds for a damaged file
        raise _unreadable(path, error) from error
    waiting, last = directory / _NEXT, directory / LAST
    if waiting.exists() and _digest(_read(waiting)) == digest:  # killed between state and renaming
        return _parsed(waiting, _read(waiting)), state
    content = _read(last)
    if _digest(content) != digest:
        raise TrainingError(f"{last}: unreadable (not the weights that {STATE} was saved with); {_AGAIN}")
    return _parsed(last, content), state


def check_age(directory: Path) -> None:
    """Make sure that the run in the directory, if there is one, has checkpoints of this form.

    Raises:
        TrainingError: it has those of an older version.
    """
    found = [name for name in _OLD if (directory / name).exists()]
    if found and not (directory / BEST).exists():
        raise TrainingError(
            f"{directory}/{found[0]}: a checkpoint of an older symile-m3, which kept weights in another form; {_AGAIN}"
        )


def remove_checkpoints(directory: Path) -> None:
    """Remove all checkpoints of a run, those of older versions too."""
    for name in (*FILES, *_OLD):
        (directory / name).unlink(missing_ok=True)


_AGAIN = "train again with --overwrite"


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise _unreadable(path, error) from error


def _parsed(path: Path, content: bytes) -> dict[str, Tensor]:
    try:
        return safetensors.torch.load(content)
    except (ValueError, KeyError, safetensors.SafetensorError) as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> TrainingError:
    return TrainingError(f"{path}: unreadable ({type(error).__name__}); {_AGAIN}")
