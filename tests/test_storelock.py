"""One build at a time in a store: moto's S3 on 127.0.0.1, and a store without atomic creation."""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from remote_servers import S3Server, serving_s3

from symile_m3.build import build
from symile_m3.engines import WorkConfig
from symile_m3.errors import PlanError
from symile_m3.plan import PlanConfig
from symile_m3.shards.storage import RemoteStorage
from symile_m3.storelock import LOCK, LockConfig, StoreLock

CONFIG = PlanConfig(languages=("el", "en"), words=2, classes=4, train=4, val=4, test=4, clips=(12, 2, 2))
ONE = WorkConfig(workers=1, retry_wait_s=0.0)
FAST = LockConfig(renew_s=0.1, watch_s=0.6, look_s=0.05, settle_s=0.01)


@pytest.fixture(scope="module")
def server() -> Iterator[S3Server]:
    with serving_s3() as server:
        yield server


@pytest.fixture(params=["s3", "memory"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> RemoteStorage:
    if request.param == "s3":
        request.getfixturevalue("server")
    return RemoteStorage(f"{request.param}://bucket/{tmp_path.name}/m3")


def elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """What comes now runs on another machine."""
    monkeypatch.setattr("symile_m3.storelock.machine", lambda: "another")


def test_one_build_holds_it_and_lets_go(storage: RemoteStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = StoreLock(storage, FAST), StoreLock(storage, FAST)
    first.hold()
    first.hold()
    elsewhere(monkeypatch)
    place = f"{storage.root}/{LOCK}"
    with pytest.raises(PlanError, match=rf"^{storage.root}: another build is at work there, by \S+@") as caught:
        second.hold()
    assert f"(if there is none, remove {place})" in str(caught.value)
    assert "\n" not in str(caught.value)
    first.check()
    first.release()
    first.release()
    assert not storage.exists(LOCK)
    second.hold()
    second.check()
    assert json.loads(storage.read_bytes(LOCK))["pid"] == os.getpid()
    second.release()
    assert not storage.exists(LOCK)


def test_a_lock_that_nobody_renews_is_taken_over(
    storage: RemoteStorage, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    lost = StoreLock(storage, replace(FAST, renew_s=60.0, watch_s=120.0))  # its process was stopped
    lost.hold()
    elsewhere(monkeypatch)
    began = time.monotonic()
    lock = StoreLock(storage, FAST)
    with caplog.at_level(logging.WARNING, "symile_m3.build"):
        lock.hold()
    assert time.monotonic() - began > FAST.watch_s
    assert ["looking whether it is at work" in caplog.text, "not renewed for" in caplog.text] == [True, True]
    with pytest.raises(PlanError, match=f"^{storage.root}: another build has taken over there"):
        lost.check()
    lost.release()  # which leaves the lock of the other
    lock.check()
    lock.release()


@pytest.mark.parametrize("content", [b"", b'{"pid": "x", "nonce": 1}'])
def test_what_is_no_lock_is_in_nobodys_way_for_long(storage: RemoteStorage, content: bytes) -> None:
    storage.write_bytes(LOCK, content)
    lock = StoreLock(storage, FAST)
    lock.hold()
    lock.check()
    lock.release()


def test_the_lock_of_a_killed_build_of_this_machine_is_taken_over_at_once(storage: RemoteStorage) -> None:
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    holder = StoreLock(storage, FAST)
    record = json.loads(holder._content()) | {"pid": pid}
    storage.write_bytes(LOCK, json.dumps(record).encode())
    lock = StoreLock(storage)  # which would watch for a minute
    began = time.monotonic()
    lock.hold()
    assert time.monotonic() - began < 10
    lock.release()


def test_of_builds_that_begin_at_once_a_bucket_lets_one_create_the_lock(server: S3Server) -> None:
    storage = RemoteStorage("s3://bucket/once")
    assert storage.creates
    assert storage.create_bytes(LOCK, b"1")
    assert storage.create_bytes(LOCK, b"1")  # tried again, as the answer was lost
    assert not storage.create_bytes(LOCK, b"2")
    assert storage.read_bytes(LOCK) == b"1"


def test_a_second_build_is_refused_and_ranks_work_side_by_side(
    server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = "s3://bucket/shared/m3"
    monkeypatch.setattr("symile_m3.storelock.LockConfig", lambda: FAST)
    other = StoreLock(RemoteStorage(url), FAST)
    other.hold()
    elsewhere(monkeypatch)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "a"))
    ranks = [WorkConfig(workers=1, rank=rank, world=2) for rank in range(2)]
    server.puts.clear()
    for work in (ONE, ranks[0]):
        with pytest.raises(PlanError, match=f"^{url}: another build is at work there"):
            build(url, CONFIG, work=work)
    with pytest.raises(PlanError, match=f"^{url}: another build is at work there"):
        build(url, CONFIG, work=ONE, overwrite=True)
    assert set(server.puts) <= {f"shared/m3/{LOCK}"}  # renewed
    other.release()
    server.puts.clear()
    assert [build(url, CONFIG, work=work).built for work in ranks] == [2, 1]
    assert f"shared/m3/{LOCK}" not in server.puts
    other.hold()
    assert build(url, CONFIG, work=ONE).built == 0  # nothing to do needs no lock
    other.release()
    assert build(url, replace(CONFIG, seed=1), work=ONE, overwrite=True).built == 3
    assert not RemoteStorage(url).exists(LOCK)


def test_a_build_whose_lock_was_taken_does_not_say_it_is_complete(
    server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = "s3://bucket/taken/m3"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))

    def take(key: str) -> None:
        if key.endswith("test-00000-of-00001.tar"):
            server.on_put = None
            RemoteStorage(url).write_bytes(LOCK, b'{"nonce": "of another"}')

    server.on_put = take
    with pytest.raises(PlanError, match=f"^{url}: another build has taken over there"):
        build(url, CONFIG, work=ONE)
    storage = RemoteStorage(url)
    assert not storage.exists(".symile/index.json")
    assert storage.read_bytes(LOCK) == b'{"nonce": "of another"}'
