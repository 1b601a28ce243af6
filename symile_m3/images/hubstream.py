"""Data sets that are not parquet: passed through once by `datasets`, what is taken of them kept in the cache.

    ~/.cache/symile-m3/images/<digest>/
        state.json                          how far the pass has come; an interrupted one goes on from there
        00000/000000123-7.image             the image of row 123, of label 7, as it was found

Images that are files of their own on this machine are not copied.
"""

from __future__ import annotations

import contextlib
import gc
import hashlib
import json
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from symile_m3.errors import SourceError
from symile_m3.shards import write_bytes, write_text
from symile_m3.shards.layout import cache_directory

if TYPE_CHECKING:
    from symile_m3.images.huggingface import Opened

_SAVE_S = 30.0
_FOLDER_ROWS = 10_000
_COLLECT_ROWS = 1_000


class _State:
    """How far a pass has come.

    Attributes:
        rows: passed through.
        names: of the labels, by number.
        taken: row, label and path (empty where the image is in the cache) of each image.
        stream: where `datasets` goes on.
        done: whether there is nothing more to take.
    """

    def __init__(self, directory: Path, names: tuple[str, ...]) -> None:
        self.path = directory / "state.json"
        self.rows = 0
        self.names = list(names)
        self.taken: list[tuple[int, int, str]] = []
        self.stream: dict[str, Any] | None = None
        self.done = False
        if self.path.exists():
            self.__dict__.update(json.loads(self.path.read_bytes()))
        self.counts = Counter(label for _, label, _ in self.taken)
        self.saved_s = time.monotonic()

    def save(self) -> None:
        fields = {name: getattr(self, name) for name in ("rows", "names", "taken", "stream", "done")}
        write_text(self.path, json.dumps(fields, ensure_ascii=False))
        self.saved_s = time.monotonic()

    def full(self, per_class: int | None, classes: int) -> bool:
        """Whether every one of so many classes has enough."""
        return per_class is not None and len(self.counts) == classes > 0 and min(self.counts.values()) >= per_class


@contextlib.contextmanager
def collected_between_requests() -> Iterator[None]:
    """Let the garbage collector run at the end of the block, and in it where it is called, not in midst of a request.

    Files of the Hub that were streamed are often closed by it, which takes a lock of httpcore. Where it comes upon one
    while the same thread has that lock, for a request, the thread waits for ever (encode/httpcore#1108).
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.collect()
        if was_enabled:
            gc.enable()


def cache_of(opened: Opened, per_class: int | None) -> Path:
    """Where the images of a data set are kept. Local files that were altered make it another place."""
    digest = hashlib.sha256(f"{opened.split}\x1f{opened.image}\x1f{opened.label}\x1f{per_class}".encode())
    for file in opened.files:
        digest.update(f"\x1f{file}".encode(errors="surrogateescape"))
        if "://" not in file:
            state = Path(file).stat()
            digest.update(f"\x1f{state.st_size}\x1f{state.st_mtime_ns}".encode())
    return cache_directory() / "images" / digest.hexdigest()[:24]


def pass_through(
    opened: Opened, per_class: int | None, directory: Path, spec: str
) -> tuple[tuple[str, ...], NDArray[np.int64], NDArray[np.int64], tuple[str, ...]]:
    """Take the first images of every class, in the order of the data set.

    Args:
        per_class: how many at most; None for all.
        directory: see `cache_of`.

    Returns:
        The names of the labels by number, and of each image its label, its row, and its path where it has one.

    Raises:
        SourceError: the data set cannot be read.
        ShardError: the cache cannot be written.
    """
    state = _State(directory, opened.names)
    if not state.done:
        with collected_between_requests():
            _pass(opened, per_class, state, directory, spec)
    rows, labels, paths = zip(*state.taken, strict=True) if state.taken else ((), (), ())
    return tuple(state.names), np.array(labels, np.int64), np.array(rows, np.int64), tuple(paths)


def _pass(opened: Opened, per_class: int | None, state: _State, directory: Path, spec: str) -> None:
    import datasets

    try:
        stream = opened.builder.as_streaming_dataset(opened.split)
        stream = stream.cast_column(opened.image, datasets.Image(decode=False))
        if state.stream is not None:
            stream.load_state_dict(state.stream)
    except Exception as error:  # of any library that reads some format
        raise _unreadable(spec, state, error) from error
    began = state.rows
    try:
        for row in _rows(stream, spec, state):
            _take(row, opened, per_class, state, directory)
            state.rows += 1
            state.stream = stream.state_dict()  # of a row that is wholly dealt with
            if time.monotonic() - state.saved_s > _SAVE_S:
                state.save()
            if state.rows % _COLLECT_ROWS == 0:
                gc.collect()
            if state.full(per_class, len(opened.names)):
                break
        state.done = True
    finally:
        if state.rows > began:
            state.save()


def _rows(stream: Any, spec: str, state: _State) -> Iterator[dict[str, Any]]:
    rows = iter(stream)
    while True:
        try:
            row = next(rows)
        except StopIteration:
            return
        except Exception as error:  # of any library that reads some format, or of the transport
            raise _unreadable(spec, state, error) from error
        yield row


def _unreadable(spec: str, state: _State, error: Exception) -> SourceError:
    words = " ".join(str(error).split())[:200] or type(error).__name__
    return SourceError(
        f"--images {spec}: cannot be read after {state.rows:,} rows ({words}); run the same command again, which goes "
        "on from there"
    )


def _take(row: dict[str, Any], opened: Opened, per_class: int | None, state: _State, directory: Path) -> None:
    """Keep a row's image, if its class has need of it."""
    value, image = row[opened.label], row[opened.image]
    if value is None or value in (-1, "") or not isinstance(image, dict):
        return
    if not opened.names:
        name = str(value)
        if name not in state.names:
            state.names.append(name)
        value = state.names.index(name)
    label = int(value)
    if per_class is not None and state.counts[label] >= per_class:
        return
    path = image.get("path") or ""
    if image.get("bytes"):
        write_bytes(_kept(directory, state.rows, label), image["bytes"])
        path = ""
    elif not Path(path).is_file():
        return
    state.taken.append((state.rows, label, path))
    state.counts[label] += 1


def _kept(directory: Path, row: int, label: int) -> Path:
    return directory / f"{row // _FOLDER_ROWS:05d}" / f"{row:09d}-{label}.image"


def read_kept(directory: str, row: int) -> bytes:
    """The image of a row, as it was kept.

    Raises:
        OSError: it is not in the cache of this machine.
    """
    found = sorted(Path(directory, f"{row // _FOLDER_ROWS:05d}").glob(f"{row:09d}-*.image"))
    if not found:
        raise FileNotFoundError(2, "not in the cache of this machine; XDG_CACHE_HOME names one that machines share")
    return found[0].read_bytes()
