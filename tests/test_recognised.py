"""A built dataset in the hands of the readers of others: each is really run, on all samples, with media decoded.

What the card tells one to run, and Croissant, are in test_card.py; tars without a dataset in shards/test_foreign.py.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from PIL import Image

from symile_m3.shards import DatasetReader

SIZES = {"train": 64, "val": 16, "test": 16}
ENERGON = Path(__file__).parent / "energon_reader.py"


@pytest.fixture(scope="module")
def truth(tiny_dataset: Path) -> dict[str, dict[str, Any]]:
    """Every sample by its key, read by ourselves: the bytes of its members."""
    samples = {}
    for split in SIZES:
        reader = DatasetReader(tiny_dataset, split)
        samples.update({reader.key(n): reader.read(n) for n in range(len(reader))})
    assert len(samples) == sum(SIZES.values())
    return samples


def check(sample: dict[str, Any], image: Image.Image, flac: bytes, text: str, record: dict[str, Any]) -> None:
    """What a foreign reader made of a sample is what is in it, and the media can be decoded."""
    assert flac == sample["flac"]
    wave, rate_hz = soundfile.read(io.BytesIO(flac))
    assert (rate_hz, wave.ndim) == (16_000, 1)
    assert len(wave) > rate_hz / 4
    np.testing.assert_array_equal(np.asarray(image), np.asarray(Image.open(io.BytesIO(sample["jpg"]))))
    assert text == sample["txt"].decode()
    assert record == json.loads(sample["json"])


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::ResourceWarning")
@pytest.mark.parametrize("how", ["the directory", "webdataset"])
@pytest.mark.parametrize("streaming", [False, True])
def test_hugging_face_datasets(
    tiny_dataset: Path, truth: dict[str, Any], tmp_path: Path, how: str, streaming: bool
) -> None:
    import datasets

    source: dict[str, Any] = {"path": str(tiny_dataset)}
    if how == "webdataset":
        files = {split: str(tiny_dataset / "data" / f"{split}-*.tar") for split in SIZES}
        source = {"path": "webdataset", "data_files": files}
    source["cache_dir"] = str(tmp_path)
    features = datasets.load_dataset(**source, streaming=True)["train"].features
    assert isinstance(features["jpg"], datasets.Image)
    assert isinstance(features["flac"], datasets.Audio)
    # Filling and decoding an Audio column takes torchcodec, which takes FFmpeg: bytes first.
    features = datasets.Features({**features, "flac": datasets.Value("binary")})
    loaded = datasets.load_dataset(**source, features=features, streaming=streaming)
    assert list(loaded) == list(SIZES)
    for split, size in SIZES.items():
        rows = list(loaded[split] if streaming else loaded[split].cast_column("flac", datasets.Audio(decode=False)))
        assert [row["__key__"] for row in rows] == [f"{split}-{n:08d}" for n in range(size)]
        for row in rows:
            key = row["__key__"]
            flac = row["flac"] if streaming else row["flac"]["bytes"]
            check(truth[key], row["jpg"], flac, row["txt"], row["json"])


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
def test_webdataset(tiny_dataset: Path, truth: dict[str, Any]) -> None:
    import webdataset

    for split, size in SIZES.items():
        urls = [str(path) for path in sorted((tiny_dataset / "data").glob(f"{split}-*.tar"))]
        seen = 0
        for row in webdataset.WebDataset(urls, shardshuffle=False).decode("pil"):
            check(truth[row["__key__"]], row["jpg"], row["flac"], row["txt"], row["json"])
            seen += 1
        assert seen == size


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning", "ignore::UserWarning")
def test_wids_reads_our_index_where_it_lies(tiny_dataset: Path, truth: dict[str, Any], tmp_path: Path) -> None:
    import wids

    data = wids.ShardListDataset(str(tiny_dataset / ".symile" / "index.json"), cache_dir=str(tmp_path), keep=True)
    assert len(data) == len(truth)
    for n in (95, 0, 31, 32, 70):  # in any order
        row = data[n]
        assert row["__key__"] == list(truth)[n]
        flac = row[".flac"].read() if hasattr(row[".flac"], "read") else row[".flac"]
        check(truth[row["__key__"]], row[".jpg"], flac, row[".txt"], row[".json"])


def test_the_hub_takes_the_card(tiny_dataset: Path) -> None:
    from huggingface_hub import DatasetCard

    card = DatasetCard.load(tiny_dataset / "README.md", ignore_metadata_errors=False)
    data = card.data.to_dict()
    assert (data["language"], data["license"], data["size_categories"]) == (["el", "en"], "other", ["n<1K"])
    assert [entry["split"] for entry in data["configs"][0]["data_files"]] == list(SIZES)
    assert card.text.startswith("\n# Symile-M3: 2 languages, 8 classes")


def test_energon_prepares_and_reads(tiny_dataset: Path, truth: dict[str, Any], tmp_path: Path) -> None:
    root = tmp_path / "data"
    shutil.copytree(tiny_dataset, root)
    before = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
    parts = [word for split in SIZES for word in ("--split-parts", rf"{split}:data/{split}-.*\.tar")]
    command = [sys.executable, "-W", "ignore", "-m", "megatron.energon.cli.main", "prepare", "--non-interactive"]
    command += ["--no-progress", "--num-workers", "1", *parts, "--sample-type", "CrudeWebdataset", str(root)]
    env = {**os.environ, "HOME": str(tmp_path)}
    done = subprocess.run(command, env=env, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr
    assert {path: path.read_bytes() for path in before} == before  # it adds `.nv-meta` and touches nothing of ours
    command = [sys.executable, "-W", "ignore", str(ENERGON), str(root), *SIZES]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr
    counts = dict.fromkeys(SIZES, 0)
    for line in done.stdout.splitlines():
        row = json.loads(line)
        sample = truth[row["key"]]
        wave, rate_hz = soundfile.read(io.BytesIO(sample["flac"]), dtype="float32")
        assert (row["frames"], row["rate_hz"]) == (len(wave), rate_hz)
        assert row["pixels"] == int(np.asarray(Image.open(io.BytesIO(sample["jpg"]))).sum())
        assert (row["text"], row["record"]) == (sample["txt"].decode(), json.loads(sample["json"]))
        counts[row["key"].partition("-")[0]] += 1
    assert counts == SIZES
