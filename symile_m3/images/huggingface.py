"""The `hf:NAME` image pool: data sets of the Hugging Face Hub, and local ones of the same kinds.

    hf:ILSVRC/imagenet-1k                        the split train, or the only one there is
    hf:uoft-cs/cifar100,label=fine_label         a column of its own choice; also image=, split=, config=, revision=
    hf:/data/photos                              a directory with parquet files or an image folder, or a parquet file

`datasets` finds the files, the columns and the names of the classes. Of parquet files only the column of labels is
read to know what there is; images are read when they are made, row group by row group. Any other kind is passed
through once, and what is taken of it is kept in the cache; see `symile_m3.images.hubstream`.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from symile_m3.errors import LexiconError, SourceError, UnusableError, UsageError
from symile_m3.images.files import IMAGENET_LICENCE, SYNSET, imagenet_table, read_file
from symile_m3.images.folder import UNKNOWN_LICENCE, stated_licence
from symile_m3.images.hubparquet import read_labels, read_row
from symile_m3.images.hubstream import cache_of, pass_through, read_kept
from symile_m3.images.imagenet import distinct_labels
from symile_m3.media import ImageOptions, Recipe
from symile_m3.seeds import generator
from symile_m3.splits import LEAST, draw_splits, too_few

HUB = "https://huggingface.co"
_CHOICES = ("config", "image", "label", "revision", "split")


@dataclass(frozen=True, kw_only=True, slots=True)
class HubSpec:
    """What stands behind `hf:`.

    Attributes:
        name: of the data set on the Hub, or the absolute path of a local one.
        local: whether it is a path.
        config, split, revision, image, label: what was chosen; empty for what the data set suggests.
    """

    name: str
    local: bool = False
    config: str = ""
    split: str = ""
    revision: str = ""
    image: str = ""
    label: str = ""


def parse_spec(argument: str) -> HubSpec:
    """`NAME[,choice=value]...`, or a path.

    Raises:
        UsageError: it is not of that form.
    """
    name, *choices = [argument] if Path(argument).expanduser().exists() else argument.split(",")
    given = {}
    for choice in choices:
        key, equals, value = choice.partition("=")
        if key.strip() not in _CHOICES or not equals or not value.strip():
            raise UsageError(f"--images hf:{argument}: {choice!r} is no choice; known: {'=, '.join(_CHOICES)}=")
        given[key.strip()] = value.strip()
    name = name.strip()
    if not name:
        raise UsageError("--images hf: name a data set, such as hf:ILSVRC/imagenet-1k, or a path")
    path = Path(name).expanduser()
    local = path.exists()
    if not local and (path.is_absolute() or name.startswith((".", "~")) or name.count("/") > 1):
        raise SourceError(f"--images hf:{argument}: {path} does not exist; name a path that is there")
    return HubSpec(name=str(path.resolve()) if local else name, local=local, **given)


@dataclass(frozen=True, kw_only=True, slots=True)
class Opened:
    """What is known of a data set before its labels are read.

    Attributes:
        files: of the split, sorted; paths or `hf://` URLs.
        base: what all of these begin with.
        parquet: whether they are parquet files.
        image, label: columns.
        names: of the classes, by label; empty where the labels are names or bare numbers themselves.
        builder: that of `datasets`.
        split: which one.
        licence, source: of every image.
    """

    files: tuple[str, ...]
    base: str
    parquet: bool
    image: str
    label: str
    names: tuple[str, ...]
    builder: Any
    split: str
    licence: str
    source: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """The images of a data set.

    Attributes:
        names: of the classes, by label.
        labels, files, rows: shape (N,), of each image its label, its file by number (or all 0) and its row.
        paths: of each image its own file, where it has one.
    """

    names: tuple[str, ...]
    labels: NDArray[np.int64]
    files: NDArray[np.int64]
    rows: NDArray[np.int64]
    paths: tuple[str, ...] = ()


class HubPool:
    """The images of `hf:NAME`.

    Attributes:
        where: which data set.
        options: what the user decided.
    """

    def __init__(self, where: HubSpec, options: ImageOptions, spec: str) -> None:
        self.where = where
        self.options = options
        self.spec = spec
        self._base = ""  # what files are read from, and the column: all that workers need
        self._column = ""

    def __getstate__(self) -> dict[str, object]:
        names = ("where", "options", "spec", "_base", "_column")
        return {name: self.__dict__[name] for name in names}

    @property
    def suffix(self) -> str:
        return "jpg"

    @cached_property
    def opened(self) -> Opened:
        """The data set, opened.

        Raises:
            SourceError: it is not there, may not be read, or holds no images with labels.
        """
        from symile_m3.images.hub import open_dataset

        return open_dataset(self.where, self.spec)

    @cached_property
    def found(self) -> Found:
        """Every image that may be taken, in the order of the files.

        Raises:
            SourceError: the data set cannot be read.
        """
        opened = self.opened
        if opened.parquet:
            names, labels, files, rows = read_labels(opened, self.options.per_class, self.spec)
            paths: tuple[str, ...] = ()
            self._base = opened.base
        else:
            kept = cache_of(opened, self.options.per_class)
            names, labels, rows, paths = pass_through(opened, self.options.per_class, kept, self.spec)
            files = np.zeros_like(labels)
            self._base = opened.base if any(paths) else str(kept)
        self._column = opened.image
        return Found(names=names, labels=labels, files=files, rows=rows, paths=paths)

    @cached_property
    def keys(self) -> tuple[str, ...]:
        """The class key of each label."""
        return class_keys(self.found.names, imagenet_synsets())

    @property
    def table(self) -> str:
        """`imagenet` where the classes are ImageNet's."""
        return imagenet_table(self.keys)

    def labels(self) -> Mapping[str, str]:
        """The names of the labels; of ImageNet's the first word, see `distinct_labels`."""
        if imagenet_names(self.found.names):
            return distinct_labels(dict(zip(self.keys, map(_words, self.found.names), strict=True)))
        return dict(zip(self.keys, self.found.names, strict=True))

    def _counts(self) -> dict[str, int]:
        counts = np.bincount(self.found.labels, minlength=len(self.keys)).tolist()
        limit = self.options.per_class
        return {key: min(count, limit or count) for key, count in zip(self.keys, counts, strict=True)}

    def classes(self) -> Mapping[str, int]:
        """Class key -> number of images, of the classes with three at least.

        Raises:
            SourceError: there are fewer than two.
        """
        counts = self._counts()
        enough = {key: count for key, count in counts.items() if count >= LEAST}
        if len(enough) < 2:
            few = {key: count for key, count in counts.items() if count < LEAST}
            raise SourceError(
                f"--images {self.spec}: {len(enough)} classes with three images or more in the split "
                f"{self.opened.split}" + (f" ({too_few(few)})" if few else "") + "; at least two classes are needed"
            )
        return enough

    def notes(self) -> Sequence[str]:
        """Which classes are left out for having too few images."""
        few = {key: count for key, count in self._counts().items() if count < LEAST}
        return [f"hf:{self.where.name}: {too_few(few)}; left out, as each needs three"] if few else []

    def recipes(self, groups: Sequence[str]) -> list[Recipe]:
        """One recipe an image, in the order of the files, so that media made together are read together.

        Which split an image is in depends on the seed, its file and its row.

        Raises:
            SourceError: a class has fewer than three images.
        """
        found, opened, asked = self.found, self.opened, set(groups)
        counts = self._counts()
        short = {key: counts.get(key, 0) for key in groups if counts.get(key, 0) < LEAST}
        if short:
            raise SourceError(f"--images {self.spec}: {too_few(short)}, and three are needed; leave the classes out")
        ranks = _ranks(self.options.seed, found.files, found.rows)
        taken: list[tuple[int, str, str]] = []  # row of `found`, class key, split
        order = np.argsort(found.labels, kind="stable")
        for members in np.split(order, np.flatnonzero(np.diff(found.labels[order])) + 1):
            key = self.keys[found.labels[members[0]]]
            if key in asked:
                chosen = members[: self.options.per_class]
                taken += zip(chosen.tolist(), [key] * len(chosen), draw_splits(ranks[chosen]), strict=True)
        files, rows = found.files.tolist(), found.rows.tolist()
        licence = IMAGENET_LICENCE if self.table else opened.licence
        recipes = []
        for i, key, split in sorted(taken):
            attributes = {"row": str(rows[i])}
            if opened.parquet:
                attributes["file"] = opened.files[files[i]].removeprefix(opened.base)
            elif found.paths and found.paths[i]:
                attributes = {"file": found.paths[i].removeprefix(opened.base)}
            recipes.append(
                Recipe(
                    name=f"row-{files[i]:05d}-{rows[i]:08d}",
                    group=key,
                    split=split,
                    source=opened.source,
                    licence=licence,
                    attributes=attributes,
                )
            )
        return recipes

    def make(self, recipe: Recipe) -> bytes:
        """The image as a dataset stores it; see `symile_m3.images.prepare.prepare`.

        Raises:
            UnusableError: it is no image that can be used.
            SourceError: it cannot be read.
        """
        from symile_m3.images.prepare import prepare

        words = {"file": "", "row": "row "}
        where = ", ".join(word + recipe.attributes[name] for name, word in words.items() if name in recipe.attributes)
        try:
            return prepare(self._read(recipe), self.options)
        except ValueError as error:
            raise UnusableError(f"hf:{self.where.name}, {where}: {error}") from error
        except OSError as error:
            raise SourceError(
                f"hf:{self.where.name}, {where}: cannot be read ({error.strerror or error}); run the same command "
                "again when it can"
            ) from error

    def _read(self, recipe: Recipe) -> bytes:
        if not self._column:
            _ = self.found  # a pool that has listed nothing yet
        file, row = recipe.attributes.get("file", ""), int(recipe.attributes.get("row", -1))
        if not file:
            return read_kept(self._base, row)
        if row < 0:
            return read_file(Path(self._base + file))
        return read_row(self._base + file, self._column, row)


def _ranks(seed: int, files: NDArray[np.int64], rows: NDArray[np.int64]) -> NDArray[np.uint64]:
    """A number of 64 bits for each image, by its file and row alone; see `symile_m3.splits.rank`."""
    ranks = np.empty(len(rows), dtype=np.uint64)
    for file in np.unique(files):
        of_file = files == file
        draws = generator(seed, "image-splits", int(file)).bit_generator.random_raw(int(rows[of_file].max()) + 1)
        ranks[of_file] = draws[rows[of_file]]
    return ranks


def _words(name: str) -> list[str]:
    return [word.strip() for word in name.split(",")]


def imagenet_names(names: Sequence[str]) -> bool:
    """Whether these are the names of ImageNet's 1,000 classes, in the order of their synsets."""
    return (
        len(names) == 1000
        and _words(names[0])[0].lower() == "tench"
        and _words(names[999])[0].lower() == "toilet tissue"
    )


def imagenet_synsets() -> Sequence[str]:
    """ImageNet's 1,000 synsets, sorted, of the built-in table; none where there is no such table."""
    from symile_m3.lexicon import builtin_lexicon

    try:
        return builtin_lexicon("imagenet").class_keys
    except LexiconError:
        return ()


def class_keys(names: Sequence[str], synsets: Sequence[str]) -> tuple[str, ...]:
    """A class key for each label, all different: the label's name, but the synset of each of ImageNet's 1,000 names.

    Args:
        names: of the labels, by number.
        synsets: ImageNet's, sorted.
    """
    if imagenet_names(names) and len(synsets) == len(names):
        return tuple(sorted(synsets))
    keys: dict[str, None] = {}
    for number, name in enumerate(names):
        words = unicodedata.normalize("NFC", name).strip()
        # Some data sets give the synset and then its words.
        key = words.split(" ")[0].strip(",:") if SYNSET.match(words) else words
        keys[f"{key} {number}".strip() if key in keys or not key else key] = None
    return tuple(keys)


def local_licence(path: Path) -> str:
    """What a local data set says of its licence."""
    return stated_licence(path) if path.is_dir() else UNKNOWN_LICENCE


def open_huggingface(argument: str, options: ImageOptions) -> HubPool:
    """The pool of `--images hf:NAME`. The Hub is not reached yet.

    Raises:
        UsageError, SourceError: see `parse_spec`.
    """
    return HubPool(parse_spec(argument), options, f"hf:{argument}")
