"""A user's own samples of a declared modality, as the members of a sample hold them."""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from symile_m3.modalities.declaration import ModalityConfig
from symile_m3.rawmedia import is_clip, is_image, open_clip, read_file
from symile_m3.shards import decode_member

_MOST_S = 60.0  # of a clip in a tar


def items_of(given: Any, config: ModalityConfig) -> list[Any]:
    """What was given of a modality as a list; one item alone as a list of it.

    Several arrays may also come as one with another axis in front.

    Raises:
        ValueError: neither one item nor several.
    """
    kind = config.kind
    if given is None:
        return [given]
    if kind == "array" and isinstance(given, np.ndarray) and len(config.member) == 1:
        return list(given) if given.ndim == len(config.shape) + 1 else [given]
    joined = kind == "array" and len(config.member) > 1 and isinstance(given, tuple)
    medium = (kind == "image" and is_image(given)) or (kind == "audio" and is_clip(given))
    if joined or medium or isinstance(given, str | bytes | PathLike | np.generic | int | float):
        return [given]
    try:
        return list(given)
    except TypeError as error:
        raise ValueError(f"{type(given).__name__}: give {_wanted(config)}, or a list of these") from error


def values_of(item: Any, config: ModalityConfig) -> list[Any]:
    """The values of one item, one a member, as a reader of tars decodes them.

    Raises:
        ValueError: it is nothing that the modality can be.
        SourceError: a file cannot be read, or holds something else.
    """
    if config.kind == "audio":
        try:
            _, samples_T, rate_hz = open_clip(item, max_seconds=_MOST_S)
        except TypeError as error:
            raise ValueError(f"{type(item).__name__}: give {_wanted(config)}") from error
        if not len(samples_T):
            raise ValueError("a waveform without samples")
        return [(samples_T, rate_hz)]
    if config.kind == "image":
        return [_pixels(item, config)]
    if config.kind == "text":
        if isinstance(item, str) or (config.member[0].startswith("json:") and isinstance(item, int | float)):
            return [item]
        raise ValueError(f"{type(item).__name__}: give {_wanted(config)}")
    if len(config.member) == 1:
        return [_numbers(item, config.member[0])]
    if not isinstance(item, tuple | list) or len(item) != len(config.member):
        raise ValueError(f"give {_wanted(config)}")
    return [_numbers(part, member) for part, member in zip(item, config.member, strict=True)]


def _pixels(item: Any, config: ModalityConfig) -> NDArray[np.uint8]:
    """(H, W, 3) as they are in a tar: neither turned nor cut."""
    if isinstance(item, str | PathLike):
        pixels: NDArray[np.uint8] = _decoded(item, "jpg")
        return pixels
    if isinstance(item, Image.Image):
        return np.array(item.convert("RGB"))
    if not isinstance(item, np.ndarray):
        raise ValueError(f"{type(item).__name__}: give {_wanted(config)}")
    if item.dtype != np.uint8 or item.ndim != 3 or item.shape[2] != 3 or not item.size:
        raise ValueError(f"pixels of {item.dtype} {list(item.shape)}: give uint8 [height, width, 3]")
    return item


def _numbers(item: Any, member: str) -> Any:
    if isinstance(item, PathLike | str) and member.endswith(".npy"):
        return _decoded(item, "npy")
    return item.detach().cpu().numpy() if isinstance(item, Tensor) else item


def _decoded(path: str | PathLike[str], member: str) -> Any:
    try:
        return decode_member(member, read_file(Path(path)))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _wanted(config: ModalityConfig) -> str:
    if len(config.member) > 1:
        return f"a tuple of {len(config.member)} arrays, {' and '.join(config.member)}"
    return {
        "array": "an array or a file of one",
        "image": "a file, an image of Pillow's or pixels [height, width, 3]",
        "audio": "a file or (waveform, sample rate in Hz)",
        "text": "a string",
    }[config.kind]
