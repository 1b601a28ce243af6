from __future__ import annotations

import hashlib
import json
import os
import pickle
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from remote_servers import Fault, HttpServer, serving
from shard_samples import flip, full_sample, names, small_sample, write_dataset

from symile_m3.shards import (
    CacheConfig,
    DatasetReader,
    Loader,
    LoaderConfig,
    RawSample,
    RetryConfig,
    ShardCache,
    ShardError,
    ShardInfo,
    ShardReader,
)
from symile_m3.shards.prefetch import Prefetcher

FAST = RetryConfig(attempts=6, first_wait_s=0.001, max_wait_s=0.01)
TAR = "train-{:05d}-of-{:05d}.tar"


def config_of(tmp_path: Path, **changes: int) -> CacheConfig:
    return CacheConfig(directory=tmp_path / "cache", retry=FAST, **changes)  # type: ignore[arg-type]


def big_sample(i: int) -> RawSample:
    """Of 100 kB that cannot be compressed."""
    return RawSample(f"{i:06d}", {"jpg": random.Random(i).randbytes(100_000), "txt": f"{i}".encode()})


def contents(reader: DatasetReader) -> list[dict[str, bytes]]:
    return [reader.read(i) for i in range(len(reader))]


def cached(tmp_path: Path) -> list[str]:
    return sorted(path.name for path in (tmp_path / "cache").glob("*/data/*"))


def wait_for(condition: Callable[[], bool], seconds: float = 240) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.mark.parametrize("ranges", [True, False])
def test_a_dataset_over_http_reads_as_a_local_one(tmp_path: Path, ranges: bool) -> None:
    root = write_dataset(tmp_path / "m3", (3, 1, 4), full_sample)
    local = DatasetReader(root, "train")
    with serving(root, ranges=ranges) as server:
        reader = DatasetReader(server.url, "train", cache=config_of(tmp_path))
        assert (len(reader), reader.fingerprint, reader.shard_sizes) == (8, local.fingerprint, [3, 1, 4])
        assert cached(tmp_path) == []  # nothing before it is asked for
        assert reader.read(4) == local.read(4)
        assert cached(tmp_path) == [TAR.format(2, 3)]
        assert contents(reader) == contents(local)
        for shard in reader.shards:
            assert reader.layout.shard(shard.name).read_bytes() == local.layout.shard(shard.name).read_bytes()
        before = len(server.requests)
        copy = pickle.loads(pickle.dumps(reader))
        again = DatasetReader(f"{server.url}/", "train", cache=config_of(tmp_path))
        assert contents(copy) == contents(again) == contents(local)
        assert [name for _, name, _, _ in server.requests[before:]] == ["index.json"]


@pytest.mark.parametrize("ranges", [True, False])
def test_dropped_connections_and_busy_servers_do_not_show(tmp_path: Path, ranges: bool) -> None:
    root = write_dataset(tmp_path / "m3", (3, 3, 3), big_sample)
    draw = random.Random(1)
    with serving(root, ranges=ranges) as server:
        for s in range(3):
            server.faults[TAR.format(s, 3)].extend(
                [
                    Fault(status=503, retry_after="0"),
                    Fault(drop_after=draw.randrange(1, 100_000)),
                    Fault(status=500),
                    Fault(drop_after=draw.randrange(100_000, 200_000)),
                    Fault(status=429),
                    Fault(wait_s=0.1),
                ]
            )
        server.faults["index.json"].append(Fault(drop_after=10))
        server.faults["train-00000-of-00003.idx.npz"].append(Fault(status=503))
        reader = DatasetReader(server.url, "train", cache=config_of(tmp_path))
        assert contents(reader) == contents(DatasetReader(root, "train"))
        for s in range(3):
            asked = server.gets(TAR.format(s, 3))
            assert len(asked) == 6
            assert any(header and header.startswith("bytes=") for header in asked)
            if ranges:  # nothing comes twice
                sent = sum(status in (200, 206) for _, name, _, status in server.requests if name == TAR.format(s, 3))
                assert sent == 3
                starts = [int(header[6:-1]) for header in asked if header]
                assert starts == sorted(starts)
                assert starts[-1] >= 100_000


def test_wrong_bytes_are_fetched_again_once(tmp_path: Path) -> None:
    root = write_dataset(tmp_path / "m3", (2, 2), big_sample)
    first, second = (TAR.format(s, 2) for s in range(2))
    with serving(root) as server:
        server.faults[first].append(Fault(alter=600))
        reader = DatasetReader(server.url, "train", cache=config_of(tmp_path))
        assert reader.read(0) == big_sample(0).members
        assert server.gets(first) == [None, None]
        server.faults[second].extend([Fault(alter=600), Fault(alter=700)])
        with pytest.raises(
            ShardError, match=rf"^{second}: {server.url}/data/{second} does not have the SHA-256 recorded"
        ) as caught:
            reader.read(2)
        assert "\n" not in str(caught.value)
        assert cached(tmp_path) == [first]
        assert reader.read(2) == big_sample(2).members  # the next one that asks may have more luck


def test_a_server_that_stays_away_is_one_line(tmp_path: Path) -> None:
    root = write_dataset(tmp_path / "m3", (2,), big_sample)
    name = TAR.format(0, 1)
    with serving(root) as server:
        reader = DatasetReader(server.url, "train", cache=config_of(tmp_path))
        server.faults[name].extend([Fault(drop_after=1000), *[Fault(status=503)] * 6])
        with pytest.raises(
            ShardError, match=rf"^{server.url}/data/{name}: cannot be read beyond 1,000 of [\d,]+ bytes: HTTP 503"
        ):
            reader.read(0)
        (root / "data" / name).unlink()
        with pytest.raises(ShardError, match=rf"data/{name}: cannot be read beyond 1,000 of [\d,]+ bytes: "):
            reader.read(0)
        with pytest.raises(ShardError, match=r"nowhere/\.symile/index\.json: no dataset there \(build one first\)"):
            DatasetReader(f"{server.url}/nowhere", "train", cache=config_of(tmp_path))


def test_a_shard_cut_off_at_the_server_is_noticed(tmp_path: Path) -> None:
    root = write_dataset(tmp_path / "m3", (2,), big_sample)
    path = root / "data" / TAR.format(0, 1)
    with serving(root) as server:
        reader = DatasetReader(server.url, "train", cache=config_of(tmp_path))
        os.truncate(path, path.stat().st_size - 512)
        with pytest.raises(ShardError, match="cannot be read beyond"):
            reader.read(0)


def test_an_index_cannot_lead_out_of_the_cache(tmp_path: Path) -> None:
    root = write_dataset(tmp_path / "m3", (2,))
    index = root / ".symile" / "index.json"
    good = json.loads(index.read_bytes())
    with serving(root) as server:
        for change in ({"url": "../data/.."}, {"sha256": "../../../../tmp/x"}, {"url": "../../etc/passwd"}):
            index.write_text(json.dumps(good | {"shardlist": [good["shardlist"][0] | change]}))
            with pytest.raises(ShardError, match=r"index\.json: "):
                ShardCache(server.url, config_of(tmp_path))
        index.write_text("{")
        with pytest.raises(ShardError, match=rf"^{server.url}/\.symile/index\.json: not a shard index"):
            ShardCache(server.url, config_of(tmp_path))
    assert not (tmp_path / "cache").exists()


def test_a_dataset_built_anew_is_read_anew(tmp_path: Path) -> None:
    root = write_dataset(tmp_path / "m3", (2,), small_sample)
    with serving(root) as server:
        assert DatasetReader(server.url, "train", cache=config_of(tmp_path)).read(0) == small_sample(0).members
        write_dataset(root, (2,), full_sample)
        assert DatasetReader(server.url, "train", cache=config_of(tmp_path)).read(0) == full_sample(0).members


def test_the_shard_unused_for_longest_goes_first(tmp_path: Path) -> None:
    root = write_dataset(tmp_path / "m3", (2,) * 5, big_sample)
    size = (root / "data" / TAR.format(0, 5)).stat().st_size
    with serving(root) as server:
        cache = ShardCache(server.url, config_of(tmp_path, max_bytes=3 * size))
        shards = cache.index.shards
        for s in (0, 1, 2, 0, 3):  # 1 is the oldest when 3 comes
            cache.fetch(shards[s])
        assert cached(tmp_path) == [TAR.format(s, 5) for s in (0, 2, 3)]
        cache.fetch(shards[4])
        assert cached(tmp_path) == [TAR.format(s, 5) for s in (0, 3, 4)]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("symile_m3.shards.cache_folder._STALE_S", -1.0)
            cache.make_room()  # a folder with shards stays, whenever it was used
        assert len(cached(tmp_path)) == 3


def test_shards_in_use_stay_and_readers_go_on(tmp_path: Path) -> None:
    root = write_dataset(tmp_path / "m3", (2,) * 4, big_sample)
    size = (root / "data" / TAR.format(0, 4)).stat().st_size
    with serving(root) as server:
        cache = ShardCache(server.url, config_of(tmp_path, max_bytes=2 * size))
        first = cache.shard(cache.index.shards[0])
        mapped = ShardReader(first.path)
        mapped.read(0)
        for s in (1, 2, 3):
            cache.fetch(cache.index.shards[s])
        assert cached(tmp_path) == [TAR.format(0, 4), TAR.format(3, 4)]
        first.close()
        cache.fetch(cache.index.shards[2])
        assert cached(tmp_path) == [TAR.format(2, 4), TAR.format(3, 4)]
        assert mapped.read(1) == big_sample(1).members  # its map outlives the file

        reader = DatasetReader(cache, "train")
        for i in (0, 2, 4, 6, 1, 7, 3):
            assert reader.read(i) == big_sample(i).members
            assert len(cached(tmp_path)) <= 2


def test_what_a_killed_process_left_goes_too(tmp_path: Path) -> None:
    root = write_dataset(tmp_path / "m3", (2,) * 3, big_sample)
    size = (root / "data" / TAR.format(0, 3)).stat().st_size
    with serving(root) as server:
        cache = ShardCache(server.url, config_of(tmp_path, max_bytes=2 * size))
        cache.layout.data.mkdir()
        (cache.layout.data / f"{TAR.format(2, 3)}.part").write_bytes(bytes(size - 1))
        for s in (0, 1):
            cache.fetch(cache.index.shards[s])
        assert cached(tmp_path) == [TAR.format(0, 3), TAR.format(1, 3)]


def test_folders_of_forgotten_datasets_go(tmp_path: Path) -> None:
    root = write_dataset(tmp_path / "m3", (1,))
    with serving(root) as server:
        old = ShardCache(server.url, config_of(tmp_path))
        write_dataset(root, (2,))
        new = ShardCache(server.url, config_of(tmp_path))
        for days, there in ((29, True), (31, False)):
            then = time.time() - days * 86_400
            os.utime(old.layout.index, (then, then))
            new.make_room()
            assert old.layout.root.exists() == there
        assert new.layout.index.exists()


@pytest.mark.parametrize("content", [b"", b"garbage", "long"])
def test_leftovers_of_any_kind_do_not_harm(tmp_path: Path, content: bytes | str) -> None:
    root = write_dataset(tmp_path / "m3", (2,), big_sample)
    name = TAR.format(0, 1)
    data = bytes(1_000_000) if isinstance(content, str) else content
    with serving(root) as server:
        cache = ShardCache(server.url, config_of(tmp_path))
        cache.layout.data.mkdir()
        (cache.layout.data / f"{name}.part").write_bytes(data)
        (cache.layout.data / name).write_bytes(b"cut off")
        server.faults[name].extend([Fault(), Fault(alter=5)] if content == b"garbage" else [Fault(alter=5)])
        assert DatasetReader(cache, "train").read(1) == big_sample(1).members
        assert cached(tmp_path) == [name]


READ = """
import hashlib, pathlib, sys
from symile_m3.shards import CacheConfig, DatasetReader, RetryConfig
reader = DatasetReader(sys.argv[1], "train", cache=CacheConfig(directory=pathlib.Path(sys.argv[2])))
digest = hashlib.sha256()
for i in range(len(reader)):
    for member, data in reader.read(i).items():
        digest.update(data)
print(digest.hexdigest())
"""


def start(server: HttpServer, tmp_path: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", READ, server.url, str(tmp_path / "cache")], stdout=subprocess.PIPE, text=True
    )


def digest_of(root: Path) -> str:
    digest = hashlib.sha256()
    for sample in contents(DatasetReader(root, "train")):
        for data in sample.values():
            digest.update(data)
    return digest.hexdigest()


def test_of_several_processes_that_want_a_shard_one_fetches_it(tmp_path: Path) -> None:
    root = write_dataset(tmp_path / "m3", (2, 2), big_sample)
    with serving(root) as server:
        for s in range(2):
            server.faults[TAR.format(s, 2)].append(Fault(wait_s=1.0))
        processes = [start(server, tmp_path) for _ in range(2)]
        outputs = [process.communicate(timeout=240)[0].strip() for process in processes]
        assert outputs == [digest_of(root)] * 2
        for name in (*(TAR.format(s, 2) for s in range(2)), *(f"{TAR.format(s, 2)[:-4]}.idx.npz" for s in range(2))):
            assert len(server.gets(name)) == 1


def test_threads_that_want_a_shard_fetch_it_once(tmp_path: Path) -> None:
    root = write_dataset(tmp_path / "m3", (2,) * 3, big_sample)
    with serving(root) as server:
        cache = ShardCache(server.url, config_of(tmp_path))
        threads = [
            threading.Thread(target=cache.fetch, args=(cache.index.shards[(t + s) % 3],))
            for t in range(4)
            for s in range(3)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [len(server.gets(TAR.format(s, 3))) for s in range(3)] == [1, 1, 1]


def test_a_killed_download_goes_on_where_it_was(tmp_path: Path) -> None:
    root = write_dataset(tmp_path / "m3", (20,), big_sample)
    name = TAR.format(0, 1)
    with serving(root) as server:
        server.faults[name].append(Fault(rate=2_000_000))
        process = start(server, tmp_path)
        wait_for(lambda: any(path.stat().st_size > 400_000 for path in (tmp_path / "cache").glob("*/data/*.part")))
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=240)
        (part,) = (tmp_path / "cache").glob("*/data/*.part")
        held = part.stat().st_size
        assert 400_000 < held < (root / "data" / name).stat().st_size
        process = start(server, tmp_path)
        assert process.communicate(timeout=240)[0].strip() == digest_of(root)
        assert server.gets(name) == [None, f"bytes={held}-"]
        assert cached(tmp_path) == [name]


def test_a_waiting_process_takes_over_from_a_killed_one(tmp_path: Path) -> None:
    root = write_dataset(tmp_path / "m3", (4,), big_sample)
    with serving(root) as server:
        server.faults[TAR.format(0, 1)].append(Fault(wait_s=60.0))
        first = start(server, tmp_path)
        wait_for(lambda: (tmp_path / "cache").exists() and any((tmp_path / "cache").glob("*/data/*.part")))
        second = start(server, tmp_path)
        time.sleep(0.5)
        assert second.poll() is None
        first.kill()
        first.communicate()
        assert second.communicate(timeout=50)[0].strip() == digest_of(root)


def keys_of(loader: Loader[list[object]]) -> list[tuple[str, ...]]:
    return [tuple(sample.key for sample in batch) for batch in loader]  # type: ignore[attr-defined]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_loader_over_http_gives_the_batches_of_a_local_one(tmp_path: Path, workers: int) -> None:
    root = write_dataset(tmp_path / "m3", (5, 3, 6, 4, 6), full_sample)
    config = LoaderConfig(batch_size=4, seed=3, fields=("json", "flac"), window=8)
    expected = keys_of(Loader(DatasetReader(root, "train"), config))
    with serving(root) as server:
        for s in range(5):
            server.faults[TAR.format(s, 5)].append(Fault(drop_after=700 * (s + 1)))
        remote = LoaderConfig(batch_size=4, seed=3, fields=("json", "flac"), window=8, workers=workers)
        loader = Loader(DatasetReader(server.url, "train", cache=config_of(tmp_path)), remote)
        iterator = iter(loader)
        taken = [tuple(sample.key for sample in next(iterator)) for _ in range(2)]
        state = loader.state_dict()
        loader.close()
        other = Loader(DatasetReader(server.url, "train", cache=config_of(tmp_path)), config)
        other.load_state_dict(state)
        assert taken + keys_of(other) == expected
        assert all(len(server.gets(TAR.format(s, 5))) == 2 for s in range(5))


def test_shards_are_fetched_ahead_in_order_and_within_bounds(tmp_path: Path) -> None:
    root = write_dataset(tmp_path / "m3", (2,) * 6, big_sample)
    size = (root / "data" / TAR.format(0, 6)).stat().st_size
    with serving(root) as server:
        reader = DatasetReader(server.url, "train", cache=config_of(tmp_path, max_bytes=8 * size))
        reader.prefetch([9, 8, 0, 4, 5])  # a quarter of the cache: two shards
        wait_for(lambda: len([name for name in cached(tmp_path) if name.endswith(".tar")]) == 2)
        assert cached(tmp_path) == [TAR.format(s, 6) for s in (0, 4)]
        reader.prefetch([0, 1, 8])
        for i in (0, 9):
            assert reader.read(i) == big_sample(i).members
        assert [len(server.gets(TAR.format(s, 6))) for s in range(6)] == [1, 0, 0, 0, 1, 0]
    local = DatasetReader(root, "train")
    local.prefetch([0, 3])
    assert local.read(3) == big_sample(3).members


def test_what_comes_later_does_not_drive_out_what_is_needed_first(tmp_path: Path) -> None:
    root = write_dataset(tmp_path / "m3", (2,) * 6, big_sample)
    size = (root / "data" / TAR.format(0, 6)).stat().st_size
    with serving(root) as server:
        reader = DatasetReader(server.url, "train", cache=config_of(tmp_path, max_bytes=8 * size))
        for s in range(3):
            reader.read(2 * s)
        reader.prefetch(range(12))  # half of the cache: the three that are there, and one
        wait_for(lambda: TAR.format(3, 6) in cached(tmp_path))
        reader.prefetch(range(12))
        assert reader._ahead is None or not reader._ahead._known
        assert cached(tmp_path) == [TAR.format(s, 6) for s in range(4)]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_loader_has_shards_fetched_before_a_batch_needs_them(tmp_path: Path, workers: int) -> None:
    root = write_dataset(tmp_path / "m3", (4,) * 4, small_sample)
    with serving(root) as server:
        reader = DatasetReader(server.url, "train", cache=config_of(tmp_path))
        config = LoaderConfig(batch_size=2, seed=0, shuffle=False, window=8, workers=workers, prefetch=1)
        loader = Loader(reader, config)
        batches = iter(loader)
        for _ in range(3):  # samples 0 to 5; 6 to 13 are told
            next(batches)
        wait_for(lambda: TAR.format(3, 4) in cached(tmp_path))
        assert sum(len(batch) for batch in batches) == 10
        loader.close()
        assert [len(server.gets(TAR.format(s, 4))) for s in range(4)] == [1, 1, 1, 1]


def test_an_error_of_any_kind_leaves_the_fetching_threads_at_work() -> None:
    done: list[str] = []

    def act(info: ShardInfo) -> None:
        if info.name != "last":
            raise OSError("the disk is gone")
        done.append(info.name)

    def shard(name: str) -> ShardInfo:
        return ShardInfo(name=name, split="train", nsamples=1, filesize=1, sha256="")

    ahead = Prefetcher(act, threads=1)
    ahead.submit([shard("a"), shard("b")])
    wait_for(lambda: ahead._running == 0)
    ahead.submit([shard("last")])
    wait_for(lambda: done == ["last"])


def test_what_fails_ahead_is_told_when_it_is_needed(tmp_path: Path) -> None:
    root = write_dataset(tmp_path / "m3", (2, 2), big_sample)
    with serving(root) as server:
        reader = DatasetReader(server.url, "train", cache=config_of(tmp_path))
        name = TAR.format(1, 2)
        server.faults[name].extend([Fault(status=403)] * 2)
        reader.prefetch([2, 0])
        wait_for(lambda: len(server.gets(name)) == 1 and TAR.format(0, 2) in cached(tmp_path))
        assert reader.read(0) == big_sample(0).members
        with pytest.raises(ShardError, match="HTTP 403"):
            reader.read(2)
        assert reader.read(2) == big_sample(2).members


def test_threads_that_work_ahead_end_when_there_is_nothing_to_do(tmp_path: Path) -> None:
    root = write_dataset(tmp_path / "m3", (1,) * 9)
    with serving(root) as server:
        cache = ShardCache(server.url, config_of(tmp_path))
        done: list[str] = []
        lock = threading.Lock()

        def note(info: object) -> None:
            with lock:
                done.append(info.name)  # type: ignore[attr-defined]

        ahead = Prefetcher(note, threads=3)
        for _ in range(3):
            ahead.submit(cache.index.shards)
            wait_for(lambda: not any(thread.name == "symile-m3-fetch" for thread in threading.enumerate()))
        assert len(done) == 27


def test_a_cache_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    root = write_dataset(tmp_path / "m3", (1,))
    (tmp_path / "file").write_bytes(b"")
    with (
        serving(root) as server,
        pytest.raises(ShardError, match=r"file/.*: cannot be written: Not a directory") as caught,
    ):
        ShardCache(server.url, CacheConfig(directory=tmp_path / "file", retry=FAST))
    assert "\n" not in str(caught.value)


def test_the_cache_lies_where_caches_lie(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("SYMILE_M3_CACHE_GB", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert CacheConfig().directory == tmp_path / "symile-m3" / "shards"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert CacheConfig().directory == Path.home() / ".cache" / "symile-m3" / "shards"
    assert CacheConfig().max_bytes == 20_000_000_000
    monkeypatch.setenv("SYMILE_M3_CACHE_GB", "1.5")
    assert CacheConfig().max_bytes == 1_500_000_000
    for wrong in ("much", "0", "-3", "nan", "inf"):
        monkeypatch.setenv("SYMILE_M3_CACHE_GB", wrong)
        with pytest.raises(ShardError, match="SYMILE_M3_CACHE_GB"):
            CacheConfig()


def test_an_altered_copy_in_the_cache_is_fetched_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = write_dataset(tmp_path / "m3", (2, 2), big_sample)
    name = TAR.format(0, 2)
    with serving(root) as server:
        reader, other = (DatasetReader(server.url, "train", cache=config_of(tmp_path)) for _ in range(2))
        other.read(1)
        reader.read(0)
        path = reader.layout.shard(name)
        flip(path, 1000)
        assert contents(reader) == contents(DatasetReader(root, "train"))
        assert server.gets(name) == [None, None]
        (record,) = caplog.records
        assert record.getMessage() == f"{path}: was altered in the cache; it is fetched again"
        assert contents(other) == contents(reader)  # which had the altered copy open
        assert len(server.gets(name)) == 2
        flip(path, 1000)
        with pytest.raises(ShardError, match="sample 000000: the bytes of its jpg were altered"):
            reader.read(0)  # a disk that fails again and again is no cache
        other.close()
        path.write_bytes(path.read_bytes()[:-20_000])  # cut off
        assert other.read(1) == big_sample(1).members
        sidecar = reader.layout.sidecar(name)
        flip(sidecar, 300)
        other.close()
        assert contents(other) == contents(DatasetReader(root, "train"))


def test_damage_of_the_shard_itself_is_told_at_once(tmp_path: Path) -> None:
    root = write_dataset(tmp_path / "m3", (2,), big_sample)
    name = TAR.format(0, 1)
    flip(root / "data" / name, 1000)
    index = root / ".symile" / "index.json"
    content = json.loads(index.read_text())
    content["shardlist"][0]["sha256"] = hashlib.sha256((root / "data" / name).read_bytes()).hexdigest()
    index.write_text(json.dumps(content))
    with serving(root) as server:
        reader = DatasetReader(server.url, "train", cache=config_of(tmp_path))
        for _ in range(2):
            with pytest.raises(ShardError, match="sample 000000: the bytes of its jpg were altered"):
                reader.read(0)
        with pytest.raises(ShardError, match="has no member 'mp3'"):
            reader.read(1, ["mp3"])
        assert reader.read(1) == big_sample(1).members
        assert server.gets(name) == [None]


def test_what_is_in_the_cache(tmp_path: Path) -> None:
    root = write_dataset(tmp_path / "m3", (1, 1))
    with serving(root) as server:
        cache = ShardCache(f"{server.url}", config_of(tmp_path))
        cache.fetch(cache.index.shards[1])
        assert cache.file(".symile/none.json") is None
        assert cache.file(".symile/train-00000-of-00002.idx.npz") == cache.layout.sidecar(TAR.format(0, 2))
        assert names(cache.layout.data) == [TAR.format(1, 2)]
        assert names(cache.layout.meta) == ["index.json", "train-00000-of-00002.idx.npz"]
