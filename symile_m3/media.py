"""What pools are made of: recipes for distinct images and clips, and the media they become.

A source of one's own is a class with the methods of `ImagePool` or `ClipPool`, and a function that makes one; see
`symile_m3.sources`.
"""

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
        synthetic: whether a program made it, such as speech that nobody spoke; the card says so.
        attributes: what else is recorded of it, such as the vendor, or the voice and the sentence.
    """

    name: str
    group: str
    split: str
    source: str
    licence: str
    synthetic: bool = False
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


class NotedBytes(bytes):
    """A medium with a word on what it was made of that is out of the ordinary, such as `CMYK`; a build counts them.

    Attributes:
        note: the word.
    """

    note: str

    def __new__(cls, data: bytes, note: str) -> NotedBytes:
        noted = super().__new__(cls, data)
        noted.note = note
        return noted


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
        """The encoded medium; as `NotedBytes` where the build is to count what it was made of.

        Raises:
            UnusableError: what it is made of is of no use, and will be of none; the build leaves it out.
            SourceError: it cannot be made now; the build stops. The message names the recipe and why.
        """
        ...


class ImagePool(Pool, Protocol):
    """A source of images, which knows the classes it has images of.

    It may have a method `notes()` besides: lines for the user on what it leaves out, such as classes with too few
    images; see `pool_notes`.
    """

    @property
    def table(self) -> str:
        """The built-in table that names its classes, `emoji` or `imagenet`; empty where names must be given."""
        ...

    def classes(self) -> Mapping[str, int]:
        """Class key -> number of images, of every class that has enough for the three splits.

        Raises:
            SourceError: there are none, or the source cannot be read.
        """
        ...

    def labels(self) -> Mapping[str, str]:
        """Class key -> what the source calls the class in English; what translators begin with."""
        ...


def pool_notes(pool: Pool) -> Sequence[str]:
    """What a pool says about what it leaves out; nothing where it has no such method."""
    notes = getattr(pool, "notes", None)
    return tuple(notes()) if notes is not None else ()


class ClipPool(Pool, Protocol):
    """A source of speech clips: 16 kHz, mono, FLAC."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageOptions:
    """What a user decides about images, for the sources that have a choice.

    Attributes:
        seed: of whatever is drawn, such as which images are for test.
        size_px: length of the shorter side.
        crop: `centre` (a square), or `whole` (the whole image).
        per_class: images a class at most; None for all there are.
        quality: of the JPEGs, 1 to 100.
    """

    seed: int = 0
    size_px: int = 224
    crop: str = "centre"
    per_class: int | None = None
    quality: int = 90


@dataclass(frozen=True, kw_only=True, slots=True)
class SpeechOptions:
    """What a user decides about speech, for the sources that have a choice.

    Attributes:
        seed: of what is said and who says it, or of which recordings are taken.
        clips: distinct clips a language for train, val and test: as many as are synthesised, or recordings
            that are taken at most.
        seconds: longest clip; a longer one is cut.
        forbidden: language -> names of classes, which no synthesised clip may speak.
    """

    seed: int = 0
    clips: tuple[int, int, int] = (480, 40, 60)
    seconds: float = 10.0
    forbidden: Mapping[str, frozenset[str]] = field(default_factory=dict)


class Translator(Protocol):
    """A service or program that translates names of classes from English."""

    def translate(self, names: Sequence[str], language: str) -> list[str]:
        """The names in a language, in their order.

        Args:
            names: English names, each with a hint to its sense in parentheses where it has several.
            language: a code of `symile_m3.languages`.

        Raises:
            SourceError: it cannot translate into this language, or cannot be reached.
        """
        ...
