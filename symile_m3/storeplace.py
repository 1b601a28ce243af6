"""A dataset built into a store by URL: made on the local disk shard by shard, and uploaded.

    ~/.cache/symile-m3/builds/
        m3-0c1f8a52b9e4/            one folder for each URL, laid out as a dataset
            .symile/plan.json           as in the store
            .symile/pool/               media made ahead of the shards
            data/                       the shards that are being made and uploaded

What is done is told by the store alone: its plan, and the marker of each shard, which is uploaded behind the
tar and its sidecar. So a build goes on from any machine, and the folder may be removed at any time at which
no build is at work.
"""

from __future__ import annotations

import contextlib
import re
import secrets
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

from symile_m3.card import CROISSANT, write_card
from symile_m3.engines import WorkConfig
from symile_m3.errors import PlanError, ShardError, UsageError
from symile_m3.place import Place, Shard
from symile_m3.plan import Plan, load_plan, save_plan
from symile_m3.shardjob import Media, every_shard, marked_shard
from symile_m3.shards import (
    CacheConfig,
    DatasetIndex,
    DatasetLayout,
    RetryConfig,
    ShardInfo,
    Storage,
    local_path,
    shard_name,
)
from symile_m3.shards.layout import DATA, META
from symile_m3.shards.storage import RemoteStorage
from symile_m3.shards.urls import url_name
from symile_m3.storelock import LOCK, StoreLock

T = TypeVar("T")
R = TypeVar("R")

DONE = f"{META}/done"
PLAN = f"{META}/plan.json"
INDEX = f"{META}/index.json"
_REQUESTS = 16  # at a time, where many small ones are to be made
_TEMP = re.compile(r"(.+\.(tar|idx\.npz|tar\.json)\.tmp|probe)-[0-9a-f]{8}")


def open_place(root: Path | str, *, retry: RetryConfig | None = None) -> Place:
    """The place at a path or URL. No store is reached yet.

    Raises:
        ShardError: the URL is of a kind that is refused or unknown, or a package for it is missing.
    """
    local = local_path(root)
    return StorePlace(str(root), retry=retry) if local is None else Place(local)


@dataclass(frozen=True, kw_only=True, slots=True)
class UploadJob:
    """Makes a shard in the local folder, uploads it, its sidecar and then its marker, and removes them.

    Attributes:
        make: makes it.
        layout: the local folder.
        storage: where to.
    """

    make: Callable[[Shard], ShardInfo]
    layout: DatasetLayout
    storage: Storage

    def __call__(self, shard: Shard) -> ShardInfo:
        info = self.make(shard)
        paths = _files(self.layout, info.name)
        try:
            for path in paths:
                self.storage.write_file(path, path.relative_to(self.layout.root).as_posix())
        finally:
            _remove(paths)
        return info


class StorePlace(Place):
    """A store in which a dataset is built, with its folder on this machine.

    A build alone holds the lock of the store (see `StoreLock`) while it makes or removes anything. Ranks work side
    by side and hold none; they wait for no build alone, and are refused while one is at work. A build alone that
    is started beside ranks makes the same bytes as they do.

    Args:
        url: of the dataset.
        retry: how failures of the store are tried again.

    Raises:
        UsageError: it is a web server, which takes no files.
        ShardError: the URL is of a kind that is refused or unknown, or a package for it is missing.
    """

    advice = "set XDG_CACHE_HOME to a directory with room, which all machines of a cluster share"

    def __init__(self, url: str, *, retry: RetryConfig | None = None) -> None:
        self.storage = RemoteStorage(url, retry=retry)
        self._store_lock = StoreLock(self.storage)
        if urlsplit(url).scheme.lower() in ("http", "https"):
            raise UsageError(
                f"--data {self.storage.root}: cannot be written over HTTP; name a directory, or a store such as "
                "s3://bucket/m3"
            )
        self.url = url.rstrip("/")
        self.layout = DatasetLayout(CacheConfig().directory.with_name("builds") / url_name(url))
        self.root = self.storage.root
        self.name = self.root.rpartition("/")[2]

    def check(self) -> None:
        if self.has_plan() or self.storage.list(META):
            return
        if self.storage.list() or self.storage.list(DATA):
            raise PlanError(f"--data {self.root}: holds other files and no dataset; name an empty or a new place")

    def has_plan(self) -> bool:
        return self.storage.exists(PLAN)

    def _load_plan(self) -> Plan:
        plan = load_plan(f"{self.url}/{PLAN}")
        save_plan(plan, self.layout.plan)  # for the processes that make the shards
        return plan

    def put_plan(self, plan: Plan) -> None:
        save_plan(plan, self.layout.plan)
        self.storage.write_file(self.layout.plan, PLAN)

    def begin(self, work: WorkConfig, shards: Sequence[str]) -> None:
        super().begin(work, shards)
        if not shards:
            return
        for name in shards:
            _remove(_files(self.layout, name))
        # A store that takes nothing is better known now than when the media are made.
        if work.world == 1:
            self._store_lock.hold()
            return
        self._store_lock.wait_for_others()
        probe = f"{META}/probe-{secrets.token_hex(4)}"
        self.storage.write_bytes(probe, b"")
        self.storage.remove(probe)

    @contextlib.contextmanager
    def at_work(self, work: WorkConfig) -> Iterator[None]:
        with super().at_work(work):
            try:
                yield
            finally:
                self._store_lock.release()

    def listed(self, plan: Plan) -> set[Shard]:
        marked, tars, sidecars = (set(self.storage.list(folder)) for folder in (DONE, DATA, META))
        names = {shard: shard_name(*shard, plan.shard_count(shard[0])) for shard in every_shard(plan)}
        return {
            shard
            for shard, name in names.items()
            if self.layout.marker(name).name in marked and name in tars and self.layout.sidecar(name).name in sidecars
        }

    def finished(self, plan: Plan, shards: Iterable[Shard]) -> dict[Shard, ShardInfo]:
        asked = list(shards)

        def look(shard: Shard) -> ShardInfo | None:
            name = shard_name(*shard, plan.shard_count(shard[0]))
            with contextlib.suppress(FileNotFoundError, ValueError, KeyError, TypeError):
                info = marked_shard(self.storage.read_bytes(f"{DONE}/{name}.json"), plan.fingerprint)
                if info is not None and info.name == name and self.storage.size(f"{DATA}/{name}") == info.filesize:
                    return info
            return None

        found = zip(asked, _many(look, asked), strict=True)
        return {shard: info for shard, info in found if info is not None}

    def job(self, plan: Plan, media: Media) -> Callable[[Shard], ShardInfo]:
        return UploadJob(make=super().job(plan, media), layout=self.layout, storage=self.storage)

    def index(self) -> DatasetIndex | None:
        try:
            return DatasetIndex.parse(self.storage.read_bytes(INDEX), f"{self.root}/{INDEX}")
        except (FileNotFoundError, ShardError):
            return None

    def _has_cards(self) -> bool:
        return all(self.storage.exists(name) for name in ("README.md", CROISSANT))

    def complete(self, plan: Plan, index: DatasetIndex) -> None:
        self._store_lock.check()
        there = self.plan(plan.config)
        if there is None or there.fingerprint != plan.fingerprint:
            raise PlanError(f"{self.root}: its plan was replaced by another build; let one build at a time work there")
        with tempfile.TemporaryDirectory() as scratch:
            layout = DatasetLayout(Path(scratch))
            write_card(layout, plan, index)
            index.save(layout.index)
            for folder in (DATA, DONE, META):  # what killed builds left
                left = [f"{folder}/{name}" for name in self.storage.list(folder) if _TEMP.fullmatch(name)]
                _many(self.storage.remove, left)
            for name in ("README.md", CROISSANT, INDEX):  # the index last: it says that the dataset is complete
                self.storage.write_file(layout.root / name, name)

    def leave(self, *, complete: bool) -> None:
        if complete:
            super().clear()

    def clear(self) -> None:
        """Remove the dataset in the store, index first and plan last, and the folder of this machine."""
        self._store_lock.hold()
        _many(self.storage.remove, [INDEX, "README.md", CROISSANT])
        for folder in (DONE, DATA, META):
            names = [f"{folder}/{name}" for name in self.storage.list(folder)]
            _many(self.storage.remove, [name for name in names if name not in (PLAN, LOCK)])
        self.storage.remove(PLAN)
        super().clear()


def _files(layout: DatasetLayout, name: str) -> tuple[Path, Path, Path]:
    """A shard's tar, sidecar and marker, in the order in which they are uploaded."""
    return layout.shard(name), layout.sidecar(name), layout.marker(name)


def _remove(paths: Iterable[Path]) -> None:
    for path in paths:
        path.unlink(missing_ok=True)


def _many(function: Callable[[T], R], things: Sequence[T]) -> list[R]:
    """The results of many requests, some at a time, in order."""
    with ThreadPoolExecutor(_REQUESTS) as pool:
        return list(pool.map(function, things))
