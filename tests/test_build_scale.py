"""Builds worked off by several processes, machines or jobs, and shards that fail on the way."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from remote_servers import serving_s3

from symile_m3.build import build
from symile_m3.engines import FAILURES_IN_A_ROW, Engine, LocalEngine, WorkConfig, settle
from symile_m3.errors import BuildError, PlanError, ShardError, SymileM3Error, UsageError
from symile_m3.media import SpeechOptions
from symile_m3.mediastore import MediaStore, make_media
from symile_m3.parallel import Outcome, attempt, attempt_parallel
from symile_m3.plan import PlanConfig, load_plan
from symile_m3.progress import NoProgress
from symile_m3.shardjob import Media, build_shard, every_shard, shard_samples
from symile_m3.shards import AtomicFile, DatasetIndex, DatasetLayout
from symile_m3.speech import open_clip_pool

HERE = Path(__file__).parent
CONFIG = PlanConfig(
    languages=("el", "en"), words=2, classes=4, train=40, val=4, test=4, clips=(12, 2, 2), shard_samples=4
)
ONE = WorkConfig(workers=1, retry_wait_s=0.0)


def content(root: Path) -> dict[str, bytes]:
    """Every file but the index, which has the name of its directory."""
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file() and path.name != "index.json"
    }


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("whole") / "data"
    assert build(root, CONFIG, work=ONE).built == 12
    return root


@pytest.fixture(scope="module")
def half(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A build of which rank 0 of 2 has made its share; the media are there."""
    root = tmp_path_factory.mktemp("half") / "data"
    build(root, CONFIG, work=WorkConfig(workers=1, rank=0, world=2))
    return root


def media_of(root: Path) -> Media:
    pool = DatasetLayout(root).pool
    return Media(
        images=MediaStore(sorted(pool.glob("images-*.tar")), "jpg"),
        clips=MediaStore(sorted(pool.glob("clips-*.tar")), "flac"),
    )


def test_a_shard_is_a_pure_function_of_plan_and_media(whole: Path, half: Path, tmp_path: Path) -> None:
    plan, media = load_plan(DatasetLayout(half).plan), media_of(half)
    index = DatasetIndex.load(DatasetLayout(whole).index)
    for shard, info in reversed(list(zip(every_shard(plan), index.shards, strict=True))):
        layout = DatasetLayout(tmp_path / "-".join(map(str, shard)))
        assert build_shard(plan, *shard, media, layout) == info
        assert layout.shard(info.name).read_bytes() == DatasetLayout(whole).shard(info.name).read_bytes()
    one, two = (list(shard_samples(plan, "train", 3, media)) for _ in range(2))
    assert one == two


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1)])
def test_ranks_make_their_shares_and_the_last_completes(whole: Path, tmp_path: Path, order: tuple[int, ...]) -> None:
    root = tmp_path / "data"
    layout = DatasetLayout(root)
    names = [shard.name for shard in DatasetIndex.load(DatasetLayout(whole).index).shards]
    made: set[str] = set()
    for rank in order:
        result = build(root, CONFIG, work=WorkConfig(workers=1, rank=rank, world=3))
        made |= set(names[rank::3])
        assert result.built == 4
        assert {path.name for path in layout.data.iterdir()} == made
        assert set(result.missing) == set(names) - made
        assert layout.index.exists() == (not result.missing)
        assert not layout.pool.exists() or result.missing
    assert content(root) == content(whole)
    again = build(root, CONFIG, work=WorkConfig(workers=1, rank=1, world=3))
    assert (again.built, again.missing) == (0, ())


def test_ranks_at_the_same_time_do_not_spoil_each_others_work(whole: Path, tmp_path: Path) -> None:
    root = tmp_path / "data"
    script = (
        "import sys; from pathlib import Path; sys.path.insert(0, sys.argv[1]); from test_build_scale import *\n"
        "build(Path(sys.argv[2]), CONFIG, work=WorkConfig(workers=1, rank=int(sys.argv[3]), world=2))"
    )
    jobs = [
        subprocess.Popen([sys.executable, "-c", script, str(HERE), str(root), str(rank)], stderr=subprocess.PIPE)
        for rank in (0, 1)
    ]
    errors = [job.communicate(timeout=240)[1].decode() for job in jobs]
    assert [job.returncode for job in jobs] == [0, 0], errors
    assert content(root) == content(whole)


def test_a_build_without_ranks_makes_what_they_left(whole: Path, half: Path, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(half, tmp_path / "data")
    result = build(tmp_path / "data", CONFIG, work=ONE)
    assert (result.built, result.missing) == (6, ())
    assert content(tmp_path / "data") == content(whole)


def test_who_may_be_at_work_together(half: Path) -> None:
    import fcntl

    lock, own = (half / ".symile" / name for name in ("lock", "lock-0-of-2"))
    with lock.open("a+") as file, own.open("a+") as mine:
        fcntl.flock(file, fcntl.LOCK_SH)
        with pytest.raises(PlanError, match="another build is at work"):  # a build alone beside a rank
            build(half, CONFIG, work=ONE)
        assert build(half, CONFIG, work=WorkConfig(workers=1, rank=0, world=2)).built == 0
        fcntl.flock(mine, fcntl.LOCK_EX)
        with pytest.raises(PlanError, match="another build is at work"):  # the same rank twice
            build(half, CONFIG, work=WorkConfig(workers=1, rank=0, world=2))
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(PlanError, match="another build is at work"):  # a rank beside a build alone
            build(half, CONFIG, work=WorkConfig(workers=1, rank=1, world=2))
    with pytest.raises(UsageError, match="--overwrite with --rank"):
        build(half, CONFIG, work=WorkConfig(rank=1, world=2), overwrite=True)


@pytest.fixture(scope="module")
def ray_here() -> Iterator[Engine]:
    """A cluster of this process, which knows the way to a bucket; builds that ask for Ray use it."""
    from symile_m3.ray_engine import open_ray

    with serving_s3(), open_ray(2) as engine:
        yield engine


def test_ray_gives_the_same_bytes(ray_here: Engine, whole: Path, tmp_path: Path) -> None:
    result = build(tmp_path / "data", CONFIG, work=WorkConfig(engine="ray", workers=2))
    assert (result.built, result.missing) == (12, ())
    assert content(tmp_path / "data") == content(whole)


def test_ray_uploads_the_same_bytes(
    ray_here: Engine, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import fsspec

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert ray_here.blind(tmp_path / "none") == []  # there are no other machines
    result = build("s3://bucket/data", CONFIG, work=WorkConfig(engine="ray", workers=2))
    assert (result.built, result.missing) == (12, ())
    fs = fsspec.filesystem("s3")
    stored = {path.removeprefix("bucket/data/"): fs.cat_file(path) for path in fs.find("bucket/data")}
    del stored[".symile/index.json"]
    assert {**stored, ".symile/lock": b""} == content(whole)


def test_ray_reports_failures_and_dead_processes(ray_here: Engine, tmp_path: Path) -> None:
    from ray import cloudpickle

    cloudpickle.register_pickle_by_value(sys.modules[__name__])  # its processes cannot import this file
    outcomes = settle(ray_here, Flaky(tmp_path, deadly=True), [1, 2, 3, 4, 5], retries=1)
    check_flaky({outcome.task: outcome for outcome in outcomes}, deadly=True)


@pytest.mark.slow
def test_a_given_cluster_is_used_and_left_running(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")  # else it depends on what Ray finds in the home directory
    code = "import ray; print(ray.init(address='local', num_cpus=2, include_dashboard=False)['address']); input()"
    head = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    assert head.stdout is not None
    monkeypatch.setenv("RAY_ADDRESS", head.stdout.readline().decode().strip())
    script = (
        "import sys; from pathlib import Path; sys.path.insert(0, sys.argv[1]); from test_build_scale import *\n"
        "print(build(Path(sys.argv[2]), CONFIG, work=WorkConfig(engine='ray')).built)"
    )
    for n in (1, 2):  # the second finds the cluster that the first has left
        root = tmp_path / str(n)
        done = subprocess.run([sys.executable, "-c", script, str(HERE), str(root)], capture_output=True, text=True)
        assert (done.returncode, done.stdout) == (0, "12\n"), done.stderr
        assert content(root) == content(whole)
    head.communicate(b"\n", timeout=240)


@pytest.mark.slow
def test_machines_that_do_not_see_the_directory_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    script = (
        "import os, sys; from pathlib import Path; from ray.cluster_utils import Cluster\n"
        "from symile_m3.ray_engine import open_ray\n"
        "cluster = Cluster(initialize_head=True, head_node_args={'num_cpus': 1, 'include_dashboard': False})\n"
        "cluster.add_node(num_cpus=1)\n"
        "os.environ['RAY_ADDRESS'] = cluster.address\n"
        "with open_ray(None) as engine:\n"
        "    print(*(len(engine.blind(Path(sys.argv[1]) / name)) for name in ('.', 'none')))\n"
        "cluster.shutdown()"
    )
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True)
    assert done.stdout.splitlines()[-1:] == ["0 1"], done.stderr


class Flaky:
    """10 times the task; 2 fails once, 3 always; 5 kills its process, if `deadly`."""

    def __init__(self, folder: Path, *, deadly: bool) -> None:
        self.folder, self.deadly = folder, deadly

    def __call__(self, task: int) -> int:
        import os

        tries = self.folder / str(task)
        before = len(tries.read_bytes()) if tries.exists() else 0
        tries.write_bytes(b"x" * (before + 1))
        if task == 2 and before == 0:
            raise OSError("the disk is away")
        if task == 3:
            raise ShardError(f"task {task} is odd")
        if task == 5 and self.deadly:
            os._exit(9)
        return 10 * task


def check_flaky(found: dict[int, Outcome[int, int]], *, deadly: bool) -> None:
    bad = {3, 5} if deadly else {3}
    assert {task: outcome.result for task, outcome in found.items() if task not in bad} == {
        task: 10 * task for task in {1, 2, 3, 4, 5} - bad
    }
    assert isinstance(found[3].error, ShardError)
    assert str(found[3].error) == "task 3 is odd"
    assert "Flaky" in "".join(found[3].error.__notes__) or "__call__" in "".join(found[3].error.__notes__)
    if deadly:
        assert found[5].died
        assert found[5].error is not None


@pytest.mark.parametrize(("workers", "deadly"), [(1, False), (2, True)])
def test_what_fails_is_tried_again_and_stops_no_other(tmp_path: Path, workers: int, deadly: bool) -> None:
    lines: list[str] = []
    function = Flaky(tmp_path, deadly=deadly)
    outcomes = settle(LocalEngine(workers), function, [1, 2, 3, 4, 5], retries=3, say=lines.append)
    check_flaky({outcome.task: outcome for outcome in outcomes}, deadly=deadly)
    assert len(lines) == 3
    assert all("will be tried again" in line for line in lines)
    if not deadly:
        assert [len((tmp_path / str(task)).read_bytes()) for task in (1, 2, 3)] == [1, 2, 4]


def fail(task: int) -> int:
    raise ShardError("no room")


def refuse(task: int) -> int:
    raise PlanError("another plan")


def die(task: int) -> int:
    import os

    os._exit(9)


def test_nothing_is_tried_for_ever() -> None:
    outcomes = list(settle(LocalEngine(1), fail, range(1000), retries=5))
    assert len(outcomes) == FAILURES_IN_A_ROW  # as on a full disk
    (outcome,) = settle(LocalEngine(1), refuse, [1], retries=5, wait_s=60.0)  # stays wrong
    assert isinstance(outcome.error, PlanError)
    with pytest.raises(SymileM3Error, match="a worker process died"):
        list(attempt_parallel(die, range(1000), 2))


def test_the_build_names_what_failed_and_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write: Callable[[AtomicFile, bytes], None] = AtomicFile.write
    tries = {"train-00003-of-00010.tar": 0, "test-00000-of-00001.tar": 0}

    def odd(file: AtomicFile, data: bytes) -> None:
        if file.path.name in tries:
            tries[file.path.name] += 1
            if file.path.name.startswith("train") or tries[file.path.name] == 1:
                raise ShardError(f"{file.path.name}: cannot be written: Input/output error")
        write(file, data)

    with monkeypatch.context() as patch:
        patch.setattr(AtomicFile, "write", odd)
        with pytest.raises(BuildError) as caught:
            build(tmp_path / "data", CONFIG, work=ONE)
    assert str(caught.value) == (
        "1 of 12 shards could not be made: train-00003-of-00010.tar (train-00003-of-00010.tar: cannot be written: "
        "Input/output error); run the same command again: it makes only what is missing"
    )
    assert tries["train-00003-of-00010.tar"] == 3
    assert len(list((tmp_path / "data" / "data").iterdir())) == 11
    assert not (tmp_path / "data" / ".symile" / "index.json").exists()
    assert build(tmp_path / "data", CONFIG, work=ONE).built == 1


def test_an_altered_medium_is_named(half: Path, tmp_path: Path) -> None:
    import shutil

    root = tmp_path / "data"
    shutil.copytree(half, root)
    (pack,) = DatasetLayout(root).pool.glob("images-*.tar")
    there = bytearray(pack.read_bytes())
    there[len(there) // 2] ^= 1
    pack.write_bytes(there)
    with pytest.raises(ShardError, match=r"images-.*was altered; delete the file"):
        build(root, CONFIG, work=ONE)
    pack.unlink()
    assert build(root, CONFIG, work=ONE).missing == ()


def test_a_pack_made_meanwhile_is_not_made_again(tmp_path: Path) -> None:
    pool = open_clip_pool("espeak", SpeechOptions(clips=(100, 2, 2)))
    kwargs = {"engine": LocalEngine(1), "progress": NoProgress()}
    make_media(pool, "clips", ("en",), tmp_path, share=(1, 2), **kwargs)  # type: ignore[arg-type]
    times = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.tar")}
    assert len(times) == 2
    make_media(pool, "clips", ("en",), tmp_path, share=(0, 2), **kwargs)  # type: ignore[arg-type]
    assert {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.tar")} == times


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"engine": "spark"}, "--engine spark: give local or ray"),
        ({"rank": 2, "world": 2}, "--rank 2 --world 2"),
        ({"rank": 1}, "--rank 1 --world 1"),
        ({"world": 0}, "--world 0"),
        ({"rank": -1, "world": 2}, "--rank -1"),
        ({"workers": 0}, "--workers 0"),
        ({"retries": -1}, "-1 retries"),
    ],
)
def test_bad_ways_to_work_are_named(changes: dict[str, int], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        WorkConfig(**changes)  # type: ignore[arg-type]


def test_an_error_of_any_kind_is_one_line_with_its_traceback() -> None:
    outcome = attempt(int, "three")
    assert str(outcome.error) == "ValueError: invalid literal for int() with base 10: 'three'"
    assert "Traceback" in "".join(outcome.error.__notes__ if outcome.error else ())
