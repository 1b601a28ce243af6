from __future__ import annotations

import os
import pickle
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from shard_samples import flip, full_sample, small_sample, write_dataset

from symile_m3.shards import (
    DamagedSampleError,
    DatasetReader,
    RawSample,
    ShardError,
    ShardIndex,
    ShardReader,
    write_shard,
)


def test_every_sample_comes_back(tmp_path: Path) -> None:
    reader = DatasetReader(write_dataset(tmp_path, (3, 1, 4), full_sample), "train", max_open=1)
    assert len(reader) == 8
    assert reader.shard_sizes == [3, 1, 4]
    assert reader.fingerprint == "f" * 16
    for i in (7, 0, 3, 2, 4, 5, 1, 6):
        assert reader.key(i) == f"{i:06d}"
        assert reader.read(i) == full_sample(i).members
        assert reader.read(i, ["txt"]) == {"txt": full_sample(i).members["txt"]}
    assert [reader.shard(i)[6:11] for i in (2, 3, 4)] == ["00000", "00001", "00002"]
    for i in (-1, 8):
        with pytest.raises(IndexError):
            reader.read(i)
    with pytest.raises(ShardError, match=r"no member 'png' \(it has jpg, flac, txt, json\)"):
        reader.read(0, ["png"])


def open_files() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def test_open_shards_are_bounded(tmp_path: Path) -> None:
    reader = DatasetReader(write_dataset(tmp_path, (1,) * 12), "train", max_open=3)
    before = open_files()
    for i in range(12):
        reader.read(i)
    assert open_files() - before == 3
    reader.close()
    assert open_files() == before
    assert reader.read(5) == small_sample(5).members


def test_unknown_splits_and_missing_shards(tmp_path: Path) -> None:
    write_dataset(tmp_path, (1, 1))
    with pytest.raises(ShardError, match="no shards of the split 'val'"):
        DatasetReader(tmp_path, "val")
    (tmp_path / "data" / "train-00001-of-00002.tar").unlink()
    with pytest.raises(ShardError, match=r"train-00001-of-00002\.tar: cannot be read: No such file"):
        DatasetReader(tmp_path, "train")


def test_a_truncated_shard_is_named(tmp_path: Path) -> None:
    write_dataset(tmp_path, (2, 2))
    path = tmp_path / "data" / "train-00001-of-00002.tar"
    shard = ShardReader(path)
    reader = DatasetReader(tmp_path, "train")
    os.truncate(path, path.stat().st_size - 1)
    for attempt in (lambda: DatasetReader(tmp_path, "train"), lambda: reader.read(2), lambda: shard.read(0)):
        with pytest.raises(ShardError, match=r"^train-00001-of-00002\.tar: is [\d,]+ bytes long"):
            attempt()
    assert reader.read(0) == small_sample(0).members


def test_an_altered_byte_of_any_member_read_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    write_shard(path, [full_sample(i) for i in range(3)])
    index = ShardIndex.open(path)
    for m, member in enumerate(index.members):
        for at in (index.offsets[1, m], index.offsets[1, m] + index.sizes[1, m] - 1):
            flip(path, at)
            with pytest.raises(DamagedSampleError, match=r"^a\.tar: sample 000001: the bytes of its") as caught:
                ShardReader(path).read(1, [member])
            assert (caught.value.shard, caught.value.key) == ("a.tar", "000001")
            assert ShardReader(path, check=False).read(1, [member]) != {member: full_sample(1).members[member]}
            assert ShardReader(path).read(0) == full_sample(0).members
            assert ShardReader(path).read(2) == full_sample(2).members
            flip(path, at)


@pytest.mark.parametrize("at", [0, 124, 136, 149, 156])
def test_an_altered_header_is_named_without_checksums_too(tmp_path: Path, at: int) -> None:
    path = tmp_path / "a.tar"
    write_shard(path, [small_sample(i) for i in range(3)])
    flip(path, int(ShardIndex.open(path).offsets[2, 0]) - 512 + at)
    with pytest.raises(DamagedSampleError, match=r"^a\.tar: sample 000002: txt: "):
        ShardReader(path, check=False).read(2)


def test_an_index_of_another_tar_of_the_same_size_is_noticed(tmp_path: Path) -> None:
    first, second = tmp_path / "a.tar", tmp_path / "b.tar"
    write_shard(first, [small_sample(i) for i in (1, 2)])
    write_shard(second, [small_sample(i) for i in (3, 4)])
    assert first.stat().st_size == second.stat().st_size
    with pytest.raises(DamagedSampleError, match=r"the tar holds 000003\.txt, .* where 000001\.txt"):
        ShardReader(second, ShardIndex.open(first), check=False).read(0)


@pytest.mark.parametrize("warm", [False, True])
def test_a_pickled_reader_reads_on(tmp_path: Path, warm: bool) -> None:
    reader = DatasetReader(write_dataset(tmp_path, (3, 3)), "train")
    if warm:
        reader.read(4)
    copy = pickle.loads(pickle.dumps(reader))
    assert copy.read(4) == reader.read(4) == small_sample(4).members
    assert len(pickle.dumps(reader)) < 2_000
    shard = ShardReader(tmp_path / "data" / "train-00000-of-00002.tar")
    shard.read(0)
    assert pickle.loads(pickle.dumps(shard)).read(1) == small_sample(1).members


def test_a_forked_reader_reads_on_even_if_a_thread_held_its_lock(tmp_path: Path) -> None:
    """In a subprocess, because forking a test run with threads warns."""
    write_dataset(tmp_path, (3, 3))
    script = (
        "import os, pathlib, sys\n"
        "from symile_m3.shards import DatasetReader\n"
        "reader = DatasetReader(pathlib.Path(sys.argv[1]), 'train')\n"
        "reader.read(1)\n"
        "reader._lock.acquire()\n"
        "pid = os.fork()\n"
        "if pid == 0:\n"
        "    os._exit(len(reader.read(4)['txt']))\n"
        "print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], check=True, capture_output=True, text=True, timeout=240
    )
    assert int(done.stdout) == len(small_sample(4).members["txt"])


def test_threads_share_a_reader_whose_shards_come_and_go(tmp_path: Path) -> None:
    reader = DatasetReader(write_dataset(tmp_path, (2,) * 8), "train", max_open=1)
    wrong: list[object] = []

    def work(offset: int) -> None:
        try:
            for i in range(200):
                j = (i * 7 + offset) % 16
                if reader.read(j) != small_sample(j).members:
                    wrong.append(j)
        except Exception as error:
            wrong.append(error)

    threads = [threading.Thread(target=work, args=(offset,)) for offset in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


FILES = """
import pathlib, resource, sys
from symile_m3.shards import Blend, DatasetReader, ShardError

resource.setrlimit(resource.RLIMIT_NOFILE, (int(sys.argv[2]),) * 2)
root = pathlib.Path(sys.argv[1])
blend = Blend([DatasetReader(root, "train") for _ in range(4)], [1] * 4)
try:
    print(len([blend.read(i) for i in range(len(blend))]))
except ShardError as error:
    print(error)
"""


@pytest.mark.parametrize(
    ("limit", "printed"),
    [(1024, "560\n"), (100, "Too many open files (give readers a smaller max_open")],
)
def test_a_blend_of_many_shards_keeps_within_the_usual_limit_of_open_files(
    tmp_path: Path, limit: int, printed: str
) -> None:
    root = write_dataset(tmp_path, (1,) * 140)
    command = [sys.executable, "-c", FILES, str(root), str(limit)]
    assert printed in subprocess.run(command, check=True, capture_output=True, text=True).stdout


MEMORY = """
import pathlib, sys
from symile_m3.shards import DatasetReader, Loader, LoaderConfig

def resident_bytes():
    return int(pathlib.Path("/proc/self/statm").read_text().split()[1]) * 4096

loader = Loader(
    DatasetReader(pathlib.Path(sys.argv[1]), "train"),
    LoaderConfig(batch_size=16, seed=0, fields=("jpg", "txt"), decode=False),
)
peaks = [max(resident_bytes() for _ in loader) for _ in range(5)]
print(*peaks)
"""


def test_memory_does_not_grow_with_what_has_been_read(tmp_path: Path) -> None:
    """In a process of its own: a memory map would take up all of the 96 MB."""

    def large(i: int) -> RawSample:
        return RawSample(f"{i:06d}", {"jpg": i.to_bytes(2, "big") * 24_000, "txt": b""})

    root = write_dataset(tmp_path, (500,) * 4, large)
    done = subprocess.run([sys.executable, "-c", MEMORY, str(root)], check=True, capture_output=True, text=True)
    first, *_, last = (int(peak) for peak in done.stdout.split())
    assert first < 80_000_000
    assert last < 1.05 * first
