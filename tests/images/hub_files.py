"""Data sets as people publish them: parquet with ImageNet's features, image folders, tars."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import datasets
import pyarrow.parquet as pq
from image_files import jpeg


def image_rows(labels: Sequence[Any], names: Sequence[str] | None, seed: int = 0) -> datasets.Dataset:
    """A row an image, as ImageNet's: `image` and `label`; without names the labels are values of their own."""
    if names is not None:
        label: Any = datasets.ClassLabel(names=list(names))
    else:
        label = datasets.Value("string" if isinstance(labels[0], str) else "int64")
    return datasets.Dataset.from_dict(
        {
            "image": [{"bytes": jpeg(seed + row), "path": f"{row}.JPEG"} for row in range(len(labels))],
            "label": list(labels),
        },
        features=datasets.Features({"image": datasets.Image(), "label": label}),
    )


def write_parquet(root: Path, shards: Sequence[datasets.Dataset], split: str = "train", group_rows: int = 4) -> Path:
    """Parquet files in small row groups, where the Hub's `datasets` library puts them."""
    (root / "data").mkdir(parents=True, exist_ok=True)
    for number, shard in enumerate(shards):
        table = shard.with_format("arrow")[:]
        pq.write_table(
            table.cast(shard.features.arrow_schema),
            root / "data" / f"{split}-{number:05d}-of-{len(shards):05d}.parquet",
            row_group_size=group_rows,
        )
    return root


def write_webdataset(path: Path, labels: Sequence[int], seed: int = 0) -> Path:
    """A WebDataset tar of `jpg` and `cls`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for row, label in enumerate(labels):
            for suffix, data in (("jpg", jpeg(seed + row)), ("cls", str(label).encode())):
                member = tarfile.TarInfo(f"{row:06d}.{suffix}")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    return path
