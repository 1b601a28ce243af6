"""Names and places: what a shard is called, and where everything of a dataset lies."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

MEMBERS = ("jpg", "flac", "txt", "json")
"""The members of a sample, in the order they have in a tar."""

SPLITS = ("train", "val", "test")

DATA = "data"
META = ".symile"

_SHARD_NAME = re.compile(r"(?P<split>[a-z]+)-(?P<i>\d{5,})-of-(?P<n>\d{5,})\.tar")


def shard_name(split: str, i: int, n: int) -> str:
    """The file name of shard `i` (from 0) of the `n` shards of a split: `train-00000-of-00016.tar`.

    Raises:
        ValueError: the split is unknown, or `i` is not in 0 .. n-1.
    """
    if split not in SPLITS:
        raise ValueError(f"split must be one of {', '.join(SPLITS)}, not {split!r}")
    if not 0 <= i < n:
        raise ValueError(f"shard {i} of {n}: the first number must be from 0 to {n - 1}")
    return f"{split}-{i:05d}-of-{n:05d}.tar"


def shard_place(name: str) -> tuple[str, int, int] | None:
    """What `shard_name` was given to make a file name: split, number, count; None where it is not one of ours."""
    match = _SHARD_NAME.fullmatch(name)
    if match is None or match["split"] not in SPLITS:
        return None
    split, i, n = match["split"], int(match["i"]), int(match["n"])
    return (split, i, n) if i < n and shard_name(split, i, n) == name else None


def split_of(name: str) -> str | None:
    """The split in a shard's file name, or None where the name is not one of ours."""
    match = _SHARD_NAME.fullmatch(name)
    return match["split"] if match and match["split"] in SPLITS else None


def sidecar_path(tar: Path) -> Path:
    """Where the member offsets of a tar are kept.

    `root/data/x.tar` has `root/.symile/x.idx.npz`; a tar outside a folder named `data` has its sidecar in
    a `.symile` beside it. A dot-folder, because a foreign file beside the tars makes other readers of
    WebDataset folders take the tars for something else.
    """
    home = tar.parent.parent if tar.parent.name == DATA else tar.parent
    return home / META / f"{tar.name.removesuffix('.tar')}.idx.npz"


@dataclass(frozen=True)
class DatasetLayout:
    """The files of a dataset under `root`.

        root/README.md                          dataset card
        root/data/train-00000-of-00016.tar      shards
        root/.symile/plan.json                  the plan it was built from
        root/.symile/index.json                 the list of shards
        root/.symile/train-00000-of-00016.idx.npz
        root/.symile/done/train-00000-of-00016.tar.json
        root/.symile/pool/                      media made ahead of the shards
        root/.symile/features/<fingerprint>/    cached backbone outputs

    Nothing here touches the disk.
    """

    root: Path

    def __post_init__(self) -> None:
        object.__setattr__(self, "root", Path(self.root))

    @property
    def readme(self) -> Path:
        return self.root / "README.md"

    @property
    def data(self) -> Path:
        return self.root / DATA

    @property
    def meta(self) -> Path:
        return self.root / META

    @property
    def plan(self) -> Path:
        return self.meta / "plan.json"

    @property
    def index(self) -> Path:
        return self.meta / "index.json"

    @property
    def pool(self) -> Path:
        return self.meta / "pool"

    @property
    def features(self) -> Path:
        return self.meta / "features"

    @property
    def done(self) -> Path:
        return self.meta / "done"

    def shard(self, name: str) -> Path:
        """The tar of this name."""
        return self.data / name

    def sidecar(self, name: str) -> Path:
        """The member offsets of the tar of this name."""
        return sidecar_path(self.shard(name))

    def marker(self, name: str) -> Path:
        """The file that says the shard of this name is complete."""
        return self.done / f"{name}.json"


def cache_directory() -> Path:
    """This program's part of the user's cache: `symile-m3` under `$XDG_CACHE_HOME`, or under `~/.cache`."""
    home = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (home if home.is_absolute() else Path.home() / ".cache") / "symile-m3"
