"""Shards of a remote dataset, kept on the local disk within a limit and shared by all processes of a machine.

    ~/.cache/symile-m3/shards/
        m3-0c1f8a52b9e4-5d3b.../            one folder for each dataset, by its URL and its index.json
            data/train-00000-of-00016.tar       shards, each checked against its SHA-256 before it has this name
            data/train-00001-of-00016.tar.part  one on its way
            .symile/index.json, *.idx.npz       small files, and features made of the media
        photos-93ab07e1c2d4-tars/           tars of others, by the URL of their folder; see `remote_tars`
        locks/

A dataset's folder is laid out as the dataset, so what reads a local dataset reads this one. A dataset that
is built anew at the same URL has another index.json, hence another folder.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from symile_m3.shards.atomic import write_bytes
from symile_m3.shards.cache_folder import CacheConfig, CacheFolder, Lease
from symile_m3.shards.download import download
from symile_m3.shards.errors import ShardError
from symile_m3.shards.index import DatasetIndex, ShardInfo
from symile_m3.shards.layout import DATA, META, DatasetLayout
from symile_m3.shards.storage import RemoteStorage
from symile_m3.shards.urls import local_path, url_name

_SHA256 = re.compile(r"[0-9a-f]{64}")


class ShardCache(CacheFolder):
    """One remote dataset in the cache. It is picklable, and may be used by many threads and processes.

    Args:
        url: of the dataset.
        config: see `CacheConfig`.

    Attributes:
        config: the configuration.
        layout: the dataset's folder in the cache. Its index.json is there; of the rest what has been asked for.
        index: the dataset's shards.

    Raises:
        ShardError: the URL is refused, there is no dataset, or the cache cannot be written.
    """

    def __init__(self, url: str, config: CacheConfig | None = None) -> None:
        config = config or CacheConfig()
        self.storage = storage = RemoteStorage(url, retry=config.retry)
        place = f"{storage.root}/{META}/index.json"
        try:
            content = storage.read_bytes(f"{META}/index.json")
        except FileNotFoundError:
            raise ShardError(f"{place}: no dataset there (build one first)") from None
        self.index = DatasetIndex.parse(content, place)
        for info in self.index.shards:
            if not _SHA256.fullmatch(info.sha256) or info.name in ("", ".", ".."):
                raise ShardError(f"{place}: the entry of {info.name!r} has no proper name or SHA-256")
        version = hashlib.sha256(content).hexdigest()[:12]
        super().__init__(config, f"{url_name(url)}-{version}", "index.json")
        self.touch()
        if not self.layout.index.exists():
            write_bytes(self.layout.index, content)

    def shard(self, info: ShardInfo) -> Lease:
        """A shard, fetched unless it is there, whole and checked; see `lease`.

        Raises:
            ShardError: it cannot be had, or is not what `info` says; the cache cannot be written.
        """

        def fetch(part: Path) -> None:
            download(
                self.storage,
                f"{DATA}/{info.name}",
                part,
                filesize=info.filesize,
                sha256=info.sha256,
                chunk_bytes=self.config.chunk_bytes,
            )

        return self.lease(info.name, info.filesize, fetch)

    def fetch(self, info: ShardInfo) -> None:
        """Have a shard in the cache, as `shard` does, for later."""
        self.shard(info).close()

    def has(self, info: ShardInfo) -> bool:
        """Whether a shard is in the cache."""
        return self.layout.shard(info.name).exists()

    def file(self, name: str) -> Path | None:
        """Another file of the dataset, such as `.symile/plan.json`, fetched unless it is there; None if none is.

        Raises:
            ShardError: it cannot be had, or the cache cannot be written.
        """
        path = self.layout.root / name
        if not path.exists():
            with self.locked(name):
                if not path.exists():
                    try:
                        content = self.storage.read_bytes(name)
                    except FileNotFoundError:
                        return None
                    write_bytes(path, content)
        return path


def open_layout(
    root: Path | str | ShardCache, config: CacheConfig | None = None
) -> tuple[ShardCache | None, DatasetLayout]:
    """The cache, None for a local dataset, and the folder in which a dataset's files are or will be.

    Raises:
        ShardError: `root` is a URL at which there is no dataset.
    """
    if isinstance(root, ShardCache):
        return root, root.layout
    local = local_path(root)
    if local is not None:
        return None, DatasetLayout(local)
    cache = ShardCache(str(root), config)
    return cache, cache.layout
