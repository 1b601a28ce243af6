"""Arrays of the shapes of Symile-MIMIC with a dependence that only all three modalities together hold.

A sample has two numbers a and b, each uniform over V values and independent. The X-ray shows a as the place of a bright
square, the ECG shows b as the place of a wave, and the laboratory values show (a + b) mod V as the group of values that
is high. Any two of the three are independent, and any two tell the third. Without the plant the laboratory values show
a number of their own, and nothing tells anything.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from symile_m3.seeds import generator

LABS = 50


@dataclass(frozen=True, kw_only=True, slots=True)
class PlantedConfig:
    """What is drawn.

    Attributes:
        values: V, at most 16, so that each has three laboratory values.
        train, val, test: samples.
        image: (C, H, W) of the X-ray.
        signal: (1, T, leads) of the ECG.
        noise: deviation of the noise; what is shown is 2.
        planted: whether the laboratory values show the sum.
        listed: whether val_retrieval and test have lists of ten candidates, as the published arrays do.
        dtype: of the arrays on disk.
        seed: of everything drawn.
    """

    values: int = 16
    train: int = 2000
    val: int = 200
    test: int = 400
    image: tuple[int, int, int] = (3, 320, 320)
    signal: tuple[int, int, int] = (1, 5000, 12)
    noise: float = 0.5
    planted: bool = True
    listed: bool = False
    dtype: str = "float32"
    seed: int = 0

    def __post_init__(self) -> None:
        if not 2 <= self.values <= LABS // 3:
            raise ValueError(f"values {self.values}: from 2 to {LABS // 3}")
        if min(self.train, self.val, self.test) < 1:
            raise ValueError("each split needs a sample")
        if min(self.image[1:]) < self.grid or self.signal[1] < 4 * self.values:
            raise ValueError(f"image {self.image} and signal {self.signal} are too small for {self.values} values")

    @property
    def grid(self) -> int:
        """Cells along a side of the X-ray."""
        return math.ceil(math.sqrt(self.values))

    @property
    def ceiling(self) -> float:
        """Best top-1 among ten: others that show the same value cannot be told from the right one."""
        v = self.values
        return v / 10 * (1 - (1 - 1 / v) ** 10)


def write_planted(root: Path, config: PlantedConfig) -> Path:
    """Write the arrays of all splits under `root/data_npy`, named as the published ones are.

    Returns:
        `root`.
    """
    splits = {"train": config.train, "val": config.val, "test": config.test}
    if config.listed:
        splits["val_retrieval"] = config.val
    for split, count in splits.items():
        _write_split(root / "data_npy" / split, split, count, config)
    return root


def _write_split(folder: Path, split: str, count: int, config: PlantedConfig) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    random = generator(config.seed, "planted", split)
    a_N, b_N, own_N = random.integers(0, config.values, size=(3, count))
    sum_N = (a_N + b_N) % config.values if config.planted else own_N
    dtype = np.dtype(config.dtype)

    def new(name: str, *shape: int) -> npt.NDArray[np.float32]:
        path = folder / f"{name}_{split}.npy"
        mapped: npt.NDArray[np.float32] = np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=(count, *shape))
        return mapped

    cxr, ecg = new("cxr", *config.image), new("ecg", *config.signal)
    percentiles, indicators = new("labs_percentiles", LABS), new("labs_missingness", LABS)
    _, height, width = config.image
    times = config.signal[1]
    row, column, long = height // config.grid, width // config.grid, times // config.values
    wave_T = 2 * np.sin(np.arange(long) * (2 * np.pi / max(4, long // 8)), dtype=np.float32)
    for i in range(count):
        image = config.noise * random.standard_normal(config.image, dtype=np.float32)
        y, x = divmod(int(a_N[i]), config.grid)
        image[:, y * row : (y + 1) * row, x * column : (x + 1) * column] += 2
        cxr[i] = image
        signal = config.noise * random.standard_normal(config.signal, dtype=np.float32)
        start = int(b_N[i]) * long
        signal[0, start : start + long] += wave_T[:, None]
        ecg[i] = signal
        labs = random.uniform(0, 0.6, LABS)
        labs[3 * sum_N[i] : 3 * sum_N[i] + 3] = random.uniform(0.8, 1, 3)
        missing = random.random(LABS) < 0.1
        percentiles[i] = np.where(missing, 0.5, labs)
        indicators[i] = missing
    ids_N = np.arange(count) + 20_000_000
    np.save(folder / f"hadm_id_{split}.npy", ids_N)
    if config.listed and split in ("val_retrieval", "test"):
        queries = max(1, count // 10)
        of_N = np.concatenate([ids_N[:queries], ids_N[np.arange(count - queries) % queries]])
        np.save(folder / f"label_{split}.npy", (np.arange(count) < queries).astype(np.int64))
        np.save(folder / f"label_hadm_id_{split}.npy", of_N)
