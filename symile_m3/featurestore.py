"""Features on disk: made part by part, put together once, then mapped into memory.

    features/<key>/images-parts/000012.npz   a finished part, until all are there
    features/<key>/images.npy                all of them: N rows, half precision unless said otherwise
    features/<key>/images.json               what they are of, with checksums

An interrupted run leaves its finished parts, and the next goes on from them. The key is a fingerprint of the weights,
the media and the settings; the facts behind it are in the JSON file and checked whenever the features are opened.
"""

from __future__ import annotations

import contextlib
import io
import json
import shutil
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from isal.isal_zlib import crc32
from numpy.typing import NDArray

from symile_m3.errors import TrainingError
from symile_m3.shards import replacing, sweep, write_bytes, write_text

Arrays = dict[str, NDArray[Any]]
MAIN = "features"  # the array whose rows are the media; others stand beside it
_BLOCK = 1 << 24


def rows_a_part(rows: int) -> int:
    """Media a part: few, so that little is lost when a run is interrupted; more where there would be many parts."""
    return 64 if rows <= 1 << 16 else 512


@dataclass(frozen=True, kw_only=True)
class FeatureStore:
    """Features of one kind of media.

    Attributes:
        directory: `features/<key>` of the dataset.
        kind: images or clips.
        rows: media.
        facts: what the features are of.
        part_rows: media a part, the last excepted.
    """

    directory: Path
    kind: str
    rows: int
    facts: Mapping[str, str]
    part_rows: int

    def parts(self) -> list[range]:
        """The rows of each part."""
        return [range(start, min(start + self.part_rows, self.rows)) for start in range(0, self.rows, self.part_rows)]

    def _part(self, part: range) -> Path:
        return self.directory / f"{self.kind}-parts" / f"{part.start // self.part_rows:06d}.npz"

    @property
    def _facts_path(self) -> Path:
        return self.directory / f"{self.kind}.json"

    def _array(self, name: str) -> Path:
        return self.directory / (f"{self.kind}.npy" if name == MAIN else f"{self.kind}-{name}.npy")

    def open(self) -> Arrays | None:
        """The features, mapped into memory (writing to them changes no file); None where they are not all there.

        Damaged files count as absent.

        Raises:
            TrainingError: they are of other media or weights.
        """
        try:
            stored = json.loads(self._facts_path.read_text(encoding="utf-8"))
            facts, sums = dict(stored["facts"]), dict(stored["crc32"])
        except (OSError, ValueError, KeyError, TypeError):
            return None
        other = sorted(name for name in {*facts, *self.facts} if facts.get(name) != self.facts.get(name))
        if other:
            raise TrainingError(
                f"{self.directory}: not the features of this dataset and these towers (other {', '.join(other)}); "
                "delete the folder, and they are made anew"
            )
        arrays: Arrays = {}
        for name, crc in sums.items():
            with contextlib.suppress(OSError, ValueError, EOFError):
                if _checksum(self._array(name)) == crc:
                    arrays[name] = np.load(self._array(name), mmap_mode="c", allow_pickle=False)
        return arrays if len(arrays) == len(sums) and len(arrays.get(MAIN, ())) == self.rows else None

    def waiting(self) -> list[range]:
        """The parts that have yet to be made."""
        return [part for part in self.parts() if self._read(part) is None]

    def write(self, part: range, arrays: Arrays) -> None:
        """Keep a finished part."""
        buffer = io.BytesIO()
        np.savez(buffer, allow_pickle=False, **arrays)
        write_bytes(self._part(part), buffer.getvalue())

    def _read(self, part: range) -> Arrays | None:
        try:
            with self._part(part).open("rb") as file, np.load(file, allow_pickle=False) as stored:
                arrays = dict(stored)
        except (OSError, ValueError, EOFError, zipfile.BadZipFile):
            return None
        return arrays if len(arrays.get(MAIN, ())) == len(part) else None

    def finish(self) -> Arrays:
        """Put the parts together and remove them; where the last axis is time, shorter parts repeat their last entry.

        Raises:
            TrainingError: a part is gone.
        """
        try:
            self._put_together()
        except TrainingError:
            if self.open() is None:  # otherwise another process has put them together meanwhile
                raise
        shutil.rmtree(self.directory / f"{self.kind}-parts", ignore_errors=True)
        sweep(self.directory)
        arrays = self.open()
        if arrays is None:
            raise TrainingError(f"{self.directory}: the features just written cannot be read again")
        return arrays

    def _put_together(self) -> None:
        parts = self.parts()
        first = self._whole(parts[0])
        timed = len(first) > 1  # lengths stand beside what differs in length
        longest = max(self._whole(part)[MAIN].shape[-1] for part in parts) if timed else first[MAIN].shape[-1]
        sums = {}
        for name, example in first.items():
            shape = (self.rows, *example.shape[1:])
            sums[name] = self._join(name, (*shape[:-1], longest) if name == MAIN else shape, example.dtype)
        record = {"facts": dict(self.facts), "crc32": sums}
        write_text(self._facts_path, json.dumps(record, indent=2) + "\n")

    def _whole(self, part: range) -> Arrays:
        arrays = self._read(part)
        if arrays is None:
            raise TrainingError(f"{self._part(part)}: gone or damaged; run the same command again")
        return arrays

    def _join(self, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> int:
        header = io.BytesIO()
        described = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(header, described)
        crc = crc32(header.getvalue())
        # Written, not mapped: a disk that is full refuses a write, and ends a process that maps the file.
        with replacing(self._array(name)) as file:
            file.write(header.getvalue())
            for part in self.parts():
                rows = self._whole(part)[name].astype(dtype, copy=False)
                if rows.ndim > 1:
                    rest = [(0, 0)] * (rows.ndim - 1) + [(0, shape[-1] - rows.shape[-1])]
                    rows = np.pad(rows, rest, mode="edge")
                data = rows.tobytes()
                crc = crc32(data, crc)
                file.write(data)
        return crc


def _checksum(path: Path) -> int:
    crc = 0
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            crc = crc32(block, crc)
    return crc
