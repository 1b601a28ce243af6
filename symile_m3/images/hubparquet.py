"""Parquet files of a data set, local or on the Hub: all labels of a split, and one image at a time."""

from __future__ import annotations

import bisect
import hashlib
import io
import itertools
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache, partial
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from symile_m3.errors import SourceError
from symile_m3.shards import write_bytes
from symile_m3.shards.layout import cache_directory

if TYPE_CHECKING:
    from symile_m3.images.huggingface import Opened

_AT_A_TIME = 16
Labels = tuple[tuple[str, ...], NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]


def open_file(url: str) -> Any:
    """A parquet file by its path or URL.

    Read it with `use_threads=False`: pyarrow's threads, where they read a Python file, now and then keep the process
    from ending, or abort it at its end (apache/arrow#50482; pyarrow 26.0.1: 1 of 631 processes, none of 313 without).

    Raises:
        OSError: it cannot be read.
    """
    pq: Any = import_module("pyarrow.parquet")

    if "://" not in url:
        return pq.ParquetFile(url)
    fsspec: Any = import_module("fsspec")
    # pyarrow reads exactly what it needs; a cache would fetch megabytes around every label.
    return pq.ParquetFile(fsspec.open(url, cache_type="none").open())


def read_labels(opened: Opened, per_class: int | None, spec: str) -> Labels:
    """The labels of a split, and where they stand; unlabelled rows are not among them.

    With `per_class` and known classes no more files are read than it takes to fill every class.

    Returns:
        The names of the labels by number, and of each image its label, the number of its file, and its row.

    Raises:
        SourceError: a file cannot be read.
    """
    read = partial(_labels_of, column=opened.label)
    values: list[NDArray[Any]] = []
    counts = np.zeros(len(opened.names), dtype=np.int64)
    with ThreadPoolExecutor(_AT_A_TIME) as threads:
        for batch in _batches(opened.files, one_by_one=per_class is not None):
            try:
                values += threads.map(read, batch)
            except Exception as error:  # of pyarrow, or of the transport
                raise SourceError(
                    f"--images {spec}: {batch[0]} or one of the next {len(batch) - 1} files cannot be read "
                    f"({' '.join(str(error).split())[:200]}); run the same command again when it can"
                ) from error
            if per_class is not None and opened.names:
                for labels in values[-len(batch) :]:
                    counts += np.bincount(_numbers(labels, len(counts)), minlength=len(counts) + 1)[:-1]
                if counts.min() >= per_class:
                    break
    names, numbered = opened.names, values
    if not names:
        found = sorted({value for labels in values for value in np.unique(labels).tolist() if _is_label(value)})
        names = tuple(map(str, found))
        numbers = {value: number for number, value in enumerate(found)}
        numbered = [
            np.array([numbers.get(value, -1) for value in labels.tolist()], dtype=np.int64) for labels in values
        ]
    all_labels = np.concatenate(numbered).astype(np.int64)
    files = np.repeat(np.arange(len(values)), [len(labels) for labels in values])
    rows = np.concatenate([np.arange(len(labels)) for labels in values])
    good = (all_labels >= 0) & (all_labels < len(names))
    return names, all_labels[good], files[good], rows[good]


def _is_label(value: object) -> bool:
    return value != "" and value != -1


def _numbers(labels: NDArray[Any], classes: int) -> NDArray[np.int64]:
    """The labels, and `classes` in place of those that are none."""
    numbers: NDArray[np.int64] = np.where((labels >= 0) & (labels < classes), labels, classes).astype(np.int64)
    return numbers


def _batches(files: Sequence[str], *, one_by_one: bool) -> list[Sequence[str]]:
    """The files in the groups in which they are read: the first ones alone where perhaps a few are enough."""
    sizes = itertools.chain([1, 1, 2, 4, 8] if one_by_one else [], itertools.repeat(_AT_A_TIME))
    batches, start = [], 0
    while start < len(files):
        size = next(sizes)
        batches.append(files[start : start + size])
        start += size
    return batches


def _labels_of(url: str, column: str) -> NDArray[Any]:
    """The column of one file: integers with -1, or strings with empty ones, where there is no label.

    A file of a revision on the Hub never changes, so its labels are kept in the cache.
    """
    digest = hashlib.sha256(f"{url}\x1f{column}".encode()).hexdigest()[:24]
    kept = cache_directory() / "labels" / f"{digest}.npy"
    if "://" in url and kept.exists():
        labels: NDArray[Any] = np.load(kept, allow_pickle=False)
        return labels
    pa: Any = import_module("pyarrow")

    with open_file(url) as file:
        values = file.read(columns=[column], use_threads=False).column(column)
    if pa.types.is_integer(values.type) or pa.types.is_boolean(values.type):
        labels = values.cast(pa.int64()).fill_null(-1).to_numpy()
    else:
        labels = np.array(values.cast(pa.string()).fill_null("").to_pylist(), dtype=np.str_)
    if "://" in url:
        buffer = io.BytesIO()
        np.save(buffer, labels, allow_pickle=False)
        write_bytes(kept, buffer.getvalue())
    return labels


@lru_cache(maxsize=4)
def _opened(url: str) -> tuple[Any, list[int]]:
    """The file, and the first row of each row group and the end of the last."""
    file = open_file(url)
    groups = (file.metadata.row_group(i).num_rows for i in range(file.metadata.num_row_groups))
    return file, list(itertools.accumulate(groups, initial=0))


@lru_cache(maxsize=1)
def _row_group(url: str, column: str, group: int) -> Any:
    file, _ = _opened(url)
    return file.read_row_group(group, columns=[column], use_threads=False).column(column)


def read_row(url: str, column: str, row: int) -> bytes:
    """The encoded image in a row.

    The row group it is in is kept until an image of another is asked for.

    Raises:
        ValueError: there is none.
        OSError: the file cannot be read.
    """
    pa: Any = import_module("pyarrow")

    try:
        starts = _opened(url)[1]
        group = bisect.bisect_right(starts, row) - 1
        value = _row_group(url, column, group)[row - starts[group]].as_py()
    except OSError:
        raise
    except pa.ArrowException as error:
        raise OSError(f"not a parquet file that can be read: {error}") from error
    except Exception as error:  # of the transport
        raise OSError(" ".join(str(error).split())[:200] or type(error).__name__) from error
    data = value.get("bytes") if isinstance(value, dict) else value
    if not data:
        raise ValueError("no image in the row itself")
    return bytes(data)
