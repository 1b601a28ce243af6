from __future__ import annotations

import hashlib
import random
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from shard_samples import full_sample, names, small_sample

from symile_m3.shards import RawSample, ShardError, ShardIndex, ShardInfo, sidecar_path, write_shard
from symile_m3.shards.tar import make_header

NAME = "train-00000-of-00001.tar"
GOLDEN = [
    RawSample("a", {"json": b"{}", "txt": "λ_b".encode()}),
    RawSample("b", {"txt": b"", "json": b"x" * 512}),
]
GOLDEN_SHA256 = "0a246d593612165c5cdae661ad80936b7e8ab5cbd741c2abe0db8d3652bef0d1"


def test_bytes_are_fixed(tmp_path: Path) -> None:
    path = tmp_path / "data" / NAME
    info = write_shard(path, GOLDEN)
    content = path.read_bytes()
    assert hashlib.sha256(content).hexdigest() == GOLDEN_SHA256
    assert info == ShardInfo(name=NAME, split="train", nsamples=2, filesize=len(content), sha256=GOLDEN_SHA256)
    assert names(tmp_path / "data") == [NAME]
    assert names(tmp_path / ".symile") == ["train-00000-of-00001.idx.npz"]


def test_same_samples_same_files_whatever_the_order_of_members(tmp_path: Path) -> None:
    samples = [full_sample(i) for i in range(3)]
    turned = [RawSample(s.key, dict(reversed(s.members.items()))) for s in samples]
    first, second = tmp_path / "1" / NAME, tmp_path / "2" / NAME
    assert write_shard(first, samples) == write_shard(second, turned)
    assert first.read_bytes() == second.read_bytes()
    assert sidecar_path(first).read_bytes() == sidecar_path(second).read_bytes()


def test_tarfile_reads_names_bytes_and_neutral_headers(tmp_path: Path) -> None:
    samples = [full_sample(i) for i in range(3)]
    path = tmp_path / NAME
    write_shard(path, samples)
    with tarfile.open(path) as tar:
        entries = tar.getmembers()
        names = [f"{s.key}.{member}" for s in samples for member in ("jpg", "flac", "txt", "json")]
        assert [entry.name for entry in entries] == names
        for entry in entries:
            assert (entry.mtime, entry.uid, entry.gid, entry.mode) == (0, 0, 0, 0o644)
            assert (entry.uname, entry.gname) == ("", "")
            file = tar.extractfile(entry)
            key, member = entry.name.split(".")
            assert file is not None
            assert file.read() == samples[int(key)].members[member]


@pytest.mark.parametrize("key", ["", "a.b", "a/b", "a b", "a\0", "a\n", "__meta", "k" * 100])
def test_bad_keys(tmp_path: Path, key: str) -> None:
    with pytest.raises(ShardError, match=r"^train-00000-of-00001\.tar: "):
        write_shard(tmp_path / NAME, [RawSample(key, {"txt": b""})])
    assert not (tmp_path / NAME).exists()


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        ([], "no samples"),
        ([small_sample(1), small_sample(1)], "two samples have the key 000001"),
        ([small_sample(1), full_sample(2)], "sample 000002 has the members flac, jpg, json, txt"),
        ([RawSample("a", {})], "no members"),
        ([RawSample("a", {"TXT": b""})], "'TXT' cannot be a member"),
    ],
)
def test_bad_samples_leave_nothing_behind(tmp_path: Path, samples: list[RawSample], message: str) -> None:
    with pytest.raises(ShardError, match=message):
        write_shard(tmp_path / NAME, samples)
    assert names(tmp_path) == []


def test_an_error_of_the_producer_passes_through_and_keeps_the_old_shard(tmp_path: Path) -> None:
    def produce() -> Iterator[RawSample]:
        yield small_sample(7)
        raise FileNotFoundError("pool/missing.jpg")

    path = tmp_path / "data" / NAME
    info = write_shard(path, [small_sample(1)])
    with pytest.raises(FileNotFoundError, match="pool"):
        write_shard(path, produce())
    assert hashlib.sha256(path.read_bytes()).hexdigest() == info.sha256
    assert ShardIndex.open(path).key(0) == "000001"
    assert names(path.parent) == [NAME]


def test_a_disk_that_takes_no_more_is_one_line_and_leaves_no_temp(tmp_path: Path) -> None:
    """The file size limit of a process makes the kernel refuse writes just as a full disk does."""
    script = (
        "import pathlib, resource, sys\n"
        "from symile_m3.shards import RawSample, ShardError, write_shard\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (3_000_000, 3_000_000))\n"
        "samples = (RawSample(str(i), {'txt': bytes(100_000)}) for i in range(100))\n"
        "try:\n"
        "    write_shard(pathlib.Path(sys.argv[1]), samples)\n"
        "except ShardError as error:\n"
        "    print(error)"
    )
    path = tmp_path / "data" / NAME
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script, str(path)], check=True, capture_output=True, text=True
    )
    assert done.stderr == ""
    expected = f"{path}: cannot be written: File too large (make room and run the same command again)"
    assert done.stdout.splitlines() == [expected]
    assert names(path.parent) == []


def test_keys_may_be_in_any_script_and_members_of_any_length(tmp_path: Path) -> None:
    random_bytes = random.Random(0)
    samples = [RawSample(f"κλειδί-{n}", {"txt": random_bytes.randbytes(n)}) for n in (0, 1, 511, 512, 513, 10_240)]
    path = tmp_path / NAME
    write_shard(path, samples)
    index = ShardIndex.open(path)
    content = path.read_bytes()
    assert [index.key(i) for i in range(len(index))] == [sample.key for sample in samples]
    for i, sample in enumerate(samples):
        at, size = index.offsets[i, 0], index.sizes[i, 0]
        assert content[at : at + size] == sample.members["txt"]
    assert len(content) % 10_240 == 0


@given(st.text(min_size=1, max_size=40).filter(lambda name: "\0" not in name), st.integers(0, 8**11 - 1))
def test_headers_are_those_of_tarfile(name: str, size: int) -> None:
    info = tarfile.TarInfo(name)
    info.size, info.mode = size, 0o644
    try:
        expected = info.tobuf(format=tarfile.USTAR_FORMAT, encoding="utf-8", errors="strict")
    except UnicodeEncodeError:
        return
    except ValueError:  # too long
        with pytest.raises(ValueError, match="name"):
            make_header(name, size)
        return
    assert make_header(name, size) == expected
