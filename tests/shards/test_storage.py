from __future__ import annotations

import contextlib
import os
import pickle
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from remote_servers import Fault, s3_endpoint, serving
from shard_samples import names

from symile_m3.shards import RetryConfig, ShardError, is_url, local_path, open_storage
from symile_m3.shards.retry import is_final, retrying
from symile_m3.shards.storage import LocalStorage, RemoteStorage, Storage
from symile_m3.shards.urls import shown

FAST = RetryConfig(attempts=4, first_wait_s=0.001, max_wait_s=0.01)


class RenamingStorage(RemoteStorage):
    """A directory through fsspec, as stores are reached in which half an upload can be seen."""

    def __init__(self, directory: Path) -> None:
        super().__init__("memory://unused", retry=FAST)
        self.url = f"file://{directory}"
        self.protocol = "sftp"


@pytest.mark.parametrize("kind", ["path", "file", "memory", "renaming"])
def test_files_go_in_and_come_out(tmp_path: Path, kind: str) -> None:
    roots = {"path": tmp_path, "file": f"file://{tmp_path}", "memory": f"memory://{tmp_path.name}/m3"}
    storage: Storage = RenamingStorage(tmp_path) if kind == "renaming" else open_storage(roots[kind], retry=FAST)
    assert storage.list("data") == []
    assert not storage.exists("data/a.tar")
    for read in (storage.read_bytes, storage.size):
        with pytest.raises(FileNotFoundError):
            read("data/a.tar")
    source = tmp_path.parent / f"{tmp_path.name}.source"
    for content in (b"first", b"second, longer"):
        source.write_bytes(content)
        storage.write_file(source, "data/a.tar")
        assert storage.read_bytes("data/a.tar") == content
        assert storage.size("data/a.tar") == len(content)
    storage.write_bytes("data/deeper/b.json", b"{}")
    storage.write_bytes("README.md", b"")
    assert storage.list("data") == ["a.tar"]
    assert storage.list("data/deeper") == ["b.json"]
    assert storage.list() == ["README.md"]
    assert storage.exists("data/deeper/b.json")
    assert not storage.exists("data")
    storage.remove("data/a.tar")
    storage.remove("data/a.tar")
    assert not storage.exists("data/a.tar")


def test_a_local_storage_needs_no_fsspec(tmp_path: Path) -> None:
    script = (
        "import pathlib, sys\n"
        "from symile_m3.shards import DatasetReader, open_storage\n"
        "open_storage(pathlib.Path(sys.argv[1])).write_bytes('a', b'1')\n"
        "open_storage(f'file://{sys.argv[1]}').read_bytes('a')\n"
        "assert 'fsspec' not in sys.modules and 'aiohttp' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=True, timeout=240)


def test_paths_are_paths_and_urls_are_urls() -> None:
    assert [is_url(root) for root in ("s3://b/m3", "https://h/m3", "pipe:cat x", "PIPE :x")] == [True] * 4
    assert [is_url(root) for root in ("data/m3", "/data:1/m3", "c:x", Path("s3://b"))] == [False] * 4
    assert local_path("file:///data/m3") == local_path("local:///data/m3") == Path("/data/m3")
    assert local_path("s3://b/m3") is None
    assert isinstance(open_storage("data:1/m3"), LocalStorage)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("pipe:curl https://host/a.tar", "would run a command"),
        ("pipe://cat a.tar", "would run a command"),
        ("exec://rm", "would run a command"),
        ("s3://bucket/a|cat", "chained URLs and commands are refused"),
        ("simplecache::s3://bucket/m3", "chained URLs and commands are refused"),
        ("filecache://bucket/m3", "a second cache"),
        ("reference://x.json", "follow a file"),
        ("dask://x", "other machines"),
        ("gopher://host/m3", "not a kind of URL that fsspec knows"),
        ("http://[host/m3", "not a URL"),
    ],
)
def test_kinds_of_urls_that_are_refused(url: str, message: str) -> None:
    with pytest.raises(ShardError, match=message) as caught:
        open_storage(url)
    assert "\n" not in str(caught.value)


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    with pytest.raises(ShardError, match=r"^gs://bucket/m3: a package is missing: Please install gcsfs"):
        open_storage("gs://bucket/m3")


@pytest.mark.parametrize("name", ["../a", "/etc/passwd", "data/../../a", "", "a?b", "a\nb", "a\\b"])
@pytest.mark.parametrize("root", ["/tmp/m3", "memory://m3"])
def test_names_cannot_lead_out_of_a_dataset(root: str, name: str) -> None:
    with pytest.raises(ShardError, match="cannot be a file of a dataset"):
        open_storage(root).read_bytes(name)


def test_passwords_are_not_shown() -> None:
    assert shown("https://me:secret@host:1/m3/?sig=token") == "https://host:1/m3"
    storage = open_storage("http://me:secret@127.0.0.1:9/m3?sig=token", retry=FAST)
    with pytest.raises(ShardError) as caught:
        storage.read_bytes("a")
    assert str(caught.value).startswith("http://127.0.0.1:9/m3/a: cannot be read: ")
    assert "secret" not in str(caught.value)
    assert "token" not in str(caught.value)


def test_a_query_is_part_of_every_address(tmp_path: Path) -> None:
    (tmp_path / "m3").mkdir()
    (tmp_path / "m3" / "a").write_bytes(b"signed")
    with serving(tmp_path) as server:
        assert open_storage(f"{server.url}/m3?sig=token", retry=FAST).read_bytes("a") == b"signed"


def test_nothing_is_written_over_http() -> None:
    storage = open_storage("https://host/m3")
    for write in (lambda: storage.write_bytes("a", b""), lambda: storage.remove("a")):
        with pytest.raises(ShardError, match="cannot be written over HTTP"):
            write()


@pytest.mark.parametrize("status", [500, 503, 429, 408])
def test_what_may_pass_is_tried_again(tmp_path: Path, status: int) -> None:
    (tmp_path / "a").write_bytes(b"there")
    with serving(tmp_path) as server:
        storage = open_storage(server.url, retry=FAST)
        server.faults["a"].extend([Fault(status=status)] * 3)
        assert storage.read_bytes("a") == b"there"
        assert len(server.gets("a")) == 4
        server.faults["a"].extend([Fault(status=status)] * 4)
        with pytest.raises(ShardError, match=rf"^{server.url}/a: cannot be read: HTTP {status}"):
            storage.read_bytes("a")


@pytest.mark.parametrize("status", [400, 401, 403, 501])
def test_what_will_not_pass_is_not_tried_again(tmp_path: Path, status: int) -> None:
    with serving(tmp_path) as server:
        storage = open_storage(server.url, retry=FAST)
        server.faults["a"].append(Fault(status=status))
        with pytest.raises(ShardError, match=f"cannot be read: HTTP {status}"):
            storage.read_bytes("a")
        assert len(server.gets("a")) == 1


def test_a_server_in_trouble_does_not_make_a_file_missing(tmp_path: Path) -> None:
    """fsspec turns any failure of a HEAD request into FileNotFoundError."""
    with serving(tmp_path) as server:
        storage = open_storage(server.url, retry=FAST)
        assert not storage.exists("a")
        (tmp_path / "a").write_bytes(b"there")
        assert storage.exists("a")
        assert storage.size("a") == 5
        server.faults["HEAD a"].append(Fault(status=503))
        server.faults["a"].append(Fault(status=503))
        assert storage.exists("a")
        server.faults["HEAD a"].extend([Fault(status=503)] * 4)
        server.faults["a"].extend([Fault(status=503)] * 4)
        with pytest.raises(ShardError, match="cannot be read: HTTP 503"):
            storage.exists("a")
    with pytest.raises(ShardError, match="cannot be read: Connect call failed"):
        open_storage("http://127.0.0.1:9", retry=FAST).exists("a")


def test_a_server_that_says_when_to_come_back_is_heeded(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"there")
    with serving(tmp_path) as server:
        server.faults["a"].append(Fault(status=429, retry_after="60"))
        start = time.monotonic()
        open_storage(server.url, retry=RetryConfig(first_wait_s=0.0, max_wait_s=0.3)).read_bytes("a")
        assert time.monotonic() - start >= 0.3
        server.faults["a"].append(Fault(status=503, retry_after="Wed, 21 Oct 2026 07:28:00 GMT"))
        assert open_storage(server.url, retry=FAST).read_bytes("a") == b"there"


def test_what_is_tried_again_is_said_once_and_without_secrets(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "a").write_bytes(b"there")
    with serving(tmp_path) as server:
        storage = open_storage(f"{server.url}?token=secret", retry=FAST)
        server.faults["a"].extend([Fault(status=503)] * 3)
        assert storage.read_bytes("a") == b"there"
        (record,) = caplog.records
        assert (record.name, record.levelname) == ("symile_m3.shards", "WARNING")
        assert record.getMessage().startswith(f"{server.url}/a: HTTP 503 Service Unavailable; trying again in 0.0 s")
        assert "secret" not in record.getMessage()


def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


@pytest.mark.parametrize("kind", ["http", "no such name", "s3"])
def test_where_nobody_answers_less_is_tried_than_where_somebody_is_busy(
    kind: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    retry = RetryConfig(attempts=50, first_wait_s=0.02, max_wait_s=0.02, give_up_s=30.0, unreachable_s=0.2)

    def unknown(*where: object, **how: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    if kind == "no such name":
        monkeypatch.setattr(socket, "getaddrinfo", unknown)  # a real resolver may take its time to say so
    start = time.monotonic()
    with s3_endpoint(f"http://127.0.0.1:{closed_port()}") if kind == "s3" else contextlib.nullcontext():
        monkeypatch.delenv("AWS_MAX_ATTEMPTS", raising=False)  # as for most users
        url = {"http": f"http://127.0.0.1:{closed_port()}/m3", "no such name": "http://no-such-host.invalid/m3"}
        storage = open_storage(url.get(kind, "s3://bucket/m3"), retry=retry)
        for read in (storage.read_bytes, storage.size):
            with pytest.raises(ShardError, match=r"m3/a: cannot be read: "):
                read("a")
    assert time.monotonic() - start < 20
    assert len(caplog.records) == 1


def test_a_store_that_has_answered_is_waited_for_longer(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"there")
    refused = ConnectionRefusedError(111, "Connection refused")
    with serving(tmp_path) as server:
        storage = RemoteStorage(server.url, retry=RetryConfig(first_wait_s=0.001, max_wait_s=0.01, unreachable_s=0))
        assert not storage.patience("a").wait(refused)
        storage.read_bytes("a")
        assert storage.patience("a").wait(refused)
        storage = pickle.loads(pickle.dumps(storage))
        assert storage.patience("a").wait(refused)


def test_the_time_that_failures_may_take_is_bounded(tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        server.faults["a"].extend([Fault(status=503)] * 1000)
        storage = open_storage(
            server.url, retry=RetryConfig(attempts=1000, first_wait_s=0.02, max_wait_s=0.02, give_up_s=1.0)
        )
        with pytest.raises(ShardError, match="HTTP 503"):
            storage.read_bytes("a")
        assert 5 < len(server.gets("a")) < 125


def test_waits_grow_up_to_their_limit_and_differ() -> None:
    config = RetryConfig(attempts=8, first_wait_s=1.0, max_wait_s=10.0)
    for failures, longest in ((1, 1.0), (2, 2.0), (4, 8.0), (5, 10.0), (2000, 10.0)):
        waits = {config.wait_s(failures, OSError()) for _ in range(50)}
        assert longest / 2 <= min(waits) < max(waits) <= longest
    for wrong in (
        {"attempts": 0},
        {"first_wait_s": -1.0},
        {"first_wait_s": 3.0, "max_wait_s": 2.0},
        {"give_up_s": -1.0},
    ):
        with pytest.raises(ValueError, match="must"):
            RetryConfig(**wrong)  # type: ignore[arg-type]


def test_errors_of_our_own_making_are_final() -> None:
    calls = []

    def act() -> None:
        calls.append(1)
        raise KeyError("x")

    with pytest.raises(KeyError):
        retrying(act, FAST)
    assert len(calls) == 1
    assert not is_final(ConnectionResetError())
    assert not is_final(TimeoutError())
    assert is_final(PermissionError())


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    """A file-size limit in a subprocess stands for a disk that is full."""
    source = tmp_path / "source"
    source.write_bytes(os.urandom(200_000))
    script = (
        "import pathlib, resource, signal, sys\n"
        "sys.path[:0] = sys.argv[2:]\n"
        "from test_storage import RenamingStorage, LocalStorage, ShardError\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        "there = pathlib.Path(sys.argv[1])\n"
        "for storage in (RenamingStorage(there), LocalStorage(there)):\n"
        "    storage.write_bytes('data/a', b'old')\n"
        "    try:\n"
        "        storage.write_file(there / 'source', 'data/a')\n"
        "    except ShardError as error:\n"
        "        print(error)\n"
        "    assert storage.read_bytes('data/a') == b'old'\n"
        "    assert storage.list('data') == ['a'], storage.list('data')\n"
    )
    here = Path(__file__).parent
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path), str(here), str(here.parent)],
        check=True,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.stdout.count("cannot be written: File too large") == 2
    assert names(tmp_path / "data") == ["a"]


def test_a_pickled_storage_goes_on(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"there")
    with serving(tmp_path) as server:
        storage = open_storage(server.url, retry=FAST)
        assert storage.read_bytes("a") == b"there"
        assert pickle.loads(pickle.dumps(storage)).read_bytes("a") == b"there"
