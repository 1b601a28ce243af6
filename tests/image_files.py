"""Images, and directories of them, as other programs would have made them."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

SYNSETS = ("n01440764", "n01443537", "n02012849", "n03126707")
MAPPING = """n01440764 tench, Tinca tinca
n01443537 goldfish, Carassius auratus
n02012849 crane
n03126707 crane, lifting machine
"""


@cache
def photograph(seed: int, width: int = 500, height: int = 375) -> Image.Image:
    """Soft shapes at every scale, as photographs have them, and none like another's."""
    rng = np.random.default_rng(seed)
    pixels_HWC = np.zeros((height, width, 3))
    for cells in (3, 6, 12, 24, 48, 96):
        for colour in range(3):
            coarse = Image.fromarray(rng.normal(size=(cells, cells)).astype(np.float32))
            pixels_HWC[..., colour] += np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC)) / cells**0.7
    pixels_HWC = 120 + 55 * (pixels_HWC - pixels_HWC.mean()) / pixels_HWC.std()
    return Image.fromarray(np.clip(pixels_HWC, 0, 255).astype(np.uint8))


def encoded(image: Image.Image, kind: str = "JPEG", **options: Any) -> bytes:
    """The image as a file of a kind."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **({"quality": 92} if kind == "JPEG" else {}) | options)
    return buffer.getvalue()


def jpeg(seed: int, width: int = 60, height: int = 48) -> bytes:
    """A small JPEG, different for each seed."""
    return encoded(photograph(seed, width, height))


def write_tree(root: Path, counts: Mapping[str, int], suffix: str = ".jpg") -> Path:
    """A directory a class, with so many small JPEGs in it; no two alike."""
    seed = 0
    for key, count in counts.items():
        (root / key).mkdir(parents=True)
        for number in range(count):
            (root / key / f"{key}_{number}{suffix}").write_bytes(jpeg(seed))
            seed += 1
    return root


def write_kaggle(root: Path, images: int = 5) -> Path:
    """ImageNet as Kaggle packs it, of four synsets."""
    write_tree(root / "ILSVRC/Data/CLS-LOC/train", dict.fromkeys(SYNSETS, images), ".JPEG")
    (root / "ILSVRC/Data/CLS-LOC/val").mkdir()
    (root / "LOC_synset_mapping.txt").write_text(MAPPING)
    return root


def write_tars(train: Path, directory: Path) -> Path:
    """The same synsets as a tar each, as the original archive has them."""
    directory.mkdir()
    for synset in sorted(path for path in train.iterdir() if path.is_dir()):
        with tarfile.open(directory / f"{synset.name}.tar", "w", format=tarfile.GNU_FORMAT) as tar:
            for file in sorted(synset.iterdir()):
                tar.add(file, arcname=file.name)
    return directory
