"""What pools of image files share: which files they take, in which split each is, and how one is read and prepared."""

from __future__ import annotations

import hashlib
import os
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from symile_m3.errors import SourceError, UnusableError
from symile_m3.media import ImageOptions, Recipe
from symile_m3.splits import LEAST, draw_splits, rank, too_few

SYNSET = re.compile(r"n\d{8}")
IMAGENET_LICENCE = "ImageNet terms of access: non-commercial research and educational use only"
MAX_BYTES = 256 << 20
SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".ppm", ".jp2", ".avif"}
)
_UNFIT = re.compile(r"[^A-Za-z0-9_-]+")


@dataclass(frozen=True, kw_only=True, slots=True)
class Listing:
    """What a directory holds.

    Attributes:
        files: class key -> its image files, by their paths under the directory with `/` between the parts, sorted.
        notes: lines on what is there and is not taken.
    """

    files: Mapping[str, Sequence[str]]
    notes: tuple[str, ...] = ()


def is_image(name: str) -> bool:
    """Whether a file is taken for an image, by its name."""
    stem, dot, suffix = name.rpartition(".")
    return bool(stem) and f"{dot}{suffix.lower()}" in SUFFIXES and not name.startswith(".")


def recipe_name(file: str) -> str:
    """A name for a file's image, fit for a tar and unique: what is fit of its path, and a digest of all of it."""
    fit = _UNFIT.sub("-", file.rpartition(".")[0] or file).strip("-_")[-48:].lstrip("-_")
    digest = hashlib.blake2b(file.encode(), digest_size=6).hexdigest()
    return f"{fit}-{digest}" if fit else digest


def imagenet_table(keys: Sequence[str]) -> str:
    """The built-in table for these class keys: `imagenet` if they are synsets."""
    return "imagenet" if keys and all(SYNSET.fullmatch(key) for key in keys) else ""


class FilePool(ABC):
    """Images in files under one directory.

    The directory is read when a pool is first asked what it has. A pool goes to worker processes without that.

    Attributes:
        root: the directory.
        options: what the user decided.
        spec: what `--images` said, for messages.
        source, licence: of every image.
    """

    def __init__(self, *, root: Path, options: ImageOptions, spec: str, source: str, licence: str) -> None:
        self.root = root
        self.options = options
        self.spec = spec
        self.source = source
        self.licence = licence
        self._listing: Listing | None = None

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_listing": None}

    @property
    def suffix(self) -> str:
        return "jpg"

    @property
    @abstractmethod
    def table(self) -> str: ...

    @abstractmethod
    def labels(self) -> Mapping[str, str]: ...

    @abstractmethod
    def _list(self) -> Listing:
        """Read the directory."""

    @abstractmethod
    def _read(self, file: str) -> bytes:
        """The bytes of a file of the listing.

        Raises:
            OSError: it cannot be read.
            ValueError: it is not to be read, and why.
        """

    def listing(self) -> Listing:
        """What the directory holds.

        Raises:
            SourceError: it cannot be read.
        """
        if self._listing is None:
            try:
                self._listing = self._list()
            except OSError as error:
                where = error.filename or self.root
                raise SourceError(f"--images {self.spec}: {where} cannot be read ({error.strerror})") from error
        return self._listing

    def classes(self) -> Mapping[str, int]:
        """Class key -> number of images, of the classes with three at least.

        Raises:
            SourceError: there are fewer than two.
        """
        files = self.listing().files
        limit = self.options.per_class
        counts = {key: len(names) for key, names in files.items() if len(names) >= LEAST}
        if len(counts) < 2:
            found = f"{len(files)} director{'y' if len(files) == 1 else 'ies'}"
            few = {key: len(names) for key, names in files.items() if len(names) < LEAST}
            raise SourceError(
                f"--images {self.spec}: {found} in {self.root}, {len(counts)} of them with three images or more"
                + (f" ({too_few(few)})" if few else "")
                + "; at least two classes are needed, each a directory with its images in it"
            )
        return {key: min(count, limit or count) for key, count in counts.items()}

    def notes(self) -> Sequence[str]:
        """What is left out: classes with too few images, and files that are none by their names."""
        listing = self.listing()
        few = {key: len(names) for key, names in listing.files.items() if len(names) < LEAST}
        notes = [f"{self.root}: {too_few(few)}; left out, as each needs three, one for each split"] if few else []
        return (*notes, *listing.notes)

    def recipes(self, groups: Sequence[str]) -> list[Recipe]:
        """One recipe a file, by class and path; see `symile_m3.splits.draw_splits`.

        Raises:
            SourceError: a class has fewer than three images.
        """
        files, seed = self.listing().files, self.options.seed
        short = {key: len(files.get(key, ())) for key in groups if len(files.get(key, ())) < LEAST}
        if short:
            raise SourceError(
                f"--images {self.spec}: {too_few(short)} in {self.root}, and three are needed, for train, val and "
                "test; add images or leave the classes out"
            )
        recipes = []
        for key in sorted(groups):
            names = files[key]
            ranks = np.array([rank(seed, name) for name in names], dtype=np.uint64)
            if self.options.per_class is not None and self.options.per_class < len(names):
                chosen = np.sort(np.argsort(ranks, kind="stable")[: self.options.per_class])
                names, ranks = [names[i] for i in chosen], ranks[chosen]
            for name, split in zip(names, draw_splits(ranks), strict=True):
                recipes.append(
                    Recipe(
                        name=recipe_name(name),
                        group=key,
                        split=split,
                        source=self.source,
                        licence=self.licence,
                        attributes={"file": name},
                    )
                )
        return recipes

    def make(self, recipe: Recipe) -> bytes:
        """The image as a dataset stores it; see `symile_m3.images.prepare.prepare`.

        Raises:
            UnusableError: the file is no image that can be used.
            SourceError: it cannot be read.
        """
        from symile_m3.images.prepare import prepare

        file = recipe.attributes["file"]
        try:
            return prepare(self._read(file), self.options)
        except ValueError as error:
            raise UnusableError(f"{self.root / file}: {error}") from error
        except OSError as error:
            raise SourceError(
                f"{self.root / file}: cannot be read ({error.strerror}); run the same command again when it can"
            ) from error


def read_file(path: Path) -> bytes:
    """The bytes of a file that is not absurdly large.

    Raises:
        OSError: it cannot be read.
        ValueError: it is empty, or too large to be an image.
    """
    with path.open("rb", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        if size > MAX_BYTES:
            raise ValueError(f"{size >> 20:,} MB are more than the {MAX_BYTES >> 20} allowed")
        data = file.read()
    if not data:
        raise ValueError("empty")
    return data
