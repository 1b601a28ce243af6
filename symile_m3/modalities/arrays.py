"""Samples that lie in large arrays, one a modality and split, such as those of Symile-MIMIC; mapped, never loaded.

A directory holds, for each split and each member NAME.npy, the file `SPLIT/NAME_SPLIT.npy`, or `NAME_SPLIT.npy`, or
`SPLIT/NAME.npy`, with a row a sample; all of it may lie in a folder `data_npy`. A split `val_retrieval`, where there
is one, is what validation retrieves from. Of the arrays `hadm_id`, `label` and `label_hadm_id`, where a split has
them, `label` is 1 for a sample that is a query, and all rows with its id as their `label_hadm_id` are its candidates.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from symile_m3.errors import UsageError
from symile_m3.shards import DamagedSampleError, ShardError

IDS, LABEL, LABEL_IDS = "hadm_id", "label", "label_hadm_id"


class ArraySource:
    """The rows of arrays as samples with members `NAME.npy`; a `Source` for a `Loader`.

    Args:
        root: the directory.
        split: train, val, test, or another that has files.
        fields: members, each ending in `.npy`.

    Attributes:
        directory: where the files of the split lie.
        lists: (Q, 1 + K) rows of each query that the split has a list for and its candidates, the right one first, -1
            where there are fewer; None where the split has no such lists.

    Raises:
        UsageError: a file is missing, no array of numbers, or of another length than the others.
    """

    def __init__(self, root: str | Path, split: str, fields: Sequence[str]) -> None:
        self._split = split
        self._fields = tuple(fields)
        self._paths: dict[str, Path] = {}
        for field in fields:
            if not field.endswith(".npy"):
                raise UsageError(f"{root}: a directory of arrays has no member {field}; give members that end in .npy")
            self._paths[field] = find_array(Path(root), split, field.removesuffix(".npy"))
        self._arrays: dict[str, npt.NDArray[Any]] | None = None
        lengths = {field: len(array) for field, array in self._mapped().items()}
        if len(set(lengths.values())) > 1:
            said = ", ".join(f"{self._paths[field].name} {n:,}" for field, n in lengths.items())
            raise UsageError(f"{root}: arrays of one split have different lengths: {said}")
        self._length = next(iter(lengths.values()))
        if not self._length:
            raise UsageError(f"{root}: the arrays of {split} are empty")
        self._ids = self._numbers(root, IDS)
        digest = hashlib.blake2b(split.encode(), digest_size=16)
        for field, array in self._mapped().items():
            path = self._paths[field]
            digest.update(f"{path.name} {array.shape} {array.dtype.str} {path.stat().st_size}".encode())
            digest.update(np.ascontiguousarray(array[:: max(1, self._length // 16)][:16]).tobytes())
        if self._ids is not None:
            digest.update(self._ids.tobytes())
        self._fingerprint = digest.hexdigest()
        self.lists = self._candidate_lists(root)

    @classmethod
    def splits(cls, root: str | Path, fields: Sequence[str]) -> dict[str, ArraySource]:
        """Train, val and test; val is what validation retrieves from.

        Raises:
            UsageError: as when one is made.
        """
        if not Path(root).is_dir():
            raise UsageError(f"{root}: no such directory; give that of the arrays")
        validation = "val"
        try:
            find_array(Path(root), "val_retrieval", fields[0].removesuffix(".npy"))
            validation = "val_retrieval"
        except UsageError:
            pass
        return {
            "train": cls(root, "train", fields),
            "val": cls(root, validation, fields),
            "test": cls(root, "test", fields),
        }

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_arrays": None}

    @property
    def fingerprint(self) -> str:
        """Of the shapes of all arrays and of some of their rows."""
        return self._fingerprint

    @property
    def shard_sizes(self) -> Sequence[int]:
        """All samples lie together."""
        return [self._length]

    def __len__(self) -> int:
        return self._length

    def key(self, i: int) -> str:
        """The number of the row in its split."""
        if not 0 <= i < self._length:
            raise IndexError(f"sample {i} of {self._length}")
        return f"{self._split}-{i:06d}"

    def shard(self, i: int) -> str:
        """The first file of the split."""
        return next(iter(self._paths.values())).name

    def read(self, i: int, fields: Sequence[str] | None = None) -> dict[str, bytes]:
        """The rows of sample `i`, each as the bytes of an `.npy` file.

        Raises:
            ShardError: no such field.
            DamagedSampleError: the disk gives no bytes.
        """
        arrays = self._mapped()
        found = {}
        for field in self._fields if fields is None else fields:
            if field not in arrays:
                raise ShardError(f"{self._split}: {field!r} is not among the fields asked for: {', '.join(arrays)}")
            buffer = io.BytesIO()
            try:
                np.save(buffer, np.ascontiguousarray(arrays[field][i]), allow_pickle=False)
            except OSError as error:
                raise DamagedSampleError(self._paths[field].name, self.key(i), str(error)) from error
            found[field] = buffer.getvalue()
        return found

    def _mapped(self) -> dict[str, npt.NDArray[Any]]:
        if self._arrays is None:
            self._arrays = {field: _mapped(path) for field, path in self._paths.items()}
        return self._arrays

    def _numbers(self, root: str | Path, name: str) -> npt.NDArray[np.int64] | None:
        """A number a sample, where the split has them."""
        try:
            path = find_array(Path(root), self._split, name)
        except UsageError:
            return None
        numbers = np.asarray(_mapped(path)).reshape(-1)
        if len(numbers) != self._length:
            raise UsageError(f"{path}: {len(numbers):,} numbers for {self._length:,} samples")
        return numbers.astype(np.int64)

    def _candidate_lists(self, root: str | Path) -> npt.NDArray[np.int64] | None:
        label, of = self._numbers(root, LABEL), self._numbers(root, LABEL_IDS)
        if self._ids is None or label is None or of is None:
            return None
        rows: list[list[int]] = []
        others: dict[int, list[int]] = {}
        for row in np.flatnonzero(label != 1).tolist():
            others.setdefault(int(of[row]), []).append(row)
        for row in np.flatnonzero(label == 1).tolist():
            rows.append([row, *others.get(int(self._ids[row]), [])])
        if not rows or max(map(len, rows)) < 2:
            return None
        widest = max(map(len, rows))
        return np.array([[*row, *[-1] * (widest - len(row))] for row in rows], np.int64)


def find_array(root: Path, split: str, name: str) -> Path:
    """The file of an array of a split.

    Raises:
        UsageError: there is none; says which names were sought.
    """
    sought = [f"{split}/{name}_{split}.npy", f"{name}_{split}.npy", f"{split}/{name}.npy"]
    for folder in (root, root / "data_npy"):
        for path in sought:
            if (folder / path).is_file():
                return folder / path
    raise UsageError(f"{root}: no array {name} of {split}; sought {', '.join(sought)} there and in data_npy")


def _mapped(path: Path) -> npt.NDArray[Any]:
    try:
        array: npt.NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise UsageError(f"{path}: not an array that can be mapped ({error})") from error
    if array.dtype.kind not in "biuf" or array.ndim < 1:
        raise UsageError(f"{path}: an array of {array.dtype}; numbers with a row a sample are needed")
    return array
