"""What the ranks of a build look at, and what they leave alone."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import symile_m3.shardjob
from symile_m3.build import build
from symile_m3.distinct import check_media, distinct_media, media_ids
from symile_m3.engines import LocalEngine, WorkConfig
from symile_m3.errors import PlanError, ShardError
from symile_m3.media import SpeechOptions, content_id
from symile_m3.mediastore import MediaStore, make_media
from symile_m3.plan import PlanConfig
from symile_m3.progress import NoProgress
from symile_m3.shards import DatasetIndex, DatasetLayout, ShardInfo
from symile_m3.speech import open_clip_pool

CONFIG = PlanConfig(
    languages=("el", "en"), words=2, classes=4, train=40, val=4, test=4, clips=(12, 2, 2), shard_samples=4
)


def rank(number: int, world: int) -> WorkConfig:
    return WorkConfig(workers=1, rank=number, world=world, retry_wait_s=0.0)


class Said(NoProgress):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)


@contextmanager
def markers_read() -> Iterator[list[str]]:
    """The shards whose markers are read in the block."""
    read: list[str] = []
    look = symile_m3.shardjob.marked_shard

    def noted(marker: bytes, fingerprint: str) -> ShardInfo | None:
        read.append(json.loads(marker)["shard"]["name"])
        return look(marker, fingerprint)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(symile_m3.shardjob, "marked_shard", noted)
        yield read


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("ranks") / "data"
    build(root, CONFIG, workers=1)
    return root


def tars(root: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (root / "data").iterdir()}


def test_a_rank_reads_the_markers_of_its_own_shards_and_the_last_those_of_all(whole: Path, tmp_path: Path) -> None:
    root = tmp_path / "data"
    index = DatasetIndex.load(DatasetLayout(whole).index)
    names = [shard.name for shard in index.shards]
    for number, expected in ((0, []), (1, []), (2, names[0::3] + names[1::3])):
        with markers_read() as read:
            result = build(root, CONFIG, work=rank(number, 3))
        assert sorted(read) == sorted(expected)
        shown = names if number == 2 else names[number::3]
        assert [shard.name for shard in result.index.shards] == shown
        assert len(result.missing) == (8, 4, 0)[number]
    assert tars(root) == tars(whole)
    assert list(DatasetIndex.load(DatasetLayout(root).index).shards) == list(index.shards)
    with markers_read() as read:  # the others are known from the index
        again = build(root, CONFIG, work=rank(1, 3))
    assert sorted(read) == sorted(names[1::3])
    assert (again.built, again.missing, list(again.index.shards)) == (0, (), list(index.shards))


@pytest.mark.parametrize("damage", ["another plan", "garbage", "cut off"])
def test_a_listed_shard_that_is_not_complete_is_missing(whole: Path, tmp_path: Path, damage: str) -> None:
    """That of rank 0, found by rank 1 when it would complete the dataset."""
    root = tmp_path / "data"
    build(root, CONFIG, work=rank(0, 2))
    name = "train-00004-of-00010.tar"
    layout = DatasetLayout(root)
    if damage == "cut off":
        layout.shard(name).write_bytes(layout.shard(name).read_bytes()[:-1024])
    elif damage == "garbage":
        layout.marker(name).write_text("{")
    else:
        record = json.loads(layout.marker(name).read_text())
        layout.marker(name).write_text(json.dumps({**record, "fingerprint": "0" * 32}))
    result = build(root, CONFIG, work=rank(1, 2))
    assert (result.built, result.missing) == (6, (name,))
    assert not layout.index.exists()
    assert build(root, CONFIG, work=rank(0, 2)).built == 1
    assert tars(root) == tars(whole)
    assert layout.index.exists()


def test_a_rank_without_a_shard_makes_nothing(whole: Path, tmp_path: Path) -> None:
    said = Said()
    idle = build(tmp_path / "data", CONFIG, work=rank(12, 13), progress=said)
    assert said.lines == ["rank 12 of 13 has no shard to make: there are 12"]
    assert (idle.plan, idle.built, idle.missing, list(idle.index.shards)) == (None, 0, (), [])
    assert not (tmp_path / "data").exists()
    for number in range(12):
        last = build(tmp_path / "data", CONFIG, work=rank(number, 13))
    assert (last.built, last.missing) == (1, ())
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "data").rglob("*")}
    assert build(tmp_path / "data", CONFIG, work=rank(12, 13)).plan is None
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "data").rglob("*")} == before
    assert tars(tmp_path / "data") == tars(whole)
    with pytest.raises(PlanError, match="holds other files"):
        build(tmp_path, CONFIG, work=rank(12, 13))


def test_media_are_hashed_alike_by_one_process_or_several(tmp_path: Path) -> None:
    pool = open_clip_pool("espeak", SpeechOptions(clips=(100, 2, 2)))
    recipes, store = make_media(pool, "clips", ("en",), tmp_path, engine=LocalEngine(1), progress=NoProgress())
    assert len(store.paths) == 2
    ids = {recipe.name: content_id(store.read(recipe.name)) for recipe in recipes}
    assert media_ids(store, LocalEngine(2)) == media_ids(store, LocalEngine(2), together=0) == ids
    assert media_ids(MediaStore([], "flac"), LocalEngine(2)) == {}
    media, _ = distinct_media(recipes, ids, "clips")
    check_media(media, ids)
    name = media[70].recipe.name
    for wrong in ({**ids, name: "0" * 16}, {other: ids[other] for other in ids if other != name}):
        with pytest.raises(PlanError, match=f"^{name} from espeak.* is no longer what the plan"):
            check_media(media, wrong)
    pack = bytearray(store.paths[1].read_bytes())
    pack[len(pack) // 2] ^= 1
    store.paths[1].write_bytes(pack)
    for together in (0, 2):
        with pytest.raises(ShardError, match="was altered; delete the file"):
            media_ids(store, LocalEngine(2), together=together)
