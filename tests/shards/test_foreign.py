"""Our tars in the hands of other readers, and theirs in ours."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from shard_samples import full_sample

from symile_m3.shards import ShardIndex, ShardReader, decode_image, write_shard


@pytest.fixture
def shard(tmp_path: Path) -> Path:
    path = tmp_path / "data" / "train-00000-of-00001.tar"
    write_shard(path, [full_sample(i) for i in range(7)])
    return path


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
def test_webdataset_reads_ours(shard: Path) -> None:
    import webdataset

    samples = list(webdataset.WebDataset(str(shard), shardshuffle=False))
    assert [sample["__key__"] for sample in samples] == [f"{i:06d}" for i in range(7)]
    for i, sample in enumerate(samples):
        assert {k: v for k, v in sample.items() if not k.startswith("__")} == full_sample(i).members
    decoded = next(iter(webdataset.WebDataset(str(shard), shardshuffle=False).decode("rgb8")))
    assert decoded["txt"] == "λέξη_0"
    assert decoded["json"] == {"class_id": 0, "lang": "el"}
    np.testing.assert_array_equal(decoded["jpg"], decode_image(full_sample(0).members["jpg"]))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_webdataset_writes_what_we_read(tmp_path: Path) -> None:
    import webdataset

    path = tmp_path / "theirs.tar"
    with webdataset.TarWriter(str(path)) as writer:
        for i in range(3):
            writer.write({"__key__": f"{i:06d}", **full_sample(i).members})
    reader = ShardReader(path, ShardIndex.scan(path))
    assert [reader.key(i) for i in range(len(reader))] == ["000000", "000001", "000002"]
    assert all(reader.read(i) == full_sample(i).members for i in range(3))


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_hugging_face_datasets_reads_ours(shard: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    import datasets

    source = {"path": "webdataset", "data_files": str(shard), "cache_dir": str(tmp_path / "cache")}
    inferred = datasets.load_dataset(**source, split="train", streaming=True).features
    assert isinstance(inferred["jpg"], datasets.Image)
    assert isinstance(inferred["flac"], datasets.Audio)
    assert inferred["txt"] == datasets.Value("string")
    assert dict(inferred["json"]) == {"class_id": datasets.Value("int64"), "lang": datasets.Value("string")}
    # An Audio column wants torchcodec while it is filled, so it is read as bytes and cast then.
    features = datasets.Features({**inferred, "flac": datasets.Value("binary")})
    loaded = datasets.load_dataset(**source, split="train", features=features)
    loaded = loaded.cast_column("flac", datasets.Audio(decode=False))
    assert len(loaded) == 7
    for i, row in enumerate(loaded):
        members = full_sample(i).members
        assert row["__key__"] == f"{i:06d}"
        assert row["txt"] == members["txt"].decode()
        assert row["json"] == json.loads(members["json"])
        assert row["flac"]["bytes"] == members["flac"]
        expected = np.array(Image.open(io.BytesIO(members["jpg"])))
        np.testing.assert_array_equal(np.array(row["jpg"]), expected)
