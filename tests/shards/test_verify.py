from __future__ import annotations

import os
import random
from pathlib import Path

import pytest
from shard_samples import flip, full_sample, small_sample

from symile_m3.shards import RawSample, ShardIndex, ShardInfo, sidecar_path, verify_shard, write_shard

N = 6


@pytest.fixture
def shard(tmp_path: Path) -> tuple[Path, ShardInfo]:
    path = tmp_path / "data" / "train-00000-of-00001.tar"
    return path, write_shard(path, [full_sample(i) for i in range(N)])


def test_a_whole_shard_has_no_problems(shard: tuple[Path, ShardInfo]) -> None:
    path, info = shard
    assert verify_shard(path, info, decode=("jpg", "flac", "txt", "json")) == []
    sidecar_path(path).unlink()
    assert verify_shard(path, info) == []


def test_every_altered_byte_is_put_down_to_its_sample(shard: tuple[Path, ShardInfo]) -> None:
    path, info = shard
    index = ShardIndex.open(path)
    starts = (index.offsets[:, 0] - 512).tolist()
    last = int(index.offsets[-1, -1] + 512)
    generator = random.Random(0)
    places = [generator.randrange(last) for _ in range(120)] + starts
    for at in places:
        flip(path, at)
        i = sum(start <= at for start in starts) - 1
        problems = verify_shard(path, info)
        assert problems[0].message.startswith("the SHA-256")
        assert problems[0].key is None
        assert [problem.key for problem in problems[1:]] == [f"{i:06d}"], at
        assert str(problems[1]).startswith(f"train-00000-of-00001.tar: sample {i:06d}: ")
        flip(path, at)
    flip(path, info.filesize - 1)
    assert [problem.key for problem in verify_shard(path, info)] == [None, None]


def test_a_truncated_shard_names_the_first_sample_cut_off(shard: tuple[Path, ShardInfo]) -> None:
    path, info = shard
    os.truncate(path, int(ShardIndex.open(path).offsets[3, 1]) + 7)
    size, cut = verify_shard(path, info)
    assert size.key is None
    assert "bytes long where" in size.message
    assert cut.key == "000003"
    assert cut.message == "flac: cut off, and with it the 2 samples behind it"
    path.write_bytes(b"")
    assert [str(problem) for problem in verify_shard(path, info)] == [f"{path.name}: the file is empty"]
    path.unlink()
    assert "No such file" in verify_shard(path, info)[0].message


def test_damage_that_was_written_is_found_by_decoding(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    samples = [full_sample(i) for i in range(3)]
    samples[1] = RawSample("000001", {**samples[1].members, "json": b"{", "jpg": b"no image"})
    info = write_shard(path, samples)
    found = verify_shard(path, info)
    assert [(problem.key, problem.message.split(":")[0]) for problem in found] == [("000001", "json")]
    found = verify_shard(path, info, decode=("jpg", "flac", "txt", "json"))
    assert [problem.message.split(":")[0] for problem in found] == ["jpg", "json"]


def test_another_tar_under_the_name_is_noticed(tmp_path: Path) -> None:
    path, other = tmp_path / "a.tar", tmp_path / "b.tar"
    info = write_shard(path, [small_sample(i) for i in (1, 2)])
    write_shard(other, [small_sample(i) for i in (3, 4)])
    other.replace(path)
    problems = verify_shard(path, info)
    assert [problem.key for problem in problems] == [None, *["000001"] * 2, *["000002"] * 2]
    (tmp_path / ".symile" / "a.idx.npz").write_bytes(b"nothing")
    assert "not the index of a.tar" in verify_shard(path, info)[-1].message
