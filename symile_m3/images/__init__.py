"""Image pools: where the distinct images of each class come from."""

from __future__ import annotations

from collections.abc import Sequence

from symile_m3.errors import UsageError
from symile_m3.images.emoji import EmojiPool, available_classes
from symile_m3.media import Pool

__all__ = ["EmojiPool", "drawable_classes", "open_image_pool"]


def open_image_pool(spec: str, *, seed: int) -> Pool:
    """The image pool that `--images` names.

    Raises:
        UsageError: an unknown spec.
    """
    if spec == "emoji":
        return EmojiPool(seed=seed)
    raise UsageError(f"--images {spec}: unknown source of images; known: emoji")


def drawable_classes(spec: str, class_keys: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The classes the pool has images of: those with its full number first choice, then those with fewer."""
    open_image_pool(spec, seed=0)
    full, some = available_classes(), available_classes(3)
    return tuple(key for key in class_keys if key in full), tuple(key for key in class_keys if key in some)
