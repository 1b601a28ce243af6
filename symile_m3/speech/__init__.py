"""Clip pools: where the speech comes from."""

from __future__ import annotations

from collections.abc import Mapping

from symile_m3.errors import UsageError
from symile_m3.media import Pool
from symile_m3.speech.espeak import EspeakPool

__all__ = ["EspeakPool", "open_clip_pool"]

KNOWN = ("espeak",)


def open_clip_pool(
    spec: str,
    *,
    clips: tuple[int, int, int] = (480, 40, 60),
    seed: int = 0,
    forbidden: Mapping[str, frozenset[str]] | None = None,
) -> Pool:
    """The clip pool that `spec` names.

    Args:
        spec: `espeak`.
        clips: how many to make a language for train, val and test, where the pool makes them.
        seed: of what is said, and of who says it.
        forbidden: language -> names that no clip of it may speak.

    Raises:
        UsageError: `spec` names no pool.
    """
    if spec == "espeak":
        return EspeakPool(train=clips[0], val=clips[1], test=clips[2], seed=seed, forbidden=forbidden or {})
    raise UsageError(f"--speech {spec}: no such source of speech; known: {', '.join(KNOWN)}")
