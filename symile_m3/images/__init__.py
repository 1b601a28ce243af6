"""Image pools: where the distinct images of each class come from."""

from __future__ import annotations

from symile_m3.images.emoji import EmojiPool
from symile_m3.media import ImageOptions, ImagePool
from symile_m3.sources import find_source

__all__ = ["SOURCES", "EmojiPool", "open_image_pool"]

SOURCES = {
    "emoji": "symile_m3.images.emoji:open_emoji",
    "folder": "symile_m3.images.folder:open_folder",
    "hf": "symile_m3.images.huggingface:open_huggingface",
    "imagenet": "symile_m3.images.imagenet:open_imagenet",
}
"""Name -> function of (argument, `ImageOptions`) that opens the pool."""


def open_image_pool(spec: str, options: ImageOptions | None = None) -> ImagePool:
    """The image pool that `--images` names.

    Raises:
        UsageError: an unknown spec, or one without what it takes.
        SourceError: the source is not there, or not what it should be.
    """
    factory, argument = find_source("images", spec, SOURCES)
    pool: ImagePool = factory(argument, options or ImageOptions())
    return pool
