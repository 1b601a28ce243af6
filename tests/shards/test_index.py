from __future__ import annotations

import json
import tarfile
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from shard_samples import flip, full_sample, small_sample, write_dataset

from symile_m3.shards import (
    DatasetIndex,
    DatasetLayout,
    ShardError,
    ShardIndex,
    ShardReader,
    sidecar_path,
    write_shard,
)


def test_index_json_is_a_wids_index(tmp_path: Path) -> None:
    layout = DatasetLayout(write_dataset(tmp_path, (2, 3)))
    content = json.loads(layout.index.read_text())
    assert content["wids_version"] == 1
    assert content["__kind__"] == "wids-shard-index-v1"
    assert [shard["nsamples"] for shard in content["shardlist"]] == [2, 3]
    for shard in content["shardlist"]:
        tar = (layout.index.parent / shard["url"]).resolve()
        assert tar.stat().st_size == shard["filesize"]
        assert set(shard) == {"url", "nsamples", "filesize", "sha256", "split"}
    index = DatasetIndex.load(layout.index)
    assert index.fingerprint == "f" * 16
    assert [shard.name for shard in index.of_split("train")] == [
        "train-00000-of-00002.tar",
        "train-00001-of-00002.tar",
    ]
    assert index.of_split("val") == []


@pytest.mark.parametrize(
    "change",
    [
        {"wids_version": 2},
        {"shardlist": None},
        {"fingerprint": 3},
        {"shardlist": [{"url": "../data/a.tar"}]},
        {"shardlist": [{"url": "../../etc/a.tar", "nsamples": 1, "filesize": 1, "sha256": "", "split": "val"}]},
        {"shardlist": [{"url": "../data/a.tar", "nsamples": 0, "filesize": 1, "sha256": "", "split": "val"}]},
    ],
)
def test_a_wrong_index_json_is_refused_by_name(tmp_path: Path, change: dict[str, object]) -> None:
    layout = DatasetLayout(write_dataset(tmp_path, (2,)))
    layout.index.write_text(json.dumps(json.loads(layout.index.read_text()) | change))
    with pytest.raises(ShardError, match=r"index\.json: not a shard index"):
        DatasetIndex.load(layout.index)


def test_missing_and_broken_index_json(tmp_path: Path) -> None:
    with pytest.raises(ShardError, match="no dataset here"):
        DatasetIndex.load(tmp_path / "index.json")
    (tmp_path / "index.json").write_text('{"wids_version": 1')
    with pytest.raises(ShardError, match="not a shard index"):
        DatasetIndex.load(tmp_path / "index.json")


def test_a_scan_finds_what_the_writer_wrote_and_replaces_a_lost_sidecar(tmp_path: Path) -> None:
    path = tmp_path / "data" / "train-00000-of-00001.tar"
    write_shard(path, [full_sample(i) for i in range(4)])
    written = ShardIndex.open(path)
    sidecar_path(path).unlink()
    scanned = ShardIndex.open(path)
    assert scanned.members == written.members
    assert scanned.filesize == written.filesize
    for name in ("keys", "offsets", "sizes"):
        np.testing.assert_array_equal(getattr(scanned, name), getattr(written, name))
    assert written.crc32 is not None
    assert scanned.crc32 is None
    assert sidecar_path(path).exists()
    assert ShardReader(path).read(3) == full_sample(3).members


def test_a_sidecar_of_another_tar_is_refused(tmp_path: Path) -> None:
    path, longer = tmp_path / "a.tar", tmp_path / "b.tar"
    write_shard(path, [small_sample(1)])
    write_shard(longer, [full_sample(i) for i in range(9)])
    longer.replace(path)
    with pytest.raises(ShardError, match=r"^a\.tar: is [\d,]+ bytes long, its index a\.idx\.npz was made for"):
        ShardIndex.open(path)


def test_a_damaged_sidecar_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    write_shard(path, [small_sample(i) for i in range(5)])
    sidecar = sidecar_path(path)
    whole = sidecar.read_bytes()
    for at in range(0, len(whole), 97):
        sidecar.write_bytes(whole[:at])
        with pytest.raises(ShardError, match=r"not the index of a\.tar"):
            ShardIndex.open(path)
    for change in (
        {"offsets": np.full((5, 2), 10**9)},
        {"offsets": np.zeros((5, 3), np.int64)},
        {"crc32": np.zeros((5, 2), np.int64)},
        {"version": np.array(99)},
        {"keys": np.array([{}] * 5, object)},
    ):
        _resaved(sidecar, whole, **change)
        with pytest.raises(ShardError, match=r"not the index of a\.tar"):
            ShardIndex.open(path)


def _resaved(sidecar: Path, whole: bytes, **change: np.ndarray) -> Path:
    with np.load(BytesIO(whole)) as content:
        arrays = {name: content[name] for name in content.files} | change
    np.savez(sidecar, **arrays)
    return sidecar


def test_scanning_a_damaged_tar_names_it(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    write_shard(path, [small_sample(i) for i in range(5)])
    whole = path.read_bytes()
    for length in (0, 100, 700, 1024 * 5):
        path.write_bytes(whole[:length])
        with pytest.raises(ShardError, match=r"a\.tar"):
            ShardIndex.scan(path)
    path.write_bytes(whole)
    flip(path, 3)
    with pytest.raises(ShardError, match=r"^a\.tar: not a whole WebDataset tar: .*checksum"):
        ShardIndex.scan(path)


def test_scanning_a_tar_with_uneven_samples_names_the_sample(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as tar:
        for name in ("x.txt", "x.json", "y.txt"):
            tar.addfile(tarfile.TarInfo(name))
    with pytest.raises(ShardError, match=r"sample y has the members txt, the first sample has txt, json"):
        ShardIndex.scan(path)
