"""Builds into stores: moto's S3 on 127.0.0.1, and what else fsspec writes to."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import uploading_build
from remote_servers import S3Server, serving_s3

from symile_m3.build import build
from symile_m3.engines import WorkConfig
from symile_m3.errors import BuildError, PlanError, ShardError, UsageError
from symile_m3.plan import PlanConfig
from symile_m3.progress import NoProgress
from symile_m3.shards import CacheConfig, DatasetReader, RetryConfig, open_storage

HERE = Path(__file__).parent
CONFIG = PlanConfig(
    languages=("el", "en"), words=2, classes=4, train=20, val=4, test=4, clips=(12, 2, 2), shard_samples=4
)
ONE = WorkConfig(workers=1, retry_wait_s=0.0)
FAST = RetryConfig(attempts=4, first_wait_s=0.001, max_wait_s=0.01)
LAST = ["m3/README.md", "m3/croissant.json", "m3/.symile/index.json"]


class Lines(NoProgress):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)


def local(root: Path) -> dict[str, bytes]:
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in root.rglob("*")
        if path.is_file() and path.name != "lock"
    }


def stored(url: str) -> dict[str, bytes]:
    """Every file of a store."""
    import fsspec

    fs, root = fsspec.core.url_to_fs(url)
    fs.invalidate_cache()
    return {path.removeprefix(root).lstrip("/"): fs.cat_file(path) for path in fs.find(root)}


@pytest.fixture(scope="module")
def server() -> Iterator[S3Server]:
    with serving_s3() as server:
        yield server


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache directory, as on another machine."""
    return another_machine(tmp_path / "cache", monkeypatch)


def another_machine(cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    return cache / "symile-m3" / "builds"


@pytest.fixture
def s3(server: S3Server, cache: Path) -> Iterator[S3Server]:
    """The server with an empty bucket."""
    yield server
    import s3fs

    fs = s3fs.S3FileSystem()
    if files := fs.find("bucket"):
        fs.rm(files)
    server.puts.clear()
    server.refuse.clear()
    server.on_put = None


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    root = tmp_path_factory.mktemp("whole") / "m3"
    build(root, CONFIG, work=ONE)
    return local(root)


def left_behind(builds: Path) -> set[str]:
    return {path.name for path in builds.rglob("*") if path.is_file()}


def test_a_build_into_a_bucket_gives_the_bytes_of_a_local_one(
    s3: S3Server, whole: dict[str, bytes], cache: Path, tmp_path: Path
) -> None:
    url, said, on_disk = "s3://bucket/m3", Lines(), []
    s3.on_put = lambda key: on_disk.append(len(list(cache.glob("*/data/*.tar"))))
    result = build(url, CONFIG, work=ONE, progress=said)
    assert (result.built, result.missing) == (7, ())
    assert stored(url) == whole
    assert any(line.startswith(f"{url}: made in {cache}/m3-") for line in said.lines)
    assert max(on_disk) == 1
    assert left_behind(cache) == {"lock"}
    assert s3.puts[-3:] == LAST
    for name in (shard.name for shard in result.index.shards):
        stem = name.removesuffix(".tar")
        keys = [f"m3/data/{name}", f"m3/.symile/{stem}.idx.npz", f"m3/.symile/done/{name}.json"]
        assert [key for key in s3.puts if stem in key] == keys  # the marker last

    reader = DatasetReader(url, "train", cache=CacheConfig(directory=tmp_path / "shards"))
    assert len(reader) == 20
    assert json.loads(reader.read(19)["json"])["lang"] in CONFIG.languages

    s3.puts.clear()
    said.lines.clear()
    assert build(f"{url}/", CONFIG, work=ONE, progress=said).built == 0
    with pytest.raises(PlanError, match=r"^s3://bucket/m3 holds a dataset of another plan: seed 0 \(asked: 1\)"):
        build(url, replace(CONFIG, seed=1), work=ONE)
    assert (s3.puts, said.lines) == ([], [])
    open_storage(url).remove("croissant.json")
    open_storage(url).write_bytes(".symile/probe-01234567", b"")  # left by a build killed at its beginning
    s3.puts.clear()
    assert build(url, CONFIG, work=ONE).built == 0
    assert s3.puts == LAST
    assert stored(url) == whole

    other = build(url, replace(CONFIG, seed=1, train=12), work=ONE, overwrite=True)
    assert other.built == 5
    assert len([name for name in stored(url) if name.endswith(".tar")]) == 5
    build(tmp_path / "m3", replace(CONFIG, seed=1, train=12), work=ONE)
    assert stored(url) == local(tmp_path / "m3")


@pytest.mark.usefixtures("cache")
def test_builds_into_other_stores(whole: dict[str, bytes], tmp_path: Path) -> None:
    url = f"memory://{tmp_path.name}/m3"
    assert build(url, CONFIG, work=ONE).built == 7
    assert stored(url) == whole  # and no names of uploads under way
    assert build(url, CONFIG, work=ONE).built == 0
    assert build(f"file://{tmp_path}/m3", CONFIG, work=ONE).built == 7
    assert local(tmp_path / "m3") == whole


def test_killed_and_run_again_elsewhere_it_uploads_only_what_is_missing(
    s3: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, machine = "s3://bucket/m3", iter("abc")

    def start() -> subprocess.Popen[bytes]:
        another_machine(tmp_path / next(machine), monkeypatch)
        return subprocess.Popen([sys.executable, str(HERE / "uploading_build.py"), url])

    process = start()
    deadline = time.monotonic() + 240
    while len(markers(s3)) < 7 and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    process.kill()
    assert process.wait(timeout=240) == -signal.SIGKILL
    done = markers(s3)
    assert 7 <= len(done) < uploading_build.SHARDS - 1
    assert not set(LAST) & set(s3.puts)

    assert start().wait(timeout=240) == 0
    assert markers(s3) == Counter(dict.fromkeys(markers(s3), 1))
    tars = Counter(key for key in s3.puts if key.endswith(".tar"))
    assert len(tars) == len(markers(s3)) == uploading_build.SHARDS
    assert sum(tars.values()) <= uploading_build.SHARDS + 1  # what it was at
    assert all(tars[key.replace(".symile/done", "data").removesuffix(".json")] == 1 for key in done)
    assert s3.puts.count("m3/.symile/plan.json") == 1
    build(tmp_path / "m3", uploading_build.CONFIG, work=ONE)
    assert stored(url) == local(tmp_path / "m3")


def markers(s3: S3Server) -> Counter[str]:
    return Counter(key for key in list(s3.puts) if "/done/" in key)


def test_a_store_that_fails_for_a_while_is_tried_again(s3: S3Server, whole: dict[str, bytes]) -> None:
    url = "s3://bucket/m3"
    s3.refuse = {"plan.json": 2, "train-00003-of-00005.tar": 5, "train-00004-of-00005.tar.json": 1, "index.json": 3}
    assert build(url, CONFIG, work=ONE, retry=FAST).built == 7
    assert not any(s3.refuse.values())
    assert stored(url) == whole


def test_a_shard_that_the_store_never_takes_stops_no_other(s3: S3Server, whole: dict[str, bytes], cache: Path) -> None:
    url, once = "s3://bucket/m3", RetryConfig(attempts=1)
    s3.refuse = {"val-00000-of-00001.tar": 10**6}
    with pytest.raises(BuildError, match=r"^1 of 7 shards could not be made: val-00000-of-00001.tar \(s3://bucket/m3/"):
        build(url, CONFIG, work=replace(ONE, retries=0), retry=once)
    assert len(markers(s3)) == 6
    assert not list(cache.glob("*/data/*"))
    s3.refuse.clear()
    s3.puts.clear()
    assert build(url, CONFIG, work=ONE).built == 1
    assert len([key for key in s3.puts if key.endswith(".tar")]) == 1
    assert stored(url) == whole


def test_ranks_on_machines_of_their_own_share_a_build(
    s3: S3Server, whole: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = "s3://bucket/m3"
    for rank in (1, 0):
        another_machine(tmp_path / str(rank), monkeypatch)
        result = build(url, CONFIG, work=WorkConfig(workers=1, rank=rank, world=2))
        assert (result.built, len(result.missing)) == (3 if rank else 4, 4 * rank)
    assert stored(url) == whole
    assert max(Counter(key for key in s3.puts if key.endswith(".tar")).values()) == 1
    another_machine(tmp_path / "1", monkeypatch)
    assert left_behind(tmp_path / "1") > {"lock"}  # the media, for other ranks there
    assert build(url, CONFIG, work=WorkConfig(workers=1, rank=1, world=2)).built == 0
    assert left_behind(tmp_path / "1") == {"lock"}
    with pytest.raises(UsageError, match="--overwrite with --rank"):
        build(url, CONFIG, work=WorkConfig(rank=1, world=2), overwrite=True)


def test_what_is_no_place_for_a_dataset_is_refused_before_anything_is_made(s3: S3Server, cache: Path) -> None:
    storage = open_storage("s3://bucket/notes")
    storage.write_bytes("thesis.txt", b"mine")
    for kwargs in ({}, {"overwrite": True}):
        with pytest.raises(PlanError, match="s3://bucket/notes: holds other files and no dataset"):
            build("s3://bucket/notes", CONFIG, work=ONE, **kwargs)  # type: ignore[arg-type]
    assert storage.list() == ["thesis.txt"]
    with pytest.raises(UsageError, match="cannot be written over HTTP"):
        build("https://127.0.0.1/m3", CONFIG, work=ONE)
    with pytest.raises(ShardError, match="pipe: is refused"):
        build("pipe:cat", CONFIG, work=ONE)
    with pytest.raises(UsageError, match="classes"):
        build("s3://bucket/m3", replace(CONFIG, classes=100_000), work=ONE)
    with pytest.raises(ShardError, match=r"^s3://no-such-bucket/m3/.*: cannot be written"):
        build("s3://no-such-bucket/m3", CONFIG, work=ONE, retry=FAST)
    assert not left_behind(cache) - {"lock"}


def test_two_builds_on_one_machine_wait_for_each_other(s3: S3Server, cache: Path) -> None:
    from symile_m3.storeplace import open_place

    with (
        open_place("s3://bucket/m3").at_work(ONE),
        pytest.raises(PlanError, match=r"^s3://bucket/m3: another build is at work there"),
    ):
        build("s3://bucket/m3/", CONFIG, work=ONE)
    assert s3.puts == []
