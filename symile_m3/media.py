"""What pools are made of: recipes for distinct images and clips, and the media they become."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """How to make one image or clip; known before it is made, and all that is needed to make it.

    Attributes:
        name: unique in its pool, usable as a file name.
        group: what the medium shows or speaks: a class key, or a language code.
        split: train, val or test under `--split-by media`.
        source: where it comes from, for people: `emoji:Google`, `espeak`.
        licence: the licence of the medium.
        attributes: what else is recorded of it, such as the vendor, or the voice and the sentence.
    """

    name: str
    group: str
    split: str
    source: str
    licence: str
    attributes: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class Medium:
    """One distinct image or clip: its recipe, and the identity of its bytes.

    Attributes:
        id: first 16 hexadecimal digits of the SHA-256 of its bytes: a medium is its content.
        recipe: what it was made from.
    """

    id: str
    recipe: Recipe


def content_id(data: bytes) -> str:
    """The identity of a medium's bytes."""
    return hashlib.sha256(data).hexdigest()[:16]


class Pool(Protocol):
    """A source of distinct images (group: class) or speech clips (group: language).

    A pool is small and picklable, since `make` runs in worker processes; what is heavy is loaded on
    first use there. `make` is a pure function of the recipe: the same bytes everywhere.
    """

    @property
    def suffix(self) -> str:
        """File suffix of the media: `jpg` or `flac`."""
        ...

    def recipes(self, groups: Sequence[str]) -> list[Recipe]:
        """Every medium the pool can make for these groups, in a fixed order.

        Raises:
            SourceError: a group has too few media for the three splits.
        """
        ...

    def make(self, recipe: Recipe) -> bytes:
        """The encoded medium.

        Raises:
            SourceError: it cannot be made; the message names the recipe and why.
        """
        ...
