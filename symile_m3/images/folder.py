"""The `folder:DIR` image pool: one directory a class, its name the class key.

photos/
    LICENSE                 if there is one, its first line is the licence of the images
    cat/001.jpg
    cat/at-home/002.png     directories in a class's directory are of the class
    dog/...
"""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Mapping
from pathlib import Path

from symile_m3.errors import SourceError, UsageError
from symile_m3.images.files import FilePool, Listing, imagenet_table, is_image, read_file
from symile_m3.media import ImageOptions

UNKNOWN_LICENCE = "unknown, given by the user"
_LICENCE_FILES = ("licence", "license", "copying")
_NO_CLASSES = frozenset({"__MACOSX"})


class FolderPool(FilePool):
    """The images of `folder:DIR`."""

    @property
    def table(self) -> str:
        """`imagenet` where the directories are called by synsets."""
        return imagenet_table(list(self.listing().files))

    def labels(self) -> Mapping[str, str]:
        """The directories' names, with blanks for underscores."""
        return {key: key.replace("_", " ").strip() or key for key in self.listing().files}

    def _list(self) -> Listing:
        files: dict[str, list[str]] = {}
        directories: dict[str, str] = {}
        others: list[str] = []
        unnamed = loose = 0
        with os.scandir(self.root) as entries:
            top = sorted(entries, key=lambda entry: entry.name)
        for entry in top:
            if entry.name.startswith(".") or entry.name in _NO_CLASSES:
                continue
            if not entry.is_dir():
                loose += is_image(entry.name)
                continue
            if not _encodable(entry.name):
                unnamed += 1
                continue
            key = unicodedata.normalize("NFC", entry.name)
            if key in directories:
                raise SourceError(
                    f"--images {self.spec}: {self.root} has two directories called {key}, which differ in nothing that "
                    "can be seen; rename one"
                )
            directories[key] = entry.name
            names = []
            for file in _walk(self.root, entry.name):
                if not _encodable(file):
                    unnamed += 1
                elif is_image(file.rpartition("/")[2]):
                    names.append(file)
                elif not file.rpartition("/")[2].startswith("."):
                    others.append(file)
            files[key] = sorted(names)
        if not files and loose:
            raise SourceError(
                f"--images {self.spec}: {self.root} has {loose} images and no directories; put the images of each "
                "class in a directory of its own, called by the class"
            )
        notes = []
        if others:
            shown = ", ".join(sorted(others)[:3]) + (", ..." if len(others) > 3 else "")
            notes.append(f"{self.root}: {len(others):,} files that are no images by their names are left out: {shown}")
        if unnamed:
            notes.append(f"{self.root}: {unnamed:,} files or directories whose names are not UTF-8 are left out")
        if loose:
            notes.append(f"{self.root}: {loose:,} images beside the classes' directories are of no class; left out")
        return Listing(files=files, notes=tuple(notes))

    def _read(self, file: str) -> bytes:
        return read_file(self.root / file)


def _walk(root: Path, name: str) -> list[str]:
    """The files under a class's directory, by their paths under the root; links to directories are not followed."""

    def refuse(error: OSError) -> None:
        raise error

    found = []
    for directory, _, files in os.walk(root / name, onerror=refuse):
        prefix = Path(directory).relative_to(root).as_posix()
        found += [f"{prefix}/{file}" for file in files]
    return found


def _encodable(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def stated_licence(directory: Path) -> str:
    """The first line of the directory's licence file; that it is not known where there is none."""
    for path in sorted(directory.iterdir()):
        if path.stem.lower() in _LICENCE_FILES and path.suffix.lower() in ("", ".txt", ".md") and path.is_file():
            with path.open(encoding="utf-8", errors="replace") as file:
                for line in file:
                    if text := line.strip().lstrip("#").strip():
                        return text[:200]
    return UNKNOWN_LICENCE


def existing_directory(kind: str, argument: str, example: str) -> Path:
    """The directory that a spec names.

    Raises:
        UsageError: it names none.
        SourceError: it is not there, or is no directory.
    """
    if not argument:
        raise UsageError(f"--images {kind}: name a directory, such as {kind}:{example}")
    path = Path(argument).expanduser()
    if not path.is_dir():
        state = "is a file" if path.exists() else "does not exist"
        raise SourceError(f"--images {kind}:{argument}: {path} {state}; name a directory that is there")
    return path


def open_folder(argument: str, options: ImageOptions) -> FolderPool:
    """The pool of `--images folder:DIR`.

    Raises:
        UsageError: no directory is named.
        SourceError: it is not there.
    """
    root = existing_directory("folder", argument, "photos")
    try:
        licence = stated_licence(root)
    except OSError as error:
        raise SourceError(f"--images folder:{argument}: {root} cannot be read ({error.strerror})") from error
    return FolderPool(
        root=root,
        options=options,
        spec=f"folder:{argument}",
        source=f"folder:{root.resolve().name}",
        licence=licence,
    )
