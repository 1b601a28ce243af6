"""Tars of others behind URLs: a web server and moto's S3 on 127.0.0.1, with connections that drop."""

from __future__ import annotations

import gzip
import random
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from moto.server import ThreadedMotoServer
from remote_servers import Fault, HttpServer, proxying, s3_endpoint, serving
from shard_samples import flip
from test_foreign_reader import tar

from symile_m3.shards import (
    CacheConfig,
    DamagedSampleError,
    ForeignReader,
    Loader,
    LoaderConfig,
    RetryConfig,
    ShardError,
    StreamingDataset,
)

FAST = RetryConfig(attempts=6, first_wait_s=0.001, max_wait_s=0.01)
FIELDS = ("jpg", "txt")


@pytest.fixture(autouse=True)
def elsewhere(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test writes into the cache of whoever runs it."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


def photos(path: Path, first: int, count: int) -> Path:
    """A tar of samples of 60 kB that cannot be compressed."""
    files = []
    for i in range(first, first + count):
        files += [(f"{i:04d}.jpg", random.Random(i).randbytes(60_000)), (f"{i:04d}.txt", f"text {i}".encode())]
    return tar(path, files)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder with three tars and one below it, four to five samples each."""
    for s in range(3):
        photos(tmp_path / "web" / "photos" / f"x-{s:03d}.tar", 10 * s, 4)
    photos(tmp_path / "web" / "photos" / "more of it" / "y.tar", 90, 5)
    photos(tmp_path / "web" / "photos" / ".hidden" / "z.tar", 99, 1)
    return tmp_path / "web"


def config_of(tmp_path: Path, **changes: Any) -> CacheConfig:
    return CacheConfig(**{"directory": tmp_path / "shards", "retry": FAST, **changes})


def opened(url: str | list[str], cache: CacheConfig, **options: Any) -> ForeignReader:
    return ForeignReader(url, fields=FIELDS, cache=cache, **options)


def contents(reader: ForeignReader) -> list[tuple[str, str, dict[str, bytes]]]:
    return [(reader.shard(i), reader.key(i), reader.read(i)) for i in range(len(reader))]


def local(root: Path, tars: str = "photos") -> ForeignReader:
    return ForeignReader(str(root / tars), fields=FIELDS, index_dir=root.parent / "indexes")


def tars_got(server: HttpServer) -> list[str]:
    return [name for method, name, _, _ in server.requests if method == "GET" and name.endswith(".tar")]


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        number = int(free.getsockname()[1])
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=number, verbose=False)
    server.start()
    yield number
    server.stop()


@pytest.fixture
def bucket(port: int, root: Path) -> Iterator[int]:
    """A bucket that holds the folder, at this port."""
    with s3_endpoint(f"http://127.0.0.1:{port}"):
        import s3fs

        fs = s3fs.S3FileSystem()
        fs.mkdir("bucket")
        for path in root.rglob("*.tar"):
            fs.put_file(str(path), f"bucket/{path.relative_to(root)}")
        yield port
        fs.rm("bucket", recursive=True)


@pytest.mark.parametrize("tags", [True, False])
def test_tars_over_http_give_the_samples_of_local_ones_and_are_indexed_once(
    root: Path, tmp_path: Path, tags: bool
) -> None:
    here = local(root, "photos/x-{000..002}.tar")
    with serving(root, tags=tags) as server:
        url = f"{server.url}/photos/x-{{000..002}}.tar"
        reader = opened(url, config_of(tmp_path))
        assert reader.paths == tuple(f"{server.url}/photos/x-{s:03d}.tar" for s in range(3))
        assert (reader.fingerprint, reader.shard_sizes) == (here.fingerprint, here.shard_sizes)
        assert contents(reader) == contents(here)
        assert sorted(tars_got(server)) == [f"x-{s:03d}.tar" for s in range(3)]
        server.requests.clear()
        assert contents(opened(url, config_of(tmp_path))) == contents(here)
        assert not tars_got(server)
        for path in (tmp_path / "shards").glob("*/data/*"):  # as when the room is needed
            path.unlink()
        again = opened(url, config_of(tmp_path))
        assert again.fingerprint == here.fingerprint
        assert not tars_got(server)
        assert again.read(9) == here.read(9)
        assert tars_got(server) == ["x-002.tar"]


def test_dropped_connections_and_busy_servers_do_not_show(root: Path, tmp_path: Path) -> None:
    draw = random.Random(3)
    with serving(root, tags=True) as server:
        for s in range(3):
            server.faults[f"HEAD x-{s:03d}.tar"].append(Fault(status=503))
            server.faults[f"x-{s:03d}.tar"].extend(
                [
                    Fault(status=503),  # what fsspec asks when a HEAD request fails
                    Fault(drop_after=draw.randrange(1, 100_000)),
                    Fault(status=500),
                    Fault(drop_after=draw.randrange(1, 100_000)),
                ]
            )
        reader = opened(f"{server.url}/photos/x-{{000..002}}.tar", config_of(tmp_path))
        assert contents(reader) == contents(local(root, "photos/x-*.tar"))
        assert not any(server.faults.values())


@pytest.mark.parametrize("given", ["photos", "photos/", "photos/x-*.tar", "photos/more of it/*.tar"])
def test_a_folder_over_http_is_what_its_page_links_to(root: Path, tmp_path: Path, given: str) -> None:
    with serving(root, pages=True) as server:
        reader = opened(f"{server.url}/{given}", config_of(tmp_path))
        here = local(root, given)
        assert [str(path).removeprefix(server.url) for path in reader.paths] == [
            str(path).removeprefix(str(root)) for path in here.paths
        ]
        assert contents(reader) == contents(here)


@pytest.mark.usefixtures("bucket")
@pytest.mark.parametrize("given", ["photos", "photos/x-{001,000}.tar", "photos/x-*.tar", "photos/more of it/y.tar"])
def test_tars_in_a_bucket(root: Path, tmp_path: Path, given: str) -> None:
    reader, here = opened(f"s3://bucket/{given}", config_of(tmp_path, chunk_bytes=50_000)), local(root, given)
    assert [str(path).removeprefix("s3://bucket") for path in reader.paths] == [
        str(path).removeprefix(str(root)) for path in here.paths
    ]
    assert reader.fingerprint == here.fingerprint
    assert contents(reader) == contents(here)


def test_dropped_connections_to_a_bucket_do_not_show(root: Path, tmp_path: Path, bucket: int) -> None:
    draw = random.Random(4)
    with proxying(bucket) as proxy, s3_endpoint(proxy.url):
        proxy.drops.extend(draw.randrange(2000, 90_000) for _ in range(6))
        reader = opened("s3://bucket/photos", config_of(tmp_path, chunk_bytes=100_000))
        assert contents(reader) == contents(local(root))
        assert proxy.dropped == 6


@pytest.mark.parametrize("workers", [0, 2])
def test_a_loader_reads_them_in_the_order_of_local_ones_within_a_small_cache(
    root: Path, tmp_path: Path, workers: int
) -> None:
    size = (root / "photos" / "x-000.tar").stat().st_size
    config = LoaderConfig(batch_size=3, seed=5, fields=("txt",), window=4)
    expected = [sample.key for batch in Loader(local(root), config) for sample in batch]
    with serving(root, tags=True, pages=True) as server:
        reader = opened(f"{server.url}/photos", config_of(tmp_path, max_bytes=2 * size))
        loader = Loader(reader, LoaderConfig(batch_size=3, seed=5, fields=("txt",), window=4, workers=workers))
        assert [sample.key for batch in loader for sample in batch] == expected
        loader.close()
        dataset = StreamingDataset(reader, config)
        assert [sample.key for batch in dataset for sample in batch] == expected
        dataset.close()
    held = sum(path.stat().st_size for path in (tmp_path / "shards").glob("*/data/*"))
    assert held <= (2.5 + max(1, workers)) * size  # the limit, and one that each process is reading


def test_tars_are_fetched_ahead(root: Path, tmp_path: Path) -> None:
    with serving(root, tags=True) as server:
        url = f"{server.url}/photos/x-{{000..002}}.tar"
        opened(url, config_of(tmp_path)).close()
        shutil.rmtree(next((tmp_path / "shards").glob("*/data")))
        server.requests.clear()
        reader = opened(url, config_of(tmp_path))
        reader.prefetch([8, 9, 0])
        assert reader._ahead is not None
        while reader._ahead._known:
            pass
        assert sorted(tars_got(server)) == ["x-000.tar", "x-002.tar"]
        assert reader.read(8) == local(root).read(5 + 8)
        assert len(tars_got(server)) == 2


def test_a_tar_that_changes_is_indexed_anew(root: Path, tmp_path: Path) -> None:
    path = root / "photos" / "x-000.tar"
    with serving(root, tags=True) as server:
        url = f"{server.url}/photos/x-000.tar"
        first, other = opened(url, config_of(tmp_path)), opened(url, config_of(tmp_path))
        photos(path, 50, 4)  # of the same length
        second = opened(url, config_of(tmp_path))
        assert [second.key(i) for i in range(4)] == ["0050", "0051", "0052", "0053"]
        assert second.fingerprint != first.fingerprint
        assert first.key(0) == "0000"  # of the copy in the cache
        shutil.rmtree(next((tmp_path / "shards").glob("*/data")))
        for _ in range(2):
            with pytest.raises(ShardError, match=rf"^{url}: has changed since it was first read \(begin anew\)"):
                other.read(0)
        assert second.read(0)["txt"] == b"text 50"


def test_a_tar_that_changes_on_a_server_that_does_not_say_so_is_noticed_when_it_comes_again(
    root: Path, tmp_path: Path
) -> None:
    path = root / "photos" / "x-000.tar"
    with serving(root) as server:
        url = f"{server.url}/photos/x-000.tar"
        opened(url, config_of(tmp_path)).close()
        photos(path, 50, 4)
        shutil.rmtree(next((tmp_path / "shards").glob("*/data")))
        with pytest.raises(ShardError, match=r"has changed since it was first read \(begin anew\)"):
            opened(url, config_of(tmp_path)).read(0)
        assert opened(url, config_of(tmp_path)).read(0)["txt"] == b"text 50"


def test_an_altered_copy_in_the_cache_is_fetched_again(root: Path, tmp_path: Path) -> None:
    with serving(root, tags=True) as server:
        url = f"{server.url}/photos/x-000.tar"
        reader = opened(url, config_of(tmp_path))
        (cached,) = (tmp_path / "shards").glob("*/data/*.tar")
        flip(cached, int(reader._tar(0).reader.index.offsets[1, 0]) - 500)  # in the header of a member
        assert contents(reader) == contents(local(root, "photos/x-000.tar"))
        assert len(tars_got(server)) == 2
        flip(cached, int(reader._tar(0).reader.index.offsets[1, 0]) - 500)
        with pytest.raises(DamagedSampleError, match=r"^x-000\.tar: sample 0001: jpg: its header"):
            reader.read(1)


def test_oddities_are_told_as_of_local_tars(tmp_path: Path) -> None:
    web = tmp_path / "web"
    tar(web / "odd.tar", [("a.txt", b"1"), ("b.jpg", b"2"), ("a.txt", b"3"), ("c.txt", b"4"), ("../d.txt", b"5")])
    whole = (web / "odd.tar").read_bytes()
    (web / "cut.tar").write_bytes(whole[:2000])
    (web / "small.tar").write_bytes(gzip.compress(whole))
    with serving(web) as server:

        def outcome(place: str, **options: Any) -> object:
            try:
                reader = ForeignReader(place, fields=["txt"], cache=config_of(tmp_path), **options)
            except ShardError as error:
                return str(error).replace(str(web), server.url)
            return reader.problems, reader.counts, [(reader.key(i), reader.read(i)) for i in range(len(reader))]

        for name in ("odd.tar", "cut.tar", "small.tar"):
            for options in ({}, {"on_damage": "skip"}, {"on_damage": "skip", "on_missing": "skip"}):
                there = [outcome(f"{server.url}/{name}", **options) for _ in range(2)]
                assert there == [outcome(str(web / name), **options)] * 2
        assert "unsafe name" in str(there) or "compressed with gzip" in str(there)


def test_what_is_not_there_is_one_line(root: Path, tmp_path: Path) -> None:
    (root / "empty").mkdir()
    with serving(root, pages=True) as server, serving(root) as bare:
        for given, message in (
            (
                f"{server.url}/photos/x-{{002..003}}.tar",
                rf"^{server.url}/photos/x-003\.tar: no such file \(give the URL",
            ),
            (f"{server.url}/empty", rf"^{server.url}/empty: holds no tars \(give the URL"),
            (f"{server.url}/photos/z-*.tar", rf"^{server.url}/photos/z-\*\.tar: no such tars"),
            (f"{server.url}/*/x-000.tar", r"\* can stand in the last part only"),
            (
                f"{bare.url}/photos?token=secret",
                rf"^{bare.url}/photos: no such folder, or no list of its files is to be",
            ),
            ([f"{server.url}/photos/x-000.tar", f"{server.url}/photos/"], "given twice"),
            (f"{server.url}/photos/x-{{3..1}}.tar", "goes backwards"),
            ("ftp::http://host/x.tar", "chained URLs and commands are refused"),
        ):
            with pytest.raises(ShardError, match=message) as caught:
                opened(given, config_of(tmp_path))  # type: ignore[arg-type]
            assert "\n" not in str(caught.value)
            assert "secret" not in str(caught.value)
        bare.faults["photos"].append(Fault(status=403))
        with pytest.raises(ShardError, match=rf"^{bare.url}/photos: cannot be listed: HTTP 403 .*x-\{{000\.\.012\}}"):
            opened(f"{bare.url}/photos", config_of(tmp_path))
        bare.faults["x-001.tar"].extend([Fault(status=500)] * 20)
        with pytest.raises(ShardError, match=r"x-001\.tar: cannot be read"):
            opened(f"{bare.url}/photos/x-{{000..002}}.tar", config_of(tmp_path))


def test_indexes_go_where_they_are_told_to(root: Path, tmp_path: Path) -> None:
    with serving(root, tags=True) as server:
        url = f"{server.url}/photos/x-{{000..001}}.tar"
        for _ in range(2):
            opened(url, config_of(tmp_path), index_dir=tmp_path / "told").close()
        assert len(list((tmp_path / "told").iterdir())) == 2
        assert not list((tmp_path / "shards").glob("*/.symile/*.npz"))
        assert len(tars_got(server)) == 2


def test_processes_scan_them_each_once(root: Path, tmp_path: Path) -> None:
    with serving(root, tags=True) as server:
        reader = opened(f"{server.url}/photos/x-{{000..002}}.tar", config_of(tmp_path), workers=2)
        assert contents(reader) == contents(local(root, "photos/x-*.tar"))
        assert sorted(tars_got(server)) == [f"x-{s:03d}.tar" for s in range(3)]


def test_a_tar_with_as_long_a_name_as_a_file_system_takes_comes_into_the_cache(tmp_path: Path) -> None:
    name = f"{'字' * 83}.tar"  # 253 bytes
    path = photos(tmp_path / "web" / name, 0, 3)
    with serving(tmp_path / "web", pages=True) as server:
        reader = opened(server.url, config_of(tmp_path))
        assert contents(reader) == contents(ForeignReader(path, fields=FIELDS, index_dir=tmp_path / "indexes"))
        assert len(list((tmp_path / "indexes").iterdir())) == 1
        server.requests.clear()
        assert len(opened(server.url, config_of(tmp_path))) == 3
        assert tars_got(server) == []
