"""Tiny samples and datasets for the tests of the on-disk format."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from PIL import Image

from symile_m3.shards import (
    DatasetIndex,
    DatasetLayout,
    RawSample,
    Sample,
    ShardInfo,
    shard_name,
    write_shard,
)


def jpeg(value: int = 0, side: int = 16) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (side, side), (value % 256, 128, 255 - value % 256)).save(buffer, "JPEG")
    return buffer.getvalue()


def flac(value: int = 0, seconds: float = 0.05, channels: int = 1, rate_hz: int = 16_000) -> bytes:
    time_T = np.arange(int(seconds * rate_hz)) / rate_hz
    wave_T = 0.5 * np.sin(2 * np.pi * (200 + value) * time_T)
    buffer = io.BytesIO()
    soundfile.write(buffer, np.stack([wave_T] * channels, axis=1), rate_hz, format="FLAC", subtype="PCM_16")
    return buffer.getvalue()


def small_sample(i: int) -> RawSample:
    """Text and JSON only."""
    content = json.dumps({"class_id": i, "lang": "el"}).encode()
    return RawSample(f"{i:06d}", {"txt": f"λέξη_{i}".encode(), "json": content})


def full_sample(i: int) -> RawSample:
    """All four members, with a real JPEG and a real FLAC."""
    return RawSample(f"{i:06d}", {**small_sample(i).members, "jpg": jpeg(i), "flac": flac(i)})


def write_dataset(root: Path, sizes: tuple[int, ...], make: Any = small_sample, split: str = "train") -> Path:
    """A dataset of one split; the samples are numbered through its shards."""
    layout = DatasetLayout(root)
    shards: list[ShardInfo] = []
    first = 0
    for s, size in enumerate(sizes):
        path = layout.shard(shard_name(split, s, len(sizes)))
        shards.append(write_shard(path, [make(i) for i in range(first, first + size)]))
        first += size
    DatasetIndex(name="tiny", fingerprint="f" * 16, shards=tuple(shards)).save(layout.index)
    return root


def flip(path: Path, at: int) -> None:
    """Alter one byte of a file."""
    content = bytearray(path.read_bytes())
    content[at] ^= 0x40
    path.write_bytes(content)


def names(directory: Path) -> list[str]:
    """The files of a directory."""
    return sorted(path.name for path in directory.iterdir())


def keys_and_epoch(samples: list[Sample], epoch: int) -> tuple[int, list[str]]:
    """A transform that can be sent to worker processes."""
    return epoch, [sample.key for sample in samples]


class OddError(Exception):
    """An exception that does not survive pickling."""

    def __init__(self, first: str, second: str) -> None:
        super().__init__(first + second)


def failing(samples: list[Sample], epoch: int) -> None:
    raise OddError("no ", "good")


def dying(samples: list[Sample], epoch: int) -> None:
    import os

    os._exit(7)
