"""Symile-M3: multilingual image-text-audio triples, and Symile against pairwise CLIP on them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from symile_m3._version import __version__

if TYPE_CHECKING:
    from symile_m3.objectives.modules import MIPSimilarity, Symile

__all__ = ["MIPSimilarity", "Symile", "__version__"]


def __getattr__(name: str) -> Any:
    """`Symile` and `MIPSimilarity`, imported when asked for: the commands must not wait for torch."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from symile_m3.objectives import modules

    return getattr(modules, name)
