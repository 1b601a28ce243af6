"""The `imagenet:DIR` image pool: the training images of ImageNet-1k, by synset.

DIR is what Kaggle's archive unpacks to, any directory in it down to `train`, or the directory that the original
archive of training images unpacks to, once: a tar a synset.

    ILSVRC/Data/CLS-LOC/train/n01440764/n01440764_10026.JPEG        or      n01440764.tar
    LOC_synset_mapping.txt                                          labels, if it is there

Tars are read where they lie, by offset. An image has the same name and split from a tar as from a directory.
"""

from __future__ import annotations

import os
import tarfile
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path

from symile_m3.errors import LexiconError, SourceError
from symile_m3.images.files import IMAGENET_LICENCE, MAX_BYTES, SYNSET, FilePool, Listing, is_image, read_file
from symile_m3.images.folder import existing_directory
from symile_m3.media import ImageOptions

MAPPING = "LOC_synset_mapping.txt"
_LEVELS = ("", "train", "CLS-LOC/train", "Data/CLS-LOC/train", "ILSVRC/Data/CLS-LOC/train")


class ImagenetPool(FilePool):
    """The images of `imagenet:DIR`; `root` is the directory of the synsets."""

    @property
    def table(self) -> str:
        return "imagenet"

    def labels(self) -> Mapping[str, str]:
        """The first of each synset's words in `LOC_synset_mapping.txt`, with the second where several synsets share it;
        where there is no such file, the English names of the built-in table.

        Raises:
            SourceError: the file is not of that form.
        """
        path = _mapping_path(self.root)
        return _table_labels() if path is None else read_mapping(path)

    def _list(self) -> Listing:
        files: dict[str, Sequence[str]] = {}
        tars: dict[str, Path] = {}
        with os.scandir(self.root) as entries:
            for entry in entries:
                if SYNSET.fullmatch(entry.name) and entry.is_dir():
                    names = sorted(path.name for path in Path(entry.path).iterdir() if is_image(path.name))
                    files[entry.name] = [f"{entry.name}/{name}" for name in names]
                elif _tar_synset(entry.name) and entry.is_file():
                    tars[_tar_synset(entry.name)] = Path(entry.path)
        for synset, path in tars.items():
            if synset not in files:
                state = path.stat()
                files[synset] = _tar_files(synset, path, state.st_size, state.st_mtime_ns)
        return Listing(files=dict(sorted(files.items())))

    def _read(self, file: str) -> bytes:
        synset, _, name = file.partition("/")
        directory = self.root / synset
        if directory.is_dir():
            return read_file(directory / name)
        path = self.root / f"{synset}.tar"
        at, size = tar_members(path)[name]
        if not 0 < size <= MAX_BYTES:
            raise ValueError(f"{size:,} bytes")
        with path.open("rb", buffering=0) as tar:
            data = os.pread(tar.fileno(), size, at)
        if len(data) < size:
            raise ValueError("the tar ends in the middle of it")
        return data


def _tar_synset(name: str) -> str:
    """`n01440764` of `n01440764.tar`; empty for other names."""
    stem, dot, suffix = name.rpartition(".")
    return stem if dot and suffix == "tar" and SYNSET.fullmatch(stem) else ""


def tar_members(path: Path) -> Mapping[str, tuple[int, int]]:
    """The images in a tar: file name -> where its bytes begin, and how many they are.

    Raises:
        SourceError: it is not a tar.
        OSError: it cannot be read.
    """
    state = path.stat()
    return _members(path, state.st_size, state.st_mtime_ns)


@lru_cache(maxsize=1024)  # a command may open its images twice, and to read all tars takes a minute
def _tar_files(synset: str, path: Path, size: int, mtime_ns: int) -> tuple[str, ...]:
    return tuple(f"{synset}/{name}" for name in sorted(_members(path, size, mtime_ns)))


@lru_cache(maxsize=4)
def _members(path: Path, size: int, mtime_ns: int) -> Mapping[str, tuple[int, int]]:
    try:
        with tarfile.open(path, "r:") as tar:
            found = {}
            for member in tar:
                name = member.name.rpartition("/")[2]
                if member.isreg() and is_image(name):
                    found[name] = (member.offset_data, member.size)
            return found
    except tarfile.TarError as error:
        raise SourceError(f"{path}: not a tar that can be read ({error}); copy it anew") from error


def _mapping_path(train: Path) -> Path | None:
    """Kaggle's file of labels, beside the images or in a directory above them, as far up as the archive begins."""
    above = (train, *train.resolve().parents[:4])
    return next((path / MAPPING for path in above if (path / MAPPING).is_file()), None)


def read_mapping(path: Path) -> dict[str, str]:
    """Synset -> label from lines such as `n01440764 tench, Tinca tinca`.

    Raises:
        SourceError: a line is not of that form.
    """
    words: dict[str, list[str]] = {}
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise SourceError(f"{path}: cannot be read ({error}); copy it anew, or remove it") from error
    for number, line in enumerate(lines, 1):
        synset, _, text = line.strip().partition(" ")
        if not synset:
            continue
        if not SYNSET.fullmatch(synset) or not text.strip():
            raise SourceError(f"{path}, line {number}: not a synset and its words, as in n01440764 tench, Tinca tinca")
        words[synset] = [word.strip() for word in text.split(",")]
    return distinct_labels(words)


def distinct_labels(words: Mapping[str, list[str]]) -> dict[str, str]:
    """The first word of each class; with its second in parentheses where it has one and the first is not its alone."""
    first = Counter(of_class[0] for of_class in words.values())
    return {
        key: f"{of_class[0]} ({of_class[1]})" if first[of_class[0]] > 1 and len(of_class) > 1 else of_class[0]
        for key, of_class in words.items()
    }


def _table_labels() -> Mapping[str, str]:
    from symile_m3.lexicon import builtin_lexicon

    try:
        lexicon = builtin_lexicon("imagenet").select_languages(("en",))
    except LexiconError:
        return {}
    return {key: row[0] for key, row in zip(lexicon.class_keys, lexicon.names, strict=True)}


def open_imagenet(argument: str, options: ImageOptions) -> ImagenetPool:
    """The pool of `--images imagenet:DIR`.

    Raises:
        UsageError: no directory is named.
        SourceError: it is not there, or holds no training images by synset.
    """
    given = existing_directory("imagenet", argument, "data/ILSVRC")
    for level in _LEVELS:
        root = given / level
        try:
            if root.is_dir() and any(SYNSET.fullmatch(path.name) or _tar_synset(path.name) for path in root.iterdir()):
                break
        except OSError as error:
            raise SourceError(f"--images imagenet:{argument}: {root} cannot be read ({error.strerror})") from error
    else:
        raise SourceError(
            f"--images imagenet:{argument}: no directories or tars called by synsets, such as n01440764 or "
            f"n01440764.tar, in {given} or its {_LEVELS[-1]}; name the directory that Kaggle's archive was unpacked to"
        )
    return ImagenetPool(
        root=root,
        options=options,
        spec=f"imagenet:{argument}",
        source="imagenet:ILSVRC2012",
        licence=IMAGENET_LICENCE,
    )
