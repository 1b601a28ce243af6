"""Building: the same bytes whatever happens, and nothing lost or made twice."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from process_groups import wait_until_gone

from symile_m3.build import BuildResult, build, choose_lexicon, describe, open_images, usable_lexicon
from symile_m3.engines import WorkConfig
from symile_m3.errors import BuildError, PlanError, ShardError, SourceError, UsageError
from symile_m3.images import EmojiPool
from symile_m3.media import content_id
from symile_m3.plan import PlanConfig, load_plan
from symile_m3.progress import NoProgress, Task
from symile_m3.shards import DatasetIndex, DatasetLayout, DatasetReader
from symile_m3.speech import EspeakPool

HERE = Path(__file__).parent
CONFIG = PlanConfig(  # as in interrupted_build.py
    languages=("el", "en"),
    words=2,
    classes=8,
    train=48,
    val=16,
    test=16,
    clips=(80, 8, 8),
    shard_samples=16,
)
SMALL = dataclasses.replace(CONFIG, classes=4, train=12, val=4, test=4, clips=(3, 2, 2), shard_samples=5)


def tars(root: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted((root / "data").iterdir())}


def everything(root: Path) -> dict[str, bytes]:
    """Every file of a dataset but the index, which has the name of its directory."""
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file() and path.name != "index.json"
    }


class Counting(NoProgress):
    """Counts what is made."""

    def __init__(self) -> None:
        self.made: Counter[str] = Counter()
        self.lines: list[str] = []

    @contextmanager
    def task(self, label: str, total: int, unit: str, done: int = 0) -> Iterator[Task]:
        progress = self

        class Counted:
            def advance(self, count: int = 1, note: str = "") -> None:
                progress.made[unit] += count

        yield Counted()

    def say(self, line: str) -> None:
        self.lines.append(line)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The undisturbed build, by one process."""
    root = tmp_path_factory.mktemp("whole") / "data"
    progress = Counting()
    result = build(root, CONFIG, workers=1, progress=progress)
    assert result.built == 5
    assert progress.made == {"images": 56, "clips": 192, "samples": 80}
    return root


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, BuildResult]:
    root = tmp_path_factory.mktemp("built") / "small"
    return root, build(root, SMALL, workers=1)


@pytest.fixture
def small(built: tuple[Path, BuildResult], tmp_path: Path) -> tuple[Path, BuildResult]:
    """A copy of a small dataset, and what its build said."""
    root, result = built
    return shutil.copytree(root, tmp_path / "small"), result


def test_what_is_left(whole: Path) -> None:
    assert sorted(path.name for path in whole.iterdir()) == [".symile", "README.md", "croissant.json", "data"]
    layout = DatasetLayout(whole)
    assert list(tars(whole)) == [
        "test-00000-of-00001.tar",
        *(f"train-{i:05d}-of-00003.tar" for i in range(3)),
        "val-00000-of-00001.tar",
    ]
    assert not layout.pool.exists()
    index = DatasetIndex.load(layout.index)
    plan = load_plan(layout.plan)
    assert index.fingerprint == plan.fingerprint
    assert {shard.name: shard.sha256 for shard in index.shards} == tars(whole)
    assert [shard.split for shard in index.shards] == ["train"] * 3 + ["val", "test"]


def test_samples_are_what_the_plan_says(whole: Path) -> None:
    plan = load_plan(DatasetLayout(whole).plan)
    keys = None
    for split, size in CONFIG.sizes.items():
        reader = DatasetReader(whole, split)
        rows = plan.rows(split, 0, size)
        assert len(reader) == size
        for n in range(size):
            sample = reader.read(n)
            record = json.loads(sample["json"])
            assert reader.key(n) == f"{split}-{n:08d}"
            assert record == describe(plan, rows, n)
            assert sample["txt"].decode() == "_".join(record["words"])
            assert content_id(sample["jpg"]) == record["image_id"]
            assert content_id(sample["flac"]) == record["clip_id"]
            assert (
                record["words"][record["target"]]
                == dict(zip(plan.lexicon.languages, plan.lexicon.names[record["class_id"]], strict=True))[
                    record["lang"]
                ]
            )
            keys = keys or set(record)
            assert set(record) == keys
            assert None not in record.values()


def test_two_workers_give_the_same_bytes(whole: Path, tmp_path: Path) -> None:
    build(tmp_path / "two", CONFIG, workers=2)
    assert everything(tmp_path / "two") == everything(whole)


def killed(root: Path, workers: int, phase: str, count: int) -> None:
    """Run the build that kills itself, and wait until all of its processes are gone."""
    command = [sys.executable, str(HERE / "interrupted_build.py"), str(root), str(workers), phase, str(count)]
    process = subprocess.Popen(command, start_new_session=True)
    assert process.wait(timeout=240) == -signal.SIGKILL
    wait_until_gone(process.pid)


@pytest.mark.parametrize(
    ("workers", "moments"),
    [
        (1, [("media", 70), ("shards", 40)]),
        (2, [("media", 20), ("shards", 20)]),
        pytest.param(1, [("media", 10), ("media", 70), ("shards", 3), ("shards", 40)], marks=pytest.mark.slow),
    ],
)
def test_killed_and_run_again(whole: Path, tmp_path: Path, workers: int, moments: list[tuple[str, int]]) -> None:
    root = tmp_path / "killed"
    for phase, count in moments:
        there = {path: path.stat().st_mtime_ns for path in root.rglob("*.tar") if path.is_file()}
        killed(root, workers, phase, count)
        assert not (root / ".symile" / "index.json").exists()
        assert {path: path.stat().st_mtime_ns for path in there} == there  # nothing was made again
    finished = list((root / ".symile" / "done").glob("*.json"))
    progress = Counting()
    result = build(root, CONFIG, workers=1, progress=progress)
    assert result.built == 5 - len(finished)
    assert progress.made["samples"] == 80 - 16 * len(finished)
    assert progress.made["clips"] == progress.made["images"] == 0
    assert everything(root) == everything(whole)  # no temporary files either


def test_a_finished_build_is_left_alone(small: tuple[Path, BuildResult]) -> None:
    root, first = small
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*") if path.is_file()}
    progress = Counting()
    again = build(root, SMALL, workers=1, progress=progress)
    assert (again.built, again.index, dict(progress.made)) == (0, first.index, {})
    assert again.plan.fingerprint == first.plan.fingerprint
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*") if path.is_file() and path.name != "lock"} == {
        path: time_ns for path, time_ns in before.items() if path.name != "lock"
    }


@pytest.mark.parametrize(
    "lost",
    [
        "data/train-00001-of-00003.tar",
        ".symile/train-00001-of-00003.idx.npz",
        ".symile/done/train-00001-of-00003.tar.json",
        ".symile/index.json",
        "README.md",
        "croissant.json",
    ],
)
def test_what_is_deleted_is_made_again(small: tuple[Path, BuildResult], lost: str) -> None:
    root, _ = small
    before = everything(root)
    (root / lost).unlink()
    built = build(root, SMALL, workers=1).built
    assert built == (1 if "train-00001" in lost else 0)
    assert everything(root) == before
    assert (root / ".symile" / "index.json").exists()
    assert not (root / ".symile" / "pool").exists()


@pytest.mark.parametrize("place", [".", "data", ".symile", ".symile/done"])
def test_what_a_killed_build_left_half_written_goes(small: tuple[Path, BuildResult], place: str) -> None:
    import socket

    root, _ = small
    before = everything(root)
    gone = subprocess.Popen(["true"])
    gone.wait()
    host = "".join(c if c.isascii() and c.isalnum() else "_" for c in socket.gethostname())[:32]
    (root / place / f"croissant.json.tmp-{host}-{gone.pid}-0123abcd").write_bytes(b"half")
    build(root, SMALL, workers=1)
    assert everything(root) == before


def test_a_damaged_index_or_marker_is_made_again(small: tuple[Path, BuildResult]) -> None:
    root, first = small
    (root / ".symile" / "index.json").write_text("garbage")
    marker = root / ".symile" / "done" / "val-00000-of-00001.tar.json"
    marker.write_text('{"shard": 3}')
    assert build(root, SMALL, workers=1).built == 1
    assert DatasetIndex.load(root / ".symile" / "index.json") == dataclasses.replace(
        first.index, shards=tuple(first.index.shards)
    )


def test_a_shard_cut_off_is_made_again(small: tuple[Path, BuildResult]) -> None:
    root, _ = small
    before = tars(root)
    os.truncate(root / "data" / "test-00000-of-00001.tar", 1000)
    assert build(root, SMALL, workers=1).built == 1
    assert tars(root) == before


def test_another_plan_is_refused_and_what_differs_named(small: tuple[Path, BuildResult]) -> None:
    root, _ = small
    before = everything(root)
    with pytest.raises(PlanError, match=r"classes 4 \(asked: 5\); seed 0 \(asked: 1\)\. .*--overwrite"):
        build(root, dataclasses.replace(SMALL, classes=5, seed=1), workers=1)
    assert everything(root) == before


def test_overwrite_builds_in_its_place(small: tuple[Path, BuildResult], tmp_path: Path) -> None:
    root, _ = small
    other = dataclasses.replace(SMALL, train=6, seed=1)
    (root / ".symile" / "features").mkdir()
    assert build(root, other, workers=1, overwrite=True).built == 4
    build(tmp_path / "new", other, workers=1)
    assert everything(root) == everything(tmp_path / "new")
    assert not (root / ".symile" / "features").exists()


def test_what_cannot_be_built_leaves_the_directory_as_it_is(small: tuple[Path, BuildResult], tmp_path: Path) -> None:
    root, _ = small
    before = everything(root)
    impossible = dataclasses.replace(SMALL, classes=5000)
    with pytest.raises(UsageError, match="--classes 5000: the lexicon has"):
        build(root, impossible, workers=1, overwrite=True)
    assert everything(root) == before
    with pytest.raises(UsageError):
        build(tmp_path / "new", impossible, workers=1)
    assert not (tmp_path / "new").exists()


def test_a_dataset_that_is_being_removed_is_not_taken_for_a_finished_one(
    small: tuple[Path, BuildResult], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = shutil.copytree(small[0], tmp_path / "data")

    def refuse(path: Path) -> None:
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr("symile_m3.place.shutil.rmtree", refuse)
        with pytest.raises(PlanError, match=rf"^{root}: the dataset there cannot be removed \(Permission denied\)"):
            build(root, SMALL, workers=1, overwrite=True)
    assert not DatasetLayout(root).index.exists()
    assert build(root, SMALL, workers=1).built == 0  # nothing of it was removed but the list
    assert everything(root) == everything(small[0])


@pytest.mark.parametrize("overwrite", [False, True])
def test_foreign_directories_are_refused(tmp_path: Path, overwrite: bool) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(PlanError, match="holds other files and no dataset"):
        build(tmp_path, SMALL, workers=1, overwrite=overwrite)
    with pytest.raises(UsageError, match="is a file"):
        build(tmp_path / "thesis.tex", SMALL, workers=1, overwrite=overwrite)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]
    with pytest.raises(PlanError, match="cannot be written"):
        build(tmp_path / "thesis.tex" / "data", SMALL, workers=1)


def test_one_build_at_a_time(tmp_path: Path) -> None:
    import fcntl

    (tmp_path / ".symile").mkdir()
    with (tmp_path / ".symile" / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for overwrite in (False, True):
            with pytest.raises(PlanError, match="another build is at work"):
                build(tmp_path, SMALL, workers=1, overwrite=overwrite)
    assert build(tmp_path, SMALL, workers=1).built == 5


def test_a_medium_that_cannot_be_made_stops_the_build_and_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> bytes:
        raise SourceError("image train-00000: is blank")

    with monkeypatch.context() as patch:
        patch.setattr(EmojiPool, "make", fail)
        with pytest.raises(SourceError, match="is blank"):
            build(tmp_path / "data", SMALL, workers=1)
    progress = Counting()
    build(tmp_path / "data", SMALL, workers=1, progress=progress)
    assert progress.made == {"images": 28, "samples": 20}  # the clips were there


def test_a_source_that_has_changed_is_refused(small: tuple[Path, BuildResult], monkeypatch: pytest.MonkeyPatch) -> None:
    root, _ = small
    (root / "data" / "val-00000-of-00001.tar").unlink()
    make = EspeakPool.make
    monkeypatch.setattr(EspeakPool, "make", lambda pool, recipe: make(pool, recipe) + b"\0")
    with pytest.raises(PlanError, match="no longer what the plan was made with"):
        build(root, SMALL, workers=1)


def test_a_full_disk_is_one_line_and_resumable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import errno

    from symile_m3.shards import AtomicFile

    root = tmp_path / "data"
    write = AtomicFile.write

    def full(file: AtomicFile, data: bytes) -> None:
        if file.path.name == "val-00000-of-00001.tar":
            raise ShardError(f"{file.path}: cannot be written: {os.strerror(errno.ENOSPC)}")
        write(file, data)

    with monkeypatch.context() as patch:
        patch.setattr(AtomicFile, "write", full)
        with pytest.raises(
            BuildError, match=r"1 of 5 shards .*val-00000-of-00001.tar.*No space left.*the same command"
        ):
            build(root, SMALL, work=WorkConfig(workers=1, retry_wait_s=0.0))
    assert build(root, SMALL, workers=1).built == 1  # the others were made


def test_the_place_of_a_dataset_does_not_matter(small: tuple[Path, BuildResult], tmp_path: Path) -> None:
    root, _ = small
    shutil.move(root, tmp_path / "moved")
    (tmp_path / "moved" / "data" / "val-00000-of-00001.tar").unlink()
    assert build(tmp_path / "moved", SMALL, workers=1).built == 1


def test_classes_are_usable_ones() -> None:
    config = dataclasses.replace(SMALL, languages=("ja", "zh"), classes=400)
    progress = Counting()
    lexicon = choose_lexicon(config, progress)
    assert len(lexicon) == 400
    assert lexicon.clashes() == []
    assert len(usable_lexicon(open_images(config), config, progress)) >= 500
