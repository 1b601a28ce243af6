"""Which of a class's images are for training, which for validation, which for test."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from symile_m3.errors import SourceError
from symile_m3.media import Medium

LEAST = 3  # images a class: one for each split
HELD_OUT = 10  # one image in so many is for validation, and as many for test


def rank(seed: int, name: str) -> int:
    """A number of 64 bits for a name, by which a seed puts names in an order of its own.

    It depends on nothing but both, so a new image leaves the places of the others as they are, but for those at a
    boundary between two splits.
    """
    return int.from_bytes(hashlib.blake2b(f"{seed}\x1f{name}".encode(), digest_size=8).digest(), "little")


def draw_splits(ranks: NDArray[np.uint64]) -> list[str]:
    """The split of each image of one class: a tenth each, and at least one, for val and test.

    Args:
        ranks: shape (N,), one an image, all different; the lowest are for test, the next ones for val.
    """
    held_out = max(1, len(ranks) // HELD_OUT)
    splits = np.full(len(ranks), "train", dtype=object)
    order = np.argsort(ranks, kind="stable")
    splits[order[:held_out]] = "test"
    splits[order[held_out : 2 * held_out]] = "val"
    chosen: list[str] = splits.tolist()
    return chosen


def fill_splits(media: Sequence[Medium], classes: Sequence[str], seed: int) -> tuple[Medium, ...]:
    """The same images, of which every split of every class has one.

    A split is empty where its only image could not be used, or has the bytes of another. It is then given one of the
    split that has most.

    Raises:
        SourceError: a class has too few images for that.
    """
    of_class: dict[str, dict[str, list[int]]] = {key: {"train": [], "val": [], "test": []} for key in classes}
    for row, medium in enumerate(media):
        of_class[medium.recipe.group][medium.recipe.split].append(row)
    few = {key: n for key, splits in of_class.items() if (n := sum(map(len, splits.values()))) < LEAST}
    if few:
        raise SourceError(
            f"{too_few(few)} among the distinct images that can be used, and three are needed, for train, val and "
            "test; give them more, or take them out of --images"
        )
    filled = list(media)
    for splits in of_class.values():
        for split, rows in splits.items():
            if not rows:
                most = max(splits.values(), key=len)
                row = min(most, key=lambda row: rank(seed, media[row].recipe.name))
                most.remove(row)
                rows.append(row)
                filled[row] = replace(media[row], recipe=replace(media[row].recipe, split=split))
    return tuple(filled)


def too_few(counts: dict[str, int]) -> str:
    """Words for classes with too few images: `2 classes have too few images: cat (2), dog (0)`."""
    shown = ", ".join(f"{key} ({count})" for key, count in sorted(counts.items())[:5])
    more = f" and {len(counts) - 5} more" if len(counts) > 5 else ""
    one = len(counts) == 1
    return f"{len(counts)} {'class has' if one else 'classes have'} too few images: {shown}{more}"
