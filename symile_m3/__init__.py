"""Symile-M3: multilingual image-text-audio triples, and Symile against pairwise CLIP on them."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from symile_m3._version import __version__

if TYPE_CHECKING:
    from symile_m3.loading import TrainedModel
    from symile_m3.modalities.loading import DeclaredModel
    from symile_m3.model import Inputs, Model
    from symile_m3.objectives.modules import MIPSimilarity, Symile
    from symile_m3.opening import load

__all__ = ["DeclaredModel", "Inputs", "MIPSimilarity", "Model", "Symile", "TrainedModel", "__version__", "load"]

_HOMES = {
    "DeclaredModel": "symile_m3.modalities.loading",
    "Inputs": "symile_m3.model",
    "MIPSimilarity": "symile_m3.objectives.modules",
    "Model": "symile_m3.model",
    "Symile": "symile_m3.objectives.modules",
    "TrainedModel": "symile_m3.loading",
    "load": "symile_m3.opening",
}


def __getattr__(name: str) -> Any:
    """What is in `__all__`, imported when asked for: the commands must not wait for torch."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
