"""Representations of many samples: in memory where they fit, in a temporary file where they do not.

Suffixes: N rows, D dimensions, B rows of a batch.
"""

from __future__ import annotations

import os
import tempfile
import weakref
from collections.abc import Callable, Iterable

import numpy as np
import torch
from torch import Tensor

from symile_m3.errors import TrainingError
from symile_m3.ranking import Representations

IN_MEMORY = 1 << 30
"""Bytes of the representations of one modality that are kept in memory."""


class StoredRows:
    """Rows of float32 in a temporary file that has no name, read as they are asked for.

    They are read into buffers, not mapped, so the memory they take is that of the rows in use. The file lies where
    the system's temporary files do (`TMPDIR`) and is gone when the object is.

    Args:
        dim: D.
        device: where the rows that are read go.

    Raises:
        TrainingError: on `append`, when the disk is full.
    """

    def __init__(self, dim: int, device: torch.device | str = "cpu") -> None:
        self._file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115
        weakref.finalize(self, self._file.close)
        self._dim = dim
        self._device = torch.device(device)
        self._rows = 0

    def __len__(self) -> int:
        return self._rows

    def append(self, rep_BD: Tensor) -> None:
        """Add rows at the end."""
        data = np.ascontiguousarray(rep_BD.float().cpu().numpy()).data.cast("B")
        try:
            while data:
                data = data[self._file.write(data) :]
        except OSError as error:
            raise TrainingError(
                f"{tempfile.gettempdir()}: no place for representations ({error.strerror}); "
                "name a larger directory with the environment variable TMPDIR"
            ) from error
        self._rows += len(rep_BD)

    def __getitem__(self, rows: Tensor, /) -> Tensor:
        """(n, D) the rows of these numbers; those that follow each other in the file are read at once."""
        numbers = rows.cpu().numpy()
        result = np.empty((len(numbers), self._dim), np.float32)
        ends = np.flatnonzero(np.diff(numbers) != 1) + 1
        for start, stop in zip([0, *ends.tolist()], [*ends.tolist(), len(numbers)], strict=True):
            if start < stop:
                self._read(int(numbers[start]), result[start:stop])
        return torch.from_numpy(result).to(self._device)

    def _read(self, first: int, into: np.ndarray[tuple[int, ...], np.dtype[np.float32]]) -> None:
        if not 0 <= first <= first + len(into) <= self._rows:
            raise IndexError(f"rows {first} to {first + len(into)} of {self._rows}")
        data, offset = into.data.cast("B"), first * self._dim * 4
        while data:
            count = os.preadv(self._file.fileno(), [data], offset)
            data, offset = data[count:], offset + count


class Gathered:
    """Rows of other representations, any of them any number of times: such as the image of every sample.

    Args:
        source: the rows to choose from.
        index_Q: (Q,) which of them.
    """

    def __init__(self, source: Representations, index_Q: Tensor) -> None:
        self._source, self._index_Q = source, index_Q

    def __len__(self) -> int:
        return len(self._index_Q)

    def __getitem__(self, rows: Tensor, /) -> Tensor:
        return self._source[self._index_Q[rows]]


class Mapped:
    """Rows of other representations, each as a function makes it.

    Args:
        source: the rows.
        of: (B, D) -> (B, D), row by row.
    """

    def __init__(self, source: Representations, of: Callable[[Tensor], Tensor]) -> None:
        self._source, self._of = source, of

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, rows: Tensor, /) -> Tensor:
        return self._of(self._source[rows])


class Replaced:
    """Representations of which some are replaced by one vector: what stands for a missing modality.

    Args:
        source: Q rows.
        missing_Q: (Q,) True where it is replaced.
        by_D: (D,) by what.
    """

    def __init__(self, source: Representations, missing_Q: Tensor, by_D: Tensor) -> None:
        self._source, self._missing_Q, self._by_D = source, missing_Q, by_D

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, rows: Tensor, /) -> Tensor:
        rep_BD = self._source[rows]
        missing_B1, by_D = (of.to(rep_BD.device) for of in (self._missing_Q[rows][:, None], self._by_D))
        return torch.where(missing_B1, by_D, rep_BD)


def store(parts_BD: Iterable[Tensor], rows: int, *, in_memory: int = IN_MEMORY) -> Representations:
    """The rows of all parts, one behind the other; they are given out on the device that the parts are on.

    Args:
        parts_BD: of at least one row.
        rows: N, of all parts together.
        in_memory: bytes that may be kept in the memory of that device; what takes more goes to a temporary file.

    Raises:
        TrainingError: there is no place for the file.
    """
    kept: list[Tensor] = []
    stored: StoredRows | None = None
    for part_BD in parts_BD:
        if stored is None and 4 * rows * part_BD.shape[1] > in_memory:
            stored = StoredRows(part_BD.shape[1], part_BD.device)
        if stored is None:
            kept.append(part_BD)
        else:
            stored.append(part_BD)
    return torch.cat(kept) if stored is None else stored
