"""Shards as a user might write them: with WebDataset's own writer, members of all kinds, some not everywhere."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from PIL import Image
from webdataset import TarWriter

from symile_m3.seeds import generator

CLASSES = 4
DOCS = Path(__file__).parents[1] / "docs" / "MODALITIES.md"


def npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def sample(i: int) -> dict[str, Any]:
    """The class is the place of a bright band, the height of a wave, a word, and an age; every eighth has no ECG."""
    random = generator("user", i)
    kind = i % CLASSES
    xray = random.normal(0, 0.3, (1, 32, 32))
    xray[0, 8 * kind : 8 * kind + 8] += 2
    ecg = random.normal(0, 0.3, (64, 2)) + kind
    wave = 0.5 * np.sin(np.arange(8000) * (200 + 300 * kind) * 2 * np.pi / 16_000)
    clip, photo = io.BytesIO(), io.BytesIO()
    soundfile.write(clip, wave, 16_000, format="WAV")
    Image.new("RGB", (20, 10), (60 * kind, 128, 255 - 60 * kind)).save(photo, "PNG")
    members = {
        "xray.npy": npy(xray.astype(np.float32)),
        "txt": f"finding {'abcd'[kind] * 4}".encode(),
        "json": {"class": f"kind-{kind}", "age": 20.0 + 20 * kind, "labs": [kind, 1.0]},
        "sound.wav": clip.getvalue(),
        "photo.png": photo.getvalue(),
    }
    return members | ({} if i % 4 == 3 and i % 8 < 4 else {"ecg.npy": npy(ecg.astype(np.float32))})


def write_user_shards(root: Path, train: int = 64, val: int = 16, test: int = 24) -> Path:
    """`root/shards/{train,val,test}-*.tar`, and `root/my.toml` as the documentation has it."""
    (root / "shards").mkdir(parents=True)
    first = 0
    for split, count in {"train": train, "val": val, "test": test}.items():
        for part in range(2):
            with TarWriter(str(root / "shards" / f"{split}-{part}.tar"), mtime=0) as writer:
                for i in range(first + part * count // 2, first + (part + 1) * count // 2):
                    writer.write({"__key__": f"p{i:05d}", **sample(i)})
        first += count
    (root / "my.toml").write_text(block("toml"))
    return root


def block(language: str, number: int = 0) -> str:
    """A block of the documentation in a language, the first by default."""
    return DOCS.read_text().split(f"```{language}\n")[1 + number].split("```")[0]
