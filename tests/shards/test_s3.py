"""Against moto's S3 server on 127.0.0.1, reached as users reach theirs."""

from __future__ import annotations

import random
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from moto.server import ThreadedMotoServer
from remote_servers import proxying, s3_endpoint
from shard_samples import full_sample, write_dataset

from symile_m3.shards import (
    CacheConfig,
    DatasetReader,
    Loader,
    LoaderConfig,
    RawSample,
    RetryConfig,
    ShardError,
    Storage,
    open_storage,
)

FAST = RetryConfig(attempts=6, first_wait_s=0.001, max_wait_s=0.01)


def big_sample(i: int) -> RawSample:
    return RawSample(f"{i:06d}", {"jpg": random.Random(i).randbytes(100_000), "txt": f"{i}".encode()})


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        number = int(free.getsockname()[1])
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=number, verbose=False)
    server.start()
    with s3_endpoint(f"http://127.0.0.1:{number}"):
        import s3fs

        s3fs.S3FileSystem().mkdir("bucket")
    yield number
    server.stop()


@pytest.fixture
def endpoint(port: int) -> Iterator[int]:
    with s3_endpoint(f"http://127.0.0.1:{port}"):
        yield port


def upload(root: Path, storage: Storage) -> None:
    """As a build does it: index.json last."""
    paths = [path for path in root.rglob("*") if path.is_file() and path.name != "index.json"]
    for path in [*paths, root / ".symile" / "index.json"]:
        storage.write_file(path, path.relative_to(root).as_posix())


def same_samples(reader: DatasetReader, root: Path) -> bool:
    local = DatasetReader(root, "train")
    return len(reader) == len(local) and all(
        (reader.key(i), reader.read(i)) == (local.key(i), local.read(i)) for i in range(len(local))
    )


@pytest.mark.usefixtures("endpoint")
def test_a_dataset_in_a_bucket_reads_as_a_local_one(tmp_path: Path) -> None:
    root = write_dataset(tmp_path / "m3", (3, 1, 4), full_sample)
    url = "s3://bucket/whole/m3"
    storage = open_storage(url, retry=FAST)
    upload(root, storage)
    assert storage.list("data") == sorted(path.name for path in (root / "data").iterdir())
    assert storage.list(".symile")[0] == "index.json"
    cache = CacheConfig(directory=tmp_path / "cache", retry=FAST, chunk_bytes=1000)
    reader = DatasetReader(url, "train", cache=cache)
    assert same_samples(reader, root)
    config = LoaderConfig(batch_size=2, seed=1, workers=1)
    remote, local = (
        [sample.key for batch in Loader(source, config) for sample in batch]
        for source in (DatasetReader(url, "train", cache=cache), DatasetReader(root, "train"))
    )
    assert remote == local


@pytest.mark.usefixtures("endpoint")
def test_files_in_a_bucket_come_and_go() -> None:
    storage = open_storage("s3://bucket/files", retry=FAST)
    assert storage.list("data") == []
    assert not storage.exists("data/a")
    with pytest.raises(FileNotFoundError):
        storage.read_bytes("data/a")
    with pytest.raises(FileNotFoundError):
        storage.size("data/a")
    for content in (b"first", b"second, longer"):
        storage.write_bytes("data/a", content)
        assert (storage.read_bytes("data/a"), storage.size("data/a")) == (content, len(content))
    storage.write_bytes("data/b/c", b"")
    assert storage.list("data") == ["a"]
    assert not storage.exists("data")
    storage.remove("data/a")
    storage.remove("data/a")
    assert storage.list("data") == []


@pytest.mark.usefixtures("endpoint")
def test_a_file_of_several_parts_arrives_whole(tmp_path: Path) -> None:
    path = tmp_path / "big"
    path.write_bytes(random.Random(0).randbytes(12 << 20))
    storage = open_storage("s3://bucket/parts", retry=FAST)
    storage.write_file(path, "big")
    assert storage.size("big") == 12 << 20
    assert storage.read_bytes("big") == path.read_bytes()


@pytest.mark.usefixtures("endpoint")
def test_a_bucket_that_is_not_there_is_one_line() -> None:
    storage = open_storage("s3://no-such-bucket/m3", retry=FAST)
    with pytest.raises(ShardError, match=r"^s3://no-such-bucket/m3/a: cannot be written: ") as caught:
        storage.write_bytes("a", b"1")
    assert "\n" not in str(caught.value)
    with pytest.raises(ShardError, match=r"^s3://no-such-bucket/m3/\.symile/index\.json: no dataset there"):
        DatasetReader("s3://no-such-bucket/m3", "train")


def test_dropped_connections_do_not_show_in_what_is_written_and_read(tmp_path: Path, port: int) -> None:
    root = write_dataset(tmp_path / "m3", (3, 3, 3), big_sample)
    draw = random.Random(2)
    with proxying(port) as proxy, s3_endpoint(proxy.url):
        url = "s3://bucket/drops/m3"
        proxy.drops.extend([1, 100, 1])
        upload(root, open_storage(url, retry=FAST))
        assert proxy.dropped == 3
        proxy.drops.extend(draw.randrange(1000, 60_000) for _ in range(5))
        cache = CacheConfig(directory=tmp_path / "cache", retry=FAST, chunk_bytes=100_000)
        assert same_samples(DatasetReader(url, "train", cache=cache), root)
        assert proxy.dropped == 8
