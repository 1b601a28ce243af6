"""A user's own images and recordings, prepared as a build prepares those of a dataset.

Suffixes: H W pixels, T samples.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import soxr
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from symile_m3.encode import SAMPLE_RATE_HZ
from symile_m3.errors import SourceError
from symile_m3.images import prepare
from symile_m3.media import ImageOptions
from symile_m3.shards import decode_audio
from symile_m3.speech.clip import level_clip, trim_clip

ImageItem = str | PathLike[str] | Image.Image | NDArray[np.uint8]
"""A file, an image of Pillow's, or pixels (H, W, 3)."""

ClipItem = str | PathLike[str] | tuple[NDArray[np.float32] | Tensor, int]
"""A file, or a waveform (T,) in [-1, 1] and its sample rate in Hz."""

LONGEST_S = 30.0
"""Of a recording that is longer, the beginning is taken."""

_MOST_S = 3600.0  # of a file: more is refused before it is decoded
_SHORTEST_S = 0.2
_SILENT_PEAK = 1e-4

T = TypeVar("T")


def read_image(item: ImageItem, options: ImageOptions) -> NDArray[np.uint8]:
    """The pixels (H, W, 3) of an image, as a build would have stored them, without the JPEG.

    Raises:
        SourceError: it is no image, or cannot be read.
        TypeError: it is none of `ImageItem`.
    """
    if isinstance(item, str | PathLike):
        data = read_file(Path(item))
        return _named(f"{item}", lambda: prepare.fit(prepare.decode(data, options.size_px), options))
    if isinstance(item, Image.Image):
        return _named("an image", lambda: prepare.fit(prepare.of_pillow(item), options))
    if isinstance(item, np.ndarray):
        return _named("an image", lambda: prepare.fit(prepare.of_array(item), options))
    raise TypeError(f"an image is a path, an image of Pillow's or an array (height, width, 3), not {_kind(item)}")


def read_clip(item: ClipItem) -> NDArray[np.float32]:
    """The samples (T,) of a recording: 16 kHz, at the level of all clips, at most `LONGEST_S`.

    Silence of more than 0.3 s at either end is left out; several channels of a file are averaged.

    Raises:
        SourceError: it is no audio, is silent or too short, or cannot be read.
        TypeError: it is none of `ClipItem`.
    """
    what, samples_T, rate_hz = open_clip(item, max_seconds=_MOST_S)
    if rate_hz != SAMPLE_RATE_HZ:
        samples_T = soxr.resample(samples_T, rate_hz, SAMPLE_RATE_HZ, quality="HQ")
    if float(np.abs(samples_T).max(initial=0.0)) < _SILENT_PEAK:
        raise SourceError(f"{what} is silent")
    samples_T = trim_clip(samples_T)[: int(LONGEST_S * SAMPLE_RATE_HZ)]
    if len(samples_T) < _SHORTEST_S * SAMPLE_RATE_HZ:
        raise SourceError(f"{what} lasts {len(samples_T) / SAMPLE_RATE_HZ:.2f} s, less than {_SHORTEST_S} s")
    return level_clip(samples_T).astype(np.float32)


def open_clip(item: ClipItem, *, max_seconds: float) -> tuple[str, NDArray[np.float32], int]:
    """What a recording is called, its samples (T,) as they are, and their rate in Hz.

    Raises:
        SourceError: it is no audio, is longer than `max_seconds`, or cannot be read.
        TypeError: it is none of `ClipItem`.
    """
    if isinstance(item, str | PathLike):
        what = f"{item}"
        data = read_file(Path(item))
        samples_T, rate_hz = _named(what, lambda: decode_audio(data, max_seconds=max_seconds))
    elif isinstance(item, tuple) and len(item) == 2:
        what = "a waveform"
        given, rate_hz = item
        samples_T = np.asarray(given.detach().cpu() if isinstance(given, Tensor) else given)
        if samples_T.ndim != 1 or samples_T.dtype.kind != "f":
            raise SourceError(f"{what} of {samples_T.dtype} {samples_T.shape}: give floats (samples,), of one channel")
        if not isinstance(rate_hz, int | np.integer) or not 1000 <= rate_hz <= 768_000:
            raise SourceError(f"{what} at {rate_hz} Hz: give its sample rate as a whole number")
    else:
        raise TypeError(f"a clip is a path or (waveform, sample rate in Hz), not {_kind(item)}")
    samples_T = samples_T.astype(np.float32, copy=False)
    if not np.isfinite(samples_T).all():
        raise SourceError(f"{what}: has samples that are not finite")
    return what, samples_T, int(rate_hz)


def as_list(items: Any, single: Callable[[Any], bool]) -> Sequence[Any]:
    """What was given as a list, and one thing alone as a list of it."""
    return [items] if single(items) else list(items)


def is_image(item: Any) -> bool:
    """Whether this is one image, not several."""
    return isinstance(item, str | PathLike | Image.Image) or (isinstance(item, np.ndarray) and item.ndim == 3)


def is_clip(item: Any) -> bool:
    """Whether this is one clip, not several."""
    if isinstance(item, tuple):
        return len(item) == 2 and isinstance(item[1], int | np.integer)
    return isinstance(item, str | PathLike)


def read_file(path: Path) -> bytes:
    """The bytes of a file.

    Raises:
        SourceError: it cannot be read.
    """
    try:
        return path.expanduser().read_bytes()
    except OSError as error:
        raise SourceError(f"{path}: cannot be read ({error.strerror})") from error


def _named(what: str, work: Callable[[], T]) -> T:
    try:
        return work()
    except ValueError as error:
        raise SourceError(f"{what}: {error}") from error


def _kind(item: object) -> str:
    return type(item).__name__
